"""What steps need, made ahead of them by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from deixis.errors import DeixisError

# Of what is made, that each worker has ready.
EACH = 2


class Ahead(Iterator[Any]):
    """Items of a dataset in a given order, made by processes that are ahead of who asks.

    Args:
        made: gives an item for each number; the same whoever asks.
        numbers: of the items, in their order.
        workers: processes; 0 makes an item when it is asked for.
        pin: keep items where a GPU can fetch them.
    """

    def __init__(self, made: Dataset[Any], numbers: Sequence[int], workers: int, *, pin: bool = False) -> None:
        self._items = iter(
            DataLoader(
                made,
                batch_size=None,
                sampler=numbers,
                num_workers=workers,
                prefetch_factor=EACH if workers else None,
                pin_memory=pin,
                worker_init_fn=_leave_signals,
                generator=torch.Generator(),  # its own: it must not draw from the run's
            )
        )

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the dataset makes
        """The next item.

        Raises:
            DeixisError: if a worker is gone; else as the dataset does.
        """
        try:
            return next(self._items)
        except RuntimeError as lost:
            if not any(words in str(lost) for words in ("exited unexpectedly", "killed by signal")):
                raise
            raise DeixisError(
                "a worker that reads data",
                f"is gone ({next(iter(str(lost).splitlines()))})",
                "give the same command again, with fewer hardware.workers if memory was short: the last checkpoint is"
                " intact",
            ) from lost


def _leave_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM, which may be sent to all, are for the main process: it ends its workers."""
    del worker
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
