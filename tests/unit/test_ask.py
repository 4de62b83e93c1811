"""From masks and depth to distances, positions, comparisons and sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deixis.asking import answer, ask, describe, locate, measure
from deixis.camera import Camera
from deixis.errors import InputError, KindError, UsageError
from deixis.io import read_image
from deixis.types import Answer, Depth, Mask, Text

H, W = 60, 80
CAMERA = Camera.from_focal_px(100.0, W, H)
NO_POSITION = "no position: the focal length is unknown; pass --fov or --focal-px"


def depth_map(values: np.ndarray | float = 2.0, kind: str = "metric", camera: Camera | None = CAMERA) -> Depth:
    values = np.broadcast_to(np.asarray(values, np.float32), (H, W)).copy()
    return Depth(values, kind, Text("", "empty"), "depth-model", camera)


def mask_of(pixels: np.ndarray, expression: str = "the chair", *, found: bool | None = None) -> Mask:
    found = bool(pixels.any()) if found is None else found
    score = 0.9 if found else 0.12
    return Mask(pixels, pixels.astype(np.float32), score, found, Text(expression, "user"), "mask-model")


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    pixels = np.zeros((H, W), bool)
    pixels[top:bottom, left:right] = True
    return pixels


LEFT, RIGHT, NOTHING = box(20, 40, 5, 30), box(20, 40, 50, 75), box(0, 0, 0, 0)


def room(left: float, right: float) -> Depth:
    values = np.full((H, W), 5.0)
    values[:, : W // 2], values[:, W // 2 :] = left, right
    return depth_map(values)


def masks(**pixels: np.ndarray) -> Callable[[str], Mask]:
    """Masks by the last word of the expression."""
    return lambda expression: mask_of(pixels[expression.split()[-1]], expression)


# --- measure


def test_measure_gives_the_percentiles_of_the_depth_inside() -> None:
    values = np.tile(np.linspace(1, 3, W), (H, 1))
    measured = measure(mask_of(box(0, H, 0, W)), depth_map(values))
    assert measured == pytest.approx({"p10": 1.2, "median": 2.0, "p90": 2.8}, abs=0.02)
    assert all(type(value) is float for value in measured.values())


def test_measure_leaves_out_the_border_of_the_mask() -> None:
    values = np.full((H, W), 9.0)
    values[21:39, 6:29] = 2.0  # the mask spills one pixel over the object
    assert measure(mask_of(LEFT), depth_map(values)) == {"median": 2.0, "p10": 2.0, "p90": 2.0}


def test_the_border_grows_with_the_mask() -> None:
    values = np.full((H, W), 9.0)
    values[8:52, 8:72] = 2.0  # three pixels inside the mask below
    measured = measure(mask_of(box(5, 55, 5, 75)), depth_map(values))
    assert measured == {"median": 2.0, "p10": 2.0, "p90": 2.0}


def test_the_frame_of_the_picture_is_no_border() -> None:
    values = np.full((H, W), 4.0)
    values[:3, :] = 1.0
    # A strip along the upper edge of the picture: two of its three rows survive an erosion by one.
    measured = measure(mask_of(box(0, 3, 0, W)), depth_map(values))
    assert measured is not None
    assert measured["median"] == 1.0
    assert locate(mask_of(box(0, 3, 0, 9)), depth_map(values))[1] == pytest.approx((0.5 - H / 2) / 100, abs=0.011)


@pytest.mark.parametrize("pixels", [box(10, 11, 10, 11), box(10, 11, 5, 60), box(10, 12, 10, 12), box(5, 50, 7, 8)])
def test_thin_masks_are_measured_whole(pixels: np.ndarray) -> None:
    values = np.where(pixels, 3.0, 8.0)
    assert measure(mask_of(pixels), depth_map(values)) == {"median": 3.0, "p10": 3.0, "p90": 3.0}


def test_a_blob_does_not_speak_for_the_thin_rest() -> None:
    pixels = box(10, 13, 10, 13) | box(30, 31, 0, W)
    measured = measure(mask_of(pixels), depth_map(np.where(box(10, 13, 10, 13), 1.0, 4.0)))
    assert measured is not None
    assert measured["median"] == 4.0


def test_unusable_depths_do_not_count() -> None:
    values = np.full((H, W), 2.5)
    values[20:30, :] = np.nan
    values[30:33, :] = 0.0
    values[33:35, :] = np.inf
    values[35:36, :] = -1.0
    assert measure(mask_of(LEFT), depth_map(values)) == {"median": 2.5, "p10": 2.5, "p90": 2.5}
    assert measure(mask_of(LEFT), depth_map(np.nan)) is None
    assert locate(mask_of(LEFT), depth_map(np.nan)) is None


def test_an_empty_mask_measures_nothing() -> None:
    assert measure(mask_of(NOTHING), depth_map()) is None
    assert locate(mask_of(NOTHING), depth_map()) is None


def test_outliers_do_not_move_the_median() -> None:
    values = np.full((H, W), 2.0)
    values[22:26, 8:28] = 80.0
    measured = measure(mask_of(LEFT), depth_map(values))
    assert measured is not None
    assert measured["median"] == 2.0


def test_sizes_must_agree() -> None:
    with pytest.raises(UsageError, match=r"'the chair'.*\(30, 40\).*\(60, 80\)"):
        measure(mask_of(np.ones((30, 40), bool)), depth_map())


def test_measure_needs_metres() -> None:
    with pytest.raises(KindError):
        measure(mask_of(LEFT), depth_map(kind="affine"))


# --- locate


def test_the_middle_of_the_picture_lies_straight_ahead() -> None:
    assert locate(mask_of(box(20, 41, 30, 51)), depth_map()) == pytest.approx((0.01, 0.01, 2.0))


def test_position_is_right_and_down() -> None:
    x, y, z = locate(mask_of(box(40, 51, 60, 71)), depth_map(4.0))
    assert (x, y, z) == pytest.approx(((65.5 - 40) / 100 * 4, (45.5 - 30) / 100 * 4, 4.0))


def test_without_a_camera_there_is_no_position() -> None:
    assert locate(mask_of(LEFT), depth_map(camera=None)) is None


def test_the_position_of_a_ring_lies_on_the_ring() -> None:
    rows, columns = np.mgrid[:H, :W]
    radius = np.hypot(rows - 30, columns - 40)
    ring = (radius > 12) & (radius < 22)
    x, y, z = locate(mask_of(ring), depth_map())
    u, v = x / z * 100 + 40, y / z * 100 + 30
    assert ring[int(v), int(u)]


# --- answer


def test_one_thing() -> None:
    got = answer("how far is the chair?", room(2.0, 3.0), masks(chair=RIGHT))
    assert got.found
    assert got.distance_m == {"median": 3.0, "p10": 3.0, "p90": 3.0}
    assert got.position_m == pytest.approx(((62.5 - 40) / 100 * 3, (29.5 - 30) / 100 * 3, 3.0), abs=0.02)
    assert (got.nearer, got.gap_m, got.notes) == (None, None, ())
    assert got.to_dict()["referent"] == "the chair"


def test_no_such_object() -> None:
    got = answer("how far is the unicorn?", room(2.0, 3.0), masks(unicorn=NOTHING))
    assert not got.found
    assert got.distance_m is None
    assert got.position_m is None
    assert got.notes == ("'the unicorn': no such object in the picture (confidence 0.12)",)


def test_a_mask_below_the_threshold_is_not_measured() -> None:
    got = answer("the unicorn", room(2.0, 3.0), lambda words: mask_of(LEFT, words, found=False))
    assert (got.found, got.distance_m) == (False, None)


def test_an_empty_mask_is_not_found_whatever_it_says() -> None:
    got = answer("the unicorn", room(2.0, 3.0), lambda words: mask_of(NOTHING, words, found=True))
    assert (got.found, got.distance_m) == (False, None)


def test_which_is_nearer() -> None:
    got = answer("which is nearer, the lamp or the sofa?", room(2.0, 3.5), masks(lamp=RIGHT, sofa=LEFT))
    assert [referent.expression for referent in got.referents] == ["the lamp", "the sofa"]
    assert got.nearer == "the sofa"
    assert got.gap_m == pytest.approx(1.5)
    assert got.notes == ()
    assert got.to_dict()["gap_m"] == pytest.approx(1.5)


def test_the_gap_is_said_to_be_one_of_depth() -> None:
    got = answer("distance between the lamp and the sofa", room(2.0, 3.5), masks(lamp=LEFT, sofa=RIGHT))
    assert (got.nearer, got.gap_m) == ("the lamp", pytest.approx(1.5))
    (note,) = got.notes
    assert "along the camera's axis" in note


def test_equal_distances() -> None:
    got = answer("is the lamp nearer than the sofa?", room(2.0, 2.0), masks(lamp=LEFT, sofa=RIGHT))
    assert (got.nearer, got.gap_m) == (None, 0.0)
    assert got.notes == ("both are at the same distance",)
    assert describe(got) == "the lamp and the sofa: both 2.0 m away"


def test_one_of_two_missing() -> None:
    got = answer("is the lamp nearer than the unicorn?", room(2.0, 3.0), masks(lamp=LEFT, unicorn=NOTHING))
    assert not got.found
    assert got.distance_m is not None
    assert (got.nearer, got.gap_m) == (None, None)
    first, second = describe(got).splitlines()
    assert first.startswith("the lamp: 2.0 m away")
    assert second == "the unicorn: no such object in the picture"


def test_two_phrases_for_the_same_pixels() -> None:
    almost = LEFT.copy()
    almost[20, :] = False
    got = answer("the lamp or the sofa, which is closer", room(2.0, 3.0), masks(lamp=LEFT, sofa=almost))
    assert "'the lamp' and 'the sofa' point at almost the same pixels" in got.notes


def test_overlapping_depths_are_uncertain() -> None:
    values = np.tile(np.linspace(2, 2.4, H)[:, None], (1, W))
    values[:, 40:] += 0.05
    question = "is the lamp nearer than the sofa?"
    got = answer(question, depth_map(values), masks(lamp=LEFT, sofa=RIGHT))
    assert got.nearer == "the lamp"
    assert any("uncertain" in note for note in got.notes)


def test_no_camera_no_position() -> None:
    assert answer("the chair", depth_map(camera=None), masks(chair=LEFT)).notes == (NO_POSITION,)
    assert NO_POSITION not in answer("the chair", depth_map(camera=None), masks(chair=NOTHING)).notes


def test_tiny_masks_and_wide_depths_are_remarked_upon() -> None:
    (note,) = answer("the chair", depth_map(), masks(chair=box(30, 31, 30, 31))).notes
    assert "1 pixels" not in note
    assert "tiny (1 pixel)" in note
    values = np.tile(np.linspace(1, 10, W), (H, 1))
    (note,) = answer("the chair", depth_map(values), masks(chair=box(10, 50, 0, W))).notes
    assert note.startswith("'the chair': its depth varies widely (")


def test_found_but_without_depth() -> None:
    got = answer("the chair", depth_map(np.nan), masks(chair=LEFT))
    assert (got.found, got.distance_m, got.position_m) == (True, None, None)
    assert got.notes == ("'the chair': the depth map has no depth inside the mask",)
    assert describe(got) == "the chair: found, but its depth is unknown"


@pytest.mark.parametrize("kind", ["affine", "disparity"])
def test_relative_depth_is_refused_before_segmenting(kind: str) -> None:
    def never(expression: str) -> Mask:
        raise AssertionError(expression)

    with pytest.raises(KindError, match="metric"):
        answer("the chair", depth_map(kind=kind), never)


# --- describe


@pytest.mark.parametrize(
    ("question", "left", "right", "sentence"),
    [
        (
            "which is nearer, the lamp or the sofa?",
            1.9,
            3.2,
            "the lamp is nearer: 1.9 m against 3.2 m, a gap of 1.3 m",
        ),
        (
            "which is nearer, the lamp or the sofa?",
            3.2,
            1.9,
            "the sofa is nearer: 1.9 m against 3.2 m, a gap of 1.3 m",
        ),
        (
            "is the lamp farther than the sofa?",
            1.9,
            3.2,
            "the sofa is farther: 3.2 m against 1.9 m, a gap of 1.3 m",
        ),
        (
            "is the lamp farther than the sofa?",
            3.2,
            1.9,
            "the lamp is farther: 3.2 m against 1.9 m, a gap of 1.3 m",
        ),
        (
            "distance between the lamp and the sofa",
            3.2,
            1.9,
            "the lamp: 3.2 m away, the sofa: 1.9 m away, a gap of 1.3 m in depth",
        ),
        (
            "is the lamp closer than the sofa",
            2.31,
            2.34,
            "the lamp is nearer: 2.31 m against 2.34 m, a gap of 0.03 m",
        ),
    ],
)
def test_comparisons_in_words(question: str, left: float, right: float, sentence: str) -> None:
    assert describe(answer(question, room(left, right), masks(lamp=LEFT, sofa=RIGHT))) == sentence


def test_one_thing_in_words() -> None:
    values = np.tile(np.linspace(2, 2.6, H)[:, None], (1, W))
    got = answer("how far is the red chair?", depth_map(values), masks(chair=box(0, H, 55, 60)))
    assert describe(got) == "the red chair: 2.3 m away (2.1-2.5 m), 0.4 m to the right"
    got = answer("how far is the red chair?", depth_map(values), masks(chair=box(0, H, 20, 25)))
    assert describe(got).endswith(", 0.4 m to the left")
    got = answer("how far is the red chair?", depth_map(values), masks(chair=box(0, H, 39, 42)))
    assert describe(got) == "the red chair: 2.3 m away (2.1-2.5 m)"
    got = answer("how far is the red chair?", depth_map(0.43, camera=None), masks(chair=LEFT))
    assert describe(got) == "the red chair: 0.43 m away (0.43-0.43 m)"


# --- ask


class FlatDepth:
    """A depth system that sees a wall two metres away."""

    kind = "metric"

    def __init__(self) -> None:
        self.texts: list[str | None] = []

    def __call__(self, image: np.ndarray, *, text: str | None = None) -> Depth:
        assert image.shape == (H, W, 3)
        assert image.dtype == np.uint8
        self.texts.append(text)
        return depth_map(camera=None)


class LeftMask:
    """A segmentation system that finds everything on the left."""

    kind = "mask"

    def __call__(self, image: np.ndarray, *, text: str) -> Mask:
        return mask_of(LEFT, text)


PICTURE = np.zeros((H, W, 3), np.uint8)


def test_ask_joins_the_models() -> None:
    depth = FlatDepth()
    got = ask(PICTURE, "how far is the red chair?", depth=depth, segment=LeftMask(), text="a room")
    assert isinstance(got, Answer)
    assert got.distance_m is not None
    assert got.distance_m["median"] == 2.0
    assert got.referents[0].mask.expression == "the red chair"
    assert depth.texts == ["a room"]
    assert got.notes == (NO_POSITION,)


def test_lists_give_lists() -> None:
    got = ask([PICTURE, read_image(PICTURE)], "the chair", depth=FlatDepth(), segment=LeftMask())
    assert [one.found for one in got] == [True, True]
    assert ask([], "the chair", depth=FlatDepth(), segment=LeftMask()) == []


def test_the_stated_focal_length_goes_before_exif() -> None:
    picture = replace(read_image(PICTURE), camera=Camera.from_focal_px(50.0, W, H))

    def focal(**options: float) -> float | None:
        got = ask(picture, "the chair", depth=FlatDepth(), segment=LeftMask(), **options)
        assert got.position_m is not None
        return got.depth.camera and got.depth.camera.fx

    assert focal() == 50.0
    assert focal(focal_px=123.0) == 123.0
    assert focal(fov=90.0) == pytest.approx(40.0)


def test_a_relative_or_wrong_model_is_refused() -> None:
    relative = FlatDepth()
    relative.kind = "affine"
    depth_model: Any = FlatDepth()
    mask_model: Any = LeftMask()
    none: Any = None
    with pytest.raises(KindError, match="evp-depth-mini"):
        ask(PICTURE, "the chair", depth=relative, segment=LeftMask())
    with pytest.raises(UsageError, match="is not a depth system"):
        ask(PICTURE, "the chair", depth=mask_model, segment=mask_model)
    with pytest.raises(UsageError, match="gives depth, not masks"):
        ask(PICTURE, "the chair", depth=depth_model, segment=depth_model)
    with pytest.raises(UsageError, match="is not a referring system"):
        ask(PICTURE, "the chair", depth=depth_model, segment=none)


@pytest.mark.parametrize(
    ("question", "options", "problem"),
    [
        ("what colour is the sky?", {}, "is not understood"),
        ("the chair", {"fov": 60.0, "focal_px": 500.0}, "both state the focal length"),
        ("the chair", {"fov": 180.0}, "180"),
        ("the chair", {"focal_px": -1.0}, "-1"),
        ("the chair", {"focal_px": float("nan")}, "nan"),
        (None, {}, "question: is of type NoneType"),
        (["the chair"], {}, "question: is of type list"),
        ("the chair", {"known": "the door is 2.0 m away"}, "known: is no list of strings"),
        ("the chair", {"known": None}, "known: is no list of strings"),
        ("the chair", {"known_points": [(8, 9, 2.0)]}, "known_points: is no list of strings"),
    ],
)
def test_wrong_usage_is_found_before_a_model_is_loaded(question: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        ask("nowhere.jpg", question, depth="no-such-model", segment="no-such-model", **options)


def test_an_unreadable_picture_is_named() -> None:
    with pytest.raises(InputError, match="nowhere"):
        ask("nowhere.jpg", "the chair", depth=FlatDepth(), segment=LeftMask())


# --- too close to call


@pytest.mark.parametrize(("right", "nearer"), [(2.0, None), (2.004, None), (2.02, "the left")])
def test_a_gap_that_would_be_told_as_nothing_is_none(right: float, nearer: str | None) -> None:
    found = answer("which is nearer, the left or the right?", room(2.0, right), masks(left=LEFT, right=RIGHT))
    assert found.nearer == nearer
    assert found.gap_m == pytest.approx(right - 2.0, abs=1e-6)
    said = describe(found)
    assert ("both 2.0 m away" in said) == (nearer is None)
    assert "0.00 m" not in said
    assert ("both are at the same distance" in found.notes) == (nearer is None)
