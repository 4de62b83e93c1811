"""Processes and turns learn together what the whole batch teaches."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from deixis.conditioning.text import TextTower
from deixis.systems.evp import EVPDepth, EVPDepthConfig, EVPRefer, EVPReferConfig
from deixis.training import relative
from deixis.training.augment import Augmentation
from deixis.training.checkpoint import load_state
from deixis.training.depth import DepthTask
from deixis.training.log import RunLog
from deixis.training.machine import Hardware
from deixis.training.refer import ReferTask
from deixis.training.semantics import Semantics
from deixis.training.shares import share_of
from tests.tiny import stable_diffusion
from tests.unit.crew import TURNED, one_step, ripple

ROOT = Path(__file__).parents[2]
BATCH = 4


def double(batch: dict[str, Any]) -> dict[str, Any]:
    """In double precision, so that what is left is of the arithmetic, not of rounding."""
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def doubled(task: Any) -> Any:
    task.auxiliary.double()
    return task


class Job(NamedTuple):
    """A step to take: task, model and the whole batch."""

    task: Any
    model: nn.Module
    batch: dict[str, Any]


@pytest.fixture(scope="module")
def jobs(stores, rooms, tokenizer) -> dict[str, Job]:
    """One of each kind of loss, on real batches; the shares hold unequal amounts of what the losses average over."""
    common: dict[str, Any] = {"train": stores[0], "val": stores[1], "tokenizer": tokenizer, "batch_size": BATCH}
    found: dict[str, Any] = {}

    def backbone() -> Any:
        parts = stable_diffusion()
        assert parts.text_encoder is not None
        parts.text_encoder.resize_token_embeddings(1000)
        return parts

    sizes: dict[str, Any] = {"width": 4, "filters": (8, 8, 8), "num_bins": 8, "bin_width": 8, "bottleneck": 8}
    config = EVPDepthConfig(max_depth=20.0, aggregate="i", tokens=8, **sizes)
    task: Any = DepthTask(
        shares=(1.0, 1.0, 1.0),
        tokens=8,
        picture=(32, 32),
        size=(32, 32),
        descriptions="id",
        pooled=False,
        text_shares=(1.0, 0.0, 0.0),
        augmentation=Augmentation(rotate_deg=20),
        lambd=0.5,
        max_depth=20.0,
        distill=0.0,
        **common,
    )
    found["evp-depth"] = task, EVPDepth(config, backbone())
    torch.manual_seed(1)
    task = ReferTask(
        shares=(1.0, 1.0, 1.0),
        root=rooms,
        tokens=8,
        size=(32, 48),
        expressions=2,
        text_shares=(0.5, 0.0, 0.5),
        augmentation=Augmentation(),
        dice=1.0,
        presence=0.5,
        distill=0.0,
        semantic=0.5,
        semantics=Semantics(16, 40),
        **common,
    )
    found["evp-refer"] = task, EVPRefer(EVPReferConfig(tokens=8), backbone())
    for system in ("marigold", "lotus-g", "e2e-ft"):
        parts = backbone()
        tower = TextTower(parts.text_encoder, frozen=True)
        task = relative.RelativeTask(
            system=system,
            shares=(1.0, 1.0, 1.0),
            size=(32, 48),
            text_rate=0.5,
            padding="none",
            augmentation=Augmentation(rotate_deg=20),
            alphas_cumprod=DDIMScheduler(**relative.SCHEDULES[system]).alphas_cumprod,
            **common,
        )
        found[system] = task, relative.network(system, parts.vae, parts.unet, tower, (32, 48))
    return {
        name: Job(doubled(task), model.double(), double(task.batch(torch.Generator().manual_seed(i))))
        for i, (name, (task, model)) in enumerate(found.items())
    }


def step(job: Job, *, without_norms: bool = False, **hardware: Any) -> dict[str, Any]:
    task, model = copy.deepcopy((job.task, job.model))
    if without_norms:  # batch norms see a turn alone
        for module in [*model.modules(), *task.auxiliary.modules()]:
            if isinstance(module, nn.BatchNorm2d):
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
                module.training = False
    return one_step(task, model, job.batch, Hardware(**hardware))


def check(found: dict[str, Any], whole: dict[str, Any], tolerance: float = 1e-6) -> None:
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert found["gradients"].keys() == whole["gradients"].keys()
    largest = max(float(gradient.abs().max()) for gradient in whole["gradients"].values())
    off = {name: float((found["gradients"][name] - one).abs().max()) for name, one in whole["gradients"].items()}
    worst = max(off, key=lambda name: off[name])
    assert off[worst] <= tolerance * largest, (worst, off[worst], largest)
    for name, value in whole["statistics"].items():
        torch.testing.assert_close(found["statistics"][name], value, rtol=1e-5, atol=1e-6)


NAMES = ["evp-depth", "evp-refer", "marigold", "lotus-g", "e2e-ft"]


@pytest.mark.parametrize("name", NAMES)
def test_turns_equal_the_whole_batch(jobs, name):
    whole = step(jobs[name], without_norms=True)
    assert whole["norm"] > 0
    check(step(jobs[name], without_norms=True, accumulation=BATCH), whole)


def test_the_shares_are_not_alike(jobs):
    """Otherwise a plain mean would pass as well."""
    for name, key in (("evp-depth", "depth"), ("marigold", "valid"), ("e2e-ft", "valid"), ("evp-refer", "mask")):
        amounts = [float((share_of(jobs[name].batch, i, 2)[key] > 0).sum()) for i in range(2)]
        assert abs(amounts[0] - amounts[1]) > 1e-3 * sum(amounts), (name, amounts)


def test_computing_activations_twice_changes_nothing(jobs):
    for name in ("evp-depth", "marigold"):
        check(step(jobs[name], checkpointing=True), step(jobs[name]))


def test_half_precision_comes_close(jobs):
    single = Job(jobs["marigold"].task, copy.deepcopy(jobs["marigold"].model).float(), jobs["marigold"].batch)
    single = single._replace(batch={k: v.float() if v.is_floating_point() else v for k, v in single.batch.items()})
    whole, half = step(single), step(single, precision="bf16")
    assert half["loss"] == pytest.approx(whole["loss"], rel=0.05)
    assert half["loss"] != whole["loss"]
    assert all(gradient.dtype == torch.float32 for gradient in half["gradients"].values())


class Pair(NamedTuple):
    """What became of two processes."""

    codes: list[int]
    said: str
    run: Path
    begun: Path
    steps: list[list[dict[str, Any]]]


@pytest.fixture(scope="module")
def pair(jobs, tmp_path_factory) -> Pair:
    """They take the steps of all jobs; then the second dies, and the first goes on."""
    path = tmp_path_factory.mktemp("crew") / "jobs"
    torch.save([tuple(jobs[name]) for name in NAMES], path)
    with pytest.raises(KeyboardInterrupt):
        ripple(Path(f"{path}.begun"), Hardware(), stop=5)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.crew", "2", "gradients", str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    steps = [torch.load(f"{path}.{rank}", weights_only=True) for rank in range(2)]
    return Pair(json.loads(done.stdout), done.stderr, Path(f"{path}.run"), Path(f"{path}.begun"), steps)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.parametrize(("number", "name"), [*enumerate(NAMES), (len(NAMES), NAMES[TURNED])])
def test_two_processes_with_half_of_the_batch_equal_one(jobs, pair, number, name):
    """The last in parts: of parameters and gradients, too, each process has the half."""
    one, other = (steps[number] for steps in pair.steps)
    check(one, step(jobs[name]))  # batch norms see both halves
    assert one["loss"] == other["loss"]
    assert all(gradient.equal(other["gradients"][key]) for key, gradient in one["gradients"].items())


def alike(found: Any, wanted: Any, where: str = "") -> None:
    """Of a state, to what rounding leaves after some steps of Adam."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key, value in wanted.items():
            alike(found[key], value, f"{where}/{key}")
    elif isinstance(wanted, Tensor):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9, msg=lambda said: f"{where}: {said}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_a_network_in_parts_learns_what_a_whole_one_does_and_is_saved_whole(pair, tmp_path):
    """Parameters, averages and optimiser; after an interruption, and gone on with by one process."""
    hardware = Hardware()
    wanted = ripple(tmp_path / "alone", hardware).state_dict()
    whole, parts = load_state(tmp_path / "alone" / "state.pt"), load_state(pair.run / "state.pt")
    for name in ("trained", "average", "optimiser"):
        alike(parts[name], whole[name], name)
    assert {type(value) for value in parts["trained"].values()} == {Tensor}
    values = [[row["val"] for row in RunLog(out / "log.jsonl", print).rows()] for out in (pair.run, tmp_path / "alone")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert len(values[0]) == 3
    (tmp_path / "half").mkdir()
    shutil.copyfile(pair.run / "half.pt", tmp_path / "half" / "state.pt")
    assert load_state(tmp_path / "half" / "state.pt")["step"] == 4
    alike(ripple(tmp_path / "half", hardware).state_dict(), wanted)
    alike(load_state(pair.begun / "state.pt")["average"], wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_a_lost_process_is_named(pair):
    assert pair.codes == [1, 9], pair.said
    (line,) = [line for line in pair.said.splitlines() if line.startswith("LostWorkerError")]
    assert "process 0 of 2: has lost another one; see what ended it" in line
    assert "the last checkpoint is intact" in line


def test_a_share_has_its_pictures_and_the_mean_amount():
    batch = {"image": torch.arange(6), "maps": [torch.arange(12)], "known": torch.tensor(5)}
    share = share_of(batch, 2, 3)
    assert isinstance(share["known"], Tensor)
    assert share["image"].tolist() == [4, 5]
    assert share["maps"][0].tolist() == [8, 9, 10, 11]
    assert float(share["known"]) == pytest.approx(5 / 3)
