"""Small things: what stands on furniture, lies on floors and hangs on walls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from deixis.world.colours import albedo
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
    product,
    tilt,
)
from deixis.world.scene import Material

Rng = np.random.Generator
ANY = STRONG + MUTED


def pillow(rng: Rng, style: Style, *, large: bool = False) -> Piece:
    """A cushion that leans back; ``large`` is one for sleeping, which lies flat."""
    tone = pick(rng, ("white", "white", "beige", "light blue", "grey")) if large else style.textile(rng)
    m, pattern = cloth(rng, tone, 0.15 if large else 0.4)
    p = Piece("pillow", tone, "fabric", pattern)
    if large:
        w, d, h = between(rng, 0.58, 0.72), between(rng, 0.36, 0.46), between(rng, 0.12, 0.17)
        p.ball(w, d, h, 0, -d / 2 + 0.1, 0, m, tilt("x", between(rng, 5, 30)), sides=16)
        p.box(w * 0.84, d * 0.8, h * 0.45, 0, -d / 2 + 0.1, h * 0.28, m, tilt("x", 15))
        return p
    s = between(rng, 0.36, 0.46)
    p.box(s * 0.86, 0.07, s * 0.86, 0, 0, 0.03, m, tilt("x", -22))
    p.ball(s, 0.16, s, 0, 0, -0.03, m, tilt("x", -22), sides=14)
    return p


def books(rng: Rng, w: float, d: float, room: float) -> Piece:
    """A row of upright books, ``w`` wide, in a compartment ``room`` high [m]."""
    p = Piece("books", "", "paper")
    x = -w / 2
    while True:
        t = between(rng, 0.02, 0.06)
        if x + t > w / 2:
            return p
        h = min(room, between(rng, 0.17, 0.31))
        depth = d * between(rng, 0.7, 0.98)
        p.box(t - 0.002, depth, h, x + t / 2, between(rng, -0.02, 0.0), 0, _cover(rng))
        x += t


def _cover(rng: Rng) -> Material:
    return Material("paper", albedo(pick(rng, ANY), rng, 0.15), gloss=0.03)


def book_row(rng: Rng, style: Style) -> Piece:
    """A few books that stand together."""
    return books(rng, between(rng, 0.15, 0.4), 0.17, 0.3)


def book_stack(rng: Rng, style: Style) -> Piece:
    """Books that lie on each other."""
    p, z = Piece("books", "", "paper"), 0.0
    for _ in range(int(rng.integers(2, 7))):
        t = between(rng, 0.015, 0.045)
        w, d = between(rng, 0.15, 0.22), between(rng, 0.2, 0.29)
        p.box(
            w,
            d,
            t,
            between(rng, -0.02, 0.02),
            between(rng, -0.02, 0.02),
            z,
            _cover(rng),
            tilt("z", between(rng, -12, 12)),
        )
        z += t
    return p


def book(rng: Rng, style: Style) -> Piece:
    """One book, lying."""
    colour = pick(rng, ANY)
    p = Piece("book", colour, "paper")
    w, d, t = between(rng, 0.13, 0.22), between(rng, 0.19, 0.29), between(rng, 0.015, 0.045)
    cover = finish(rng, "paper", colour)
    p.box(w, d, 0.004, 0, 0, 0, cover)
    p.box(w - 0.006, d - 0.01, t - 0.006, 0.003, 0, 0.003, finish(rng, "paper", "white"))
    p.box(w, d, 0.004, 0, 0, t - 0.004, cover)
    return p


def paper(rng: Rng, style: Style) -> Piece:
    """Sheets of paper."""
    p = Piece("paper", "white", "paper")
    for i in range(int(rng.integers(1, 5))):
        p.box(
            0.21,
            0.297,
            0.002,
            0.02 * i,
            between(rng, -0.03, 0.03),
            0.002 * i,
            finish(rng, "paper", "white"),
            tilt("z", between(rng, -25, 25)),
        )
    return p


def box(rng: Rng, style: Style) -> Piece:
    """A box of cardboard or plastic."""
    colour = pick(rng, ("brown", "beige", "beige", "white", *STRONG))
    word = "cardboard" if colour in ("brown", "beige") else pick(rng, ("plastic", "paper"))
    m = finish(rng, word, colour)
    w, d, h = between(rng, 0.24, 0.5), between(rng, 0.2, 0.36), between(rng, 0.15, 0.36)
    p = Piece("box", colour, word)
    if word == "cardboard" and chance(rng, 0.5):
        p.box(w, d, 0.01, 0, 0, 0, m)
        for s in (-1, 1):
            p.box(0.008, d, h, s * (w / 2 - 0.004), 0, 0, m)
            p.box(w, 0.008, h, 0, s * (d / 2 - 0.004), 0, m)
            if chance(rng, 0.7):  # flaps
                p.box(w, d * 0.4, 0.006, 0, s * (d / 2 + d * 0.12), h + 0.04, m, tilt("x", -s * between(rng, 20, 50)))
        return p
    p.box(w, d, h - 0.03, 0, 0, 0, m)
    p.box(w + 0.012, d + 0.012, 0.045, 0, 0, h - 0.04, m)
    if word == "cardboard":
        p.box(0.05, d + 0.014, 0.004, 0, 0, h + 0.004, finish(rng, "plastic", "beige"))
    p.tops.append(Top(0, 0, h + 0.005, w * 0.85, d * 0.85, 0.4))
    return p


def small_box(rng: Rng, style: Style) -> Piece:
    """A packet, a tin, a box of tissues."""
    colour = pick(rng, ANY)
    p = Piece("box", colour, "cardboard", build="small")
    p.box(
        between(rng, 0.07, 0.2),
        between(rng, 0.05, 0.14),
        between(rng, 0.05, 0.22),
        0,
        0,
        0,
        finish(rng, "paper", colour),
    )
    return p


def basket(rng: Rng, style: Style) -> Piece:
    """A basket, of wicker or plastic."""
    wicker = chance(rng, 0.6)
    colour = pick(rng, ("beige", "brown")) if wicker else pick(rng, ("white", "grey", *STRONG))
    m = finish(rng, "wicker" if wicker else "plastic", colour)
    w, h = between(rng, 0.28, 0.48), between(rng, 0.22, 0.5)
    p = Piece("basket", colour, m.name)
    p.rod(w, h, 0, 0, 0, m, between(rng, 1.1, 1.35), 20, d=w * between(rng, 0.75, 1))
    p.rod(w * 0.9, 0.004, 0, 0, h, finish(rng, "fabric", "dark brown"), sides=20, d=w * 0.65)
    if chance(rng, 0.6):
        for _ in range(3):
            p.ball(
                w * 0.6,
                w * 0.4,
                0.12,
                between(rng, -0.1, 0.1) * w,
                between(rng, -0.1, 0.1) * w,
                h - 0.06,
                finish(rng, "fabric", style.textile(rng)),
            )
    return p


def bin_(rng: Rng, style: Style) -> Piece:
    """A waste bin."""
    colour = pick(rng, ("black", "grey", "white", "blue", "green", "red"))
    word = pick(rng, ("plastic", "metal"))
    w, h = between(rng, 0.22, 0.34), between(rng, 0.26, 0.6)
    p = Piece("bin", colour, word)
    p.rod(w, h, 0, 0, 0, finish(rng, word, colour), between(rng, 1.05, 1.25), 20)
    p.rod(w * 0.92, 0.004, 0, 0, h, finish(rng, "plastic", "black"), sides=20)
    return p


def bag(rng: Rng, style: Style) -> Piece:
    """A shopping bag or a rucksack."""
    colour = pick(rng, ANY)
    p = Piece("bag", colour)
    if chance(rng, 0.5):
        m = finish(rng, "paper", colour)
        w, d, h = between(rng, 0.22, 0.36), between(rng, 0.1, 0.18), between(rng, 0.26, 0.42)
        p.box(w, d, h, 0, 0, 0, m)
        for sy in (-1, 1):
            for sx in (-1, 1):
                p.box(0.012, 0.006, 0.12, sx * w * 0.16, sy * d * 0.4, h, m)
            p.box(w * 0.35, 0.006, 0.012, 0, sy * d * 0.4, h + 0.11, m)
        return p
    m = finish(rng, "fabric", colour)
    w, h = between(rng, 0.28, 0.36), between(rng, 0.38, 0.5)
    p.material = "fabric"
    p.box(w * 0.9, 0.15, h * 0.8, 0, 0, 0, m)
    p.ball(w, 0.2, h, 0, 0, 0, m)
    p.box(w * 0.7, 0.07, h * 0.4, 0, -0.1, 0.03, m)
    p.box(0.05, 0.02, h * 0.7, w * 0.25, 0.1, h * 0.15, m)
    p.box(0.05, 0.02, h * 0.7, -w * 0.25, 0.1, h * 0.15, m)
    return p


def suitcase(rng: Rng, style: Style) -> Piece:
    """A suitcase, standing."""
    colour = pick(rng, ("black", "grey", *STRONG))
    m, dark = finish(rng, "plastic", colour), finish(rng, "plastic", "black")
    w, d, h = between(rng, 0.38, 0.5), between(rng, 0.22, 0.3), between(rng, 0.55, 0.75)
    p = Piece("suitcase", colour, "plastic")
    p.box(w, d, h - 0.05, 0, 0, 0.05, m)
    for i in range(4):
        p.box(0.03, 0.015, h - 0.15, (i - 1.5) * w / 5, -d / 2, 0.1, m)
    p.legs(w - 0.04, d - 0.04, 0.05, 0.04, dark)
    p.box(w * 0.4, 0.03, 0.03, 0, 0, h + 0.12, dark)
    for sx in (-1, 1):
        p.box(0.015, 0.015, 0.14, sx * w * 0.18, 0, h, dark)
    return p


def bottle(rng: Rng, style: Style) -> Piece:
    """A bottle with a cap."""
    word = pick(rng, ("glass", "plastic"))
    colour = pick(rng, ("dark green", "brown", "green")) if word == "glass" else pick(rng, ANY)
    m = finish(rng, word, colour)
    w, h = between(rng, 0.055, 0.09), between(rng, 0.18, 0.33)
    p = Piece("bottle", colour, word)
    p.rod(w, h * 0.62, 0, 0, 0, m)
    p.rod(w, h * 0.15, 0, 0, h * 0.62, m, 0.42)
    p.rod(w * 0.4, h * 0.2, 0, 0, h * 0.76, m)
    p.rod(w * 0.46, 0.025, 0, 0, h * 0.94, finish(rng, "plastic", pick(rng, ANY)))
    return p


def cup(rng: Rng, style: Style) -> Piece:
    """A mug or a glass."""
    colour = pick(rng, ("white", "white", *STRONG, "black"))
    m = finish(rng, "ceramic", colour)
    w, h = between(rng, 0.07, 0.095), between(rng, 0.08, 0.115)
    p = Piece("cup", colour, "ceramic")
    p.rod(w, h, 0, 0, 0, m, between(rng, 1.0, 1.25), 14)
    p.rod(w * 0.84, 0.002, 0, 0, h, finish(rng, "plastic", "dark brown"), sides=14)
    p.box(0.03, 0.01, 0.012, w / 2 + 0.01, 0, h * 0.75, m)
    p.box(0.03, 0.01, 0.012, w / 2 + 0.01, 0, h * 0.25, m)
    p.box(0.01, 0.01, h * 0.5, w / 2 + 0.025, 0, h * 0.26, m)
    return p


def bowl(rng: Rng, style: Style) -> Piece:
    """A bowl, empty or with fruit."""
    colour = pick(rng, ("white", "white", "brown", *STRONG))
    m = finish(rng, "ceramic", colour)
    w, h = between(rng, 0.15, 0.3), between(rng, 0.06, 0.11)
    p = Piece("bowl", colour, "ceramic")
    p.rod(w, h, 0, 0, 0, m, 2.0, 18)
    p.rod(w * 0.9, 0.003, 0, 0, h, m, sides=18)
    if chance(rng, 0.5):
        fruit = [finish(rng, "plastic", c) for c in ("red", "orange", "yellow", "light green")]
        for i in range(5):
            a = 2 * math.pi * i / 5
            p.ball(
                0.075, 0.075, 0.07, w * 0.22 * math.cos(a), w * 0.22 * math.sin(a), h - 0.02, pick(rng, fruit), sides=10
            )
    return p


def plate(rng: Rng, style: Style) -> Piece:
    """A plate."""
    colour = pick(rng, ("white", "white", "white", "light blue", "grey", "beige"))
    m = finish(rng, "ceramic", colour)
    p = Piece("plate", colour, "ceramic")
    p.rod(between(rng, 0.19, 0.28), 0.018, 0, 0, 0, m, 1.5, 22)
    return p


def vase(rng: Rng, style: Style) -> Piece:
    """A vase, often with flowers."""
    colour = pick(rng, ANY)
    m = finish(rng, "ceramic", colour)
    w, h = between(rng, 0.09, 0.16), between(rng, 0.16, 0.32)
    p = Piece("vase", colour, "ceramic")
    p.ball(w, w, h * 0.75, 0, 0, 0, m, sides=14)
    p.rod(w * 0.6, h * 0.45, 0, 0, h * 0.55, m, 1.2, 14)
    p.rod(w * 0.6, 0.02, 0, 0, 0, m, sides=14)
    if chance(rng, 0.6):
        stem, flower = (
            finish(rng, "leaf", "green"),
            finish(rng, "leaf", pick(rng, ("red", "yellow", "pink", "white", "purple"))),
        )
        for _ in range(int(rng.integers(3, 8))):
            a, lean, high = between(rng, 0, 360), between(rng, 5, 25), between(rng, 0.15, 0.25)
            turn = product(tilt("z", a), tilt("y", lean))
            top = (turn[0][2] * high, turn[1][2] * high, turn[2][2] * high)
            p.box(0.006, 0.006, high, top[0] / 2, top[1] / 2, h + top[2] / 2 - high / 2, stem, turn)
            p.ball(0.06, 0.06, 0.045, top[0], top[1], h + top[2] - 0.02, flower, turn, sides=8)
    return p


def _leaves(rng: Rng, p: Piece, n: int, high: float, spread: float, z: float) -> None:
    m = finish(rng, "leaf", pick(rng, ("green", "dark green", "green", "light green")))
    for i in range(n):
        around, lean = 137.5 * i + between(rng, -20, 20), between(rng, 5, 75)
        size = between(rng, 0.6, 1.0) * spread
        turn = product(tilt("z", around), tilt("y", lean))
        lift = high * between(rng, 0.1, 0.9)
        cx, cy, cz = (turn[k][2] * size / 2 for k in range(3))
        p.ball(0.02, size * 0.32, size, cx, cy, z + lift + cz - size / 2, m, turn, sides=6)


def plant(rng: Rng, style: Style) -> Piece:
    """A pot plant for a table or a sill."""
    w = between(rng, 0.12, 0.2)
    p = Piece("plant", "green")
    p.rod(
        w, w * 0.9, 0, 0, 0, finish(rng, "ceramic", pick(rng, ("brown", "white", "orange", "grey", "black"))), 1.25, 16
    )
    _leaves(rng, p, int(rng.integers(9, 18)), between(rng, 0.05, 0.2), between(rng, 0.16, 0.28), w * 0.85)
    return p


def tall_plant(rng: Rng, style: Style) -> Piece:
    """A pot plant that stands on the floor."""
    w, high = between(rng, 0.28, 0.4), between(rng, 0.4, 1.1)
    p = Piece("plant", "green")
    p.rod(
        w, w * 0.95, 0, 0, 0, finish(rng, "ceramic", pick(rng, ("brown", "white", "orange", "grey", "black"))), 1.25, 20
    )
    p.rod(0.03, high, 0, 0, w * 0.8, finish(rng, "wood", "brown"))
    _leaves(rng, p, int(rng.integers(18, 34)), high, between(rng, 0.28, 0.42), w * 0.95)
    return p


def laptop(rng: Rng, style: Style) -> Piece:
    """An open laptop."""
    colour = pick(rng, ("grey", "black", "grey", "white"))
    m, dark = finish(rng, "metal", colour), finish(rng, "plastic", "black")
    w, d = between(rng, 0.31, 0.37), between(rng, 0.21, 0.25)
    p = Piece("laptop", colour)
    p.box(w, d, 0.018, 0, -0.06, 0, m)
    p.box(w * 0.88, d * 0.45, 0.003, 0, -0.03, 0.018, dark)
    turn = tilt("x", -between(rng, 8, 25))
    p.box(w, 0.008, d, 0, d / 2 - 0.02, 0.012, m, turn)
    p.box(w * 0.94, 0.004, d * 0.88, 0, d / 2 - 0.028, 0.012 + d * 0.06, _screen(rng), turn)
    return p


def _screen(rng: Rng) -> Material:
    """A display, off or on."""
    dark = Material("glass", (0.012, 0.012, 0.014), gloss=0.12)
    if chance(rng, 0.6):
        return dark
    r, g, b = (between(rng, 0.1, 0.5) for _ in range(3))
    return replace(dark, emission=(r, g, b + 0.1))


def monitor(rng: Rng, style: Style) -> Piece:
    """A computer's monitor with keyboard and mouse in front."""
    colour = pick(rng, ("black", "black", "grey", "white"))
    m = finish(rng, "plastic", colour)
    w = between(rng, 0.44, 0.68)
    h = w * 0.6
    p = Piece("monitor", colour)
    p.box(0.24, 0.18, 0.015, 0, 0.06, 0, m)
    p.box(0.06, 0.03, 0.3, 0, 0.1, 0, m)
    p.box(w, 0.035, h, 0, 0.07, 0.11, m)
    p.box(w - 0.025, 0.004, h - 0.03, 0, 0.051, 0.125, _screen(rng))
    keys = Piece("keyboard", colour, "plastic")
    keys.box(0.44, 0.14, 0.02, 0, 0, 0, finish(rng, "plastic", colour))
    keys.box(0.41, 0.11, 0.006, 0, 0, 0.018, finish(rng, "plastic", "grey"))
    p.carry(keys, 0, -0.18, 0)
    return p


