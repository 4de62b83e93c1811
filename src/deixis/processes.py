"""Worker processes of one thread each that end when the process that started them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def pool(workers: int, begin: Callable[..., None] | None = None, *arguments: object) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; what they have not begun is dropped at the end.

    Args:
        workers: how many.
        begin: called in each before its first work, with ``arguments``; must not raise.
        arguments: for it.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read when a new process first imports numpy
    started = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (begin, arguments))
    try:
        yield started
    finally:
        started.shutdown(wait=False, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(begin: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    """A worker leaves Ctrl-C to the main process, and ends when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
