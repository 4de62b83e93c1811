"""KITTI raw drives with annotated depth (Geiger et al. 2013; Uhrig et al. 2017), and its depth benchmark's selection.

* ``raw``: ``<date>/<drive>/image_02/data/<index>.png`` at the root or below ``raw_data`` or ``kitti_raw_data``, with
  ``<date>/calib_cam_to_cam.txt`` where present, and ``<drive>/proj_depth/groundtruth/image_02/<index>.png`` at the
  root (as in the public evaluation's tar), below ``train`` and ``val``, or below those of ``data_depth_annotated``.
  Samples are named by a list: Eigen's 697 test frames, of which 652 have annotated depth; validation; training.
* ``selection``: ``depth_selection/val_selection_cropped/{image,groundtruth_depth,intrinsics}``, 1000 frames cut to
  1216 x 352.

Depth is 1/256 m, 0 where nothing was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from deixis.camera import Camera
from deixis.data.container import Container
from deixis.data.dataset import count_error
from deixis.data.frames import DepthFrames, FrameFiles, check_same_frame, those_there
from deixis.data.splits import find_listing, inside, is_here, split_list
from deixis.errors import InputError
from deixis.io import printable

SELECTION_COUNT = 1000
"""Frames of the benchmark's selection."""

CALIBRATION = "calib_cam_to_cam.txt"

_LISTS = {"test": ("kitti.eigen_test", "kitti.evp_test"), "val": ("kitti.val",), "train": ("kitti.evp_train",)}
# Where the drives and their depth may lie below the root.
_PICTURES = ("", "raw_data/", "kitti_raw_data/")
_DEPTHS = ("", "train/", "val/", "data_depth_annotated/", "data_depth_annotated/train/", "data_depth_annotated/val/")
_SELECTIONS = ("depth_selection/val_selection_cropped/", "val_selection_cropped/", "")
_DATE = re.compile(r"\d{4}_\d\d_\d\d")
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
# Many keep the pictures as JPEG, for a tenth of the space; a list of one's own may name those.
_PICTURE = re.compile(rf"(?:^|/)({_DATE.pattern}/({_DRIVE.pattern})/image_0[23]/data/\d+\.(?:png|jpg))$")
_DEPTH = re.compile(rf"(?:^|/)({_DRIVE.pattern}/proj_depth/groundtruth/image_0[23]/\d+\.png)$")


def open_kitti(
    root: str | Path, split: str = "test", list_file: str | Path | None = None, *, part: bool = False
) -> DepthFrames:
    """A split of KITTI in whichever layout the root holds.

    Args:
        root: folder or plain tar.
        split: ``test`` (Eigen, 652 frames with depth), ``val`` (800), ``train`` (EVP's list, 23158), or
            ``selection`` for the benchmark's 1000 frames.
        list_file: names the samples; by default the published list or, of the selection, what is in the folder.
        part: of a copy that is not whole, or without the published list, take what is there.

    Raises:
        InputError: if the root does not hold the layout, or a list is missing or damaged.
    """
    files = Container(root)
    if split == "selection":
        return _open_selection(files, list_file, part)
    return _open_raw(files, split, list_file, part)


def _open_raw(files: Container, split: str, list_file: str | Path | None, part: bool) -> KITTIRaw:
    pictures, depths = _drives_with_pictures(files), _drives_with_depth(files)
    for found, expected in (
        (pictures, "<date>/<drive>/image_02/data/<index>.png"),
        (depths, "<drive>/proj_depth/groundtruth/image_02/<index>.png"),
    ):
        if not found:
            raise InputError(
                printable(files.root),
                f"holds no {expected}, at the root or below raw_data or data_depth_annotated, but {files.contents()}",
                "pass the folder above the dates (2011_09_26 ...) and the annotated depth",
            )
    if part and list_file is None and not is_here(_LISTS[split]):
        frames = _annotated(files, pictures, depths)
        # A small copy was made of frames of the split; which they are in a large one, the list alone can say.
        if len(frames) <= split_list(_LISTS[split][0]).lines:
            return KITTIRaw(files, split, "raw", *those_there(files, frames, printable(files.root)))
    listing = find_listing(_LISTS[split], list_file)
    frames = []
    for picture, depth, *_ in listing.samples:
        name, depth_name = _PICTURE.search(picture), _DEPTH.search(depth)
        if name is None or depth_name is None:
            raise InputError(
                printable(listing.file),
                f"names '{printable(picture if name is None else depth)}'",
                "name <date>/<drive>/image_02/data/<index>.png and <drive>/proj_depth/groundtruth/image_02/<index>.png",
            )
        check_same_frame(listing, _drive_and_number(name[1]), _drive_and_number(depth_name[1]))
        # A drive that is not there at all is missed in the first of the folders.
        above = pictures.get(name[2], next(iter(pictures.values())))
        above_depth = depths.get(name[2], next(iter(depths.values())))
        frames.append(FrameFiles(name[1], above + name[1], above_depth + depth_name[1]))
    own_list = listing.own
    if part and list_file is None:
        frames, own_list = those_there(files, frames)
    return KITTIRaw(files, split, "raw", frames, own_list)


def _drive_and_number(path: str) -> tuple[str, ...]:
    """Drive, camera and number of a picture or of its depth."""
    drive, camera = _DRIVE.search(path), re.search(r"image_0\d", path)
    return *(found[0] for found in (drive, camera) if found), PurePosixPath(path).stem


