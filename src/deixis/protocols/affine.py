"""Affine-invariant depth against metres: one scale and shift per picture, limits, ten metrics and their mean.

Source: Ke et al. 2024, section 4.1; ``src/util/alignment.py``, ``src/util/metric.py`` and ``script/depth/eval.py``
of prs-eth/Marigold, whose formulas Lotus and E2E-FT carry as well. Cases that they leave undefined are settled in
``docs/semantics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deixis.errors import InputError, KindError, UsageError
from deixis.protocols.accumulate import ImageMetric
from deixis.protocols.depth import DepthMap, depth_metrics
from deixis.protocols.masks import EvaluationSet
from deixis.types import Depth, DepthKind

AFFINE_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "d1", "d2", "d3", "i_rmse", "silog_rmse")

Alignment = Literal["depth", "disparity", "none"]
Compat = Literal["official"]
# The space in which a map of each kind is aligned.
SPACES: dict[DepthKind, Alignment] = {"affine": "depth", "disparity": "disparity", "metric": "none"}
# An aligned disparity below this is as far as it gets [1/m].
MIN_DISPARITY = 1e-3
# No prediction is nearer than this, whatever the set's range [m].
MIN_PREDICTION = 1e-6


class Fit(NamedTuple):
    """What brings a prediction closest to the ground truth: ``scale * prediction + shift``.

    Attributes:
        scale: [m], or [1/m] for disparity.
        shift: the same.
    """

    scale: float
    shift: float


def least_squares(prediction: Tensor, target: Tensor) -> Fit:
    """Scale and shift of a prediction [N] with the least square error to a target [N], in float64.

    A prediction of one value has no scale: 0, and the mean target as the shift.

    Raises:
        InputError: if there is no pixel, or one that is not finite (the original fits 0 and 0, or NaN).
    """
    if not len(target):
        raise InputError("alignment", "has no pixel to fit on", "check the mask, the unit (metres) and the prediction")
    p, t = prediction.double(), target.double()
    bad = int((~torch.isfinite(p) | ~torch.isfinite(t)).sum())
    if bad:
        raise InputError("alignment", f"{bad} of {len(p)} pixels are not finite", "check the prediction")
    off = p - p.mean()
    spread = off.square().sum()
    # Rounding of the mean is not a spread.
    if not spread > len(p) * (1e-12 * p.abs().max()) ** 2:
        return Fit(0.0, t.mean().item())
    scale = (off * t).sum() / spread
    return Fit(scale.item(), (t.mean() - scale * p.mean()).item())


def align_depth(
    prediction: Tensor, target: Tensor, valid: Tensor, max_res: int | None = None, compat: Compat | None = None
) -> tuple[Tensor, Fit]:
    """Fit a prediction to the valid ground truth by least squares in depth.

    Args:
        prediction: [H, W].
        target: ground truth [H, W] [m].
        valid: bool [H, W].
        max_res: fit on maps whose larger side is at most this, every so-many-th pixel of theirs [px].
        compat: ``official``: thin out columns only, as the original does by mistake, whatever the height.

    Returns:
        the aligned prediction [H, W] [m], not yet limited, and the fit.

    Raises:
        InputError: if there is nothing to fit on.
        UsageError: if shapes differ or ``max_res`` is not positive.
    """
    p, t, kept = thinned(prediction, target, valid, max_res, compat)
    fit = least_squares(p[kept], t[kept])
    return prediction * fit.scale + fit.shift, fit


def align_disparity(
    prediction: Tensor, target: Tensor, valid: Tensor, max_res: int | None = None, compat: Compat | None = None
) -> tuple[Tensor, Fit]:
    """Fit a disparity to ``1 / depth``, where both are positive, and turn it over; arguments as :func:`align_depth`.

    Aligned disparities below :data:`MIN_DISPARITY` are raised to it.

    Returns:
        depth [H, W] [m], not yet limited, and the fit [1/m].
    """
    disparity, positive = depth_to_disparity(target)
    p, t, kept = thinned(prediction, disparity, valid & positive & (prediction > 0), max_res, compat)
    fit = least_squares(p[kept], t[kept])
    return 1 / (prediction * fit.scale + fit.shift).clamp_min(MIN_DISPARITY), fit


def depth_to_disparity(depth: Tensor) -> tuple[Tensor, Tensor]:
    """``1 / depth`` where depth is positive and 0 elsewhere [1/m], and where it is; of the depth's shape."""
    positive = depth > 0
    return torch.where(positive, 1 / torch.where(positive, depth, 1.0), 0.0), positive


def limited(depth: Tensor, low: float, high: float) -> Tensor:
    """Depth within a set's range and never below :data:`MIN_PREDICTION`; any shape [m]."""
    return depth.clamp(low, high).clamp_min(MIN_PREDICTION)


