"""Referring expressions on the NYU Depth v2 training frames, as a list of annotated objects.

``refer_train.json.gz``: a JSON list; per object ``image`` (path relative to the dataset root), ``expressions``,
``category`` and ``segmentation`` as uncompressed COCO run-length encoding (column-major).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deixis.errors import InputError

# Absent classes that are asked for in each frame.
ABSENT = 2


@dataclass(frozen=True)
class ReferredObject:
    """One object and the expressions that single it out.

    Attributes:
        frame: index of the labelled frame.
        category: class name.
        expressions: at least one.
        median_depth_m: median depth over the mask [m].
        segmentation: run-length encoding.
    """

    frame: int
    category: str
    expressions: tuple[str, ...]
    median_depth_m: float
    segmentation: dict[str, Any]

    def mask(self) -> npt.NDArray[np.bool_]:
        """Bool [H, W].

        Raises:
            InputError: if the encoding is damaged.
        """
        try:
            return decode_rle(self.segmentation)
        except InputError as error:
            raise InputError(
                f"the {self.category} of frame {self.frame} in refer_train.json.gz", error.problem, error.remedy
            ) from error


def absent(frame: int, labels: npt.NDArray[np.uint8], names: Sequence[str], categories: Sequence[str]) -> list[str]:
    """:data:`ABSENT` classes without a labelled pixel in a frame, for questions about what is not there.

    Args:
        frame: its index, which alone decides the choice.
        labels: its label map [H, W].
        names: of the labels, label 1 first.
        categories: classes to choose from; those that no label has are passed over.
    """
    missing = [name for name in categories if name in names and not (labels == names.index(name) + 1).any()]
    rng = np.random.default_rng([frame, 41])
    chosen: list[str] = rng.choice(missing, size=min(ABSENT, len(missing)), replace=False).tolist()
    return chosen


def decode_rle(segmentation: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Uncompressed COCO run-length encoding (``size`` [H, W], ``counts``, column-major) to bool [H, W].

    Raises:
        InputError: if it is no such encoding, or the runs do not add up to the size.
    """
    try:
        height, width = segmentation["size"]
        counts = np.asarray(segmentation["counts"])
        pixels = int(height) * int(width)
        if counts.size and counts.dtype.kind not in "iu":
            raise TypeError(counts.dtype)
    except (KeyError, TypeError, ValueError) as error:  # compressed counts are a string
        raise InputError(
            "segmentation", "is not an uncompressed run-length encoding", "give size [H, W] and counts as a list"
        ) from error
    if (counts < 0).any():
        raise InputError("segmentation", f"has a run of {counts.min()} pixels", "repair the file")
    if counts.ndim != 1 or counts.sum() != pixels:
        raise InputError(
            "segmentation", f"runs add up to {counts.sum()}, the mask has {pixels} pixels", "repair the file"
        )
    values = np.arange(len(counts)) % 2 == 1  # runs alternate, background first
    return np.repeat(values, counts).reshape(width, height).T


def objects(root: str | Path) -> list[ReferredObject]:
    """All objects of ``ROOT/refer_train.json.gz``.

    Raises:
        InputError: if the file is missing or damaged.
    """
    path = Path(root) / "refer_train.json.gz"
    if not path.is_file():
        raise InputError(root, "has no refer_train.json.gz", "copy it beside official_splits")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(path, f"cannot be read ({error})", "copy the dataset again") from error
    found = []
    for number, row in enumerate(rows):
        try:
            thing = ReferredObject(
                frame=int(Path(row["image"]).stem.removeprefix("rgb_")),
                category=row["category"],
                expressions=tuple(row["expressions"]),
                median_depth_m=float(row["median_depth_m"]),
                segmentation=row["segmentation"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(path, f"object {number} is incomplete ({error!r})", "copy the dataset again") from error
        found.append(thing)
    return found
