"""How protocols average over samples, in one process or in several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from deixis.errors import UsageError


class RowMetric(Metric):
    """Keeps one row of numbers per sample and reduces them only in ``compute``.

    With the rows at hand a subclass can sum by ``math.fsum``, whose result does not depend on the order: the
    reported number is bit for bit the same for any number of processes, as long as each sample is given once.

    Args:
        width: numbers per sample.
    """

    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        # Rows are joined end to end, in float64: when a process has no sample, torchmetrics sends an empty
        # vector of the metric's type in its place, which must match the others in type and dimensions.
        self.set_dtype(torch.float64)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def append(self, row: Sequence[float]) -> None:
        """Add one sample's ``width`` numbers."""
        assert isinstance(self.rows, list)  # a tensor only between torchmetrics' sync and unsync
        self.rows.append(torch.tensor(row, dtype=torch.float64, device=self.device))

    def columns(self) -> list[list[float]]:
        """Per number, its values over all samples of all processes (each empty without a sample)."""
        if not len(self.rows):
            return [[] for _ in range(self.width)]
        columns: list[list[float]] = dim_zero_cat(self.rows).view(-1, self.width).T.tolist()
        return columns


class ImageMetric(RowMetric):
    """Of depth maps, some of which have no pixel to score: those are counted apart.

    Args:
        width: numbers per sample.
    """

    skipped: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.add_state("skipped", default=torch.tensor(0), dist_reduce_fx="sum")

    def image_means(self, names: Sequence[str], protocol: str) -> dict[str, float]:
        """The mean of each number over images that weigh the same, with the counts ``images`` and ``skipped``.

        Args:
            names: of the numbers.
            protocol: how the error calls it.

        Raises:
            UsageError: if no image was scored.
        """
        columns, skipped = self.columns(), int(self.skipped)
        images = len(columns[0])
        if not images:
            raise UsageError(
                protocol,
                f"no image was scored and {skipped} skipped for want of ground truth in range",
                "give it images with ground truth in metres",
            )
        means = {name: math.fsum(column) / images for name, column in zip(names, columns, strict=True)}
        return {**means, "images": images, "skipped": skipped}
