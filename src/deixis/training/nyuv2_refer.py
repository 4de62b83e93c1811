"""Referring segmentation on the NYUv2 frames: template expressions, class words, and things that are not there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.text import tokenize
from deixis.data import nyuv2, nyuv2_refer
from deixis.errors import InputError
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics
from deixis.training.augment import Augmentation, draw_warp, jitter_colour
from deixis.training.distill import recorded, text_tower, unet
from deixis.training.losses import mask_loss
from deixis.training.nyuv2_depth import resized

# Other words for the classes, so that a user's word is not met for the first time at inference.
SYNONYMS = {
    "sofa": ("couch",),
    "television": ("tv", "screen"),
    "refrigerator": ("fridge",),
    "picture": ("painting", "photo", "poster"),
    "floor mat": ("rug", "carpet", "mat"),
    "night stand": ("nightstand", "bedside table"),
    "bookshelf": ("bookcase", "shelf"),
    "curtain": ("curtains", "drapes"),
    "whiteboard": ("board",),
    "lamp": ("light",),
    "person": ("man", "woman"),
    "bag": ("backpack",),
    "dresser": ("chest of drawers",),
    "cabinet": ("cupboard",),
}
PREFIXES = ("the {}", "the {}", "the {}", "{}", "a {}")


def mirror(expression: str) -> str:
    """The expression for the mirrored picture: left becomes right."""
    return re.sub(r"\b(left|right)\b", lambda m: "right" if m[0] == "left" else "left", expression)


def plural(name: str) -> str:
    """``chair`` to ``chairs``; names that end in s stay."""
    return name if name.endswith("s") else f"{name}es" if name.endswith(("ch", "sh", "x")) else f"{name}s"


@dataclass
class _Pair:
    """An expression pattern and what it means: a stored mask or a class of the label map."""

    frame: int
    words: str
    category: str
    mask: int | None
    label: int | None


@dataclass
class ReferTask:
    """Batches of photos, expressions and masks for :func:`deixis.training.loop.train`.

    Args:
        root: the dataset.
        tokenizer: of the text tower.
        tokens: text length.
        size: (height, width) of the training pictures [px].
        batch_size: pictures a step.
        shares: how often a referring expression, a class word and an absent thing are asked for.
        augmentation: how far pictures are changed.
        dice: weight of the Dice loss beside the weighted cross entropy.
        bf16: compute the forward pass in bfloat16 where that is safe.
        distill: weight of the teacher's loss.
        auxiliary: the :class:`~deixis.training.distill.Distillation`, where ``distill`` is not 0.
        semantic: weight of the label maps' loss.
        semantics: the :class:`~deixis.training.semantics.Semantics`, where ``semantic`` is not 0.

    Attributes:
        data: which frames there are, in a few letters.

    Raises:
        InputError: if a frame or an expression cannot be read, or a split is empty.
    """

    root: Path
    tokenizer: CLIPTokenizer
    tokens: int
    size: tuple[int, int]
    batch_size: int
    shares: tuple[float, float, float]
    augmentation: Augmentation
    dice: float
    bf16: bool
    distill: float
    auxiliary: nn.Module = field(default_factory=nn.Identity)
    semantic: float = 0.0
    semantics: nn.Module | None = None

    def __post_init__(self) -> None:
        self.teacher = self.auxiliary
        if self.semantics is not None:
            self.auxiliary = nn.ModuleDict({"teacher": self.teacher, "semantics": self.semantics})
        stored = (self.size[0] * 3 // 2, self.size[1] * 3 // 2)
        frames = nyuv2.some_frames(self.root, "train")
        self.names = nyuv2.class_names(self.root)
        row = {frame.index: i for i, frame in enumerate(frames)}
        self.images = torch.stack([resized(frame.read_rgb(), stored) for frame in frames])  # uint8 [N, 3, h, w]
        labels = [frame.read_labels() for frame in frames]
        self.labels = torch.stack([_nearest(torch.from_numpy(one.copy()), stored) for one in labels])  # [N, h, w]
        self.referred: list[_Pair] = []
        self.classes: list[_Pair] = []
        masks: list[Tensor] = []
        things = nyuv2_refer.objects(self.root)
        for thing in things:
            if thing.frame in row:
                for words in thing.expressions:
                    self.referred.append(_Pair(row[thing.frame], words, thing.category, len(masks), None))
                masks.append(_nearest(torch.from_numpy(thing.mask().astype(np.uint8)), stored))
        if not masks:
            raise InputError(self.root, "has no expression for its training frames", "copy the dataset again")
        self.data = f"{nyuv2.fingerprint(frames)}, {len(self.referred)} expressions"
        self.masks = torch.stack(masks)  # [M, h, w]
        for i, one in enumerate(labels):
            for name, _, regions in nyuv2.visible(one, self.names):
                words = f"the {name}" if regions <= 1 or name in ("wall", "floor", "ceiling") else plural(name)
                self.classes.append(_Pair(i, words, name, None, self.names.index(name) + 1))
        # What is certainly not in a frame: classes without a single labelled pixel.
        asked = sorted({pair.category for pair in self.referred})
        self.absent = [[name for name in asked if not (one == self.names.index(name) + 1).any()] for one in labels]
        kept = {frame.index: frame for frame in nyuv2.some_frames(self.root, "val")}
        self.val = [(kept[thing.frame], thing) for thing in things if thing.frame in kept]
        if not self.val:
            raise InputError(self.root, "has no expression for its validation frames", "copy the dataset again")

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1], ``mask`` bool [B, H, W], ``labels`` [B, 1, H, W], ``ids`` [B, T]."""
        n = self.batch_size
        warp = draw_warp(self.augmentation, n, self.size, generator)
        shares = torch.tensor(self.shares, dtype=torch.float)
        kinds = torch.multinomial(shares, n, replacement=True, generator=generator).tolist()
        draws = torch.rand(n, 3, generator=generator).tolist()
        rows, masks, words = [], [], []
        for kind, (first, second, third), flipped in zip(kinds, draws, warp.flipped.tolist(), strict=True):
            pool = self.classes if kind == 1 else self.referred
            pair = pool[int(first * len(pool))]
            expression, category = pair.words, pair.category
            if kind == 2 and self.absent[pair.frame]:
                category = self.absent[pair.frame][int(second * len(self.absent[pair.frame]))]
                expression, mask = f"the {category}", torch.zeros_like(self.labels[0])
            elif pair.mask is not None:
                mask = self.masks[pair.mask]
            else:
                mask = torch.eq(self.labels[pair.frame], pair.label or 0).to(torch.uint8)
            expression = _reworded(expression, category, second * 7 % 1, third)
            rows.append(pair.frame)
            masks.append(mask)
            words.append(mirror(expression) if flipped else expression)
        image = warp.image(self.images[rows].float() / 255)
        return {
            "image": jitter_colour(image, self.augmentation, generator),
            "mask": warp.labels(torch.stack(masks)[:, None].float())[:, 0] > 0.5,
            "labels": warp.labels(self.labels[rows][:, None].float()),
            "ids": tokenize(self.tokenizer, words, self.tokens),
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Weighted cross entropy as in EVP, and Dice, without which small things are never asked for."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16), recorded(unet(model)) as features:
            logits = model(batch["image"], text_tower(model)(batch["ids"])).float()
        loss = mask_loss(logits, batch["mask"]) + self.dice * _dice(logits, batch["mask"])
        if self.distill:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                loss = loss + self.distill * self.teacher(batch["image"], features[0])
        if self.semantics is not None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                loss = loss + self.semantic * self.semantics(features[0][0], batch["labels"])
        return loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Overall and mean IoU on the validation scenes' expressions, at full resolution."""
        metrics = ReferMetrics(REFER_NATIVE)
        for frame, thing in self.val:
            probability = mask_probability(
                model, self.tokenizer, self.tokens, self.size, frame.read_rgb(), thing.expressions
            )
            truth = thing.mask()
            for one in probability:
                metrics.update((one > 0.5).numpy(), truth)
        values = metrics.compute()
        return {f"val_{name}": values[name] for name in ("oiou", "miou")}


@torch.inference_mode()
def mask_probability(
    model: nn.Module,
    tokenizer: CLIPTokenizer,
    tokens: int,
    size: tuple[int, int],
    rgb: np.ndarray[Any, np.dtype[np.uint8]],
    expressions: tuple[str, ...],
) -> Tensor:
    """Object probability [N, H, W] of each expression in a photo uint8 [H, W, 3]."""
    training = model.training
    model.eval()
    image = (resized(rgb, size)[None].float() / 255).expand(len(expressions), -1, -1, -1)
    logits = model(image, text_tower(model)(tokenize(tokenizer, expressions, tokens)))
    model.train(training)
    margin = F.interpolate(logits[:, 1:] - logits[:, :1], size=rgb.shape[:2], mode="bilinear", align_corners=False)
    return margin[:, 0].sigmoid()


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the samples that have an object."""
    present = target.flatten(1).any(dim=1)
    if not present.any():
        return logits.sum() * 0.0
    p = logits.softmax(dim=1)[present, 1].flatten(1)
    t = target[present].flatten(1).float()
    return (1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)).mean()


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(labels[None, None].float(), size=size, mode="nearest")[0, 0].to(torch.uint8)


def _reworded(expression: str, category: str, draw: float, prefix: float) -> str:
    """Sometimes another word for the class, sometimes another article."""
    others = SYNONYMS.get(category, ())
    if others and draw < 0.3:
        expression = expression.replace(category, others[int(draw / 0.3 * len(others))])
    if expression == f"the {expression.removeprefix('the ')}" and " on " not in expression:
        expression = PREFIXES[int(prefix * len(PREFIXES))].format(expression.removeprefix("the "))
    return expression
