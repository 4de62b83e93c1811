"""ETH3D, the high-resolution photos of its training scenes (Schöps et al., CVPR 2017).

``rgb/<scene>/images/dslr_images/<photo>.JPG`` and
``depth/<scene>_dslr_depth/<scene>/ground_truth_depth/dslr_images/<photo>.JPG``. Depth files are no pictures though they
are called so: float32 without a header, row by row, in metres; infinity where nothing was measured.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np

from deixis.data.container import COPY_AGAIN
from deixis.data.dataset import Sample
from deixis.data.listed import PlainFrames
from deixis.errors import InputError
from deixis.types import RGB, FloatMap


class ETH3D(PlainFrames):
    """Photos with laser-scanned depth; 454 of 4032 x 6048 pixels are published.

    Depth has the size of its photo, which is all that tells it.
    """

    name = "eth3d"
    splits = ("full",)
    lists: ClassVar = {"full": ("eth3d.full",)}
    counts: ClassVar = {"full": 454}
    expected = "rgb/*/images/dslr_images/*.JPG"
    remedy = "pass the root of eth3d.tar as the public evaluation of Marigold lays it out, or that tar"

    @staticmethod
    def depth_path(picture: str) -> str:
        """Where the depth of a photo lies."""
        _, scene, *_ = PurePosixPath(picture).parts
        return f"depth/{scene}_dslr_depth/{scene}/ground_truth_depth/dslr_images/{PurePosixPath(picture).name}"

    def __getitem__(self, index: int) -> Sample:
        """Read a photo and its depth.

        Raises:
            InputError: if one of them is missing or damaged.
        """
        picture, depth = self.paths[index]
        rgb = self.files.picture(picture)
        return Sample(self.names[index], rgb, depth=self._depth(depth, rgb))

    def _depth(self, path: str, rgb: RGB) -> FloatMap:
        content = self.files.read(path)
        height, width = rgb.shape[:2]
        if len(content) != 4 * height * width:
            problem = f"holds {len(content)} bytes where {height} x {width} float32 take {4 * height * width}"
            raise InputError(self.files.label(path), problem, COPY_AGAIN)
        values = np.frombuffer(content, dtype="<f4").reshape(height, width)
        return np.where(np.isfinite(values), values, 0).astype(np.float32)
