"""From depth without metres to metres: scale and shift, from known distances or from a metric system's map.

Affine depth is fitted in depth, ``scale * map + shift = depth``, disparity in its inverse,
``scale * map + shift = 1 / depth``. Errors count as shares of the distance. The fit starts from the line through two
of the points that most of the others agree with, and is refined with a loss that far points hardly pull
(:func:`scipy.optimize.least_squares`, Cauchy).

What a calibration may rest on, and what it then cannot know, is in ``docs/semantics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from deixis.errors import KindError, UsageError
from deixis.regions import core
from deixis.types import P90, Calibration, Depth, FloatMap, Mask

Vector = npt.NDArray[np.float64]

STATED = 0.02
"""A distance that somebody states is taken to be right to this share of itself (one standard deviation)."""

APART = 0.02
"""Known places whose values in the map (0 to 1) differ by less lie at one depth: they fix no shift."""

TIGHT = 0.01
"""Points that lie within this share of the fitted distance pull fully, however well the others fit."""

ASTRAY = 0.1
"""A known distance that is off the fit by more than this share of itself, and far more than the others, is named."""

CONTRADICTED = 0.25
"""Known distances that no scale and shift brings within this share of themselves contradict the map."""

POINT = 0.005
"""A known point is the median of a square that reaches this share of the picture's shorter side around it."""

PIXELS = 4096
"""As many pixels of two maps are compared, evenly spread."""

LINES = 64
"""Starting lines go through any two of as many points."""


@dataclass(frozen=True, eq=False)
class Known:
    """Something in a picture whose distance is known.

    Attributes:
        metres: its planar depth [m].
        where: its pixels, or a column and row of the upright picture [px].
    """

    metres: float
    where: Mask | tuple[float, float]

    @property
    def label(self) -> str:
        """What it is, in words."""
        if isinstance(self.where, Mask):
            return self.where.expression
        return f"the point {self.where[0]:g},{self.where[1]:g}"


def calibrate(depth: Depth, reference: Depth | Sequence[Known]) -> Depth:
    """Bring a map without metres to metres.

    One known distance fixes the scale only: the shift is taken to be 0, so that the near end of an affine map lies at
    the camera and the far end of a disparity map at infinity. Two fix both. Of more, one that disagrees with the rest
    is left out.

    Args:
        depth: affine or disparity map [H, W].
        reference: known distances, or a metric map [H, W] of the same picture.

    Returns:
        The map in metres, kind ``metric``, which tells its :class:`~deixis.types.Calibration`. Where the fit leads
        behind the camera or beyond infinity there is no depth (0, infinity).

    Raises:
        KindError: if the map has metres already, or the reference map has none.
        UsageError: if nothing is known, a known place has no depth in the map, known distances contradict the map or
            each other or lie all at one depth, or sizes differ.
    """
    if depth.kind == "metric":
        raise KindError(depth.model, "gives metres already", "leave the calibration out")
    found = _by_map(depth, reference) if isinstance(reference, Depth) else _by_known(depth, list(reference))
    values = depth.values.astype(np.float64) * found.scale + found.shift
    positive = values > 0
    metres = np.where(positive, values, 0.0)
    if depth.kind == "disparity":
        metres = np.divide(1.0, values, out=np.full_like(values, np.inf), where=positive)
    notes = found.notes
    lost = 1 - float(np.mean(positive[depth.valid])) if depth.valid.any() else 0.0
    if lost > 0.005:
        beyond = "behind the camera" if depth.kind == "affine" else "beyond infinity"
        notes = (*notes, f"the calibration puts {lost:.0%} of the picture {beyond}: it has no depth there")
    return replace(
        depth,
        values=metres.astype(np.float32),
        kind="metric",
        uncertainty=None,
        calibration=replace(found, notes=notes),
    )


# ----------------------------------------------------------------------------------------- known distances


