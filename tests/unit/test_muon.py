"""Muon: what turns a gradient into a step, which parameters it is for, and a run that goes on."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deixis.training.loop import Schedule
from deixis.training.muon import Muon, embeddings, orthogonal
from tests.unit.test_recipe import DEPTH, ROOT, complaint
from tests.unit.test_training import SCHEDULE, Killed, go, same


@pytest.mark.parametrize("shape", [(16, 16), (24, 200), (200, 24), (64, 65)])
@pytest.mark.parametrize("spread", [0, 2])
def test_all_directions_come_to_one_length(shape, spread):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    found = orthogonal(u @ torch.diag(torch.logspace(0, -spread, min(shape))) @ v)
    # The singular vectors are the same, so that between them nothing but the singular values is left.
    lengths = u.T @ found @ v.T
    torch.testing.assert_close(lengths, torch.diag(lengths.diag()), rtol=0, atol=1e-3)
    assert lengths.diag().min() > 0.6
    assert lengths.diag().max() < 1.25


def test_it_is_newton_and_schulz():
    torch.manual_seed(1)
    matrix = torch.randn(20, 90)
    expected = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonal(matrix), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 90), (90, 20)])
def test_matrices_of_one_shape_are_turned_together(shape):
    torch.manual_seed(2)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    torch.testing.assert_close(orthogonal(matrices), torch.stack([orthogonal(one) for one in matrices]))


def test_nothing_to_learn_is_no_step_and_not_nan():
    assert not orthogonal(torch.zeros(16, 20)).any()
    model = nn.Linear(20, 16)
    before = model.weight.detach().clone()
    optimiser = Muon([{"params": list(model.parameters()), "weight_decay": 0.0}], lr=0.1, betas=(0.9, 0.99))
    model(torch.zeros(3, 20)).sum().mul(0).backward()
    optimiser.step()
    assert torch.equal(model.weight, before)


class Mixed(nn.Module):
    """A matrix, a kernel, what is none (an embedding, a thin matrix, gains, biases), and what is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(30, 24)
        self.matrix = nn.Linear(24, 32)
        self.kernel = nn.Conv2d(8, 16, kernel_size=3)
        self.norm = nn.LayerNorm(32)
        self.thin = nn.Linear(32, 2)
        self.unused = nn.Linear(32, 32)
        self.picture = torch.randn(4, 8, 9, 9)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.thin(self.norm(self.matrix(self.words(x))).sin()).sum()
        return y + self.kernel(self.picture).square().sum()


def taken(model: Mixed, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        model(torch.arange(12)).square().backward()
        optimiser.step()


def test_what_is_no_matrix_learns_as_with_adamw():
    model = Mixed()
    plain = copy.deepcopy(model)
    groups = [{"params": list(model.parameters()), "weight_decay": 0.1}]
    muon = Muon(groups, lr=1e-2, betas=(0.9, 0.99), embeddings=embeddings(model))
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    taken(model, muon, 1)
    taken(plain, adamw, 1)
    by_muon = set()
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if name.startswith("unused"):
            assert torch.equal(mine, before[name])
        elif not torch.equal(mine, theirs):
            by_muon.add(name)
            decayed = before[name] * (1 - 1e-2 * 0.1)
            step = (mine.detach() - decayed).flatten(1) / 1e-2
            assert 0.05 < step.square().mean().sqrt() < 0.25  # as large as AdamW's: 0.2 where all directions are used
    assert by_muon == {"matrix.weight", "kernel.weight"}


def settings(**changes: object) -> Schedule:
    return replace(SCHEDULE, **{"optimiser": "muon", "lr": 1e-3, **changes})


def wide_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Linear(32, 1))


def test_a_killed_run_goes_on_with_its_momentum(tmp_path):
    undisturbed = go(tmp_path / "undisturbed", settings(), model=wide_model())
    with pytest.raises(Killed):
        go(tmp_path / "killed", settings(), stop=2, model=wide_model())
    assert same(undisturbed, go(tmp_path / "killed", settings(), model=wide_model()))
    assert not same(undisturbed, go(tmp_path / "adamw", settings(optimiser="adamw"), model=wide_model()))


def test_recipes_choose_it():
    assert complaint(DEPTH, ROOT, "data.world=w", "optimisation.optimiser=sgd").endswith("choose adamw or muon")
    line = complaint(DEPTH, ROOT, "data.world=w", "optimisation.optimiser=muon", "hardware.fsdp=true")
    assert "no process a whole matrix" in line
