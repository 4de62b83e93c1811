"""Referring segmentation: template expressions and class words on photos, the world's own, and things not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.text import tokenize
from deixis.data import nyuv2, nyuv2_refer
from deixis.data.nyuv2_captions import STRUCTURE
from deixis.errors import InputError, UsageError
from deixis.predict import SUREST
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics
from deixis.training.augment import Augmentation, draw_warp, jitter_colour
from deixis.training.distill import recorded, text_tower, unet
from deixis.training.elsewhere import elsewhere
from deixis.training.gallery import ROWS, in_pairs, mask_cells
from deixis.training.losses import mask_loss, mask_weight
from deixis.training.scenes import spread
from deixis.training.semantics import coarse
from deixis.training.shares import weight
from deixis.training.store import SOURCES, Store, resized
from deixis.viz import contact_sheet
from deixis.world.words import flip, plural

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
# Expressions of other frames that each frame of the world can be asked for in vain.
FROM_ELSEWHERE = 8
# Validation expressions of each source that are looked at during a run.
VALIDATED = 150
PREFIXES = ("the {}", "the {}", "the {}", "{}", "a {}")


@dataclass(frozen=True)
class _Pair:
    """An expression and what it means in one frame.

    Attributes:
        frame: position in the store.
        words: the expression.
        category: class name, for other words; empty for the world's, which have been varied already.
        mask: row of the stored masks; None where the frame's id map tells.
        ids: labels or things of the id map that it means; none where nothing is meant.
    """

    frame: int
    words: str
    category: str
    mask: int | None
    ids: tuple[int, ...]


class ReferLearning:
    """Weighted cross entropy of masks, as in EVP and VPD: what is learned, wherever pictures come from.

    Attributes:
        auxiliary, expressions, dice, presence, distill, semantic, semantics: see :class:`ReferTask`.
        teacher: the part of ``auxiliary`` that teaches features.
    """

    auxiliary: nn.Module
    teacher: nn.Module
    expressions: int
    dice: float
    presence: float
    distill: float
    semantic: float
    semantics: nn.Module | None

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Weighted cross entropy as in EVP; Dice, or small things are never asked for; presence, or absent ones are."""
        with recorded(unet(model)) as features:
            logits = model(batch["image"], text_tower(model)(batch["ids"])).float()
        mask = batch["mask"]
        loss = mask_loss(logits, mask) * weight(mask_weight(mask), batch["weights"])
        loss = loss + self.dice * (_dice(logits, mask) * weight(objects_in(mask).sum(), batch["objects"]))
        if self.presence:
            loss = loss + self.presence * _presence(logits, mask)
        of_pictures = [level[:: self.expressions] for level in features[0]]
        if self.distill:
            loss = loss + self.distill * self.teacher(batch["image"], of_pictures)
        if self.semantics is not None:
            share = weight((coarse(batch["labels"]) > 0).sum(), batch["labelled"])
            loss = loss + self.semantic * (self.semantics(of_pictures[0], batch["labels"]) * share)
        return loss


