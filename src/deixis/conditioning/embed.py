"""CLIP embeddings of a dataset's captions, single and averaged, as a file that training and conversion read.

What a file may hold is called as the switch ``aggregate`` of EVP (table 4, column Reg), for N captions of T tokens:

* ``i`` [N, T, C]: the vectors of each caption;
* ``v`` [N, 1, C]: one vector of each caption, that of its end-of-text token;
* ``d`` [1, T, C]: the mean of ``i`` over the dataset (the equation of EVP section 3.4);
* ``vd`` [1, 1, C]: the mean of ``v``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import TOKENIZER_FILES, read_text_encoder, read_tokenizer
from deixis.backbones.weights import tensors_sha256
from deixis.checkpoints.folder import load_folder
from deixis.checkpoints.layout import MANIFEST
from deixis.conditioning.text import TextTower, tokenize
from deixis.data.captions import count_captions, iterate_captions
from deixis.devices import choose_device
from deixis.errors import InputError, ModelError, UsageError, quoted
from deixis.hub import is_hub_id
from deixis.io import printable, tensor_writer
from deixis.registry import find_parts
from deixis.types import Text

Kind = Literal["v", "d", "vd", "i"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FORMAT = "deixis-embeddings"
_IMAGES = "image_sha256"  # uint8 [N, 32], whose caption a row is of

# In a diffusers folder, and in one of CLIP alone.
_FILES = (
    *(f"{part}/*.{suffix}" for part in ("text_encoder", "tokenizer") for suffix in ("json", "txt", "safetensors")),
    *("config.json", "model.safetensors", *TOKENIZER_FILES),
)


def check_kinds(names: Sequence[str]) -> tuple[Kind, ...]:
    """Those kinds that are named, if all are known.

    Raises:
        UsageError: if one is not.
    """
    for name in names:
        if name not in KINDS:
            raise UsageError(f"kind {quoted(name)}", "is unknown", f"use {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in names)


def read_clip(source: str) -> tuple[TextTower, CLIPTokenizer]:
    """A text tower and its vocabulary.

    Args:
        source: a diffusers folder, one of CLIP alone, a weight folder with a text tower, the name of weights that
            come with the package, or a hub id.

    Raises:
        ModelError: if it is none of these, or a part is missing or damaged.
    """
    folder = find_parts(source, _FILES)
    if (folder / MANIFEST).is_file():
        model, _, tokenizer = load_folder(folder)
        tower = model.text_tower
        if not isinstance(tower, TextTower) or tokenizer is None:
            raise ModelError(printable(folder), "has no text tower, or no vocabulary", "pass a folder of CLIP")
        return tower, tokenizer
    text, words = folder / "text_encoder", folder / "tokenizer"
    clip = read_text_encoder(text if text.is_dir() else folder)
    return TextTower(clip, frozen=True).eval(), read_tokenizer(words if words.is_dir() else folder)


def embed_captions(
    source: Path,
    clip: str,
    out: Path,
    *,
    kinds: Sequence[Kind] = KINDS,
    tokens: int = 40,
    level: int = 2,
    batch: int = 64,
    device: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, str]:
    """Embed captions, a batch at a time, into a safetensors file.

    Args:
        source: a file of ``deixis caption``, or a folder of world shards.
        clip: see :func:`read_clip`.
        out: the file; it appears whole or not at all.
        kinds: which embeddings.
        tokens: of a caption; longer ones are cut, shorter ones padded, as EVP does.
        level: which captions of the world.
        batch: captions at once.
        device: where to run.
        advance: told of captions as they are done.

    Returns:
        what the file says of itself; see :class:`Embeddings`.

    Raises:
        InputError: if the source is missing, damaged, or holds no captions.
        ModelError: if there is no such text tower.
        UsageError: for more tokens than it reads.
        DeixisError: if the file cannot be written.
    """
    count = count_captions(source)
    if not count:
        raise InputError(printable(source), "holds no captions", "caption some pictures first")
    where = choose_device(device)
    tower, tokenizer = read_clip(clip)
    limit, width = tower.clip.config.max_position_embeddings, tower.clip.config.hidden_size
    if not 2 <= tokens <= limit:
        raise UsageError(f"tokens {tokens}", f"is not between 2 and {limit}, which {clip} reads", "use 40, as EVP")
    rows = iterate_captions(source, level=level)
    first = next(rows)
    about = {
        "format": _FORMAT,
        "captions": source.name,
        "caption_model": first.model,
        "count": str(count),
        "tokens": str(tokens),
        "clip": clip if is_hub_id(clip) and not Path(clip).is_dir() else Path(clip).resolve().name,
        "clip_sha256": tensors_sha256(tower.clip),
    }
    lengths = {"i": tokens, "d": tokens, "v": 1, "vd": 1}
    one = np.zeros(1, np.float32)
    like: dict[str, npt.NDArray[Any]] = {
        kind: np.broadcast_to(one, (count if kind in ("i", "v") else 1, lengths[kind], width))
        for kind in KINDS
        if kind in kinds
    }
    sums = {"d": torch.zeros(1, tokens, width).double(), "vd": torch.zeros(1, 1, width).double()}
    tower.to(where)
    rows = chain([first], rows)
    with tensor_writer(out, {**like, _IMAGES: np.zeros((count, 32), np.uint8)}, about) as writer:
        for begin in range(0, count, batch):
            some = list(islice(rows, batch))
            with torch.inference_mode():
                ids = tokenize(tokenizer, [row.caption for row in some], tokens).to(where)
                encoded = tower.clip(input_ids=ids)
            single = {"i": encoded.last_hidden_state.float().cpu(), "v": encoded.pooler_output[:, None].float().cpu()}
            for kind, mean in (("i", "d"), ("v", "vd")):
                sums[mean] += single[kind].double().sum(dim=0, keepdim=True)
                if kind in kinds:
                    writer.put(kind, begin, single[kind].numpy())
            hashes = b"".join(bytes.fromhex(row.image_sha256) for row in some)
            writer.put(_IMAGES, begin, np.frombuffer(hashes, np.uint8).reshape(-1, 32))
            advance(len(some))
        for kind, total in sums.items():
            if kind in kinds:
                writer.put(kind, 0, (total / count).float().numpy())
    return about


class Embeddings:
    """A file of :func:`embed_captions`, read as it is asked for.

    Args:
        path: the file.

    Attributes:
        about: what it says of itself: ``captions`` and ``caption_model`` they are of, ``count``, ``tokens``, ``clip``
            and ``clip_sha256`` of the text tower.

    Raises:
        InputError: if it is missing, damaged, or something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with safe_open(self.path, framework="pt") as file:
                self.about: dict[str, str] = dict(file.metadata() or {})
                self._kinds = set(file.keys())
                if self.about.get("format") != _FORMAT:
                    raise InputError(printable(path), "holds no embeddings of captions", "make some: deixis embed")
                images = file.get_tensor(_IMAGES).numpy()
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                printable(path), f"is no whole safetensors file ({printable(error)})", "run 'deixis embed' again"
            ) from error
        self._rows = {row.tobytes().hex(): index for index, row in enumerate(images)}

    def __len__(self) -> int:
        return int(self.about["count"])

    def of_dataset(self, kind: Literal["d", "vd"]) -> tuple[Tensor, Text]:
        """The mean over all captions, float32 [1, T, C] or [1, 1, C], with its provenance.

        Raises:
            InputError: if the file was made without it.
        """
        with self._open(kind) as file:
            return file.get_tensor(kind), Text("", f"aggregate:{Path(self.about['captions']).stem}")

    def of_picture(self, kind: Literal["i", "v"], image_sha256: str) -> Tensor | None:
        """The vectors of a picture's caption, float32 [1, T, C] or [1, 1, C]; None if it has none.

        Raises:
            InputError: if the file was made without these.
        """
        row = self._rows.get(image_sha256)
        with self._open(kind) as file:
            return None if row is None else file.get_slice(kind)[row : row + 1]

    def _open(self, kind: Kind) -> Any:  # noqa: ANN401 - safetensors has no types
        if kind not in self._kinds:
            raise InputError(printable(self.path), f"holds no '{kind}'", f"run 'deixis embed' with --kind {kind}")
        return safe_open(self.path, framework="pt")
