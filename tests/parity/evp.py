"""Check EVP and VPD against recorded outputs of the official code: one row per tensor.

    python -m tests.parity.evp CASE.manifest.json CASE.npz

The official checkpoint is rebuilt from the manifest (key by key, in ``pseudo_weights``), goes through the same
conversion as ``deixis convert``, and every recorded intermediate is compared by its centred relative error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.checkpoints.convert import FAMILIES, from_official
from deixis.checkpoints.files import Checkpoint
from deixis.checkpoints.folder import fill, network
from tests.parity.pseudo_weights import pseudo_input, pseudo_tensor

LIMITS = {"latents": 5e-6, "pred_d": 5e-5}
DEFAULT_LIMIT = 3e-5
# Plain difference of mean and standard deviation of the full tensor, relative to its standard deviation.
STATS_LIMIT = 1e-4


@dataclass(frozen=True)
class Row:
    """One compared tensor."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # False for NaN


def run_case(manifest_path: Path, npz_path: Path) -> list[Row]:
    """Build the case's model, run it and compare every array of the npz.

    Raises:
        ValueError: if the manifest describes something this harness does not know.
    """
    manifest = json.loads(manifest_path.read_text())
    expected = np.load(npz_path)
    model = build(manifest, expected)
    found = forward(model, manifest, expected)
    return compare(found, expected, manifest)


def build(manifest: dict[str, Any], expected: Any) -> nn.Module:
    """The official checkpoint of a manifest, converted and loaded."""
    seed = manifest["seed"]
    gain = manifest.get("gain", 1.0)
    if gain != 1.0:
        raise ValueError(f"gain {gain} is not known")
    tensors = {key: torch.from_numpy(pseudo_tensor(key, tuple(shape), seed)) for key, shape in manifest["tensors"]}
    for key, spec in manifest["special_tensors"].items():
        tensors[key] = _special(spec, manifest, expected)
    converted = from_official(Checkpoint(tensors), family(manifest["case"], tensors), manifest["case"])
    tensors.clear()
    with torch.device("meta"):
        model = network(converted.manifest, StableDiffusion.from_config(converted.manifest.architecture))
    fill(model, converted.parts, manifest["case"])
    return model.eval()


def family(case: str, tensors: dict[str, Tensor]) -> str:
    """The ``--to`` name of a case; EVP depth states its dataset in its name."""
    for name in FAMILIES:
        if case.replace("_", "-").startswith(name):
            return name
    raise ValueError(f"case {case} is of no known family")


def _special(spec: dict[str, Any], manifest: dict[str, Any], expected: Any) -> Tensor:
    recipe, shape = spec["recipe"], tuple(spec["shape"])
    if recipe.startswith("pseudo_input("):
        return torch.from_numpy(_evaluate(recipe, manifest["seed"]))
    if "nyu_class_embeddings" in recipe:
        return torch.from_numpy(expected["nyu_class_embeddings"])
    if recipe.startswith("numpy.arange"):
        return torch.arange(shape[1]).reshape(shape)
    number = re.match(r"([\d.]+) in shape", recipe)
    if number:
        return torch.full(shape, float(number[1]))
    raise ValueError(f"recipe {recipe!r} is not known")


_RECIPE = re.compile(r"pseudo_input\('([^']+)', \(([\d, ]+)\), (?:seed|(\d+))\)( \* 2 - 1)?")


def _evaluate(recipe: str, seed: int, *, scaled: bool = True) -> np.ndarray[Any, Any]:
    match = _RECIPE.fullmatch(recipe)
    if not match:
        raise ValueError(f"recipe {recipe!r} is not known")
    shape = tuple(int(side) for side in match[2].split(",") if side.strip())
    value = pseudo_input(match[1], shape, int(match[3]) if match[3] else seed)
    return value * 2 - 1 if match[4] and scaled else value


