"""Metric depth protocols of EVP and VPD: crop, range, metrics and their average over images.

One :class:`DepthProtocol` per published setting; :class:`DepthMetrics` averages it over a split.
Source: EVP section 4.2 and the official evaluation loop, whose undefined cases are settled in
``docs/semantics.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deixis.errors import InputError, KindError, UsageError
from deixis.protocols.accumulate import ImageMetric
from deixis.types import BoolMap, Depth, DepthKind

DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "d1", "d2", "d3")

Crop = Literal["none", "nyu_eigen", "kitti_garg", "kitti_eigen"]
Window: TypeAlias = tuple[int, int, int, int]
DepthMap: TypeAlias = Tensor | npt.NDArray[np.floating]

NYU_SHAPE = (480, 640)
NYU_WINDOW: Window = (45, 471, 41, 601)
BENCHMARK_SHAPE = (352, 1216)
# top, bottom, left, right as fractions of the frame the crop is taken from
KITTI_FRACTIONS: dict[Crop, tuple[float, float, float, float]] = {
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}


def depth_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """The nine metrics of EVP section 4.2 over one image's evaluated pixels.

    ``silog`` is not in the paper; it is the official code's ``sqrt(mean(g^2) - 0.5 mean(g)^2)`` with
    ``g = ln(prediction) - ln(target)``. ``rmse_log`` uses the natural logarithm, ``log10`` base 10.

    Args:
        prediction: float32 [N], positive and finite [m].
        target: float32 [N], positive and finite [m].

    Returns:
        ``abs_rel``, ``sq_rel`` [m], ``rmse`` [m], ``rmse_log``, ``log10``, ``silog``, and the shares
        ``d1``, ``d2``, ``d3`` in [0, 1].

    Raises:
        UsageError: if the two are not [N] of one length, N > 0.
    """
    if prediction.shape != target.shape or prediction.ndim != 1 or not len(target):
        raise UsageError(
            "depth_metrics",
            f"got shapes {list(prediction.shape)} and {list(target.shape)}",
            "pass two vectors of the same pixels, at least one",
        )
    # Ratios in float32 put a pixel on the same side of a threshold as the official code; means in float64.
    ratio = torch.maximum(prediction / target, target / prediction)
    p, t = prediction.double(), target.double()
    error, log_error = p - t, p.log() - t.log()
    mean_square_log = log_error.square().mean()
    values = {
        "abs_rel": (error.abs() / t).mean(),
        "sq_rel": (error.square() / t).mean(),
        "rmse": error.square().mean().sqrt(),
        "rmse_log": mean_square_log.sqrt(),
        "log10": log_error.abs().mean() / math.log(10),
        "silog": (mean_square_log - 0.5 * log_error.mean().square()).sqrt(),
        **{f"d{n}": (ratio < 1.25**n).double().mean() for n in (1, 2, 3)},
    }
    return {name: value.item() for name, value in values.items()}


@dataclass(frozen=True)
class DepthProtocol:
    """How one published setting scores metric depth: where, within which range, and of what.

    Attributes:
        name: how errors and reports call it.
        crop: evaluated part of the frame. ``nyu_eigen``: rows 45-471, columns 41-601 of 480x640;
            ``kitti_garg``, ``kitti_eigen``: the fractions of those papers; ``none``: the whole frame.
        max_depth: pixels whose ground truth is at or beyond it are not scored [m].
        min_depth: pixels whose ground truth is at or below it are not scored [m].
        benchmark_crop: take KITTI's 352x1216 benchmark frame (bottom, centre) before ``crop``; a frame that
            has been cut to it already stays as it is.
    """

    name: str
    crop: Crop
    max_depth: float
    min_depth: float = 1e-3
    benchmark_crop: bool = False

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise UsageError(self.name, f"has no crop '{self.crop}'", f"use one of {', '.join(get_args(Crop))}")
        if not 0 < self.min_depth < self.max_depth:
            raise UsageError(
                self.name,
                f"scores depths between {self.min_depth} and {self.max_depth} m",
                "use 0 < min_depth < max_depth",
            )

    def window(self, height: int, width: int) -> Window:
        """The scored rectangle (top, bottom, left, right) of a frame of that size, half-open [px].

        Raises:
            UsageError: if the crop is not defined for that size.
        """
        top, left = 0, 0
        if self.benchmark_crop:
            if height < BENCHMARK_SHAPE[0] or width < BENCHMARK_SHAPE[1]:
                raise UsageError(
                    self.name,
                    f"cannot cut the 352x1216 benchmark frame from {height}x{width}",
                    "pass KITTI frames as published, or already cut to 352x1216 (height x width)",
                )
            top, left = height - BENCHMARK_SHAPE[0], (width - BENCHMARK_SHAPE[1]) // 2
            height, width = BENCHMARK_SHAPE
        if self.crop == "none":
            return top, top + height, left, left + width
        if self.crop == "nyu_eigen":
            if (height, width) != NYU_SHAPE:
                raise UsageError(
                    self.name,
                    f"crops rows 45-471 and columns 41-601 of 480x640, not of {height}x{width}",
                    "resize the prediction to NYUv2's 480x640 (height x width)",
                )
            return NYU_WINDOW
        first, last, start, end = KITTI_FRACTIONS[self.crop]
        return (
            top + int(first * height),
            top + int(last * height),
            left + int(start * width),
            left + int(end * width),
        )

    def valid(self, target: npt.NDArray[np.floating]) -> BoolMap:
        """The pixels that count of ground truth [H, W] [m], in the whole frame; errors as :meth:`window`."""
        top, bottom, left, right = self.window(*target.shape)
        inside = np.zeros(target.shape, np.bool_)
        inside[top:bottom, left:right] = True
        return inside & (target > self.min_depth) & (target < self.max_depth)

    def select(
        self, prediction: Depth | DepthMap, target: DepthMap, *, kind: DepthKind | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pixels that count: inside the window, ground truth strictly between the two depths.

        Predictions without a logarithm are replaced, in a copy: infinite ones (of either sign) by
        ``max_depth`` and NaN by ``min_depth`` as in the official code, zero and negative ones by
        ``min_depth``. Other values outside the range stay as they are.

        Args:
            prediction: [H, W]; a bare array or tensor needs ``kind``.
            target: ground truth [H, W] [m]; 0 or NaN where unknown.
            kind: what a bare ``prediction`` is; a :class:`Depth` says so itself.

        Returns:
            Prediction and target, float32 [N] each, N possibly 0, on the prediction's device.

        Raises:
            KindError: if the prediction is not metric.
            UsageError: if the kind is not given, shapes differ, a map is not a floating-point [H, W], or the
                crop is not defined for its size.
        """
        values: DepthMap
        if isinstance(prediction, Depth):
            values, kind = prediction.values, prediction.kind
        else:
            values = prediction
        if kind is None:
            raise UsageError(
                self.name,
                "got a bare array that may be of any kind",
                "pass a Depth, or kind='metric' with it",
            )
        if kind != "metric":
            raise KindError(
                self.name,
                f"scores metres, and the prediction is {kind} depth",
                "use a metric model such as evp-depth",
            )
        predicted = self._as_map(values, "prediction")
        truth = self._as_map(target, "ground truth").to(predicted.device)
        if predicted.shape != truth.shape:
            raise UsageError(
                self.name,
                f"prediction is {_size(predicted)} and ground truth {_size(truth)}",
                "bring the prediction to the size of the ground truth, or cut both to the same frame",
            )
        top, bottom, left, right = self.window(*truth.shape)
        predicted, truth = predicted[top:bottom, left:right], truth[top:bottom, left:right]
        valid = (truth > self.min_depth) & (truth < self.max_depth)
        predicted, truth = predicted[valid], truth[valid]
        predicted = torch.nan_to_num(predicted, nan=self.min_depth, posinf=self.max_depth, neginf=self.max_depth)
        return torch.where(predicted > 0, predicted, self.min_depth), truth

    def score(
        self, prediction: Depth | DepthMap, target: DepthMap, *, kind: DepthKind | None = None
    ) -> dict[str, float]:
        """The nine metrics (:func:`depth_metrics`) of one image; arguments and errors as :meth:`select`.

        Raises:
            InputError: if no pixel of the ground truth can be scored.
        """
        predicted, truth = self.select(prediction, target, kind=kind)
        if not len(truth):
            raise InputError(
                self.name,
                f"no ground truth between {self.min_depth} and {self.max_depth} m inside the crop",
                "check its unit (metres) or leave the image out",
            )
        return depth_metrics(predicted, truth)

    def _as_map(self, values: DepthMap, what: str) -> Tensor:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        if tensor.ndim != 2:
            raise UsageError(self.name, f"{what} has shape {list(tensor.shape)}", "pass one map [H, W] at a time")
        if not tensor.is_floating_point():
            raise UsageError(
                self.name,
                f"{what} holds {str(tensor.dtype).removeprefix('torch.')}, the raw numbers of a file",
                "divide by the file's scale (1000 for NYUv2, 256 for KITTI) to get metres",
            )
        return tensor.detach().float()


