"""EVP and VPD at full size against recorded outputs of the official code, and the harness that compares them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.evp import Case, centred, compare, dataset, family, follow, main, report
from tests.parity.pseudo_weights import pseudo_input

FIXTURES = Path(__file__).parent / "fixtures" / "evp"
ROOT = Path(__file__).parents[2]
CASES = sorted(path.name.removesuffix(".manifest.json") for path in FIXTURES.glob("*.manifest.json"))
MEMORY_LIMIT = 12 * 2**30  # [bytes]


def files(name: str) -> tuple[Path, Path]:
    return FIXTURES / f"{name}.manifest.json", FIXTURES / f"{name}.npz"


def test_all_six_cases_are_here() -> None:
    assert CASES == [
        "evp_depth_kitti",
        "evp_depth_nyu",
        "evp_depth_nyu_individual",
        "evp_refer_refcoco",
        "vpd_depth_nyu",
        "vpd_refer",
    ]


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_every_recorded_tensor_agrees(name: str, tmp_path: Path) -> None:
    """In a process of its own, which gives its gigabytes back."""
    command = [sys.executable, "-m", "tests.parity.evp", *map(str, files(name))]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (tmp_path / "out").read_text()
    assert process.returncode == 0, text
    rows = text.splitlines()
    arrays = set(np.load(files(name)[1]).files) - {"nyu_class_embeddings"}
    assert {row.split()[0] for row in rows[:-1]} == arrays
    assert rows[-1] == f"{len(arrays)} of {len(arrays)} pass"
    assert usage.ru_maxrss * 1024 < MEMORY_LIMIT  # Linux counts in KiB


# The harness: it must not pass what is wrong, nor what is not there.


def recording() -> tuple[dict[str, Tensor], Case]:
    """What a model gave, and a recording that agrees with it."""
    found = {
        "latents": torch.randn(2, 4, 8, 8),
        "pred_d": 1 + torch.rand(2, 1, 32, 32),
        "logits": torch.randn(2, 2, 5, 5),
    }
    manifest = {
        "outputs": {
            "latents": {"full_shape": [2, 4, 8, 8], "index": "all"},
            "pred_d": {"full_shape": [2, 1, 32, 32], "index": "[:,:,::4,::2]"},
            "logits": {"full_shape": [2, 2, 5, 5], "index": "[:, :, ::2, :]"},
        },
        "argmax": {"pixels_with_margin_below_1e-3": 1},
    }
    recorded: dict[str, Any] = {}
    for name, value in found.items():
        full = value.double().numpy()
        stored = {"latents": full, "pred_d": full[:, :, ::4, ::2], "logits": full[:, :, ::2]}[name]
        recorded[name] = stored.astype(np.float32)
        recorded[f"{name}.stats"] = np.array([full.mean(), full.std(), full.min(), full.max()])
    recorded["argmax_packed"] = np.packbits(found["logits"].argmax(1).numpy().ravel())
    return found, Case(manifest, recorded, set())


def failures(found: dict[str, Tensor], case: Case) -> list[str]:
    return [row.name for row in compare(found, case) if not row.passed]


def test_agreement_passes(capsys: pytest.CaptureFixture[str]) -> None:
    found, case = recording()
    rows = compare(found, case)
    assert report(rows) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 8
    assert all(line.endswith("pass") for line in out)
    assert [row.limit for row in rows if row.name in ("latents", "pred_d", "logits")] == [5e-6, 5e-5, 3e-5]


def test_disagreement_fails(capsys: pytest.CaptureFixture[str]) -> None:
    found, case = recording()
    case.recorded["latents"][0, 0, 0, 0] += 1e-2
    assert report(compare(found, case)) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize("shift", [1e-2, float("nan")])
def test_error_where_nothing_was_stored_shows_in_the_statistics(shift: float) -> None:
    found, case = recording()
    found["pred_d"][..., 1, 1] += shift
    assert failures(found, case) == ["pred_d.stats"]


def test_offset_that_the_plain_error_hardly_sees_fails() -> None:
    """As the recording's README warns: the depth's mean is many times its spread."""
    truth = (1000 + np.random.default_rng(0).random((8, 8))).astype(np.float32)
    value = truth.astype(np.float64) + 1e-3
    assert np.linalg.norm(value - truth) / np.linalg.norm(truth) < 2e-6
    assert centred(value, truth) > 1e-3


Damage = Callable[[dict[str, Tensor], dict[str, Any]], Any]
DAMAGES: dict[str, Damage] = {
    "latents (this model has no such tensor)": lambda found, recorded: found.pop("latents"),
    "attn (this model has no such tensor)": lambda found, recorded: recorded.update(attn=np.ones(3)),
    "attn (in the npz, not in the manifest)": lambda found, recorded: (
        found.update(attn=torch.ones(3)),
        recorded.update(attn=np.ones(3)),
    ),
    "latents (in the manifest, not in the npz)": lambda found, recorded: (
        recorded.pop("latents"),
        recorded.pop("latents.stats"),
    ),
    "latents (shape [1, 4, 8, 8] instead of [2, 4, 8, 8])": lambda found, recorded: found.update(
        latents=found["latents"][:1]
    ),
    "latents": lambda found, recorded: recorded.update(latents=recorded["latents"][:1]),
    "argmax_packed (8 pixels instead of 50)": lambda found, recorded: recorded.update(
        argmax_packed=np.zeros(1, np.uint8)
    ),
    "argmax_packed (pixels)": lambda found, recorded: recorded.update(argmax_packed=~recorded["argmax_packed"]),
}


@pytest.mark.parametrize("failed", DAMAGES)
def test_nothing_passes_for_want_of_a_counterpart(failed: str) -> None:
    found, case = recording()
    DAMAGES[failed](found, case.recorded)
    assert failures(found, case) == [failed]


def test_mask_tolerates_only_the_pixels_called_too_close() -> None:
    found, case = recording()
    bits = np.unpackbits(case.recorded["argmax_packed"])
    bits[3] ^= 1
    case.recorded["argmax_packed"] = np.packbits(bits)
    assert failures(found, case) == []
    bits[4] ^= 1
    case.recorded["argmax_packed"] = np.packbits(bits)
    assert failures(found, case) == ["argmax_packed (pixels)"]


def test_constant_tensors_can_be_compared() -> None:
    assert centred(np.ones(4), np.ones(4, np.float32)) == 0
    assert centred(np.full(4, 1.1), np.ones(4, np.float32)) > 0.1


def test_no_row_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([]) == 2


@pytest.mark.parametrize("name", CASES)
def test_setting_is_told_by_the_manifest_whatever_the_case_is_called(name: str) -> None:
    manifest = json.loads(files(name)[0].read_text())
    tensors = dict.fromkeys((key for key, _ in manifest["tensors"]), torch.zeros(()))
    expected = {
        "evp_depth_kitti": "evp-depth-kitti",
        "evp_refer_refcoco": "evp-refer",
        "vpd_depth_nyu": "vpd-depth",
        "vpd_refer": "vpd-refer",
    }.get(name, "evp-depth-nyu")
    for case in (name, f"{name}_b", "case_7"):
        assert family({**manifest, "case": case}, tensors) == expected


@pytest.mark.parametrize(
    ("case", "inputs", "side", "expected"),
    [
        ("a", {}, 352, "kitti"),
        ("a", {}, 480, "nyu"),
        ("a", {}, 512, "nyu"),
        ("evp_depth_kitti_2", {}, 480, "kitti"),
        ("a", {"class_embedding_file": {"file": "kitti_class_embeddings_my_captions.pth"}}, 512, "kitti"),
        ("a", {"img_paths": {"value": ["nyu_depth_v2/x.jpg"]}}, 352, "nyu"),
        ("a", {"dataset": "kitti"}, 480, "kitti"),
    ],
)
def test_dataset_clues(case: str, inputs: dict[str, Any], side: int, expected: str) -> None:
    manifest = {"case": case, "inputs": {**inputs, "image": {"shape": [1, 3, side, side]}}}
    assert dataset(manifest) == expected


@pytest.mark.parametrize(
    ("recipe", "value"),
    [
        ("pseudo_input('a.b', (1, 3, 2), seed)", pseudo_input("a.b", (1, 3, 2), 5)),
        ("pseudo_input('a.b', (1, 3, 2), 7) * 2 - 1", pseudo_input("a.b", (1, 3, 2), 7) * 2 - 1),
        ('2 * pseudo_input("a", (4,), seed=7)', 2 * pseudo_input("a", (4,), 7)),
        ("2 * pseudo_input('a', (4,), seed) - 1 (uniform)", 2 * pseudo_input("a", (4,), 5) - 1),
        ("numpy.arange(64).reshape(1, 64, 1, 1), int64 (constructor value)", np.arange(64).reshape(1, 64, 1, 1)),
        ("63.0 in shape (1, 1, 1, 1) (constructor value)", 63.0),
        ("numpy.full((1, 1), 63.0); constructor value", np.full((1, 1), 63.0)),
        ("values of the file x.pth", None),
        ("pseudo_input('a', (4,), seed) plus noise", None),
        ("__import__('os').getcwd()", None),
        ("numpy.load('/etc/passwd')", None),
    ],
)
def test_recipes(recipe: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ValueError, match="is not known"):
            follow(recipe, 5)
    else:
        np.testing.assert_array_equal(follow(recipe, 5), value)


def test_recipe_may_point_into_the_npz() -> None:
    case = Case({"seed": 0}, {"classes": np.ones((2, 3)), "classes_b": np.zeros(1)}, set())
    made = case.make({"recipe": "values of the file classes.pth; copied into the npz as 'classes'.", "shape": [2, 3]})
    assert made.shape == (2, 3)
    assert case.inputs == {"classes"}
    with pytest.raises(ValueError, match="gives shape"):
        case.make({"recipe": "'classes'", "shape": [3, 2]})


def test_cases_that_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, npz = files("vpd_refer")
    content = json.loads(manifest.read_text())
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text(manifest.read_text()[:1000])
    (tmp_path / "foreign.json").write_text(json.dumps({**content, "tensors": [["a.weight", [2, 2]]]}))
    (tmp_path / "gain.json").write_text(json.dumps({**content, "tensors": [], "gain": 2.0}))
    (tmp_path / "cut.npz").write_bytes(npz.read_bytes()[:1000])
    calls = [
        [tmp_path / "none.json", npz],
        [manifest, tmp_path / "none.npz"],
        [manifest, tmp_path / "cut.npz"],
        *([tmp_path / name, npz] for name in ("list.json", "cut.json", "foreign.json", "gain.json")),
        [manifest],
        [],
    ]
    for call in calls:
        assert main([str(path) for path in call]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1, printed.err
