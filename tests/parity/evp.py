"""Check EVP and VPD against recorded outputs of the official code: one row per tensor.

    python -m tests.parity.evp CASE.manifest.json CASE.npz

The official checkpoint is rebuilt from the manifest (key by key, in ``pseudo_weights``), goes through the same
conversion as ``deixis convert``, and every recorded intermediate is compared by its centred relative error.
Exit code: 0 if all agree, 1 if one does not, 2 if the case cannot be run.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deixis.checkpoints.convert import FAMILIES, from_official, recognise
from deixis.checkpoints.files import Checkpoint
from deixis.checkpoints.folder import fill_parts
from deixis.errors import DeixisError
from tests.parity.pseudo_weights import pseudo_input, pseudo_tensor

# Centred relative error; the recording's README gives these limits and the noise they leave room for.
LIMITS = {"latents": 5e-6, "pred_d": 5e-5}
DEFAULT_LIMIT = 3e-5
# Difference of the full tensor's mean and standard deviation, in standard deviations.
STATS_LIMIT = 1e-5

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One compared tensor."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # False for NaN


def failure(name: str, why: str) -> Row:
    """A row for what cannot be compared."""
    return Row(f"{name} ({why})", float("nan"), 0.0)


@dataclass
class Case:
    """A recorded case.

    Attributes:
        manifest: how weights and inputs are made, and what was recorded.
        recorded: the npz, by name.
        inputs: names in the npz that are inputs, found while the recipes are followed.
    """

    manifest: dict[str, Any]
    recorded: dict[str, Array]
    inputs: set[str]

    @classmethod
    def read(cls, manifest: Path, npz: Path) -> Case:
        with np.load(npz) as arrays:
            return cls(json.loads(manifest.read_text()), dict(arrays), set())

    @property
    def seed(self) -> int:
        return int(self.manifest["seed"])

    def make(self, spec: Mapping[str, Any]) -> Array:
        """The array of a ``special_tensors`` or ``inputs`` entry."""
        recipe = spec.get("recipe")
        if recipe is None:
            return np.asarray(spec["value"])
        try:
            value = np.asarray(follow(recipe, self.seed))
        except ValueError:
            value = self.recorded[self.quoted(recipe)]
        shape = tuple(spec.get("shape", value.shape))
        if value.shape == ():
            value = np.full(shape, value)
        if value.shape != shape:
            raise ValueError(f"recipe {recipe!r} gives shape {value.shape}, not {shape}")
        return value.astype(spec.get("dtype", value.dtype))

    def quoted(self, recipe: str) -> str:
        """The array of the npz that a recipe names; it counts as an input from then on."""
        for name in self.recorded:
            if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)", recipe):
                self.inputs.add(name)
                return name
        raise ValueError(f"recipe {recipe!r} is not known")


# What may follow a recipe's expression: words, after one of these.
_REMARK = re.compile(r"\s*([,;:(]|in shape\b|$)")
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "pseudo_input": pseudo_input,
    "pseudo_tensor": pseudo_tensor,
    **{f"{module}.{name}": getattr(np, name) for module in ("np", "numpy") for name in ("arange", "ones", "zeros")},
    **{f"{module}.full": np.full for module in ("np", "numpy")},
}


def follow(recipe: str, seed: int) -> Any:
    """The value of a recipe: an expression, perhaps with remarks behind it.

    Raises:
        ValueError: if it is anything but arithmetic on the functions known here.
    """
    for end in range(len(recipe), 0, -1):
        if _REMARK.match(recipe, end):
            try:
                value = _value(ast.parse(recipe[:end].strip(), mode="eval").body, seed)
            except (SyntaxError, ValueError):
                continue
            if not isinstance(value, str):
                return value
    raise ValueError(f"recipe {recipe!r} is not known")


def _value(node: ast.expr, seed: int) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, str | int | float):
            return value
        case ast.Name(id="seed"):
            return seed
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(_value(part, seed) for part in parts)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, seed)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, seed), _value(right, seed))
        case ast.Call(func=function, args=arguments, keywords=keywords):
            values = [_value(argument, seed) for argument in arguments]
            named = {str(keyword.arg): _value(keyword.value, seed) for keyword in keywords}
            if ast.unparse(function) in _FUNCTIONS:
                return _FUNCTIONS[ast.unparse(function)](*values, **named)
            if isinstance(function, ast.Attribute) and function.attr == "reshape":
                return _value(function.value, seed).reshape(*values)
    raise ValueError(ast.unparse(node))


def run_case(manifest: Path, npz: Path) -> list[Row]:
    """Build the case's model, run it and compare every array of the npz.

    Raises:
        ValueError: if the manifest describes something this harness does not know.
    """
    case = Case.read(manifest, npz)
    model = build(case)
    return compare(forward(model, case), case)


def build(case: Case) -> nn.Module:
    """The official checkpoint of a manifest, converted and loaded."""
    manifest = case.manifest
    if manifest.get("gain", 1.0) != 1.0:
        raise ValueError(f"gain {manifest['gain']} is not known")
    tensors = {
        key: torch.from_numpy(np.asarray(pseudo_tensor(key, tuple(shape), case.seed)))
        for key, shape in manifest["tensors"]
    }
    for key, spec in manifest["special_tensors"].items():
        tensors[key] = torch.from_numpy(case.make(spec))
    args = {"max_depth": manifest["max_depth"]} if "max_depth" in manifest else {}
    converted = from_official(Checkpoint(tensors, args), family(manifest, tensors), manifest["case"])
    tensors.clear()
    return fill_parts(converted.manifest, converted.parts, manifest["case"])


def family(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The ``--to`` name of a case: the keys tell the system, :func:`dataset` the setting."""
    system = recognise(tensors)
    names = [name for name, entry in FAMILIES.items() if entry.system == system]
    if not names:
        raise ValueError(f"case {manifest['case']} has no keys of EVP or VPD")
    return names[0] if len(names) == 1 else next(name for name in names if name.endswith(dataset(manifest)))


