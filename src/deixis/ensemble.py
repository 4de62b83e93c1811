"""Several affine-invariant maps of one picture, aligned and merged, with what they disagree about (Marigold, 3.3)."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from deixis.errors import UsageError

Vector = npt.NDArray[np.float64]
Reduction = Literal["median", "mean"]
Compat = Literal["official"]
# How much a merged map that does not reach 0 and 1 costs, beside maps that differ.
REGULARISER = 0.02
# The parameters are found on maps no larger than this [px].
MAX_SIDE = 1024
# Marigold's own limits of its optimiser.
OFFICIAL_ITERATIONS, OFFICIAL_TOLERANCE = 50, 1e-6


def ensemble_depth(
    maps: Tensor,
    *,
    scale_invariant: bool = True,
    shift_invariant: bool = True,
    reduction: Reduction = "median",
    compat: Compat | None = None,
    iterations: int = OFFICIAL_ITERATIONS,
    tolerance: float = OFFICIAL_TOLERANCE,
) -> tuple[Tensor, Tensor]:
    """Align maps to each other and merge them.

    Scales ``s`` and shifts ``t`` minimise ``sum_{i<j} rmse(s_i m_i + t_i, s_j m_j + t_j)`` in units of the merged
    map's range.

    Args:
        maps: [N, 1, H, W] in [0, 1].
        scale_invariant: whether the maps' scales may differ.
        shift_invariant: whether their shifts may; not without their scales.
        reduction: how aligned maps become one, and their spread the uncertainty: median and median absolute
            deviation, or mean and standard deviation.
        compat: ``official``: the original cost, the sum plus :data:`REGULARISER` times how far the merged map's ends
            are from 0 and 1, the lower of the middle two maps as the median of an even number, and the original
            optimiser, whose numerical gradient is taken in float32 with a step of 1.5e-8: scales never move, shifts
            by rounding noise. That is what saves it: where maps differ, one flat map is the true minimum of that cost.
        iterations: of the optimiser.
        tolerance: of the optimiser.

    Returns:
        the merged map and its uncertainty, [1, 1, H, W] each, in units of the map's range.

    Raises:
        UsageError: for maps of another shape, or a shift without a scale.
    """
    import scipy.optimize  # half a second, which a single map does not wait for

    if maps.ndim != 4 or maps.shape[1] != 1:
        raise UsageError("ensemble_depth", f"was given maps of shape {list(maps.shape)}", "pass [N, 1, H, W]")
    if shift_invariant and not scale_invariant:
        raise UsageError("ensemble_depth", "is asked to align shifts but no scales", "align scales as well")
    if scale_invariant and len(maps) > 1:
        parameters = _start(maps, shift_invariant=shift_invariant)
        small = _shrunk(maps)
        options = {"maxiter": iterations}
        minimise: Any = scipy.optimize.minimize  # its types are narrower than what it takes
        if compat == "official":

            def official(x: Vector) -> float:
                aligned = _aligned(small, torch.from_numpy(x).to(small), shift_invariant=shift_invariant)
                merged = _reduced(aligned, reduction, compat)[0]
                # Added up in double, as there: the optimiser lives on the last digits.
                cost = sum(pair.item() for pair in _disagreements(aligned))
                return cost + (merged.min().abs().item() + (1 - merged.max()).abs().item()) * REGULARISER

            found = minimise(official, parameters, method="BFGS", tol=tolerance, options=options)
        else:
            with torch.inference_mode(mode=False):  # what was made in it has no gradient
                plain = small.clone().double()

            def cost_and_gradient(x: Vector) -> tuple[float, Vector]:
                with torch.inference_mode(mode=False), torch.enable_grad():
                    given = torch.from_numpy(x).to(plain.device).requires_grad_()
                    aligned = _aligned(plain, given, shift_invariant=shift_invariant)
                    merged = _reduced(aligned, reduction, compat)[0]
                    span = merged.max() - merged.min() if shift_invariant else merged.max()
                    cost = torch.stack(_disagreements(aligned)).sum() / span
                    (gradient,) = torch.autograd.grad(cost, given)
                # Two equal maps: the root has no derivative at 0, and nothing to correct.
                return cost.item(), gradient.nan_to_num(0.0).numpy(force=True)

            found = minimise(cost_and_gradient, parameters, jac=True, method="BFGS", tol=tolerance, options=options)
        maps = _aligned(maps, torch.from_numpy(found.x).to(maps), shift_invariant=shift_invariant)
    merged, spread = _reduced(maps, reduction, compat)
    high = merged.max()
    low = merged.min() if shift_invariant else torch.zeros_like(high)
    scale = (high - low).clamp_min(1e-6)
    return (merged - low) / scale, spread / scale


def _start(maps: Tensor, *, shift_invariant: bool) -> Vector:
    """Scales, and shifts, that take each map to [0, 1] by itself."""
    flat = maps.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    if not shift_invariant:
        return (1 / high.clamp_min(1e-6)).double().numpy(force=True)
    scale = 1 / (high - low).clamp_min(1e-6)
    return torch.cat([scale, -scale * low]).double().numpy(force=True)


def _aligned(maps: Tensor, parameters: Tensor, *, shift_invariant: bool) -> Tensor:
    scale, *shift = parameters.view(2 if shift_invariant else 1, len(maps), 1, 1, 1)
    return maps * scale + shift[0] if shift else maps * scale


def _reduced(maps: Tensor, reduction: Reduction, compat: Compat | None) -> tuple[Tensor, Tensor]:
    if reduction == "mean":
        return maps.mean(dim=0, keepdim=True), maps.std(dim=0, keepdim=True) if len(maps) > 1 else torch.zeros_like(
            maps
        )
    middle = _median(maps, compat)
    return middle, _median((maps - middle).abs(), compat)


def _median(maps: Tensor, compat: Compat | None) -> Tensor:
    """[N, 1, H, W] to [1, 1, H, W]; of the middle two of an even number their mean, the official lower one."""
    if compat == "official" or len(maps) % 2:
        return maps.median(dim=0, keepdim=True).values
    half = len(maps) // 2
    return maps.sort(dim=0).values[half - 1 : half + 1].mean(dim=0, keepdim=True)


def _disagreements(maps: Tensor) -> list[Tensor]:
    """Root mean square difference of each pair of maps."""
    return [(one - other).square().mean().sqrt() for one, other in combinations(maps, 2)]


def _shrunk(maps: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    share = MAX_SIDE / max(height, width)
    if share >= 1:
        return maps
    return F.interpolate(maps, size=(int(height * share), int(width * share)), mode="nearest-exact")
