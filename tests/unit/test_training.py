"""The training room piece by piece: warps keep geometry, steps are pure, checkpoints are whole, logs have no gaps."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import resource
import shutil
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deixis.conditioning.describe import aggregate, class_description, encoder
from deixis.conditioning.text import TextTower, tokenize
from deixis.errors import CheckpointError, DeixisError, InputError, UsageError
from deixis.training import loop
from deixis.training.augment import Augmentation, Warp, draw_warp, jitter_colour
from deixis.training.checkpoint import load_state, save_state
from deixis.training.depth import NON_METRIC_LEVELS, DepthTask, evaluate_depth
from deixis.training.leaving import Requests, StoppedError, last_of_worker, requests
from deixis.training.log import RunLog
from deixis.training.loop import NaNLossError, Schedule, train
from deixis.training.refer import ReferTask, _dice, _presence, _reworded, photo_pairs, world_pairs
from deixis.training.run import corpus
from deixis.training.store import Store
from deixis.training.tokenizer import SMALLEST, train_tokenizer
from deixis.world.words import flip
from tests.recipes import tiny_nyuv2
from tests.tiny import stable_diffusion


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------------- warps

SIZE = (48, 64)


def source_positions(warp: Warp) -> Tensor:
    """Where each output pixel looks, [B, H, W, 2] (x, y) in pixels of an input of the same size."""
    return (warp.grid + 1) / 2 * torch.tensor([SIZE[1], SIZE[0]]) - 0.5


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(flip=0.5, zoom=1.5, rotate_deg=30),
        Augmentation(flip=1, zoom=1, rotate_deg=20),
        Augmentation(flip=0, zoom=2, rotate_deg=0),
    ],
)
def test_a_warp_is_a_similarity_whatever_the_aspect(settings):
    warp = draw_warp(settings, 32, SIZE, generator())
    at = source_positions(warp)
    right, down = at[:, 0, 1] - at[:, 0, 0], at[:, 1, 0] - at[:, 0, 0]  # one pixel to the right, one down
    steps = 1 / warp.zoom
    torch.testing.assert_close(right.norm(dim=1), steps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(down.norm(dim=1), steps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close((right * down).sum(dim=1), torch.zeros(32), rtol=0, atol=1e-3)
    turned = right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]
    assert ((turned < 0) == warp.flipped).all()
    # The vertical axis is turned by at most the angle, flipped or not.
    assert (torch.atan2(down[:, 0], down[:, 1]).abs() <= math.radians(settings.rotate_deg) + 1e-3).all()


def test_without_rotation_a_warp_stays_inside_the_frame():
    at = source_positions(draw_warp(Augmentation(zoom=1.7, rotate_deg=0), 64, SIZE, generator()))
    corners = at[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners >= -0.5 - 1e-3).all()
    assert (corners <= torch.tensor([SIZE[1], SIZE[0]]) - 0.5 + 1e-3).all()
    assert at[..., 0].min() < 5  # and comes near its border
    assert at[..., 0].max() > SIZE[1] - 6


def test_nothing_to_do_changes_nothing():
    warp = draw_warp(Augmentation(flip=0, zoom=1, rotate_deg=0), 2, SIZE, generator())
    x = torch.rand(2, 3, *SIZE)
    torch.testing.assert_close(warp.image(x), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(warp.depth(x[:, :1]), x[:, :1])


def test_a_flip_mirrors_image_depth_and_labels_alike():
    warp = draw_warp(Augmentation(flip=1, zoom=1, rotate_deg=0), 2, SIZE, generator())
    x = torch.rand(2, 1, *SIZE)
    torch.testing.assert_close(warp.image(x), x.flip(-1), rtol=0, atol=1e-4)
    torch.testing.assert_close(warp.depth(x), x.flip(-1))
    torch.testing.assert_close(warp.labels(x), x.flip(-1))


def test_image_and_labels_move_together():
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    ramp = torch.stack([x, y]).float().expand(8, -1, -1, -1)
    warp = draw_warp(Augmentation(flip=0.5, zoom=1.3, rotate_deg=10), 8, SIZE, generator(1))
    image, labels = warp.image(ramp), warp.labels(ramp + 1) - 1
    inside = labels[:, :1] >= 0
    assert (((image - labels).abs() <= 0.51) | ~inside).all()


def test_what_zoom_enlarges_comes_nearer():
    """A pinhole camera with the same focal length sees a thing z times larger at 1 / z of its distance."""
    warp = draw_warp(Augmentation(flip=0, zoom=2, rotate_deg=0), 16, SIZE, generator())
    width_px, depth_m = 20, 4.0
    image = torch.zeros(16, 1, *SIZE)
    image[..., 22:42] = 1
    seen = warp.image(image)[:, 0, 24].sum(dim=1)
    depth = warp.depth(torch.full((16, 1, *SIZE), depth_m))[:, 0, 24, 32]
    whole = (warp.image(image)[:, 0, 24, 0] == 0) & (warp.image(image)[:, 0, 24, -1] == 0)
    assert whole.sum() > 3
    torch.testing.assert_close((seen * depth)[whole], torch.full((16,), width_px * depth_m)[whole], rtol=0.03, atol=0)


def test_where_fields_of_view_vary_zoom_is_a_narrower_one_and_nothing_comes_nearer():
    warp = draw_warp(Augmentation(flip=0, zoom=2, rotate_deg=0), 16, SIZE, generator())
    one_camera = torch.arange(16) < 8
    depth = warp.depth(torch.full((16, 1, *SIZE), 4.0), one_camera)[:, 0, 24, 32]
    torch.testing.assert_close(depth, torch.where(one_camera, 4.0 / warp.zoom, 4.0))


def test_outside_the_frame_the_border_repeats_and_depth_is_unknown():
    warp = draw_warp(Augmentation(flip=0, zoom=1, rotate_deg=45), 4, SIZE, generator())
    ones = torch.ones(4, 1, *SIZE)
    assert warp.image(ones).min() > 0.999
    assert (warp.depth(ones) == 0).any()
    assert (warp.labels(ones) == 0).equal(warp.depth(ones) == 0)


@pytest.mark.parametrize("source", [(48, 96), (60, 64), (33, 44), (48, 64)])
def test_a_window_of_another_aspect_stays_inside_and_is_not_stretched(source):
    height, width = source
    warp = draw_warp(Augmentation(flip=0.5, zoom=1.4, rotate_deg=0), 200, SIZE, generator(), source)
    at = (warp.grid + 1) / 2 * torch.tensor([width, height]) - 0.5  # [B, H, W, 2] in pixels of the source
    corners = at[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners >= -0.5 - 1e-3).all()
    assert (corners <= torch.tensor([width, height]) - 0.5 + 1e-3).all()
    right, down = at[:, 0, 1] - at[:, 0, 0], at[:, 1, 0] - at[:, 0, 0]
    steps = min(height / SIZE[0], width / SIZE[1]) / warp.zoom  # the largest window of the output's aspect
    torch.testing.assert_close(right.norm(dim=1), steps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(down.norm(dim=1), steps, rtol=1e-3, atol=1e-4)
    # It is moved about in all of the source.
    reach = torch.tensor([width, height]) * 0.05
    assert (at.amin(dim=(0, 1, 2)) < reach).all()
    assert (at.amax(dim=(0, 1, 2)) > torch.tensor([width, height]) - 1 - reach).all()


def test_a_turned_window_of_another_aspect_is_not_stretched():
    warp = draw_warp(Augmentation(flip=0.5, zoom=1.4, rotate_deg=30), 32, SIZE, generator(), (48, 96))
    at = (warp.grid + 1) / 2 * torch.tensor([96, 48]) - 0.5
    right, down = at[:, 0, 1] - at[:, 0, 0], at[:, 1, 0] - at[:, 0, 0]
    torch.testing.assert_close(right.norm(dim=1), 1 / warp.zoom, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(down.norm(dim=1), 1 / warp.zoom, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close((right * down).sum(dim=1), torch.zeros(32), rtol=0, atol=1e-3)


def test_depth_in_a_window_of_another_aspect_is_divided_by_the_zoom():
    warp = draw_warp(Augmentation(flip=0, zoom=1.5, rotate_deg=0), 16, SIZE, generator(), (48, 96))
    assert warp.zoom.min() < 1.1 < 1.4 < warp.zoom.max()
    depth = warp.depth(torch.full((16, 1, 48, 96), 3.0))
    assert depth.shape == (16, 1, *SIZE)
    torch.testing.assert_close(depth, (3.0 / warp.zoom).view(-1, 1, 1, 1).expand(-1, -1, *SIZE))


def test_augmentation_is_a_function_of_its_generator_alone():
    def draw() -> tuple[Tensor, Tensor]:
        g = generator(5)
        warp = draw_warp(Augmentation(), 4, SIZE, g)
        return warp.grid, jitter_colour(torch.full((4, 3, 8, 8), 0.4), Augmentation(), g)

    torch.manual_seed(1)
    first = draw()
    torch.manual_seed(2)
    second = draw()
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def test_colours_stay_colours():
    image = torch.rand(64, 3, 8, 8, generator=generator())
    out = jitter_colour(image, Augmentation(colour=0.9, grey=0.5), generator())
    assert out.isfinite().all()
    assert (out >= 0).all()
    assert (out <= 1).all()
    same = jitter_colour(image, Augmentation(colour=0, grey=0), generator())
    torch.testing.assert_close(same, image)


# ---------------------------------------------------------------------------------------------------- loop


class Wave:
    """A small regression with everything that has a state: batch norm, dropout, a part that is thrown away."""

    def __init__(self, *, breaks_at: int | None = None, poison: str = "loss") -> None:
        torch.manual_seed(1)
        self.auxiliary: nn.Module = nn.Linear(4, 1)
        self.data = "waves"
        self.calls = 0
        self.breaks_at = breaks_at
        self.poison = poison
        self.signal = signal.SIGTERM

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        x = torch.rand(8, 4, generator=generator)
        return {"x": x, "y": x.sum(dim=1, keepdim=True).sin()}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        self.calls += 1
        loss = (model(batch["x"]) - batch["y"]).square().mean() + 0.1 * self.auxiliary(batch["x"]).square().mean()
        if self.calls == self.breaks_at:
            if self.poison == "loss":
                return loss * math.nan
            if self.poison == "infinity":
                return loss * math.inf
            if self.poison == "signal":
                signal.raise_signal(self.signal)
                return loss
            zero = next(model.parameters()).sum() * 0
            return loss + zero.abs().sqrt()  # finite, with a gradient that is not
        return loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        torch.rand(7)  # whatever an evaluation draws must not matter
        model.eval()
        out = model(torch.ones(2, 4)).mean().item()
        model.train()
        return {"val": out}

    def pictures(self, model: nn.Module) -> Image.Image:
        return Image.new("L", (4, 3), round(self.evaluate(model)["val"] * 10_000) % 256)


def wave_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


SCHEDULE = Schedule(
    steps=47,
    lr=1e-2,
    warmup=5,
    final=0.1,
    weight_decay=0.01,
    clip=1.0,
    ema=0.9,
    seed=3,
    save_every=7,
    eval_every=12,
)


class Killed(BaseException):
    """Stands in for a kill between two statements."""


def go(
    out: Path,
    schedule: Schedule = SCHEDULE,
    task: Wave | None = None,
    stop: int | None = None,
    model: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Train; ``stop``: how many rows are logged before it is killed."""
    rows = 0

    def listener(row: dict[str, float]) -> None:
        nonlocal rows
        rows += 1
        if rows == stop:
            raise Killed

    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1234)  # left over from whatever ran before
    log = RunLog(out / "log.jsonl", listener)
    return train(model or wave_model(), task or Wave(), schedule, out, log).state_dict()


