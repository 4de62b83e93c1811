"""The shell of a room: floor, ceiling, walls with doors and windows, and the space behind an open doorway."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deixis.world.colours import albedo, blended
from deixis.world.pieces import (
    STRONG,
    WOODS,
    Glow,
    Piece,
    Top,
    Turn,
    between,
    chance,
    cloth,
    finish,
    pick,
    tilt,
)
from deixis.world.placing import Rect, Room, Wall
from deixis.world.scene import Material, Texture

THICKNESS = 0.16  # of a wall [m]
Rng = np.random.Generator


@dataclass(frozen=True)
class Opening:
    """A hole in a wall, in its own coordinates [m]."""

    kind: Literal["window", "door", "open door", "passage"]
    along: float
    width: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Plan:
    """What the shell of a kind of room looks like.

    Attributes:
        floors, walls: finishes to choose from.
        windows, doors: fewest and most.
        panels: flat ceiling lights instead of lamps.
    """

    floors: tuple[str, ...] = ("planks", "planks", "planks", "carpet", "tiles")
    walls: tuple[str, ...] = ("paint", "paint", "paint", "paint", "paper")
    windows: tuple[int, int] = (1, 2)
    doors: tuple[int, int] = (1, 1)
    panels: bool = False


def floor_finish(rng: Rng, kind: str) -> tuple[Material, str, str]:
    """Material, colour and word of a floor."""
    if kind == "planks":
        colour = pick(rng, ("brown", "brown", "beige", "dark brown", "grey", "beige"))
        base = finish(rng, "wood", colour)
        return (
            replace(base, texture="planks", scale=between(rng, 0.08, 0.18), gloss=between(rng, 0.02, 0.12)),
            colour,
            "wood",
        )
    if kind == "tiles":
        colour = pick(rng, ("white", "grey", "beige", "brown", "beige", "black", "dark red"))
        base = finish(rng, "ceramic", colour)
        dark = between(rng, 0.45, 0.8)
        second = (base.albedo[0] * dark, base.albedo[1] * dark, base.albedo[2] * dark)
        texture: Texture = "checks" if chance(rng, 0.2) else "tiles"
        return replace(base, texture=texture, second=second, scale=between(rng, 0.15, 0.6)), colour, ""
    if kind == "carpet":
        colour = pick(
            rng, ("grey", "beige", "beige", "brown", "grey", "beige", "brown", "dark blue", "dark red", "light blue")
        )
        return replace(finish(rng, "fabric", colour), scale=between(rng, 0.01, 0.04)), colour, "carpet"
    colour = pick(rng, ("grey", "beige", "white", "light green", "light blue", "brown"))  # vinyl, concrete
    base = finish(rng, "stone", colour)
    return replace(base, scale=between(rng, 0.01, 0.05), gloss=between(rng, 0.02, 0.15)), colour, ""


def wall_finish(rng: Rng, kind: str) -> tuple[Material, str, str]:
    """Material, colour and pattern of a wall."""
    pale = (*("white",) * 8, *("beige",) * 5, *("grey",) * 3, "light blue", "light green", "yellow", "pink")
    colour = pick(rng, STRONG) if chance(rng, 0.04) else pick(rng, pale)
    base = finish(rng, "paint", colour)
    if colour in pale:  # paint is mostly paler than what its colour is named after
        base = replace(base, albedo=blended(base.albedo, albedo("white", rng), colour, between(rng, 0.15, 0.6)))
    r, g, b = base.albedo
    dark = between(rng, 0.82, 0.95)
    second = (r * dark, g * dark, b * dark)
    if kind == "paper":
        choice: tuple[Texture, ...] = ("stripes", "stripes", "checks", "noise")
        texture = pick(rng, choice)
        m = replace(base, texture=texture, second=second, scale=between(rng, 0.06, 0.25))
        return m, colour, "striped" if texture == "stripes" else ""
    if kind == "tiles":
        colour = pick(rng, (*("white",) * 5, "beige", "beige", "grey", "light blue", "light green", "blue"))
        tile = finish(rng, "ceramic", colour)
        grout = albedo(pick(rng, ("grey", "white", "beige")), rng)
        return replace(tile, texture="tiles", second=grout, scale=between(rng, 0.1, 0.3)), colour, ""
    if kind == "bricks":
        colour = pick(rng, ("dark red", "brown", "white", "grey"))
        brick = finish(rng, "paint", colour)
        return replace(brick, texture="bricks", second=albedo("grey", rng), scale=0.22), colour, ""
    return base, colour, ""


def build(room: Room, plan: Plan) -> None:
    """Builds floor, ceiling, walls, openings and daylight."""
    rng, w, d, h = room.rng, room.width, room.depth, room.height
    m, colour, word = floor_finish(rng, pick(rng, plan.floors))
    floor = Piece("floor", colour, word)
    floor.box(w + 2 * THICKNESS, d + 2 * THICKNESS, 0.1, 0, 0, -0.1, m)
    room.floor = room.put(floor, 0, 0, on=0, mount="structure").thing
    white = finish(rng, "paint", "white")
    ceiling = Piece("ceiling", "white")
    if plan.panels and chance(rng, 0.6):
        white = replace(white, texture="tiles", second=albedo("grey", rng), scale=0.6)
    ceiling.box(w + 2 * THICKNESS, d + 2 * THICKNESS, 0.1, 0, 0, h, white)
    if chance(rng, 0.08):
        beam = finish(rng, "wood", pick(rng, ("brown", "dark brown", "white")))
        for i in range(round(d / 0.9)):
            ceiling.box(w, 0.12, 0.14, 0, (i + 0.5) * 0.9 - d / 2, h - 0.14, beam)
    room.ceiling = room.put(ceiling, 0, 0, on=0, mount="structure").thing

    openings: list[list[Opening]] = [[], [], [], []]
    open_left = chance(rng, 0.55)
    for _ in range(int(rng.integers(plan.doors[0], plan.doors[1] + 1))):
        kind: Literal["door", "open door", "passage"] = "door"
        if open_left:
            kind, open_left = ("passage" if chance(rng, 0.3) else "open door"), False
        width = between(rng, 0.78, 0.95) if kind != "passage" else between(rng, 0.95, 1.8)
        _cut(rng, room.walls, openings, kind, width, 0.0, between(rng, 1.98, 2.12))
    low, light = between(rng, 0.75, 1.05), between(rng, 3.5, 11)
    if plan.walls[0] == "tiles":
        low = between(rng, 1.1, 1.3)
    if chance(rng, 0.12):
        low = 0.06
    for _ in range(int(rng.integers(plan.windows[0], plan.windows[1] + 1))):
        top = min(h - 0.25, between(rng, 1.95, 2.25))
        _cut(rng, room.walls, openings, "window", between(rng, 0.7, 2.2), low, top)

    kind_of_wall = pick(rng, plan.walls)
    paint = wall_finish(rng, kind_of_wall)
    skirting = (
        finish(rng, "wood", pick(rng, ("white", "white", "white", room.style.wood))) if chance(rng, 0.85) else None
    )
    if kind_of_wall == "tiles":
        skirting = None
    accent = int(rng.integers(4)) if chance(rng, 0.15) else -1
    for i, wall in enumerate(room.walls):
        look = wall_finish(rng, pick(rng, ("paint", "paper", "bricks"))) if i == accent else paint
        wall.thing = _raise(room, wall, openings[i], look, skirting)
    door_look = finish(rng, "wood", pick(rng, ("white", "white", "white", *WOODS)))
    dressing = pick(rng, ("curtains", "curtains", "blinds", "none", "none"))
    tone = room.style.textile(rng)
    drape, pattern = cloth(rng, tone, 0.3)
    for i, wall in enumerate(room.walls):
        for hole in openings[i]:
            if hole.kind == "window":
                _window(room, wall, hole, light, dressing, (drape, tone, pattern))
            else:
                _door(room, wall, hole, door_look, paint)
    if chance(rng, 0.2):  # a chimney breast or a shaft in a corner
        bw, bd = between(rng, 0.35, min(1.2, w / 3)), between(rng, 0.25, min(0.8, d / 4))
        sx, sy = pick(rng, (-1, 1)), pick(rng, (-1, 1))
        x, y = sx * (w - bw) / 2, sy * (d - bd) / 2
        rect = Rect(x, y, bw / 2, bd / 2)
        spans = [(room.walls[0 if sy > 0 else 2], bw, sx * sy), (room.walls[1 if sx > 0 else 3], bd, -sx * sy)]
        areas = []
        for wall, extent, side in spans:
            at = side * (wall.length - extent) / 2
            areas.append((wall, (at - extent / 2, at + extent / 2, 0.0, h)))
        if room.is_free(rect) and all(wall.clear(*area) for wall, area in areas):
            block = Piece("wall", paint[1])
            block.box(bw, bd, h, 0, 0, 0, paint[0])
            room.put(block, x, y, on=0, mount="structure")
            room.taken.append(rect)
            for wall, area in areas:
                wall.taken.append(area)


def _cut(
    rng: Rng,
    walls: list[Wall],
    openings: list[list[Opening]],
    kind: Literal["window", "door", "open door", "passage"],
    width: float,
    bottom: float,
    top: float,
) -> None:
    """Finds a place for an opening, clear of others and of corners."""
    for _ in range(12):
        i = int(rng.integers(4))
        half = walls[i].length / 2 - width / 2 - 0.2
        if half < 0:
            continue
        along = between(rng, -half, half)
        if kind != "window" and chance(rng, 0.5):
            along = half * pick(rng, (-1, 1))
        if all(abs(along - o.along) > (width + o.width) / 2 + 0.25 for o in openings[i]):
            openings[i].append(Opening(kind, along, width, bottom, top))
            return


def _raise(
    room: Room, wall: Wall, holes: list[Opening], look: tuple[Material, str, str], skirting: Material | None
) -> int:
    """One wall with its holes and skirting board; returns its thing."""
    m, colour, pattern = look
    p, h, t = Piece("wall", colour, "", pattern), room.height, THICKNESS
    left = -wall.length / 2 - t
    y = t / 2
    for hole in [*sorted(holes, key=lambda o: o.along), None]:
        right = hole.along - hole.width / 2 if hole else wall.length / 2
        p.box(right - left, t, h, (left + right) / 2, y, 0, m)
        if skirting:
            p.box(right - left, 0.014, 0.08, (left + right) / 2, -0.007, 0, skirting)
        if hole:
            p.box(hole.width, t, h - hole.top, hole.along, y, hole.top, m)
            if hole.bottom > 0:
                p.box(hole.width, t, hole.bottom, hole.along, y, 0, m)
                if skirting:
                    p.box(hole.width, 0.014, 0.08, hole.along, -0.007, 0, skirting)
            left = hole.along + hole.width / 2
    return room.put(p, wall.x, wall.y, 0, wall.yaw, 0, "structure").thing


def _window(
    room: Room, wall: Wall, hole: Opening, light: float, dressing: str, drape: tuple[Material, str, str]
) -> None:
    """A glazed opening with what is outside, its daylight and its curtains or blinds."""
    rng, w, h = room.rng, hole.width, hole.top - hole.bottom
    p = Piece("window")
    frame = finish(rng, "wood", pick(rng, ("white", "white", "white", room.style.wood)))
    bar, y = between(rng, 0.04, 0.07), 0.08
    sky = 0.02 if room.style.night else between(rng, 0.5, 0.9) * light
    tint = pick(rng, ((0.8, 0.95, 1.15), (1.0, 1.0, 1.0), (0.9, 0.97, 1.05)))
    land = pick(rng, ((0.25, 0.4, 0.15), (0.4, 0.38, 0.35), (0.3, 0.33, 0.36)))
    horizon = 0.0 if chance(rng, 0.4) else between(rng, 0.15, 0.6)
    glass = Material("glass", (0.02, 0.02, 0.025), gloss=0.1)

    def lit(colour: tuple[float, float, float]) -> Material:
        return replace(glass, emission=(colour[0] * sky, colour[1] * sky, colour[2] * sky))

    p.box(w, 0.01, h * (1 - horizon), 0, THICKNESS - 0.02, h * horizon, lit(tint))
    if horizon:
        p.box(w, 0.01, h * horizon, 0, THICKNESS - 0.02, 0, lit(land))
    for s in (-1, 1):
        p.box(bar, 0.06, h, s * (w - bar) / 2, y, 0, frame)
        p.box(w, 0.06, bar, 0, y, 0 if s < 0 else h - bar, frame)
    panes = max(1, round(w / between(rng, 0.5, 0.9)))
    for i in range(1, panes):
        p.box(bar, 0.05, h, i * w / panes - w / 2, y, 0, frame)
    if chance(rng, 0.4):
        p.box(w, 0.045, bar * 0.8, 0, y, h * pick(rng, (0.5, 0.7)), frame)
    if hole.bottom > 0.3:
        p.box(w + 0.1, 0.17, 0.03, 0, -0.025, -0.03, frame)
        p.tops.append(Top(0, -0.02, 0.0, w * 0.95, 0.13, h))
    radiance = (tint[0] * light, tint[1] * light, tint[2] * light)
    dim = 1.0
    if dressing == "blinds":
        dim = between(rng, 0.25, 0.7)
    if not room.style.night:
        r, g, b = (c * dim for c in radiance)
        front = -0.07 if dressing == "blinds" else 0.03
        p.glows.append(Glow(0, front, h / 2, w * 0.94, h * 0.94, (r, g, b), "front"))
    x, yy = wall.world(hole.along, 0.0)
    placed = room.put(p, x, yy, hole.bottom, wall.yaw, wall.thing, "structure")
    margin = 0.08
    left, right = hole.along - w / 2 - margin, hole.along + w / 2 + margin
    if dressing == "blinds":
        _blinds(room, wall, hole)
        placed.piece.tops.clear()
    elif dressing == "curtains":
        long = hole.bottom < 0.3 or chance(rng, 0.6)
        left, right = _curtains(room, wall, hole, drape, long)
        if long:  # nothing may stand inside the folds
            for a, b in ((left, hole.along - w * 0.25), (hole.along + w * 0.25, right)):
                wall.taken.append((a, b, 0.0, hole.top))
    bottom = max(0.0, hole.bottom - 0.04)
    wall.taken.append((left, right, bottom, hole.top + 0.12))


def _blinds(room: Room, wall: Wall, hole: Opening) -> None:
    rng = room.rng
    colour = pick(rng, ("white", "white", "grey", "beige", "brown"))
    m = finish(rng, "plastic" if colour != "brown" else "wood", colour)
    height = hole.top - hole.bottom
    shown = height * (1.0 if chance(rng, 0.5) else between(rng, 0.3, 0.9))
    p, tilted = Piece("blinds", colour), tilt("x", between(rng, 15, 65))
    p.box(hole.width + 0.04, 0.05, 0.05, 0, 0, height - 0.05, m)
    pitch = 0.05
    for i in range(int(shown / pitch)):
        p.box(hole.width, 0.045, 0.003, 0, 0, height - 0.08 - i * pitch, m, tilted)
    x, y = wall.world(hole.along, -0.035)
    room.put(p, x, y, hole.bottom, wall.yaw, wall.thing, "hanging")


def _curtains(
    room: Room, wall: Wall, hole: Opening, drape: tuple[Material, str, str], long: bool
) -> tuple[float, float]:
    """A curtain on each side and their rod; returns the span they take along the wall."""
    rng, (m, colour, pattern) = room.rng, drape
    bottom = 0.03 if long else max(0.1, hole.bottom - 0.15)
    top = hole.top + 0.1
    share = between(rng, 0.14, 0.34) if not room.style.night else between(rng, 0.2, 0.52)
    half = wall.length / 2 - 0.02
    spans = []
    for s in (-1, 1):
        outer = hole.along + s * (hole.width / 2 + 0.12)
        outer = max(-half, min(half, outer))
        inner = hole.along + s * (hole.width / 2 - share * hole.width)
        left, right = min(outer, inner), max(outer, inner)
        p = Piece("curtain", colour, "fabric", pattern)
        folds = max(3, round((right - left) / between(rng, 0.07, 0.1)))
        step = (right - left) / folds
        for i in range(folds):
            deep = between(rng, 0.05, 0.09)
            p.rod(
                step * 1.25,
                top - bottom,
                (i + 0.5) * step - (right - left) / 2,
                between(rng, -0.012, 0.012),
                0,
                m,
                1,
                8,
                deep,
            )
        x, y = wall.world((left + right) / 2, -0.16)
        room.put(p, x, y, bottom, wall.yaw, wall.thing, "hanging")
        spans += [left, right]
    rod = Piece("curtain rod", "", "metal")
    lie: Turn = tilt("y", 90)
    length = max(spans) - min(spans)
    rod.rod(0.025, length, 0, 0, -length / 2, finish(rng, "metal", room.style.metal), turn=lie)
    x, y = wall.world((max(spans) + min(spans)) / 2, -0.16)
    room.put(rod, x, y, top + 0.02, wall.yaw, wall.thing, "hanging")
    return min(spans) - 0.02, max(spans) + 0.02


def _door(room: Room, wall: Wall, hole: Opening, look: Material, paint: tuple[Material, str, str]) -> None:
    """A door with its frame, closed or open, or a bare passage, and the space behind."""
    rng, w, h = room.rng, hole.width, hole.top
    colour = ""
    best = 9.0
    for name in (*WOODS, "white"):
        distance = sum(abs(a - b) for a, b in zip(look.albedo, albedo(name), strict=True))
        if distance < best:
            best, colour = distance, name
    p = Piece("door", colour, "wood")
    for s in (-1, 1):
        p.box(0.07, 0.02, h + 0.07, s * (w / 2 + 0.035), -0.01, 0, look)
        p.box(0.02, THICKNESS, h, s * (w / 2 - 0.01), THICKNESS / 2, 0, look)
    p.box(w, 0.02, 0.07, 0, -0.01, h, look)
    if hole.kind != "passage":
        degrees = 0.0 if hole.kind == "door" else between(rng, 25, 100)
        if not degrees:  # no light through the gaps
            p.box(w, 0.01, h, 0, THICKNESS - 0.01, 0, look)
        hinge, inwards = pick(rng, (-1, 1)), chance(rng, 0.4)
        turn = tilt("z", (hinge if inwards else -hinge) * degrees)
        hx, hy = hinge * (w / 2 - 0.02), 0.03 if inwards or not degrees else THICKNESS - 0.03
        leaf, metal = w - 0.05, finish(rng, "metal", "grey")

        def swing(x: float, y: float) -> tuple[float, float]:
            """From the leaf's coordinates (x away from the hinge) to the wall's."""
            x = -hinge * x
            return hx + turn[0][0] * x + turn[0][1] * y, hy + turn[1][0] * x + turn[1][1] * y

        cx, cy = swing(leaf / 2, 0)
        p.box(leaf, 0.04, h - 0.02, cx, cy, 0.01, look, turn)
        panels = int(rng.integers(0, 3))
        for side in (-1, 1):
            kx, ky = swing(leaf - 0.07, side * 0.045)
            p.box(0.12, 0.025, 0.025, kx, ky, 1.0, metal, turn)
            for i in range(panels):
                cx, cy = swing(leaf / 2, side * 0.022)
                part = (h - 0.3) / panels
                p.box(leaf * 0.68, 0.01, part - 0.12, cx, cy, 0.2 + i * part, look, turn)
    x, y = wall.world(hole.along, 0.0)
    mount: Literal["structure"] = "structure"
    if hole.kind != "passage" or chance(rng, 0.5):
        if hole.kind == "passage":
            p.name = "door frame"
        room.put(p, x, y, 0, wall.yaw, wall.thing, mount)
    wall.taken.append((hole.along - w / 2 - 0.1, hole.along + w / 2 + 0.1, 0.0, h + 0.1))
    kx, ky = wall.world(hole.along, -0.45)
    turned = tilt("z", np.degrees(wall.yaw))
    room.taken.append(Rect(kx, ky, w / 2 + 0.05, 0.42, turned[0][0], turned[1][0]))
    if hole.kind != "door":
        _behind(room, wall, hole, paint)


def _behind(room: Room, wall: Wall, hole: Opening, paint: tuple[Material, str, str]) -> None:
    """The corridor or room one sees through a doorway."""
    rng, h, t = room.rng, room.height, THICKNESS
    far = between(rng, 1.2, 4.5)
    left, right = between(rng, 0.15, 2.0) + hole.width / 2, between(rng, 0.15, 2.0) + hole.width / 2
    m, colour, _ = paint if chance(rng, 0.5) else wall_finish(rng, "paint")
    ground, floor_colour, word = floor_finish(rng, pick(rng, ("planks", "tiles", "carpet")))
    mid = (right - left) / 2
    floor, ceiling = Piece("floor", floor_colour, word), Piece("ceiling", "white")
    floor.box(left + right + 0.1, far + 0.1, 0.1, mid, t + far / 2 - 0.01, -0.101, ground)
    ceiling.box(left + right + 0.1, far + 0.1, 0.1, mid, t + far / 2, h - 0.01, finish(rng, "paint", "white"))
    back, one, two = Piece("wall", colour), Piece("wall", colour), Piece("wall", colour)
    back.box(left + right + 0.2, 0.1, h, mid, t + far + 0.05, 0, m)
    one.box(0.1, far + 0.1, h, -left - 0.05, t + far / 2, 0, m)
    two.box(0.1, far + 0.1, h, right + 0.05, t + far / 2, 0, m)
    power = between(rng, 8, 40) if not room.style.night or chance(rng, 0.6) else between(rng, 0.5, 3)
    r, g, b = (power * c for c in room.style.warmth)
    ceiling.glows.append(Glow(mid, t + far / 2, h - 0.03, 0.4, 0.4, (r, g, b)))
    x, y = wall.world(hole.along, 0.0)
    for piece in (floor, ceiling, back, one, two):
        room.put(piece, x, y, 0, wall.yaw, 0, "structure")
