"""Furnished rooms: the same from a seed, free of collisions, and as a person would photograph them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from deixis.errors import UsageError
from deixis.world.clutter import CLUTTER
from deixis.world.colours import COLOURS
from deixis.world.furniture import FURNITURE
from deixis.world.pieces import Style
from deixis.world.placing import FLAT, Rect
from deixis.world.rooms import PLACES, make_room
from deixis.world.scene import Scene, Thing

SEATS = {"chair", "stool", "bench"}
TABLES = {"table", "desk", "coffee table"}


@pytest.fixture(scope="module")
def rooms() -> list[Scene]:
    return [make_room(seed, 64, 48) for seed in range(100)]


def rect(thing: Thing) -> Rect:
    yaw = math.radians(thing.yaw_deg)
    # one millimetre of tolerance
    return Rect(*thing.center[:2], thing.size[0] / 2 - 0.001, thing.size[1] / 2 - 0.001, math.cos(yaw), math.sin(yaw))


def test_same_seed_same_scene_and_other_seed_another():
    assert make_room(7, 64, 48) == make_room(7, 64, 48)
    assert make_room(7, 64, 48) != make_room(8, 64, 48)


def test_size_of_the_picture_does_not_change_the_room():
    assert make_room(7, 64, 48).parts == make_room(7, 320, 240).parts


def test_references_hold(rooms):
    for scene in rooms:
        assert [t.id for t in scene.things] == list(range(1, len(scene.things) + 1))
        assert {p.thing for p in scene.parts} == {t.id for t in scene.things}
        assert all(0 <= p.material < len(scene.materials) for p in scene.parts)
        assert all(0 <= t.on <= len(scene.things) and t.on != t.id for t in scene.things)
        assert all(t.colour in COLOURS or not t.colour for t in scene.things)
        assert scene.lights
        assert {"floor", "ceiling", "wall"} <= {t.name for t in scene.things}


def test_classes_and_places_are_many(rooms):
    names = {t.name for scene in rooms for t in scene.things}
    assert len(names) >= 60
    assert {scene.place for scene in rooms} == set(PLACES)
    assert max(len(scene.parts) for scene in rooms) < 1200
    assert sum(place[0] for place in PLACES.values()) == pytest.approx(1)


def test_nothing_on_the_floor_collides(rooms):
    for scene in rooms:
        floor = next(t.id for t in scene.things if t.name == "floor")
        standing = [t for t in scene.things if t.on == floor and t.mount == "on" and t.size[2] > FLAT]
        for a, b in itertools.combinations(standing, 2):
            if {a.name, b.name} & SEATS and {a.name, b.name} & TABLES:
                continue  # chairs are pushed under tables
            assert not rect(a).overlaps(rect(b)), (scene.seed, a, b)


def test_what_stands_on_something_touches_its_box(rooms):
    for scene in rooms:
        for thing in scene.things:
            if thing.mount == "on" and thing.on:
                host = scene.thing(thing.on)
                bottom, top = thing.center[2] - thing.size[2] / 2, host.center[2] + host.size[2] / 2
                assert bottom <= top + 0.05, (scene.seed, thing.name, host.name)


def test_camera_is_held_by_a_person_in_free_air(rooms):
    angles = []
    for scene in rooms:
        view, x, y, z = scene.view, *scene.view.position
        assert 0.8 < z < 2.8
        assert view.fx == view.fy
        assert (view.cx, view.cy) == (32, 24)
        angles.append(2 * math.degrees(math.atan(32 / view.fx)))
        turn = np.array(view.rotation)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) > 0
        assert turn[2, 1] < 0  # its down is down
        for thing in scene.things:
            inside = rect(thing).overlaps(Rect(x, y, 0.0, 0.0)) and abs(z - thing.center[2]) < thing.size[2] / 2
            assert not inside or thing.mount == "structure", (scene.seed, thing.name)
    assert min(angles) >= 45
    assert max(angles) <= 90
    assert 55 < float(np.median(angles)) < 68


def test_every_class_makes_sense_on_its_own():
    rng = np.random.default_rng(0)
    style = Style("brown", "grey", ("red", "grey", "blue"), False, (1.0, 0.9, 0.7))
    for make in (FURNITURE | CLUTTER).values():
        for _ in range(10):
            piece = make(rng, style)
            low, high = piece.bounds()
            assert piece.name
            assert piece.colour in COLOURS or not piece.colour
            assert all(0 < b - a < 3 for a, b in zip(low, high, strict=True)), piece.name
            assert low[2] > -0.05 or piece.name in ("lamp",), piece.name


def test_a_size_must_be_positive():
    with pytest.raises(UsageError, match="not positive"):
        make_room(0, 0, 48)
