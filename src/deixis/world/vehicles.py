"""Cars, vans, trucks, buses, motorcycles and bicycles. Each function returns one at random, in metres."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deixis.world.colours import albedo, faded
from deixis.world.outdoors import ACROSS, Design, Piece, box, ellipsoid, frustum, pick, tilt_x
from deixis.world.scene import Material, Vector

Build = Literal["", "small", "large"]

PAINTS = ("white", "white", "grey", "grey", "black", "black", "red", "dark red", "blue", "dark blue")
RARE_PAINTS = ("yellow", "orange", "green", "dark green", "light blue", "turquoise", "beige", "brown", "purple", "pink")
GLASS = Material("glass", (0.018, 0.022, 0.026), gloss=0.12)
TYRE = Material("rubber", (0.02, 0.02, 0.021))
HUB = Material("metal", (0.36, 0.37, 0.38), gloss=0.1)
TRIM = Material("plastic", (0.03, 0.03, 0.032))
LAMP = Material("glass", (0.75, 0.76, 0.74), gloss=0.15)
TAIL_LAMP = Material("plastic", (0.5, 0.015, 0.015), gloss=0.05)
PLATE = Material("metal", (0.72, 0.71, 0.66))
CHROME = Material("metal", (0.45, 0.46, 0.47), gloss=0.25)
LEATHER = Material("leather", (0.03, 0.025, 0.022))


def paint(colour: str, rng: np.random.Generator) -> Material:
    """Glossy lacquer of a named colour."""
    return Material("metal", faded(albedo(colour, rng), colour, 0.35 * float(rng.random())), gloss=0.06)


def any_paint(rng: np.random.Generator) -> str:
    """A colour as they are seen on roads: often dull, now and then bright."""
    return pick(rng, PAINTS) if rng.random() < 0.75 else pick(rng, RARE_PAINTS)


def wheel(x: float, y: float, radius: float, width: float) -> list[Piece]:
    """A tyre and its rim; ``x``, ``y``: the tyre's middle [m]."""
    size = (2 * radius, 2 * radius, width)
    rim = (1.25 * radius, 1.25 * radius, width + 0.03)
    return [frustum((x, y, radius), size, TYRE, ACROSS), frustum((x, y, radius), rim, HUB, ACROSS, sides=8)]


def ends(length: float, width: float, low: float, high: float) -> list[Piece]:
    """Lamps and number plates at both ends; ``low``, ``high``: heights of plate and lamps [m]."""
    pieces = [
        box((0, -length / 2, low), (0.5, 0.05, 0.11), PLATE),
        box((0, length / 2, low + 0.12), (0.5, 0.05, 0.11), PLATE),
    ]
    for side in (-1, 1):
        x = side * (width / 2 - 0.2)
        pieces.append(box((x, -length / 2 + 0.02, high), (0.34, 0.08, 0.15), LAMP))
        pieces.append(box((x + side * 0.04, length / 2 - 0.02, high + 0.06), (0.26, 0.08, 0.2), TAIL_LAMP))
    return pieces


