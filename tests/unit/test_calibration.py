"""From depth without metres to metres: what known distances and a metric map fix, and what they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import deixis
from deixis.asking import answer, ask, describe
from deixis.calibration import Known, calibrate
from deixis.errors import KindError, UsageError
from deixis.known import parse_known, parse_known_point
from deixis.types import Depth, Mask, Text

H, W = 60, 80
# Values of the map, from left to right in strips of ten columns.
STRIPS = np.repeat(np.linspace(0.1, 0.9, 8), 10)
SCALE, SHIFT = 4.0, 1.0


def relative(kind: Any = "affine", noise: float = 0.0) -> Depth:
    values = np.tile(STRIPS, (H, 1)) + noise * np.random.default_rng(0).standard_normal((H, W))
    return Depth(values.clip(0, 1).astype(np.float32), kind, Text("", "empty"), "a-system")


def truth(kind: Any = "affine") -> Any:
    """Metres of each strip, from the nearest place of the map on."""
    line = SCALE * STRIPS[::10] + SHIFT
    return line if kind == "affine" else 1 / line


def point(strip: int, metres: float) -> Known:
    return Known(metres, (strip * 10 + 5, 30))


def strip_mask(strip: int, name: str = "it", *, found: bool = True) -> Mask:
    pixels = np.zeros((H, W), bool)
    pixels[10:50, strip * 10 : strip * 10 + 10] = found
    return Mask(pixels, pixels.astype(np.float32), 0.9 if found else 0.1, found, Text(name, "user"), "masks")


def fitted(depth: Depth) -> tuple[float, float]:
    assert depth.calibration is not None
    return depth.calibration.scale, depth.calibration.shift


# ------------------------------------------------------------------------------------------ known distances


@pytest.mark.parametrize("kind", ["affine", "disparity"])
@pytest.mark.parametrize("strips", [(0, 7), (6, 1), (0, 3, 7), (0, 1, 2, 3, 4, 5)])
def test_two_and_more_known_distances_fix_scale_and_shift(kind: str, strips: tuple[int, ...]) -> None:
    found = calibrate(relative(kind), [point(strip, truth(kind)[strip]) for strip in strips])
    assert fitted(found) == pytest.approx((SCALE, SHIFT), rel=1e-5)
    assert (found.kind, found.unit) == ("metric", "m")
    assert found.metres()[0, ::10] == pytest.approx(truth(kind), rel=1e-5)


@pytest.mark.parametrize("kind", ["affine", "disparity"])
@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_one_of_four_that_is_wrong_is_left_out_and_named(kind: str, wrong: int, factor: float) -> None:
    strips = (0, 2, 5, 7)
    known = [point(strip, truth(kind)[strip] * (factor if i == wrong else 1)) for i, strip in enumerate(strips)]
    found = calibrate(relative(kind), known)
    assert fitted(found) == pytest.approx((SCALE, SHIFT), rel=0.01)
    assert found.calibration is not None
    (note,) = found.calibration.notes
    assert f"the point {strips[wrong] * 10 + 5},30' does not fit the other known distances" in note
    told = float(note.split(" m calibrated")[0].split()[-1])
    assert told == pytest.approx(truth(kind)[strips[wrong]], rel=0.03)


def test_of_three_the_odd_one_is_named_without_a_verdict() -> None:
    found = calibrate(relative(), [point(0, truth()[0]), point(4, truth()[4] * 4), point(7, truth()[7])])
    assert fitted(found) == pytest.approx((SCALE, SHIFT), rel=0.01)
    assert found.calibration is not None
    assert found.calibration.notes[0].endswith("of three, either may be wrong")


@pytest.mark.parametrize("kind", ["affine", "disparity"])
def test_one_known_distance_fixes_the_scale_and_says_what_it_assumes(kind: str) -> None:
    metres = truth(kind)[3]
    found = calibrate(relative(kind), [point(3, metres)])
    scale, shift = fitted(found)
    assert shift == 0
    assert found.metres()[0, 35] == pytest.approx(metres)
    assert scale * STRIPS[30] == pytest.approx(metres if kind == "affine" else 1 / metres)
    assert found.calibration is not None
    assert "the shift is taken to be 0" in found.calibration.notes[0]
    assert found.calibration.to_dict()["shift_deviation"] is None
    # Whatever the shift is, as long as neither it nor the scale is negative, the interval holds the truth.
    for strip, right in enumerate(truth(kind)):
        told = float(found.metres()[0, strip * 10])
        spread = found.calibration.widened({"median": told, "p10": told, "p90": told})
        assert spread["p10"] <= right <= spread["p90"]
        assert spread["median"] == told


def test_masks_are_measured_well_inside_and_by_their_median() -> None:
    depth = relative()
    depth.values[20:22, 12:16] = 0.99  # something small before the thing
    spilt = strip_mask(1)
    spilt.mask[10:50, 20] = True  # the mask spills over its outline
    found = calibrate(depth, [Known(truth()[1], spilt), Known(truth()[6], strip_mask(6))])
    assert fitted(found) == pytest.approx((SCALE, SHIFT), rel=1e-4)


def test_the_interval_grows_away_from_what_is_known() -> None:
    found = calibrate(relative(), [point(3, truth()[3]), point(4, truth()[4])])
    assert found.calibration is not None
    shares = []
    for metres in (truth()[3], truth()[7], 3 * truth()[7]):
        spread = found.calibration.widened({"median": metres, "p10": metres, "p90": metres})
        shares.append((spread["p90"] - spread["p10"]) / metres)
    assert 0.02 < shares[0] < shares[1] < shares[2]


def test_distances_that_fit_badly_widen_the_interval() -> None:
    off = [1.0, 1.06, 0.94, 1.05, 0.96, 1.0]
    exact = calibrate(relative(), [point(i, truth()[i]) for i in range(6)]).calibration
    loose = calibrate(relative(), [point(i, truth()[i] * by) for i, by in enumerate(off)]).calibration
    assert exact is not None
    assert loose is not None
    assert loose.covariance[0] > 2 * exact.covariance[0]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ([], "has nothing to go by"),
        ([point(2, 2.0), Known(3.0, (26, 31))], "lie at the same depth in the map"),
        ([point(1, 4.0), point(6, 2.0)], "contradict the map or each other"),
        ([point(0, 9.0), point(1, 2.0), point(4, 8.0), point(5, 1.0), point(7, 0.3)], "contradict the map"),
        ([Known(2.0, (80, 10))], "lies outside the picture of 80 x 60 pixels"),
        ([Known(2.0, (-1, 10))], "lies outside the picture"),
        ([point(1, 0.0)], "not above 0"),
        ([point(1, float("nan"))], "not above 0"),
        ([Known(2.0, strip_mask(1, "the door", found=False))], r"known 'the door': no such object .*0\.10"),
    ],
)
def test_known_distances_that_cannot_be(known: list[Known], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        calibrate(relative(), known)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "end"), [("affine", "near"), ("disparity", "far")])
def test_the_end_of_the_map_fixes_no_scale(kind: str, end: str) -> None:
    depth = relative(kind)
    depth.values[:, :10] = 0
    with pytest.raises(UsageError, match=f"the point 5,30: is at the {end} end of the map"):
        calibrate(depth, [point(0, 2.0)])


def test_a_place_without_depth() -> None:
    depth = relative()
    depth.values[:, :20] = np.nan
    with pytest.raises(UsageError, match="has no depth in the map"):
        calibrate(depth, [point(0, 2.0)])


def test_what_lies_behind_the_camera_has_no_depth() -> None:
    found = calibrate(relative(), [point(2, 0.5), point(7, 9.0)])
    assert not found.valid[:, :10].any()
    assert found.calibration is not None
    assert "of the picture behind the camera" in found.calibration.notes[0]
    found = calibrate(relative("disparity"), [point(2, 9.0), point(7, 0.5)])
    assert found.calibration is not None
    assert "of the picture beyond infinity" in found.calibration.notes[0]


# --------------------------------------------------------------------------------------------- a metric map


@pytest.mark.parametrize("kind", ["affine", "disparity"])
def test_a_metric_map_fixes_scale_and_shift_in_spite_of_a_third_of_nonsense(kind: str) -> None:
    values = np.repeat(truth(kind), 10)[None] * np.random.default_rng(1).normal(1, 0.03, (H, W))
    values[:20] = 9.5
    values[:, 78:] = np.nan
    metric = Depth(values.astype(np.float32), "metric", Text("", "empty"), "metres")
    found = calibrate(relative(kind), metric)
    assert fitted(found) == pytest.approx((SCALE, SHIFT), rel=0.05)
    assert found.calibration is not None
    assert 0.02 < found.calibration.residual < 0.2
    assert found.calibration.by == ("metres",)
    spread = found.calibration.widened({"median": 2.0, "p10": 2.0, "p90": 2.0})
    assert spread["p90"] - spread["p10"] > 0.1


def test_maps_that_do_not_go_together() -> None:
    metric = Depth(np.tile(STRIPS[::-1] + 1, (H, 1)).astype(np.float32), "metric", Text("", "empty"), "metres")
    with pytest.raises(UsageError, match="metres: and a-system disagree about what is near"):
        calibrate(relative(), metric)
    with pytest.raises(UsageError, match="maps of the same picture"):
        calibrate(relative(), Depth(metric.values[1:], "metric", Text("", "empty"), "metres"))
    flat = Depth(np.full((H, W), 0.5, np.float32), "affine", Text("", "empty"), "flat")
    with pytest.raises(UsageError, match="is flat in this picture"):
        calibrate(flat, metric)
    with pytest.raises(KindError, match="has no metres"):
        calibrate(relative(), relative())
    with pytest.raises(KindError, match="gives metres already"):
        calibrate(metric, [point(1, 2.0)])


# ---------------------------------------------------------------------------------------------- in an answer


class System:
    """A depth system that sees the strips."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __call__(self, image: np.ndarray, *, text: str | None = None) -> Depth:
        if self.kind != "metric":
            return relative(self.kind)
        return Depth(np.tile(np.repeat(truth(), 10), (H, 1)).astype(np.float32), "metric", Text("", "empty"), "metres")


