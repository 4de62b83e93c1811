"""What each kind of system learns from samples on disk, prepared as its paper does.

A ``Prepare…`` turns a sample into tensors, in worker processes; a ``Streamed…`` turns a micro-batch of these into a
loss, as :mod:`~deixis.training.depth`, :mod:`~deixis.training.refer` and :mod:`~deixis.training.relative` do for
frames in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.describe import aggregate, class_description, encoder
from deixis.conditioning.text import Padding, tokenize
from deixis.data.dataset import Expression, Sample
from deixis.data.transforms import RandomCrop, RandomFlip, Transform, resized, transformed, vpd_augmentation
from deixis.errors import InputError
from deixis.evaluation.settings import choose
from deixis.protocols.depth import DepthProtocol, depth_metrics
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics
from deixis.relative import STRIDE
from deixis.training.depth import AGGREGATED, DepthLearning, depth_predictor, shown_depth
from deixis.training.distill import text_tower
from deixis.training.gallery import Cell, depth_row, in_pairs, mask_cells
from deixis.training.losses import mask_weight
from deixis.training.normalise import (
    HYPERSIM_RANGE,
    Target,
    between,
    e2e_ft_sample,
    far_where_invalid,
    lotus_sample,
    marigold_sample,
)
from deixis.training.objectives import System
from deixis.training.recipe import DiskSet
from deixis.training.refer import ReferLearning, mask_probability, objects_in
from deixis.training.relative import RelativeLearning, metrics_of, noise_for
from deixis.training.stream import CAPTION, Item, Source
from deixis.types import RGB, Text

# A dataset's own caption, where there is no file of them, and the name of its class of place.
OWN_CAPTION, CLASS = "caption", "class"


def words_of(sample: Sample, kind: str) -> str | None:
    """The caption of a sample, or its ``class``; None where it has none."""
    texts: dict[str, Text] = sample.texts or {}
    found = texts.get(CLASS) if kind == CLASS else texts.get(CAPTION, texts.get(OWN_CAPTION))
    return None if found is None else found.text


def _words(sample: Sample, kind: str) -> str:
    found = words_of(sample, kind)
    if found is None:
        raise InputError(sample.name, f"has no {kind}", "leave it out of the list")
    return found


def _known_depth(sample: Sample) -> Tensor:
    """Depth float32 [1, H, W] [m], 0 where it is unknown or does not count."""
    if sample.depth is None:
        raise InputError(sample.name, "has no depth", "leave it out of the list")
    depth = sample.depth if sample.mask is None else np.where(sample.mask, sample.depth, np.float32(0))
    return torch.from_numpy(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0))[None]


def _picture(rgb: RGB) -> Tensor:
    """uint8 [H, W, 3] to float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float() / 255


def _drawn(shares: Sequence[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(shares, dtype=torch.float), 1, generator=generator))


# ------------------------------------------------------------------------------------------------- metric depth


@dataclass(frozen=True)
class PrepareDepth:
    """A picture with its depth and what is said of it.

    Attributes:
        picture: (height, width) of the pictures [px].
        window: (height, width) that is learned from at once [px].
        transforms: ``none``, ``flip`` or ``vpd``.
        max_depth: farther depth teaches nothing [m].
        descriptions: ``id``: captions; ``cd``: classes.
        text_shares: how often a description, the dataset's mean embedding and nothing are given.
    """

    picture: tuple[int, int]
    window: tuple[int, int]
    transforms: str
    max_depth: float
    descriptions: Literal["id", "cd"]
    text_shares: tuple[float, float, float]

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        """``image`` [3, H, W] in [0, 1], ``depth`` [1, H, W] [m], ``kind``, and the words ``told`` and ``place``."""
        far = given.max_depth or self.max_depth
        if given.size is not None:
            sample = resized(sample, *given.size)
        elif self.transforms != "vpd" and self.window == self.picture:
            sample = resized(sample, *self.picture)
        changes: list[Transform] = [RandomFlip()] if self.transforms == "flip" else []
        changes.append(RandomCrop(*self.window))
        if self.transforms == "vpd":
            changes = vpd_augmentation(*self.window, self.max_depth)
        sample = transformed(sample, changes, generator)
        kind = _drawn(self.text_shares, generator)
        depth = _known_depth(sample)
        said = kind == 0
        return {
            "image": _picture(sample.rgb),
            "depth": torch.where(depth <= far, depth, 0.0),
            "kind": torch.tensor(kind),
            "told": _words(sample, OWN_CAPTION) if said and self.descriptions == "id" else "",
            "place": _words(sample, CLASS) if said and self.descriptions == "cd" else "",
        }


