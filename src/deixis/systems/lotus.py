"""Lotus (He et al.): depth, or disparity, in one step that predicts the latent itself (x0), with a task switch.

The same network gives the annotation or, as its detail preserver, the picture back: an embedding of the task is
added to that of the timestep. Lotus-D sees the picture alone, Lotus-G noise beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from deixis.backbones.latents import decode, encode
from deixis.conditioning.text import TextTower

Task = Literal["annotation", "reconstruction"]
TASKS: dict[Task, tuple[float, float]] = {"annotation": (1.0, 0.0), "reconstruction": (0.0, 1.0)}
# The one step is taken from the end of the noise schedule.
TIMESTEP = 999


@dataclass(frozen=True)
class LotusConfig:
    """What a Lotus folder says beside its networks.

    Attributes:
        kind: what the maps are.
        resolution: longer side at which pictures go through the networks [px]; 0 for their own.
    """

    kind: Literal["affine", "disparity"] = "affine"
    resolution: int = 768


class Lotus(nn.Module):
    """Picture and text vectors to affine-invariant depth or disparity.

    Args:
        config: defaults of the folder.
        vae: autoencoder of pictures and of depth.
        unet: network with a projection of the task; four input channels for Lotus-D, eight for Lotus-G.
        text_tower: of the captions; not used in ``forward``.
    """

    def __init__(
        self, config: LotusConfig, vae: AutoencoderKL, unet: UNet2DConditionModel, text_tower: TextTower | None
    ) -> None:
        super().__init__()
        self.config = config
        self.vae = vae
        self.unet = unet
        self.text_tower = text_tower

    @property
    def generative(self) -> bool:
        """Whether it needs noise (Lotus-G)."""
        return bool(self.unet.config.in_channels > self.vae.config.latent_channels)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        noise: Tensor | None = None,
        task: Task = "annotation",
        sample: Tensor | None = None,
    ) -> Tensor:
        """Picture [B, 3, H, W] in [-1, 1] and text [B, T, C] to a map [B, 1, 8 h, 8 w] in [0, 1].

        Args:
            image: the picture.
            text: what is said about it.
            noise: standard normal [B, 4, h, w], for Lotus-G.
            task: the annotation, or the picture again.
            sample: standard normal [B, 4, h, w] that picks a sample of the picture's posterior; its mean without.
        """
        latents = self.predict(encode(self.vae, image, sample), text, noise, task)
        picture = decode(self.vae, latents) * 0.5 + 0.5
        return picture.clamp(0, 1).mean(dim=1, keepdim=True)  # clipped first, unlike Marigold's

    def predict(self, picture: Tensor, text: Tensor, noise: Tensor | None = None, task: Task = "annotation") -> Tensor:
        """The picture's latent [B, 4, h, w] to that of the task."""
        x = picture
        if self.generative:
            assert noise is not None
            x = torch.cat([picture, noise], dim=1)
        latents: Tensor = self.unet(
            x, TIMESTEP, encoder_hidden_states=text, class_labels=task_embedding(task, picture)
        ).sample
        return latents


def task_embedding(task: Task, like: Tensor) -> Tensor:
    """[B, 4]: sine and cosine of the task's two switches."""
    switch = torch.tensor([TASKS[task]], dtype=like.dtype, device=like.device)
    return torch.cat([switch.sin(), switch.cos()], dim=-1).expand(len(like), -1)