def car(rng: np.random.Generator) -> Design:
    """A hatchback, saloon, estate or off-road car."""
    body = pick(rng, ("hatchback", "hatchback", "saloon", "saloon", "estate", "off-road"))
    length, width, height = {
        "hatchback": (3.9, 1.70, 1.48),
        "saloon": (4.6, 1.80, 1.43),
        "estate": (4.65, 1.80, 1.48),
        "off-road": (4.5, 1.86, 1.72),
    }[body]
    build: Build = "large" if body == "off-road" else ""
    if body == "hatchback" and rng.random() < 0.35:
        length, width, build = 3.45, 1.60, "small"
    length *= 1 + 0.02 * float(rng.standard_normal())
    colour = any_paint(rng)
    lacquer = paint(colour, rng)
    radius = 0.37 if body == "off-road" else 0.31
    belt = 0.62 * height  # where the windows begin
    rise = height - belt - 0.03
    bottom = 0.55 * radius + 0.04
    pieces = [
        box((0, 0, (bottom + belt - 0.17) / 2), (width, length - 0.1, belt - 0.17 - bottom), lacquer),
        # A hexagonal prism: its upper half slopes towards both ends as bonnet and boot do.
        frustum((0, 0, belt - 0.2), (length - 0.04, 0.2 / 0.433, width - 0.04), lacquer, ACROSS, sides=6),
        box((0, 0, bottom + 0.06), (width - 0.08, length, 0.2), TRIM),
    ]
    # The cabin is another such prism, of dark glass: windscreen and rear window are its slopes. ``sides=6`` has
    # its corners along y, and a flat top half as long.
    blunt = body != "saloon"  # the roof runs on to the tail
    cabin = 0.62 * length if not blunt else 0.66 * length
    middle = 0.05 * length if not blunt else 0.02 * length
    pieces.append(frustum((0, middle, belt), (cabin, rise / 0.433, width - 0.14), GLASS, ACROSS, sides=6))
    front, back = middle - cabin / 4, middle + cabin / 4  # ends of the flat top
    if blunt:
        tail = length / 2 - 0.06
        back = tail - 0.12
        pieces.append(box((0, (middle + back) / 2, belt + rise / 2), (width - 0.15, back - middle, rise), GLASS))
        pieces.append(box((0, back - 0.13, belt + rise / 2), (width - 0.1, 0.22, rise), lacquer))
        pieces.append(box((0, back, belt + 0.55 * rise), (width - 0.4, 0.05, 0.62 * rise), GLASS))
    pieces.append(box((0, (front + back) / 2, height - 0.03), (width - 0.18, back - front + 0.06, 0.07), lacquer))
    lean = float(np.degrees(np.arctan2(rise, cabin / 4)))
    slope = float(np.hypot(rise, cabin / 4))
    for side in (-1, 1):
        x = side * (width / 2 - 0.085)
        pieces.append(box((x, front - cabin / 8, belt + rise / 2), (0.06, slope, 0.09), lacquer, tilt_x(lean)))
        if not blunt:
            pieces.append(box((x, back + cabin / 8, belt + rise / 2), (0.06, slope, 0.16), lacquer, tilt_x(-lean)))
        pieces.append(box((x, middle + 0.05, belt + rise / 2), (0.05, 0.09, rise), lacquer))
        pieces.append(box((side * (width / 2 + 0.06), front - cabin / 5, belt + 0.06), (0.18, 0.1, 0.13), lacquer))
        for y in (-0.5 * length + 0.8, 0.5 * length - 0.72):
            pieces += wheel(side * (width / 2 - 0.1), y, radius, 0.21)
    pieces += ends(length, width, 0.45, 0.47 * height)
    pieces.append(box((0, -length / 2 + 0.02, 0.40 * height), (0.36 * width, 0.07, 0.1), TRIM))
    if body == "off-road" or (body == "estate" and rng.random() < 0.5):
        for side in (-1, 1):
            x = side * (width / 2 - 0.2)
            pieces.append(box((x, (front + back) / 2, height + 0.03), (0.05, back - front - 0.2, 0.06), TRIM))
    return Design("car", tuple(pieces), colour, "metal", build=build)


def taxi(rng: np.random.Generator) -> Design:
    """A car with a lit box on its roof."""
    design = car(rng)
    top = max(p.center[2] + p.size[2] / 2 for p in design.pieces if p.shape == "box")
    mark = box(
        (0, 0, top + 0.07), (0.45, 0.16, 0.14), Material("plastic", albedo("yellow"), emission=(0.2, 0.16, 0.02))
    )
    return Design("taxi", (*design.pieces, mark), design.colour, design.material)


