"""The papers' numbers, what is missing to measure them again, and the switches of EVP's table 4."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deixis.cli import main
from deixis.errors import DeixisError, UsageError
from deixis.io import write_json
from deixis.protocols.benchmarks import BENCHMARKS
from deixis.protocols.depth import DepthProtocol
from deixis.registry import shipped_folder, weights
from deixis.reproduction import minis, scores, table4
from deixis.reproduction.docs import page, store
from deixis.reproduction.experiments import EXPERIMENTS, MiniScore, experiment
from deixis.reproduction.official import DATASETS, LISTS, Given, check_given, rescored
from deixis.reproduction.report import paper_table, score_table
from deixis.reproduction.scale import QUICK
from deixis.reproduction.scores import PICTURES, pictures, scored, short_of
from deixis.training import findings
from deixis.training.recipe import read_recipe
from deixis.training.scenes import Scenes
from tests.pipelines import write_pipeline

RECIPES = Path(table4.__file__).parent


def given(tmp_path: Path, roots: dict[str, Path] | None = None, folders: dict[str, str] | None = None) -> Given:
    say = fail = lambda line: None
    return Given(roots or {}, folders or {}, None, tmp_path, "deixis", quick=True, say=say, fail=fail)


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *arguments])
    return int(end.value.code or 0)


def by_steps(columns: list[Any], series: dict[str, list[float]]) -> dict[str, Any]:
    return {"columns": [str(one) for one in columns], "rows": series}


def test_the_papers_numbers():
    """Every number, against a copy of the papers' tables made apart from the package's."""
    papers = json.loads((Path(__file__).parents[1] / "parity/fixtures/papers_tables.json").read_text())
    steps, training = papers["iris.denoising_steps"], papers["iris.training_convergence"]
    expected = {
        "evp.table1": [papers["evp.table1_nyu"]],
        "evp.table2": [papers["evp.table2_kitti"]],
        "evp.table3": [papers["evp.table3_refcoco"]],
        "evp.table4": [papers["evp.table4_ablation_nyu"]],
        "evp.figure4": [],
        "iris.zero_shot": [papers["iris.zero_shot"]],
        "iris.steps": [by_steps(steps["steps"], steps[f"{one}.abs_rel"]) for one in ("nyuv2", "kitti")],
        "iris.convergence": [
            by_steps(training["iterations"], training[f"{one}_subset"]) for one in ("kitti", "second")
        ],
        "iris.refinement": [],
    }
    assert expected.keys() == EXPERIMENTS.keys()
    for name, tables in expected.items():
        ours = [
            (list(one.columns), {row: list(cells) for row, cells in one.rows.items()})
            for one in experiment(name).tables
        ]
        assert ours == [(one["columns"], one["rows"]) for one in tables], name
    assert "| EVP | 0.224 | 0.976 | 0.997 | 0.999 | 0.061 | 0.027 |" in paper_table(experiment("evp.table1").tables[0])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_rows_benchmarks_and_weights_that_there_are(name):
    one = experiment(name)
    known = {weight.name for weight in weights()}
    rows = {row for table in one.tables for row in table.rows}
    for table in one.tables:
        assert {len(values) for values in table.rows.values()} == {len(table.columns)}
    for score in one.scores:
        assert score.weights is None or score.weights in known
        assert BENCHMARKS[score.benchmark].dataset in DATASETS
        assert not rows or score.row in rows
    assert one.published["title"]


def test_the_nearest_name_is_said():
    with pytest.raises(UsageError, match=r"experiment 'evp\.tabel4': is unknown; did you mean evp\.table4\?"):
        experiment("evp.tabel4")


def test_names_of_nothing_are_refused():
    with pytest.raises(UsageError, match="--root nyu=: names no dataset"):
        check_given({"nyu": Path()}, {})
    with pytest.raises(UsageError, match="--weights evp=: names no weights"):
        check_given({}, {"evp": "DIR"})


def test_what_is_missing_has_a_line_each(tmp_path, monkeypatch):
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(tmp_path))
    rows, missing = rescored(experiment("iris.zero_shot"), given(tmp_path))
    assert rows == []
    for dataset, lists in LISTS.items():
        assert any(line.startswith(f"data {dataset} (") and f"--root {dataset}=DIR" in line for line in missing)
        assert any(line.startswith(f"list {lists[0]}: github.com/") for line in missing)
    assert any(line.startswith("weights prs-eth/marigold-depth-v1-0: huggingface.co/") for line in missing)
    assert any(line.startswith("weights of row 'lotus-g + text': nobody published them") for line in missing)
    assert len(missing) == len(set(missing))
    here = given(tmp_path, {"kitti": tmp_path}, {"evp-depth-kitti": "DIR"})
    assert not any(line.startswith(("data ", "weights ")) for line in rescored(experiment("evp.table2"), here)[1])


def test_official_weights_are_scored_by_the_published_setting(tmp_path, monkeypatch):
    asked = []

    def evaluate(plan, out, command, listener):
        asked.append(plan)
        return {
            "benchmark": None,
            "differs": "2 of 654 are scored",
            "task": plan.task,
            "model": plan.model,
            "weights_sha256": "0",
            "dataset": plan.dataset,
            "split": plan.split,
            "protocol": {"words": "crop"},
            "tta": plan.tta,
            "steps": plan.steps,
            "resolution": plan.resolution,
            "seed": 0,
            "text_provenance": {"aggregate:nyuv2": 2},
            "scored": 2,
            "rows": 2,
            "metrics": {"rmse": {"value": 0.25, "low": 0.2, "high": 0.3, "unit": ""}},
        }

    monkeypatch.setattr("deixis.evaluation.run.evaluate", evaluate)
    sets = dict.fromkeys(("nyuv2", "eth3d", "diode"), tmp_path)
    names = {"prs-eth/marigold-depth-v1-0": "M", "jingheya/lotus-depth-d-v1-0": "L"}
    rescored(experiment("iris.zero_shot"), given(tmp_path, sets, names))
    seen = {(plan.model, plan.dataset): plan.resolution for plan in asked}
    assert seen == {
        ("M", "nyuv2"): 0, ("M", "eth3d"): 756, ("M", "diode"): 640,
        ("L", "nyuv2"): 0, ("L", "eth3d"): 768, ("L", "diode"): 640,
    }  # fmt: skip
    asked.clear()
    here = given(tmp_path, {"nyuv2": tmp_path}, {"evp-depth-nyu": "DIR"})
    monkeypatch.setattr("deixis.evaluation.run.evaluate", evaluate)
    here = given(tmp_path, {"nyuv2": tmp_path}, {"evp-depth-nyu": "DIR"})
    rows, _ = rescored(experiment("evp.table1"), here)
    (plan,) = asked
    assert plan.resolution is None
    assert (plan.task, plan.model, plan.dataset, plan.split, plan.tta) == ("metric", "DIR", "nyuv2", "test", "windows")
    assert plan.claimed.name == "metric-nyuv2"  # what is not the published setting is refused
    line = score_table(rows, ("rmse",))[2]
    assert line.startswith("| EVP | nyuv2 | test | 2 |")
    assert "0.250 (0.200 to 0.300)" in line
    assert "2 of 654 are scored" in line


def test_a_row_that_fails_costs_only_itself(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    model = shipped_folder() / "evp-depth-mini"
    out = tmp_path / "out"
    pairs = ("--root", f"nyuv2={empty}", "--weights", f"evp-depth-nyu={model}")
    assert cli("evp.table1", *pairs, "--out", str(out), "--json") == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["official"] == []
    assert any(line.startswith("EVP on metric-nyuv2: ") for line in found["missing"])
    assert str(empty) in said.err


def test_the_command_prints_the_paper_and_what_is_missing(tmp_path, capsys):
    assert cli("evp.table3", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "| EVP | 76.35 |" in said
    assert "- data refcoco (unc-val, 10834): " in said
    assert "- ours: --mini scores the shipped ones, " in said
    assert (tmp_path / "evp.table3.md").read_text() in said
    assert "## evp.table3: " in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("evp.table1", "--quick"), "--quick: goes with --mini; add --mini"),
        (("evp.table1", "--root", "nyuv2"), "--root nyuv2: is no pair; write --root NAME=DIR"),
        (("iris.step",), "experiment 'iris.step': is unknown; did you mean iris.steps?"),
    ],
)
def test_wrong_usage_is_said_in_a_line(tmp_path, capsys, arguments, line):
    assert cli(*arguments, "--out", str(tmp_path)) == 2
    assert line in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- the minis


def of_minis(name: str, *models: str, **changes: Any) -> Any:
    """An experiment of which only some minis are scored, on rooms of the world."""
    some = (one for one in experiment(name).minis if one.model in models and "world-rooms" in one.datasets)
    return replace(experiment(name), minis=tuple(replace(one, datasets=("world-rooms",), **changes) for one in some))


def test_a_mini_that_is_missing_costs_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "weights", list)
    said: list[DeixisError] = []
    here = replace(given(tmp_path), world=tmp_path, fail=said.append)
    found, missing = scored(of_minis("evp.table1", "vpd-depth-mini"), here, QUICK)
    assert (found, said) == ([], [])
    (line,) = missing
    assert line.startswith("weights vpd-depth-mini: not shipped; recipes/mini/6_vpd_depth.yaml")
    assert line.endswith("then --weights vpd-depth-mini=DIR")
    assert (Path(__file__).parents[2] / line.split("; ")[1].split(" ")[0]).is_file()
    wrong = replace(here, weights={"vpd-depth-mini": str(tmp_path)})
    found, missing = scored(of_minis("evp.table1", "vpd-depth-mini"), wrong, QUICK)
    assert found == []
    assert [str(one) for one in said] == [missing[0].removeprefix("vpd-depth-mini on world-rooms: ")]


def test_steps_and_texts_are_scored_apart_and_once(world, tmp_path):
    """A folder of one's own stands for marigold-mini; oracle text has rows of its own."""
    folder = write_pipeline(tmp_path / "pipeline", "marigold-v1-1")
    here = replace(given(tmp_path / "out", folders={"marigold-mini": str(folder)}), world=world)
    one = of_minis("iris.steps", "marigold-mini", steps=(1, 3))
    found, missing = scored(one, here, QUICK)
    assert missing == []
    assert [(row.row["steps"], row.row["text"]) for row in found] == [
        (1, ["empty"]), (3, ["empty"]), (1, ["oracle"]), (3, ["oracle"])
    ]  # fmt: skip
    times = {path: path.stat().st_mtime_ns for path in here.out.rglob("*.json*")}
    assert [row.row for row in scored(one, here, QUICK)[0]] == [row.row for row in found]
    assert times == {path: path.stat().st_mtime_ns for path in here.out.rglob("*.json*")}


