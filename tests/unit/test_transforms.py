"""Changes of samples: everything moves together, words as well, and a seed decides."""

from __future__ import annotations

import colorsys
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from deixis.camera import Camera
from deixis.data import transforms
from deixis.data.dataset import Expression, Sample
from deixis.data.transforms import (
    BTSColour,
    CutDepth,
    RandomCrop,
    RandomFlip,
    VPDColour,
    crop,
    flip,
    transformed,
    vpd_augmentation,
)
from deixis.errors import UsageError
from deixis.types import Text

HEIGHT, WIDTH = 12, 16


@pytest.fixture
def sample() -> Sample:
    rng = np.random.default_rng(3)
    left = np.zeros((HEIGHT, WIDTH), dtype=bool)
    left[2:5, 1:4] = True
    return Sample(
        name="a",
        rgb=rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        depth=rng.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32),
        mask=rng.random((HEIGHT, WIDTH)) < 0.5,
        camera=Camera(20.0, 21.0, 7.0, 5.5, WIDTH, HEIGHT),
        expressions=(
            Expression("the leftmost bright chair, LEFT of the bed", left, "a-0", 2.5),
            Expression("the left-hand lion", np.zeros_like(left), "a-1"),
        ),
        instances=np.where(left, 4, 0).astype(np.int32),
        instance_names={4: "chair"},
        texts={"caption": Text("A chair on the left, a bed on the Right.", "caption:x")},
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(sample: Sample) -> list[np.ndarray]:
    whole = [sample.rgb, sample.depth, sample.mask, sample.instances, *(one.mask for one in sample.expressions)]
    return [one for one in whole if one is not None]


def same(one: Sample, other: Sample) -> bool:
    return len(maps(one)) == len(maps(other)) and all(map(np.array_equal, maps(one), maps(other)))


# ---------------------------------------------------------------------------------------------- geometry


def test_a_flip_mirrors_maps_words_and_camera(sample):
    flipped = flip(sample)
    for before, after in zip(maps(sample), maps(flipped), strict=True):
        np.testing.assert_array_equal(after, before[:, ::-1])
        assert after.dtype == before.dtype
    texts = [one.text for one in flipped.expressions]
    assert texts == ["the rightmost bright chair, RIGHT of the bed", "the right-hand lion"]
    assert flipped.texts == {"caption": Text("A chair on the right, a bed on the Left.", "caption:x")}
    assert flipped.camera == Camera(20.0, 21.0, 9.0, 5.5, WIDTH, HEIGHT)
    assert (flipped.name, flipped.instance_names) == (sample.name, sample.instance_names)
    again = flip(flipped)
    assert same(again, sample)
    assert (again.camera, again.texts) == (sample.camera, sample.texts)
    assert [one.text for one in again.expressions] == [one.text for one in sample.expressions]


def test_what_a_sample_lacks_stays_away(sample):
    bare = Sample("a", sample.rgb)
    for changed in (flip(bare), crop(bare, 1, 1, 3, 3)):
        assert (changed.depth, changed.mask, changed.camera, changed.texts, changed.expressions) == (None,) * 4 + ((),)


def test_a_crop_cuts_every_map_and_moves_the_camera(sample):
    cut = crop(sample, 1, 3, 6, 8)
    for before, after in zip(maps(sample), maps(cut), strict=True):
        np.testing.assert_array_equal(after, before[1:7, 3:11])
    assert sample.camera is not None
    assert cut.camera is not None
    assert cut.camera.point(0.5, 0.5, 2.0) == sample.camera.point(3.5, 1.5, 2.0)
    assert (cut.camera.width, cut.camera.height) == (8, 6)
    assert [one.name for one in cut.expressions] == ["a-0", "a-1"]


def test_expressions_for_what_is_cut_off_are_dropped(sample):
    cut = crop(sample, 6, 0, 6, 16)
    assert [one.name for one in cut.expressions] == ["a-1"]  # which never meant anything


@pytest.mark.parametrize("window", [(0, 0, 13, 16), (1, 0, 12, 16), (-1, 0, 4, 4), (0, 0, 0, 4)])
def test_crops_beyond_the_picture(sample, window):
    with pytest.raises(UsageError, match="is not within 12 x 16"):
        crop(sample, *window)


def test_random_crops_reach_every_corner(sample):
    generator, corners = seeded(0), set()
    depth = sample.depth
    for _ in range(200):
        cut = RandomCrop(10, 14)(sample, generator)
        assert cut.depth is not None
        corners.add(tuple(np.argwhere(depth == cut.depth[0, 0])[0]))
    assert corners == {(row, column) for row in range(3) for column in range(3)}
    assert same(RandomCrop(HEIGHT, WIDTH)(sample, generator), sample)
    with pytest.raises(UsageError, match="of 20 x 4 at"):
        RandomCrop(20, 4)(sample, generator)