@dataclass
class ReferTask(ReferLearning):
    """Batches of pictures, expressions and masks for :func:`deixis.training.loop.train`.

    Args:
        train, val: the frames.
        shares: of the sources.
        root: NYU Depth v2, for its expressions; None without photos.
        tokenizer: of the text tower.
        tokens: text length.
        size: (height, width) of the training pictures [px].
        batch_size: pictures a step.
        expressions: that are asked for in each: they share its latents, and tell things of one picture apart.
        text_shares: how often a referring expression, a class word (photos) and an absent thing are asked for.
        augmentation: how far pictures are changed.
        dice: weight of the Dice loss beside the weighted cross entropy.
        presence: weight of :func:`_presence` beside them.
        distill: weight of the teacher's loss.
        auxiliary: the :class:`~deixis.training.distill.Distillation`, where ``distill`` is not 0.
        semantic: weight of the label maps' loss, on photos.
        semantics: the :class:`~deixis.training.semantics.Semantics`, where ``semantic`` is not 0.

    Attributes:
        data: which frames there are, in a few letters.

    Raises:
        InputError: if an expression cannot be read, or a photo has none.
    """

    train: Store
    val: Store
    shares: tuple[float, float, float]
    root: Path | None
    tokenizer: CLIPTokenizer
    tokens: int
    size: tuple[int, int]
    batch_size: int
    expressions: int
    text_shares: tuple[float, float, float]
    augmentation: Augmentation
    dice: float
    presence: float
    distill: float
    auxiliary: nn.Module = field(default_factory=nn.Identity)
    semantic: float = 0.0
    semantics: nn.Module | None = None

    def __post_init__(self) -> None:
        self.teacher = self.auxiliary
        if self.semantics is not None:
            self.auxiliary = nn.ModuleDict({"teacher": self.teacher, "semantics": self.semantics})
        self.photo = self.train.source == SOURCES.index("nyuv2")
        self.pools, self.masks = pairs_of(self.train, self.root)
        self.val_pools, self.val_masks = pairs_of(self.val, self.root)
        shares = [share if pool[0] else 0.0 for share, pool in zip(self.shares, self.pools, strict=True)]
        if not sum(shares) > 0:
            raise UsageError("data.shares", "leave no expression to learn from", "give a share to a source with some")
        self.source_shares = torch.tensor(shares)
        # Per source its frames with, per kind, what can be asked for in each.
        self.asked = [list(_by_frame(pool).values()) for pool in self.pools]
        self.data = f"{self.train.fingerprint}, {sum(len(kind) for pool in self.pools for kind in pool)} expressions"

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1], ``labels`` [B, 1, H, W], ``mask`` [B * E, H, W], ``ids`` [B * E, T].

        With them how much of it there is: the pixels' ``weights``, ``objects``, and cells that are ``labelled``.
        """
        n, each = self.batch_size, self.expressions
        warp = draw_warp(self.augmentation, n, self.size, generator)
        sources = torch.multinomial(self.source_shares, n, replacement=True, generator=generator).tolist()
        shares = torch.tensor(self.text_shares, dtype=torch.float)
        kinds = torch.multinomial(shares, n * each, replacement=True, generator=generator).view(n, each).tolist()
        frames = torch.rand(n, generator=generator).tolist()
        draws = torch.rand(n, each, 3, generator=generator).tolist()
        rows, masks, told = [], [], []
        for i, source in enumerate(sources):
            asked = self.asked[source][int(frames[i] * len(self.asked[source]))]
            rows.append(asked[0][0].frame)
            for kind, (first, second, third) in zip(kinds[i], draws[i], strict=True):
                pairs = asked[kind] or asked[0]
                pair = pairs[int(first * len(pairs))]
                expression = _reworded(pair.words, pair.category, second, third) if pair.category else pair.words
                masks.append(_mask(pair, self.train, self.masks))
                told.append(flip(expression) if warp.flipped[i] else expression)
        image = warp.image(self.train.images[rows].float() / 255)
        labels = torch.where(self.photo[rows].view(-1, 1, 1), self.train.ids[rows], 0)  # the world's are no classes
        mask = warp.labels(torch.stack(masks).view(n, each, *self.train.size).float())
        wanted, labelled = mask.flatten(0, 1) > 0.5, warp.labels(labels[:, None].float())
        return {
            "image": jitter_colour(image, self.augmentation, generator),
            "mask": wanted,
            "labels": labelled,
            "ids": tokenize(self.tokenizer, told, self.tokens),
            "weights": mask_weight(wanted),
            "objects": objects_in(wanted).sum(),
            "labelled": (coarse(labelled) > 0).sum(),
        }

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Overall and mean IoU of validation expressions for things that are there, per source."""
        found: dict[str, float] = {}
        for source, pool in zip(SOURCES, self.val_pools, strict=True):
            metrics = ReferMetrics(REFER_NATIVE)
            pairs = pool[0][:: max(1, len(pool[0]) // VALIDATED)]
            for pair in pairs:
                rgb = self.val.images[pair.frame].permute(1, 2, 0).numpy()
                probability = mask_probability(model, self.tokenizer, self.tokens, self.size, rgb, (pair.words,))[0]
                truth = _mask(pair, self.val, self.val_masks) > 0
                metrics.update((probability.cpu() > 0.5).numpy(), truth.numpy())
            if pairs:
                values = metrics.compute()
                found |= {f"val_{source}_{name}": values[name] for name in ("oiou", "miou")}
        return found

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """What a few validation expressions mean beside what is found, two in a row."""
        cells = []
        for pair in spread([pair for pool in self.val_pools for pair in pool[0]], 2 * ROWS):
            rgb = self.val.images[pair.frame].permute(1, 2, 0).numpy()
            probability = mask_probability(model, self.tokenizer, self.tokens, self.size, rgb, (pair.words,))[0]
            truth = _mask(pair, self.val, self.val_masks) > 0
            cells.append(mask_cells(rgb, pair.words, truth.numpy(), (probability.cpu() > 0.5).numpy()))
        return contact_sheet(in_pairs(cells)) if cells else None


def pairs_of(store: Store, root: Path | None) -> tuple[list[tuple[list[_Pair], ...]], Tensor]:
    """Per source and kind (expression, class word, absent thing) the pairs of a store, and the masks they name.

    Raises:
        InputError: as :func:`photo_pairs`.
    """
    pools = [world_pairs(store, store.rows(source)) for source in SOURCES]
    if root is None:
        return pools, torch.zeros(0, *store.size, dtype=torch.uint8)
    pools[0], masks = photo_pairs(store, root)
    return pools, masks


def _by_frame(pool: tuple[list[_Pair], ...]) -> dict[int, tuple[list[_Pair], ...]]:
    """What each frame has to ask for, per kind; frames without an expression for something that is there have none."""
    found: dict[int, tuple[list[_Pair], ...]] = {pair.frame: ([], [], []) for pair in pool[0]}
    for kind, pairs in enumerate(pool):
        for pair in pairs:
            if pair.frame in found:
                found[pair.frame][kind].append(pair)
    return found


def world_pairs(store: Store, rows: Tensor) -> tuple[list[_Pair], ...]:
    """Expressions of world frames, no class words, and those that mean nothing: the frame's own and other frames'."""
    there: list[_Pair] = []
    absent: list[_Pair] = []
    frames: list[int] = rows.tolist()
    for row in frames:
        for text, targets in store.expressions[row]:
            (there if targets else absent).append(_Pair(row, text, "", None, targets))
    told = [[(text, store.things[row][ids[0]]) for text, ids in store.expressions[row] if ids] for row in frames]
    seen = [torch.bincount(store.ids[row].flatten()).nonzero()[:, 0].tolist() for row in frames]
    shown = [{store.things[row].get(i, "") for i in ids} for row, ids in zip(frames, seen, strict=True)]
    for row, found in zip(frames, elsewhere(told, shown, FROM_ELSEWHERE), strict=True):
        absent += [_Pair(row, text, "", None, ()) for text, _ in found]
    return there, [], absent


def photo_pairs(store: Store, root: Path) -> tuple[tuple[list[_Pair], ...], Tensor]:
    """Expressions, class words and absent classes of a store's photos, and the masks of the first [M, h, w].

    Raises:
        InputError: if the expressions cannot be read, or there is none for these photos.
    """
    names = nyuv2.class_names(root)
    photos = store.rows("nyuv2").tolist()
    row_of = {store.numbers[row]: row for row in photos}
    referred: list[_Pair] = []
    masks: list[Tensor] = []
    for thing in nyuv2_refer.objects(root):
        if thing.frame in row_of:
            row, mask = row_of[thing.frame], len(masks)
            referred += [_Pair(row, text, thing.category, mask, ()) for text in thing.expressions]
            masks.append(_nearest(torch.from_numpy(thing.mask().astype(np.uint8)), store.size))
    if not masks:
        raise InputError(root, "has no expression for these frames", "copy the dataset again")
    asked = sorted({pair.category for pair in referred}.intersection(names))
    told: dict[int, list[tuple[str, str]]] = {row: [] for row in photos}
    for pair in referred:
        told[pair.frame].append((pair.words, pair.category))
    shown: list[set[str]] = []
    classes, absent = [], []
    for row in photos:
        labels = store.ids[row].numpy().astype(np.uint8)
        for name, _, regions in nyuv2.visible(labels, names):
            single = regions <= 1 or name in STRUCTURE
            text = f"the {name}" if single else plural(name)
            classes.append(_Pair(row, text, name, None, (names.index(name) + 1,)))
        # What is certainly not in a frame: classes without a single labelled pixel.
        present = {names[label - 1] for label in np.unique(labels).tolist() if label}
        absent += [_Pair(row, f"the {name}", name, None, ()) for name in asked if name not in present]
        shown.append(present)
    for row, found in zip(photos, elsewhere(list(told.values()), shown, len(asked)), strict=True):
        absent += [_Pair(row, text, name, None, ()) for text, name in found]
    return (referred, classes, absent), torch.stack(masks)


def _mask(pair: _Pair, store: Store, masks: Tensor) -> Tensor:
    """uint8 [h, w]."""
    if pair.mask is not None:
        return masks[pair.mask]
    return torch.isin(store.ids[pair.frame], torch.tensor(pair.ids, dtype=torch.int16)).to(torch.uint8)


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
    device = next(model.parameters()).device
    image = resized(rgb, size)[None].float() / 255
    logits = model(image.to(device), text_tower(model)(tokenize(tokenizer, expressions, tokens).to(device)))
    model.train(training)
    margin = F.interpolate(logits[:, 1:] - logits[:, :1], size=rgb.shape[:2], mode="bilinear", align_corners=False)
    return margin[:, 0].sigmoid()


def objects_in(target: Tensor) -> Tensor:
    """Which masks [N, H, W] have an object, bool [N]."""
    return target.flatten(1).any(dim=1)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the samples that have an object."""
    present = objects_in(target)
    if not present.any():
        return logits.sum() * 0.0
    p = logits.softmax(dim=1)[present, 1].flatten(1)
    t = target[present].flatten(1).float()
    return (1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)).mean()


def _presence(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of how sure the network is that a thing is there, averaged over the samples.

    :func:`deixis.predict.surest` decides by the same share of the pixels. The other losses all but leave it out: Dice
    has no value where nothing is there, and in a mean over all pixels a small false mask hardly counts.
    """
    margin = (logits[:, 1] - logits[:, 0]).flatten(1)
    top = margin.topk(max(1, round(SUREST * margin.shape[1])), dim=1).values.mean(dim=1)
    return F.binary_cross_entropy_with_logits(top, objects_in(target).to(top.dtype))


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
