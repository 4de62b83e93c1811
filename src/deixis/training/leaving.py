"""A run that is asked to end (SIGTERM of a scheduler, Ctrl-C) ends after its step, with a checkpoint of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed
from accelerate import Accelerator

from deixis.errors import DeixisError


class StoppedError(DeixisError):
    """A run was asked to end, and has saved what it had.

    Args:
        number: of the signal.
        step: that is done.
        out: folder of the run.
    """

    def __init__(self, number: int, step: int, out: Path) -> None:
        self.number, self.step, self.out = number, step, out
        self.code = 128 + number  # as shells report a process that a signal ended
        name = signal.Signals(number).name
        super().__init__(out, f"stopped by {name} after step {step}", "give the same command again to go on from there")

    def __reduce__(self) -> tuple[type[DeixisError], tuple[int, int, Path]]:  # type: ignore[override]  # narrower arguments
        """As it was made."""
        return type(self), (self.number, self.step, self.out)


@contextmanager
def last_of_worker() -> Iterator[None]:
    """Around a training in one of several worker processes: one that was stopped does not begin the next in line."""
    try:
        yield
    except StoppedError as stopped:
        signal.raise_signal(stopped.number)  # nobody listens any more: it ends the process, as it would have at once
        raise


class Requests:
    """Whether this process was asked to end, and by which signal."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note. Who asks twice does not want to wait for the end of a step."""
        del frame
        if self.number:
            raise KeyboardInterrupt
        self.number = number

    def of_any(self, accelerator: Accelerator) -> int:
        """The signal any process of the run got, 0 for none: they end after the same step."""
        if accelerator.num_processes == 1:
            return self.number
        found = torch.tensor(self.number, device=accelerator.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)


@contextmanager
def requests() -> Iterator[Requests]:
    """Signals become requests while the context is open; only a program's main thread gets any.

    One that came too late to be acted on is sent again once the context is closed, and does what it would have done
    without it. Those that the process ignores it goes on ignoring: workers leave Ctrl-C to the process that started
    them.
    """
    asked = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    heard = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, asked) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked.number:
        signal.raise_signal(asked.number)
