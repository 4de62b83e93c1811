"""CLIP text: words to tokens to vectors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from deixis.errors import UsageError

# What follows the end of a text: nothing, or padding up to the length that the tower reads, heard like words.
Padding = Literal["none", "max_length"]


def one_each(text: str | Collection[str | None] | None, count: int) -> list[str | None]:
    """The texts of as many pictures, given one for all or one each.

    Raises:
        UsageError: for another number of them, or for what is no text.
    """
    if text is None or isinstance(text, str):
        return [text] * count
    if not isinstance(text, Collection):
        raise no_text(text, "string, or one each")
    if len(text) != count:
        raise UsageError("text", f"has {len(text)} entries for {count} pictures", "pass one string, or one each")
    return list(text)


def no_text(given: object, wanted: str) -> UsageError:
    """The error of a text that is something else than one string."""
    is_list = isinstance(given, (list, tuple))
    problem = "is a list for one picture" if is_list else f"is of type {type(given).__name__}"
    return UsageError("text", problem, f"pass one {wanted}")


def legible(text: str) -> str:
    """A text as tokenizers take it: bytes that are no UTF-8, of a file's name or a terminal, become question marks."""
    return text.encode("utf-8", "replace").decode()


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str], tokens: int) -> Tensor:
    """Words to token ids [B, tokens], cut and padded to exactly ``tokens``.

    Padding repeats the tokenizer's padding token (CLIP: the end-of-text token) and is not masked, as in
    EVP and VPD, whose attention maps have one channel per position.

    Raises:
        UsageError: without texts.
    """
    if not texts:
        raise UsageError("texts", "is empty", "pass at least one sentence")
    batch = tokenizer(
        [legible(text) for text in texts], truncation=True, max_length=tokens, padding="max_length", return_tensors="pt"
    )
    ids: Tensor = batch["input_ids"]
    return ids


class TextTower(nn.Module):
    """A CLIP text encoder whose output is one vector per token, or one per sentence.

    Args:
        clip: the text encoder of a diffusers folder.
        frozen: whether training leaves it alone (EVP table 4, column CLIP).
    """

    def __init__(self, clip: CLIPTextModel, *, frozen: bool) -> None:
        super().__init__()
        self.clip = clip
        self.frozen = frozen
        self.requires_grad_(not frozen)

    def forward(self, token_ids: Tensor, *, pooled: bool = False) -> Tensor:
        """Token ids [B, T] to vectors [B, T, C], or [B, 1, C] (the end-of-text vector) if ``pooled``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.clip(input_ids=token_ids)
        vectors: Tensor = out.pooler_output.unsqueeze(1) if pooled else out.last_hidden_state
        return vectors


def encode_whole(
    tower: TextTower, tokenizer: CLIPTokenizer, text: str, *, padding: Padding = "none", official: bool = False
) -> tuple[Tensor, str | None]:
    """One text of any length as vectors [1, T, C], as Marigold, Lotus and E2E-FT are asked.

    The empty text is two vectors, its start and its end, or 77 with padding. A text that is longer than the tower
    reads is cut into chunks between words, each with a start and an end of its own, whose vectors follow each other.

    Args:
        tower: of the system.
        tokenizer: its vocabulary.
        text: what to say.
        padding: of each chunk; what the network has learned to read.
        official: cut what is too long, as the originals do, which do not pad either.

    Returns:
        the vectors, and what was cut off, in words; None if nothing.
    """
    limit = tower.clip.config.max_position_embeddings - 2  # between a start and an end
    ids: list[int] = tokenizer(legible(text), verbose=False)["input_ids"][1:-1]
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    dropped = None
    if official and len(ids) > limit:
        dropped = str(tokenizer.decode(ids[limit:])).strip()
        ids = ids[:limit]
    device = next(tower.parameters()).device
    parts = []
    for chunk in _chunks(ids, tokenizer.convert_ids_to_tokens(ids), limit):
        pads = 0 if official or padding == "none" else limit - len(chunk)
        parts.append(tower(torch.tensor([[start, *chunk, end, *[tokenizer.pad_token_id] * pads]], device=device)))
    return torch.cat(parts, dim=1), dropped


def words_at(
    tokenizer: CLIPTokenizer, text: str, limit: int, *, padding: Padding = "none", cut: bool = False
) -> list[tuple[str, list[int]]]:
    """The words of a text, and the places of their tokens among its vectors.

    Args:
        tokenizer: the system's vocabulary.
        text: what is said.
        limit: tokens between a start and an end.
        padding: of each chunk.
        cut: what is longer is not read; else it is read in chunks, as by :func:`encode_whole`.
    """
    ids: list[int] = tokenizer(legible(text), verbose=False)["input_ids"][1:-1]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    chunks = [ids[:limit]] if cut else _chunks(ids, tokens, limit)
    words: list[tuple[str, list[int]]] = []
    begun: list[int] = []  # indices of the tokens of the word at hand
    place, index = 0, 0
    places = []
    for chunk in chunks:
        place += 1  # the chunk's start
        for _ in chunk:
            places.append(place)
            begun.append(index)
            if tokens[index].endswith("</w>"):
                word = str(tokenizer.decode([ids[i] for i in begun])).strip()
                words.append((word, [places[i] for i in begun]))
                begun = []
            place += 1
            index += 1
        place += 1 if padding == "none" else 1 + limit - len(chunk)  # its end, and what follows
    return words


def _chunks(ids: Sequence[int], tokens: Sequence[str], limit: int) -> list[list[int]]:
    """At most ``limit`` ids each, cut where a word ends (``</w>``) where that is possible; at least one chunk."""
    found, rest = [], list(range(len(ids)))
    while len(rest) > limit:
        ends = [i for i in range(limit) if tokens[rest[i]].endswith("</w>")]
        cut = ends[-1] + 1 if ends else limit
        found.append([ids[i] for i in rest[:cut]])
        rest = rest[cut:]
    return [*found, [ids[i] for i in rest]]
