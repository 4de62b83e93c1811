"""The image autoencoder of Stable Diffusion, small: 8 x 8 pixels to four numbers and back.

With its default initialisation a small one stays grey for thousands of steps: group norm takes the mean of each
picture away before the last layer, and nothing tells the decoder what it was. Here it starts as an average pool and
a nearest-neighbour enlargement, colours included, and learns the detail from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from deixis.training.gallery import ROWS, Cell, drawn, sheet
from deixis.training.scenes import spread
from deixis.training.store import SOURCES, Sampler, Store

# Offset that rides beside each colour, large against it, so that a group norm hardly sees the picture.
OFFSET = 6.0
# Where a colour c of three lives within its group of channels: c, -c, the offset and its negative. SiLU of c minus
# SiLU of -c is c again, and the group's mean is zero.
PLUS, MINUS, HIGH, LOW = 0, 1, 2, 3


def start_as_pooling(vae: AutoencoderKL, gain: float = 1.8) -> None:
    """Make an untrained autoencoder an average pool and a nearest-neighbour enlargement of three colours.

    Residual branches and attention start at zero, as in Fixup; three of four groups of channels carry the colours.

    Args:
        vae: with ``norm_num_groups`` of 4 and at least four channels in each group.
        gain: of the latents over the mean colours in [-1, 1], so that their standard deviation is near 1.

    Raises:
        ValueError: for other sizes.
    """
    widths: Sequence[int] = vae.config.block_out_channels
    if vae.config.norm_num_groups != 4 or min(widths) < 16 or vae.config.latent_channels < 4:
        raise ValueError("a pooling start needs norm_num_groups 4, widths from 16 and latent_channels from 4")
    with torch.no_grad():
        for module in vae.modules():
            if type(module).__name__ == "ResnetBlock2D":
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
                if module.conv_shortcut is not None:
                    _carry(module.conv_shortcut)
            elif type(module).__name__ == "Attention":
                module.to_out[0].weight.zero_()
                module.to_out[0].bias.zero_()
            elif type(module).__name__ == "Downsample2D":
                _carry(module.conv, average=True)
            elif type(module).__name__ == "Upsample2D":
                _carry(module.conv)
        _read_colours(vae.encoder.conv_in, 1.0)
        _write_colours(vae.encoder.conv_out, gain * _undo_norm(widths[-1] // 4))
        for conv in (vae.quant_conv, vae.post_quant_conv):
            conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None])
            conv.bias.zero_()
        # The posterior starts narrow, as it ends in every trained autoencoder of this kind.
        z = vae.config.latent_channels
        vae.encoder.conv_out.bias[z:].fill_(-6.0)
        vae.encoder.conv_out.weight[z:].mul_(0.1)
        _read_colours(vae.decoder.conv_in, 1 / gain)
        _write_colours(vae.decoder.conv_out, _undo_norm(widths[0] // 4))


def _undo_norm(group: int) -> float:
    """What a group norm over ``group`` channels divides by, when two of them are plus and minus the offset."""
    return float(OFFSET * (2 / group) ** 0.5)


def _centre(conv: nn.Conv2d) -> Tensor:
    middle = conv.kernel_size[0] // 2
    return conv.weight[:, :, middle, middle]


def _carry(conv: nn.Conv2d, *, average: bool = False) -> None:
    """Hand the colours and offsets on to the same places in groups of another size; the rest stays as drawn."""
    source, target = conv.in_channels // 4, conv.out_channels // 4
    assert conv.bias is not None
    for colour in range(3):
        for place in (PLUS, MINUS, HIGH, LOW):
            row, column = colour * target + place, colour * source + place
            conv.weight[row].zero_()
            conv.bias[row] = 0.0
            if average:  # diffusers pads at the right and the bottom: the 2 x 2 block is the kernel's top left
                conv.weight[row, column, :2, :2] = 0.25
            else:
                _centre(conv)[row, column] = 1.0


def _read_colours(conv: nn.Conv2d, gain: float) -> None:
    """Channels 0 to 2 into three groups, with their offsets."""
    group = conv.out_channels // 4
    assert conv.bias is not None
    for colour in range(3):
        rows = slice(colour * group, (colour + 1) * group)
        conv.weight[rows].zero_()
        conv.bias[rows].zero_()
        _centre(conv)[colour * group + PLUS, colour] = gain
        _centre(conv)[colour * group + MINUS, colour] = -gain
        conv.bias[colour * group + HIGH] = OFFSET
        conv.bias[colour * group + LOW] = -OFFSET


def _write_colours(conv: nn.Conv2d, gain: float) -> None:
    """Three groups after norm and SiLU back to channels 0 to 2."""
    group = conv.in_channels // 4
    assert conv.bias is not None
    for colour in range(3):
        conv.weight[colour].zero_()
        conv.bias[colour] = 0.0
        _centre(conv)[colour, colour * group + PLUS] = gain
        _centre(conv)[colour, colour * group + MINUS] = -gain


class Autoencoder(nn.Module):
    """A diffusers autoencoder under training.

    Args:
        vae: the autoencoder.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pictures [B, 3, H, W] in [-1, 1] and noise [B, 4, H/8, W/8] to their reconstruction and the KL divergence.

        Without noise the posterior's mean is decoded. The divergence is the mean over the latents' numbers.
        """
        posterior = self.vae.encode(image).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return self.vae.decode(latents).sample, posterior.kl().mean() / posterior.mean[0].numel()


@dataclass
class AutoencoderTask:
    """Crops of pictures, and of depth maps as grey pictures, for :func:`deixis.training.loop.train`.

    Depth maps are there because diffusion depth estimators (Marigold) put them through the same autoencoder.

    Args:
        train, val: the frames.
        shares: of the sources.
        crop: side of the crops [px].
        batch_size: crops a step.
        depth_share: how often a crop is of a depth map.
        kl: weight of the divergence.
        size: (height, width) of the pictures it is evaluated on [px].
    """

    train: Store
    val: Store
    shares: tuple[float, float, float]
    crop: int
    batch_size: int
    depth_share: float
    kl: float
    size: tuple[int, int]
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.data = self.train.fingerprint
        self.sampler = Sampler(self.train, self.shares)

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, S, S] in [-1, 1] and ``noise`` [B, 4, S/8, S/8]."""
        n, side = self.batch_size, self.crop
        rows = self.sampler(n, generator)
        height, width = self.train.size
        # From the sharpness of the stored frames to that of the pictures it is evaluated on.
        window = int(torch.randint(side, min(round(side * height / self.size[0]), height) + 1, (), generator=generator))
        tops = torch.randint(height - window + 1, (n,), generator=generator).tolist()
        lefts = torch.randint(width - window + 1, (n,), generator=generator).tolist()
        grey = (torch.rand(n, generator=generator) < self.depth_share).tolist()
        flipped = torch.rand(n, generator=generator) < 0.5
        crops = []
        for row, top, left, depth in zip(rows.tolist(), tops, lefts, grey, strict=True):
            place = (slice(None), slice(top, top + window), slice(left, left + window))
            picture = as_picture(self.train.depths[row]) if depth else self.train.images[row] / 127.5 - 1
            crops.append(picture[place])
        image = torch.stack(crops)
        if window != side:
            image = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        return {
            "image": torch.where(flipped.view(-1, 1, 1, 1), image.flip(-1), image),
            "noise": torch.randn(n, 4, side // 8, side // 8, generator=generator),
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Squared and absolute error, and the divergence."""
        image = batch["image"]
        rebuilt, divergence = model(image, batch["noise"])
        difference = rebuilt - image
        return 2 * difference.square().mean() + 0.5 * difference.abs().mean() + self.kl * divergence

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """PSNR [dB] of each source, mean chroma error as a share of the range, standard deviation of the latents."""
        found: dict[str, float] = {}
        for source in SOURCES:
            rows = self.val.rows(source)[:60]
            if len(rows):
                for size in (self.size, self.val.size):
                    values = reconstruction(model, self.val.images[rows], size)
                    found |= {f"val_{source}_{name}_{size[0]}": value for name, value in values.items()}
        return found

    @torch.inference_mode()
    def pictures(self, model: nn.Module) -> Image.Image | None:
        """A few validation pictures beside what comes back of them, two in a row."""
        training = model.training
        model.eval()
        vae: Any = model.vae
        device = next(model.parameters()).device
        height, width = (side // 8 * 8 for side in self.size)
        cells: list[Cell] = []
        for row in spread(range(len(self.val)), 2 * ROWS):
            x = F.interpolate(self.val.images[row][None].float(), size=(height, width), mode="bilinear", antialias=True)
            back = vae.decode(vae.encode(x.to(device) / 127.5 - 1).latent_dist.mean).sample
            cells += [(drawn(x / 127.5 - 1), self.val.places[row]), (drawn(back), "encoded and decoded")]
        model.train(training)
        return sheet(cells, 4) if cells else None


def as_picture(depth: Tensor) -> Tensor:
    """Depth [1, H, W] [m] to a grey picture [3, H, W] in [-1, 1], as Marigold normalises it: 2 % and 98 % quantiles."""
    depth = depth.float()
    known = depth[depth > 0]
    if not len(known):
        return depth.new_zeros(3, *depth.shape[1:])
    low, high = torch.quantile(known[:: max(1, len(known) // 4096)], torch.tensor([0.02, 0.98], device=depth.device))
    scaled = ((depth - low) / (high - low).clamp_min(1e-3)).clamp(0, 1) * 2 - 1
    return torch.where(depth > 0, scaled, 1.0).expand(3, -1, -1)


@torch.inference_mode()
def reconstruction(model: nn.Module, images: Tensor, size: tuple[int, int]) -> dict[str, float]:
    """How pictures uint8 [N, 3, h, w] come back at ``size``; what is left over of blocks of 8 x 8 is cut off.

    Returns:
        ``psnr`` [dB], the mean over pictures; ``chroma``, the mean absolute error of Cb and Cr as a share of their
        range; ``std``, of the latents.
    """
    training = model.training
    model.eval()
    vae: Any = model.vae
    device = next(model.parameters()).device
    psnrs, chromas, latents = [], [], []
    for part in images.split(20):
        x = F.interpolate(part.float(), size=size, mode="bilinear", antialias=True, align_corners=False).to(device)
        x = x[..., : size[0] // 8 * 8, : size[1] // 8 * 8] / 127.5 - 1
        z = vae.encode(x).latent_dist.mean
        y = vae.decode(z).sample.clamp(-1, 1)
        psnrs.append(10 * torch.log10(4 / (x - y).square().mean(dim=(1, 2, 3))))
        chromas.append((chroma(x) - chroma(y)).abs().mean(dim=(1, 2, 3)) / 2)
        latents.append(z)
    model.train(training)
    std = torch.cat(latents).std(dim=(0, 2, 3)).mean()
    return {"psnr": float(torch.cat(psnrs).mean()), "chroma": float(torch.cat(chromas).mean()), "std": float(std)}


def chroma(image: Tensor) -> Tensor:
    """Cb and Cr (BT.601) of pictures [B, 3, H, W] in [-1, 1] as [B, 2, H, W] in [-1, 1]."""
    r, g, b = image.unbind(dim=1)
    return torch.stack([-0.168736 * r - 0.331264 * g + 0.5 * b, 0.5 * r - 0.418688 * g - 0.081312 * b], dim=1)
