"""What the commands share: options, messages, exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deixis.errors import DeixisError
from deixis.io import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

OK, SOME_FAILED, USAGE = 0, 1, 2
# As shells report a command that was interrupted (SIGINT), or whose reader went away (SIGPIPE).
INTERRUPTED, NO_READER = 130, 141

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; made if missing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.", show_default="a GPU if there is one, else cpu")
]
MaxPixelsOption = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Largest picture read [pixels]; raise it for gigapixel pictures."),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Denoising steps of Marigold; the others take one.", show_default="the model's own"
    ),
]
FovOption = Annotated[
    float | None, typer.Option("--fov", help="Horizontal field of view [deg].", show_default="from EXIF")
]
FocalOption = Annotated[
    float | None,
    typer.Option("--focal-px", help="Focal length [px] of the upright picture.", show_default="from EXIF"),
]

OUT = Path("deixis-out")
# Seeds start at 0; the generators of torch and numpy and whole numbers in files all reach this far.
LARGEST_SEED = 2**63 - 1


class Settings:
    """What holds for the whole run.

    Attributes:
        debug: show the traceback of errors.
        command: the command line, as a shell takes it.
    """

    debug = False
    command = ""


def report(line: str) -> None:
    """One line on stderr, under the program's name."""
    say(f"deixis: {line}")


def say(line: str) -> None:
    """A remark for people, on stderr. If nobody can read it, the work goes on."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def fail(error: Exception, subject: object = "error") -> None:
    """Report an error in one line that names the input, the problem and the remedy; ``--debug`` adds the traceback.

    Args:
        error: any exception; one that was not raised on purpose is named too.
        subject: what it is about, for errors that do not say so themselves.
    """
    if Settings.debug:
        say("".join(traceback.format_exception(error)).rstrip())
    if not isinstance(error, DeixisError):
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"unexpected {problem if len(problem) <= 300 else problem[:297] + '...'}"
        remedy = "the traceback is above" if Settings.debug else "run again with --debug and report it"
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
            problem, remedy = "does not fit into memory", "free some memory or shrink the picture"
        error = DeixisError(printable(subject), problem, remedy)
    report(str(error))


def put(line: str) -> None:
    """One line of results on stdout, there at once.

    Raises:
        DeixisError: if stdout does not take it.
        SystemExit: if its reader went away.
    """
    stdout = sys.stdout
    encoding = stdout.encoding or "utf-8"
    try:
        if stdout.isatty() or not hasattr(stdout, "buffer"):
            stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        else:
            stdout.flush()
            stdout.buffer.write(_bytes(line, encoding) + b"\n")
        stdout.flush()
    except BrokenPipeError:
        drop(stdout)
        sys.exit(NO_READER)
    except OSError as error:
        drop(stdout)
        raise DeixisError(
            "standard output",
            f"cannot be written ({error.strerror or error})",
            "free space on the disk or send it elsewhere",
        ) from error


def _bytes(line: str, encoding: str) -> bytes:
    """A line for a program: bytes of file names that are no text leave as they came, the rest is escaped."""
    try:
        return line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return line.encode(encoding, "backslashreplace")


def emit(value: object) -> None:
    """JSON on stdout; errors as :func:`put`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    put(text)


def field(value: object) -> str:
    """A file name or phrase as one field of a line: as it is, or quoted if a tab or line end would cut it."""
    text = str(value)
    cuts = any(character < " " or character in "\x7f\x85\u2028\u2029" for character in text)
    return json.dumps(text) if cuts else text


def drop(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that Python does not fail on it when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class Bar:
    """A progress bar on stderr, drawn only for more than one item."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One item is done."""
        if self._progress is not None and self._task is not None:
            if not self._progress.live.is_started:
                self._progress.start()
            self._progress.advance(self._task)


@contextmanager
def progress(items: Sequence[object], label: str, *, late: bool = False) -> Iterator[Bar]:
    """A :class:`Bar` over ``items`` while the context is open.

    Args:
        items: what is worked on.
        label: how the bar is called.
        late: draw it with the first item done, so that what is wrong before is told in one line.
    """
    if len(items) < 2 or sys.stderr.closed:
        yield Bar(None, None)
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results that go to a file or another program must not be drawn above the bar instead.
    shown = Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
    if not late:
        shown.start()
    try:
        yield Bar(shown, shown.add_task(label, total=len(items)))
    finally:
        if shown.live.is_started:
            shown.stop()


def exit_code(done: int, failed: int) -> int:
    """0 all done, 1 some failed, 2 nothing could be used."""
    if not failed:
        return OK
    return SOME_FAILED if done else USAGE
