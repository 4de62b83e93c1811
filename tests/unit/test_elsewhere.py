"""Expressions of other frames, asked where nothing is called so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deixis.training.elsewhere import elsewhere
from deixis.training.recipe import Data
from deixis.training.scenes import load_scenes

ASKED = [
    [("the red car", "car"), ("the tree", "tree")],
    [("the nearest lamp", "lamp"), ("the seat", "chair")],
    [("the bed on the left", "bed")],
]


def test_nothing_called_so_is_in_the_frame():
    shown = [{"car", "tree", "road"}, {"lamp", "chair", "floor"}, {"bed", "floor"}]
    found = elsewhere(ASKED, shown, 10)
    texts = [{text for text, _ in frame} for frame in found]
    assert texts[0] == {"the nearest lamp", "the seat", "the bed on the left"}
    assert texts[1] == {"the red car", "the tree", "the bed on the left"}
    # Read generously, as the world reads its own expressions, a bed can be a seat.
    assert texts[2] == {"the red car", "the tree", "the nearest lamp"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_as_are_wanted_and_the_same_each_time(count):
    shown = [{"car", "tree"}, set(), {"bed"}]
    found = elsewhere(ASKED, shown, count)
    assert [len(frame) for frame in found] == [count] * 3
    assert found == elsewhere(ASKED, shown, count)


def test_an_empty_pool_has_nothing():
    assert elsewhere([[], []], [{"car"}, set()], 4) == [[], []]


@pytest.mark.parametrize("source", [0, 1, 2])
def test_frames_that_are_looked_at_lack_what_is_asked(source, rooms, world):
    scenes = load_scenes(Data(root=str(rooms), world=str(world), size=(32, 48)))[source]
    found = list(scenes.elsewhere("train", 100))
    assert found
    said = {asked.text: scene.name(asked) for scene in scenes.splits["train"] for asked in scene.asked if asked.thing}
    for scene, asked in found:
        assert asked.thing is None
        assert said[asked.text] not in scene.shown()
    assert len(list(scenes.elsewhere("train", 1))) == 1


def test_photos_without_label_maps_are_left_out(rooms):
    (scenes,) = load_scenes(Data(root=str(rooms)))
    scenes.splits["train"] = [replace(scene, classes=()) for scene in scenes.splits["train"]]
    assert not list(scenes.elsewhere("train", 100))
