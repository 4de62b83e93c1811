"""Training state on disk: whole or not at all."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from deixis.backbones.weights import name_some
from deixis.checkpoints.files import refused
from deixis.errors import CheckpointError, DeixisError


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` to ``path``; an interruption leaves the previous file as it was.

    Raises:
        DeixisError: if the disk does not take it; the previous file is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
        partial.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        why = (cause.strerror if isinstance(cause, OSError) else None) or "a write failed"
        before = "the checkpoint before it is intact" if path.is_file() else "there was none before it"
        raise DeixisError(
            path, f"cannot be written ({why}; {before})", "free space on the disk and give the same command again"
        ) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote; never executes code.

    Raises:
        CheckpointError: if the file is missing or damaged, or needs code to be executed.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums it writes
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {broken}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "is missing", "put it back, or remove the run folder to start anew") from error
    except Exception as error:  # a damaged file makes torch and pickle raise anything
        if isinstance(error, pickle.UnpicklingError) and (names := refused(path, error)):
            raise CheckpointError(
                path,
                f"needs code to be executed ({name_some(names)}), which is refused",
                "delete it to start the run anew",
            ) from error
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(path, f"is damaged ({why[:120]})", "delete it to start the run anew") from error
    if not isinstance(state, dict):
        raise CheckpointError(path, "is no training state", "delete it to start the run anew")
    return state
