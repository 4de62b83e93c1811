"""``deixis ask``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from deixis.camera import choose_camera
from deixis.cli.common import (
    OK,
    DeviceOption,
    FocalOption,
    FovOption,
    MaxPixelsOption,
    emit,
    say,
)
from deixis.cli.start import import_networks
from deixis.io import DEFAULT_MAX_PIXELS, check_out, output_name, read_image, save_answer
from deixis.known import check_calibration, no_metres, parse_known, parse_known_point
from deixis.question import parse_question
from deixis.registry import find, is_pipeline

if TYPE_CHECKING:
    from deixis.asking import DepthModel


def ask(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)],
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="'how far is the red chair?'", show_default=False)
    ],
    depth_model: Annotated[
        str,
        typer.Option("--depth-model", metavar="NAME|PATH", help="A depth system, calibrated if it has no metres."),
    ] = "evp-depth-mini",
    mask_model: Annotated[
        str, typer.Option("--mask-model", metavar="NAME|PATH", help="A referring system.")
    ] = "evp-refer-mini",
    text: Annotated[
        str | None, typer.Option("--text", help="A description of the scene.", show_default="what the model has")
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option("--known", metavar="TEXT", help="Calibrate by 'the door is 2.0 m away'; may be given again."),
    ] = None,
    known_point: Annotated[
        list[str] | None,
        typer.Option("--known-point", metavar="X,Y=METRES", help="Calibrate by a pixel; may be given again."),
    ] = None,
    metric_model: Annotated[
        str | None, typer.Option("--metric-model", metavar="NAME|PATH", help="Calibrate by a metric depth system.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for X.answer.json and X.answer.png.")
    ] = None,
    fov: FovOption = None,
    focal_px: FocalOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON, without the sentence on stderr.")] = False,
) -> int:
    """How far something is. The answer is JSON on stdout and a sentence on stderr."""
    # Everything that can be wrong with the call is found before torch is imported and a model loaded.
    asked = parse_question(question)
    choose_camera(None, (1, 1), fov, focal_px)
    if out is not None:
        check_out(out)
    names, points = known or [], known_point or []
    expressions = [parse_known(one)[0] for one in names]
    for point in points:
        parse_known_point(point)
    calibrated = bool(names or points or metric_model)
    check_calibration(bool(names or points), metric_model is not None)
    if is_pipeline(find(depth_model)) and not calibrated:
        raise no_metres(depth_model, "relative")
    for model in (mask_model, metric_model):
        if model is not None:
            find(model)
    loaded = read_image(image, max_pixels=max_pixels)

    import_networks()
    from deixis.asking import ask as answer_question
    from deixis.asking import describe
    from deixis.predict import load_depth, load_mask, load_metric

    depth, segment = load_depth(depth_model, device), load_mask(mask_model, device)
    answer = answer_question(
        loaded,
        question,
        depth=cast("DepthModel", depth),
        segment=segment,
        text=text,
        known=names,
        known_points=points,
        metric=None if metric_model is None else load_metric(metric_model, device),
        fov=fov,
        focal_px=focal_px,
    )
    if not as_json:
        say(describe(answer))
        cut = [depth.remark(text), *(segment.remark(expression) for expression in (*asked.referents, *expressions))]
        for note in (*answer.notes, *(note for note in cut if note is not None)):
            say(f"note: {note}")
    emit(answer.to_dict())
    if out is not None:
        save_answer(answer, out, output_name(Path(image).name), loaded.rgb)
    return OK