def affine_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """The ten metrics over one image's pixels, :data:`AFFINE_METRICS`.

    The first eight as in :func:`deixis.protocols.depth.depth_metrics`, with its comparisons in float32 and its
    means in float64. ``i_rmse`` is the RMSE of ``1 / depth`` [1/m]; ``silog_rmse`` is 100 times the standard
    deviation of ``ln(prediction) - ln(target)``, which ``silog`` there is not.

    Args:
        prediction: float32 [N], positive and finite [m].
        target: float32 [N], positive and finite [m].

    Raises:
        UsageError: if the two are not [N] of one length, N > 0.
    """
    values = depth_metrics(prediction, target)
    p, t = prediction.double(), target.double()
    values["i_rmse"] = (1 / p - 1 / t).square().mean().sqrt().item()
    values["silog_rmse"] = 100 * (p.log() - t.log()).std(correction=0).item()
    return {name: values[name] for name in AFFINE_METRICS}


def mean_metrics(predictions: Tensor, targets: Tensor, valid: Tensor, compat: Compat | None = None) -> dict[str, float]:
    """The ten metrics of several maps: each image's own, averaged over images.

    Args:
        predictions: aligned and limited [B, H, W] [m].
        targets: ground truth [B, H, W] [m].
        valid: bool [B, H, W].
        compat: ``official``: ``log10`` is the mean over all pixels of all images, and ``silog_rmse`` the root of the
            images' mean variance, so that both depend on how images are batched.

    Raises:
        InputError: if an image has no valid pixel.
        UsageError: if shapes differ or ``valid`` is not bool.
    """
    _check("mean_metrics", predictions, targets, valid, ndim=3)
    counts = valid.flatten(1).sum(dim=1).tolist()
    if not all(counts) or not counts:
        raise InputError("mean_metrics", "an image has no valid pixel", "leave it out")
    rows = [affine_metrics(p[v], t[v]) for p, t, v in zip(predictions, targets, valid, strict=True)]
    mean = {name: float(np.mean([row[name] for row in rows])) for name in AFFINE_METRICS}
    if compat == "official":
        mean["log10"] = float(np.average([row["log10"] for row in rows], weights=counts))
        mean["silog_rmse"] = float(np.sqrt(np.mean([row["silog_rmse"] ** 2 for row in rows])))
    return mean


