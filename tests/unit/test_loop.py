"""What a recipe may ask of the loop: groups and rates, the best weights, boards, what a run leaves, LoRA, checks."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from deixis.backbones.features import UNetFeatures
from deixis.errors import CheckpointError, DeixisError, UsageError
from deixis.training import boards
from deixis.training.ahead import Ahead
from deixis.training.best import Best
from deixis.training.boards import open_board
from deixis.training.checkpoint import load_state, save_state
from deixis.training.checks import check_shares
from deixis.training.gallery import mask_cells
from deixis.training.log import RunLog
from deixis.training.loop import Schedule, train
from deixis.training.machine import Hardware, add_lora, merge_lora, prepare_blocks
from deixis.training.recipe import read_recipe
from deixis.training.record import write_curves, write_environment
from deixis.training.run import _settings
from tests.tiny import stable_diffusion
from tests.unit.crew import ripple
from tests.unit.test_recipe import DEPTH, ROOT, complaint
from tests.unit.test_training import SCHEDULE, Killed, Wave, go, largest_file, same, wave_model

# ------------------------------------------------------------------------------------------------ groups and rates


def run_once(out: Path, schedule: Schedule, model: nn.Module | None = None, **more: Any) -> nn.Module:
    out.mkdir(parents=True, exist_ok=True)
    log = RunLog(out / "log.jsonl", lambda row: None)
    return train(model or wave_model(), Wave(), schedule, out, log, **more)


class Parts(nn.Module):
    """A network with a pre-trained part by its name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unet = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.unet(x))
        return y


def test_published_groups_have_their_own_learning_rates(tmp_path):
    schedule = replace(SCHEDULE, steps=20, shape="evp-depth", groups="published", save_every=20, final=0.15)
    run_once(tmp_path, schedule, Parts(), system="evp-depth")
    saved = load_state(tmp_path / "state.pt")["optimiser"]["param_groups"]
    last = schedule.lr_at(19)
    assert [group["lr"] for group in saved] == pytest.approx([last, last, 0.01 * last, 0.01 * last])
    assert [group["weight_decay"] for group in saved] == [0.01, 0.0, 0.01, 0.0]


def test_the_first_step_of_the_referring_loop_is_of_the_published_kind(tmp_path):
    schedule = replace(SCHEDULE, steps=1, warmup=1, shape="evp-refer", groups="published", final=0.01, save_every=1)
    run_once(tmp_path, schedule, Parts(), system="evp-refer")
    saved = load_state(tmp_path / "state.pt")["optimiser"]["param_groups"]
    assert {group["lr"] for group in saved} == {schedule.final * schedule.lr}


def test_marigolds_fall_ends_before_the_run_does():
    schedule = replace(SCHEDULE, lr=3e-5, steps=30_000, warmup=100, final=0.01, shape="exponential", fall=25_000)
    assert schedule.lr_at(25_000) == schedule.lr_at(29_999) == pytest.approx(3e-7)


def test_states_that_do_not_know_the_newer_fields_go_on(tmp_path):
    undisturbed = go(tmp_path / "a")
    with pytest.raises(Killed):
        go(tmp_path / "b", stop=3)
    path = tmp_path / "b" / "state.pt"
    state = load_state(path)
    for name in ("shape", "fall", "groups", "betas"):
        del state["schedule"][name]
    del state["scaler"]
    save_state(state, path)
    with pytest.raises(UsageError, match="was written with shape cosine, not constant"):
        go(tmp_path / "b", replace(SCHEDULE, shape="constant"))
    assert same(go(tmp_path / "b"), undisturbed)


def test_without_an_average_the_last_weights_are_given(tmp_path):
    model = wave_model()
    assert run_once(tmp_path / "a", replace(SCHEDULE, ema=0.0), model) is model
    once = model.state_dict()
    with pytest.raises(Killed):
        go(tmp_path / "b", replace(SCHEDULE, ema=0.0), stop=2)
    assert same(go(tmp_path / "b", replace(SCHEDULE, ema=0.0)), once)


