"""``deixis data``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from deixis.cli.common import (
    OK,
    OUT,
    JsonOption,
    OutOption,
    emit,
    exit_code,
    fail,
    field,
    progress,
    put,
    report,
    say,
)
from deixis.errors import InputError, UsageError
from deixis.io import check_out, printable, write_image

if TYPE_CHECKING:
    from PIL import Image

    from deixis.data.dataset import Dataset, Sample
    from deixis.data.splits import SplitList
    from deixis.protocols.depth import DepthProtocol

SHOWN = 4
"""Samples that are decoded, spread over the split."""

NAMED = 20
"""Missing files that are named; more are counted."""

app = typer.Typer(rich_markup_mode=None, help="Datasets: whether a copy is whole, and the lists that name samples.")

ListOption = Annotated[
    Path | None,
    typer.Option("--list", metavar="FILE", help="Names the samples.", show_default="the published list"),
]


@app.callback()
def data() -> None:
    """Datasets: whether a copy is whole, and the lists that name samples."""


@app.command("check", short_help="Whether a copy of a dataset is whole.")
def check(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name: nyuv2, kitti …")],
    root: Annotated[Path, typer.Option("--root", metavar="DIR|TAR", help="Where the copy lies.")],
    split: Annotated[
        str | None, typer.Option("--split", help="Which part.", show_default="the one that is evaluated")
    ] = None,
    list_file: ListOption = None,
    out: OutOption = OUT,
    as_json: JsonOption = False,
) -> int:
    """Check a copy: its layout, its count, every file that should be there, and some samples, in a picture in --out."""
    check_out(out)
    from deixis.data.container import COPY_AGAIN
    from deixis.data.readers import open_dataset

    found = open_dataset(dataset, root, split, list_file)
    if found.incomplete is not None:
        fail(found.incomplete)
    missing = list(found.missing())
    for line in islice(missing, NAMED):
        report(f"{line}; {COPY_AGAIN}")
    if len(missing) > NAMED:
        report(f"{len(missing) - NAMED} more are missing")
    facts, pictures, damaged = _decode(found, missing)
    picture = out / f"{found.name}.{found.split}.jpg"
    if pictures:
        from deixis import viz

        write_image(picture, viz.contact_sheet(pictures))
    if found.own_list is not None:
        say(f"note: samples are those of {found.own_list}, which is not the published list")
    result = {
        "dataset": found.name,
        "split": found.split,
        "layout": found.layout,
        "samples": len(found),
        "own_list": found.own_list,
        "incomplete": None if found.incomplete is None else found.incomplete.problem,
        "missing": missing,
        "damaged": damaged,
        "decoded": facts,
        "picture": str(picture) if pictures else None,
    }
    if as_json:
        emit(result)
    else:
        put(f"dataset\t{found.name}")
        put(f"split\t{found.split}")
        put(f"layout\t{found.layout or 'as published'}")
        put(f"samples\t{len(found)}")
        put(f"list\t{'as published' if found.own_list is None else field(found.own_list)}")
        put(f"missing files\t{len(missing)}")
        for fact in facts:
            put("\t".join(("sample", field(fact["name"]), *_told(fact))))
        if pictures:
            put(f"picture\t{field(picture)}")
    say(f"{len(found)} samples, {len(missing)} files missing; {len(facts)} samples decoded, {len(damaged)} damaged")
    return exit_code(len(facts), len(missing) + len(damaged) + (found.incomplete is not None))


def _decode(
    found: Dataset, missing: list[str]
) -> tuple[list[dict[str, Any]], list[list[tuple[Image.Image, str]]], list[str]]:
    """Some samples: what they hold, their pictures, and what is wrong with those that are there and damaged."""
    from deixis.evaluation.settings import SETTINGS

    chosen = sorted({round(n * (len(found) - 1) / (SHOWN - 1)) for n in range(SHOWN)})
    settings = SETTINGS[found.name].get("affine")  # of every set with depth
    region = None if settings is None else settings[0].region
    facts, pictures, damaged = [], [], []
    with progress(chosen, "decode") as bar:
        for index in chosen:
            try:
                sample = found[index]
            except InputError as error:
                if not any(line.startswith(f"{error.subject}: ") for line in missing):
                    fail(error)
                    damaged.append(f"{error.subject}: {error.problem}")
            else:
                facts.append(_facts(sample, region))
                pictures.append(_pictures(sample))
                try:
                    _check_scored(sample, region)
                except InputError as error:
                    fail(error)
                    damaged.append(f"{error.subject}: {error.problem}")
            bar.advance()
    return facts, pictures, damaged


def _check_scored(sample: Sample, region: DepthProtocol | None) -> None:
    """Refuse a sample of a set with depth that cannot be scored."""
    from deixis.evaluation.settings import check_frame

    if region is None:
        return
    check_frame(sample, region)
    if not _scored(sample, region):
        remedy = "look whether its depth file is the published one"
        raise InputError(sample.name, "has no depth that is scored", remedy)


def _scored(sample: Sample, region: DepthProtocol) -> int:
    """How many pixels have a depth that is scored, whatever the crop: by the mask file where there is one."""
    if sample.depth is None:
        return 0
    within = (sample.depth > region.min_depth) & (sample.depth < region.max_depth)
    return int(np.count_nonzero(within if sample.mask is None else sample.mask & (sample.depth > 0)))


def _facts(sample: Sample, region: DepthProtocol | None) -> dict[str, Any]:
    """What a sample holds, JSON-ready; ``region`` is where the dataset scores depth, if it does."""
    height, width = sample.rgb.shape[:2]
    facts: dict[str, Any] = {"name": sample.name, "width": width, "height": height}
    if sample.depth is not None:
        known = sample.depth[np.isfinite(sample.depth) & (sample.depth > 0)]
        facts["depth_share"] = round(known.size / sample.depth.size, 4)
        facts["depth_m"] = [round(float(known.min()), 3), round(float(known.max()), 3)] if known.size else None
        if region is not None:
            facts["scored_share"] = round(_scored(sample, region) / sample.depth.size, 4)
    facts["camera"] = sample.camera is not None
    facts["expressions"] = len(sample.expressions)
    return facts


def _told(fact: dict[str, Any]) -> list[str]:
    """What a sample holds, in words."""
    told = [f"{fact['width']}x{fact['height']}"]
    if "depth_m" in fact:
        ends = "no depth" if fact["depth_m"] is None else "{:.2f} to {:.2f} m".format(*fact["depth_m"])
        told.append(f"{ends} on {fact['depth_share']:.0%}")
        if "scored_share" in fact:
            told[-1] += f", scored on {fact['scored_share']:.0%}"
    if fact["expressions"]:
        told.append(f"{fact['expressions']} expressions")
    return told


def _pictures(sample: Sample) -> list[tuple[Image.Image, str]]:
    """The photo, its depth, and the first thing that words mean in it, as far as there are such."""
    from PIL import Image

    from deixis import viz
    from deixis.types import Depth, Text

    row = [(Image.fromarray(sample.rgb), sample.name)]
    if sample.depth is not None:
        depth = Depth(sample.depth, "metric", Text("", "empty"), "measured", sample.camera)
        low, high = viz.depth_range(depth)
        row.append((depth.colorize(), f"depth, {low:.1f} to {high:.1f} m"))
    if sample.expressions:
        first = sample.expressions[0]
        row.append((viz.overlay_mask(sample.rgb, first.mask, first.text), f"{len(sample.expressions)} expressions"))
    return row


@app.command("lists", short_help="The lists that name samples.")
def lists(
    fetch: Annotated[
        str | None, typer.Option("--fetch", metavar="NAME", help="Fetch this one from where it is published.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="With --fetch: where to put it.", show_default="the folder of lists"),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """The published split lists: source, checksum, count, and whether they are here. None ships; --fetch gets one."""
    from deixis.data.splits import fetch_list, lists_folder, split_list, split_lists

    if fetch is not None:
        path = fetch_list(fetch, out or lists_folder())
        if as_json:
            emit(_list_facts(split_list(fetch)) | {"file": str(path)})
        else:
            put(field(path))
        return OK
    if out is not None:
        raise UsageError("--out", "goes with --fetch", "add --fetch NAME, or leave it out")
    known = split_lists().values()
    if as_json:
        emit([_list_facts(one) for one in known])
        return OK
    for one in known:
        here = field(one.local) if one.local.is_file() else "not here"
        put(f"{one.name}\t{one.lines}\t{one.sha256}\t{one.source}\t{here}")
    say(f"lists are looked for in {printable(lists_folder())}; 'deixis data lists --fetch NAME' gets one")
    return OK


def _list_facts(one: SplitList) -> dict[str, Any]:
    """What is known of a list, as JSON-ready values."""
    return {
        "name": one.name,
        "repository": one.repository,
        "commit": one.commit,
        "path": one.path,
        "sha256": one.sha256,
        "lines": one.lines,
        "first_line": one.first_line,
        "file": str(one.local) if one.local.is_file() else None,
    }