def _annotated(files: Container, pictures: Mapping[str, str], depths: Mapping[str, str]) -> list[FrameFiles]:
    """Every frame in the root that has both a picture and annotated depth."""
    frames = []
    for drive in sorted(set(pictures) & set(depths)):
        for depth in files.glob(f"{depths[drive]}{drive}/proj_depth/groundtruth/image_0[23]/*.png"):
            *_, camera, index = depth.split("/")
            name = f"{drive[:10]}/{drive}/{camera}/data/{index}"
            if files.has(pictures[drive] + name):
                frames.append(FrameFiles(name, pictures[drive] + name, depth))
    return frames


def _drives_with_pictures(files: Container) -> dict[str, str]:
    """Drives of the raw recordings, each with the folder above its date."""
    return {
        drive: above
        for above in reversed(_PICTURES)
        for date in files.folders(above.rstrip("/") or ".")
        if _DATE.fullmatch(date)
        for drive in files.folders(above + date)
    }


def _drives_with_depth(files: Container) -> dict[str, str]:
    """Drives with annotated depth, each with the folder above it."""
    return {
        drive: above
        for above in reversed(_DEPTHS)
        for drive in files.folders(above.rstrip("/") or ".")
        if _DRIVE.fullmatch(drive)
    }


def _open_selection(files: Container, list_file: str | Path | None, part: bool) -> KITTISelection:
    above = next((one for one in _SELECTIONS if files.has_folder(f"{one}groundtruth_depth")), None)
    if above is None:
        raise InputError(
            printable(files.root),
            f"holds no {_SELECTIONS[0]}groundtruth_depth but {files.contents()}",
            "pass the folder above depth_selection",
        )
    if list_file is not None:
        listing = find_listing((), list_file)
        named = [(inside(picture), inside(depth)) for picture, depth, *_ in listing.samples]
        for picture, depth in named:
            check_same_frame(listing, (_selection_depth(picture),), (depth,))
        frames = [FrameFiles(picture, above + picture, above + depth) for picture, depth in named]
        return KITTISelection(files, "selection", "selection", frames, listing.own)
    pictures = files.glob(f"{above}image/*.png")
    names = [one.removeprefix(above) for one in pictures]
    frames = [FrameFiles(name, above + name, above + _selection_depth(name)) for name in names]
    where = files.label(f"{above}image")
    error = count_error(where, len(frames), SELECTION_COUNT)
    own_list = None if error is None else where
    if part:
        frames, own_list = those_there(files, frames, own_list)
    dataset = KITTISelection(files, "selection", "selection", frames, own_list)
    dataset.incomplete = error
    return dataset


def _selection_depth(name: str) -> str:
    """``image/<drive>_image_<index>_image_02.png`` to ``groundtruth_depth/<drive>_groundtruth_depth_<index>_...``."""
    return name.replace("image/", "groundtruth_depth/", 1).replace("_sync_image_", "_sync_groundtruth_depth_", 1)


class KITTIRaw(DepthFrames):
    """Frames of the raw drives with annotated depth."""

    name = "kitti"
    per_metre = 256.0

    def camera(self, frame: FrameFiles, width: int, height: int) -> Camera | None:
        """The rectified camera of the frame's date, where the root has its calibration.

        Raises:
            InputError: if that is damaged.
        """
        date, _, side, *_ = frame.name.split("/")
        path = f"{frame.picture.removesuffix(frame.name)}{date}/{CALIBRATION}"
        if not self.files.has(path):
            return None
        camera = self.files.decode(path, partial(_rectified, number=side.removeprefix("image_")))
        # Pictures that somebody resized have another camera.
        return camera if (camera.width, camera.height) == (width, height) else None


class KITTISelection(DepthFrames):
    """The benchmark's selection, each frame with its intrinsics."""

    name = "kitti"
    per_metre = 256.0

    def camera(self, frame: FrameFiles, width: int, height: int) -> Camera | None:
        """As the file in ``intrinsics`` has it; None without one.

        Raises:
            InputError: if it is damaged.
        """
        path = frame.picture.removesuffix(frame.name) + frame.name.replace("image/", "intrinsics/", 1)
        path = path.removesuffix(".png") + ".txt"
        if not self.files.has(path):
            return None
        return self.files.decode(path, lambda content: _pinhole(content.decode().split(), 3, width, height))


def _rectified(content: bytes, number: str) -> Camera:
    """Camera ``number`` of a calibration file: its projection after rectification, and its size."""
    lines = dict(line.split(":", 1) for line in content.decode().splitlines() if ":" in line)
    width, height = (round(float(side)) for side in lines[f"S_rect_{number}"].split())
    return _pinhole(lines[f"P_rect_{number}"].split(), 4, width, height)


def _pinhole(numbers: list[str], columns: int, width: int, height: int) -> Camera:
    """The camera of a matrix in rows. KITTI counts from the centre of the top left pixel, half a pixel inside."""
    if len(numbers) != 3 * columns:
        raise ValueError(f"{len(numbers)} numbers where {3 * columns} make a camera")
    rows = [[float(number) for number in numbers[row * columns : row * columns + 3]] for row in range(3)]
    return Camera(rows[0][0], rows[1][1], rows[0][2] + 0.5, rows[1][2] + 0.5, width, height)
