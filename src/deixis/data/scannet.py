"""ScanNet, frames of its validation scenes (Dai et al., CVPR 2017).

``<scene>/color/<frame>.jpg`` and ``<scene>/depth/<frame>.png`` (16-bit, millimetres, 0 = no measurement), both of one
size: the 800 published frames were sampled, and their photos brought to the size of the depth maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from deixis.data.dataset import Sample
from deixis.data.listed import ListedFrames, Paths, by_picture

PICTURES = "scene*/color/*.jpg"
PER_METRE = 1000


class ScanNet(ListedFrames):
    """Frames of an RGB-D camera walked through rooms."""

    name = "scannet"
    splits = ("val",)
    lists: ClassVar = {"val": ("scannet.val",)}
    counts: ClassVar = {"val": 800}
    expected = PICTURES
    remedy = "pass the root of scannet_val_sampled_800_1.tar of Marigold's public evaluation, or that tar"

    def pictures(self) -> list[str]:
        """Every photo under a scene's ``color``."""
        return self.files.glob(PICTURES)

    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """All of them."""
        return by_picture((picture, depth_path(picture)) for picture in pictures)

    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """The lines as they are."""
        return by_picture(lines)

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or their sizes differ.
        """
        picture, depth = self.paths[index]
        rgb = self.files.picture(picture)
        return Sample(self.names[index], rgb, depth=self.files.metres(depth, PER_METRE, rgb))


def depth_path(picture: str) -> str:
    """Where the depth of a photo lies."""
    path = PurePosixPath(picture)
    return f"{path.parent.parent}/depth/{path.stem}.png"