def van(rng: np.random.Generator) -> Design:
    """A delivery van, closed or with windows all along."""
    length, width, height = pick(rng, ((4.6, 1.85, 1.9), (5.3, 2.0, 2.3), (5.9, 2.05, 2.65)))
    build: Build = "small" if length < 5 else "large" if length > 5.5 else ""
    colour = pick(rng, ("white", "white", "white", *PAINTS, *RARE_PAINTS))
    lacquer = paint(colour, rng)
    nose = 1.15  # bonnet and windscreen
    rear = length - nose
    belt = 0.58 * height
    pieces = [
        box((0, nose / 2, (0.3 + height) / 2), (width, rear, height - 0.3), lacquer),
        box((0, -rear / 2 + 0.05, (0.3 + belt - 0.15) / 2), (width - 0.04, nose, belt - 0.45), lacquer),
        # A prism whose slope is the windscreen.
        frustum(
            (0, -length / 2 + nose, belt - 0.12),
            (2 * nose - 0.1, (height - belt) / 0.433, width - 0.1),
            GLASS,
            ACROSS,
            sides=6,
        ),
        box((0, 0, 0.36), (width - 0.06, length, 0.2), TRIM),
    ]
    glazed = rng.random() < 0.35
    for side in (-1, 1):
        x = side * width / 2
        first = -length / 2 + nose + 0.55
        pieces.append(box((x, first, belt + 0.3), (0.03, 0.8, 0.5), GLASS))
        if glazed:
            pieces.append(box((x, first + 1.9, belt + 0.3), (0.03, length - 3.3, 0.5), GLASS))
        else:
            pieces.append(box((x, first + 1.2, height / 2 + 0.1), (0.02, 0.03, height - 0.6), TRIM))
        pieces.append(box((side * (width / 2 + 0.1), first - 0.45, belt + 0.15), (0.2, 0.1, 0.26), TRIM))
        for y in (-length / 2 + 0.9, length / 2 - 0.95):
            pieces += wheel(side * (width / 2 - 0.1), y, 0.33, 0.22)
        pieces.append(box((side * 0.45, length / 2, belt + 0.35), (0.7, 0.03, 0.5), GLASS))
    pieces.append(box((0, length / 2, height / 2 + 0.1), (0.03, 0.04, height - 0.7), TRIM))
    pieces += ends(length, width, 0.5, 0.85)
    return Design("van", tuple(pieces), colour, "metal", build=build)


def truck(rng: np.random.Generator) -> Design:
    """A lorry with a box, a tipper or a long trailer."""
    kind = pick(rng, ("box", "box", "tipper", "trailer"))
    length, width, height = {"box": (7.5, 2.4, 3.3), "tipper": (7.0, 2.45, 2.9), "trailer": (13.0, 2.5, 3.9)}[kind]
    build: Build = "large" if kind == "trailer" else ""
    colour = pick(rng, ("white", "red", "blue", "yellow", "green", "orange", "dark blue", "grey"))
    lacquer = paint(colour, rng)
    load_colour = colour if kind == "tipper" or rng.random() < 0.4 else pick(rng, ("white", "grey", colour))
    load = paint(load_colour, rng)
    cab = 2.0
    front = -length / 2
    top = min(height, 2.75) if kind != "trailer" else 3.1
    pieces = [
        box((0, front + cab / 2 + 0.02, (0.5 + top) / 2), (width - 0.1, cab, top - 0.5), lacquer),
        box((0, front + 0.01, top - 0.75), (width - 0.3, 0.06, 0.85), GLASS),
        box((0, front, 1.25), (width - 0.9, 0.06, 0.5), TRIM),
        box((0, front + 0.02, 0.6), (width - 0.06, 0.1, 0.36), TRIM),
        box((0, 0.2, 0.85), (0.9, length - 0.5, 0.25), TRIM),
    ]
    deck = length - cab - 0.25
    middle = length / 2 - deck / 2
    if kind == "tipper":
        pieces.append(box((0, middle, 1.65), (width, deck, 1.3), load))
        pieces.append(box((0, middle, 2.31), (width - 0.25, deck - 0.25, 0.06), Material("soil", (0.12, 0.08, 0.05))))
        pieces += [
            box((s * width / 2, middle + (i - 1.5) * deck / 4, 1.65), (0.08, 0.1, 1.25), load)
            for s in (-1, 1)
            for i in range(4)
        ]
    else:
        pieces.append(box((0, middle, (1.0 + height) / 2), (width, deck, height - 1.0), load))
        pieces.append(box((0, length / 2, (1.0 + height) / 2), (0.04, 0.04, height - 1.1), TRIM))
    axles = [front + 1.2, length / 2 - 1.6]
    if kind != "box":
        axles.append(length / 2 - 2.8)
    if kind == "trailer":
        axles.append(front + 3.6)
    for side in (-1, 1):
        x = side * (width / 2 - 0.05)
        pieces.append(box((x, front + 0.75, top - 0.75), (0.05, 0.9, 0.75), GLASS))
        pieces.append(box((side * (width / 2 + 0.12), front + 0.1, top - 0.8), (0.22, 0.1, 0.5), TRIM))
        for y in axles:
            pieces += wheel(side * (width / 2 - 0.16), y, 0.48, 0.3)
    pieces += ends(length, width, 0.6, 0.85)
    return Design("truck", tuple(pieces), colour, "metal", build=build)


