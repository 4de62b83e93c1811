"""A system's weights as a folder: diffusers parts, one head file and ``deixis.json``.

::

    deixis.json                               system, switches, preprocessing, licence, digest
    vae/     config.json, diffusion_pytorch_model.safetensors
    unet/    config.json, diffusion_pytorch_model.safetensors
    text_encoder/  config.json, model.safetensors       (where the system has a text tower)
    tokenizer/     vocab.json, merges.txt, ...          (where text can be given)
    head/    model.safetensors                          adapter, neck, decoder, stored text

Parts that several systems have in common may lie once, in a backbone's folder beside theirs; ``deixis.json`` then
names it under ``shared``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import (
    TOKENIZER_FILES,
    StableDiffusion,
    read_tokenizer,
    restore_position_ids,
)
from deixis.backbones.weights import fill, read_safetensors
from deixis.checkpoints.layout import AGAIN, CARD, GALLERY, INDEX, SAMPLES
from deixis.checkpoints.layout import MANIFEST as MANIFEST  # where others look for it
from deixis.errors import CheckpointError, ModelError, UsageError
from deixis.io import write_json
from deixis.registry import SYSTEMS, shipped_folder

FORMAT = 1

# File of each part, and the prefix of its keys in our networks.
FILES = {
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "head": "head/model.safetensors",
}
PREFIXES = {"vae": "image_encoder.", "unet": "unet.unet.", "text_encoder": "text_tower.clip.", "head": ""}

# The parts with a configuration of their own.
CONFIGURED = ("vae", "unet", "text_encoder")

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
        official: what the way back to an official checkpoint needs to know; empty where there was none.
        threshold: score (:func:`deixis.predict.surest`) at which a referent counts as found; masks only.
        mask_threshold: object probability above which a pixel belongs to the mask; 0.5 is the published argmax.
        shared: part to the name of the folder that holds it, where it is not in the system's own.
    """

    system: str
    config: dict[str, Any]
    preprocessing: Preprocessing
    licence: str
    architecture: dict[str, dict[str, Any]]
    source: str
    official: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.0
    mask_threshold: float = 0.5
    shared: dict[str, str] = field(default_factory=dict)


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
        raise ModelError(
            manifest.system, f"has no switch {', '.join(unknown)}", f"known are {', '.join(sorted(names))}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest.config.items()}
    return system.network(system.config(**values), backbone)


def locate(key: str) -> tuple[str, str]:
    """Part of one of a network's keys, and its key in that part's file."""
    part = next(part for part, prefix in PREFIXES.items() if key.startswith(prefix))
    tail = key.removeprefix(PREFIXES[part])
    if part == "text_encoder":  # transformers 5 dropped the prefix in memory; on disk it stays
        tail = "text_model." + tail.removeprefix("text_model.")
    return part, tail


def split(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A network's state by part, with the keys each part has on disk."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in FILES}
    for key, tensor in state.items():
        part, tail = locate(key)
        parts[part][tail] = tensor
    return parts


def save_folder(
    folder: Path,
    manifest: Manifest,
    parts: Mapping[str, Mapping[str, Tensor]],
    tokenizer: CLIPTokenizer | Path | None = None,
    card: Path | None = None,
) -> None:
    """Write a weight folder; it appears whole or not at all.

    Args:
        folder: must not exist, or be empty.
        manifest: what ``deixis.json`` says.
        parts: tensors by part (see :func:`split`).
        tokenizer: vocabulary to store, as an object or a folder to copy from.
        card: a folder whose card goes along, where it has one.

    Raises:
        CheckpointError: if ``folder`` is in the way or cannot be written.
    """
    check_free(folder)
    folder = folder.absolute()
    need = sum(tensor.nbytes for tensors in parts.values() for tensor in tensors.values())
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < need:
            raise CheckpointError(
                folder, f"needs {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free", "free some space"
            )
        partial.mkdir()
        for part, tensors in parts.items():
            if not tensors:
                continue
            file = partial / FILES[part]
            file.parent.mkdir()
            save_file(own_memory(tensors), file, metadata={"format": "pt"})
            if part in manifest.architecture:
                _write_json(file.parent / "config.json", manifest.architecture[part])
        if isinstance(tokenizer, Path):
            (partial / "tokenizer").mkdir()
            for name in TOKENIZER_FILES:
                if (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, partial / "tokenizer" / name)
        elif tokenizer is not None:
            tokenizer.save_pretrained(partial / "tokenizer")
        copy_card(card, partial)
        content = {
            "format": FORMAT,
            "system": manifest.system,
            "config": manifest.config,
            "preprocessing": dataclasses.asdict(manifest.preprocessing),
            "threshold": manifest.threshold,
            "mask_threshold": manifest.mask_threshold,
            "licence": manifest.licence,
            "source": manifest.source,
            "official": manifest.official,
            "shared": manifest.shared,
            "sha256": digest(partial),
        }
        _write_json(partial / MANIFEST, content)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            folder, f"cannot be written ({why})", "free some space or choose another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_whole(
    folder: Path, source: Path, manifest: Manifest, model: nn.Module, tokenizer: CLIPTokenizer | None
) -> None:
    """Write a loaded network as a folder that needs no other: parts it shared are copied, and so is its card.

    Tensors have the precision they have in ``source`` where that keeps their value, else float32; those that perception
    does not use are copied. So the folder gives the same output to the bit.

    Args:
        folder: must not exist, or be empty.
        source: the folder that the network was loaded from.
        manifest: as it was loaded.
        model: the network.
        tokenizer: its vocabulary, None where it has none.

    Raises:
        CheckpointError: if ``folder`` is in the way or cannot be written.
        ModelError: if ``source`` was damaged since.
    """
    parts = {}
    for part, tensors in split(model.state_dict()).items():
        stored = read_part(source, part, manifest.shared)
        unused = {key: value for key, value in stored.items() if key.startswith(UNUSED.get(part, ("\0",)))}
        parts[part] = unused | {key: _as_stored(value.cpu(), stored.get(key)) for key, value in tensors.items()}
    vocabulary = place_of(source, "tokenizer", manifest.shared) / "tokenizer"
    words = vocabulary if tokenizer is not None and vocabulary.is_dir() else tokenizer
    save_folder(folder, dataclasses.replace(manifest, shared={}), parts, words, source)


def _as_stored(value: Tensor, stored: Tensor | None) -> Tensor:
    """A tensor in the number format it is stored in, if it is the same there."""
    if stored is None or not torch.equal(value.to(stored.dtype).to(value.dtype), value):
        return value
    return value.to(stored.dtype)


def copy_card(source: Path | None, folder: Path) -> None:
    """Copy a folder's card with its pictures, where it has one."""
    if source is not None and (source / CARD).is_file():
        for name in (CARD, GALLERY, SAMPLES):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)


