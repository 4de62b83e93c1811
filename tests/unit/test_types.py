"""What comes out of a model: its meaning, its limits, and itself as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deixis.camera import Camera
from deixis.errors import KindError, UsageError
from deixis.types import Answer, Depth, DepthKind, Mask, Referent, Text

CAMERA = Camera.from_focal_px(100.0, 4, 3)


def depth_map(values: np.ndarray | float = 2.0, kind: DepthKind = "metric", camera: Camera | None = None) -> Depth:
    return Depth(np.full((3, 4), values, np.float32), kind, Text("a room", "user"), "model", camera, 0.123456)


def mask_of(found: bool = True) -> Mask:
    pixels = np.zeros((3, 4), np.bool_)
    pixels[1, 1:3] = found
    return Mask(pixels, pixels.astype(np.float32), 0.812345, found, Text("the bed", "user"), "masks")


@pytest.mark.parametrize(
    "values", [np.zeros((3, 4)), np.zeros((3, 4, 1), np.float32), np.zeros(3, np.float32), np.zeros((3, 4), np.int32)]
)
def test_depth_is_float32_of_two_dimensions(values: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"Depth\.values: has shape .* pass a float32 array"):
        Depth(values, "metric", Text("", "empty"), "model")


def test_depth_has_a_known_kind() -> None:
    with pytest.raises(UsageError, match="is 'inverse'; use one of metric, affine, disparity"):
        depth_map(kind="inverse")  # type: ignore[arg-type]


def test_metres_are_for_metric_maps() -> None:
    assert depth_map().metres() is not None
    assert depth_map().unit == "m"
    for kind in ("affine", "disparity"):
        relative = depth_map(0.5, kind)
        assert relative.unit is None
        with pytest.raises(KindError, match=f"gives {kind} depth, which has no metres; use a metric model"):
            relative.metres()


def test_valid_pixels() -> None:
    values = np.array([[1, 0, -1, np.nan], [np.inf, -np.inf, 1e-30, 2], [3, 3, 3, 3]], np.float32)
    assert depth_map(values).valid.tolist()[:2] == [[True, False, False, False], [False, False, True, True]]
    assert depth_map(values, "affine").valid.tolist()[:2] == [[True, True, True, False], [False, False, True, True]]
    about = depth_map(values).to_dict()
    assert (about["min"], about["max"]) == (pytest.approx(1e-30), 3)


def test_depth_as_json() -> None:
    about = depth_map(camera=CAMERA).to_dict()
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about == {
        "model": "model",
        "kind": "metric",
        "unit": "m",
        "text": {"text": "a room", "provenance": "user"},
        "min": 2.0,
        "max": 2.0,
        "seconds": 0.1235,
        "width": 4,
        "height": 3,
        "camera": {"fx": 100.0, "fy": 100.0, "cx": 2.0, "cy": 1.5, "width": 4, "height": 3},
    }
    nothing = depth_map(np.nan).to_dict()
    assert (nothing["min"], nothing["max"]) == (None, None)
    json.dumps(nothing, allow_nan=False)


def test_mask_box_is_half_open() -> None:
    assert (mask_of().box, mask_of().area, mask_of().expression) == ((1, 1, 3, 2), 2, "the bed")
    assert (mask_of(False).box, mask_of(False).area) == (None, 0)


def test_mask_as_json() -> None:
    about = mask_of().to_dict()
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about == {
        "expression": "the bed",
        "found": True,
        "box": [1, 1, 3, 2],
        "area": 2,
        "score": 0.8123,
        "model": "masks",
        "text": {"text": "the bed", "provenance": "user"},
        "seconds": None,
        "width": 4,
        "height": 3,
    }
    assert mask_of(False).to_dict()["box"] is None


def referent(found: bool = True, place: tuple[float, float, float] | None = (-0.00001, 0.5, 2.031409859)) -> Referent:
    # As numpy computes them.
    distance = {"median": np.float64(2.031409859), "p10": np.float32(1.5), "p90": 2.75}
    return Referent("the bed", found, distance if found else None, place if found else None, mask_of(found))  # type: ignore[arg-type]


def test_answer_as_json() -> None:
    answer = Answer("how far is the bed?", (referent(),), depth_map(camera=CAMERA), notes=("a note",))
    about = answer.to_dict()
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about == {
        "question": "how far is the bed?",
        "referent": "the bed",
        "found": True,
        "distance_m": {"median": 2.0314, "p10": 1.5, "p90": 2.75},
        "box": [1, 1, 3, 2],
        "position_m": [0.0, 0.5, 2.0314],
        "score": 0.8123,
        "models": {"depth": "model", "mask": "masks"},
        "text": {
            "depth": {"text": "a room", "provenance": "user"},
            "mask": {"text": "the bed", "provenance": "user"},
        },
        "notes": ["a note"],
    }
    assert not str(about["position_m"][0]).startswith("-")


def test_answer_about_what_is_not_there() -> None:
    about = Answer("the bed", (referent(False),), depth_map()).to_dict()
    assert [about[key] for key in ("found", "distance_m", "box", "position_m")] == [False, None, None, None]
    json.dumps(about, allow_nan=False)


def test_answer_about_two_things() -> None:
    answer = Answer("which?", (referent(), referent(False)), depth_map())
    about = answer.to_dict()
    assert not answer.found
    assert (about["found"], about["nearer"], about["gap_m"]) == (False, None, None)
    assert [one["found"] for one in about["referents"]] == [True, False]
    both = Answer("which?", (referent(), referent()), depth_map(), "the bed", 0.123456)
    assert both.to_dict()["gap_m"] == 0.1235
    assert both.distance_m == both.referents[0].distance_m


def test_saving_from_python(tmp_path: Path) -> None:
    files = depth_map().save(tmp_path / "a/b", "room")
    assert [file.name for file in files] == ["room.depth.npy", "room.depth.png", "room.preview.png", "room.json"]
    assert all(file.is_file() for file in files)
