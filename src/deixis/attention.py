"""Which pixels look at which word: cross-attention of a depth system's U-Net, as pictures.

The probabilities with which each pixel attends to each token are averaged over heads and over all layers with
cross-attention, enlarged to the picture, and averaged over a word's tokens (as in DAAM, Tang et al., ACL 2023). For
Marigold they are those of the last denoising step. They show where a word was looked up, not what it did to the depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from deixis.backbones.features import UNetFeatures, attended
from deixis.conditioning.text import words_at
from deixis.errors import UsageError, quoted
from deixis.io import ImageSource, LoadedImage, read_image
from deixis.predict import DepthPredictor
from deixis.relative import RelativePredictor
from deixis.types import Depth, FloatMap


class _Listener:
    """Does what the processor it stands for does, and notes the probabilities of the last call."""

    def __init__(self, processor: Any) -> None:  # noqa: ANN401 - processors share no type
        self.processor = processor
        self.grid = (0, 0)
        self.map: Tensor | None = None  # [B, N, T]

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
    ) -> Tensor:
        self.map = attended(attn, hidden_states, encoder_hidden_states).mean(dim=1)
        out: Tensor = self.processor(attn, hidden_states, encoder_hidden_states, attention_mask)
        return out

    def picture(self) -> Tensor:
        """[B, T, h, w]."""
        assert self.map is not None
        return self.map.transpose(1, 2).unflatten(-1, self.grid).float()


@contextmanager
def _listening(unet: nn.Module) -> Iterator[list[_Listener]]:
    """Listeners at every cross-attention of a U-Net, for as long as the context lasts."""
    layers: list[Any] = []
    listeners: list[_Listener] = []
    hooks = []
    for module in unet.modules():
        if not isinstance(module, Transformer2DModel):
            continue
        own = [_Listener(block.attn2.processor) for block in module.transformer_blocks]
        layers += [block.attn2 for block in module.transformer_blocks]
        listeners += own
        # Inside a transformer pixels are a list; only its input knows their rows and columns.
        hooks.append(module.register_forward_pre_hook(partial(_note_grid, own)))
    for layer, listener in zip(layers, listeners, strict=True):
        layer.processor = listener
    try:
        yield listeners
    finally:
        for layer, listener in zip(layers, listeners, strict=True):
            layer.processor = listener.processor
        for hook in hooks:
            hook.remove()


def _note_grid(listeners: list[_Listener], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    del module
    for listener in listeners:
        listener.grid = (inputs[0].shape[-2], inputs[0].shape[-1])


def depth_with_words(
    predictor: DepthPredictor | RelativePredictor,
    image: ImageSource | LoadedImage,
    text: str,
    **settings: Any,  # noqa: ANN401 - those of the predictor
) -> tuple[Depth, list[tuple[str, FloatMap]]]:
    """Depth, to the bit as it is without looking, and how it read its text.

    Args:
        predictor: a depth model that reads words, not one vector for all of them.
        image: the picture.
        text: what is said about it.
        settings: passed to the predictor (``steps``, ``seed``, ``max_pixels``).

    Returns:
        the depth; and for each word float32 [H, W], the share of attention that each pixel gives it.

    Raises:
        UsageError: if the text is empty, or the model sees it as one vector.
        InputError: if the picture cannot be read.
    """
    if not text.strip():
        raise UsageError("text", "is empty", "say something about the scene")
    loaded = image if isinstance(image, LoadedImage) else read_image(image)
    words = _words(predictor, text)
    if words is None:
        raise UsageError(
            f"text {quoted(text)}",
            f"is one vector to {predictor.name}, which looks at no single word",
            "use a model with individual text, such as evp-depth-mini",
        )
    model: Any = predictor.model
    unet = model.unet.unet if isinstance(model.unet, UNetFeatures) else model.unet
    with _listening(unet) as listeners:
        depth = predictor(loaded, text, **settings)
    assert isinstance(depth, Depth)  # of one picture
    finest = max((listener.grid for listener in listeners), key=math.prod)
    # Windows and mirrored pictures would be further members of a batch; the first is the whole picture.
    enlarged = [F.interpolate(one.picture()[:1], size=finest, mode="bilinear") for one in listeners]
    mean = torch.cat(enlarged).mean(dim=0)  # [T, h, w]
    height, width = loaded.rgb.shape[:2]
    found = []
    for word, positions in words:
        small = mean[positions].mean(dim=0)[None, None]
        large = F.interpolate(small, size=(height, width), mode="bilinear")
        found.append((word, large[0, 0].cpu().numpy()))
    return depth, found


def reads_words(predictor: DepthPredictor | RelativePredictor, text: str) -> bool:
    """Whether the model sees a text word by word, not as one vector."""
    return _words(predictor, text) is not None


def _words(predictor: DepthPredictor | RelativePredictor, text: str) -> list[tuple[str, list[int]]] | None:
    """Words, and where their tokens stand among the text vectors; None where there is one vector for all."""
    if isinstance(predictor, RelativePredictor):
        tower = predictor.model.text_tower
        assert tower is not None
        limit = tower.clip.config.max_position_embeddings - 2
        return words_at(predictor.tokenizer, text, limit, padding=predictor.pipeline.padding)
    vectors, said = predictor.describe(text)
    if vectors.shape[1] == 1 or said.provenance != "user" or predictor.tokenizer is None:
        return None
    return words_at(predictor.tokenizer, text, predictor.tokens - 2, cut=True)
