"""Four feature levels as one map at stride 32 (VPD's depth encoder, kept by EVP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.necks.norm import group_norm

GROUPS = 16


class PyramidJoin(nn.Module):
    """Bring every level to the third one's resolution, concatenate and mix.

    Args:
        channels: channels of the four levels, finest first.
        out_channels: channels of the joined map.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        c0, c1, c2, c3 = channels
        self.layer1 = nn.Sequential(
            nn.Conv2d(c0, c0, kernel_size=3, stride=2, padding=1),
            group_norm(c0, GROUPS),
            nn.ReLU(),
            nn.Conv2d(c0, c0, kernel_size=3, stride=2, padding=1),
        )
        self.layer2 = nn.Conv2d(c1, c1, kernel_size=3, stride=2, padding=1)
        self.out = nn.Sequential(
            nn.Conv2d(c0 + c1 + c2 + c3, out_channels, kernel_size=1),
            group_norm(out_channels, GROUPS),
            nn.ReLU(),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Levels [B, C_i, h / 2^i, w / 2^i] to [B, out_channels, h / 4, w / 4]."""
        f0, f1, f2, f3 = features
        coarse = F.interpolate(f3, size=f2.shape[-2:], mode="nearest")  # [B, C3, h/4, w/4]
        joined: Tensor = self.out(torch.cat([self.layer1(f0), self.layer2(f1), f2, coarse], dim=1))
        return joined
