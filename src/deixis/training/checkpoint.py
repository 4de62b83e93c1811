"""Training state on disk: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from deixis.errors import CheckpointError


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` to ``path``; an interruption leaves the previous file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote; never executes code.

    Raises:
        CheckpointError: if the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", "delete it to start the run anew") from error
    return state