def telephone(rng: Rng, style: Style) -> Piece:
    """A desk telephone."""
    m = finish(rng, "plastic", colour := pick(rng, ("black", "black", "grey", "white", "red")))
    p = Piece("telephone", colour, "plastic")
    p.box(0.18, 0.2, 0.04, 0, 0, 0, m, tilt("x", 8))
    p.box(0.05, 0.2, 0.035, -0.06, 0, 0.05, m, tilt("x", 8))
    return p


def television(rng: Rng, style: Style) -> Piece:
    """A flat television on a foot."""
    w = between(rng, 0.7, 1.35)
    black = finish(rng, "plastic", "black")
    p = Piece("television", "black")
    h = w * 0.58
    p.box(w * 0.4, 0.22, 0.02, 0, 0, 0, black)
    p.box(0.1, 0.05, 0.1, 0, 0.03, 0, black)
    p.box(w, 0.05, h, 0, 0.02, 0.06, black)
    p.box(w - 0.04, 0.004, h - 0.05, 0, -0.006, 0.09, _screen(rng))
    return p


def microwave(rng: Rng, style: Style) -> Piece:
    """A microwave oven."""
    m = finish(rng, "metal", colour := pick(rng, ("white", "black", "grey", "red")))
    p = Piece("microwave", colour, "metal")
    p.box(0.48, 0.34, 0.28, 0, 0.01, 0, m)
    p.box(0.33, 0.01, 0.22, -0.06, -0.163, 0.03, finish(rng, "glass", "black"))
    p.box(0.015, 0.025, 0.2, 0.12, -0.17, 0.04, finish(rng, "metal", "grey"))
    p.tops.append(Top(0, 0, 0.28, 0.4, 0.28, 0.4))
    return p