def bus(rng: np.random.Generator) -> Design:
    """A city bus, a coach or a minibus."""
    length, width, height = pick(rng, ((11.5, 2.5, 3.1), (11.8, 2.5, 3.5), (7.4, 2.2, 2.8)))
    build: Build = "small" if length < 8 else ""
    colour = pick(rng, ("red", "yellow", "blue", "green", "white", "orange", "light blue", "dark green"))
    lacquer = paint(colour, rng)
    sill, band = 1.25, height - 2.0
    pieces = [
        box((0, 0, (0.32 + height) / 2), (width, length, height - 0.32), lacquer),
        box((0, -length / 2, 0.35 + height / 2), (width - 0.16, 0.05, height * 0.5), GLASS),
        box(
            (0, -length / 2 - 0.02, height - 0.3),
            (1.5, 0.05, 0.26),
            Material("glass", (0.02, 0.02, 0.02), emission=(0.5, 0.28, 0.03)),
        ),
        box((0, length / 2, sill + band / 2), (width - 0.5, 0.05, band), GLASS),
        box((0, 0, 0.4), (width - 0.04, length + 0.04, 0.16), TRIM),
    ]
    for side in (-1, 1):
        x = side * width / 2
        pieces.append(box((x, 0, sill + band / 2), (0.03, length - 0.5, band), GLASS))
        count = round(length / 1.7)
        pieces += [
            box((x, (i + 0.5 - count / 2) * 1.7, sill + band / 2), (0.05, 0.1, band), lacquer) for i in range(count)
        ]
        for y in (-length / 2 + 2.4, length / 2 - 2.6):
            pieces += wheel(side * (width / 2 - 0.14), y, 0.48, 0.3)
        pieces.append(box((side * (width / 2 + 0.12), -length / 2, height - 0.8), (0.2, 0.12, 0.4), TRIM))
    for y in (-length / 2 + 0.9, 0.1):  # doors
        pieces.append(box((width / 2, y, 1.5), (0.06, 1.15, 2.1), GLASS))
        pieces.append(box((width / 2, y, 1.5), (0.07, 0.06, 2.1), TRIM))
    pieces += ends(length, width, 0.55, 0.8)
    return Design("bus", tuple(pieces), colour, "metal", build=build)


def tube(a: Vector, b: Vector, width: float, material: Material) -> Piece:
    """A thin bar in the plane of y and z from one point to another."""
    dy, dz = b[1] - a[1], b[2] - a[2]
    center = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
    return box(center, (width, float(np.hypot(dy, dz)), width), material, tilt_x(float(np.degrees(np.arctan2(dz, dy)))))


