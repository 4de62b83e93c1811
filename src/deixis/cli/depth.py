"""``deixis depth``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.camera import choose_camera
from deixis.cli.common import (
    LARGEST_SEED,
    OUT,
    DeviceOption,
    FocalOption,
    FovOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    StepsOption,
    emit,
    exit_code,
    fail,
    field,
    progress,
    put,
    say,
)
from deixis.cli.start import import_networks
from deixis.errors import UsageError
from deixis.io import DEFAULT_MAX_PIXELS, InputItem, check_out, collect_inputs, read_image, save_depth
from deixis.registry import find, is_pipeline
from deixis.types import TTA, Depth
from deixis.wording import can_be_shuffled, contradicted

if TYPE_CHECKING:
    from deixis.predict import DepthPredictor
    from deixis.relative import RelativePredictor


def depth(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER", help="Pictures, or folders of pictures.", show_default=False),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="Name (see 'deixis models') or weight folder.")
    ] = "evp-depth-mini",
    text: Annotated[
        str | None, typer.Option("--text", help="A description of the scene.", show_default="what the model has")
    ] = None,
    tta: Annotated[
        TTA, typer.Option("--tta", help="flip: the mean with the mirrored picture; windows: as in the papers.")
    ] = "none",
    steps: StepsOption = None,
    ensemble: Annotated[
        int, typer.Option("--ensemble", min=1, help="Maps from as many noises, merged: Marigold and Lotus-G.")
    ] = 1,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of systems that draw noise: Marigold and Lotus-G."),
    ] = 0,
    compare_text: Annotated[
        bool,
        typer.Option("--compare-text", help="Also without --text, with its words shuffled, and with a contrary one."),
    ] = False,
    out: OutOption = OUT,
    fov: FovOption = None,
    focal_px: FocalOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Depth of pictures: per picture X, X.depth.npy, X.depth.png, X.preview.png and X.json in --out."""
    # Everything that can be wrong with the call is found before torch is imported and a model loaded.
    choose_camera(None, (1, 1), fov, focal_px)
    check_out(out)
    if compare_text and not (text or "").strip():
        raise UsageError(
            "--compare-text", "compares a description with others", "say what is true of the picture: --text"
        )
    if compare_text:
        contradicted(text or "")  # refuses what has no contrary
    if compare_text and tta != "none":
        raise UsageError(f"--tta {tta}", "is not compared", "leave it out")
    relative = is_pipeline(find(model))
    settings: dict[str, Any] = {"tta": tta}  # EVP and VPD draw no noise: every seed gives the same map
    if relative:
        if tta != "none":
            raise UsageError(f"--tta {tta}", f"{model} has no such augmentation", "use --ensemble")
        settings = {"steps": steps, "ensemble": ensemble, "seed": seed}
    else:
        for name, value in (("--steps", steps), ("--ensemble", ensemble)):
            if value not in (None, 1):
                raise UsageError(f"{name} {value}", f"{model} gives its depth in one pass", f"leave {name} out")
    if compare_text and not can_be_shuffled(text or ""):
        say("note: the description is one word, which cannot be shuffled: that reading is left out")
    items = collect_inputs(images, exclude=out)
    predictor = None if all(item.error for item in items) else _predictor(model, device, text, settings)

    results: list[dict[str, Any]] = []
    failed = 0
    with progress(items, "depth") as bar:
        for item in items:
            try:
                result = _one(item, predictor, text, settings, out, fov, focal_px, max_pixels, compare_text)
            except Exception as error:
                # Whatever is wrong with one picture, or with us, is no reason to leave the others undone.
                fail(error, item.path)
                failed += 1
            else:
                results.append(result)
                if not as_json:
                    put(f"{field(item.path)}\t{field(result['files'][0])}")
            bar.advance()
    if as_json:
        emit(results)
    if results:
        say(f"{len(results)} done, {failed} failed; results in {out}")
    return exit_code(len(results), failed)


def _predictor(
    model: str, device: str | None, text: str | None, settings: dict[str, Any]
) -> DepthPredictor | RelativePredictor:
    """The model, which takes this text and these settings."""
    import_networks()
    from deixis.predict import DepthPredictor, load_depth

    predictor = load_depth(model, device)
    if isinstance(predictor, DepthPredictor):
        predictor.describe(text)
    else:
        predictor.check(steps=settings["steps"], ensemble=settings["ensemble"], resolution=None)
    note = predictor.remark(text)
    if note is not None:
        say(f"note: {note}")
    return predictor


def _one(
    item: InputItem,
    predictor: DepthPredictor | RelativePredictor | None,
    text: str | None,
    settings: dict[str, Any],
    out: Path,
    fov: float | None,
    focal_px: float | None,
    max_pixels: int,
    compare: bool,
) -> dict[str, Any]:
    """Depth of one picture, written; what ``--json`` tells of it."""
    if item.error is not None:
        raise item.error
    assert predictor is not None  # there is a model if any item has no error
    loaded = read_image(item.path, max_pixels=max_pixels)
    compared = None
    if compare:
        from deixis import refine

        assert text is not None
        given = {name: value for name, value in settings.items() if name in ("steps", "ensemble", "seed")}
        compared = refine.compare_text(predictor, loaded, text, **given)
    found = predictor(loaded, text, **settings) if compared is None else compared.each[0].depth
    assert isinstance(found, Depth)  # of one picture
    found = replace(found, camera=choose_camera(loaded.camera, loaded.rgb.shape[:2], fov, focal_px))
    paths = save_depth(found, out, item.name, rgb=loaded.rgb)
    more: dict[str, Any] = {}
    if compared is not None:
        paths += refine.save(compared, out, item.name, "compare")
        more = {"compare_text": compared.to_dict()}
    return {"input": str(item.path), "files": [str(path) for path in paths], **found.to_dict(), **more}
