"""Frames named by the lines of a split list, or else by what is in the root: what such readers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy.typing as npt

from deixis.data.container import COPY_AGAIN, Container
from deixis.data.dataset import CountError, Dataset, count_error
from deixis.data.splits import Listing, find_listing, inside, is_here
from deixis.errors import InputError, UsageError
from deixis.io import printable
from deixis.types import RGB

Paths = tuple[str, ...]


class ListedFrames(Dataset):
    """A split of a dataset whose frames are files of their own.

    Args:
        root: a folder, or a plain tar of it.
        split: one of ``splits``.
        list_file: names the frames, in its order. By default the published list does, if it is in the folder of
            lists; otherwise the frames found in the root are taken, by path.
        part: of the published list take those that are there, or without any what else is.

    Raises:
        UsageError: for an unknown split, or a list that leads out of the root.
        InputError: if the root holds no frames in a known layout, or the list cannot be used.
    """

    splits: ClassVar[tuple[str, ...]]
    """What can be asked for."""
    lists: ClassVar[dict[str, tuple[str, ...]]]
    """The published lists of a split; those of other splits have none."""
    counts: ClassVar[dict[str, int]] = {}
    """Published frames of a split, where a root that holds them holds no others."""
    fields: ClassVar[int] = 2
    """Paths on a line of the published lists; what follows them is left out."""
    expected: ClassVar[str]
    """What a root holds, for errors."""
    remedy: ClassVar[str]
    """Where to get that."""

    def __init__(
        self, root: str | Path, split: str, list_file: str | Path | None = None, *, part: bool = False
    ) -> None:
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise UsageError(f"split '{printable(split)}'", f"is none of {self.name}", f"use one of {known}")
        self.split = split
        self.files = Container(root)
        pictures = self.pictures()
        if not pictures:
            problem = f"holds no {self.expected}; found {self.files.contents()}"
            raise InputError(printable(root), problem, self.remedy)
        lists = self.lists.get(split, ())
        if list_file is None and not is_here(lists):
            frames = self.found(pictures)
            self.incomplete = self._incomplete(printable(root), len(frames))
            whole = split in self.counts and self.incomplete is None
            self.own_list = None if whole else printable(root)
        else:
            listing = find_listing(lists, list_file)
            try:
                frames, self.own_list = self.listed(self._paths(listing)), listing.own
            except InputError as error:
                problem = f"names '{error.subject}', which {error.problem}"
                raise InputError(printable(listing.file), problem, error.remedy) from error
        if part and list_file is None:
            there = [(name, paths) for name, paths in frames if all(map(self.files.has, paths))]
            if len(there) < len(frames):
                frames, self.own_list = there or self.found(pictures), printable(root)
        if not frames:
            where = root if list_file is None else list_file
            raise InputError(printable(where), f"holds no frame of the split '{split}' of {self.name}", self.remedy)
        self.names = [name for name, _ in frames]
        self.paths = [paths for _, paths in frames]

    @abstractmethod
    def pictures(self) -> list[str]:
        """All pictures in the root, by path, in the layout that it has; none if that is no known one."""

    @abstractmethod
    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """Names of the split's frames among the pictures in the root, with their files."""

    @abstractmethod
    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """Names of the split's frames on the lines of a list, with their files in the root.

        Raises:
            InputError: if a line fits no layout; about what the line names.
        """

    def _incomplete(self, where: str, found: int) -> CountError | None:
        """What is wrong with the number of frames that were found."""
        return count_error(where, found, self.counts[self.split]) if self.split in self.counts else None

    def _paths(self, listing: Listing) -> list[Paths]:
        for sample in listing.samples:
            if len(sample) < self.fields:
                problem = f"is a sample of {len(sample)} files where {self.name} has {self.fields}"
                raise InputError(printable(" ".join(sample)), problem, "name them all on its line")
        return [tuple(inside(path) for path in sample[: self.fields]) for sample in listing.samples]

    def stamp(self, index: int) -> str:
        """Of all its files."""
        paths = self.paths[index]
        return f"{list(paths)} {self.files.stamp(*paths)}"

    def encoded(self, index: int) -> bytes:
        """The file of the picture. Raises InputError if it is missing."""
        return self.files.read(self.paths[index][0])

    def missing(self) -> Iterator[str]:
        """Files of the split that are not there, one line each."""
        for paths in self.paths:
            yield from (f"{self.files.label(path)}: is not there" for path in paths if not self.files.has(path))

    def check_size(self, path: str, values: npt.NDArray[Any], rgb: RGB) -> None:
        """Refuse a map [H, W] of another size than its picture.

        Raises:
            InputError: if the sizes differ; names both.
        """
        if values.shape != rgb.shape[:2]:
            sizes = f"is {list(values.shape)} where its picture is {list(rgb.shape[:2])}"
            raise InputError(self.files.label(path), sizes, COPY_AGAIN)


def check_pair(path: str, picture: str, expected: str) -> None:
    """Refuse a file of another picture: lists slip by a line.

    Args:
        path: what the list names beside a picture.
        picture: the picture.
        expected: what belongs to it.

    Raises:
        InputError: if it is another file.
    """
    if path != expected:
        raise InputError(printable(path), f"does not belong to {printable(picture)}", f"name {printable(expected)}")


class PlainFrames(ListedFrames):
    """A set of one layout and one split, whose list names files as they lie; ``expected`` is where photos are."""

    @staticmethod
    @abstractmethod
    def depth_path(picture: str) -> str:
        """Where the depth of a photo lies."""

    def pictures(self) -> list[str]:
        """Every photo."""
        return self.files.glob(self.expected)

    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """All of them."""
        return [(picture, (picture, self.depth_path(picture))) for picture in pictures]

    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """The lines as they are. Raises InputError for one in another layout, or with depth of another picture."""
        for picture, depth in lines:
            if not PurePosixPath(picture).match(self.expected):
                problem = f"is no picture of {self.name}"
                raise InputError(printable(picture), problem, f"correct the list: {self.expected}")
            check_pair(depth, picture, self.depth_path(picture))
        return [(line[0], line) for line in lines]
