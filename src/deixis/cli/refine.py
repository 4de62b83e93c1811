"""``deixis refine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.common import (
    LARGEST_SEED,
    OK,
    OUT,
    DeviceOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    StepsOption,
    emit,
    field,
    put,
    say,
)
from deixis.errors import InputError, UsageError
from deixis.io import DEFAULT_MAX_PIXELS, check_out, output_name, read_image
from deixis.registry import CAPTIONER_FILES, find, find_parts, is_pipeline

if TYPE_CHECKING:
    from deixis.data.world import WorldFrame
    from deixis.io import LoadedImage

# In tokens of the captioner.
LONGEST_CAPTION = 60
# The level of captions that names everything notable and tells no distance.
EVERYTHING = 2


def refine(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="A picture; with --frame a folder of shards.", show_default=False),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="A description, more detailed each time; a single one is grown by its phrases."),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option("--frame", help="Seed of a frame of the world, described in its own words, phrase by phrase."),
    ] = None,
    captioner: Annotated[
        str | None,
        typer.Option("--captioner", metavar="NAME|FOLDER", help="A model of 'deixis caption' that describes it."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="Name (see 'deixis models') or weight folder.")
    ] = "evp-depth-mini",
    steps: StepsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of systems that draw noise.")] = 0,
    out: OutOption = OUT,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """What ever more words do to depth: maps, differences, a sheet, where words look, and X.refine.json in --out."""
    given = sum(source is not None for source in (texts, frame, captioner))
    if given != 1:
        problem = "has several sources of descriptions" if given else "has no description"
        raise UsageError(str(image), problem, "give --text, once or several times, or --frame, or --captioner")
    check_out(out)
    settings: dict[str, Any] = {}
    if is_pipeline(find(model)):
        settings = {"steps": steps, "seed": seed}
    elif steps not in (None, 1):
        raise UsageError(f"--steps {steps}", f"{model} gives its depth in one pass", "leave --steps out")
    if frame is None:
        loaded = read_image(image, max_pixels=max_pixels)
        name = output_name(image.name)
        told: dict[str, Any] = {"texts": texts}
        if captioner is not None:
            told = _captioned(loaded, captioner, device)
            say(f"{captioner}: {told['texts'][0]}")
    else:
        shown = _frame(image, frame)
        loaded = read_image(shown.rgb, max_pixels=max_pixels)
        name = f"{shown.kind}-{frame}"
        told = {"texts": [shown.captions[EVERYTHING][0]], "provenance": "oracle", "truth": shown.depth}

    from deixis import refine as words
    from deixis.predict import load_depth

    predictor = load_depth(model, device)
    for text in told["texts"]:
        note = predictor.remark(text)
        if note is not None:
            say(f"note: {note}")
    found = words.refine(predictor, loaded, **told, **settings)
    paths = words.save(found, out, name, "refine")
    if as_json:
        emit({"input": str(image), **found.to_dict(), "files": [str(path) for path in paths]})
        return OK
    put(f"{field(image)}\t{field(paths[0])}")
    unit = "m" if found.unit == "m" else "of the range"
    for reading in found.each[1:]:
        error = "" if reading.abs_rel is None else f", AbsRel {reading.abs_rel:.3f}"
        say(f"{reading.label}: {'; '.join(reading.added)}: moved by {reading.mean:.3f} {unit} on average{error}")
    return OK


def _captioned(loaded: LoadedImage, captioner: str, device: str | None) -> dict[str, Any]:
    from deixis.conditioning.caption import PROMPTS, Captioner
    from deixis.devices import choose_device

    teller = Captioner(find_parts(captioner, CAPTIONER_FILES), choose_device(device))
    (text,) = teller([loaded.rgb], PROMPTS[teller.family], LONGEST_CAPTION)
    return {"texts": [text], "provenance": f"caption:{captioner}"}


def _frame(folder: Path, seed: int) -> WorldFrame:
    from deixis.data.world import read_shards

    for one in read_shards(folder):
        if one.seed == seed:
            return one
    raise InputError(folder, f"has no frame of seed {seed}", "look at the numbers in its files' names")
