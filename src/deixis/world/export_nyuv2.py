"""Rooms as NYU Depth v2, in the four layouts that :mod:`deixis.data.nyuv2_sets` reads.

Every frame is of the test split, but in the layout for training. Frames are enlarged to 640 x 480; these layouts do
not tell a camera, and the dataset's own is not the world's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deixis.data.hdf5 import hdf5
from deixis.data.nyuv2_sets import HEIGHT, MAT, MAT_SPLITS, WIDTH
from deixis.data.world import WorldFrame
from deixis.errors import DeixisError
from deixis.io import printable
from deixis.types import RGB
from deixis.world.export_common import fitted, place_name, write_depth16, write_list, write_picture

FOCAL_PX = 518.8579
"""What the lists of the training layout end their lines with."""

_MILLIMETRES = 1000.0
# The colour camera's frame is white, and the official script paints it black.
_INNER_ROWS, _INNER_COLUMNS = slice(7, 474), slice(7, 632)


def export_nyuv2(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ``official_splits/test``: JPEG with a black border, depth in millimetres, numbered from 0.

    Args:
        frames: rooms.
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
        picture, depth = _sync_names(place_name(frame), number)
        folder = out / "official_splits" / "test"
        write_picture(folder / picture, _black_border(shown.rgb))
        write_depth16(folder / depth, shown.depth, _MILLIMETRES)
        lines.append(f"/{picture} /{depth}")
    return write_list(out, lines)


def export_nyuv2_sync(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ``sync``, the layout for training: JPEG, depth in millimetres, a folder for each room.

    Arguments, result and errors as :func:`export_nyuv2`.
    """
    lines = []
    for number, frame in enumerate(frames):
        shown = fitted(frame, WIDTH, HEIGHT)
        picture, depth = _sync_names(f"{place_name(frame)}_{number + 1:04d}", 0)
        write_picture(out / "sync" / picture, shown.rgb)
        write_depth16(out / "sync" / depth, shown.depth, _MILLIMETRES)
        lines.append(f"/{picture} /{depth} {FOCAL_PX}")
    return write_list(out, lines)


def export_nyuv2_labelled(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ``test``: PNG, depth in millimetres as measured and filled in, numbered from 1.

    Arguments, result and errors as :func:`export_nyuv2`.
    """
    lines = []
    for number, frame in enumerate(frames, start=1):
        shown = fitted(frame, WIDTH, HEIGHT)
        folder = f"test/{place_name(frame)}_{number:04d}"
        picture, depth, filled = (f"{folder}/{what}_{number:04d}.png" for what in ("rgb", "depth", "filled"))
        write_picture(out / picture, shown.rgb)
        for path in (depth, filled):  # nothing is unknown in the world
            write_depth16(out / path, shown.depth, _MILLIMETRES)
        lines.append(f"{picture} {depth} {filled}")
    return write_list(out, lines)


def export_nyuv2_mat(frames: Iterable[WorldFrame], out: Path) -> int:
    """Write ``nyu_depth_v2_labeled.mat`` with ``splits.mat``: MATLAB 7.3, axes turned round, depth in metres.

    Arguments, result and errors as :func:`export_nyuv2`.

    Raises:
        UsageError: if h5py is not installed.
    """
    from scipy.io import savemat

    hdf5()  # or say that it is missing before a folder is made
    mat, splits = (out / f"{name}.part" for name in (MAT, MAT_SPLITS))  # whole or not at all
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = _write_mat(mat, frames)
        numbers = np.arange(1, len(lines) + 1)[:, None]
        savemat(splits, {"testNdxs": numbers, "trainNdxs": np.zeros((0, 1))}, appendmat=False)
        mat.replace(out / MAT)
        splits.replace(out / MAT_SPLITS)
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        raise DeixisError(printable(out / MAT), why, "free space on the disk or choose another folder") from error
    finally:
        for part in (mat, splits):
            part.unlink(missing_ok=True)
    return write_list(out, lines)


def _write_mat(path: Path, frames: Iterable[WorldFrame]) -> list[str]:
    """Write the labelled set. Returns the lines of its list."""
    h5py = hdf5()
    lines = []
    with h5py.File(path, "w", userblock_size=512) as mat:
        images = mat.create_dataset(
            "images", (0, 3, WIDTH, HEIGHT), "u1", maxshape=(None, 3, WIDTH, HEIGHT), compression=3
        )
        depths, raw = (
            mat.create_dataset(
                name, (0, WIDTH, HEIGHT), "f4", maxshape=(None, WIDTH, HEIGHT), chunks=(1, WIDTH, HEIGHT), compression=3
            )
            for name in ("depths", "rawDepths")
        )
        scene_types, scenes = [], []
        for number, frame in enumerate(frames, start=1):
            shown = fitted(frame, WIDTH, HEIGHT)
            for values, array in ((shown.rgb, images), (shown.depth, depths), (shown.depth, raw)):
                array.resize(number, axis=0)
                array[number - 1] = values.T
            place = place_name(frame)
            scene_types.append(place)
            scenes.append(f"{place}_{number:04d}")
            lines.append(f"test/{scenes[-1]}/rgb_{number:04d}.png test/{scenes[-1]}/depth_{number:04d}.png")
        for field, texts in (("sceneTypes", scene_types), ("scenes", scenes)):
            letters = [mat.create_dataset(f"#refs#/{field}{n}", data=_letters(text)) for n, text in enumerate(texts)]
            cells = mat.create_dataset(field, (1, len(texts)), h5py.ref_dtype)
            for n, one in enumerate(letters):
                cells[0, n] = one.ref
    return lines


def _sync_names(folder: str, number: int) -> tuple[str, str]:
    return f"{folder}/rgb_{number:05d}.jpg", f"{folder}/sync_depth_{number:05d}.png"


def _black_border(rgb: RGB) -> RGB:
    inner = np.zeros_like(rgb)
    inner[_INNER_ROWS, _INNER_COLUMNS] = rgb[_INNER_ROWS, _INNER_COLUMNS]
    return inner


def _letters(text: str) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """A text as MATLAB stores it: one column of letters."""
    return np.array([[ord(letter)] for letter in text], dtype=np.uint16)
