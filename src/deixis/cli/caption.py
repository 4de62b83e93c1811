"""``deixis caption``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.common import (
    LARGEST_SEED,
    USAGE,
    DeviceOption,
    JsonOption,
    MaxPixelsOption,
    emit,
    exit_code,
    fail,
    field,
    progress,
    put,
    say,
)
from deixis.errors import UsageError
from deixis.hub import expanded
from deixis.io import DEFAULT_MAX_PIXELS, check_out, collect_inputs, printable
from deixis.registry import CAPTIONER_FILES, find_parts

if TYPE_CHECKING:
    from deixis.conditioning.caption import Failure


def caption(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER", help="Pictures, or folders of pictures.", show_default=False),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|FOLDER",
            help="BLIP-2, LLaVA-1.6 or InternVL3: a folder, or a hub id, for example Salesforce/blip2-opt-2.7b, "
            "llava-hf/llava-v1.6-mistral-7b-hf, OpenGVLab/InternVL3-8B-hf.",
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            help="What the model is asked.",
            show_default="BLIP-2: nothing; the others: 'Describe the image in one sentence: name the objects, where "
            "they are to each other, and how the scene is laid out.'",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at once.")] = 8,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes, each with the model; several share the GPUs.")
    ] = 1,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.parquet", help="File of the captions; what it holds already stays.")
    ] = Path("captions.parquet"),
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            max=LARGEST_SEED,
            help="Draw the words, alike for each seed.",
            show_default="the likeliest words",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest caption, in the model's tokens.")
    ] = 60,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Captions of pictures, one Parquet file for a dataset. The same command goes on after a stop."""
    check_out(out.absolute().parent)
    if out.is_dir():
        raise UsageError(f"--out {printable(out)}", "is a folder", "name a file, for example captions.parquet")
    items = collect_inputs(images)
    if all(item.error for item in items):
        for item in items:
            assert item.error is not None
            fail(item.error, item.path)
        return USAGE
    folder = find_parts(model, CAPTIONER_FILES)
    # What is wrong with the call is found before the seconds that these take to import.
    from deixis.conditioning.caption import PROMPTS, caption_pictures, family_of, version_of
    from deixis.data.captions import Settings
    from deixis.data.world import parquet

    parquet()
    asked = PROMPTS[family_of(folder)] if prompt is None else prompt
    name = folder.resolve().name if expanded(model).is_dir() else model
    settings = Settings(name, version_of(folder), asked, seed, max_new_tokens)

    def report(failure: Failure) -> None:
        fail(failure.error, failure.path)

    with progress(items, "caption", late=True) as bar:
        outcome = caption_pictures(
            items,
            images,
            out,
            folder,
            settings,
            batch=batch,
            processes=processes,
            device=device,
            max_pixels=max_pixels,
            advance=bar.advance,
            fail=report,
        )
    done = outcome.made + outcome.kept
    if as_json:
        failed = [{"input": str(one.path), "problem": str(one.error)} for one in outcome.failures]
        emit({"file": str(out), "made": outcome.made, "kept": outcome.kept, "failed": failed})
    elif done:
        put(field(out))
    say(f"{outcome.made} captioned, {outcome.kept} there already, {len(outcome.failures)} failed; in {printable(out)}")
    return exit_code(done, len(outcome.failures))
