"""Where a person would stand in a room to take its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deixis.world.pieces import between, chance, pick
from deixis.world.placing import Room
from deixis.world.scene import Thing, Vector, View

Floats = npt.NDArray[np.float64]
NEAREST = 0.5  # nothing in view is closer to the camera than this [m]


def take(room: Room, width: int, height: int) -> View:
    """A camera in the room: of a few poses the one whose median depth is closest to a drawn one.

    Args:
        room: furnished.
        width: of the picture [px].
        height: of the picture [px].
    """
    rng = room.rng
    centers = np.array([p.center for p in room.parts])  # [P, 3]
    turns = np.array([p.rotation for p in room.parts])  # [P, 3, 3]
    halves = np.array([p.size for p in room.parts]) / 2  # [P, 3]
    owners = np.array([p.thing for p in room.parts])  # [P]
    solid = [t for t in room.things if t.mount != "structure"]
    furniture = np.zeros(len(room.things) + 1, dtype=bool)
    furniture[[t.id for t in solid]] = True
    shell = {t.id for t in room.things if t.name in ("wall", "floor", "ceiling")}
    margins = np.array([0.14 if p.thing in shell else 0.45 for p in room.parts])  # [P] [m]
    angle = math.radians(between(rng, 60, 64) if chance(rng, 0.35) else between(rng, 45, 90))
    focal = width / 2 / math.tan(angle / 2)
    u, v = np.meshgrid((np.arange(9) + 0.5) / 9 - 0.5, (np.arange(7) + 0.5) / 7 - 0.5)
    rays = np.stack([u * width / focal, v * height / focal, np.ones_like(u)], axis=-1).reshape(-1, 3)  # [R, 3], z = 1
    close = chance(rng, 0.12)
    wanted = between(rng, 1.0, 1.7) if close else float(np.clip(rng.lognormal(math.log(3.0), 0.3), 1.5, 6.0))
    best, score = None, math.inf
    tried = 0
    for _ in range(60):
        position, rotation = _pose(room, solid, close=close)
        if (_gaps(np.array(position), centers, turns, halves) < margins).any():
            continue
        depth, first = _cast(np.array(position), rays @ rotation.T, centers, turns, halves)  # [R], [R]
        seen = np.unique(owners[first])
        bad = abs(math.log(float(np.median(depth)) / wanted)) + 10 * max(0.0, NEAREST + 0.15 - float(depth.min()))
        bad += 0.3 * max(0.0, float(depth.max()) - 9)
        bad += 0.08 * max(0, (3 if close else 8) - int(furniture[seen].sum()))  # a picture of a bare wall says little
        if bad < score:
            best, score = (position, rotation), bad
        tried += 1
        if score < 0.1 or tried == 8:
            break
    if best is None:  # so crowded that only the air above is free
        best = (0.0, 0.0, room.height - 0.5), _look(between(rng, -math.pi, math.pi), -0.5, 0.0)
    position, rotation = best
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    red, green, blue = np.exp(0.06 * rng.standard_normal(3)).tolist()
    return View(
        position,
        ((a, b, c), (d, e, f), (g, h, i)),
        focal,
        focal,
        width / 2,
        height / 2,
        width,
        height,
        exposure=float(np.exp(0.25 * rng.standard_normal())),
        white=(red, green, blue),
        noise=between(rng, 0.0, 0.012),
        blur_px=between(rng, 0.2, 0.7),
    )


def _pose(room: Room, solid: Sequence[Thing], *, close: bool) -> tuple[Vector, Floats]:
    """A place near a wall, a corner or a piece of furniture, and a turn towards what there is to see."""
    rng = room.rng
    z = float(np.clip(1.4 + 0.17 * rng.standard_normal(), 0.9, 1.85))
    half_w, half_d = room.width / 2, room.depth / 2
    large = [t for t in solid if t.size[0] * t.size[2] > 0.12 and t.center[2] < 1.9]
    if close:
        large = [t for t in large if t.mount == "on"]
    target = pick(rng, large).center if large else (0.0, 0.0, 0.6)
    if close:
        away, around = between(rng, 0.9, 1.9), between(rng, -math.pi, math.pi)
        x, y = target[0] + away * math.cos(around), target[1] + away * math.sin(around)
        x, y = float(np.clip(x, 0.25 - half_w, half_w - 0.25)), float(np.clip(y, 0.25 - half_d, half_d - 0.25))
        pitch = math.atan2(target[2] - z, math.hypot(target[0] - x, target[1] - y)) + 0.12 * float(
            rng.standard_normal()
        )
    else:
        margin = between(rng, 0.15, 0.6)
        spots = []
        for _ in range(3):
            x, y = between(rng, margin - half_w, half_w - margin), between(rng, margin - half_d, half_d - margin)
            side = int(rng.integers(4))  # the wall at the photographer's back
            x = (x, half_w - margin, x, margin - half_w)[side]
            y = (half_d - margin, y, margin - half_d, y)[side]
            spots.append((math.hypot(x - target[0], y - target[1]), x, y))
        _, x, y = max(spots)  # people step back
        if chance(rng, 0.6):
            mix = between(rng, 0.3, 1.0)
            target = (mix * target[0], mix * target[1], target[2])
        pitch = math.radians(between(rng, -25, 0) if chance(rng, 0.85) else between(rng, -42, 6))
    heading = math.atan2(target[0] - x, target[1] - y) + 0.2 * float(rng.standard_normal())
    roll = math.radians(2.5) * float(rng.standard_normal())
    return (x, y, z), _look(heading, max(-0.9, pitch), roll)


def _look(heading: float, pitch: float, roll: float) -> Floats:
    """Rotation [3, 3] from the camera (x right, y down, z forward) to the world.

    Args:
        heading: of the optical axis, clockwise from the world's y axis seen from above [rad].
        pitch: up from level [rad].
        roll: clockwise about the optical axis [rad].
    """
    sh, ch, sp, cp = math.sin(heading), math.cos(heading), math.sin(pitch), math.cos(pitch)
    forward = np.array([sh * cp, ch * cp, sp])
    right = np.array([ch, -sh, 0.0])
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward], axis=1)


def _gaps(point: Floats, centers: Floats, turns: Floats, halves: Floats) -> Floats:
    """Distance from a point to each part's box [P] [m], 0 inside; the boxes as in :func:`_cast`."""
    local = np.einsum("pkc,pk->pc", turns, point - centers)
    return np.linalg.norm(np.maximum(0.0, np.abs(local) - halves), axis=1)


def _cast(
    start: Floats, rays: Floats, centers: Floats, turns: Floats, halves: Floats
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Distance along each ray [R], in lengths of the ray, to the first part's box (20 where there is none); its part.

    Args:
        start: [3] where the rays start.
        rays: [R, 3] where they go.
        centers: of the parts' boxes [P, 3].
        turns: of the boxes, from their coordinates to the world [P, 3, 3].
        halves: half their extents [P, 3].
    """
    origins = np.einsum("pkc,pk->cp", turns, start - centers)  # [3, P], in each box's own coordinates
    ways = np.tensordot(rays, turns, (1, 1))  # [R, P, 3]
    enter, leave = np.full(ways.shape[:2], -np.inf), np.full(ways.shape[:2], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            inverse = 1 / ways[:, :, axis]
            middle, reach = -origins[axis] * inverse, np.abs(halves[:, axis] * inverse)
            enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    hits = np.where((enter <= leave) & (enter > 0), enter, 20.0)
    first = hits.argmin(axis=1)
    return hits[np.arange(len(rays)), first], first