class Strips:
    """A referring system: "strip 3" is the third strip."""

    kind = "mask"

    def __call__(self, image: np.ndarray, *, text: str) -> Mask:
        strip = text.split()[-1]
        return strip_mask(int(strip), text) if strip.isdigit() else strip_mask(0, text, found=False)


PICTURE = np.zeros((H, W, 3), np.uint8)


def asked(question: str = "how far is strip 5?", kind: str = "affine", **options: Any) -> Any:
    return ask(PICTURE, question, depth=System(kind), segment=Strips(), **options)


def test_an_answer_says_that_and_how_it_was_calibrated() -> None:
    metres = truth()
    found = asked(known=[f"strip 1 is {metres[1]:.4f} m away"], known_points=[f"75,30={metres[7]:.4f}"])
    assert found.distance_m["median"] == pytest.approx(metres[5], rel=1e-3)
    assert found.distance_m["p10"] < metres[5] < found.distance_m["p90"]
    assert found.calibration.by == (f"strip 1 ({metres[1]:.2f} m)", f"the point 75,30 ({metres[7]:.2f} m)")
    said = found.to_dict()["calibration"]
    assert (said["kind"], said["unit"]) == ("affine", "m")
    assert (said["scale"], said["shift"]) == (pytest.approx(SCALE, rel=1e-3), pytest.approx(SHIFT, rel=1e-3))
    assert said["scale_deviation"] > 0
    assert describe(found).endswith(f"; calibrated by strip 1 ({metres[1]:.2f} m), the point 75,30 ({metres[7]:.2f} m)")
    assert any(note.startswith("calibrated by strip 1") and "4 x map + 1" in note for note in found.notes)


