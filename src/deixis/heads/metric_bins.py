"""Metric bins: depth as an expectation over adaptive bin centres (EVP section 3.5, after ZoeDepth)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.heads.deconv import Decoded


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _at(points: Tensor, columns: int, like: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """What takes the values at some pixels, [B, C, 1, N]: of maps as large as ``like``, and of others as if resized.

    Args:
        points: [B, N], ``row * columns + column``.
        columns: of the picture, which may be narrower than ``like``.
        like: [B, ?, H, W].
    """
    height, width = like.shape[-2:]
    row, column = points // columns, points % columns
    flat = (row * width + column)[:, None]  # [B, 1, N]
    grid = torch.stack([column / (width - 1), row / (height - 1)], dim=-1)[:, None] * 2 - 1  # [B, 1, N, 2]

    def own(x: Tensor) -> Tensor:
        return x.flatten(2).gather(2, flat.expand(-1, x.shape[1], -1))[:, :, None]

    def between(x: Tensor) -> Tensor:
        return F.grid_sample(x, grid.to(x.dtype), align_corners=True)

    return own, between


def _mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, out_channels, 1))


class Attractor(nn.Module):
    """Pull the bin centres towards points predicted at a finer scale ("inverse" attraction, averaged).

    ``c + mean_a (a - c) / (1 + alpha (a - c)^2)`` with alpha = 300. EVP's code asks for alpha = 1000
    and for a strength of 2, but the layer it uses ignores both arguments: the published weights were
    trained with 300.
    """

    alpha = 300.0

    def __init__(self, width: int, attractors: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*_mlp(width, width, attractors), nn.Softplus())

    def forward(self, embedding: Tensor, centers: Tensor) -> Tensor:
        """Embedding [B, E, H, W] and centres [B, N, h, w] [m] to centres [B, N, H, W] [m]."""
        centers = _resize(centers, embedding)
        points = self.net(embedding)  # [B, A, H, W]
        pull = torch.zeros_like(centers)
        for point in points.unbind(dim=1):  # one attractor at a time: a fifth axis would cost A times the memory
            distance = point.unsqueeze(1) - centers  # [B, N, H, W]
            pull = pull + distance / (1 + self.alpha * distance**2)
        return centers + pull / points.shape[1]


class LogBinomial(nn.Module):
    """A log-binomial distribution over ordered bins, with predicted mode and temperature.

    Binomial coefficients come from Stirling's formula, as in ZoeDepth.
    """

    epsilon = 1e-4

    def __init__(self, in_channels: int, bins: int, temperature: tuple[float, float]) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.mlp = nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 4, 1), nn.Softplus())
        self.bins = bins
        self.min_temperature, self.max_temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to probabilities [B, bins, H, W]."""
        p0, p1, t0, t1 = (self.mlp(x) + self.epsilon).split(1, dim=1)  # four times [B, 1, H, W]
        mode = p0 / (p0 + p1)
        temperature = (self.max_temperature - self.min_temperature) * (t0 / (t0 + t1)) + self.min_temperature

        log_p = mode.clamp(self.epsilon, 1).log()
        log_q = (1 - mode).clamp(self.epsilon, 1).log()
        # (log C(n, k) + k log p + (n - k) log q) / t, less n log q / t, which is the same for every bin: two maps
        # times two numbers a bin instead of six passes over all bins at full resolution.
        k = torch.arange(self.bins, device=x.device, dtype=x.dtype)
        n = torch.tensor(float(self.bins - 1), device=x.device, dtype=x.dtype)
        per_bin = torch.stack([_log_choose(n, k), k], dim=1)[..., None, None]  # [bins, 2, 1, 1]
        maps = torch.cat([1 / temperature, (log_p - log_q) / temperature], dim=1)  # [B, 2, H, W]
        return F.conv2d(maps, per_bin).softmax(dim=1)


def _log_choose(n: Tensor, k: Tensor, epsilon: float = 1e-7) -> Tensor:
    n, k = n + epsilon, k + epsilon
    return n * n.log() - k * k.log() - (n - k) * (n - k + epsilon).log()