def test_what_minis_give_is_drawn_beside_one_another(world, tmp_path, monkeypatch):
    shipped = str(shipped_folder() / "evp-depth-mini")
    here = replace(given(tmp_path, folders={"vpd-depth-mini": shipped}), world=world)
    found, _ = scored(of_minis("evp.figure4", "vpd-depth-mini", "evp-depth-mini"), here, QUICK)
    assert [one.name for one in found] == ["vpd-depth-mini", "evp-depth-mini"]
    assert short_of(found) == []
    assert pictures(found).width > 1000
    drawn: list[Any] = []
    monkeypatch.setattr(scores, "contact_sheet", drawn.extend)
    pictures(found)
    assert len(drawn) == PICTURES
    line = drawn[0]
    captions = ["world-rooms: input", "world-rooms: ground truth"]
    captions += [f"{name}: {what}" for name in ("vpd-depth-mini", "evp-depth-mini") for what in ("prediction", "error")]
    assert all(caption.startswith(begin) for (_, caption), begin in zip(line, captions, strict=True))
    # One model under two names.
    panels = [np.asarray(picture) for picture, _ in line]
    assert np.array_equal(panels[2], panels[4])
    assert np.array_equal(panels[3], panels[5])
    assert not np.array_equal(panels[2], panels[1])


