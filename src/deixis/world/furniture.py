"""Furniture that stands on the floor: each class a small function from chance and taste to a piece."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deixis.world.clutter import books, pillow
from deixis.world.pieces import (
    MUTED,
    STRONG,
    Glow,
    Piece,
    Style,
    Top,
    between,
    chance,
    cloth,
    finish,
    glowing,
    pick,
    tilt,
)
from deixis.world.scene import Material

Rng = np.random.Generator


def _hide(rng: Rng, style: Style) -> tuple[Material, str, str, str]:
    """A cover of upholstery: material, its colour, word and pattern."""
    colour = style.textile(rng)
    if chance(rng, 0.2):
        colour = pick(rng, ("black", "brown", "dark brown", "white", "dark red", "beige"))
        return finish(rng, "leather", colour), colour, "leather", ""
    m, pattern = cloth(rng, colour, 0.15)
    return m, colour, "fabric", pattern


def _handle(rng: Rng, style: Style) -> Material:
    return finish(rng, "metal", style.metal)


def chair(rng: Rng, style: Style) -> Piece:
    """A chair of wood, plastic or with a padded seat."""
    w, d, seat, high = (
        between(rng, 0.38, 0.5),
        between(rng, 0.38, 0.5),
        between(rng, 0.42, 0.48),
        between(rng, 0.78, 1.05),
    )
    kind = pick(rng, ("slats", "panel", "shell", "padded"))
    colour = style.timber(rng) if chance(rng, 0.7) else pick(rng, STRONG + 2 * MUTED)
    word = "plastic" if kind == "shell" else "wood"
    main = finish(rng, word, colour)
    metal = finish(rng, "metal", style.metal)
    frame = metal if kind == "shell" or chance(rng, 0.15) else main
    pattern = ""
    p = Piece("chair", colour, word)
    t = between(rng, 0.025, 0.045)
    p.legs(w, d, seat - 0.03, t, frame, round_=kind == "shell" or chance(rng, 0.3))
    if kind == "padded":
        main, colour, word, pattern = _hide(rng, style)
        p.box(w, d, 0.07, 0, 0, seat - 0.04, main)
        p.box(w * 0.96, 0.06, high - seat, 0, d / 2 - 0.03, seat, main, tilt("x", -4))
        p.colour, p.material, p.pattern = colour, word, pattern
    elif kind == "shell":
        p.box(w, d, 0.02, 0, 0, seat - 0.02, main)
        p.box(w * 0.95, 0.02, (high - seat) * 0.75, 0, d / 2 - 0.02, seat + 0.06, main, tilt("x", -8))
        p.box(w * 0.6, 0.02, 0.1, 0, d / 2 - 0.015, seat - 0.01, main)
    else:
        p.box(w, d, 0.035, 0, 0, seat - 0.035, main)
        for sx in (-1, 1):
            p.box(t, t, high - seat, sx * (w - t) / 2, d / 2 - t / 2, seat, main)
        if kind == "panel":
            p.box(w - 2 * t, 0.02, (high - seat) * 0.55, 0, d / 2 - t / 2, seat + (high - seat) * 0.42, main)
        else:
            p.box(w - 2 * t, 0.022, 0.07, 0, d / 2 - t / 2, high - 0.075, main)
            n = int(rng.integers(2, 6))
            for i in range(n):
                p.box(0.03, 0.015, high - seat - 0.07, (i + 1) * w / (n + 1) - w / 2, d / 2 - t / 2, seat, main)
    if chance(rng, 0.15):
        for sx in (-1, 1):
            p.box(0.04, d * 0.6, 0.03, sx * (w / 2 - 0.02), d * 0.2, seat + 0.2, frame)
            p.box(0.03, 0.03, 0.2, sx * (w / 2 - 0.02), -d * 0.08, seat, frame)
    p.tops.append(Top(0, -0.03, seat + (0.03 if kind == "padded" else 0.0), w * 0.8, d * 0.65, 0.4))
    return p


def office_chair(rng: Rng, style: Style) -> Piece:
    """A swivel chair on castors."""
    colour = pick(rng, ("black", "black", "grey", "blue", "red", "green", "dark blue", "white", "orange"))
    m, metal = finish(rng, "fabric", colour), finish(rng, "metal", "black" if chance(rng, 0.6) else "grey")
    w, seat, back = between(rng, 0.46, 0.54), between(rng, 0.44, 0.52), between(rng, 0.42, 0.65)
    p = Piece("chair", colour, "fabric")
    for i in range(5):
        turn = tilt("z", 72 * i + 18)
        p.box(0.29, 0.045, 0.035, 0.15 * turn[0][0], 0.15 * turn[1][0], 0.06, metal, turn)
        p.ball(0.06, 0.06, 0.06, 0.28 * turn[0][0], 0.28 * turn[1][0], 0, metal, sides=8)
    p.rod(0.06, seat - 0.12, 0, 0, 0.07, metal)
    p.box(w, w * 0.96, 0.09, 0, 0, seat - 0.07, m)
    p.box(0.06, 0.03, 0.2, 0, w / 2 - 0.02, seat - 0.02, metal)
    p.box(w * 0.92, 0.08, back, 0, w / 2 - 0.02, seat + 0.14, m, tilt("x", -7))
    if chance(rng, 0.7):
        for sx in (-1, 1):
            p.box(0.05, 0.24, 0.03, sx * (w / 2 + 0.02), 0.1, seat + 0.2, metal)
            p.box(0.03, 0.04, 0.24, sx * (w / 2 + 0.02), 0.1, seat - 0.03, metal)
    return p


def stool(rng: Rng, style: Style) -> Piece:
    """A stool, low or of a bar's height."""
    colour = style.timber(rng) if chance(rng, 0.75) else pick(rng, STRONG)
    m = finish(rng, "wood", colour)
    h, w = (between(rng, 0.65, 0.78) if chance(rng, 0.3) else between(rng, 0.4, 0.5)), between(rng, 0.3, 0.4)
    p = Piece("stool", colour, "wood")
    frame = m if chance(rng, 0.5) else finish(rng, "metal", style.metal)
    p.legs(w * 0.9, w * 0.9, h - 0.03, 0.03, frame, round_=True)
    if chance(rng, 0.6):
        p.rod(w, 0.035, 0, 0, h - 0.035, m, sides=20)
    else:
        p.box(w, w, 0.035, 0, 0, h - 0.035, m)
    p.box(w * 0.8, 0.02, 0.02, 0, w * 0.42, h * 0.4, frame)
    p.box(w * 0.8, 0.02, 0.02, 0, -w * 0.42, h * 0.4, frame)
    p.tops.append(Top(0, 0, h, w * 0.7, w * 0.7, 0.5))
    return p


