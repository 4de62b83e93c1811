"""Numbers of a split, and how sure they are, from rows of numbers per image or expression.

Every reported number is a ratio of two sums over samples: a mean (the second sum counts them), a share, or overall IoU.
Sums are exact (``math.fsum``), so that neither the order of the rows nor the number of processes changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deixis.errors import UsageError
from deixis.protocols.affine import AFFINE_METRICS
from deixis.protocols.depth import DEPTH_METRICS
from deixis.protocols.refer import GENERAL_REFER, REFER_NATIVE, iou
from deixis.protocols.trivial import Rows, interval

Row = dict[str, float | int | str | bool | None]
Table = Sequence[Mapping[str, float | int | str | bool | None]]
Floats = npt.NDArray[np.float64]
Better = Literal["lower", "higher", "nominal"]

UNITS = {"sq_rel": "m", "rmse": "m", "i_rmse": "1/m", "mae": "m", "gap": "m"}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOMINAL = 80.0
"""Share of truths that an answer's p10 to p90 should hold [%]."""


@dataclass(frozen=True, eq=False)
class Ratio:
    """A number that is a ratio of sums over samples.

    Attributes:
        name: of the number.
        top: what is summed [N]; NaN where a sample has no say in the number.
        bottom: what the sum is divided by [N]; not negative.
        clusters: which image each sample belongs to [N]; those of one image are not independent.
        better: whether lower or higher is better, or near a nominal value.
        scale: factor on the ratio, 100 for percent.
    """

    name: str
    top: Floats
    bottom: Floats
    clusters: Sequence[int]
    better: Better
    scale: float = 1.0

    @property
    def unit(self) -> str:
        """``m``, ``1/m``, ``%`` or empty."""
        return "%" if self.scale == 100 else UNITS.get(self.name, "")

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Which samples have a say [N]."""
        return np.isfinite(self.top)

    @property
    def each(self) -> Floats:
        """The number of each sample alone [N]; NaN without a say."""
        zeros = np.where(self.counts, 0.0, np.nan)
        return self.scale * np.divide(self.top, self.bottom, out=zeros, where=self.bottom > 0)

    def value(self) -> float | None:
        """The number; None if no sample has a say."""
        used = self.counts
        if not used.any():
            return None
        return self.scale * iou(math.fsum(self.top[used]), math.fsum(self.bottom[used]))

    def interval(self) -> tuple[float, float] | None:
        """Its 95 % bootstrap interval over images; None if no sample has a say."""
        used = np.flatnonzero(self.counts)
        if not len(used):
            return None
        return interval(
            lambda rows: self._of(used[rows]), len(used), clusters=[self.clusters[i] for i in used.tolist()]
        )

    def against(self, other: Ratio) -> Difference:
        """This number less another one of the same samples, with a paired interval.

        Raises:
            UsageError: if the samples are not the same, or none has a say in both.
        """
        if self.name != other.name or len(self.top) != len(other.top) or list(self.clusters) != list(other.clusters):
            raise UsageError(self.name, "is compared over different samples", "evaluate both on the same samples")
        used = np.flatnonzero(self.counts & other.counts)
        if not len(used):
            raise UsageError(self.name, "has no sample that both were scored on", "choose another metric")

        def difference(rows: Rows) -> float:
            return self._of(used[rows]) - other._of(used[rows])

        low, high = interval(difference, len(used), clusters=[self.clusters[i] for i in used.tolist()])
        mine, theirs = self.each[used], other.each[used]
        wins, ties = mine < theirs if self.better == "lower" else mine > theirs, mine == theirs
        return Difference(
            one=self._of(used),
            other=other._of(used),
            difference=difference(np.arange(len(used))),
            low=low,
            high=high,
            wins=int(wins.sum()),
            ties=int(ties.sum()),
            samples=len(used),
        )

    def _of(self, rows: Rows) -> float:
        return self.scale * iou(float(self.top[rows].sum()), float(self.bottom[rows].sum()))


@dataclass(frozen=True)
class Difference:
    """Two numbers of the same samples.

    Attributes:
        one: the first.
        other: the second.
        difference: first less second.
        low: lower end of its 95 % interval.
        high: upper end.
        wins: samples on which the first is better.
        ties: samples on which they are equal.
        samples: how many there are.
    """

    one: float
    other: float
    difference: float
    low: float
    high: float
    wins: int
    ties: int
    samples: int


def depth_ratios(rows: Table) -> list[Ratio]:
    """Means over images of metric or affine-invariant depth metrics, whichever the rows hold."""
    names = AFFINE_METRICS if rows and "i_rmse" in rows[0] else DEPTH_METRICS
    one = np.ones(len(rows))
    clusters = range(len(rows))
    return [
        Ratio(name, column(rows, name), one, clusters, "higher" if name in ("d1", "d2", "d3") else "lower")
        for name in names
    ]


def refer_ratios(rows: Table) -> list[Ratio]:
    """Overall and mean IoU and ``p@`` of things that are there; how often things are found, and nothing is.

    ``t_acc`` and ``n_acc``, as for gRefCOCO (Liu et al. 2023): shares of expressions for something that are found, and
    of expressions for nothing that are called absent. Rows of its own protocol, which have ``general_iou``, give
    ``giou`` and ``ciou`` over all expressions in place of overall and mean IoU, see
    :class:`~deixis.protocols.refer.GeneralReferMetrics`.
    """
    there, found = column(rows, "there") > 0, column(rows, "found")
    intersection, union = column(rows, "intersection"), column(rows, "union")
    ious = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    one, clusters = np.ones(len(rows)), images(rows)

    def about(values: Floats, which: npt.NDArray[np.bool_]) -> Floats:
        return np.where(which, values, np.nan)

    if rows and "general_iou" in rows[0]:
        means = [
            Ratio("giou", column(rows, "general_iou"), one, clusters, "higher", 100),
            Ratio("ciou", intersection, union, clusters, "higher", 100),
        ]
        thresholds = GENERAL_REFER.thresholds
    else:
        means = [
            Ratio("oiou", about(intersection, there), union, clusters, "higher", 100),
            Ratio("miou", about(ious, there), one, clusters, "higher", 100),
        ]
        thresholds = REFER_NATIVE.thresholds
    return [
        *means,
        *(
            Ratio(f"p@{at}", about((ious >= at).astype(np.float64), there), one, clusters, "higher", 100)
            for at in thresholds
        ),
        Ratio("t_acc", about(found, there), one, clusters, "higher", 100),
        Ratio("n_acc", about(1 - found, ~there), one, clusters, "higher", 100),
    ]


def ask_ratios(rows: Table) -> list[Ratio]:
    """Errors of distances that were given, how often they were, and whether intervals hold the truth.

    ``abs_rel`` and ``mae`` are about answers; ``d1`` is the share of things with a known distance whose answer is
    within a factor of 1.25, where no answer is none; ``t_acc`` and ``n_acc`` as in :func:`refer_ratios`; ``coverage``
    is the share of answers whose p10 to p90 holds the truth, nominally :data:`NOMINAL` %.
    """
    there, found = column(rows, "there") > 0, column(rows, "found")
    truth, median = column(rows, "truth_m"), column(rows, "median_m")
    gap = np.abs(median - truth)
    holds = (column(rows, "p10_m") <= truth) & (truth <= column(rows, "p90_m"))
    inside = np.where(np.isfinite(gap), 1.0 * holds, np.nan)
    close = np.isfinite(median) & (np.maximum(median / truth, truth / median) < 1.25)
    one, clusters = np.ones(len(rows)), images(rows)
    return [
        Ratio("abs_rel", gap / truth, one, clusters, "lower"),
        Ratio("mae", gap, one, clusters, "lower"),
        Ratio("d1", np.where(np.isfinite(truth), 1.0 * close, np.nan), one, clusters, "higher"),
        Ratio("t_acc", np.where(there, found, np.nan), one, clusters, "higher", 100),
        Ratio("n_acc", np.where(there, np.nan, 1 - found), one, clusters, "higher", 100),
        Ratio("coverage", inside, one, clusters, "nominal", 100),
    ]


def calibration(rows: Table, levels: Sequence[float] = LEVELS) -> list[dict[str, float]]:
    """For central intervals of the depths in a mask: the share they should hold and the share they do [%].

    Args:
        rows: answers; ``rank`` is the share of the mask's depths below the truth.
        levels: shares that they should hold, in (0, 1).
    """
    rank = column(rows, "rank")
    rank = rank[np.isfinite(rank)]
    if not len(rank):
        return []
    off = np.abs(rank - 0.5)
    return [{"nominal": 100 * level, "actual": 100 * float(np.mean(off <= level / 2))} for level in levels]


def column(rows: Table, name: str) -> Floats:
    """One number of each row [N], NaN where it has none."""
    values = [row[name] for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def images(rows: Table) -> list[int]:
    """Which image each row belongs to, counted from 0 [N]: a dataset may have several samples of one image."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(row["image"], len(numbers)) for row in rows]
