"""Depth in metres to what Marigold, Lotus and E2E-FT learn from, each with its own normalisation and resizing.

The values of a target lie in [-1, 1]. Marigold normalises first and resizes afterwards, the others the other way
round; Marigold picks single pixels of the picture too, the others smooth it. Cases that the originals leave
undefined are settled in ``docs/semantics.md``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from deixis.errors import UsageError
from deixis.types import RGB

Compat = Literal["official"]
NearestRule = Literal["centre", "corner", "pillow"]
LotusNorm = Literal["instnorm", "truncnorm", "perscene_norm", "disparity", "trunc_disparity"]
LOTUS_NORMS: tuple[LotusNorm, ...] = ("instnorm", "truncnorm", "perscene_norm", "disparity", "trunc_disparity")

# Depths that count, both ends excluded [m].
HYPERSIM_RANGE = (1e-5, 65.0)
VKITTI_RANGE = (1e-5, 80.0)
# What a target leaves out at either end.
QUANTILE = 0.02
# Lotus adds it to the range that it divides by.
LOTUS_EPSILON = 1e-5


class Target(NamedTuple):
    """What a network should give for a depth map.

    Attributes:
        values: float32 [1, H, W] in [-1, 1].
        valid: bool [1, H, W], where that is known; nowhere if the map has no range.
        depth: float32 [1, H, W] [m]; of E2E-FT, limited to the range of the values.
    """

    values: Tensor
    valid: Tensor
    depth: Tensor


class Sample(NamedTuple):
    """A picture and its target, as large as the network sees them.

    Attributes:
        image: float32 [3, H, W] in [-1, 1].
        target: of the same size.
    """

    image: Tensor
    target: Target


def marigold_target(
    depth: Tensor, valid: Tensor | None = None, quantile: float = QUANTILE, *, clip: bool = True
) -> Target:
    """Marigold: the range between two quantiles of the valid depths becomes [-1, 1].

    Invalid pixels keep their own normalised value (:func:`far_where_invalid` is the original's other variant).
    Source: Ke et al. 2024, section 3.2; ``src/util/depth_transform.py`` of prs-eth/Marigold, which divides by zero
    where the quantiles are equal and fails without a valid depth: here such a map is 0 and nowhere valid.

    Args:
        depth: [1, H, W] [m].
        valid: bool [1, H, W]; NaN is never valid, and only positive and finite depths set the range.
        quantile: share that is left out at either end.
        clip: whether values end at -1 and 1.

    Raises:
        UsageError: if shapes or types do not fit, or ``quantile`` is not in [0, 0.5).
    """
    depth, valid = _checked(depth, valid, quantile)
    low, high = _range(depth, valid & (depth > 0) & torch.isfinite(depth), quantile)
    if not high > low:
        return Target(torch.zeros_like(depth), torch.zeros_like(valid), depth)
    values = (depth - low) / (high - low) * 2 - 1
    return Target(_finite(values.clamp(-1, 1) if clip else values), valid, depth)


def far_where_invalid(target: Target) -> Tensor:
    """The values [1, H, W] with 1, the far end, where they are not valid."""
    return torch.where(target.valid, target.values, 1.0)


def lotus_target(
    depth: Tensor,
    valid: Tensor | None = None,
    norm: LotusNorm = "trunc_disparity",
    far: float = HYPERSIM_RANGE[1],
    compat: Compat | None = None,
) -> Target:
    """Lotus: depth or disparity to [-1, 1], always clipped.

    ``instnorm``: depth from the least to the largest valid one; ``truncnorm``: between its quantiles;
    ``perscene_norm``: from 0 to ``far``; ``disparity``, ``trunc_disparity``: the first two of ``1 / depth``.
    Depths of 0 are infinitely near. A flat map is -1 everywhere; one without a range is 0 and nowhere valid. Source:
    ``utils/hypersim_dataset.py``, ``utils/vkitti_dataset.py`` of EnVision-Research/Lotus.

    Args:
        depth: [1, H, W] [m].
        valid: bool [1, H, W]; the original passes none for Hypersim.
        norm: one of :data:`LOTUS_NORMS`.
        far: the farthest depth, for ``perscene_norm`` [m].
        compat: ``official``: every valid pixel helps to set the range, also a depth of 0, with which that of
            disparity may have no end. By default only positive and finite depths do.

    Raises:
        UsageError: if shapes or types do not fit, or there is no such norm.
    """
    depth, valid = _checked(depth, valid, QUANTILE)
    if norm not in LOTUS_NORMS:
        raise UsageError("lotus_target", f"knows no norm '{norm}'", f"use one of {', '.join(LOTUS_NORMS)}")
    if norm == "perscene_norm":
        return Target(_finite((depth / far * 2 - 1).clamp(-1, 1)), valid, depth)
    counted = valid if compat == "official" else valid & (depth > 0) & torch.isfinite(depth)
    x = 1 / depth if norm.endswith("disparity") else depth
    low, high = _range(x, counted, QUANTILE if norm.startswith("trunc") else 0.0)
    if not high >= low:
        return Target(torch.zeros_like(depth), torch.zeros_like(valid), depth)
    values = ((x - low) / (high - low + LOTUS_EPSILON) * 2 - 1).clamp(-1, 1)
    return Target(_finite(values), valid, depth)


def e2e_ft_target(depth: Tensor, valid: Tensor, quantile: float = QUANTILE) -> Target:
    """E2E-FT: depth limited to two quantiles of the valid depths, in metres for the loss, and in [-1, 1].

    Invalid pixels are at the far end. A map without a range is 0 and nowhere valid, as in the original. Source:
    ``training/dataloaders/load.py`` of VisualComputingInstitute/diffusion-e2e-ft.

    Args:
        depth: [1, H, W] [m].
        valid: bool [1, H, W].
        quantile: share that is left out at either end.

    Raises:
        UsageError: as :func:`marigold_target`.
    """
    depth, valid = _checked(depth, valid, quantile)
    low, high = _range(depth, valid & torch.isfinite(depth), quantile)
    if not high > low:
        nothing = torch.zeros_like(depth)
        return Target(nothing, torch.zeros_like(valid), nothing)
    limited = torch.where(valid, depth.clamp(low, high), high)
    return Target((limited - low) / (high - low) * 2 - 1, valid, limited)


def marigold_sample(rgb: RGB, depth: Tensor, valid: Tensor, size: tuple[int, int] | None = None) -> Sample:
    """Normalised at full size; then picture, target and mask take the nearest pixel.

    Args:
        rgb: uint8 [H, W, 3].
        depth: [1, H, W] [m].
        valid: bool [1, H, W].
        size: height and width to resize to; none if already cut to size.
    """
    image, target = signed(rgb), marigold_target(depth, valid)
    if size is None:
        return Sample(image, target)
    return Sample(nearest(image, size), Target(*(nearest(part, size) for part in target)))


def lotus_sample(
    rgb: RGB,
    depth: Tensor,
    valid: Tensor | None = None,
    size: tuple[int, int] | None = None,
    norm: LotusNorm = "trunc_disparity",
    far: float = HYPERSIM_RANGE[1],
    compat: Compat | None = None,
) -> Sample:
    """Picture smoothed, depth and mask at the pixel up and left; then normalised. Arguments as the others'."""
    if size is not None:
        rgb, depth = smooth(rgb, size), nearest(depth, size, "corner")
        valid = None if valid is None else nearest(valid, size, "corner")
    return Sample(signed(rgb), lotus_target(depth, valid, norm, far, compat))


def e2e_ft_sample(rgb: RGB, depth: Tensor, valid: Tensor, size: tuple[int, int] | None = None) -> Sample:
    """Picture smoothed, depth and mask at Pillow's nearest pixel; then normalised. Arguments as the others'."""
    if size is not None:
        rgb, depth, valid = smooth(rgb, size), nearest(depth, size, "pillow"), nearest(valid, size, "pillow")
    return Sample(signed(rgb), e2e_ft_target(depth, valid))


def between(depth: Tensor, limits: tuple[float, float]) -> Tensor:
    """Where a depth lies inside a range, both ends excluded; bool of the same shape. NaN lies nowhere."""
    return (depth > limits[0]) & (depth < limits[1])


def signed(rgb: RGB) -> Tensor:
    """Picture uint8 [H, W, 3] to float32 [3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 255 * 2 - 1


def smooth(rgb: RGB, size: tuple[int, int]) -> RGB:
    """Picture uint8 [H, W, 3] at another height and width, bilinear with antialiasing, in 8 bits as Pillow does."""
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR))


def nearest(x: Tensor, size: tuple[int, int], rule: NearestRule = "centre") -> Tensor:
    """Map [C, H, W] at another height and width, of the same type: each new pixel is one of the old.

    Args:
        x: the map.
        size: height and width.
        rule: ``centre`` takes the pixel under the new pixel's centre, ``corner`` the one under its top left corner,
            and ``pillow`` what Pillow takes: the centre's, but where that lies between two pixels its rounding decides.
    """
    if rule == "pillow":
        planes = [Image.fromarray(plane).resize(size[::-1], Image.Resampling.NEAREST) for plane in x.float().numpy()]
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).to(x.dtype)
    mode = {"centre": "nearest-exact", "corner": "nearest"}[rule]
    return F.interpolate(x[None].float(), size=size, mode=mode)[0].to(x.dtype)


def _checked(depth: Tensor, valid: Tensor | None, quantile: float) -> tuple[Tensor, Tensor]:
    """Depth as float32, and where it counts at all."""
    depth = depth.float()
    if depth.ndim != 3 or len(depth) != 1:
        raise UsageError("depth", f"has shape {list(depth.shape)}", "pass one map, [1, H, W]")
    if valid is None:
        valid = torch.ones_like(depth, dtype=torch.bool)
    if valid.shape != depth.shape or valid.dtype != torch.bool:
        raise UsageError(
            "valid",
            f"is {str(valid.dtype).removeprefix('torch.')} {list(valid.shape)}",
            f"pass bool {list(depth.shape)}",
        )
    if not 0 <= quantile < 0.5:
        raise UsageError("quantile", f"is {quantile}", "use a share in [0, 0.5)")
    return depth, valid & ~torch.isnan(depth)


def _range(x: Tensor, counted: Tensor, quantile: float) -> tuple[float, float]:
    """The two quantiles of the values that count, in float32; infinity and its negative without any."""
    values = x[counted].sort().values
    if not len(values):
        return float("inf"), float("-inf")
    found = []
    for share in (quantile, 1 - quantile):  # torch.quantile refuses more than 2**24 values
        place = share * (len(values) - 1)
        left = min(int(place), len(values) - 1)
        right = min(left + 1, len(values) - 1)
        found.append(torch.lerp(values[left], values[right], place - left).item())
    return found[0], found[1]


def _finite(values: Tensor) -> Tensor:
    """What has no value, outside the valid pixels, counts as far: one NaN would spoil a whole latent."""
    return values.nan_to_num(nan=1.0)
