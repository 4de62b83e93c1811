"""Official EVP and VPD checkpoints to weight folders, and back to the official keys."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from deixis.backbones.stable_diffusion import SD1, StableDiffusion, architecture, read_text_tower, read_tokenizer
from deixis.backbones.weights import mismatch, name_some
from deixis.checkpoints.files import Checkpoint, read_checkpoint, read_content
from deixis.checkpoints.folder import (
    FILES,
    PREFIXES,
    Manifest,
    Preprocessing,
    check_free,
    locate,
    network,
    own_memory,
    read_manifest,
    read_part,
    save_folder,
)
from deixis.checkpoints.keys import official_key, official_shape, text_tower_prefix
from deixis.conditioning.describe import NYU_SCENES
from deixis.errors import CheckpointError, UsageError

# Configurations of the backbone's parts (``vae``, ``unet``, ``text_encoder``).
Sizes = Mapping[str, dict[str, Any]]

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
    """

    system: str
    dataset: str
    max_depth: float | None
    preprocessing: Preprocessing


FAMILIES = {
    "evp-depth-nyu": Family("evp-depth", "nyuv2", 10.0, Preprocessing((480, 640), "fit", windows=8)),
    "evp-depth-kitti": Family("evp-depth", "kitti", 80.0, Preprocessing((352, 1216), "fit", windows=20)),
    "evp-refer": Family("evp-refer", "refcoco", None, Preprocessing((512, 512), "stretch")),
    "vpd-depth": Family("vpd-depth", "nyuv2", 10.0, Preprocessing((480, 640), "fit")),
    "vpd-refer": Family("vpd-refer", "refcoco", None, Preprocessing((512, 512), "stretch")),
}
# ``evp-depth`` alone is completed from the training options, where the checkpoint has them.
DATASETS = {"nyudepthv2": "evp-depth-nyu", "kitti": "evp-depth-kitti"}

# The first of these keys that a checkpoint has tells its system.
SIGNATURES = {
    "encoder.aggregation.layer1.conv1.weight": "evp-depth",
    "seed_bin_regressor._net.0.weight": "evp-depth",
    "aggregation.layer1.conv1.weight": "evp-refer",
    "last_layer_depth.0.weight": "vpd-depth",
    "classifier.conv1_1.weight": "vpd-refer",
}

# Constants that the official EVP depth model saves and ours computes.
K_INDEX = "conditional_log_binomial.log_binomial_transform.k_idx"
K_MINUS_1 = "conditional_log_binomial.log_binomial_transform.K_minus_1"

EMBEDDING = "encoder.class_embeddings"

# Layers the official models carry along and never use; stored all the same, so that the way back is complete.
UNUSED_LAYERS = {
    "vae": {"post_quant_conv": "the image decoder's entry, never used"},
    "unet": {
        "conv_norm_out": "the denoiser's exit, never used",
        "conv_out": "the denoiser's exit, never used",
    },
}

LICENCE = "MIT, as published by its authors; Stable Diffusion's licence applies to the backbone"


