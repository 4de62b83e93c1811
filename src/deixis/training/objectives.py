"""Training objectives of Marigold, Lotus and E2E-FT, and what each does to a Stable Diffusion U-Net first.

An objective takes latents, text vectors and a U-Net and gives a loss with everything it was made of. Where an
original is undefined or depends on how it was run, ``docs/semantics.md`` says what happens here, and
``compat="official"`` gives the original back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from deixis.backbones.latents import decode, encode
from deixis.errors import UsageError
from deixis.systems.lotus import TIMESTEP, task_embedding

Compat = Literal["official"]
Strategy = Literal["original", "every_layer", "power_of_two", "random_step"]
System = Literal["marigold", "lotus-d", "lotus-g", "e2e-ft"]

# Pixels to a side of a latent cell.
CELL = 8
# Marigold's noise: share of each coarser level at the end of the schedule, and the most levels.
NOISE_STRENGTH, NOISE_LEVELS = 0.9, 10
# Lotus' task has two switches, each as sine and cosine.
TASK_WIDTH = 4
# A prediction whose standard deviation is below this share of its mean is flat: what varies is rounding.
FLAT = 1e-6


class Objective(NamedTuple):
    """What one batch of N latents teaches.

    Attributes:
        loss: float32 scalar.
        parts: what the loss is the sum of, by name.
        inputs: what the U-Net saw, [N, 4 or 8, h, w].
        prediction: its output [N, 4, h, w].
        target: what that should have been.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    inputs: Tensor
    prediction: Tensor
    target: Tensor


class EndToEnd(NamedTuple):
    """What one batch teaches through the decoder.

    Attributes:
        loss: float32 scalar [m].
        prediction: the U-Net's v [B, 4, h, w].
        estimate: decoded depth [B, 1, H, W] in [-1, 1].
        scale: of the estimate, [B] [m].
        shift: of the estimate, [B] [m].
    """

    loss: Tensor
    prediction: Tensor
    estimate: Tensor
    scale: Tensor
    shift: Tensor


# The objectives.


def marigold_objective(
    unet: UNet2DConditionModel,
    picture: Tensor,
    depth: Tensor,
    text: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
    mask: Tensor | None = None,
) -> Objective:
    """Marigold: mean square error of v over the latent cells whose depth is known.

    Source: Ke et al. 2024, section 3.2; ``src/trainer/marigold_depth_trainer.py`` of prs-eth/Marigold.

    Args:
        unet: with eight input channels.
        picture: latent of the picture [B, 4, h, w].
        depth: latent of the normalised depth [B, 4, h, w].
        text: text vectors [B, T, C], or [1, T, C] for all.
        noise: [B, 4, h, w], see :func:`multi_resolution_noise`.
        timesteps: int64 [B].
        alphas_cumprod: of the training schedule [S]; zero-SNR or not, as the schedule says.
        mask: bool [B, 1, h, w], see :func:`latent_mask`; all cells without.

    Raises:
        UsageError: if shapes do not fit each other.
    """
    _same("marigold_objective", picture=picture, depth=depth, noise=noise)
    noisy = noised(depth, noise, timesteps, alphas_cumprod)
    target = velocity(depth, noise, timesteps, alphas_cumprod)
    inputs = torch.cat([picture, noisy], dim=1)
    prediction = unet(inputs, timesteps, encoder_hidden_states=_for_all(text, len(picture))).sample
    loss = mean_square(prediction, target, mask)
    return Objective(loss, {}, inputs, prediction, target)


