"""``deixis depth``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.common import (
    OUT,
    DeviceOption,
    FocalOption,
    FovOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    emit,
    exit_code,
    progress,
    report,
    say,
)
from deixis.errors import DeixisError, UsageError
from deixis.io import DEFAULT_MAX_PIXELS
from deixis.types import TTA

if TYPE_CHECKING:
    from deixis.types import Depth


def depth(
    images: Annotated[list[str], typer.Argument(help="Pictures, or folders of pictures.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", help="Name (see 'deixis models') or weight folder.")
    ] = "evp-depth-mini",
    text: Annotated[str | None, typer.Option("--text", help="A description of the scene.")] = None,
    tta: Annotated[TTA, typer.Option("--tta", help="flip and average, or the papers' windows.")] = "none",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps; EVP and VPD take one.")] = None,
    ensemble: Annotated[
        int | None, typer.Option("--ensemble", min=1, help="Predictions to merge; EVP and VPD take one.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of systems that draw noise; EVP and VPD draw none.")
    ] = None,
    out: OutOption = OUT,
    fov: FovOption = None,
    focal_px: FocalOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Depth of pictures: per picture X, X.depth.npy, X.depth.png, X.preview.png and X.json in --out."""
    from dataclasses import replace

    from deixis.camera import choose_camera
    from deixis.io import collect_inputs, read_image, save_depth
    from deixis.predict import load_depth

    choose_camera(None, (1, 1), fov, focal_px)  # a wrong number is wrong for all pictures
    del seed  # no system here draws noise: every seed gives the same map
    for name, value in (("--steps", steps), ("--ensemble", ensemble)):
        if value not in (None, 1):
            raise UsageError(f"{name} {value}", f"{model} gives its depth in one pass", f"leave {name} out")
    items = collect_inputs(images, exclude=out)
    predictor = load_depth(model, device)
    results, failed = [], 0
    with progress(items, "depth") as bar:
        for item in items:
            try:
                if item.error is not None:
                    raise item.error
                loaded = read_image(item.path, max_pixels=max_pixels)
                found = predictor(loaded, text, tta=tta)
                found = replace(found, camera=choose_camera(loaded.camera, loaded.rgb.shape[:2], fov, focal_px))
                paths = save_depth(found, out, item.name, rgb=loaded.rgb)
            except UsageError:
                raise  # wrong for every picture alike
            except DeixisError as error:
                report(str(error))
                failed += 1
            else:
                results.append({"input": str(item.path), "files": [str(path) for path in paths], **_summary(found)})
                if not as_json:
                    print(f"{item.path}\t{paths[0]}")
            bar.advance()
    if as_json:
        emit(results)
    if results:
        say(f"{len(results)} done, {failed} failed; results in {out}")
    return exit_code(len(results), failed)


def _summary(depth: Depth) -> dict[str, Any]:
    return {
        "model": depth.model,
        "kind": depth.kind,
        "unit": depth.unit,
        "text": {"text": depth.text.text, "provenance": depth.text.provenance},
        "min": float(depth.values.min()),
        "max": float(depth.values.max()),
        "seconds": depth.seconds,
    }
