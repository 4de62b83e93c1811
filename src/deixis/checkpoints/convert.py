"""Official EVP and VPD checkpoints to weight folders, and back to the official keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deixis.backbones.stable_diffusion import SD1, StableDiffusion, architecture
from deixis.checkpoints.files import Checkpoint, read_checkpoint
from deixis.checkpoints.folder import (
    PREFIXES,
    Manifest,
    Preprocessing,
    network,
    read_manifest,
    read_part,
    save_folder,
    split,
)
from deixis.checkpoints.keys import official_key, to_our_shape
from deixis.conditioning.describe import NYU_SCENES
from deixis.errors import CheckpointError, UsageError

# Standard deviation of the latents in the published code (EVP section 3.3).
STD = {"nyuv2": 5.07543, "kitti": 4.6211, "refcoco": 4.7164}


@dataclass(frozen=True)
class Family:
    """What kind of official checkpoint ``--to`` asks for.

    Attributes:
        system: system of the folder.
        dataset: what it was trained on, as provenance.
        max_depth: scale of its depth [m], None for masks.
        preprocessing: how its pictures are made.
        signature: a key that it has and the other families lack.
    """

    system: str
    dataset: str
    max_depth: float | None
    preprocessing: Preprocessing
    signature: str


FAMILIES = {
    "evp-depth-nyu": Family(
        "evp-depth",
        "nyuv2",
        10.0,
        Preprocessing((480, 640), "fit", windows=8),
        "encoder.aggregation.layer1.conv1.weight",
    ),
    "evp-depth-kitti": Family(
        "evp-depth",
        "kitti",
        80.0,
        Preprocessing((352, 1216), "fit", windows=20),
        "encoder.aggregation.layer1.conv1.weight",
    ),
    "evp-refer": Family(
        "evp-refer", "refcoco", None, Preprocessing((512, 512), "stretch"), "aggregation.layer1.conv1.weight"
    ),
    "vpd-depth": Family("vpd-depth", "nyuv2", 10.0, Preprocessing((480, 640), "fit"), "last_layer_depth.0.weight"),
    "vpd-refer": Family(
        "vpd-refer", "refcoco", None, Preprocessing((512, 512), "stretch"), "classifier.conv1_1.weight"
    ),
}
# ``evp-depth`` alone is completed from the training options, where the checkpoint has them.
DATASETS = {"nyudepthv2": "evp-depth-nyu", "kitti": "evp-depth-kitti"}

# Constants that the official models save and ours compute.
K_INDEX = "conditional_log_binomial.log_binomial_transform.k_idx"
K_MINUS_1 = "conditional_log_binomial.log_binomial_transform.K_minus_1"
POSITION_IDS = "embeddings.position_ids"
CLASS_EMBEDDINGS = "encoder.class_embeddings"


@dataclass
class Report:
    """What became of every key.

    Attributes:
        system: the system recognised.
        converted: number of tensors with a place in the network.
        kept: official tensors stored but not used here, with the reason.
        handled: keys treated by name, with what was done.
        notes: further remarks.
    """

    system: str
    converted: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    handled: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as printed."""
        total = self.converted + len(self.kept) + len([k for k, why in self.handled.items() if why != ABSENT])
        out = [f"{total} keys: {self.converted} converted, {len(self.kept)} kept unused, the rest handled by name"]
        out += [f"  kept unused  {key}: {why}" for key, why in self.kept.items()]
        out += [f"  by name      {key}: {why}" for key, why in self.handled.items()]
        out += [f"  note         {note}" for note in self.notes]
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)


ABSENT = "absent; needs a text at inference, or convert again with --embedding FILE"


@dataclass(frozen=True)
class Converted:
    """A checkpoint in our keys.

    Attributes:
        manifest: what the folder will say.
        parts: tensors by part, with the keys of the files.
        report: what became of every key.
    """

    manifest: Manifest
    parts: dict[str, dict[str, Tensor]]
    report: Report


