"""Test-time augmentation of EVP and VPD depth: square windows along the longer side, and the mirror image.

Source: the official depth test loop. Where that loop leaves pixels undefined, the rule is here and the
reason in ``docs/semantics.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from deixis.errors import UsageError

Forward = Callable[[Tensor], Tensor]

OFFICIAL_SIZE = (480, 480)


def predict(forward: Forward, image: Tensor, *, windows: int = 0, flip: bool = False, max_batch: int = 4) -> Tensor:
    """Predict a map from one or several views of an image.

    ``windows = n`` places n square windows, as large as the shorter side s, at ``i * ((l - s) // (n - 1))``
    along the longer side l, and averages them where they overlap. Pixels that no window covers (undefined in
    the official loop) are filled by extra windows that count nowhere else, the last flush with the frame's
    end. Windows that would coincide are one window; a square image has just one. ``windows = 0`` is one view
    of the whole frame.

    ``flip`` averages each view's prediction with the prediction of its left-to-right mirror image, mirrored
    back.

    Args:
        forward: [B, 3, h, w] to [B, 1, h, w], each image on its own.
        image: [1, 3, H, W] in [0, 1].
        windows: number of windows, 0 for the whole frame.
        flip: whether to average with the mirror image.
        max_batch: most views per call of ``forward``; it does not change the result.

    Returns:
        The map, float32 [1, 1, H, W].

    Raises:
        UsageError: if the image is not [1, 3, H, W], ``windows`` is negative, ``max_batch`` is below 1, or
            ``forward`` returns another shape.
    """
    _check(image, max_batch)
    if windows < 0:
        raise UsageError("windows", f"is {windows}", "use 0 for the whole frame, or a number of windows")
    height, width = image.shape[2:]
    along = 3 if width >= height else 2
    length = max(height, width)
    side = min(height, width) if windows else length
    starts, fillers = _window_starts(length, side, windows)

    views = [image.narrow(along, start, side) for start in starts + fillers]
    if flip:
        outputs = _forward_all(forward, views + [view.flip(3) for view in views], max_batch)
        count = len(views)
        outputs = [
            (plain + mirrored.flip(3)) / 2 for plain, mirrored in zip(outputs[:count], outputs[count:], strict=True)
        ]
    else:
        outputs = _forward_all(forward, views, max_batch)

    total = image.new_zeros((1, 1, height, width), dtype=torch.float32)
    coverage = torch.zeros_like(total)
    for start, output in zip(starts, outputs, strict=False):
        total.narrow(along, start, side).add_(output)
        coverage.narrow(along, start, side).add_(1)
    for start, output in zip(fillers, outputs[len(starts) :], strict=True):
        bare = coverage.narrow(along, start, side) == 0
        total.narrow(along, start, side).add_(torch.where(bare, output, 0))
        coverage.narrow(along, start, side).add_(bare)
    return total / coverage


def official_resize_predict(forward: Forward, image: Tensor, *, flip: bool = False, max_batch: int = 4) -> Tensor:
    """Predict as the official test loop does without windows: squeezed to 480x480, and stretched back.

    Both ways by bilinear interpolation with aligned corners, whatever the aspect ratio.

    Arguments, result and errors as :func:`predict`.
    """
    _check(image, max_batch)
    small = F.interpolate(image, OFFICIAL_SIZE, mode="bilinear", align_corners=True)
    output = predict(forward, small, flip=flip, max_batch=max_batch)
    return F.interpolate(output, image.shape[2:], mode="bilinear", align_corners=True)


def _check(image: Tensor, max_batch: int) -> None:
    if image.ndim != 4 or image.shape[:2] != (1, 3) or not image.numel() or not image.is_floating_point():
        raise UsageError(
            "image",
            f"has shape {list(image.shape)} and type {str(image.dtype).removeprefix('torch.')}",
            "pass one floating-point image [1, 3, H, W] in [0, 1]",
        )
    if max_batch < 1:
        raise UsageError("max_batch", f"is {max_batch}", "allow at least 1 view per forward")


def _window_starts(length: int, side: int, windows: int) -> tuple[list[int], list[int]]:
    """Starts of the windows that are averaged, and of those that only fill what these leave uncovered."""
    interval = (length - side) // (windows - 1) if windows > 1 else 0
    starts = sorted({i * interval for i in range(max(windows, 1))})
    # A gap runs from a window's end to the next start or the frame's end, and is filled from there backwards.
    fillers = [
        filler for start, following in pairwise([*starts, length]) for filler in range(following - side, start, -side)
    ]
    return starts, fillers


def _forward_all(forward: Forward, views: list[Tensor], max_batch: int) -> list[Tensor]:
    """Outputs [1, 1, h, w] of all views, in as few forwards as ``max_batch`` allows."""
    outputs: list[Tensor] = []
    for first in range(0, len(views), max_batch):
        batch = torch.cat(views[first : first + max_batch])
        output = forward(batch)
        if output.shape != (len(batch), 1, *batch.shape[2:]):
            raise UsageError(
                "forward",
                f"returned shape {list(output.shape)} for an input of {list(batch.shape)}",
                "return [B, 1, h, w] of the input's size",
            )
        outputs.extend(output.float().split(1))
    return outputs
