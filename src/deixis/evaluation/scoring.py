"""One sample at a time: predict as a user would, bring the prediction to the protocol's frame, score it.

What a system is shown is the picture as its dataset gives it; only KITTI's benchmark frame is cut out before, as the
official loaders do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from deixis import viz
from deixis.data.dataset import Dataset, Expression, Sample, truth_of
from deixis.data.readers import open_dataset
from deixis.errors import InputError, UsageError
from deixis.evaluation.journal import Entry
from deixis.evaluation.settings import Setting, Task, check_frame, choose
from deixis.io import printable
from deixis.predict import DepthPredictor, load_depth, load_mask, load_metric
from deixis.protocols.affine import AffineProtocol, affine_metrics
from deixis.protocols.ask import AskProtocol
from deixis.protocols.benchmarks import Benchmark, named_setting
from deixis.protocols.depth import DepthProtocol, depth_metrics
from deixis.protocols.ranges import by_range
from deixis.protocols.refer import ReferProtocol, iou
from deixis.protocols.summary import Row
from deixis.types import RGB, TTA, BoolMap, Depth, FloatMap, Mask, Text

NO_TEXT = "none"
Picture = tuple[Image.Image, str]


@dataclass(frozen=True)
class Plan:
    """What is evaluated on what: all that decides the numbers.

    Attributes:
        task: what the system gives.
        model: name or folder; for ``ask`` the depth system.
        mask_model: the referring system of ``ask``.
        dataset: its name.
        root: where it lies.
        split: which part; the reader's own choice if None.
        list_file: list of samples, for readers that take one.
        protocol: name of the setting, or of a published one: then the numbers are to bear its name, and what differs
            from it is refused.
        text: which of the samples' texts a depth system is told; ``none`` leaves it to its own default.
        tta: test-time augmentation of metric depth.
        steps: denoising steps of systems that take several.
        ensemble: maps that are merged, of systems that draw noise.
        resolution: longer side at which affine-invariant systems see the picture [px]; their own if None.
        seed: of their noise.
        device: where it runs.
    """

    task: Task
    model: str
    dataset: str
    root: str
    mask_model: str | None = None
    split: str | None = None
    list_file: str | None = None
    protocol: str | None = None
    text: str = NO_TEXT
    tta: TTA = "none"
    steps: int | None = None
    ensemble: int = 1
    resolution: int | None = None
    seed: int = 0
    device: str | None = None

    @property
    def claimed(self) -> Benchmark | None:
        """The published setting whose name the numbers are to bear; None if they need not."""
        return named_setting(self.protocol)

    def setting(self) -> Setting:
        """How it is scored; errors as :func:`deixis.evaluation.settings.choose`."""
        return choose(self.dataset, self.task, "ask" if self.task == "ask" else self.model, self.protocol)

    def open(self) -> Dataset:
        """Its dataset, or the part that is there where no published name is claimed.

        Raises:
            UsageError: if the split is not that of the published setting.
            DeixisError: as :func:`deixis.data.readers.open_dataset`.
        """
        claimed, split = self.claimed, self.split
        if claimed is not None:
            split = claimed.split if split is None else split
            if split != claimed.split:
                problem = f"is measured on the split '{claimed.split}', not on '{printable(split)}'"
                raise UsageError(claimed.name, problem, "leave --split out, or --protocol")
        return open_dataset(self.dataset, self.root, split, self.list_file, part=claimed is None)


class Scorer(ABC):
    """Scores the samples of a dataset with a loaded system.

    Args:
        plan: what to evaluate.
        dataset: its samples.

    Raises:
        DeixisError: if a model cannot be loaded, or does not take the settings.
    """

    def __init__(self, plan: Plan, dataset: Dataset) -> None:
        self.plan = plan
        self.dataset = dataset
        self.setting = plan.setting()
        self._load()

    def __call__(self, index: int) -> Entry:
        """Score a sample; one that cannot be read is an entry that says why.

        Raises:
            UsageError: if the model cannot take the sample's text.
        """
        name, stamp = self.dataset.names[index], self.dataset.stamp(index)
        try:
            sample = self.dataset[index]
            return replace(self.score(index, sample), stamp=stamp, truth=truth_of(sample))
        except InputError as error:
            return Entry(index, name, failed=str(error))

    @abstractmethod
    def _load(self) -> None: ...

    @abstractmethod
    def score(self, index: int, sample: Sample) -> Entry:
        """The rows of a sample.

        Raises:
            InputError: if it lacks what is needed.
            UsageError: if the model cannot take its text.
        """

    @abstractmethod
    def show(self, sample: Sample, row: Row) -> list[Picture]:
        """Pictures of one row: input, ground truth, prediction, error on a fixed scale; each with its caption."""


class DepthScorer(Scorer):
    """Metric and affine-invariant depth."""

    def _load(self) -> None:
        plan = self.plan
        self.predictor = (
            load_metric(plan.model, plan.device) if plan.task == "metric" else load_depth(plan.model, plan.device)
        )
        if not isinstance(self.predictor, DepthPredictor):
            self.predictor.check(steps=plan.steps, ensemble=plan.ensemble, resolution=plan.resolution)

    def score(self, index: int, sample: Sample) -> Entry:
        """One row; none where no ground truth is in range."""
        rgb, truth, mask = self._framed(sample)
        found, said = self._predict(sample, rgb, truth.shape)
        try:
            p, t = self._pixels(found, truth, mask)
        except InputError as error:  # a protocol knows no names of samples
            raise InputError(printable(sample.name), error.problem, error.remedy) from error
        starts = self.setting.ranges
        if not len(t):
            return Entry(index, sample.name)
        values = affine_metrics(p, t) if self.plan.task == "affine" else depth_metrics(p, t)
        row: Row = {"index": index, "sample": sample.name, **told(said), "pixels": len(t), **values}
        return Entry(index, sample.name, [row], by_range(p, t, starts))

    def show(self, sample: Sample, row: Row) -> list[Picture]:
        """Photo, true and predicted depth on one colour scale, and the error, where it counts, on the protocol's."""
        rgb, truth, mask = self._framed(sample)
        found, said = self._predict(sample, rgb, truth.shape)
        protocol = self.setting.protocol
        values = found.values
        if isinstance(protocol, AffineProtocol):
            values = protocol.align(found, truth, _tensor(mask))[0].cpu().numpy()
            counts = protocol.dataset.valid(torch.from_numpy(truth), _tensor(mask)).numpy()
        else:
            assert isinstance(protocol, DepthProtocol)
            counts = protocol.valid(truth)
        true = Depth(_thickened(truth), "metric", said, "ground truth")
        scored = replace(true, values=_thickened(np.where(counts, truth, np.float32(0))))
        low, high = viz.depth_range(scored)
        shown = replace(found, values=values, kind="metric")
        limit = self.setting.error_max_m
        span = f"{low:.1f} to {high:.1f} m, near warm"
        return [
            (Image.fromarray(rgb), "input" if not said.text else f"input: {said.text}"),
            (viz.colorize_depth(true, low, high), f"ground truth, {span}"),
            (viz.colorize_depth(shown, low, high), "prediction, same colours"),
            (viz.error_map(values, scored.values, limit), f"error, black 0 to yellow {limit:g} m or more"),
        ]

    def _framed(self, sample: Sample) -> tuple[RGB, FloatMap, BoolMap | None]:
        """Picture, depth and mask, cut to the frame of the protocol."""
        if sample.depth is None:
            raise InputError(sample.name, "has no depth to compare with", "leave it out of the list")
        region = self.setting.region
        assert region is not None
        check_frame(sample, region)
        if not region.benchmark_crop:
            return sample.rgb, sample.depth, sample.mask
        top, bottom, left, right = replace(region, crop="none").window(*sample.rgb.shape[:2])
        window = slice(top, bottom), slice(left, right)
        return sample.rgb[window], sample.depth[window], None if sample.mask is None else sample.mask[window]

    def _predict(self, sample: Sample, rgb: RGB, size: tuple[int, ...]) -> tuple[Depth, Text]:
        """The map at the size of the ground truth, and the words behind it."""
        plan, text = self.plan, chosen_text(sample, self.plan.text)
        picture = np.ascontiguousarray(rgb)
        words = None if text is None else text.text
        if isinstance(self.predictor, DepthPredictor):
            found = self.predictor(picture, words, tta=plan.tta)
        else:
            one = self.predictor(
                picture, words, steps=plan.steps, ensemble=plan.ensemble, seed=plan.seed, resolution=plan.resolution
            )
            assert isinstance(one, Depth)
            found = one
        if found.values.shape != size:
            values = torch.from_numpy(found.values)[None, None]
            values = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
            found = replace(found, values=values[0, 0].numpy())
        return found, text or found.text

    def _pixels(self, found: Depth, truth: FloatMap, mask: BoolMap | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Prediction and ground truth [N] of the pixels that count, in metres."""
        protocol = self.setting.protocol
        if isinstance(protocol, DepthProtocol):
            return protocol.select(found, truth)
        assert isinstance(protocol, AffineProtocol)
        aligned = protocol.aligned(found, truth, _tensor(mask))
        return (torch.empty(0), torch.empty(0)) if aligned is None else aligned.pixels


class ReferScorer(Scorer):
    """Masks of expressions."""

    def _load(self) -> None:
        self.predictor = load_mask(self.plan.model, self.plan.device)

    def score(self, index: int, sample: Sample) -> Entry:
        """A row for each expression. Masks count whether found or not, unless the protocol is for absent things too."""
        protocol = self.setting.protocol
        assert isinstance(protocol, ReferProtocol)
        rows: list[Row] = []
        for expression in sample.expressions:
            mask, inside, truth = self._masks(sample, expression)
            intersection, union = protocol.counts(inside, truth)
            found = bool(inside.any()) if protocol.general else mask.found
            row: Row = {
                "index": index,
                "sample": sample.name,
                "image": self.dataset.image(index),
                "expression": expression.name,
                **told(Text(expression.text, "expression")),
                "there": expression.found,
                "found": found,
                "score": mask.score,
                "intersection": intersection,
                "union": union,
                "iou": iou(intersection, union),
            }
            if protocol.general:
                row["general_iou"] = row["iou"] if expression.found else float(not found)
            rows.append(row)
        return Entry(index, sample.name, rows)

    def _masks(self, sample: Sample, expression: Expression) -> tuple[Mask, BoolMap, BoolMap]:
        """What was found, its pixels and the true ones at the size of the protocol."""
        protocol = self.setting.protocol
        assert isinstance(protocol, ReferProtocol)
        mask = self.predictor(sample.rgb, expression.text, size=protocol.size)
        inside: BoolMap = mask.probability > self.predictor.manifest.mask_threshold
        if protocol.general:
            inside &= mask.found
        return mask, inside, expression.mask if protocol.size is None else _nearest(expression.mask, protocol.size)

    def show(self, sample: Sample, row: Row) -> list[Picture]:
        """Photo, true mask, predicted mask, and where they differ."""
        expression = _expression(sample, row)
        _, inside, _ = self._masks(sample, expression)
        inside = _nearest(inside, sample.rgb.shape[:2])
        return [
            (Image.fromarray(sample.rgb), f"input: {expression.text}"),
            (_outlined(sample.rgb, expression.mask), "ground truth"),
            (_outlined(sample.rgb, inside), "prediction"),
            (viz.mask_error(sample.rgb, inside, expression.mask), "green right, red added, blue missed"),
        ]


class AskScorer(Scorer):
    """Distances of what expressions mean: a referring system and a metric one."""

    def _load(self) -> None:
        assert self.plan.mask_model is not None
        self.depth = load_metric(self.plan.model, self.plan.device)
        self.segment = load_mask(self.plan.mask_model, self.plan.device)

    def score(self, index: int, sample: Sample) -> Entry:
        """A row for each expression."""
        protocol = self.setting.protocol
        assert isinstance(protocol, AskProtocol)
        if not sample.expressions:
            return Entry(index, sample.name)
        depth, said = self._depth(sample)
        rows: list[Row] = []
        for expression in sample.expressions:
            mask = self.segment(sample.rgb, expression.text)
            values = protocol.score(mask, depth, there=expression.found, distance_m=expression.distance_m)
            rows.append(
                {
                    "index": index,
                    "sample": sample.name,
                    "image": self.dataset.image(index),
                    "expression": expression.name,
                    "asked": expression.text,
                    **told(said),
                    **values,
                }
            )
        return Entry(index, sample.name, rows)

    def _depth(self, sample: Sample) -> tuple[Depth, Text]:
        text = chosen_text(sample, self.plan.text)
        depth = self.depth(sample.rgb, None if text is None else text.text, tta=self.plan.tta)
        return depth, text or depth.text

    def show(self, sample: Sample, row: Row) -> list[Picture]:
        """Photo, what is meant, what was found, and the depth it was measured in."""
        expression = _expression(sample, row)
        depth, _ = self._depth(sample)
        mask = self.segment(sample.rgb, expression.text)
        low, high = viz.depth_range(depth)
        return [
            (Image.fromarray(sample.rgb), f"input: {expression.text}"),
            (_outlined(sample.rgb, expression.mask), f"ground truth: {row['truth_m']:.2f} m"),
            (
                _outlined(sample.rgb, mask.mask),
                f"answer: {row['median_m']:.2f} m (p10 to p90: {row['p10_m']:.2f} to {row['p90_m']:.2f})",
            ),
            (viz.colorize_depth(depth, low, high), f"predicted depth, {low:.1f} to {high:.1f} m"),
        ]


SCORERS: dict[Task, type[Scorer]] = {
    "metric": DepthScorer,
    "affine": DepthScorer,
    "refer": ReferScorer,
    "ask": AskScorer,
}


def load_scorer(plan: Plan, dataset: Dataset) -> Scorer:
    """The scorer of a plan, its models loaded; errors as :class:`Scorer`."""
    return SCORERS[plan.task](plan, dataset)


def chosen_text(sample: Sample, source: str) -> Text | None:
    """The text of a source that a system is told about a sample; None for ``none``.

    Raises:
        InputError: if the sample has no such text.
    """
    if source == NO_TEXT:
        return None
    texts = sample.texts or {}
    if source not in texts:
        raise InputError(sample.name, f"has no text '{source}'", f"use one of {', '.join([NO_TEXT, *texts])}")
    return texts[source]


def told(text: Text) -> Row:
    """The columns of a row that say what a system was told."""
    return {"text": text.text, "text_provenance": text.provenance}


def check_text(dataset: Dataset, source: str, names: Sequence[int]) -> None:
    """Refuse a text source that the dataset does not have, by its first sample that can be read.

    Raises:
        UsageError: if it has none of that name.
    """
    for index in names if source != NO_TEXT else ():
        try:
            sample = dataset[index]
        except InputError:
            continue  # it will be named when its turn comes
        try:
            chosen_text(sample, source)
        except InputError as error:
            raise UsageError(
                f"--text {source}", f"is not there: {sample.name} {error.problem}", error.remedy
            ) from error
        return


def _expression(sample: Sample, row: Row) -> Expression:
    return next(one for one in sample.expressions if one.name == row["expression"])


def _tensor(mask: BoolMap | None) -> torch.Tensor | None:
    return None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))


def _nearest(mask: BoolMap, size: tuple[int, ...]) -> BoolMap:
    """A mask at another height and width, as the official loader resizes it."""
    picture = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    resized: BoolMap = np.asarray(picture) > 0
    return resized


def _outlined(rgb: RGB, mask: BoolMap) -> Image.Image:
    return viz.mask_error(rgb, mask, mask)


def _thickened(truth: FloatMap, reach: int = 2) -> FloatMap:
    """Sparse measurements as small squares, so that they can be seen; dense maps stay as they are [m]."""
    known = np.isfinite(truth) & (truth > 0)
    if known.mean() > 0.5:
        return truth
    distance, place = ndimage.distance_transform_cdt(~known, metric="chessboard", return_indices=True)
    filled: FloatMap = np.where(distance <= reach, truth[tuple(place)], np.float32(0))
    return filled
