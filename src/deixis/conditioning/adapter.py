"""The text adapter of VPD and EVP: a residual two-layer MLP on text vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextAdapter(nn.Module):
    """``text + gamma * MLP(text)`` (VPD section 3.2, EVP section 3.1).

    ``gamma`` starts at 1e-4, so that training begins at the pre-trained text space.

    Args:
        width: channels of the text vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, text: Tensor) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        adapted: Tensor = text + self.gamma * self.fc(text)
        return adapted
