"""Prompt sensitivity: how far the depth maps of one picture under different texts lie apart.

There is no published protocol; the definition is here. Each map is aligned to the ground truth by itself, as its set
asks (:class:`~deixis.protocols.affine.AffineProtocol`; metric maps as they are), so that all are in metres. Two maps a
and b differ by the mean of ``|a - b| / ((a + b) / 2)`` over the pixels that count; a picture's sensitivity is the mean
over all pairs of its maps. 0 means that the text changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from deixis.errors import UsageError
from deixis.protocols.accumulate import ImageMetric
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.depth import DepthMap
from deixis.types import Depth, DepthKind


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Mean of ``|a - b| / ((a + b) / 2)`` over pixels [N] of two maps [m]."""
    a, b = a.double(), b.double()
    return (2 * (a - b).abs() / (a + b)).mean().item()


class PromptSensitivity(ImageMetric):
    """Mean over pictures, each of which weighs the same, in any order and on any number of processes.

    Args:
        protocol: how maps are aligned, and which pixels count.
    """

    def __init__(self, protocol: AffineProtocol) -> None:
        super().__init__(width=1)
        self.protocol = protocol

    def update(
        self,
        predictions: Sequence[Depth | DepthMap],
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> None:
        """Add one picture; one without a pixel that counts is counted as skipped.

        Args:
            predictions: one map [H, W] for each text, at least two; bare arrays or tensors need ``kind``.
            target: raw ground truth [H, W] [m]; 0, infinity or NaN where unknown.
            mask: of the set's mask file [H, W], if it has one.
            kind: what bare ``predictions`` are.

        Raises:
            UsageError: if there are fewer than two maps; otherwise as :meth:`AffineProtocol.align`.
        """
        name = self.protocol.dataset.name
        if len(predictions) < 2:
            raise UsageError(name, f"got {len(predictions)} maps of a picture", "give one for each of several texts")
        maps = []
        for prediction in predictions:
            found = self.protocol.aligned(prediction, target, mask, kind=kind)
            if found is None:
                self.skipped += 1
                return
            maps.append(found.pixels[0])
        pairs = [relative_difference(a, b) for a, b in combinations(maps, 2)]
        self.append([sum(pairs) / len(pairs)])

    def compute(self) -> dict[str, float]:
        """``sensitivity``, with ``images`` (scored) and ``skipped`` (without a pixel that counts).

        Raises:
            UsageError: if no picture was scored.
        """
        return self.image_means(("sensitivity",), self.protocol.dataset.name)
