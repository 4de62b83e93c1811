"""What stands beside a road: lamps, signs, benches, fences … Each function returns one at random, in metres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deixis.world.colours import albedo, blended, faded
from deixis.world.outdoors import ALONG, Block, Design, Piece, box, ellipsoid, extent, frustum, pick, tilt_y
from deixis.world.scene import Material, Texture, Vector

STEEL = Material("metal", (0.30, 0.31, 0.32), gloss=0.05)
IRON = Material("metal", (0.03, 0.03, 0.032))
CONCRETE = Material("concrete", (0.36, 0.35, 0.33), "speckle", (0.30, 0.29, 0.27), 0.05)
PANE = Material("glass", (0.10, 0.12, 0.13), gloss=0.15)


def coat(colour: str, rng: np.random.Generator, name: str = "metal") -> Material:
    """Paint of a named colour."""
    return Material(name, faded(albedo(colour, rng), colour, 0.3 * float(rng.random())))


def facade(colour: str, rng: np.random.Generator) -> Vector:
    """Reflectance of a wall: weathered, and bricks are never as bright as red paint."""
    base = albedo(colour, rng)
    if colour == "red":
        return blended(base, albedo("brown", rng), colour, 0.45)
    return faded(base, colour, float(rng.uniform(0.2, 0.5)))


def slim(pieces: Sequence[Piece], height: float = 2.0) -> tuple[Block, Block]:
    """Two blocks for a thing that is wide only above ``height`` [m]."""
    low = extent([p for p in pieces if p.center[2] - p.size[2] / 2 < height and max(p.size[:2]) < 1.2])
    high = extent([p for p in pieces if p.center[2] + p.size[2] / 2 > height])
    return Block(low.low, (low.high[0], low.high[1], height)), Block((high.low[0], high.low[1], height), high.high)


def lamp(rng: np.random.Generator) -> Design:
    """A street lamp, its arm towards its front."""
    colour = pick(rng, ("grey", "grey", "black", "dark green", "white"))
    metal = coat(colour, rng)
    glow = Material("glass", (0.8, 0.78, 0.7))
    if rng.random() < 0.3:
        height = float(rng.uniform(3.2, 4.2))
        pieces = [
            frustum((0, 0, height / 2), (0.14, 0.14, height), metal, taper=0.6, sides=8),
            frustum((0, 0, 0.3), (0.26, 0.26, 0.6), metal, taper=0.7, sides=8),
            ellipsoid((0, 0, height + 0.2), (0.45, 0.45, 0.45), glow),
            frustum((0, 0, height + 0.42), (0.4, 0.4, 0.12), metal, taper=0.1, sides=8),
        ]
        return Design("street lamp", tuple(pieces), colour, "metal", build="small", blocks=slim(pieces))
    height, reach = float(rng.uniform(6.5, 9.5)), float(rng.uniform(1.2, 2.2))
    pieces = [
        frustum((0, 0, height / 2), (0.2, 0.2, height), metal, taper=0.5, sides=8),
        frustum((0, 0, 0.5), (0.26, 0.26, 1.0), metal, sides=8),
        frustum((0, -reach / 2, height - 0.04), (0.09, 0.09, reach), metal, ALONG, sides=6),
        box((0, -reach - 0.2, height), (0.26, 0.7, 0.14), metal),
        box((0, -reach - 0.2, height - 0.08), (0.2, 0.5, 0.04), glow),
    ]
    return Design("street lamp", tuple(pieces), colour, "metal", blocks=slim(pieces))


def pole(rng: np.random.Generator) -> Design:
    """A telegraph pole."""
    height = float(rng.uniform(6.5, 8.5))
    wood = coat("brown", rng, "wood")
    pieces = [
        frustum((0, 0, height / 2), (0.26, 0.26, height), wood, taper=0.75, sides=8),
        box((0, 0, height - 0.5), (1.8, 0.1, 0.12), wood),
        *(frustum((x, 0, height - 0.36), (0.1, 0.1, 0.16), PANE, sides=6) for x in (-0.8, -0.3, 0.3, 0.8)),
    ]
    return Design("pole", tuple(pieces), "brown", "wood", blocks=slim(pieces))


def traffic_light(rng: np.random.Generator) -> Design:
    """A traffic light that shows one of its three colours to its front."""
    metal = coat(pick(rng, ("grey", "black", "dark green")), rng)
    height = float(rng.uniform(3.0, 3.5))
    pieces = [
        frustum((0, 0.05, height / 2), (0.13, 0.13, height), metal, sides=8),
        box((0, -0.1, height - 0.45), (0.34, 0.24, 0.95), IRON),
        box((0, -0.06, height - 0.45), (0.55, 0.03, 1.15), IRON),
    ]
    lit = int(rng.integers(3))
    for i, name in enumerate(("red", "yellow", "green")):
        r, g, b = albedo(name)
        glow = (1.6 * r, 1.6 * g, 1.6 * b) if i == lit else (0.0, 0.0, 0.0)
        lens = Material("glass", (r, g, b) if i == lit else (0.3 * r, 0.3 * g, 0.3 * b), emission=glow)
        pieces.append(frustum((0, -0.22, height - 0.15 - 0.3 * i), (0.21, 0.21, 0.06), lens, ALONG))
    return Design("traffic light", tuple(pieces), "black", "metal")


def sign(rng: np.random.Generator) -> Design:
    """A road sign: round, triangular, square, octagonal or a large board, facing its front."""
    kind = pick(rng, ("round", "round", "triangle", "square", "octagon", "arrow"))
    top = float(rng.uniform(2.2, 2.9))
    white, black = coat("white", rng), coat("black", rng)
    pieces = [frustum((0, 0.05, top / 2), (0.08, 0.08, top), STEEL, sides=8)]
    z = top - 0.32
    if kind == "round":
        colour = pick(rng, ("red", "red", "blue", "white"))
        pieces.append(frustum((0, 0, z), (0.66, 0.66, 0.03), coat(colour, rng), ALONG, sides=20))
        if colour != "blue":
            pieces.append(frustum((0, -0.01, z), (0.48, 0.48, 0.03), white, ALONG, sides=20))
        pieces.append(box((0, -0.025, z), (0.3, 0.02, 0.08), white if colour == "blue" else black))
    elif kind == "triangle":
        colour = "red"
        # ``sides=3`` has a corner at its own +x: turned to point up.
        up = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
        pieces.append(frustum((0, 0, z), (0.9, 0.9, 0.03), coat("red", rng), up, sides=3))
        pieces.append(frustum((0, -0.01, z), (0.6, 0.6, 0.03), white, up, sides=3))
        pieces.append(box((0, -0.03, z), (0.07, 0.02, 0.22), black))
    elif kind == "octagon":
        colour = "red"
        pieces.append(frustum((0, 0, z), (0.76, 0.76, 0.03), coat("red", rng), ALONG, sides=8))
        pieces.append(box((0, -0.02, z), (0.5, 0.02, 0.15), white))
    elif kind == "square":
        colour = pick(rng, ("blue", "yellow", "white", "orange"))
        pieces.append(box((0, 0, z), (0.62, 0.03, 0.62), coat(colour, rng)))
        pieces.append(
            box((0, -0.02, z), (0.22, 0.02, 0.4), black if colour in ("yellow", "orange", "white") else white)
        )
    else:
        colour = pick(rng, ("green", "blue", "yellow", "white"))
        pieces.append(box((0.3, 0, z), (1.3, 0.04, 0.4), coat(colour, rng)))
        pieces.append(box((0.3, -0.025, z), (0.9, 0.02, 0.12), black if colour in ("yellow", "white") else white))
    return Design("sign", tuple(pieces), colour, "metal", build="small" if top < 2.3 else "")


def board(rng: np.random.Generator) -> Design:
    """A large direction sign on two legs."""
    colour = pick(rng, ("blue", "green", "white"))
    ink = coat("black" if colour == "white" else "white", rng)
    width, height = float(rng.uniform(2.6, 4.2)), float(rng.uniform(1.6, 2.4))
    z = 2.2 + height / 2
    pieces = [box((0, 0, z), (width, 0.08, height), coat(colour, rng))]
    pieces += [
        box((0, -0.05, z + height * (0.28 - 0.28 * i)), (width * (0.75 - 0.12 * i), 0.02, 0.2), ink) for i in range(3)
    ]
    pieces += [
        frustum((s * width * 0.35, 0.1, (2.2 + height) / 2), (0.14, 0.14, 2.2 + height), STEEL, sides=8)
        for s in (-1, 1)
    ]
    return Design("sign", tuple(pieces), colour, "metal", build="large")


def litter_bin(rng: np.random.Generator) -> Design:
    """A litter bin or a wheeled rubbish bin."""
    if rng.random() < 0.5:
        colour = pick(rng, ("green", "grey", "black", "red", "dark green", "yellow"))
        body = coat(colour, rng)
        pieces = [
            frustum((0, 0, 0.4), (0.46, 0.46, 0.8), body, taper=1.15, sides=12),
            frustum((0, 0, 0.85), (0.56, 0.56, 0.1), IRON, taper=0.8, sides=12),
        ]
        return Design("bin", tuple(pieces), colour, "metal")
    colour = pick(rng, ("green", "blue", "black", "brown", "yellow", "dark green"))
    body = coat(colour, rng, "plastic")
    pieces = [
        box((0, 0, 0.5), (0.55, 0.6, 0.9), body),
        box((0, -0.02, 0.99), (0.6, 0.7, 0.09), body),
        *(
            frustum((x, 0.28, 0.1), (0.2, 0.2, 0.06), IRON, ((0, 0, 1), (1, 0, 0), (0, 1, 0)), sides=10)
            for x in (-0.25, 0.25)
        ),
    ]
    return Design("bin", tuple(pieces), colour, "plastic", build="large")


def bench(rng: np.random.Generator) -> Design:
    """A park bench that faces its front."""
    colour = pick(rng, ("brown", "dark brown", "green", "grey", "dark green"))
    wood = coat(colour, rng, "wood")
    width = float(rng.uniform(1.4, 2.0))
    pieces = [box((0, -0.2 + 0.14 * i, 0.45), (width, 0.12, 0.04), wood) for i in range(3)]
    pieces += [box((0, 0.19 + 0.03 * i, 0.62 + 0.16 * i), (width, 0.04, 0.12), wood) for i in range(2)]
    for side in (-1, 1):
        x = side * (width / 2 - 0.15)
        pieces += [box((x, -0.22, 0.22), (0.06, 0.06, 0.44), IRON), box((x, 0.17, 0.42), (0.06, 0.06, 0.84), IRON)]
    return Design("bench", tuple(pieces), colour, "wood")


def bollard(rng: np.random.Generator) -> Design:
    """A short post."""
    colour = pick(rng, ("black", "grey", "white", "dark green"))
    pieces = [
        frustum((0, 0, 0.45), (0.16, 0.16, 0.9), coat(colour, rng), taper=0.85, sides=10),
        frustum((0, 0, 0.76), (0.17, 0.17, 0.1), coat("red" if colour == "white" else "white", rng), sides=10),
        ellipsoid((0, 0, 0.9), (0.15, 0.15, 0.12), coat(colour, rng), sides=8),
    ]
    return Design("bollard", tuple(pieces), colour, "metal")


def hydrant(rng: np.random.Generator) -> Design:
    """A fire hydrant."""
    colour = pick(rng, ("red", "red", "yellow", "blue"))
    paint = coat(colour, rng)
    pieces = [
        frustum((0, 0, 0.05), (0.36, 0.36, 0.1), paint, sides=10),
        frustum((0, 0, 0.34), (0.26, 0.26, 0.5), paint, sides=10),
        ellipsoid((0, 0, 0.6), (0.3, 0.3, 0.26), paint),
        frustum((0, 0, 0.43), (0.15, 0.15, 0.46), STEEL, ((0, 0, 1), (1, 0, 0), (0, 1, 0)), sides=8),
        frustum((0, 0, 0.75), (0.08, 0.08, 0.08), paint, sides=6),
    ]
    return Design("hydrant", tuple(pieces), colour, "metal")


def mailbox(rng: np.random.Generator) -> Design:
    """A pillar box, or a letter box on a post."""
    if rng.random() < 0.5:
        paint = coat("red", rng)
        pieces = [
            frustum((0, 0, 0.75), (0.48, 0.48, 1.5), paint, sides=14),
            frustum((0, 0, 0.06), (0.54, 0.54, 0.12), IRON, sides=14),
            frustum((0, 0, 1.54), (0.58, 0.58, 0.12), paint, taper=0.8, sides=14),
            box((0, -0.24, 1.25), (0.26, 0.04, 0.06), IRON),
        ]
        return Design("mailbox", tuple(pieces), "red", "metal", build="large")
    colour = pick(rng, ("yellow", "blue", "red", "grey", "white"))
    paint = coat(colour, rng)
    pieces = [
        box((0, 0, 0.5), (0.1, 0.1, 1.0), STEEL),
        box((0, 0, 1.2), (0.4, 0.34, 0.5), paint),
        box((0, -0.17, 1.33), (0.28, 0.03, 0.05), IRON),
    ]
    return Design("mailbox", tuple(pieces), colour, "metal")


def cone(rng: np.random.Generator) -> Design:
    """A traffic cone."""
    body, band = coat("orange", rng, "plastic"), coat("white", rng, "plastic")
    pieces = [
        box((0, 0, 0.02), (0.4, 0.4, 0.04), IRON),
        frustum((0, 0, 0.37), (0.3, 0.3, 0.7), body, taper=0.16, sides=12),
        frustum((0, 0, 0.42), (0.225, 0.225, 0.16), band, taper=0.72, sides=12),
    ]
    return Design("traffic cone", tuple(pieces), "orange", "plastic")


def bus_stop(rng: np.random.Generator) -> Design:
    """A shelter of glass with a bench, open to its front."""
    colour = pick(rng, ("grey", "black", "green", "red", "blue"))
    metal = coat(colour, rng)
    width = float(rng.uniform(3.0, 4.2))
    pieces = [box((0, 0, 2.45), (width + 0.3, 1.6, 0.12), metal), box((0, 0.65, 1.2), (width - 0.1, 0.03, 1.9), PANE)]
    for side in (-1, 1):
        pieces += [box((side * width / 2, y, 1.2), (0.08, 0.08, 2.4), metal) for y in (-0.6, 0.65)]
    pieces.append(
        box((width / 2, 0.25, 1.2), (0.05, 0.75, 1.8), coat(pick(rng, ("yellow", "light blue", "pink", "red")), rng))
    )
    pieces.append(box((-0.3, 0.4, 0.47), (width * 0.6, 0.35, 0.05), metal))
    pieces += [box((-0.3 + s * width * 0.25, 0.4, 0.23), (0.06, 0.25, 0.45), metal) for s in (-1, 1)]
    return Design("bus stop", tuple(pieces), colour, "metal")


def fence(rng: np.random.Generator, length: float, colour: str, kind: str) -> Design:
    """A fence along its own x; ``kind``: ``planks`` or ``rails``."""
    wood = coat(colour, rng, "wood")
    high = 1.7 if kind == "planks" else 1.1
    posts = max(2, round(length / 2.4) + 1)
    pieces = [
        box(((i / (posts - 1) - 0.5) * (length - 0.1), 0, high / 2), (0.1, 0.12, high), wood) for i in range(posts)
    ]
    if kind == "planks":
        second = (0.6 * wood.albedo[0], 0.6 * wood.albedo[1], 0.6 * wood.albedo[2])
        boards = Material("wood", wood.albedo, "planks", second, 0.15)
        pieces.append(box((0, -0.04, high / 2), (length, 0.04, high - 0.12), boards))
    else:
        pieces += [box((0, -0.04, z), (length, 0.04, 0.12), wood) for z in (0.35, 0.68, 1.0)]
    return Design("fence", tuple(pieces), colour, "wood", build="large" if kind == "planks" else "")


def wall(rng: np.random.Generator, length: float, colour: str, high: float) -> Design:
    """A garden wall along its own x, of bricks or rendered."""
    r, g, b = facade(colour, rng)
    bricks = colour in ("red", "brown", "dark red", "beige")
    face = Material(
        "brick" if bricks else "concrete",
        (r, g, b),
        "bricks" if bricks else "noise",
        (0.4, 0.38, 0.34) if bricks else (0.85 * r, 0.85 * g, 0.85 * b),
        0.24,
    )
    pieces = (
        box((0, 0, high / 2), (length, 0.25, high), face),
        box((0, 0, high + 0.03), (length, 0.33, 0.07), CONCRETE),
    )
    return Design("wall", pieces, colour, face.name)


def guard_rail(rng: np.random.Generator, length: float) -> Design:
    """A crash barrier along its own x, facing its front."""
    posts = max(2, round(length / 4.0) + 1)
    pieces = [
        box(((i / (posts - 1) - 0.5) * (length - 0.2), 0.05, 0.36), (0.12, 0.1, 0.72), STEEL) for i in range(posts)
    ]
    pieces += [box((0, -0.03, 0.62 + dz), (length, 0.07, 0.11), STEEL) for dz in (-0.09, 0.09)]
    pieces.append(box((0, 0.0, 0.62), (length, 0.04, 0.2), STEEL))
    return Design("guard rail", tuple(pieces), "grey", "metal")


def house(rng: np.random.Generator, width: float, depth: float) -> Design:
    """A house with pitched roof, windows on all sides seen from the road, a door and perhaps chimneys."""
    storeys = pick(rng, (1, 1, 2, 2, 2, 3))
    colour = pick(
        rng,
        (
            "white",
            "white",
            "beige",
            "beige",
            "brown",
            "brown",
            "grey",
            "dark red",
            "red",
            "yellow",
            "light blue",
            "pink",
        ),
    )
    r, g, b = facade(colour, rng)
    bricks = colour in ("red", "brown", "dark red")
    texture: Texture = "bricks" if bricks else "noise"
    walls = Material(
        "brick" if bricks else "plaster", (r, g, b), texture, (0.8 * r, 0.8 * g, 0.8 * b), 0.25 if bricks else 1.5
    )
    tile = albedo(pick(rng, ("dark red", "red", "grey", "brown", "brown", "dark brown", "black")), rng)
    tiles = Material("tile", tile, "tiles", (0.7 * tile[0], 0.7 * tile[1], 0.7 * tile[2]), 0.35)
    frame = coat(pick(rng, ("white", "white", "brown", "dark green")), rng, "wood")
    eaves = 0.3 + 2.75 * storeys
    pieces = [box((0, 0, eaves / 2), (width, depth, eaves), walls)]
    gable = rng.random() < 0.35  # ridge towards the road
    span, run = (width, depth) if gable else (depth, width)
    pitch = min(float(rng.uniform(28, 48)), float(np.degrees(np.arctan2(2 * eaves, span))))
    rise = 0.5 * span * float(np.tan(np.radians(pitch)))
    slope = 0.5 * span / float(np.cos(np.radians(pitch))) + 0.35
    # The roof space is the upper half of a four-sided prism; its slopes are covered by thin slabs of tiles.
    lie = (
        ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
        if gable
        else ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    )
    pieces.append(frustum((0, 0, eaves), (span, 2 * rise, run), walls, lie, sides=4))
    for side in (-1, 1):
        out = side * (0.5 * slope - 0.02) * float(np.cos(np.radians(pitch)))
        up = eaves + rise - 0.5 * slope * float(np.sin(np.radians(pitch))) + 0.09
        if gable:
            pieces.append(box((out, 0, up), (slope, run + 0.5, 0.12), tiles, tilt_y(side * pitch)))
        else:
            c, s = float(np.cos(np.radians(pitch))), -side * float(np.sin(np.radians(pitch)))
            pieces.append(box((0, out, up), (run + 0.5, slope, 0.12), tiles, ((1, 0, 0), (0, c, -s), (0, s, c))))
    if rng.random() < 0.7:
        x, y = (0.25 * width, 0.1) if gable else (0.32 * width, 0.1)
        top = eaves + rise + 0.9
        chimney = walls if bricks else Material("brick", albedo("brown", rng), "bricks", (0.4, 0.36, 0.3), 0.24)
        pieces.append(box((x, y, top - 1.6), (0.6, 0.6, 3.2), chimney))
        pieces.append(frustum((x, y, top + 0.15), (0.26, 0.26, 0.4), coat("orange", rng, "clay"), sides=6))
    columns = max(2, round(width / 2.6))
    door = int(rng.integers(columns))
    tall = float(rng.uniform(1.1, 1.5))
    wide = float(rng.uniform(0.9, 1.4))
    for storey in range(storeys):
        z = 0.3 + 2.75 * storey + 1.5
        for column in range(columns):
            x = (column + 0.5 - columns / 2) * width / columns
            if storey == 0 and column == door:
                panel = coat(
                    pick(rng, ("red", "blue", "brown", "white", "dark green", "black", "turquoise")), rng, "wood"
                )
                pieces.append(box((x, -depth / 2, 1.2), (1.2, 0.12, 2.4), frame))
                pieces.append(box((x, -depth / 2 - 0.02, 1.15), (0.95, 0.14, 2.2), panel))
                pieces.append(box((x, -depth / 2 - 0.35, 0.08), (1.4, 0.7, 0.16), CONCRETE))
                continue
            pieces += window(x, -depth / 2, z, wide, tall, frame)
        for side in (-1, 1):
            pieces.append(box((side * width / 2, 0, z), (0.08, wide + 0.14, tall + 0.14), frame))
            pieces.append(box((side * width / 2, 0, z), (0.11, wide, tall), PANE))
    if gable and rise > 2.4:
        pieces += window(0, -depth / 2, eaves + 0.9, 0.8, 0.9, frame)
    return Design(
        "house", tuple(pieces), colour, walls.name, build="small" if storeys == 1 else "large" if storeys == 3 else ""
    )


def window(x: float, y: float, z: float, wide: float, tall: float, frame: Material) -> list[Piece]:
    """A window in a front wall at depth ``y``: frame, pane and sill."""
    return [
        box((x, y, z), (wide + 0.14, 0.08, tall + 0.14), frame),
        box((x, y, z), (wide, 0.11, tall), PANE),
        box((x, y - 0.02, z), (0.05, 0.1, tall), frame),
        box((x, y - 0.06, z - tall / 2 - 0.08), (wide + 0.24, 0.2, 0.07), frame),
    ]


def flats(rng: np.random.Generator, width: float, depth: float, shop: bool) -> Design:
    """A block of flats with a flat roof; ``shop``: its ground floor has shop windows under an awning."""
    storeys = int(rng.integers(3, 8))
    colour = pick(rng, ("grey", "grey", "beige", "beige", "white", "brown", "dark red", "red", "yellow", "light blue"))
    r, g, b = facade(colour, rng)
    bricks = colour in ("red", "brown", "dark red")
    texture: Texture = "bricks" if bricks else "noise"
    walls = Material(
        "brick" if bricks else "concrete", (r, g, b), texture, (0.85 * r, 0.85 * g, 0.85 * b), 0.25 if bricks else 2.0
    )
    frame = coat(pick(rng, ("white", "grey", "black")), rng)
    ground = 3.6
    height = ground + 2.9 * storeys - 2.9
    pieces = [
        box((0, 0, height / 2), (width, depth, height), walls),
        box((0, 0, height + 0.15), (width + 0.3, depth + 0.3, 0.3), CONCRETE),
    ]
    front = -depth / 2
    columns = max(2, round(width / 3.0))
    bands = rng.random() < 0.4
    for storey in range(1, storeys):
        z = ground + 2.9 * (storey - 1) + 1.5
        if bands:
            pieces.append(box((0, front, z), (width - 0.6, 0.08, 1.4), PANE))
            pieces.append(box((0, front, z - 0.85), (width - 0.4, 0.14, 0.24), frame))
        else:
            for column in range(columns):
                x = (column + 0.5 - columns / 2) * width / columns
                pieces.append(box((x, front, z), (1.5, 0.07, 1.6), frame))
                pieces.append(box((x, front, z), (1.3, 0.1, 1.4), PANE))
        pieces += [box((side * width / 2, 0, z), (0.08, depth * 0.6, 1.3), PANE) for side in (-1, 1)]
    if shop:
        awning = pick(rng, ("red", "green", "blue", "white", "orange", "dark green", "purple"))
        pieces.append(box((0, front, 1.6), (width - 0.8, 0.1, 2.4), PANE))
        pieces.append(box((0, front - 0.05, 3.1), (width - 0.4, 0.2, 0.5), coat(awning, rng)))
        pieces += [box((i * (width - 0.8) / 4, front - 0.02, 1.6), (0.1, 0.14, 2.6), frame) for i in (-1, 1)]
    else:
        pieces.append(box((0, front, 1.25), (1.7, 0.12, 2.5), frame))
        pieces.append(box((0, front - 0.02, 1.2), (1.4, 0.14, 2.2), PANE))
        pieces += [box((s * width * 0.28, front, 1.9), (width * 0.25, 0.1, 1.5), PANE) for s in (-1, 1)]
    return Design(
        "building", tuple(pieces), colour, walls.name, build="large" if storeys > 5 else "small" if storeys < 4 else ""
    )


def shed(rng: np.random.Generator, width: float, depth: float) -> Design:
    """A supermarket or a warehouse: one storey, wide, with a coloured band."""
    colour = pick(rng, ("white", "grey", "beige", "light blue"))
    walls = coat(colour, rng)
    height = float(rng.uniform(5.5, 8.0))
    pieces = (
        box((0, 0, height / 2), (width, depth, height), walls),
        box(
            (0, 0, height - 0.6),
            (width + 0.2, depth + 0.2, 1.2),
            coat(pick(rng, ("red", "blue", "green", "orange", "yellow")), rng),
        ),
        box((0, -depth / 2, 1.5), (width * 0.4, 0.1, 3.0), PANE),
        box((0, -depth / 2 - 0.9, 3.2), (width * 0.45, 1.8, 0.25), CONCRETE),
        *(box((x * width, -depth / 2, height - 2.6), (width * 0.14, 0.1, 0.9), PANE) for x in (-0.38, 0.38)),
    )
    return Design("building", pieces, colour, "metal", build="small")