NYU_EIGEN = DepthProtocol("nyu-eigen", crop="nyu_eigen", max_depth=10.0)
KITTI_GARG = DepthProtocol("kitti-garg", crop="kitti_garg", max_depth=80.0, benchmark_crop=True)
KITTI_EIGEN = DepthProtocol("kitti-eigen", crop="kitti_eigen", max_depth=80.0, benchmark_crop=True)


class DepthMetrics(ImageMetric):
    """Mean of a protocol's per-image metrics over images, as in the official loop.

    Every image weighs the same, however many pixels it has. Any order of the images and any number of
    processes give the same bits, as long as each image is given once: the official sampler repeats images
    to make the processes' shares equal, which changes what is averaged.

    Args:
        protocol: what to score and where.
    """

    def __init__(self, protocol: DepthProtocol) -> None:
        super().__init__(width=len(DEPTH_METRICS))
        self.protocol = protocol

    def update(self, prediction: Depth | DepthMap, target: DepthMap, *, kind: DepthKind | None = None) -> None:
        """Add one image; one without a pixel to score is counted as skipped.

        Arguments and errors as :meth:`DepthProtocol.select`.
        """
        predicted, truth = self.protocol.select(prediction, target, kind=kind)
        if not len(truth):
            self.skipped += 1
            return
        scores = depth_metrics(predicted, truth)
        self.append([scores[name] for name in DEPTH_METRICS])

    def compute(self) -> dict[str, float]:
        """The nine means, with ``images`` (scored) and ``skipped`` (without a pixel to score).

        Raises:
            UsageError: if no image was scored.
        """
        return self.image_means(DEPTH_METRICS, self.protocol.name)


def _size(values: Tensor) -> str:
    return "x".join(str(side) for side in values.shape)
