"""What of a scene is seen in its frame, and how the things seen lie to each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deixis.world.scene import Frame, Thing, View

Relation = Literal["left", "right", "above", "below", "front", "behind", "next", "on", "under"]
RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below", "front", "behind", "next", "on", "under")
_INVERSE: dict[Relation, Relation] = {"right": "left", "below": "above", "behind": "front"}


@dataclass(frozen=True)
class Seen:
    """A thing of which at least one pixel is visible.

    Attributes:
        thing: which.
        area: its share of the picture's pixels, in (0, 1].
        pixels: how many they are [px].
        box: left, top, right and bottom of the visible part as shares of the picture's width and height.
        centroid: (u, v) of the visible part, in [0, 1] from the left and from the top.
        depth: median planar depth of the visible part [m].
        near: its 10th percentile [m].
        far: its 90th percentile [m].
        truncated: whether it reaches the picture's border.
        shown: share of the extent it would have in an endless, empty picture that is visible, in [0, 1];
            1 for structure and where the thing's size is not known.
    """

    thing: Thing
    area: float
    pixels: int
    box: tuple[float, float, float, float]
    centroid: tuple[float, float]
    depth: float
    near: float
    far: float
    truncated: bool
    shown: float

    @property
    def clear(self) -> bool:
        """Whether a person who looks at the picture would recognise it: large enough and not a mere sliver."""
        x0, y0, x1, y1 = self.box
        return self.area >= 0.003 and self.shown >= 0.3 and min(x1 - x0, y1 - y0) >= 0.015


def visible(frame: Frame) -> list[Seen]:
    """Everything seen in a frame, sorted by id; a single pixel is enough."""
    height, width = frame.ids.shape
    flat = frame.ids.ravel()
    if flat.max(initial=0) < 65536:
        flat = flat.astype(np.uint16)  # 16-bit keys are sorted by radix, many times faster
    order = np.argsort(flat, kind="stable")
    keys = flat[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])  # [N] where each thing's pixels begin
    counts = np.diff(np.r_[starts, len(keys)])
    rows, columns = np.divmod(order, width)
    left, right = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
    top, bottom = rows[starts], rows[starts + counts - 1] + 1  # stable order keeps rows ascending
    u = (np.add.reduceat(columns, starts) / counts + 0.5) / width
    v = (np.add.reduceat(rows, starts) / counts + 0.5) / height
    boxes = np.stack([left / width, top / height, right / width, bottom / height], axis=1)  # [N, 4]
    depths = frame.depth.ravel()[order]

    found = []
    for i, start in enumerate(starts):
        number, count = int(keys[start]), int(counts[i])
        if number == 0:
            continue
        ranked = np.sort(depths[start : start + count])
        x0, y0, x1, y1 = (float(side) for side in boxes[i])
        found.append(
            Seen(
                thing=frame.scene.thing(number),
                area=count / flat.size,
                pixels=count,
                box=(x0, y0, x1, y1),
                centroid=(float(u[i]), float(v[i])),
                depth=float(0.5 * (ranked[(count - 1) // 2] + ranked[count // 2])),
                near=float(ranked[count // 10]),
                far=float(ranked[(9 * count) // 10]),
                truncated=x0 == 0 or y0 == 0 or x1 == 1 or y1 == 1,
                shown=1.0,
            )
        )
    shown = _shown(found, frame.scene.view)
    return [replace(one, shown=share) for one, share in zip(found, shown, strict=True)]


def _shown(found: list[Seen], view: View) -> list[float]:
    """Area of each visible box over the area of the box around the thing's projected bounding box."""
    if not found:
        return []
    things = [one.thing for one in found]
    size = np.array([t.size for t in things])  # [N, 3]
    yaw = np.radians([t.yaw_deg for t in things])
    unit = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    local = unit[None] * size[:, None]  # [N, 8, 3]
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    turned = np.stack(
        [cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]], axis=-1
    )
    corners = turned + np.array([t.center for t in things])[:, None]
    seen = (corners - np.asarray(view.position)) @ np.asarray(view.rotation)  # world to camera [N, 8, 3]
    z = np.maximum(seen[..., 2], 0.05)
    x, y = view.fx * seen[..., 0] / z / view.width, view.fy * seen[..., 1] / z / view.height
    full = (x.max(axis=1) - x.min(axis=1)) * (y.max(axis=1) - y.min(axis=1))
    shares = []
    for one, whole in zip(found, full, strict=True):
        x0, y0, x1, y1 = one.box
        known = one.thing.mount != "structure" and min(one.thing.size) > 0
        shares.append(min(1.0, (x1 - x0) * (y1 - y0) / max(float(whole), 1e-9)) if known else 1.0)
    return shares


