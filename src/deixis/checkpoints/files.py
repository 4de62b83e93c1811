"""Reading checkpoint files without ever executing what is in them."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from deixis.backbones.weights import name_some, read_safetensors
from deixis.errors import CheckpointError, first_line

# Where training scripts keep the weights inside their checkpoint.
CONTAINERS = ("model", "state_dict")

AGAIN = "copy it again from its source"

# What training options may hold besides plain values. Building one of these does nothing but build it.
HARMLESS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": argparse.Namespace,
    # As pure paths: the others can be built on their own system only, and reach into it.
    **{
        f"{module}.{pure}{system}Path": getattr(pathlib, f"Pure{system}Path")
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    },
    # Numbers as numpy writes them, under its names before and since version 2.
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray.scalar": np.float64(0).__reduce__()[0],
    "numpy._core.multiarray.scalar": np.float64(0).__reduce__()[0],
    **{f"numpy.dtypes.{type(np.dtype(code)).__name__}": type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
}


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint and what lay beside them.

    Attributes:
        tensors: by key; the ``module.`` of a wrapped model is removed.
        args: options of the training script, if it stored any.
        notes: what was done to the keys, in words.
        wrapped: whether the keys began with ``module.``.
    """

    tensors: dict[str, Tensor]
    args: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    wrapped: bool = False


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.safetensors`` file or a PyTorch checkpoint.

    A pickle may hold tensors, plain values and containers, and what :data:`HARMLESS` lists; anything else would
    need code to run and is refused. Tensors stay on disk until they are used, wherever the format allows, so that
    a training checkpoint does not cost the memory of its optimiser.

    Raises:
        CheckpointError: if the file is missing, truncated, unsafe, or holds no tensors.
    """
    path = Path(path)
    content = read_content(path)
    args = content.get("args", {})
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    for container in CONTAINERS:
        if isinstance(content.get(container), dict):
            content = content[container]
            break
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(path, "holds no tensors", "pass a file with model weights")
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(path, f"holds {key} in a special format", "save it as a plain tensor")

    notes = []
    other = [str(key) for key in content if key not in tensors]
    if other:
        notes.append(f"not weights, left out: {name_some(other)}")
    wrapped = all(key.startswith("module.") for key in tensors)
    if wrapped:
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        notes.append("prefix 'module.' of a model saved from distributed training removed")
    tensors = {key: value.detach() for key, value in tensors.items()}
    return Checkpoint(tensors, dict(args) if isinstance(args, dict) else {}, tuple(notes), wrapped)


def read_content(path: Path) -> dict[Any, Any]:
    """The dictionary in a ``.safetensors`` or PyTorch file, as it is.

    Raises:
        CheckpointError: if the file is missing, truncated, unsafe, or holds something else.
    """
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
        raise CheckpointError(path, "is empty", AGAIN)
    # The content decides, not the name: safetensors begin with JSON after a length, PyTorch's are zip or pickle.
    if head[8:9] == b"{":
        return dict(read_safetensors(path, CheckpointError))
    archived = head[:4] == b"PK\3\4"
    if archived:
        _check_archive(path)
    content = _load(path, mapped=archived)
    if not isinstance(content, dict):
        raise CheckpointError(
            path,
            f"holds a {type(content).__name__}, not a dictionary of tensors",
            "pass a file of model weights",
        )
    return content


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(path, "is cut off: the end of its archive is missing", AGAIN) from error
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(path, "is a TorchScript program, not weights", "save the model's state_dict()")
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(path, "is a zip archive, but not one of PyTorch", "pass the checkpoint itself")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(path, "has been compressed again", "unpack it and save it with torch.save")


def _load(path: Path, *, mapped: bool) -> object:
    allowed: list[Any] = [(value, name) for name, value in HARMLESS.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a hostile or cut-off file can fail anywhere in the parser
        if names := refused(path, error):
            raise CheckpointError(
                path,
                f"is a pickle that needs code to be executed ({name_some(names)}), which is refused",
                "ask its author for a safetensors file, or re-save only its tensors on a machine you can lose",
            ) from error
        with path.open("rb") as file:
            pickled = mapped or file.read(1) == pickle.PROTO
        if not pickled:
            raise CheckpointError(
                path, "is neither a PyTorch nor a safetensors file", "pass a file of model weights"
            ) from error
        if isinstance(error, pickle.UnpicklingError) and "operand" in str(error):
            raise CheckpointError(
                path,
                "is a pickle that cannot be read safely",
                "save its tensors with torch.save's default protocol",
            ) from error
        raise CheckpointError(path, f"is not a whole PyTorch checkpoint ({first_line(error)})", AGAIN) from error


def refused(path: Path, error: Exception) -> list[str]:
    """Names of what the safe reader of torch does not build, by the file and its error; none if that was another."""
    plain = ("_codecs.encode", "builtins.set", "collections.Counter", "collections.OrderedDict")
    known = {*plain, *HARMLESS}
    foreign = [name for name in _globals(path) if name not in known and not name.startswith("torch.")]
    # Which of PyTorch's own names are allowed is its secret; its error says which is not.
    named = re.search(r"GLOBAL (\S+)", str(error))
    return foreign or ([named[1]] if named else [])


def _globals(path: Path) -> Iterator[str]:
    """Names a PyTorch file's pickles import, found by reading their instructions without following any."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                with archive.open(member) as stream:
                    yield from _globals_in(stream)
        else:
            with path.open("rb") as stream:
                for _ in range(5):  # older files: five pickles, then the storages
                    yield from _globals_in(stream)
    except Exception:  # hostile bytes fail anywhere; these names only word the refusal, which comes either way
        return


def _globals_in(stream: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            yield _modern(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            yield _modern(strings[-2], strings[-1])
        elif isinstance(argument, str) and "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            strings.append(memo.get(int(argument or 0), ""))


def _modern(module: str, name: str) -> str:
    return f"{'builtins' if module == '__builtin__' else module}.{name}"
