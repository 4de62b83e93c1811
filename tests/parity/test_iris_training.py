"""Training objectives, normalisations, scoring and masks against recorded outputs, and the harness that compares."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.iris_rows import Case, compare, recipes_in
from tests.parity.iris_training import CHECKS, check_dataset_masks, check_evaluation_metrics

FIXTURES = Path(__file__).parent / "fixtures" / "iris"


@pytest.mark.parametrize("name", CHECKS)
def test_every_recorded_value_agrees(name: str) -> None:
    rows = CHECKS[name](FIXTURES)
    wrong = [row for row in rows if not row.passes]
    assert not wrong
    # The arrays are all among the rows, but for the inputs.
    arrays = set(json.loads((FIXTURES / f"{name}.json").read_text()).get("arrays", {}))
    inputs = {"gt", "metric", "plain_depth", "plain_mask", "pred_depth", "pred_disparity"}
    inputs |= {"sky_mask", "val_mask", "valid_mask"}
    assert arrays - {row.name for row in rows} <= inputs
    assert {row.case for row in rows} == {name}


# The harness: it must not pass what is wrong, nor what is not there.


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A copy of a case that is quick to check."""
    for name in ("evaluation_metrics.json", "evaluation_metrics.npz", "dataset_masks.json"):
        shutil.copy(FIXTURES / name, tmp_path)
    return tmp_path


def edit(path: Path, change: Any) -> None:
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def failing(rows: Any) -> list[str]:
    return [row.name for row in rows if not row.passes]


def test_values_that_differ_fail(recording: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["metrics"]["kitti_least_square_None"]["rmse_log"] *= 1.0003
        facts["metrics"]["nyu_None_None"]["valid_pixels"] += 1
        facts["metrics"]["nyu_None_None"]["aligned_dtype"] = "float64"
        facts["notes"]["depth2disparity([0,2,-1,4])"][1][0][2] = True

    edit(recording / "evaluation_metrics.json", change)
    with np.load(recording / "evaluation_metrics.npz") as stored:
        arrays = dict(stored)
    arrays["eth3d_None_None_aligned"] = arrays["eth3d_None_None_aligned"] + 0.01
    np.savez(recording / "evaluation_metrics.npz", **arrays)
    assert failing(check_evaluation_metrics(recording)) == [
        "metrics.nyu_None_None.valid_pixels",
        "metrics.nyu_None_None.aligned_dtype",
        "metrics.kitti_least_square_None.rmse_log",
        "eth3d_None_None_aligned",
        "notes.depth2disparity([0,2,-1,4])[1][0][2]",
    ]


def test_what_nobody_compares_fails(recording: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["metrics"]["nyu_None_None"]["new_metric"] = 0.5
        facts["metrics"]["nyu_by_magic_None"] = {"rmse_log": 0.1}
        facts["surprise"] = [1, "two"]
        facts["arrays"]["declared"] = ["float32", [1]]

    edit(recording / "evaluation_metrics.json", change)
    with np.load(recording / "evaluation_metrics.npz") as stored:
        arrays = dict(stored)
    np.savez(recording / "evaluation_metrics.npz", stored=np.zeros(3), **arrays)
    assert failing(check_evaluation_metrics(recording)) == [
        "declared (not in the npz)",
        "stored (compared with nothing)",
        "metrics.nyu_None_None.new_metric (compared with nothing)",
        "metrics.nyu_by_magic_None.rmse_log (compared with nothing)",
        "surprise.0 (compared with nothing)",
        "surprise.1 (compared with nothing)",
    ]


def test_toys_are_read_from_the_recording(recording: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["toy"]["scannet"] = "48x60 depth 3000 mm; rows <5 = 0, 5-6 = 10000"
        facts["masks"] = {"scannet": {"shape": [48, 60], "count": 41 * 60, "rows [first,last+1]": [7, 48]}}
        facts["masks"]["eth3d (rows<3 inf, <4 zero, rest 1.5)"] = {"shape": [9, 2], "count": 10}
        facts["masks"]["diode (depth rows<2 0.1 m; mask file cols<3 = 0)"] = {"shape": [4, 10], "count": 28}

    edit(recording / "dataset_masks.json", change)
    assert failing(check_dataset_masks(recording)) == []


def test_recipes() -> None:
    assert recipes_in("noise('a.b', (2,4,8,12)) then unit('c',(1,)) and more") == [
        ("noise", "a.b", (2, 4, 8, 12)),
        ("unit", "c", (1,)),
    ]


@pytest.mark.parametrize("seed", [0, 3])
def test_inputs_follow_the_seed(recording: Path, seed: int) -> None:
    case = Case(recording, "case", {"seed": seed, "inputs": {"x": "noise('x', (4000,)), u8('y', (5,3))"}}, {})
    noise = case.make("x")
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert case.make("x", 1).dtype == torch.uint8
    assert case.make("x", "y").shape == (5, 3)
    other = Case(recording, "case", case.facts | {"seed": seed + 1}, {})
    assert not torch.equal(other.make("x"), noise)
    with pytest.raises(ValueError, match="no recipe 2"):
        case.make("x", 2)


def test_offsets_do_not_hide_behind_a_large_mean() -> None:
    theirs = 1000 + np.linspace(-1, 1, 101)
    assert compare("c", "n", theirs, theirs).error == 0
    assert compare("c", "n", theirs + 0.01, theirs).error == pytest.approx(0.01 / np.std(theirs))
    assert not compare("c", "n", theirs + 0.01, theirs).passes
    assert compare("c", "n", theirs + 0.01, theirs, rtol=0.1).passes


def test_one_wrong_entry_does_not_hide_among_many() -> None:
    theirs = np.linspace(0, 1, 100_000)
    ours = theirs.copy()
    ours[5] += 1e-3
    assert not compare("case", "x", ours, theirs, atol=1e-4).passes
    assert compare("case", "x", ours, theirs, atol=5e-3).passes


def test_numbers_are_compared_relatively_or_absolutely() -> None:
    assert compare("c", "n", 1.00005, 1.0).passes
    assert not compare("c", "n", 1.0002, 1.0).passes
    assert not compare("c", "n", 1_000_001, 1_000_000, rtol=1e-4).passes  # counts are exact
    assert compare("c", "n", 1_000_000, 1_000_000, rtol=1e-4).passes
    assert compare("c", "n", 5.00005, 5, atol=1e-4).passes
    assert not compare("c", "n", 5.0002, 5, atol=1e-4).passes
    assert compare("c", "n", 1e-6, 0.0, atol=1e-5, rtol=1e-5).passes
    assert not compare("c", "n", 2e-4, 0.0).passes
    assert compare("c", "n", np.full(4, 2.0), np.full(4, 2.00001)).passes
    assert not compare("c", "n", [2.0, 2.0, 2.001], [2.0, 2.0, 2.0]).passes


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (math.nan, 1.0),
        (1.0, math.nan),
        ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0]),
        ([1.0, -math.inf, 3.0], [1.0, math.inf, 3.0]),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([[1.0, 2.0]], [1.0, 2.0]),
        ("a", "b"),
        (True, False),
        (1, True),
        (None, 1.0),
    ],
)
def test_what_is_no_match_fails(ours: Any, theirs: Any) -> None:
    assert not compare("c", "n", ours, theirs).passes


def test_holes_in_the_same_places_agree() -> None:
    holes = [1.0, math.nan, math.inf, 4.0]
    assert compare("c", "n", holes, holes).error == 0
    assert compare("c", "n", "a", "a").passes
