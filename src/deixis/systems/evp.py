"""EVP: Enhanced Visual Perception (Lavreniuk et al.), for metric depth and referring segmentation.

``p(y | x, S) = p3(y | Fe) p4(Fe | F) p2(F | x, std, C) p1(C | S)`` (section 3.3): text features, U-Net
features, their inverse multi-attentive refinement, and a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.backbones.features import ImageEncoder, UNetFeatures, pad_to_multiple
from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.conditioning.adapter import TextAdapter
from deixis.conditioning.text import TextTower
from deixis.heads.deconv import DeconvDecoder
from deixis.heads.mask import MaskDecoder
from deixis.heads.metric_bins import MetricBins
from deixis.necks.imafr import IMAFR
from deixis.necks.join import PyramidJoin


@dataclass(frozen=True)
class EVPDepthConfig:
    """EVP depth, with every switch of the ablation (table 4) under its name there.

    Attributes:
        max_depth: scale of the decoder's own depth [m]: 10 for NYU Depth v2, 80 for KITTI.
        imafr: refine the features (section 3.3).
        bins: metric bins (section 3.5); without them depth is ``sigmoid(logit) * max_depth``.
        std: component-wise standard deviation of the latents over the training set, by which they are
            divided (section 3.3); None leaves them alone. Published: 5.07543 (NYU), 4.6211 (KITTI).
        text: ``cd`` class descriptions from templates, ``id`` free-form image descriptions (section 3.4).
        aggregate: ``v`` one vector per image, ``d`` vectors averaged over the dataset, ``vd`` one vector
            for the dataset, ``i`` individual vectors per image.
        clip_frozen: whether the text tower stays as it was pre-trained.
        attention_maps: append the cross-attention maps to the features.
        tokens: text vectors per image for ``d`` and ``i``.
        stored: names of the stored text embeddings, as provenance (``aggregate:nyuv2``, ``class:kitchen``).
        width: channels of the decoder's full-resolution map; the stride-32 map has eight times as many.
        filters: channels after each deconvolution.
        num_bins: number of depth bins.
        bin_width: channels of the bin embeddings.
        bottleneck: channels before the seed bins.
    """

    max_depth: float
    imafr: bool = True
    bins: bool = True
    std: float | None = None
    text: Literal["cd", "id"] = "id"
    aggregate: Literal["v", "d", "vd", "i"] = "d"
    clip_frozen: bool = True
    attention_maps: bool = True
    tokens: int = 40
    stored: tuple[str, ...] = ()
    width: int = 192
    filters: tuple[int, ...] = (32, 32, 32)
    num_bins: int = 64
    bin_width: int = 128
    bottleneck: int = 256

    @property
    def context_tokens(self) -> int:
        """Vectors the U-Net attends to: one for ``v`` and ``vd``."""
        return 1 if self.aggregate in ("v", "vd") else self.tokens


class EVPDepth(nn.Module):
    """Image and text to metric depth.

    Args:
        config: the switches.
        backbone: Stable Diffusion parts; the text tower is kept if there is one.
    """

    def __init__(self, config: EVPDepthConfig, backbone: StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(backbone.vae)
        self.text_tower = (
            None if backbone.text_encoder is None else TextTower(backbone.text_encoder, frozen=config.clip_frozen)
        )
        text_width = backbone.unet.config.cross_attention_dim
        self.text_adapter = TextAdapter(text_width)
        self.unet = UNetFeatures(backbone.unet, attention_maps=config.attention_maps, tokens=config.context_tokens)
        self.imafr = IMAFR(self.unet.channels) if config.imafr else None
        joined = 8 * config.width
        self.join = PyramidJoin(self.unet.channels, joined)
        self.decoder = DeconvDecoder(joined, config.filters, config.width)
        self.bins = (
            MetricBins(
                joined,
                self.decoder.pyramid_channels,
                config.width,
                bins=config.num_bins,
                width=config.bin_width,
                bottleneck=config.bottleneck,
                attractors=(16, 8, 4, 1),
                temperature=(0.0212, 50.0),
                max_depth=config.max_depth,
            )
            if config.bins
            else None
        )
        if config.stored:
            self.register_buffer("stored_text", torch.zeros(len(config.stored), config.context_tokens, text_width))

    @property
    def multiple(self) -> int:
        """Images are padded to sides that divide by this [px]."""
        return self.image_encoder.stride * self.unet.stride

    def forward(self, image: Tensor, text: Tensor, points: Tensor | None = None) -> Tensor:
        """Image [B, 3, H, W] in [0, 1] and text vectors [B, T, C] to depth [B, 1, H, W] [m].

        With ``points`` [B, N], pixels as ``row * W + column``, metric bins are weighed at these alone: [B, 1, N]. What
        is learned from a part of the pixels costs less.
        """
        height, width = image.shape[-2:]
        # Padding follows the mapping to [-1, 1]: the border is mid-grey, not black.
        image = pad_to_multiple(image * 2 - 1, self.multiple)
        latents = self.image_encoder(image)  # [B, Z, H/8, W/8]
        if self.config.std is not None:
            latents = latents / self.config.std
        context = self.text_adapter(text)  # [B, T, C]
        features = self.unet(latents, context)  # finest first
        if self.imafr is not None:
            features = self.imafr(features)
        joined = self.join(features)  # [B, 8 * width, H/32, W/32]
        joined = joined[..., : -(-height // 32), : -(-width // 32)]  # the padding goes before the decoder
        decoded = self.decoder(joined)
        if self.bins is not None:
            depth: Tensor = self.bins(joined, decoded, (height, width), points)
            return depth
        depth = (decoded.logit.sigmoid() * self.config.max_depth)[..., :height, :width]
        return depth if points is None else depth.flatten(2).gather(2, points[:, None])


@dataclass(frozen=True)
class EVPReferConfig:
    """EVP referring segmentation (section 4.4).

    Attributes:
        imafr: refine the features (section 3.3).
        std: standard deviation of the latents, as in :class:`EVPDepthConfig`; published: 4.7164 (RefCOCO).
        clip_frozen: whether the text tower stays as it was pre-trained; EVP trains it.
        tokens: text vectors per expression.
    """

    imafr: bool = True
    std: float | None = 4.7164
    clip_frozen: bool = False
    tokens: int = 40


class EVPRefer(nn.Module):
    """Image and expression to background and object logits.

    Args:
        config: the switches.
        backbone: Stable Diffusion parts with their text tower.
    """

    def __init__(self, config: EVPReferConfig, backbone: StableDiffusion) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(backbone.vae)
        self.text_tower = (
            None if backbone.text_encoder is None else TextTower(backbone.text_encoder, frozen=config.clip_frozen)
        )
        self.text_adapter = TextAdapter(backbone.unet.config.cross_attention_dim)
        self.unet = UNetFeatures(backbone.unet, attention_maps=True, tokens=config.tokens)
        self.imafr = IMAFR(self.unet.channels) if config.imafr else None
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
        image = pad_to_multiple(image * 2 - 1, self.multiple)
        latents = self.image_encoder(image)  # [B, Z, H/8, W/8]
        if self.config.std is not None:
            latents = latents / self.config.std
        latents = latents.repeat_interleave(len(text) // len(image), dim=0)
        context = self.text_adapter(text)  # [B, T, C]
        features = self.unet(latents, context)  # finest first
        if self.imafr is not None:
            features = self.imafr(features)
        logits = self.decoder(features)  # [B, 2, H/8, W/8]
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=True)
        return logits[..., :height, :width]
