"""The referring mask decoder of LAVT, used by VPD and EVP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _fuse(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class MaskDecoder(nn.Module):
    """Top-down fusion of four levels, coarse to fine, into background and object logits.

    Args:
        channels: channels of the four levels, finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        c0, c1, c2, c3 = channels
        hidden = c3 // 2
        self.fuse = nn.ModuleList([_fuse(c3 + c2, hidden), _fuse(hidden + c1, hidden), _fuse(hidden + c0, hidden)])
        self.classify = nn.Conv2d(hidden, 2, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Levels [B, C_i, h / 2^i, w / 2^i] to logits [B, 2, h, w]."""
        f0, f1, f2, x = features
        for fuse, finer in zip(self.fuse, (f2, f1, f0), strict=True):
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=True)
            x = fuse(torch.cat([x, finer], dim=1))
        logits: Tensor = self.classify(x)
        return logits
