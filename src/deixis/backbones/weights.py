"""Weights into networks, strictly: every tensor has its place and every place its tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deixis.errors import DeixisError, ModelError


def name_some(names: Collection[str]) -> str:
    """The first three of some names and how many more there are."""
    shown = ", ".join(list(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def read_safetensors(path: Path, error: type[DeixisError] = ModelError) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped into memory rather than copied.

    Raises:
        ModelError: if it is damaged or cannot be read; or the ``error`` asked for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, KeyError) as caught:
        raise error(path, f"is not a whole safetensors file ({caught})", "copy it again from its source") from caught


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """What keeps ``given`` from filling ``expected``, naming keys and shapes; None if nothing does.

    Number formats may differ in precision, not in kind.
    """
    if missing := [key for key in expected if key not in given]:
        return f"lacks {name_some(missing)}"
    if unknown := [key for key in given if key not in expected]:
        return f"has unknown {name_some(unknown)}"
    shapes = [
        f"{key} {list(given[key].shape)} instead of {list(like.shape)}"
        for key, like in expected.items()
        if given[key].shape != like.shape
    ]
    if shapes:
        return f"has wrong shapes: {name_some(shapes)}"
    kinds = [
        f"{key} {str(given[key].dtype).removeprefix('torch.')}"
        for key, like in expected.items()
        if given[key].is_floating_point() != like.is_floating_point()
    ]
    return f"has wrong number formats: {name_some(kinds)}" if kinds else None


def fill(network: nn.Module, tensors: Mapping[str, Tensor], label: object, remedy: str) -> None:
    """Give a network, usually one built on the meta device, its tensors; floating-point ones as float32.

    Tensors that are float32 already are taken as they are, so that mapped files stay mapped.

    Raises:
        ModelError: if a key is missing, unknown or of another shape; nothing is changed then.
    """
    problem = mismatch(network.state_dict(), tensors)
    if problem is not None:
        raise ModelError(label, problem, remedy)
    state = {key: value.to(torch.float32) if value.is_floating_point() else value for key, value in tensors.items()}
    network.load_state_dict(state, assign=True)


def tensors_sha256(network: nn.Module) -> str:
    """SHA-256 over names and float32 values of a network's tensors: the same for any layout of its files."""
    whole = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        whole.update(f"{key} {list(value.shape)}\n".encode())
        whole.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return whole.hexdigest()
