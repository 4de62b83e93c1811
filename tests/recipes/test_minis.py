"""The recipes at tiny width on tiny data: they learn, survive kills to the bit, and say what is wrong in a line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import MarigoldDepthPipeline, StableDiffusionPipeline
from omegaconf import OmegaConf
from PIL import Image

import deixis
from deixis.backbones.stable_diffusion import PARTS, StableDiffusion, read_autoencoder
from deixis.checkpoints.folder import read_manifest
from deixis.cli import main
from deixis.data import nyuv2
from deixis.errors import DeixisError, InputError, ModelError, UsageError
from deixis.registry import RELATIVE, SYSTEMS
from deixis.relative import RelativePredictor
from deixis.training import findings, pretraining
from deixis.training.checkpoint import load_state
from deixis.training.checks import STAGES
from deixis.training.depth import DepthTask
from deixis.training.loop import NaNLossError
from deixis.training.recipe import Recipe, read_recipe
from deixis.training.run import build, run
from deixis.training.scenes import TITLES
from deixis.types import Depth
from tests.recipes import tiny_nyuv2
from tests.unit.test_training import largest_file

REPOSITORY = Path(__file__).parents[2]
# In their order: each starts from one before it.
MINIS = {path.stem: path for path in sorted((REPOSITORY / "recipes" / "mini").glob("*.yaml"))}
# Another one that starts from nothing.
UNTRAINED = "untrained_depth"
# Those that go on with another's weights, all of which learn, and one where some stay.
FINER = ("4_evp_depth_fine", "5_evp_refer_fine")
CONTINUED = "4_evp_depth_roads"
# One under whose head another system's parts stay as they are.
BORROWING = "6_vpd_depth"
RECIPES = {**MINIS, UNTRAINED: REPOSITORY / "tests" / "recipes" / f"{UNTRAINED}.yaml"}
GIVEN: dict[str, Any] = {name: OmegaConf.to_container(OmegaConf.load(path)) for name, path in RECIPES.items()}

TINY = [
    "threads=1",
    "log=none",
    "vocabulary=600",
    "data.stored=[40,56]",
    "data.size=[32,48]",
    "optimisation.steps=12",
    "optimisation.warmup=2",
    "optimisation.lr=5e-3",
    "optimisation.batch_size=4",
    "optimisation.ema=0.7",
    "optimisation.save_every=5",
    "optimisation.eval_every=8",
]
# Sizes of what a recipe names.
SMALL = {
    "backbone.vae": ["block_out_channels=[16,16,16,16]"],
    "backbone.unet": ["block_out_channels=[8,16,16,16]", "norm_num_groups=4", "attention_head_dim=2"],
    "backbone.text_encoder": ["hidden_size=16", "intermediate_size=32", "num_hidden_layers=1", "num_attention_heads=2"],
    "config": ["tokens=12", "width=4", "filters=[8,8,8]", "num_bins=16", "bin_width=8", "bottleneck=8"],
}
# Pre-training has its teacher; with one, every other step here would take three times as long.
OF_SYSTEM = {name: ["crop=16"] if name == "autoencoder" else [] for name in STAGES}


@pytest.fixture(scope="module", autouse=True)
def same_number_of_threads() -> Iterator[None]:
    """Recipes set it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def no_cards() -> Iterator[None]:
    """They take as long as these runs, and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deixis.training.run.write_card", lambda recipe, weights, seconds: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_nyuv2.write(tmp_path_factory.mktemp("nyuv2"), train=12, val=1, heldout=2)


class Chain:
    """The recipes on tiny data, each starting from the run of another where the recipe says so.

    Args:
        root: of the photos.
        world: of the shards.
        runs: folder of the runs to start from.
    """

    def __init__(self, root: Path, world: Path, runs: Path) -> None:
        self.root = root
        self.world = world
        self.runs = runs

    def overrides(self, name: str, out: Path | None = None, *more: str) -> list[str]:
        given = GIVEN[name]
        if name == UNTRAINED:
            return [f"data.root={self.root}", f"out={out or self.runs / name}", *more]
        found = [*TINY, f"data.root={self.root}", f"data.world={self.world}", f"out={out or self.runs / name}"]
        for section, sizes in SMALL.items():
            node: Any = OmegaConf.select(OmegaConf.create(given), section) or {}
            found += [f"{section}.{size}" for size in sizes if size.split("=")[0] in node]
        if "unet" in given.get("backbone", {}):
            found.append("backbone.unet.cross_attention_dim=16")
        if given.get("init"):
            before = next(other for other in MINIS if given["init"] == f"{GIVEN[other]['out']}/weights")
            found.append(f"init={self.runs / before / 'weights'}")
        found += OF_SYSTEM.get(given["system"], ["teacher.weight=0", *(["crop=32"] if "crop" in given else [])])
        return [*found, *more]

    def recipe(self, name: str, out: Path | None = None, *more: str) -> Recipe:
        return read_recipe(RECIPES[name], self.overrides(name, out, *more))

    def short(self, out: Path, *more: str) -> Recipe:
        """Two steps of the untrained one, with another one's words: making a vocabulary takes longest."""
        words = f"init={self.runs / of('contrast') / 'weights'}"
        return self.recipe(UNTRAINED, out, words, "optimisation.steps=2", "optimisation.warmup=1", *more)


