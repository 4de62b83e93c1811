"""Marigold (Ke et al.): depth by denoising a depth latent beside the picture's, and with words as in Iris.

A depth map is a grey picture to the autoencoder. The U-Net sees the picture's latent and the noisy depth latent,
predicts v, and N steps of its scheduler lead from noise to depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from deixis.backbones.latents import decode, encode
from deixis.conditioning.text import TextTower


@dataclass(frozen=True)
class MarigoldConfig:
    """What a Marigold folder says beside its networks.

    Attributes:
        steps: denoising steps where nobody says how many.
        resolution: longer side at which pictures go through the networks [px]; 0 for their own.
        scale_invariant: maps of an ensemble differ in scale.
        shift_invariant: and in shift.
    """

    steps: int = 4
    resolution: int = 768
    scale_invariant: bool = True
    shift_invariant: bool = True


class Marigold(nn.Module):
    """Picture, text vectors and noise to affine-invariant depth.

    Args:
        config: defaults of the folder.
        vae: autoencoder of pictures and of depth.
        unet: denoiser with eight input channels.
        text_tower: of the captions; not used in ``forward``.
        scheduler: DDIM, or LCM for distilled weights; its spacing and zero-SNR setting come with the weights.
    """

    def __init__(
        self,
        config: MarigoldConfig,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_tower: TextTower | None,
        scheduler: DDIMScheduler | LCMScheduler,
    ) -> None:
        super().__init__()
        self.config = config
        self.vae = vae
        self.unet = unet
        self.text_tower = text_tower
        self.scheduler = scheduler

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        noise: Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Picture [B, 3, H, W] in [-1, 1], text [B, T, C] and noise [B, 4, h, w] to depth [B, 1, 8 h, 8 w] in [0, 1].

        Args:
            image: the picture.
            text: what is said about it.
            noise: where denoising starts, standard normal.
            steps: of the scheduler; the folder's own number by default.
            generator: of the noise that LCM adds between steps.
        """
        latents = self.denoise(encode(self.vae, image), text, noise, steps, generator)[-1]
        return depth_of(decode(self.vae, latents))

    def denoise(
        self,
        picture: Tensor,
        text: Tensor,
        noise: Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """The depth latent [B, 4, h, w] after each step, from the picture's latent; the last is the result."""
        self.scheduler.set_timesteps(steps or self.config.steps, device=noise.device)
        # LCM draws noise between its steps; DDIM draws none.
        extra = {"generator": generator} if isinstance(self.scheduler, LCMScheduler) else {}
        latents, found = noise, []
        for t in self.scheduler.timesteps:
            v = self.unet(torch.cat([picture, latents], dim=1), t, encoder_hidden_states=text).sample
            latents = self.scheduler.step(v, t, latents, **extra).prev_sample
            found.append(latents)
        return found


def depth_of(picture: Tensor) -> Tensor:
    """Decoded picture [B, 3, H, W] to depth [B, 1, H, W] in [0, 1]: the mean of its channels, clipped."""
    return picture.mean(dim=1, keepdim=True).clamp(-1, 1) * 0.5 + 0.5