def kettle(rng: Rng, style: Style) -> Piece:
    """A kettle."""
    m = finish(rng, "metal", colour := pick(rng, ("grey", "grey", "black", "red", "white")))
    p = Piece("kettle", colour, "metal")
    p.rod(0.18, 0.2, 0, 0, 0, m, 0.75, 16)
    p.ball(0.13, 0.13, 0.06, 0, 0, 0.17, m)
    p.box(0.02, 0.03, 0.16, 0.12, 0, 0.03, finish(rng, "plastic", "black"))
    p.box(0.06, 0.03, 0.02, 0.09, 0, 0.19, finish(rng, "plastic", "black"))
    p.rod(0.03, 0.08, -0.1, 0, 0.12, m, 0.6, turn=tilt("y", -40))
    return p


def pan(rng: Rng, style: Style) -> Piece:
    """A saucepan."""
    m = finish(rng, "metal", colour := pick(rng, ("grey", "grey", "black", "red", "blue")))
    w, h = between(rng, 0.18, 0.28), between(rng, 0.08, 0.18)
    p = Piece("pot", colour, "metal")
    p.rod(w, h, 0, 0, 0, m, 1.05, 20)
    p.ball(w, w, 0.05, 0, 0, h - 0.025, m, sides=18)
    p.ball(0.03, 0.03, 0.03, 0, 0, h + 0.02, finish(rng, "plastic", "black"))
    p.box(0.16, 0.025, 0.015, w / 2 + 0.07, 0, h * 0.75, finish(rng, "plastic", "black"))
    return p


