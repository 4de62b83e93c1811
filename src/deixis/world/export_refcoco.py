"""Frames of the world in the layout of RefCOCO and gRefCOCO, for :class:`deixis.data.refcoco.RefCoco`."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deixis.data.refcoco import PICTURES, WORLD, instances_path, picture_name, refs_path
from deixis.data.world import Phrase, WorldFrame
from deixis.io import write_bytes, write_image, write_json, write_text
from deixis.types import BoolMap

SPLITS = ("train", "val", "testA", "testB")
"""Pictures go to one after the other: a few are enough to have all four."""

Row = dict[str, Any]


def export_refcoco(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write pictures, annotations and refs: ``refcoco/refs(unc).p`` and ``grefcoco/grefs(unc).json``.

    Both have one ref for each thing that is spoken of. gRefCOCO has those for nothing as well, one for each phrase.
    Outlines are polygons that :func:`deixis.data.refcoco.decode_mask` turns into exactly the pixels of the thing.

    Args:
        frames: of the world.
        out: root of the datasets; made if missing.

    Returns:
        how many frames were written.

    Raises:
        DeixisError: if a file cannot be written.
        InputError: if a frame is damaged.
    """
    images: list[Row] = []
    annotations: list[Row] = []
    refs: list[Row] = []
    categories: dict[str, int] = {}
    sentences = count(1)
    for number, frame in enumerate(frames, start=1):
        picture = picture_name(number)
        write_image(out / PICTURES[0] / picture, Image.fromarray(frame.rgb))
        height, width = frame.ids.shape
        images.append({"id": number, "file_name": picture, "height": height, "width": width, "license": 1})
        annotated: dict[int, Row] = {}
        for thing in np.unique(frame.ids[frame.ids > 0]).tolist():
            name = frame.scene["things"][thing - 1]["name"]
            category = categories.setdefault(name, len(categories) + 1)
            annotated[thing] = _annotation(frame.ids == thing, len(annotations) + 1, number, category)
            annotations.append(annotated[thing])
        for phrases in _by_target(frame.expressions):
            things = [annotated[thing] for thing in phrases[0].targets if thing in annotated]
            told = [_sentence(phrase.text, next(sentences)) for phrase in phrases]
            refs.append(
                {
                    "ref_id": len(refs) + 1,
                    "image_id": number,
                    "split": SPLITS[(number - 1) % len(SPLITS)],
                    "file_name": picture,
                    "ann_id": [one["id"] for one in things] or [-1],
                    "category_id": [one["category_id"] for one in things] or [-1],
                    "no_target": not things,
                    "sentences": told,
                    "sent_ids": [one["sent_id"] for one in told],
                }
            )
    instances = {
        "info": {"description": WORLD},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": name} for name, number in categories.items()],
    }
    for dataset in ("refcoco", "grefcoco"):
        write_json(out / instances_path(dataset), instances)
    single = [_single(ref) for ref in refs if not ref["no_target"] and len(ref["ann_id"]) == 1]
    # Protocol 2 is the newest that Python 2, for which the original tools are written, can read.
    write_bytes(out / refs_path("refcoco", "unc"), pickle.dumps(single, protocol=2))
    write_text(out / refs_path("grefcoco", "unc"), json.dumps(refs))
    return len(images)


def polygons(mask: BoolMap) -> list[list[float]]:
    """A mask [H, W] as rectangles that do not overlap, each a polygon ``[x, y, x, y, ...]`` of four corners."""
    found: list[list[float]] = []
    open_runs: dict[tuple[int, int], int] = {}  # first and last column to the row where the rectangle began
    for row in range(mask.shape[0] + 1):
        runs = set() if row == mask.shape[0] else _runs(mask[row])
        for left, right in sorted(set(open_runs) - runs):
            top = open_runs.pop((left, right))
            found.append([float(value) for value in (left, top, right, top, right, row, left, row)])
        open_runs.update((run, row) for run in runs if run not in open_runs)
    return found


def _runs(line: BoolMap) -> set[tuple[int, int]]:
    """Half-open runs of a row [W]."""
    edges = np.flatnonzero(np.diff(line, prepend=False, append=False)).tolist()
    return set(zip(edges[::2], edges[1::2], strict=True))


def _annotation(mask: BoolMap, number: int, image: int, category: int) -> Row:
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": float(len(rows)),
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "segmentation": polygons(mask),
    }


def _by_target(phrases: Iterable[Phrase]) -> list[list[Phrase]]:
    """Phrases that mean the same things together, in the order of first mention; each of nothing alone."""
    groups: dict[object, list[Phrase]] = {}
    for number, phrase in enumerate(phrases):
        groups.setdefault(phrase.targets or number, []).append(phrase)
    return list(groups.values())


def _sentence(text: str, number: int) -> Row:
    tokens = re.findall(r"\w+", text.lower())
    return {"sent_id": number, "raw": text, "sent": " ".join(tokens), "tokens": tokens}


def _single(ref: Row) -> Row:
    """A ref of one thing as RefCOCO has it: numbers in place of lists."""
    kept = {key: value for key, value in ref.items() if key != "no_target"}
    return {**kept, "ann_id": ref["ann_id"][0], "category_id": ref["category_id"][0]}
