"""Predictors that do not look at the picture: what a model must beat before its numbers mean anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deixis.errors import InputError, UsageError
from deixis.protocols.depth import DepthProtocol
from deixis.types import BoolMap, FloatMap

Rows = npt.NDArray[np.intp]

# The factor within which a pixel counts for d1.
D1 = 1.25


@dataclass(frozen=True)
class DepthPriors:
    """Depth without a picture, fitted on training depth maps of one size.

    Attributes:
        constant: the one depth with the least AbsRel over the scored training pixels [m].
        constant_d1: the one depth with the largest d1 over them [m].
        median: per-pixel median [H, W] [m].
        mean: per-pixel mean [H, W] [m].
    """

    constant: float
    constant_d1: float
    median: FloatMap
    mean: FloatMap

    @classmethod
    def fit(cls, depths: Iterable[FloatMap], protocol: DepthProtocol) -> DepthPriors:
        """Fit on maps float32 [H, W] in metres, 0 where nothing was measured.

        Args:
            depths: the maps.
            protocol: the constants are the best ones for the pixels it scores.

        Raises:
            UsageError: if there is no map, or none has a scored pixel.
        """
        maps = list(depths)
        if not maps:
            raise UsageError("depth priors", "were given no depth map", "give the training maps")
        stack = np.stack(maps)  # [N, H, W]
        del maps
        top, bottom, left, right = protocol.window(*stack.shape[1:])
        scored = stack[:, top:bottom, left:right]
        values = scored[(scored > protocol.min_depth) & (scored < protocol.max_depth)]
        if not values.size:
            raise UsageError("depth priors", "have no scored pixel to learn from", "check the unit (metres)")
        # A few million pixels, evenly spread, are plenty for one number.
        chosen = np.sort(values[:: 1 + values.size // 4_000_000].astype(np.float64))
        constant, constant_d1 = best_constant(chosen), best_constant_d1(chosen)
        median, mean = np.zeros_like(stack[0]), np.zeros_like(stack[0])
        for rows in np.array_split(np.arange(stack.shape[1]), 1 + stack.shape[1] // 16):  # the copies stay small
            strip = stack[:, rows]
            measured = strip > 0
            # A pixel that no map has measured gets the constant.
            empty = ~measured.any(axis=0)
            strip = np.where(measured, strip, np.float32(np.nan))
            strip[:, empty] = constant
            median[rows], mean[rows] = np.nanmedian(strip, axis=0), np.nanmean(strip, axis=0)
        return cls(constant, constant_d1, median, mean)


def best_constant(values: npt.NDArray[np.float64]) -> float:
    """The constant with the least AbsRel for sorted depths [N]: their median weighted by 1 / depth."""
    weight = np.cumsum(1 / values)
    return float(values[np.searchsorted(weight, weight[-1] / 2)])


def best_constant_d1(values: npt.NDArray[np.float64]) -> float:
    """A constant with the largest d1 for sorted depths [N]: the middle of the fullest window of ratio 1.25 squared."""
    # A window that starts at a value loses nothing; the constant lies just inside the window's middle.
    ends = np.searchsorted(values, values * D1**2, side="left")
    first = int(np.argmax(ends - np.arange(values.size)))
    return float(np.sqrt(values[first] * values[ends[first] - 1]))


@dataclass(frozen=True)
class LocationPrior:
    """A mask without a picture or an expression.

    Attributes:
        mask: the set of pixels with the best overall IoU over the training masks [H, W].
    """

    mask: BoolMap

    @classmethod
    def fit(cls, masks: Sequence[BoolMap]) -> LocationPrior:
        """Threshold the mean training mask [H, W] where the overall IoU on the training masks is best.

        No other set of pixels is better: one belongs to the best set exactly if it adds more intersection than
        the best IoU's share of union, which depends on its frequency alone.

        Raises:
            UsageError: if there is no mask.
        """
        if not len(masks):
            raise UsageError("location prior", "was given no mask", "give the training masks")
        frequency = np.mean(masks, axis=0, dtype=np.float64)
        total = frequency.sum()
        # For a threshold t the prediction is the same in every picture, so overall IoU follows from the mean.
        levels = np.sort(frequency.ravel())[::-1]
        intersection = np.cumsum(levels)
        union = np.arange(1, levels.size + 1) + total - intersection
        return cls(frequency >= levels[int(np.argmax(intersection / union))])


def aligned_abs_rel(prediction: FloatMap, target: FloatMap, protocol: DepthProtocol) -> float:
    """AbsRel of one image after the scale and shift that fit best, by least squares in depth.

    Args:
        prediction: [H, W].
        target: ground truth [H, W] [m], 0 where unknown.
        protocol: which pixels count; aligned depths below its ``min_depth`` are raised to it.

    Raises:
        InputError: if no pixel counts.
        UsageError: as :meth:`DepthProtocol.select`.
    """
    p, t = (values.double().numpy() for values in protocol.select(prediction, target, kind="metric"))
    if not t.size:
        raise InputError(protocol.name, "no ground truth inside the crop", "leave the image out")
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), t, rcond=None)[0]
    return float(np.mean(np.abs(np.maximum(scale * p + shift, protocol.min_depth) - t) / t))


def interval(
    statistic: Callable[[Rows], float],
    count: int,
    *,
    clusters: Sequence[int] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic of samples, given by their row numbers.

    Args:
        statistic: of an array of row numbers, with repetitions.
        count: number of samples.
        clusters: which cluster each sample belongs to. Clusters are then drawn in place of samples, each with
            all its samples: those of one picture or one room are not independent.
        resamples: how many.
        seed: of the resampling.

    Raises:
        UsageError: if there is no sample, or ``clusters`` does not name one for each.
    """
    if clusters is not None and len(clusters) != count:
        raise UsageError("clusters", f"name {len(clusters)} for {count} samples", "give one for each sample")
    if not count:
        raise UsageError("interval", "has no sample to draw from", "give it at least one")
    labels = np.arange(count) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    rng = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
        for _ in range(resamples)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