@dataclass(frozen=True)
class Aligned:
    """A prediction brought to metres, beside the truth.

    Attributes:
        values: float32 [H, W] of the set's frame, within its range [m].
        target: ground truth [H, W] [m].
        valid: bool [H, W], where the map counts.
        fit: scale and shift; None without alignment.
    """

    values: Tensor
    target: Tensor
    valid: Tensor
    fit: Fit | None

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Prediction and ground truth [N] of the pixels that count [m]."""
        return self.values[self.valid], self.target[self.valid]


@dataclass(frozen=True)
class AffineProtocol:
    """How a set scores depth that is known up to scale and shift.

    Attributes:
        dataset: which pixels count, and the range.
        alignment: in depth, in disparity, or none; by default as the map's kind asks: affine maps in depth,
            disparity in disparity, metric maps as they are.
        compat: see :func:`align_depth`.
    """

    dataset: EvaluationSet
    alignment: Alignment | None = None
    compat: Compat | None = None

    def __post_init__(self) -> None:
        if self.alignment is not None and self.alignment not in get_args(Alignment):
            raise UsageError(
                self.dataset.name,
                f"has no alignment '{self.alignment}'",
                f"use one of {', '.join(get_args(Alignment))}",
            )

    def align(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> tuple[Tensor, Fit | None, Tensor]:
        """The prediction in metres, within the set's range; the fit; and where the map counts.

        Args:
            prediction: [H, W]; a bare array or tensor needs ``kind``.
            target: raw ground truth [H, W] [m]; 0, infinity or NaN where unknown.
            mask: of the set's mask file [H, W], if it has one.
            kind: what a bare ``prediction`` is; a :class:`Depth` says so itself.

        Returns:
            float32 [H, W] of the set's frame [m]; scale and shift, None without alignment; bool [H, W].

        Raises:
            InputError: if no ground truth counts, there is nothing to fit on, or a prediction that counts is not
                finite.
            KindError: if depth is to be aligned as disparity, or the other way round, or affine depth not at all.
            UsageError: if the kind is not given, or sizes differ or do not fit the set.
        """
        found = self._known(prediction, target, mask, kind)
        return found.values, found.fit, found.valid

    def score(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> dict[str, float]:
        """The ten metrics of one image (:func:`affine_metrics`); arguments and errors as :meth:`align`."""
        found = self._known(prediction, target, mask, kind)
        return affine_metrics(*found.pixels)

    def aligned(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> Aligned | None:
        """What is scored, None if no ground truth counts; arguments and other errors as :meth:`align`."""
        p, t, valid, space = self.prepare(prediction, target, mask, kind=kind)
        if not valid.any():
            return None
        fit = None
        if space == "depth":
            p, fit = align_depth(p, t, valid, self.dataset.max_res, self.compat)
        elif space == "disparity":
            p, fit = align_disparity(p, t, valid, self.dataset.max_res, self.compat)
        return Aligned(limited(p, self.dataset.min_depth, self.dataset.max_depth), t, valid, fit)

    def _known(
        self, prediction: Depth | DepthMap, target: DepthMap, mask: Tensor | None, kind: DepthKind | None
    ) -> Aligned:
        found = self.aligned(prediction, target, mask, kind=kind)
        if found is None:
            raise InputError(self.dataset.name, "no ground truth in range", "check its unit (metres), or leave it out")
        return found

    def prepare(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Alignment]:
        """Prediction, ground truth and valid pixels [H, W] of the set's frame, and the space to align in.

        Arguments and errors as :meth:`align`, but ground truth without a valid pixel passes.
        """
        dataset = self.dataset
        values: DepthMap
        if isinstance(prediction, Depth):
            values, kind = prediction.values, prediction.kind
        else:
            values = prediction
        if kind not in SPACES:
            raise UsageError(dataset.name, "got an array that may be of any kind", "pass a Depth, or its kind with it")
        space = self.alignment or SPACES[kind]
        # A metric map may be scored up to scale and shift as well.
        if space != SPACES[kind] and (kind, space) != ("metric", "depth"):
            raise KindError(
                dataset.name,
                f"the prediction is {kind} depth and the alignment '{space}'",
                f"use '{SPACES[kind]}', or leave it to the prediction",
            )
        p, t = _map(dataset.name, values), _map(dataset.name, target)
        t, mask = t.to(p.device), None if mask is None else mask.to(p.device)
        valid = dataset.valid(t, mask)
        p, t = dataset.frame(p), dataset.frame(t)
        if p.shape != t.shape:
            raise UsageError(
                dataset.name,
                f"prediction is {list(p.shape)} and ground truth {list(t.shape)}",
                "bring the prediction to the size of the ground truth",
            )
        bad = int((~torch.isfinite(p[valid])).sum())
        if bad:
            raise InputError(dataset.name, f"{bad} predictions that count are not finite", "check the model")
        return p, t, valid, space


class AffineMetrics(ImageMetric):
    """Mean of a protocol's per-image metrics; every image weighs the same, in any order, on any number of processes.

    Args:
        protocol: what to score and where.
    """

    def __init__(self, protocol: AffineProtocol) -> None:
        super().__init__(width=len(AFFINE_METRICS))
        self.protocol = protocol

    def update(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        mask: Tensor | None = None,
        *,
        kind: DepthKind | None = None,
    ) -> None:
        """Add one image; one without a pixel to score is counted as skipped.

        Arguments and errors as :meth:`AffineProtocol.align`.
        """
        found = self.protocol.aligned(prediction, target, mask, kind=kind)
        if found is None:
            self.skipped += 1
            return
        values = affine_metrics(*found.pixels)
        self.append([values[name] for name in AFFINE_METRICS])

    def compute(self) -> dict[str, float]:
        """The ten means, with ``images`` (scored) and ``skipped`` (without a pixel to score).

        Raises:
            UsageError: if no image was scored.
        """
        return self.image_means(AFFINE_METRICS, self.protocol.dataset.name)


def thinned(
    prediction: Tensor, target: Tensor, valid: Tensor, max_res: int | None, compat: Compat | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The three maps [H, W] at the size on which a fit is made: every so-many-th pixel.

    Args:
        prediction: [H, W].
        target: [H, W].
        valid: bool [H, W].
        max_res: of the larger side [px]; maps that are no larger stay as they are.
        compat: see :func:`align_depth`.

    Raises:
        UsageError: if shapes differ, ``valid`` is not bool or ``max_res`` is not positive.
    """
    _check("alignment", prediction, target, valid, ndim=2)
    if max_res is None:
        return prediction, target, valid
    if max_res < 1:
        raise UsageError("alignment", f"was asked to fit on maps of {max_res} px", "use 1 px or more, or none")
    share = max_res / max(valid.shape)
    if share >= 1:
        return prediction, target, valid
    stack = torch.stack([prediction.float(), target.float(), valid.float()])  # [3, H, W]
    if compat == "official":
        # Without a dimension for channels, torch takes rows for them and thins out columns alone.
        stack = F.interpolate(stack, scale_factor=share, mode="nearest")
    else:
        height, width = (max(1, int(side * share)) for side in valid.shape)
        stack = F.interpolate(stack[None], size=(height, width), mode="nearest")
    p, t, kept = stack.view(3, *stack.shape[-2:])
    return p, t, kept > 0


def _check(subject: str, prediction: Tensor, target: Tensor, valid: Tensor, ndim: int) -> None:
    shapes = [list(x.shape) for x in (prediction, target, valid)]
    if prediction.ndim != ndim or any(shape != shapes[0] for shape in shapes) or valid.dtype != torch.bool:
        raise UsageError(
            subject,
            f"was given {shapes[0]}, {shapes[1]} and {str(valid.dtype).removeprefix('torch.')} {shapes[2]}",
            f"pass prediction, target and bool mask of one shape with {ndim} dimensions",
        )


def _map(name: str, values: DepthMap) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise UsageError(
            name,
            f"was given {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}",
            "pass one floating-point map [H, W] at a time",
        )
    return tensor.detach().float()
