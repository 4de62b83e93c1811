"""Parameter groups and learning rates against what the official training code was recorded to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deixis.backbones.stable_diffusion import SD1, StableDiffusion, architecture
from deixis.checkpoints.keys import official_key
from deixis.registry import SYSTEMS
from deixis.training.groups import parameter_groups
from deixis.training.schedules import Shape, rate, scaled

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
RECORDED: dict[str, Any] = json.loads(gzip.decompress((FIXTURES / "evp" / "optim.json.gz").read_bytes()))
RATES: dict[str, Any] = json.loads((FIXTURES / "evp" / "lr_schedules.json").read_text())
# What the official models carry along without using it; ours have dropped it.
UNUSED = ("image_encoder.post_quant_conv.", "unet.unet.conv_norm_out.", "unet.unet.conv_out.")
# The recorded model, our switches, and whether the text tower is part of it.
CASES = {
    "evp_depth": ("evp-depth", {"max_depth": 10.0, "clip_frozen": False}, True),
    "evp_depth_aggregated": ("evp-depth", {"max_depth": 10.0}, False),
    "evp_refer": ("evp-refer", {}, True),
    "vpd_depth": ("vpd-depth", {}, False),
    "vpd_refer": ("vpd-refer", {}, False),
}


def full_size(name: str, switches: dict[str, Any], *, text: bool) -> nn.Module:
    """A network of the published sizes without a single number in it."""
    sizes = architecture(SD1)
    if not text:
        del sizes["text_encoder"]
    system = SYSTEMS[name]
    with torch.device("meta"):
        model: nn.Module = system.network(system.config(**switches), StableDiffusion.from_config(sizes))
    return model


@pytest.mark.parametrize("case", CASES)
def test_published_groups_are_the_recorded_ones_key_by_key(case):
    name, switches, text = CASES[case]
    recorded = RECORDED[case]
    decay = max(weight_decay for _, weight_decay in recorded["parameters"].values())
    model = full_size(name, switches, text=text)
    groups = parameter_groups(model, nn.Identity(), decay, "published", name)
    place = {id(p): [group["scale"], group["weight_decay"]] for group in groups for p in group["params"]}
    assert len(place) == sum(len(group["params"]) for group in groups)
    unused = [official_key(key, name) for key in UNUSED]
    expected = {
        key: value
        for key, value in recorded["parameters"].items()
        if key not in recorded["frozen_parameters"] and not key.startswith(tuple(unused))
    }
    names = {key: official_key(key, name) for key, _ in model.named_parameters()}
    found = {names[key]: place[id(p)] for key, p in model.named_parameters() if id(p) in place}
    assert found == expected
    frozen = {names[key] for key, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {key for key in recorded["frozen_parameters"] if not key.startswith(tuple(unused))}
    # Frozen there too: in no group at all, or in one whose learning rate is 0.
    assert all(recorded["parameters"].get(key, [0.0])[0] == 0 for key in frozen)


def small() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4), nn.Embedding(3, 4))
    model[2].requires_grad_(False)
    return model


def test_decay_is_for_matrices_and_kernels():
    model = small()
    decay, rest = parameter_groups(model, nn.Identity(), 0.3)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert decay["scale"] == rest["scale"] == 1.0
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decay["params"]} == {"0.weight", "3.weight"}
    assert {names[id(p)] for p in rest["params"]} == {"0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("system", ["marigold", "lotus-d", "lotus-g", "e2e-ft"])
def test_affine_systems_hand_everything_to_the_optimiser_alike(system):
    model = small()
    (group,) = parameter_groups(model, nn.Identity(), 0.01, "published", system)
    assert (group["weight_decay"], group["scale"]) == (0.01, 1.0)
    assert len(group["params"]) == 5


def test_what_is_thrown_away_after_training_has_no_published_rule():
    model, auxiliary = nn.ModuleDict({"unet": nn.Linear(2, 2)}), nn.Linear(3, 3)
    groups = parameter_groups(model, auxiliary, 0.1, "published", "evp-refer")
    assert [(group["scale"], group["weight_decay"], len(group["params"])) for group in groups] == [
        (1.0, 0.1, 1),  # the auxiliary part's matrix
        (1.0, 0.0, 1),
        (0.01, 0.1, 2),  # the referring rule decays biases
    ]


@pytest.mark.parametrize("shape", ["evp_depth", "evp_refer"])
def test_learning_rates_are_the_recorded_ones_step_by_step(shape):
    recorded = RATES[shape]
    peak, epoch = recorded["base_lr"], recorded["iterations_per_epoch"]
    steps = recorded["epochs"] * epoch
    kind: Shape = "evp-depth" if shape == "evp_depth" else "evp-refer"
    scales = [1.0, 1.0, 1.0, 0.01, 0.01] if shape == "evp_depth" else [0.01, 0.01, 0.0, 1.0, 1.0]
    assert len(recorded["rows"]) == steps
    for number, *rates in recorded["rows"]:
        found = rate(kind, number - 1, peak=peak, steps=steps, warmup=epoch, final=recorded["min_lr"] / peak)
        assert [found * scaled(kind, number - 1, scale) for scale in scales] == pytest.approx(rates, rel=1e-12)


def test_rates_of_the_affine_systems():
    said = json.loads((FIXTURES / "iris" / "training_hyperparameters.json").read_text())
    assert "lr*0.01**((i-100)/(25000-100))" in said["marigold_v1_0"]["schedule"]
    assert said["lotus_d"]["schedule"] == "constant, no warm-up"

    def marigold(step: int) -> float:
        return rate("exponential", step, peak=3e-5, steps=25_000, warmup=100, final=0.01)

    assert [marigold(step) for step in (0, 1, 99)] == pytest.approx([0.0, 3e-7, 2.97e-5])
    assert marigold(100) == 3e-5
    assert marigold(12_550) == pytest.approx(3e-6)  # half of the fall
    assert marigold(25_000) == marigold(29_999) == pytest.approx(3e-7)
    assert rate("constant", 19_999, peak=3e-5, steps=20_000, warmup=0, final=0.01) == 3e-5
