"""Frames in memory: photos of NYU Depth v2 and pictures of the synthetic world, with depth, things and captions.

Both are captioned at the same four levels: a few words, the main things, everything visible, distances as well. Those
of the photos come from their label maps and scene types (provenance ``oracle``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from deixis.conditioning.text import tokenize
from deixis.data import nyuv2
from deixis.data.nyuv2_captions import PARAPHRASES, photo_captions
from deixis.data.world import LEVELS, WORLD_PERIOD, Kind, kinds_in, load_arrays, world_split
from deixis.errors import UsageError
from deixis.training.recipe import Data
from deixis.world import words

Source = Literal["nyuv2", "rooms", "roads"]
SOURCES: tuple[Source, ...] = ("nyuv2", "rooms", "roads")


@dataclass
class Store:
    """Frames of one split.

    Attributes:
        size: (h, w) of everything [px].
        images: uint8 [N, 3, h, w].
        depths: float16 [N, 1, h, w] [m], 0 where unknown.
        ids: int16 [N, h, w], the thing at each pixel of a world frame, the class label of a photo's; 0 for neither.
        source: int64 [N], index into :data:`SOURCES`.
        numbers: index of a photo, seed of a world frame.
        places: per frame what it shows as a whole: ``kitchen``, ``village street``.
        captions: per frame four levels of ``PARAPHRASES`` sentences.
        expressions: per world frame its (text, target ids); empty for photos.
        things: per world frame the class of each id, hidden ones too; empty for photos.
    """

    size: tuple[int, int]
    images: Tensor
    depths: Tensor
    ids: Tensor
    source: Tensor
    numbers: list[int]
    places: list[str]
    captions: list[list[list[str]]]
    expressions: list[list[tuple[str, tuple[int, ...]]]]
    things: list[dict[int, str]]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """Which frames these are, in a few letters: of other pixels or words these are others."""
        digest = hashlib.blake2b(digest_size=4)
        for one in (self.images, self.depths, self.ids, self.source):
            digest.update(f"{list(one.shape)}".encode())
            digest.update(one.contiguous().numpy().data)
        digest.update(json.dumps([self.numbers, self.places, self.captions, self.expressions]).encode())
        counts = [f"{len(rows)} {source}" for source in SOURCES if len(rows := self.rows(source))]
        return f"{', '.join(counts)} {digest.hexdigest()}"

    def rows(self, source: Source) -> Tensor:
        """Positions of the frames of one source [M]."""
        return (self.source == SOURCES.index(source)).nonzero()[:, 0]

    def token_ids(self, tokenizer: CLIPTokenizer, tokens: int, *, mirrored: bool = False) -> Tensor:
        """All captions as int32 [N, LEVELS, PARAPHRASES, tokens]; those of the mirrored pictures say right for left."""
        flat = [sentence for levels in self.captions for level in levels for sentence in level]
        if mirrored:
            flat = [words.flip(sentence) for sentence in flat]
        parts = [tokenize(tokenizer, flat[i : i + 4096], tokens).int() for i in range(0, len(flat), 4096)]
        return torch.cat(parts).view(len(self), LEVELS, PARAPHRASES, tokens)


class Sampler:
    """Draw frames of a store, sources in given shares.

    Args:
        store: the frames.
        shares: of each of :data:`SOURCES`; one without frames is left out.

    Raises:
        UsageError: if nothing is left.
    """

    def __init__(self, store: Store, shares: Sequence[float]) -> None:
        self.pools = [store.rows(source) for source in SOURCES]
        self.shares = torch.tensor(
            [share if len(pool) else 0.0 for share, pool in zip(shares, self.pools, strict=True)], dtype=torch.float
        )
        if not self.shares.sum() > 0:
            raise UsageError("data.shares", "leave no frame to learn from", "give a share to a source that has frames")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """Positions in the store [n]."""
        sources = torch.multinomial(self.shares, n, replacement=True, generator=generator).tolist()
        draws = torch.rand(n, generator=generator).tolist()
        return torch.stack([self.pools[s][int(d * len(self.pools[s]))] for s, d in zip(sources, draws, strict=True)])


def load_store(data: Data, split: nyuv2.Split) -> Store:
    """Read everything a recipe names.

    Raises:
        InputError: if a frame or shard cannot be read.
        UsageError: if the recipe names no data, or none of this split.
    """
    size = (int(data.stored[0]), int(data.stored[1]))
    parts = []
    if data.root is not None:
        parts.append(_photos(Path(data.root), split, size))
    if data.world is not None:
        parts += [_world(Path(data.world), kind, split, size) for kind in kinds_in(data.world)]
    if not parts:
        raise UsageError("data", "names no dataset", "give data.root=DIR (NYU Depth v2) or data.world=DIR")
    if not any(map(len, parts)):
        raise UsageError("data", f"holds no frame of the split '{split}'", f"render {WORLD_PERIOD} frames or more")
    return Store(
        size=size,
        images=torch.cat([part.images for part in parts]),
        depths=torch.cat([part.depths for part in parts]),
        ids=torch.cat([part.ids for part in parts]),
        source=torch.cat([part.source for part in parts]),
        numbers=[number for part in parts for number in part.numbers],
        places=[place for part in parts for place in part.places],
        captions=[levels for part in parts for levels in part.captions],
        expressions=[found for part in parts for found in part.expressions],
        things=[found for part in parts for found in part.things],
    )


def _photos(root: Path, split: nyuv2.Split, size: tuple[int, int]) -> Store:
    frames = nyuv2.some_frames(root, split)
    labels = torch.zeros((len(frames), *size), dtype=torch.int16)
    names: list[str] = []
    if any(frame.labels for frame in frames):
        names = nyuv2.class_names(root)
        maps = (torch.from_numpy(frame.read_labels().astype(np.int16)) for frame in frames)
        labels = torch.stack([_nearest(one, size) for one in maps])
    depths = torch.stack([_nearest(torch.from_numpy(frame.read_depth()), size)[None].half() for frame in frames])
    return Store(
        size=size,
        images=torch.stack([resized(frame.read_rgb(), size) for frame in frames]),
        depths=depths,
        ids=labels,
        source=torch.zeros(len(frames), dtype=torch.long),
        numbers=[frame.index for frame in frames],
        places=[nyuv2.scene_words(frame.scene) for frame in frames],
        captions=[
            photo_captions(frame, names, one.numpy().astype(np.uint8), depth[0].float().numpy())
            for frame, one, depth in zip(frames, labels, depths, strict=True)
        ],
        expressions=[[] for _ in frames],
        things=[{} for _ in frames],
    )


def _world(folder: Path, kind: Kind, split: nyuv2.Split, size: tuple[int, int]) -> Store:
    arrays = load_arrays(folder, size, kind=kind, wanted=lambda seed: world_split(seed) == split)
    return Store(
        size=size,
        images=arrays.images,
        depths=arrays.depth.half(),
        ids=arrays.ids,
        source=torch.full((len(arrays),), SOURCES.index(kind)),
        numbers=arrays.seeds.tolist(),
        places=arrays.places,
        captions=arrays.captions,
        expressions=arrays.expressions,
        things=arrays.things,
    )


def resized(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3] to uint8 [3, *size], with antialiasing."""
    image = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x[None, None].float(), size=size, mode="nearest")[0, 0].to(x.dtype)
