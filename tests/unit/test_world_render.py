"""The renderer: exact depth and ids, shadows, and the same bytes every time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from deixis.errors import UsageError
from deixis.world.mesh import triangles
from deixis.world.render import draw
from deixis.world.scene import Light, Material, Part, Scene, Sky, Thing, View

UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
AHEAD = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # camera to world, looking along y
WIDTH, HEIGHT, FOCAL = 48, 36, 40.0


def turned(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return ((float(c), float(-s), 0.0), (float(s), float(c), 0.0), (0.0, 0.0, 1.0))


def box(thing, size, center, rotation=UPRIGHT, **changes):
    return Part(thing, changes.pop("shape", "box"), size, center, rotation, changes.pop("material", 0), **changes)


def scene(parts, lights=(), sky=None, **view):
    materials = (
        Material("", (0.7, 0.7, 0.7)),
        Material("wood", (0.5, 0.3, 0.2), "planks", (0.3, 0.2, 0.1), gloss=0.2),
        Material("", (0.6, 0.1, 0.1), "checks", (0.9, 0.9, 0.9)),
        Material("", (0.6, 0.1, 0.1), "picture"),
    )
    things = tuple(Thing(i + 1, "thing") for i in range(max(part.thing for part in parts)))
    camera = View((0.0, 0.0, 1.5), AHEAD, FOCAL, FOCAL, 23.4, 17.8, WIDTH, HEIGHT, **view)
    return Scene(5, "room", "test", things, tuple(parts), materials, tuple(lights), sky, camera)


def furnished():
    """A room with turned boxes, a cylinder and a ball, in which nothing touches the camera."""
    parts = [
        box(1, (6.0, 8.0, 0.2), (0.0, 3.0, -0.1), material=1),
        box(2, (6.0, 0.2, 3.0), (0.0, 6.0, 1.5), turned(8), material=2),
        box(3, (0.8, 0.6, 1.1), (-0.7, 3.5, 0.55), turned(30), material=3),
        box(4, (0.7, 0.7, 1.2), (0.8, 3.0, 0.6), turned(5), shape="frustum", taper=0.4, sides=12),
        box(5, (0.6, 0.6, 0.6), (0.1, 2.6, 1.6), turned(17), shape="ellipsoid", sides=14, material=1),
    ]
    return scene(parts, [Light((0.0, 2.0, 3.0), (0.5, 0.0, 0.0), (0.0, -0.5, 0.0), (9.0, 8.0, 7.0))], noise=0.01)


def test_depth_of_a_wall_straight_ahead_is_planar():
    frame = draw(scene([box(1, (40.0, 0.5, 40.0), (0.0, 4.25, 0.0))]), samples=1)
    np.testing.assert_allclose(frame.depth, 4.0, rtol=1e-6)
    assert frame.depth.dtype == np.float32
    assert (frame.ids == 1).all()


def test_depth_of_a_floor_is_analytic_at_pixel_centres():
    frame = draw(scene([box(1, (400.0, 400.0, 0.2), (0.0, 0.0, -0.1))]), samples=1)
    rows = np.arange(HEIGHT) + 0.5 - 17.8
    below = rows > 0.5
    expected = 1.5 * FOCAL / rows[below]
    np.testing.assert_allclose(frame.depth[below], np.tile(expected[:, None], (1, WIDTH)), rtol=1e-6)


def test_depth_and_ids_agree_with_another_ray_caster():
    subject = furnished()
    frame = draw(subject, samples=1)
    vertices, faces, owners = triangles(subject.parts)
    a, b, c = vertices[faces].transpose(1, 0, 2)
    x = (np.arange(WIDTH) + 0.5 - 23.4) / FOCAL
    y = (np.arange(HEIGHT) + 0.5 - 17.8) / FOCAL
    camera = np.stack([*np.meshgrid(x, y), np.ones((HEIGHT, WIDTH))], axis=-1).reshape(-1, 3)
    rays = camera @ np.array(AHEAD).T
    # Möller and Trumbore's intersection, every ray with every triangle.
    side, up = b - a, c - a
    p = np.cross(rays[:, None], up)
    determinant = (side * p).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = np.array([0.0, 0.0, 1.5]) - a
        u = (offset * p).sum(-1) / determinant
        q = np.cross(offset, side)
        v = np.einsum("nk,fk->nf", rays, q) / determinant
        t = (up * q).sum(-1) / determinant
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6)
    t = np.where(hit, t, np.inf)
    nearest = t.argmin(axis=1)
    depth = t.min(axis=1)
    ids = np.where(np.isfinite(depth), np.array([p.thing for p in subject.parts])[owners[nearest]], 0)
    depth = np.where(np.isfinite(depth), depth, 0)
    same = frame.ids.ravel() == ids
    assert same.mean() > 0.999
    np.testing.assert_allclose(frame.depth.ravel()[same], depth[same], rtol=1e-4)
    assert set(np.unique(ids)) >= {1, 2, 3, 4, 5}


def test_the_same_bytes_twice():
    first, second = draw(furnished()), draw(furnished())
    assert first.rgb.tobytes() == second.rgb.tobytes()
    assert first.depth.tobytes() == second.depth.tobytes()
    assert first.rgb.shape == (HEIGHT, WIDTH, 3)
    assert first.rgb.dtype == np.uint8


def test_sky_has_neither_depth_nor_id():
    sky = Sky((0.6, 0.0, 0.8), (3.0, 3.0, 3.0), 0.5, (0.3, 0.5, 1.0), (0.8, 0.9, 1.0), cloud=0.4)
    frame = draw(scene([box(1, (9.0, 9.0, 0.2), (0.0, 4.0, -0.1), material=1)], sky=sky), samples=2)
    assert (frame.depth[:15] == 0).all()
    assert (frame.ids[:15] == 0).all()
    assert frame.rgb[:10].mean() > 60
    assert (frame.ids[-5:] == 1).all()


def test_a_shadowed_spot_is_darker():
    parts = [box(1, (20.0, 20.0, 0.2), (0.0, 4.0, -0.1)), box(2, (1.0, 1.0, 0.1), (0.0, 5.0, 2.6))]
    light = Light((0.0, 5.0, 4.0), (0.1, 0.0, 0.0), (0.0, -0.1, 0.0), (200.0, 200.0, 200.0))
    grey = draw(scene(parts, [light])).rgb.mean(axis=2)
    row = int(17.8 + 1.5 * FOCAL / 5.0)  # where the floor is 5 m away, under the board
    assert grey[row, 23] < 0.5 * grey[row, 2]
    assert grey[row, 2] > 60


def test_nothing_in_sight_is_black():
    frame = draw(scene([box(1, (1.0, 1.0, 1.0), (0.0, -4.0, 1.5))]), samples=2)
    assert frame.rgb.max() == 0
    assert frame.depth.max() == 0


def test_no_light_is_black():
    assert draw(scene([box(1, (2.0, 2.0, 2.0), (0.0, 4.0, 1.5))]), samples=1).rgb.max() == 0


@pytest.mark.parametrize("library", ["embreex.rtcore_scene", "pyoidn"])
def test_a_missing_library_is_named_in_one_line(library, monkeypatch):
    from deixis.world import render

    render._filter.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=r"the world's renderer: is not installed; pip install 'deixis\[world\]'"):
        draw(furnished(), samples=1)


def test_samples_must_be_positive():
    with pytest.raises(UsageError, match="samples: is 0"):
        draw(furnished(), samples=0)
