"""From a photo and a sentence to affine-invariant depth: Marigold, Lotus and E2E-FT, from their diffusers folders.

The network sees the photo with its longer side at the folder's resolution; sides are padded to multiples of 8 by
repeating the border, and the padding is cut off again. ``compat="official"`` does as the originals do: sides are cut
to whole pixels, pictures are rounded to 256 levels, sides that are no multiples of 8 are stretched.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from deixis.backbones.lighten import lighten_autoencoder, lighten_unet
from deixis.checkpoints.pipelines import Pipeline, read_pipeline, save_pipeline
from deixis.conditioning.text import encode_whole, no_text, one_each
from deixis.devices import choose_device
from deixis.ensemble import Compat, ensemble_depth
from deixis.errors import UsageError, quoted
from deixis.io import DEFAULT_MAX_PIXELS, ImageSource, LoadedImage, read_image
from deixis.registry import find, is_pipeline, weights
from deixis.sharing import push
from deixis.systems.e2e_ft import E2EFT, stretched
from deixis.systems.lotus import Lotus
from deixis.systems.marigold import Marigold
from deixis.types import RGB, Depth, DepthKind, Text

# Side of a latent's cell [px].
STRIDE = 8


class RelativePredictor:
    """Photos to depth maps without metres.

    Args:
        name: name or folder it was loaded from.
        pipeline: what the folder holds.
        device: where it runs.
        folder: where it was loaded from, which may hold its card.

    Attributes:
        kind: what the maps mean.
    """

    def __init__(self, name: str, pipeline: Pipeline, device: torch.device, folder: Path | None = None) -> None:
        self.name = name
        self.folder = folder
        self.pipeline = pipeline
        self.system = pipeline.system
        self.kind: DepthKind = pipeline.kind
        self.model = pipeline.model.to(device)
        lighten_autoencoder(self.model.vae)
        lighten_unet(self.model.unet)
        # The last text and whether it was read as the originals do; its vectors and what was cut off.
        self._heard: tuple[tuple[str, bool], tuple[Tensor, str | None]] | None = None
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        self.device = device

    def __call__(
        self,
        image: ImageSource | LoadedImage | list[Any] | tuple[Any, ...],
        text: str | Sequence[str | None] | None = None,
        *,
        steps: int | None = None,
        ensemble: int = 1,
        seed: int = 0,
        resolution: int | None = None,
        compat: Compat | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Depth | list[Depth]:
        """Depth of one picture, or of each in a list.

        Args:
            image: path, PIL image, array uint8 or float [H, W, 3], tensor, or a list of these.
            text: a description of the scene, one for all or one each; none is the empty prompt.
            steps: denoising steps of Marigold; the folder's own number by default.
            ensemble: maps from as many noises, merged; for systems that draw noise.
            seed: of the noise.
            resolution: longer side at which the picture goes through the network [px]; 0 for its own.
            compat: ``official`` for the originals' resizing, ensembling and text; see the module. What it makes of a
                text that is too long is a warning.
            max_pixels: largest picture read.

        Raises:
            InputError: if a picture cannot be read.
            UsageError: for settings the system does not have, or counts that differ.
        """
        self.check(steps=steps, ensemble=ensemble, resolution=resolution)
        if compat not in (None, *get_args(Compat)):
            raise UsageError(
                f"compat {compat!r}", "is no such switch", f"choose {' or '.join(get_args(Compat))}, or leave it out"
            )
        settings: dict[str, Any] = {
            "steps": steps,
            "ensemble": ensemble,
            "seed": seed,
            "resolution": resolution,
            "compat": compat,
            "max_pixels": max_pixels,
        }
        if isinstance(image, (list, tuple)):
            texts = one_each(text, len(image))
            found = [self(one, words, **settings) for one, words in zip(image, texts, strict=True)]
            return [one for one in found if isinstance(one, Depth)]
        if text is not None and not isinstance(text, str):
            raise no_text(text, "string")
        note = self.remark(text, compat)
        if note is not None:
            warnings.warn(note, stacklevel=2)
        loaded = image if isinstance(image, LoadedImage) else read_image(image, max_pixels=max_pixels)
        began = time.perf_counter()
        with torch.inference_mode():
            values, uncertainty = self._predict(loaded.rgb, (text or "").strip(), settings)
        return Depth(
            values.float().cpu().numpy(),
            self.kind,
            Text(text or "", "user" if (text or "").strip() else "empty"),
            self.name,
            loaded.camera,
            time.perf_counter() - began,
            None if uncertainty is None else uncertainty.float().cpu().numpy(),
        )

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], device: str | None = None) -> RelativePredictor:
        """Load one by name, from a folder or by hub id; see :func:`deixis.predict.load`.

        Raises:
            ModelError: as :func:`deixis.predict.load`.
            UsageError: if it is another kind of model.
        """
        label = os.fspath(name)
        chosen = choose_device(device)
        folder = find(label)
        if not is_pipeline(folder):
            raise UsageError(label, "is not Marigold, Lotus or E2E-FT", "load it with deixis.load")
        return cls(label, read_pipeline(folder), chosen, folder)

    @property
    def licence(self) -> str:
        """Of the weights, where they are known by name; ``unknown`` otherwise."""
        return next((weight.licence for weight in weights() if weight.name == self.name), "unknown")

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the whole pipeline as a diffusers folder, with its card.

        See :func:`deixis.checkpoints.pipelines.save_pipeline`; it gives the same output to the bit.

        Raises:
            CheckpointError: if ``folder`` is in the way or cannot be written.
        """
        save_pipeline(Path(folder), self.pipeline, self.folder)

    def push_to_hub(
        self, hub_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None
    ) -> str:
        """Upload the whole pipeline with its card to the model hub; see :func:`deixis.sharing.push`."""
        return push(self, hub_id, private=private, revision=revision, token=token)

    def check(self, *, steps: int | None, ensemble: int, resolution: int | None) -> None:
        """Whether the system has these settings.

        Raises:
            UsageError: if not.
        """
        if steps is not None and steps < 1:
            raise UsageError(f"steps {steps}", "is no number of steps", "choose 1 or more")
        if steps not in (None, 1) and not isinstance(self.model, Marigold):
            raise UsageError(f"steps {steps}", f"{self.name} gives its depth in one step", "leave steps out")
        if steps is not None and isinstance(self.model, Marigold):
            try:
                self.model.scheduler.set_timesteps(steps)
            except ValueError as error:  # LCM has fewer than its schedule
                raise UsageError(f"steps {steps}", f"are more than {self.name} has", "choose fewer") from error
        if ensemble < 1:
            raise UsageError(f"ensemble {ensemble}", "is no number of maps", "choose 1 or more")
        if ensemble > 1 and not self.draws_noise:
            raise UsageError(f"ensemble {ensemble}", f"{self.name} draws no noise: all maps are one", "leave it out")
        if resolution is not None and resolution and resolution < 2 * STRIDE:
            raise UsageError(f"resolution {resolution}", "is too small", f"choose {2 * STRIDE} or more, or 0")

    @property
    def draws_noise(self) -> bool:
        """Whether another seed gives another map."""
        return isinstance(self.model, Marigold) or (isinstance(self.model, Lotus) and self.model.generative)

    def remark(self, text: str | None, compat: Compat | None = None) -> str | None:
        """What a user should know about how a text is read, None if nothing."""
        if not text:
            return None
        _, dropped = self._read(text.strip(), official=compat == "official")
        if dropped is None:
            return None
        return f"{self.name} ignores the end of a long text as its original does: {quoted(dropped)}"

    def _predict(self, rgb: RGB, text: str, settings: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Maps [H, W] of a picture uint8 [H, W, 3]: depth, and uncertainty where there is an ensemble."""
        official = settings["compat"] == "official"
        resolution = settings["resolution"]
        if resolution is None:
            resolution = self.model.config.resolution
        height, width = rgb.shape[:2]
        working = processing_size(height, width, resolution, official=official)
        picture = self.prepare(rgb, working, official=official).to(self.device)
        vectors, _ = self._read(text, official=official)
        generator = torch.Generator().manual_seed(settings["seed"])
        shape = (1, 4, picture.shape[-2] // STRIDE, picture.shape[-1] // STRIDE)
        maps = []
        for _ in range(settings["ensemble"]):
            noise = torch.randn(shape, generator=generator).to(self.device)
            depth = self._once(picture, vectors, noise, settings["steps"], generator, official=official)
            depth = depth if official else depth[..., : working[0], : working[1]]
            maps.append(stretched(depth) if isinstance(self.model, E2EFT) else depth)
        uncertainty = None
        merged = maps[0]
        if len(maps) > 1:
            config = self.model.config
            merged, uncertainty = ensemble_depth(
                torch.cat(maps),
                scale_invariant=getattr(config, "scale_invariant", True),
                shift_invariant=getattr(config, "shift_invariant", True),
                compat=settings["compat"],
            )
        return self.enlarge(merged, (height, width), official=official)[0, 0].clamp(0, 1), (
            None if uncertainty is None else self.enlarge(uncertainty, (height, width), official=official)[0, 0]
        )

    def _read(self, text: str, *, official: bool) -> tuple[Tensor, str | None]:
        """As :func:`encode_whole`, once for many pictures that are asked the same one after the other."""
        key = (text, official)
        if self._heard is None or self._heard[0] != key:
            tower = self.model.text_tower
            assert tower is not None
            with torch.inference_mode():
                read = encode_whole(tower, self.tokenizer, text, padding=self.pipeline.padding, official=official)
            self._heard = (key, read)
        return self._heard[1]

    def _once(
        self,
        picture: Tensor,
        vectors: Tensor,
        noise: Tensor,
        steps: int | None,
        generator: torch.Generator,
        *,
        official: bool,
    ) -> Tensor:
        if isinstance(self.model, Marigold):
            depth: Tensor = self.model(picture, vectors, noise, steps, generator)
        elif isinstance(self.model, E2EFT):
            depth = self.model(picture, vectors)
        else:
            sample = torch.randn(noise.shape, generator=generator).to(self.device) if official else None
            depth = self.model(picture, vectors, noise, sample=sample)
        return depth

    def prepare(self, rgb: RGB, size: tuple[int, int], *, official: bool) -> Tensor:
        """A picture uint8 [H, W, 3] as [1, 3, h, w] in [-1, 1], of ``size`` and padded to multiples of 8."""
        x = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float()
        if size != tuple(x.shape[-2:]):
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
            if official and not isinstance(self.model, Lotus):  # Lotus resizes floating-point pictures
                x = x.round()
        x = x.clamp(0, 255) / 127.5 - 1
        if official:
            return x
        return F.pad(x, (0, -x.shape[-1] % STRIDE, 0, -x.shape[-2] % STRIDE), mode="replicate")

    def enlarge(self, depth: Tensor, size: tuple[int, int], *, official: bool) -> Tensor:
        """A map [1, 1, h, w] to ``size``."""
        if official and isinstance(self.model, Lotus):
            return F.interpolate(depth, size=size, mode="nearest-exact")
        return F.interpolate(depth, size=size, mode="bilinear", antialias=True, align_corners=False)


def processing_size(height: int, width: int, resolution: int, *, official: bool = False) -> tuple[int, int]:
    """(height, width) at which a picture goes through the network, its longer side ``resolution`` [px].

    Smaller pictures are enlarged. The originals cut to whole pixels, and floating-point numbers being what they are,
    22 x 480 / 22 is 479; here sizes are rounded.

    Args:
        height: of the picture [px].
        width: of the picture [px].
        resolution: longer side; 0 leaves the picture as it is.
        official: cut, as the originals.
    """
    if not resolution:
        return height, width
    scale = min(resolution / width, resolution / height)
    if official:
        return int(height * scale), int(width * scale)
    return max(1, round(height * scale)), max(1, round(width * scale))