def bench(rng: Rng, style: Style) -> Piece:
    """A bench."""
    colour = style.timber(rng)
    m = finish(rng, "wood", colour)
    w, d, h = between(rng, 0.9, 1.5), between(rng, 0.32, 0.42), between(rng, 0.42, 0.48)
    p = Piece("bench", colour, "wood")
    p.box(w, d, 0.04, 0, 0, h - 0.04, m)
    for sx in (-1, 1):
        p.box(0.05, d * 0.9, h - 0.04, sx * (w / 2 - 0.1), 0, 0, m)
    p.box(w - 0.25, 0.03, 0.06, 0, 0, h * 0.4, m)
    p.tops.append(Top(0, 0, h, w * 0.9, d * 0.8, 0.5))
    return p


def _upholstered(rng: Rng, style: Style, name: str, w: float, seats: int) -> Piece:
    m, colour, word, pattern = _hide(rng, style)
    d, seat, high = between(rng, 0.8, 0.98), between(rng, 0.38, 0.46), between(rng, 0.72, 0.92)
    arm, arm_high = between(rng, 0.1, 0.24), between(rng, 0.54, 0.66)
    p = Piece(name, colour, word, pattern)
    foot = finish(rng, "wood", style.wood)
    p.legs(w * 0.95, d * 0.9, 0.08, 0.05, foot)
    p.box(w, d, seat - 0.22, 0, 0, 0.07, m)
    p.box(w - 2 * arm, 0.2, high - 0.1, 0, d / 2 - 0.11, 0.1, m, tilt("x", -5))
    inner = w - 2 * arm
    for sx in (-1, 1):
        p.box(arm, d * 0.96, arm_high - 0.12, sx * (w - arm) / 2, 0, 0.08, m)
        if chance(rng, 0.5):  # a rolled arm
            p.rod(arm * 1.05, d * 0.96, sx * (w - arm) / 2, 0, arm_high - d * 0.48 - 0.05, m, turn=tilt("x", 90))
    for i in range(seats):
        x = (i + 0.5) * inner / seats - inner / 2
        p.box(inner / seats - 0.01, d - 0.25, 0.15, x, -0.1, seat - 0.15, m)
        p.box(inner / seats - 0.015, 0.15, high - seat - 0.02, x, d / 2 - 0.27, seat, m, tilt("x", -10))
    for _ in range(int(rng.integers(0, seats + 1))):
        x = between(rng, -inner / 2 + 0.2, inner / 2 - 0.2)
        if all(abs(x - c[1]) > 0.42 for c in p.carried):
            p.carry(pillow(rng, style), x, d / 2 - 0.42, seat - 0.01)
    if chance(rng, 0.2):
        throw, pattern = cloth(rng, tone := style.textile(rng), 0.5)
        q = Piece("blanket", tone, "fabric", pattern)
        q.box(between(rng, 0.35, 0.6), d - 0.3, 0.02, 0, 0, 0, throw)
        p.carry(q, inner / 4, -0.12, seat)
    return p


def armchair(rng: Rng, style: Style) -> Piece:
    """An armchair."""
    return _upholstered(rng, style, "armchair", between(rng, 0.78, 1.0), 1)


def sofa(rng: Rng, style: Style) -> Piece:
    """A sofa for two or three."""
    seats = int(rng.integers(2, 4))
    return _upholstered(rng, style, "sofa", 0.35 + seats * between(rng, 0.56, 0.68), seats)


def ottoman(rng: Rng, style: Style) -> Piece:
    """A padded footstool."""
    m, colour, word, pattern = _hide(rng, style)
    w, h = between(rng, 0.45, 0.75), between(rng, 0.36, 0.45)
    p = Piece("ottoman", colour, word, pattern)
    if chance(rng, 0.4):
        p.rod(w, h, 0, 0, 0, m, sides=24)
    else:
        p.legs(w * 0.9, w * 0.9, 0.06, 0.04, finish(rng, "wood", style.wood))
        p.box(w, w, h - 0.06, 0, 0, 0.06, m)
    p.tops.append(Top(0, 0, h, w * 0.6, w * 0.6, 0.3))
    return p