def test_roads_are_beyond_what_has_learned_rooms(world, tmp_path):
    shipped = MiniScore("evp-depth-mini", "4_evp_depth_fine", "metric", ("world-roads",))
    found, _ = scored(replace(experiment("evp.table2"), minis=(shipped,)), replace(given(tmp_path), world=world), QUICK)
    assert short_of(found) == ["evp-depth-mini gives depth up to 10 m, and world-roads is scored up to 80 m.", ""]


def runs_of_marigold(tmp_path: Path) -> findings.Runs:
    """Two seeds on three frames: with text few steps are enough, without many are needed."""
    told = np.outer([0.9, 1.0, 1.1], [0.4, 0.2, 0.2, 0.2, 0.2, 0.2])
    untold = np.outer([0.9, 1.0, 1.1], [0.8, 0.6, 0.5, 0.4, 0.3, 0.3])
    recipe = read_recipe(RECIPES / "iris.yaml", ["system=marigold", "init=DIR", f"out={tmp_path}", "data.world=DIR"])
    runs = findings.Runs(recipe)
    for _ in range(2):
        measured: dict[str, Any] = {"clusters": [0, 1, 2]}
        one = {**measured, "texts": {"scene": told.tolist(), "empty": untold.tolist()}}
        runs.told.append({"sources": {"rooms": measured}, "steps": {"rooms": one}})
        runs.untold.append({"steps": {"rooms": {**measured, "texts": {"empty": untold.tolist()}}}})
        runs.told_logs.append([{"step": step, "val_rooms_told_abs_rel": 0.2} for step in (10, 20)])
        runs.untold_logs.append([{"step": 10, "loss": 1.0}, *({"step": n, "val_rooms_abs_rel": 0.3} for n in (10, 20))])
    return runs


