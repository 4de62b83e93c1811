"""Both recipes at tiny width on drawn rooms: they learn, survive kills to the bit, and say what is wrong in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import deixis
from deixis.checkpoints.folder import read_manifest
from deixis.cli import main
from deixis.data import nyuv2
from deixis.errors import DeixisError, InputError, UsageError
from deixis.training.loop import NaNLossError
from deixis.training.recipe import Recipe, read_recipe
from deixis.training.run import run
from tests.recipes import tiny_nyuv2

REPOSITORY = Path(__file__).parents[2]
RECIPES = {name: REPOSITORY / "recipes" / f"evp_{name}_mini.yaml" for name in ("depth", "refer")}

TINY = [
    "vocabulary=600",
    "threads=1",
    "teacher.weight=0",
    "config.tokens=12",
    "data.size=[48,64]",
    "backbone.vae.block_out_channels=[8,8,16,16]",
    "backbone.vae.norm_num_groups=4",
    "backbone.vae.latent_channels=4",
    "backbone.unet.in_channels=4",
    "backbone.unet.block_out_channels=[8,16,16,16]",
    "backbone.unet.norm_num_groups=4",
    "backbone.unet.attention_head_dim=2",
    "backbone.unet.cross_attention_dim=16",
    "backbone.text_encoder.hidden_size=16",
    "backbone.text_encoder.intermediate_size=32",
    "backbone.text_encoder.num_hidden_layers=1",
    "backbone.text_encoder.num_attention_heads=2",
    "optimisation.steps=20",
    "optimisation.warmup=2",
    "optimisation.lr=5e-3",
    "optimisation.batch_size=4",
    "optimisation.ema=0.7",
    "optimisation.save_every=6",
    "optimisation.eval_every=8",
]
OF_SYSTEM = {
    "depth": ["config.width=4", "config.filters=[8,8,8]", "config.bin_width=8", "config.bottleneck=8"],
    "refer": ["init=null"],
}
TWO_STEPS = ("optimisation.steps=2", "optimisation.warmup=1")


@pytest.fixture(scope="module", autouse=True)
def same_number_of_threads() -> Iterator[None]:
    """Recipes set it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_nyuv2.write(tmp_path_factory.mktemp("nyuv2"), train=12, val=1, heldout=2)


def overrides(name: str, data: Path, out: Path, *more: str) -> list[str]:
    return [*TINY, *OF_SYSTEM[name], f"data.root={data}", f"out={out}", *more]


def tiny(name: str, data: Path, out: Path, *more: str) -> Recipe:
    return read_recipe(RECIPES[name], overrides(name, data, out, *more))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> dict[str, Path]:
    """Run folders of runs that nothing disturbed."""
    folders = {name: tmp_path_factory.mktemp("runs") / f"tiny-{name}" for name in RECIPES}
    for name, out in folders.items():
        assert run(tiny(name, data, out), lambda row: None) == out / "weights"
    return folders


def rows(out: Path) -> list[dict[str, float]]:
    """The log without what a clock says."""
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def weights(out: Path) -> dict[str, bytes]:
    folder = out / "weights"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls_and_every_row_is_there(finished, name):
    found = rows(finished[name])
    assert [row["step"] for row in found if "loss" in row] == [10, 20]
    assert [row["step"] for row in found if "loss" not in row] == [8, 16, 20]
    losses = [row["loss"] for row in found if "loss" in row]
    assert losses[1] < 0.95 * losses[0]
    metric = {"depth": "val_abs_rel", "refer": "val_oiou"}[name]
    assert all(np.isfinite(row[metric]) for row in found if "loss" not in row)


@pytest.mark.parametrize("name", RECIPES)
def test_the_run_folder_is_complete(finished, data, name):
    out = finished[name]
    assert {path.name for path in out.iterdir()} == {"recipe.yaml", "log.jsonl", "state.pt", "tokenizer", "weights"}
    again = read_recipe(out / "recipe.yaml", [])
    assert again == tiny(name, data, out)


def test_depth_weights_load_and_predict(finished, data):
    predictor = deixis.load(finished["depth"] / "weights")
    frame = nyuv2.frames(data, "heldout")[0]
    depth = predictor(frame.rgb, text="a photo of a basement with a chair")
    assert depth.kind == "metric"
    assert depth.values.shape == (480, 640)
    assert np.isfinite(depth.values).all()
    assert (depth.values > 0).all()


