"""Datasets by name."""

from __future__ import annotations

from pathlib import Path

from deixis.data.dataset import Dataset
from deixis.data.world import check_kind
from deixis.errors import UsageError
from deixis.io import printable

NAMES = ("world", "world-rooms", "world-roads", "nyuv2-rooms")


def open_dataset(name: str, root: str | Path, split: str | None = None, list_file: str | Path | None = None) -> Dataset:
    """A split of a dataset.

    Args:
        name: one of :data:`NAMES`.
        root: where it lies.
        split: which part; the held-out one by default.
        list_file: these datasets have none.

    Raises:
        InputError: if the root does not hold the dataset.
        UsageError: for an unknown name or split, or a list file.
    """
    from deixis.data.nyuv2_rooms import NYUv2Rooms
    from deixis.data.world_dataset import WorldDataset

    if name not in NAMES:
        raise UsageError(f"dataset '{printable(name)}'", "is unknown", f"use one of {', '.join(NAMES)}")
    if list_file is not None:
        raise UsageError(f"--list {printable(list_file)}", f"{name} takes no list of samples", "leave it out")
    part = split or "heldout"
    if name == "nyuv2-rooms":
        return NYUv2Rooms(root, part)
    kind = {"world-rooms": "rooms", "world-roads": "roads"}.get(name)
    return WorldDataset(root, part, None if kind is None else check_kind(kind))