def test_what_steps_and_training_give_is_told_and_plotted(tmp_path, monkeypatch):
    runs = runs_of_marigold(tmp_path)
    section = minis._steps({"marigold": runs})
    assert section.lines[0].startswith("| on | trained | frames | 1 step | 2 steps |")
    assert section.lines[2].startswith("| world rooms | with text | 3 | 0.400 (0.360 to 0.440) | 0.200 (")
    settled = [line for line in section.lines if line.startswith("- world rooms, with")]
    assert [line.rsplit("with ", 1)[1] for line in settled] == ["2 of 50 steps", "25 of 50 steps", "25 of 50 steps"]
    assert section.drawn is not None
    rooms = Scenes("rooms", DepthProtocol("world", "none", 80.0))
    rooms.counts["val"] = 6
    monkeypatch.setattr(minis, "load_scenes", lambda data: [rooms])
    section = minis._convergence({"marigold": runs})
    assert "AbsRel on 6 validation frames: mean of 2 seeds (lowest to highest of them)." in section.lines
    assert "| without | 0.300 (0.300 to 0.300) | 0.300 (0.300 to 0.300) |" in section.lines
    assert section.drawn is not None


def test_the_page_is_made_of_what_is_stored(tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "reproduction.md").read_text(encoding="utf-8") == page(docs)
    results = tmp_path / "results"
    one = {"command": "deixis reproduce evp.figure4 --mini", "lines": ["![pictures](a.png)"], "data": {}}
    content = {"official": [], "ours": {"full": {**one, "pictures": ["a.png"]}}, "missing": ["data kitti"]}
    write_json(results / "evp.figure4.json", content)
    (results / "a.png").write_bytes(b"picture")
    store(tmp_path / "docs", results)
    assert (tmp_path / "docs/results/a.png").read_bytes() == b"picture"
    text = page(tmp_path / "docs")
    figure = text[text.index("## evp.figure4") : text.index("## iris.zero_shot")]
    for said in ("![pictures](results/a.png)", "`deixis reproduce evp.figure4 --mini`", "- data kitti"):
        assert said in figure
    assert "| EVP | 76.35 |" in text
    assert text.count("### Ours, the minis\n\nNothing yet: `deixis reproduce ") == len(EXPERIMENTS) - 1


