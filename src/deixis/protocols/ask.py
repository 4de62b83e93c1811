"""How far off ``deixis ask`` is, and whether it keeps silent where nothing is: one row for each thing asked for.

There is no published protocol; the definitions are here. Silence about something that is there is no error of its
distance and is counted apart. Silence is decided by a threshold on the mask's score, which trades false abstention
(something is there, nothing is said) against correct abstention (nothing is there, nothing is said).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deixis.asking import depths_of, measure
from deixis.errors import KindError, UsageError
from deixis.protocols.accumulate import RowMetric
from deixis.types import BoolMap, Depth, FloatMap, Mask, Referent

FALSE_ABSTENTION = (0.01, 0.05, 0.1)
"""Shares of things that are there about which nothing may be said."""


def relative_error(said: float, truth: float) -> float:
    """Error of a distance as a share of the true one."""
    return abs(said - truth) / truth


def true_distance(mask: BoolMap, depth: FloatMap) -> float | None:
    """Distance of a thing: the median of the known depth over its true mask [m]; None where none is known.

    Args:
        mask: bool [H, W].
        depth: ground truth [H, W] [m]; 0, infinity or NaN where unknown.
    """
    values = depth[mask & np.isfinite(depth) & (depth > 0)]
    return float(np.median(values)) if values.size else None


def balanced_quantile(groups: Sequence[npt.NDArray[np.float64]], share: float) -> float:
    """Quantile of several groups of numbers, each of which weighs the same: at most that share is below it."""
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / (len(group) * len(groups))) for group in groups])
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share)])


AskRow = dict[str, float | bool | None]


@dataclass(frozen=True)
class AskProtocol:
    """How an answer is scored.

    Attributes:
        name: how errors and reports call it.
    """

    name: str = "ask"

    def score(self, mask: Mask, depth: Depth, *, there: bool, distance_m: float | None) -> AskRow:
        """One referent, measured as :func:`deixis.asking.ask` does.

        Args:
            mask: what a referring system found [H, W].
            depth: metric depth of the same picture [H, W].
            there: whether the words mean something.
            distance_m: true planar depth of what they mean [m]; None where unknown.

        Returns:
            ``there``, ``found``, ``score``, ``truth_m``, ``median_m``, ``p10_m``, ``p90_m`` [m], and ``rank``, the
            share of the depths measured that are below the truth, ties counted half; None where there is none.

        Raises:
            KindError: if the depth map is not metric.
            UsageError: if the sizes differ.
        """
        if depth.kind != "metric":
            raise KindError(self.name, f"asks for metres of {depth.kind} depth", "use a metric model such as evp-depth")
        found = mask.found and mask.area > 0
        distance = measure(mask, depth) if found else None
        rank = None
        if distance is not None and distance_m is not None:
            values = depths_of(mask, depth)
            rank = float(np.mean(values < distance_m) + np.mean(values == distance_m) / 2)
        return {
            "there": there,
            "found": found,
            "score": mask.score,
            "truth_m": distance_m,
            **{f"{name}_m": None if distance is None else distance[name] for name in ("median", "p10", "p90")},
            "rank": rank,
        }


ASK = AskProtocol()


class Row(NamedTuple):
    """What is kept of a thing asked for; NaN where a distance is unknown or was not said."""

    there: float
    found: float
    score: float
    truth: float
    median: float
    p10: float
    p90: float


class AskMetrics(RowMetric):
    """Summary over things asked for; the same bits in any order and on any number of processes."""

    def __init__(self) -> None:
        super().__init__(width=len(Row._fields))

    def update(self, referent: Referent, *, there: bool, distance_m: float | None = None) -> None:
        """Add one thing that was asked for.

        Args:
            referent: what was answered about it.
            there: whether it is in the picture.
            distance_m: its true distance (:func:`true_distance`) [m]; None where it is unknown, or nothing is there.

        Raises:
            UsageError: if the distance is not positive and finite, or one is given for what is not there.
        """
        if distance_m is not None and not (there and 0 < distance_m < math.inf):
            problem = f"is {distance_m} m away" if there else f"is not there, and {distance_m} m away"
            remedy = "give positive metres for what is there, and none otherwise"
            raise UsageError(f"'{referent.expression}'", problem, remedy)
        said = (referent.distance_m if referent.found else None) or {}
        numbers = [said.get(name, math.nan) for name in ("median", "p10", "p90")]
        truth = math.nan if distance_m is None else distance_m
        self.append([there, referent.found, referent.mask.score, truth, *numbers])

    def compute(self) -> dict[str, float]:
        """The summary; shares in [0, 1].

        Returns:
            counts: ``present`` and ``absent`` things, ``measured`` ones (present, found, both distances known);
            ``false_abstention``: share of present things that were not found; ``correct_abstention``: share of
            absent ones, both at the system's own threshold; ``correct_abstention@0.05`` and so on: at the largest
            threshold on the score that abstains from at most that share of present things; ``median_rel_error``,
            ``mean_rel_error`` (:func:`relative_error`) and ``coverage``, the share whose true distance lies between
            ``p10`` and ``p90``, all over measured things. What there is nothing to compute from is left out.

        Raises:
            UsageError: if nothing was asked for.
        """
        rows = [Row(*values) for values in zip(*self.columns(), strict=True)]
        if not rows:
            raise UsageError("ask", "nothing was asked for", "give it at least one thing")
        present, absent = [row for row in rows if row.there], [row for row in rows if not row.there]
        measured = [row for row in present if math.isfinite(row.truth) and math.isfinite(row.median)]
        summary: dict[str, float] = {"present": len(present), "absent": len(absent), "measured": len(measured)}
        if present:
            summary["false_abstention"] = sum(not row.found for row in present) / len(present)
        if absent:
            summary["correct_abstention"] = sum(not row.found for row in absent) / len(absent)
        if present and absent:
            scores = np.array([row.score for row in present])
            for share in FALSE_ABSTENTION:
                threshold = balanced_quantile([scores], share)
                summary[f"correct_abstention@{share}"] = sum(row.score < threshold for row in absent) / len(absent)
        if measured:
            errors = [relative_error(row.median, row.truth) for row in measured]
            summary["median_rel_error"] = median(errors)
            summary["mean_rel_error"] = math.fsum(errors) / len(errors)
            summary["coverage"] = sum(row.p10 <= row.truth <= row.p90 for row in measured) / len(measured)
        return summary