def holds(relation: Relation, a: Seen, b: Seen) -> bool:
    """Whether ``a`` clearly stands in this relation to ``b``.

    All are in the picture (left, right …) or of order in depth; none depends on the scale of the scene. ``above`` and
    ``below`` hold in space as well. ``on`` and ``under`` are true in space: ``a`` is supported by ``b``, or lies within
    its footprint below its top.
    """
    if relation in _INVERSE:
        return holds(_INVERSE[relation], b, a)
    across, along = _overlap(a, b, 0), _overlap(a, b, 1)
    if relation == "on":
        return a.thing.on == b.thing.id and (a.thing.mount == "hanging" or _borne(a.thing, b.thing))
    if relation == "under":
        return _beneath(a.thing, b.thing)
    if a.thing.on == b.thing.id or b.thing.on == a.thing.id:
        return relation == "above" and a.thing.on == b.thing.id and _over(a, b, 0.02)
    if relation == "left":
        return a.box[2] <= b.box[0] + 0.02 and a.centroid[0] <= b.centroid[0] - 0.08 and along > -0.1
    if relation == "above":
        return _over(a, b, 0.02) and a.centroid[1] <= b.centroid[1] - 0.08 and _higher(a.thing, b.thing)
    if relation == "front":
        # Most of the narrower one must be seen before the other, or "in front of" would mean "nearer, elsewhere".
        return a.depth <= 0.85 * b.depth and a.far < b.far and a.near < b.near and across >= _half(a, b) and along > 0
    return -0.02 < -across < 0.05 and along >= 0.5 * _smaller(a, b, 1) and _ratio(a, b) < 1.15


def perhaps(relation: Relation, a: Seen, b: Seen) -> bool:
    """Whether somebody might say that ``a`` stands in this relation to ``b``; implied by :func:`holds`."""
    if relation in _INVERSE:
        return perhaps(_INVERSE[relation], b, a)
    if relation == "left":
        return a.centroid[0] < b.centroid[0] + 0.02 or a.box[0] < b.box[0]
    if relation == "front":
        return a.near < b.far  # wherever it is: "behind" is also said of what is only farther off
    if relation == "next":
        return _overlap(a, b, 0) > -0.25 and _overlap(a, b, 1) > -0.2
    # on, under, above: anything that touches or nearly touches in the picture.
    touching = _overlap(a, b, 0) > (-0.1 if relation == "above" else -0.03)
    touching = touching and (relation == "above" or _overlap(a, b, 1) > -0.03)
    return a.thing.on == b.thing.id or touching or (relation == "under" and _beneath(a.thing, b.thing))


def _overlap(a: Seen, b: Seen, axis: int) -> float:
    """Length that two boxes share along an axis, as a share of the picture; negative is a gap."""
    return min(a.box[2 + axis], b.box[2 + axis]) - max(a.box[axis], b.box[axis])


def _smaller(a: Seen, b: Seen, axis: int) -> float:
    return min(a.box[2 + axis] - a.box[axis], b.box[2 + axis] - b.box[axis])


def _half(a: Seen, b: Seen) -> float:
    return 0.5 * _smaller(a, b, 0)


def _ratio(a: Seen, b: Seen) -> float:
    low, high = sorted((a.depth, b.depth))
    return high / max(low, 1e-6)


def _over(a: Seen, b: Seen, slack: float) -> bool:
    """Whether ``a`` ends where ``b`` begins or higher, and its middle is over ``b``."""
    return a.box[3] <= b.box[1] + slack and b.box[0] <= a.centroid[0] <= b.box[2]


def _higher(a: Thing, b: Thing) -> bool:
    """Whether ``a`` begins about where ``b`` ends or above: of two tables, none is over the other."""
    foot, top = a.center[2] - a.size[2] / 2, b.center[2] + b.size[2] / 2
    return foot > top - 0.1 * b.size[2]


def _borne(a: Thing, b: Thing) -> bool:
    """Whether ``a`` begins above the foot of ``b``: a keyboard may belong to a monitor without lying on it."""
    foot_a, foot_b = a.center[2] - a.size[2] / 2, b.center[2] - b.size[2] / 2
    return b.mount == "structure" or b.size[2] == 0 or foot_a > foot_b + 0.01 * b.size[2]


def _beneath(a: Thing, b: Thing) -> bool:
    """Whether the middle of ``a`` is within the footprint of ``b`` and its top below that of ``b``."""
    yaw = np.radians(b.yaw_deg)
    dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
    x, y = abs(np.cos(yaw) * dx + np.sin(yaw) * dy), abs(np.cos(yaw) * dy - np.sin(yaw) * dx)
    top_a, top_b = a.center[2] + a.size[2] / 2, b.center[2] + b.size[2] / 2
    inside = x < 0.45 * b.size[0] and y < 0.45 * b.size[1]
    return bool(inside and 0 < top_a < top_b - 0.02 and a.on != b.id and a.mount == "on" and b.mount == "on")