def bed(rng: Rng, style: Style) -> Piece:
    """A bed for one or two, made up."""
    w = pick(rng, (0.9, 1.0, 1.4, 1.6, 1.8))
    length, high = between(rng, 1.95, 2.1), between(rng, 0.45, 0.62)
    colour = style.timber(rng)
    frame, sheet = finish(rng, "wood", colour), finish(rng, "fabric", pick(rng, ("white", "white", "beige", "grey")))
    tone = style.textile(rng)
    cover, pattern = cloth(rng, tone, 0.25)
    p = Piece("bed", tone, "", pattern)
    p.box(w + 0.08, length, 0.16, 0, 0, 0.16, frame)
    p.legs(w + 0.04, length - 0.04, 0.16, 0.06, frame)
    head = between(rng, 0.85, 1.25)
    if chance(rng, 0.85):
        if chance(rng, 0.3):
            frame, _ = cloth(rng, style.textile(rng), 0.0)
        p.box(w + 0.1, 0.06, head - 0.1, 0, length / 2 + 0.01, 0.1, frame)
    if chance(rng, 0.25):
        p.box(w + 0.1, 0.05, between(rng, 0.5, 0.75), 0, -length / 2 - 0.01, 0, frame)
        p.colour = tone if tone == colour else ""  # from its foot, more is seen of the frame than of the cover
    p.box(w, length - 0.06, high - 0.32, 0, 0, 0.3, sheet)
    spread = length * between(rng, 0.62, 0.8)
    y = -length / 2 + spread / 2 - 0.01
    p.box(w + 0.06, spread, 0.06, 0, y, high - 0.03, cover)
    drop = between(rng, 0.15, 0.35)
    for sx in (-1, 1):
        p.box(0.03, spread, drop, sx * (w / 2 + 0.03), y, high - drop, cover)
    if chance(rng, 0.6):  # the cover's end folded back
        p.box(w + 0.05, 0.3, 0.05, 0, y + spread / 2 - 0.15, high + 0.025, sheet if chance(rng, 0.6) else cover)
    if chance(rng, 0.3):
        for _ in range(4):  # an unmade bed
            p.ball(
                between(rng, 0.4, 0.8) * min(w, 1.2), between(rng, 0.25, 0.6), between(rng, 0.08, 0.18),
                between(rng, -w / 5, w / 5), y + between(rng, -0.4, 0.4), high - 0.03, cover,
            )  # fmt: skip
    count = 1 if w < 1.3 else 2
    for i in range(count):
        x = 0.0 if count == 1 else (i - 0.5) * w / 2
        cushion = pillow(rng, style, large=True)
        p.carry(cushion, x, length / 2 - 0.14, high - 0.03)
    if chance(rng, 0.35):
        p.carry(pillow(rng, style), between(rng, -w / 5, w / 5), length / 2 - 0.42, high + 0.02)
    p.tops.append(Top(0, -length / 4, high + 0.03, w * 0.8, length * 0.4, 0.5))
    return p


def crib(rng: Rng, style: Style) -> Piece:
    """A child's bed with bars."""
    colour = pick(rng, ("white", "brown", "beige"))
    m = finish(rng, "wood", colour)
    w, d, h = 1.25, between(rng, 0.62, 0.72), between(rng, 0.85, 1.0)
    sheet, _ = cloth(rng, style.textile(rng))
    p = Piece("crib", colour, "wood")
    p.box(w - 0.06, d - 0.06, 0.14, 0, 0, 0.35, sheet)
    for sx in (-1, 1):
        p.box(0.04, d, h, sx * (w / 2 - 0.02), 0, 0, m)
    for sy in (-1, 1):
        for z in (0.3, h - 0.06):
            p.box(w, 0.03, 0.05, 0, sy * (d / 2 - 0.02), z, m)
        for i in range(11):
            p.box(0.02, 0.015, h - 0.35, (i + 1) * w / 12 - w / 2, sy * (d / 2 - 0.02), 0.32, m)
    return p


def _case(rng: Rng, style: Style, name: str, w: float, d: float, h: float, colour: str = "") -> tuple[Piece, Material]:
    """A closed body on a plinth or on feet, with a top to put things on."""
    colour = colour or style.timber(rng)
    m = finish(rng, "wood", colour)
    p = Piece(name, colour, "wood")
    feet = between(rng, 0.03, 0.12)
    if chance(rng, 0.5):
        p.legs(w - 0.02, d - 0.02, feet, 0.04, m)
    else:
        p.box(w - 0.04, d - 0.06, feet, 0, 0.02, 0, m)
    p.box(w, d, h - feet - 0.02, 0, 0, feet, m)
    p.box(w + 0.02, d + 0.02, 0.025, 0, -0.01, h - 0.025, m)
    p.tops.append(Top(0, 0, h, w * 0.95, d * 0.85))
    return p, m


def night_stand(rng: Rng, style: Style) -> Piece:
    """A night stand."""
    w, d, h = between(rng, 0.38, 0.55), between(rng, 0.35, 0.45), between(rng, 0.48, 0.65)
    p, m = _case(rng, style, "night stand", w, d, h)
    p.fronts(w - 0.03, h - 0.17, -d / 2, 0.13, 1, int(rng.integers(1, 4)), m, _handle(rng, style))
    return p


def dresser(rng: Rng, style: Style) -> Piece:
    """A chest of drawers."""
    w, d, h = between(rng, 0.75, 1.6), between(rng, 0.4, 0.52), between(rng, 0.75, 1.15)
    p, m = _case(rng, style, "dresser", w, d, h)
    columns = 1 if w < 0.95 else 2 if w < 1.4 else 3
    p.fronts(w - 0.04, h - 0.18, -d / 2, 0.13, columns, int(rng.integers(3, 5)), m, _handle(rng, style))
    return p


def wardrobe(rng: Rng, style: Style) -> Piece:
    """A wardrobe."""
    w, d, h = between(rng, 0.9, 2.0), between(rng, 0.52, 0.64), between(rng, 1.8, 2.2)
    p, m = _case(rng, style, "wardrobe", w, d, h)
    p.fronts(w - 0.03, h - 0.17, -d / 2, 0.13, max(2, round(w / 0.5)), 1, m, _handle(rng, style), upright=True)
    return p


