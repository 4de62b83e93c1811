"""The deconvolution decoder of VPD and EVP (Simple Baselines, through GLPDepth)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Decoded(NamedTuple):
    """What the decoder hands on.

    Attributes:
        logit: [B, 1, H, W] depth before any squashing.
        features: [B, C, H, W] full-resolution map.
        pyramid: maps at strides 16, 8, 4 and 2, for the metric bins.
    """

    logit: Tensor
    features: Tensor
    pyramid: list[Tensor]


class DeconvDecoder(nn.Module):
    """Three 2 x 2 deconvolutions, a convolution and two bilinear doublings: stride 32 to full resolution.

    Args:
        in_channels: channels of the stride-32 map.
        filters: channels after each deconvolution.
        out_channels: channels of the full-resolution map.
    """

    def __init__(self, in_channels: int, filters: Sequence[int], out_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *filters]
        self.deconvs = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, kernel_size=2, stride=2, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.conv = nn.Sequential(
            nn.Conv2d(filters[-1], out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )
        self.last = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(out_channels, 1, kernel_size=3, padding=1),
        )
        self.pyramid_channels = [*filters, out_channels]

    def forward(self, x: Tensor) -> Decoded:
        """[B, C, h, w] to maps at up to 32 h x 32 w."""
        pyramid = []
        for deconv in self.deconvs:
            x = deconv(x)
            pyramid.append(x)
        x = _double(self.conv(x))
        pyramid.append(x)
        x = _double(x)
        return Decoded(self.last(x), x, pyramid)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
