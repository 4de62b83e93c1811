"""Inverse Multi-Attentive Feature Refinement (EVP section 3.3).

Spatial detail flows from fine to coarse, the inverse of a feature pyramid:
``fe_i = Conv(Concat(MultiAttention(fe_{i-1}), f_i))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from deixis.necks.norm import group_norm

# The published code normalises with 20 groups throughout.
GROUPS = 20


class SpatialAttention(nn.Module):
    """Scale each position by a sigmoid of a 1 x 1 projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        return x * self.project(x).sigmoid()


class ChannelAttention(nn.Module):
    """Scale each channel by a squeeze-and-excitation gate with an eight-fold bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bottleneck = max(1, channels // 8)
        self.squeeze = nn.Conv2d(channels, bottleneck, kernel_size=1)
        self.excite = nn.Conv2d(bottleneck, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        pooled = x.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        return x * self.excite(self.squeeze(pooled).relu()).sigmoid()


class MultiAttention(nn.Module):
    """Spatial attention, channel attention, then two convolutions, the second of which halves H and W.

    Both convolutions share **one** group norm, as in the published weights.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial = SpatialAttention(in_channels)
        self.channel = ChannelAttention(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.norm = group_norm(out_channels, GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H / 2, W / 2]."""
        x = self.channel(self.spatial(x))
        x = self.norm(self.conv1(x)).relu()
        return self.norm(self.conv2(x)).relu()


class IMAFR(nn.Module):
    """Refine four feature levels, finest first, keeping their shapes.

    Args:
        channels: channels of the four levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        finest = channels[0]
        self.spatial = SpatialAttention(finest)
        self.conv = nn.Conv2d(finest, finest, kernel_size=3, padding=1)
        self.norm = group_norm(finest, GROUPS)
        self.attend = nn.ModuleList(MultiAttention(c, c // 2) for c in channels[:-1])
        self.fuse = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine // 2 + coarse, coarse, kernel_size=1), group_norm(coarse, GROUPS), nn.ReLU())
            for fine, coarse in pairwise(channels)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four maps [B, C_i, H / 2^i, W / 2^i] to four maps of the same shapes."""
        refined = [self.norm(self.conv(self.spatial(features[0]))).relu()]
        for attend, fuse, feature in zip(self.attend, self.fuse, features[1:], strict=True):
            refined.append(fuse(torch.cat([attend(refined[-1]), feature], dim=1)))
        return refined