def test_without_clipping_the_norm_is_still_logged(tmp_path):
    run_once(tmp_path, replace(SCHEDULE, clip=None, steps=10))
    rows = RunLog(tmp_path / "log.jsonl", lambda row: None).rows()
    assert rows[0]["norm"] > 0
    assert 0 <= rows[0]["waiting"] <= 1


def test_killed_runs_in_turns_end_with_the_same_bits(tmp_path):
    hardware = Hardware(accumulation=4)
    whole = run_once(tmp_path / "a", SCHEDULE, hardware=hardware).state_dict()

    def kill(row: dict[str, float]) -> None:
        raise Killed

    (tmp_path / "b").mkdir()
    for _ in range(2):
        with pytest.raises(Killed):
            train(
                wave_model(),
                Wave(),
                SCHEDULE,
                tmp_path / "b",
                RunLog(tmp_path / "b" / "log.jsonl", kill),
                "cpu",
                hardware,
            )
    assert same(run_once(tmp_path / "b", SCHEDULE, hardware=hardware).state_dict(), whole)


# ------------------------------------------------------------------------------------------------------- the best


def kept(out: Path) -> dict[str, Any]:
    return load_state(out / "best.pt")


@pytest.mark.parametrize("order", ["min", "max"])
def test_the_best_is_kept_however_often_the_run_is_killed(tmp_path, order):
    def begin(name: str, stop: int | None = None) -> dict[str, Tensor]:
        out, rows = tmp_path / name, 0

        def listener(row: dict[str, float]) -> None:
            nonlocal rows
            rows += 1
            if rows == stop:
                raise Killed

        out.mkdir(exist_ok=True)
        log = RunLog(out / "log.jsonl", listener)
        best = Best(f"val {order}", out / "best.pt")
        schedule = replace(SCHEDULE, eval_every=3, save_every=11)
        return train(wave_model(), Wave(), schedule, out, log, best=best).state_dict()

    last = begin("undisturbed")
    log = RunLog(tmp_path / "undisturbed" / "log.jsonl", lambda row: None).rows()
    values = [(row["val"], row["step"]) for row in log if "val" in row]
    wanted = (min if order == "min" else max)(values, key=lambda pair: pair[0])
    best = kept(tmp_path / "undisturbed")
    assert (best["value"], best["step"]) == wanted
    assert best["average"].keys() == last.keys()
    assert same(best["average"], last) == (wanted[1] == SCHEDULE.steps)
    for stop in (3, 7, 2):
        with pytest.raises(Killed):
            begin("killed", stop)
    begin("killed")
    assert kept(tmp_path / "killed")["step"] == best["step"]
    assert same(kept(tmp_path / "killed")["average"], best["average"])


