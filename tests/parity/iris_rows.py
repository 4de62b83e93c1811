"""Recorded cases of Marigold, Lotus and E2E-FT: how one is read, and what becomes of each number in it.

A case is ``<name>.json`` (what was run, and scalars) with, for most, ``<name>.npz`` (arrays). Everything a check
reads from the recording is ticked off; what nobody asked for becomes a row that fails.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from tests.parity.pseudo_weights import pseudo_input, pseudo_state_dict

DEFAULT_LIMIT = 1e-4

# What a recording says about itself; anything beside it is a result.
DESCRIPTION = {"arrays", "batch_layout", "case", "environment", "formula", "inputs", "models"}
DESCRIPTION |= {"recipes", "schedulers", "seed", "source", "steps", "tolerance", "toy"}
# Strings under these names are remarks, wherever they stand.
REMARKS = {"note", "notes", "random source"}

RECIPE = re.compile(r"\b(unit|signed|noise|u8)\(\s*'([^']+)'\s*,\s*\(([^)]*)\)\s*\)")

Array = np.ndarray[Any, Any]
Path_ = tuple[str | int, ...]


class Row(NamedTuple):
    """One compared value or array."""

    case: str
    name: str
    error: float
    limit: float

    @property
    def passes(self) -> bool:
        return self.error <= self.limit  # False for NaN


def failure(case: str, name: str, why: str) -> Row:
    """A row for what cannot be compared."""
    return Row(case, f"{name} ({why})", math.nan, 0.0)


def compare(
    case: str, name: str, ours: Any, theirs: Any, *, atol: float | None = None, rtol: float | None = None
) -> Row:
    """How far ours is from theirs.

    Arrays with spread: ``||a - b|| / ||b - mean(b)||`` against ``rtol`` (or ``atol``), so that a constant offset
    does not hide behind a large mean; and the same of the largest entries instead of the norms, so that one wrong
    entry does not hide among many. Numbers, and arrays of one value: the largest ``|a - b| / |b|`` against
    ``rtol``; with both tolerances ``|a - b| / (|b| + atol / rtol)``; with ``atol`` alone ``|a - b|`` against it.
    NaN and infinities must be in the same places. Whole numbers, and anything else (text, truth values) must be equal.
    """
    if isinstance(theirs, str | bool | None) or isinstance(ours, str | bool | None):
        return Row(case, name, 0.0 if type(ours) is type(theirs) and ours == theirs else math.inf, 0.0)
    if isinstance(theirs, int) and isinstance(ours, int):  # a count
        return Row(case, name, float(abs(ours - theirs)), 0.0)
    if atol is None and rtol is None:
        rtol = DEFAULT_LIMIT
    a, b = _array(ours), _array(theirs)
    if a.shape != b.shape:
        return failure(case, name, f"{list(a.shape)} instead of {list(b.shape)}")
    limit = rtol if rtol is not None else atol
    assert limit is not None
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    off = np.where(same, 0.0, np.abs(np.subtract(a, b, out=np.full(a.shape, math.nan), where=~same)))
    known = b[np.isfinite(b)]
    if known.size > 1 and known.min() < known.max():
        centred = known - known.mean()
        whole, worst = np.linalg.norm(off) / np.linalg.norm(centred), off.max() / np.abs(centred).max()
        return Row(case, name, float(np.maximum(whole, worst)), limit)
    if rtol is not None:
        size = np.where(np.isfinite(b), np.abs(b), 0.0) + (atol or 0.0) / rtol
        off = off / np.where(size > 0, size, 1.0)
    return Row(case, name, float(off.max(initial=0.0)), limit)


def _array(value: Any) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype in (torch.float16, torch.bfloat16) else value.numpy()
    return np.asarray(value, dtype=np.float64)


def recipes_in(text: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """The recipes in a line of prose: kind, name and shape of each."""
    return [
        (kind, name, tuple(int(side) for side in shape.split(",") if side.strip()))
        for kind, name, shape in RECIPE.findall(text)
    ]


def groups(pattern: str, text: str) -> tuple[str, ...]:
    """What a pattern's groups match in a remark.

    Raises:
        ValueError: if the remark does not say it.
    """
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{text!r} does not say {pattern!r}")
    return found.groups()


def follow(kind: str, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The input that a recipe describes.

    Raises:
        ValueError: for a kind that is not known.
    """
    unit = pseudo_input(name, shape, seed)
    if kind == "u8":
        return torch.from_numpy(np.floor(unit * 256).astype(np.uint8))
    if kind == "noise":
        unit = (unit - np.float32(0.5)) * np.float32(math.sqrt(12))
    elif kind == "signed":
        unit = unit * 2 - 1
    elif kind != "unit":
        raise ValueError(f"recipe {kind!r} is not known")
    return torch.from_numpy(unit)