def cabinet(rng: Rng, style: Style) -> Piece:
    """A cabinet or sideboard with doors."""
    w, d = between(rng, 0.6, 1.5), between(rng, 0.35, 0.5)
    h = between(rng, 0.75, 1.0) if chance(rng, 0.65) else between(rng, 1.2, 1.7)
    colour = pick(rng, STRONG) if chance(rng, 0.12) else ""
    p, m = _case(rng, style, "cabinet", w, d, h, colour)
    fronts = m if chance(rng, 0.75) else finish(rng, "glass", "grey")
    p.fronts(w - 0.03, h - 0.18, -d / 2, 0.13, max(2, round(w / 0.45)), 1, fronts, _handle(rng, style), upright=True)
    return p


def tv_stand(rng: Rng, style: Style) -> Piece:
    """A low cabinet for a television."""
    w, d, h = between(rng, 1.1, 1.9), between(rng, 0.38, 0.5), between(rng, 0.4, 0.62)
    p, m = _case(rng, style, "cabinet", w, d, h)
    p.fronts(w - 0.03, h - 0.17, -d / 2, 0.13, int(rng.integers(2, 4)), 1, m, _handle(rng, style), upright=True)
    return p


def filing_cabinet(rng: Rng, style: Style) -> Piece:
    """A metal cabinet with drawers."""
    colour = pick(rng, ("grey", "grey", "black", "white", "beige", "green", "blue", "red"))
    m = finish(rng, "metal", colour)
    w, d, h = between(rng, 0.4, 0.48), between(rng, 0.5, 0.62), pick(rng, (0.6, 0.72, 1.03, 1.32))
    p = Piece("cabinet", colour, "metal")
    p.box(w, d, h, 0, 0, 0, m)
    p.fronts(w - 0.02, h - 0.06, -d / 2, 0.04, 1, max(2, round(h / 0.33)), m, finish(rng, "metal", "grey"))
    p.tops.append(Top(0, 0, h, w * 0.9, d * 0.85))
    return p


def _rack(rng: Rng, style: Style, name: str, w: float, d: float, h: float, levels: int, fill: float) -> Piece:
    """Open shelves; ``fill`` is the share of levels that hold books."""
    colour = style.timber(rng)
    m = finish(rng, "wood", colour)
    t = 0.022
    p = Piece(name, colour, "wood")
    for sx in (-1, 1):
        p.box(t, d, h, sx * (w - t) / 2, 0, 0, m)
    if chance(rng, 0.8):
        p.box(w, 0.01, h - 0.05, 0, d / 2 - 0.005, 0.05, m)
    pitch = (h - 0.08) / levels
    for i in range(levels + 1):
        z = 0.05 + i * pitch
        p.box(w - 2 * t, d, t, 0, 0, z, m)
        if i == levels:
            p.tops.append(Top(0, 0, h, w * 0.9, d * 0.8))
        elif chance(rng, fill):
            p.carry(books(rng, (w - 2 * t) * between(rng, 0.45, 0.98), min(d - 0.04, 0.24), pitch - 0.05), 0, 0, z + t)
        elif i:
            p.tops.append(Top(0, -0.02, z + t, w - 0.12, d * 0.8, pitch - t - 0.02))
    return p


def bookshelf(rng: Rng, style: Style) -> Piece:
    """A bookcase full of books."""
    h = between(rng, 1.6, 2.15) if chance(rng, 0.7) else between(rng, 0.75, 1.2)
    return _rack(
        rng, style, "bookshelf", between(rng, 0.6, 1.2), between(rng, 0.25, 0.34), h, max(2, round(h / 0.36)), 0.75
    )


def shelves(rng: Rng, style: Style) -> Piece:
    """A rack for boxes and other things."""
    h = between(rng, 1.2, 2.0)
    p = _rack(rng, style, "shelves", between(rng, 0.8, 1.4), between(rng, 0.35, 0.5), h, round(h / 0.45), 0.1)
    return p


def table(rng: Rng, style: Style) -> Piece:
    """A table, square, long or round."""
    colour, h = style.timber(rng), between(rng, 0.72, 0.78)
    m = finish(rng, "wood", colour)
    p = Piece("table", colour, "wood")
    if chance(rng, 0.25):
        w = between(rng, 0.8, 1.25)
        p.rod(w, 0.035, 0, 0, h - 0.035, m, sides=32)
        p.rod(0.1, h - 0.06, 0, 0, 0.03, m if chance(rng, 0.6) else finish(rng, "metal", style.metal))
        p.rod(w * 0.5, 0.03, 0, 0, 0, m, sides=24)
        p.tops.append(Top(0, 0, h, w * 0.68, w * 0.68))
        return p
    w, d = between(rng, 1.1, 2.0), between(rng, 0.75, 1.0)
    if chance(rng, 0.25):
        w = d = between(rng, 0.7, 0.95)
    thick = between(rng, 0.05, 0.09)
    frame = m if chance(rng, 0.7) else finish(rng, "metal", style.metal)
    p.legs(w - 0.06, d - 0.06, h - 0.04, thick, frame, round_=chance(rng, 0.2))
    p.box(w - 0.14, d - 0.14, 0.07, 0, 0, h - 0.11, frame)
    p.box(w, d, 0.04, 0, 0, h - 0.04, m)
    z = h
    if chance(rng, 0.15):
        tone = style.textile(rng)
        sheet, p.pattern = cloth(rng, tone, 0.5)
        p.colour, p.material, z = tone, "", h + 0.006
        p.box(w + 0.02, d + 0.02, 0.006, 0, 0, h, sheet)
        drop = between(rng, 0.12, 0.3)
        for sx in (-1, 1):
            p.box(0.008, d + 0.02, drop, sx * (w / 2 + 0.008), 0, h - drop, sheet)
            p.box(w + 0.02, 0.008, drop, 0, sx * (d / 2 + 0.008), h - drop, sheet)
    p.tops.append(Top(0, 0, z, w * 0.95, d * 0.95))
    return p