def toaster(rng: Rng, style: Style) -> Piece:
    """A toaster."""
    m = finish(rng, "metal", colour := pick(rng, ("grey", "white", "black", "red", "light blue")))
    p = Piece("toaster", colour, "metal")
    p.box(0.28, 0.17, 0.18, 0, 0, 0.01, m)
    for sy in (-1, 1):
        p.box(0.2, 0.025, 0.004, 0, sy * 0.035, 0.19, finish(rng, "plastic", "black"))
    return p


def soap(rng: Rng, style: Style) -> Piece:
    """A soap dispenser."""
    p = bottle(rng, style)
    return p.scaled(0.65, "small")


def towel(rng: Rng, style: Style) -> Piece:
    """A towel over a rail, to hang on a wall."""
    tone = style.textile(rng)
    m, pattern = cloth(rng, tone, 0.25)
    w, h = between(rng, 0.3, 0.6), between(rng, 0.4, 0.75)
    p = Piece("towel", tone, "fabric", pattern)
    p.box(w, 0.02, h, 0, -0.05, 0, m)
    p.box(w, 0.015, h * 0.85, 0, -0.02, h * 0.15, m)
    p.rod(0.02, w + 0.14, 0, -0.038, h - w / 2 - 0.08, finish(rng, "metal", "grey"), turn=tilt("y", 90))
    for sx in (-1, 1):
        p.box(0.02, 0.06, 0.02, sx * (w / 2 + 0.06), -0.02, h - 0.02, finish(rng, "metal", "grey"))
    return p


