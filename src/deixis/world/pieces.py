"""What indoor things are made of: solids in local coordinates, finishes, and the taste of one room.

Local coordinates [m]: x right, y depth (the front faces -y), z up; the origin is the centre of the footprint, on the
floor. ``z`` of a solid is its underside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np

from deixis.world.colours import albedo, faded
from deixis.world.scene import Material, Shape, Texture, Vector

Turn = tuple[Vector, Vector, Vector]
UPRIGHT: Turn = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
T = TypeVar("T")

WOODS = ("brown", "brown", "dark brown", "beige", "beige", "white", "black", "grey")
STRONG = (
    *("red", "dark red", "orange", "yellow", "green", "dark green", "light green", "turquoise", "blue", "dark blue"),
    *("light blue", "purple", "pink"),
)
MUTED = ("white", "grey", "black", "brown", "dark brown", "beige", "dark blue", "dark red", "dark green", "light blue")

_GLOSS = {
    "wood": (0.02, 0.12),
    "metal": (0.25, 0.5),
    "fabric": (0.0, 0.0),
    "leather": (0.05, 0.15),
    "plastic": (0.05, 0.15),
    "glass": (0.2, 0.4),
    "ceramic": (0.1, 0.25),
    "stone": (0.05, 0.2),
    "paper": (0.0, 0.02),
    "cardboard": (0.0, 0.0),
    "paint": (0.0, 0.04),
    "leaf": (0.02, 0.1),
    "wicker": (0.0, 0.0),
}
_TEXTURE: dict[
    str, tuple[Texture, float, float]
] = {  # texture, size of its period [m], share of light of its dark side
    "wood": ("grain", 0.12, 0.78),
    "fabric": ("noise", 0.015, 0.82),
    "stone": ("speckle", 0.03, 0.6),
    "cardboard": ("noise", 0.04, 0.9),
    "wicker": ("checks", 0.03, 0.6),
}
_PATTERNS: dict[str, Texture] = {"striped": "stripes", "checked": "checks", "speckled": "speckle"}


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform number."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, share: float) -> bool:
    """True in this share of cases."""
    return bool(rng.random() < share)


def finish(rng: np.random.Generator, kind: str, colour: str, texture: Texture | None = None) -> Material:
    """A material of a kind (``wood``, ``fabric`` …) that truly has the colour."""
    base = faded(albedo(colour, rng), colour, between(rng, 0.0, 0.4))  # few things are as vivid as a colour card
    pattern, scale, dark = _TEXTURE.get(kind, ("plain", 0.2, 1.0))
    if kind == "wood" and colour in ("white", "black", "grey"):
        pattern = "plain"  # painted
    second = (base[0] * dark, base[1] * dark, base[2] * dark)
    scale *= between(rng, 0.7, 1.4)
    return Material(kind, base, texture or pattern, second, scale, between(rng, *_GLOSS[kind]))


def cloth(rng: np.random.Generator, colour: str, share: float = 0.25) -> tuple[Material, str]:
    """A fabric, in ``share`` of cases with a pattern, and the pattern's word."""
    plain = finish(rng, "fabric", colour)
    if not chance(rng, share):
        return plain, ""
    word = pick(rng, ("striped", "striped", "checked", "checked", "speckled"))
    other = pick(rng, ("white", "beige", "grey", "black") if colour != "white" else ("grey", "blue", "red", "beige"))
    if other == colour:
        other = "white"
    period = between(rng, 0.04, 0.14)
    return replace(plain, texture=_PATTERNS[word], second=albedo(other, rng), scale=period), word


def glowing(colour: Vector, radiance: float) -> Material:
    """A surface that gives off light of this colour."""
    r, g, b = colour
    return Material("glass", (0.8, 0.8, 0.8), emission=(r * radiance, g * radiance, b * radiance))


