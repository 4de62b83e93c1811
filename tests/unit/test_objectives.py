"""Training objectives and targets: their definitions on awkward shapes, and what happens where those end."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from deixis.backbones.latents import encode
from deixis.errors import UsageError
from deixis.systems.lotus import task_embedding
from deixis.training.normalise import (
    LOTUS_NORMS,
    between,
    e2e_ft_sample,
    e2e_ft_target,
    far_where_invalid,
    lotus_sample,
    lotus_target,
    marigold_sample,
    marigold_target,
    nearest,
)
from deixis.training.objectives import (
    TorchNoise,
    add_task_embedding,
    annealed_strength,
    depth_unet,
    e2e_ft_objective,
    iter_exponential,
    latent_mask,
    lotus_latents,
    lotus_objective,
    marigold_objective,
    mean_square,
    multi_resolution_noise,
    noised,
    pyramid_sizes,
    scale_and_shift,
    scale_and_shift_invariant_l1,
    velocity,
    widen_input,
    x0_of,
)
from tests.tiny import CONFIG, TEXT_WIDTH

ALPHAS = torch.linspace(0.999, 0.0, 1000)  # zero SNR at the end
STRATEGIES = ("original", "every_layer", "power_of_two", "random_step")


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def plain() -> UNet2DConditionModel:
    """A plain U-Net. Not to be changed."""
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(CONFIG["unet"]).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL.from_config(CONFIG["vae"]).eval().requires_grad_(False)


# Masks and mean squares.


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (16, 8), (23, 41), (40, 64)])
def test_a_latent_cell_needs_all_its_pixels(size):
    valid = rand(3, 1, *size) < 0.985
    mask = latent_mask(valid)
    assert mask.shape == (3, 1, size[0] // 8, size[1] // 8)
    for b, _, y, x in np.ndindex(*mask.shape):
        assert mask[b, 0, y, x] == valid[b, 0, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].all()


@pytest.mark.parametrize("bad", [torch.ones(1, 1, 8, 8), torch.ones(1, 8, 8) > 0, torch.ones(1, 1, 7, 90) > 0])
def test_bad_pixel_masks_are_refused(bad):
    with pytest.raises(UsageError, match="latent_mask: was given"):
        latent_mask(bad)


def test_mean_square_runs_over_kept_elements_of_the_batch():
    prediction, target = randn(2, 4, 3, 5), randn(2, 4, 3, 5, seed=1)
    mask = rand(2, 1, 3, 5, seed=2) < 0.4
    kept = mask.expand(2, 4, 3, 5)
    expected = ((prediction - target)[kept].double() ** 2).mean()
    assert mean_square(prediction, target, mask).item() == pytest.approx(expected.item(), rel=1e-6)
    assert mean_square(prediction.bfloat16(), target, mask).dtype == torch.float32
    assert mean_square(prediction, target).item() == pytest.approx((prediction - target).square().mean().item())


def test_a_batch_without_a_kept_cell_teaches_nothing():
    prediction = randn(1, 4, 3, 5).requires_grad_()
    loss = mean_square(prediction, torch.zeros(1, 4, 3, 5), torch.zeros(1, 1, 3, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_bad_latent_masks_are_refused():
    x = torch.zeros(1, 4, 3, 5)
    with pytest.raises(UsageError, match=r"mask float32 \[1, 1, 3, 5\]"):
        mean_square(x, x, torch.ones(1, 1, 3, 5))
    with pytest.raises(UsageError, match=r"mask bool \[1, 4, 3, 5\]"):
        mean_square(x, x, torch.ones(1, 4, 3, 5) > 0)
    with pytest.raises(UsageError, match=r"prediction has shape \[1, 4, 3, 5\] and target \[1, 4, 5, 3\]"):
        mean_square(x, x.mT)


# The diffusion behind them.


def test_velocity_noise_and_x0_belong_together():
    x0, noise = randn(4, 4, 3, 5), randn(4, 4, 3, 5, seed=1)
    t = torch.tensor([0, 1, 500, 999])
    noisy, v = noised(x0, noise, t, ALPHAS), velocity(x0, noise, t, ALPHAS)
    torch.testing.assert_close(x0_of(v, noisy, t, ALPHAS), x0)
    # At zero signal the picture is noise, and v is the latent turned over.
    torch.testing.assert_close(noisy[3], noise[3])
    torch.testing.assert_close(v[3], -x0[3])


# Noise.


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (17, 64), (60, 80)])
def test_noise_has_unit_spread_whatever_stands_beside_it(strategy, size):
    strength = annealed_strength(torch.tensor([0, 500, 999]))
    assert strength.tolist() == pytest.approx([0, 0.45, 0.8991])
    noise = multi_resolution_noise((3, 4, *size), strength, strategy)
    assert noise.shape == (3, 4, *size)
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), torch.ones(3))
    official = multi_resolution_noise((3, 4, *size), strength, strategy, compat="official")
    assert official.std().item() == pytest.approx(1, rel=1e-5)


def test_official_noise_depends_on_its_batch():
    shape, strength = (2, 4, 60, 80), annealed_strength(torch.tensor([1, 999]))
    early, late = multi_resolution_noise(shape, strength, "every_layer", compat="official").std(dim=(1, 2, 3))
    assert early < 0.97
    assert late > 1.03


def test_noise_is_drawn_in_the_original_order():
    generator = torch.Generator().manual_seed(3)
    noise = multi_resolution_noise((1, 2, 20, 30), 0.5, source=TorchNoise(generator))
    generator.manual_seed(3)
    by_hand, height, width = torch.randn(1, 2, 20, 30, generator=generator), 20, 30
    for i in range(10):
        ratio = (torch.rand(1, generator=generator).item() * 2 + 2) ** i
        height, width = max(1, int(height / ratio)), max(1, int(width / ratio))
        level = torch.randn(1, 2, height, width, generator=generator)
        by_hand = by_hand + 0.5**i * torch.nn.functional.interpolate(level, (20, 30), mode="bilinear")
        if 1 in (height, width):
            break
    torch.testing.assert_close(noise, by_hand / by_hand.std())


def test_coarse_levels_are_there():
    """Neighbours agree more than in white noise."""
    noise = multi_resolution_noise((1, 4, 64, 64), 0.9)
    assert (noise[..., 1:] * noise[..., :-1]).mean() > 0.2


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 7), (96, 128)])
def test_sizes_go_down_to_one(strategy, size):
    sizes = list(pyramid_sizes(*size, strategy, lambda: torch.rand(1)))
    assert len(sizes) <= 10
    assert all(later[0] <= earlier[0] and later[1] <= earlier[1] for earlier, later in pairwise([size, *sizes]))
    assert min(sizes[-1]) == 1 if sizes else min(size) == 1


def test_bad_noise_is_refused():
    with pytest.raises(UsageError, match="knows no strategy 'white'"):
        multi_resolution_noise((1, 4, 8, 8), 0.9, "white")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 strengths for 3 images"):
        multi_resolution_noise((3, 4, 8, 8), torch.tensor([0.1, 0.2]))
    for strength in (1.5, -0.1, math.nan):
        with pytest.raises(UsageError, match=r"strength outside \[0, 1\]"):
            multi_resolution_noise((1, 4, 8, 8), strength)
    with pytest.raises(UsageError, match=r"was asked for \[3, 1, 1, 1\]"):
        multi_resolution_noise((3, 1, 1, 1))


# Learning rate and words.


def test_the_learning_rate_rises_and_falls():
    values = [iter_exponential(i, 1000, 0.01, 100) for i in range(1200)]
    assert values[0] == 0
    assert values[50] == 0.5
    assert max(values) == values[100] == 1
    assert values[550] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(values[100:1001]))
    assert set(values[1000:]) == {0.01}
    assert iter_exponential(0, 10) == 1


@pytest.mark.parametrize(("total", "ratio", "warmup"), [(100, 0.01, 100), (10, 0.01, 100), (10, 0.0, 0), (10, 0.1, -1)])
def test_bad_schedules_are_refused(total, ratio, warmup):
    with pytest.raises(UsageError, match="iter_exponential"):
        iter_exponential(0, total, ratio, warmup)


# Scale and shift.


@pytest.mark.parametrize("compat", [None, "official"])
@pytest.mark.parametrize("size", [(1, 2), (3, 1), (7, 11)])
def test_scale_and_shift_are_found(compat, size):
    prediction = rand(3, 1, *size) - 0.5
    target = torch.tensor([2.0, -7.0, 0.5]).view(3, 1, 1, 1) * prediction + torch.tensor([5.0, 9.0, 0]).view(3, 1, 1, 1)
    valid = torch.ones_like(target, dtype=torch.bool)
    loss, scale, shift = scale_and_shift_invariant_l1(prediction, target, valid, compat)
    torch.testing.assert_close(scale, torch.tensor([2.0, -7.0, 0.5]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(shift, torch.tensor([5.0, 9.0, 0.0]), rtol=1e-3, atol=1e-4)
    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_ours_is_the_official_fit_where_that_is_defined():
    prediction, target = rand(2, 1, 9, 13), 1 + 8 * rand(2, 1, 9, 13, seed=1)
    valid = rand(2, 1, 9, 13, seed=2) < 0.7
    for ours, theirs in zip(
        scale_and_shift(prediction, target, valid), scale_and_shift(prediction, target, valid, "official"), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for b in range(2):
        p, t = prediction[b][valid[b]].double().numpy(), target[b][valid[b]].double().numpy()
        expected = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)[0]
        found = [x[b].item() for x in scale_and_shift(prediction, target, valid)]
        assert found == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_loss_does_not_see_scale_and_shift():
    prediction, target = rand(2, 1, 9, 13), 1 + 8 * rand(2, 1, 9, 13, seed=1)
    valid = rand(2, 1, 9, 13, seed=2) < 0.7
    loss = scale_and_shift_invariant_l1(prediction, target, valid)[0]
    assert scale_and_shift_invariant_l1(3 - 40 * prediction, target, valid)[0].item() == pytest.approx(
        loss.item(), rel=1e-4
    )
    assert scale_and_shift_invariant_l1(prediction, 2 * target, valid)[0].item() == pytest.approx(
        2 * loss.item(), rel=1e-4
    )


def test_what_is_not_valid_is_not_seen():
    prediction, target = rand(2, 1, 9, 13).requires_grad_(), 1 + 8 * rand(2, 1, 9, 13, seed=1)
    valid = rand(2, 1, 9, 13, seed=2) < 0.7
    holes = torch.where(valid, target, math.nan)
    loss = scale_and_shift_invariant_l1(prediction, holes, valid)[0]
    assert loss.item() == scale_and_shift_invariant_l1(prediction, target, valid)[0].item()
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.isfinite(gradient).all()
    assert not gradient[~valid].any()


def test_gradients_flow_through_scale_and_shift():
    prediction, target = rand(1, 1, 3, 4).requires_grad_(), 1 + 8 * rand(1, 1, 3, 4, seed=1)
    valid = torch.ones_like(target, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(scale_and_shift_invariant_l1(prediction, target, valid)[0], prediction)
    step = 1e-3
    for y, x in [(0, 0), (1, 3), (2, 2)]:
        losses = []
        for sign in (1, -1):
            moved = prediction.detach().clone()
            moved[0, 0, y, x] += sign * step
            losses.append(scale_and_shift_invariant_l1(moved, target, valid)[0].item())
        assert gradient[0, 0, y, x].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.05, abs=2e-3)
    # No change of scale or shift is worth anything.
    assert gradient.sum().item() == pytest.approx(0, abs=1e-5)
    assert (gradient * prediction).sum().item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.25, 0.1, -0.7, 1e-8])
@pytest.mark.parametrize("size", [(4, 6), (60, 90)])
def test_a_flat_prediction_is_moved_to_the_mean(level, size):
    prediction = torch.full((1, 1, *size), level, requires_grad=True)
    target = 1 + 8 * rand(1, 1, *size)
    valid = torch.ones_like(target, dtype=torch.bool)
    loss, scale, shift = scale_and_shift_invariant_l1(prediction, target, valid)
    assert scale.item() == 0
    assert shift.item() == pytest.approx(target.mean().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.isfinite(gradient).all()


def test_official_flat_predictions_are_moved_to_zero():
    prediction, target = torch.full((1, 1, 4, 6), 0.25), 1 + 8 * rand(1, 1, 4, 6)
    loss, scale, shift = scale_and_shift_invariant_l1(prediction, target, target > 0, "official")
    assert (scale.item(), shift.item()) == (0, 0)
    assert loss.item() == pytest.approx(target.mean().item())


def test_one_valid_pixel_and_none():
    prediction, target = rand(2, 1, 4, 6).requires_grad_(), 1 + 8 * rand(2, 1, 4, 6, seed=1)
    valid = torch.zeros_like(target, dtype=torch.bool)
    loss, scale, shift = scale_and_shift_invariant_l1(prediction, target, valid)
    assert loss.item() == 0
    assert not scale.any()
    assert not shift.any()
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert not gradient.any()
    valid[0, 0, 2, 3] = True
    loss, scale, shift = scale_and_shift_invariant_l1(prediction, target, valid)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert shift.tolist() == pytest.approx([target[0, 0, 2, 3].item(), 0])


def test_bad_maps_are_refused():
    x = torch.zeros(1, 1, 4, 6)
    with pytest.raises(UsageError, match=r"target \[1, 1, 6, 4\]"):
        scale_and_shift(x, x.mT, x > 0)
    with pytest.raises(UsageError, match="valid as float32"):
        scale_and_shift(x, x, x)


# U-Nets.


def test_a_widened_unet_sees_the_mean_of_its_halves(plain):
    x, y, text = randn(1, 4, 8, 8), randn(1, 4, 8, 8, seed=1), randn(1, 3, TEXT_WIDTH)
    wide = widen_input(copy.deepcopy(plain))
    torch.testing.assert_close(
        wide(torch.cat([x, y], dim=1), 7, encoder_hidden_states=text).sample,
        plain((x + y) / 2, 7, encoder_hidden_states=text).sample,
    )
    halved = widen_input(copy.deepcopy(plain), halve_bias=True)
    torch.testing.assert_close(halved.conv_in.bias, plain.conv_in.bias / 2)
    torch.testing.assert_close(halved.conv_in.weight, wide.conv_in.weight)
    assert not wide.conv_in.weight.requires_grad  # as the plain one's
    with pytest.raises(UsageError, match="8 input and 4 output channels"):
        widen_input(wide)


def test_a_silent_task_changes_nothing(plain):
    x, text = randn(2, 4, 8, 8), randn(2, 3, TEXT_WIDTH)
    unet = add_task_embedding(copy.deepcopy(plain))
    loud = unet(x, 7, encoder_hidden_states=text, class_labels=task_embedding("annotation", x)).sample
    for parameter in unet.class_embedding.parameters():
        torch.nn.init.zeros_(parameter)
    silent = unet(x, 7, encoder_hidden_states=text, class_labels=task_embedding("annotation", x)).sample
    torch.testing.assert_close(silent, plain(x, 7, encoder_hidden_states=text).sample)
    assert not torch.allclose(loud, silent)
    with pytest.raises(UsageError, match="class embeddings"):
        add_task_embedding(unet)


@pytest.mark.parametrize("system", ["marigold", "lotus-d", "lotus-g", "e2e-ft"])
def test_a_prepared_unet_can_be_saved_and_loaded(plain, tmp_path: Path, system):
    unet = depth_unet(copy.deepcopy(plain), system)
    assert unet.config.in_channels == (4 if system == "lotus-d" else 8)
    assert (unet.class_embedding is not None) == system.startswith("lotus")
    unet.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    for name, value in unet.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    if system != "lotus-d":
        kept = unet.conv_in.bias / plain.conv_in.bias
        torch.testing.assert_close(kept, torch.full_like(kept, 0.5 if system == "e2e-ft" else 1.0))
    ready = {name: value.clone() for name, value in again.state_dict().items()}
    assert depth_unet(again, system).state_dict().keys() == ready.keys()  # and it stays so
    assert all(value.equal(ready[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("before", "system"), [("marigold", "e2e-ft"), ("marigold", "lotus-g"), ("lotus-d", "lotus-g")]
)
def test_a_system_may_start_from_another(plain, before, system):
    unet = depth_unet(copy.deepcopy(plain), before)
    kept = {name: value.clone() for name, value in unet.state_dict().items() if not name.startswith("conv_in")}
    after = depth_unet(unet, system).state_dict()
    assert all(after[name].equal(value) for name, value in kept.items())
    assert after.keys() == depth_unet(copy.deepcopy(plain), system).state_dict().keys()
    if before == "lotus-d":  # what it has learned about the picture stays what it is
        assert not after["conv_in.weight"][:, 4:].any()
        assert after["conv_in.weight"][:, :4].equal(plain.conv_in.weight)


@pytest.mark.parametrize(("before", "system"), [("marigold", "lotus-d"), ("lotus-g", "e2e-ft")])
def test_what_a_system_has_no_use_for_is_refused(plain, before, system):
    with pytest.raises(UsageError, match="plain Stable Diffusion"):
        depth_unet(depth_unet(copy.deepcopy(plain), before), system)


def test_unknown_systems_are_refused(plain):
    with pytest.raises(UsageError, match="knows no system 'evp'"):
        depth_unet(copy.deepcopy(plain), "evp")  # type: ignore[arg-type]


# Objectives.


def test_marigold_compares_v_on_known_cells(plain):
    unet = depth_unet(copy.deepcopy(plain), "marigold")
    picture, depth, noise = (randn(2, 4, 8, 8, seed=seed) for seed in range(3))
    text, t = randn(1, 3, TEXT_WIDTH), torch.tensor([3, 999])
    mask = rand(2, 1, 8, 8) < 0.5
    found = marigold_objective(unet, picture, depth, text, noise, t, ALPHAS, mask)
    both = marigold_objective(unet, picture, depth, text.repeat(2, 1, 1), noise, t, ALPHAS)
    torch.testing.assert_close(found.prediction, both.prediction)
    torch.testing.assert_close(found.inputs[:, :4], picture)
    torch.testing.assert_close(found.inputs[1, 4:], noise[1])
    torch.testing.assert_close(found.target, velocity(depth, noise, t, ALPHAS))
    kept = mask.expand_as(depth)
    torch.testing.assert_close(found.loss, (found.prediction - found.target)[kept].square().mean())
    with pytest.raises(UsageError, match=r"picture has shape \[2, 4, 8, 8\] and noise \[1, 4, 8, 8\]"):
        marigold_objective(unet, picture, depth, text, noise[:1], t, ALPHAS)
    with pytest.raises(UsageError, match=r"text: has shape \[3, 3, 48\]"):
        marigold_objective(unet, picture, depth, text.repeat(3, 1, 1), noise, t, ALPHAS)


@pytest.mark.parametrize("system", ["lotus-d", "lotus-g"])
def test_lotus_adds_both_tasks(plain, vae, system):
    unet = depth_unet(copy.deepcopy(plain), system)
    image, annotation = 2 * rand(2, 3, 64, 72) - 1, 2 * rand(2, 1, 64, 72, seed=1) - 1
    picture, target = lotus_latents(vae, image, annotation, randn(4, 4, 8, 9, seed=2), randn(4, 4, 8, 9, seed=3))
    assert picture.shape == target.shape == (4, 4, 8, 9)
    assert not torch.equal(picture[:2], picture[2:])
    plain_picture, plain_target = lotus_latents(vae, image, annotation)
    torch.testing.assert_close(plain_picture[:2], plain_picture[2:])
    torch.testing.assert_close(plain_target[2:], plain_picture[2:])
    torch.testing.assert_close(plain_target[:2], encode(vae, annotation.repeat(1, 3, 1, 1)))
    text, mask = randn(2, 3, TEXT_WIDTH), rand(2, 1, 8, 9) < 0.5
    extra = {"noise": randn(4, 4, 8, 9, seed=4), "alphas_cumprod": ALPHAS} if system == "lotus-g" else {}
    found = lotus_objective(unet, picture, target, text, mask=mask, **extra)
    error = (found.prediction - target).square()
    torch.testing.assert_close(found.parts["annotation"], error[:2][mask.expand(-1, 4, -1, -1)].mean())
    torch.testing.assert_close(found.parts["reconstruction"], error[2:].mean())
    torch.testing.assert_close(found.loss, sum(found.parts.values()))
    assert found.inputs.shape[1] == unet.config.in_channels
    # A half's prediction is its own task's.
    alone = unet(found.inputs[2:], 999, encoder_hidden_states=text, class_labels=task_embedding("reconstruction", text))
    torch.testing.assert_close(found.prediction[2:], alone.sample)


def test_bad_lotus_batches_are_refused(plain):
    x, text = torch.zeros(3, 4, 8, 8), torch.zeros(1, 3, TEXT_WIDTH)
    with pytest.raises(UsageError, match="3 latents"):
        lotus_objective(plain, x, x, text)
    with pytest.raises(UsageError, match="noise without its schedule"):
        lotus_objective(plain, x[:2], x[:2], text, noise=x[:2])
    with pytest.raises(UsageError, match=r"target \[2, 4, 8, 8\]"):
        lotus_objective(plain, x[:1].repeat(4, 1, 1, 1), x[:2], text)


def test_e2e_ft_teaches_the_unet_through_the_frozen_decoder(plain, vae):
    unet = depth_unet(copy.deepcopy(plain), "e2e-ft").requires_grad_(True)
    picture, text = randn(2, 4, 8, 9), randn(1, 3, TEXT_WIDTH)
    depth, valid = 1 + 8 * rand(2, 1, 64, 72), rand(2, 1, 64, 72, seed=1) < 0.8
    alphas = torch.linspace(0.999, 0.005, 1000)
    found = e2e_ft_objective(unet, vae, picture, text, depth, valid, alphas)
    assert found.estimate.shape == depth.shape
    assert found.estimate.abs().max() <= 1
    found.loss.backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())
    assert unet.conv_in.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in vae.parameters())
    with torch.no_grad():
        noisy = e2e_ft_objective(unet, vae, picture, text, depth, valid, alphas, randn(2, 4, 8, 9, seed=2))
        zeros = e2e_ft_objective(unet, vae, picture, text, depth, valid, alphas, torch.zeros(2, 4, 8, 9))
    assert not torch.allclose(noisy.estimate, found.estimate)
    torch.testing.assert_close(zeros.loss, found.loss.detach())
    with pytest.raises(UsageError, match=r"target \[2, 1, 64, 71\]"):
        e2e_ft_objective(unet, vae, picture, text, depth[..., 1:], valid[..., 1:], alphas)


# Targets.


def metres(*size: int, seed: int = 0) -> Tensor:
    return 0.5 + 9 * rand(1, *size, seed=seed)


@pytest.mark.parametrize("size", [(1, 3), (7, 5), (40, 56)])
def test_targets_span_the_range_of_valid_depth(size):
    depth, valid = metres(*size), rand(1, *size, seed=1) < 0.9
    valid[0, 0, :2] = True
    depth[~valid] = 1000
    counted = depth[valid].double().numpy()
    low, high = np.quantile(counted, [0.02, 0.98])
    expected = np.clip((depth.double().numpy() - low) / (high - low) * 2 - 1, -1, 1)
    found = marigold_target(depth, valid)
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-5)
    assert torch.equal(found.valid, valid)
    assert (far_where_invalid(found)[~valid] == 1).all()
    end_to_end = e2e_ft_target(depth, valid)
    np.testing.assert_allclose(end_to_end.values[valid].numpy(), expected[valid.numpy()], atol=1e-5)
    assert (end_to_end.values[~valid] == 1).all()
    assert end_to_end.depth.min().item() == pytest.approx(low, rel=1e-5)
    assert end_to_end.depth.max().item() == pytest.approx(high, rel=1e-5)


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_marigold_ignores_the_unit(factor):
    depth = metres(9, 13)
    torch.testing.assert_close(marigold_target(factor * depth).values, marigold_target(depth).values, rtol=0, atol=1e-5)


def test_lotus_norms_are_their_definitions():
    depth = metres(9, 13)
    values = {norm: lotus_target(depth, norm=norm, far=10.0).values for norm in LOTUS_NORMS}
    torch.testing.assert_close(values["perscene_norm"], depth / 5 - 1)
    for norm, x in (("instnorm", depth), ("disparity", 1 / depth)):
        span = x.max() - x.min() + 1e-5
        torch.testing.assert_close(values[norm], (x - x.min()) / span * 2 - 1)
    for norm, near in (("instnorm", -1), ("truncnorm", -1), ("disparity", 1), ("trunc_disparity", 1)):
        assert values[norm].flatten()[depth.flatten().argmin()].item() == pytest.approx(near, abs=1e-3)
        assert values[norm].abs().max() <= 1


@pytest.mark.parametrize("norm", LOTUS_NORMS)
def test_depths_that_are_none_do_not_set_the_range(norm):
    depth = metres(9, 13)
    holes = depth.clone()
    holes[0, 0, :3] = torch.tensor([0.0, math.nan, math.inf])
    whole = torch.ones_like(depth, dtype=torch.bool)
    whole[0, 0, :3] = False
    expected = lotus_target(depth, whole, norm).values
    found = lotus_target(holes, None, norm)
    torch.testing.assert_close(found.values[whole], expected[whole])
    assert torch.isfinite(found.values).all()
    assert found.valid[0, 0, :3].tolist() == [True, False, True]
    for target in (marigold_target(holes), e2e_ft_target(holes, between(holes, (0, 100)))):
        assert torch.isfinite(target.values).all()
        assert not target.valid[0, 0, 1]


def test_officially_every_valid_depth_sets_the_range():
    depth = metres(40, 56)
    holes = depth.clone()
    holes[0, 0, :9] = 0
    for norm in ("truncnorm", "trunc_disparity"):
        expected = lotus_target(depth, None, norm, compat="official").values
        torch.testing.assert_close(lotus_target(depth, None, norm).values, expected)
        official = lotus_target(holes, None, norm, compat="official").values
        assert not torch.allclose(lotus_target(holes, None, norm).values, official)
        assert torch.isfinite(official).all()
    flat = lotus_target(holes, None, "disparity", compat="official").values
    assert torch.isfinite(flat).all()


@pytest.mark.parametrize("level", [3.0, 0.0, math.nan])
def test_a_map_without_a_range_is_nowhere_valid(level):
    depth = torch.full((1, 5, 7), level)
    nothing = torch.zeros_like(depth, dtype=torch.bool)
    for valid in (torch.ones_like(nothing), nothing):
        for target in (marigold_target(depth, valid), e2e_ft_target(depth, valid)):
            assert not target.valid.any()
            assert not target.values.any()
    for norm in ("instnorm", "truncnorm", "disparity", "trunc_disparity"):
        flat = lotus_target(depth, None, norm)
        assert torch.isfinite(flat.values).all()
        assert flat.valid.all() if level == 3 else not flat.valid.any()
        assert not lotus_target(depth, nothing, norm).valid.any()
    assert (lotus_target(torch.full((1, 5, 7), 3.0)).values == -1).all()


def test_bad_depth_is_refused():
    depth = metres(5, 7)
    with pytest.raises(UsageError, match=r"depth: has shape \[5, 7\]"):
        marigold_target(depth[0])
    with pytest.raises(UsageError, match=r"valid: is float32 \[1, 5, 7\]"):
        lotus_target(depth, torch.ones_like(depth))
    with pytest.raises(UsageError, match=r"valid: is bool \[1, 5, 6\]"):
        e2e_ft_target(depth, depth[..., 1:] > 0)
    with pytest.raises(UsageError, match=r"quantile: is 0\.5"):
        marigold_target(depth, quantile=0.5)
    with pytest.raises(UsageError, match="knows no norm 'minmax'"):
        lotus_target(depth, norm="minmax")  # type: ignore[arg-type]


def test_samples_have_the_size_asked_for():
    rgb = (rand(30, 41, 3) * 256).byte().numpy()
    depth = metres(30, 41)
    valid = between(depth, (1.0, 9.0))
    samples = {
        "marigold": marigold_sample(rgb, depth, valid, (16, 24)),
        "lotus": lotus_sample(rgb, depth, valid, (16, 24)),
        "e2e": e2e_ft_sample(rgb, depth, valid, (16, 24)),
    }
    for sample in samples.values():
        assert sample.image.shape == (3, 16, 24)
        assert sample.image.abs().max() <= 1
        assert [part.shape for part in sample.target] == [(1, 16, 24)] * 3
        assert sample.target.valid.dtype == torch.bool
    # Marigold's pictures are pixels of the original, the others' are means.
    assert samples["marigold"].image.std() > 1.5 * samples["lotus"].image.std()
    assert torch.equal(samples["lotus"].image, samples["e2e"].image)
    full = marigold_sample(rgb, depth, valid)
    assert full.image.shape == (3, 30, 41)
    assert torch.equal(full.image, torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 * 2 - 1)


def test_nearest_takes_pixels():
    x = torch.arange(12.0).view(1, 2, 6)
    assert nearest(x, (1, 3)).flatten().tolist() == [7, 9, 11]
    assert nearest(x, (1, 3), "corner").flatten().tolist() == [0, 2, 4]
    assert nearest(x, (1, 2), "pillow").flatten().tolist() == [7, 10]
    assert nearest(rand(2, 5, 7), (3, 4), "pillow").shape == (2, 3, 4)
    assert nearest(x > 7, (2, 3), "pillow").dtype == torch.bool
    assert nearest(x > 7, (2, 3)).dtype == torch.bool
