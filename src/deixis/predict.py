"""From a photo and a sentence to :class:`~deixis.types.Depth` or :class:`~deixis.types.Mask`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis import tta as augment
from deixis.checkpoints.folder import Manifest, Preprocessing, load_folder, read_manifest, save_whole
from deixis.checkpoints.layout import MANIFEST
from deixis.checkpoints.pipelines import read_pipeline
from deixis.conditioning.describe import Describer, Encode, encoder, unread
from deixis.conditioning.text import no_text, one_each
from deixis.devices import choose_device
from deixis.errors import ModelError, UsageError, quoted
from deixis.io import DEFAULT_MAX_PIXELS, ImageSource, LoadedImage, read_image
from deixis.registry import SYSTEMS, Task, find, is_pipeline
from deixis.relative import RelativePredictor
from deixis.sharing import push
from deixis.types import RGB, TTA, Depth, DepthKind, FloatMap, Mask, Text

# No side of a working picture is smaller than this [px]; thinner pictures are stretched to it.
MIN_SIDE = 64
# Memory of one forward pass of a full Stable Diffusion per working pixel, measured at 480 x 640 [bytes].
BYTES_PER_PIXEL = 6000
# Share of the pixels whose probabilities say whether a thing is there.
SUREST = 0.01


def working_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """(height, width) at which a picture of that size goes through the network [px].

    ``fit`` keeps the aspect ratio and takes the area of the training pictures, so that things appear about as
    large as in training; pictures so thin that a side would fall under :data:`MIN_SIDE` are stretched.
    """
    target_height, target_width = preprocessing.size
    if preprocessing.resize == "stretch":
        return target_height, target_width
    area = target_height * target_width
    scale = (area / (height * width)) ** 0.5
    longest = max(area // MIN_SIDE, MIN_SIDE)

    def side(pixels: int) -> int:
        return min(max(round(pixels * scale), MIN_SIDE), longest)

    return side(height), side(width)


def to_tensor(rgb: RGB, size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3] to float32 [1, 3, *size] in [0, 1], with antialiasing where it shrinks."""
    if rgb.shape[:2] != size:
        picture = Image.fromarray(rgb)
        rgb = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=3.0))
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255


