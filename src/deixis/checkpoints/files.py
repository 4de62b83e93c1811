"""Reading checkpoint files without ever executing what is in them."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deixis.errors import CheckpointError

# Where training scripts keep the weights inside their checkpoint.
CONTAINERS = ("model", "state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint and what lay beside them.

    Attributes:
        tensors: by key; the ``module.`` of a wrapped model is removed.
        args: options of the training script, if it stored any.
        notes: what was done to the keys, in words.
    """

    tensors: dict[str, Tensor]
    args: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.safetensors`` file or a PyTorch checkpoint.

    A pickle may hold tensors, plain containers and an ``argparse.Namespace``; anything else would need code
    to run and is refused.

    Raises:
        CheckpointError: if the file is missing, truncated, unsafe, or holds no tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(path, "is a folder", "pass the checkpoint file itself")
    if not path.is_file():
        raise CheckpointError(path, "does not exist", "check the path")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    if not head:
        raise CheckpointError(path, "is empty", "copy it again from its source")
    # The content decides, not the name: a zip archive or a pickle is PyTorch's, JSON after a length safetensors'.
    raw, args = (_read_safetensors(path), {}) if head[8:9] == b"{" else _read_torch(path)
    tensors = {key: value for key, value in raw.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(path, "holds no tensors", "pass a file with model weights")
    notes = []
    other = sorted(str(key) for key, value in raw.items() if not isinstance(value, Tensor))
    if other:
        notes.append(f"not weights, left out: {', '.join(other)}")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        notes.append("prefix 'module.' of a model saved from distributed training removed")
    return Checkpoint(tensors, args, tuple(notes))


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            path, f"is not a whole safetensors file ({error})", "copy it again from its source"
        ) from error


def _read_torch(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Memory-mapped where the format allows, so that a 10 GB training checkpoint does not fill memory.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(
            path, f"is not a whole PyTorch checkpoint ({_first_line(error)})", "copy it again from its source"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            path, f"holds a {type(content).__name__}, not a dictionary of tensors", "pass a file of model weights"
        )
    args = content.get("args", {})
    args = dict(vars(args)) if isinstance(args, argparse.Namespace) else args if isinstance(args, dict) else {}
    for container in CONTAINERS:
        if isinstance(content.get(container), dict):
            return content[container], args
    return content, args


def _refusal(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    text = str(error)
    marker = "GLOBAL "
    if marker in text or "Unsupported" in text or "weights_only" in text.lower():
        name = text.split(marker, 1)[1].split()[0] if marker in text else "code"
        return CheckpointError(
            path,
            f"is a pickle that needs code to be executed ({name.strip('`.,')}), which is refused",
            "ask its author for a safetensors file, or re-save only its tensors on a machine you can lose",
        )
    return CheckpointError(path, f"is not a checkpoint ({_first_line(error)})", "copy it again from its source")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