def folded_towels(rng: Rng, style: Style) -> Piece:
    """Folded towels or clothes on each other."""
    p, z = Piece(pick(rng, ("towel", "clothes")), "", "fabric"), 0.0
    for _ in range(int(rng.integers(1, 4))):
        h = between(rng, 0.03, 0.07)
        p.colour = style.textile(rng) if z == 0 else ""
        p.box(0.3, 0.22, h, 0, between(rng, -0.01, 0.01), z, cloth(rng, p.colour or style.textile(rng))[0])
        z += h
    return p


def clothes(rng: Rng, style: Style) -> Piece:
    """A heap of clothes."""
    p = Piece("clothes", "", "fabric")
    tones = [cloth(rng, pick(rng, ANY))[0] for _ in range(3)]
    for _ in range(int(rng.integers(4, 10))):
        turn = product(tilt("z", between(rng, 0, 180)), tilt("x", between(rng, -15, 15)))
        w, d, h = between(rng, 0.18, 0.5), between(rng, 0.12, 0.3), between(rng, 0.06, 0.14)
        p.ball(
            w, d, h, between(rng, -0.16, 0.16), between(rng, -0.12, 0.12), between(rng, 0, 0.1), pick(rng, tones), turn
        )
    return p


def shoes(rng: Rng, style: Style) -> Piece:
    """A pair of shoes."""
    colour = pick(rng, ("black", "brown", "white", "blue", "red", "grey", "pink"))
    m, sole = finish(rng, "leather", colour), finish(rng, "plastic", pick(rng, ("white", "black")))
    p = Piece("shoes", colour)
    for sx in (-1, 1):
        y = between(rng, -0.05, 0.05)
        p.rod(0.1, 0.025, sx * 0.08, y, 0, sole, sides=16, d=0.28)
        p.ball(0.095, 0.26, 0.11, sx * 0.08, y, 0, m)
        p.ball(0.085, 0.14, 0.15, sx * 0.08, y + 0.06, 0.0, m)
    return p