@dataclass
class Case:
    """A recorded case, and the rows it has given so far.

    Attributes:
        folder: where it lies.
        name: of the case.
        facts: the json.
        arrays: the npz, by name.
        rows: of what was compared.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    arrays: dict[str, Array]
    rows: list[Row] = field(default_factory=list)
    _models: dict[str, nn.Module] = field(default_factory=dict)
    _texts: dict[str, Tensor] = field(default_factory=dict)
    _seen_facts: set[Path_] = field(default_factory=set)
    _seen_arrays: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path, name: str) -> Case:
        """Read the json and, where it names arrays, the npz."""
        facts = json.loads((folder / f"{name}.json").read_text())
        arrays: dict[str, Array] = {}
        if facts.get("arrays") or (folder / f"{name}.npz").exists():
            with np.load(folder / f"{name}.npz") as stored:
                arrays = dict(stored)
        return cls(folder, name, facts, arrays)

    @property
    def seed(self) -> int:
        return int(self.facts.get("seed", 0))

    @cached_property
    def tolerance(self) -> dict[str, float]:
        """``rtol`` or ``atol``, as the recording asks."""
        found = re.findall(r"\b([ar]tol)\s+([\d.eE+-]+)", str(self.facts.get("tolerance", "")))
        return {name: float(value) for name, value in found} or {"rtol": DEFAULT_LIMIT}

    def make(self, entry: str, which: int | str = 0) -> Tensor:
        """The input of an entry in ``inputs``: its ``which``-th recipe, or the one whose name begins with it."""
        found = recipes_in(self.facts["inputs"][entry])
        if isinstance(which, str):
            found, which = [recipe for recipe in found if recipe[1].startswith(which)], 0
        if which >= len(found):
            raise ValueError(f"{self.name}: input {entry!r} has no recipe {which!r}")
        return follow(*found[which], self.seed)

    def model(self, part: str) -> nn.Module:
        """A part of the checkpoint, filled with its pseudo-weights; in evaluation mode."""
        if part not in self._models:
            path = self.folder / self.facts["models"][part]
            manifest = json.loads(path.read_text())
            kind = manifest["class"]
            module: nn.Module
            if "UNet2DConditionModel" in kind:
                module = UNet2DConditionModel.from_config(manifest["config"])
            elif "AutoencoderKL" in kind:
                module = AutoencoderKL.from_config(manifest["config"])
            elif "CLIPTextModel" in kind:
                module = CLIPTextModel(CLIPTextConfig(**manifest["config"]))
            else:
                raise ValueError(f"{path.name}: class {kind!r} is not known")
            weights = pseudo_state_dict(path, self.seed)
            module.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
            self._models[part] = module.eval()
        return self._models[part]

    def text(self, name: str) -> Tensor:
        """Text vectors [1, T, C] of one of the recorded token sequences."""
        if name not in self._texts:
            ids = torch.tensor([self.facts["inputs"]["token_ids"][name]])
            with torch.no_grad():
                self._texts[name] = self.model("text_encoder")(input_ids=ids).last_hidden_state
        return self._texts[name]

    def array(self, name: str) -> Tensor:
        """An array of the npz that is an input."""
        self._seen_arrays.add(name)
        return torch.from_numpy(self.arrays[name])

    def fact(self, *path: str | int) -> Any:
        """An entry of the json that is an input, with all it holds."""
        self._seen_facts.add(path)
        value: Any = self.facts
        for key in path:
            value = value[key]
        return value

    def check(self, ours: Any, *path: str | int, **tolerance: float) -> None:
        """Compare with an entry of the json: a number, or lists of numbers one by one."""
        theirs = self.fact(*path)
        for place, one, other in _pairs(ours, theirs):
            name = ".".join(map(str, path)) + place
            self.rows.append(compare(self.name, name, one, other, **(tolerance or self.tolerance)))

    def check_array(self, name: str, ours: Any, **tolerance: float) -> None:
        """Compare with an array of the npz, if it was recorded; :meth:`finish` finds those that are missing."""
        if name in self.arrays:
            self._seen_arrays.add(name)
            self.rows.append(compare(self.name, name, ours, self.arrays[name], **(tolerance or self.tolerance)))

    def fail(self, name: str, why: str) -> None:
        """Note what cannot be compared."""
        self.rows.append(failure(self.name, name, why))

    def finish(self) -> list[Row]:
        """All rows, with one that fails for every array and every value that nobody compared or read."""
        declared = self.facts.get("arrays", {})
        for name in sorted({*declared, *self.arrays} - self._seen_arrays):
            self.fail(name, "compared with nothing" if name in self.arrays else "not in the npz")
        for path in _leaves({key: value for key, value in self.facts.items() if key not in DESCRIPTION}):
            if not any(path[:length] in self._seen_facts for length in range(1, len(path) + 1)):
                self.fail(".".join(map(str, path)), "compared with nothing")
        if not self.rows:
            self.fail("the case", "nothing to compare")
        return self.rows


def _leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values in a json, but for remarks."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*path, i))
    elif not (isinstance(value, str) and REMARKS.intersection(path)):
        yield path


def _pairs(ours: Any, theirs: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Ours and theirs, down to single values; where lists differ in length they stay whole."""
    if isinstance(ours, Tensor | np.ndarray | tuple):
        ours = [*ours] if isinstance(ours, tuple) else ours.tolist()
    if isinstance(theirs, list) and isinstance(ours, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _pairs(one, other, f"{place}[{i}]")
    elif isinstance(theirs, list) or isinstance(ours, list):
        yield place, str(ours), f"{theirs} expected"
    else:
        yield place, ours, theirs
