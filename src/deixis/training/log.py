"""The log of a run: one JSON line for every tenth step and every evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from deixis.errors import DeixisError
from deixis.io import write_text

Log = Callable[[dict[str, float]], None]


class RunLog:
    """Appends to a file, and says the same to whoever listens.

    Args:
        path: ``log.jsonl`` of the run folder.
        listener: called with each row.
    """

    def __init__(self, path: Path, listener: Log) -> None:
        self.path = path
        self.listener = listener

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

    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``: a run that goes on from there will say it again.

        An interrupted run may have logged more than its last checkpoint holds, and half a line at the end.
        """
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        if kept != lines:
            write_text(self.path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> float:
    """The step of a row; infinite for what is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
