"""ScanNet, frames of its validation scenes (Dai et al., CVPR 2017).

``<scene>/color/<frame>.jpg`` and ``<scene>/depth/<frame>.png`` (16-bit, millimetres, 0 = no measurement), both of one
size: the 800 published frames were sampled, and their photos brought to the size of the depth maps.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar

from deixis.data.dataset import Sample
from deixis.data.listed import PlainFrames

PER_METRE = 1000


class ScanNet(PlainFrames):
    """Frames of an RGB-D camera walked through rooms."""

    name = "scannet"
    splits = ("val",)
    lists: ClassVar = {"val": ("scannet.val",)}
    counts: ClassVar = {"val": 800}
    expected = "scene*/color/*.jpg"
    remedy = "pass the root of scannet_val_sampled_800_1.tar of Marigold's public evaluation, or that tar"

    @staticmethod
    def depth_path(picture: str) -> str:
        """Where the depth of a photo lies."""
        path = PurePosixPath(picture)
        return f"{path.parent.parent}/depth/{path.stem}.png"

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or their sizes differ.
        """
        picture, depth = self.paths[index]
        rgb = self.files.picture(picture)
        return Sample(self.names[index], rgb, depth=self.files.metres(depth, PER_METRE, rgb))