def lotus_latents(
    vae: AutoencoderKL,
    image: Tensor,
    annotation: Tensor,
    picture_noise: Tensor | None = None,
    target_noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The doubled batch of Lotus: first every picture with its annotation, then every picture with itself.

    The original draws each latent from the posterior by itself, so that a picture's latent as input differs from
    the same picture's latent as target.

    Args:
        vae: the autoencoder.
        image: pictures [B, 3, H, W] in [-1, 1].
        annotation: normalised depth or disparity [B, 1, H, W] in [-1, 1].
        picture_noise: standard normal [2 B, 4, h, w] that picks the inputs' samples; posterior means without.
        target_noise: the same for the targets.

    Returns:
        inputs and targets, [2 B, 4, h, w] each.
    """
    inputs = encode(vae, torch.cat([image, image]), picture_noise)
    targets = encode(vae, torch.cat([annotation.expand(-1, 3, -1, -1), image]), target_noise)
    return inputs, targets


def lotus_objective(
    unet: UNet2DConditionModel,
    picture: Tensor,
    target: Tensor,
    text: Tensor,
    noise: Tensor | None = None,
    alphas_cumprod: Tensor | None = None,
    mask: Tensor | None = None,
    timestep: int = TIMESTEP,
) -> Objective:
    """Lotus: mean square error of the latent itself (x0), for the annotation and for the picture.

    The two halves of the doubled batch weigh the same. Reconstructing the picture is the detail preserver.
    Source: He et al. 2024, sections 4.1 to 4.3; ``train_lotus_d.py``, ``train_lotus_g.py`` of
    EnVision-Research/Lotus.

    Args:
        unet: with a task embedding; four input channels for Lotus-D, eight for Lotus-G.
        picture: latents of the pictures [2 B, 4, h, w], annotation half first.
        target: latents of annotations, then of pictures.
        text: text vectors [B, T, C], or [1, T, C] for all; both halves hear the same.
        noise: [2 B, 4, h, w] for Lotus-G, which sees the noised target beside the picture.
        alphas_cumprod: of the schedule [S], with ``noise``.
        mask: bool [B, 1, h, w] of the annotation; all cells without. Pictures are known everywhere.
        timestep: of the one step.

    Returns:
        parts ``annotation`` and ``reconstruction``.

    Raises:
        UsageError: if shapes do not fit each other, or the noise comes without its schedule.
    """
    _same("lotus_objective", picture=picture, target=target)
    if len(picture) % 2:
        raise UsageError("lotus_objective", f"was given {len(picture)} latents", "pass two halves, see lotus_latents")
    half, inputs = len(picture) // 2, picture
    if noise is not None:
        if alphas_cumprod is None:
            raise UsageError("lotus_objective", "was given noise without its schedule", "pass alphas_cumprod as well")
        _same("lotus_objective", picture=picture, noise=noise)
        timesteps = torch.full((len(target),), timestep, device=target.device)
        inputs = torch.cat([picture, noised(target, noise, timesteps, alphas_cumprod)], dim=1)
    task = torch.cat([task_embedding("annotation", picture[:half]), task_embedding("reconstruction", picture[half:])])
    words = _for_all(text, half).repeat(2, 1, 1)
    prediction = unet(inputs, timestep, encoder_hidden_states=words, class_labels=task).sample
    parts = {
        "annotation": mean_square(prediction[:half], target[:half], mask),
        "reconstruction": mean_square(prediction[half:], target[half:]),
    }
    return Objective(parts["annotation"] + parts["reconstruction"], parts, inputs, prediction, target)


def e2e_ft_objective(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    picture: Tensor,
    text: Tensor,
    depth: Tensor,
    valid: Tensor,
    alphas_cumprod: Tensor,
    noise: Tensor | None = None,
    compat: Compat | None = None,
    timestep: int = TIMESTEP,
) -> EndToEnd:
    """E2E-FT: mean absolute error of the decoded map in metres, after each map's best scale and shift.

    Gradients flow through the decoder, whose weights the caller has frozen, and through scale and shift. Source:
    Martin Garcia et al. 2024, section 4; ``training/train.py`` and ``training/util/loss.py`` of
    VisualComputingInstitute/diffusion-e2e-ft.

    Args:
        unet: with eight input channels.
        vae: the autoencoder.
        picture: latent of the picture [B, 4, h, w].
        text: text vectors [B, T, C], or [1, T, C] for all.
        depth: [B, 1, 8 h, 8 w] [m]; see :func:`deixis.training.normalise.e2e_ft_target`.
        valid: bool, of the same shape.
        alphas_cumprod: of the schedule [S].
        noise: [B, 4, h, w] in place of zeros.
        compat: see :func:`scale_and_shift`.
        timestep: of the one step.

    Raises:
        UsageError: if shapes do not fit each other.
    """
    start = torch.zeros_like(picture) if noise is None else noise
    _same("e2e_ft_objective", picture=picture, noise=start)
    timesteps = torch.full((len(picture),), timestep, device=picture.device)
    inputs = torch.cat([picture, start], dim=1)
    v = unet(inputs, timesteps, encoder_hidden_states=_for_all(text, len(picture))).sample
    x0 = x0_of(v, start, timesteps, alphas_cumprod)
    estimate = decode(vae, x0).mean(dim=1, keepdim=True).clamp(-1, 1)
    loss, scale, shift = scale_and_shift_invariant_l1(estimate, depth, valid, compat)
    return EndToEnd(loss, v, estimate, scale, shift)


# What they are made of.


def latent_mask(valid: Tensor) -> Tensor:
    """Latent cells bool [B, 1, H // 8, W // 8] whose 8 x 8 pixels are all valid.

    Rows and columns that do not fill a cell have no latent either (:func:`deixis.backbones.latents.encode`).

    Args:
        valid: bool [B, 1, H, W].

    Raises:
        UsageError: if it is not that, or smaller than a cell.
    """
    if valid.ndim != 4 or valid.shape[1] != 1 or valid.dtype != torch.bool or min(valid.shape[-2:]) < CELL:
        raise UsageError(
            "latent_mask",
            f"was given {_dtype(valid)} {list(valid.shape)}",
            f"pass bool [B, 1, H, W] of at least {CELL} x {CELL} pixels",
        )
    return F.max_pool2d((~valid).float(), CELL) == 0


def mean_square(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square error over the kept cells of the whole batch, a float32 scalar.

    Where the mask keeps nothing the originals give NaN; here the loss is 0 with a zero gradient.

    Args:
        prediction: [B, C, h, w].
        target: of the same shape.
        mask: bool [B, 1, h, w], the same for all channels.

    Raises:
        UsageError: if shapes or types do not fit.
    """
    _same("mean_square", prediction=prediction, target=target)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != prediction[:, :1].shape):
        raise UsageError(
            "mean_square",
            f"was given a mask {_dtype(mask)} {list(mask.shape)}",
            f"pass bool {list(prediction[:, :1].shape)}",
        )
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.mean()
    kept = error[mask.expand_as(error)]
    return kept.mean() if len(kept) else (0 * prediction.float()).sum()


def noised(x0: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """``sqrt(a) x0 + sqrt(1 - a) noise`` with ``a`` of each image's timestep; [B, C, h, w] in and out."""
    signal, rest = _shares(x0, timesteps, alphas_cumprod)
    return signal * x0 + rest * noise


def velocity(x0: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """``v = sqrt(a) noise - sqrt(1 - a) x0`` (Salimans and Ho 2022, appendix D); [B, C, h, w] in and out."""
    signal, rest = _shares(x0, timesteps, alphas_cumprod)
    return signal * noise - rest * x0


def x0_of(v: Tensor, noisy: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """``x0 = sqrt(a) noisy - sqrt(1 - a) v``, the latent that a v stands for; [B, C, h, w] in and out."""
    signal, rest = _shares(v, timesteps, alphas_cumprod)
    return signal * noisy - rest * v


def scale_and_shift(
    prediction: Tensor, target: Tensor, valid: Tensor, compat: Compat | None = None
) -> tuple[Tensor, Tensor]:
    """Per image the scale and shift [B] of the prediction that fit the target best, by least squares.

    The moments are centred, so that rounding does not decide. A prediction that is flat over the valid pixels, or
    has only one, has scale 0 and the targets' mean as its shift; one without a valid pixel has 0 and 0.

    Args:
        prediction: [B, 1, H, W].
        target: of the same shape; may hold anything where not valid.
        valid: bool, of the same shape.
        compat: ``official``: from raw moments in float32, and 0 and 0 wherever their determinant is not positive.

    Raises:
        UsageError: if shapes differ or ``valid`` is not bool.
    """
    _same("scale_and_shift", prediction=prediction, target=target, valid=valid)
    if valid.dtype != torch.bool:
        raise UsageError("scale_and_shift", f"was given valid as {_dtype(valid)}", "pass bool")
    p, t = prediction.float().flatten(1), target.float().flatten(1)
    weight = valid.flatten(1)
    p, t = torch.where(weight, p, 0.0), torch.where(weight, t, 0.0)
    count = weight.sum(dim=1).float()
    if compat == "official":
        square, total = p.square().sum(dim=1), p.sum(dim=1)
        product, goal = (p * t).sum(dim=1), t.sum(dim=1)
        determinant = square * count - total.square()
        solvable = determinant > 0
        safe = torch.where(solvable, determinant, 1.0)
        scale = torch.where(solvable, (count * product - total * goal) / safe, 0.0)
        shift = torch.where(solvable, (square * goal - total * product) / safe, 0.0)
        return scale, shift
    share = count.clamp_min(1)
    middle, goal = p.sum(dim=1) / share, t.sum(dim=1) / share
    off = torch.where(weight, p - middle[:, None], 0.0)
    spread = off.square().sum(dim=1) / share
    varied = spread > (FLAT * middle).square()
    common = (off * t).sum(dim=1) / share
    # The quotient must not even be evaluated at 0: an infinite derivative times 0 is NaN.
    scale = torch.where(varied, common / torch.where(varied, spread, 1.0), 0.0)
    return scale, goal - scale * middle


def scale_and_shift_invariant_l1(
    prediction: Tensor, target: Tensor, valid: Tensor, compat: Compat | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of ``|scale prediction + shift - target|`` over all valid pixels of the batch, and scale and shift [B].

    Pixels weigh the same, so an image with few valid ones weighs less. Without any the original gives NaN; here
    the loss is 0 with a zero gradient. Arguments, units and errors as :func:`scale_and_shift`; the loss is in the
    target's unit.
    """
    scale, shift = scale_and_shift(prediction, target, valid, compat)
    aligned = scale.view(-1, 1, 1, 1) * prediction.float() + shift.view(-1, 1, 1, 1)
    error = (aligned - torch.where(valid, target.float(), 0.0))[valid].abs()
    loss = error.mean() if len(error) else (0 * prediction.float()).sum()
    return loss, scale, shift


# Marigold's noise.


class NoiseSource(Protocol):
    """Where random numbers come from."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, of that shape."""

    def uniform(self) -> Tensor:
        """One number in [0, 1), float32 [1]."""


class TorchNoise:
    """torch's own random numbers, drawn in the order in which the original draws them.

    Args:
        generator: of them; torch's global one without.
        device: where they are made.
    """

    def __init__(self, generator: torch.Generator | None = None, device: torch.device | str | None = None) -> None:
        self.generator = generator
        self.device = device

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 of that shape."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self) -> Tensor:
        """One float32 in [0, 1), [1]."""
        return torch.rand(1, generator=self.generator, device=self.device)


def annealed_strength(timesteps: Tensor, strength: float = NOISE_STRENGTH, length: int = 1000) -> Tensor:
    """Strength of the coarser levels at each timestep, ``strength * t / length``, float32 [B]."""
    return strength * (timesteps / length)


def multi_resolution_noise(
    shape: tuple[int, int, int, int],
    strength: float | Tensor = NOISE_STRENGTH,
    strategy: Strategy = "original",
    source: NoiseSource | None = None,
    compat: Compat | None = None,
) -> Tensor:
    """Noise of unit standard deviation with coarser noise mixed in (Ke et al. 2024, section 3.2).

    Level i is drawn at a smaller size, stretched, and counts ``strength ** i``; level 0 is there twice, as in
    ``src/util/multi_res_noise.py`` of prs-eth/Marigold.

    Args:
        shape: [B, C, h, w].
        strength: in [0, 1], one for all images or one for each [B] (:func:`annealed_strength`).
        strategy: how sizes go down, see :func:`pyramid_sizes`.
        source: of the random numbers.
        compat: ``official``: one standard deviation for the whole batch, so that an image's noise depends on the
            images beside it, and annealed noise is weaker than 1 at early timesteps and stronger at late ones.
            By default each image has its own.

    Returns:
        float32 [B, C, h, w].

    Raises:
        UsageError: for a strategy that is not there, a strength outside [0, 1] or of another number of images, or
            images of a single number.
    """
    batch, channels, height, width = shape
    if channels * height * width < 2:
        raise UsageError("multi_resolution_noise", f"was asked for {list(shape)}", "ask for two numbers or more each")
    weight = torch.as_tensor(strength, dtype=torch.float32)
    if weight.numel() not in (1, batch):
        raise UsageError(
            "multi_resolution_noise",
            f"was given {weight.numel()} strengths for {batch} images",
            "give one for each, or one for all",
        )
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise UsageError("multi_resolution_noise", "was given a strength outside [0, 1]", "use 0.9 t / 1000, or 0.9")
    source = source or TorchNoise(device=weight.device)
    noise = source.normal(shape)
    weight = weight.to(noise).view(-1, 1, 1, 1)
    sizes = pyramid_sizes(height, width, strategy, source.uniform)
    for i, size in enumerate(sizes):
        coarse = source.normal((batch, channels, *size))
        noise = noise + F.interpolate(coarse, size=(height, width), mode="bilinear") * weight**i
    if compat == "official":
        return noise / noise.std()
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)


def pyramid_sizes(
    height: int, width: int, strategy: Strategy, uniform: Callable[[], Tensor]
) -> Iterator[tuple[int, int]]:
    """Sizes of the coarser levels of noise, each drawn when it is asked for.

    ``original`` divides the last size by ``r ** i`` at level i, with a new r in [2, 4) each time;
    ``random_step`` by r alone; ``power_of_two`` by ``2 ** i``; ``every_layer`` halves. All end when a side is 1.

    Raises:
        UsageError: for a strategy that is not there.
    """
    if strategy not in ("original", "every_layer", "power_of_two", "random_step"):
        raise UsageError(
            "pyramid_sizes",
            f"knows no strategy '{strategy}'",
            "use original, every_layer, power_of_two or random_step",
        )
    levels = int(math.log2(min(height, width))) if strategy == "every_layer" else NOISE_LEVELS
    for i in range(levels):
        ratio: float | Tensor = 2.0
        if strategy == "power_of_two":
            ratio = 2.0**i
        elif strategy != "every_layer":
            ratio = uniform() * 2 + 2
            ratio = ratio**i if strategy == "original" else ratio
        height, width = max(1, int(height / ratio)), max(1, int(width / ratio))
        yield height, width
        if strategy != "every_layer" and min(height, width) == 1:
            return


# Before and during training.


def iter_exponential(step: int, total: int, final_ratio: float = 0.01, warmup: int = 0) -> float:
    """Multiplier of the learning rate at an optimiser step: a linear rise, then an exponential fall.

    Marigold uses ``total`` 25000 and ``warmup`` 100, E2E-FT 20000 and 100, both ``final_ratio`` 0.01. The first of
    the warm-up's steps has rate 0. Source: ``src/util/lr_scheduler.py`` of prs-eth/Marigold.

    Args:
        step: from 0.
        total: the step at which the fall ends.
        final_ratio: the multiplier from there on.
        warmup: steps of the rise.

    Raises:
        UsageError: if ``0 <= warmup < total`` or ``0 < final_ratio`` does not hold (undefined in the original).
    """
    if not 0 <= warmup < total:
        raise UsageError("iter_exponential", f"has a warm-up of {warmup} in {total} steps", "use 0 <= warmup < total")
    if not final_ratio > 0:
        raise UsageError("iter_exponential", f"ends at {final_ratio}", "use a ratio above 0")
    if step < warmup:
        return step / warmup
    if step >= total:
        return final_ratio
    return float(final_ratio ** ((step - warmup) / (total - warmup)))


def depth_unet(unet: UNet2DConditionModel, system: System) -> UNet2DConditionModel:
    """A U-Net made ready for a system, in place, as that system's training begins.

    It is Stable Diffusion's, or another system's that has part or all of what this one needs, and keeps that: E2E-FT
    fine-tunes Marigold, Lotus-G may start from Lotus-D and at first listens to no noise.

    Raises:
        UsageError: for an unknown system, or a U-Net that has what this one has no use for.
    """
    if system not in ("marigold", "lotus-d", "lotus-g", "e2e-ft"):
        raise UsageError("depth_unet", f"knows no system '{system}'", "use marigold, lotus-d, lotus-g or e2e-ft")
    two_tasks = system in ("lotus-d", "lotus-g")
    _check_plain("depth_unet", unet, width=system == "lotus-d", embedding=not two_tasks)
    if system != "lotus-d" and unet.config.in_channels == unet.config.out_channels:
        widen_input(unet, halve_bias=system == "e2e-ft", silent=unet.class_embedding is not None)
    if two_tasks and unet.class_embedding is None:
        add_task_embedding(unet)
    return unet


def widen_input(unet: UNet2DConditionModel, *, halve_bias: bool = False, silent: bool = False) -> UNet2DConditionModel:
    """Four input channels become eight, in place: the first layer's weights twice, at half their size.

    Args:
        unet: of Stable Diffusion.
        halve_bias: E2E-FT from Stable Diffusion 2 halves the bias as well; Marigold and Lotus-G keep it.
        silent: the new channels have no weight instead, so that the network gives what it gave without them.

    Raises:
        UsageError: if the U-Net's input is not as wide as its output, so has been widened.
    """
    _check_plain("widen_input", unet, embedding=False)
    old = unet.conv_in
    new = nn.Conv2d(
        2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None
    ).to(old.weight)
    with torch.no_grad():
        doubled = torch.cat([old.weight, torch.zeros_like(old.weight)], dim=1)
        new.weight.copy_(doubled if silent else old.weight.repeat(1, 2, 1, 1) / 2)
        if new.bias is not None:
            new.bias.copy_(old.bias / 2 if halve_bias else old.bias)
    new.requires_grad_(old.weight.requires_grad)
    unet.conv_in = new
    unet.register_to_config(in_channels=2 * unet.config.in_channels)
    return unet


def add_task_embedding(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Lotus' task switch, in place: two random layers whose output is added to the timestep's embedding.

    Raises:
        UsageError: if the U-Net has class embeddings already.
    """
    _check_plain("add_task_embedding", unet, width=False)
    width = unet.time_embedding.linear_2.out_features
    unet.class_embedding = TimestepEmbedding(TASK_WIDTH, width).to(unet.conv_in.weight)
    unet.register_to_config(class_embed_type="projection", projection_class_embeddings_input_dim=TASK_WIDTH)
    return unet


def _check_plain(subject: str, unet: UNet2DConditionModel, *, width: bool = True, embedding: bool = True) -> None:
    """Refuse a U-Net whose input is wider than its output, or with class embeddings."""
    inputs, outputs = unet.config.in_channels, unet.config.out_channels
    if width and inputs != outputs:
        problem = f"was given a U-Net of {inputs} input and {outputs} output channels"
    elif embedding and unet.class_embedding is not None:
        problem = "was given a U-Net with class embeddings"
    else:
        return
    raise UsageError(subject, problem, "start from a plain Stable Diffusion U-Net")


def _shares(like: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise, [B, 1, 1, 1]."""
    # Roots before the cast, as the square roots of half-precision numbers near 0 and 1 are coarse.
    alpha = alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt().to(like), (1 - alpha).sqrt().to(like)


def _for_all(text: Tensor, count: int) -> Tensor:
    if text.ndim != 3 or len(text) not in (1, count):
        raise UsageError("text", f"has shape {list(text.shape)}", f"pass [{count}, T, C], or [1, T, C] for all")
    return text.expand(count, -1, -1)


def _same(subject: str, **tensors: Tensor) -> None:
    (first, wanted), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != wanted.shape:
            raise UsageError(
                subject,
                f"{first} has shape {list(wanted.shape)} and {name} {list(tensor.shape)}",
                "pass tensors of one shape",
            )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
