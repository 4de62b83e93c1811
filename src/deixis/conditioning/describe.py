"""Descriptions of the scene as text vectors (EVP section 3.4).

A description is what the user says, one of the classes a model was trained with, an embedding averaged over a
dataset, or nothing; which of these a model takes follows from its switches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Protocol

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from deixis.conditioning.text import TextTower, legible, tokenize
from deixis.errors import UsageError, quoted
from deixis.types import Text

_STORED = json.loads(resources.files("deixis.conditioning").joinpath("templates.json").read_text(encoding="utf-8"))
TEMPLATES: tuple[str, ...] = tuple(_STORED["templates"])
# The NYU Depth v2 scene classes in the order of VPD's class embeddings.
NYU_SCENES: tuple[str, ...] = tuple(_STORED["nyu_scenes"])


class Encode(Protocol):
    """Sentences to vectors."""

    def __call__(self, texts: Sequence[str], *, pooled: bool = False) -> Tensor:
        """[B, T, C], or [B, 1, C] if ``pooled``."""
        ...


def encoder(tower: TextTower, tokenizer: CLIPTokenizer, tokens: int) -> Encode:
    """Sentences to vectors with a model's own text tower and vocabulary."""

    @torch.no_grad()
    def encode(texts: Sequence[str], *, pooled: bool = False) -> Tensor:
        device = next(tower.parameters()).device
        vectors: Tensor = tower(tokenize(tokenizer, texts, tokens).to(device), pooled=pooled)
        return vectors

    return encode


def unread(text: str, tokenizer: CLIPTokenizer, tokens: int) -> str | None:
    """The end of a text that is cut off where it has more than ``tokens`` tokens; None if all of it is read."""
    ids = tokenizer(legible(text), verbose=False)["input_ids"]  # between a token for the start and one for the end
    return None if len(ids) <= tokens else str(tokenizer.decode(ids[tokens - 1 : -1])).strip()


def class_words(name: str) -> str:
    """A class name as words: ``living_room`` to ``living room``."""
    return name.replace("_", " ").strip().lower()


def class_description(name: str, encode: Encode) -> Tensor:
    """Mean pooled embedding of a class name in CLIP's 80 templates, [1, 1, C] (VPD; ``cd`` rows of EVP table 4)."""
    return encode([template.format(class_words(name)) for template in TEMPLATES], pooled=True).mean(dim=0, keepdim=True)


def aggregate(sentences: Sequence[str], encode: Encode, *, pooled: bool = False, batch: int = 64) -> Tensor:
    """Mean embedding over a dataset's descriptions: [1, T, C] (``d``), or [1, 1, C] if ``pooled`` (``vd``).

    ``p1(C | S) = 1 / |S| sum_s p1(C | s)`` (EVP section 3.4).

    Raises:
        UsageError: without a sentence.
    """
    if not sentences:
        raise UsageError("sentences", "is empty", "pass at least one description")
    total: Tensor | None = None
    for start in range(0, len(sentences), batch):
        part = encode(sentences[start : start + batch], pooled=pooled).double().sum(dim=0, keepdim=True)
        total = part if total is None else total + part
    assert total is not None
    return (total / len(sentences)).float()


class Describer:
    """Turns what a user says, or does not say, into the vectors a depth model attends to.

    Args:
        model: name for messages.
        stored: provenance of each stored embedding (``aggregate:nyuv2``, ``class:kitchen``).
        vectors: stored embeddings [N, T, C], None where there are none.
        encode: the model's own text tower, None if it has none or no vocabulary.
        aggregate: how text is aggregated: ``v``, ``d``, ``vd`` or ``i`` (EVP table 4).
        text: ``cd`` class descriptions or ``id`` image descriptions.
        why_no_encode: what is missing where ``encode`` is None, as (problem, remedy).
    """

    def __init__(
        self,
        model: str,
        stored: Sequence[str],
        vectors: Tensor | None,
        encode: Encode | None,
        *,
        aggregate: str,
        text: str,
        why_no_encode: tuple[str, str],
    ) -> None:
        self.model = model
        self.stored = list(stored)
        self.vectors = vectors
        self.encode = encode
        self.aggregate = aggregate
        self.text = text
        self.why_no_encode = why_no_encode

    def __call__(self, description: str | None) -> tuple[Tensor, Text]:
        """Vectors [1, T, C] and their provenance for a description, or for none.

        Without a description: the stored dataset embedding; else the mean of the stored classes; else the
        empty prompt. With one: the stored class of that name; else the model's own text tower.

        Raises:
            UsageError: if the model cannot take free text, or needs some.
        """
        if description is None:
            return self._default()
        if not description.strip():
            return self._encode("", "empty")
        wanted = class_words(description.removeprefix("class:"))
        for i, name in enumerate(self.stored):
            if name.startswith("class:") and class_words(name.removeprefix("class:")) == wanted:
                assert self.vectors is not None
                return self.vectors[i : i + 1], Text(description, name)
        if self.encode is None and any(name.startswith("class:") for name in self.stored):
            classes = ", ".join(class_words(name.removeprefix("class:")) for name in self.stored)
            raise UsageError(
                f"text {quoted(description)}", f"{self.model} knows only its classes", f"use one of: {classes}"
            )
        return self._encode(description, "user")

    def _default(self) -> tuple[Tensor, Text]:
        for i, name in enumerate(self.stored):
            if name.startswith("aggregate:"):
                assert self.vectors is not None
                return self.vectors[i : i + 1], Text("", name)
        if self.vectors is not None:
            return self.vectors.mean(dim=0, keepdim=True), Text("", "aggregate:classes")
        return self._encode("", "empty")

    def _encode(self, description: str, provenance: str) -> tuple[Tensor, Text]:
        if self.encode is None:
            problem, remedy = self.why_no_encode
            raise UsageError(f"text {quoted(description)}", f"{self.model} {problem}", remedy)
        if self.text == "cd" and description:
            return class_description(description, self.encode), Text(description, f"class:{description}")
        pooled = self.aggregate in ("v", "vd")
        return self.encode([description], pooled=pooled), Text(description, provenance)
