"""NYU Depth v2 (Silberman et al., ECCV 2012) in its four published layouts, for evaluation and for EVP's training.

* ``mat``: ``nyu_depth_v2_labeled.mat`` of 1449 labelled frames as the authors publish it, with their ``splits.mat``.
* ``official_splits``: the same in files, ``official_splits/{train,test}/<scene type>/rgb_00000.jpg`` and
  ``sync_depth_00000.png``, numbered from 0; made by BTS's ``extract_official_train_test_set_from_mat.py``, which VPD
  and EVP use too.
* ``labelled``: the same in Marigold's files, ``{train,test}/<scene>/rgb_0001.png``, ``depth_0001.png`` and
  ``filled_0001.png`` (not read: scored is what was measured), numbered from 1.
* ``sync``: the frames of raw videos that BTS chose for training, ``sync/<scene>/rgb_00000.jpg`` and
  ``sync_depth_00000.png``.

Pictures are 640 x 480, depth is in millimetres, 0 where nothing was measured. Training frames with our own split and
their labels are read by :mod:`deixis.data.nyuv2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deixis.camera import Camera
from deixis.data.container import COPY_AGAIN, Container, stamp_of
from deixis.data.dataset import Dataset, Sample, count_error
from deixis.data.frames import DepthFrames, FrameFiles, check_same_frame, those_there
from deixis.data.hdf5 import hdf5
from deixis.data.nyuv2 import CAMERA, scene_words
from deixis.data.splits import Listing, find_listing, inside, is_here
from deixis.errors import InputError
from deixis.io import printable
from deixis.types import Text

COUNTS = {"test": 654, "train": 795}
"""Frames of the official split of the labelled set."""

MAT = "nyu_depth_v2_labeled.mat"
MAT_SPLITS = "splits.mat"
WIDTH, HEIGHT = 640, 480

# Published lists whose samples a layout's files are named by. Nobody publishes one of official_splits/train.
_LISTS = {
    ("labelled", "test"): ("nyuv2.test",),
    ("labelled", "train"): ("nyuv2.train",),
    ("official_splits", "test"): ("nyuv2.evp_test",),
    ("official_splits", "train"): (),
    ("mat", "test"): ("nyuv2.test", "nyuv2.evp_test"),
    ("mat", "train"): ("nyuv2.train",),
    ("sync", "sync"): ("nyuv2.evp_train",),
}
# Where a layout's pictures lie, below the folder that its lists start from.
_PICTURES = {"official_splits": "*/rgb_*.jpg", "labelled": "{split}/*/rgb_*.png", "sync": "*/rgb_*.jpg"}


def open_nyuv2(
    root: str | Path, split: str = "test", list_file: str | Path | None = None, *, part: bool = False
) -> Dataset:
    """A split of NYUv2 in whichever layout the root holds.

    Args:
        root: folder, plain tar, or ``nyu_depth_v2_labeled.mat``.
        split: ``test`` (654 frames) and ``train`` (795) of the labelled set; ``sync`` for the frames of raw videos.
        list_file: names the samples. By default ``official_splits`` gives what is in the folder, ``labelled`` the same
            unless the published list is here, ``mat`` what ``splits.mat`` beside it says, and ``sync`` what the
            published list says.
        part: of what the list says take what is there; of ``sync`` without its list all that is there.

    Raises:
        InputError: if the root holds none of the layouts, or several, or if a list is missing or damaged.
    """
    path = Path(root)
    if path.suffix == ".mat":
        return NYUv2Mat(path, split, list_file)
    files = Container(path)
    found = list(_layouts(files, split))
    if not found:
        expected = f"{MAT}, official_splits/{split}/<scene>/rgb_<index>.jpg or {split}/<scene>/rgb_<index>.png"
        remedy = f"pass the folder that has 'official_splits' or '{split}' in it"
        if split == "sync":
            expected, remedy = "sync/<scene>/rgb_<index>.jpg", "pass the folder that has 'sync' in it"
        raise InputError(printable(path), f"holds no {expected} but {files.contents()}", remedy)
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise InputError(
            printable(path), f"holds this split more than once ({names})", "pass a folder with one of them"
        )
    layout, folder = found[0]
    if layout == "mat":
        if path.is_file():
            raise InputError(printable(path), f"holds {MAT}, which cannot be read inside a tar", "unpack it")
        return NYUv2Mat(path / MAT, split, list_file)
    lists = _LISTS[layout, split]
    listed = list_file is not None or is_here(lists)
    error = None
    if (layout == "official_splits" and list_file is None) or (not listed and (layout == "labelled" or part)):
        pictures = files.glob(f"{folder}{_PICTURES[layout].format(split=split)}")
        frames = [FrameFiles(one.removeprefix(folder), one, _depth_beside(one)) for one in pictures]
        where = files.label(f"{folder}{split}" if layout == "labelled" else folder)
        error = None if split == "sync" else count_error(where, len(frames), COUNTS[split])
        own_list = None if split != "sync" and error is None else where
    else:
        listing = find_listing(lists, list_file)
        named = [(inside(picture), inside(depth)) for picture, depth, *_ in listing.samples]
        for pair in named:
            check_same_frame(listing, *map(_scene_and_number, pair))
        frames = [FrameFiles(picture, folder + picture, folder + depth) for picture, depth in named]
        own_list = listing.own
    if part and list_file is None:
        frames, own_list = those_there(files, frames, own_list)
    dataset = NYUv2Frames(files, split, layout, frames, own_list)
    dataset.incomplete = error
    return dataset


def _layouts(files: Container, split: str) -> Iterator[tuple[str, str]]:
    """Layouts of a split that a root holds, with the folder that their lists start from."""
    if split == "sync":
        if files.glob("sync/*/rgb_*.jpg"):
            yield "sync", "sync/"
        return
    for prefix in ("official_splits/", ""):
        if files.glob(f"{prefix}{split}/*/rgb_*.jpg"):
            yield "official_splits", f"{prefix}{split}/"
    if files.glob(f"{split}/*/rgb_*.png"):
        yield "labelled", ""
    if files.has(MAT):
        yield "mat", ""


def _scene_and_number(path: str) -> tuple[str, ...]:
    """``a/rgb_00045.jpg`` and ``a/sync_depth_00045.png`` to ``a`` and ``00045``."""
    folder, _, name = path.rpartition("/")
    return folder, *re.findall(r"\d+", name)


def _depth_beside(picture: str) -> str:
    """``a/rgb_00045.jpg`` to ``a/sync_depth_00045.png``, and ``a/rgb_0046.png`` to ``a/depth_0046.png``."""
    folder, _, name = picture.rpartition("/")
    depth = "depth_" if name.endswith(".png") else "sync_depth_"
    return f"{folder}/{name.replace('rgb_', depth).replace('.jpg', '.png')}"


def _camera(width: int, height: int) -> Camera | None:
    """The set's camera for its own size; what has another size was cut or resized by somebody."""
    return CAMERA if (width, height) == (WIDTH, HEIGHT) else None


