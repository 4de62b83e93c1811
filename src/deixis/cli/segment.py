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
    progress,
    say,
)
from deixis.errors import UsageError
from deixis.io import DEFAULT_MAX_PIXELS


def segment(
    image: Annotated[str, typer.Argument(help="A picture.", show_default=False)],
    expressions: Annotated[list[str], typer.Argument(help="What to look for: 'the red chair'.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Name or weight folder.")] = "evp-refer-mini",
    out: OutOption = OUT,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """The pixels each expression refers to: X.mask.png, X.overlay.png and X.mask.json in --out."""
    from deixis.io import read_image, save_mask
    from deixis.predict import load_mask

    for expression in expressions:
        if not expression.strip():
            raise UsageError("expression", "is empty", "say what to look for, for example 'the red chair'")
    loaded = read_image(image, max_pixels=max_pixels)
    predictor = load_mask(model, device)
    results = []
    with progress(expressions, "segment") as bar:
        for i, expression in enumerate(expressions, start=1):
            mask = predictor(loaded, expression)
            index = i if len(expressions) > 1 else None
            paths = save_mask(mask, out, Path(image).stem, loaded.rgb, index)
            results.append(
                {
                    "expression": expression,
                    "found": mask.found,
                    "score": mask.score,
                    "box": list(mask.box) if mask.found and mask.box else None,
                    "area": mask.area,
                    "model": mask.model,
                    "files": [str(path) for path in paths],
                }
            )
            if not as_json:
                print(f"{expression}\t{paths[0]}")
            say(f"{expression}: {f'found, score {mask.score:.2f}' if mask.found else 'no such object in the picture'}")
            bar.advance()
    if as_json:
        emit(results)
    return OK