def test_by_a_metric_system() -> None:
    found = asked(kind="affine", metric=System("metric"))
    assert found.distance_m["median"] == pytest.approx(truth()[5], rel=1e-3)
    assert found.calibration.by == ("metres",)
    assert any("its own error is not in the interval" in note for note in found.notes)


def test_a_comparison_is_not_made_uncertain_by_the_scale() -> None:
    found = asked("which is nearer, strip 2 or strip 6?", known=["strip 3 is 2 m away"])
    assert found.nearer == "strip 2"
    assert not any("uncertain" in note for note in found.notes)


def test_without_metres_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KindError, match=r"--known '.*', --known-point X,Y=METRES\), .*--metric-model"):
        asked()
    with pytest.raises(KindError, match=r"^System: gives metres already"):
        asked(kind="metric", known=["strip 3 is 2 m away"])
    monkeypatch.setattr(System, "name", "evp-mine", raising=False)
    with pytest.raises(KindError, match=r"^evp-mine: gives metres already"):
        asked(kind="metric", known=["strip 3 is 2 m away"])
    with pytest.raises(UsageError, match="calibrate by either"):
        asked(known=["strip 3 is 2 m away"], metric=System("metric"))
    with pytest.raises(UsageError, match="no such object in the picture"):
        asked(known=["the unicorn is 2 m away"])


def test_a_map_that_is_metric_by_itself_says_nothing_of_calibration() -> None:
    found = answer("strip 5", System("metric")(PICTURE), lambda words: Strips()(PICTURE, text=words))
    assert found.calibration is None
    assert "calibration" not in found.to_dict()
    assert "calibration" not in found.depth.to_dict()


def test_the_public_names() -> None:
    for _ in range(2):  # the first import of a submodule must not hide a function of its name
        assert callable(deixis.ask)
        assert deixis.calibrate is calibrate
        assert deixis.Known is Known


