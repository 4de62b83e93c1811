"""Standard deviation of a dataset's latents, by which EVP divides them (section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from deixis.backbones.features import ImageEncoder
from deixis.backbones.stable_diffusion import read_autoencoder
from deixis.checkpoints.folder import load_folder
from deixis.checkpoints.layout import MANIFEST
from deixis.devices import choose_device
from deixis.errors import InputError, ModelError
from deixis.io import LoadedImage, printable
from deixis.predict import to_tensor
from deixis.registry import find_parts

FILES = ("vae/*.json", "vae/*.safetensors")


def image_encoder(source: str) -> ImageEncoder:
    """The encoder of an autoencoder, in evaluation mode.

    Args:
        source: a diffusers folder, a weight folder, the name of weights that come with the package, or a hub id.

    Raises:
        ModelError: if it is none of these, or a part is missing or damaged.
    """
    folder = find_parts(source, FILES)
    if (folder / MANIFEST).is_file():
        return cast(ImageEncoder, load_folder(folder)[0].image_encoder)
    if not (folder / "vae").is_dir():
        raise ModelError(printable(folder), "has no 'vae' folder", "pass a diffusers folder or a weight folder")
    return ImageEncoder(read_autoencoder(folder / "vae")).eval()


def picture_latents(source: str, device: str | None) -> Callable[[LoadedImage, int | None], Tensor]:
    """A function from a picture, and the height it is resized to [px] or None, to its latents [1, Z, h, w].

    They are unscaled means of the posterior, as EVP divides them. Resizing keeps the aspect ratio.

    Raises:
        ModelError, UsageError: as :func:`image_encoder` and :func:`~deixis.devices.choose_device`. The function
            raises InputError for a picture without a single latent.
    """
    where = choose_device(device)
    encoder = image_encoder(source).to(where)

    @torch.inference_mode()
    def latents(picture: LoadedImage, height: int | None) -> Tensor:
        rows, columns = picture.rgb.shape[:2]
        size = (rows, columns) if height is None else (height, round(columns * height / rows))
        if min(size) < encoder.stride:
            raise InputError(
                picture.name, f"is {size[1]} x {size[0]} pixels where one latent needs {encoder.stride}", "leave it out"
            )
        return cast(Tensor, encoder(to_tensor(picture.rgb, size).to(where) * 2 - 1))

    return latents


class LatentSpread:
    """Standard deviation of latents that come picture by picture, from sums in float64.

    All values count alike, as in EVP's ``calc_stats.py`` for crops of one size; the deviation is that of the values
    there are (divided by their number, not by one less).
    """

    def __init__(self) -> None:
        self.pictures = 0
        self._count = 0
        self._sums = torch.zeros(2, 0, dtype=torch.float64)  # of values and of their squares, by channel

    def add(self, latents: Tensor) -> None:
        """Latents [1, Z, h, w] of a picture."""
        values = latents[0].detach().flatten(1).double().cpu()  # [Z, h * w]
        sums = torch.stack([values.sum(dim=1), values.square().sum(dim=1)])
        self._sums = sums if not self.pictures else self._sums + sums
        self._count += values.shape[1]
        self.pictures += 1

    @property
    def values(self) -> int:
        """How many numbers there were, over all channels."""
        return self._count * self._sums.shape[1]

    def std(self) -> float:
        """Over all values: the ``std`` of EVP (section 3.3)."""
        mean, square = (self._sums.sum(dim=1) / self.values).tolist()
        return float(square - mean**2) ** 0.5

    def channels(self) -> list[float]:
        """Of each channel."""
        mean, square = self._sums / self._count
        spread: list[float] = (square - mean.square()).sqrt().tolist()
        return spread