def ball(rng: Rng, style: Style) -> Piece:
    """A ball."""
    colour = pick(rng, ("white", *STRONG))
    m = finish(rng, "plastic", colour)
    w = between(rng, 0.14, 0.26)
    p = Piece("ball", colour, "", pattern := pick(rng, ("", "", "striped")))
    if pattern:
        m = replace(m, texture="stripes", second=albedo("white" if colour != "white" else "blue", rng), scale=w / 3)
    p.ball(w, w, w, 0, 0, 0, m, sides=20)
    return p


def toy_car(rng: Rng, style: Style) -> Piece:
    """A toy car."""
    colour = pick(rng, STRONG)
    m, dark = finish(rng, "plastic", colour), finish(rng, "plastic", "black")
    s = between(rng, 0.7, 1.6)
    p = Piece("toy car", colour, "plastic")
    p.box(0.12 * s, 0.26 * s, 0.06 * s, 0, 0, 0.03 * s, m)
    p.box(0.1 * s, 0.12 * s, 0.05 * s, 0, 0.02 * s, 0.09 * s, m)
    p.box(0.102 * s, 0.08 * s, 0.03 * s, 0, 0.02 * s, 0.1 * s, dark)
    for sx in (-1, 1):
        for sy in (-1, 1):
            p.rod(0.06 * s, 0.03 * s, sx * 0.06 * s, sy * 0.08 * s, 0.015 * s, dark, turn=tilt("y", 90))
    return p


def teddy(rng: Rng, style: Style) -> Piece:
    """A teddy bear, sitting."""
    colour = pick(rng, ("brown", "beige", "white", "pink", "grey"))
    m, dark = finish(rng, "fabric", colour), finish(rng, "plastic", "black")
    p = Piece("teddy bear", colour, "fabric")
    p.ball(0.2, 0.18, 0.24, 0, 0, 0, m)
    p.ball(0.17, 0.16, 0.16, 0, -0.01, 0.2, m)
    p.ball(0.07, 0.06, 0.06, 0, -0.085, 0.23, m)
    p.ball(0.025, 0.02, 0.02, 0, -0.115, 0.26, dark)
    for sx in (-1, 1):
        p.ball(0.06, 0.04, 0.06, sx * 0.065, 0, 0.33, m)
        p.ball(0.02, 0.02, 0.02, sx * 0.035, -0.085, 0.29, dark)
        p.ball(0.08, 0.2, 0.08, sx * 0.08, -0.12, 0, m)
        p.ball(0.07, 0.14, 0.07, sx * 0.11, -0.06, 0.12, m)
    return p


