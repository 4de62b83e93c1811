"""What lives beside a road: people, dogs, trees, bushes, hedges. Each function returns one at random, in metres."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deixis.world.colours import albedo
from deixis.world.outdoors import Block, Design, Piece, box, ellipsoid, extent, frustum, pick, tilt_x
from deixis.world.scene import Material, Vector

Build = Literal["", "small", "large"]

CLOTHES = (
    "red",
    "blue",
    "black",
    "white",
    "green",
    "yellow",
    "grey",
    "orange",
    "purple",
    "pink",
    "dark blue",
    "light blue",
)
TROUSERS = ("dark blue", "black", "grey", "brown", "beige", "dark brown", "blue")
SKIN: tuple[Vector, ...] = ((0.60, 0.38, 0.28), (0.50, 0.30, 0.20), (0.28, 0.15, 0.09), (0.10, 0.055, 0.035))
HAIR = ("black", "dark brown", "brown", "beige", "grey", "dark brown")


def limb(top: Vector, length: float, width: float, swing_deg: float, material: Material, taper: float = 0.7) -> Piece:
    """A leg or an arm that hangs from ``top`` and swings to the front (-y) [deg]."""
    s, c = float(np.sin(np.radians(swing_deg))), float(np.cos(np.radians(swing_deg)))
    center = (top[0], top[1] - 0.5 * length * s, top[2] - 0.5 * length * c)
    # Upside down: a limb is wider at its top, so the taper is above one.
    return frustum(center, (width, width, length), material, tilt_x(-swing_deg), 1 / taper, 8)


def person(rng: np.random.Generator) -> Design:
    """Somebody who stands or walks; children are small."""
    child = rng.random() < 0.15
    height = float(rng.uniform(1.05, 1.4) if child else np.clip(rng.normal(1.72, 0.08), 1.52, 1.95))
    k = height / 1.75
    colour = pick(rng, CLOTHES)
    shirt = Material("fabric", albedo(colour, rng))
    trousers = Material("fabric", albedo(pick(rng, TROUSERS), rng))
    skin = Material("skin", pick(rng, SKIN))
    hair = Material("hair", albedo(pick(rng, HAIR), rng))
    shoes = Material("leather", albedo(pick(rng, ("black", "white", "brown", "red")), rng))
    sleeves = shirt if rng.random() < 0.6 else skin
    stride = float(rng.uniform(14, 26)) if rng.random() < 0.65 else float(rng.uniform(-3, 3))
    skirt = rng.random() < 0.2
    pieces = []
    for side in (-1, 1):
        swing = side * stride
        leg = 0.86 * k
        pieces.append(limb((side * 0.095 * k, 0, 0.9 * k), leg, 0.165 * k, swing, skin if skirt else trousers, 0.68))
        foot = 0.9 * k - leg * float(np.cos(np.radians(swing)))
        pieces.append(
            box(
                (side * 0.095 * k, -leg * float(np.sin(np.radians(swing))) - 0.05 * k, max(foot, 0.045 * k)),
                (0.1 * k, 0.26 * k, 0.09 * k),
                shoes,
            )
        )
        pieces.append(limb((side * 0.23 * k, 0, 1.43 * k), 0.56 * k, 0.1 * k, -1.2 * swing, sleeves, 0.7))
        pieces.append(
            ellipsoid(
                (
                    side * 0.23 * k,
                    0.6 * k * float(np.sin(np.radians(1.2 * swing))),
                    1.43 * k - 0.6 * k * float(np.cos(np.radians(1.2 * swing))),
                ),
                (0.09 * k,) * 3,
                skin,
                sides=6,
            )
        )
    if skirt:
        pieces.append(frustum((0, 0, 0.74 * k), (0.5 * k, 0.4 * k, 0.5 * k), shirt, taper=0.6))
    else:
        pieces.append(ellipsoid((0, 0, 0.92 * k), (0.36 * k, 0.25 * k, 0.3 * k), trousers))
    pieces += [
        frustum((0, 0, 1.15 * k), (0.42 * k, 0.25 * k, 0.5 * k), shirt, taper=1.25),
        ellipsoid((0, 0, 1.4 * k), (0.44 * k, 0.25 * k, 0.2 * k), shirt),
        frustum((0, 0, 1.49 * k), (0.11 * k, 0.11 * k, 0.14 * k), skin, sides=8),
        ellipsoid((0, -0.01 * k, 1.63 * k), (0.17 * k, 0.2 * k, 0.25 * k), skin),
        ellipsoid((0, 0.015 * k, 1.66 * k), (0.185 * k, 0.2 * k, 0.2 * k), hair),
    ]
    if not child and rng.random() < 0.3:
        bag = Material("fabric", albedo(pick(rng, CLOTHES), rng))
        pieces.append(box((0, 0.19 * k, 1.22 * k), (0.3 * k, 0.16 * k, 0.42 * k), bag))
    return Design("person", tuple(pieces), colour, build="small" if child else "")


def dog(rng: np.random.Generator) -> Design:
    """A dog that stands."""
    small = rng.random() < 0.4
    k = 0.6 if small else 1.0
    colour = pick(rng, ("brown", "black", "white", "beige", "dark brown", "grey"))
    fur = Material("fur", albedo(colour, rng))
    pieces = [
        ellipsoid((0, 0.02 * k, 0.46 * k), (0.26 * k, 0.75 * k, 0.28 * k), fur),
        ellipsoid((0, -0.4 * k, 0.66 * k), (0.18 * k, 0.26 * k, 0.2 * k), fur),
        box((0, -0.54 * k, 0.63 * k), (0.08 * k, 0.16 * k, 0.08 * k), fur),
        frustum((0, -0.32 * k, 0.56 * k), (0.15 * k, 0.15 * k, 0.26 * k), fur, tilt_x(35), sides=8),
        frustum((0, 0.44 * k, 0.58 * k), (0.05 * k, 0.05 * k, 0.3 * k), fur, tilt_x(-40), sides=6),
        *(
            frustum((x * k, y * k, 0.2 * k), (0.08 * k, 0.08 * k, 0.4 * k), fur, sides=6)
            for x in (-0.09, 0.09)
            for y in (-0.25, 0.28)
        ),
        *(box((x * k, -0.37 * k, 0.77 * k), (0.05 * k, 0.04 * k, 0.1 * k), fur) for x in (-0.06, 0.06)),
    ]
    return Design("dog", tuple(pieces), colour, build="small" if small else "large")


def foliage(colour: str, rng: np.random.Generator) -> Material:
    """Leaves of a named colour, mottled."""
    r, g, b = albedo(colour, rng)
    return Material("leaves", (r, g, b), "noise", (0.55 * r, 0.6 * g, 0.55 * b), 0.5)


def tree(rng: np.random.Generator, height: float) -> Design:
    """A leafy tree or a conifer of this height [m]."""
    bark = Material("wood", albedo(pick(rng, ("brown", "dark brown", "grey")), rng), "grain", (0.05, 0.035, 0.025), 0.1)
    build: Build = "small" if height < 4 else "large" if height > 10 else ""
    if rng.random() < 0.25:
        leaves = foliage("dark green", rng)
        wide, stem = 0.42 * height, 0.12 * height
        pieces = [frustum((0, 0, stem), (0.035 * height, 0.035 * height, 2 * stem), bark, sides=8)]
        for i in range(4):
            low = stem + 0.21 * i * (height - stem)
            high = min(height, low + 0.42 * (height - stem))
            across = wide * (1 - 0.22 * i)
            pieces.append(frustum((0, 0, (low + high) / 2), (across, across, high - low), leaves, taper=0.08, sides=9))
        r = wide / 2
        return Design(
            "tree", tuple(pieces), "dark green", "wood", build=build, blocks=(Block((-r, -r, 0), (r, r, height)),)
        )
    autumn = rng.random() < 0.15
    colour = (
        pick(rng, ("orange", "yellow", "dark red"))
        if autumn
        else pick(rng, ("green", "green", "dark green", "light green"))
    )
    leaves = foliage(colour, rng)
    wide, stem = float(rng.uniform(0.5, 0.75)) * height, float(rng.uniform(0.28, 0.38)) * height
    thick = 0.04 * height
    pieces = [frustum((0, 0, 0.35 * height), (thick, thick, 0.7 * height), bark, taper=0.5, sides=8)]
    crown = height - stem
    turn = float(rng.uniform(0, 2 * np.pi))
    for i in range(9):
        a = turn + 2.4 * i
        out, up = (0.0, 0.62) if i == 0 else (float(rng.uniform(0.2, 0.34)) * wide, float(rng.uniform(0.2, 0.78)))
        across = wide * (0.62 if i == 0 else float(rng.uniform(0.32, 0.5)))
        tall = crown * (0.72 if i == 0 else float(rng.uniform(0.3, 0.45)))
        z = min(max(stem + up * crown, stem + tall / 2), height - tall / 2)
        pieces.append(
            ellipsoid((out * float(np.cos(a)), out * float(np.sin(a)), z), (across, across, tall), leaves, sides=10)
        )
    leafy = extent(pieces[1:])
    trunk = Block((-thick / 2, -thick / 2, 0.0), (thick / 2, thick / 2, leafy.low[2]))
    return Design("tree", tuple(pieces), colour, "wood", build=build, blocks=(trunk, leafy))


def bush(rng: np.random.Generator) -> Design:
    """A bush, perhaps in flower."""
    colour = pick(rng, ("green", "dark green", "light green", "green"))
    leaves = foliage(colour, rng)
    wide, high = float(rng.uniform(0.8, 2.0)), float(rng.uniform(0.6, 1.5))
    pieces = [ellipsoid((0, 0, 0.45 * high), (wide, wide, 1.1 * high), leaves)]
    for i in range(3):
        a, k = 2.1 * i + float(rng.uniform(0, 1)), float(rng.uniform(0.5, 0.65))
        pieces.append(
            ellipsoid(
                (0.3 * wide * float(np.cos(a)), 0.3 * wide * float(np.sin(a)), 0.5 * k * high),
                (k * wide, k * wide, 1.2 * k * high),
                leaves,
                sides=8,
            )
        )
    if rng.random() < 0.3:
        flower = Material("flower", albedo(pick(rng, ("pink", "white", "red", "yellow", "purple")), rng))
        for _ in range(7):
            a, z = float(rng.uniform(0, 6.28)), float(rng.uniform(0.3, 0.85)) * high
            r = 0.5 * wide * float(np.sqrt(max(0.05, 1 - ((z - 0.45 * high) / (0.55 * high)) ** 2)))
            pieces.append(
                ellipsoid((r * float(np.cos(a)), r * float(np.sin(a)), z), (0.14, 0.14, 0.14), flower, sides=6)
            )
    return Design("bush", tuple(pieces), colour, build="small" if high < 0.8 else "large" if high > 1.2 else "")


def hedge(rng: np.random.Generator, length: float, high: float, colour: str) -> Design:
    """A clipped hedge along its own x."""
    leaves = foliage(colour, rng)
    pieces = (
        box((0, 0, high / 2), (length, 0.7, high), leaves),
        frustum((0, 0, high), (0.7, 0.36, length - 0.04), leaves, ((0, 0, 1), (1, 0, 0), (0, 1, 0)), sides=8),
    )
    return Design("hedge", pieces, colour)