class _Predictor:
    """A network with what is needed around it.

    Attributes:
        name: name or folder it was loaded from.
        folder: where its weights lie.
        manifest: switches, preprocessing, licence.
        model: the network, in evaluation mode.
    """

    def __init__(
        self, name: str, folder: Path, model: nn.Module, manifest: Manifest, tokenizer: CLIPTokenizer | None
    ) -> None:
        self.name = name
        self.folder = folder
        self.model = model
        self.manifest = manifest
        self.device = next(model.parameters()).device
        self.tokenizer = tokenizer
        tower: Any = model.text_tower
        self.encode: Encode | None = None
        self.why_no_encode = (
            "has no text tower",
            "leave the text out, or use weights trained with image-specific text",
        )
        if tower is not None and tokenizer is not None:
            config: Any = model.config
            # VPD depth pools its text: as many tokens as its text tower takes.
            self.tokens: int = getattr(config, "tokens", tower.clip.config.max_position_embeddings)
            self.encode = encoder(tower, tokenizer, self.tokens)
        elif tower is not None:
            self.why_no_encode = (
                "has no vocabulary",
                f"copy the tokenizer folder of openai/clip-vit-large-patch14 to {name}/tokenizer",
            )
        elif manifest.system == "vpd-refer":
            self.why_no_encode = (
                "keeps its text tower outside the checkpoint",
                "convert it again with --clip FOLDER (text_encoder and tokenizer of openai/clip-vit-large-patch14)",
            )

    def remark(self, text: str | None) -> str | None:
        """What a user should know about how a text is read: that it is too long, None if nothing."""
        if not text or self.encode is None or self.tokenizer is None:
            return None
        rest = unread(text, self.tokenizer, self.tokens)
        if rest is None:
            return None
        return f"{self.name} reads {self.tokens - 2} tokens of text; what follows is ignored: {quoted(rest)}"

    @property
    def system(self) -> str:
        """The method."""
        return self.manifest.system

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.manifest.licence

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a folder that needs no other, with its card; it appears whole or not at all.

        See :func:`deixis.checkpoints.folder.save_whole`; it gives the same output to the bit.

        Raises:
            CheckpointError: if ``folder`` is in the way or cannot be written.
            ModelError: if the folder that the model came from was damaged since.
        """
        save_whole(Path(folder), self.folder, self.manifest, self.model, self.tokenizer)

    def push_to_hub(
        self, hub_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None
    ) -> str:
        """Upload the model with its card to the model hub; see :func:`deixis.sharing.push`."""
        return push(self, hub_id, private=private, revision=revision, token=token)

    def _read(self, image: ImageSource | LoadedImage, max_pixels: int) -> LoadedImage:
        return image if isinstance(image, LoadedImage) else read_image(image, max_pixels=max_pixels)


class DepthPredictor(_Predictor):
    """Photos to depth maps.

    Attributes:
        kind: what the maps mean.
    """

    def __init__(
        self, name: str, folder: Path, model: nn.Module, manifest: Manifest, tokenizer: CLIPTokenizer | None
    ) -> None:
        super().__init__(name, folder, model, manifest, tokenizer)
        kind = SYSTEMS[manifest.system].kind
        assert kind is not None
        self.kind: DepthKind = kind
        config: Any = model.config
        self.describe = Describer(
            name,
            config.stored,
            getattr(model, "stored_text", None),
            self.encode,
            aggregate=getattr(config, "aggregate", "v"),
            text=getattr(config, "text", "cd"),
            why_no_encode=self.why_no_encode,
        )

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], device: str | None = None) -> DepthPredictor:
        """The same as :func:`load_metric`."""
        return load_metric(name, device)

    @overload
    def __call__(
        self,
        image: ImageSource | LoadedImage,
        text: str | None = ...,
        *,
        tta: TTA = ...,
        max_pixels: int = ...,
    ) -> Depth: ...

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        text: str | Sequence[str | None] | None = ...,
        *,
        tta: TTA = ...,
        max_pixels: int = ...,
    ) -> list[Depth]: ...

    def __call__(
        self,
        image: ImageSource | LoadedImage | list[Any] | tuple[Any, ...],
        text: str | Sequence[str | None] | None = None,
        *,
        tta: TTA = "none",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Depth | list[Depth]:
        """Depth of one picture, or of each in a list.

        Args:
            image: path, PIL image, array uint8 or float [H, W, 3], tensor, or a list of these.
            text: a description of the scene, one for all or one each; None lets the model use its own default.
            tta: ``none``: one pass over the whole frame; ``flip``: the mean with the mirrored picture's;
                ``windows``: the papers' protocol, square windows along the longer side, mirrored ones too.
            max_pixels: largest picture read.

        Raises:
            InputError: if a picture cannot be read.
            UsageError: for text the model cannot take, another ``tta``, or counts that differ.
        """
        if tta not in get_args(TTA):
            raise UsageError(f"tta '{tta}'", "is not known", f"use one of {', '.join(get_args(TTA))}")
        if isinstance(image, (list, tuple)):
            texts = one_each(text, len(image))
            return [self(one, words, tta=tta, max_pixels=max_pixels) for one, words in zip(image, texts, strict=True)]
        if text is not None and not isinstance(text, str):
            raise no_text(text, "string")
        loaded = self._read(image, max_pixels)
        vectors, said = self.describe(text)
        height, width = loaded.rgb.shape[:2]
        began = time.perf_counter()
        with torch.inference_mode():
            picture = to_tensor(loaded.rgb, working_size(height, width, self.manifest.preprocessing)).to(self.device)
            vectors = vectors.to(self.device)

            def forward(batch: Tensor) -> Tensor:
                depth: Tensor = self.model(batch, vectors.expand(len(batch), -1, -1))
                return depth

            if tta == "none":
                depth = forward(picture)
            else:
                windows = self.manifest.preprocessing.windows if tta == "windows" else 0
                depth = augment.predict(
                    forward, picture, windows=windows, flip=True, max_batch=_batch_that_fits(picture)
                )
            depth = F.interpolate(depth, size=(height, width), mode="bilinear", align_corners=False)
        values = depth[0, 0].float().cpu().numpy()
        return Depth(values, self.kind, said, self.name, loaded.camera, time.perf_counter() - began)


class MaskPredictor(_Predictor):
    """Photos and expressions to masks.

    Attributes:
        kind: ``mask``.
    """

    kind = "mask"

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], device: str | None = None) -> MaskPredictor:
        """The same as :func:`load_mask`."""
        return load_mask(name, device)

    @overload
    def __call__(
        self,
        image: ImageSource | LoadedImage,
        text: str,
        *,
        size: tuple[int, int] | None = ...,
        max_pixels: int = ...,
    ) -> Mask: ...

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        text: str | Sequence[str],
        *,
        size: tuple[int, int] | None = ...,
        max_pixels: int = ...,
    ) -> list[Mask]: ...

    def __call__(
        self,
        image: ImageSource | LoadedImage | list[Any] | tuple[Any, ...],
        text: str | Sequence[str],
        *,
        size: tuple[int, int] | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Mask | list[Mask]:
        """What an expression refers to in one picture, or in each of a list.

        Args:
            image: as for depth.
            text: the expression, one for all or one each.
            size: height and width of the mask, the picture's own by default [px].
            max_pixels: largest picture read.

        Raises:
            InputError: if a picture cannot be read.
            UsageError: for an empty expression, a model without text, or counts that differ.
        """
        if isinstance(image, (list, tuple)):
            texts = one_each(text, len(image))
            return [
                self(one, words or "", size=size, max_pixels=max_pixels)
                for one, words in zip(image, texts, strict=True)
            ]
        if text is None:
            raise UsageError("expression", "is missing", "say what to look for, for example 'the red chair'")
        if not isinstance(text, str):
            raise no_text(text, "expression")
        if not text.strip():
            raise UsageError("expression", "is empty", "say what to look for, for example 'the red chair'")
        if self.encode is None:
            problem, remedy = self.why_no_encode
            raise UsageError(f"expression {quoted(text)}", f"{self.name} {problem}", remedy)
        loaded = self._read(image, max_pixels)
        height, width = loaded.rgb.shape[:2]
        began = time.perf_counter()
        with torch.inference_mode():
            picture = to_tensor(loaded.rgb, working_size(height, width, self.manifest.preprocessing)).to(self.device)
            logits = self.model(picture, self.encode([text]))
            margin = logits[:, 1:] - logits[:, :1]  # [1, 1, h, w]; positive where the object is likelier
            margin = F.interpolate(margin, size=size or (height, width), mode="bilinear", align_corners=False)
            probability = margin[0, 0].float().sigmoid().cpu().numpy()
        mask = probability > self.manifest.mask_threshold
        score = surest(probability)
        found = bool(mask.any()) and score >= self.manifest.threshold
        mask &= found
        seconds = time.perf_counter() - began
        return Mask(mask, probability, score, found, Text(text, "user"), self.name, seconds)


def surest(probability: FloatMap) -> float:
    """How sure a mask's network is that what it was asked for is there: the mean of the highest 1 % of probabilities.

    On validation frames of the world it tells absent things from present ones better than their peak, or their mean
    inside the mask: at 5 % of what is there called absent, 78 % of what is not there are in rooms, against 72 and 73 %,
    and 96 % on roads, against 92 and 92 %.

    Args:
        probability: of each pixel [H, W].
    """
    count = max(1, round(SUREST * probability.size))
    return float(np.partition(probability, -count, axis=None)[-count:].mean())


Predictor = DepthPredictor | MaskPredictor | RelativePredictor


def load(name: str | os.PathLike[str], device: str | None = None) -> Predictor:
    """Load a model by name or from a weight folder.

    Args:
        name: a name ``deixis models`` lists, the path of a folder, or a hub id (``owner/name``).
        device: where it runs; a GPU if there is one, else the CPU.

    Raises:
        ModelError: if there is no such model, or its folder is incomplete or damaged.
        UsageError: for an unknown device.
    """
    return _load(name, device)


def load_depth(name: str | os.PathLike[str], device: str | None = None) -> DepthPredictor | RelativePredictor:
    """Like :func:`load`, for a depth model.

    Raises:
        UsageError: if it is not one.
    """
    predictor = _load(name, device, "depth")
    assert not isinstance(predictor, MaskPredictor)
    return predictor


def load_metric(name: str | os.PathLike[str], device: str | None = None) -> DepthPredictor:
    """Like :func:`load`, for a model of metric depth.

    Raises:
        UsageError: if it is not one.
    """
    predictor = load_depth(name, device)
    if not isinstance(predictor, DepthPredictor):
        raise UsageError(
            os.fspath(name), f"gives {predictor.kind} depth, which has no metres", "use one such as evp-depth-mini"
        )
    return predictor


def load_mask(name: str | os.PathLike[str], device: str | None = None) -> MaskPredictor:
    """Like :func:`load`, for a referring segmentation model.

    Raises:
        UsageError: if it is not one.
    """
    predictor = _load(name, device, "refer")
    assert isinstance(predictor, MaskPredictor)
    return predictor


def _load(name: str | os.PathLike[str], device: str | None, task: Task | None = None) -> Predictor:
    """The model, if it is of the ``task``; whatever is wrong is found before gigabytes are read, if it can be."""
    label = os.fspath(name)
    chosen = choose_device(device)
    folder = find(label)
    if is_pipeline(folder):
        if task == "refer":
            raise UsageError(label, "gives depth, not masks", "use one such as evp-refer-mini")
        return RelativePredictor(label, read_pipeline(folder), chosen, folder)
    manifest = read_manifest(folder)
    _check_preprocessing(folder / MANIFEST, manifest)
    system = SYSTEMS.get(manifest.system)
    if task is not None and system is not None and system.task != task:
        if task == "depth":
            raise UsageError(label, "gives masks, not depth", "use one such as evp-depth-mini")
        raise UsageError(label, "gives depth, not masks", "use one such as evp-refer-mini")
    model, manifest, tokenizer = load_folder(folder)
    of_task = DepthPredictor if SYSTEMS[manifest.system].task == "depth" else MaskPredictor
    return of_task(label, folder, model.to(chosen), manifest, tokenizer)


def _check_preprocessing(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest whose pictures could not be prepared."""
    given: Any = manifest.preprocessing  # it comes from a file, so its types are a hope
    wrong = {
        "preprocessing.size": (given.size, all(isinstance(side, int) and side > 0 for side in given.size)),
        "preprocessing.resize": (given.resize, given.resize in ("fit", "stretch")),
        "preprocessing.windows": (given.windows, isinstance(given.windows, int) and given.windows >= 0),
        "threshold": (manifest.threshold, isinstance(manifest.threshold, (int, float))),
        "mask_threshold": (manifest.mask_threshold, isinstance(manifest.mask_threshold, (int, float))),
    }
    for name, (value, is_right) in wrong.items():
        if not is_right:
            raise ModelError(path, f"says {name} {value!r}", "copy or convert the weights again")


def _batch_that_fits(picture: Tensor) -> int:
    """How many such pictures one forward pass may hold in half of the free memory, at least 1, at most 8."""
    if picture.is_cuda:
        free = torch.cuda.mem_get_info(picture.device)[0]
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        free = 4 * 2**30
    need = picture.shape[-2] * picture.shape[-1] * BYTES_PER_PIXEL
    return max(1, min(8, free // 2 // need))
