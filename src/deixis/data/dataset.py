"""What every reader gives: samples by index, each with what its dataset knows of a picture."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deixis.camera import Camera
from deixis.data.container import COPY_AGAIN
from deixis.errors import InputError
from deixis.types import RGB, BoolMap, FloatMap, IntMap, Text


@dataclass(frozen=True, eq=False)
class Expression:
    """Words that mean something in a picture.

    Attributes:
        text: the words.
        mask: bool [H, W], the pixels meant; nowhere true where nothing is.
        name: unique within the dataset.
        distance_m: planar depth of what is meant [m], where the dataset knows it.
    """

    text: str
    mask: BoolMap
    name: str
    distance_m: float | None = None

    @property
    def found(self) -> bool:
        """Whether anything is meant."""
        return bool(self.mask.any())


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and what is known of it.

    Attributes:
        name: unique within the dataset and the same on every machine: its path inside the root, mostly.
        rgb: uint8 [H, W, 3], sRGB.
        depth: float32 [H, W] [m], planar, raw; 0 where unknown. None where the dataset has none.
        mask: bool [H, W], where the dataset's own mask file says that depth counts; None without such a file.
        camera: intrinsics, where the dataset states them.
        expressions: referring expressions, those for nothing included.
        instances: int32 [H, W], the thing at each pixel, 0 for none; None where the dataset has none.
        instance_names: what a number in ``instances`` is, in words.
        texts: descriptions by source, such as ``class`` or ``caption``, each with its provenance.
    """

    name: str
    rgb: RGB
    depth: FloatMap | None = None
    mask: BoolMap | None = None
    camera: Camera | None = None
    expressions: tuple[Expression, ...] = ()
    instances: IntMap | None = None
    instance_names: dict[int, str] | None = None
    texts: dict[str, Text] | None = None


class CountError(InputError):
    """A copy that has fewer samples than are published, or more."""


class Dataset(ABC):
    """A split of a dataset under a root, in a published layout.

    Attributes:
        name: of the dataset, as ``deixis eval`` takes it.
        split: which part.
        names: of the samples, in the published order.
        layout: which of its published layouts the root holds; None where there is one only.
        own_list: what names the samples where that is not the published list, a file or the copy; results say so.
        incomplete: what is wrong with a copy that names its samples itself and has another count than is published;
            what it has is read all the same.
    """

    name: str
    split: str
    names: list[str]
    layout: str | None = None
    own_list: str | None = None
    incomplete: CountError | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read a sample.

        Raises:
            InputError: if one of its files is missing or damaged.
        """

    @abstractmethod
    def stamp(self, index: int) -> str:
        """What changes when a sample does: sizes and times of its files, and what lists say of it.

        Copies of one dataset may have other stamps; the same copy has the same.
        """

    def encoded(self, index: int) -> bytes | None:
        """The picture's file as it lies there; None where a picture has none of its own.

        Raises:
            InputError: if it is missing.
        """
        del index
        return None

    def image(self, index: int) -> str:
        """Which image a sample shows: several samples may show one, and are then not independent."""
        return self.names[index]

    def described(self, index: int) -> dict[str, Text] | None:
        """A sample's texts; datasets that know them without reading the sample do not read it.

        Raises:
            InputError: as reading it.
        """
        return self[index].texts

    def missing(self) -> Iterator[str]:
        """What cannot be read though it belongs to the split, one line each.

        Here every sample is read; datasets of separate files only look whether they are there.
        """
        for index in range(len(self)):
            try:
                self[index]
            except InputError as error:
                yield f"{error.subject}: {error.problem}"


def truth_of(sample: Sample) -> str:
    """What is known of a picture, in a few letters: its depth, and what expressions mean. Equal for equal copies."""
    found = hashlib.blake2b(digest_size=16)
    for values in (sample.depth, sample.mask):
        found.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    for one in sample.expressions:
        found.update(f"{one.name}\n{one.text}\n{one.distance_m}\n".encode("utf-8", "surrogateescape"))
        found.update(np.packbits(one.mask).tobytes())
    return found.hexdigest()


def spread(count: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the numbers below ``count``, evenly spread from 0 on; all of them without a limit.

    A multiple of a limit takes what the limit took, and more.
    """
    some = count if limit is None else min(count, limit)
    return [number * count // some for number in range(some)]


def count_error(
    where: str, found: int, expected: int, remedy: str = f"{COPY_AGAIN}, or name the samples you have with --list"
) -> CountError | None:
    """What is wrong with a list or a copy that is not whole, naming both counts; None for one that is."""
    if found == expected:
        return None
    return CountError(where, f"holds {found} samples where {expected} are published", remedy)