@pytest.fixture(scope="module")
def chain(data, world, tmp_path_factory) -> Chain:
    """Run folders of runs that nothing disturbed."""
    found = Chain(data, world, tmp_path_factory.mktemp("runs"))
    for name in RECIPES:
        assert run(found.recipe(name), lambda row: None) == found.runs / name / "weights"
    return found


def of(system: str) -> str:
    """The recipe of a stage or method."""
    return next(name for name in MINIS if GIVEN[name]["system"] == system)


def rows(out: Path) -> list[dict[str, float]]:
    """The log without what a clock says."""
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in found]


def weights(out: Path) -> dict[str, bytes]:
    folder = out / "weights"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------- what a run leaves

METRICS = {
    "autoencoder": "val_rooms_psnr_32",
    "contrast": "val_first_of_10",
    "text-to-image": "val_empty_minus_right_low",
    "depth": "val_nyuv2_abs_rel",
    "refer": "val_roads_oiou",
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_row_is_there(chain, name):
    found = rows(chain.runs / name)
    optimisation = chain.recipe(name).optimisation
    steps, every = optimisation.steps, optimisation.eval_every
    assert [row["step"] for row in found if "loss" in row] == list(range(10, steps + 1, 10))
    assert [row["step"] for row in found if "loss" not in row] == [*range(every, steps, every), steps]
    system = GIVEN[name]["system"]
    metric = METRICS[system if system in STAGES else SYSTEMS[system].task if system in SYSTEMS else "depth"]
    assert all(np.isfinite(row[metric]) for row in found if "loss" not in row)


def test_the_loss_falls(chain):
    first, last = (row["loss"] for row in rows(chain.runs / UNTRAINED) if "loss" in row)
    assert last < 0.95 * first


@pytest.mark.parametrize("name", RECIPES)
def test_the_run_folder_is_complete(chain, name):
    out = chain.runs / name
    words = {"tokenizer"} if GIVEN[name]["system"] != "autoencoder" else set()
    left = {"recipe.yaml", "log.jsonl", "state.pt", "weights", "curves.png", "environment.json"}
    left |= {"tensorboard"} if name == UNTRAINED else set()
    if GIVEN[name]["system"] != "contrast":
        left.add("validation")
        sheets = [f"step_{row['step']:06d}.png" for row in rows(out) if "loss" not in row]
        assert sorted(path.name for path in (out / "validation").iterdir()) == sheets
    assert {path.name for path in out.iterdir()} == left | words
    assert read_recipe(out / "recipe.yaml", []) == chain.recipe(name)


@pytest.mark.parametrize("name", [name for name in RECIPES if GIVEN[name]["system"] in STAGES])
def test_a_stage_adds_its_part_and_hands_the_others_on(chain, name):
    written = {file: content for file, content in weights(chain.runs / name).items() if "/" in file}
    added = STAGES[GIVEN[name]["system"]]
    before = {}
    if GIVEN[name].get("init"):
        before = weights(Path(chain.recipe(name).init).parent)
    assert {file.split("/")[0] for file in written} - {file.split("/")[0] for file in before} >= {added}
    # The text tower goes on learning with the U-Net; the autoencoder has learned.
    kept = {file: content for file, content in before.items() if file.split("/")[0] in ("vae", "tokenizer")}
    assert {file: written[file] for file in kept if not file.endswith(".json")} == {
        file: content for file, content in kept.items() if not file.endswith(".json")
    }


def test_the_latents_have_unit_variance(chain, data):
    vae = read_autoencoder(chain.runs / of("autoencoder") / "weights" / "vae")
    frames = nyuv2.frames(data, "train")
    pictures = np.stack([np.asarray(frame.read_rgb()[::12, ::12]) for frame in frames])
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
    assert 0.4 < latents.std() * vae.config.scaling_factor < 2.5  # of the world's pictures as well, and it is 1


def test_the_last_stage_is_a_stable_diffusion(chain):
    folder = chain.runs / of("text-to-image") / "weights"
    assert {path.name for path in folder.iterdir()} == {*PARTS, "scheduler", "model_index.json"}
    assert StableDiffusion.from_pretrained(folder).unet.config.cross_attention_dim == 16
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)
    drawn = pipeline("a photo of a room", height=32, width=48, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, 32, 48, 3)
    assert np.isfinite(drawn).all()


