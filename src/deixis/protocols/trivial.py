"""Predictors that do not look at the picture: what a model must beat before its numbers mean anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deixis.types import BoolMap, FloatMap


@dataclass(frozen=True)
class DepthPriors:
    """Depth without a picture, fitted on training depth maps of one size.

    Attributes:
        constant: the one depth with the least AbsRel over all training pixels [m].
        median: per-pixel median [H, W] [m].
        mean: per-pixel mean [H, W] [m].
    """

    constant: float
    median: FloatMap
    mean: FloatMap

    @classmethod
    def fit(cls, depths: Iterable[FloatMap]) -> DepthPriors:
        """Fit on maps float32 [H, W] in metres, 0 where nothing was measured."""
        stack = np.stack(list(depths))
        stack[stack <= 0] = np.nan
        values = stack[np.isfinite(stack)][::97]  # a sample of the pixels is plenty for one number
        # AbsRel of a constant c is sum |c - d| / d: its minimum is the median weighted by 1 / d.
        order = np.argsort(values)
        weight = np.cumsum(1 / values[order])
        constant = float(values[order][np.searchsorted(weight, weight[-1] / 2)])
        return cls(constant, np.nanmedian(stack, axis=0), np.nanmean(stack, axis=0))


@dataclass(frozen=True)
class LocationPrior:
    """A mask without a picture or an expression.

    Attributes:
        mask: the set of pixels with the best overall IoU over the training masks [H, W].
    """

    mask: BoolMap

    @classmethod
    def fit(cls, masks: Sequence[BoolMap]) -> LocationPrior:
        """Threshold the mean training mask [H, W] where the overall IoU on the training masks is best."""
        frequency = np.mean(masks, axis=0, dtype=np.float64)
        total = frequency.sum()
        # For a threshold t the prediction is the same in every picture, so overall IoU follows from the mean.
        levels = np.sort(frequency.ravel())[::-1]
        intersection = np.cumsum(levels)
        union = np.arange(1, levels.size + 1) + total - intersection
        return cls(frequency >= levels[int(np.argmax(intersection / union))])


def interval(
    statistic: Callable[[npt.NDArray[np.intp]], float], count: int, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of samples, given by their row numbers.

    Args:
        statistic: of an array of row numbers, with repetitions.
        count: number of samples.
        resamples: how many.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
