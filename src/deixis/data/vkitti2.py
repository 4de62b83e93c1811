"""Virtual KITTI 2 (Cabon et al., 2020): five drives rendered again, each in ten variants, by two cameras.

``Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg`` and ``Scene01/clone/frames/depth/Camera_0/depth_00000.png`` (16-bit,
centimetres; 65535, 655.35 m, is the sky) lie under folders that differ from copy to copy:

* published: ``vkitti_2.0.3_rgb``, ``vkitti_2.0.3_depth`` and ``vkitti_2.0.3_textgt``, the last with
  ``Scene01/clone/intrinsic.txt``
* Marigold's tar: ``rgb`` and ``depth``
* Lotus: all in the root
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from deixis.camera import Camera
from deixis.data.container import COPY_AGAIN
from deixis.data.dataset import Sample
from deixis.data.listed import ListedFrames, Paths
from deixis.errors import InputError
from deixis.io import printable

SCENES = {"val": ("Scene01",), "train": ("Scene02", "Scene06", "Scene18", "Scene20")}
VARIANTS = ("15-deg-left", "15-deg-right", "clone", "morning", "overcast", "sunset")
"""Those of the published lists: no fog, no rain, no views turned by 30 degrees."""

PER_METRE = 100
WIDTH, HEIGHT = 1242, 375
# The published matrices count from the centre of the first pixel, which is half a pixel into the picture.
CAMERA = Camera(725.0087, 725.0087, 620.5 + 0.5, 187 + 0.5, WIDTH, HEIGHT)
HEADER = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"

# Layout, where pictures are, where depth is, where texts are.
_LAYOUTS = (
    ("published", "vkitti_2.0.3_rgb/", "vkitti_2.0.3_depth/", "vkitti_2.0.3_textgt/"),
    ("marigold", "rgb/", "depth/", "textgt/"),
    ("lotus", "", "", ""),
)
_PICTURE = re.compile(r"^(?:vkitti_2\.0\.3_rgb/|rgb/)?((Scene\d+/[^/]+)/frames/rgb/Camera_(\d)/rgb_(\d+)\.jpg)$")


class VirtualKITTI2(ListedFrames):
    """Rendered drives. A frame has the same name in every layout, and a list of one fits a copy in another."""

    name = "vkitti2"
    splits = tuple(SCENES)
    lists: ClassVar = {"val": ("vkitti2.val",), "train": ("vkitti2.train",)}
    counts: ClassVar = {"val": 5364, "train": 20148}
    expected = "vkitti_2.0.3_rgb/Scene*/*/frames/rgb/Camera_*/rgb_*.jpg (or the same under rgb/, or in the root)"
    remedy = "unpack vkitti_2.0.3_rgb.tar, vkitti_2.0.3_depth.tar and vkitti_2.0.3_textgt.tar.gz into one folder each"

    def pictures(self) -> list[str]:
        """Every picture, of all scenes and variants."""
        for self.layout, self._rgb, self._depth, self._text in _LAYOUTS:
            pictures = self.files.glob(f"{self._rgb}Scene*/*/frames/rgb/Camera_*/rgb_*.jpg")
            if pictures:
                break
        return pictures

    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """Those of the split's scenes in the variants of the published lists."""
        names = [picture.removeprefix(self._rgb) for picture in pictures]
        chosen = {f"{scene}/{variant}" for scene in SCENES[self.split] for variant in VARIANTS}
        return [self._frame(name) for name in names if name.split("/frames/")[0] in chosen]

    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """The lines, whichever layout they are in. Raises InputError for one in none."""
        return [self._frame(picture) for picture, _ in lines]

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or their sizes differ.
        """
        picture, depth = self.paths[index]
        rgb = self.files.picture(picture)
        values = self.files.metres(depth, PER_METRE, rgb)
        return Sample(self.names[index], rgb, depth=values, camera=self._camera(self.names[index], rgb.shape[:2]))

    def _frame(self, picture: str) -> tuple[str, Paths]:
        matched = _PICTURE.match(picture)
        if matched is None:
            raise InputError(
                printable(picture), "is no picture of Virtual KITTI 2", "correct the list: Scene01/clone/frames/rgb/…"
            )
        name, variant, camera, number = matched.groups()
        depth = f"{self._depth}{variant}/frames/depth/Camera_{camera}/depth_{number}.png"
        return name, (f"{self._rgb}{name}", depth)

    def _camera(self, name: str, size: tuple[int, ...]) -> Camera | None:
        """As ``intrinsic.txt`` says; without that file the published one, for pictures of the published size."""
        height, width = size
        matched = _PICTURE.match(name)
        assert matched is not None  # it was when the name was made
        _, variant, camera, number = matched.groups()
        path = f"{self._text}{variant}/intrinsic.txt"
        if not self.files.has(path):
            return CAMERA if (width, height) == (WIDTH, HEIGHT) else None
        if path not in self._intrinsics:
            self._intrinsics[path] = self.files.decode(path, _parse_intrinsics)
        try:
            fx, fy, cx, cy = self._intrinsics[path][int(number), int(camera)]
        except KeyError as error:
            raise InputError(
                self.files.label(path), f"says nothing of frame {int(number)} of camera {camera}", COPY_AGAIN
            ) from error
        return Camera(fx, fy, cx + 0.5, cy + 0.5, width, height)

    @cached_property
    def _intrinsics(self) -> dict[str, dict[tuple[int, int], tuple[float, float, float, float]]]:
        """Of each file read so far: by frame and camera fx, fy, cx, cy as published [px]."""
        return {}


def _parse_intrinsics(content: bytes) -> dict[tuple[int, int], tuple[float, float, float, float]]:
    header, *lines = content.decode().splitlines()
    if header.split() != HEADER.split():
        raise ValueError(f"does not begin with '{HEADER}'")
    rows = [line.split() for line in lines if line.strip()]
    found = {(int(a), int(b)): (float(fx), float(fy), float(cx), float(cy)) for a, b, fx, fy, cx, cy in rows}
    for values in found.values():
        if not (np.isfinite(values).all() and min(values[:2]) > 0):
            raise ValueError(f"has a camera of {values}")
    return found
