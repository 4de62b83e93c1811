"""A tiny data set in the layout of NYU Depth v2: drawn rooms whose pictures say how far things are.

A room is a box seen from inside with some fronto-parallel boards standing in it; nearer surfaces are brighter, and
every class has its colour. So a network can learn depth and names from a few dozen frames.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 480, 640
FOCAL_PX, CENTER = 519.0, (325.0, 254.0)

CLASSES = (
    "wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain dresser"
    " pillow mirror floor_mat clothes ceiling books refrigerator television paper towel shower_curtain box whiteboard"
    " person night_stand toilet sink lamp bathtub bag otherstructure otherfurniture otherprop"
)
NAMES = [name.replace("_", " ") for name in CLASSES.split()]
THINGS = ("chair", "table", "lamp", "television")

# Scene types and indices that fall on each side of the split (see deixis.data.nyuv2).
TRAIN, VAL, HELDOUT = ("basement", 489), ("cafe", 119), ("playroom", 417)

Drawn = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint8], list[tuple[str, Any]]]


def draw_room(rng: np.random.Generator) -> Drawn:
    """Photo [H, W, 3], depth [H, W] [mm], labels [H, W], and (name, visible mask) of each board."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ray_x, ray_y = (x - CENTER[0]) / FOCAL_PX, (y - CENTER[1]) / FOCAL_PX
    back, half = rng.uniform(3, 7), rng.uniform(1.5, 3)
    with np.errstate(divide="ignore"):
        floor = np.where(ray_y > 0, 1.3 / ray_y, np.inf)
        ceiling = np.where(ray_y < 0, -1.2 / ray_y, np.inf)
        side = half / np.abs(ray_x)
    depth = np.minimum(np.minimum(floor, ceiling), np.minimum(side, back))
    labels = np.full(depth.shape, label("wall"), dtype=np.uint8)
    labels[floor <= depth] = label("floor")
    labels[ceiling <= depth] = label("ceiling")

    ids = np.zeros(depth.shape, dtype=np.uint8)
    boards: list[str] = []
    for name in rng.choice(THINGS, size=3):
        z, left, width, height = rng.uniform(1.3, back - 0.3), rng.uniform(-1.2, 0.5), *rng.uniform(0.4, 1.0, size=2)
        inside = (ray_x * z > left) & (ray_x * z < left + width) & (ray_y * z < 1.3) & (ray_y * z > 1.3 - height)
        inside &= z < depth
        boards.append(str(name))
        depth, labels = np.where(inside, z, depth), np.where(inside, np.uint8(label(str(name))), labels)
        ids[inside] = len(boards)

    colours = np.random.default_rng(0).uniform(0.4, 1, size=(len(NAMES) + 1, 3))
    shade = (1.3 / (0.6 + 0.45 * depth))[..., None] + rng.normal(0, 0.02, size=(*depth.shape, 1))
    photo = (255 * np.clip(colours[labels] * shade, 0, 1)).astype(np.uint8)
    masks = [(name, ids == number) for number, name in enumerate(boards, 1)]
    return photo, (1000 * depth).astype(np.uint16), labels, masks


def label(name: str) -> int:
    """Number of a class in the label maps."""
    return NAMES.index(name) + 1


def expressions(masks: list[tuple[str, Any]]) -> list[tuple[str, Any, list[str]]]:
    """(name, mask, expressions) of each board that an expression can single out."""
    found = []
    for name, mask in masks:
        others = [other for other_name, other in masks if other_name == name and other is not mask and other.any()]
        if mask.mean() < 0.004 or len(others) > 1:
            continue
        if not others:
            found.append((name, mask, [f"the {name}"]))
        else:
            left = np.nonzero(mask)[1].mean() < np.nonzero(others[0])[1].mean()
            found.append((name, mask, [f"the {name} on the {'left' if left else 'right'}"]))
    return found


def encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Uncompressed COCO run-length encoding, column by column, background first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def write(root: Path, *, train: int = 20, val: int = 2, heldout: int = 4, seed: int = 0) -> Path:
    """Write the data set under ``root``, which is returned; the same arguments give the same files."""
    rng = np.random.default_rng(seed)
    rows = []
    for (scene, first), count in ((TRAIN, train), (VAL, val), (HELDOUT, heldout)):
        folder = root / "official_splits" / "train" / scene
        folder.mkdir(parents=True)
        for index in range(first, first + count):
            photo, depth, labels, masks = draw_room(rng)
            Image.fromarray(photo).save(folder / f"rgb_{index:05d}.jpg", quality=90)
            Image.fromarray(depth).save(folder / f"sync_depth_{index:05d}.png", compress_level=1)
            Image.fromarray(labels).save(folder / f"labels40_{index:05d}.png", compress_level=1)
            rows += [
                {
                    "image": f"official_splits/train/{scene}/rgb_{index:05d}.jpg",
                    "category": name,
                    "expressions": said,
                    "median_depth_m": float(np.median(depth[mask]) / 1000),
                    "segmentation": encode_rle(mask),
                }
                for name, mask, said in expressions(masks)
            ]
    (root / "classes40.json").write_text(json.dumps(NAMES), "utf-8")
    with gzip.open(root / "refer_train.json.gz", "wt", encoding="utf-8") as file:
        json.dump(rows, file)
    return root
