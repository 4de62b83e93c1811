"""Augmentations that move image, depth and mask together, drawn from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How far to go.

    Attributes:
        flip: probability of a horizontal flip.
        zoom: largest magnification. A zoomed photo is taken as nearer by that factor, see :meth:`Warp.depth`.
        rotate_deg: largest rotation either way [deg].
        colour: strength of brightness, contrast, saturation, tint and gamma changes.
        grey: probability of a picture without colour.
    """

    flip: float = 0.5
    zoom: float = 1.3
    rotate_deg: float = 4.0
    colour: float = 0.3
    grey: float = 0.05


def _uniform(generator: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


@dataclass(frozen=True)
class Warp:
    """A drawn geometric change of a batch.

    Attributes:
        grid: [B, H, W, 2] sampling positions in [-1, 1].
        zoom: [B] magnification.
        flipped: bool [B].
    """

    grid: Tensor
    zoom: Tensor
    flipped: Tensor

    def image(self, x: Tensor) -> Tensor:
        """Bilinear [B, C, H', W'] to [B, C, H, W]; outside the frame the border repeats."""
        return F.grid_sample(x, self.grid, mode="bilinear", padding_mode="border", align_corners=False)

    def labels(self, x: Tensor) -> Tensor:
        """Nearest [B, C, H', W'] to [B, C, H, W]; outside the frame 0."""
        return F.grid_sample(x, self.grid, mode="nearest", padding_mode="zeros", align_corners=False)

    def depth(self, x: Tensor, one_camera: Tensor | None = None) -> Tensor:
        """Like :meth:`labels`, and nearer by the zoom where all pictures are of one camera.

        To a camera of one field of view magnification is approach. Where fields of view vary, it is a narrower one, and
        nothing comes nearer: taken as approach it would teach depths that are too small, by the zoom's mean.

        Args:
            x: depth [B, 1, H', W'].
            one_camera: bool [B], which are of one camera; None for all.

        Returns:
            [B, 1, H, W].
        """
        zoom = self.zoom if one_camera is None else torch.where(one_camera, self.zoom, 1.0)
        return self.labels(x) / zoom.view(-1, 1, 1, 1)


def draw_warp(
    settings: Augmentation,
    n: int,
    size: tuple[int, int],
    generator: torch.Generator,
    source: tuple[int, int] | None = None,
) -> Warp:
    """A random flip, zoom, rotation and shift per sample.

    Args:
        settings: how far to go.
        n: samples.
        size: (height, width) of the output [px].
        generator: of the draws.
        source: (height, width) of what is sampled from [px]; where its aspect ratio is another one, the largest
            window of the output's aspect ratio is moved about in it. The output's by default.
    """
    height, width = size
    aspect = width / height
    flipped = torch.rand(n, generator=generator) < settings.flip
    zoom = _uniform(generator, n, 1.0, settings.zoom)
    angle = torch.deg2rad(_uniform(generator, n, -settings.rotate_deg, settings.rotate_deg))
    given = aspect if source is None else source[1] / source[0]
    # Shares of the source's width and height that the window has before zooming.
    across, down = min(1.0, aspect / given), min(1.0, given / aspect)
    shift_x = _uniform(generator, n, -1, 1) * (1 - across / zoom)
    shift_y = _uniform(generator, n, -1, 1) * (1 - down / zoom)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    sign = torch.where(flipped, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([cos * sign * across, -sin / given * down, shift_x], dim=1),
            torch.stack([sin * sign * given * across, cos * down, shift_y], dim=1),
        ],
        dim=1,
    )  # [B, 2, 3]
    return Warp(F.affine_grid(theta, [n, 1, height, width], align_corners=False), zoom, flipped)


def jitter_colour(image: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast, saturation, tint, gamma and loss of colour of [B, 3, H, W] in [0, 1]."""
    n, c = image.shape[0], settings.colour

    def draw(strength: float, channels: int = 1) -> Tensor:
        return _uniform(generator, n * channels, 1 - strength, 1 + strength).view(n, channels, 1, 1)

    grey = image.mean(dim=1, keepdim=True)
    saturation = draw(c)
    saturation = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < settings.grey, 0.0, saturation)
    image = grey + (image - grey) * saturation
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * draw(c)
    image = image * draw(c) * draw(c / 3, 3)
    return image.clamp(0, 1) ** draw(c)
