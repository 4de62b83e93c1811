"""``deixis segment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import (
    OK,
    OUT,
    DeviceOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    emit,
    field,
    progress,
    put,
    say,
)
from deixis.cli.start import import_networks
from deixis.errors import UsageError
from deixis.io import DEFAULT_MAX_PIXELS, check_out, output_name, read_image, save_mask
from deixis.registry import find


def segment(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)],
    expressions: Annotated[
        list[str],
        typer.Argument(metavar="EXPRESSION", help="What to look for: 'the red chair'.", show_default=False),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="Name (see 'deixis models') or weight folder.")
    ] = "evp-refer-mini",
    out: OutOption = OUT,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """The pixels an expression refers to: X.mask.png, X.overlay.png and X.mask.json in --out.

    For several expressions X.1.mask.png, X.2.mask.png and so on, in their order.
    """
    # Everything that can be wrong with the call is found before torch is imported and a model loaded.
    for expression in expressions:
        if not expression.strip():
            raise UsageError("expression", "is empty", "say what to look for, for example 'the red chair'")
    check_out(out)
    find(model)
    loaded = read_image(image, max_pixels=max_pixels)

    import_networks()
    from deixis.predict import load_mask

    predictor = load_mask(model, device)
    results = []
    with progress(expressions, "segment") as bar:
        for i, expression in enumerate(expressions, start=1):
            note = predictor.remark(expression)
            if note is not None:
                say(f"note: {note}")
            mask = predictor(loaded, expression)
            index = i if len(expressions) > 1 else None
            paths = save_mask(mask, out, output_name(Path(image).name), loaded.rgb, index)
            results.append({**mask.to_dict(), "files": [str(path) for path in paths]})
            if not as_json:
                put(f"{field(expression)}\t{field(paths[0])}")
            say(f"{expression}: {f'found, score {mask.score:.2f}' if mask.found else 'no such object in the picture'}")
            bar.advance()
    if as_json:
        emit(results)
    return OK