def dataset(manifest: Mapping[str, Any]) -> str:
    """``nyu`` or ``kitti``: what the first clue that names one says; without any, the size of the image."""
    inputs = manifest["inputs"]
    clues = (
        manifest.get("dataset"),
        inputs.get("dataset"),
        inputs.get("class_embedding_file", {}).get("file"),
        manifest["case"],
        inputs.get("img_paths"),
    )
    for clue in clues:
        named = [name for name in ("nyu", "kitti") if name in str(clue).lower()]
        if len(named) == 1:
            return named[0]
    return "kitti" if inputs["image"]["shape"][-2] == 352 else "nyu"


def forward(model: nn.Module, case: Case) -> dict[str, Tensor]:
    """Run the model on the case's inputs; every named intermediate, under the recording's names."""
    image = torch.from_numpy(case.make(case.manifest["inputs"]["image"]))
    depth = hasattr(model, "join")
    if not depth:
        image = (image + 1) / 2  # the official referring models take [-1, 1], ours [0, 1]
    found: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(_recorder(found, name)) for name, module in _taps(model).items()]
    with torch.inference_mode():
        text = _text(model, case)
        if model.text_tower is not None:
            found["clip_last_hidden_state"] = text
        # One text for all images, as where the official code ignores the class ids.
        found["pred_d" if depth else "logits"] = model(image, text.expand(len(image), -1, -1))
    for hook in hooks:
        hook.remove()
    for level in model.unet._probes:
        found[f"attn_level{level}"] = found[f"unet_out{level}"][:, -text.shape[1] :]
    return found


def _text(model: nn.Module, case: Case) -> Tensor:
    inputs = case.manifest["inputs"]
    if "l_feats" in inputs:
        return torch.from_numpy(case.make(inputs["l_feats"]))
    if "token_ids" in inputs:
        text: Tensor = model.text_tower(torch.from_numpy(case.make(inputs["token_ids"])).long())
        return text
    stored: Tensor = model.stored_text
    return stored if len(stored) == 1 else stored[torch.from_numpy(case.make(inputs["class_ids"])).long()]


def _taps(model: nn.Module) -> dict[str, nn.Module]:
    taps = {"latents": model.image_encoder, "context": model.text_adapter, "unet_out": model.unet}
    if getattr(model, "imafr", None) is not None:
        taps["imafr_out"] = model.imafr
    if not hasattr(model, "join"):
        return taps | {"classifier_out": model.decoder}
    taps |= {"layer1": model.join.layer1, "layer2": model.join.layer2, "conv_feats": model.join}
    taps["decoded"] = model.decoder
    if getattr(model, "bins", None) is not None:
        taps |= {"seed_b_centers": model.bins.seed, "bin_probabilities": model.bins.log_binomial}
        taps |= {f"b_centers{i}": attractor for i, attractor in enumerate(model.bins.attractors)}
    return taps