def check_free(folder: Path) -> None:
    """Whether a folder may be written at this place.

    Raises:
        CheckpointError: if something is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(folder, "already exists", "choose another output folder or remove it")


def own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they can be written: contiguous, and no two in the same memory; copied only where needed."""
    seen: set[int] = set()
    out = {}
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        whole = alone and tensor.is_contiguous()
        out[key] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
    return out


def digest(folder: Path) -> str:
    """SHA-256 over the SHA-256 of each weight file of a folder, in a fixed order."""
    whole = hashlib.sha256()
    for name in FILES.values():
        if (folder / name).is_file():
            whole.update(file_digest(folder / name))
    return whole.hexdigest()


def fingerprint(folder: Path) -> str:
    """SHA-256 of all that makes a model answer as it does, in a fixed order.

    That is every file of its folder, ours or a diffusers one, and of the parts it shares, but for cards and pictures.

    Raises:
        ModelError: if ``deixis.json`` is damaged, or a folder it shares parts with is not there.
    """
    shared = read_manifest(folder).shared if (folder / MANIFEST).is_file() else {}
    parts = [place_of(folder, part, shared) / part for part in sorted(shared)]
    whole = hashlib.sha256()
    for place in (folder, *parts):
        for file in sorted(place.rglob("*"), key=lambda path: path.relative_to(place).parts):
            if file.is_file() and file.suffix.lower() not in (".md", ".jpg", ".png"):
                whole.update(f"{place.name if place in parts else ''}/{file.relative_to(place).as_posix()}".encode())
                whole.update(file_digest(file))
    return whole.hexdigest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file of any size."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.digest()


def read_manifest(folder: Path) -> Manifest:
    """Read ``deixis.json`` and the parts' configurations.

    Raises:
        ModelError: if a file is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        scheduler, unet, vae, head = ((folder / part).is_dir() for part in ("scheduler", "unet", "vae", "head"))
        if scheduler or (unet and vae and not head):  # a diffusers pipeline, which names itself in another file
            raise ModelError(folder, f"has no {INDEX}", AGAIN)
        raise ModelError(folder, f"has no {MANIFEST}", "pass a folder written by 'deixis convert' or 'deixis train'")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(folder, f"has format {content['format']}", f"this version of deixis reads format {FORMAT}")
        preprocessing = content["preprocessing"]
        height, width = preprocessing["size"]
        manifest = Manifest(
            system=content["system"],
            config=dict(content["config"]),
            preprocessing=Preprocessing((height, width), preprocessing["resize"], preprocessing["windows"]),
            licence=content["licence"],
            architecture={},
            source=content["source"],
            official=dict(content["official"]),
            threshold=content["threshold"],
            mask_threshold=content["mask_threshold"],
            shared=dict(content.get("shared", {})),
        )
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(path, f"is damaged ({error!r})", AGAIN) from error
    for part in CONFIGURED:
        config = place_of(folder, part, manifest.shared) / part / "config.json"
        if part == "text_encoder" and not config.parent.is_dir():
            continue
        try:
            manifest.architecture[part] = dict(json.loads(config.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(config, f"is missing or damaged ({error!r})", AGAIN) from error
    return manifest


def place_of(folder: Path, part: str, shared: Mapping[str, str]) -> Path:
    """The folder a part lies in: the system's own, or that of the backbone it shares the part with.

    Raises:
        ModelError: if that is not there.
    """
    name = shared.get(part)
    return folder if name is None else beside(folder, name, part)


def beside(folder: Path, name: str, part: str) -> Path:
    """The folder called ``name``, beside another one or among the shipped ones, that has a part for it.

    Raises:
        ModelError: if there is none.
    """
    for parent in (folder.absolute().parent, shipped_folder()):
        if Path(name).name == name and (parent / name / part).is_dir():
            return parent / name
    raise ModelError(folder, f"shares its {part} with '{name}', which is not here", f"copy '{name}' beside it")


def check_beside(folder: Path, backbone: Path) -> None:
    """Raise UsageError unless two folders have the same parent."""
    if folder.absolute().parent != backbone.absolute().parent:
        raise UsageError(backbone, f"does not lie beside {folder}", "move one of them")


def read_part(folder: Path, part: str, shared: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Tensors of one part, empty if neither the folder nor the one it shares the part with has it.

    Raises:
        ModelError: if the file is damaged, or the folder it is shared with is not there.
    """
    file = place_of(folder, part, shared or {}) / FILES[part]
    tensors = read_safetensors(file) if file.is_file() else {}
    if part == "text_encoder":  # transformers 5 writes diffusers folders without the prefix
        return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in tensors.items()}
    return tensors