def test_refer_weights_load_and_predict(finished, data):
    predictor = deixis.load(finished["refer"] / "weights")
    mask = predictor(nyuv2.frames(data, "heldout")[0].rgb, text="the chair on the left")
    assert mask.mask.shape == (480, 640)
    assert 0 <= mask.score <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_the_card_has_its_numbers(finished, name):
    card = (finished[name] / "weights" / "README.md").read_text()
    assert card.startswith(f"# tiny-{name}\n")
    for part in ("12 for training, 1 for choosing", "2 held out", "20 steps of 4 at 64 x 48", "seed 0", "of 1 rooms"):
        assert part in card
    table = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("| ")][1:]
    names = [cells[0].strip() for cells in table]
    expected = {
        "depth": ["AbsRel", "AbsRel", "d1", "d1", "AbsRel after affine alignment", "AbsRel with an oracle caption"],
        "refer": ["oIoU", "mIoU", "P@0.5"],
    }
    assert names == expected[name]
    assert all(np.isfinite([float(cells[1]), float(cells[3])]).all() for cells in table)
    assert "nan" not in card
    assert "EfficientNet" not in card


def test_the_threshold_of_the_card_is_the_one_of_the_weights(finished):
    folder = finished["refer"] / "weights"
    threshold = read_manifest(folder).threshold
    assert 0 < threshold < 1
    assert f"below a score of {threshold}" in (folder / "README.md").read_text()


def test_a_lost_card_is_written_again(finished, data):
    out = finished["refer"]
    before = weights(out)
    (out / "weights" / "README.md").unlink()
    lines = rows(out)
    run(tiny("refer", data, out), lambda row: pytest.fail("it trains"))
    assert weights(out) == before
    assert rows(out) == lines


# ------------------------------------------------------------------------------------------------------ kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_runs_end_with_the_same_bits(finished, data, tmp_path):
    # The last part of a name is on the card.
    folders = {name: tmp_path / "killed" / out.name for name, out in finished.items()}
    moments = {"depth": ["vocabulary", "any", "checkpoint"], "refer": ["any", "weights"]}
    drivers = []
    for name, out in folders.items():
        job = {"moments": moments[name], "recipe": str(RECIPES[name]), "overrides": overrides(name, data, out)}
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.recipes.killed", json.dumps(job)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        drivers.append(driver)
    said = [driver.communicate() for driver in drivers]
    stories = [json.loads(out or "[1]") for out, _ in said]
    assert [story[-1] for story in stories] == [0, 0], said
    assert sum(code == -9 for story in stories for code in story) >= 4, stories  # one moment may be missed
    for name, out in folders.items():
        assert rows(out) == rows(finished[name])
        killed, undisturbed = weights(out), weights(finished[name])
        assert killed.keys() == undisturbed.keys()
        assert [file for file in killed if killed[file] != undisturbed[file]] in ([], ["README.md"])  # its minutes
        assert not list(out.glob(".*partial"))


# ------------------------------------------------------------------------------------------ teachers and starts


def test_with_the_teacher(data, tmp_path):
    out = tmp_path / "taught"
    run(tiny("depth", data, out, "teacher.weight=1", *TWO_STEPS), lambda row: None)
    assert "EfficientNet-Lite0" in (out / "weights" / "README.md").read_text()
    state = torch.load(out / "state.pt", weights_only=True)
    taught = [key for key in state["trained"] if key.startswith("auxiliary.")]
    assert taught
    assert not any("_teacher" in key for key in taught)  # it is not ours to store
    assert not any(key.startswith("auxiliary") for key in state["average"])


def test_refer_starts_from_the_depth_weights(finished, data, tmp_path):
    out, donor = tmp_path / "started", finished["depth"] / "weights"
    recipe = tiny("refer", data, out, f"init={donor}", "optimisation.lr=1e-9", *TWO_STEPS)
    run(recipe, lambda row: None)
    one, other = deixis.load(donor).model, deixis.load(out / "weights").model
    for (key, a), b in zip(one.unet.state_dict().items(), other.unet.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4, msg=key)
    card = (out / "weights" / "README.md").read_text()
    assert "that comes from `tiny-depth`" in card
    assert "the frames' label maps" in card
    line = trouble(tiny("refer", data, tmp_path / "none", "init=nowhere"), UsageError)
    assert line.startswith("init nowhere: is not a weight folder")


# ----------------------------------------------------------------------------------------------------- trouble


@pytest.fixture
def begun(finished, tmp_path) -> dict[str, Path]:
    """Copies of run folders that lack their weights: a run goes on by writing them."""
    folders = {name: tmp_path / "runs" / out.name for name, out in finished.items()}
    for name, out in folders.items():
        shutil.copytree(finished[name], out, ignore=shutil.ignore_patterns("weights"))
    return folders