def log_of(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in rows]


def pictures_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "validation").iterdir())}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def test_however_often_a_run_is_killed_it_ends_the_same(tmp_path):
    undisturbed = go(tmp_path / "undisturbed")
    rng = np.random.default_rng(0)
    for trial in range(10):
        out = tmp_path / str(trial)
        for stop in rng.integers(1, 5, size=rng.integers(1, 5)):
            try:
                go(out, stop=int(stop))
            except Killed:
                if rng.random() < 0.5:  # in the middle of a line
                    with (out / "log.jsonl").open("a") as file:
                        file.write('{"step": 1')
        assert same(go(out), undisturbed)
        assert log_of(out) == log_of(tmp_path / "undisturbed")
        assert pictures_of(out) == pictures_of(tmp_path / "undisturbed")
    assert list(pictures_of(tmp_path / "undisturbed")) == [f"step_0000{step}.png" for step in (12, 24, 36, 47)]


def test_the_log_has_every_tenth_step_and_every_evaluation_once(tmp_path):
    go(tmp_path)
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [10, 20, 30, 40]
    assert [row["step"] for row in rows if "val" in row] == [12, 24, 36, 47]
    assert rows[0]["loss"] > rows[-2]["loss"]


def test_a_finished_run_does_nothing(tmp_path):
    first = go(tmp_path)
    task = Wave()
    assert same(go(tmp_path, task=task), first)
    assert task.calls == 0


