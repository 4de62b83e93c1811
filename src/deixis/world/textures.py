"""Patterns of surfaces: wood grain, tiles, bricks, pictures …, evaluated where rays hit.

Every face carries an affine map from points to pattern coordinates (u, v), in periods of its material, so that a
pattern follows its part when that turns. Arrays of vectors are [3, N]: one row a component.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from deixis.world.scene import Scene

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TABLE = 512  # texels a side of the noise table
_TEXELS = 32  # texels a unit of noise, about the size of one blob
# Patterns that go on from part to part of the same turn, as the boxes that make up a wall with a window do.
_JOINED = ("planks", "tiles", "bricks", "speckle", "noise")


@cache
def noise_table() -> Floats:
    """Smooth noise [512, 512] that repeats, uniform in [0, 1], with blobs of about one unit and finer detail."""
    rng = np.random.default_rng(20240229)
    frequency = np.hypot(np.fft.fftfreq(_TABLE)[:, None], np.fft.rfftfreq(_TABLE)[None]) * _TEXELS
    envelope = np.where(frequency > 0.2, 1.0, 0.0) / np.maximum(frequency, 0.5) ** 1.9
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TABLE, _TABLE))) * envelope)
    ranks = np.empty(field.size, dtype=np.float32)
    ranks[np.argsort(field, axis=None, kind="stable")] = np.linspace(0, 1, field.size, dtype=np.float32)
    return ranks.reshape(field.shape)


@cache
def _dice() -> Floats:
    """Independent numbers in [0, 1], for what differs from tile to tile [256, 256]."""
    return np.random.default_rng(7).random((256, 256), dtype=np.float32)


def noise(u: Floats, v: Floats) -> Floats:
    """Smooth noise in [0, 1] at coordinates [N] in units of one blob."""
    rows, columns = (v * _TEXELS).astype(np.int64), (u * _TEXELS).astype(np.int64)
    return noise_table()[rows & (_TABLE - 1), columns & (_TABLE - 1)]


def _chance(i: Ints, j: Ints) -> Floats:
    """A number in [0, 1] that belongs to cell (i, j)."""
    return _dice()[i & 255, j & 255]


def _floor(x: npt.NDArray[np.floating]) -> tuple[Ints, Floats]:
    """Cell and place in the cell."""
    cell = np.floor(x)
    return cell.astype(np.int64), x - cell


# Each pattern maps (u, v) to the share of the second colour and to a factor on brightness.


def _grain(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    return noise(u * 0.12, v * 1.5) ** 1.5, 0.88 + 0.24 * noise(u * 0.5, v * 6)


def _planks(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    row, across = _floor(v)
    column, along = _floor(u / 9 + _chance(row, row * 0))
    tint = _chance(row, column + 1)
    gap = (across < 0.05) | (along < 0.006)
    grain = noise(u * 0.15 + 7 * tint, v * 3)
    return 0.65 * tint + 0.35 * grain, np.where(gap, np.float32(0.45), 0.88 + 0.2 * grain)


def _tiles(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    (column, x), (row, y) = _floor(u), _floor(v)
    grout = (x < 0.045) | (y < 0.045)
    return grout.astype(np.float32), 0.92 + 0.16 * _chance(row, column) * ~grout


def _bricks(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    row, y = _floor(v * 3)
    column, x = _floor(u + (row & 1).astype(np.float32) / 2)
    mortar = (x < 0.05) | (y < 0.14)
    return mortar.astype(np.float32), np.where(mortar, np.float32(1), 0.72 + 0.5 * _chance(row, column))


def _checks(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    odd = (np.floor(2 * u).astype(np.int64) + np.floor(2 * v).astype(np.int64)) & 1
    return odd.astype(np.float32), np.ones_like(u)


def _stripes(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    return (np.floor(2 * u).astype(np.int64) & 1).astype(np.float32), np.ones_like(u)


def _speckle(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    spots = _chance(np.floor(v * 8).astype(np.int64), np.floor(u * 8).astype(np.int64))
    return (spots > 0.72).astype(np.float32), 0.8 + 0.4 * noise(u * 4, v * 4)


def _noise(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    return noise(u, v), 0.95 + 0.1 * noise(u * 5, v * 5)


_PATTERNS: dict[str, tuple[Callable[[Floats, Floats], tuple[Floats, Floats]], float]] = {
    # function, share of the second colour as seen from far away
    "grain": (_grain, 0.4),
    "planks": (_planks, 0.5),
    "tiles": (_tiles, 0.09),
    "bricks": (_bricks, 0.18),
    "checks": (_checks, 0.5),
    "stripes": (_stripes, 0.5),
    "speckle": (_speckle, 0.28),
    "noise": (_noise, 0.5),
}


def _picture(part: int, u: Floats, v: Floats) -> Floats:
    """Albedo [3, N] of a painting: sky, two ridges, a disc and a few slabs of paint, all drawn from ``part``."""
    rng = np.random.default_rng([41, part])
    base = rng.random(3)

    def paint() -> Floats:
        saturated = np.clip(base + rng.normal(0, 0.32, 3), 0.03, 0.95)
        return (saturated**1.6 * rng.uniform(0.4, 1.0)).astype(np.float32)[:, None]

    image = paint() * (1 - v) + paint() * v
    disc = np.hypot(u - rng.uniform(0.2, 0.8), v - rng.uniform(0.6, 0.85)) < rng.uniform(0.05, 0.16)
    image = np.where(disc, paint(), image)
    for height in (rng.uniform(0.45, 0.65), rng.uniform(0.2, 0.4)):
        offset, bumps = rng.uniform(0, 16), rng.uniform(0.8, 2.5)
        ridge = height + 0.25 * (noise(u * np.float32(bumps) + np.float32(offset), np.full_like(v, offset)) - 0.5)
        image = np.where(v < ridge, paint() * (0.7 + 0.5 * noise(u * 4, v * 4)), image)
    for _ in range(int(rng.integers(0, 4))):
        x, y, w, h = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.6), rng.uniform(0.03, 0.2), rng.uniform(0.05, 0.3)
        image = np.where((abs(u - x) < w / 2) & (abs(v - y) < h / 2), paint(), image)
    return image


class Textures:
    """The patterns of a scene's faces.

    Args:
        scene: whose parts and materials they are.
        normals: of the faces, outward unit vectors [3, F].
        owners: index of each face's part [F].
        origin: what points are relative to, in the world [m] [3].
    """

    def __init__(self, scene: Scene, normals: Doubles, owners: npt.NDArray[np.int32], origin: Doubles) -> None:
        self._names = [material.texture for material in scene.materials]
        self._scales = np.array([material.scale for material in scene.materials], dtype=np.float32)
        self._first = np.array([material.albedo for material in scene.materials], dtype=np.float32).T  # [3, M]
        self._second = np.array([material.second for material in scene.materials], dtype=np.float32).T  # [3, M]
        self._part_materials = np.array([part.material for part in scene.parts])
        self._owners = owners
        self._origin = origin.astype(np.float32)
        patterned = np.array([name != "plain" for name in self._names])[self._part_materials]  # [P]
        self._axes = np.zeros((2, 3, len(owners)), dtype=np.float32)  # (u, v) = axes · point + shift
        self._shift = np.zeros((2, len(owners)), dtype=np.float32)
        faces = np.flatnonzero(patterned[owners])
        if len(faces):
            axes, shift = self._maps(scene, normals[:, faces], owners[faces], origin)
            self._axes[:, :, faces], self._shift[:, faces] = axes, shift

    def _maps(
        self, scene: Scene, normals: Doubles, owners: npt.NDArray[np.int32], origin: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Axes [2, 3, F] and shifts [2, F] of faces that have a pattern."""
        used, compact = np.unique(owners, return_inverse=True)
        parts = [scene.parts[i] for i in used]
        names = [self._names[part.material] for part in parts]
        size = np.array([part.size for part in parts])[compact]  # [F, 3]
        rotation = np.array([part.rotation for part in parts])[compact]  # [F, 3, 3]
        center = np.array([part.center for part in parts])[compact]  # [F, 3]
        curved = np.array([part.shape != "box" for part in parts])[compact]
        lengthwise = np.array([name in ("grain", "planks") for name in names])[compact]
        picture = np.array([name == "picture" for name in names])[compact]
        joined = np.array([part.shape == "box" and name in _JOINED for part, name in zip(parts, names, strict=True)])
        scale = np.array([self._scales[part.material] for part in parts])[compact]

        rows = np.arange(len(compact))
        local = np.einsum("fji,jf->fi", rotation, normals)
        across = np.abs(local).argmax(axis=1)
        first = np.where(across == 0, 1, 0)
        second = np.where(across == 2, 1, 2)
        axes = np.zeros((2, len(compact), 3))
        axes[0, rows, first] = axes[1, rows, second] = 1
        extent = np.stack([size[rows, first], size[rows, second]])  # [2, F]
        shift = np.zeros((2, len(compact)))
        # Round the side of a cylinder or ellipsoid u is the arc's length, continuous from face to face.
        side = curved & (np.abs(local[:, 2]) < 0.9)
        angle, radius = np.arctan2(local[:, 1], local[:, 0]), (size[:, 0] + size[:, 1]) / 4
        arc = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], axis=1)
        axes[0] = np.where(side[:, None], arc, axes[0])
        axes[1] = np.where(side[:, None], (0.0, 0.0, 1.0), axes[1])
        shift[0] = np.where(side, angle * radius, 0)
        extent = np.where(side, [2 * radius, size[:, 2]], extent)
        # Wood runs along a part, not across it.
        turn = lengthwise & (extent[1] > extent[0])
        axes, shift = np.where(turn[:, None], axes[::-1], axes), np.where(turn, shift[::-1], shift)
        period = np.where(picture, np.maximum(extent, 1e-6), scale)
        axes, shift = axes / period[:, :, None], shift / period + np.where(picture, 0.5, 0.0)
        world = np.einsum("fij,afj->afi", rotation, axes)  # [2, F, 3]
        anchor = np.where(joined[compact][:, None], origin, origin - center)
        shift = shift + (world * anchor).sum(axis=2)
        return world.transpose(0, 2, 1), shift

    def far(self) -> Floats:
        """Albedo [3, M] of every material as seen from far away."""
        shares = [_PATTERNS[name][1] if name in _PATTERNS else 0.0 for name in self._names]
        share = np.array(shares, dtype=np.float32)
        return self._first * (1 - share) + self._second * share

    def albedo(self, faces: Ints, materials: Ints, points: Floats, pixel: Floats) -> Floats:
        """Albedo where rays hit.

        Args:
            faces: face of each hit [N].
            materials: its material [N].
            points: [3, N], relative to the origin [m].
            pixel: size of a pixel's footprint there [m] [N]; patterns too fine for it fade out.

        Returns:
            Linear reflectance [3, N].
        """
        far = self.far()
        albedo = np.take(far, materials, axis=1)
        for material in np.flatnonzero(np.bincount(materials, minlength=len(self._names))):
            name = self._names[material]
            if name == "plain":
                continue
            hits = np.flatnonzero(materials == material)
            face, point = faces[hits], np.take(points, hits, axis=1)
            axes, shift = np.take(self._axes, face, axis=2), np.take(self._shift, face, axis=1)
            u, v = (axes[a, 0] * point[0] + axes[a, 1] * point[1] + axes[a, 2] * point[2] + shift[a] for a in (0, 1))
            if name == "picture":
                owners = self._owners[face]
                for part in np.unique(owners):
                    mine = owners == part
                    albedo[:, hits[mine]] = _picture(int(part), u[mine], v[mine])
                continue
            pattern, share = _PATTERNS[name]
            mix, brightness = pattern(u, v)
            sharp = np.clip(self._scales[material] / (3 * pixel[hits]) - 0.5, 0, 1)
            mix = share + sharp * (mix - np.float32(share))
            brightness = 1 + sharp * (brightness - 1)
            first, second = self._first[:, material, None], self._second[:, material, None]
            albedo[:, hits] = (first + (second - first) * mix) * brightness
        # No real surface is quite even: stains and wear about a metre and a hand wide.
        x, y = (points[i] + 0.7 * points[2] + self._origin[i] for i in (0, 1))
        albedo *= 1 + 0.14 * (noise(0.8 * x, 0.8 * y) - 0.5) + 0.08 * (noise(5 * x, 5 * y) - 0.5)
        return np.minimum(albedo, np.float32(0.95))
