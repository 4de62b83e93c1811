"""The command line as people and scripts use it: exit codes, both streams, files, and every way to be wrong."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from deixis import __version__
from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.cli import app, main
from deixis.cli.common import INTERRUPTED, NO_READER, field
from deixis.errors import DeixisError, ModelError
from deixis.io import check_out, printable
from tests import awkward
from tests.awkward import exif, photo
from tests.pipelines import write_pipeline

Toy = Callable[[str], Path]


@dataclass
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of stderr."""
        return self.err.splitlines()

    @property
    def json(self) -> Any:
        """Stdout, which must be JSON and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``deixis`` with some arguments, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err or "--debug" in arguments
        code = caught.value.code
        assert isinstance(code, int)
        return Outcome(code, out, err)

    return command


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A picture."""
    path = tmp_path / "room.jpg"
    photo(80, 60).save(path)
    return path


def wrong(outcome: Outcome, *parts: str) -> None:
    """The command failed as wrong usage: nothing on stdout, one line on stderr that holds the parts."""
    assert (outcome.code, outcome.out) == (2, "")
    assert len(outcome.lines) == 1, outcome.err
    assert outcome.lines[0].startswith("deixis: ")
    assert "; " in outcome.lines[0]
    for part in parts:
        assert part in outcome.lines[0]


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# ---------------------------------------------------------------------------------------------- depth


def test_depth_writes_four_files(run: Run, room: Path, toy: Toy) -> None:
    weights = toy("evp-depth")
    outcome = run("depth", room, "--model", weights, "--out", "out/a", "--text", "a small bedroom")
    assert outcome.code == 0
    assert outcome.out == f"{room}\tout/a/room.depth.npy\n"
    assert outcome.lines == ["1 done, 0 failed; results in out/a"]
    assert names("out/a") == ["room.depth.npy", "room.depth.png", "room.json", "room.preview.png"]

    values = np.load("out/a/room.depth.npy")
    assert (values.dtype, values.shape) == (np.float32, (60, 80))
    sidecar = json.loads(Path("out/a/room.json").read_text())
    assert sidecar["model"] == str(weights)
    assert (sidecar["kind"], sidecar["unit"]) == ("metric", "m")
    assert sidecar["text"] == {"text": "a small bedroom", "provenance": "user"}
    assert (sidecar["min"], sidecar["max"]) == (values.min(), values.max())
    assert sidecar["seconds"] > 0
    assert (sidecar["width"], sidecar["height"], sidecar["camera"]) == (80, 60, None)
    with Image.open("out/a/room.depth.png") as png:
        assert (png.mode, png.size) == ("I;16", (80, 60))
        assert float(png.text["scale"]) == sidecar["png"]["scale"] == 0.001
        assert (png.text["kind"], png.text["unit"]) == ("metric", "m")
        assert np.abs(np.asarray(png) * 0.001 - values).max() <= 0.0005 + 1e-6
    with Image.open("out/a/room.preview.png") as preview:
        assert preview.width > 300


