"""Work in several processes of one thread each, which end when the main one does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from deixis.errors import DeixisError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[_Job], _Result],
    jobs: Sequence[_Job],
    workers: int,
    died: Callable[[_Job], DeixisError],
    *,
    preload: str | None = None,
    begin: Callable[[], None] | None = None,
) -> Generator[_Result, None, None]:
    """What comes of each of many jobs, in their order; no more than two for each process are under way.

    Args:
        work: done in the processes of a :func:`pool_of`.
        jobs: what it is called with.
        workers: processes, at most.
        died: the error where a process died, from the job that was waited for.
        preload: see :func:`pool_of`.
        begin: see :func:`pool_of`.

    Raises:
        DeixisError: that of ``died``; else as ``work`` does.
    """
    workers = min(workers, len(jobs))
    if not workers:
        return
    waiting, awaited = deque(jobs), jobs[0]
    running: deque[tuple[_Job, Future[_Result]]] = deque()
    with pool_of(workers, preload=preload, begin=begin) as pool:
        while waiting or running:
            try:
                while waiting and len(running) < 2 * workers:
                    job = waiting.popleft()
                    running.append((job, pool.submit(work, job)))
                awaited, future = running.popleft()
                result = future.result()
            except BrokenProcessPool as error:
                raise died(awaited) from error
            yield result


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
