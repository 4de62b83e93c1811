"""The log of a run: one JSON line for every tenth step and every evaluation, and pictures of these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from PIL import Image

from deixis.errors import DeixisError
from deixis.io import write_image, write_text

Log = Callable[[dict[str, float]], None]
Begin = Callable[[int], None]
# Folder of the validation pictures in that of a run.
PICTURES = "validation"


class Board(Protocol):
    """What shows a run while it goes on."""

    def __call__(self, row: dict[str, float]) -> None:
        """Show a row."""
        ...

    def picture(self, step: int, picture: Image.Image) -> None:
        """Show the validation pictures of a step."""
        ...


# It is given the rows there are, and takes those that follow.
Opener = Callable[[list[dict[str, float]]], Board]


class RunLog:
    """Appends to a file, and says the same to whoever listens.

    Args:
        path: ``log.jsonl`` of the run folder.
        listener: called with each row.
        opener: of a board, which is told as well, once the run is known to begin or go on.
        begin: called with the step it goes on from, once that is known.
    """

    def __init__(
        self, path: Path, listener: Log, opener: Opener | None = None, begin: Begin = lambda step: None
    ) -> None:
        self.path = path
        self.listener = listener
        self.opener = opener
        self.begin = begin
        self.board: Board | None = None

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

    def picture(self, step: int, picture: Image.Image) -> None:
        """Keep the validation pictures of a step, as a PNG beside the log.

        Raises:
            DeixisError: if the disk does not take it.
        """
        path = self.path.parent / PICTURES / f"step_{step:06d}.png"
        try:
            write_image(path, picture)
        except DeixisError as error:
            raise DeixisError(path, error.problem, "free space on the disk and start it again") from error
        if self.board is not None:
            self.board.picture(step, picture)

    def rows(self) -> list[dict[str, float]]:
        """What is in the file."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``: a run that goes on from there will say it again.

        An interrupted run may have logged more than its last checkpoint holds, and half a line at the end.
        """
        for shown, path in pictures_in(self.path.parent):
            if shown > step:
                path.unlink()
        if self.path.is_file():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            kept = "".join(f"{line}\n" for line in text.splitlines() if _step(line) <= step)
            if kept != text:
                write_text(self.path, kept)
        if self.opener is not None:
            self.board = self.opener(self.rows())
        self.begin(step)


def pictures_in(out: Path) -> list[tuple[int, Path]]:
    """The validation pictures in a run folder, with their steps."""
    found = [(path.stem.removeprefix("step_"), path) for path in (out / PICTURES).glob("step_*.png")]
    return sorted((int(step), path) for step, path in found if step.isdecimal())


def _step(line: str) -> float:
    """The step of a row; infinite for what is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