def _by_known(depth: Depth, known: list[Known]) -> Calibration:
    if not known:
        raise UsageError("calibration", "has nothing to go by", "state a known distance or pass a metric map")
    places = [_value(depth, one) for one in known]
    x, spread = (np.array(column) for column in zip(*places, strict=True))
    metres = np.array([one.metres for one in known], np.float64)
    if not (np.isfinite(metres) & (metres > 0)).all():
        raise UsageError("calibration", "knows a distance that is not above 0", "state distances in metres, above 0")
    y = metres if depth.kind == "affine" else 1 / metres
    by = tuple(f"{one.label} ({one.metres:.2f} m)" for one in known)
    if len(known) == 1:
        return _by_one(depth, known[0], float(x[0]), float(spread[0]), float(y[0]), by)
    if np.ptp(x) < APART:
        raise UsageError(
            _named(known), "lie at the same depth in the map, which fixes no shift", "name things at different depths"
        )
    line = _robust(x, y)
    share = _shares(line, x, y)
    # If not even most of them lie on one line, there is none.
    if line[0] <= 0 or np.sort(np.abs(share))[len(x) // 2] > CONTRADICTED:
        raise UsageError(
            _named(known),
            "contradict the map or each other: no scale and shift of it fits",
            "check the distances and what the words refer to",
        )
    typical = max(TIGHT, float(np.median(np.abs(share))))
    astray = np.abs(share) > max(ASTRAY, 5 * typical)
    notes = tuple(
        f"'{one.label}' does not fit the other known distances and hardly counts: {one.metres:.2f} m stated,"
        f" {one.metres * _told(off, depth):.2f} m calibrated{'; of three, either may be wrong' * (len(known) == 3)}"
        for one, off, out in zip(known, share, astray, strict=True)
        if out
    )
    return Calibration(
        depth.kind,
        float(line[0]),
        float(line[1]),
        by,
        _covariance(line, x, y, spread, astray),
        notes=notes,
    )


def _by_one(depth: Depth, known: Known, x: float, spread: float, y: float, by: tuple[str, ...]) -> Calibration:
    if x < APART:
        raise UsageError(
            known.label,
            f"is at the {'near' if depth.kind == 'affine' else 'far'} end of the map, which fixes no scale",
            "name something else, or a second thing with it",
        )
    scale = y / x
    deviation = scale * float(np.hypot(STATED, spread / x))
    end = (
        "its nearest place touches the camera"
        if depth.kind == "affine"
        else "its farthest place is infinitely far away"
    )
    note = (
        "one known distance fixes the scale only; the shift is taken to be 0, as if the map began where"
        f" {end}: the farther a thing is from {known.label} in depth, the less its distance can be trusted; a second"
        " known distance fixes both"
    )
    return Calibration(depth.kind, scale, 0.0, by, (deviation**2, 0.0, 0.0), assumed_from=known.metres, notes=(note,))


def _value(depth: Depth, known: Known) -> tuple[float, float]:
    """Median of the map where something is known, and its spread as a standard deviation."""
    if isinstance(known.where, Mask):
        if not (known.where.found and known.where.area):
            raise UsageError(
                f"known '{known.label}'",
                f"no such object in the picture (confidence {known.where.score:.2f})",
                "name something that is in it, or state a known point",
            )
        rows, columns = core(known.where, depth)
        values = depth.values[rows, columns]
    else:
        column, row = known.where
        height, width = depth.values.shape
        if not (0 <= column < width and 0 <= row < height):
            raise UsageError(
                f"known point {column:g},{row:g}",
                f"lies outside the picture of {width} x {height} pixels",
                "count columns and rows of the upright picture from 0",
            )
        reach = max(1, round(POINT * min(height, width)))
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        window = slice(top, int(row) + reach + 1), slice(left, int(column) + reach + 1)
        values = depth.values[window][depth.valid[window]]
    if not len(values):
        raise UsageError(f"known '{known.label}'", "has no depth in the map", "name something else")
    p10, median, p90 = np.percentile(values.astype(np.float64), [10, 50, 90])
    return float(median), float(p90 - p10) / (2 * P90)


def _named(known: Sequence[Known]) -> str:
    return "known distances of " + ", ".join(f"'{one.label}' ({one.metres:g} m)" for one in known)


def _told(share: float, depth: Depth) -> float:
    """The calibrated distance over the stated one."""
    told = 1 + share
    if depth.kind == "affine":
        return max(told, 0.0)
    return 1 / told if told > 0 else float("inf")


def _covariance(
    line: Vector, x: Vector, y: Vector, spread: Vector, astray: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Variance of the scale, covariance, variance of the shift, from what is stated and how well it fits."""
    sigma = np.hypot(STATED, line[0] * spread / y)[~astray]
    design = (np.stack([x / y, 1 / y], axis=1)[~astray]) / sigma[:, None]
    # Two points may be all that is left; a pseudo-inverse keeps the direction that one of them fixes.
    covariance = np.linalg.pinv(design.T @ design)
    if (degrees := len(sigma) - 2) > 0:
        misfit = float(np.square(_shares(line, x, y)[~astray] / sigma).sum()) / degrees
        covariance = covariance * max(1.0, misfit)
    return float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])


# ---------------------------------------------------------------------------------------------- a metric map


def _by_map(depth: Depth, metric: Depth) -> Calibration:
    reference = metric.metres()
    if reference.shape != depth.values.shape:
        raise UsageError(
            "calibration",
            f"compares maps of shapes {depth.values.shape} and {reference.shape}",
            "pass maps of the same picture",
        )
    both = depth.valid & metric.valid
    x, target = _thinned(depth.values, reference, both)
    if len(x) < 3 or np.ptp(x) < APART:
        raise UsageError(depth.model, "is flat in this picture, which fixes no scale", "use another depth system")
    y = target if depth.kind == "affine" else 1 / target
    line = _robust(x, y)
    if line[0] <= 0:
        raise UsageError(
            metric.model, f"and {depth.model} disagree about what is near in this picture", "use another metric system"
        )
    residual = float(1.4826 * np.median(np.abs(_shares(line, x, y))))
    note = f"the distances are as right as those of {metric.model}: its own error is not in the interval"
    return Calibration(
        depth.kind, float(line[0]), float(line[1]), (metric.model,), (0.0, 0.0, 0.0), residual, notes=(note,)
    )


def _thinned(one: FloatMap, other: FloatMap, valid: npt.NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """Up to :data:`PIXELS` values of two maps where both are valid, evenly spread."""
    step = max(1, int(np.ceil((one.size / PIXELS) ** 0.5)))
    thin = (slice(step // 2, None, step), slice(step // 2, None, step))
    kept = valid[thin]
    return one[thin][kept].astype(np.float64), other[thin][kept].astype(np.float64)


# ------------------------------------------------------------------------------------------------- the fit


def _shares(line: Vector, x: Vector, y: Vector) -> Vector:
    """How far a line is off, as shares of what it should give."""
    return (line[0] * x + line[1]) / y - 1


def _most(count: int) -> int:
    """How many of some points a starting line must fit: more than half, and three if there are as many."""
    return min(count, max(3, count // 2 + 1))


def _robust(x: Vector, y: Vector) -> Vector:
    """Scale and shift with ``scale * x + shift = y`` for most points [N], N > 1."""
    from scipy.optimize import least_squares  # half a second, which a metric answer does not wait for

    start = _start(x, y)
    if len(x) == 2:
        return start
    typical = 1.4826 * float(np.sort(np.abs(_shares(start, x, y)))[len(x) // 2])

    def off(line: Vector) -> Vector:
        return _shares(line, x, y)

    fitted: Any = least_squares(off, start, loss="cauchy", f_scale=max(TIGHT, typical), x_scale=np.abs(start) + TIGHT)
    line: Vector = fitted.x
    return line


def _start(x: Vector, y: Vector) -> Vector:
    """The rising line through two points that is least off for most of all points; any line if none rises."""
    some = np.argsort(x, kind="stable")[np.linspace(0, len(x) - 1, min(LINES, len(x))).astype(int)]
    pairs = np.array(list(combinations(some, 2)))
    first, second = pairs[:, 0], pairs[:, 1]
    run = x[second] - x[first]
    apart = run > APART / 2
    first, second, run = first[apart], second[apart], run[apart]
    scale = (y[second] - y[first]) / run
    shift = y[first] - scale * x[first]
    off = np.abs((scale[:, None] * x + shift[:, None]) / y - 1)
    cost = np.sort(off, axis=1)[:, : _most(len(x))].sum(axis=1)
    if (scale > 0).any():
        cost[scale <= 0] = np.inf
    best = int(np.argmin(cost))
    return np.array([scale[best], shift[best]])