def tilt(axis: Literal["x", "y", "z"], degrees: float) -> Turn:
    """The rotation about one axis, counter-clockwise seen from its tip [deg]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == "x":
        return (1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c)
    if axis == "y":
        return (c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)
    return (c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)


def product(a: Turn, b: Turn) -> Turn:
    """``a`` after ``b``."""
    if b is UPRIGHT:
        return a
    one, two, three = b

    def row(p: float, q: float, r: float) -> Vector:
        return (
            p * one[0] + q * two[0] + r * three[0],
            p * one[1] + q * two[1] + r * three[1],
            p * one[2] + q * two[2] + r * three[2],
        )

    return row(*a[0]), row(*a[1]), row(*a[2])


@dataclass(frozen=True)
class Style:
    """The taste of one room, so that its furniture goes together.

    Attributes:
        wood: colour of most wooden furniture.
        metal: colour of legs, handles, frames.
        fabrics: colours of most upholstery and textiles.
        night: no daylight; lamps are on.
        warmth: colour of its lamps' light, linear red green blue.
    """

    wood: str
    metal: str
    fabrics: tuple[str, ...]
    night: bool
    warmth: Vector

    def timber(self, rng: np.random.Generator) -> str:
        """A wood's colour: mostly the room's own."""
        return self.wood if chance(rng, 0.7) else pick(rng, WOODS)

    def textile(self, rng: np.random.Generator) -> str:
        """A fabric's colour: mostly one of the room's own."""
        return pick(rng, self.fabrics) if chance(rng, 0.65) else pick(rng, STRONG + 2 * MUTED)


@dataclass(frozen=True)
class Solid:
    """A part in local coordinates; see :class:`deixis.world.scene.Part`."""

    shape: Shape
    size: Vector
    center: Vector
    material: Material
    rotation: Turn = UPRIGHT
    taper: float = 1.0
    sides: int = 12


@dataclass(frozen=True)
class Top:
    """A level rectangle on which things may stand, ``room`` high, in local coordinates [m]."""

    x: float
    y: float
    z: float
    width: float
    depth: float
    room: float = 1.0


@dataclass(frozen=True)
class Glow:
    """A rectangle of light facing down (or up, or -y for a window) in local coordinates [m]."""

    x: float
    y: float
    z: float
    width: float
    depth: float
    radiance: Vector
    facing: Literal["down", "up", "front"] = "down"


@dataclass
class Piece:
    """A thing in local coordinates, with what belongs on it; ``seat`` is where along x one sits at it [m]."""

    name: str
    colour: str = ""
    material: str = ""
    pattern: str = ""
    build: Literal["", "small", "large"] = ""
    solids: list[Solid] = field(default_factory=list)
    tops: list[Top] = field(default_factory=list)
    glows: list[Glow] = field(default_factory=list)
    seat: float = 0.0
    carried: list[tuple[Piece, float, float, float, float]] = field(default_factory=list)  # piece, x, y, z, yaw [deg]

    def box(
        self, w: float, d: float, h: float, x: float, y: float, z: float, m: Material, turn: Turn = UPRIGHT
    ) -> None:
        """A cuboid."""
        self.solids.append(Solid("box", (w, d, h), (x, y, z + h / 2), m, turn))

    def rod(
        self,
        w: float,
        h: float,
        x: float,
        y: float,
        z: float,
        m: Material,
        taper: float = 1.0,
        sides: int = 10,
        d: float = 0.0,
        turn: Turn = UPRIGHT,
    ) -> None:
        """A cylinder or cone, round unless ``d`` says otherwise."""
        self.solids.append(Solid("frustum", (w, d or w, h), (x, y, z + h / 2), m, turn, taper, sides))

    def ball(
        self,
        w: float,
        d: float,
        h: float,
        x: float,
        y: float,
        z: float,
        m: Material,
        turn: Turn = UPRIGHT,
        sides: int = 12,
    ) -> None:
        """An ellipsoid."""
        self.solids.append(Solid("ellipsoid", (w, d, h), (x, y, z + h / 2), m, turn, 1.0, sides))

    def legs(self, w: float, d: float, h: float, thick: float, m: Material, *, round_: bool = False) -> None:
        """Four legs whose outer sides span ``w`` x ``d``."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                x, y = sx * (w - thick) / 2, sy * (d - thick) / 2
                if round_:
                    self.rod(thick, h, x, y, 0, m, 1.3, 8)
                else:
                    self.box(thick, thick, h, x, y, 0, m)

    def fronts(
        self,
        w: float,
        h: float,
        y: float,
        z: float,
        columns: int,
        rows: int,
        m: Material,
        handle: Material,
        x: float = 0.0,
        *,
        upright: bool = False,
    ) -> None:
        """Drawer or door fronts on the plane ``y``, with handles (``upright`` on doors)."""
        fw, fh = w / columns, h / rows
        for i in range(columns):
            for j in range(rows):
                cx, cz = x - w / 2 + fw * (i + 0.5), z + fh * (j + 0.5)
                self.box(fw - 0.008, 0.018, fh - 0.008, cx, y - 0.009, cz - fh / 2 + 0.004, m)
                if upright:
                    side = 1 if i % 2 == 0 else -1
                    hx = cx + side * (fw / 2 - 0.04)
                    self.box(0.012, 0.03, min(0.16, fh / 3), hx, y - 0.033, cz - min(0.08, fh / 6), handle)
                else:
                    self.box(min(0.14, fw / 3), 0.03, 0.012, cx, y - 0.033, cz, handle)

    def carry(self, piece: Piece, x: float, y: float, z: float, yaw: float = 0.0) -> None:
        """Puts another thing on this one."""
        self.carried.append((piece, x, y, z, yaw))

    def bounds(self) -> tuple[Vector, Vector]:
        """Lower and upper corner of its own solids."""
        low, high = [math.inf] * 3, [-math.inf] * 3
        for solid in self.solids:
            for axis, row in enumerate(solid.rotation):
                half = (abs(row[0]) * solid.size[0] + abs(row[1]) * solid.size[1] + abs(row[2]) * solid.size[2]) / 2
                low[axis] = min(low[axis], solid.center[axis] - half)
                high[axis] = max(high[axis], solid.center[axis] + half)
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def scaled(self, factor: float, build: Literal["small", "large"]) -> Piece:
        """The same thing, clearly smaller or larger."""
        solids = [replace(s, size=_times(s.size, factor), center=_times(s.center, factor)) for s in self.solids]
        return replace(self, build=build, solids=solids)


def _times(vector: Vector, factor: float) -> Vector:
    return vector[0] * factor, vector[1] * factor, vector[2] * factor
