"""Metric depth on photos and world frames, with text about the image, about the dataset, or none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.describe import aggregate, class_description, encoder
from deixis.conditioning.text import tokenize
from deixis.data.nyuv2_captions import PARAPHRASES
from deixis.data.world import LEVELS
from deixis.protocols.depth import depth_metrics
from deixis.training.augment import Augmentation, draw_warp, jitter_colour
from deixis.training.distill import recorded, text_tower, unet
from deixis.training.gallery import ROWS, depth_row
from deixis.training.losses import silog, silog_moments
from deixis.training.scenes import spread
from deixis.training.shares import weight
from deixis.training.store import SOURCES, Sampler, Store, resized
from deixis.types import Depth, Text
from deixis.viz import contact_sheet

# Captions with distances in metres would give the answer away.
NON_METRIC_LEVELS = LEVELS - 1
# Captions whose mean stands for the dataset.
AGGREGATED = 4000


class DepthLearning(ABC):
    """SiLog, with text as EVP and VPD give it: what is learned, wherever pictures come from.

    Attributes:
        auxiliary, tokenizer, tokens, descriptions, pooled, text_shares, lambd, distill: see :class:`DepthTask`.
    """

    auxiliary: nn.Module
    tokenizer: CLIPTokenizer
    tokens: int
    descriptions: Literal["id", "cd"]
    pooled: bool
    text_shares: tuple[float, float, float]
    lambd: float
    distill: float

    @abstractmethod
    def fixed_text(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The dataset's mean embedding [1, T, C] (EVP section 3.4), and one for each class [P, 1, C], computed once."""

    @abstractmethod
    def of_classes(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The descriptions of the pictures' classes [B, 1, C]."""

    def text(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The text vectors of a batch [B, T, C]."""
        kind = batch["kind"].view(-1, 1, 1)
        vectors: Tensor = text_tower(model)(batch["ids"], pooled=self.pooled)
        if self.descriptions == "cd":
            vectors = torch.where(kind == 0, self.of_classes(model, batch).to(vectors.device), vectors)
        if self.text_shares[1]:
            vectors = torch.where(kind == 1, self.fixed_text(model)[0].to(vectors.device), vectors)
        return vectors

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """SiLog, as in EVP; NaN where the network has come to no number."""
        return self.of_averages(self.averages(model, batch))

    def averages(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """SiLog's moments over the pixels with depth, and the teacher's loss where there is one, [2] or [3]."""
        text = self.text(model, batch)
        some = {"points": batch["points"]} if "points" in batch else {}
        with recorded(unet(model)) as features:
            depth = model(batch["image"], text, **some)
        if not torch.isfinite(depth).all():
            return (depth.float().sum() * math.nan).expand(3 if self.distill else 2)
        moments = silog_moments(depth.float().clamp_min(1e-3), batch["depth"])
        moments = moments * weight((batch["depth"] > 0).sum(), batch["known"])
        if self.distill:
            return torch.cat([moments, self.auxiliary(batch["image"], features[0])[None]])
        return moments

    def of_averages(self, averages: Tensor) -> Tensor:
        """The loss they come to."""
        if not torch.isfinite(averages).all():
            return averages.sum() * math.nan
        loss = silog(averages[:2], self.lambd)
        return loss + self.distill * averages[2] if self.distill else loss


@dataclass
class DepthTask(DepthLearning):
    """Batches of pictures, depth and text for :func:`deixis.training.loop.train`.

    Args:
        train, val: the frames.
        shares: of the sources.
        tokenizer: of the text tower.
        tokens: text length.
        picture: (height, width) of the pictures [px].
        size: (height, width) of what is learned from at once, a window of them [px].
        batch_size: pictures a step.
        descriptions: ``id``: captions; ``cd``: one vector for the frame's place, from templates (VPD, and EVP's
            class descriptions). The text tower must be frozen for these and for mean embeddings.
        pooled: one vector for a description (``v`` and ``vd`` of EVP's table 4), not one for each token.
        text_shares: how often a description of the image, the dataset's mean embedding and nothing are given.
        augmentation: how far pictures are changed.
        lambd: of the SiLog loss.
        max_depth: farther pixels teach nothing [m].
        distill: weight of the teacher's loss.
        pixels: share of the pixels that are learned from, other ones in each step (EVP).
        mean: the dataset's mean embedding [1, T, C]; None takes that of the training captions.
        auxiliary: the :class:`~deixis.training.distill.Distillation`, where ``distill`` is not 0.

    Attributes:
        data: which frames there are, in a few letters.
    """

    train: Store
    val: Store
    shares: tuple[float, float, float]
    tokenizer: CLIPTokenizer
    tokens: int
    picture: tuple[int, int]
    size: tuple[int, int]
    batch_size: int
    descriptions: Literal["id", "cd"]
    pooled: bool
    text_shares: tuple[float, float, float]
    augmentation: Augmentation
    lambd: float
    max_depth: float
    distill: float
    pixels: float = 1.0
    mean: Tensor | None = None
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.data = self.train.fingerprint
        self.sampler = Sampler(self.train, self.shares)
        self.ids = self.train.token_ids(self.tokenizer, self.tokens)[:, :NON_METRIC_LEVELS]
        self.flipped_ids = self.train.token_ids(self.tokenizer, self.tokens, mirrored=True)
        self.empty = tokenize(self.tokenizer, [""], self.tokens)
        names = sorted(set(self.train.places))
        self.place = torch.tensor([names.index(name) for name in self.train.places])
        self.place_names = names
        self._fixed: tuple[Tensor, Tensor] | None = None

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1], ``depth`` [B, 1, H, W] [m], ``ids`` [B, T], ``place``, ``kind`` [B].

        ``known`` is the number of pixels with depth. Where a part of the pixels is learned from, ``points`` [B, N] are
        theirs, and ``depth`` is [B, 1, N].
        """
        n = self.batch_size
        rows = self.sampler(n, generator)
        warp = draw_warp(self.augmentation, n, self.size, generator, self.train.size)
        image = warp.image(self.train.images[rows].float() / 255)
        photos = self.train.source[rows] == SOURCES.index("nyuv2")  # of a Kinect; the world's fields of view vary
        depth = warp.depth(self.train.depths[rows].float(), photos)
        depth = torch.where(depth <= self.max_depth, depth, 0.0)
        some = {}
        if self.pixels < 1:
            count = depth[0].numel()
            points = torch.randint(count, (n, max(1, round(self.pixels * count))), generator=generator)
            depth, some = depth.flatten(2).gather(2, points[:, None]), {"points": points}
        kind = torch.multinomial(
            torch.tensor(self.text_shares, dtype=torch.float), n, replacement=True, generator=generator
        )
        level = torch.randint(NON_METRIC_LEVELS, (n,), generator=generator)
        which = torch.randint(PARAPHRASES, (n,), generator=generator)
        told = torch.where(warp.flipped[:, None], self.flipped_ids[rows, level, which], self.ids[rows, level, which])
        return {
            "image": jitter_colour(image, self.augmentation, generator),
            "depth": depth,
            "known": (depth > 0).sum(),
            "ids": torch.where((kind == 0)[:, None], told.long(), self.empty),
            "place": self.place[rows],
            "kind": kind,
            **some,
        }

    def fixed_text(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The mean embedding of the training captions [1, T, C] (EVP section 3.4) and one for each place [P, 1, C].

        The text tower is frozen: they are computed once.
        """
        if self._fixed is None:
            encode = encoder(text_tower(model), self.tokenizer, self.tokens)
            if self.descriptions == "cd":
                places = torch.cat([class_description(name, encode) for name in self.place_names])
                self._fixed = places[self.place].mean(dim=0, keepdim=True), places
            elif self.mean is not None:
                self._fixed = self.mean, torch.zeros(0)
            else:
                sentences = [level[0] for levels in self.train.captions for level in levels[:NON_METRIC_LEVELS]]
                some = sentences[:: max(1, len(sentences) // AGGREGATED)]
                self._fixed = aggregate(some, encode, pooled=self.pooled), torch.zeros(0)
        return self._fixed

    def of_classes(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Those of the pictures' places [B, 1, C]."""
        places = self.fixed_text(model)[1]
        return places.to(batch["place"].device)[batch["place"]]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Depth metrics on the validation frames of each source, without text, as in :func:`evaluate_depth`."""
        text = text_tower(model)(self.empty.to(next(model.parameters()).device), pooled=self.pooled)
        found: dict[str, float] = {}
        for source in SOURCES:
            rows = self.val.rows(source)[:100]
            if len(rows):
                values = evaluate_depth(model, text, self.val, rows, self.picture, self.max_depth)
                for name in ("abs_rel", "d1") if values else ():
                    found[f"val_{source}_{name}"] = float(np.mean([one[name] for one in values]))
        return found

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """Picture, truth, prediction without text, and error of a few validation frames."""
        text = text_tower(model)(self.empty.to(next(model.parameters()).device), pooled=self.pooled)
        predict = depth_predictor(model, text, self.picture)
        rows = []
        for row in spread(range(len(self.val)), ROWS):
            rgb, truth = self.val.images[row].permute(1, 2, 0).numpy(), self.val.depths[row, 0].float().numpy()
            rows.append(depth_row(rgb, truth, shown_depth(predict(rgb), self.max_depth), self.val.places[row]))
        return contact_sheet(rows) if rows else None


def shown_depth(depth: Tensor, far: float) -> Depth:
    """Depth [H, W] [m] as it is drawn, at most ``far``."""
    return Depth(depth.float().cpu().clamp(1e-3, far).numpy(), "metric", Text("", "empty"), "validation")


@torch.inference_mode()
def evaluate_depth(
    model: nn.Module, text: Tensor, store: Store, rows: Tensor, size: tuple[int, int], max_depth: float
) -> list[dict[str, float]]:
    """The metrics, where depth is between 1e-3 and ``max_depth`` [m], of each frame that has such, as it is stored."""
    predict = depth_predictor(model, text, size)
    found = []
    for row in rows.tolist():
        target = store.depths[row, 0].float()
        valid = (target > 1e-3) & (target <= max_depth)
        if valid.any():
            prediction = predict(store.images[row].permute(1, 2, 0).numpy()).cpu()
            found.append(depth_metrics(prediction[valid].clamp(1e-3, max_depth), target[valid]))
    return found


def depth_predictor(
    model: nn.Module, text: Tensor, size: tuple[int, int]
) -> Callable[[np.ndarray[Any, np.dtype[np.uint8]]], Tensor]:
    """A function from a photo uint8 [H, W, 3] to depth [H, W] [m], with fixed text vectors [1, T, C].

    The photo goes through at the height of ``size`` and its own aspect ratio.
    """

    @torch.inference_mode()
    def predict(rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
        training = model.training
        model.eval()
        height, width = rgb.shape[:2]
        image = resized(rgb, (size[0], round(size[0] * width / height)))[None].float() / 255
        depth = model(image.to(text.device), text)
        model.train(training)
        full: Tensor = F.interpolate(depth, size=rgb.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        return full

    return predict