# ------------------------------------------------------------------------------------------------------ table 4


def recipe(row: table4.Row, tmp_path: Path) -> Any:
    given = [*row.overrides, "data.world=DIR", "init=DIR", f"out={tmp_path}"]
    return read_recipe(RECIPES / "evp_depth.yaml", given)


def test_each_row_is_a_recipe_of_its_own(tmp_path):
    rows = table4.rows()
    assert [row.number for row in rows] == list(range(1, 13))
    found = {row.number: recipe(row, tmp_path) for row in rows}
    assert len({json.dumps([one.config, one.text_shares]) for one in found.values()}) == 12
    first, last = found[1], found[12]
    assert (first.config["imafr"], first.config["bins"], first.bins, first.config["std"]) == (False, False, None, None)
    assert "std" not in last.config  # that of the backbone
    assert last.config["aggregate"] == "i"
    assert {number for number, one in found.items() if one.text_shares[1]} == {7, 8, 9, 10, 11}
    assert {number for number, one in found.items() if not one.config["clip_frozen"]} == {6}


def test_orderings_are_those_of_the_papers_numbers():
    by_number = {row.number: row for row in table4.rows()}
    for better, other, _ in table4.ORDERINGS:
        one, two = by_number[better], by_number[other]
        assert (one.rmse, one.abs_rel) <= (two.rmse, two.abs_rel)


def result(number: int, values: list[list[float]]) -> table4.Result:
    """Values [S, N] of both metrics."""
    row = replace(table4.rows()[number - 1])
    return table4.Result(row, list(range(len(values[0]))), np.array(values)[..., None].repeat(2, axis=2), "oracle")


def test_an_ordering_holds_if_it_is_clear_and_no_seed_disagrees():
    worse = result(1, [[2.0, 2.1, 2.2, 1.9]] * 2)

    def verdict(*values: list[float]) -> str:
        (one,) = table4.orderings([worse, result(2, list(values))], 0)
        return one.verdict

    low, high, mixed = [1.0, 1.1, 1.1, 1.0], [3.0, 3.1, 3.3, 2.9], [1.0, 3.1, 1.2, 2.9]
    assert verdict(low, low) == "holds"
    assert verdict(high, high) == "reversed"
    assert verdict(mixed, mixed) == "not clear"
    assert verdict([0.1] * 4, [2.3] * 4) == "not clear"  # clear over frames, but one seed says otherwise


def test_the_best_constant_is_learned_from_training_frames_and_measured_on_the_rows_own():
    class Framed:
        def __init__(self, *depths: float) -> None:
            self.values = np.array([depths], dtype=np.float32)

        def depth(self) -> Any:
            return self.values

    protocol = DepthProtocol("frames", crop="none", max_depth=80.0)
    scenes = Scenes("rooms", protocol)
    splits: dict[str, Any] = scenes.splits
    splits["train"] = [Framed(2, 2, 0), Framed(2, 90, 4)]
    splits["heldout"] = [Framed(1, 4, 0), Framed(0, 0, 0), Framed(2, 2, 2)]
    found = table4.constant(scenes, 10)
    assert found.metres == 2
    assert found.samples == pytest.approx(np.array([[np.sqrt((1 + 4) / 2), (1 + 0.5) / 2], [0, 0]]))
    assert len(table4.constant(scenes, 1).samples) == 1


def test_a_row_beats_the_constant_where_that_is_clear():
    blind = table4.Constant(2.0, np.full((4, 2), 1.0))
    assert result(1, [[0.8, 0.9, 0.7, 0.8], [0.9, 0.9, 0.9, 0.7]]).better_than(blind, 0)
    assert not result(1, [[0.8, 1.3, 0.7, 1.1], [0.9, 1.4, 0.9, 0.7]]).better_than(blind, 0)
    assert not result(1, [[1.8, 1.3, 1.7, 1.1]]).better_than(blind, 1)
