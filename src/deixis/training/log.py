"""The log of a run: one JSON line for every tenth step and every evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from deixis.errors import DeixisError
from deixis.io import write_text

Log = Callable[[dict[str, float]], None]
# What shows a run while it goes on: it is given the rows there are, and takes those that follow.
Opener = Callable[[list[dict[str, float]]], Log]


class RunLog:
    """Appends to a file, and says the same to whoever listens.

    Args:
        path: ``log.jsonl`` of the run folder.
        listener: called with each row.
        opener: of a board, which is told as well, once the run is known to begin or go on.
    """

    def __init__(self, path: Path, listener: Log, opener: Opener | None = None) -> None:
        self.path = path
        self.listener = listener
        self.opener = opener
        self.board: Log | None = None

    def __call__(self, row: dict[str, float]) -> None:
        """Append a row.

        Raises:
            DeixisError: if the disk does not take it.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise DeixisError(
                self.path, f"cannot be written ({error.strerror})", "free space on the disk and start it again"
            ) from error
        self.listener(row)
        if self.board is not None:
            self.board(row)

    def rows(self) -> list[dict[str, float]]:
        """What is in the file."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``: a run that goes on from there will say it again.

        An interrupted run may have logged more than its last checkpoint holds, and half a line at the end.
        """
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= step]
            if kept != lines:
                write_text(self.path, "".join(f"{line}\n" for line in kept))
        if self.opener is not None:
            self.board = self.opener(self.rows())


def _step(line: str) -> float:
    """The step of a row; infinite for what is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
