"""A latent diffusion model read as a hierarchical feature extractor (VPD section 3, EVP section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from deixis.errors import ModelError


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] with zeros at the right and the bottom until both sides divide by ``multiple``."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))


class ImageEncoder(nn.Module):
    """The encoder half of a diffusers ``AutoencoderKL``: image to posterior mean.

    The decoder is left behind: perception never decodes, and it is 49 M of the 84 M parameters.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv
        self.stride = 2 ** (len(vae.config.block_out_channels) - 1)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] to unscaled latents [B, Z, H / stride, W / stride]; Z = 4 in Stable Diffusion."""
        moments = self.quant_conv(self.encoder(image))  # [B, 2 Z, h, w]
        mean: Tensor = moments.chunk(2, dim=1)[0]  # [B, Z, h, w]
        return mean


def attended(attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor) -> Tensor:
    """Probabilities [B, h, N, T] with which N pixels look at T tokens, in each of h heads."""
    query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, h, N, d]
    key = attn.to_k(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, h, T, d]
    probabilities: Tensor = (query @ key.transpose(-1, -2) * attn.scale).softmax(dim=-1)
    return probabilities


class _RecordingAttention:
    """Cross-attention that keeps its probabilities, averaged over heads.

    Only the blocks whose maps are used carry it; all others run the fused kernel, which never holds
    the probabilities in memory.
    """

    def __init__(self) -> None:
        self.map: Tensor | None = None  # [B, N, T] of the last call

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
    ) -> Tensor:
        value = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        probabilities = attended(attn, hidden_states, encoder_hidden_states)  # [B, h, N, T]
        self.map = probabilities.mean(dim=1)
        out = (probabilities @ value).transpose(1, 2).flatten(2)  # [B, N, h * d]
        projected: Tensor = attn.to_out[0](out)
        return projected


class UNetFeatures(nn.Module):
    """One U-Net pass at t = 1 as four feature maps, finest first.

    VPD reads the decoder side of the U-Net after the last-but-one layer of each resolution (the last
    one is followed by the upsampling) and, at the finest resolution, before the output convolution,
    which perception does not use and which is dropped here.

    Args:
        unet: a diffusers ``UNet2DConditionModel`` with four resolutions. It is modified in place.
        attention_maps: append the cross-attention maps, averaged over heads and over the layers of the
            down and up blocks, to levels 1 and 2 (EVP, and VPD for referring).
        tokens: number of text tokens, hence of appended channels.

    Attributes:
        channels: channels of the four levels, appended maps included.

    Raises:
        ModelError: if the U-Net does not have four resolutions, or no cross-attention where maps are read.
    """

    attention_levels = (1, 2)

    def __init__(self, unet: UNet2DConditionModel, *, attention_maps: bool, tokens: int) -> None:
        super().__init__()
        widths: Sequence[int] = unet.config.block_out_channels
        if len(widths) != 4:
            raise ModelError("unet", f"has {len(widths)} resolutions", "EVP and VPD need a U-Net with four")
        # Dropped, not frozen: unused parameters would be saved, counted and synchronised for nothing.
        unet.conv_norm_out = None
        unet.conv_out = None
        unet.set_attn_processor(AttnProcessor2_0())
        self.unet = unet
        self.channels = list(widths)
        # The coarsest three taps come after up blocks 0, 1, 2: widths of levels 3, 2, 1.
        self.stride = 2 ** (len(widths) - 1)
        self._probes: dict[int, list[_RecordingAttention]] = {}
        if attention_maps:
            for level in self.attention_levels:
                self._probes[level] = self._probe(level)
                self.channels[level] += tokens

    def _probe(self, level: int) -> list[_RecordingAttention]:
        probes = []
        for block in (self.unet.down_blocks[level], self.unet.up_blocks[-1 - level]):
            for attention in getattr(block, "attentions", ()):
                for transformer in attention.transformer_blocks:
                    probe = _RecordingAttention()
                    transformer.attn2.set_processor(probe)
                    probes.append(probe)
        if not probes:
            raise ModelError(
                "unet",
                f"has no cross-attention at level {level}",
                "choose one with text at its two middle levels",
            )
        return probes

    def forward(self, latents: Tensor, context: Tensor) -> list[Tensor]:
        """Latents [B, Z, h, w] (sides divisible by ``stride``) and text [B, T, C] to four levels.

        Returns [B, C0, h, w], [B, C1, h/2, w/2], [B, C2, h/4, w/4], [B, C3, h/8, w/8].
        """
        unet = self.unet
        timestep = torch.ones(latents.shape[0], dtype=torch.long, device=latents.device)
        time = unet.time_embedding(unet.time_proj(timestep).to(latents.dtype))  # [B, E]

        x = unet.conv_in(latents)  # [B, C0, h, w]
        skips = [x]
        for block in unet.down_blocks:
            for resnet, attention in _layers(block):
                x = resnet(x, time)
                if attention is not None:
                    x = attention(x, encoder_hidden_states=context, return_dict=False)[0]
                skips.append(x)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)

        x = unet.mid_block(x, time, encoder_hidden_states=context)  # [B, C3, h/8, w/8]

        features: list[Tensor] = []  # coarsest first
        for block in unet.up_blocks:
            layers = _layers(block)
            for i, (resnet, attention) in enumerate(layers):
                x = resnet(torch.cat([x, skips.pop()], dim=1), time)
                if attention is not None:
                    x = attention(x, encoder_hidden_states=context, return_dict=False)[0]
                if i == len(layers) - 2 and block is not unet.up_blocks[-1]:
                    features.append(x)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
        features.append(x)
        features.reverse()

        for level, probes in self._probes.items():
            features[level] = torch.cat([features[level], self._mean_map(probes, features[level])], dim=1)
        return features

    @staticmethod
    def _mean_map(probes: list[_RecordingAttention], like: Tensor) -> Tensor:
        maps = []
        for probe in probes:
            assert probe.map is not None
            maps.append(probe.map)
            probe.map = None  # held no longer than needed
        mean = torch.stack(maps).mean(dim=0)  # [B, h * w, T]
        return mean.transpose(1, 2).unflatten(-1, like.shape[-2:])  # [B, T, h, w]


def _layers(block: nn.Module) -> list[tuple[nn.Module, nn.Module | None]]:
    """The (resnet, attention or None) pairs of a U-Net block."""
    resnets = list(cast("nn.ModuleList", block.resnets))
    attentions = list(getattr(block, "attentions", None) or [None] * len(resnets))
    return list(zip(resnets, attentions, strict=True))
