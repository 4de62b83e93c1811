"""Depth error by how far away the truth is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

INDOORS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
OUTDOORS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0)

Sums = list[tuple[int, float, float]]


def by_range(prediction: Tensor, target: Tensor, starts: Sequence[float]) -> Sums:
    """Pixels of each range of true depth, and their sums of absolute [m] and of relative error.

    Args:
        prediction: float [N] [m].
        target: float [N] [m], positive.
        starts: near ends of the ranges, ascending from 0; the last has no far end [m].
    """
    p, t = prediction.double(), target.double()
    place = torch.bucketize(t, torch.tensor(starts[1:], dtype=t.dtype, device=t.device), right=True)
    gap = (p - t).abs()
    count = len(starts)
    pixels, absolute, relative = (
        torch.zeros(count, dtype=torch.float64, device=t.device).index_add_(0, place, values).tolist()
        for values in (torch.ones_like(t), gap, gap / t)
    )
    return [(int(n), a, r) for n, a, r in zip(pixels, absolute, relative, strict=True)]


def range_means(images: Sequence[Sums], starts: Sequence[float]) -> list[dict[str, float | None]]:
    """Mean errors over all pixels of each range, for ranges that have any.

    Args:
        images: :func:`by_range` of each.
        starts: as there.

    Returns:
        ``from_m`` and ``to_m`` (None without end), ``pixels``, ``mae`` [m] and ``abs_rel``.
    """
    table: list[dict[str, float | None]] = []
    for number, start in enumerate(starts):
        sums = [image[number] for image in images]
        pixels = sum(one[0] for one in sums)
        if pixels:
            absolute, relative = (math.fsum(one[part] for one in sums) / pixels for part in (1, 2))
            end = starts[number + 1] if number + 1 < len(starts) else None
            table.append({"from_m": start, "to_m": end, "pixels": pixels, "mae": absolute, "abs_rel": relative})
    return table