def family_of(name: str, checkpoint: Checkpoint, label: str) -> Family:
    """The family ``--to NAME`` asks for, checked against the checkpoint.

    Raises:
        UsageError: if there is no such name, or it leaves the dataset open.
        CheckpointError: if the checkpoint is of another family.
    """
    if name == "evp-depth":
        dataset = checkpoint.args.get("dataset")
        name = DATASETS.get(str(dataset), "")
        if not name:
            raise UsageError(
                "--to evp-depth",
                f"does not say the dataset and {label} does not either",
                "use --to evp-depth-nyu or --to evp-depth-kitti",
            )
    if name not in FAMILIES:
        raise UsageError(f"--to {name}", "is not a known family", f"use one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    recognised = recognise(checkpoint.tensors)
    if recognised is None:
        raise CheckpointError(
            label, "is not an EVP or VPD checkpoint", "pass the file of a trained model, not of its backbone"
        )
    if recognised != family.system:
        fitting = " or ".join(n for n, f in FAMILIES.items() if f.system == recognised)
        raise CheckpointError(label, f"is a {recognised} checkpoint, not {family.system}", f"use --to {fitting}")
    dataset = checkpoint.args.get("dataset")
    if family.system == "evp-depth" and dataset in DATASETS and DATASETS[str(dataset)] != name:
        raise CheckpointError(label, f"was trained on {dataset}", f"use --to {DATASETS[str(dataset)]}")
    return family


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """System of an official state dict, None if it is none of ours."""
    if "encoder.aggregation.layer1.conv1.weight" in tensors or "seed_bin_regressor._net.0.weight" in tensors:
        return "evp-depth"
    if "aggregation.layer1.conv1.weight" in tensors:
        return "evp-refer"
    if "last_layer_depth.0.weight" in tensors:
        return "vpd-depth"
    return "vpd-refer" if "classifier.conv1_1.weight" in tensors else None


def from_official(checkpoint: Checkpoint, to: str, label: str, embedding: Tensor | None = None) -> Converted:
    """Official keys to ours, in memory.

    Args:
        checkpoint: as read.
        to: ``--to`` name.
        label: how errors call the checkpoint.
        embedding: aggregated text embedding [1, T, C] for EVP depth checkpoints that lack it.

    Raises:
        UsageError: for a wrong ``to``.
        CheckpointError: for another family, missing, unknown or misshapen tensors.
    """
    family = family_of(to, checkpoint, label)
    tensors = dict(checkpoint.tensors)
    report = Report(family.system, notes=list(checkpoint.notes))
    official: dict[str, Any] = {}
    _take_constants(tensors, report, official, label)
    _fix_clip_prefix(tensors, report, official, family.system)

    config, clip = _config(tensors, family, checkpoint.args, embedding, report, label)
    parts_config = architecture(SD1)
    if not clip:
        del parts_config["text_encoder"]
    manifest = Manifest(
        system=family.system,
        config=config,
        preprocessing=family.preprocessing,
        licence="MIT, as published by its authors; Stable Diffusion's licence applies to the backbone",
        architecture=parts_config,
        source=f"converted from {Path(label).name}",
        official=official,
    )
    with torch.device("meta"):
        model = network(manifest, StableDiffusion.from_config(parts_config))
    parts = _assign(model, tensors, family.system, report, label)
    if embedding is not None and "stored_text" in parts["head"]:
        report.handled[CLASS_EMBEDDINGS] = "taken from --embedding"
    return Converted(manifest, parts, report)


def _take_constants(tensors: dict[str, Tensor], report: Report, official: dict[str, Any], label: str) -> None:
    """Remove what is computed here, having checked that it is the constant it should be."""
    if K_INDEX in tensors or K_MINUS_1 in tensors:
        bins = tensors["seed_bin_regressor._net.2.bias"].numel() if "seed_bin_regressor._net.2.bias" in tensors else 64
        index, last = tensors.pop(K_INDEX, None), tensors.pop(K_MINUS_1, None)
        if index is not None and index.flatten().tolist() != list(range(bins)):
            raise CheckpointError(label, f"has other values than 0 to {bins - 1} in {K_INDEX}", "check the file")
        if last is not None and last.flatten().tolist() != [bins - 1]:
            raise CheckpointError(label, f"has another value than {bins - 1} in {K_MINUS_1}", "check the file")
        for key, value in ((K_INDEX, index), (K_MINUS_1, last)):
            if value is not None:
                official[key] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
                report.handled[key] = "a constant, computed here"
    for key in [k for k in tensors if k.endswith(POSITION_IDS)]:
        value = tensors.pop(key)
        if value.flatten().tolist() != list(range(value.numel())):
            raise CheckpointError(label, f"has position ids out of order in {key}", "check the file")
        official[key] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        report.handled[key] = "a constant that older transformers versions saved, computed here"


def _fix_clip_prefix(tensors: dict[str, Tensor], report: Report, official: dict[str, Any], system: str) -> None:
    prefix = "encoder.clip_model.transformer." if system.endswith("depth") else "clip_model."
    bare = [k for k in tensors if k.startswith(prefix) and not k.startswith(f"{prefix}text_model.")]
    for key in bare:
        tensors[f"{prefix}text_model.{key.removeprefix(prefix)}"] = tensors.pop(key)
    if bare:
        official["clip_without_text_model"] = True
        report.notes.append(f"{len(bare)} text tower keys lack 'text_model.' (newer transformers versions); added")


def _config(
    tensors: dict[str, Tensor],
    family: Family,
    args: Mapping[str, Any],
    embedding: Tensor | None,
    report: Report,
    label: str,
) -> tuple[dict[str, Any], bool]:
    """The system's switches as the tensors show them, and whether there is a text tower."""
    clip = any("clip_model." in key for key in tensors)
    if family.system == "vpd-refer":
        return {"tokens": _tokens(tensors, "classifier.conv1_3.weight", 640 + 640, label)}, False
    if family.system == "evp-refer":
        if not clip:
            raise CheckpointError(
                label, "lacks the text tower (clip_model.*)", "use the whole EVP referring checkpoint"
            )
        return {
            "std": STD["refcoco"],
            "tokens": _tokens(tensors, "classifier.conv1_3.weight", 640 + 640, label),
        }, True
    max_depth = float(args.get("max_depth", family.max_depth))
    if family.system == "vpd-depth":
        if CLASS_EMBEDDINGS not in tensors:
            raise CheckpointError(label, f"lacks {CLASS_EMBEDDINGS}", "use the whole VPD checkpoint")
        count = tensors[CLASS_EMBEDDINGS].shape[0]
        names = NYU_SCENES if count == len(NYU_SCENES) else [str(i) for i in range(count)]
        return {"max_depth": max_depth, "stored": [f"class:{name}" for name in names]}, False

    tokens = _tokens(tensors, "encoder.layer2.0.weight", 640, label)
    config: dict[str, Any] = {"max_depth": max_depth, "std": STD[family.dataset], "tokens": tokens}
    if clip:
        return {**config, "aggregate": "i", "clip_frozen": False}, True
    if embedding is not None:
        if CLASS_EMBEDDINGS in tensors:
            raise UsageError("--embedding", f"is given, but {label} has its own", "leave it out")
        tensors[CLASS_EMBEDDINGS] = embedding
    config["aggregate"] = "vd" if tokens == 1 else "d"
    if CLASS_EMBEDDINGS in tensors:
        shape = list(tensors[CLASS_EMBEDDINGS].shape)
        if shape != [1, tokens, 768]:
            raise CheckpointError(
                label,
                f"has an aggregated embedding of shape {shape}, not [1, {tokens}, 768]",
                "check the file",
            )
        config["stored"] = [f"aggregate:{family.dataset}"]
    else:
        report.handled[CLASS_EMBEDDINGS] = ABSENT
    return config, False


def _tokens(tensors: Mapping[str, Tensor], key: str, without: int, label: str) -> int:
    if key not in tensors:
        raise CheckpointError(label, f"lacks {key}", "use the whole checkpoint")
    shape = tensors[key].shape
    if len(shape) != 4 or shape[1] <= without:
        raise CheckpointError(
            label, f"has {key} of shape {list(shape)}, expected more than {without} inputs", "check the file"
        )
    return int(shape[1] - without)


# Official tensors that have no use in perception; stored all the same, so that the way back is complete.
_KEPT = (
    (
        re.compile(r"(?:encoder\.)?encoder_vq\.(post_quant_conv\..+)"),
        "vae",
        "the image decoder's entry, never used",
    ),
    (
        re.compile(r"(?:encoder\.)?unet\.unet\.diffusion_model\.out\.0\.(.+)"),
        "unet",
        "the denoiser's exit, never used",
    ),
    (
        re.compile(r"(?:encoder\.)?unet\.unet\.diffusion_model\.out\.2\.(.+)"),
        "unet",
        "the denoiser's exit, never used",
    ),
)


def _kept(key: str) -> tuple[str, str, str] | None:
    for i, (pattern, part, why) in enumerate(_KEPT):
        if match := pattern.fullmatch(key):
            return part, ("", "conv_norm_out.", "conv_out.")[i] + match[1], why
    return None


def _assign(
    model: nn.Module, tensors: dict[str, Tensor], system: str, report: Report, label: str
) -> dict[str, dict[str, Tensor]]:
    missing, shapes = [], []
    state: dict[str, Tensor] = {}
    for key, like in model.state_dict().items():
        official = official_key(key, system)
        tensor = tensors.pop(official, None)
        if tensor is None:
            missing.append(official)
            continue
        fitted = to_our_shape(tensor, tuple(like.shape))
        if fitted.shape != like.shape:
            shapes.append(f"{official} {list(tensor.shape)} instead of {list(like.shape)}")
        state[key] = fitted
    parts = split(state)
    report.converted = len(state)
    for key in list(tensors):
        if kept := _kept(key):
            parts[kept[0]][kept[1]] = tensors.pop(key)
            report.kept[key] = kept[2]
    for problem, keys in (
        ("lacks", missing),
        ("has wrong shapes:", shapes),
        ("has unknown keys", sorted(tensors)),
    ):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                label,
                f"{problem} {', '.join(keys[:3])}{more}",
                f"check that it is a {system} checkpoint, whole and unchanged",
            )
    return parts


