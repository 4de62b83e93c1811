"""Putting pieces into a room: local coordinates to world, and what stands where so that nothing collides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deixis.world.pieces import Piece, Style, Top, Turn, between, product
from deixis.world.scene import Light, Material, Part, Thing, Vector

FLAT = 0.03  # what is no higher than this [m] (rugs, mats) may lie under furniture


@dataclass(frozen=True)
class Rect:
    """A rectangle on the floor: centre, half extents [m], cosine and sine of its turn."""

    x: float
    y: float
    half_w: float
    half_d: float
    cos: float = 1.0
    sin: float = 0.0

    def corners(self) -> list[tuple[float, float]]:
        """Its four corners."""
        return [
            (self.x + u * self.cos - v * self.sin, self.y + u * self.sin + v * self.cos)
            for u in (-self.half_w, self.half_w)
            for v in (-self.half_d, self.half_d)
        ]

    def overlaps(self, other: Rect) -> bool:
        """Whether they share any area (separating axes)."""
        dx, dy = other.x - self.x, other.y - self.y
        turn_cos, turn_sin = (
            abs(self.cos * other.cos + self.sin * other.sin),
            abs(self.cos * other.sin - self.sin * other.cos),
        )
        for one, two in ((self, other), (other, self)):
            if abs(dx * one.cos + dy * one.sin) >= one.half_w + two.half_w * turn_cos + two.half_d * turn_sin:
                return False
            if abs(dy * one.cos - dx * one.sin) >= one.half_d + two.half_w * turn_sin + two.half_d * turn_cos:
                return False
        return True


@dataclass
class Wall:
    """One side of the room, seen from inside: local x runs to the right along it, local y points outwards.

    Attributes:
        x, y: the middle of its foot [m].
        yaw: turn of its local coordinates [rad].
        length: [m].
        thing: id of the wall.
        taken: areas in use, as left, right, bottom, top [m] in its own coordinates.
    """

    x: float
    y: float
    yaw: float
    length: float
    thing: int = 0
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def world(self, along: float, outwards: float) -> tuple[float, float]:
        """A point of its own coordinates in the world."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + along * c - outwards * s, self.y + along * s + outwards * c

    def clear(self, left: float, right: float, bottom: float, top: float) -> bool:
        """Whether the area is on the wall and not in use."""
        if left < -self.length / 2 or right > self.length / 2:
            return False
        return all(right <= a or left >= b or top <= c or bottom >= d for a, b, c, d in self.taken)


