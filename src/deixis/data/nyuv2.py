"""NYU Depth v2, labelled frames in the layout of the official splits (Silberman et al., ECCV 2012).

``ROOT/official_splits/train/<scene type>/rgb_<index>.jpg`` (640 x 480), ``sync_depth_<index>.png`` (16-bit,
millimetres, 0 = no measurement) and, where present, ``labels40_<index>.png`` with ``classes40.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from deixis.errors import InputError

Split = Literal["train", "val", "heldout"]

# Our own split of the official training frames, by whole scenes: scene types listed here are held out
# entirely, and of each large type the last frames by index. Neighbouring indices show the same room, so a
# random split would leak; each cut lies at a gap of the indices.
HELDOUT_SCENES = frozenset(
    {"playroom", "study", "study_room", "student_lounge", "dinette", "foyer", "home_storage", "computer_lab"}
)
VAL_SCENES = frozenset({"reception_room", "office_kitchen", "cafe", "laundry_room", "printer_room", "indoor_balcony"})
# Share of a large scene type's frames: (training, validation); the rest is held out.
LARGE_SHARES = (0.84, 0.05)
LARGE_SCENE = 20

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
    """

    index: int
    scene: str
    rgb: Path
    depth: Path
    labels: Path | None

    def read_rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3]."""
        with Image.open(self.rgb) as image:
            return np.asarray(image.convert("RGB"))

    def read_depth(self) -> npt.NDArray[np.float32]:
        """float32 [H, W] in metres, 0 where nothing was measured."""
        with Image.open(self.depth) as image:
            return np.asarray(image, dtype=np.float32) / np.float32(1000)

    def read_labels(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W]: 0 unlabelled, 1 to 40 a class."""
        if self.labels is None:
            raise InputError(self.rgb, "has no labels40 file beside it", "add labels40_<index>.png")
        with Image.open(self.labels) as image:
            return np.asarray(image)


def frames(root: str | Path, split: Split | None = None) -> list[Frame]:
    """The training frames under ``root``, sorted by index; all of them or one of our splits.

    Raises:
        InputError: if ``root`` does not hold the layout, or a frame lacks its depth.
    """
    folder = Path(root) / "official_splits" / "train"
    photos = sorted(folder.glob("*/rgb_*.jpg"), key=lambda p: p.stem)
    if not photos:
        raise InputError(
            root,
            "holds no official_splits/train/<scene>/rgb_<index>.jpg",
            "point data.root at a folder made by VPD's extract_official_train_test_set_from_mat.py",
        )
    found = []
    for photo in photos:
        number = photo.stem.removeprefix("rgb_")
        depth = photo.with_name(f"sync_depth_{number}.png")
        labels = photo.with_name(f"labels40_{number}.png")
        if not depth.is_file():
            raise InputError(photo, f"has no {depth.name} beside it", "copy the dataset again")
        found.append(Frame(int(number), photo.parent.name, photo, depth, labels if labels.is_file() else None))
    found.sort(key=lambda frame: frame.index)
    if split is None:
        return found
    assigned = _split(found)
    return [frame for frame in found if assigned[frame.index] == split]


def _split(found: Sequence[Frame]) -> dict[int, Split]:
    by_scene: dict[str, list[int]] = {}
    for frame in found:
        by_scene.setdefault(frame.scene, []).append(frame.index)
    assigned: dict[int, Split] = {}
    for scene, indices in by_scene.items():
        if scene in HELDOUT_SCENES or scene in VAL_SCENES:
            assigned |= dict.fromkeys(indices, "heldout" if scene in HELDOUT_SCENES else "val")
        elif len(indices) < LARGE_SCENE:
            assigned |= dict.fromkeys(indices, "train")
        else:
            train = _gap(indices, LARGE_SHARES[0])
            val = max(_gap(indices, sum(LARGE_SHARES)), train)
            assigned |= dict.fromkeys(indices[:train], "train")
            assigned |= dict.fromkeys(indices[train:val], "val")
            assigned |= dict.fromkeys(indices[val:], "heldout")
    return assigned


def _gap(indices: Sequence[int], share: float) -> int:
    """Position near ``share`` of the list where the index jumps most: the likeliest change of room."""
    target = round(share * len(indices))
    window = range(max(1, target - 4), min(len(indices) - 1, target + 4) + 1)
    return max(window, key=lambda i: (indices[i] - indices[i - 1], -abs(i - target)))


def class_names(root: str | Path) -> list[str]:
    """The 40 class names of ``classes40.json``, in label order (label 1 first)."""
    path = Path(root) / "classes40.json"
    if not path.is_file():
        raise InputError(root, "has no classes40.json", "copy it beside official_splits")
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
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