def coffee_table(rng: Rng, style: Style) -> Piece:
    """A low table."""
    w, d, h = between(rng, 0.8, 1.3), between(rng, 0.5, 0.75), between(rng, 0.36, 0.48)
    colour = style.timber(rng)
    m = finish(rng, "wood", colour)
    p = Piece("coffee table", colour, "wood")
    frame = m if chance(rng, 0.7) else finish(rng, "metal", style.metal)
    if chance(rng, 0.2):
        d = w = min(w, 0.95)
        p.rod(w, 0.035, 0, 0, h - 0.035, m, sides=28)
        p.legs(w * 0.62, w * 0.62, h - 0.03, 0.04, frame)
        p.tops.append(Top(0, 0, h, w * 0.65, w * 0.65))
        return p
    p.legs(w, d, h - 0.03, 0.05, frame)
    p.box(w, d, 0.035, 0, 0, h - 0.035, m)
    if chance(rng, 0.5):
        p.box(w - 0.1, d - 0.1, 0.02, 0, 0, 0.12, frame)
        p.tops.append(Top(0, 0, 0.14, w * 0.75, d * 0.7, h - 0.2))
    p.tops.append(Top(0, 0, h, w * 0.92, d * 0.92))
    return p


def side_table(rng: Rng, style: Style) -> Piece:
    """A small table beside a seat."""
    w, h, colour = between(rng, 0.38, 0.55), between(rng, 0.48, 0.65), style.timber(rng)
    m = finish(rng, "wood", colour)
    p = Piece("table", colour, "wood", build="small")
    if chance(rng, 0.5):
        p.rod(w, 0.03, 0, 0, h - 0.03, m, sides=24)
        p.rod(0.05, h - 0.04, 0, 0, 0.02, m)
        p.rod(w * 0.6, 0.025, 0, 0, 0, m, sides=20)
    else:
        p.legs(w, w, h - 0.03, 0.035, m)
        p.box(w, w, 0.03, 0, 0, h - 0.03, m)
    p.tops.append(Top(0, 0, h, w * 0.7, w * 0.7))
    return p


def desk(rng: Rng, style: Style) -> Piece:
    """A desk, often with drawers on one side."""
    w, d, h = between(rng, 1.0, 1.7), between(rng, 0.58, 0.8), between(rng, 0.71, 0.76)
    colour = style.timber(rng)
    m = finish(rng, "wood", colour)
    p = Piece("desk", colour, "wood")
    p.box(w, d, 0.035, 0, 0, h - 0.035, m)
    side = pick(rng, (-1, 1))
    if w > 1.2 and chance(rng, 0.7):
        p.seat = -side * 0.18
        p.box(0.4, d - 0.06, h - 0.1, side * (w / 2 - 0.22), 0.02, 0.06, m)
        p.fronts(0.39, h - 0.12, -d / 2 + 0.05, 0.08, 1, 3, m, _handle(rng, style), side * (w / 2 - 0.22))
        p.box(0.04, d - 0.06, h - 0.03, -side * (w / 2 - 0.04), 0, 0, m)
        p.box(0.04, d - 0.06, 0.06, side * (w / 2 - 0.22), 0, 0, m)
    else:
        p.legs(w - 0.02, d - 0.02, h - 0.03, 0.045, m if chance(rng, 0.5) else finish(rng, "metal", style.metal))
    if chance(rng, 0.5):
        p.box(w - 0.1, 0.02, 0.35, 0, d / 2 - 0.06, h - 0.39, m)
    p.tops.append(Top(0, 0, h, w * 0.94, d * 0.9))
    return p


def school_desk(rng: Rng, style: Style) -> Piece:
    """A plain classroom or café table on metal legs."""
    w, d, h = pick(rng, (0.7, 1.2, 1.3)), between(rng, 0.5, 0.65), between(rng, 0.7, 0.76)
    colour = pick(rng, ("beige", "beige", "grey", "white", "brown"))
    m = finish(rng, "wood", colour)
    p = Piece("desk", colour, "wood")
    p.box(w, d, 0.03, 0, 0, h - 0.03, m)
    p.legs(w - 0.08, d - 0.08, h - 0.03, 0.035, finish(rng, "metal", style.metal), round_=True)
    p.box(w - 0.14, 0.02, 0.25, 0, d / 2 - 0.06, h - 0.3, finish(rng, "metal", style.metal))
    p.tops.append(Top(0, 0, h, w * 0.9, d * 0.85))
    return p


Fitted = tuple[str, Material, Material, Material]  # colour of the fronts, their material, worktop, handles


def fitted(rng: Rng, style: Style) -> Fitted:
    """The look that all parts of one kitchen share."""
    colour = (
        style.wood if chance(rng, 0.75) else pick(rng, ("white", "grey", "red", "light blue", "dark blue", "green"))
    )
    tone = pick(rng, ("white", "grey", "black", "beige", "brown", "dark brown"))
    slab = finish(rng, "stone" if chance(rng, 0.6) else "wood", tone)
    return colour, finish(rng, "wood", colour), slab, _handle(rng, style)