@dataclass
class Report:
    """What became of every key.

    Attributes:
        system: the system recognised.
        converted: place in the folder of each official key the network uses (``unet/conv_in.weight``).
        kept: official keys stored but not used, with the reason.
        by_name: other official keys, with what was done about each.
        notes: further remarks.
    """

    system: str
    converted: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    by_name: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of keys the checkpoint has."""
        return len(self.converted) + len(self.kept) + len(self.by_name)

    def lines(self, *, every: bool = False) -> list[str]:
        """The report as printed.

        Args:
            every: give converted keys a line each, too, instead of a count for each file.
        """
        out = [
            f"{self.total} keys: {len(self.converted)} converted, {len(self.kept)} kept unused,"
            f" {len(self.by_name)} by name"
        ]
        if every:
            out += [f"  converted    {key}: {place}" for key, place in self.converted.items()]
        else:
            counts = Counter(place.split("/")[0] for place in self.converted.values())
            out += [f"  converted    {counts[part]} to {FILES[part]}" for part in FILES if counts[part]]
        out += [f"  kept unused  {key}: {why}" for key, why in self.kept.items()]
        out += [f"  by name      {key}: {what}" for key, what in self.by_name.items()]
        out += [f"  note         {note}" for note in self.notes]
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)


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


def from_official(
    checkpoint: Checkpoint,
    to: str,
    label: str,
    embedding: Tensor | None = None,
    sizes: Sizes | None = None,
) -> Converted:
    """Official keys to ours, in memory; tensors are passed on, not copied.

    Args:
        checkpoint: as read.
        to: ``--to`` name.
        label: how errors call the checkpoint.
        embedding: aggregated text embedding [1, T, C] for EVP depth checkpoints that lack it.
        sizes: of the backbone; those of Stable Diffusion 1.x by default.

    Raises:
        UsageError: for a wrong ``to`` or an ``embedding`` that has no place.
        CheckpointError: for another family, missing, unknown or misshapen tensors, or wrong constants.
    """
    family = family_of(to, checkpoint, label)
    backbone_sizes = dict(sizes or architecture(SD1))
    work = _Conversion(family, checkpoint, label, backbone_sizes["unet"])
    tower = work.take_text_tower()
    work.take_bin_constants()
    config = work.switches(tower=tower)
    if family.system.endswith("depth"):
        config |= work.take_embedding(embedding, config)
    elif embedding is not None:
        raise UsageError("--embedding", f"is for EVP depth, {label} is {family.system}", "leave it out")

    if not tower:
        del backbone_sizes["text_encoder"]
    manifest = Manifest(
        system=family.system,
        config=config,
        preprocessing=family.preprocessing,
        licence=LICENCE,
        architecture=backbone_sizes,
        source=f"converted from {Path(label).name}",
        official=work.official,
    )
    with torch.device("meta"):
        backbone = StableDiffusion.from_config(backbone_sizes)
        unused = _unused_layers(backbone)
        model = network(manifest, backbone)
    return Converted(manifest, work.place(model, unused), work.report)


def family_of(to: str, checkpoint: Checkpoint, label: str) -> Family:
    """The family ``--to`` asks for, checked against the checkpoint.

    Raises:
        UsageError: if there is no such name, or it leaves the dataset open.
        CheckpointError: if the checkpoint is of another family.
    """
    if to not in FAMILIES and to != "evp-depth":
        raise UsageError(f"--to {to}", "is not a known family", f"use one of {', '.join(FAMILIES)}")
    system = recognise(checkpoint.tensors)
    if system is None:
        raise CheckpointError(
            label,
            "is not an EVP or VPD checkpoint",
            "pass the file of a trained model, not of its backbone",
        )
    asked = FAMILIES[to].system if to in FAMILIES else to
    if system != asked:
        fitting = " or ".join(name for name, family in FAMILIES.items() if family.system == system)
        raise CheckpointError(label, f"is a checkpoint of {system}, not of {asked}", f"use --to {fitting}")
    trained_on = DATASETS.get(str(checkpoint.args.get("dataset")))
    if system == "evp-depth" and to not in (trained_on, "evp-depth") and trained_on is not None:
        raise CheckpointError(label, f"was trained on {checkpoint.args['dataset']}", f"use --to {trained_on}")
    if to in FAMILIES:
        return FAMILIES[to]
    if trained_on is None:
        raise UsageError(
            "--to evp-depth",
            f"does not say the dataset and {label} does not either",
            "use --to evp-depth-nyu or --to evp-depth-kitti",
        )
    return FAMILIES[trained_on]


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """System of an official state dict, None if it is none of ours."""
    return next((system for key, system in SIGNATURES.items() if key in tensors), None)


class _Conversion:
    """The steps of :func:`from_official`: each takes tensors out, checks them and reports them.

    Attributes:
        tensors: those not yet placed, by official key.
        report: what became of the others.
        official: what :func:`to_official` will need to know.
    """

    def __init__(self, family: Family, checkpoint: Checkpoint, label: str, unet: Mapping[str, Any]) -> None:
        self.family = family
        self.args = checkpoint.args
        self.label = label
        self.unet = unet
        self.tensors = dict(checkpoint.tensors)
        self.report = Report(family.system, notes=list(checkpoint.notes))
        self.official: dict[str, Any] = {
            "keys": len(self.tensors),
            "module": checkpoint.wrapped,
            "bare_text_tower": False,
            "constants": {},
            "added": [],
        }

    def take_text_tower(self) -> bool:
        """Give the text tower's keys their older names and take its constant out; whether there is a tower."""
        prefix = text_tower_prefix(self.family.system)
        keys = [key for key in self.tensors if key.startswith(prefix)]
        if keys and not any(key.startswith(f"{prefix}text_model.") for key in keys):
            for key in keys:
                self.tensors[f"{prefix}text_model.{key.removeprefix(prefix)}"] = self.tensors.pop(key)
            self.official["bare_text_tower"] = True
            self.report.notes.append(
                f"{len(keys)} text tower keys lack 'text_model.', as newer transformers versions save them; added"
            )
        key = f"{prefix}text_model.embeddings.position_ids"
        if key in self.tensors:
            values = range(self.tensors[key].numel())
            self.take_constant(key, values, "a constant that older transformers versions saved; computed here")
        return bool(keys)

    def take_bin_constants(self) -> None:
        """Take the log-binomial layer's constants out, which ours computes."""
        bias = self.tensors.get("seed_bin_regressor._net.2.bias")
        if bias is None:
            return
        bins = bias.numel()
        for key, values in ((K_INDEX, range(bins)), (K_MINUS_1, range(bins - 1, bins))):
            if key in self.tensors:
                self.take_constant(key, values, "a constant; computed here")
            else:
                self.report.notes.append(f"{key} is absent: a constant, computed here")

    def take_constant(self, key: str, values: range, what: str) -> None:
        """Take a tensor out, having checked that it holds ``values``, and remember its form."""
        tensor = self.tensors.pop(key)
        if tensor.flatten().tolist() != list(values):
            wanted = f"{values[0]} to {values[-1]}" if len(values) > 1 else f"{values[0]}"
            raise CheckpointError(self.label, f"has other values than {wanted} in {key}", "check that it is unchanged")
        self.official["constants"][key] = {
            "first": values[0],
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
        }
        self.report.by_name[key] = what

    def switches(self, *, tower: bool) -> dict[str, Any]:
        """The system's configuration as its tensors and training options show it."""
        family = self.family
        _, middle, _, coarse = self.unet["block_out_channels"]
        fused = coarse // 2 + middle  # what the mask decoder's second fusion gets besides the attention maps
        if family.system == "vpd-refer":
            return {"tokens": self.tokens("classifier.conv1_3.weight", fused)}
        if family.system == "evp-refer":
            if not tower:
                raise CheckpointError(
                    self.label, "lacks the text tower (clip_model.*)", "use the whole EVP referring checkpoint"
                )
            return {"std": STD[family.dataset], "tokens": self.tokens("classifier.conv1_3.weight", fused)}

        config: dict[str, Any] = {"max_depth": family.max_depth}
        max_depth = self.args.get("max_depth")
        if isinstance(max_depth, int | float) and 0 < max_depth != family.max_depth:
            config["max_depth"] = float(max_depth)
            self.report.notes.append(f"maximum depth {max_depth:g} m, as its training options say")
        if family.system == "evp-depth":
            tokens = self.tokens("encoder.layer2.0.weight", middle)
            config |= {"std": STD[family.dataset], "tokens": tokens}
            config |= {"aggregate": "i", "clip_frozen": False} if tower else {"aggregate": "d"}
            if tokens == 1:
                config["aggregate"] = "vd"
        return config

    def tokens(self, key: str, without: int) -> int:
        """Number of text tokens: input channels of layer ``key`` beyond those it has ``without`` attention maps."""
        if key not in self.tensors:
            raise CheckpointError(self.label, f"lacks {key}", "use the whole checkpoint")
        shape = self.tensors[key].shape
        if len(shape) != 4 or shape[1] <= without:
            raise CheckpointError(
                self.label,
                f"has wrong shapes: {key} {list(shape)}, expected more than {without} inputs",
                "check that it is unchanged",
            )
        return int(shape[1] - without)

    def take_embedding(self, embedding: Tensor | None, config: Mapping[str, Any]) -> dict[str, Any]:
        """Bring the stored text to [N, T, C]; the switches that follow from it."""
        family, label = self.family, self.label
        tokens, width = config.get("tokens", 1), self.unet["cross_attention_dim"]
        text = self.tensors.get(EMBEDDING)
        if text is not None and embedding is not None:
            raise UsageError("--embedding", f"is given, but {label} has its own", "leave it out")
        if text is None and embedding is None:
            if family.system == "vpd-depth":
                raise CheckpointError(label, f"lacks {EMBEDDING}", "use the whole VPD checkpoint")
            if config["aggregate"] != "i":
                self.report.notes.append(
                    f"{EMBEDDING} is absent: convert again with --embedding FILE, or give a text for each picture"
                    " (--clip FOLDER brings the text tower for that)"
                )
            return {}
        if text is None:
            text, label = embedding, "--embedding"
            self.official["added"].append("stored_text")
            self.report.notes.append(f"{EMBEDDING} is absent: taken from --embedding, not kept for the way back")
        assert text is not None
        shape = list(text.shape)
        self.official["embedding_shape"] = shape
        if len(shape) == 2:  # one vector for each class; or tokens without the batch axis
            text = text.unsqueeze(1 if tokens == 1 else 0)
        if text.dim() != 3 or text.shape[1:] != (tokens, width) or (tokens > 1 and len(text) != 1):
            wanted = f"[N, {width}]" if tokens == 1 else f"[1, {tokens}, {width}]"
            raise CheckpointError(
                label, f"has wrong shapes: {EMBEDDING} {shape} instead of {wanted}", "check that it is unchanged"
            )
        self.tensors[EMBEDDING] = text
        if family.system == "evp-depth" and len(text) == 1:
            return {"stored": [f"aggregate:{family.dataset}"]}
        names = NYU_SCENES if len(text) == len(NYU_SCENES) else [str(i) for i in range(len(text))]
        stored = [f"class:{name}" for name in names]
        described = {"text": "cd", "aggregate": "v"} if family.system == "evp-depth" else {}
        return {"stored": stored, **described}

    def place(self, model: nn.Module, unused: Mapping[str, tuple[Tensor, str]]) -> dict[str, dict[str, Tensor]]:
        """Every tensor to its part; nothing may be missing, left over or of another shape."""
        system, tensors = self.family.system, self.tensors
        wanted = {official_key(key, system): (key, like) for key, like in model.state_dict().items()}
        # Of the layers never used, each part has all or none.
        present = {locate(key)[0] for key in unused if official_key(key, system) in tensors}
        for key, (like, why) in unused.items():
            if locate(key)[0] in present:
                wanted[official_key(key, system)] = key, like
                self.report.kept[official_key(key, system)] = why
        expected = {
            # The embedding has been brought into our shape already.
            name: like if name == EMBEDDING else like.new_empty(official_shape(key, tuple(like.shape)))
            for name, (key, like) in wanted.items()
        }
        problem = mismatch(expected, tensors)
        if problem is not None:
            raise CheckpointError(self.label, problem, f"check that it is a {system} checkpoint, whole and unchanged")
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in FILES}
        for name, (key, like) in wanted.items():
            part, tail = locate(key)
            parts[part][tail] = tensors[name].reshape(like.shape)
            if name not in self.report.kept and key not in self.official["added"]:
                self.report.converted[name] = f"{part}/{tail}"
        assert self.report.total == self.official["keys"]
        return parts