def test_where_a_run_goes_on_is_told(tmp_path):
    def kill(row: dict[str, float]) -> None:
        raise Killed

    told: list[int] = []
    for listener in (kill, lambda row: None, lambda row: None):
        with suppress(Killed):
            log = RunLog(tmp_path / "log.jsonl", listener, begin=told.append)
            train(wave_model(), Wave(), SCHEDULE, tmp_path, log)
    assert told == [0, 7, SCHEDULE.steps]


def test_how_often_it_is_saved_and_looked_at_does_not_matter(tmp_path):
    first = go(tmp_path / "a")
    with pytest.raises(Killed):
        go(tmp_path / "b", stop=3)
    other = replace(SCHEDULE, save_every=3, eval_every=5)
    assert same(go(tmp_path / "b", other), first)


@pytest.mark.parametrize("change", [{"steps": 60}, {"lr": 1e-3}, {"seed": 4}, {"ema": 0.5}])
def test_another_schedule_is_refused(tmp_path, change):
    go(tmp_path)
    name = next(iter(change))
    with pytest.raises(UsageError, match=f"was written with {name} {getattr(SCHEDULE, name)}, not {change[name]}"):
        go(tmp_path, replace(SCHEDULE, **change))


def test_other_data_is_refused(tmp_path):
    go(tmp_path)
    task = Wave()
    task.data = "tides"
    with pytest.raises(UsageError, match="other training data"):
        go(tmp_path, task=task)


def test_states_of_the_first_version_go_on(tmp_path):
    """They knew neither the data nor the losses since the last row of the log."""
    undisturbed = go(tmp_path / "a")
    with pytest.raises(Killed):
        go(tmp_path / "b", stop=3)
    path = tmp_path / "b" / "state.pt"
    state = load_state(path)
    del state["data"], state["running"]
    save_state(state, path)
    assert same(go(tmp_path / "b"), undisturbed)