def counter(rng: Rng, style: Style, length: float = 1.8, look: Fitted | None = None, *, basin: bool = True) -> Piece:
    """A run of kitchen cupboards under one worktop [m], with a sink in it where there is space."""
    d, h = 0.6, 0.9
    colour, m, slab, handle = look or fitted(rng, style)
    p = Piece("counter", colour)
    p.box(length, d - 0.08, 0.1, 0, 0.04, 0, finish(rng, "wood", "black"))
    p.box(length, d - 0.02, h - 0.3, 0, 0.01, 0.1, m)
    p.box(length, 0.02, 0.2, 0, -d / 2 + 0.01, h - 0.22, m)
    n = max(1, round(length / 0.55))
    p.fronts(length, h - 0.32, -d / 2, 0.1, n, 1, m, handle, upright=True)
    p.fronts(length, 0.17, -d / 2, h - 0.215, n, 1, m, handle)
    if not basin or length < 1.0:
        p.box(length, d + 0.02, 0.035, 0, -0.01, h - 0.035, slab)
        p.tops.append(Top(0, -0.02, h, length * 0.97, d * 0.85, 0.45))
        return p
    bw, bd = between(rng, 0.45, 0.7), 0.4
    x = between(rng, -length / 2 + bw / 2 + 0.08, length / 2 - bw / 2 - 0.08)
    left, right = x - bw / 2 + length / 2, length / 2 - x - bw / 2
    for width, cx in ((left, -length / 2 + left / 2), (right, length / 2 - right / 2)):
        p.box(width, d + 0.02, 0.035, cx, -0.01, h - 0.035, slab)
        p.tops.append(Top(cx, -0.02, h, width * 0.9, d * 0.85, 0.45))
    p.box(bw, 0.09, 0.035, x, -d / 2 + 0.025, h - 0.035, slab)
    p.box(bw, d - bd - 0.07, 0.035, x, d / 2 - (d - bd - 0.07) / 2, h - 0.035, slab)
    sink = Piece("sink", "grey", "metal") if chance(rng, 0.7) else Piece("sink", "white", "ceramic")
    _basin(sink, bw, bd, 0.17, 0.0, finish(rng, sink.material, sink.colour))
    _tap(sink, 0, bd / 2 + 0.03, 0.175, finish(rng, "metal", "grey"))
    p.carry(sink, x, -d / 2 + 0.07 + bd / 2, h - 0.172)
    return p


def _basin(p: Piece, w: float, d: float, h: float, z: float, m: Material) -> None:
    """A hollow box without a lid."""
    p.box(w, d, 0.015, 0, 0, z, m)
    for sx in (-1, 1):
        p.box(0.02, d, h, sx * (w / 2 - 0.01), 0, z + 0.004, m)
        p.box(w, 0.02, h, 0, sx * (d / 2 - 0.01), z + 0.004, m)


def _tap(p: Piece, x: float, y: float, z: float, m: Material) -> None:
    p.rod(0.03, 0.22, x, y, z, m)
    p.box(0.022, 0.17, 0.022, x, y - 0.08, z + 0.2, m)
    p.box(0.07, 0.015, 0.015, x, y, z + 0.05, m)


def wall_cabinet(rng: Rng, style: Style, length: float = 1.2, look: Fitted | None = None) -> Piece:
    """Cupboards that hang above a counter [m]."""
    d, h = 0.34, 0.7
    colour, m, _, handle = look or fitted(rng, style)
    p = Piece("cabinet", colour, "wood")
    p.box(length, d, h, 0, 0, 0, m)
    p.fronts(length, h, -d / 2, 0, max(1, round(length / 0.45)), 1, m, handle, upright=True)
    return p


def hood(rng: Rng, style: Style) -> Piece:
    """An extractor hood above a stove."""
    steel = finish(rng, "metal", colour := pick(rng, ("grey", "grey", "white", "black")))
    p = Piece("hood", colour, "metal")
    p.box(0.6, 0.45, 0.07, 0, 0, 0, steel)
    p.box(0.3, 0.28, 0.55, 0, 0.085, 0.07, steel)
    return p


def stove(rng: Rng, style: Style) -> Piece:
    """A stove with an oven below."""
    colour = pick(rng, ("white", "white", "grey", "black"))
    m, black = finish(rng, "metal", colour), finish(rng, "glass", "black")
    w, d, h = pick(rng, (0.6, 0.76)), 0.6, between(rng, 0.87, 0.92)
    p = Piece("stove", colour, "metal")
    p.box(w, d, h, 0, 0, 0, m)
    p.box(w - 0.12, 0.012, 0.32, 0, -d / 2 - 0.006, 0.3, black)
    p.box(w - 0.1, 0.03, 0.02, 0, -d / 2 - 0.03, 0.68, finish(rng, "metal", "grey"))
    p.box(w - 0.02, d - 0.06, 0.008, 0, -0.02, h, black)
    for i in range(5):
        p.rod(0.035, 0.025, (i - 2) * w / 6, -d / 2 - 0.012, h - 0.1, black, turn=tilt("x", 90))
    for sx in (-1, 1):
        for sy in (-1, 1):
            p.rod(between(rng, 0.14, 0.2), 0.012, sx * w / 4, sy * 0.13 - 0.02, h + 0.006, finish(rng, "metal", "grey"))
    if chance(rng, 0.4):
        p.box(w, 0.05, 0.15, 0, d / 2 - 0.025, h, m)
    p.tops.append(Top(0, -0.02, h + 0.018, w * 0.85, d * 0.75, 0.45))
    return p