def _unused_layers(backbone: StableDiffusion) -> dict[str, tuple[Tensor, str]]:
    """Our keys of :data:`UNUSED_LAYERS`, with a tensor of their shape and the reason; before they are dropped."""
    layers: dict[str, tuple[Tensor, str]] = {}
    for part, names in UNUSED_LAYERS.items():
        for name, why in names.items():
            state = getattr(getattr(backbone, part), name).state_dict(prefix=f"{PREFIXES[part]}{name}.")
            layers |= {key: (value, why) for key, value in state.items()}
    return layers


def to_official(manifest: Manifest, parts: Mapping[str, Mapping[str, Tensor]], label: object) -> dict[str, Tensor]:
    """A converted folder's tensors under the very keys and in the very shapes the official checkpoint had.

    Args:
        manifest: of the folder.
        parts: its tensors.
        label: how errors call the folder.

    Raises:
        CheckpointError: if it was not converted, or has been changed since.
    """
    official = manifest.official
    if "keys" not in official:
        raise CheckpointError(label, "was not converted from an official checkpoint", "only those go back")
    system = manifest.system
    out: dict[str, Tensor] = {}
    for part, tensors in parts.items():
        for tail, value in tensors.items():
            key = PREFIXES[part] + tail
            if part in official["added"] or key in official["added"]:
                continue
            try:
                name = official_key(key, system)
            except KeyError as error:
                raise CheckpointError(
                    label, f"holds {part}/{tail}, which has no official name", "convert the checkpoint again"
                ) from error
            shape = official["embedding_shape"] if key == "stored_text" else official_shape(key, value.shape)
            out[name] = value.reshape(shape)
    for name, form in official["constants"].items():
        values = torch.arange(torch.Size(form["shape"]).numel()) + form["first"]
        out[name] = values.to(getattr(torch, form["dtype"])).reshape(form["shape"])
    if official["bare_text_tower"]:
        prefix = text_tower_prefix(system)
        full = f"{prefix}text_model."
        out = {prefix + key.removeprefix(full) if key.startswith(full) else key: v for key, v in out.items()}
    if official["module"]:
        out = {f"module.{key}": value for key, value in out.items()}
    if len(out) != official["keys"]:
        raise CheckpointError(
            label, f"holds {len(out)} of the {official['keys']} official tensors", "convert the checkpoint again"
        )
    return out