METHODS = [name for name in RECIPES if GIVEN[name]["system"] in SYSTEMS]


@pytest.mark.parametrize("name", [name for name in METHODS if SYSTEMS[GIVEN[name]["system"]].task == "depth"])
def test_depth_weights_load_and_predict(chain, data, name):
    predictor = deixis.load(chain.runs / name / "weights")
    frame = nyuv2.frames(data, "heldout")[0]
    for text in ("a photo of a basement with a chair", None):
        depth = predictor(frame.rgb, text=text)
        assert depth.kind == "metric"
        assert depth.values.shape == (480, 640)
        assert np.isfinite(depth.values).all()
        assert (depth.values > 0).all()
    has_mean = chain.recipe(name).text_shares[1] > 0
    assert depth.text.provenance == ("aggregate:nyuv2+world" if has_mean else "empty")


@pytest.mark.parametrize("name", [name for name in METHODS if SYSTEMS[GIVEN[name]["system"]].task == "refer"])
def test_refer_weights_load_and_predict(chain, data, name):
    predictor = deixis.load(chain.runs / name / "weights")
    mask = predictor(nyuv2.frames(data, "heldout")[0].rgb, text="the chair on the left")
    assert mask.mask.shape == (480, 640)
    assert 0 <= mask.score <= 1


RELATIVES = [name for name in RECIPES if GIVEN[name]["system"] in RELATIVE]


@pytest.mark.parametrize("name", RELATIVES)
def test_relative_weights_load_and_predict(chain, data, name):
    predictor = deixis.load(chain.runs / name / "weights")
    assert isinstance(predictor, RelativePredictor)
    assert predictor.system == GIVEN[name]["system"]
    frame = nyuv2.frames(data, "heldout")[0]
    plain, told = (predictor(frame.rgb, text) for text in (None, "a photo of a basement with a chair"))
    assert isinstance(plain, Depth)
    assert isinstance(told, Depth)
    assert plain.values.shape == (480, 640)
    assert not np.array_equal(plain.values, told.values)


@pytest.mark.parametrize("name", RELATIVES)
def test_relative_methods_start_from_the_last_stage_and_change_the_unet_alone(chain, name):
    written = weights(chain.runs / name)
    before = weights(Path(str(chain.recipe(name).init)).parent)
    for file in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        mine, theirs = safetensors.torch.load(written[file]), safetensors.torch.load(before[file])
        assert mine.keys() == theirs.keys()
        assert all(value.equal(theirs[key]) for key, value in mine.items())
    assert written["unet/diffusion_pytorch_model.safetensors"] != before["unet/diffusion_pytorch_model.safetensors"]


def test_a_marigold_trained_here_is_one_for_diffusers(chain, data):
    folder = chain.runs / of("marigold") / "weights"
    rgb = nyuv2.frames(data, "heldout")[0].read_rgb()[:64, :96]
    theirs = MarigoldDepthPipeline.from_pretrained(str(folder), local_files_only=True).to(torch.float32)
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, 8, 12), generator=torch.Generator().manual_seed(0))
    picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    wanted = theirs(picture, num_inference_steps=2, processing_resolution=0, latents=noise).prediction[0, :, :, 0]
    found = deixis.load(folder)(rgb, steps=2, resolution=0, seed=0)
    assert np.abs(found.values - wanted).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in METHODS if GIVEN[name]["system"].startswith("evp")])
def test_latents_are_divided_by_what_they_were_divided_by(chain, name):
    std = read_manifest(chain.runs / name / "weights").config["std"]
    if name == UNTRAINED:
        assert std is None
    else:
        vae = read_autoencoder(chain.runs / of("autoencoder") / "weights" / "vae")
        assert std == pytest.approx(1 / vae.config.scaling_factor)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in (UNTRAINED, *FINER, CONTINUED, BORROWING)])
