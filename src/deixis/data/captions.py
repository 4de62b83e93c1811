"""Captions of a dataset's pictures: one Parquet file, and the journal with which an interrupted run goes on.

While captions are made, each batch is appended to ``FILE.parquet.journal`` and is on the disk before the next one is
waited for. At the end all of them become ``FILE.parquet``, and the journal goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from deixis.data.world import count_frames, parquet, read_shards
from deixis.errors import DeixisError, InputError, UsageError
from deixis.io import printable, write_parquet
from deixis.types import Text

WORLD = "world"
"""Model of the captions that the synthetic world has from its scenes."""

_BATCH = 1000  # rows read at once
_ABOUT = b"deixis"
_REMEDY = "delete it and run 'deixis caption' again"


@dataclass(frozen=True)
class Caption:
    """What a model says of a picture: a row of the file.

    Attributes:
        image: path inside the dataset's folder, with forward slashes.
        image_sha256: of the picture's file.
        caption: the words.
        model: hub id, or name of the model's folder.
        model_version: ``revision:…`` of the hub, or ``sha256:…`` of the weights.
        prompt: what the model was asked.
        seed: of words that were drawn; None where each is the likeliest.
    """

    image: str
    image_sha256: str
    caption: str
    model: str
    model_version: str
    prompt: str
    seed: int | None

    @property
    def text(self) -> Text:
        """The words with their provenance."""
        return Text(self.caption, "oracle" if self.model == WORLD else f"caption:{self.model}")


@dataclass(frozen=True)
class Settings:
    """What all captions of a file have in common.

    Attributes:
        model, model_version, prompt, seed: as in :class:`Caption`.
        max_new_tokens: length at which a caption ends at the latest.
    """

    model: str
    model_version: str
    prompt: str
    seed: int | None
    max_new_tokens: int


class Texts(NamedTuple):
    """Captions to be looked up.

    Attributes:
        by_hash: SHA-256 of a picture's file to its caption.
        by_path: path inside the dataset's folder to its caption.
    """

    by_hash: dict[str, Text]
    by_path: dict[str, Text]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_captions(path: str | Path) -> Texts:
    """The captions of a file by picture, for training.

    Raises:
        InputError: if it is missing, damaged, or no file of captions.
        UsageError: if pyarrow is not installed.
    """
    by_hash, by_path = {}, {}
    for row in iterate_captions(path):
        by_hash[row.image_sha256] = by_path[row.image] = row.text
    return Texts(by_hash, by_path)


def iterate_captions(source: str | Path, *, level: int = 2) -> Iterator[Caption]:
    """One caption after another, without holding all of them.

    Args:
        source: a file of ``deixis caption``, or a folder of world shards.
        level: which captions of the world, 0 to 3.

    Raises:
        InputError: if it is missing, damaged, or neither.
        UsageError: if pyarrow is not installed.
    """
    source = Path(source)
    if source.is_dir():
        for frame in read_shards(source):
            digest = hashlib.sha256(frame.encoded).hexdigest()
            yield Caption(f"{frame.kind}-{frame.seed:06d}", digest, frame.captions[level][0], WORLD, "", "", None)
        return
    batches = _open(source).iter_batches(_BATCH)
    while True:
        try:
            batch = next(batches, None)
            rows = [] if batch is None else batch.to_pylist()
        except (OSError, ValueError) as error:  # what pyarrow raises is of these
            raise InputError(printable(source), f"is damaged ({printable(error)})", _REMEDY) from error
        if batch is None:
            return
        yield from (Caption(**row) for row in rows)


def count_captions(source: str | Path) -> int:
    """How many captions :func:`iterate_captions` gives; errors as there."""
    return count_frames(source) if Path(source).is_dir() else int(_open(Path(source)).metadata.num_rows)


def _open(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        file = parquet().ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(printable(path), "does not exist", "check the path") from error
    except (OSError, ValueError) as error:
        # What is no Parquet file at all is not one of ours to delete.
        torn = path.is_file() and path.open("rb").read(4) == b"PAR1"
        remedy = _REMEDY if torn else "pass a file of 'deixis caption', or a folder of the world's shards"
        raise InputError(printable(path), f"is no whole Parquet file ({printable(error)})", remedy) from error
    if file.schema_arrow.names != [f.name for f in fields(Caption)]:
        raise InputError(printable(path), "holds no captions", "pass a file of 'deixis caption'")
    return file


def write_captions(out: Path, rows: Sequence[Caption], about: str = "") -> None:
    """Write a file of captions.

    Args:
        out: the Parquet file.
        rows: the captions.
        about: the settings they were made with, as JSON; empty for those that nothing can be added to.

    Raises:
        DeixisError: if the disk does not take it.
        UsageError: if pyarrow is not installed.
    """
    pa = parquet("pyarrow")
    types = {f.name: pa.int64() if f.name == "seed" else pa.string() for f in fields(Caption)}
    schema = pa.schema(list(types.items()), {_ABOUT: about.encode()})
    write_parquet(out, pa.Table.from_pylist([asdict(row) for row in rows], schema))


class Journal:
    """The captions made so far for one file; closed by :meth:`close`, or by the end of the process.

    Args:
        out: the Parquet file to be.
        settings: of the captions.

    Attributes:
        path: of the journal.
        rows: captions by picture, those of a finished file included.

    Raises:
        UsageError: if the file or its journal was made with other settings, or another run is writing it.
        InputError: if the file is there and holds no captions.
        DeixisError: if the journal cannot be written.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self._out = out
        self._about = json.dumps(asdict(settings))
        self.rows: dict[str, Caption] = {}
        if out.exists():
            self._check(out, (_open(out).schema_arrow.metadata or {}).get(_ABOUT, b""))
            self.rows = {row.image: row for row in iterate_captions(out)}
        self.path = journal_path(out)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    printable(out), "is being written by another run", "wait for it or choose another --out"
                ) from error
            self._resume()
        except OSError as error:
            raise self._unwritable(error) from error

    def _check(self, path: Path, about: bytes) -> None:
        try:
            before = dict(json.loads(about))
        except (ValueError, TypeError) as error:
            raise UsageError(
                printable(path), "does not say how its captions were made", "choose another --out"
            ) from error
        other = [(key, value) for key, value in json.loads(self._about).items() if before.get(key) != value]
        told = ", ".join(f"{key} {before.get(key)!r} not {value!r}" for key, value in other)
        if told:
            raise UsageError(printable(path), f"was made with {told}", "use the same or choose another --out")

    def _resume(self) -> None:
        """Read what is there; a line that was cut off while being written is no line."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        first, *lines = whole.splitlines() or [b""]
        if first:
            self._check(self.path, first)
            try:
                self.rows |= {row.image: row for row in (Caption(**json.loads(line)) for line in lines)}
            except (ValueError, TypeError) as error:
                raise InputError(printable(self.path), f"is damaged ({printable(error)})", _REMEDY) from error
        self._file.truncate(len(whole))
        if not first:
            self._append(self._about.encode() + b"\n")

    def add(self, rows: Sequence[Caption]) -> None:
        """Captions that must not be lost.

        Raises:
            DeixisError: if the disk does not take them.
        """
        try:
            self._append(b"".join(json.dumps(asdict(row)).encode() + b"\n" for row in rows))
        except OSError as error:
            raise self._unwritable(error) from error
        self.rows |= {row.image: row for row in rows}

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Write the Parquet file, pictures in the order of their paths, and remove the journal.

        Raises:
            DeixisError: if the disk does not take it.
        """
        write_captions(self._out, [self.rows[image] for image in sorted(self.rows)], self._about)
        self.path.unlink()

    def close(self) -> None:
        """Let others write; a journal without captions goes."""
        if not self.rows:
            with suppress(FileNotFoundError):
                self.path.unlink()
        self._file.close()

    def _unwritable(self, error: OSError) -> DeixisError:
        why = error.strerror or error
        return DeixisError(printable(self._out), f"cannot be written ({why})", "free space or choose another --out")


def journal_path(out: Path) -> Path:
    """Where the captions are kept until the file is whole."""
    return out.with_name(f"{out.name}.journal")