def refrigerator(rng: Rng, style: Style) -> Piece:
    """A refrigerator with one or two doors."""
    colour = pick(rng, ("white", "white", "white", "grey", "grey", "black", "red", "light blue"))
    m = finish(rng, "metal" if colour == "grey" else "plastic", colour)
    w, d, h = between(rng, 0.58, 0.9), between(rng, 0.6, 0.72), between(rng, 1.5, 1.85)
    p = Piece("refrigerator", colour, m.name if colour == "grey" else "")
    p.box(w, d - 0.05, h, 0, 0.025, 0, m)
    split, grip = h * between(rng, 0.3, 0.68), finish(rng, "metal", "grey")
    for low, high in ((0.04, split), (split, h)):
        p.box(w, 0.05, high - low - 0.012, 0, -d / 2 + 0.02, low + 0.006, m)
        p.box(0.025, 0.04, min(0.4, (high - low) * 0.5), w / 2 - 0.06, -d / 2 - 0.02, (low + high) / 2 - 0.15, grip)
    p.tops.append(Top(0, 0.02, h, w * 0.9, d * 0.75, 0.4))
    return p


def washing_machine(rng: Rng, style: Style) -> Piece:
    """A front loader."""
    m, dark = finish(rng, "metal", "white"), finish(rng, "glass", "black")
    w, h = 0.6, between(rng, 0.84, 0.88)
    p = Piece("washing machine", "white", "metal")
    p.box(w, 0.58, h, 0, 0, 0, m)
    p.rod(0.38, 0.04, 0, -0.3, h * 0.48, finish(rng, "metal", "grey"), sides=24, turn=tilt("x", 90))
    p.rod(0.29, 0.05, 0, -0.305, h * 0.475, dark, sides=24, turn=tilt("x", 90))
    p.box(0.18, 0.01, 0.08, -0.18, -0.295, h - 0.12, finish(rng, "plastic", "grey"))
    p.tops.append(Top(0, 0, h, 0.55, 0.5))
    return p


def bathtub(rng: Rng, style: Style) -> Piece:
    """A bathtub along a wall."""
    w, d, h = between(rng, 1.5, 1.75), between(rng, 0.7, 0.8), between(rng, 0.5, 0.6)
    m = finish(rng, "ceramic", "white")
    p = Piece("bathtub", "white", "ceramic")
    p.box(w, d, 0.14, 0, 0, 0, m)
    for sx in (-1, 1):
        p.box(0.1, d, h - 0.14, sx * (w / 2 - 0.05), 0, 0.14, m)
        p.box(w - 0.2, 0.07, h - 0.14, 0, sx * (d / 2 - 0.035), 0.14, m)
    _tap(p, w / 2 - 0.3, d / 2 - 0.035, h, finish(rng, "metal", "grey"))
    return p


def toilet(rng: Rng, style: Style) -> Piece:
    """A toilet with its cistern."""
    m = finish(rng, "ceramic", "white")
    w, h = between(rng, 0.36, 0.4), between(rng, 0.39, 0.43)
    p = Piece("toilet", "white", "ceramic")
    p.rod(w, h - 0.03, 0, -0.12, 0, m, 1.5, 20, d=0.46)
    p.box(w * 0.6, 0.3, h - 0.05, 0, 0.15, 0, m)
    p.rod(w + 0.02, 0.035, 0, -0.1, h - 0.03, m, sides=24, d=0.48)
    p.box(w, 0.18, 0.36, 0, 0.25, h - 0.02, m)
    p.box(w + 0.02, 0.2, 0.03, 0, 0.25, h + 0.34, m)
    if chance(rng, 0.3):  # lid up
        p.rod(w, 0.03, 0, 0.11, h + 0.18, m, sides=24, d=0.42, turn=tilt("x", 83))
    p.box(0.05, 0.03, 0.02, w / 4, 0.14, h + 0.26, finish(rng, "metal", "grey"))
    p.tops.append(Top(0, 0.25, h + 0.37, w * 0.9, 0.17, 0.4))
    return p


def washstand(rng: Rng, style: Style) -> Piece:
    """A bathroom sink on a cabinet or on a pedestal."""
    m, steel = finish(rng, "ceramic", "white"), finish(rng, "metal", "grey")
    w, d, h = between(rng, 0.5, 1.0), between(rng, 0.42, 0.52), between(rng, 0.8, 0.88)
    if chance(rng, 0.6):
        p, front = _case(rng, style, "cabinet", w, d, h - 0.12)
        p.tops.clear()
        p.fronts(w - 0.03, h - 0.28, -d / 2, 0.12, 2, 1, front, _handle(rng, style), upright=True)
        sink = Piece("sink", "white", "ceramic")
        _basin(sink, w, d, 0.11, 0.0, m)
        sink.box(w, 0.1, 0.11, 0, d / 2 - 0.05, 0.01, m)
        _tap(sink, 0, d / 2 - 0.05, 0.12, steel)
        p.carry(sink, 0, 0, h - 0.12)
        return p
    p = Piece("sink", "white", "ceramic")
    w = min(w, 0.6)
    p.rod(0.22, h - 0.14, 0, 0.08, 0, m, 0.8, 14)
    _basin(p, w, d, 0.13, h - 0.14, m)
    p.box(w, 0.1, 0.13, 0, d / 2 - 0.05, h - 0.14, m)
    _tap(p, 0, d / 2 - 0.05, h - 0.01, steel)
    return p


def floor_lamp(rng: Rng, style: Style) -> Piece:
    """A lamp on a tall stem."""
    h, w = between(rng, 1.4, 1.8), between(rng, 0.3, 0.46)
    metal = finish(rng, "metal", pick(rng, ("black", "grey", "white", "brown")))
    p = Piece("lamp", "", "")
    p.rod(0.28, 0.025, 0, 0, 0, metal, sides=20)
    p.rod(0.025, h - 0.2, 0, 0, 0.02, metal)
    _shade(rng, style, p, w, between(rng, 0.22, 0.34), 0, 0, h - 0.24)
    return p