def to_official(folder: Path) -> dict[str, Tensor]:
    """A weight folder's tensors under their official keys and in their official shapes.

    Raises:
        ModelError: if the folder is damaged.
        CheckpointError: if its widths are not the published ones, so that no official code could load it.
    """
    manifest = read_manifest(folder)
    if manifest.architecture["unet"] != architecture(SD1)["unet"]:
        raise CheckpointError(folder, "is not of Stable Diffusion 1.x size", "only converted weights go back")
    system = manifest.system
    out: dict[str, Tensor] = {}
    for part, prefix in PREFIXES.items():
        for key, value in read_part(folder, part).items():
            unused = (
                (("decoder.", "post_quant_conv.") if part == "vae" else ("conv_norm_out.", "conv_out."))
                if part in ("vae", "unet")
                else ()
            )
            name = official_key(prefix + key, system)
            if unused and key.startswith(unused):
                name = official_key(prefix + key, system)
            out[name] = _official_shape(name, value, system)
    if manifest.official.get("clip_without_text_model"):
        out = {k.replace(".text_model.", ".", 1) if "clip_model." in k else k: v for k, v in out.items()}
        out = {k.replace("clip_model.text_model.", "clip_model."): v for k, v in out.items()}
    for key, spec in manifest.official.items():
        if isinstance(spec, dict):
            out[key] = _constant(key, spec, out)
    return out


