"""A system's weights as a folder: diffusers parts, one head file and ``deixis.json``.

::

    deixis.json                               system, switches, preprocessing, licence, digest
    vae/     config.json, diffusion_pytorch_model.safetensors
    unet/    config.json, diffusion_pytorch_model.safetensors
    text_encoder/  config.json, model.safetensors       (where the system has a text tower)
    tokenizer/     vocab.json, merges.txt, ...          (where text can be given)
    head/    model.safetensors                          adapter, neck, decoder, stored text
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.errors import CheckpointError, ModelError
from deixis.registry import SYSTEMS

MANIFEST = "deixis.json"
FORMAT = 1

# File of each part, and the prefix of its keys in our networks.
FILES = {
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "head": "head/model.safetensors",
}
PREFIXES = {"vae": "image_encoder.", "unet": "unet.unet.", "text_encoder": "text_tower.clip.", "head": ""}

# Tensors a part may hold that perception does not use: the VAE's decoder side and the U-Net's output layer.
UNUSED = {"vae": ("decoder.", "post_quant_conv."), "unet": ("conv_norm_out.", "conv_out.")}


@dataclass(frozen=True)
class Preprocessing:
    """How a photo of any size becomes the network's input.

    Attributes:
        size: (height, width) of the training pictures [px].
        windows: how many windows the papers' test protocol lays along the longer side.
        resize: ``fit`` keeps the aspect ratio and gives the picture the area of ``size``; ``stretch`` makes
            it exactly ``size``, as the referring models were trained.
    """

    size: tuple[int, int]
    resize: Literal["fit", "stretch"]
    windows: int = 2


@dataclass
class Manifest:
    """Contents of ``deixis.json``.

    Attributes:
        system: name of the method.
        config: its switches.
        preprocessing: how pictures are resized.
        licence: of the weights.
        architecture: configurations of the diffusers parts (stored beside the parts, not in the manifest).
        source: where the weights come from, in words.
        official: what the official checkpoint held besides the tensors, to be restored on the way back.
        threshold: mean object probability at which a referent counts as found; masks only.
    """

    system: str
    config: dict[str, Any]
    preprocessing: Preprocessing
    licence: str
    architecture: dict[str, dict[str, Any]]
    source: str
    official: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.0


def network(manifest: Manifest, backbone: StableDiffusion) -> nn.Module:
    """The untrained network a manifest describes.

    Raises:
        ModelError: if the system is unknown or a switch has no such name.
    """
    system = SYSTEMS.get(manifest.system)
    if system is None:
        raise ModelError(manifest.system, "is not a system of this version", f"known are {', '.join(SYSTEMS)}")
    names = {f.name for f in dataclasses.fields(system.config)}
    unknown = sorted(set(manifest.config) - names)
    if unknown:
        raise ModelError(manifest.system, f"has no switch {', '.join(unknown)}", f"known are {', '.join(sorted(names))}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest.config.items()}
    return system.network(system.config(**values), backbone)


def split(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A network's state by part, with the keys each part has on disk."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in FILES}
    for key, tensor in state.items():
        part = next(part for part, prefix in PREFIXES.items() if key.startswith(prefix))
        tail = key.removeprefix(PREFIXES[part])
        if part == "text_encoder":  # transformers 5 dropped the prefix in memory; on disk it stays
            tail = "text_model." + tail.removeprefix("text_model.")
        parts[part][tail] = tensor
    return parts


def save_folder(
    folder: Path,
    manifest: Manifest,
    parts: Mapping[str, Mapping[str, Tensor]],
    tokenizer: CLIPTokenizer | Path | None = None,
) -> None:
    """Write a weight folder; it appears whole or not at all.

    Args:
        folder: must not exist, or be empty.
        manifest: what ``deixis.json`` says.
        parts: tensors by part (see :func:`split`).
        tokenizer: vocabulary to store, as an object or a folder to copy.

    Raises:
        CheckpointError: if ``folder`` is in the way or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(folder, "already exists", "choose another output folder or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(folder, f"cannot be created ({error.strerror})", "choose a writable place") from error
    try:
        for part, tensors in parts.items():
            if not tensors:
                continue
            file = partial / FILES[part]
            file.parent.mkdir()
            save_file({k: v.contiguous() for k, v in tensors.items()}, file, metadata={"format": "pt"})
            if part in manifest.architecture:
                _write_json(file.parent / "config.json", manifest.architecture[part])
        if isinstance(tokenizer, Path):
            shutil.copytree(tokenizer, partial / "tokenizer")
        elif tokenizer is not None:
            tokenizer.save_pretrained(partial / "tokenizer")
        content = {
            "format": FORMAT,
            "system": manifest.system,
            "config": manifest.config,
            "preprocessing": dataclasses.asdict(manifest.preprocessing),
            "threshold": manifest.threshold,
            "licence": manifest.licence,
            "source": manifest.source,
            "official": manifest.official,
            "sha256": digest(partial),
        }
        _write_json(partial / MANIFEST, content)
        partial.chmod(0o755)  # mkdtemp makes it private
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise CheckpointError(folder, f"cannot be written ({error.strerror})", "free some space, or choose another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digest(folder: Path) -> str:
    """SHA-256 over the weight files of a folder, in a fixed order."""
    sha = hashlib.sha256()
    for part in FILES:
        file = folder / FILES[part]
        if file.is_file():
            with file.open("rb") as stream:
                sha.update(hashlib.file_digest(stream, "sha256").digest() if hasattr(hashlib, "file_digest") else _sha(stream.read()))
    return sha.hexdigest()


def _sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def read_manifest(folder: Path) -> Manifest:
    """Read ``deixis.json`` and the parts' configurations.

    Raises:
        ModelError: if a file is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            folder, f"has no {MANIFEST}", "pass a folder written by 'deixis convert' or 'deixis train'"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        architecture = {
            part: json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
            for part in ("vae", "unet", "text_encoder")
            if part != "text_encoder" or (folder / part).is_dir()
        }
        if content["format"] != FORMAT:
            raise ModelError(folder, f"has format {content['format']}", f"this version reads format {FORMAT}")
        return Manifest(
            system=content["system"],
            config=content["config"],
            preprocessing=Preprocessing(
                tuple(content["preprocessing"]["size"]),
                content["preprocessing"]["resize"],
                content["preprocessing"]["windows"],
            ),
            licence=content["licence"],
            architecture=architecture,
            source=content["source"],
            official=content["official"],
            threshold=content["threshold"],
        )
    except FileNotFoundError as error:
        raise ModelError(folder, f"has no {Path(error.filename).relative_to(folder)}", "copy the folder again") from error
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ModelError(path, f"is damaged ({error})", "copy the folder again from its source") from error


def read_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Tensors of one part, empty if the folder does not have it.

    Raises:
        ModelError: if the file is damaged.
    """
    file = folder / FILES[part]
    if not file.is_file():
        return {}
    try:
        with safe_open(file, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(file, f"is not a whole safetensors file ({error})", "copy the folder again") from error


def load_folder(folder: Path) -> tuple[nn.Module, Manifest, CLIPTokenizer | None]:
    """The network with its weights in float32, in evaluation mode, with its manifest and vocabulary.

    Raises:
        ModelError: if anything is missing, damaged, or does not fit, named key by key.
    """
    manifest = read_manifest(folder)
    with torch.device("meta"):
        backbone = StableDiffusion.from_config(manifest.architecture)
        model = network(manifest, backbone)
    parts = {part: read_part(folder, part) for part in FILES}
    fill(model, parts, str(folder))
    tokenizer = None
    if (folder / "tokenizer").is_dir():
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(folder / "tokenizer", f"cannot be read ({error})", "copy it again") from error
    return model.eval(), manifest, tokenizer


def fill(model: nn.Module, parts: Mapping[str, Mapping[str, Tensor]], label: str) -> None:
    """Put tensors into a network built on the meta device; every key must fit.

    Raises:
        ModelError: naming the first keys that are missing, left over or of another shape.
    """
    expected = split(model.state_dict())
    state: dict[str, Tensor] = {}
    missing, shapes, extra = [], [], []
    for part, keys in expected.items():
        given = parts.get(part, {})
        prefix = PREFIXES[part]
        for key, like in keys.items():
            if key not in given:
                missing.append(f"{part}/{key}")
            elif given[key].shape != like.shape:
                shapes.append(f"{part}/{key} {list(given[key].shape)} instead of {list(like.shape)}")
            else:
                value = given[key]
                state[prefix + key] = value.float() if value.is_floating_point() else value
        unused = UNUSED.get(part, ())
        extra += [f"{part}/{key}" for key in given if key not in keys and not key.startswith(unused or ("\0",))]
    for problem, keys_ in (("lacks", missing), ("has wrong shapes:", shapes), ("has unknown", extra)):
        if keys_:
            more = f" and {len(keys_) - 3} more" if len(keys_) > 3 else ""
            raise ModelError(label, f"{problem} {', '.join(keys_[:3])}{more}", "copy or convert the weights again")
    names = model.state_dict()
    if any(key.startswith("text_tower.clip.") for key in names):
        plain = "text_tower.clip.text_model." not in "".join(k for k in names if k.startswith("text_tower.clip."))
        state = {k.replace("text_tower.clip.text_model.", "text_tower.clip.") if plain else k: v for k, v in state.items()}
    model.load_state_dict(state, assign=True)
    _restore_constants(model)


def _restore_constants(model: nn.Module) -> None:
    """Non-persistent buffers carry no weights, so a network built on the meta device has them empty."""
    for module in model.modules():
        if isinstance(module, CLIPTextModel):
            positions = module.config.max_position_embeddings
            for part in module.modules():
                if "position_ids" in part._buffers:
                    part._buffers["position_ids"] = torch.arange(positions).unsqueeze(0)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