def _shade(rng: Rng, style: Style, p: Piece, w: float, h: float, x: float, y: float, z: float) -> None:
    """A lampshade, glowing where the lamp is on (which sets the lamp's colour otherwise)."""
    taper = between(rng, 0.6, 1.0)
    if chance(rng, 0.85 if style.night else 0.25):
        p.rod(w, h, x, y, z, glowing(style.warmth, between(rng, 1.5, 5)), taper, 24)
        r, g, b = (between(rng, 12, 30) * c for c in style.warmth)
        p.glows += [Glow(x, y, z - 0.02, w * 0.6, w * 0.6, (r, g, b))]
        p.glows += [Glow(x, y, z + h + 0.02, w * 0.5, w * 0.5, (r, g, b), "up")]
        return
    p.colour = pick(rng, ("white", "white", "beige", *style.fabrics))
    p.rod(w, h, x, y, z, finish(rng, "fabric", p.colour), taper, 24)


def table_lamp(rng: Rng, style: Style) -> Piece:
    """A lamp for a night stand or a desk."""
    h = between(rng, 0.36, 0.6)
    foot = finish(rng, "ceramic", pick(rng, MUTED + STRONG))
    p = Piece("lamp")
    p.rod(h * 0.34, 0.02, 0, 0, 0, foot, sides=18)
    if chance(rng, 0.5):
        p.ball(h * 0.35, h * 0.35, h * 0.5, 0, 0, 0.01, foot)
    p.rod(0.02, h * 0.6, 0, 0, 0.01, foot)
    _shade(rng, style, p, h * between(rng, 0.5, 0.75), h * 0.45, 0, 0, h * 0.56)
    return p


def fan(rng: Rng, style: Style) -> Piece:
    """A fan on a stand."""
    colour = pick(rng, ("white", "grey", "black"))
    m = finish(rng, "plastic", colour)
    h = between(rng, 1.0, 1.3)
    p = Piece("fan", colour, "plastic")
    p.rod(0.36, 0.03, 0, 0, 0, m, sides=20)
    p.rod(0.03, h - 0.2, 0, 0, 0.02, m)
    p.rod(0.4, 0.03, 0, -0.06, h - 0.2, m, sides=24, turn=tilt("x", 90))
    p.rod(0.33, 0.05, 0, -0.065, h - 0.21, finish(rng, "metal", "grey"), sides=24, turn=tilt("x", 90))
    p.rod(0.12, 0.14, 0, 0.02, h - 0.255, m, turn=tilt("x", 90))
    return p


def radiator(rng: Rng, style: Style) -> Piece:
    """A ribbed radiator under a window."""
    m = finish(rng, "metal", "white")
    w, h = between(rng, 0.7, 1.4), between(rng, 0.5, 0.65)
    p = Piece("radiator", "white", "metal")
    n = round(w / 0.07)
    for i in range(n):
        p.box(0.05, 0.09, h - 0.12, (i + 0.5) * w / n - w / 2, 0, 0.12, m)
    p.legs(w * 0.8, 0.06, 0.13, 0.03, m)
    p.box(w, 0.04, 0.05, 0, 0, 0.16, m)
    p.box(w, 0.04, 0.05, 0, 0, h - 0.1, m)
    return p


def piano(rng: Rng, style: Style) -> Piece:
    """An upright piano."""
    colour = pick(rng, ("black", "black", "brown", "dark brown", "white"))
    m = finish(rng, "wood", colour)
    w, h = between(rng, 1.42, 1.52), between(rng, 1.1, 1.3)
    p = Piece("piano", colour, "wood")
    p.box(w, 0.34, h, 0, 0.13, 0, m)
    p.box(w, 0.3, 0.08, 0, -0.16, 0.62, m)
    p.box(w - 0.1, 0.14, 0.015, 0, -0.22, 0.7, finish(rng, "plastic", "white"))
    for i in range(15):
        p.box(
            0.015,
            0.08,
            0.012,
            (i + 0.5) * (w - 0.16) / 15 - w / 2 + 0.08,
            -0.19,
            0.714,
            finish(rng, "plastic", "black"),
        )
    for sx in (-1, 1):
        p.box(0.07, 0.08, 0.62, sx * (w / 2 - 0.04), -0.25, 0, m)
    p.tops.append(Top(0, 0.13, h, w * 0.9, 0.26, 0.6))
    return p


FURNITURE: dict[str, Callable[[Rng, Style], Piece]] = {
    "chair": chair,
    "office chair": office_chair,
    "stool": stool,
    "bench": bench,
    "armchair": armchair,
    "sofa": sofa,
    "ottoman": ottoman,
    "bed": bed,
    "crib": crib,
    "night stand": night_stand,
    "dresser": dresser,
    "wardrobe": wardrobe,
    "cabinet": cabinet,
    "tv stand": tv_stand,
    "filing cabinet": filing_cabinet,
    "bookshelf": bookshelf,
    "shelves": shelves,
    "table": table,
    "coffee table": coffee_table,
    "side table": side_table,
    "desk": desk,
    "school desk": school_desk,
    "counter": counter,
    "wall cabinet": wall_cabinet,
    "hood": hood,
    "stove": stove,
    "refrigerator": refrigerator,
    "washing machine": washing_machine,
    "bathtub": bathtub,
    "toilet": toilet,
    "washstand": washstand,
    "floor lamp": floor_lamp,
    "table lamp": table_lamp,
    "fan": fan,
    "radiator": radiator,
    "piano": piano,
}
