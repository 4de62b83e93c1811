"""Frames in the layouts of the sets that affine depth is learnt from and judged on.

Names, folders and encodings are the published ones; see the readers of the same names in :mod:`deixis.data`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deixis.data import diode, hypersim, vkitti2
from deixis.data.eth3d import ETH3D
from deixis.data.hdf5 import hdf5
from deixis.data.scannet import PER_METRE, ScanNet
from deixis.data.world import WorldFrame
from deixis.io import write_npy, write_png16, write_text
from deixis.world.export_common import fitted, place_name, write_depth16, write_list, write_picture
from deixis.world.generate import write_whole

_SKY_CODE = 65535  # in Virtual KITTI 2: 655.35 m
_VAL = (5, 1)  # of Hypersim's and Virtual KITTI 2's frames, one in five is for validation, the second of each five


def export_eth3d(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ETH3D's evaluation layout, each frame at its own size (the published ones have 98 MB of depth).

    Raises:
        InputError: if a shard is damaged.
        DeixisError: if a file cannot be written.
    """
    lines = []
    for frame in frames:
        picture = f"rgb/{place_name(frame)}/images/dslr_images/DSC_{frame.seed:04d}.JPG"
        depth = ETH3D.depth_path(picture)
        write_picture(out / picture, frame.rgb)
        write_whole(out / depth, np.where(frame.depth > 0, frame.depth, np.inf).astype("<f4").tobytes())
        lines.append(f"{picture} {depth}")
    return write_list(out, lines)


def export_scannet(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ScanNet's evaluation layout, at 640 x 480. Raises as :func:`export_eth3d`."""
    lines = []
    for frame in frames:
        shown = fitted(frame, 640, 480)
        picture = f"scene{frame.seed:04d}_00/color/000000.jpg"
        depth = ScanNet.depth_path(picture)
        write_picture(out / picture, shown.rgb)
        write_depth16(out / depth, shown.depth, PER_METRE)
        lines.append(f"{picture} {depth}")
    return write_list(out, lines)


def export_diode(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write DIODE's validation layout, at 1024 x 768. Raises as :func:`export_eth3d`."""
    lines = []
    for frame in frames:
        shown = fitted(frame, 1024, 768)
        place = "indoors" if frame.kind == "rooms" else "outdoor"
        scan = f"{frame.seed:05d}"
        picture = f"{place}/scene_00000/scan_{scan}/00000_{scan}_{place}_000_000.png"
        depth, mask = diode.map_paths(picture)
        write_picture(out / picture, shown.rgb)
        write_npy(out / depth, shown.depth[..., None])
        write_npy(out / mask, (shown.depth > 0).astype(np.float32))
        lines.append(f"{picture} {depth} {mask}")
    return write_list(out, lines)


def export_vkitti2(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write Virtual KITTI 2 as published, at 1242 x 375, one frame in five in its validation scene.

    Raises as :func:`export_eth3d`.
    """
    lines: list[str] = []
    cameras: dict[str, list[str]] = {}
    for index, frame in enumerate(frames):
        shown = fitted(frame, vkitti2.WIDTH, vkitti2.HEIGHT)
        variant = f"{vkitti2.SCENES[_side(index)][0]}/clone"
        number = len(cameras.setdefault(variant, []))
        picture = f"vkitti_2.0.3_rgb/{variant}/frames/rgb/Camera_0/rgb_{number:05d}.jpg"
        depth = f"vkitti_2.0.3_depth/{variant}/frames/depth/Camera_0/depth_{number:05d}.png"
        codes = np.rint(shown.depth.astype(np.float64) * vkitti2.PER_METRE).clip(1, _SKY_CODE)
        write_picture(out / picture, shown.rgb)
        write_png16(out / depth, np.where(shown.depth > 0, codes, _SKY_CODE).astype(np.uint16), {})
        camera = shown.camera
        # Published matrices count from the centre of the first pixel.
        numbers = (camera.fx, camera.fy, camera.cx - 0.5, camera.cy - 0.5)
        cameras[variant].append(f"{number} 0 {' '.join(f'{value:.7g}' for value in numbers)}")
        lines.append(f"{picture} {depth}")
    for variant, rows in cameras.items():
        write_text(out / f"vkitti_2.0.3_textgt/{variant}/intrinsic.txt", "\n".join([vkitti2.HEADER, *rows]) + "\n")
    return write_list(out, lines)


def export_hypersim(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write raw Hypersim, at 1024 x 768, one frame in five for validation.

    The layout has one camera for all. It stands in for the frame's own: depth is the frame's, the distance that is
    written is what that camera would have measured.

    Raises:
        InputError: if a shard is damaged.
        UsageError: if h5py is not installed.
        DeixisError: if a file cannot be written.
    """
    camera = "cam_00"
    rows: list[tuple[str, ...]] = []
    lines = []
    for index, frame in enumerate(frames):
        shown = fitted(frame, hypersim.WIDTH, hypersim.HEIGHT)
        scene = f"ai_{1 + frame.seed // 1000:03d}_{1 + frame.seed % 1000:03d}"
        geometry = f"{scene}/images/scene_{camera}_geometry_hdf5/frame.0000"
        radiance = (shown.rgb.astype(np.float32) / 255) ** 2.2
        entity = np.where(shown.ids > 0, shown.ids, hypersim.NOTHING)
        _write_hdf5(out / f"{scene}/images/scene_{camera}_final_hdf5/frame.0000.color.hdf5", radiance, "float16")
        _write_hdf5(out / f"{geometry}.depth_meters.hdf5", hypersim.distance_of(shown.depth), "float16")
        _write_hdf5(out / f"{geometry}.render_entity_id.hdf5", entity, "int16")
        rows.append((scene, camera, "0", "True", "", _side(index)))
        picture = hypersim.list_name(scene, camera, 0)
        lines.append(f"{picture} {picture.replace('rgb_', 'depth_plane_')}")
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([hypersim.SPLITS_COLUMNS, *rows])
    write_text(out / hypersim.SPLITS_FILE, table.getvalue())
    return write_list(out, lines)


def _side(index: int) -> str:
    period, remainder = _VAL
    return "val" if index % period == remainder else "train"


def _write_hdf5(path: Path, values: npt.NDArray[Any], dtype: str) -> None:
    """One array under the name that Hypersim gives it, compressed."""
    buffer = io.BytesIO()
    with hdf5().File(buffer, "w") as file:
        file.create_dataset("dataset", data=values.astype(dtype), compression="gzip")
    write_whole(path, buffer.getvalue())
