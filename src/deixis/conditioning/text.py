"""CLIP text: words to tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from deixis.errors import UsageError


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str], tokens: int) -> Tensor:
    """Words to token ids [B, tokens], cut and padded to exactly ``tokens``.

    Padding repeats the tokenizer's padding token (CLIP: the end-of-text token) and is not masked, as in
    EVP and VPD, whose attention maps have one channel per position.
    """
    if not texts:
        raise UsageError("texts", "is empty", "pass at least one sentence")
    batch = tokenizer(list(texts), truncation=True, max_length=tokens, padding="max_length", return_tensors="pt")
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
