"""Putting things outdoors: from their own coordinates to parts in the world, and who stands where already.

A thing's own coordinates [m]: x right, y depth, z up; its front faces -y; the origin is at the centre of its
footprint on the ground.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from deixis.world.scene import Builder, Material, Part, Shape, Thing, Vector

Rotation = tuple[Vector, Vector, Vector]
T = TypeVar("T")

UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ACROSS: Rotation = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # own x, y, z lie along y, z, x: wheels
ALONG: Rotation = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # own z lies along y


class Piece(NamedTuple):
    """One solid of a design, in the thing's own coordinates; fields as in :class:`~deixis.world.scene.Part`."""

    shape: Shape
    center: Vector
    size: Vector
    material: Material
    rotation: Rotation = UPRIGHT
    taper: float = 1.0
    sides: int = 12


class Block(NamedTuple):
    """A cuboid of space that a thing fills, in its own coordinates [m]."""

    low: Vector
    high: Vector


@dataclass(frozen=True)
class Design:
    """A thing before it is placed.

    Attributes:
        name, colour, material, pattern, build: as in :class:`~deixis.world.scene.Thing`.
        pieces: what it is made of.
        blocks: space it fills, where that is less than its bounding box (a tree's trunk and crown).
    """

    name: str
    pieces: tuple[Piece, ...]
    colour: str = ""
    material: str = ""
    pattern: str = ""
    build: Literal["", "small", "large"] = ""
    blocks: tuple[Block, ...] = ()

    @cached_property
    def bounds(self) -> Block:
        """Its bounding box."""
        return extent(self.pieces)


def box(center: Vector, size: Vector, material: Material, rotation: Rotation = UPRIGHT) -> Piece:
    """A cuboid."""
    return Piece("box", center, size, material, rotation)


def frustum(
    center: Vector, size: Vector, material: Material, rotation: Rotation = UPRIGHT, taper: float = 1.0, sides: int = 12
) -> Piece:
    """A cylinder, cone or prism along its own z."""
    return Piece("frustum", center, size, material, rotation, taper, sides)


def ellipsoid(center: Vector, size: Vector, material: Material, rotation: Rotation = UPRIGHT, sides: int = 12) -> Piece:
    """A ball, stretched."""
    return Piece("ellipsoid", center, size, material, rotation, 1.0, sides)


def tilt_x(degrees: float) -> Rotation:
    """A turn about x: positive lifts the far end (+y) [deg]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c)


def tilt_y(degrees: float) -> Rotation:
    """A turn about y: positive lowers the right end (+x) [deg]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)


def turn_z(degrees: float) -> Rotation:
    """A turn about the vertical: positive is to the left, seen from above [deg]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each as likely as the next."""
    return options[int(rng.integers(len(options)))]


def area(piece: Piece) -> float:
    """Of the largest face of the cuboid around it [m²]."""
    a, b, c = piece.size
    return max(a * b, b * c, a * c)


