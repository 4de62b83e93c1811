"""Changes of a sample that leave it true: picture, depth, masks, words and camera move together.

The draws are explicit, from a generator: the same seed gives the same sample. The papers train with
:func:`vpd_augmentation` (GLPDepth's, which VPD and EVP took over) or with BTS's crop, flip and :class:`BTSColour`.
Batches on a device are changed by :mod:`deixis.training.augment` instead, which also zooms and turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from deixis.data.dataset import Expression, Sample
from deixis.errors import UsageError
from deixis.protocols.depth import BENCHMARK_SHAPE
from deixis.types import RGB
from deixis.world.words import flip as flip_words

Transform: TypeAlias = Callable[[Sample, torch.Generator], Sample]
_Map = TypeVar("_Map", bound=npt.NDArray[Any])

# CutDepth as in GLPDepth: every fourth picture, up to three quarters of what is right of where it begins.
_CUT_SHARE, _CUT_WIDTH = 0.25, 0.75
# Limits of the four changes of colour, each made to half of the pictures: albumentations' defaults, which VPD keeps.
_BRIGHTNESS, _CONTRAST, _GAMMA = 0.2, 0.2, 0.2
_HUE_TURN, _SATURATION, _VALUE = 20 / 180, 30 / 255, 20 / 255


def transformed(sample: Sample, transforms: Sequence[Transform], generator: torch.Generator) -> Sample:
    """The sample after one transform after another.

    Args:
        sample: is left as it is.
        transforms: in their order.
        generator: of all draws.
    """
    for transform in transforms:
        sample = transform(sample, generator)
    return sample


def vpd_augmentation(height: int, width: int, max_depth: float) -> list[Transform]:
    """What VPD and EVP train depth with, in their order (``BaseDataset`` of wl-zhao/VPD).

    Args:
        height: of the crop [px].
        width: of the crop [px].
        max_depth: end of the depth range [m].
    """
    return [CutDepth(max_depth), RandomFlip(), RandomCrop(height, width), VPDColour()]


# ---------------------------------------------------------------------------------------------- geometry


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The window of a sample; expressions for what is not in it are dropped, those for nothing stay.

    Args:
        sample: is left as it is.
        top: first row [px].
        left: first column [px].
        height: rows [px].
        width: columns [px].

    Raises:
        UsageError: if the window is not within the picture.
    """
    old_height, old_width = sample.rgb.shape[:2]
    within = 0 <= top <= old_height - height and 0 <= left <= old_width - width
    if min(height, width) < 1 or not within:
        problem = f"of {height} x {width} at ({top}, {left}) is not within {old_height} x {old_width}"
        raise UsageError("crop", problem, "choose a smaller one")
    window = (slice(top, top + height), slice(left, left + width))
    moved = _moved(sample, lambda values: values[window])
    kept = [new for old, new in zip(sample.expressions, moved.expressions, strict=True) if new.found or not old.found]
    camera = None if sample.camera is None else sample.camera.cropped(left, top, width, height)
    return replace(moved, expressions=tuple(kept), camera=camera)


def flip(sample: Sample) -> Sample:
    """The sample mirrored left to right: "left" becomes "right" in expressions and descriptions, and back."""
    moved = _moved(sample, lambda values: values[:, ::-1])
    return replace(
        moved,
        expressions=tuple(replace(one, text=flip_words(one.text)) for one in moved.expressions),
        camera=None if sample.camera is None else sample.camera.flipped(),
        texts=sample.texts and {key: replace(one, text=flip_words(one.text)) for key, one in sample.texts.items()},
    )


