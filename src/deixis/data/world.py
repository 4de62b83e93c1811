"""Frames of the synthetic world, read back from the Parquet shards of ``deixis world render``."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from deixis.errors import InputError, UsageError
from deixis.io import printable

if TYPE_CHECKING:
    import torch

Kind = Literal["rooms", "roads"]
Split = Literal["train", "val", "heldout"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = 4
"""Captions go from level 0, a few words, to level 3, with distances."""

# Every twentieth seed validates, every twentieth is held out; graders and users bring other seeds.
WORLD_PERIOD = 20
WORLD_REMAINDERS = {"val": 10, "heldout": 0}

COLUMNS = (
    "seed",
    "kind",
    "place",
    "width",
    "height",
    "image",
    "depth",
    "depth_scale",
    "ids",
    "scene",
    "captions",
    "expressions",
)
"""What a shard holds of each frame; see :mod:`deixis.world.generate`."""

_BATCH = 50  # frames read at once
_REMEDY = "delete it and run 'deixis world render' again"


@dataclass(frozen=True)
class Phrase:
    """A referring expression.

    Attributes:
        text: its words.
        kind: what singles the thing out; ``negative`` where nothing is meant.
        targets: ids of what it means; empty where negative.
    """

    text: str
    kind: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class WorldFrame:
    """One frame; pictures and scene are decoded when first asked for.

    Attributes:
        source: file it was read from.
        seed: what it was made from.
        kind: ``rooms`` or ``roads``.
        place: ``bedroom``, ``village street`` …
        captions: for each of the four levels, its paraphrases.
        expressions: referring expressions, those for nothing last.
    """

    source: Path
    seed: int
    kind: Kind
    place: str
    captions: list[list[str]]
    expressions: list[Phrase]
    _row: dict[str, Any] = field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The picture as the file holds it, a JPEG."""
        return bytes(self._row["image"])

    @cached_property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3], sRGB. Raises InputError where the shard is damaged."""
        return self._decoded(lambda: _picture(self._row["image"]))

    @cached_property
    def depth(self) -> npt.NDArray[np.float32]:
        """float32 [H, W] [m], planar; 0 where there is only sky. Raises InputError where the shard is damaged."""
        return self._decoded(lambda: _picture(self._row["depth"]) * np.float32(self._row["depth_scale"]))

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        """int32 [H, W], the thing at each pixel; 0 is sky. Raises InputError where the shard is damaged."""
        return self._decoded(lambda: _picture(self._row["ids"]).astype(np.int32))

    @cached_property
    def scene(self) -> dict[str, Any]:
        """The fields of :class:`deixis.world.scene.Scene`. Raises InputError where the shard is damaged."""
        return self._decoded(lambda: json.loads(self._row["scene"]))

    def _decoded(self, decode: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever ``decode`` gives
        with _reading(self.source, f"frame {self.seed} cannot be decoded"):
            return decode()


@dataclass(frozen=True)
class WorldArrays:
    """Many frames in memory.

    Attributes:
        images: uint8 [N, 3, h, w], sRGB.
        depth: float32 [N, 1, h, w] [m]; 0 where there is only sky.
        ids: int16 [N, h, w], the thing at each pixel; 0 is sky.
        captions: for each frame, for each level, its paraphrases.
        expressions: for each frame, words and ids of what they mean; no ids where nothing is meant.
        things: for each frame, the class of each id, hidden ones too.
        seeds: int64 [N].
        kinds: of each frame.
        places: of each frame.
    """

    images: torch.Tensor
    depth: torch.Tensor
    ids: torch.Tensor
    captions: list[list[list[str]]]
    expressions: list[list[tuple[str, tuple[int, ...]]]]
    things: list[dict[int, str]]
    seeds: torch.Tensor
    kinds: list[Kind]
    places: list[str]

    def __len__(self) -> int:
        return len(self.kinds)


def parquet(module: str = "pyarrow.parquet") -> Any:  # noqa: ANN401 - pyarrow has no types
    """A module of pyarrow, which the extra ``world`` installs.

    Raises:
        UsageError: if it is not there.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError("pyarrow", "is not installed", "run pip install 'deixis[world]'") from error


