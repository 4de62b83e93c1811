"""Losses: values by definition, and finite gradients where the official ones are not."""

from __future__ import annotations

import math

import pytest
import torch

from deixis.errors import UsageError
from deixis.training.losses import mask_loss, silog_loss


def depths(seed: int, shape: tuple[int, ...] = (2, 1, 6, 8)) -> torch.Tensor:
    return 0.5 + 9 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(pred: torch.Tensor, target: torch.Tensor, lambd: float = 0.5) -> tuple[float, torch.Tensor]:
    pred = pred.clone().requires_grad_()
    loss = silog_loss(pred, target, lambd)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, pred)
    return loss.item(), gradient


@pytest.mark.parametrize("lambd", [0.0, 0.5, 0.85, 1.0])
def test_silog_is_its_definition(lambd):
    pred, target = depths(0), depths(1)
    target[0, 0, :3] = 0
    target[1, 0, 0, 0] = math.nan
    scored = target > 0
    g = target[scored].double().log() - pred[scored].double().log()
    expected = ((g**2).mean() - lambd * g.mean() ** 2).sqrt()
    value, gradient = value_and_gradient(pred, target, lambd)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    # d loss / d pred by hand
    by_hand = -(g - lambd * g.mean()) / (len(g) * expected) / pred[scored].double()
    torch.testing.assert_close(gradient[scored].double(), by_hand, rtol=1e-4, atol=1e-8)
    assert not gradient[~scored].any()


def test_lambda_one_ignores_scale():
    pred, target = depths(2), depths(3)
    assert silog_loss(3 * pred, target, 1.0).item() == pytest.approx(silog_loss(pred, target, 1.0).item(), rel=1e-5)
    assert silog_loss(3 * pred, target).item() != pytest.approx(silog_loss(pred, target).item(), rel=1e-2)


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0, 0.1])
def test_nothing_left_to_learn_has_a_finite_gradient(scale):
    target = depths(4)
    value, gradient = value_and_gradient(scale * target, target, lambd=1.0)
    assert value == pytest.approx(0, abs=1e-3)
    assert torch.isfinite(gradient).all()
    value, gradient = value_and_gradient(target, target)
    assert value == 0
    assert not gradient.any()


def test_no_target_teaches_nothing():
    weight = torch.ones((), requires_grad=True)
    loss = silog_loss(weight * depths(5), torch.zeros(2, 1, 6, 8))
    loss.backward()
    assert loss.item() == 0
    assert weight.grad is not None
    assert weight.grad.item() == 0


def test_half_precision_is_scored_in_float32():
    loss = silog_loss(depths(6).bfloat16(), depths(7))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(silog_loss(depths(6), depths(7)).item(), rel=2e-2)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_predictions_without_a_logarithm_are_named(bad):
    pred, target = depths(8), depths(9)
    pred[0, 0, 0, :2] = bad
    with pytest.raises(UsageError, match="silog_loss: 2 of 96 predictions"):
        silog_loss(pred, target)
    target[0, 0, 0, :2] = 0
    assert math.isfinite(silog_loss(pred, target).item())


def test_bad_silog_arguments_are_refused():
    with pytest.raises(UsageError, match=r"pred has shape \[2, 1, 6, 8\]"):
        silog_loss(depths(0), depths(0)[0])
    with pytest.raises(UsageError, match=r"lambd is 1\.5"):
        silog_loss(depths(0), depths(1), lambd=1.5)


def test_mask_loss_is_the_weighted_mean():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, generator=generator)
    target = torch.rand(2, 5, 6, generator=generator) < 0.3
    log_share = logits.log_softmax(dim=1)
    losses = -torch.where(target, log_share[:, 1], log_share[:, 0])
    weights = torch.where(target, 1.1, 0.9)
    expected = (weights * losses).sum() / weights.sum()
    assert mask_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


def test_missing_the_object_costs_more_than_inventing_one():
    target = torch.tensor([[[True, False]]])
    missed = mask_loss(torch.tensor([[[[5.0, 5.0]], [[-5.0, -5.0]]]]), target)
    invented = mask_loss(torch.tensor([[[[-5.0, -5.0]], [[5.0, 5.0]]]]), target)
    assert missed > invented


@pytest.mark.parametrize(
    ("logits", "target", "problem"),
    [
        ((2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool), r"logits have shape \[2, 1, 4, 4\]"),
        ((2, 2, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool), r"target \[2, 1, 4, 4\]"),
        ((2, 2, 4, 4), torch.full((2, 4, 4), 255), "target is int64"),
    ],
)
def test_bad_masks_are_refused(logits, target, problem):
    with pytest.raises(UsageError, match=problem):
        mask_loss(torch.zeros(logits), target)
