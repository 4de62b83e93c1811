"""Group normalisation for any number of channels."""

from __future__ import annotations

from torch import nn


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm with ``groups`` groups, or the most that divide ``channels`` where ``groups`` does not.

    The published widths divide evenly; other token counts (77) and small backbones may not. A group has at least
    two channels: alone, a channel could not be normalised where the map has shrunk to one pixel.
    """
    most = min(groups, max(1, channels // 2))
    return nn.GroupNorm(max(g for g in range(1, most + 1) if channels % g == 0), channels)