# ------------------------------------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    ("text", "name", "metres"),
    [
        ("the door is 2.0 m away", "the door", 2.0),
        ("The red chair: 180 cm", "The red chair", 1.8),
        ("6 feet 2 inches to the lamp", "the lamp", 1.8796),
        ("the distance to the sofa is about 3,5 metres", "the sofa", 3.5),
        ("the bed is at 6'2\" from the camera", "the bed", 1.8796),
        ("door 2m", "door", 2.0),
        ("the lamp\u2019s 12 ft away.", "the lamp", 3.6576),
        ("the chair on the left stands 30 inches in front of me", "the chair on the left", 0.762),
        ("it is 4 meters to the wall", "the wall", 4.0),
        ("it is 4 m from the lens to the wall", "the wall", 4.0),
        ("The distance from the camera to the door is 2 m", "the door", 2.0),
        ("distance between me and the door: 2 m", "the door", 2.0),
        ("the distance of the door from the camera is 2 m", "the door", 2.0),
        ("the distance from the door to the camera is 2 m", "the door", 2.0),
        ("the distance from the chair next to the bed is 2 m", "the chair next to the bed", 2.0),
        ("the distance to the second chair from the left is 2 m", "the second chair from the left", 2.0),
        ("the 19 inch screen is 1.5 m away", "the 19 inch screen", 1.5),
        ("the tower = 0.3 km", "the tower", 300.0),
        ("the tower is 1500 m away", "the tower", 1500.0),
        ("the cup is 0,500 m away", "the cup", 0.5),
        ("the cup is 1,25 m away", "the cup", 1.25),
        ("the door is nearly 4 m away", "the door", 4.0),
        ("the door is ~4 m away", "the door", 4.0),
        ("the door - 4 m", "the door", 4.0),
        ("the cup that is not blue is 2 m away", "the cup that is not blue", 2.0),
        ("the man who is sitting 2 m away", "the man who is sitting", 2.0),
        ("the lamp between 2 chairs is 3 m away", "the lamp between 2 chairs", 3.0),
        ("the lamp is 6 feet and 2 inches away", "the lamp", 1.8796),
        ("chair 2 is 3 m away", "chair 2", 3.0),
    ],
)
def test_known_distances_in_words(text: str, name: str, metres: float) -> None:
    assert parse_known(text) == (name, pytest.approx(metres))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the chair is 2 m from the door", "is not understood"),
        ("the distance from the chair to the door is 2 m", "is not understood"),
        ("the distance between the chair and the door is 2 m", "is not understood"),
        ("the door is far", "is not understood"),
        ("the door is 2", "is not understood"),
        ("2 m", "is not understood"),
        ("", "is not understood"),
        ("the door is 2 m or 3 m away", "is not understood"),
        ("the door is 0 m away", "states a distance of 0 m"),
        ("the door is -2 m away", "states a distance of -2 m"),
        ("the door is \u22124 m away", "states a distance of -4 m"),
        *(
            (f"the door {words} away", "states a bound or a negation; say for example")
            for words in (
                "is not 4 m",
                "isn't about 4 m",
                "is between 2 and 4 m",
                "is more than 4 m",
                "is less than 4 m",
                "is over 4 m",
                "is under 4 m",
                "is at least 4 m",
                "is at most 4 m",
                "is > 4 m",
            )
        ),
        ("the door is hardly 4 m away", "is not understood"),
        ("the distance to the door is not 4 m", "states a bound or a negation"),
        ("it isn't 4 m to the wall", "states a bound or a negation"),
        ("the door is 2 to 3 m away", "states a range"),
        ("the door is 2-3 m away", "states a range"),
        ("the door is 2\u20133 m away", "states a range"),
        ("the door is 2 m and 4 m away", "states more than one distance"),
        ("the door is 2.0.5 m away", r"says '2\.0\.5', which is no plain number"),
        ("the tower is 1,500 m away", "says '1,500', which can be read in two ways; write it like 1500 or 1.5"),
        ("the tower is 1,500.5 m away", r"says '1,500\.5', which can be read in two ways"),
        ("the lamp is 1e3 m away", "says '1e3', which is no plain number"),
        ("the house is 10 000 m away", "says '10 000', which is no plain number"),
    ],
)
def test_words_that_state_no_distance(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_known(text)


def test_known_points() -> None:
    assert parse_known_point("12,40=2.0") == (12.0, 40.0, 2.0)
    assert parse_known_point(" 12.5, 40 = 80 cm ") == (12.5, 40.0, pytest.approx(0.8))
    for text in ("12,40", "12=2.0", "a,b=2", "12,40=far", "1,2,3=4"):
        with pytest.raises(UsageError, match="write X,Y=METRES"):
            parse_known_point(text)
    with pytest.raises(UsageError, match="says '1,500', which can be read in two ways"):
        parse_known_point("100,200=1,500")
    with pytest.raises(UsageError, match="states a distance of 0 m"):
        parse_known_point("1,2=0")
