"""Which pixels of a mask are measured: those well inside it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import max_pool2d

from deixis.errors import UsageError
from deixis.types import BoolMap, Depth, Mask

BORDER = 0.05
"""Depth near an outline mixes both sides of it: this share of the mask's size (square root of its area) is
eroded before measuring."""

CORE = 0.2
"""An erosion that leaves less than this share of the mask is not trusted, and halved."""


def core(mask: Mask, depth: Depth) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the pixels to measure: well inside the mask and with a usable depth, whatever its kind.

    Raises:
        UsageError: if the two sizes differ.
    """
    if mask.mask.shape != depth.values.shape:
        raise UsageError(
            f"mask of '{mask.expression}'",
            f"has shape {mask.mask.shape}, the depth map {depth.values.shape}",
            "pass a mask and a depth map of the same picture",
        )
    if mask.box is None:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    # One pixel of margin, so that only the frame of the picture is taken for more of the same.
    left, top, right, bottom = mask.box
    window = slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1)
    inside, usable = mask.mask[window], depth.valid[window]
    enough = CORE * np.count_nonzero(inside & usable)
    radius = max(1, round(BORDER * mask.area**0.5))
    found = _eroded(inside, radius) & usable
    while radius and np.count_nonzero(found) < enough:
        radius //= 2
        found = _eroded(inside, radius) & usable
    rows, columns = np.nonzero(found)
    return rows + window[0].start, columns + window[1].start


def _eroded(inside: BoolMap, radius: int) -> BoolMap:
    """The pixels whose square neighbourhood of ``radius`` [px] lies inside; beyond the edge all repeats."""
    outside = torch.from_numpy(~inside)[None].float()
    size = 2 * radius + 1
    for shape, padding in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
        outside = max_pool2d(outside, shape, stride=1, padding=padding)
    eroded: BoolMap = outside[0].numpy() == 0
    return eroded
