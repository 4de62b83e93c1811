"""``deixis ask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import (
    OK,
    DeviceOption,
    FocalOption,
    FovOption,
    MaxPixelsOption,
    emit,
    say,
)
from deixis.io import DEFAULT_MAX_PIXELS


def ask(
    image: Annotated[str, typer.Argument(help="A picture.", show_default=False)],
    question: Annotated[str, typer.Argument(help="'how far is the red chair?'", show_default=False)],
    depth_model: Annotated[str, typer.Option("--depth-model", help="A metric depth system.")] = "evp-depth-mini",
    mask_model: Annotated[str, typer.Option("--mask-model", help="A referring system.")] = "evp-refer-mini",
    text: Annotated[str | None, typer.Option("--text", help="A description of the scene.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for X.answer.json and X.answer.png.")] = None,
    fov: FovOption = None,
    focal_px: FocalOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON, without the sentence on stderr.")] = False,
) -> int:
    """How far something is. The answer is JSON on stdout and a sentence on stderr."""
    from deixis.ask import ask as answer_question
    from deixis.ask import describe
    from deixis.camera import choose_camera
    from deixis.io import read_image, save_answer
    from deixis.predict import load_depth, load_mask
    from deixis.question import parse_question

    # Everything that can be wrong with the call is found before a model is loaded.
    parse_question(question)
    choose_camera(None, (1, 1), fov, focal_px)
    loaded = read_image(image, max_pixels=max_pixels)
    answer = answer_question(
        loaded,
        question,
        depth=load_depth(depth_model, device),
        segment=load_mask(mask_model, device),
        text=text,
        fov=fov,
        focal_px=focal_px,
    )
    if not as_json:
        say(describe(answer))
        for note in answer.notes:
            say(f"note: {note}")
    emit(answer.to_dict())
    if out is not None:
        save_answer(answer, out, Path(image).stem, loaded.rgb)
    return OK