def benchmark_frame(sample: Sample) -> Sample:
    """KITTI's benchmark frame of a sample: 352 x 1216 at the bottom, in the middle.

    Raises:
        UsageError: if the picture is smaller.
    """
    height, width = BENCHMARK_SHAPE
    rows, columns = sample.rgb.shape[:2]
    return crop(sample, rows - height, (columns - width) // 2, height, width)


def resized(sample: Sample, height: int, width: int) -> Sample:
    """The sample at another size: the picture smoothed, each pixel of a map one of the old.

    Args:
        sample: is left as it is.
        height: rows [px].
        width: columns [px].
    """
    rows, columns = sample.rgb.shape[:2]
    if (rows, columns) == (height, width):
        return sample
    down = ((np.arange(height) + 0.5) * (rows / height)).astype(int)
    across = ((np.arange(width) + 0.5) * (columns / width)).astype(int)
    rgb = np.asarray(Image.fromarray(sample.rgb).resize((width, height), Image.Resampling.BILINEAR))
    camera = None if sample.camera is None else sample.camera.scaled(width / columns, height / rows)
    return replace(_moved(sample, lambda values: values[down][:, across]), rgb=rgb, camera=camera)


@dataclass(frozen=True)
class RandomCrop:
    """A window anywhere in the picture.

    Attributes:
        height: rows [px].
        width: columns [px].
    """

    height: int
    width: int

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """A window of the sample. Raises UsageError if the picture is smaller."""
        rows, columns = sample.rgb.shape[0] - self.height, sample.rgb.shape[1] - self.width
        top, left = (int(_uniform(generator) * (max(room, 0) + 1)) for room in (rows, columns))
        return crop(sample, top, left, self.height, self.width)


@dataclass(frozen=True)
class RandomFlip:
    """Half of the samples mirrored."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample or its mirror image."""
        return flip(sample) if _uniform(generator) < 0.5 else sample


def _moved(sample: Sample, move: Callable[[_Map], Any]) -> Sample:
    """All maps of a sample, moved alike."""

    def map_of(values: Any) -> Any:  # noqa: ANN401 - an array of any type, or None
        return None if values is None else np.ascontiguousarray(move(values))

    def expression(one: Expression) -> Expression:
        return replace(one, mask=map_of(one.mask))

    return replace(
        sample,
        rgb=map_of(sample.rgb),
        depth=map_of(sample.depth),
        mask=map_of(sample.mask),
        instances=map_of(sample.instances),
        expressions=tuple(map(expression, sample.expressions)),
    )


# ------------------------------------------------------------------------------------------------ colour


@dataclass(frozen=True)
class CutDepth:
    """Vertical CutDepth (Kim et al. 2022): in one of four pictures, a band of columns shows the depth instead.

    The official code writes millimetres into 8 bits, which wrap around every 256 mm. Here depth is grey, from black at
    0 and where it is unknown to white.

    Attributes:
        max_depth: what is white, and all beyond it [m].
    """

    max_depth: float

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample, perhaps with a band of depth in its picture. Raises UsageError if it has no depth."""
        if sample.depth is None:
            raise UsageError(sample.name, "has no depth to show", "leave CutDepth out")
        chance, start, share = (_uniform(generator) for _ in range(3))
        if chance >= _CUT_SHARE:
            return sample
        width = sample.rgb.shape[1]
        left = int(start * width)
        band = slice(left, left + int(max((1 - start) * width * share * _CUT_WIDTH, 1)))
        grey = np.rint(np.clip(sample.depth[:, band] / self.max_depth, 0, 1) * 255)
        rgb = sample.rgb.copy()
        rgb[:, band] = grey[..., None].astype(np.uint8)
        return replace(sample, rgb=rgb)


@dataclass(frozen=True)
class VPDColour:
    """Brightness and contrast, gamma, and hue, saturation and value, each of the three in half of the pictures."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample in other colours. Raises UsageError if kornia is not installed."""
        chances = [_uniform(generator) for _ in range(3)]
        changes = [2 * _uniform(generator) - 1 for _ in range(6)]
        image = _tensor(sample.rgb)
        enhance, color = _kornia("enhance"), _kornia("color")
        if chances[0] < 0.5:
            image = enhance.adjust_contrast(image, 1 + _CONTRAST * changes[0], clip_output=False)
            image = enhance.adjust_brightness(image, _BRIGHTNESS * changes[1])
        if chances[1] < 0.5:
            image = enhance.adjust_gamma(image, 1 + _GAMMA * changes[2])
        if chances[2] < 0.5:
            hue, saturation, value = color.rgb_to_hsv(image).unbind(-3)
            hue = (hue + 2 * math.pi * _HUE_TURN * changes[3]) % (2 * math.pi)
            saturation = (saturation + _SATURATION * changes[4]).clamp(0, 1)
            value = (value + _VALUE * changes[5]).clamp(0, 1)
            image = color.hsv_to_rgb(torch.stack([hue, saturation, value], dim=-3))
        return replace(sample, rgb=_picture(image))


@dataclass(frozen=True)
class BTSColour:
    """Gamma, brightness and the three colours of half of the pictures, as in BTS (Lee et al. 2019).

    Attributes:
        brightness: how far from 1 it may be: 0.25 for NYUv2, 0.1 for KITTI.
    """

    brightness: float

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample in other colours. Raises UsageError if kornia is not installed."""
        chance = _uniform(generator)
        changes = 2 * torch.rand(5, generator=generator) - 1
        if chance >= 0.5:
            return sample
        gain = (1 + self.brightness * changes[1]) * (1 + 0.1 * changes[2:])
        # Each colour as a picture of its own, so that all factors act before the values are cut off at white.
        channels = _tensor(sample.rgb).transpose(0, 1)  # [3, 1, H, W]
        channels = _kornia("enhance").adjust_gamma(channels, (1 + 0.1 * changes[0]).expand(3), gain)
        return replace(sample, rgb=_picture(channels.transpose(0, 1)))


def _kornia(module: str) -> ModuleType:
    """A module of kornia, which takes seconds to import.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return import_module(f"kornia.{module}")
    except ImportError as error:
        raise UsageError("kornia", "is not installed", "run pip install 'deixis[train]'") from error


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _tensor(rgb: RGB) -> Tensor:
    """[1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))


def _picture(image: Tensor) -> RGB:
    """The inverse of :func:`_tensor`."""
    return (image[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
