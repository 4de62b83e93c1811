"""Roads as KITTI, in the two layouts that :mod:`deixis.data.kitti` reads.

Frames are cut to KITTI's proportions and enlarged. Since a date's drives share a camera and each frame of the world
has its own, each frame is a drive of its own date.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

from deixis.camera import Camera
from deixis.data.kitti import CALIBRATION
from deixis.data.world import WorldFrame
from deixis.io import write_text
from deixis.world.export_common import fitted, write_depth16, write_list, write_picture

WIDTH, HEIGHT = 1242, 375
SELECTION_WIDTH, SELECTION_HEIGHT = 1216, 352

_PER_METRE = 256.0
_FIRST_DATE = date(2011, 9, 26)
_FIRST_INDEX = 5  # annotated depth gathers the scans around a frame, and the first frames have none before them


def export_kitti(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write raw drives with calibration, and ``data_depth_annotated/val``; the list is in the form of Eigen's.

    Args:
        frames: roads.
        out: folder.

    Returns:
        How many frames were written.

    Raises:
        InputError: if a shard is damaged.
        DeixisError: if a file cannot be written.
    """
    lines = []
    for number, frame in enumerate(frames):
        shown = fitted(frame, WIDTH, HEIGHT)
        day, drive = _drive(number)
        picture = f"{day}/{drive}/image_02/data/{_FIRST_INDEX:010d}.png"
        depth = f"{drive}/proj_depth/groundtruth/image_02/{_FIRST_INDEX:010d}.png"
        write_picture(out / picture, shown.rgb)
        write_depth16(out / "data_depth_annotated" / "val" / depth, shown.depth, _PER_METRE)
        write_text(out / day / CALIBRATION, _calibration(shown.camera))
        lines.append(f"{picture} {depth} {shown.camera.fx:.4f}")
    return write_list(out, lines)


def export_kitti_selection(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ``depth_selection/val_selection_cropped``: frames of 1216 x 352, each with its intrinsics.

    Arguments, result and errors as :func:`export_kitti`.
    """
    folder = out / "depth_selection" / "val_selection_cropped"
    lines = []
    for number, frame in enumerate(frames):
        shown = fitted(frame, SELECTION_WIDTH, SELECTION_HEIGHT)
        _, drive = _drive(number)
        stem = f"{drive}_image_{_FIRST_INDEX:010d}_image_02"
        picture = f"image/{stem}.png"
        depth = f"groundtruth_depth/{drive}_groundtruth_depth_{_FIRST_INDEX:010d}_image_02.png"
        write_picture(folder / picture, shown.rgb)
        write_depth16(folder / depth, shown.depth, _PER_METRE)
        write_text(folder / "intrinsics" / f"{stem}.txt", _matrix(shown.camera, columns=3) + "\n")
        lines.append(f"{picture} {depth}")
    return write_list(out, lines)


def _drive(number: int) -> tuple[str, str]:
    """Date and drive of a frame."""
    day = f"{_FIRST_DATE + timedelta(days=number):%Y_%m_%d}"
    return day, f"{day}_drive_0001_sync"


def _calibration(camera: Camera) -> str:
    """The lines of ``calib_cam_to_cam.txt`` that say how camera 2 sees after rectification."""
    return (
        f"S_rect_02: {camera.width:.6e} {camera.height:.6e}\n"
        "R_rect_02: 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0\n"
        f"P_rect_02: {_matrix(camera, columns=4)}\n"
    )


def _matrix(camera: Camera, columns: int) -> str:
    """The projection in rows. KITTI counts from the centre of the top left pixel, half a pixel inside."""
    rows = ((camera.fx, 0.0, camera.cx - 0.5, 0.0), (0.0, camera.fy, camera.cy - 0.5, 0.0), (0.0, 0.0, 1.0, 0.0))
    return " ".join(f"{value:.9e}" for row in rows for value in row[:columns])