def convert(
    path: Path,
    out: Path,
    to: str,
    embedding: Path | None = None,
    clip: Path | None = None,
    sizes: Sizes | None = None,
) -> Report:
    """Convert a checkpoint file to a weight folder.

    Args:
        path: official checkpoint.
        out: folder to create.
        to: family, see :data:`FAMILIES`.
        embedding: file with EVP's aggregated text embedding, for checkpoints that lack it.
        clip: folder with ``tokenizer/`` and, for checkpoints without a text tower, ``text_encoder/`` of CLIP
            ViT-L/14; or that model's own folder.
        sizes: of the backbone; those of Stable Diffusion 1.x by default.

    Raises:
        UsageError, ModelError, CheckpointError: one line each; nothing is left half-written.
    """
    check_free(out)
    checkpoint = read_checkpoint(path)
    vectors = None if embedding is None else _read_embedding(embedding)
    converted = from_official(checkpoint, to, str(path), vectors, sizes)
    tokenizer = None
    if clip is not None:
        tokenizer = _add_clip(clip, converted, (sizes or architecture(SD1))["text_encoder"])
    elif converted.manifest.system.endswith("refer") or converted.parts["text_encoder"]:
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
        ModelError, CheckpointError: if the folder cannot go back, or ``out`` exists or cannot be written.
    """
    if out.exists():
        raise CheckpointError(out, "already exists", "choose another output file")
    manifest = read_manifest(folder)
    parts = {part: read_part(folder, part, manifest.shared) for part in FILES}
    tensors = own_memory(to_official(manifest, parts, folder))
    partial = out.absolute().with_name(f".{out.name}.partial")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".safetensors":
            save_file(tensors, partial, metadata={"format": "pt"})
        else:
            torch.save({"model": tensors}, partial)
        partial.replace(out)
    except (OSError, SafetensorError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(out, f"cannot be written ({why})", "free some space or choose another place") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return len(tensors)


def _read_embedding(path: Path) -> Tensor:
    content = read_content(path)
    alone = next(iter(content.values())) if len(content) == 1 else None
    found = content.get("aggregated", content.get("d", alone))  # EVP's name for it, and that of 'deixis embed'
    if not isinstance(found, Tensor):
        names = name_some([str(key) for key in content])
        raise CheckpointError(
            path,
            f"holds no tensor 'aggregated', but {names}",
            "pass EVP's *_class_embeddings_my_captions.pth or a file of 'deixis embed'",
        )
    return found.detach()


def _add_clip(clip: Path, converted: Converted, sizes: dict[str, Any]) -> Path:
    """Folder of the vocabulary; where the checkpoint has no text tower, that of ``clip`` is added, frozen."""
    if not clip.is_dir():
        raise UsageError(f"--clip {clip}", "is not a folder", "pass that of CLIP ViT-L/14")
    vocabulary = clip / "tokenizer" if (clip / "tokenizer").is_dir() else clip
    read_tokenizer(vocabulary)
    manifest, parts = converted.manifest, converted.parts
    if parts["text_encoder"]:
        return vocabulary
    folder = clip / "text_encoder" if (clip / "text_encoder").is_dir() else clip
    if not (folder / "config.json").is_file():
        if manifest.system == "vpd-refer":
            raise UsageError(f"--clip {clip}", "has no text_encoder/", "pass that of CLIP ViT-L/14 beside tokenizer/")
        return vocabulary
    with torch.device("meta"):
        like = CLIPTextModel(CLIPTextConfig.from_dict(sizes))
    tensors = read_text_tower(folder, like)
    problem = mismatch(like.state_dict(), tensors)
    if problem is not None:
        raise CheckpointError(folder, problem, "pass the text tower of CLIP ViT-L/14")
    manifest.architecture["text_encoder"] = sizes
    manifest.official["added"].append("text_encoder")
    parts["text_encoder"] |= {locate(f"{PREFIXES['text_encoder']}{key}")[1]: v for key, v in tensors.items()}
    converted.report.notes.append(f"frozen text tower taken from {folder}, not written on the way back")
    return vocabulary