def test_a_method_starts_from_the_parts_of_the_last_stage(chain, name):
    recipe = chain.recipe(name)
    donor = StableDiffusion.from_pretrained(Path(str(recipe.init)))
    assert donor.tokenizer is not None
    assert donor.text_encoder is not None
    model: Any = build(recipe, donor.tokenizer)[0]
    for mine, theirs in ((model.text_tower.clip, donor.text_encoder), (model.unet.unet, donor.unet)):
        before = theirs.state_dict()
        shared = {key: value for key, value in mine.state_dict().items() if key in before}
        assert len(shared) > 0.8 * len(before)
        assert all(value.equal(before[key].to(value.dtype)) for key, value in shared.items())


def test_weights_of_the_same_system_go_on_learning_but_for_what_is_frozen(chain):
    before, after = weights(Path(chain.recipe(CONTINUED).init).parent), weights(chain.runs / CONTINUED)
    for part, learns in {"vae": True, "unet": False, "text_encoder": False}.items():
        files = [file for file in before if file.startswith(f"{part}/") and file.endswith(".safetensors")]
        assert files
        assert all((before[file] != after[file]) == learns for file in files)
    heads = [safetensors.torch.load(found["head/model.safetensors"]) for found in (before, after)]
    shared = heads[0].keys() & heads[1].keys() - {"stored_text"}
    assert any(key.startswith("bins") for key in shared)
    changed = {key.split(".")[0] for key in shared if not heads[0][key].equal(heads[1][key])}
    assert changed == {"imafr", "join", "decoder", "bins"}
    manifests = [read_manifest(Path(chain.recipe(CONTINUED).init)), read_manifest(chain.runs / CONTINUED / "weights")]
    assert [one.config["max_depth"] for one in manifests] == [10.0, 80.0]


def test_parts_of_another_system_stay_as_they_are_under_a_new_head(chain):
    name = BORROWING
    assert read_manifest(Path(chain.recipe(name).init)).system == "evp-depth"
    before, after = weights(Path(chain.recipe(name).init).parent), weights(chain.runs / name)
    shared = [file for file in after if file.startswith(("vae/", "unet/", "text_encoder/"))]
    assert {file.split("/")[0] for file in shared} == {"vae", "unet", "text_encoder"}
    assert all(before[file] == after[file] for file in shared)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("config.tokens=13", "config.tokens: is 13, and 12 in"),
        ("frozen=[unett]", "frozen unett: is no part of evp-depth; did you mean unet?"),
    ],
)
def test_what_does_not_fit_the_weights_to_go_on_from(chain, tmp_path, override, line):
    with pytest.raises(UsageError, match=line):
        run(chain.recipe(CONTINUED, tmp_path / "run", *override.split()), lambda row: None)


# ------------------------------------------------------------------------------------------------------ kills

# When the runs of each system are killed.
MOMENTS = {
    "autoencoder": ["checkpoint", "any"],
    "contrast": ["vocabulary", "weights"],
    "text-to-image": ["any", "weights"],
    "evp-depth": ["any", "checkpoint"],
    "evp-refer": ["any", "weights"],
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_runs_end_with_the_same_bits(chain, tmp_path):
    # Runs of every system are killed at random in test_kills; here one of each way to train.
    names = [*map(of, MOMENTS), of("marigold"), UNTRAINED]
    moments = {
        name: ["vocabulary", "any"] if name == UNTRAINED else MOMENTS.get(GIVEN[name]["system"], ["any"])
        for name in names
    }
    jobs = [
        {
            "moments": moments[name],
            "recipe": str(RECIPES[name]),
            "overrides": chain.overrides(name, tmp_path / name),
        }
        for name in names
    ]
    files = [tmp_path / f"jobs-{i}.json" for i in range(2)]
    for i, file in enumerate(files):
        file.write_text(json.dumps(jobs[i::2]))
    drivers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.recipes.killed", str(file)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for file in files
    ]
    said = [(*driver.communicate(), driver.returncode) for driver in drivers]
    stories = [story for out, _, _ in said for story in json.loads(out or "[[1]]")]
    assert [story[-1] for story in stories] == [0] * len(jobs), said
    wanted = sum(map(len, moments.values()))
    assert sum(code == -9 for story in stories for code in story) >= wanted - 2, stories  # moments may be missed
    for name in names:
        out = tmp_path / name
        assert rows(out) == rows(chain.runs / name), name
        killed, undisturbed = weights(out), weights(chain.runs / name)
        assert killed.keys() == undisturbed.keys()
        assert [file for file in killed if killed[file] != undisturbed[file]] == [], name
        assert not list(out.glob(".*partial"))