@dataclass
class Placed:
    """A piece that has its place; ``used`` are the occupied rectangles of each of its tops, in its own coordinates."""

    piece: Piece
    thing: int
    x: float
    y: float
    z: float
    yaw: float
    used: list[list[Rect]]
    wall: Wall | None = None
    along: float = 0.0

    def world(self, x: float, y: float) -> tuple[float, float]:
        """A point of its own coordinates in the world."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + x * c - y * s, self.y + x * s + y * c


class Room:
    """A room while it is being furnished.

    Args:
        rng: source of all chance.
        style: its taste.
        width, depth, height: inner extent along x, y, z [m]; the middle of the floor is the origin.
    """

    def __init__(self, rng: np.random.Generator, style: Style, width: float, depth: float, height: float) -> None:
        self.rng, self.style = rng, style
        self.width, self.depth, self.height = width, depth, height
        self.things: list[Thing] = []
        self.parts: list[Part] = []
        self.materials: dict[Material, int] = {}
        self.lights: list[Light] = []
        self.taken: list[Rect] = []
        self.placed: list[Placed] = []
        self.floor = 0
        self.ceiling = 0
        self.walls = [
            Wall(0, depth / 2, 0.0, width),
            Wall(width / 2, 0, -math.pi / 2, depth),
            Wall(0, -depth / 2, math.pi, width),
            Wall(-width / 2, 0, math.pi / 2, depth),
        ]

    def put(
        self,
        piece: Piece,
        x: float,
        y: float,
        z: float = 0.0,
        yaw: float = 0.0,
        on: int | None = None,
        mount: Literal["on", "hanging", "structure"] = "on",
    ) -> Placed:
        """Places a piece and all it carries, without looking for collisions.

        Args:
            piece: the piece.
            x: of its origin in the world [m].
            y: likewise.
            z: likewise.
            yaw: its turn about the vertical [rad].
            on: id of what holds it; the floor where None.
            mount: how it is held.
        """
        number = len(self.things) + 1
        c, s = math.cos(yaw), math.sin(yaw)
        turn: Turn = (c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)

        def world(p: Vector) -> Vector:
            return x + p[0] * c - p[1] * s, y + p[0] * s + p[1] * c, z + p[2]

        low, high = piece.bounds()
        middle = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2
        self.things.append(
            Thing(
                number,
                piece.name,
                piece.colour,
                piece.material,
                piece.pattern,
                piece.build,
                world(middle),
                (high[0] - low[0], high[1] - low[1], high[2] - low[2]),
                math.degrees(yaw),
                self.floor if on is None else on,
                mount,
            )
        )
        for solid in piece.solids:
            material = self.materials.setdefault(solid.material, len(self.materials))
            rotation = product(turn, solid.rotation)
            self.parts.append(
                Part(number, solid.shape, solid.size, world(solid.center), rotation, material, solid.taper, solid.sides)
            )
        for glow in piece.glows:
            hw, hd = glow.width / 2, glow.depth / 2
            across, along = (c * hw, s * hw, 0.0), (-s * hd, c * hd, 0.0)
            u, v = across, along
            if glow.facing == "down":
                u, v = along, across
            elif glow.facing == "front":  # cross(x, z) = -y
                v = (0.0, 0.0, hd)
            self.lights.append(Light(world((glow.x, glow.y, glow.z)), u, v, glow.radiance))
        for load, lx, ly, lz, degrees in piece.carried:
            px, py, pz = world((lx, ly, lz))
            self.put(load, px, py, pz, yaw + math.radians(degrees), number)
        placed = Placed(piece, number, x, y, z, yaw, [[] for _ in piece.tops])
        self.placed.append(placed)
        return placed

    def footprint(self, piece: Piece, x: float, y: float, yaw: float, gap: float = 0.0) -> Rect:
        """The rectangle a piece would stand on, ``gap`` wider on each side [m]."""
        low, high = piece.bounds()
        c, s = math.cos(yaw), math.sin(yaw)
        mx, my = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
        return Rect(
            x + mx * c - my * s,
            y + mx * s + my * c,
            (high[0] - low[0]) / 2 + gap,
            (high[1] - low[1]) / 2 + gap,
            c,
            s,
        )

    def is_free(self, rect: Rect, ignore: Rect | None = None) -> bool:
        """Whether the rectangle lies in the room and nothing stands there."""
        if any(abs(x) > self.width / 2 or abs(y) > self.depth / 2 for x, y in rect.corners()):
            return False
        return not any(other is not ignore and rect.overlaps(other) for other in self.taken)

    def stand(self, piece: Piece, x: float, y: float, yaw: float, under: Rect | None = None) -> Placed | None:
        """Stands a piece on the floor, if it is free there; it may be pushed under the table on ``under``."""
        rect = self.footprint(piece, x, y, yaw, 0.01)
        flat = piece.bounds()[1][2] <= FLAT
        if flat:
            if any(abs(px) > self.width / 2 or abs(py) > self.depth / 2 for px, py in rect.corners()):
                return None
        elif not self.is_free(rect, under):
            return None
        else:
            self.taken.append(rect)
        return self.put(piece, x, y, 0.0, yaw)

    def against(
        self, piece: Piece, wall: Wall | None = None, along: float | None = None, tries: int = 12, gap: float = 0.025
    ) -> Placed | None:
        """Stands a piece with its back to a wall: any wall and place, unless given; None where there is no room."""
        low, high = piece.bounds()
        for _ in range(tries if wall is None or along is None else 1):
            side = wall or self.walls[int(self.rng.integers(4))]
            left, right = -side.length / 2 - low[0] + 0.03, side.length / 2 - high[0] - 0.03
            if left > right:
                continue
            if along is None:  # corners attract furniture
                at = (
                    left
                    if (luck := self.rng.random()) < 0.2
                    else right
                    if luck < 0.4
                    else between(self.rng, left, right)
                )
            else:
                at = along
            if not side.clear(at + low[0], at + high[0], 0.0, high[2]):
                continue
            x, y = side.world(at, -high[1] - gap)
            placed = self.stand(piece, x, y, side.yaw)
            if placed:
                side.taken.append((at + low[0], at + high[0], 0.0, high[2]))
                placed.wall, placed.along = side, at
                return placed
        return None

    def anywhere(self, piece: Piece, tries: int = 12, margin: float = 0.2) -> Placed | None:
        """Stands or lays a piece somewhere on the free floor."""
        for _ in range(tries):
            x = between(self.rng, -self.width / 2 + margin, self.width / 2 - margin)
            y = between(self.rng, -self.depth / 2 + margin, self.depth / 2 - margin)
            if placed := self.stand(piece, x, y, between(self.rng, -math.pi, math.pi)):
                return placed
        return None

    def hang(
        self,
        piece: Piece,
        z: float,
        wall: Wall | None = None,
        along: float | None = None,
        tries: int = 10,
        margin: float = 0.04,
    ) -> Placed | None:
        """Hangs a piece at a wall with its lower edge at ``z`` [m]."""
        low, high = piece.bounds()
        for _ in range(tries if wall is None or along is None else 1):
            side = wall or self.walls[int(self.rng.integers(4))]
            half = side.length / 2
            at = between(self.rng, -half - low[0], half - high[0]) if along is None else along
            area = (at + low[0] - margin, at + high[0] + margin, z + low[2], z + high[2] + 0.02)
            if z + high[2] > self.height - 0.03 or not side.clear(*area):
                continue
            side.taken.append(area)
            x, y = side.world(at, -high[1] - 0.004)
            placed = self.put(piece, x, y, z, side.yaw, side.thing, "hanging")
            placed.wall, placed.along = side, at
            return placed
        return None

    def onto(
        self,
        host: Placed,
        piece: Piece,
        turn: float = 8.0,
        tries: int = 8,
        spot: tuple[float, float] | None = None,
    ) -> Placed | None:
        """Stands a piece on one of the host's tops, turned by up to ``turn`` [deg]; None where it does not fit.

        Args:
            host: what to put it on.
            piece: the piece.
            turn: largest turn out of the host's own direction [deg].
            tries: how often to look for a free place.
            spot: where on the top, each from -1 (left, front) to 1, instead of anywhere.
        """
        tops = host.piece.tops
        if not tops:
            return None
        low, high = piece.bounds()
        for _ in range(tries):
            index = int(self.rng.integers(len(tops)))
            top: Top = tops[index]
            degrees = between(self.rng, -turn, turn)
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            w, d = high[0] - low[0], high[1] - low[1]
            half_w, half_d = (w * abs(c) + d * abs(s)) / 2, (w * abs(s) + d * abs(c)) / 2
            free_w, free_d = top.width / 2 - half_w, top.depth / 2 - half_d
            if free_w < 0 or free_d < 0 or high[2] > top.room or (low[2] < -0.01):
                continue
            a, b = spot or (between(self.rng, -1, 1), between(self.rng, -1, 1))
            rect = Rect(top.x + a * free_w, top.y + b * free_d, half_w + 0.01, half_d + 0.01)
            if any(rect.overlaps(other) for other in host.used[index]):
                continue
            host.used[index].append(rect)
            mx, my = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
            x, y = host.world(rect.x - mx * c + my * s, rect.y - mx * s - my * c)
            return self.put(piece, x, y, host.z + top.z, host.yaw + math.radians(degrees), host.thing)
        return None

    def load(self, host: Placed, pieces: Sequence[Piece], turn: float = 20.0) -> None:
        """Stands as many of the pieces on a host as fit."""
        for piece in pieces:
            self.onto(host, piece, turn)
