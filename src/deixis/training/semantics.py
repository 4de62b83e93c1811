"""Class labels as a second teacher: the U-Net's finest level also says what is where.

One expression a picture teaches a network without pre-training little about everything else in it; the label map
teaches all of it at once. The head that reads the labels is thrown away after training.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def coarse(labels: Tensor) -> Tensor:
    """Labels [B, 1, H, W] at the stride of U-Net level 0, int64 [B, h, w]."""
    height, width = -(-labels.shape[-2] // 8), -(-labels.shape[-1] // 8)
    return F.interpolate(labels, size=(height, width), mode="nearest")[:, 0].long()


class Semantics(nn.Module):
    """A linear classifier on U-Net level 0.

    Args:
        channels: channels of that level.
        classes: number of classes; label 0 is unlabelled.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes + 1, kernel_size=1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Level [B, C, h, w] (stride 8, padded) and labels [B, 1, H, W] to the mean cross entropy."""
        target = coarse(labels)
        height, width = target.shape[-2:]
        logits = self.classify(features)[..., :height, :width].float()
        loss = F.cross_entropy(logits, target, ignore_index=0, reduction="sum")
        return loss / (target > 0).sum().clamp_min(1)