def test_a_rule_that_does_not_fit_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="best val_nyu: is no metric of this evaluation; choose one of val"):
        run_once(tmp_path / "a", SCHEDULE, best=Best("val_nyu min", tmp_path / "a" / "best.pt"))
    keep = Best("val min", tmp_path / "best.pt")
    keep({"val": 1.0}, nn.Linear(1, 1), 3)
    with pytest.raises(UsageError, match="was chosen by val min, not val max"):
        Best("val max", tmp_path / "best.pt").begin(3)
    (tmp_path / "best.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="is damaged"):
        Best("val min", tmp_path / "best.pt").begin(3)
    Best("val min", tmp_path / "best.pt").begin(0)  # a run that begins anew
    assert not (tmp_path / "best.pt").exists()


# --------------------------------------------------------------------------------------------------------- boards


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def seen(folder: Path) -> list[tuple[int, tuple[int, int], tuple[int, int, int]]]:
    """Step, size and first pixel of each sheet of validation pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for event in EventAccumulator(str(folder)).Reload().Images(boards.PICTURES):
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            found.append((event.step, picture.size, picture.getpixel((0, 0))))
    return found


def test_tensorboard_shows_the_log_of_a_killed_run_once(tmp_path):
    path, said = tmp_path / "log.jsonl", []
    killed = RunLog(path, lambda row: None)
    for step in (10, 20, 30):
        killed({"step": step, "loss": 1.0 / step})
    left = tmp_path / "tensorboard" / "events.out.tfevents.1"
    left.parent.mkdir()
    left.write_bytes(b"half")  # of a row beyond the last checkpoint, which was of step 20
    for step in (20, 30):
        killed.picture(step, Image.new("RGB", (5, 4), (step, 0, 0)))
    log = RunLog(path, lambda row: None, lambda rows: open_board("tensorboard", tmp_path, rows, said.append))
    log.rewind(20)
    assert [file.name for file in (tmp_path / "validation").iterdir()] == ["step_000020.png"]
    log({"step": 30, "loss": 0.5})
    log.picture(30, Image.new("L", (5, 4), 7))
    log({"step": 30, "val_rooms_abs_rel": 0.25})
    found = shown(tmp_path / "tensorboard")
    assert found["train/loss"] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, 0.5)]
    assert found["val/rooms_abs_rel"] == [(30, 0.25)]
    assert seen(tmp_path / "tensorboard") == [(20, (5, 4), (20, 0, 0)), (30, (5, 4), (7, 7, 7))]
    assert said == []


def test_without_tensorboard_it_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    board = open_board("tensorboard", tmp_path, [], said.append)
    board({"step": 10, "loss": 1.0})
    board.picture(10, Image.new("L", (5, 4)))
    assert said == ["TensorBoard is not installed (pip install 'deixis[train]'): the numbers are in log.jsonl alone"]
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_is_told_when_asked(tmp_path, monkeypatch):
    told: list[Any] = []
    run = SimpleNamespace(log=lambda numbers, step: told.append((step, numbers)))
    fake = SimpleNamespace(init=lambda **given: told.append(given) or run, Image=lambda picture: picture.size)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    board = open_board("wandb", tmp_path / "mini", [{"step": 10, "loss": 2.0}], print)
    board({"step": 20, "loss": 1.0})
    board.picture(20, Image.new("L", (5, 4)))
    assert told[0]["name"] == told[0]["id"] == "mini"
    assert told[0]["resume"] == "allow"  # it has the earlier rows already
    assert told[1:] == [(20, {"train/loss": 1.0}), (20, {"val/pictures": (5, 4)})]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="log wandb: is not installed; pip install wandb"):
        open_board("wandb", tmp_path, [], print)
    assert open_board("none", tmp_path, [], print)({"step": 1}) is None
    assert boards.BOARDS == ("tensorboard", "wandb", "none")


# ------------------------------------------------------------------------------------------- what a run leaves


def test_masks_say_how_much_was_found():
    rgb, truth, nothing = (
        np.zeros((4, 6, 3), dtype=np.uint8),
        np.zeros((4, 6), dtype=bool),
        np.zeros((4, 6), dtype=bool),
    )
    truth[:, :3] = True
    said = [[one for _, one in mask_cells(rgb, "the lamp", truth, found)] for found in (truth, np.ones_like(truth))]
    assert said == [["“the lamp”", "found, IoU 1.00"], ["“the lamp”", "found, IoU 0.50"]]
    for wanted in (truth, nothing):
        assert mask_cells(rgb, "the lamp", wanted, nothing)[1][1] == "nothing found"


def test_pictures_on_a_full_disk(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", lambda row: None)
    with largest_file(50), pytest.raises(DeixisError, match=r"step_000020.png: cannot be written .* start it again"):
        log.picture(20, Image.new("L", (5, 4)))
    assert list((tmp_path / "validation").iterdir()) == []


def test_curves_and_environment(tmp_path):
    rows = [{"step": step, "loss": 1 / step, "lr": 1e-3} for step in (10, 20, 30)]
    rows += [{"step": 30, "val_nyuv2_abs_rel": 0.3, "val_nyuv2_d1": 0.5}]
    write_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1350, 560)  # three in a row, two rows
    write_curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    write_environment(tmp_path / "environment.json", torch.device("cpu"), 2, "bf16")
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["versions"]["torch"] == torch.__version__
    assert (found["device"], found["processes"], found["precision"]) == ("cpu", 2, "bf16")


# ---------------------------------------------------------------------------------------------------------- LoRA


def test_updates_of_low_rank_learn_alone_and_become_part_of_the_weights():
    unet = stable_diffusion().unet
    plain = {key: value.clone() for key, value in unet.state_dict().items()}
    given = torch.rand(1, 4, 8, 8), torch.tensor([3]), torch.rand(1, 5, 48)
    with torch.no_grad():
        before = unet(*given).sample
    add_lora(unet, 2)
    learn = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    assert learn
    assert all("lora_" in name for name in learn)
    assert sum(p.numel() for p in learn.values()) < 0.2 * sum(p.numel() for p in unet.parameters())
    with torch.no_grad():
        torch.testing.assert_close(unet(*given).sample, before)  # they begin as nothing
        for parameter in learn.values():
            parameter.add_(0.05)
        after = unet(*given).sample
    assert (after - before).abs().max() > 1e-3
    merge_lora(nn.ModuleDict({"unet": unet}))
    assert unet.state_dict().keys() == plain.keys()
    with torch.no_grad():
        torch.testing.assert_close(unet(*given).sample, after, rtol=1e-4, atol=1e-5)
    changed = {key for key, value in unet.state_dict().items() if not value.equal(plain[key])}
    assert changed
    assert all(".attn" in key for key in changed)


# --------------------------------------------------------------------------------------------------------- checks


def test_the_learning_rate_belongs_to_a_batch():
    lr, size = read_recipe(DEPTH, [ROOT]).optimisation.lr, read_recipe(DEPTH, [ROOT]).optimisation.batch_size
    assert read_recipe(DEPTH, [ROOT, f"optimisation.lr_batch={size}"]).optimisation.lr_batch == size
    line = complaint(DEPTH, ROOT, f"optimisation.lr_batch={2 * size}")
    assert f"optimisation.batch_size: is {size}, and optimisation.lr {lr:g} is for batches of {2 * size}; " in line
    assert f"add optimisation.lr_batch={size}" in line
    assert f"optimisation.lr={lr / 2:.3g}" in line


def test_a_batch_that_cannot_be_shared_is_refused_with_all_numbers():
    line = complaint(DEPTH, ROOT, "optimisation.batch_size=6", "hardware.accumulation=4")
    assert "is 6, which 1 processes in 4 turns each (hardware.accumulation) cannot share" in line
    recipe = read_recipe(DEPTH, [ROOT, "optimisation.batch_size=8", "hardware.accumulation=2"])
    check_shares(recipe, 4)
    with pytest.raises(UsageError, match=r"is 8, which 3 processes in 2 turns each .* share; choose a multiple of 6"):
        check_shares(recipe, 3)
    recipe.system = "contrast"
    with pytest.raises(UsageError, match="compares all of a batch with each other"):
        check_shares(recipe, 1)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("hardware.precision=fp8", "choose no, bf16 or fp16"),
        ("hardware.precision=fp16", "choose bf16 or no: CPUs compute in no other format"),
        ("hardware.accumulation=0", "choose 1 or more"),
        ("hardware.precison=bf16", "did you mean hardware.precision?"),
        ("optimisation.shape=linear", "vpd-depth, vpd-refer, exponential or constant"),
        ("optimisation.groups=mine", "choose matrices or published"),
        ("pixels=0", "choose 0.001 to 1"),
        ("pixels=2", "choose 0.001 to 1"),
        ("optimisation.betas=[0.9,1]", "give two of at least 0 and below 1"),
        ("optimisation.fall=1", "or more"),
        ("log=paper", "choose tensorboard, wandb or none"),
        ("best=val_nyuv2_abs_rel", "give a metric and min or max"),
        ("best=val_nyuv2_abs_rel small", "give a metric and min or max"),
        ("lora=4", "updates need weights to update"),
        ("lora=-1", "choose 0 or more"),
    ],
)
def test_wrong_settings_are_named(override, part):
    line = complaint(DEPTH, ROOT, override)
    assert line.startswith(override.split("=")[0])
    assert part in line


@pytest.mark.parametrize("name", ["6_vpd_depth", "7_e2e_ft", "5_evp_refer", "3_sd"])
def test_all_but_evp_depth_learn_from_all_pixels(name):
    recipe = DEPTH.parents[2] / "recipes" / "mini" / f"{name}.yaml"
    assert complaint(recipe, ROOT, "data.world=w", "pixels=0.5").endswith("learns from all of them")


def test_recipes_keep_the_settings_they_had():
    recipe = read_recipe(DEPTH, [ROOT])
    schedule = _settings(recipe)
    assert (schedule.shape, schedule.groups, schedule.betas, schedule.fall) == ("cosine", "matrices", (0.9, 0.99), None)
    assert Hardware(**asdict(recipe.hardware)) == Hardware()
    assert Hardware() == Hardware("no", 1, checkpointing=False, channels_last=True, compile=False)


def test_compilation_is_asked_of_every_block_that_the_features_go_through():
    features = UNetFeatures(stable_diffusion().unet, attention_maps=True, tokens=5)
    prepare_blocks(features, Hardware(compile=True))
    compiled = {type(module) for module in features.modules() if module._compiled_call_impl is not None}
    assert compiled == {ResnetBlock2D, BasicTransformerBlock}


def test_group_norms_compute_in_float32_in_half_precision_too():
    unet = stable_diffusion().unet
    seen = []
    for norm in [module for module in unet.modules() if isinstance(module, nn.GroupNorm)]:
        norm.register_forward_hook(lambda norm, given, out: seen.append((norm, given[0], out)))
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([1]), torch.randn(1, 5, unet.config.cross_attention_dim)
    prepare_blocks(unet, Hardware(precision="bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        unet(*inputs)
    assert torch.bfloat16 in {given.dtype for _, given, _ in seen}
    for norm, given, out in seen:
        assert torch.equal(out, F.group_norm(given.float(), norm.num_groups, norm.weight, norm.bias, norm.eps))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_blocks_alike_are_translated_once(precision):
    blocks = nn.ModuleList(ResnetBlock2D(in_channels=8, temb_channels=None, groups=2) for _ in range(4))
    prepare_blocks(blocks, Hardware(precision=precision))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for block in blocks:
        block.compile(backend=backend)
        block(torch.randn(1, 8, 6, 6), None)
    assert len(graphs) == 1


def test_a_run_goes_on_in_another_layout_of_memory(tmp_path):
    wanted = ripple(tmp_path / "whole", Hardware()).state_dict()
    with pytest.raises(KeyboardInterrupt):
        ripple(tmp_path / "cut", Hardware(), stop=5)
    found = ripple(tmp_path / "cut", Hardware(channels_last=False)).state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------------------- batches made ahead


def test_batches_made_ahead_are_the_same(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=12, save_every=6)
    alone = run_once(tmp_path / "alone", schedule)
    helped = run_once(tmp_path / "helped", schedule, makers=2)
    assert same(alone.state_dict(), helped.state_dict())


class _Dying(Wave):
    def batch(self, generator: torch.Generator) -> dict[str, Tensor]:
        os._exit(3)


def test_a_maker_that_dies_is_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", lambda row: None)
    with pytest.raises(DeixisError, match="is gone"):
        train(wave_model(), _Dying(), SCHEDULE, tmp_path, log, makers=1)


class _Ignored(Dataset[list[bool]]):
    def __getitem__(self, number: int) -> list[bool]:
        return [signal.getsignal(one) == signal.SIG_IGN for one in (signal.SIGINT, signal.SIGTERM)]


def test_makers_leave_signals_to_the_run() -> None:
    assert next(Ahead(_Ignored(), [0], 1)) == [True, True]