def check_kind(kind: str) -> Kind:
    """The kind, if there is such a one.

    Raises:
        UsageError: if not.
    """
    for known in KINDS:
        if kind == known:
            return known
    raise UsageError(f"kind '{printable(kind)}'", "is unknown", f"use {' or '.join(KINDS)}")


def shards(folder: str | Path, kind: str | None = None) -> list[Path]:
    """The shards of a folder, rooms before roads and by their first seed.

    Args:
        folder: what ``deixis world render`` wrote.
        kind: ``rooms`` or ``roads``; None for both.

    Raises:
        InputError: if there is no such folder, or no shard in it.
        UsageError: for an unknown kind.
    """
    kinds = KINDS if kind is None else (check_kind(kind),)
    root = Path(folder)
    if not root.is_dir():
        raise InputError(printable(root), "is no folder", "check the path")
    # Seeds may have more digits than names are padded to.
    found = [path for k in kinds for path in sorted(root.glob(f"{k}-*.parquet"), key=lambda p: (len(p.name), p.name))]
    if not found:
        raise InputError(printable(root), f"holds no shards of {' or '.join(kinds)}", "make some: deixis world render")
    return found


def kinds_in(folder: str | Path) -> list[Kind]:
    """Which kinds a folder holds shards of, rooms before roads.

    Raises:
        InputError: if there is no such folder, or no shard in it.
    """
    names = [path.name for path in shards(folder)]
    return [kind for kind in KINDS if any(name.startswith(f"{kind}-") for name in names)]


def read_shards(folder: str | Path, *, kind: str | None = None, limit: int | None = None) -> Iterator[WorldFrame]:
    """The frames of a folder, one after another.

    Args:
        folder: what ``deixis world render`` wrote.
        kind: ``rooms`` or ``roads``; None for both.
        limit: how many at most; None for all.

    Raises:
        InputError: if the folder holds no shards, or one of them is damaged.
        UsageError: for an unknown kind, or if pyarrow is not installed.
    """
    for path, row in _rows(shards(folder, kind), limit, skip=()):
        yield frame_of(row, path)


def shard_seeds(path: Path) -> list[list[int]]:
    """The seeds of a shard's frames, for each of its row groups.

    Raises:
        InputError: if it is damaged.
        UsageError: if pyarrow is not installed.
    """
    file = _open(path)
    with _reading(path, "is damaged"):
        groups = range(file.num_row_groups)
        return [file.read_row_group(group, columns=["seed"]).column("seed").to_pylist() for group in groups]


def read_group(path: Path, group: int) -> list[WorldFrame]:
    """The frames of a shard's row group.

    Raises:
        InputError: if it is damaged.
        UsageError: if pyarrow is not installed.
    """
    file = _open(path)
    with _reading(path, "is damaged"):
        return [frame_of(row, path) for row in file.read_row_group(group, columns=list(COLUMNS)).to_pylist()]


def count_frames(folder: str | Path) -> int:
    """How many frames a folder holds.

    Raises:
        InputError: if it holds no shards, or one of them is damaged.
    """
    return sum(int(_open(path).metadata.num_rows) for path in shards(folder))


def frame_of(row: dict[str, Any], source: Path) -> WorldFrame:
    """The frame of one row of a shard.

    Args:
        row: its columns.
        source: the file that errors name.
    """
    return WorldFrame(source, row["seed"], row["kind"], row["place"], _captions(row), _expressions(row), row)


def world_split(seed: int) -> Split:
    """Which side a seed of the world is on."""
    remainder = seed % WORLD_PERIOD
    if remainder == WORLD_REMAINDERS["heldout"]:
        return "heldout"
    return "val" if remainder == WORLD_REMAINDERS["val"] else "train"


