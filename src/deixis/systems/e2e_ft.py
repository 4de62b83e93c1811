"""E2E-FT (Martin Garcia et al.): Marigold's network in one step, fine-tuned end to end through the decoder.

The noise is replaced by zeros, the one step starts at the last timestep, and what is decoded is the x0 that the
predicted v stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from deixis.backbones.latents import decode, encode
from deixis.conditioning.text import TextTower


@dataclass(frozen=True)
class E2EFTConfig:
    """What an E2E-FT folder says beside its networks.

    Attributes:
        resolution: longer side at which pictures go through the networks [px]; 0 for their own.
    """

    resolution: int = 768


class E2EFT(nn.Module):
    """Picture and text vectors to affine-invariant depth.

    Args:
        config: defaults of the folder.
        vae: autoencoder of pictures and of depth.
        unet: denoiser with eight input channels.
        text_tower: of the captions; not used in ``forward``.
        scheduler: DDIM, trailing spacing without zero SNR.
    """

    def __init__(
        self,
        config: E2EFTConfig,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_tower: TextTower | None,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.config = config
        self.vae = vae
        self.unet = unet
        self.text_tower = text_tower
        self.scheduler = scheduler

    def forward(self, image: Tensor, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Picture [B, 3, H, W] in [-1, 1] and text [B, T, C] to depth [B, 1, 8 h, 8 w] in [0, 1].

        Args:
            image: the picture.
            text: what is said about it.
            noise: in place of the zeros [B, 4, h, w].
        """
        picture = decode(self.vae, self.predict_x0(encode(self.vae, image), text, noise))
        return picture.mean(dim=1, keepdim=True).clamp(-1, 1) * 0.5 + 0.5

    def predict_x0(self, picture: Tensor, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """The depth latent [B, 4, h, w]."""
        self.scheduler.set_timesteps(1, device=picture.device)
        t = self.scheduler.timesteps[0]
        start = torch.zeros_like(picture) if noise is None else noise
        v = self.unet(torch.cat([picture, start], dim=1), t, encoder_hidden_states=text).sample
        x0: Tensor = self.scheduler.step(v, t, start).pred_original_sample
        return x0


def stretched(depth: Tensor) -> Tensor:
    """Each map of [B, 1, H, W] from 0 to 1, as E2E-FT gives them; a flat map is 0."""
    low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
    return (depth - low) / (high - low).clamp_min(torch.finfo(depth.dtype).tiny)