def trouble(recipe: Recipe, error: type[DeixisError] = DeixisError) -> str:
    with pytest.raises(error) as caught:
        run(recipe, lambda row: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_run_folder_of_another_recipe(data, begun, finished):
    for out in (begun["depth"], finished["depth"]):
        line = trouble(tiny("depth", data, out, "optimisation.lr=1e-2"), UsageError)
        assert "was begun with optimisation.lr 0.005, not 0.01" in line
    assert "was begun with system evp-depth, not evp-refer" in trouble(tiny("refer", data, begun["depth"]), UsageError)


def test_a_run_that_has_no_checkpoint_yet_takes_another_recipe(data, tmp_path):
    def interrupt(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(tiny("refer", data, out, *TWO_STEPS), interrupt)
    assert (out / "tokenizer").is_dir()
    assert not (out / "state.pt").exists()
    run(tiny("refer", data, out, *TWO_STEPS, "vocabulary=560", "optimisation.lr=1e-3"), lambda row: None)
    assert len(deixis.load(out / "weights").model.text_tower.clip.get_input_embeddings().weight) <= 560
    assert [row["step"] for row in rows(out)] == [2]


def test_something_else_in_the_run_folder(data, tmp_path):
    out = tmp_path / "run"
    (out / "weights").mkdir(parents=True)
    (out / "weights" / "precious.txt").write_text("mine")
    assert "already exists" in trouble(tiny("depth", data, out))
    assert (out / "weights" / "precious.txt").read_text() == "mine"


def test_a_run_folder_that_cannot_be(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in trouble(tiny("depth", data, tmp_path / "file" / "run"))


def test_a_damaged_checkpoint(data, begun):
    path = begun["depth"] / "state.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert trouble(tiny("depth", data, begun["depth"])).startswith(f"{path}: is damaged")


def test_a_lost_vocabulary(data, begun):
    shutil.rmtree(begun["depth"] / "tokenizer")
    assert "tokenizer" in trouble(tiny("depth", data, begun["depth"]))


def test_frames_that_have_gone_since(data, begun, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    nyuv2.frames(copy, "train")[0].rgb.unlink()
    assert "12 frames" in (line := trouble(tiny("depth", copy, begun["depth"]), UsageError))
    assert "now 11 frames" in line


def test_damaged_pictures_are_named_and_lose_nothing(data, tmp_path):
    copy, out = Path(shutil.copytree(data, tmp_path / "copy")), tmp_path / "run"
    recipe = tiny("depth", copy, out, "optimisation.eval_every=1", "optimisation.save_every=1", *TWO_STEPS)
    for split, left in (("train", set()), ("val", set()), ("heldout", {"state.pt", "weights"})):
        picture = nyuv2.frames(copy, split)[0].rgb
        content = picture.read_bytes()
        picture.write_bytes(content[:1000])
        assert trouble(recipe, InputError).startswith(f"{picture}: cannot be read")
        assert {path.name for path in out.iterdir()} & {"state.pt", "weights"} == left
        picture.write_bytes(content)
    run(recipe, lambda row: pytest.fail("it trains"))  # only the card is missing
    assert (out / "weights" / "README.md").is_file()


def test_a_data_set_that_is_none(tmp_path):
    assert "holds no official_splits" in trouble(tiny("depth", tmp_path, tmp_path / "run"), InputError)


def test_sizes_that_the_library_refuses(data, tmp_path):
    recipe = tiny("depth", data, tmp_path / "run", "backbone.unet.down_block_types=[A,B,C,D]")
    assert trouble(recipe, UsageError).startswith("backbone: cannot be built (")


def test_a_loss_without_a_value(data, tmp_path):
    recipe = tiny("depth", data, tmp_path / "run", "optimisation.lr=1e30", "optimisation.clip=1e30")
    line = trouble(recipe, NaNLossError)
    assert line.startswith("step ")
    assert "lower optimisation.lr" in line


def test_the_command_line_says_it_in_one_line(data, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", str(RECIPES["depth"]), f"data.root={data}", "optimisation.step=3"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    line = "deixis: optimisation.step: is not a key of a recipe; did you mean optimisation.steps?"
    assert said.err.splitlines() == [line]


def test_the_command_line_trains_and_says_where(finished, data, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", str(RECIPES["refer"]), *overrides("refer", data, finished["refer"])])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{finished['refer'] / 'weights'}\n"
