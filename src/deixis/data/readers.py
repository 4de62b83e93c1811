"""Which datasets there are, and how each is opened."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from deixis.errors import UsageError
from deixis.io import printable

if TYPE_CHECKING:
    from deixis.data.dataset import Dataset
    from deixis.data.world import Kind

Open: TypeAlias = "Callable[[Path, str, Path | None, bool], Dataset]"


# A dataset's module is imported when it is opened: names are listed and checked without h5py and the like.


def _in_module(module: str, name: str) -> Open:
    """What opens a dataset, by its name in a module of :mod:`deixis.data`."""

    def open_it(root: Path, split: str, list_file: Path | None, part: bool) -> Dataset:
        opens: Any = getattr(import_module(f"deixis.data.{module}"), name)
        found: Dataset = opens(root, split, list_file, part=part)
        return found

    return open_it


def _refcoco(name: str) -> Open:
    def open_refcoco(root: Path, split: str, list_file: Path | None, part: bool) -> Dataset:
        from deixis.data.refcoco import RefCoco

        return RefCoco(root, name, split, list_file, part=part)

    return open_refcoco


def _world(kind: Kind | None) -> Open:
    def open_world(root: Path, split: str, list_file: Path | None, part: bool) -> Dataset:
        from deixis.data.world_dataset import WorldDataset

        del part  # there is no published number of frames
        _no_list("the world", list_file)
        return WorldDataset(root, split, kind)

    return open_world


def _nyuv2_rooms(root: Path, split: str, list_file: Path | None, part: bool) -> Dataset:
    from deixis.data.nyuv2_rooms import NYUv2Rooms

    del part
    _no_list("nyuv2-rooms", list_file)
    return NYUv2Rooms(root, split)


def _no_list(name: str, list_file: Path | None) -> None:
    if list_file is not None:
        raise UsageError(printable(list_file), f"is a list, and {name} takes none", "leave --list out")


@dataclass(frozen=True)
class Reader:
    """A dataset that can be read.

    Attributes:
        name: as the commands take it.
        splits: its parts; the first is taken where none is named.
        open: reads the part of a root, with a list of samples or with the published one; the last argument is ``part``
            of :func:`open_dataset`.
    """

    name: str
    splits: tuple[str, ...]
    open: Open


UNC_SPLITS = ("unc-val", "unc-testA", "unc-testB", "unc-train")
WORLD_SPLITS = ("heldout", "val", "train", "all")
READERS = {
    reader.name: reader
    for reader in (
        Reader("nyuv2", ("test", "train", "sync"), _in_module("nyuv2_sets", "open_nyuv2")),
        Reader("kitti", ("test", "val", "train", "selection"), _in_module("kitti", "open_kitti")),
        Reader("eth3d", ("full",), _in_module("eth3d", "ETH3D")),
        Reader("scannet", ("val",), _in_module("scannet", "ScanNet")),
        Reader("diode", ("val", "indoors", "outdoor"), _in_module("diode", "DIODE")),
        Reader("hypersim", ("val", "train", "test"), _in_module("hypersim", "Hypersim")),
        Reader("vkitti2", ("val", "train"), _in_module("vkitti2", "VirtualKITTI2")),
        Reader("refcoco", (*UNC_SPLITS, "google-val", "google-test", "google-train"), _refcoco("refcoco")),
        Reader("refcoco+", UNC_SPLITS, _refcoco("refcoco+")),
        Reader("refcocog", ("umd-val", "umd-test", "umd-train", "google-val", "google-train"), _refcoco("refcocog")),
        Reader("grefcoco", UNC_SPLITS, _refcoco("grefcoco")),
        Reader("nyuv2-rooms", ("heldout", "val", "train"), _nyuv2_rooms),
        Reader("world", WORLD_SPLITS, _world(None)),
        Reader("world-rooms", WORLD_SPLITS, _world("rooms")),
        Reader("world-roads", WORLD_SPLITS, _world("roads")),
    )
}


def check_name(name: str, known: Collection[str]) -> None:
    """Refuse a dataset that is not one of those known, and name the nearest.

    Raises:
        UsageError: if it is none of them.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "use one of"
        raise UsageError(f"dataset '{printable(name)}'", "is unknown", f"{hint} {', '.join(known)}")


def open_dataset(
    name: str,
    root: str | Path,
    split: str | None = None,
    list_file: str | Path | None = None,
    *,
    part: bool = False,
) -> Dataset:
    """Open a split of a dataset.

    Args:
        name: a name of ``READERS``.
        root: folder or plain tar, in a published layout.
        split: one of the reader's; None for its first.
        list_file: names the samples; None for the published list.
        part: take what is there of a copy that is not whole, or has frames and no list; ``own_list`` then says so.

    Raises:
        UsageError: for an unknown dataset or split.
        InputError: if the root does not hold it, or a list is missing or damaged.
    """
    check_name(name, READERS)
    reader = READERS[name]
    if split is not None and split not in reader.splits:
        raise UsageError(f"split '{printable(split)}'", f"is none of {name}", f"use one of {', '.join(reader.splits)}")
    return reader.open(Path(root), split or reader.splits[0], None if list_file is None else Path(list_file), part)