# ------------------------------------------------------------------------------------- processes, updates, the best


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_two_processes_train_what_one_does(chain, tmp_path):
    """At the first step to rounding; from the second on Adam divides rounding by rounding in some places."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    words = f"init={chain.runs / of('contrast') / 'weights'}"
    settings = [words, "optimisation.steps=1", "optimisation.warmup=0", "log=none"]
    run(chain.recipe(UNTRAINED, alone, *settings), lambda row: None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.unit.crew", "2", "train", str(RECIPES[UNTRAINED])),
            *chain.overrides(UNTRAINED, together, *settings, "hardware.accumulation=1"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [0, 0], done.stderr
    assert done.stderr.count("reading the data") == 1  # the first of them speaks
    assert done.stderr.count(str(together / "weights")) == 1
    assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
    assert json.loads((together / "environment.json").read_text())["processes"] == 2
    one, two = (torch.load(out / "state.pt", weights_only=True)["optimiser"]["state"] for out in (alone, together))
    assert one.keys() == two.keys()
    largest = max(float(state["exp_avg"].abs().max()) for state in one.values())
    for number, state in one.items():  # a tenth of the gradient
        torch.testing.assert_close(two[number]["exp_avg"], state["exp_avg"], rtol=0, atol=1e-5 * largest)
    assert deixis.load(together / "weights").name


def test_low_rank_updates_and_the_best_weights_are_left_as_plain_ones(chain, tmp_path):
    out = tmp_path / "run"
    settings = ("lora=2", "best=val_nyuv2_abs_rel min", "optimisation.eval_every=1", "optimisation.lr=1e-2")
    run(chain.short(out, *settings), lambda row: None)
    values = [row["val_nyuv2_abs_rel"] for row in rows(out) if "val_nyuv2_abs_rel" in row]
    assert torch.load(out / "best.pt", weights_only=True)["value"] == min(values)
    plain = safetensors.torch.load_file(
        chain.runs / UNTRAINED / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    )
    for folder in ("weights", "weights-best"):
        deixis.load(out / folder)
        found = safetensors.torch.load_file(out / folder / "unet" / "diffusion_pytorch_model.safetensors")
        assert found.keys() == plain.keys()
    with pytest.raises(UsageError, match="was begun with lora 2, not 0"):
        run(chain.short(out), lambda row: None)


# --------------------------------------------------------------------------------------- what pre-training is worth


@pytest.mark.parametrize("system", ["evp-depth", "evp-refer"])
def test_study_of_pretraining(chain, tmp_path, monkeypatch, system):
    """Two learning rates, two seeds, a pre-trained and a random start; what is done is not done again."""
    monkeypatch.setattr(pretraining, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(pretraining, "SEEDS", 2)
    starts = {"text": chain.runs / of("text-to-image") / "weights"}
    overrides = [one for one in chain.overrides(of(system)) if not one.startswith(("out=", "init="))]
    overrides += ["optimisation.steps=2", "optimisation.warmup=1"]
    done: list[str] = []

    def again() -> Path:
        done.clear()
        return pretraining.study(tmp_path, [RECIPES[of(system)]], starts, overrides, workers=1, say=done.append)

    report = again()
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == sum("trained and measured: " in line for line in done) == 2 * (2 + 2)
    tuning = f"-{pretraining.TUNING_SEED}"
    for path in runs:
        found = json.loads((path / "measured.json").read_text())
        assert (found.keys() == {"validated"}) == path.name.endswith(tuning)
        assert found.get("validated", 1.0) != 0.0  # as masks after two steps have at one cut for all
    reported = [path for path in runs if not path.name.endswith(tuning)]
    measured = {path.name: json.loads((path / "measured.json").read_text()) for path in reported}
    assert len(measured) == 2 * 2
    for found in measured.values():
        assert found.keys() == {"nyuv2", "rooms", "roads"}
        for source in found.values():
            assert {len(source[text]) for text in pretraining.TEXTS} == {len(source["clusters"])}
    text = report.read_text()
    assert f"## {system}" in text
    for source in TITLES:
        for start in ("text", "random"):
            assert f"| {TITLES[source]}, from {start} |" in text
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert again() == report
    assert report.read_text() == text
    changed = {path.name for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert not changed


def test_the_random_start_knows_nothing_and_has_the_same_sizes(chain, tmp_path):
    like = chain.runs / of("text-to-image") / "weights"
    pretraining.random_start(tmp_path / "random", like)
    one, other = StableDiffusion.from_pretrained(like), StableDiffusion.from_pretrained(tmp_path / "random")
    for part in ("vae", "unet", "text_encoder"):
        mine, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert {key: value.shape for key, value in mine.items()} == {key: value.shape for key, value in theirs.items()}
        matrices = [key for key, value in mine.items() if value.ndim > 1 and value.std() > 0]
        assert not any(mine[key].equal(theirs[key]) for key in matrices)


def test_findings(chain, tmp_path, monkeypatch):
    """Marigold with and without text, two seeds; what is done is not done again."""
    monkeypatch.setattr(findings, "STEPS", (1, 3))
    overrides = [one for one in chain.overrides(of("marigold")) if not one.startswith("out=")]
    overrides += ["optimisation.steps=4", "optimisation.warmup=1", "optimisation.eval_every=2"]
    extent, done = findings.Extent(seeds=2), list[str]()

    def again() -> Path:
        done.clear()
        return findings.study(tmp_path, [RECIPES[of("marigold")]], overrides, workers=1, say=done.append, extent=extent)

    text = again().read_text()
    assert done[-1].startswith("4 of 4 trained and measured: ")
    measured = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/measured.json")}
    assert len(measured) == 4
    for name, found in measured.items():
        told = "no-text" not in name
        learned = {"nyuv2", "rooms"}  # roads have no share in this recipe
        assert found["sources"].keys() == found["steps"].keys() == learned
        assert found["refined"].keys() == (learned if told else set())
        for source in found["sources"].values():
            assert set(source["texts"]) == (set(findings.TEXTS) if told else {"empty"})
            for rows in source["texts"].values():
                assert [len(row) for row in rows] == [len(findings.METRICS)] * len(source["clusters"])
    assert "| marigold, world rooms | AbsRel |" in text
    assert "| world rooms | with text, asked without |" in text
    assert "| marigold, without | " in text
    for picture in ("steps.png", "training.png"):
        assert min(Image.open(tmp_path / picture).size) > 300
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("measured.json")}
    again()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("measured.json")}


def test_findings_are_of_relative_systems(chain, tmp_path):
    name = of("evp-depth")
    with pytest.raises(UsageError, match="evp-depth: is no system of affine-invariant depth"):
        findings.study(tmp_path, [RECIPES[name]], chain.overrides(name), workers=1, say=lambda line: None)


# ------------------------------------------------------------------------------------------ teachers and starts


def test_with_the_teacher(chain, tmp_path):
    out = tmp_path / "taught"
    run(chain.short(out, "teacher.weight=1"), lambda row: None)
    state = torch.load(out / "state.pt", weights_only=True)
    taught = [key for key in state["trained"] if key.startswith("auxiliary.")]
    assert taught
    assert not any("_teacher" in key for key in taught)  # it is not ours to store
    assert not any(key.startswith("auxiliary") for key in state["average"])


def test_what_a_stage_or_method_cannot_start_from(chain, tmp_path):
    last, words, depth = of("text-to-image"), of("contrast"), of("evp-depth")
    nowhere = trouble(chain.recipe(depth, tmp_path / "a", "init=nowhere"), UsageError)
    assert nowhere.startswith("init nowhere: is no folder; train what the recipe starts from first")
    assert not (tmp_path / "a").exists()  # found before a run folder is claimed and data are read
    early = chain.runs / of("autoencoder") / "weights"
    assert "text-to-image: has no text_encoder" in trouble(chain.recipe(last, tmp_path / "b", f"init={early}"))
    early = chain.runs / words / "weights"
    assert "evp-depth: has no unet to start from" in trouble(chain.recipe(depth, tmp_path / "c", f"init={early}"))
    damaged = Path(shutil.copytree(chain.runs / last / "weights", tmp_path / "damaged"))
    (damaged / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"none")
    assert str(damaged) in trouble(chain.recipe(depth, tmp_path / "d", f"init={damaged}"), ModelError)


# ----------------------------------------------------------------------------------------------------- trouble


@pytest.fixture
def begun(chain, tmp_path) -> Path:
    """A copy of a run folder that lacks its weights: the run goes on by writing them."""
    out = tmp_path / "runs" / UNTRAINED
    return Path(shutil.copytree(chain.runs / UNTRAINED, out, ignore=shutil.ignore_patterns("weights")))


def trouble(recipe: Recipe, error: type[DeixisError] = DeixisError) -> str:
    with pytest.raises(error) as caught:
        run(recipe, lambda row: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_run_folder_of_another_recipe(chain, begun):
    for out in (begun, chain.runs / UNTRAINED):
        line = trouble(chain.recipe(UNTRAINED, out, "optimisation.lr=1e-2"), UsageError)
        assert "was begun with optimisation.lr 0.005, not 0.01" in line
    other = trouble(chain.recipe(of("autoencoder"), begun), UsageError)
    assert "was begun with system evp-depth, not autoencoder" in other


def test_a_run_goes_on_from_the_same_init_wherever_that_lies(chain, tmp_path):
    name = of("lotus-d")
    out = tmp_path / "run"
    shutil.copytree(chain.runs / name, out, ignore=shutil.ignore_patterns("weights"))
    moved = tmp_path / "moved"
    shutil.copytree(chain.runs / of("text-to-image") / "weights", moved)
    begun = (out / "recipe.yaml").read_bytes()
    config = moved / "vae" / "config.json"
    content = config.read_text()
    config.write_text(content.replace('"scaling_factor": ', '"scaling_factor": 1'))
    line = trouble(chain.recipe(name, out, f"init={moved}"), UsageError)
    assert re.search(r"was written with another init \(\w{8}, now \w{8}\); bring back the same folder", line)
    config.write_text(content)
    run(chain.recipe(name, out, f"init={moved}"), lambda row: pytest.fail("it trains"))
    assert weights(out) == weights(chain.runs / name)
    assert (out / "recipe.yaml").read_bytes() == begun


def test_weights_say_where_they_come_from(chain):
    def source(name: str) -> str:
        return read_manifest(chain.runs / name / "weights").source

    assert source(CONTINUED) == "recipe for evp-depth, seed 0; went on by recipe, seeds 0, 0"
    assert source(BORROWING) == (
        "recipe for vpd-depth, seed 0, on parts of (recipe for evp-depth, seed 0; went on by recipe, seeds 0)"
    )


def test_a_run_that_has_no_checkpoint_yet_takes_another_recipe(chain, tmp_path):
    def interrupt(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(chain.short(out), interrupt)
    assert (out / "tokenizer").is_dir()
    assert not (out / "state.pt").exists()
    run(chain.short(out, "init=null", "vocabulary=560", "optimisation.lr=1e-3"), lambda row: None)
    assert len(deixis.load(out / "weights").model.text_tower.clip.get_input_embeddings().weight) <= 560
    assert [row["step"] for row in rows(out)] == [2]


def test_something_else_in_the_run_folder(chain, tmp_path):
    out = tmp_path / "run"
    (out / "weights").mkdir(parents=True)
    (out / "weights" / "precious.txt").write_text("mine")
    for name in (UNTRAINED, of("autoencoder")):
        assert "already exists" in trouble(chain.recipe(name, out))
    assert (out / "weights" / "precious.txt").read_text() == "mine"


def test_a_run_folder_that_cannot_be(chain, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in trouble(chain.recipe(UNTRAINED, tmp_path / "file" / "run"))


def test_a_lost_card_is_written_again(chain, monkeypatch):
    asked = []
    monkeypatch.setattr("deixis.training.run.write_card", lambda recipe, weights, seconds: asked.append(weights))
    for name in RECIPES:
        before = weights(chain.runs / name)
        run(chain.recipe(name), lambda row: pytest.fail("it trains"))
        assert weights(chain.runs / name) == before
    assert asked == [chain.runs / name / "weights" for name in RECIPES]


def test_a_device_that_is_not_there(chain, tmp_path):
    for device in ("cpuu", "cuda:99"):
        line = trouble(chain.recipe(UNTRAINED, tmp_path / "run", f"device={device}"), UsageError)
        assert line.startswith(f"device: is {device}, which torch cannot use here (")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint(chain, begun):
    path = begun / "state.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert trouble(chain.recipe(UNTRAINED, begun)).startswith(f"{path}: is damaged")


def test_a_lost_vocabulary(chain, begun):
    shutil.rmtree(begun / "tokenizer")
    assert "tokenizer" in trouble(chain.recipe(UNTRAINED, begun))


def test_frames_that_have_gone_since(chain, data, begun, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    nyuv2.frames(copy, "train")[0].rgb.unlink()
    line = trouble(chain.recipe(UNTRAINED, begun, f"data.root={copy}"), UsageError)
    assert "12 nyuv2" in line
    assert "now 11 nyuv2" in line


def test_damaged_pictures_are_named_and_lose_nothing(chain, data, tmp_path):
    copy, out = Path(shutil.copytree(data, tmp_path / "copy")), tmp_path / "run"
    recipe = chain.short(out, f"data.root={copy}")
    for split in ("train", "val"):
        picture = nyuv2.frames(copy, split)[0].rgb
        content = picture.read_bytes()
        picture.write_bytes(content[:1000])
        assert trouble(recipe, InputError).startswith(f"{picture}: cannot be read")
        assert {path.name for path in out.iterdir()} == {"recipe.yaml"}
        picture.write_bytes(content)
    run(recipe, lambda row: None)
    assert (out / "weights").is_dir()


def test_damaged_shards_are_named(chain, world, tmp_path):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    shard = next(copy.glob("rooms-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    recipe = chain.recipe(of("autoencoder"), tmp_path / "run", f"data.world={copy}")
    assert trouble(recipe, InputError).startswith(f"{shard}: is no whole shard")


def test_a_data_set_that_is_none(chain, tmp_path):
    recipe = chain.recipe(UNTRAINED, tmp_path / "run", f"data.root={tmp_path}")
    assert "holds no official_splits" in trouble(recipe, InputError)
    recipe = chain.recipe(of("autoencoder"), tmp_path / "run", f"data.world={tmp_path}")
    assert "holds no shards" in trouble(recipe, InputError)
    recipe = chain.recipe(UNTRAINED, tmp_path / "run", "data.root=null")
    assert "names no dataset" in trouble(recipe, UsageError)


def test_sizes_that_the_library_refuses(chain, tmp_path):
    recipe = chain.short(tmp_path / "run", "backbone.unet.down_block_types=[A,B,C,D]")
    assert trouble(recipe, UsageError).startswith("backbone: cannot be built (")


def test_a_full_disk_at_any_file_is_named_and_loses_nothing(chain, tmp_path, monkeypatch):
    """A quota stands in for the disk: too little for the file that comes next, again and again."""
    out = tmp_path / "run"
    recipe = chain.short(out)
    words = max(path.stat().st_size for path in (Path(str(recipe.init)) / "tokenizer").iterdir())

    def full(size: int, file: str) -> None:
        with largest_file(size):
            line = trouble(recipe)
        assert line.startswith(f"{out / file}")
        assert "cannot be written (" in line
        assert "File too large" in line

    full(100, "recipe.yaml")
    full(words - 1, "tokenizer")
    full(words + 1, "validation")
    with monkeypatch.context() as patch:
        patch.setattr(DepthTask, "pictures", lambda task, model: None)
        full(words + 1, "state.pt")
    run(recipe, lambda row: None)
    finished = weights(out)
    (out / "curves.png").unlink()
    full(4000, "curves.png")
    shutil.rmtree(out / "weights")
    full(words + 1, "tensorboard")  # which is written anew with its pictures
    shutil.rmtree(out / "validation")
    full(words + 1, "weights")
    run(recipe, lambda row: pytest.fail("it trains again"))
    assert weights(out) == finished
    assert (out / "curves.png").is_file()
    assert not [path.name for path in out.rglob("*partial*")]


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_asked_to_end_says_how_to_go_on(chain, tmp_path, monkeypatch, capsys, number):
    out = tmp_path / "run"
    overrides = [f"init={chain.runs / of('contrast') / 'weights'}", "optimisation.steps=3", "optimisation.warmup=1"]
    command = ["train", str(RECIPES[UNTRAINED]), *chain.overrides(UNTRAINED, out, *overrides)]
    draw = DepthTask.batch

    def asked(task: DepthTask, generator: torch.Generator) -> dict[str, Any]:
        signal.raise_signal(number)
        return draw(task, generator)

    with monkeypatch.context() as patch:
        patch.setattr(DepthTask, "batch", asked)
        with pytest.raises(SystemExit) as end:
            main(command)
    assert end.value.code == 128 + number
    said = capsys.readouterr().err.splitlines()
    line = f"deixis: {out}: stopped by {number.name} after step 1; give the same command again to go on from there"
    assert said[-1] == line
    assert load_state(out / "state.pt")["step"] == 1
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0


def test_a_loss_without_a_value(chain, tmp_path):
    huge = ("optimisation.steps=20", "optimisation.lr=1e30", "optimisation.clip=1e30")
    recipe = chain.short(tmp_path / "run", *huge)
    line = trouble(recipe, NaNLossError)
    assert line.startswith("step ")
    assert "lower optimisation.lr" in line


def test_the_command_line_says_it_in_one_line(data, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", str(RECIPES[UNTRAINED]), f"data.root={data}", "optimisation.step=3"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    line = "deixis: optimisation.step: is not a key of a recipe; did you mean optimisation.steps?"
    assert said.err.splitlines() == [line]


@pytest.mark.parametrize("name", [UNTRAINED, of("autoencoder")])
def test_the_command_line_trains_and_says_where(chain, capsys, name):
    with pytest.raises(SystemExit) as end:
        main(["train", str(RECIPES[name]), *chain.overrides(name)])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert said.out == f"{chain.runs / name / 'weights'}\n"
    steps = chain.recipe(name).optimisation.steps
    assert f"{steps}/{steps} loss – " in said.err  # it was trained before
