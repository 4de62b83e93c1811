"""Work in several processes of one thread each, which end when the main one does."""

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
def pool_of(
    workers: int, *, preload: str | None = None, begin: Callable[[], None] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; what they have not begun is dropped at the end.

    If the main one is interrupted or fails, they get SIGTERM: nobody waits for what they are at. A training then ends
    after its step, with a checkpoint.

    Args:
        workers: how many.
        preload: a module that takes long to import: once for all of them, where the system can do that.
        begin: called in each before its first work; must not raise.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read when a new process first imports numpy
    context: multiprocessing.context.BaseContext = multiprocessing.get_context("spawn")
    if preload is not None and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([preload])
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _begin, (begin,))
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(begin: Callable[[], None] | None) -> None:
    """A process leaves Ctrl-C to the main one, and ends when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