def _class(scene: str) -> dict[str, Text]:
    """The scene type in words: ``kitchen_0028b`` and ``kitchen`` say ``kitchen``. A label, so never a model's text."""
    return {"class": Text(scene_words(re.sub(r"_\d+[a-z]?$", "", scene)), "oracle")}


class NYUv2Frames(DepthFrames):
    """Frames in files of their own: all layouts but ``mat``."""

    name = "nyuv2"
    per_metre = 1000.0

    def camera(self, frame: FrameFiles, width: int, height: int) -> Camera | None:
        """The set's one camera."""
        del frame
        return _camera(width, height)

    def texts(self, frame: FrameFiles) -> dict[str, Text] | None:
        """The scene type, from the folder's name; None for a frame that lies in none."""
        folder = frame.name.rpartition("/")[0]
        return _class(folder.rpartition("/")[2]) if folder else None


class NYUv2Mat(Dataset):
    """The labelled set as its authors publish it: one MATLAB 7.3 file, which is HDF5 with its axes turned round.

    Args:
        file: ``nyu_depth_v2_labeled.mat``.
        split: ``test`` or ``train``.
        list_file: names the samples; by default ``splits.mat`` beside the file, or else the published list.

    Raises:
        InputError: if the file or a list is missing or damaged, or names frames that are not there.
        UsageError: if h5py is not installed.
    """

    name = "nyuv2"
    layout = "mat"

    def __init__(self, file: Path, split: str, list_file: str | Path | None = None) -> None:
        self.file = file
        self.split = split
        with self._opened() as mat:
            count = mat["images"].shape[0]
            # A cell array of texts: references to arrays of letters.
            scenes = ["".join(map(chr, np.ravel(mat[one]))) for one in np.ravel(mat["sceneTypes"])]
        beside = file.with_name(MAT_SPLITS)
        if list_file is None and beside.is_file():
            self.numbers = _official_numbers(beside, split)
            self.incomplete = count_error(printable(beside), len(self.numbers), COUNTS[split])
            self.own_list = None if self.incomplete is None else printable(beside)
        else:
            listing = find_listing(_LISTS["mat", split], list_file)
            self.numbers = [_number(sample[0], listing) for sample in listing.samples]
            self.own_list = listing.own
        outside = [number for number in self.numbers if not 1 <= number <= min(count, len(scenes))]
        if outside:
            raise InputError(printable(file), f"holds {count} frames and no frame {outside[0]}", COPY_AGAIN)
        self._scenes = [scenes[number - 1] for number in self.numbers]
        self.names = [f"{scene}/{number:04d}" for scene, number in zip(self._scenes, self.numbers, strict=True)]

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if the file has gone or is damaged, or the frame is no picture with depth of its size.
        """
        at = self.numbers[index] - 1
        with self._opened() as mat:
            rgb = np.ascontiguousarray(mat["images"][at].transpose(2, 1, 0))
            depth = np.ascontiguousarray(mat["rawDepths"][at].T, dtype=np.float32)
        if rgb.dtype != np.uint8 or depth.shape != rgb.shape[:2]:
            told = f"frame {at + 1} is {list(rgb.shape)} {rgb.dtype} with depth {list(depth.shape)}"
            raise InputError(printable(self.file), told, COPY_AGAIN)
        camera = _camera(rgb.shape[1], rgb.shape[0])
        return Sample(self.names[index], rgb, depth, camera=camera, texts=_class(self._scenes[index]))

    def stamp(self, index: int) -> str:
        """Of the one file."""
        return f"{self.numbers[index]} {stamp_of(self.file)}"

    def described(self, index: int) -> dict[str, Text]:
        """The class of the frame's scene."""
        return _class(self._scenes[index])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, opened each time, so that worker processes can share this object."""
        try:
            with hdf5().File(self.file, "r") as mat:
                yield mat
        except FileNotFoundError as error:
            raise InputError(printable(self.file), "is not there", COPY_AGAIN) from error
        # What h5py raises on other files and on damage.
        except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise InputError(printable(self.file), f"is damaged, or no {MAT} ({error})", COPY_AGAIN) from error


def _official_numbers(file: Path, split: str) -> list[int]:
    """Frames of a split, counted from 1, as the authors' ``splits.mat`` has them."""
    from scipy.io import loadmat

    field = f"{split}Ndxs"
    try:
        return [int(number) for number in np.ravel(loadmat(file)[field])]
    # SciPy reports damage as any of these.
    except (OSError, LookupError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(printable(file), f"holds no {field} ({error})", COPY_AGAIN) from error


def _number(picture: str, listing: Listing) -> int:
    """A frame's number in the labelled set, from 1: Marigold's lists count from 1, the official script's from 0."""
    found = re.search(r"rgb_(?:(\d{4})\.png|(\d{5})\.jpg)$", picture)
    if found is None:
        raise InputError(
            printable(listing.file),
            f"names '{printable(picture)}', which tells no number",
            "name frames rgb_<4 digits from 1>.png or rgb_<5 digits from 0>.jpg",
        )
    return int(found[1]) if found[1] else int(found[2]) + 1
