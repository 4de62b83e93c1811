"""Hypersim (Roberts et al., ICCV 2021): rendered rooms, in the three layouts that depth estimators train on.

* raw, as released: ``<scene>/images/scene_<camera>_final_hdf5/frame.<n>.color.hdf5`` (radiance) and
  ``<scene>/images/scene_<camera>_geometry_hdf5/frame.<n>.{depth_meters,render_entity_id}.hdf5``; the former is the
  distance to the camera's centre, not depth. ``metadata_images_split_scene_v1.csv`` in the root says which frame
  belongs to which split.
* marigold: ``<scene>/rgb_<camera>_fr<n>.png`` and ``<scene>/depth_plane_<camera>_fr<n>.png`` (16-bit, millimetres,
  0 = nothing), tone-mapped and converted beforehand; the root is the folder of a split, or the one above.
* lotus: ``<split>/<scene>/images/scene_<camera>_final_preview/frame.<n>.tonemap.jpg``, the released preview, with
  ``depth_meters`` as in raw.

Conversion and tone map are those of prs-eth/Marigold, script/depth/dataset_preprocess/hypersim.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from deixis.camera import Camera
from deixis.data.container import COPY_AGAIN
from deixis.data.dataset import CountError, Sample, count_error
from deixis.data.hdf5 import hdf5
from deixis.data.listed import ListedFrames, Paths
from deixis.errors import InputError
from deixis.io import printable
from deixis.types import RGB, BoolMap, FloatMap

WIDTH, HEIGHT, FOCAL_PX = 1024, 768, 886.81
CAMERA = Camera.from_focal_px(FOCAL_PX, WIDTH, HEIGHT)
PER_METRE = 1000
SPLITS_FILE = "metadata_images_split_scene_v1.csv"
SPLITS_COLUMNS = (
    "scene_name",
    "camera_name",
    "frame_id",
    "included_in_public_release",
    "exclude_reason",
    "split_partition_name",
)
NOTHING = -1
"""The render entity of pixels that show none."""

Layout = Literal["raw", "marigold", "lotus"]

_GAMMA = 1 / 2.2
_PERCENTILE, _WANTED, _DARK = 90, 0.8, 0.0001
_NAMES: dict[Layout, re.Pattern[str]] = {
    "raw": re.compile(r"([^/]+)/images/scene_(cam_\d+)_final_hdf5/frame\.(\d+)\.color\.hdf5$"),
    "marigold": re.compile(r"([^/]+)/rgb_(cam_\d+)_fr(\d+)\.png$"),
    "lotus": re.compile(r"([^/]+)/images/scene_(cam_\d+)_final_preview/frame\.(\d+)\.tonemap\.jpg$"),
}


class Hypersim(ListedFrames):
    """Rendered rooms. A frame has the name of Marigold's list in every layout, and that list fits them all.

    Without a list, raw frames belong to the split that ``metadata_images_split_scene_v1.csv`` says, those that it
    leaves out to none; in the other layouts, all frames in the folder of the split are taken.
    """

    name = "hypersim"
    layout: Layout
    splits = ("val", "train", "test")
    lists: ClassVar = {"val": ("hypersim.val",), "train": ("hypersim.train",)}
    expected = (
        "ai_*/images/scene_cam_*_final_hdf5/frame.*.color.hdf5 (raw), ai_*/rgb_cam_*_fr*.png with or without the"
        " split's folder before it (marigold) or"
        " <split>/ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg (lotus)"
    )
    remedy = "pass the folder of the released scenes, or what a preprocessing made of them"

    def pictures(self) -> list[str]:
        """Every picture, in a folder of the split if there is one."""
        patterns: tuple[tuple[Layout, str, str], ...] = (
            ("marigold", f"{self.split}/", "ai_*/rgb_cam_*_fr*.png"),
            ("marigold", "", "ai_*/rgb_cam_*_fr*.png"),
            ("raw", "", "ai_*/images/scene_cam_*_final_hdf5/frame.*.color.hdf5"),
            ("lotus", f"{self.split}/", "ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"),
        )
        for self.layout, self._prefix, pattern in patterns:
            pictures = self.files.glob(f"{self._prefix}{pattern}")
            if pictures:
                break
        return pictures

    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """Those of the split. Raises InputError if raw frames have no table of splits."""
        names = [_list_name(_NAMES[self.layout], picture) for picture in pictures]
        if self.layout == "raw":
            names = [name for name in names if name in self._released]
        return [self._frame(name) for name in names]

    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """The lines, as files of the root's layout. Raises InputError for a line that is not Marigold's."""
        return [self._frame(_list_name(_NAMES["marigold"], picture)) for picture, _ in lines]

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or their sizes differ.
            UsageError: if h5py is needed and not installed.
        """
        name, paths = self.names[index], self.paths[index]
        if self.layout == "raw":
            return self._raw(name, *paths)
        rgb = self.files.picture(paths[0])
        if self.layout == "marigold":
            depth = self.files.metres(paths[1], PER_METRE, rgb)
        else:
            self._check_published(paths[0], rgb)
            depth = planar(self._map(paths[1]))
        return Sample(name, rgb, depth=depth, camera=CAMERA if depth.shape == (HEIGHT, WIDTH) else None)

    def _raw(self, name: str, color: str, distance: str, entity: str) -> Sample:
        radiance = self._array(color)
        self._check_published(color, radiance)
        seen = self._map(entity) != NOTHING
        return Sample(
            name,
            tone_map(radiance.astype(np.float64), seen),
            depth=np.where(seen, planar(self._map(distance)), np.float32(0)),
            camera=CAMERA,
        )

    def _array(self, path: str) -> npt.NDArray[Any]:
        h5py = hdf5()
        return self.files.numbers(path, lambda content: h5py.File(io.BytesIO(content))["dataset"][()])

    def _map(self, path: str) -> npt.NDArray[Any]:
        """Numbers of the released size [H, W]."""
        values = self._array(path)
        self._check_shape(path, values, (HEIGHT, WIDTH))
        return values

    def _check_published(self, path: str, picture: npt.NDArray[Any]) -> None:
        self._check_shape(path, picture, (HEIGHT, WIDTH, 3))

    def _check_shape(self, path: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
        """Refuse another size than the released one, the only one whose camera is known."""
        if values.shape != shape:
            problem = f"is {list(values.shape)} where {list(shape)} is released"
            raise InputError(self.files.label(path), problem, COPY_AGAIN)

    def _frame(self, name: str) -> tuple[str, Paths]:
        """A frame by the name of its picture in Marigold's list, with its files."""
        matched = _NAMES["marigold"].search(name)
        assert matched is not None  # names are made by _list_name
        scene, camera, number = matched.groups()
        if self.layout == "marigold":
            depth = f"{scene}/depth_plane_{camera}_fr{number}.png"
            return name, (f"{self._prefix}{name}", f"{self._prefix}{depth}")
        images = f"{self._prefix}{scene}/images/scene_{camera}"
        distance = f"{images}_geometry_hdf5/frame.{number}.depth_meters.hdf5"
        if self.layout == "lotus":
            return name, (f"{images}_final_preview/frame.{number}.tonemap.jpg", distance)
        entity = f"{images}_geometry_hdf5/frame.{number}.render_entity_id.hdf5"
        return name, (f"{images}_final_hdf5/frame.{number}.color.hdf5", distance, entity)

    def _incomplete(self, where: str, found: int) -> CountError | None:
        """Raw frames are told by their table, what a preprocessing made of them by nobody."""
        return count_error(where, found, len(self._released)) if self.layout == "raw" else None

    @cached_property
    def _released(self) -> set[str]:
        """The frames that are released and of the split. Raises InputError if the table is missing or damaged."""
        if not self.files.has(SPLITS_FILE):
            raise InputError(
                self.files.label(SPLITS_FILE),
                "is not there, and alone says which frame is of which split",
                "copy it from evermotion_dataset/analysis of github.com/apple/ml-hypersim, or pass a list",
            )
        return {name for name, split in self.files.decode(SPLITS_FILE, _parse_splits) if split == self.split}


def list_name(scene: str, camera: str, frame: int) -> str:
    """The picture of a frame in Marigold's list."""
    return f"{scene}/rgb_{camera}_fr{frame:04d}.png"


def _list_name(pattern: re.Pattern[str], picture: str) -> str:
    matched = pattern.search(picture)
    if matched is None:
        remedy = "correct the list: ai_001_001/rgb_cam_00_fr0000.png"
        raise InputError(printable(picture), "is no picture of Hypersim", remedy)
    scene, camera, number = matched.groups()
    return list_name(scene, camera, int(number))


def _parse_splits(content: bytes) -> list[tuple[str, str]]:
    """Released frames as Marigold's list names them, each with its split."""
    reader = csv.DictReader(io.StringIO(content.decode()))
    if tuple(reader.fieldnames or ()) != SPLITS_COLUMNS:
        raise ValueError(f"does not begin with {','.join(SPLITS_COLUMNS)}")
    return [
        (list_name(row["scene_name"], row["camera_name"], int(row["frame_id"])), row["split_partition_name"])
        for row in reader
        if row["included_in_public_release"] == "True"
    ]


@cache
def _ray_lengths() -> FloatMap:
    """How far each pixel of the image plane is from the camera's centre [H, W] [px]."""
    x = np.linspace(-0.5 * WIDTH + 0.5, 0.5 * WIDTH - 0.5, WIDTH).astype(np.float32)
    y = np.linspace(-0.5 * HEIGHT + 0.5, 0.5 * HEIGHT - 0.5, HEIGHT).astype(np.float32)[:, None]
    return np.sqrt(x * x + y * y + np.float32(FOCAL_PX) ** 2)


def planar(distance: npt.NDArray[Any]) -> FloatMap:
    """Depth along the optical axis, float32 [H, W] [m], of the distance to the camera's centre [H, W] [m].

    0 where there is no distance. Source: github.com/apple/ml-hypersim, issue 9.
    """
    known = np.where(np.isfinite(distance), distance, 0).astype(np.float32)
    return known / _ray_lengths() * np.float32(FOCAL_PX)


def distance_of(depth: FloatMap) -> FloatMap:
    """The inverse of :func:`planar`, float32 [H, W] [m]; NaN where depth is 0."""
    return np.where(depth > 0, depth / np.float32(FOCAL_PX) * _ray_lengths(), np.float32(np.nan))


def tone_map(radiance: npt.NDArray[np.float64], seen: BoolMap) -> RGB:
    """Radiance [H, W, 3] as a picture, uint8 [H, W, 3], truncated.

    Exposed so that the 90th percentile of brightness comes out at 0.8 of white, with a gamma of 2.2. Black where that
    percentile is below 0.0001.

    Args:
        radiance: linear red green blue; NaN counts as black, infinity as very bright.
        seen: bool [H, W], the pixels whose brightness counts: those that show something.
    """
    radiance = np.nan_to_num(radiance, posinf=np.finfo(np.float32).max, neginf=0)
    scale = 1.0
    if seen.any():
        brightness = 0.3 * radiance[..., 0] + 0.59 * radiance[..., 1] + 0.11 * radiance[..., 2]
        bright = float(np.percentile(brightness[seen], _PERCENTILE))
        scale = 0.0 if bright < _DARK else _WANTED ** (1 / _GAMMA) / bright
    toned = np.clip(np.maximum(scale * radiance, 0) ** _GAMMA, 0, 1)
    return (toned * 255).astype(np.uint8)
