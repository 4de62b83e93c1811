"""Training losses of EVP and VPD: SiLog for metric depth, weighted cross entropy for masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deixis.errors import UsageError

# Weights of background and object in the cross entropy of LAVT, VPD and EVP (refer).
MASK_CLASS_WEIGHTS = (0.9, 1.1)


def silog_loss(pred: Tensor, target: Tensor, lambd: float = 0.5) -> Tensor:
    """Scale-invariant log loss ``sqrt(mean(g^2) - lambd mean(g)^2)`` with ``g = ln(target) - ln(pred)``.

    Means run over all pixels of the batch with a target above 0, in float32 whatever the input type. Source:
    Eigen et al. 2014 in the form of the EVP and VPD code, which leaves two cases undefined:

    * ``pred`` equal to ``target`` everywhere: the root has no derivative at 0, the official gradient is NaN.
      Here the loss is 0 and so is its gradient: there is nothing to correct. The same holds where rounding
      makes the difference under the root negative (``lambd`` at 1 and ``pred`` a multiple of ``target``).
    * no pixel with a target: the official value is NaN. Here the loss is 0 with a zero gradient, so that a
      batch without ground truth teaches nothing and breaks nothing.

    Args:
        pred: predicted depth, any shape [m].
        target: ground truth of the same shape [m]; pixels at 0 or below, and NaN, are left out.
        lambd: 0 scores absolute scale in full, 1 ignores it.

    Returns:
        The loss, a float32 scalar.

    Raises:
        UsageError: if shapes differ, ``lambd`` is outside [0, 1], or a prediction at a scored pixel is not
            positive and finite (the official value is NaN or infinite there).
    """
    if not 0 <= lambd <= 1:
        raise UsageError("silog_loss", f"lambd is {lambd}", "use a value in [0, 1]")
    return silog(silog_moments(pred, target), lambd)


def silog_moments(pred: Tensor, target: Tensor) -> Tensor:
    """What SiLog is made of: the means of ``g^2`` and of ``g``, [2]; zeros where no pixel has a target.

    Arguments and errors as :func:`silog_loss`.
    """
    if pred.shape != target.shape:
        raise UsageError(
            "silog_loss",
            f"pred has shape {list(pred.shape)} and target {list(target.shape)}",
            "pass maps of one shape",
        )
    valid = target > 0
    log_pred = pred[valid].float().log()
    undefined = int((~torch.isfinite(log_pred)).sum())
    if undefined:
        raise UsageError(
            "silog_loss",
            f"{undefined} of {len(log_pred)} predictions are not positive and finite",
            "end the network in a positive output, or lower the learning rate if it diverged",
        )
    if not len(log_pred):
        return log_pred.sum().expand(2)
    error = target[valid].float().log() - log_pred
    return torch.stack([error.square().mean(), error.mean()])


def silog(moments: Tensor, lambd: float) -> Tensor:
    """SiLog of its moments [2]; see :func:`silog_loss`."""
    square = moments[0] - lambd * moments[1].square()
    # The root must not even be evaluated at 0: an infinite derivative times 0 is NaN.
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with weight 0.9 for background and 1.1 for the object, as in LAVT, VPD and EVP (refer).

    The mean is weighted: the sum of weighted pixel losses over the sum of the pixels' weights.

    Args:
        logits: [B, 2, H, W], background first.
        target: bool [B, H, W], true on the object.

    Returns:
        The loss, a scalar of the logits' type.

    Raises:
        UsageError: if shapes do not fit or ``target`` is not bool.
    """
    if logits.ndim != 4 or logits.shape[1] != 2 or target.shape != logits[:, 0].shape:
        raise UsageError(
            "mask_loss",
            f"logits have shape {list(logits.shape)} and target {list(target.shape)}",
            "pass [B, 2, H, W] and [B, H, W]",
        )
    if target.dtype != torch.bool:
        raise UsageError(
            "mask_loss",
            f"target is {str(target.dtype).removeprefix('torch.')}",
            "pass a bool mask (target != 0)",
        )
    weight = torch.tensor(MASK_CLASS_WEIGHTS, dtype=logits.dtype, device=logits.device)
    return F.cross_entropy(logits, target.long(), weight=weight)


def mask_weight(target: Tensor) -> Tensor:
    """The sum of the pixels' weights that :func:`mask_loss` divides by; ``target`` bool [B, H, W]."""
    objects = target.sum().float()
    return MASK_CLASS_WEIGHTS[0] * (target.numel() - objects) + MASK_CLASS_WEIGHTS[1] * objects
