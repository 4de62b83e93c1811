"""What exports share: frames at the size that a layout publishes, and numbers as it stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deixis.camera import Camera
from deixis.data.world import WorldFrame
from deixis.io import write_image, write_png16, write_text
from deixis.types import RGB, FloatMap, IntMap
from deixis.world.export import LIST


@dataclass(frozen=True, eq=False)
class Fitted:
    """A frame at another size.

    Attributes:
        rgb: uint8 [H, W, 3], sRGB.
        depth: float32 [H, W] [m], planar; 0 where there is only sky.
        ids: int32 [H, W], the thing at each pixel; 0 is sky.
        camera: intrinsics at that size.
    """

    rgb: RGB
    depth: FloatMap
    ids: IntMap
    camera: Camera


def fitted(frame: WorldFrame, width: int, height: int) -> Fitted:
    """The largest window in the middle of a frame that has a size's proportions, resized to it.

    Pictures are interpolated; depth and ids take the nearest pixel, since depths between a thing and what is behind
    it are nowhere in the scene.

    Raises:
        InputError: if the shard is damaged.
    """
    old_height, old_width = frame.depth.shape
    scale = max(width / old_width, height / old_height)
    part_width, part_height = width / scale, height / scale
    left, top = (old_width - part_width) / 2, (old_height - part_height) / 2
    box = (left, top, left + part_width, top + part_height)
    picture = Image.fromarray(frame.rgb).resize((width, height), Image.Resampling.BICUBIC, box=box)
    columns = np.floor(left + (np.arange(width) + 0.5) / scale).astype(np.intp).clip(0, old_width - 1)
    rows = np.floor(top + (np.arange(height) + 0.5) / scale).astype(np.intp).clip(0, old_height - 1)
    view = frame.scene["view"]
    return Fitted(
        rgb=np.asarray(picture),
        depth=frame.depth[rows[:, None], columns],
        ids=frame.ids[rows[:, None], columns],
        camera=Camera(
            fx=view["fx"] * scale,
            fy=view["fy"] * scale,
            cx=(view["cx"] - left) * scale,
            cy=(view["cy"] - top) * scale,
            width=width,
            height=height,
        ),
    )


def write_depth16(path: Path, depth: FloatMap, per_metre: float) -> None:
    """Write depth [H, W] [m] as a 16-bit PNG; 0, for unknown, where there is none or it is too far for 16 bits."""
    steps = np.rint(depth.astype(np.float64) * per_metre)
    write_png16(path, np.where((steps > 0) & (steps < 65536), steps, 0).astype(np.uint16), {})


def write_picture(path: Path, rgb: RGB) -> None:
    """Write a picture [H, W, 3] in the format that its name says."""
    write_image(path, Image.fromarray(rgb))


def write_list(out: Path, lines: Sequence[str]) -> int:
    """Write the list of an export's samples, one a line. Returns how many there are."""
    write_text(out / LIST, "".join(f"{line}\n" for line in lines))
    return len(lines)


def place_name(frame: WorldFrame) -> str:
    """The place as folders are called: ``living_room``."""
    return frame.place.replace(" ", "_")
