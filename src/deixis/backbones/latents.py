"""The latent space of a diffusers autoencoder: pictures in, four channels at an eighth of the size, pictures out."""

from __future__ import annotations

from diffusers import AutoencoderKL
from torch import Tensor


def encode(vae: AutoencoderKL, image: Tensor, noise: Tensor | None = None) -> Tensor:
    """Picture [B, 3, H, W] in [-1, 1] to scaled latents [B, 4, H // 8, W // 8].

    Args:
        vae: the autoencoder.
        image: the picture. Sides need not divide by 8; what is over is then not seen.
        noise: standard normal [B, 4, h, w], for a sample of the posterior; its mean without.
    """
    posterior = vae.encode(image).latent_dist
    latents: Tensor = posterior.mean if noise is None else posterior.mean + posterior.std * noise
    return latents * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents [B, 4, h, w] to a picture [B, 3, 8 h, 8 w], about [-1, 1] and not clipped."""
    picture: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return picture
