"""VPD: Visual Perception with a pre-trained Diffusion model (Zhao et al.), EVP's baseline.

``p(y | x, S) = p3(y | F) p2(F | x, C) p1(C | S)`` (EVP section 3.1). The image encoder is frozen and the
latents are used as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.backbones.features import ImageEncoder, UNetFeatures, pad_to_multiple
from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.conditioning.adapter import TextAdapter
from deixis.conditioning.text import TextTower
from deixis.heads.deconv import DeconvDecoder
from deixis.heads.mask import MaskDecoder
from deixis.necks.join import PyramidJoin


@dataclass(frozen=True)
class VPDDepthConfig:
    """VPD depth (row 1 of EVP's table 4).

    Attributes:
        max_depth: depth at the top of the sigmoid [m].
        stored: names of the stored class embeddings, as provenance (``class:kitchen``).
        width: channels of the decoder's full-resolution map; the stride-32 map has eight times as many.
        filters: channels after each deconvolution.
    """

    max_depth: float = 10.0
    stored: tuple[str, ...] = ()
    width: int = 192
    filters: tuple[int, ...] = (32, 32, 32)


class VPDDepth(nn.Module):
    """Image and one class-description vector to metric depth.

    Args:
        config: sizes and classes.
        backbone: Stable Diffusion parts; the text tower, if any, is used frozen.
    """

    def __init__(self, config: VPDDepthConfig, backbone: StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(backbone.vae).requires_grad_(False)
        self.text_tower = None if backbone.text_encoder is None else TextTower(backbone.text_encoder, frozen=True)
        text_width = backbone.unet.config.cross_attention_dim
        self.text_adapter = TextAdapter(text_width)
        # With one text vector every attention map would be a constant one: VPD depth appends none.
        self.unet = UNetFeatures(backbone.unet, attention_maps=False, tokens=1)
        self.join = PyramidJoin(self.unet.channels, 8 * config.width)
        self.decoder = DeconvDecoder(8 * config.width, config.filters, config.width)
        if config.stored:
            self.register_buffer("stored_text", torch.zeros(len(config.stored), 1, text_width))

    @property
    def multiple(self) -> int:
        """Images are padded to sides that divide by this [px]."""
        return self.image_encoder.stride * self.unet.stride

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [0, 1] and text vectors [B, 1, C] to depth [B, 1, H, W] [m]."""
        height, width = image.shape[-2:]
        latents = self.image_encoder(pad_to_multiple(image * 2 - 1, self.multiple))  # [B, Z, H/8, W/8]
        features = self.unet(latents, self.text_adapter(text))  # finest first
        joined = self.join(features)  # [B, 8 * width, H/32, W/32]
        logit = self.decoder(joined[..., : -(-height // 32), : -(-width // 32)]).logit
        return (logit.sigmoid() * self.config.max_depth)[..., :height, :width]


@dataclass(frozen=True)
class VPDReferConfig:
    """VPD referring segmentation.

    Attributes:
        tokens: text vectors per expression.
    """

    tokens: int = 40


class VPDRefer(nn.Module):
    """Image and expression to background and object logits.

    Args:
        config: token count.
        backbone: Stable Diffusion parts; the text tower is used frozen.
    """

    def __init__(self, config: VPDReferConfig, backbone: StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(backbone.vae).requires_grad_(False)
        self.text_tower = None if backbone.text_encoder is None else TextTower(backbone.text_encoder, frozen=True)
        self.text_adapter = TextAdapter(backbone.unet.config.cross_attention_dim)
        self.unet = UNetFeatures(backbone.unet, attention_maps=True, tokens=config.tokens)
        self.decoder = MaskDecoder(self.unet.channels)

    @property
    def multiple(self) -> int:
        """Images are padded to sides that divide by this [px]."""
        return self.image_encoder.stride * self.unet.stride

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [0, 1] and text vectors [B * E, T, C] to logits [B * E, 2, H, W].

        ``E`` expressions of one picture follow each other, and share its latents.
        """
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image * 2 - 1, self.multiple)
        latents = self.image_encoder(padded).repeat_interleave(len(text) // len(image), dim=0)  # [B * E, Z, H/8, W/8]
        features = self.unet(latents, self.text_adapter(text))  # finest first
        logits = self.decoder(features)  # [B, 2, H/8, W/8]
        logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=True)
        return logits[..., :height, :width]