def blocks(rng: Rng, style: Style) -> Piece:
    """Building blocks."""
    p = Piece("toy blocks", "", "wood")
    for i in range(int(rng.integers(4, 9))):
        x, y = 0.11 * (i % 3 - 1) + between(rng, -0.02, 0.02), 0.12 * (i // 3 - 1)
        p.box(0.06, 0.06, 0.06, x, y, 0, finish(rng, "plastic", pick(rng, STRONG)), tilt("z", between(rng, 0, 90)))
    return p


def rug(rng: Rng, style: Style) -> Piece:
    """A rug."""
    tone = style.textile(rng)
    m, pattern = cloth(rng, tone, 0.4)
    w, d = between(rng, 1.2, 2.4), between(rng, 0.9, 1.6)
    p = Piece("rug", tone, "fabric", pattern)
    if chance(rng, 0.2):
        p.rod(d, 0.012, 0, 0, 0, m, sides=32)
        return p
    p.box(w, d, 0.01, 0, 0, 0, m)
    if chance(rng, 0.6):
        edge = finish(rng, "fabric", pick(rng, MUTED))
        for s in (-1, 1):
            p.box(0.08, d, 0.012, s * (w / 2 - 0.04), 0, 0, edge)
            p.box(w, 0.08, 0.012, 0, s * (d / 2 - 0.04), 0, edge)
    return p


def floor_mat(rng: Rng, style: Style) -> Piece:
    """A door mat or bath mat."""
    tone = style.textile(rng)
    m, pattern = cloth(rng, tone, 0.3)
    p = Piece("floor mat", tone, "fabric", pattern)
    p.box(between(rng, 0.55, 0.9), between(rng, 0.4, 0.55), 0.015, 0, 0, 0, m)
    return p


def picture(rng: Rng, style: Style) -> Piece:
    """A framed picture to hang."""
    w = between(rng, 0.25, 0.9)
    h = w * between(rng, 0.6, 1.5) if w < 0.6 else w * between(rng, 0.55, 0.9)
    frame = finish(rng, "wood", pick(rng, ("black", "white", "brown", "dark brown", "beige")))
    p = Piece("picture")
    t = between(rng, 0.015, 0.05)
    _frame(p, w, h, t, frame)
    a, b = albedo(pick(rng, ANY), rng), albedo(pick(rng, ANY), rng)
    image = Material("paper", a, "picture", b, between(rng, 0.15, 0.5), gloss=between(rng, 0, 0.06))
    if chance(rng, 0.4):
        p.box(w - 0.01, 0.01, h - 0.01, 0, -0.012, 0.005, finish(rng, "paper", "white"))
        p.box(w * 0.7, 0.004, h * 0.72, 0, -0.018, h * 0.14, image)
    else:
        p.box(w - 0.01, 0.012, h - 0.01, 0, -0.012, 0.005, image)
    return p


def _frame(p: Piece, w: float, h: float, t: float, m: Material) -> None:
    for s in (-1, 1):
        p.box(t, 0.025, h, s * (w - t) / 2, -0.0125, 0, m)
        p.box(w - 2 * t, 0.025, t, 0, -0.0125, 0 if s < 0 else h - t, m)


def poster(rng: Rng, style: Style) -> Piece:
    """A poster or map without a frame."""
    w = between(rng, 0.4, 1.0)
    a, b = albedo(pick(rng, ANY), rng), albedo(pick(rng, ANY), rng)
    p = Piece("poster", "", "paper")
    p.box(
        w,
        0.004,
        w * between(rng, 0.65, 1.45),
        0,
        -0.002,
        0,
        Material("paper", a, "picture", b, between(rng, 0.15, 0.5)),
    )
    return p


def photo(rng: Rng, style: Style) -> Piece:
    """A small framed photograph that stands on furniture."""
    w, h = between(rng, 0.12, 0.22), between(rng, 0.14, 0.26)
    turn = tilt("x", -12)
    p = Piece("picture", build="small")
    p.box(w, 0.015, h, 0, 0, 0, finish(rng, "wood", pick(rng, ("black", "white", "brown"))), turn)
    a, b = albedo(pick(rng, ANY), rng), albedo(pick(rng, ANY), rng)
    p.box(w - 0.04, 0.01, h - 0.04, 0, -0.006, 0.02, Material("paper", a, "picture", b, 0.1), turn)
    return p


def mirror(rng: Rng, style: Style) -> Piece:
    """A mirror to hang."""
    w, h = between(rng, 0.4, 0.9), between(rng, 0.5, 1.1)
    p = Piece("mirror", "", "glass")
    _frame(p, w, h, between(rng, 0.02, 0.06), finish(rng, "wood", pick(rng, ("brown", "white", "black", "beige"))))
    p.box(w - 0.01, 0.01, h - 0.01, 0, -0.01, 0.005, Material("glass", (0.75, 0.77, 0.77), gloss=0.92))
    return p


def clock(rng: Rng, style: Style) -> Piece:
    """A round wall clock."""
    w = between(rng, 0.22, 0.36)
    rim, black = (
        finish(rng, "plastic", colour := pick(rng, ("black", "white", "brown", "red", "grey"))),
        finish(rng, "plastic", "black"),
    )
    p = Piece("clock", colour)
    flat = tilt("x", 90)
    p.rod(w, 0.035, 0, -0.018, w / 2 - 0.018, rim, sides=28, turn=flat)
    p.rod(w * 0.88, 0.01, 0, -0.034, w / 2 - 0.005, finish(rng, "paper", "white"), sides=28, turn=flat)
    for length in (0.36, 0.26):
        p.box(0.012, 0.006, w * length * 2, 0, -0.04, w / 2 - w * length, black, tilt("y", between(rng, 0, 180)))
    return p


def whiteboard(rng: Rng, style: Style) -> Piece:
    """A whiteboard or a blackboard to hang."""
    w, h = between(rng, 1.2, 2.8), between(rng, 0.9, 1.25)
    p = Piece("whiteboard", "white")
    p.box(w, 0.02, h, 0, -0.01, 0, Material("plastic", (0.85, 0.86, 0.87), gloss=0.06))
    _frame(p, w + 0.04, h + 0.04, 0.03, finish(rng, "metal", "grey"))
    p.box(w * 0.6, 0.07, 0.015, 0, -0.04, 0, finish(rng, "metal", "grey"))
    for _ in range(int(rng.integers(0, 6))):
        ink = finish(rng, "plastic", pick(rng, ("black", "blue", "red", "green")))
        p.box(
            between(rng, 0.15, 0.5), 0.002, 0.014, between(rng, -w / 3, w / 3), -0.021, between(rng, 0.2, 0.85) * h, ink
        )
    return p


def wall_shelf(rng: Rng, style: Style) -> Piece:
    """A board on brackets, with books or to put things on."""
    w, d = between(rng, 0.6, 1.2), between(rng, 0.18, 0.28)
    colour = style.timber(rng)
    m = finish(rng, "wood", colour)
    p = Piece("shelf", colour, "wood")
    p.box(w, d, 0.025, 0, 0, 0, m)
    for sx in (-1, 1):
        p.box(0.02, d * 0.8, 0.02, sx * w * 0.4, 0.02, -0.02, finish(rng, "metal", style.metal))
    if chance(rng, 0.5):
        p.carry(books(rng, w * between(rng, 0.4, 0.8), d - 0.03, 0.3), 0, 0, 0.025)
    else:
        p.tops.append(Top(0, 0, 0.025, w * 0.9, d * 0.8, 0.4))
    return p


def coat_rack(rng: Rng, style: Style) -> Piece:
    """Clothes on hooks."""
    w = between(rng, 0.5, 0.9)
    p = Piece("clothes", "", "fabric")
    p.box(w, 0.02, 0.08, 0, -0.01, 1.0, finish(rng, "wood", style.wood))
    for i in range(int(rng.integers(2, 5))):
        m, h = cloth(rng, pick(rng, ANY), 0.2)[0], between(rng, 0.6, 0.95)
        x = (i + 0.5) * w / 4 - w / 2
        p.rod(between(rng, 0.2, 0.3), h, x, -0.09, 1.02 - h, m, 0.4, 10, d=0.14)
    return p


def ceiling_lamp(rng: Rng, style: Style) -> Piece:
    """A lamp whose upper end is at the ceiling, z = 0."""
    kind = pick(rng, ("dome", "pendant", "spots"))
    on = style.night or chance(rng, 0.45)
    power = between(rng, 25, 70)
    r, g, b = (c * power for c in style.warmth)
    shade = glowing(style.warmth, between(rng, 4, 9)) if on else finish(rng, "glass", "white")
    p = Piece("lamp", "white")
    z = -0.12
    if kind == "dome":
        w = between(rng, 0.28, 0.45)
        p.ball(w, w, 0.2, 0, 0, -0.11, shade, sides=20)
        p.rod(w, 0.03, 0, 0, -0.03, finish(rng, "metal", "white"), sides=20)
    elif kind == "pendant":
        drop, w = between(rng, 0.35, 0.7), between(rng, 0.3, 0.5)
        colour = pick(rng, ("white", "black", "grey", *STRONG))
        p.colour = colour
        p.rod(0.012, drop, 0, 0, -drop, finish(rng, "plastic", "black"), sides=6)
        p.rod(w, 0.22, 0, 0, -drop - 0.2, finish(rng, "metal", colour), between(rng, 0.3, 0.9), 24)
        p.ball(w * 0.5, w * 0.5, 0.1, 0, 0, -drop - 0.22, shade)
        z = -drop - 0.24
    else:
        p.box(0.8, 0.05, 0.04, 0, 0, -0.04, finish(rng, "metal", "white"))
        for i in range(3):
            p.rod(0.09, 0.11, (i - 1) * 0.3, 0, -0.15, shade, 0.7)
        z = -0.17
    if on:
        p.glows.append(Glow(0, 0, z, 0.3, 0.3, (r, g, b)))
    return p


def panel(rng: Rng, style: Style) -> Piece:
    """A flat light in the ceiling of an office or a classroom; its upper side is at z = 0."""
    w, d = pick(rng, ((0.6, 0.6), (1.2, 0.3), (1.2, 0.6)))
    power = between(rng, 12, 22)
    p = Piece("lamp", "white")
    p.box(w + 0.04, d + 0.04, 0.03, 0, 0, -0.03, finish(rng, "metal", "white"))
    p.box(w, d, 0.01, 0, 0, -0.036, glowing((1.0, 1.0, 1.0), power * 0.6))
    p.glows.append(Glow(0, 0, -0.05, w * 0.9, d * 0.9, (power, power, power * 0.97)))
    return p


CLUTTER: dict[str, Callable[[Rng, Style], Piece]] = {
    "pillow": pillow,
    "books": book_row,
    "book stack": book_stack,
    "book": book,
    "paper": paper,
    "box": box,
    "small box": small_box,
    "basket": basket,
    "bin": bin_,
    "bag": bag,
    "suitcase": suitcase,
    "bottle": bottle,
    "cup": cup,
    "bowl": bowl,
    "plate": plate,
    "vase": vase,
    "plant": plant,
    "tall plant": tall_plant,
    "laptop": laptop,
    "monitor": monitor,
    "telephone": telephone,
    "television": television,
    "microwave": microwave,
    "kettle": kettle,
    "pot": pan,
    "toaster": toaster,
    "soap": soap,
    "towel": towel,
    "folded towels": folded_towels,
    "clothes": clothes,
    "shoes": shoes,
    "ball": ball,
    "toy car": toy_car,
    "teddy bear": teddy,
    "toy blocks": blocks,
    "rug": rug,
    "floor mat": floor_mat,
    "picture": picture,
    "poster": poster,
    "photo": photo,
    "mirror": mirror,
    "clock": clock,
    "whiteboard": whiteboard,
    "shelf": wall_shelf,
    "coat rack": coat_rack,
    "ceiling lamp": ceiling_lamp,
    "panel": panel,
}
