"""Referring segmentation protocols of EVP and VPD: mask size, IoU and its summaries over expressions.

One :class:`ReferProtocol` per setting; :class:`ReferMetrics` summarises a split. Source: EVP section 4.2
and the official evaluation loop, whose undefined cases are settled in ``docs/semantics.md``.
:class:`GeneralReferMetrics` is for expressions that may mean several things or none, after Liu et al., "GRES:
Generalized Referring Expression Segmentation", CVPR 2023, section 3, and ``refer_evaluation.py`` of its code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from deixis.errors import UsageError
from deixis.protocols.accumulate import RowMetric
from deixis.types import Mask

BinaryMap: TypeAlias = Tensor | npt.NDArray[np.bool_] | npt.NDArray[np.integer]


def iou(intersection: float, union: float) -> float:
    """Intersection over union in [0, 1]; an empty union counts 0, as in the official code."""
    return intersection / union if union else 0.0


@dataclass(frozen=True)
class ReferProtocol:
    """How one published setting scores masks.

    Attributes:
        name: how errors and reports call it.
        size: height and width both masks must have [px]; None for any, the image's own.
        thresholds: the IoU levels of ``p@``.
        general: expressions may mean several things or none: what is not found is an empty mask, and an empty mask is
            right where nothing is meant.
    """

    name: str
    size: tuple[int, int] | None = None
    thresholds: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    general: bool = False

    def counts(self, prediction: Mask | BinaryMap, target: BinaryMap) -> tuple[int, int]:
        """Pixels in the intersection and in the union of one expression's masks.

        Args:
            prediction: bool or 0/1 [H, W].
            target: bool or 0/1 [H, W].

        Raises:
            UsageError: if a mask is not [H, W] of 0 and 1, or sizes differ or are not the protocol's.
        """
        intersection, predicted, truth = self.areas(prediction, target)
        return intersection, predicted + truth - intersection

    def areas(self, prediction: Mask | BinaryMap, target: BinaryMap) -> tuple[int, int, int]:
        """Pixels in the intersection, in the prediction and in the target; arguments and errors as :meth:`counts`."""
        predicted = self._as_mask(prediction.mask if isinstance(prediction, Mask) else prediction, "prediction")
        truth = self._as_mask(target, "ground truth")
        if predicted.shape != truth.shape or (self.size and truth.shape != self.size):
            wanted = f"{self.size[0]}x{self.size[1]}" if self.size else "the size of the ground truth"
            raise UsageError(
                self.name,
                f"prediction is {_size(predicted)} and ground truth {_size(truth)}",
                f"bring both to {wanted} (a mask by nearest neighbour)",
            )
        return int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())

    def score(self, prediction: Mask | BinaryMap, target: BinaryMap) -> float:
        """IoU of one expression in [0, 1]; arguments and errors as :meth:`counts`."""
        return iou(*self.counts(prediction, target))

    def _as_mask(self, values: BinaryMap, what: str) -> npt.NDArray[np.bool_]:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.ndim != 2:
            raise UsageError(self.name, f"{what} has shape {list(array.shape)}", "pass one mask [H, W] at a time")
        if array.dtype != np.bool_ and not (np.issubdtype(array.dtype, np.integer) and np.isin(array, (0, 1)).all()):
            raise UsageError(
                self.name,
                f"{what} is {array.dtype} with values other than 0 and 1",
                "threshold it to bool first",
            )
        return array.astype(np.bool_)


REFER_512 = ReferProtocol("refer-512", size=(512, 512))
REFER_NATIVE = ReferProtocol("refer-native")
GENERAL_REFER = ReferProtocol("general-refer", thresholds=(0.7, 0.8, 0.9), general=True)


class ReferMetrics(RowMetric):
    """Summary of a protocol over expressions; every expression of an object counts.

    Any order and any number of processes give the same bits, as long as each expression is given once.

    Args:
        protocol: what to score.
    """

    def __init__(self, protocol: ReferProtocol) -> None:
        super().__init__(width=2)
        self.protocol = protocol

    def update(self, prediction: Mask | BinaryMap, target: BinaryMap) -> None:
        """Add one expression; arguments and errors as :meth:`ReferProtocol.counts`."""
        self.append(self.protocol.counts(prediction, target))

    def compute(self) -> dict[str, float]:
        """The summary, in percent, over all expressions.

        Returns:
            ``oiou``: sum of intersections over sum of unions; ``miou``: mean of per-expression IoU; ``p@0.5``
            and so on: share of expressions with IoU at or above; and the counts ``expressions`` and
            ``empty_unions`` (nothing predicted, nothing there: IoU 0 in all of them).

        Raises:
            UsageError: if there was no expression.
        """
        intersections, unions = self.columns()
        count = len(unions)
        if not count:
            raise UsageError(self.protocol.name, "no expression was scored", "give it at least one")
        ious = [iou(i, u) for i, u in zip(intersections, unions, strict=True)]
        return {
            "oiou": 100 * iou(math.fsum(intersections), math.fsum(unions)),
            "miou": 100 * math.fsum(ious) / count,
            **{f"p@{level}": 100 * sum(value >= level for value in ious) / count for level in self.protocol.thresholds},
            "expressions": count,
            "empty_unions": unions.count(0),
        }


class GeneralReferMetrics(RowMetric):
    """Summary of a protocol over expressions that mean one thing, several, or none.

    "No such thing" is predicted where no pixel is. Order and processes as in :class:`ReferMetrics`.

    Args:
        protocol: what to score.
    """

    def __init__(self, protocol: ReferProtocol) -> None:
        super().__init__(width=3)
        self.protocol = protocol

    def update(self, prediction: Mask | BinaryMap, target: BinaryMap) -> None:
        """Add one expression, ``target`` empty where nothing is meant.

        Arguments and errors as :meth:`ReferProtocol.counts`.
        """
        self.append(self.protocol.areas(prediction, target))

    def compute(self) -> dict[str, float]:
        """The summary, in percent, over all expressions.

        Returns:
            ``giou``: mean of per-expression IoU, where an expression for nothing counts 1 if nothing is predicted and
            0 otherwise; ``ciou``: sum of intersections over sum of unions; and the counts ``expressions`` and
            ``no_target``. With expressions for nothing, ``n_acc``: share of them without a predicted pixel. With
            expressions for something, ``t_acc``: share of them with one, and ``p@0.7`` and so on: share of them with
            IoU at or above.

        Raises:
            UsageError: if there was no expression.
        """
        rows = list(zip(*self.columns(), strict=True))
        if not rows:
            raise UsageError(self.protocol.name, "no expression was scored", "give it at least one")
        unions = [predicted + truth - both for both, predicted, truth in rows]
        there = [
            (iou(both, union), predicted > 0)
            for (both, predicted, truth), union in zip(rows, unions, strict=True)
            if truth
        ]
        silent = [predicted == 0 for _, predicted, truth in rows if not truth]
        summary = {
            "giou": 100 * math.fsum([*silent, *(value for value, _ in there)]) / len(rows),
            "ciou": 100 * iou(math.fsum(both for both, _, _ in rows), math.fsum(unions)),
            "expressions": len(rows),
            "no_target": len(silent),
        }
        if silent:
            summary["n_acc"] = 100 * sum(silent) / len(silent)
        if there:
            summary["t_acc"] = 100 * sum(found for _, found in there) / len(there)
            for level in self.protocol.thresholds:
                summary[f"p@{level}"] = 100 * sum(value >= level for value, _ in there) / len(there)
        return summary


def _size(mask: npt.NDArray[np.bool_]) -> str:
    return "x".join(str(side) for side in mask.shape)
