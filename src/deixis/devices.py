"""Where networks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deixis.errors import UsageError, quoted


def choose_device(name: str | None) -> torch.device:
    """Where to run: as named, or a GPU if there is one, else the CPU.

    Raises:
        UsageError: if there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # no such device, or none that gives numbers back
        raise UsageError(f"device {quoted(name)}", "cannot be used here", "use cpu, or cuda with a GPU") from error
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
