"""Text-to-image pre-training of the mini Stable Diffusion: latent diffusion with captions (Rombach et al.).

v-prediction on cached latents, captions dropped at times so that guidance works, and, while there is a teacher, its
features predicted from the U-Net on the way (representation alignment): a few million samples of a few thousand
pictures would not teach the U-Net to see otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.checkpoints.layout import SCHEDULER
from deixis.conditioning.text import TextTower, tokenize
from deixis.data.nyuv2_captions import PARAPHRASES
from deixis.data.world import LEVELS
from deixis.protocols.trivial import interval
from deixis.training.distill import BLOCKS, teacher_maps
from deixis.training.gallery import ROWS, Cell, drawn, sheet
from deixis.training.scenes import spread
from deixis.training.store import Sampler, Store

# Near t = 0 the picture is all but clean: what perception reads the U-Net with.
CLEAN_STEPS = 50
# Of samples: how much they are told, and steps where a run is only looked at.
GUIDANCE, LOOK_STEPS = 4.0, 10


class TextToImage(nn.Module):
    """Text tower and U-Net, which are trained; the autoencoder is not part of it.

    Args:
        text_tower: of the backbone.
        unet: its denoiser.
    """

    def __init__(self, text_tower: TextTower, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_tower = text_tower
        self.unet = unet

    def forward(self, noisy: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        """Noisy latents [B, 4, h, w], timesteps [B] and token ids [B, T] to the predicted velocity [B, 4, h, w]."""
        velocity: Tensor = self.unet(noisy, timestep, encoder_hidden_states=self.text_tower(ids)).sample
        return velocity


class Alignment(nn.Module):
    """Predict the teacher's standardised maps from the U-Net's two finest levels on its way up.

    Args:
        channels: of these levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.predict = nn.ModuleList(
            nn.Conv2d(c, out, kernel_size=1) for c, (_, out) in zip(channels, BLOCKS, strict=True)
        )

    def forward(self, features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Levels [B, C_i, h_i, w_i] and maps [B, T_i, ., .] to a scalar."""
        losses = []
        for predict, level, target in zip(self.predict, features, targets, strict=True):
            wanted = F.interpolate(target, size=level.shape[-2:], mode="bilinear", align_corners=False)
            losses.append(F.mse_loss(predict(level), wanted))
        return torch.stack(losses).mean()


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor, *, batch: int = 64) -> Tensor:
    """Pictures uint8 [N, 3, H, W] to scaled latents float16 [N, 4, H/8, W/8]."""
    device = next(vae.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        x = images[start : start + batch].to(device).float() / 127.5 - 1
        parts.append((vae.encode(x).latent_dist.mean * vae.config.scaling_factor).half().cpu())
    return torch.cat(parts)


@dataclass
class TextToImageTask:
    """Batches of latents and captions for :func:`deixis.training.loop.train`.

    Args:
        train, val: the frames.
        shares: of the sources.
        vae: the trained autoencoder.
        size: (height, width) of the pictures [px].
        tokenizer: of the text tower.
        tokens: text length.
        batch_size: pictures a step.
        text_levels: how often a caption of each level is taken.
        text_rate: how often there is a caption at all; 0 trains without text.
        clean: share of samples drawn from the first :data:`CLEAN_STEPS` timesteps.
        align: weight of the teacher's loss; 0 trains without a teacher.
        channels: of the U-Net's levels.
    """

    train: Store
    val: Store
    shares: tuple[float, float, float]
    vae: AutoencoderKL
    size: tuple[int, int]
    tokenizer: CLIPTokenizer
    tokens: int
    batch_size: int
    text_levels: tuple[float, ...]
    text_rate: float
    clean: float
    align: float
    channels: Sequence[int]
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.data = self.train.fingerprint
        self.scheduler = DDIMScheduler(**SCHEDULER)
        self.sampler = Sampler(self.train, self.shares)
        self.levels = torch.tensor(self.text_levels, dtype=torch.float)
        pictures = fitted(self.train.images, self.size)
        both = [encode(self.vae, pictures), encode(self.vae, pictures.flip(-1))]
        self.latents = torch.stack(both, dim=1)  # [N, 2, 4, h, w]
        told = [self.train.token_ids(self.tokenizer, self.tokens, mirrored=mirrored) for mirrored in (False, True)]
        self.ids = torch.stack(told, dim=1)
        self.empty = tokenize(self.tokenizer, [""], self.tokens)
        self.val_latents = encode(self.vae, fitted(self.val.images, self.size))
        self.val_ids = self.val.token_ids(self.tokenizer, self.tokens)
        self.maps: list[Tensor] = []
        if self.align:
            self.auxiliary = Alignment(self.channels[:2])
            self.maps = [standardised(one) for one in teacher_maps(pictures)]

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``latents``, ``noise`` [B, 4, h, w], ``timestep`` [B], ``ids`` [B, T] and the teacher's ``maps``."""
        n = self.batch_size
        rows = self.sampler(n, generator)
        flipped = (torch.rand(n, generator=generator) < 0.5).long()
        level = torch.multinomial(self.levels, n, replacement=True, generator=generator)
        which = torch.randint(PARAPHRASES, (n,), generator=generator)
        told = torch.rand(n, generator=generator) < self.text_rate
        latents = self.latents[rows, flipped].float()
        timestep = torch.randint(self.scheduler.config.num_train_timesteps, (n,), generator=generator)
        early = torch.rand(n, generator=generator) < self.clean
        timestep = torch.where(early, timestep % CLEAN_STEPS, timestep)
        maps = [one[rows].float() for one in self.maps]
        return {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=generator),
            "timestep": timestep,
            "ids": torch.where(told[:, None], self.ids[rows, flipped, level, which].long(), self.empty),
            "maps": [torch.where(flipped.view(-1, 1, 1, 1) > 0, one.flip(-1), one) for one in maps],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Mean squared error of the velocity, and of the teacher's features."""
        unet: Any = model.unet
        levels: list[Tensor] = []
        hooks: list[Any] = []
        if self.maps:  # where :class:`deixis.backbones.features.UNetFeatures` reads levels 1 and 0
            hooks = [
                module.register_forward_hook(lambda _m, _i, output: levels.append(_tensor(output)))
                for module in (unet.up_blocks[2].attentions[-2], unet.up_blocks[3])
            ]
        try:
            loss = self.errors(model, batch).mean()
        finally:
            for hook in hooks:
                hook.remove()
        if self.maps:
            loss = loss + self.align * self.auxiliary(levels[::-1], batch["maps"])
        return loss

    def errors(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Squared error of the predicted velocity per sample [B]."""
        latents, noise, timestep = batch["latents"], batch["noise"], batch["timestep"]
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        target = self.scheduler.get_velocity(latents, noise, timestep)
        return (model(noisy, timestep, batch["ids"]) - target).square().mean(dim=(1, 2, 3))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """What the right caption is worth on validation frames (see :func:`text_gate`)."""
        found = text_gate(self, model, limit=200)
        return {f"val_{name}": value for name, value in found.items()}

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """A few validation frames beside samples of their captions, two in a row."""
        training = model.training
        model.eval()
        some = spread(range(len(self.val)), 2 * ROWS)
        told = self.val_ids[some, 1, 0].long()  # the main things: short enough to be read
        made = sampled(model, self.vae, torch.cat([told, self.empty.expand(len(some), -1)]), self.size, LOOK_STEPS)
        cells: list[Cell] = []
        for row, one in zip(some, made, strict=True):
            frame = fitted(self.val.images[row][None], self.size).float() / 127.5 - 1
            cells += [(drawn(frame), self.val.places[row]), (drawn(one[None]), self.val.captions[row][1][0])]
        model.train(training)
        return sheet(cells, 4) if cells else None


@torch.inference_mode()
def sampled(model: nn.Module, vae: AutoencoderKL, ids: Tensor, size: tuple[int, int], steps: int) -> Tensor:
    """Pictures of texts by DDIM with guidance, about [-1, 1], [N, 3, *size], always from the same noise.

    Args:
        model: text tower and U-Net, in evaluation mode.
        vae: the autoencoder.
        ids: token ids of N texts, then of N empty ones [2 N, T].
        size: (height, width) of the pictures [px].
        steps: of the sampling.
    """
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    device, n = next(model.parameters()).device, len(ids) // 2
    shape = (n, vae.config.latent_channels, size[0] // 8, size[1] // 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for step in scheduler.timesteps:
        twice, at = latents.repeat(2, 1, 1, 1), step.to(device).expand(2 * n)
        told, untold = model(twice, at, ids.to(device)).chunk(2)
        latents = scheduler.step(untold + GUIDANCE * (told - untold), step, latents).prev_sample
    pictures: Tensor = vae.decode(latents.to(next(vae.parameters()).device) / vae.config.scaling_factor).sample
    return pictures


@dataclass(frozen=True)
class _Mean:
    """The mean of some of the values."""

    values: np.ndarray[Any, np.dtype[np.float64]]

    def __call__(self, rows: np.ndarray[Any, Any]) -> float:
        return float(self.values[rows].mean())


def _tensor(output: Any) -> Tensor:  # noqa: ANN401 - blocks return a tensor or a tuple of one
    return output[0] if isinstance(output, tuple) else getattr(output, "sample", output)


def fitted(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, 3, h, w] to uint8 [N, 3, *size] with antialiasing, in parts."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    parts = [
        F.interpolate(part.float(), size=size, mode="bilinear", antialias=True, align_corners=False).round().byte()
        for part in images.split(256)
    ]
    return torch.cat(parts)


def standardised(maps: Tensor) -> Tensor:
    """Each channel to mean 0 and standard deviation 1 over everything, float16."""
    flat = maps.float()
    return ((flat - flat.mean(dim=(0, 2, 3), keepdim=True)) / (flat.std(dim=(0, 2, 3), keepdim=True) + 1e-5)).half()


@torch.inference_mode()
def text_gate(
    task: TextToImageTask, model: nn.Module, *, limit: int, noises: int = 2, of: int = 10
) -> dict[str, float]:
    """Does the denoiser use its text? Paired losses with the right, the empty and another frame's caption.

    Every frame is denoised from the same noise at the same timesteps with each text. ``first_of_10`` is how often
    the right one of ten captions gives the smallest loss.

    Args:
        task: holds validation latents and captions.
        model: text tower and U-Net.
        limit: frames.
        noises: noise draws a frame, at timesteps spread over the schedule.
        of: captions to choose from.

    Returns:
        mean loss with the right caption, how much larger it is with an empty one and with another frame's (and the
        lower ends of their 95 % intervals over frames), and the retrieval rate.
    """
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(7)
    n = min(limit, len(task.val_latents))
    order = torch.randperm(len(task.val_latents), generator=generator)[:n]
    steps = torch.linspace(150, 900, noises + 2).long()[1:-1].tolist()
    right, empty, other = caption_losses(task, model, order, steps, generator).mean(dim=0).double().numpy()
    hits = retrieved(task, model, order, steps, generator, of)
    model.train(training)
    out = {"loss": float(right.mean()), f"first_of_{of}": float(hits.float().mean()) if len(hits) else 0.0}
    for name, values in (("empty", empty), ("other", other)):
        difference = values - right
        low, _ = interval(_Mean(difference), n, resamples=500)
        out[f"{name}_minus_right"] = float(difference.mean())
        out[f"{name}_minus_right_low"] = low
    return out


@torch.inference_mode()
def caption_losses(
    task: TextToImageTask, model: nn.Module, order: Tensor, steps: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Losses [S, 3, N] at each timestep with the right caption, an empty one and that of the frame before.

    Args:
        task: holds validation latents and captions.
        model: text tower and U-Net, in evaluation mode.
        order: the frames [N].
        steps: timesteps [S].
        generator: of the noise, which is the same for each text.
    """
    n = len(order)
    right = task.val_ids[order, LEVELS - 2, 0].long()
    texts = (right, task.empty.expand(n, -1), right.roll(1, dims=0))
    latents = task.val_latents[order].float()
    losses = torch.zeros(len(steps), len(texts), n)
    for row, step in enumerate(steps):
        noise = torch.randn(latents.shape, generator=generator)
        timestep = torch.full((n,), step)
        for kind, ids in enumerate(texts):
            for some in torch.arange(n).split(50):
                part = {"latents": latents[some], "noise": noise[some], "timestep": timestep[some], "ids": ids[some]}
                losses[row, kind, some] = task.errors(model, part)
    return losses


@torch.inference_mode()
def retrieved(
    task: TextToImageTask, model: nn.Module, order: Tensor, steps: Sequence[int], generator: torch.Generator, of: int
) -> Tensor:
    """Whether the right one of ``of`` captions gives the smallest loss, bool [N], N cut to a multiple of ``of``.

    Arguments as for :func:`caption_losses`.
    """
    latents, right = task.val_latents[order].float(), task.val_ids[order, LEVELS - 2, 0].long()
    hits = [torch.zeros(0, dtype=torch.bool)]
    for rows in torch.arange(len(order) // of * of).view(-1, of):
        table = torch.zeros(of, of)
        for step in steps:
            noise = torch.randn(latents[rows].shape, generator=generator)
            part = {
                "latents": latents[rows].repeat_interleave(of, dim=0),
                "noise": noise.repeat_interleave(of, dim=0),
                "timestep": torch.full((of * of,), step),
                "ids": right[rows].repeat(of, 1),
            }
            table += task.errors(model, part).view(of, of)
        hits.append(table.argmin(dim=1).eq(torch.arange(of)))
    return torch.cat(hits)
