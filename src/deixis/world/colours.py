"""Colours that have a name: what language calls them and how surfaces of that colour reflect."""

from __future__ import annotations

import numpy as np

from deixis.world.scene import Vector

# Typical sRGB of each name (0 to 255). Kept apart enough that a person would not argue about the name.
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (236, 234, 230),
    "grey": (140, 140, 140),
    "black": (32, 32, 34),
    "red": (178, 34, 34),
    "dark red": (102, 20, 28),
    "orange": (226, 120, 32),
    "yellow": (226, 192, 48),
    "green": (52, 128, 58),
    "dark green": (28, 72, 44),
    "light green": (152, 200, 132),
    "turquoise": (64, 178, 170),
    "blue": (40, 84, 172),
    "dark blue": (24, 40, 92),
    "light blue": (136, 182, 222),
    "purple": (104, 56, 140),
    "pink": (226, 144, 168),
    "brown": (112, 72, 42),
    "dark brown": (66, 42, 28),
    "beige": (206, 186, 150),
}


def albedo(name: str, rng: np.random.Generator | None = None, spread: float = 0.08) -> Vector:
    """Linear reflectance of a named colour, varied a little where ``rng`` is given.

    Args:
        name: key of :data:`COLOURS`.
        rng: source of the variation.
        spread: its size, as a share; small enough that the name stays true.
    """
    red, green, blue = _LINEAR[name]
    if rng is not None:  # in plain Python: scenes ask hundreds of times, and numpy takes long over three numbers
        light, tint = 1 + spread * float(rng.standard_normal()), 0.3 * spread
        r, g, b = rng.standard_normal(3).tolist()
        red, green, blue = red * light * (1 + tint * r), green * light * (1 + tint * g), blue * light * (1 + tint * b)
    return _bounded(red), _bounded(green), _bounded(blue)


def mixed(a: Vector, b: Vector, share: float) -> Vector:
    """A colour with a share of another in it, both linear."""
    keep = 1 - share
    return keep * a[0] + share * b[0], keep * a[1] + share * b[1], keep * a[2] + share * b[2]


def faded(colour: Vector, name: str, share: float) -> Vector:
    """A colour with a share of the grey that is as bright as it, or less of it where it would lose its name."""
    grey = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    return blended(colour, (grey, grey, grey), name, share)


def blended(colour: Vector, other: Vector, name: str, share: float) -> Vector:
    """A colour with a share of another, halved until ``name`` still is the nearest one, if it was before."""
    for _ in range(4):
        mix = mixed(colour, other, share)
        if nearest_colour(mix) == name:
            return mix
        share /= 2
    return colour


def nearest_colour(linear: Vector) -> str:
    """The name whose sRGB value is nearest to that of a linear reflectance."""
    red, green, blue = (255 * _srgb(min(max(value, 0.0), 1.0)) for value in linear)

    def distance(name: str) -> float:
        r, g, b = COLOURS[name]
        return (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2

    return min(COLOURS, key=distance)


def _bounded(value: float) -> float:
    return min(max(value, 0.004), 0.92)


def _srgb(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * float(linear ** (1 / 2.4)) - 0.055


def _linear(code: int) -> float:
    srgb = code / 255
    return srgb / 12.92 if srgb <= 0.04045 else float(((srgb + 0.055) / 1.055) ** 2.4)


_LINEAR: dict[str, Vector] = {name: (_linear(r), _linear(g), _linear(b)) for name, (r, g, b) in COLOURS.items()}
