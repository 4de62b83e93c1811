"""Frames whose picture and depth are files of their own: NYUv2 and KITTI."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deixis.camera import Camera
from deixis.data.container import Container
from deixis.data.dataset import Dataset, Sample
from deixis.data.splits import Listing
from deixis.errors import InputError
from deixis.io import printable
from deixis.types import Text


class FrameFiles(NamedTuple):
    """The files of a frame.

    Attributes:
        name: the picture as the dataset's lists call it, whatever the folder above is called.
        picture: path inside the root.
        depth: path inside the root.
    """

    name: str
    picture: str
    depth: str


class DepthFrames(Dataset):
    """Pictures with their depth maps.

    Args:
        files: the root.
        split: which part.
        layout: which layout of the dataset it is.
        frames: in the published order.
        own_list: what names the samples, where it is not the published list.
    """

    per_metre: float
    """What a depth map stores for a metre."""

    def __init__(
        self, files: Container, split: str, layout: str, frames: Sequence[FrameFiles], own_list: str | None
    ) -> None:
        self.files = files
        self.split = split
        self.layout = layout
        self.frames = list(frames)
        self.names = [frame.name for frame in self.frames]
        self.own_list = own_list

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or picture and depth differ in size.
        """
        frame = self.frames[index]
        rgb = self.files.picture(frame.picture)
        return Sample(
            name=frame.name,
            rgb=rgb,
            depth=self.files.metres(frame.depth, self.per_metre, rgb),
            camera=self.camera(frame, rgb.shape[1], rgb.shape[0]),
            texts=self.texts(frame),
        )

    def stamp(self, index: int) -> str:
        """Of picture and depth."""
        _, *paths = self.frames[index]
        return f"{paths} {self.files.stamp(*paths)}"

    def encoded(self, index: int) -> bytes:
        """The file of the picture. Raises InputError if it is missing."""
        return self.files.read(self.frames[index].picture)

    def described(self, index: int) -> dict[str, Text] | None:
        """What :meth:`texts` says."""
        return self.texts(self.frames[index])

    def missing(self) -> Iterator[str]:
        """Listed files that are not there, one line each."""
        for _, *paths in self.frames:
            yield from (f"{self.files.label(path)}: is not there" for path in paths if not self.files.has(path))

    @abstractmethod
    def camera(self, frame: FrameFiles, width: int, height: int) -> Camera | None:
        """Intrinsics of a frame of that size, None where the dataset does not state them."""

    def texts(self, frame: FrameFiles) -> dict[str, Text] | None:
        """What the dataset says about a frame in words; nothing by default."""
        del frame
        return None


def check_same_frame(listing: Listing, picture: tuple[str, ...], depth: tuple[str, ...]) -> None:
    """Refuse a line of one's own list that has the depth of another frame: lists slip by a line.

    Args:
        listing: the list.
        picture: what tells the frame of the picture: scene and number, or drive, camera and number.
        depth: the same of the depth.

    Raises:
        InputError: if they differ.
    """
    if listing.own is not None and picture != depth:
        told = " ".join(picture), " ".join(depth)
        raise InputError(
            printable(listing.file),
            f"has beside the picture {printable(told[0])} the depth {printable(told[1])}",
            "name picture and depth of one frame in each line",
        )


def those_there(
    files: Container, frames: Sequence[FrameFiles], own_list: str | None = None
) -> tuple[list[FrameFiles], str | None]:
    """The frames of which the root holds both files, and what names them: the root, unless all are there.

    Args:
        files: the root.
        frames: those that belong to the split.
        own_list: what names these, where it is not the published list.

    Raises:
        InputError: if none is there.
    """
    found = [frame for frame in frames if files.has(frame.picture) and files.has(frame.depth)]
    if not found:
        problem = "holds no frame that has both a picture and depth"
        if frames:
            problem = f"holds none of {len(frames)} frames such as {printable(frames[0].picture)} and its depth"
        raise InputError(printable(files.root), problem, "check the root, or name the samples you have with --list")
    return found, own_list if len(found) == len(frames) else printable(files.root)