def load_arrays(
    folder: str | Path,
    size: tuple[int, int],
    *,
    kind: str | None = None,
    wanted: Callable[[int], bool] = lambda seed: True,
    threads: int = 2,
) -> WorldArrays:
    """All frames of a folder, decoded to memory.

    Pictures are interpolated, with antialiasing; depth and ids take the nearest old one.

    Args:
        folder: what ``deixis world render`` wrote.
        size: height and width wanted [px].
        kind: ``rooms`` or ``roads``; None for both.
        wanted: whether the frame of a seed is read.
        threads: how many decode at once.

    Raises:
        InputError: if the folder holds no shards, or one of them is damaged.
        UsageError: for an unknown kind, an empty size, or if pyarrow is not installed.
    """
    import torch  # not needed by those who only write shards

    height, width = size
    if height < 1 or width < 1:
        raise UsageError(f"size {size}", "holds no pixels", "give a height and a width of at least 1")
    paths = shards(folder, kind)
    chosen = [row["seed"] for _, row in _rows(paths, None, skip=tuple(set(COLUMNS) - {"seed"})) if wanted(row["seed"])]
    count = len(chosen)
    images = np.zeros((count, 3, height, width), dtype=np.uint8)
    depth = np.zeros((count, 1, height, width), dtype=np.float32)
    ids = np.zeros((count, height, width), dtype=np.int16)

    def decode(index: int, path: Path, row: dict[str, Any]) -> None:
        with _reading(path, f"frame {row['seed']} cannot be decoded"):
            images[index] = _picture(row["image"], (width, height)).transpose(2, 0, 1)
            depth[index, 0] = _nearest(_picture(row["depth"]), size) * np.float32(row["depth_scale"])
            ids[index] = _nearest(_picture(row["ids"]), size)

    captions, expressions, things, seeds, kinds, places = [], [], [], [], [], []
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        rows = ((path, row) for path, row in _rows(paths, None, skip=()) if wanted(row["seed"]))
        for index, (path, row) in enumerate(rows):
            waiting.append(pool.submit(decode, index, path, row))
            captions.append(_captions(row))
            expressions.append([(phrase.text, phrase.targets) for phrase in _expressions(row)])
            with _reading(path, f"frame {row['seed']} cannot be decoded"):
                things.append({one["id"]: one["name"] for one in json.loads(row.pop("scene"))["things"]})
            seeds.append(row["seed"])
            kinds.append(row["kind"])
            places.append(row["place"])
            if len(waiting) >= 4 * _BATCH:  # encoded frames are let go as soon as they are decoded
                for done in waiting:
                    done.result()
                waiting = []
        for done in waiting:
            done.result()
    tensors = torch.from_numpy(images), torch.from_numpy(depth), torch.from_numpy(ids)
    return WorldArrays(*tensors, captions, expressions, things, torch.tensor(seeds, dtype=torch.int64), kinds, places)


@contextmanager
def _reading(path: Path, problem: str) -> Iterator[None]:
    """Whatever a damaged shard raises, as an InputError that names it."""
    try:
        yield
    # What pyarrow raises is of these, and Pillow reports damage as any of them.
    except (OSError, ValueError, LookupError, RuntimeError, SyntaxError, EOFError) as error:
        raise InputError(printable(path), f"{problem} ({printable(error)})", _REMEDY) from error


def _open(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    with _reading(path, "is no whole shard"):
        return parquet().ParquetFile(path)


def _rows(paths: list[Path], limit: int | None, skip: tuple[str, ...]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Shard and columns of one frame after another, without the columns to skip."""
    left = limit
    for path in paths:
        file = _open(path)
        names = file.schema_arrow.names
        missing = sorted(set(COLUMNS) - set(names))
        if missing:
            raise InputError(printable(path), f"is no shard of frames (no column {missing[0]})", _REMEDY)
        batches = file.iter_batches(_BATCH, columns=[name for name in COLUMNS if name not in skip])
        while left is None or left > 0:
            with _reading(path, "is damaged"):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                break
            for row in rows if left is None else rows[:left]:
                yield path, row
            left = None if left is None else left - len(rows)


def _picture(data: bytes, size: tuple[int, int] | None = None) -> npt.NDArray[Any]:
    """Decoded [H, W] or [H, W, 3]; resized to ``size`` (width, height) where given, as models resize what they get."""
    with Image.open(io.BytesIO(data)) as image:
        if size is None or size == image.size:
            return np.asarray(image)
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _nearest(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """[H, W] at another size, each pixel the old one at its centre."""
    if values.shape == size:
        return values
    rows, columns = (((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns]


def _captions(row: dict[str, Any]) -> list[list[str]]:
    return [[one["text"] for one in row["captions"] if one["level"] == level] for level in range(LEVELS)]


def _expressions(row: dict[str, Any]) -> list[Phrase]:
    return [Phrase(one["text"], one["kind"], tuple(one["targets"])) for one in row["expressions"]]