def extent(pieces: Sequence[Piece]) -> Block:
    """The bounding box of pieces (of rotated ones, that of the cuboid around them)."""
    low, high = [math.inf] * 3, [-math.inf] * 3
    for piece in pieces:
        a, b, d = piece.size
        if piece.sides == 6 and piece.shape == "frustum":
            b *= math.sqrt(0.75)  # a hexagon is less wide across its flats
        if piece.rotation is not UPRIGHT:
            a, b, d = (abs(p) * a + abs(q) * b + abs(r) * d for p, q, r in piece.rotation)
        for axis, (middle, half) in enumerate(zip(piece.center, (a / 2, b / 2, d / 2), strict=True)):
            if middle - half < low[axis]:
                low[axis] = middle - half
            if middle + half > high[axis]:
                high[axis] = middle + half
    return Block((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def place(
    builder: Builder,
    design: Design,
    at: Vector,
    yaw_deg: float = 0.0,
    on: int = 0,
    mount: Literal["on", "hanging", "structure"] = "on",
    least: float = 0.0,
) -> int:
    """Put a design into the world.

    Args:
        builder: takes the thing, its parts and their materials.
        design: what to place.
        at: where its origin comes to lie [m].
        yaw_deg: turn about the vertical; positive is to the left, seen from above [deg].
        on: id of what carries it.
        mount: how it is held.
        least: pieces with less area than its square are left out and round ones get fewer sides, as too far away
            to see [m].

    Returns:
        The new thing's id.
    """
    number = len(builder.things) + 1
    yaw = turn_z(yaw_deg)
    c, s = yaw[0][0], yaw[1][0]
    for piece in design.pieces:
        if area(piece) < least * least:
            continue
        x, y, z = piece.center
        rotation = yaw
        if piece.rotation is not UPRIGHT:
            (i, j, k), (p, q, r), up = piece.rotation
            rotation = (c * i - s * p, c * j - s * q, c * k - s * r), (s * i + c * p, s * j + c * q, s * k + c * r), up
        builder.parts.append(
            Part(
                number,
                piece.shape,
                piece.size,
                (at[0] + c * x - s * y, at[1] + s * x + c * y, at[2] + z),
                rotation,
                builder.material(piece.material),
                piece.taper,
                min(piece.sides, 8) if least > 0.3 else piece.sides,
            )
        )
    low, high = design.bounds
    x, y, z = ((a + b) / 2 for a, b in zip(low, high, strict=True))
    builder.things.append(
        Thing(
            number,
            design.name,
            design.colour,
            design.material,
            design.pattern,
            design.build,
            (at[0] + c * x - s * y, at[1] + s * x + c * y, at[2] + z),
            (high[0] - low[0], high[1] - low[1], high[2] - low[2]),
            yaw_deg,
            on,
            mount,
        )
    )
    return number


@dataclass
class Site(Builder):
    """A builder that finds materials fast and knows which space is taken."""

    _indices: dict[Material, int] = field(default_factory=dict)
    _centers: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((256, 2)))
    _radii: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    _taken: list[tuple[float, ...]] = field(default_factory=list)  # x, y, half width, half depth, cos, sin, low, high

    def material(self, material: Material) -> int:
        """Its index, adding it if it is new."""
        index = self._indices.get(material)
        if index is None:
            index = self._indices[material] = len(self.materials)
            self.materials.append(material)
        return index

    def claim(self, blocks: Sequence[Block], at: Vector, yaw_deg: float, gap: float = 0.1, force: bool = False) -> bool:
        """Take space if all of it is free.

        Args:
            blocks: the space, in a thing's own coordinates.
            at: where the thing's origin lies [m].
            yaw_deg: its turn about the vertical [deg].
            gap: least distance to others, sideways [m].
            force: take it even where it is taken.

        Returns:
            Whether it was taken.
        """
        (c, _, _), (s, _, _), _ = turn_z(yaw_deg)
        wanted = []
        for low, high in blocks:
            x, y = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
            wanted.append(
                (
                    at[0] + c * x - s * y,
                    at[1] + s * x + c * y,
                    (high[0] - low[0]) / 2,
                    (high[1] - low[1]) / 2,
                    c,
                    s,
                    at[2] + low[2],
                    at[2] + high[2],
                )
            )
        if not force and any(self._hits(w, gap) for w in wanted):
            return False
        for w in wanted:
            count = len(self._taken)
            if count == len(self._radii):
                self._centers, self._radii = np.tile(self._centers, (2, 1)), np.tile(self._radii, 2)
            self._centers[count], self._radii[count] = w[:2], math.hypot(w[2], w[3])
            self._taken.append(w)
        return True

    def _hits(self, a: tuple[float, ...], gap: float) -> bool:
        """Whether a cuboid comes nearer than ``gap`` to one that is taken."""
        count = len(self._taken)
        offsets = self._centers[:count] - a[:2]
        near = (offsets * offsets).sum(axis=1) < (self._radii[:count] + (math.hypot(a[2], a[3]) + gap)) ** 2
        return any(_overlap(a, self._taken[i], gap) for i in np.flatnonzero(near).tolist())


def _overlap(a: tuple[float, ...], b: tuple[float, ...], gap: float) -> bool:
    """Separating-axis test of two upright cuboids."""
    if a[6] >= b[7] or b[6] >= a[7]:
        return False
    dx, dy = b[0] - a[0], b[1] - a[1]
    c, s = abs(a[4] * b[4] + a[5] * b[5]), abs(a[4] * b[5] - a[5] * b[4])  # of the angle between them
    for (_, _, w, d, cos, sin, _, _), (_, _, ow, od, *_) in ((a, b), (b, a)):
        if abs(dx * cos + dy * sin) > w + ow * c + od * s + gap:
            return False
        if abs(dy * cos - dx * sin) > d + ow * s + od * c + gap:
            return False
    return True