def _constant(key: str, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    dtype = getattr(torch, spec["dtype"])
    if key == K_MINUS_1:
        return torch.full(spec["shape"], tensors["seed_bin_regressor._net.2.bias"].numel() - 1, dtype=dtype)
    return torch.arange(torch.Size(spec["shape"]).numel(), dtype=dtype).reshape(spec["shape"])


def _official_shape(name: str, value: Tensor, system: str) -> Tensor:
    if re.search(r"encoder_vq\.encoder\.mid\.attn_1\.(q|k|v|proj_out)\.weight$", name):
        return value.reshape(*value.shape[:2], 1, 1)
    if name == CLASS_EMBEDDINGS and system == "vpd-depth":
        return value.squeeze(1)
    return value


def convert(path: Path, out: Path, to: str, embedding: Path | None = None, clip: Path | None = None) -> Report:
    """Convert a checkpoint file to a weight folder.

    Args:
        path: official checkpoint.
        out: folder to create.
        to: family, see :data:`FAMILIES`.
        embedding: file with EVP's aggregated text embedding, for checkpoints that lack it.
        clip: folder with ``tokenizer/`` (and, for VPD referring, ``text_encoder/``) of CLIP ViT-L/14.

    Raises:
        UsageError, CheckpointError: one line each; nothing is left half-written.
    """
    checkpoint = read_checkpoint(path)
    vectors = None if embedding is None else _read_embedding(embedding)
    converted = from_official(checkpoint, to, str(path), vectors)
    tokenizer = None
    if clip is not None:
        tokenizer = _take_clip(clip, converted)
    elif converted.manifest.system.endswith("refer") or "text_encoder" in converted.manifest.architecture:
        converted.report.notes.append(
            "official checkpoints hold no vocabulary: copy the tokenizer folder of openai/clip-vit-large-patch14"
            f" to {out}/tokenizer, or convert again with --clip FOLDER"
        )
    save_folder(out, converted.manifest, converted.parts, tokenizer)
    return converted.report


def revert(folder: Path, out: Path) -> int:
    """Write a converted folder back as an official checkpoint; returns the number of tensors.

    ``.safetensors`` holds the tensors; any other suffix a PyTorch file with them under ``model``.

    Raises:
        ModelError, CheckpointError: if the folder cannot go back, or ``out`` exists.
    """
    if out.exists():
        raise CheckpointError(out, "already exists", "choose another output file")
    tensors = {key: value.contiguous() for key, value in to_official(folder).items()}
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".safetensors":
            save_file(tensors, partial)
        else:
            torch.save({"model": tensors}, partial)
        partial.replace(out)
    except OSError as error:
        raise CheckpointError(out, f"cannot be written ({error.strerror})", "free some space") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(tensors)


def _read_embedding(path: Path) -> Tensor:
    tensors = read_checkpoint(path).tensors
    if "aggregated" in tensors:
        return tensors["aggregated"]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    raise CheckpointError(path, "holds no entry 'aggregated'", "pass EVP's *_class_embeddings_my_captions.pth")


def _take_clip(clip: Path, converted: Converted) -> Path:
    if not (clip / "tokenizer" / "vocab.json").is_file():
        raise UsageError(
            f"--clip {clip}",
            "has no tokenizer/vocab.json",
            "pass a folder with the tokenizer of CLIP ViT-L/14",
        )
    if converted.manifest.system == "vpd-refer":
        tower = StableDiffusion.text_tower_from(clip / "text_encoder")
        converted.manifest.architecture["text_encoder"] = architecture(SD1)["text_encoder"]
        converted.parts["text_encoder"] = {
            "text_model." + key.removeprefix("text_model."): value for key, value in tower.state_dict().items()
        }
    return clip / "tokenizer"