def test_half_are_flipped(sample):
    generator = seeded(0)
    flips = [not same(RandomFlip()(sample, generator), sample) for _ in range(400)]
    assert 160 < sum(flips) < 240


# ------------------------------------------------------------------------------------------------ colour


def test_cut_depth_is_grey_and_does_not_wrap(sample):
    depth = np.linspace(0, 12, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    black = replace(sample, rgb=np.zeros_like(sample.rgb), depth=depth)
    generator, bands = seeded(0), []
    for _ in range(400):
        changed = CutDepth(10.0)(black, generator)
        assert changed.depth is depth
        columns = np.flatnonzero(changed.rgb.any(axis=(0, 2)))
        if not len(columns):
            assert changed is black
            continue
        bands.append((columns[0], len(columns)))
        assert columns[-1] - columns[0] + 1 == len(columns)
        expected = np.rint(np.minimum(depth[:, columns] / 10, 1) * 255)
        np.testing.assert_array_equal(changed.rgb[:, columns], np.repeat(expected[..., None], 3, axis=-1))
    assert 70 < len(bands) < 130  # a quarter
    assert {first for first, _ in bands} == set(range(WIDTH))
    assert max(count for _, count in bands) <= 0.75 * WIDTH
    assert not black.rgb.any()  # the sample given stays
    with pytest.raises(UsageError, match="a: has no depth to show"):
        CutDepth(10.0)(replace(sample, depth=None), generator)


def drawn(monkeypatch, *numbers: float) -> None:
    """Let the next draws be these."""
    draws = iter(numbers)
    monkeypatch.setattr(transforms, "_uniform", lambda generator: next(draws))


def test_brightness_contrast_and_gamma(sample, monkeypatch):
    drawn(monkeypatch, 0, 0, 1, 1.0, 0.25, 0.0, 0.5, 0.5, 0.5)
    changed = VPDColour()(sample, seeded(0))
    values = np.clip(sample.rgb / 255 * 1.2 - 0.1, 0, 1) ** 0.8
    assert np.abs(changed.rgb - values * 255).max() <= 0.501


def test_hue_saturation_and_value(sample, monkeypatch):
    drawn(monkeypatch, 1, 1, 0, 0.5, 0.5, 0.5, 0.0, 1.0, 0.75)
    changed = VPDColour()(sample, seeded(0))
    for before, after in zip(sample.rgb.reshape(-1, 3), changed.rgb.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = colorsys.hsv_to_rgb((hue - 20 / 180) % 1, min(saturation + 30 / 255, 1), min(value + 10 / 255, 1))
        assert np.abs(after - np.array(expected) * 255).max() <= 0.51


def test_colours_are_changed_as_in_bts(sample):
    generator, changes = seeded(0), 0
    for _ in range(40):
        state = seeded(0)
        state.set_state(generator.get_state())
        changed = BTSColour(0.25)(sample, generator)
        chance, (gamma, brightness, *colours) = torch.rand((), generator=state), torch.rand(5, generator=state) * 2 - 1
        if chance >= 0.5:
            assert changed is sample
            continue
        changes += 1
        values = (sample.rgb / 255) ** float(1 + 0.1 * gamma) * float(1 + 0.25 * brightness)
        values = np.clip(values * (1 + 0.1 * np.array([float(one) for one in colours])), 0, 1)
        assert np.abs(changed.rgb - values * 255).max() <= 0.501
    assert 12 < changes < 28


@pytest.mark.parametrize("transform", [VPDColour(), BTSColour(0.1)])
def test_only_the_picture_changes_colour(sample, transform):
    generator = seeded(1)
    results = [transform(sample, generator) for _ in range(20)]
    assert any(not np.array_equal(one.rgb, sample.rgb) for one in results)
    for one in results:
        assert all(a is b for a, b in zip(maps(one)[1:], maps(sample)[1:], strict=True))
        assert (one.rgb.dtype, one.rgb.shape) == (np.uint8, sample.rgb.shape)


def test_a_seed_decides_everything(sample):
    chain = vpd_augmentation(8, 10, 10.0)
    runs = [[transformed(sample, chain, generator) for _ in range(8)] for generator in map(seeded, (5, 5, 6))]
    assert all(map(same, runs[0], runs[1]))
    assert not all(map(same, runs[0], runs[2]))
    assert {one.rgb.shape for one in runs[0]} == {(8, 10, 3)}


def test_a_missing_library_is_named(sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.enhance", None)
    with pytest.raises(UsageError, match=r"kornia: is not installed; run pip install 'deixis\[train\]'"):
        VPDColour()(sample, seeded(0))