@pytest.mark.parametrize(
    ("poison", "said"), [("loss", "loss is nan"), ("infinity", "loss is inf"), ("gradient", "gradient is nan")]
)
def test_a_loss_that_is_no_number_stops_before_it_does_harm(tmp_path, poison, said):
    with pytest.raises(NaNLossError, match=rf"step 15: the {said}; the last checkpoint is intact"):
        go(tmp_path, task=Wave(breaks_at=16, poison=poison))
    state = load_state(tmp_path / "state.pt")
    assert state["step"] == 14
    assert all(value.isfinite().all() for value in state["trained"].values())
    assert same(go(tmp_path), go(tmp_path / "undisturbed"))


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [12, 20, SCHEDULE.steps])
def test_a_run_that_is_asked_to_end_saves_its_step(tmp_path, number, step):
    undisturbed, before = go(tmp_path / "a"), signal.getsignal(number)
    task, out = Wave(breaks_at=step, poison="signal"), tmp_path / "b"
    task.signal = number
    with pytest.raises(StoppedError) as caught:
        go(out, task=task)
    assert str(caught.value) == (
        f"{out}: stopped by {number.name} after step {step}; give the same command again to go on from there"
    )
    assert caught.value.code == 128 + number
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert load_state(out / "state.pt")["step"] == step
    assert signal.getsignal(number) is before
    assert same(go(out), undisturbed)
    assert log_of(out) == log_of(tmp_path / "a")


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(  # step 24 is only looked at, 28 only saved
    ("when", "step"), [("look", 24), ("look", SCHEDULE.steps), ("save", 28), ("save", SCHEDULE.steps)]
)
def test_a_run_that_is_asked_to_end_while_it_looks_or_saves_ends_there(tmp_path, monkeypatch, when, step):
    undisturbed, out, task = go(tmp_path / "a"), tmp_path / "b", Wave()

    def look(model: nn.Module) -> Image.Image:
        if when == "look" and task.calls == step:
            signal.raise_signal(signal.SIGTERM)
        return Wave.pictures(task, model)

    def save(state: dict[str, Any], path: Path) -> None:
        save_state(state, path)
        if when == "save" and state["step"] == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(task, "pictures", look)
    monkeypatch.setattr(loop, "save_state", save)
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM after step {step}; "):
        go(out, task=task)
    assert load_state(out / "state.pt")["step"] == step
    monkeypatch.undo()
    assert same(go(out), undisturbed)
    assert log_of(out) == log_of(tmp_path / "a")


@pytest.mark.usefixtures("heard")
def test_a_worker_that_is_asked_to_end_in_a_last_step_begins_no_other_run(tmp_path):
    task = Wave(breaks_at=SCHEDULE.steps, poison="signal")
    task.signal = signal.SIGINT
    with pytest.raises(KeyboardInterrupt), last_of_worker():
        go(tmp_path, task=task)


