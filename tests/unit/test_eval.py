"""``deixis eval`` and ``deixis compare``: numbers, resuming, processes, wrong pairs, and the report."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from deixis.cli import main
from deixis.data import nyuv2_sets
from deixis.data.dataset import spread
from deixis.data.readers import READERS, open_dataset
from deixis.errors import InputError, KindError
from deixis.evaluation.journal import Entry, Journal
from deixis.evaluation.scoring import DepthScorer, Plan, chosen_text, load_scorer
from deixis.evaluation.settings import SETTINGS, choose
from deixis.predict import load_mask, load_metric
from deixis.protocols import benchmarks, summary
from deixis.protocols.depth import DEPTH_METRICS, DepthMetrics, DepthProtocol
from deixis.protocols.ranges import by_range, range_means
from deixis.protocols.refer import GENERAL_REFER, REFER_NATIVE, GeneralReferMetrics, ReferMetrics
from deixis.types import Text
from deixis.world.export import write_layout
from tests.pipelines import write_pipeline
from tests.recipes import tiny_nyuv2
from tests.unit.test_cli import Outcome, Run, Toy, names, run, wrong

__all__ = ["run"]  # a fixture

FOUR = ("--split", "train", "--limit", "4")


@pytest.fixture
def result(run: Run) -> Callable[..., dict[str, Any]]:
    """Evaluates and gives what result.json says, without what may differ between two runs."""

    def evaluated(*arguments: object, code: int = 0) -> dict[str, Any]:
        outcome = run("eval", *arguments)
        assert outcome.code == code, outcome.err
        out = Path(str(arguments[arguments.index("--out") + 1]))
        content = json.loads((out / "result.json").read_text())
        del content["command"]
        return content

    return evaluated


def entries(out: str | Path) -> list[Entry]:
    return list(Journal(Path(out) / "rows.jsonl").entries.values())


# ---------------------------------------------------------------------------------------------- numbers


def test_depth_equals_an_independent_computation(run: Run, toy: Toy, world: Path) -> None:
    weights = toy("evp-depth")
    outcome = run("eval", weights, "world-rooms", "--root", world, *FOUR, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    predictor, per_image = load_metric(weights), []
    dataset = open_dataset("world-rooms", world, "train")
    some = spread(len(dataset), 4)
    for index in some:
        sample = dataset[index]
        assert sample.depth is not None
        p, t = predictor(sample.rgb).values.astype(np.float64), sample.depth.astype(np.float64)
        p, t = p[(t > 1e-3) & (t < 10)], t[(t > 1e-3) & (t < 10)]
        ratio, g = np.maximum(p / t, t / p), np.log(p / t)
        per_image.append(
            {
                "abs_rel": np.mean(np.abs(p - t) / t),
                "sq_rel": np.mean((p - t) ** 2 / t),
                "rmse": np.mean((p - t) ** 2) ** 0.5,
                "rmse_log": np.mean(g**2) ** 0.5,
                "log10": np.mean(np.abs(np.log10(p / t))),
                "silog": (np.mean(g**2) - 0.5 * np.mean(g) ** 2) ** 0.5,
                **{f"d{n}": np.mean(ratio < 1.25**n) for n in (1, 2, 3)},
            }
        )
    for name in DEPTH_METRICS:
        values = [one[name] for one in per_image]
        measured = found["metrics"][name]
        assert measured["value"] == pytest.approx(np.mean(values), abs=1e-6), name
        assert min(values) <= measured["low"] + 1e-6 <= measured["value"] + 2e-6
        assert measured["value"] <= measured["high"] + 1e-6 <= max(values) + 2e-6
    with Path("out/rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == [dataset.names[index] for index in some]
    assert [float(row["abs_rel"]) for row in rows] == pytest.approx([one["abs_rel"] for one in per_image], abs=1e-6)
    for name in DEPTH_METRICS:
        from_table = np.mean([float(row[name]) for row in rows])
        assert found["metrics"][name]["value"] == pytest.approx(from_table, abs=1e-6), name
    assert (found["count"], found["scored"], found["failed"], found["skipped"], found["oracle"]) == (4, 4, 0, 0, False)
    assert sum(one["pixels"] for one in found["by_range"]) == sum(int(row["pixels"]) for row in rows)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table("out/rows.parquet").to_pylist() == [row for one in entries("out") for row in one.rows]


def test_affine_depth_is_aligned_by_least_squares(result: Any, tmp_path: Path, world: Path) -> None:
    weights = write_pipeline(tmp_path / "e2e", "e2e-ft")
    found = result(weights, "world-roads", "--root", world, "--split", "heldout", "--out", "out")
    assert found["protocol"]["name"] == "world-roads-affine"
    sample = open_dataset("world-roads", world)[0]
    from deixis.predict import load_depth

    assert sample.depth is not None
    known = (sample.depth > 1e-3) & (sample.depth < 80)
    p = load_depth(weights)(sample.rgb).values[known].astype(np.float64)  # type: ignore[union-attr]
    t = sample.depth[known].astype(np.float64)
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)[0]
    fitted = np.clip(scale * p + shift, 1e-3, 80)
    assert found["metrics"]["abs_rel"]["value"] == pytest.approx(np.mean(np.abs(fitted - t) / t), abs=1e-5)


def test_masks_equal_an_independent_computation(result: Any, toy: Toy, rooms: Path) -> None:
    weights = toy("evp-refer")
    found = result(weights, "nyuv2-rooms", "--root", rooms, "--out", "out")
    predictor, sample = load_mask(weights), open_dataset("nyuv2-rooms", rooms)[0]
    assert [one.found for one in sample.expressions].count(False) == 1  # all four things but those three that are there
    there = [one for one in sample.expressions if one.found]
    masks = [predictor(sample.rgb, one.text) for one in there]
    pairs = [((m.mask & one.mask).sum(), (m.mask | one.mask).sum()) for m, one in zip(masks, there, strict=True)]
    metrics = found["metrics"]
    assert metrics["oiou"]["value"] == pytest.approx(100 * sum(i for i, _ in pairs) / sum(u for _, u in pairs))
    assert metrics["miou"]["value"] == pytest.approx(100 * np.mean([i / u for i, u in pairs]))
    with Path("out/rows.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["there"] == "True"]
    table = np.array([[float(row[name]) for name in ("intersection", "union")] for row in rows])
    assert metrics["oiou"]["value"] == pytest.approx(100 * table[:, 0].sum() / table[:, 1].sum(), abs=1e-6)
    assert metrics["miou"]["value"] == pytest.approx(100 * (table[:, 0] / table[:, 1]).mean(), abs=1e-6)
    assert metrics["t_acc"]["value"] == 100
    assert metrics["n_acc"]["value"] == 0
    assert metrics["n_acc"]["samples"] == 1
    shy = result(toy("evp-refer-shy"), "nyuv2-rooms", "--root", rooms, "--out", "shy")["metrics"]
    assert (shy["t_acc"]["value"], shy["n_acc"]["value"]) == (0, 100)


def test_answers_are_scored(result: Any, toy: Toy, rooms: Path) -> None:
    found = result(
        "ask", "nyuv2-rooms", "--root", rooms, "--out", "out",
        "--depth-model", toy("evp-depth"), "--mask-model", toy("evp-refer"),
    )  # fmt: skip
    depth, segment = load_metric(toy("evp-depth")), load_mask(toy("evp-refer"))
    from deixis.asking import ask

    sample = open_dataset("nyuv2-rooms", rooms)[0]
    off = []
    for one in sample.expressions:
        if one.found:
            distance = ask(sample.rgb, one.text, depth=depth, segment=segment).distance_m
            assert distance is not None
            assert one.distance_m is not None
            off.append(abs(distance["median"] - one.distance_m) / one.distance_m)
    assert found["metrics"]["abs_rel"]["value"] == pytest.approx(np.mean(off))
    assert found["mask_model"] == str(toy("evp-refer"))
    assert [one["nominal"] for one in found["calibration"]] == pytest.approx(range(10, 100, 10))
    page = Path("out/report.html").read_text()
    assert "Calibration of the interval" in page
    assert "Abstention" in page


def test_ratios_are_the_protocols_numbers() -> None:
    rng = np.random.default_rng(0)
    protocol = DepthProtocol("t", "none", 10.0)
    whole, rows = DepthMetrics(protocol), []
    for index in range(5):
        p, t = (torch.from_numpy(rng.uniform(0.5, 9, (6, 8)).astype(np.float32)) for _ in "pt")
        whole.update(p, t, kind="metric")
        rows.append({"index": index, **protocol.score(p, t, kind="metric")})
    mean = whole.compute()
    assert {one.name: one.value() for one in summary.depth_ratios(rows)} == {n: mean[n] for n in DEPTH_METRICS}
    masks, rows = ReferMetrics(REFER_NATIVE), []
    for index in range(6):
        p, t = rng.random((2, 9, 9)) < 0.5
        masks.update(p, t)
        i, u = REFER_NATIVE.counts(p, t)
        rows.append({"image": index // 2, "there": True, "found": True, "intersection": i, "union": u})
    mean = masks.compute()
    ratios = {one.name: one for one in summary.refer_ratios(rows)}
    assert all(ratios[name].value() == mean[name] for name in ("oiou", "miou", "p@0.5", "p@0.9"))
    assert ratios["n_acc"].value() is None
    assert ratios["n_acc"].interval() is None


def test_intervals_that_hold_the_truth_are_calibrated() -> None:
    rows = [{"rank": rank} for rank in np.linspace(0, 1, 1001)] + [{"rank": None}]
    for one in summary.calibration(rows):  # type: ignore[arg-type]
        assert one["actual"] == pytest.approx(one["nominal"], abs=0.2)
    assert summary.calibration([{"rank": None}]) == []


def test_errors_fall_into_their_ranges() -> None:
    target, starts = torch.tensor([0.5, 1.0, 1.5, 7.0]), (0.0, 1.0, 2.0, 5.0)
    sums = by_range(target + torch.tensor([0.5, -0.5, 0.5, 7.0]), target, starts)
    assert sums == [(1, 0.5, 1.0), (2, 1.0, 0.5 + 0.5 / 1.5), (0, 0.0, 0.0), (1, 7.0, 1.0)]
    table = range_means([sums, sums], starts)
    assert [(one["from_m"], one["to_m"], one["pixels"], one["mae"]) for one in table] == [
        (0.0, 1.0, 2, 0.5),
        (1.0, 2.0, 4, 0.5),
        (5.0, None, 2, 7.0),
    ]


# ----------------------------------------------------------------------------- interruptions, processes


def test_killed_and_resumed_equals_undisturbed_equals_two_processes(
    result: Any, run: Run, toy: Toy, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (toy("evp-depth"), "world", "--root", world, "--split", "train")
    undisturbed = result(*command, "--out", "whole")
    assert undisturbed["scored"] == 18
    child = os.fork()
    if not child:
        # Slow enough to be killed in the middle.
        score = DepthScorer.score
        monkeypatch.setattr(DepthScorer, "score", lambda *given: (time.sleep(0.05), score(*given))[1])
        try:
            main(["eval", *map(str, command), "--out", "killed"])
        finally:
            os._exit(99)
    journal, patience = Path("killed/rows.jsonl"), time.monotonic() + 120
    while time.monotonic() < patience and not (journal.is_file() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n")
    assert 3 <= done < 18
    assert names("killed") == ["rows.jsonl", "run.json"]
    journal.write_bytes(journal.read_bytes() + b'{"index": 3, "na')  # as a kill within a write leaves it
    assert result(*command, "--out", "killed") == undisturbed
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [one["index"] for one in lines] == list(range(18))
    assert Path("killed/rows.csv").read_bytes() == Path("whole/rows.csv").read_bytes()
    assert result(*command, "--out", "two", "--processes", "2") == undisturbed
    assert Path("two/rows.csv").read_bytes() == Path("whole/rows.csv").read_bytes()
    # Once it is done, nothing is done again.
    monkeypatch.setattr("deixis.evaluation.run.load_scorer", None)
    assert result(*command, "--out", "whole") == undisturbed


def test_two_runs_in_one_folder_take_nothing_from_each_other(tmp_path: Path) -> None:
    one = Journal(tmp_path / "rows.jsonl")
    one.append(Entry(0, "a"))
    other = Journal(tmp_path / "rows.jsonl")
    one.append(Entry(1, "b"))
    other.append(Entry(2, "c"))
    one.append(Entry(3, "d"))
    assert [entry.index for entry in entries(tmp_path)] == [0, 1, 2, 3]


def test_a_larger_limit_goes_on(result: Any, toy: Toy, world: Path) -> None:
    command = (toy("evp-depth"), "world-rooms", "--root", world, "--split", "train", "--out", "out")
    assert result(*command, "--limit", 1)["count"] == 1
    found = result(*command, "--limit", 2)
    assert (found["count"], found["samples"]) == (2, 9)
    assert [one.index for one in entries("out")] == [0, 4]  # evenly spread, and the first is kept
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "2, evenly spread" in page
    assert spread(10, 4) == [0, 2, 5, 7]
    assert set(spread(654, 20)) <= set(spread(654, 40))
    assert spread(3, 9) == spread(3, None) == [0, 1, 2]


def test_a_folder_belongs_to_one_run(run: Run, toy: Toy, world: Path, tmp_path: Path) -> None:
    weights = Path(shutil.copytree(toy("evp-depth"), tmp_path / "weights"))
    command = ("eval", weights, "world-rooms", "--root", world, "--out", "out")
    assert run(*command).code == 0
    for change, key in (
        (("--split", "val"), "split 'heldout', not 'val'"),
        (("--text", "caption"), "text_source"),
        (("--tta", "flip"), "tta"),
        (("--seed", "1"), "seed 0, not 1"),
    ):
        wrong(run(*command, *change), "out: was begun with", key)
    wrong(run("eval", toy("evp-refer"), *command[2:]), "out: was begun with task 'metric', not 'refer'")
    moved = Path(shutil.copytree(weights, tmp_path / "weights-2"))
    wrong(run("eval", moved, *command[2:]), f"out: was begun with model '{weights}', not '{moved}'")
    manifest = weights / "deixis.json"
    manifest.write_text(manifest.read_text().replace('"licence": "none"', '"licence": "some"'))
    wrong(run(*command), "out: was begun with weights_sha256")
    wrong(run(*command[:-1], weights), f"{weights}: holds other files")
    # Settings that are refused begin nothing.
    pipeline = write_pipeline(tmp_path / "lotus", "lotus-d")
    command = ("eval", pipeline, "world-rooms", "--root", world, "--limit", 1, "--out", "corrected")
    Path("corrected").mkdir()
    Path("corrected/.0123456789abcdef.tmp").write_bytes(b'{"for')  # as a kill within the first write leaves it
    wrong(run(*command, "--steps", 4), "steps 4:")
    assert run(*command).code == 0
    wrong(run(*command, "--steps", 1), "corrected: was begun with steps None, not 1")
    for damage in ("nonsense", "5", '{"index": [], "name": "a"}'):
        Path("out/rows.jsonl").write_text(f"{damage}\n")
        with pytest.raises(InputError, match=r"rows\.jsonl: is damaged in line 1"):
            entries("out")


def test_what_has_changed_is_scored_again(result: Any, run: Run, toy: Toy, world: Path, tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("nyuv2", "other")}
    for root in roots.values():
        write_layout(world, root, "nyuv2", 3)
    for path in roots["other"].rglob("sync_depth_*.png"):
        values = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray(values // 2).save(path)

    def evaluated(root: str, out: str) -> Any:
        return result(toy("evp-depth"), "nyuv2", "--root", roots[root], "--out", out)["metrics"]

    first, other = evaluated("nyuv2", "a"), evaluated("other", "b")
    assert first["rmse"] != other["rmse"]
    journal = Path("a/rows.jsonl").read_text().splitlines()
    assert evaluated("nyuv2", "a") == first
    assert Path("a/rows.jsonl").read_text().splitlines() == journal  # nothing is done twice
    Path("c").mkdir()
    shutil.copy("a/run.json", "c/run.json")
    Path("c/rows.jsonl").write_text(journal[0] + "\n")  # a run that was cut off
    assert evaluated("other", "c") == other
    wrong(run("compare", "a", "b", "--out", "d"), "b: was scored against another ground truth of ", "on the same copy")
    assert evaluated("other", "a") == other
    # The same copy by another path, and in a tar, is the same.
    with tarfile.open("nyuv2.tar", "w") as tar:
        tar.add(roots["nyuv2"], arcname=".")
    assert result(toy("evp-depth"), "nyuv2", "--root", "nyuv2.tar", "--out", "e")["metrics"] == first
    assert evaluated("nyuv2", "f") == first
    outcome = run("compare", "e", "f", "--out", "g")
    assert outcome.code == 0, outcome.err


def test_a_picture_of_another_size_costs_no_other(run: Run, toy: Toy, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "nyuv2"
    write_layout(world, root, "nyuv2", 2)
    odd = sorted(root.rglob("rgb_*.jpg"))[0]
    Image.fromarray(np.zeros((427, 561, 3), np.uint8)).save(odd)
    depth = odd.with_name(odd.name.replace("rgb", "sync_depth")).with_suffix(".png")
    Image.fromarray(np.full((427, 561), 900, np.uint16)).save(depth)
    outcome = run("eval", toy("evp-depth"), "nyuv2", "--root", root, "--out", "out")
    assert outcome.code == 1
    assert f"{odd.parent.name}/{odd.name}: is 561x427 pixels; nyu-eigen crops rows 45-471" in outcome.err
    assert json.loads(Path("out/result.json").read_text())["scored"] == 1


def test_a_benchmark_without_a_count_needs_all_of_its_samples() -> None:
    google = benchmarks.BENCHMARKS["refer-refcoco-google-val"]
    assert google.count is None
    assert google.differs(scored=9, missed=0, tta="none", own_list=None) is None
    assert google.differs(scored=9, missed=2, tta="none", own_list=None) == "2 of its samples are not scored"
    unc = benchmarks.BENCHMARKS["refer-refcoco-unc-val"]
    assert unc.differs(scored=None, missed=0, tta="none", own_list=None) is None


# ------------------------------------------------------------------------------------- what can be wrong
# ------------------------------------------------------------------------------------- what can be wrong


def test_wrong_pairs_are_one_line(run: Run, toy: Toy, world: Path, rooms: Path, tmp_path: Path) -> None:
    depth, refer = toy("evp-depth"), toy("evp-refer")
    wrong(run("eval", refer, "kitti", "--root", world, "--out", "o"), "gives masks", "kitti scores", "refcoco")
    wrong(run("eval", depth, "refcoco", "--root", world, "--out", "o"), "gives metric depth", "refcoco scores masks")
    wrong(run("eval", depth, "eth3d", "--root", world, "--out", "o"), "eth3d scores depth without metres")
    wrong(run("eval", depth, "moon", "--root", world, "--out", "o"), "dataset 'moon'", "is unknown")
    wrong(run("eval", depth, "nyuv", "--root", world, "--out", "o"), "dataset 'nyuv'", "did you mean nyuv2?")
    wrong(run("eval", depth, "world", "--root", world, "--protocol", "x", "--out", "o"), "protocol 'x'", "use world")
    wrong(run("eval", depth, "world", "--root", world, "--split", "test", "--out", "o"), "split 'test'", "heldout")
    wrong(run("eval", depth, "world", "--root", world, "--list", "x", "--out", "o"), "leave --list out")
    wrong(run("eval", depth, "world", "--root", tmp_path / "no", "--out", "o"), "is no folder")
    wrong(run("eval", depth, "world", "--root", world, "--text", "poem", "--out", "o1"), "--text poem", "caption-3")
    wrong(run("eval", depth, "world", "--root", world, "--steps", "4", "--out", "o"), "--steps 4", "no such setting")
    wrong(run("eval", refer, "world", "--root", world, "--text", "class", "--out", "o"), "--text class")
    wrong(run("eval", refer, "world", "--root", world, "--tta", "flip", "--out", "o"), "--tta flip")
    wrong(
        run("eval", depth, "world", "--root", world, "--mask-model", refer, "--out", "o"), "goes with the model 'ask'"
    )
    wrong(run("eval", "ask", "kitti", "--root", world, "--out", "o"), "ask: gives distances")
    assert not Path("o").exists()
    relative = write_pipeline(tmp_path / "lotus", "lotus-d")
    wrong(run("eval", relative, "world", "--root", world, "--steps", "4", "--out", "o2"), "in one step")


def test_a_part_of_a_benchmark_is_scored_under_its_own_name(
    run: Run, result: Any, toy: Toy, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, weights = tmp_path / "nyuv2", toy("evp-depth")
    assert write_layout(world, root, "nyuv2", 2) == 2
    command = ("eval", weights, "nyuv2", "--root", root)
    outcome = run(*command, "--out", "part")
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("part/result.json").read_text())
    where = root / "official_splits" / "test"
    why = f"not metric-nyuv2: 2 of 654 are scored; its samples are not those of the published list ({where})"
    assert (found["benchmark"], found["samples"]) == (None, 2)
    assert found["differs"] == f"{why}; test-time augmentation is 'none', not 'windows'"
    assert f"note: this is {why}" in outcome.err
    table = [line.split("\t") for line in outcome.out.splitlines()]
    assert table[0] == ["metric", "value", "low", "high", "unit", "of", "text", "benchmark"]
    assert {tuple(line[5:]) for line in table[1:]} == {("2", "empty", "differs")}
    assert "This is not metric-nyuv2: 2 of 654" in Path("part/report.html").read_text()
    # Only what is scored is shown as an error: not the rim that the crop leaves out.
    scorer = load_scorer(Plan("metric", str(weights), "nyuv2", str(root)), open_dataset("nyuv2", root, part=True))
    error = scorer.show(scorer.dataset[0], {})[3][0]
    assert error.getpixel((0, 0)) == error.getpixel((639, 479)) == (60, 60, 64)
    assert error.getpixel((320, 240)) != (60, 60, 64)

    claim = (*command, "--protocol", "metric-nyuv2", "--out", "claimed")
    wrong(run(*claim), "metric-nyuv2: 2 of 654 are scored, its samples are not those of the published list")
    wrong(run(*claim, "--split", "train"), "metric-nyuv2: is measured on the split 'test', not on 'train'")
    wrong(run(*command[:2], "kitti", *claim[3:]), "protocol 'metric-nyuv2': is not one of kitti", "metric-kitti")
    relative = write_pipeline(tmp_path / "e2e", "e2e-ft")
    wrong(run("eval", relative, *claim[2:]), "gives depth without metres; use nyuv2-affine, affine-nyuv2")
    whole = replace(benchmarks.BENCHMARKS["metric-nyuv2"], count=2)
    monkeypatch.setitem(nyuv2_sets.COUNTS, "test", 2)
    monkeypatch.setitem(benchmarks.BENCHMARKS, whole.name, whole)
    wrong(run(*claim), "metric-nyuv2: test-time augmentation is 'none', not 'windows'; evaluate all of test")
    wrong(run(*claim, "--tta", "windows", "--limit", "1"), "metric-nyuv2: 1 of 2 are scored")
    assert not Path("claimed").exists()
    assert result(*claim[1:-1], "named", "--tta", "windows")["benchmark"] == "metric-nyuv2"
    monkeypatch.setattr(DepthScorer, "score", lambda self, index, sample: Entry(index, sample.name))
    outcome = run(*claim[:-1], "lost", "--tta", "windows")
    assert (outcome.code, "metric-nyuv2: 0 of 2 are scored" in outcome.lines[-1]) == (2, True)
    assert not Path("lost/result.json").exists()


def test_a_model_that_does_not_see_as_far_is_said(run: Run, toy: Toy, world: Path) -> None:
    weights = toy("evp-depth")
    outcome = run("eval", weights, "world-roads", "--root", world, "--out", "out")
    assert f"note: {weights} gives depth up to 10 m, and world-roads is scored up to 80 m" in outcome.err
    assert "gives depth up to 10 m" in Path("out/report.html").read_text()


def test_expressions_for_nothing_count_as_grefcoco_has_them(result: Any, toy: Toy, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    write_layout(world, root, "refcoco", 6)
    for name in ("evp-refer", "evp-refer-shy"):
        found = result(toy(name), "grefcoco", "--root", root, "--split", "unc-train", "--out", name)
        assert found["protocol"]["name"] == "general-refer"
        whole, rows = GeneralReferMetrics(GENERAL_REFER), [row for one in entries(name) for row in one.rows]
        predictor = load_mask(toy(name))
        for sample in open_dataset("grefcoco", root, "unc-train", part=True):
            for one in sample.expressions:
                whole.update(predictor(sample.rgb, one.text).mask, one.mask)
        mean, metrics = whole.compute(), found["metrics"]
        assert list(metrics)[:2] == ["giou", "ciou"]
        for key, one in metrics.items():
            assert one["value"] == (pytest.approx(mean[key], abs=1e-9) if key in mean else None), key
        assert len({row["image"] for row in rows}) < len({row["sample"] for row in rows})  # several refs of a picture


def test_every_reader_is_scored_and_every_pair_has_a_default() -> None:
    assert set(READERS) <= set(SETTINGS)
    for dataset, tasks in SETTINGS.items():
        for task, settings in tasks.items():
            assert choose(dataset, task, "model") is settings[0]
            for setting in settings:
                assert choose(dataset, task, "model", setting.name) is setting
                assert setting.words
    assert choose("kitti", "metric", "m").name == "kitti-garg"
    assert choose("kitti", "metric", "m", "kitti-eigen").name == "kitti-eigen"
    assert choose("refcoco", "refer", "m").name == "refer-512"
    with pytest.raises(KindError, match="use a dataset such as"):
        choose("diode", "metric", "evp-depth")


def test_what_cannot_be_read_is_named_counted_and_tried_again(run: Run, toy: Toy, tmp_path: Path) -> None:
    root = tiny_nyuv2.write(tmp_path / "nyuv2", train=1, val=0, heldout=2)
    lost = sorted((root / "official_splits/train/playroom").glob("rgb_*.jpg"))[0]
    content = lost.read_bytes()
    lost.write_bytes(content[:300])
    command = ("eval", toy("evp-depth"), "nyuv2-rooms", "--root", root, "--out", "out")
    outcome = run(*command)
    assert outcome.code == 1
    assert f"{lost}: cannot be read" in outcome.err
    assert "1 scored, 0 without anything to score, 1 failed" in outcome.lines[-1]
    found = json.loads(Path("out/result.json").read_text())
    assert (found["scored"], found["failed"], len(found["failures"])) == (1, 1, 1)
    assert lost.name in Path("out/report.html").read_text()
    lost.write_bytes(content)
    assert run(*command).code == 0
    assert json.loads(Path("out/result.json").read_text())["scored"] == 2
    for picture in lost.parent.glob("rgb_*.jpg"):
        picture.write_bytes(b"")
    outcome = run(*command[:-1], "none")
    assert outcome.code == 2
    assert "has no sample that can be scored (2 failed, 0 without anything to score)" in outcome.lines[-1]


def test_predictions_that_are_not_finite_name_their_samples(run: Run, tmp_path: Path, world: Path) -> None:
    weights = write_pipeline(tmp_path / "broken", "lotus-d")
    path = weights / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value * float("nan") for key, value in load_file(path).items()}, path)
    outcome = run("eval", weights, "world-rooms", "--root", world, *FOUR, "--out", "out")
    assert outcome.code == 2
    for name in open_dataset("world-rooms", world, "train").names[:1]:
        assert re.search(rf"{name}: \d+ predictions that count are not finite; check the model", outcome.err)
    assert outcome.lines[-1].endswith("(4 failed, 0 without anything to score); see what is said of each")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf_8_cost_nothing(run: Run, toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "nyuv2" / "test" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    Image.new("RGB", (640, 480), "grey").save(folder / "rgb_0001.png")
    Image.fromarray(np.full((480, 640), 2000, np.uint16)).save(folder / "depth_0001.png")
    command = ("eval", toy("evp-depth"), "nyuv2", "--root", tmp_path / "nyuv2")
    for text in ("none", "class"):
        outcome = run(*command, "--text", text, "--out", text)
        assert outcome.code == 0, outcome.err
        assert "test/caf\\udce9/rgb_0001.png" in Path(text, "report.html").read_text(encoding="utf-8")
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(f"{text}/rows.parquet")["sample"].to_pylist() == ["test/caf\\udce9/rgb_0001.png"]


def test_results_on_other_samples_than_the_published_ones_say_so(
    run: Run, toy: Toy, world: Path, tmp_path: Path
) -> None:
    write_layout(world, tmp_path / "coco", "refcoco", 4)
    outcome = run("eval", toy("evp-refer"), "refcoco", "--root", tmp_path / "coco", "--limit", "1", "--out", "out")
    assert outcome.code == 0
    assert "its samples are not those of the published list (refcoco/refs(unc).p)" in outcome.err


# --------------------------------------------------------------------------------- text, report, compare


def test_oracle_text_is_marked_and_never_mixed(result: Any, run: Run, toy: Toy, world: Path) -> None:
    command = (toy("evp-depth"), "world-rooms", "--root", world, "--split", "train", "--limit", "3")
    silent, told = result(*command, "--out", "a"), result(*command, "--text", "caption", "--out", "b")
    assert (silent["oracle"], silent["text_provenance"]) == (False, {"empty": 3})
    assert (told["oracle"], told["text_provenance"]) == (True, {"oracle": 3})
    assert [row["text"] for one in entries("b") for row in one.rows] == [
        chosen_text(sample, "caption").text  # type: ignore[union-attr]
        for sample in (open_dataset("world-rooms", world, "train")[i] for i in (0, 3, 6))
    ]
    assert "oracle</b> text" in Path("b/report.html").read_text()
    assert "oracle</b> text" not in Path("a/report.html").read_text()

    outcome = run("compare", "a", "b", "--out", "c")
    assert outcome.code == 0
    table = [line.split("\t") for line in outcome.out.splitlines()]
    assert table[0][-2:] == ["text A", "text B"]
    assert all(line[-2:] == ["empty", "oracle"] for line in table[1:])
    assert "note: b was told oracle text" in outcome.err
    found = json.loads(Path("c/compare.json").read_text())["metrics"]["abs_rel"]
    a, b = ([row["abs_rel"] for one in entries(out) for row in one.rows] for out in "ab")
    off = np.subtract(a, b)
    assert found["difference"] == pytest.approx(off.mean(), abs=1e-9)
    ends = min(off) - 1e-9, max(off) + 1e-9  # a mean of equal numbers may differ from them by rounding
    assert ends[0] <= found["low"] <= found["difference"] <= found["high"] <= ends[1]
    assert (found["a_better"], found["equal"], found["samples"]) == ((off < 0).sum(), 0, 3)


def test_texts_of_two_provenances_are_not_counted_together(tmp_path: Path) -> None:
    from deixis.errors import UsageError
    from deixis.evaluation.run import _check_leak

    journal = Journal(tmp_path / "rows.jsonl")
    plan = Plan("metric", "m", "world", "r", text="caption")
    journal.append(Entry(0, "a", [{"index": 0, "text_provenance": "oracle"}]))
    journal.close()
    _check_leak(plan, Entry(1, "b", [{"index": 1, "text_provenance": Text("", "oracle").provenance}]), journal)
    with pytest.raises(UsageError, match="is oracle for one of a and b"):
        _check_leak(plan, Entry(1, "b", [{"index": 1, "text_provenance": "caption:blip2"}]), journal)


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not {"href", "srcset", "onload"} & set(given)
        assert tag not in ("script", "link", "iframe", "object")
        if tag == "img":
            assert given["alt"]
            self.pictures.append(str(given["src"]))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_needs_nothing_else(result: Any, toy: Toy, world: Path) -> None:
    found = result(toy("evp-depth"), "world-rooms", "--root", world, *FOUR, "--out", "out")
    content = Path("out/report.html").read_text(encoding="utf-8")
    assert "http:" not in content
    assert "https:" not in content
    page = Page()
    page.feed(content)
    page.close()
    assert page.open == []
    for words in ("95 % interval", "Error against depth range", "Worst images", "Best images", "--split train"):
        assert words in page.text
    assert found["weights_sha256"] in page.text
    assert f"{found['metrics']['abs_rel']['value']:.3f}" in page.text
    # Two plots, the error's scale, and four pictures of two worst and two best images.
    assert len(page.pictures) == 3 + 4 * 4
    pictures = []
    for source in page.pictures:
        head, data = source.split(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        pictures.append(np.asarray(Image.open(io.BytesIO(b64decode(data))).convert("RGB"), dtype=float))
    order = sorted((row["abs_rel"], row["index"]) for one in entries("out") for row in one.rows)
    dataset = open_dataset("world-rooms", world, "train")
    for place, index in ((3, order[-1][1]), (11, order[0][1])):
        photo = Image.fromarray(dataset[index].rgb).resize((640, 480), Image.Resampling.NEAREST)
        assert np.abs(pictures[place] - np.asarray(photo)).mean() < 4


def test_only_the_same_samples_and_protocols_are_compared(run: Run, result: Any, toy: Toy, world: Path) -> None:
    def evaluated(out: str, *more: object, model: str = "evp-depth", dataset: str = "world-rooms") -> None:
        result(toy(model), dataset, "--root", world, "--out", out, *more)

    evaluated("a", "--split", "train", "--limit", 2)
    evaluated("b", "--split", "train", "--limit", 1)
    evaluated("c")
    evaluated("d", model="evp-refer")
    wrong(run("compare", "a", "b"), "b: has no scores of rooms-00000")
    wrong(run("compare", "b", "a"), "b: has no scores of rooms-00000")
    wrong(run("compare", "a", "c"), "differ in split: train and heldout")
    wrong(run("compare", "c", "d"), "differ in task")
    wrong(run("compare", "a", "nowhere"), "nowhere/result.json: is not there")
    wrong(run("compare", "a", "a", "--metric", "oiou"), "metric 'oiou'", "abs_rel")
    same: Outcome = run("compare", "a", "a", "--metric", "abs_rel", "--json")
    found = same.json["metrics"]
    assert list(found) == ["abs_rel"]
    assert (found["abs_rel"]["difference"], found["abs_rel"]["a_better"], found["abs_rel"]["equal"]) == (0, 0, 2)
    masks = run("compare", "d", "d", "--json").json["metrics"]
    assert masks["oiou"]["difference"] == 0
