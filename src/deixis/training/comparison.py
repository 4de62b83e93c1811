"""Numbers with their intervals, alone and beside others, as lines of a card's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deixis.protocols.trivial import Rows, interval

RESAMPLES = 1000

Interval = tuple[float, float]
Statistic = Callable[[Rows], float]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: the number.
        low: lower end.
        high: upper end.
        digits: after the point.
    """

    value: float
    low: float
    high: float
    digits: int = 3

    @classmethod
    def of(cls, statistic: Statistic, clusters: Sequence[int], digits: int = 3) -> Estimate:
        """A statistic of samples with a bootstrap over their clusters."""
        low, high = interval(statistic, len(clusters), clusters=clusters, resamples=RESAMPLES)
        return cls(statistic(np.arange(len(clusters))), low, high, digits)

    @classmethod
    def mean(cls, values: npt.ArrayLike, clusters: Sequence[int], digits: int = 3) -> Estimate:
        """The mean of samples [N]."""
        return cls.of(mean(values), clusters, digits)

    @classmethod
    def share(cls, hits: int, of: int) -> Estimate:
        """A share of independent trials in percent, with Wilson's interval."""
        z, p = 1.959964, hits / of
        middle, half = p + z**2 / (2 * of), z * math.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
        low, high = ((middle + sign * half) / (1 + z**2 / of) for sign in (-1, 1))
        return cls(100 * p, 100 * max(0.0, low), 100 * min(1.0, high), 0)

    def __str__(self) -> str:
        n = self.digits
        return f"{self.value:.{n}f} ({self.low:.{n}f} to {self.high:.{n}f})"


@dataclass(frozen=True)
class Comparison:
    """A model's number beside another one, paired over the same samples.

    Attributes:
        where: on which data.
        metric: name of the number.
        other_name: what the model is compared with.
        model: the model's number.
        other: the other's.
        difference: 95 % interval of model minus other, clusters resampled.
        smaller_is_better: for errors.
        digits: after the point.
    """

    where: str
    metric: str
    other_name: str
    model: float
    other: float
    difference: Interval
    smaller_is_better: bool
    digits: int = 3

    @classmethod
    def of(
        cls,
        where: str,
        metric: str,
        other_name: str,
        statistics: tuple[Statistic, Statistic],
        clusters: Sequence[int],
        *,
        smaller_is_better: bool,
        digits: int = 3,
    ) -> Comparison:
        """Compare two statistics of the same samples."""
        one, other = statistics
        rows = np.arange(len(clusters))
        difference = interval(lambda r: one(r) - other(r), len(rows), clusters=clusters, resamples=RESAMPLES)
        return cls(where, metric, other_name, one(rows), other(rows), difference, smaller_is_better, digits)

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval is clear of zero."""
        low, high = self.difference
        if low <= 0 <= high:
            return "not clear"
        return "better" if (high < 0) == self.smaller_is_better else "worse"

    @property
    def row(self) -> str:
        """A line of the card's table."""
        n, (low, high) = self.digits, self.difference
        return (
            f"| {self.where} | {self.metric} | {self.model:.{n}f} | {self.other_name} | {self.other:.{n}f} |"
            f" {low:+.{n}f} to {high:+.{n}f} | {self.verdict} |"
        )


def mean(values: npt.ArrayLike) -> Statistic:
    """The mean of samples [N] as a statistic of their rows."""
    array = np.asarray(values, dtype=np.float64)
    return lambda rows: float(array[rows].mean())


def table(head: Sequence[str], rows: Sequence[Sequence[object] | str]) -> list[str]:
    """Lines of a Markdown table; rows may be lines already."""

    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    return [line(head), "|---" * len(head) + "|", *(row if isinstance(row, str) else line(row) for row in rows), ""]


def comparison_table(comparisons: Sequence[Comparison], model: str = "the model") -> list[str]:
    """Lines of the table of comparisons."""
    head = ("on", "metric", model, "other", "its number", "difference, 95 %", f"{model} is")
    return table(head, [one.row for one in comparisons])