@pytest.mark.usefixtures("heard")
def test_who_asks_twice_does_not_wait():
    asked = Requests()
    asked(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        asked(signal.SIGINT, None)
    assert asked.number == signal.SIGINT


@pytest.mark.usefixtures("heard")
def test_who_asks_too_late_for_the_loop_is_heard_after_it():
    with pytest.raises(KeyboardInterrupt), requests():
        signal.raise_signal(signal.SIGINT)


def test_what_a_process_ignores_it_goes_on_ignoring():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with requests() as asked:
            signal.raise_signal(signal.SIGINT)
        assert asked.number == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_learning_rates():
    rates = [SCHEDULE.lr_at(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[:5] == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3, 1e-2])  # the last step of the warm-up has the peak
    assert rates[5] == pytest.approx(1e-2)  # where the cosine begins
    assert rates[5 + 42 // 2] == pytest.approx(1e-2 * (0.1 + 0.9 / 2))  # half way
    assert rates[-1] == pytest.approx(1e-3)  # one step after the last
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert replace(SCHEDULE, warmup=0).lr_at(0) == pytest.approx(1e-2)


def test_the_average_takes_statistics_along_and_copies_counters():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model.running_mean.fill_(1.0)
    model.running_var.fill_(3.0)
    model.num_batches_tracked.fill_(9)
    model.weight.data.fill_(2.0)
    loop._average(list(average.state_dict().values()), list(model.state_dict().values()), 0.75)
    assert average.running_mean.tolist() == [0.25, 0.25]
    assert average.running_var.tolist() == [1.5, 1.5]
    assert average.weight.tolist() == [1.25, 1.25]
    assert average.num_batches_tracked == 9


# --------------------------------------------------------------------------------------------- log and disk


def test_rewinding_drops_what_came_after_and_what_is_no_row(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}\n{"step": 20, "val": 1}\n\xff\n{"step": 30}\n{"step": 40, "lo')
    log = RunLog(path, lambda row: None)
    log.rewind(20)
    assert log_of(tmp_path) == [{"step": 10}, {"step": 20}, {"step": 20, "val": 1}]
    log({"step": 30})
    assert log_of(tmp_path)[-1] == {"step": 30}
    log.rewind(0)
    assert log_of(tmp_path) == []
    path.write_text('{"step": 10}\n{"step": 20}')  # killed before the end of the line
    log.rewind(20)
    log({"step": 30})
    assert log_of(tmp_path) == [{"step": 10}, {"step": 20}, {"step": 30}]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A quota: no file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    save_state({"step": 1, "w": torch.zeros(10)}, path)
    before = path.read_bytes()
    large = {"step": 2, "w": torch.rand(100_000)}
    with largest_file(100_000), pytest.raises(DeixisError) as caught:
        save_state(large, path)
    line = str(caught.value)
    assert line.startswith(f"{path}: cannot be written (")
    assert "the checkpoint before it is intact" in line
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    undisturbed = go(tmp_path / "a")
    with pytest.raises(Killed):
        go(tmp_path / "b", stop=3)
    with largest_file(2000), pytest.raises(DeixisError, match="free space on the disk"):
        go(tmp_path / "b")
    assert same(go(tmp_path / "b"), undisturbed)
    assert log_of(tmp_path / "b") == log_of(tmp_path / "a")


def test_a_log_on_a_full_disk(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", lambda row: None)
    with largest_file(0), pytest.raises(DeixisError, match=r"log\.jsonl: cannot be written"):
        log({"step": 10})


@pytest.mark.parametrize("damage", ["empty", "half", "text", "numbers", "bits", "other", "foreign"])
def test_damaged_states_are_named(tmp_path, damage):
    go(tmp_path)
    path = tmp_path / "state.pt"
    content = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("hello")
    elif damage in ("numbers", "bits"):
        with zipfile.ZipFile(path) as archive:
            inside = {info.filename: info for info in archive.infolist()}
        name = next(name for name in inside if name.endswith("data/0" if damage == "numbers" else "data.pkl"))
        end = inside[name].header_offset + 30 + len(name) + inside[name].file_size  # or later: entries are padded
        content[end] ^= 0xFF
        path.write_bytes(content)
    elif damage == "other":
        torch.save([1, 2], path)
    else:
        torch.save({"model": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError) as caught:
        go(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_states_of_another_network_are_named(tmp_path):
    go(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this network"):
        train(nn.Linear(4, 1), Wave(), SCHEDULE, tmp_path, RunLog(tmp_path / "log.jsonl", lambda row: None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state["schedule"].pop("lr"), "is no training state; delete it"),
        (lambda state: state.pop("step"), "is no training state; delete it"),
        (lambda state: state.update(step=48), "is of step 48, and the run has 47; "),
        (lambda state: state.update(step=-1), "is of step -1, and the run has 47; "),
        (
            lambda state: state["optimiser"]["state"][0].update(exp_avg=torch.zeros(3)),
            r"does not fit this network \(exp_avg of the optimiser \[3\], not \[",
        ),
    ],
)
def test_states_that_no_run_wrote_are_named(tmp_path, change, said):
    short = replace(SCHEDULE, eval_every=50)
    with pytest.raises(Killed):
        go(tmp_path, short, stop=2)
    path = tmp_path / "state.pt"
    state = load_state(path)
    change(state)
    save_state(state, path)
    with pytest.raises(CheckpointError, match=said):
        go(tmp_path, short)


def test_states_never_execute_code(tmp_path):
    torch.save({"schedule": Path("x")}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"needs code to be executed \(pathlib\S*\), which is refused; delete"):
        load_state(tmp_path / "state.pt")


# --------------------------------------------------------------------------------------------------- words


def test_the_same_corpus_gives_the_same_vocabulary(tmp_path):
    words = ["the chair, on the left.", "a photo of a kitchen: (small)!", "[x], the tables; 'quoted'"] * 3
    folders = [tmp_path / str(i) for i in range(4)]
    for folder in folders:
        tokenizer = train_tokenizer(words, SMALLEST + 40, folder)
        assert len(tokenizer) <= SMALLEST + 40
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    ids = tokenizer("the chair")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "the chair"


@pytest.mark.parametrize(
    ("words", "category", "draw", "prefix", "expected"),
    [
        ("the sofa", "sofa", 0.1, 0.0, "the couch"),
        ("the sofa", "sofa", 0.9, 0.7, "sofa"),
        ("the sofa", "sofa", 0.9, 0.9, "a sofa"),
        ("the sofa on the left", "sofa", 0.1, 0.9, "the couch on the left"),
        ("the sofa on the left", "sofa", 0.9, 0.9, "the sofa on the left"),
        ("pictures", "picture", 0.05, 0.9, "paintings"),
        ("the chair", "chair", 0.0, 0.0, "the chair"),
        ("the television", "television", 0.29999, 0.99999, "a screen"),
    ],
)
def test_other_words_for_the_same(words, category, draw, prefix, expected):
    assert _reworded(words, category, draw, prefix) == expected


# --------------------------------------------------------------------------------------------------- tasks


STILL = Augmentation(flip=0, zoom=1, rotate_deg=0, colour=0, grey=0)


class Told(nn.Module):
    """Nothing but a text tower, frozen."""

    def __init__(self) -> None:
        super().__init__()
        tower = stable_diffusion().text_encoder
        assert tower is not None
        tower.resize_token_embeddings(1000)  # for any tiny vocabulary
        self.text_tower = TextTower(tower, frozen=True)


def depth_task(stores: tuple[Store, Store], tokenizer: Any, **changes: Any) -> DepthTask:
    settings: dict[str, Any] = {
        "shares": (1.0, 1.0, 1.0),
        "tokens": 24,
        "picture": (32, 43),
        "size": (32, 32),
        "batch_size": 24,
        "descriptions": "id",
        "pooled": False,
        "text_shares": (0.5, 0.2, 0.3),
        "augmentation": Augmentation(),
        "lambd": 0.5,
        "max_depth": 20.0,
        "distill": 0.0,
        **changes,
    }
    return DepthTask(train=stores[0], val=stores[1], tokenizer=tokenizer, **settings)


def test_a_mean_embedding_from_a_file_stands_for_the_dataset(stores: tuple[Store, Store], tokenizer: Any) -> None:
    mean = torch.randn(1, 24, 48)
    task = depth_task(stores, tokenizer, text_shares=(0.0, 1.0, 0.0), mean=mean)
    model = Told()
    assert torch.equal(task.fixed_text(model)[0], mean)
    vectors = task.text(model, task.batch(torch.Generator().manual_seed(0)))
    assert torch.equal(vectors, mean.expand(24, -1, -1))


def refer_task(
    stores: tuple[Store, Store], root: Path | None, tokenizer: Any, text_shares: tuple[float, float, float], **more: Any
) -> ReferTask:
    settings: dict[str, Any] = {
        "shares": (1.0, 0.0, 0.0),
        "tokens": 16,
        "size": (48, 64),
        "batch_size": 12,
        "expressions": 1,
        "augmentation": STILL,
        "dice": 1.0,
        "presence": 0.5,
        "distill": 0.0,
        **more,
    }
    return ReferTask(
        train=stores[0], val=stores[1], root=root, tokenizer=tokenizer, text_shares=text_shares, **settings
    )


def said(tokenizer: Any, ids: Tensor) -> list[str]:
    return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]


def test_some_pixels_of_a_batch_are_pixels_of_it(stores, tokenizer):
    whole = depth_task(stores, tokenizer, augmentation=STILL).batch(generator(1))
    batch = depth_task(stores, tokenizer, augmentation=STILL, pixels=0.1).batch(generator(1))
    assert batch["points"].shape == (24, round(0.1 * 32 * 32))
    assert batch["depth"].equal(whole["depth"].flatten(2).gather(2, batch["points"][:, None]))
    assert batch["image"].equal(whole["image"])
    assert batch["known"] == (batch["depth"] > 0).sum()
    assert len({tuple(row.tolist()) for row in batch["points"]}) == 24


def test_depth_batches_are_functions_of_their_generator(stores, tokenizer):
    task = depth_task(stores, tokenizer)
    a = task.batch(generator(1))
    torch.rand(3)
    b, c = task.batch(generator(1)), task.batch(generator(2))
    assert all(a[key].equal(b[key]) for key in a)
    assert not a["image"].equal(c["image"])
    assert a["image"].shape == (24, 3, 32, 32)
    assert a["depth"].shape == (24, 1, 32, 32)
    assert a["ids"].shape == (24, 24)
    assert task.data == stores[0].fingerprint


@pytest.mark.parametrize(("shares", "nearer"), [((1.0, 0.0, 0.0), True), ((0.0, 0.5, 0.5), False)])
def test_a_zoomed_photo_is_nearer_and_a_zoomed_world_frame_is_not(stores, tokenizer, shares, nearer):
    zoomed = Augmentation(flip=0, zoom=1.5, rotate_deg=0, colour=0, grey=0)
    task = depth_task(stores, tokenizer, shares=shares, augmentation=zoomed, max_depth=1000.0)
    depth = task.batch(generator())["depth"]
    known = torch.isin(depth, stores[0].depths.float())
    assert known.all() != nearer


def test_what_is_too_far_teaches_nothing(stores, tokenizer):
    near = depth_task(stores, tokenizer, max_depth=4.0).batch(generator())["depth"]
    far = depth_task(stores, tokenizer, max_depth=1000.0).batch(generator())["depth"]
    assert far.max() > 20
    assert near.max() <= 4
    assert near.equal(torch.where(far <= 4, far, 0.0))


def test_a_source_that_is_too_far_has_no_metrics(stores, tokenizer):
    """And no NaN in the log."""
    assert depth_task(stores, tokenizer, max_depth=0.01).evaluate(Told()) == {}


def test_depth_texts_come_in_their_shares(stores, tokenizer):
    def kinds(shares: tuple[float, float, float]) -> tuple[set[int], set[str]]:
        batch = depth_task(stores, tokenizer, text_shares=shares).batch(generator())
        return set(batch["kind"].tolist()), set(said(tokenizer, batch["ids"]))

    assert kinds((0.0, 0.0, 1.0)) == ({2}, {""})
    assert kinds((0.0, 1.0, 0.0)) == ({1}, {""})
    kind, words = kinds((1.0, 0.0, 0.0))
    assert kind == {0}
    assert "" not in words


def test_depth_captions_are_of_the_picture_mirrored_like_it_and_without_distances(stores, tokenizer):
    still = Augmentation(flip=0.5, zoom=1, rotate_deg=0, colour=0, grey=0)
    task = depth_task(
        stores,
        tokenizer,
        text_shares=(1.0, 0.0, 0.0),
        augmentation=still,
        size=(36, 48),
        picture=(36, 48),
        batch_size=64,
    )
    batch = task.batch(generator())
    train = stores[0]
    images = train.images.float() / 255
    mirrored = 0
    for image, ids in zip(batch["image"], batch["ids"], strict=True):
        straight, turned = ((one - image).abs().amax(dim=(1, 2, 3)) for one in (images, images.flip(-1)))
        flipped = bool(turned.min() < straight.min())
        row = int((turned if flipped else straight).argmin())
        captions = [text for level in train.captions[row][:NON_METRIC_LEVELS] for text in level]
        captions = [flip(text) if flipped else text for text in captions]
        read = tokenizer(captions, truncation=True, max_length=24, padding="max_length")["input_ids"]
        assert ids.tolist() in read
        mirrored += flipped
    assert 16 < mirrored < 48


def test_texts_of_depth_are_captions_the_mean_or_nothing(stores, tokenizer):
    task, model = depth_task(stores, tokenizer), Told()
    batch = task.batch(generator())
    text, kind = task.text(model, batch), batch["kind"]
    assert text.shape == (24, 24, 48)
    encode = encoder(model.text_tower, tokenizer, 24)
    captions = [level[0] for levels in stores[0].captions for level in levels[:NON_METRIC_LEVELS]]
    torch.testing.assert_close(text[kind == 1], aggregate(captions, encode).expand(int((kind == 1).sum()), -1, -1))
    torch.testing.assert_close(text[kind == 0], model.text_tower(batch["ids"][kind == 0]))
    torch.testing.assert_close(text[kind == 2], encode([""]).expand(int((kind == 2).sum()), -1, -1))


def test_class_descriptions_are_of_the_place(stores, tokenizer):
    task, model = depth_task(stores, tokenizer, descriptions="cd", pooled=True), Told()
    batch = task.batch(generator())
    text, kind = task.text(model, batch), batch["kind"]
    assert text.shape == (24, 1, 48)
    encode = encoder(model.text_tower, tokenizer, 24)
    of_place = {name: class_description(name, encode) for name in set(stores[0].places)}
    for one, place in zip(text[kind == 0], batch["place"][kind == 0].tolist(), strict=True):
        torch.testing.assert_close(one[None], of_place[task.place_names[place]])
    mean = torch.cat([of_place[name] for name in stores[0].places]).mean(dim=0)
    torch.testing.assert_close(text[kind == 1], mean.expand(int((kind == 1).sum()), -1, -1))
    torch.testing.assert_close(text[kind == 2][:1], encode([""], pooled=True))


def test_depth_is_measured_where_it_is_known_and_near_enough(stores):
    val = stores[1]
    rows = torch.arange(len(val))

    class Constant(nn.Module):
        def forward(self, image: Tensor, text: Tensor) -> Tensor:
            return torch.full_like(image[:, :1], 5.0)

    found = evaluate_depth(Constant(), torch.zeros(1, 1, 4), val, rows, (32, 43), 10.0)
    assert len(found) == len(val)
    target = val.depths[0, 0].float()
    known = target[(target > 1e-3) & (target <= 10)]
    assert found[0]["abs_rel"] == pytest.approx(((5 - known).abs() / known).mean().item(), rel=1e-4)


def test_absent_things_have_an_empty_mask_and_are_not_in_the_picture(stores, rooms, tokenizer):
    (_, _, absent), _ = photo_pairs(stores[0], rooms)
    assert absent
    for pair in absent:
        shown = {tiny_nyuv2.NAMES[i - 1] for i in stores[0].ids[pair.frame].unique().tolist() if i}
        assert pair.category not in shown
        assert pair.category in pair.words
    assert {pair.words for pair in absent} > {f"the {pair.category}" for pair in absent}
    batch = refer_task(stores, rooms, tokenizer, (0.0, 0.0, 1.0)).batch(generator())
    assert not batch["mask"].any()


def test_expressions_go_with_their_masks_through_a_flip(stores, rooms, tokenizer):
    """The mask of "on the left" lies left of that of "on the right", mirrored or not."""
    task = refer_task(
        stores, rooms, tokenizer, (1.0, 0.0, 0.0), batch_size=64, augmentation=Augmentation(0.5, 1, 0, 0, 0)
    )
    batch = task.batch(generator())
    centres: dict[str, list[float]] = {"left": [], "right": []}
    for words, mask in zip(said(tokenizer, batch["ids"]), batch["mask"], strict=True):
        for side, found in centres.items():
            if words.endswith(side) and mask.any():
                found.append(mask.nonzero()[:, 1].float().mean().item())
    assert centres["left"]
    assert centres["right"]
    assert np.mean(centres["left"]) < np.mean(centres["right"])


def test_class_words_have_all_pixels_of_the_class(stores, rooms, tokenizer):
    (_, classes, _), _ = photo_pairs(stores[0], rooms)
    assert all((stores[0].ids[pair.frame] == pair.ids[0]).any() for pair in classes)
    batch = refer_task(stores, rooms, tokenizer, (0.0, 1.0, 0.0)).batch(generator())
    assert batch["mask"].flatten(1).any(dim=1).all()


def test_refer_batches_are_functions_of_their_generator(stores, rooms, tokenizer):
    task = refer_task(stores, rooms, tokenizer, (0.6, 0.2, 0.2), shares=(1.0, 1.0, 1.0), augmentation=Augmentation())
    a, b, c = task.batch(generator(1)), task.batch(generator(1)), task.batch(generator(2))
    assert all(a[key].equal(b[key]) for key in a)
    assert not a["image"].equal(c["image"])
    assert {key: tuple(value.shape) for key, value in a.items()} == {
        "image": (12, 3, 48, 64),
        "mask": (12, 48, 64),
        "labels": (12, 1, 48, 64),
        "ids": (12, 16),
        "weights": (),
        "objects": (),
        "labelled": (),
    }
    assert task.data.startswith(f"{stores[0].fingerprint}, ")


def test_expressions_of_one_picture_follow_each_other(stores, tokenizer):
    task = refer_task(
        stores, None, tokenizer, (1.0, 0.0, 0.0), shares=(0.0, 1.0, 1.0), size=(36, 48), batch_size=5, expressions=3
    )
    batch, train = task.batch(generator()), stores[0]
    assert batch["image"].shape[0] == batch["labels"].shape[0] == 5
    assert batch["mask"].shape == (15, 36, 48)
    assert batch["ids"].shape == (15, 16)
    for i, image in enumerate(batch["image"]):
        row = int((train.images.float() / 255 - image).abs().amax(dim=(1, 2, 3)).argmin())
        there = [tokenize(tokenizer, [text], 16)[0] for text, targets in train.expressions[row] if targets]
        assert all(any(ids.equal(one) for one in there) for ids in batch["ids"][3 * i : 3 * i + 3])


def test_things_of_the_world_are_no_classes(stores, rooms, tokenizer):
    task = refer_task(stores, rooms, tokenizer, (1.0, 0.0, 0.0), shares=(0.0, 1.0, 1.0))
    batch = task.batch(generator())
    assert batch["mask"].any()
    assert not batch["labels"].any()
    assert refer_task(stores, rooms, tokenizer, (1.0, 0.0, 0.0)).batch(generator())["labels"].any()


def test_expressions_of_the_world(stores):
    train = stores[0]
    rows = train.rows("rooms")
    there, classes, absent = world_pairs(train, rows)
    assert not classes
    own = [text for row in rows.tolist() for text, targets in train.expressions[row] if not targets]
    assert [pair.words for pair in absent[: len(own)]] == own
    assert len(there) == sum(bool(targets) for row in rows.tolist() for _, targets in train.expressions[row])
    others = absent[len(own) :]
    assert others
    assert {pair.words for pair in others} <= {pair.words for pair in there}
    for pair in others:
        assert pair.words not in [text for text, targets in train.expressions[pair.frame] if targets]
    assert {pair.frame for pair in there} <= set(rows.tolist())
    assert all(pair.ids and not pair.category and pair.mask is None for pair in there)
    assert all(not pair.ids for pair in absent)
    # The smallest things may be lost at this size, most are not.
    shown = [torch.isin(train.ids[pair.frame], torch.tensor(pair.ids, dtype=torch.int16)).any() for pair in there]
    assert np.mean(shown) > 0.8
    assert world_pairs(train, train.rows("nyuv2")) == ([], [], [])


def test_masks_of_the_world_are_the_things_that_are_meant(stores, tokenizer):
    task = refer_task(stores, None, tokenizer, (1.0, 0.0, 0.0), shares=(1.0, 1.0, 1.0), size=(36, 48))
    batch = task.batch(generator())
    train = stores[0]
    for image, ids, mask in zip(batch["image"], batch["ids"], batch["mask"], strict=True):
        row = int((train.images.float() / 255 - image).abs().amax(dim=(1, 2, 3)).argmin())
        meant = [
            torch.isin(train.ids[row], torch.tensor(targets, dtype=torch.int16))
            for text, targets in train.expressions[row]
            if targets and tokenize(tokenizer, [text], 16)[0].equal(ids)
        ]
        assert any(mask.equal(one) for one in meant)


def test_a_training_set_without_expressions_is_named(stores, rooms, tokenizer, tmp_path):
    root = Path(shutil.copytree(rooms, tmp_path / "copy"))
    with gzip.open(root / "refer_train.json.gz", "wt") as file:
        file.write("[]")
    with pytest.raises(InputError, match="has no expression for these frames"):
        refer_task(stores, root, tokenizer, (1.0, 0.0, 0.0))
    with pytest.raises(UsageError, match=r"data\.shares: leave no expression to learn from"):
        refer_task(stores, None, tokenizer, (1.0, 0.0, 0.0), shares=(1.0, 0.0, 0.0))


def test_dice_leaves_out_what_is_not_there():
    target = torch.zeros(2, 8, 8, dtype=torch.bool)
    logits = torch.zeros(2, 2, 8, 8, requires_grad=True)
    assert _dice(logits, target) == 0
    target[0, :4] = True
    perfect = torch.stack([(~target).float(), target.float()], dim=1) * 100
    assert _dice(perfect, target).item() == pytest.approx(0, abs=1e-4)
    assert _dice(-perfect, target).item() == pytest.approx(1, abs=0.05)


def test_presence_asks_the_surest_pixels_alone():
    target = torch.zeros(2, 20, 20, dtype=torch.bool)
    target[0, :2, :2] = True
    logits = torch.zeros(2, 2, 20, 20)
    logits[:, 1] = -20.0
    logits[0, 1, :2, :2] = 20.0  # 4 of 400 pixels: 1 %
    logits.requires_grad_()
    right = _presence(logits, target)
    assert right.item() == pytest.approx(0, abs=1e-4)
    assert _presence(logits, target.flip(0)).item() == pytest.approx(20, abs=1e-4)
    # Of a margin that says neither, each is wrong by half: the gradient lies on as many pixels, of either sign.
    level = torch.zeros(2, 2, 20, 20, requires_grad=True)
    _presence(level, target).backward()
    slope = level.grad[:, 1].flatten(1)
    assert (slope != 0).sum(dim=1).tolist() == [4, 4]
    assert slope.sum(dim=1).tolist() == pytest.approx([-0.25, 0.25])


def test_the_corpus_has_the_words_of_all_tasks(stores):
    text = " ".join(corpus(stores[0]))
    assert all(word in text for word in ("chairs", "couch", "on the left", "living room", "farther", "pavement"))
    assert stores[0].captions[0][2][0] in text
    assert stores[0].expressions[-1][0][0] in text
