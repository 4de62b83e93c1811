"""What has been scored, one JSON line a picture, there for good before the next one begins."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from deixis.errors import DeixisError, InputError
from deixis.io import printable
from deixis.protocols.ranges import Sums
from deixis.protocols.summary import Row


@dataclass(frozen=True)
class Entry:
    """What became of one picture.

    Attributes:
        index: its place in the dataset.
        name: its name there.
        rows: numbers, one row for a depth map or for each expression; none where nothing could be scored.
        ranges: depth error by range of true depth, for depth maps.
        failed: why it could not be read or scored; None if it could.
        stamp: of its files as they were when it was scored (:meth:`deixis.data.dataset.Dataset.stamp`).
        truth: of what it was compared with (:func:`deixis.data.dataset.truth_of`).
    """

    index: int
    name: str
    rows: list[Row] = field(default_factory=list)
    ranges: Sums | None = None
    failed: str | None = None
    stamp: str = ""
    truth: str = ""


class Journal:
    """Appends to a file; a line that a kill cut off is taken back when it is opened again.

    Args:
        path: the file.

    Attributes:
        entries: the last one of each picture, by its index.

    Raises:
        InputError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[int, Entry] = {}
        content = path.read_bytes() if path.is_file() else b""
        whole = content.rfind(b"\n") + 1
        # Of a whole file nothing is taken back: another run may be adding to it.
        self._cut_at = whole if whole < len(content) else None
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = Entry(**json.loads(line))
                self.entries[entry.index] = entry
            except (ValueError, TypeError) as error:
                raise InputError(
                    printable(path), f"is damaged in line {number}", "delete its folder and evaluate again"
                ) from error
        self._file: IO[bytes] | None = None

    def append(self, entry: Entry) -> None:
        """Add one picture; on the disk when this returns.

        Raises:
            DeixisError: if the disk does not take it.
        """
        line = json.dumps(asdict(entry), allow_nan=False).encode() + b"\n"
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
                if self._cut_at is not None:
                    self._file.truncate(self._cut_at)
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DeixisError(
                printable(self.path),
                f"cannot be written ({error.strerror or error})",
                "free space on the disk and give the same command again",
            ) from error
        self.entries[entry.index] = entry

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