def forward(model: nn.Module, manifest: dict[str, Any], expected: Any) -> dict[str, Tensor]:
    """Run the model on the case's inputs; every named intermediate, in the official code's order."""
    inputs, seed = manifest["inputs"], manifest["seed"]
    # Our networks take [0, 1]; the referring cases state their input in [-1, 1], mapped from the same draw.
    image = torch.from_numpy(_evaluate(inputs["image"]["recipe"], seed, scaled=False))
    found: dict[str, Tensor] = {}
    keep = [name for name in expected.files if not name.endswith(".stats")]
    hooks = [module.register_forward_hook(_recorder(found, name)) for name, module in _taps(model).items()]
    with torch.inference_mode():
        text = _text(model, inputs, seed)
        if "clip_last_hidden_state" in keep:
            found["clip_last_hidden_state"] = text
        out = model(image, text)
    for hook in hooks:
        hook.remove()
    depth = hasattr(model, "join")
    found["pred_d" if depth else "logits"] = out
    for level in (1, 2):
        tokens = found["context"].shape[1]
        found[f"attn_level{level}"] = found[f"unet_out{level}"][:, -tokens:]
    return found


def _text(model: nn.Module, inputs: dict[str, Any], seed: int) -> Tensor:
    if "l_feats" in inputs:
        return torch.from_numpy(_evaluate(inputs["l_feats"]["recipe"], seed))
    if "token_ids" in inputs:
        text: Tensor = model.text_tower(torch.tensor(inputs["token_ids"]["value"]))
        return text
    stored: Tensor = model.stored_text
    # With one averaged embedding the official code ignores the class ids.
    return stored if len(stored) == 1 else stored[inputs["class_ids"]["value"]]


def _taps(model: nn.Module) -> dict[str, nn.Module]:
    taps = {"latents": model.image_encoder, "context": model.text_adapter, "unet_out": model.unet}
    if getattr(model, "imafr", None) is not None:
        taps["imafr_out"] = model.imafr
    if not hasattr(model, "join"):
        return taps | {"classifier_out": model.decoder}
    taps |= {
        "layer1": model.join.layer1,
        "layer2": model.join.layer2,
        "conv_feats": model.join,
        "decoded": model.decoder,
    }
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


def compare(found: dict[str, Tensor], expected: Any, manifest: dict[str, Any]) -> list[Row]:
    """Rows for the stored part, the full tensor's statistics and the packed mask."""
    rows = []
    for name in expected.files:
        if name.endswith(".stats") or name == "nyu_class_embeddings":
            continue
        if name == "argmax_packed":
            rows.append(_compare_mask(found["logits"], expected[name], manifest))
            continue
        if name not in found:
            rows.append(Row(name, float("nan"), 0.0))
            continue
        spec = manifest["outputs"][name]
        full = found[name].double().numpy()
        if list(full.shape) != spec["full_shape"]:
            rows.append(Row(f"{name} shape {list(full.shape)}", float("nan"), 0.0))
            continue
        part = full if spec["index"] == "all" else full[_index(spec["index"])]
        truth = expected[name].astype(np.float64)
        error = np.linalg.norm(part - truth) / np.linalg.norm(truth - truth.mean())
        rows.append(Row(name, float(error), LIMITS.get(name, DEFAULT_LIMIT)))
        if f"{name}.stats" in expected.files:
            mean, std = expected[f"{name}.stats"][:2]
            off = max(abs(full.mean() - mean), abs(full.std() - std)) / std
            rows.append(Row(f"{name}.stats", float(off), STATS_LIMIT))
    return rows


def _index(text: str) -> tuple[slice, ...]:
    parts = text.strip("[]").split(",")
    return tuple(slice(*(int(n) if n else None for n in part.split(":"))) for part in parts)


def _compare_mask(logits: Tensor, packed: np.ndarray[Any, Any], manifest: dict[str, Any]) -> Row:
    """Share of pixels on the other side, beyond those the recording itself calls too close."""
    shape = logits.shape[-2:]
    truth = np.unpackbits(packed)[: shape[0] * shape[1]].reshape(shape)
    differing = int((logits.argmax(dim=1)[0].numpy() != truth).sum())
    close = manifest["argmax"]["pixels_with_margin_below_1e-3"]
    return Row("argmax_packed (pixels)", float(differing), float(close))


def main(arguments: list[str]) -> int:
    """Print a row per tensor; 0 if all pass, 1 if one fails, 2 for wrong usage."""
    if len(arguments) != 2:
        print("usage: python -m tests.parity.evp CASE.manifest.json CASE.npz", file=sys.stderr)
        return 2
    try:
        rows = run_case(Path(arguments[0]), Path(arguments[1]))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.name:<{width}}  {row.error:9.2e}  {row.limit:9.2e}  {'pass' if row.passed else 'FAIL'}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