class StreamedDepth(DepthLearning):
    """EVP and VPD metric depth.

    Args:
        sources: what is learned from.
        prepare: how samples are prepared.
        tokenizer, tokens, pooled, lambd, mean: see :class:`~deixis.training.depth.DepthTask`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        prepare: PrepareDepth,
        tokenizer: CLIPTokenizer,
        *,
        tokens: int,
        pooled: bool,
        lambd: float,
        mean: Tensor | None,
    ) -> None:
        self.sources, self.prepare, self.mean = list(sources), prepare, mean
        self.tokenizer, self.tokens, self.pooled, self.lambd = tokenizer, tokens, pooled, lambd
        self.descriptions, self.text_shares = prepare.descriptions, prepare.text_shares
        self.auxiliary, self.distill = nn.Identity(), 0.0
        self._fixed: tuple[Tensor, Tensor] | None = None
        self._classes: dict[str, Tensor] = {}

    def completed(self, item: Item) -> dict[str, Any]:
        """With ``ids`` [B, T] of what is told, and ``known``, the number of pixels with depth."""
        ids = tokenize(self.tokenizer, item["told"], self.tokens)
        rest = {key: item[key] for key in ("image", "depth", "kind", "place")}
        return {**rest, "ids": ids, "known": (item["depth"] > 0).sum()}

    def fixed_text(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The mean embedding of the sets' captions or of their pictures' classes; those of classes are by name."""
        if self._fixed is None:
            encode = encoder(text_tower(model), self.tokenizer, self.tokens)
            if self.descriptions == "cd":
                counts = Counter(chain.from_iterable(map(_classes_of, self.sources)))
                weighted = [self._class(model, name).double() * count for name, count in sorted(counts.items())]
                mean = (torch.stack(weighted).sum(dim=0) / sum(counts.values())).float()
            elif self.mean is not None:
                mean = self.mean
            else:
                said = list(chain.from_iterable(map(_captions_of, self.sources)))
                mean = aggregate(said[:: max(1, len(said) // AGGREGATED)], encode, pooled=self.pooled)
            self._fixed = mean, torch.zeros(0)
        return self._fixed

    def of_classes(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """[B, 1, C]; the empty class, of pictures that are told something else, is zeros."""
        named = {name: self._class(model, name) for name in set(batch["place"]) - {""}}
        blank = torch.zeros(1, 1, text_tower(model).clip.config.hidden_size)
        return torch.cat([named.get(name, blank.to(batch["image"].device)) for name in batch["place"]])

    def _class(self, model: nn.Module, name: str) -> Tensor:
        if name not in self._classes:
            encode = encoder(text_tower(model), self.tokenizer, self.tokens)
            self._classes[name] = class_description(name, encode)
        return self._classes[name]

    @torch.no_grad()  # not inference mode: texts are kept for training
    def validate(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> dict[str, float]:
        """AbsRel, d1 and RMSE [m] by the dataset's protocol, each picture told what training tells, if it has that."""
        protocol = choose(given.dataset, "metric", "a metric depth system").protocol
        assert isinstance(protocol, DepthProtocol)
        size = given.size or self.prepare.picture
        found = []
        for sample in samples:
            truth = _known_depth(sample)[0]
            predict = depth_predictor(model, self._said(model, sample), size)
            values = protocol.select(predict(sample.rgb).cpu(), truth, kind="metric")
            if len(values[1]):
                found.append(depth_metrics(*values))
        return _means(found, ("abs_rel", "d1", "rmse"))

    @torch.no_grad()
    def shown(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> list[list[Cell]]:
        """Picture, truth, prediction and error of each."""
        size, far = given.size or self.prepare.picture, given.max_depth or self.prepare.max_depth
        rows = []
        for sample in samples:
            depth = depth_predictor(model, self._said(model, sample), size)(sample.rgb)
            truth = _known_depth(sample)[0].numpy()
            rows.append(depth_row(sample.rgb, truth, shown_depth(depth, far), sample.name))
        return rows

    def _said(self, model: nn.Module, sample: Sample) -> Tensor:
        """[1, T, C]."""
        place, caption = words_of(sample, CLASS), words_of(sample, OWN_CAPTION)
        if self.text_shares[0] and self.descriptions == "cd" and place is not None:
            return self._class(model, place)
        told = caption if self.text_shares[0] and self.descriptions == "id" else None
        device = next(model.parameters()).device
        if told is None and self.text_shares[1]:
            return self.fixed_text(model)[0].to(device)
        ids = tokenize(self.tokenizer, [told or ""], self.tokens).to(device)
        vectors: Tensor = text_tower(model)(ids, pooled=self.pooled)
        return vectors


def _described(source: Source, name: str) -> Iterator[str]:
    for index in range(len(source.dataset)):
        texts = source.dataset.described(index) or {}
        if name in texts:
            yield texts[name].text


def _classes_of(source: Source) -> Iterator[str]:
    return _described(source, CLASS)


def _captions_of(source: Source) -> Iterator[str]:
    if source.captions is not None:
        return (text.text for text in source.captions.by_hash.values())
    return _described(source, OWN_CAPTION)


def _means(found: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, float]:
    return {name: math.fsum(one[name] for one in found) / len(found) for name in names} if found else {}


# ----------------------------------------------------------------------------------------- referring segmentation


@dataclass(frozen=True)
class PrepareRefer:
    """A picture with expressions for it and their masks.

    Attributes:
        size: (height, width) to which picture and masks are stretched [px].
        transforms: ``none`` or ``flip``.
        expressions: that are asked for in each picture.
    """

    size: tuple[int, int]
    transforms: str
    expressions: int

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        """``image`` [3, H, W] in [0, 1], ``mask`` bool [E, H, W], and the words ``told`` of the E expressions."""
        if not sample.expressions:
            raise InputError(sample.name, "has no expressions", "leave it out of the list")
        sample = resized(sample, *(given.size or self.size))
        sample = transformed(sample, [RandomFlip()] if self.transforms == "flip" else [], generator)
        which = torch.randint(len(sample.expressions), (self.expressions,), generator=generator).tolist()
        asked: list[Expression] = [sample.expressions[i] for i in which]
        return {
            "image": _picture(sample.rgb),
            "mask": torch.from_numpy(np.stack([one.mask for one in asked])),
            "told": [one.text for one in asked],
        }


class StreamedRefer(ReferLearning):
    """EVP and VPD referring segmentation.

    Args:
        prepare: how samples are prepared.
        tokenizer, tokens, dice, presence: see :class:`~deixis.training.refer.ReferTask`.
    """

    def __init__(
        self, prepare: PrepareRefer, tokenizer: CLIPTokenizer, *, tokens: int, dice: float, presence: float
    ) -> None:
        self.prepare, self.tokenizer, self.tokens = prepare, tokenizer, tokens
        self.dice, self.presence = dice, presence
        self.expressions = prepare.expressions
        self.auxiliary = self.teacher = nn.Identity()
        self.distill, self.semantic, self.semantics = 0.0, 0.0, None

    def completed(self, item: Item) -> dict[str, Any]:
        """With ``ids`` [B * E, T]; ``mask`` [B * E, H, W]; ``weights`` and ``objects`` as amounts of it."""
        mask: Tensor = item["mask"].flatten(0, 1)
        told = list(chain.from_iterable(item["told"]))
        return {
            "image": item["image"],
            "mask": mask,
            "ids": tokenize(self.tokenizer, told, self.tokens),
            "weights": mask_weight(mask),
            "objects": objects_in(mask).sum(),
        }

    def validate(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> dict[str, float]:
        """Overall and mean IoU [%] at the pictures' own size."""
        metrics = ReferMetrics(REFER_NATIVE)
        scored = False
        for sample in samples:
            texts = tuple(one.text for one in sample.expressions)
            if texts:
                found = mask_probability(
                    model, self.tokenizer, self.tokens, given.size or self.prepare.size, sample.rgb, texts
                )
                for one, probability in zip(sample.expressions, found.cpu(), strict=True):
                    metrics.update((probability > 0.5).numpy(), one.mask)
                    scored = True
        if not scored:
            return {}
        values = metrics.compute()
        return {name: values[name] for name in ("oiou", "miou")}

    def shown(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> list[list[Cell]]:
        """What the first expressions of each mean beside what is found, two in a row."""
        cells = []
        for sample in samples:
            asked = sample.expressions[:2]
            if asked:
                texts, size = tuple(one.text for one in asked), given.size or self.prepare.size
                found = mask_probability(model, self.tokenizer, self.tokens, size, sample.rgb, texts).cpu()
                for one, probability in zip(asked, found, strict=True):
                    cells.append(mask_cells(sample.rgb, one.text, one.mask, (probability > 0.5).numpy()))
        return in_pairs(cells)


# ------------------------------------------------------------------------------------------ affine-invariant depth


@dataclass(frozen=True)
class PrepareRelative:
    """A picture, what its network should give, and noise.

    Attributes:
        system: whose normalisation and resizing.
        transforms: ``none`` or ``flip``.
        text_rate: how often there is a caption.
        disparity: Lotus: of disparity.
        length: steps of the noise schedule.
    """

    system: System
    transforms: str
    text_rate: float
    disparity: bool
    length: int

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        """``image`` [3, H, W] in [-1, 1]; ``values``, ``depth``, ``valid`` [1, H, W]; noise; the words ``told``."""
        sample = transformed(sample, [RandomFlip()] if self.transforms == "flip" else [], generator)
        said = float(torch.rand((), generator=generator)) < self.text_rate
        image, target = self._target(sample.rgb, _known_depth(sample), given)
        timestep = torch.randint(self.length, (1,), generator=generator)
        size = (image.shape[1] // STRIDE, image.shape[2] // STRIDE)
        return {
            "image": image,
            "values": target.values if self.system.startswith("lotus") else far_where_invalid(target),
            "depth": target.depth,
            "valid": target.valid,
            "told": _words(sample, OWN_CAPTION) if said else "",
            "noise": noise_for(self.system, timestep, self.length, size, generator)[0],
            "timesteps": timestep[0],
        }

    def _target(self, rgb: RGB, depth: Tensor, given: DiskSet) -> tuple[Tensor, Target]:
        size = None if given.size is None else (int(given.size[0]), int(given.size[1]))
        valid = between(depth, (HYPERSIM_RANGE[0], given.max_depth or math.inf))
        if self.system == "marigold":
            return marigold_sample(rgb, depth, valid, size)
        if self.system == "e2e-ft":
            return e2e_ft_sample(rgb, depth, valid, size)
        norm: Literal["trunc_disparity", "truncnorm"] = "trunc_disparity" if self.disparity else "truncnorm"
        image, target = lotus_sample(rgb, depth, None if given.max_depth is None else valid, size, norm)
        if given.max_depth is not None:  # the sky sets no range, and is learned
            target = target._replace(valid=target.valid | (target.depth >= given.max_depth))
        return image, target


class StreamedRelative(RelativeLearning):
    """Marigold, Lotus and E2E-FT.

    Args:
        prepare: how samples are prepared.
        tokenizer, size, padding, alphas_cumprod: see :class:`~deixis.training.relative.RelativeTask`.
    """

    def __init__(
        self,
        prepare: PrepareRelative,
        tokenizer: CLIPTokenizer,
        *,
        size: tuple[int, int],
        padding: Padding,
        alphas_cumprod: Tensor,
    ) -> None:
        self.prepare, self.system, self.tokenizer = prepare, prepare.system, tokenizer
        self.size, self.padding, self.alphas_cumprod = size, padding, alphas_cumprod
        self.auxiliary: nn.Module = nn.Identity()

    def completed(self, item: Item) -> dict[str, Any]:
        """With ``ids`` [B, T], and ``known``, how much of the depth is known."""
        ids = tokenize(self.tokenizer, item["told"], self.tokenizer.model_max_length)
        rest = {key: value for key, value in item.items() if key != "told"}
        return {**rest, "ids": ids, "known": self._known(item["valid"]).sum()}

    @torch.inference_mode()
    def validate(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> dict[str, float]:
        """AbsRel and d1 after alignment, without text; ``told_…`` with captions, where training has them."""
        training = model.training
        model.eval()
        found: dict[str, list[dict[str, float]]] = {"": [], "told_": []}
        for number, sample in enumerate(samples):
            truth = _known_depth(sample)[0]
            size = _size(given, truth)
            caption = words_of(sample, OWN_CAPTION) if self.prepare.text_rate else None
            for key, text in (("", ""), ("told_", caption)):
                if text is not None:
                    far = given.max_depth or math.inf
                    one = metrics_of(self.aligned(model, sample.rgb, truth, text, number, far, size), truth, far)
                    found[key] += [] if one is None else [one]
        model.train(training)
        means = {key: _means(values, ("abs_rel", "d1")) for key, values in found.items()}
        return {f"{key}{name}": value for key, values in means.items() for name, value in values.items()}

    def shown(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> list[list[Cell]]:
        """Picture, truth, prediction without text after alignment, and error of each."""
        training = model.training
        model.eval()
        rows, far = [], given.max_depth or math.inf
        for number, sample in enumerate(samples):
            truth = _known_depth(sample)[0]
            depth = self.aligned(model, sample.rgb, truth, "", number, far, _size(given, truth))
            if depth is not None:
                rows.append(depth_row(sample.rgb, truth.numpy(), shown_depth(depth, far), sample.name))
        model.train(training)
        return rows


def _size(given: DiskSet, truth: Tensor) -> tuple[int, int]:
    """(height, width) at which a model sees a picture with a depth map [H, W]: the set's, or about its own [px]."""
    return given.size or (truth.shape[0] // STRIDE * STRIDE, truth.shape[1] // STRIDE * STRIDE)
