"""Contrastive pre-training of the text tower: captions and pictures that belong together find each other (CLIP).

The picture's side is a linear map of an ImageNet classifier's features, cached once; only the text tower is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.text import TextTower
from deixis.data.nyuv2_captions import PARAPHRASES
from deixis.data.world import LEVELS
from deixis.training.distill import BLOCKS, teacher_maps
from deixis.training.store import Sampler, Store

# The picture's features are averaged over this grid, so that left and right can be told.
GRID = (2, 3)
WIDTH = 128


class ImageSide(nn.Module):
    """Standardised grid features to a unit vector; with it the temperature of the softmax."""

    def __init__(self) -> None:
        super().__init__()
        inputs = sum(channels for _, channels in BLOCKS) * GRID[0] * GRID[1]
        self.norm = nn.BatchNorm1d(inputs, affine=False)
        self.project = nn.Linear(inputs, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] to [B, WIDTH]."""
        return F.normalize(self.project(self.norm(features)), dim=-1)

    def scale(self) -> Tensor:
        """The softmax's inverse temperature."""
        return self.log_scale.exp().clamp_max(100.0)


class TextSide(nn.Module):
    """The text tower and a projection that is thrown away."""

    def __init__(self, text_tower: TextTower) -> None:
        super().__init__()
        self.text_tower = text_tower
        self.project = nn.Linear(text_tower.clip.config.hidden_size, WIDTH, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] to unit vectors [B, WIDTH]."""
        pooled = self.text_tower(ids, pooled=True)[:, 0]  # [B, C]
        return F.normalize(self.project(pooled), dim=-1)


def grid_features(maps: list[Tensor]) -> Tensor:
    """Teacher maps [B, C_i, h_i, w_i] to [B, sum C_i * cells]."""
    return torch.cat([F.adaptive_avg_pool2d(one.float(), GRID).flatten(1) for one in maps], dim=1)


@dataclass
class ContrastTask:
    """Pairs of captions and pictures for :func:`deixis.training.loop.train`.

    Args:
        train, val: the frames.
        shares: of the sources.
        tokenizer: of the text tower.
        tokens: text length.
        batch_size: pairs a step; each caption has all other pictures of the batch as negatives.
        text_levels: how often a caption of each level is taken.
    """

    train: Store
    val: Store
    shares: tuple[float, float, float]
    tokenizer: CLIPTokenizer
    tokens: int
    batch_size: int
    text_levels: tuple[float, ...]
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.data = self.train.fingerprint
        self.image_side = ImageSide()
        self.auxiliary = self.image_side
        self.sampler = Sampler(self.train, self.shares)
        self.levels = torch.tensor(self.text_levels, dtype=torch.float)
        self.ids = self.train.token_ids(self.tokenizer, self.tokens)
        self.flipped_ids = self.train.token_ids(self.tokenizer, self.tokens, mirrored=True)
        maps = teacher_maps(self.train.images)
        self.features = grid_features(maps).half()
        self.flipped = grid_features([one.flip(-1) for one in maps]).half()
        self.val_ids = self.val.token_ids(self.tokenizer, self.tokens)
        self.val_features = grid_features(teacher_maps(self.val.images)).half()

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``features`` [B, F] and ``ids`` [B, T]."""
        n = self.batch_size
        rows = self.sampler(n, generator)
        level = torch.multinomial(self.levels, n, replacement=True, generator=generator)
        which = torch.randint(PARAPHRASES, (n,), generator=generator)
        flipped = torch.rand(n, generator=generator) < 0.5
        features = torch.where(flipped[:, None], self.flipped[rows], self.features[rows])
        ids = torch.where(flipped[:, None], self.flipped_ids[rows, level, which], self.ids[rows, level, which])
        return {"features": features.float(), "ids": ids.long()}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """InfoNCE both ways."""
        image = self.image_side(batch["features"])  # [B, W]
        text = model(batch["ids"])  # [B, W]
        logits = self.image_side.scale() * text @ image.T  # [B, B]
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How often the right caption is first among 10, for captions of everything visible; chance is 0.1."""
        both = nn.ModuleList([model, self.auxiliary])
        training = model.training
        both.eval()
        device = next(model.parameters()).device
        image = self.image_side(self.val_features.float().to(device))
        text = torch.cat([model(part.long().to(device)) for part in self.val_ids[:, LEVELS - 2, 0].split(256)])
        own = torch.arange(10, device=device)
        right = [
            float((image[i : i + 10] @ text[i : i + 10].T).argmax(dim=1).eq(own).float().mean())
            for i in range(0, len(text) - 9, 10)
        ]
        both.train(training)
        return {"val_first_of_10": sum(right) / max(1, len(right))}

    def pictures(self, model: nn.Module) -> None:
        """None: it sees features, not pictures."""