def bicycle(rng: np.random.Generator) -> Design:
    """A bicycle on its stand."""
    small = rng.random() < 0.2
    colour = pick(rng, ("red", "blue", "green", "black", "yellow", "white", "turquoise", "orange", "purple"))
    lacquer = paint(colour, rng)
    k = 0.75 if small else 1.0
    r, reach = 0.34 * k, 0.53 * k
    pieces = []
    for y in (-reach, reach):
        pieces.append(frustum((0, y, r), (2 * r, 2 * r, 0.035), TYRE, ACROSS, sides=16))
        pieces.append(frustum((0, y, r), (1.8 * r, 1.8 * r, 0.04), HUB, ACROSS, sides=16))
    crank, saddle, head = (0.0, 0.05 * k, 0.28 * k), (0.0, 0.2 * k, 0.88 * k), (0.0, -0.36 * k, 0.86 * k)
    for a, b in ((crank, saddle), (crank, head), (saddle, head), (crank, (0.0, reach, r)), (saddle, (0.0, reach, r))):
        pieces.append(tube(a, b, 0.045, lacquer))
    pieces.append(tube(head, (0.0, -reach, r), 0.045, lacquer))
    pieces.append(box((0, -0.37 * k, 1.0 * k), (0.56 * k, 0.05, 0.04), TRIM))
    pieces.append(tube(head, (0.0, -0.37 * k, 1.0 * k), 0.04, TRIM))
    pieces.append(box((0, 0.22 * k, 0.92 * k), (0.15, 0.27, 0.07), LEATHER))
    pieces.append(box((0, 0.02, 0.25 * k), (0.3, 0.08, 0.04), TRIM))
    return Design("bicycle", tuple(pieces), colour, "metal", build="small" if small else "")


def motorcycle(rng: np.random.Generator) -> Design:
    """A motorcycle or a scooter on its stand."""
    colour = pick(rng, ("red", "blue", "black", "yellow", "green", "white", "orange", "light blue"))
    lacquer = paint(colour, rng)
    scooter = rng.random() < 0.4
    r, reach = (0.22, 0.62) if scooter else (0.31, 0.72)
    pieces = []
    for y in (-reach, reach):
        pieces.append(frustum((0, y, r), (2 * r, 2 * r, 0.13), TYRE, ACROSS, sides=14))
        pieces.append(frustum((0, y, r), (1.1 * r, 1.1 * r, 0.15), HUB, ACROSS, sides=8))
    if scooter:
        pieces.append(box((0, -0.05, 0.32), (0.3, 0.9, 0.12), lacquer))
        pieces.append(box((0, -0.48, 0.62), (0.36, 0.1, 0.75), lacquer, tilt_x(-15)))
        pieces.append(ellipsoid((0, 0.42, 0.52), (0.36, 0.85, 0.5), lacquer))
    else:
        pieces.append(box((0, 0.0, 0.42), (0.3, 0.6, 0.36), CHROME))
        pieces.append(ellipsoid((0, -0.16, 0.78), (0.34, 0.62, 0.3), lacquer))
        pieces.append(box((0, 0.62, 0.7), (0.24, 0.5, 0.1), lacquer, tilt_x(12)))
        pieces.append(tube((0.14, -0.1, 0.3), (0.14, 0.85, 0.36), 0.1, CHROME))
    pieces.append(tube((0.0, -0.5, 0.95), (0.0, -reach, r), 0.1, HUB))
    pieces.append(box((0, 0.34, 0.82), (0.28, 0.65, 0.1), LEATHER))
    pieces.append(box((0, -0.47, 1.02), (0.72, 0.05, 0.05), TRIM))
    pieces.append(ellipsoid((0, -0.6, 0.9), (0.2, 0.16, 0.2), LAMP))
    pieces.append(box((0, 0.88, 0.72), (0.12, 0.05, 0.08), TAIL_LAMP))
    return Design("motorcycle", tuple(pieces), colour, "metal")
