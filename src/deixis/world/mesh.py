"""Parts as triangles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from deixis.world.scene import Part, Shape

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def triangles(parts: Sequence[Part]) -> tuple[Floats, Ints, Ints]:
    """All parts as one mesh.

    Returns:
        vertices [V, 3] in the world [m], faces [F, 3], counter-clockwise seen from outside, and the index of each
        face's part [F].
    """
    vertices, faces, owners, count = [], [], [], 0
    for number, part in enumerate(parts):
        unit, corners = _unit(part.shape, part.sides, part.taper)
        vertices.append((unit * part.size) @ np.asarray(part.rotation).T + part.center)
        faces.append(corners + count)
        owners.append(np.full(len(corners), number, dtype=np.int32))
        count += len(unit)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(owners)


@cache
def _unit(shape: Shape, sides: int, taper: float) -> tuple[Floats, Ints]:
    """A shape of extent 1 along each axis, centred at the origin."""
    if shape == "box":
        corners = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], dtype=np.int32)
    if shape == "frustum":
        bottom, top = _ring(sides, min(1.0, 1 / max(taper, 1e-9)), -0.5), _ring(sides, min(1.0, taper), 0.5)
        points = np.concatenate([bottom, top, [(0, 0, -0.5), (0, 0, 0.5)]])
        faces = []
        for i in range(sides):
            j = (i + 1) % sides
            faces += [
                (i, j, sides + j),
                (i, sides + j, sides + i),
                (2 * sides, j, i),
                (2 * sides + 1, sides + i, sides + j),
            ]
        return points, np.array(faces, dtype=np.int32)
    rings = sides // 2
    latitudes = np.pi * (np.arange(1, rings) / rings - 0.5)
    points = np.concatenate(
        [*(_ring(sides, float(np.cos(a)), 0.5 * float(np.sin(a))) for a in latitudes), [(0, 0, -0.5), (0, 0, 0.5)]]
    )
    south, north = len(points) - 2, len(points) - 1
    faces = []
    for i in range(sides):
        j = (i + 1) % sides
        last = (rings - 2) * sides
        faces += [(south, j, i), (north, last + i, last + j)]
        for r in range(rings - 2):
            a, b = r * sides, (r + 1) * sides
            faces += [(a + i, a + j, b + j), (a + i, b + j, b + i)]
    return points, np.array(faces, dtype=np.int32)


def _ring(sides: int, radius: float, z: float) -> Floats:
    """Points on a circle of diameter ``radius`` (1 fills the unit extent)."""
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.stack([0.5 * radius * np.cos(angles), 0.5 * radius * np.sin(angles), np.full(sides, z)], axis=1)
