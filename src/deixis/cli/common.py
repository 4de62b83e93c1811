"""What the commands share: options, messages, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.progress import TaskID

OK, SOME_FAILED, USAGE = 0, 1, 2

OutOption = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; chosen by itself.")]
MaxPixelsOption = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Largest picture read [pixels]; raise it for gigapixel pictures."),
]
FovOption = Annotated[float | None, typer.Option("--fov", help="Horizontal field of view [deg].")]
FocalOption = Annotated[float | None, typer.Option("--focal-px", help="Focal length [px] of the upright picture.")]

OUT = Path("deixis-out")


def report(line: str) -> None:
    """One line on stderr, as it is."""
    sys.stderr.write(f"deixis: {line}\n")


def say(line: str) -> None:
    """A remark for people, on stderr."""
    sys.stderr.write(f"{line}\n")


def emit(value: object) -> None:
    """JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class Bar:
    """A progress bar on stderr, drawn only for more than one item."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One item is done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)


@contextmanager
def progress(items: Sequence[object], label: str) -> Iterator[Bar]:
    """A :class:`Bar` over ``items`` while the context is open."""
    if len(items) < 2:
        yield Bar(None, None)
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield Bar(shown, shown.add_task(label, total=len(items)))


def exit_code(done: int, failed: int) -> int:
    """0 all done, 1 some failed, 2 nothing could be used."""
    if not failed:
        return OK
    return SOME_FAILED if done else USAGE
