"""Weight folders of toy networks: real systems that load and run in a moment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.checkpoints.folder import Manifest, Preprocessing, network, save_folder, split
from deixis.training.tokenizer import train_tokenizer
from tests.tiny import CONFIG, VOCABULARY

WORDS = ["a photo of a red chair", "the blue lamp on the left", "a small bedroom with a bed and a window"]
SMALL_DEPTH = {"max_depth": 10.0, "width": 16, "filters": [8, 8, 8]}
SMALL_BINS = {"num_bins": 16, "bin_width": 8, "bottleneck": 16, "aggregate": "i", "tokens": 12}
SIZE = (96, 128)


def write_weights(
    folder: Path,
    system: str,
    *,
    text_tower: bool = True,
    tokenizer: bool = True,
    stored: Sequence[str] = (),
    threshold: float = 0.0,
    lean: float = 0.0,
    resize: Any = "fit",
    **config: Any,
) -> Path:
    """Save a random network of a system as ``deixis convert`` and ``deixis train`` do.

    Args:
        folder: where.
        system: ``evp-depth``, ``evp-refer``, ``vpd-depth`` or ``vpd-refer``.
        text_tower: whether it has one.
        tokenizer: whether its vocabulary lies there.
        stored: names of stored text embeddings, which are random.
        threshold: score below which nothing is found.
        lean: added to the logit of "object" of a mask decoder.
        resize: ``fit`` or ``stretch``.
        config: switches besides the small sizes.
    """
    switches: dict[str, Any] = {"evp-refer": {"tokens": 12}, "vpd-refer": {"tokens": 12}}.get(system, SMALL_DEPTH)
    if system == "evp-depth":
        switches = {**switches, **SMALL_BINS}
    if stored:
        switches = {**switches, "stored": list(stored)}
    vocabulary = train_tokenizer(WORDS * 20, VOCABULARY, folder.parent / f"{folder.name}-tokenizer")
    architecture = copy.deepcopy(CONFIG)
    architecture["text_encoder"] |= {
        "bos_token_id": vocabulary.bos_token_id,
        "eos_token_id": vocabulary.eos_token_id,
        "pad_token_id": vocabulary.eos_token_id,
    }
    if not text_tower:
        del architecture["text_encoder"]
    manifest = Manifest(
        system=system,
        config={**switches, **config},
        preprocessing=Preprocessing(SIZE, resize),
        licence="none",
        architecture=architecture,
        source="tests",
        threshold=threshold,
    )
    torch.manual_seed(3)
    model = network(manifest, StableDiffusion.from_config(architecture)).eval()
    parts: Any = model
    if stored:
        torch.nn.init.normal_(parts.stored_text)
    if system.endswith("refer"):
        # So that a mask has an edge: the logits of a random network hardly move.
        with torch.no_grad():
            parts.decoder.classify.weight.mul_(300)
            parts.decoder.classify.bias.zero_()
            parts.decoder.classify.bias[1] += lean
    save_folder(folder, manifest, split(model.state_dict()), vocabulary if tokenizer else None)
    return folder
