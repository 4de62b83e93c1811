"""NYU Depth v2, labelled frames in the layout of the official splits (Silberman et al., ECCV 2012).

``ROOT/official_splits/train/<scene type>/rgb_<index>.jpg`` (640 x 480), ``sync_depth_<index>.png`` (16-bit,
millimetres, 0 = no measurement) and, where present, ``labels40_<index>.png`` with ``classes40.json``.

Frames of another camera can lie in the same layout. ``split.json`` then says which folders are for validation and which
are held out: ``{"val": ["kitchen"], "heldout": ["office"]}``; all others are learned from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from deixis.camera import Camera
from deixis.errors import InputError

Split = Literal["train", "val", "heldout"]
SPLIT_FILE = "split.json"

# Our own split of the official training frames, by rooms. Frames of a room have neighbouring indices, so a random
# split would leak. It is written down here, not computed from the files that happen to be there: a frame belongs to
# one side whatever else is missing.
HELDOUT_SCENES = frozenset(
    {"playroom", "study", "study_room", "student_lounge", "dinette", "foyer", "home_storage", "computer_lab"}
)
VAL_SCENES = frozenset({"reception_room", "office_kitchen", "cafe", "laundry_room", "printer_room", "indoor_balcony"})
# Large scene types: first index of validation and first index held out. Each lies where the room changes.
CUTS = {
    "bathroom": (728, 728),
    "bedroom": (1131, 1158),
    "classroom": (317, 317),
    "dining_room": (1424, 1433),
    "home_office": (551, 551),
    "kitchen": (886, 894),
    "living_room": (1308, 1315),
    "office": (626, 629),
}
# On no side: frames of shops and rooms that training frames show as well.
SHARED_ROOMS = frozenset({112, 113, 114, 115, 245, 246, 247, 248, 626, 886})

# Of the colour camera, from the toolbox. Its functions count pixels from 1 at their centres, as MATLAB does; ours are
# half a pixel from the corner, see deixis.camera [px].
CAMERA = Camera(518.857901, 519.469611, 325.582449 - 0.5, 253.736166 - 0.5, 640, 480)

CLASSES = 40
CAPTION_MIN_SHARE = 0.004  # a class below this share of the frame is not mentioned


@dataclass(frozen=True)
class Frame:
    """One labelled frame.

    Attributes:
        index: index in the labelled set.
        scene: scene type, for example ``living_room``.
        rgb: path of the photo.
        depth: path of the depth map.
        labels: path of the 40-class map, None where there is none.
        stated: its side by the root's ``split.json``, None where there is no such file.
    """

    index: int
    scene: str
    rgb: Path
    depth: Path
    labels: Path | None
    stated: Split | None = None

    def read_rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3].

        Raises:
            InputError: if the file has gone or is damaged.
        """
        return _decoded(self.rgb, lambda image: np.asarray(image.convert("RGB")))

    def read_depth(self) -> npt.NDArray[np.float32]:
        """float32 [H, W] in metres, 0 where nothing was measured.

        Raises:
            InputError: if the file has gone, is damaged or no map of integers.
        """
        values = _decoded(self.depth, np.asarray)
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
            raise InputError(self.depth, "is not a grey picture of millimetres", "copy the dataset again")
        return values.astype(np.float32) / np.float32(1000)

    def read_labels(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W]: 0 unlabelled, 1 to 40 a class.

        Raises:
            InputError: if there is none, the file has gone or is damaged, or holds other numbers.
        """
        if self.labels is None:
            raise InputError(self.rgb, "has no labels40 file beside it", "add labels40_<index>.png")
        values = _decoded(self.labels, np.asarray)
        if values.ndim != 2 or values.dtype != np.uint8 or values.max(initial=0) > CLASSES:
            raise InputError(self.labels, f"is not a grey picture of labels 0 to {CLASSES}", "copy the dataset again")
        return values


def _decoded(path: Path, decode: Callable[[Image.Image], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        with Image.open(path) as image:
            image.verify()  # as the container does
        with Image.open(path) as image:
            return decode(image)
    # Pillow reports damage as any of these.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        why = "has gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(path, why, "copy the dataset again") from error


def frames(root: str | Path, split: Split | None = None) -> list[Frame]:
    """The training frames under ``root``, sorted by index; all of them or one of our splits.

    Raises:
        InputError: if ``root`` does not hold the layout, a frame lacks its depth, or ``split.json`` is wrong.
    """
    folder = Path(root) / "official_splits" / "train"
    photos = sorted(folder.glob("*/rgb_*.jpg"), key=lambda p: p.stem)
    if not photos:
        raise InputError(
            root,
            "holds no official_splits/train/<scene>/rgb_<index>.jpg",
            "point data.root at a folder made by VPD's extract_official_train_test_set_from_mat.py",
        )
    sides = _stated_sides(Path(root), {photo.parent.name for photo in photos})
    found = []
    for photo in photos:
        number = photo.stem.removeprefix("rgb_")
        depth = photo.with_name(f"sync_depth_{number}.png")
        labels = photo.with_name(f"labels40_{number}.png")
        if not number.isdecimal():
            raise InputError(photo, "is not called rgb_<index>.jpg", "give it its index in the labelled set")
        if not depth.is_file():
            raise InputError(photo, f"has no {depth.name} beside it", "copy the dataset again")
        scene = photo.parent.name
        side = None if sides is None else sides.get(scene, "train")
        found.append(Frame(int(number), scene, photo, depth, labels if labels.is_file() else None, side))
    found.sort(key=lambda frame: frame.index)
    for one, other in pairwise(found):
        if one.index == other.index:
            raise InputError(other.rgb, f"has the index of {one.rgb}", "remove one of them")
    return [frame for frame in found if split is None or split_of(frame) == split]


def _stated_sides(root: Path, scenes: Set[str]) -> dict[str, Split] | None:
    """Folder to side by ``split.json``, None without that file."""
    path = root / SPLIT_FILE
    if not path.is_file():
        return None
    remedy = 'write it as {"val": ["kitchen"], "heldout": ["office"]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", remedy) from error
    sides: tuple[Split, ...] = ("val", "heldout")
    if not isinstance(content, dict) or set(content) != set(sides):
        raise InputError(path, "does not say what is val and what is heldout", remedy)
    found: dict[str, Split] = {}
    for side in sides:
        named = content[side]
        if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
            raise InputError(path, f"says {side} {named!r}", remedy)
        for name in named:
            if name not in scenes:
                raise InputError(path, f"names '{name}', which is no folder of official_splits/train", "correct it")
            if name in found:
                raise InputError(path, f"names '{name}' twice", "leave it on one side")
            found[name] = side
    return found


def some_frames(root: str | Path, split: Split) -> list[Frame]:
    """Like :func:`frames` of a split, which must hold one.

    Raises:
        InputError: as :func:`frames`, and if there is none.
    """
    found = frames(root, split)
    if not found:
        raise InputError(root, f"holds no frame of the split '{split}'", "copy the whole dataset (795 frames)")
    return found


def split_of(frame: Frame) -> Split | None:
    """Which of our splits a frame belongs to; None for the few that share a room with training frames."""
    if frame.stated is not None:
        return frame.stated
    if frame.index in SHARED_ROOMS:
        return None
    if frame.scene in HELDOUT_SCENES:
        return "heldout"
    if frame.scene in VAL_SCENES:
        return "val"
    first_val, first_heldout = CUTS.get(frame.scene, (math.inf, math.inf))
    return "heldout" if frame.index >= first_heldout else "val" if frame.index >= first_val else "train"


def rooms(found: Sequence[Frame]) -> dict[int, int]:
    """Index of each frame to the number of its room: a run of consecutive indices in one scene type.

    The dataset does not say which frames show one room. Its frames are sorted by room, and rooms of the test set
    leave gaps, so a run is a room or several, hardly ever half of one.
    """
    numbers: dict[int, int] = {}
    last: dict[str, int] = {}
    for frame in sorted(found, key=lambda frame: frame.index):
        before = last.get(frame.scene)
        same = before is not None and frame.index == before + 1
        numbers[frame.index] = numbers[frame.index - 1] if same else max(numbers.values(), default=-1) + 1
        last[frame.scene] = frame.index
    return numbers


def class_names(root: str | Path) -> list[str]:
    """The 40 class names of ``classes40.json``, in label order (label 1 first).

    Raises:
        InputError: if the file is missing or not such a list.
    """
    path = Path(root) / "classes40.json"
    if not path.is_file():
        raise InputError(root, "has no classes40.json", "copy it beside official_splits")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", "copy the dataset again") from error
    if not isinstance(names, list) or len(names) != CLASSES or not all(isinstance(name, str) for name in names):
        raise InputError(path, f"is not a list of {CLASSES} class names", "copy the dataset again")
    return names


def scene_words(scene: str) -> str:
    """Scene type as words: ``living_room`` to ``living room``."""
    return scene.replace("_", " ").replace("excercise", "exercise")


def visible(labels: npt.NDArray[np.uint8], names: Sequence[str]) -> list[tuple[str, npt.NDArray[np.bool_], int]]:
    """Classes in a label map, largest first: (name, mask [H, W], number of sizeable regions)."""
    out = []
    for label in np.unique(labels):
        if label == 0 or names[label - 1].startswith("other"):
            continue
        mask = labels == label
        if mask.mean() < CAPTION_MIN_SHARE:
            continue
        regions, count = ndimage.label(mask)
        sizes = ndimage.sum_labels(mask, regions, range(1, count + 1))
        out.append((names[label - 1], mask, int((sizes > CAPTION_MIN_SHARE * mask.size).sum())))
    return sorted(out, key=lambda item: -item[1].sum())