def test_depth_json_is_all_of_stdout(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("depth", room, "missing.jpg", "--model", toy("evp-depth"), "--out", "o", "--json")
    assert outcome.code == 1
    (result,) = outcome.json
    assert result["input"] == str(room)
    assert [Path(file).name for file in result["files"]] == [
        "room.depth.npy",
        "room.depth.png",
        "room.preview.png",
        "room.json",
    ]
    sidecar = json.loads(Path("o/room.json").read_text())
    assert result == {"input": str(room), "files": result["files"], **{k: v for k, v in sidecar.items() if k != "png"}}
    assert outcome.lines[0] == "deixis: missing.jpg: does not exist; check the path"


def test_default_output_folder(run: Run, room: Path, toy: Toy) -> None:
    assert run("depth", room, "--model", toy("evp-depth")).code == 0
    assert Path("deixis-out/room.json").is_file()


def test_depth_of_several_names_each_that_fails(run: Run, room: Path, toy: Toy) -> None:
    Path("text.jpg").write_text("no picture")
    Path("sub").mkdir()
    photo(20, 30).save("sub/b.png")
    inputs = [room, "text.jpg", "https://example.org/a.jpg", "-", "sub", "gone"]
    outcome = run("depth", *inputs, "--model", toy("evp-depth"), "--out", "o")
    assert outcome.code == 1
    assert [line.split("\t")[0] for line in outcome.out.splitlines()] == [str(room), "sub/b.png"]
    errors = [line for line in outcome.lines if line.startswith("deixis: ")]
    assert len(errors) == 4
    for name, error in zip(["text.jpg", "https:/", "-", "gone"], errors, strict=True):
        assert error.startswith(f"deixis: {name}")
    assert outcome.lines[-1] == "2 done, 4 failed; results in o"


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_no_usable_input_is_found_out_without_a_model(run: Run, tmp_path: Path, json_too: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    outcome = run("depth", "missing.jpg", "empty", *json_too)
    assert outcome.code == 2
    assert outcome.out == ("[]\n" if json_too else "")
    assert [line for line in outcome.lines if line.startswith("deixis: ")] == [
        "deixis: missing.jpg: does not exist; check the path",
        "deixis: empty: holds no files; pass a folder with pictures in it",
    ]
    assert not Path("deixis-out").exists()


def test_a_folder_keeps_its_shape_and_names_stay_apart(run: Run, tmp_path: Path, toy: Toy) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "deep/er/a.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(20, 10).save(path)
    outcome = run("depth", "in", "--model", toy("evp-depth"), "--out", "o")
    assert outcome.code == 0
    found = sorted(str(path.relative_to("o")) for path in Path("o").rglob("*.json"))
    assert found == ["a.jpg.json", "a.png.json", "b.json", "deep/er/a.json"]


def test_output_inside_the_input_is_not_read_again(run: Run, tmp_path: Path, toy: Toy) -> None:
    (tmp_path / "in").mkdir()
    photo(20, 10).save("in/a.jpg")
    for _ in range(2):
        outcome = run("depth", "in", "--model", toy("evp-depth"), "--out", "in/results")
        assert (outcome.code, outcome.out) == (0, "in/a.jpg\tin/results/a.depth.npy\n")
    outcome = run("depth", "in", "--model", toy("evp-depth"), "--out", "in")
    assert outcome.code == 2
    assert outcome.lines == ["deixis: in: is the output folder too; give another --out"]


@pytest.mark.parametrize("tta", ["none", "flip", "windows"])
def test_test_time_augmentation(run: Run, room: Path, toy: Toy, tta: str) -> None:
    assert run("depth", room, "--model", toy("evp-depth"), "--tta", tta, "--out", tta).code == 0
    values = np.load(f"{tta}/room.depth.npy")
    assert values.shape == (60, 80)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
@pytest.mark.parametrize(
    "command",
    [
        ["depth", "room.jpg", "--model", "nope", "--text", "a sofa", "--compare-text"],
        ["refine", "room.jpg", "--model", "nope", "--text", "a sofa"],
        ["eval", "nope", "nyuv2", "."],
        ["caption", "room.jpg", "--model", "nope"],
        ["world", "render", "frames", "--frames", "1"],
    ],
)
def test_seeds_have_a_range(run: Run, room: Path, command: list[str], seed: str) -> None:
    """Found before a model is looked for."""
    wrong(run(*command, "--seed", seed), "invalid value for '--seed'")


def test_frames_have_a_seed_each(run: Run, room: Path) -> None:
    command = ("world", "render", "frames", "--frames", "2", "--seed", str(2**63 - 1))
    wrong(run(*command), "leaves no seeds for 2 frames; begin with a smaller one")


@pytest.mark.parametrize("option", ["--steps", "--ensemble"])
def test_options_of_systems_to_come(run: Run, room: Path, toy: Toy, option: str) -> None:
    wrong(run("depth", room, option, "10"), f"{option} 10: evp-depth-mini gives its depth in one pass; leave")
    wrong(run("depth", room, option, "0"), option, "see 'deixis depth --help'")
    assert run("depth", room, option, "1", "--seed", "7", "--model", toy("evp-depth")).code == 0


def test_text_reaches_the_sidecar(run: Run, room: Path, toy: Toy) -> None:
    def provenance(weights: str, *arguments: str) -> dict[str, str]:
        outcome = run("depth", room, "--model", toy(weights), "--out", "o", "--json", *arguments)
        assert outcome.code == 0, outcome.err
        return outcome.json[0]["text"]

    assert provenance("evp-depth") == {"text": "", "provenance": "empty"}
    assert provenance("evp-depth", "--text", "") == {"text": "", "provenance": "empty"}
    assert provenance("evp-depth", "--text", "寝室 🛏️") == {"text": "寝室 🛏️", "provenance": "user"}
    assert provenance("vpd-depth-classes") == {"text": "", "provenance": "aggregate:classes"}
    assert provenance("vpd-depth-classes", "--text", "Living room") == {
        "text": "Living room",
        "provenance": "class:living_room",
    }
    assert provenance("evp-depth-average") == {"text": "", "provenance": "aggregate:nyuv2"}


def test_text_a_model_cannot_take_is_refused_before_any_picture(run: Run, room: Path, toy: Toy) -> None:
    classes = run("depth", room, room, "--model", toy("vpd-depth-classes"), "--text", "a bathroom")
    wrong(classes, "text 'a bathroom'", "knows only its classes; use one of: kitchen, living room")
    wrong(run("depth", room, "--model", toy("evp-depth-average"), "--text", "x"), "has no text tower")
    wrong(run("depth", room, "--model", toy("evp-depth-wordless"), "--text", "x"), "has no vocabulary")
    assert not Path("deixis-out").exists()


def test_long_text_is_read_as_far_as_it_goes_and_said_so(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("depth", room, "--model", toy("evp-depth"), "--text", "a red chair and " * 2000)
    assert outcome.code == 0
    assert len(outcome.lines) == 2
    assert outcome.lines[0].startswith("note: ")
    assert "reads 10 tokens of text; what follows is ignored: '" in outcome.lines[0]
    assert len(outcome.lines[0]) < 400


def test_focal_length_reaches_the_sidecar(run: Run, tmp_path: Path, toy: Toy) -> None:
    photo(80, 60).save(tmp_path / "exif.jpg", exif=exif(FocalLengthIn35mmFilm=28, Orientation=6))

    def camera(*arguments: str) -> dict[str, float]:
        return run("depth", "exif.jpg", "--model", toy("evp-depth"), "--json", *arguments).json[0]["camera"]

    assert camera()["fx"] == pytest.approx(28 / np.hypot(36, 24) * 100)
    assert (camera()["width"], camera()["height"]) == (60, 80)  # upright
    assert camera("--focal-px", "70")["fx"] == 70
    assert camera("--fov", "90")["fx"] == pytest.approx(30)


@pytest.mark.parametrize("command", ["depth", "ask"])
@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--fov", "0"], "field of view: is 0.0 degrees"),
        (["--fov", "180"], "field of view"),
        (["--fov", "nan"], "field of view"),
        (["--fov", "1e-320"], "field of view"),
        (["--fov", "wide"], "'--fov'"),
        (["--focal-px", "-3"], "focal length"),
        (["--focal-px", "inf"], "focal length"),
        (["--fov", "60", "--focal-px", "500"], "--fov and --focal-px: both state the focal length; pass one of them"),
    ],
)
def test_wrong_focal_lengths(run: Run, room: Path, command: str, options: list[str], match: str) -> None:
    question = ["the chair"] if command == "ask" else []
    wrong(run(command, room, *question, *options), match)


def test_limit_on_pixels(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("depth", room, "--max-pixels", "4799", "--model", toy("evp-depth"))
    assert outcome.code == 2
    assert "--max-pixels 4800" in outcome.lines[0]
    assert run("depth", room, "--max-pixels", "4800", "--model", toy("evp-depth")).code == 0


def memory(*, reset: bool = False) -> dict[str, int]:
    """Present memory (``VmRSS``) and its peak (``VmHWM``) of this process [KiB]; 0 where /proc does not tell."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return {"VmRSS": 0, "VmHWM": 0}
    return {name: int(value) for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)}


@pytest.mark.slow
def test_about_two_hundred_awkward_files(run: Run, tmp_path: Path, toy: Toy) -> None:
    """Every file is done or named with its reason, at its upright size, in bounded memory."""
    owed = awkward.fill(tmp_path / "in")
    assert len(owed) > 150
    weights = toy("evp-depth")
    before = memory(reset=True)["VmRSS"]
    outcome = run("depth", tmp_path / "in", "--model", weights, "--out", tmp_path / "out", "--json")
    # Nothing in it has more than a third of a megapixel; the rest is Pillow's and matplotlib's code.
    assert memory()["VmHWM"] - before < 500_000

    assert outcome.code == 1
    results = {result["input"]: result for result in outcome.json}
    errors = [line for line in outcome.lines if line.startswith("deixis: ")]
    wrongly = []
    for path, debt in owed.items():
        result = results.pop(str(path), None)
        stem = printable(path.relative_to(tmp_path / "in").with_suffix(""))
        names = (f"deixis: {printable(path)}: ", f"deixis: {printable(tmp_path / 'out' / stem)}.")
        reasons = [line for line in errors if line.startswith(names)]
        if (result is None) != bool(reasons) or len(reasons) > 1:
            wrongly.append(f"{path}: result {result}, reasons {reasons}")
        elif debt.outcome != awkward.EITHER and debt.outcome != ("done" if result else "refused"):
            wrongly.append(f"{path}: {debt.outcome} expected, {reasons or result}")
        elif result and debt.size:
            npy, png, preview, sidecar = result["files"]
            sizes = {(result["width"], result["height"]), np.load(npy).shape[::-1], Image.open(png).size, debt.size}
            if len(sizes) > 1 or not Path(preview).is_file() or not Path(sidecar).is_file():
                wrongly.append(f"{path}: sizes {sizes}")
    assert not wrongly, "\n".join(wrongly)
    assert not results, "read twice or never made"
    assert len(errors) + len(outcome.json) == len(owed)
    # No half-written file is left, and the inputs' shape is kept.
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]
    assert (tmp_path / "out/same/deeper/same.json").is_file()


def test_a_failure_nobody_foresaw_stops_one_picture_only(
    run: Run, room: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = importlib.import_module("deixis.cli.depth").save_depth
    errors = iter([ZeroDivisionError("of\nsome kind"), MemoryError()])

    def failing(depth: Any, out: Path, name: str, **more: Any) -> list[Path]:
        if name == "bad":
            raise next(errors)
        return save(depth, out, name, **more)

    monkeypatch.setattr("deixis.cli.depth.save_depth", failing)
    photo(10, 10).save("bad.jpg")
    weights = toy("evp-depth")
    outcome = run("depth", "bad.jpg", room, "--model", weights, "--out", "o")
    assert outcome.code == 1
    assert outcome.lines[0] == (
        "deixis: bad.jpg: unexpected ZeroDivisionError: of some kind; run again with --debug and report it"
    )
    assert outcome.out.startswith(str(room))
    outcome = run("depth", "bad.jpg", room, "--model", weights, "--out", "o")
    assert outcome.code == 1
    assert outcome.lines[0] == "deixis: bad.jpg: does not fit into memory; free some memory or shrink the picture"


# -------------------------------------------------------------------------------------------- segment


def test_segment_writes_mask_overlay_and_sidecar(run: Run, room: Path, toy: Toy) -> None:
    weights = toy("evp-refer")
    outcome = run("segment", room, "the red chair", "--model", weights, "--out", "o")
    assert outcome.code == 0
    assert outcome.out == "the red chair\to/room.mask.png\n"
    assert len(outcome.lines) == 1
    score = json.loads(Path("o/room.mask.json").read_text())["score"]
    assert 0 < score <= 1
    assert outcome.lines[0] == f"the red chair: found, score {score:.2f}"
    assert names("o") == ["room.mask.json", "room.mask.png", "room.overlay.png"]
    mask = np.asarray(Image.open("o/room.mask.png"))
    assert (mask.dtype, mask.shape) == (np.uint8, (60, 80))
    assert set(np.unique(mask)) == {0, 255}
    sidecar = json.loads(Path("o/room.mask.json").read_text())
    rows, columns = np.nonzero(mask)
    assert sidecar["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert sidecar["area"] == len(rows)
    assert 0.5 < sidecar["score"] <= 1
    assert sidecar["text"] == {"text": "the red chair", "provenance": "user"}
    assert (sidecar["found"], sidecar["expression"], sidecar["model"]) == (True, "the red chair", str(weights))
    # The overlay is the photo with all but the mask dimmed, under a label.
    overlay = np.asarray(Image.open("o/room.overlay.png"))
    assert overlay.shape[1] > 400
    assert len(np.unique(overlay.reshape(-1, 3), axis=0)) > 50


def test_segment_of_several_expressions(run: Run, room: Path, toy: Toy) -> None:
    expressions = ["the red chair", "синяя лампа", "a\ttab", "x" * 3000]
    outcome = run("segment", room, *expressions, "--model", toy("evp-refer"), "--out", "o", "--json")
    assert outcome.code == 0
    assert [result["expression"] for result in outcome.json] == expressions
    for i, result in enumerate(outcome.json, start=1):
        assert result["files"] == [f"o/room.{i}.mask.png", f"o/room.{i}.overlay.png", f"o/room.{i}.mask.json"]
        assert result == {**json.loads(Path(result["files"][2]).read_text()), "files": result["files"]}
    assert sum(line.startswith("note: ") for line in outcome.lines) >= 1  # three thousand x are cut
    plain = run("segment", room, *expressions, "--model", toy("evp-refer"), "--out", "o")
    assert len(plain.out.splitlines()) == 4
    assert all(line.count("\t") == 1 for line in plain.out.splitlines())


@pytest.mark.parametrize("weights", ["evp-refer-shy", "evp-refer-blind"])
def test_nothing_found_is_an_empty_mask_not_an_error(run: Run, room: Path, toy: Toy, weights: str) -> None:
    outcome = run("segment", room, "the unicorn", "--model", toy(weights), "--out", "o", "--json")
    assert outcome.code == 0
    (result,) = outcome.json
    assert (result["found"], result["box"], result["area"]) == (False, None, 0)
    assert not np.asarray(Image.open("o/room.mask.png")).any()
    assert outcome.lines == ["the unicorn: no such object in the picture"]


def test_segment_refuses_what_it_cannot_use(run: Run, room: Path, toy: Toy, tmp_path: Path) -> None:
    wrong(run("segment", room, "the chair", "  "), "expression: is empty; say what to look for")
    wrong(run("segment", room), "missing argument", "EXPRESSION", "see 'deixis segment --help'")
    wrong(run("segment", "gone.jpg", "the chair"), "gone.jpg: does not exist; check the path")
    wrong(run("segment", tmp_path, "the chair"), f"{tmp_path}: is a folder; pass a picture in it")
    wrong(run("segment", "-", "the chair"), "-: standard input is not read; save the picture to a file")
    wrong(run("segment", room, "the chair", "--model", toy("vpd-refer-towerless")), "keeps its text tower outside")
    assert not Path("deixis-out").exists()


def test_names_of_outputs_agree_between_commands(run: Run, toy: Toy) -> None:
    for name in ("photo.2024", "a.b.jpg", ".jpg"):
        photo(20, 10).save(name, format="PNG")
        assert run("depth", name, "--model", toy("evp-depth"), "--out", "o").code == 0
        assert run("segment", name, "the chair", "--model", toy("evp-refer"), "--out", "o").code == 0
    assert {path.name for path in Path("o").glob("*.overlay.png")} == {
        "photo.2024.overlay.png",
        "a.b.overlay.png",
        ".jpg.overlay.png",
    }
    assert {path.name for path in Path("o").glob("*.preview.png")} == {
        "photo.2024.preview.png",
        "a.b.preview.png",
        ".jpg.preview.png",
    }


# ------------------------------------------------------------------------------------------------ ask


def ask_models(toy: Toy, masks: str = "evp-refer") -> list[str]:
    return ["--depth-model", str(toy("evp-depth")), "--mask-model", str(toy(masks))]


def test_ask_answers_in_json_and_in_a_sentence(run: Run, room: Path, toy: Toy) -> None:
    models = ask_models(toy)
    outcome = run("ask", room, "how far is the red chair?", *models, "--focal-px", "70", "--text", "a bedroom")
    assert outcome.code == 0
    answer = outcome.json
    assert list(answer) == [
        "question",
        "referent",
        "found",
        "distance_m",
        "box",
        "position_m",
        "score",
        "models",
        "text",
        "notes",
    ]
    assert (answer["question"], answer["referent"]) == ("how far is the red chair?", "the red chair")
    distance = answer["distance_m"]
    assert list(distance) == ["median", "p10", "p90"]
    assert 0 < distance["p10"] <= distance["median"] <= distance["p90"] < 10
    assert answer["position_m"][2] == distance["median"]
    assert answer["models"] == {"depth": models[1], "mask": models[3]}
    assert answer["text"] == {
        "depth": {"text": "a bedroom", "provenance": "user"},
        "mask": {"text": "the red chair", "provenance": "user"},
    }
    assert outcome.lines[0].startswith("the red chair: 0.")
    assert not Path("deixis-out").exists()


def test_ask_position_needs_a_focal_length(run: Run, room: Path, toy: Toy, tmp_path: Path) -> None:
    photo(80, 60).save(tmp_path / "exif.jpg", exif=exif(FocalLengthIn35mmFilm=28))
    without = run("ask", room, "the red chair", *ask_models(toy))
    assert without.json["position_m"] is None
    assert without.json["notes"] == ["no position: the focal length is unknown; pass --fov or --focal-px"]
    assert without.lines[-1] == f"note: {without.json['notes'][0]}"
    focal = 28 / np.hypot(36, 24) * 100
    told = run("ask", "exif.jpg", "the red chair", *ask_models(toy)).json["position_m"]
    given = run("ask", room, "the red chair", *ask_models(toy), "--focal-px", f"{focal}").json["position_m"]
    # The two files differ in EXIF only.
    assert told == given
    wide = run("ask", "exif.jpg", "the red chair", *ask_models(toy), "--focal-px", f"{focal / 2}").json["position_m"]
    assert wide[:2] == pytest.approx([2 * told[0], 2 * told[1]], abs=2e-4)


def test_ask_json_option_leaves_stderr_empty(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("ask", room, "the red chair", *ask_models(toy), "--json", "--fov", "60")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["found"] is True


def test_ask_two_things(run: Run, room: Path, toy: Toy) -> None:
    answer = run("ask", room, "which is nearer, the red chair or the blue lamp?", *ask_models(toy)).json
    assert [referent["referent"] for referent in answer["referents"]] == ["the red chair", "the blue lamp"]
    first, second = (referent["distance_m"]["median"] for referent in answer["referents"])
    assert answer["gap_m"] == pytest.approx(abs(first - second), abs=2e-4)
    assert answer["nearer"] in ("the red chair", "the blue lamp", None)


def test_ask_for_what_is_not_there(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("ask", room, "how far is the unicorn?", *ask_models(toy, "evp-refer-shy"), "--fov", "60")
    assert outcome.code == 0
    answer = outcome.json
    assert (answer["found"], answer["distance_m"], answer["box"], answer["position_m"]) == (False, None, None, None)
    assert outcome.lines[0] == "the unicorn: no such object in the picture"


def test_ask_writes_the_answer(run: Run, room: Path, toy: Toy) -> None:
    outcome = run("ask", room, "the red chair", *ask_models(toy), "--out", "deep/er")
    assert json.loads(Path("deep/er/room.answer.json").read_text()) == outcome.json
    with Image.open("deep/er/room.answer.png") as picture:
        assert picture.width > 600


def test_ask_finds_wrong_questions_before_anything_else(run: Run) -> None:
    for question in ("", "   ", "tell me a joke", "a" * 1001, "the bed, the lamp and the window"):
        wrong(run("ask", "gone.jpg", question, "--depth-model", "nope"), "deixis: '")


# -------------------------------------------------------------------------------- models of the wrong sort


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["depth", "room.jpg", "--model", "nope"], "nope: is neither a known model nor a folder; use evp-depth-mini"),
        (["segment", "room.jpg", "x", "--model", "nope"], "nope: is neither a known model nor a folder"),
        (["ask", "room.jpg", "x", "--depth-model", "nope"], "nope: is neither"),
        (["ask", "room.jpg", "x", "--mask-model", "nope"], "nope: is neither"),
        (["depth", "room.jpg", "--model", "evp-depth-nyu"], "is published by its authors and not shipped; download"),
        (["depth", "room.jpg", "--model", ""], "model '': has no name"),
        (["depth", "room.jpg", "--model", "x" * 5000], "cannot be a path"),
        (["depth", "room.jpg", "--model", "~nobody-here/weights"], "cannot be a path"),
        (["depth", "room.jpg", "--model", "room.jpg"], "is a file, not a weight folder; convert it first"),
        (["depth", "room.jpg", "--model", "."], "has no deixis.json; pass a folder written by"),
        (["depth", "room.jpg", "--device", "abacus"], "device 'abacus': cannot be used here; use cpu"),
        (["depth", "room.jpg", "--device", "cuda:99"], "device 'cuda:99': cannot be used here"),
        (["depth", "room.jpg", "--device", "meta"], "device 'meta': cannot be used here"),
    ],
)
def test_models_that_are_not_there(run: Run, room: Path, arguments: list[str], match: str) -> None:
    wrong(run(*arguments), match)


def test_models_of_the_other_task(run: Run, room: Path, toy: Toy) -> None:
    depth, masks = toy("evp-depth"), toy("evp-refer")
    wrong(run("depth", room, "--model", masks), f"{masks}: gives masks, not depth; use one such as evp-depth-mini")
    wrong(run("segment", room, "x", "--model", depth), f"{depth}: gives depth, not masks; use one such as evp-refer")
    wrong(run("ask", room, "x", "--depth-model", masks), "gives masks, not depth")
    wrong(run("ask", room, "x", "--depth-model", depth, "--mask-model", depth), "gives depth, not masks")


# --------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("command", ["depth", "segment", "ask", "demo"])
def test_outputs_that_cannot_be_written_are_found_first(run: Run, room: Path, command: str) -> None:
    arguments = {"depth": [room], "segment": [room, "x"], "ask": [room, "x"], "demo": []}[command]
    Path("file").write_text("x")
    Path("dangling").symlink_to("gone/away")
    wrong(run(command, *arguments, "--out", "file"), "file: is no folder; choose another --out")
    wrong(run(command, *arguments, "--out", "file/deep/er"), "file/deep/er: cannot be made", "file is no folder")
    wrong(run(command, *arguments, "--out", "dangling"), "dangling: is no folder")
    wrong(run(command, *arguments, "--out", "/dev/null/x"), "/dev/null/x: cannot be made")


def test_output_folder_without_permission() -> None:
    """What every command checks first; root, who may write anywhere, becomes an ordinary user for it."""
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "locked"
        Path(folder).chmod(0o755)
        locked.mkdir(mode=0o500)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            with pytest.raises(DeixisError, match="no permission") as caught:
                check_out(locked / "deep")
        finally:
            if is_root:
                os.seteuid(0)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_place_of_a_result(run: Run, room: Path, toy: Toy) -> None:
    Path("o/room.preview.png").mkdir(parents=True)
    outcome = run("depth", room, "--model", toy("evp-depth"), "--out", "o")
    assert outcome.code == 2
    assert "o/room.preview.png: cannot be written (a file or folder is in its place)" in outcome.lines[0]


# ---------------------------------------------------------------------------- models, convert and demo


def test_models_lists_every_weight(run: Run) -> None:
    outcome = run("models", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    by_name = {weight["name"]: weight for weight in outcome.json}
    assert {"evp-depth-nyu", "evp-depth-kitti", "evp-refer", "vpd-depth", "vpd-refer"} <= set(by_name)
    for weight in by_name.values():
        assert set(weight) == {
            "name",
            "system",
            "task",
            "kind",
            "licence",
            "source",
            "size_mb",
            "sha256",
            "available",
        }
        assert weight["available"] == (weight["size_mb"] is not None) == Path(weight["source"]).is_dir()
    lines = run("models").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(by_name)
    assert all(line.count("\t") == 5 for line in lines)


def test_nobody_knows_the_home_folder(run: Run, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user without an entry in its list of users."""

    def unknown(user: int) -> NoReturn:
        raise KeyError(user)

    for name in ("HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "DEIXIS_DATA_LISTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert run("models").code == 0
    assert run("data", "lists").code == 0
    for command in ("caption", "latent-std"):
        wrong(run(command, room, "--model", "~/x"), "'~/x': is neither a folder nor a hub id")
    with pytest.raises(ModelError, match="~/x: is not a file or folder here"):
        StableDiffusion.from_pretrained("~/x")


def test_no_name_is_not_the_folder_one_is_in(run: Run, room: Path) -> None:
    wrong(run("caption", room, "--model", ""), "'': is neither a folder nor a hub id")


def test_the_shipped_weights_are_there(run: Run, room: Path) -> None:
    available = {weight["name"] for weight in run("models", "--json").json if weight["available"]}
    assert {"evp-depth-mini", "evp-refer-mini"} <= available


def test_shipped_names_work_without_further_words(run: Run, room: Path) -> None:
    # A folder that happens to be called like a shipped model does not stand in for it.
    Path("evp-depth-mini").mkdir()
    depth = run("depth", room, "--out", "o", "--json", "--text", "a bedroom").json[0]
    assert (depth["model"], depth["kind"]) == ("evp-depth-mini", "metric")
    assert 0 < depth["min"] <= depth["max"] <= 10
    assert run("segment", room, "the bed", "--out", "o").code == 0
    answer = run("ask", room, "how far is the bed?", "--fov", "60").json
    assert answer["models"] == {"depth": "evp-depth-mini", "mask": "evp-refer-mini"}
    wrong(run("depth", room, "--model", "./evp-depth-mini"), "has no deixis.json")


@pytest.mark.parametrize("to", ["evp-depth-nyu", "evp-refer", "vpd-depth", "official", "nope", ""])
@pytest.mark.parametrize("source", ["gone.pth", "text.pth", "empty.pth", "room.jpg", "."])
def test_convert_refuses_in_one_line(run: Run, room: Path, to: str, source: str) -> None:
    Path("text.pth").write_text("no checkpoint")
    Path("empty.pth").touch()
    wrong(run("convert", source, "out", "--to", to))
    assert not Path("out").exists()


def test_convert_needs_to_know_what(run: Run) -> None:
    wrong(run("convert"), "missing argument 'CHECKPOINT'; see 'deixis convert --help'")
    wrong(run("convert", "a.pth", "out"), "--to", "see 'deixis convert --help'")


@pytest.mark.slow
def test_demo(run: Run) -> None:
    outcome = run("demo", "--out", "pictures")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^depth\t\d+\.\d\d to \d+\.\d\d m", outcome.out)
    assert str(Path("pictures/overview.png").resolve()) in outcome.out.splitlines()[-1]
    with Image.open("pictures/overview.png") as picture:
        assert picture.width > 1500
        assert 0.6 < picture.height / picture.width < 1.2
    made = {path.name for path in Path("pictures").iterdir()}
    assert {"bedroom.depth.npy", "bedroom.1.mask.png", "bedroom.1.answer.json", "bedroom.2.answer.png"} <= made


# ---------------------------------------------------------------------------------------------- usage


COMMANDS = [
    *("depth", "segment", "ask", "refine", "models", "convert", "eval", "compare", "train", "bench", "demo"),
    *("caption", "embed", "latent-std"),
]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["frobnicate"], "no such command 'frobnicate'; see 'deixis --help'"),
        (["--nope"], "no such option: --nope"),
        (["depth"], "missing argument 'IMAGE|FOLDER'; see 'deixis depth --help'"),
        (["depth", "room.jpg", "--modle", "x"], "no such option: --modle"),
        (["depth", "room.jpg", "--tta", "rotate"], "'rotate' is not one of 'none', 'flip', 'windows'"),
        (["depth", "room.jpg", "--out"], "'--out' requires an argument"),
        (["depth", "room.jpg", "--max-pixels", "0"], "'--max-pixels'"),
        (["depth", "room.jpg", "--max-pixels", "many"], "'--max-pixels'"),
        (["depth", "room.jpg", "--seed", "x"], "'--seed'"),
        (["ask", "room.jpg"], "missing argument 'QUESTION'"),
        (["ask", "room.jpg", "how", "far"], "unexpected extra argument"),
        (["models", "extra"], "unexpected extra argument"),
        (["train"], "missing argument 'RECIPE'"),
        (["train", "gone.yaml"], "gone.yaml"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: list[str], match: str) -> None:
    wrong(run(*arguments), match)


def test_help_without_arguments(run: Run) -> None:
    outcome = run()
    assert outcome.code == 2
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z][^.]*\.$", outcome.out, re.MULTILINE), command
    assert "--debug" in outcome.out
    assert run("--help").code == run("-h").code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_agrees_with_the_code(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    text = " ".join(outcome.out.split())
    (registered,) = (info for info in app.registered_commands if info.name == command)
    assert registered.callback is not None
    for name, parameter in inspect.signature(registered.callback).parameters.items():
        option = {"as_json": "--json", "list_file": "--list", "texts": "--text"}.get(
            name, f"--{name.replace('_', '-')}"
        )
        if parameter.default is parameter.empty or name == "overrides":
            continue
        assert f" {option} " in text
        if parameter.default not in (None, False):
            assert f"[default: {parameter.default}" in text, name
    for option in ("--steps", "--ensemble", "--seed"):
        if command != "caption" and f" {option} " in text:
            assert re.search(rf" {option} <int range> [^\[]+\[default: ", text), option
    # Units in brackets are no markup.
    if command == "depth":
        assert "field of view [deg]" in text
        assert "[pixels]" in text


def test_version(run: Run) -> None:
    assert run("--version").out == f"deixis {__version__}\n"


def test_debug_adds_the_traceback_and_changes_nothing_else(run: Run, room: Path) -> None:
    plain = run("segment", "gone.jpg", "the chair")
    for arguments in (["--debug", "segment", "gone.jpg", "x"], ["segment", "gone.jpg", "x", "--debug"]):
        debug = run(*arguments)
        assert (debug.code, debug.out) == (plain.code, plain.out)
        assert debug.lines[0] == "Traceback (most recent call last):"
        assert debug.lines[-1] == plain.lines[-1]
    several = run("depth", room, "gone.jpg", "--debug", "--model", "evp-depth-mini")
    assert several.code == 1
    assert "Traceback" in several.err
    assert "Traceback" not in run("segment", "gone.jpg", "the chair").err


# -------------------------------------------------------------------------------- streams and signals


def deixis(*arguments: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "deixis", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **more)


def test_help_is_quick_and_imports_no_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys; from deixis.cli import main\n"
        "try: main(['depth', '--help'])\n"
        "finally: print(sorted({'torch', 'transformers', 'diffusers', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert after.ru_utime - before.ru_utime < 2.0  # measured 0.3 s


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, deixis; deixis.Depth, deixis.Mask, deixis.Answer; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["depth", "gone.jpg"],
        ["models"],
        ["ask", "gone.jpg", "the chair"],
        ["segment", "gone.jpg", "x"],
        ["convert", "gone.pth", "out", "--to", "evp-refer"],
        ["convert", __file__, "out", "--to", "evp-refer", "--clip", "gone"],
        ["caption", __file__, "--model", "gone"],
        ["embed", "gone.parquet", "--clip", "mini-sd"],
    ],
)
def test_what_needs_no_network_imports_no_torch(arguments: list[str]) -> None:
    code = f"import sys, deixis.cli\ntry: deixis.cli.main({arguments!r})\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--help"], ["--version"]])
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        command = [sys.executable, "-m", "deixis", *arguments]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (NO_READER, 1)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--version"]])
def test_a_full_disk_behind_stdout(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as stdout:
        command = [sys.executable, "-m", "deixis", *arguments]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("deixis: standard output: cannot be written (No space left on device); ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, room: Path) -> None:
    shell = f"exec {sys.executable} -m deixis models {closed}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_stderr_that_nobody_reads(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stderr:
        command = [sys.executable, "-m", "deixis", "depth", "gone.jpg", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, b"[]\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_text_on_any_terminal(encoding: str) -> None:
    text = "寝室 é \udcff\ttab"
    code = (
        "from deixis.cli.common import emit, field, put, report\n"
        f"text = {text!r}\nput(field('é寝' + chr(0xdcff)))\nreport(text)\nemit([text])"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    line, _, rest = done.stdout.partition(b"\n")
    assert json.loads(rest.decode(encoding)) == [text]
    if encoding == "utf-8":
        assert line == "é寝".encode() + b"\xff"


def test_fields_stay_on_their_line() -> None:
    assert field("a photo 寝室.jpg") == "a photo 寝室.jpg"
    assert field("tab\tand\nend") == '"tab\\tand\\nend"'


def on_terminal(code: str, **environment: str) -> tuple[str, str]:
    """What a program writes to stdout, a pipe, and to stderr, a terminal; with ``BOTH`` both are the terminal."""
    parent, child = pty.openpty()
    both = environment.pop("BOTH", "")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=child if both else subprocess.PIPE,
        stderr=child,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(child)
    seen = b""
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not block:
            break
        seen += block
    os.close(parent)
    out = process.stdout.read() if process.stdout else b""
    process.wait()
    return out.decode(), seen.decode().replace("\r\n", "\n")


PROGRESS = (
    "from deixis.cli.common import progress, put, report\n"
    "with progress([1, 2], 'depth') as bar:\n"
    "    for name in ('[red]one', 'two'):\n"
    "        put(name); report(f'{name}: is bad; mend it'); bar.advance()\n"
)


def test_results_pass_the_progress_bar_by() -> None:
    out, err = on_terminal(PROGRESS)
    assert out == "[red]one\ntwo\n"
    assert "2/2" in err
    assert "deixis: [red]one: is bad; mend it" in err
    _, both = on_terminal(PROGRESS, BOTH="yes")
    assert "two\n" in both


def test_no_colour_where_none_is_wanted() -> None:
    colours = re.compile(r"\x1b\[[\d;]*[1-9][\d;]*m")
    assert colours.search(on_terminal(PROGRESS)[1])
    assert not colours.search(on_terminal(PROGRESS, NO_COLOR="1", TERM="dumb")[1])
    code = "from deixis.cli import main; main(['models'])"
    assert not colours.search(on_terminal(code, BOTH="yes", NO_COLOR="1")[1])


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_narrow_terminals(columns: str) -> None:
    code = "from deixis.cli import main; main(['models'])"
    _, text = on_terminal(code, BOTH="yes", COLUMNS=columns)
    lines = text.splitlines()
    assert "evp-depth-mini" in lines
    broken = [line for line in lines if "/" not in line]  # hub ids are one word, however long
    assert max(map(len, broken)) <= max(int(columns), 30)
    _, text = on_terminal("from deixis.cli import main; main(['depth', '--help'])", BOTH="yes", COLUMNS=columns)
    assert "--focal-px" in text
    assert "…" not in text


@pytest.mark.slow
def test_interrupted_work_leaves_whole_files(tmp_path: Path, toy: Toy) -> None:
    for i in range(200):
        photo(60, 40).save(tmp_path / f"{i:03}.png")
    command = [sys.executable, "-m", "deixis", "depth", ".", "--out", "o", "--model", str(toy("evp-depth"))]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert err.splitlines()[-1] == "deixis: interrupted; what is written is whole"
    assert "Traceback" not in err
    written = list((tmp_path / "o").iterdir())
    assert 4 <= len(written) < 800
    for path in written:
        assert not path.name.endswith(".tmp")
        if path.suffix == ".json":
            assert json.loads(path.read_text())["kind"] == "metric"


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """A failing command leaves the signal handlers and the working folder alone."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is handler


# -------------------------------------------------------------------------------------------- depth without metres


@pytest.fixture(scope="module")
def marigold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipelines") / "marigold", "marigold-v1-1")


def test_depth_from_a_marigold_folder(run: Run, room: Path, marigold: Path) -> None:
    found = run("depth", room, "--model", marigold, "--steps", 2, "--ensemble", 2, "--seed", 5, "--out", "x", "--json")
    assert found.code == 0
    (said,) = found.json
    assert (said["kind"], said["unit"]) == ("affine", None)
    files = [Path(file) for file in said["files"]]
    assert [file.name.split(".", 1)[1] for file in files] == [
        "depth.npy",
        "depth.png",
        "preview.png",
        "uncertainty.npy",
        "json",
    ]
    assert np.load(files[3]).shape == np.load(files[0]).shape
    again = run("depth", room, "--model", marigold, "--steps", 2, "--ensemble", 2, "--seed", 6, "--out", "y", "--json")
    assert not np.array_equal(np.load(again.json[0]["files"][0]), np.load(files[0]))


def test_what_a_marigold_folder_cannot_do(run: Run, room: Path, marigold: Path) -> None:
    wrong(run("depth", room, "--model", marigold, "--tta", "flip"), "has no such augmentation; use --ensemble")
    wrong(run("segment", room, "the chair", "--model", marigold), "gives depth, not masks")
    wrong(run("ask", room, "how far is the chair?", "--depth-model", marigold), "has no metres; state a known distance")


def test_ask_with_a_marigold_folder_and_what_is_known(run: Run, room: Path, toy: Toy, marigold: Path) -> None:
    models = ["--depth-model", str(marigold), "--mask-model", str(toy("evp-refer"))]
    run("depth", room, "--model", marigold, "--out", "x")
    values = np.load("x/room.depth.npy")[::10, ::10]
    near, far = (np.unravel_index(index, values.shape) for index in (values.argmin(), values.argmax()))
    points = [f"{10 * place[1]},{10 * place[0]}={metres}" for place, metres in ((near, "1.5"), (far, "120 in"))]
    outcome = run("ask", room, "the red chair", *models, "--known-point", points[0], "--known-point", points[1])
    assert outcome.code == 0, outcome.err
    said = outcome.json["calibration"]
    assert (said["kind"], said["unit"]) == ("affine", "m")
    assert said["scale"] > 0
    assert "(1.50 m), the point" in outcome.lines[0]
    assert outcome.lines[0].endswith("(3.05 m)")
    one = run("ask", room, "the red chair", *models, "--known", "the red chair is 250 cm away")
    assert one.json["distance_m"]["median"] == 2.5
    assert one.json["calibration"]["shift"] == 0
    assert any("one known distance fixes the scale only" in line for line in one.lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--known", "the door is far"], "'the door is far': is not understood"),
        (["--known-point", "3=2"], "'3=2': is no point with its distance"),
        (["--known", "the door is 2 m away", "--metric-model", "evp-depth-mini"], "calibrate by either of them"),
        (["--metric-model", "nope"], "nope: is neither a known model nor a folder"),
    ],
)
def test_what_is_known_is_checked_before_a_model_is_loaded(
    run: Run, marigold: Path, options: list[str], said: str
) -> None:
    wrong(run("ask", "gone.jpg", "the red chair", "--depth-model", marigold, *options), said)


def test_what_networks_do_not_need_is_not_imported_with_them() -> None:
    code = (
        "import gc, sys; from deixis.cli.start import UNUSED, import_networks; import_networks();"
        "assert 'diffusers' in sys.modules and gc.isenabled();"
        "assert not set(UNUSED) & set(sys.modules), set(UNUSED) & set(sys.modules);"
        "import peft, scipy.optimize"  # hidden no longer
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
