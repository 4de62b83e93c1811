"""What frozen networks make of texts and pictures, kept on disk: what comes again is not encoded again.

A frozen text tower gives the same for the same text, and the encoder of a frozen autoencoder for the same picture.
With a cache both are asked one text or picture at a time: what they give then depends on nothing else in the batch, and
a run ends with the same bits whatever the cache holds already.

An entry's key is a hash of all that it depends on: the network's weights, its layers, what computes it in which number
format, and the token ids or pixels it is given. These are what tokenizer, padding rule, size, crop and changes of the
picture have made, so none of them can be forgotten. Latents are kept as the encoder gives them, before the posterior's
mean is taken and scaled.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import safetensors.torch
import torch
import transformers
from diffusers.models.autoencoders.vae import Encoder
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deixis.backbones.weights import tensors_sha256
from deixis.conditioning.text import TextTower
from deixis.errors import DeixisError
from deixis.io import printable, write_bytes
from deixis.registry import SYSTEMS
from deixis.training.recipe import Recipe


class Cache:
    """A folder of tensors by key, for any number of processes and runs.

    Each entry is a file of its own, written whole or not at all, with a checksum. Two processes that miss the same one
    write the same.

    Args:
        folder: where; it is made when there is something to keep.
        say: told of an entry that is damaged.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._asked = self._found = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        """Itself: the copies of a network share it."""
        return self

    def __call__(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """An entry, on the CPU; computed and kept where there is none, or a damaged one.

        Raises:
            DeixisError: if it cannot be read or written.
        """
        path = self.folder / key[:2] / f"{key}.safetensors"
        self._asked += 1
        kept = self._read(path)
        if kept is not None:
            self._found += 1
            return kept
        value = compute().detach().cpu().contiguous()
        content = safetensors.torch.save({"value": value}, {"sha256": _digest(value)})
        try:
            write_bytes(path, content)
        except DeixisError as error:
            raise DeixisError(
                error.subject,
                error.problem,
                "free space, or give the same command with cache=DIR or cache=null: the last checkpoint is intact",
            ) from error
        return value

    def share(self) -> float:
        """How often there was an entry since this was last asked, of 1."""
        found = self._found / max(1, self._asked)
        self._asked = self._found = 0
        return found

    def _read(self, path: Path) -> Tensor | None:
        try:
            with safe_open(path, framework="pt") as file:
                value: Tensor = file.get_tensor("value")
                whole = (file.metadata() or {}).get("sha256") == _digest(value)
        except FileNotFoundError:
            return None
        except SafetensorError:
            whole = False
        except OSError as error:
            raise DeixisError(
                printable(path),
                f"cannot be read ({error.strerror or error})",
                "choose another cache=DIR, or cache=null",
            ) from error
        if whole:
            return value
        self.say(f"{printable(path)} is damaged: it is computed again")
        return None


def ask_alone(model: nn.Module, cache: Cache, *, repeated: bool) -> set[str]:
    """Have frozen text towers and picture encoders asked one input at a time from now on, in place.

    Args:
        model: the network, or a part of it.
        cache: keeps what they give.
        repeated: whether pictures that are learned from come again, pixel by pixel. If not, encoders are asked alone
            where they are not being trained with: for pictures that are validated on.

    Returns:
        what they are: ``texts``, ``pictures``.
    """
    found = set()
    for module in model.modules():
        if not isinstance(module, TextTower | Encoder) or any(one.requires_grad for one in module.parameters()):
            continue
        texts = isinstance(module, TextTower)
        if isinstance(module, TextTower) and module.clip.config.attention_dropout:
            continue  # it never gives the same twice
        module.forward = _Alone(module, cache, always=texts or repeated)  # type: ignore[method-assign]  # in place
        found.add("texts" if texts else "pictures")
    return found


def is_asked_alone(tower: TextTower) -> bool:
    """Whether a text tower is asked one text at a time."""
    return isinstance(tower.forward, _Alone)


class _Alone:
    """The forward pass of a frozen network, row by row; equal rows of a batch are computed once.

    Args:
        network: whose.
        cache: see :func:`ask_alone`.
        always: in training as well.
    """

    def __init__(self, network: nn.Module, cache: Cache, *, always: bool) -> None:
        self.network, self.forward, self.cache, self.always = network, network.forward, cache, always
        # Not known before the first call: a run that goes on reads its weights after it was built.
        self.about: str | None = None

    def __call__(self, given: Tensor, **how: bool) -> Tensor:
        """[B, …] as the network itself would, in the usual layout."""
        if self.network.training and not self.always:
            return self.forward(given, **how)
        found: dict[bytes, Tensor] = {}
        order = []
        for row in given:
            alone = row[None].contiguous()
            content = _bytes(alone)
            if content not in found:
                found[content] = self._one(alone, content, how)
            order.append(found[content])
        return torch.cat(order).contiguous()

    def _one(self, given: Tensor, content: bytes, how: dict[str, bool]) -> Tensor:
        if self.about is None:
            self.about = _about(self.network)
        kind = given.device.type
        number = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "plain"
        asked = json.dumps([self.about, number, str(given.dtype), list(given.shape), how])
        key = hashlib.sha256(asked.encode() + b"\n" + content).hexdigest()
        return self.cache(key, lambda: self.forward(given, **how)).to(given.device)


def _about(network: nn.Module) -> str:
    """All that what a network gives depends on, to the last bit, but for what it is given."""
    own: Any = network
    first = next(network.parameters())
    return json.dumps(
        {
            "weights": tensors_sha256(network),
            # Layers, their sizes and activations; heads and the like are in the configuration of a text tower, and an
            # autoencoder's encoder has always one.
            "layers": repr(network),
            "config": own.clip.config.to_json_string() if isinstance(network, TextTower) else "",
            # Another layout in memory takes another kernel, which adds in another order.
            "layout": [list(one.stride()) for one in network.parameters()],
            "number": str(first.dtype),
            "threads": torch.get_num_threads() if first.device.type == "cpu" else 0,
            "computer": torch.cuda.get_device_name(first.device)
            if first.device.type == "cuda"
            else f"{first.device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            "libraries": [torch.__version__, diffusers.__version__, transformers.__version__],
        }
    )


def changed_by(recipe: Recipe) -> str | None:
    """What makes the pictures of a recipe new ones in each step, as ``key=value``; None if they come again.

    A mirrored picture is no new one: there are two of each.
    """
    depth = recipe.system in SYSTEMS and SYSTEMS[recipe.system].task == "depth"
    if depth and recipe.crop is not None:
        return f"crop={recipe.crop}"
    if recipe.data.sets:
        if recipe.data.transforms == "vpd":
            return "data.transforms=vpd"
        for label, one in recipe.data.sets.items():
            if depth and one.size is not None and list(one.size) != list(recipe.data.size):
                return f"data.sets.{label}.size={list(one.size)}"
        return None
    still = {"zoom": 1.0, "rotate_deg": 0.0, "colour": 0.0, "grey": 0.0}
    for name, value in still.items():
        if getattr(recipe.augment, name) != value:
            return f"augment.{name}={getattr(recipe.augment, name)}"
    (height, width), (stored_height, stored_width) = recipe.data.size, recipe.data.stored
    refer = recipe.system in SYSTEMS and not depth
    if not refer and width * stored_height != stored_width * height:  # windows are moved about in what is stored
        return f"data.size={list(recipe.data.size)}"
    return None


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _digest(value: Tensor) -> str:
    return hashlib.sha256(_bytes(value)).hexdigest()