def share_parts(folder: Path, backbone: Path) -> list[str]:
    """Leave away what a weight folder and the backbone beside it have in common, to the bit.

    Args:
        folder: a weight folder; parts are deleted from it and named in its ``deixis.json``.
        backbone: a diffusers folder with the same parent.

    Returns:
        the names of the parts.

    Raises:
        ModelError: if either is damaged.
        UsageError: if they do not lie beside each other.
    """
    check_beside(folder, backbone)
    manifest = read_manifest(folder)
    common = []
    for part in ("vae", "unet", "text_encoder"):
        own, other = read_part(folder, part), read_part(backbone, part)
        wanted = {key: value for key, value in other.items() if not key.startswith(UNUSED.get(part, ("\0",)))}
        if own and own.keys() == wanted.keys() and all(torch.equal(own[key], wanted[key]) for key in own):
            common.append(part)
    files = [file for file in (folder / "tokenizer").glob("*") if file.is_file()]
    if files and all(
        (backbone / "tokenizer" / file.name).is_file()
        and (backbone / "tokenizer" / file.name).read_bytes() == file.read_bytes()
        for file in files
    ):
        common.append("tokenizer")
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["shared"] = {**manifest.shared, **dict.fromkeys(common, backbone.name)}
    # Named first, deleted then: an interruption leaves a folder that still loads.
    write_json(folder / MANIFEST, content)
    for part in common:
        shutil.rmtree(folder / part)
    content["sha256"] = digest(folder)
    write_json(folder / MANIFEST, content)
    return common


def load_folder(folder: Path) -> tuple[nn.Module, Manifest, CLIPTokenizer | None]:
    """The network with its weights in float32, in evaluation mode, with its manifest and vocabulary.

    Weights that are float32 on disk stay mapped from there: leave the folder alone while the network is in use.

    Raises:
        ModelError: if anything is missing, damaged, or does not fit, named key by key.
    """
    manifest = read_manifest(folder)
    model = fill_parts(manifest, {part: read_part(folder, part, manifest.shared) for part in FILES}, folder)
    vocabulary = place_of(folder, "tokenizer", manifest.shared) / "tokenizer"
    if not vocabulary.is_dir():
        return model, manifest, None
    tokenizer = read_tokenizer(vocabulary)
    known = manifest.architecture.get("text_encoder", {}).get("vocab_size", len(tokenizer))
    if len(tokenizer) > known:
        raise ModelError(vocabulary, f"has {len(tokenizer)} words, the text tower knows {known}", "copy the right one")
    return model, manifest, tokenizer


def fill_parts(manifest: Manifest, parts: Mapping[str, Mapping[str, Tensor]], label: object) -> nn.Module:
    """The network of a manifest with these weights, in evaluation mode; every key must fit.

    Raises:
        ModelError: if the manifest makes no network, or naming the first keys that are missing, left over or of
            another shape.
    """
    try:
        with torch.device("meta"):
            model = network(manifest, StableDiffusion.from_config(manifest.architecture))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(label, f"describes no network that can be built ({error!r})", AGAIN) from error
    places = {key: locate(key) for key in model.state_dict()}
    ours = {place: key for key, place in places.items()}
    state = {
        ours.get((part, key), f"{part}/{key}"): value
        for part, tensors in parts.items()
        for key, value in tensors.items()
        if not key.startswith(UNUSED.get(part, ("\0",)))
    }
    fill(model, state, label, "copy or convert the weights again")
    restore_position_ids(model)
    return model.eval()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