def _recorder(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, args: Any, out: Any) -> None:
        if name == "decoded":
            # EVP and VPD call the same map by different names.
            found["decoder_out_depth"] = found["out_depth_logit"] = out.logit
            found["decoder_out"] = out.features
            found.update({f"x_block{i}": level for i, level in enumerate(out.pyramid)})
        elif isinstance(out, list):
            found.update({f"{name}{i}": level for i, level in enumerate(out)})
        else:
            found[name] = out

    return record


def compare(found: Mapping[str, Tensor], case: Case) -> list[Row]:
    """Rows for the stored part, the full tensor's statistics and the packed mask.

    Whatever the npz or the manifest holds and cannot be compared is a row that fails.
    """
    names = dict.fromkeys([*case.manifest["outputs"], *(n.removesuffix(".stats") for n in case.recorded)])
    return [row for name in names if name not in case.inputs for row in _compare(name, found, case)]


def _compare(name: str, found: Mapping[str, Tensor], case: Case) -> Iterator[Row]:
    part, stats = case.recorded.get(name), case.recorded.get(f"{name}.stats")
    if part is None and stats is None:
        yield failure(name, "in the manifest, not in the npz")
    elif name == "argmax_packed" and part is not None:
        yield _compare_mask(found, part, case.manifest)
    elif name not in found:
        yield failure(name, "this model has no such tensor")
    elif name not in case.manifest["outputs"]:
        yield failure(name, "in the npz, not in the manifest")
    else:
        spec = case.manifest["outputs"][name]
        full = found[name].double().numpy()
        if list(full.shape) != list(spec["full_shape"]):
            yield failure(name, f"shape {list(full.shape)} instead of {spec['full_shape']}")
            return
        if part is not None:
            yield Row(name, centred(full[_index(spec["index"])], part), LIMITS.get(name, DEFAULT_LIMIT))
        if stats is not None:
            off = max(abs(full.mean() - stats[0]), abs(full.std() - stats[1]))
            yield Row(f"{name}.stats", float(off / (stats[1] or 1.0)), STATS_LIMIT)


def centred(value: Array, truth: Array) -> float:
    """``||a - b|| / ||b - mean(b)||``; NaN where the shapes differ."""
    if value.shape != truth.shape:
        return float("nan")
    truth = truth.astype(np.float64)
    return float(np.linalg.norm(value - truth) / (np.linalg.norm(truth - truth.mean()) or 1.0))


def _index(text: str) -> tuple[slice, ...]:
    """``all`` or ``[:,::16,::2,::2]``."""
    if text == "all":
        return ()
    parts = text.strip("[]").split(",")
    return tuple(slice(*(int(n) if n.strip() else None for n in part.split(":"))) for part in parts)


def _compare_mask(found: Mapping[str, Tensor], packed: Array, manifest: Mapping[str, Any]) -> Row:
    """Number of pixels on the other side; at most those that the recording itself calls too close."""
    name = "argmax_packed"
    if "logits" not in found:
        return failure(name, "this model has no logits")
    mask = found["logits"].argmax(dim=1).numpy()
    truth = np.unpackbits(packed)
    if not mask.size <= truth.size < mask.size + 8:
        return failure(name, f"{truth.size} pixels instead of {mask.size}")
    differing = int((mask.ravel() != truth[: mask.size]).sum())
    return Row(f"{name} (pixels)", differing, manifest.get("argmax", {}).get("pixels_with_margin_below_1e-3", 0))


def main(arguments: list[str]) -> int:
    """Print a row per tensor; 0 if all pass, 1 if one fails, 2 if the case cannot be run."""
    if len(arguments) != 2:
        print("usage: python -m tests.parity.evp CASE.manifest.json CASE.npz", file=sys.stderr)
        return 2
    try:
        rows = run_case(Path(arguments[0]), Path(arguments[1]))
    except OSError as error:
        print(f"{error.filename or arguments[1]}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (
        DeixisError,
        zipfile.BadZipFile,
        EOFError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        print(f"{arguments[0]}: cannot be run ({type(error).__name__}: {error})", file=sys.stderr)
        return 2
    return report(rows)


def report(rows: list[Row]) -> int:
    """Print the rows; 0 if all pass, 1 if one fails, 2 if there is none."""
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        print(f"{row.name:<{width}}  {row.error:9.2e}  {row.limit:9.2e}  {'pass' if row.passed else 'FAIL'}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} pass")
    return 1 if failed else 0 if rows else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