class MetricBins(nn.Module):
    """Seed bins at the coarsest map, attract them scale by scale, and take the expectation.

    Args:
        in_channels: channels of the stride-32 map.
        pyramid_channels: channels of the decoder's maps at strides 16, 8, 4, 2.
        out_channels: channels of the decoder's full-resolution map.
        bins: number of bins.
        width: channels of the bin embeddings.
        bottleneck: channels between the stride-32 map and the seed bins.
        attractors: attractors per scale.
        temperature: range of the log-binomial's temperature.
        max_depth: scale of the decoder's own depth, which conditions the distribution [m].
    """

    def __init__(
        self,
        in_channels: int,
        pyramid_channels: Sequence[int],
        out_channels: int,
        *,
        bins: int,
        width: int,
        bottleneck: int,
        attractors: Sequence[int],
        temperature: tuple[float, float],
        max_depth: float,
    ) -> None:
        super().__init__()
        self.max_depth = max_depth
        self.bottleneck = nn.Sequential(
            nn.Conv2d(in_channels, bottleneck, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(bottleneck, bottleneck, kernel_size=3, padding=1),
        )
        self.seed = nn.Sequential(*_mlp(bottleneck, bottleneck, bins), nn.Softplus())
        self.seed_projector = _mlp(bottleneck, width, width)
        self.projectors = nn.ModuleList(_mlp(c, width, width) for c in pyramid_channels)
        self.attractors = nn.ModuleList(Attractor(width, a) for a in attractors)
        self.log_binomial = LogBinomial(out_channels + 1 + width, bins, temperature)

    def forward(self, x: Tensor, decoded: Decoded, size: tuple[int, int], points: Tensor | None = None) -> Tensor:
        """Stride-32 map [B, C, h, w] and the decoder's maps to depth [B, 1, *size] [m].

        With ``points`` [B, N], pixels as ``row * size[1] + column``, depth is computed at these alone: [B, 1, N].
        """
        x = self.bottleneck(x)
        centers = self.seed(x)  # [B, bins, h, w] [m]
        embedding = self.seed_projector(x)  # [B, width, h, w]
        for projector, attractor, level in zip(self.projectors, self.attractors, decoded.pyramid, strict=True):
            previous, embedding = embedding, projector(level)
            centers = attractor(embedding + _resize(previous, embedding), centers)

        relative = decoded.logit.sigmoid() * self.max_depth  # [B, 1, H, W]
        if points is not None:
            own, between = _at(points, size[1], decoded.features)
            x = torch.cat([own(decoded.features), own(relative), between(embedding)], dim=1)  # [B, C, 1, N]
            return (self.log_binomial(x) * between(centers)).sum(dim=1, keepdim=True)[:, :, 0]
        # The resized embedding has no name, so that its memory is free again in the largest step.
        x = torch.cat([decoded.features, relative, _resize(embedding, decoded.features)], dim=1)
        probabilities = self.log_binomial(x)
        depth = (probabilities * _resize(centers, probabilities)).sum(dim=1, keepdim=True)
        return depth[..., : size[0], : size[1]]

    def spread(self, low: float, high: float) -> None:
        """A start for training without pre-training: bins from ``low`` to ``high`` [m], temperature near 1.

        By default all bins start at softplus(0) = 0.69 m and the temperature in the middle of its range, 25: a
        uniform distribution over equal depths, whose expectation hardly depends on what the network says.
        """
        seed, last = self.seed[2], self.log_binomial.mlp[2]
        assert isinstance(seed, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        assert seed.bias is not None
        assert last.bias is not None
        centers = torch.logspace(math.log10(low), math.log10(high), seed.out_channels, dtype=torch.float64)
        share = (1 - self.log_binomial.min_temperature) / self.log_binomial.max_temperature
        with torch.no_grad():
            seed.weight.mul_(0.1)
            seed.bias.copy_(centers.expm1().log())  # the inverse of softplus
            last.weight[2:].mul_(0.1)
            last.bias[2] = math.log(math.expm1(share / (1 - share)))
            last.bias[3] = math.log(math.expm1(1.0))
