"""What Marigold, Lotus and E2E-FT predict, against the recorded outputs of their original code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.iris import check, main
from tests.parity.iris_inference import CHECKS

FIXTURES = Path(__file__).parent / "fixtures" / "iris"


@pytest.mark.parametrize("name", CHECKS)
def test_every_recorded_number_agrees(name: str) -> None:
    rows = CHECKS[name](FIXTURES)
    assert len(rows) > 10
    assert [row for row in rows if not row.passes] == []


# The command: other folders, and what is wrong with them.


def copied(folder: Path, *names: str) -> Path:
    """A folder with these files of the recordings."""
    for name in names:
        shutil.copy(FIXTURES / name, folder)
    return folder


def test_a_case_that_cannot_be_run_costs_the_others_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied(tmp_path, "dataset_masks.json", "marigold_ensemble.json", "lotus_d_infer.json", "dataset_facts.json")
    copied(tmp_path, "lotus_d_infer.npz", "tiny_unet4_task.manifest.json")
    shutil.copy(FIXTURES / "lotus_d_infer.json", tmp_path / "lotus_x_infer.json")
    (tmp_path / "evaluation_metrics.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    *rows, last = capsys.readouterr().out.splitlines()
    failed = [row for row in rows if row.endswith("FAIL")]
    assert last == f"{len(rows) - 4} of {len(rows)} pass"
    assert len(rows) > 200
    for row, said in zip(
        failed,
        (
            "evaluation_metrics .*cannot be run: Expecting property name",
            "lotus_d_infer .*cannot be run: .*tiny_vae.manifest.json",
            "lotus_x_infer .*not known; known are ",
            "marigold_ensemble .*cannot be run: .*marigold_ensemble.npz",
        ),
        strict=True,
    ):
        assert re.match(said, row)


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_a_folder_without_a_case(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied(tmp_path, "dataset_facts.json", "tiny_vae.manifest.json")
    assert main([str(tmp_path / place)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("is not a folder|has no case", line)


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    facts = json.loads((folder / f"{name}.json").read_text())
    change(facts)
    (folder / f"{name}.json").write_text(json.dumps(facts))


def failing(folder: Path, name: str) -> list[str]:
    return [row.name for row in check(folder, name) if not row.passes]


def test_an_ensemble_that_differs_fails(tmp_path: Path) -> None:
    """Where the optimiser is stable the limits are tight, and what it finds is compared."""
    copied(tmp_path, "marigold_ensemble.json", "marigold_ensemble.npz")
    settings = "marigold (max_iter=50, tol=1e-6)"

    def change(facts: dict[str, Any]) -> None:
        facts["optimiser"]["scale_mean"][settings]["x"][1] *= 1.001
        facts["optimiser"]["affine_mean"][settings]["x"][5] += 0.02
        facts["optimiser"]["affine_mean"][settings]["fun"] *= 1.001

    edited(tmp_path, "marigold_ensemble", change)
    with np.load(tmp_path / "marigold_ensemble.npz") as stored:
        arrays = dict(stored)
    for name in ("affine_mean_uncertainty", "affine_mean_uncertainty_maxiter2", "scale_median_uncertainty"):
        arrays[name] = arrays[name] * 1.002
    np.savez(tmp_path / "marigold_ensemble.npz", **arrays)
    assert sorted(failing(tmp_path, "marigold_ensemble")) == [
        "affine_mean_uncertainty",
        "affine_mean_uncertainty_maxiter2",
        f"optimiser.affine_mean.{settings}.fun",
        f"optimiser.affine_mean.{settings}.x[5]",
        f"optimiser.scale_mean.{settings}.x[1]",
        "scale_mean_uncertainty",  # merged at the recorded parameters
        "scale_median_uncertainty",
    ]


def test_counts_and_sizes_that_differ_by_one_fail(tmp_path: Path) -> None:
    copied(tmp_path, *(path.name for path in FIXTURES.glob("marigold_*")))
    copied(tmp_path, *(path.name for path in FIXTURES.glob("tiny_*")))

    def one_more(facts: dict[str, Any]) -> None:
        facts["n_truncation_cases_W_16_to_2099_x_6_R"] += 1
        facts["size_table"][0]["official_wh"][0] += 1

    def later(facts: dict[str, Any]) -> None:
        facts["timesteps"]["4"][0] += 1
        facts["diffusers_agreement"]["text_s4"]["clipped_fraction"] += 1 / (64 * 96)

    edited(tmp_path, "marigold_call_resize", one_more)
    assert failing(tmp_path, "marigold_call_resize") == [
        "size_table.0.official_wh[0]",
        "n_truncation_cases_W_16_to_2099_x_6_R",
    ]
    edited(tmp_path, "marigold_infer_v1_0", later)
    assert set(failing(tmp_path, "marigold_infer_v1_0")) == {
        "timesteps.4[0]",
        "diffusers_agreement.text_s4.clipped_fraction",
    }


@pytest.mark.parametrize("name", ["marigold_infer_v1_1", "e2e_ft_infer", "lotus_d_infer", "lotus_g_infer"])
def test_batches_can_be_checked(tmp_path: Path, name: str) -> None:
    """The same picture twice gives what it gives alone, twice."""
    copied(tmp_path, f"{name}.json", *(path.name for path in FIXTURES.glob("tiny_*")))
    text = (FIXTURES / f"{name}.json").read_text()
    (tmp_path / f"{name}.json").write_text(
        text.replace("(1,3,64,96)", "(2,3,64,96)").replace("(1,4,8,12)", "(2,4,8,12)")
    )
    with np.load(FIXTURES / f"{name}.npz") as stored:
        np.savez(tmp_path / f"{name}.npz", **stored)
    rows = check(tmp_path, name)
    assert len(rows) > 10
    assert not [row.name for row in rows if "cannot be run" in row.name]
    # Arrays of a batch are twice as large as those that are stored; calls take one picture and agree.
    assert any("[2, " in row.name for row in rows)
    assert all(row.passes for row in rows if "res96" in row.name)


def test_other_weights_shapes_and_texts_are_read_from_the_recording(tmp_path: Path) -> None:
    """Nothing of the recordings here is presumed: what fails are the old numbers, and each array does."""
    copied(tmp_path, *(f"tiny_{part}.manifest.json" for part in ("unet8", "vae", "text_encoder")))
    text = (FIXTURES / "e2e_ft_infer.json").read_text()
    for old, new in {
        "(1,3,64,96)": "(1,3,40,48)",
        "(1,4,8,12)": "(1,4,5,6)",
        "(51,75,3)": "(33,20,3)",
        "text embedding 'text'": "text embedding 'long'",
    }.items():
        text = text.replace(old, new)
    facts = json.loads(text)
    facts["seed"] = 3
    facts["inputs"]["token_ids"] = {"empty": [98, 99], "long": [98, *range(40), 99]}
    wanted = {"text_embed_long": (1, 42, 32), "long_zeros_x0": (1, 4, 5, 6), "call_res0_match1": (33, 20)}
    facts["arrays"] = {name: ["float32", shape] for name, shape in wanted.items()}
    facts["sizes"] = {"call_res0_match1": [33, 20]}
    (tmp_path / "e2e_ft_infer.json").write_text(json.dumps(facts))
    np.savez(tmp_path / "e2e_ft_infer.npz", **{name: np.zeros(shape, np.float32) for name, shape in wanted.items()})
    rows = check(tmp_path, "e2e_ft_infer")
    assert {row.name: row.passes for row in rows} == {
        **dict.fromkeys(wanted, False),  # of the right shapes: their names say nothing else
        "step.timestep": True,
        "step.max |prev_sample - pred_original_sample|": False,  # the old number
        **{f"sizes.call_res0_match1[{i}]": True for i in (0, 1)},
    }
