"""The parts of a Stable Diffusion model from a diffusers folder, a hub id or an original single file."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from deixis.backbones.weights import fill, name_some, read_safetensors
from deixis.errors import ModelError, first_line
from deixis.hub import expanded, fetch, is_hub_id
from deixis.registry import shipped_folder

PARTS = ("vae", "unet", "text_encoder", "tokenizer")
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

# What single files are called.
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

# Architecture files of Stable Diffusion 1.x, which EVP and VPD start from; no weights.
SD1 = "sd1"

AGAIN = "copy the folder again from its source"

# Old diffusers versions named the VAE's attention differently.
_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# What a whole CLIP model holds besides its text tower, and what older transformers versions saved with that.
_NOT_TEXT = re.compile(r"vision_model\..*|visual_projection\..*|text_projection.*|logit_scale|.*\.position_ids")

# What original checkpoints hold besides the three networks: (what it is, pattern of its keys).
_NOT_NETWORK = (
    ("moving average of the denoiser", re.compile(r"model_ema\..*")),
    (
        "noise schedule",
        re.compile(r"(alphas|betas|sqrt_|log_one_minus|posterior_|lvlb_weights|logvar|scale_factor).*"),
    ),
    ("autoencoder's training loss", re.compile(r"first_stage_model\.loss\..*")),
    ("position ids", re.compile(r"cond_stage_model\..*\.position_ids")),
    ("CLIP besides its text tower", re.compile(r"cond_stage_model\.(transformer\.text_projection.*|logit_scale)")),
)
_NETWORKS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.")


@dataclass
class StableDiffusion:
    """The parts perception needs. ``text_encoder`` and ``tokenizer`` may be absent.

    Attributes:
        vae: image autoencoder; only its encoder is used.
        unet: the denoiser.
        text_encoder: CLIP text tower.
        tokenizer: its vocabulary; single files have none.
        notes: what was left out while loading, in words.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel | None = None
    tokenizer: CLIPTokenizer | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_config(
        cls, config: Mapping[str, dict[str, Any]], tokenizer: CLIPTokenizer | None = None
    ) -> StableDiffusion:
        """Untrained parts of the sizes in ``config`` (keys ``vae``, ``unet`` and optionally ``text_encoder``)."""
        text = config.get("text_encoder")
        return cls(
            vae=AutoencoderKL.from_config(config["vae"]),
            unet=UNet2DConditionModel.from_config(config["unet"]),
            text_encoder=None if text is None else CLIPTextModel(CLIPTextConfig.from_dict(text)),
            tokenizer=tokenizer,
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, config: Mapping[str, dict[str, Any]] | None = None) -> StableDiffusion:
        """Load from a diffusers folder, a single ``.ckpt``/``.safetensors`` file, a shipped backbone, or a hub id.

        Weights are float32, and each must fit. A hub id (``owner/name``) is the only thing that may be downloaded,
        and only because it was named.

        Args:
            source: path, hub id, or the name of a backbone that comes with the package (``mini-sd``).
            config: sizes of a single file's parts; those of Stable Diffusion 1.x by default.

        Raises:
            ModelError: if ``source`` is none of these, or a part is missing, damaged or does not fit.
        """
        path = expanded(source)
        if path.is_file():
            return cls._from_single_file(path, config or architecture(SD1))
        if path.is_dir():
            return cls._from_folder(path)
        if is_hub_id(str(source)) and path.suffix not in SUFFIXES:
            return cls._from_folder(fetch(str(source), PARTS))
        shipped = shipped_folder() / path.name
        if path.name == str(source) and (shipped / "model_index.json").is_file():
            return cls._from_folder(shipped)
        raise ModelError(source, "is not a file or folder here", "pass a diffusers folder, a single file or a hub id")

    @classmethod
    def _from_folder(cls, folder: Path) -> StableDiffusion:
        for part in PARTS:
            if not (folder / part).is_dir():
                raise ModelError(
                    folder,
                    f"has no '{part}' folder",
                    f"a diffusers Stable Diffusion folder holds {', '.join(PARTS)}",
                )
        return cls(
            vae=read_autoencoder(folder / "vae"),
            unet=read_denoiser(folder / "unet"),
            text_encoder=read_text_encoder(folder / "text_encoder"),
            tokenizer=read_tokenizer(folder / "tokenizer"),
        )

    @classmethod
    def _from_single_file(cls, path: Path, config: Mapping[str, dict[str, Any]]) -> StableDiffusion:
        from deixis.checkpoints.files import read_checkpoint

        return cls.from_original(read_checkpoint(path).tensors, config, path)

    @classmethod
    def from_original(
        cls, state: Mapping[str, Tensor], config: Mapping[str, dict[str, Any]], label: object
    ) -> StableDiffusion:
        """Parts from the state dict of the original latent diffusion code; the moving average is not used.

        Args:
            state: its tensors.
            config: sizes of the parts.
            label: how errors call it.

        Raises:
            ModelError: if it is something else, or a tensor is missing, unknown or of another shape.
        """
        from diffusers.loaders.single_file_utils import (
            convert_ldm_clip_checkpoint,
            convert_ldm_unet_checkpoint,
            convert_ldm_vae_checkpoint,
        )

        entry = state.get("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
        if entry is None:
            raise ModelError(label, "is not an original Stable Diffusion checkpoint", "pass one, or a diffusers folder")
        width = config["unet"]["cross_attention_dim"]
        remedy = "convert other versions to a diffusers folder first and pass that"
        if entry.shape[-1] != width:
            raise ModelError(
                label, f"has text vectors of {entry.shape[-1]} channels, Stable Diffusion 1.x has {width}", remedy
            )
        used, notes = _sort_original(state, label, remedy)
        with torch.device("meta"):
            parts = cls.from_config(config)
        parts.notes = notes
        assert parts.text_encoder is not None
        unet, vae, text = parts.unet, parts.vae, parts.text_encoder
        try:
            with _quiet():
                converted = (
                    (unet, convert_ldm_unet_checkpoint(dict(used), config=dict(unet.config))),
                    (vae, convert_ldm_vae_checkpoint(dict(used), config=dict(vae.config))),
                    (text, _text_keys(convert_ldm_clip_checkpoint(used), text)),
                )
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise ModelError(label, f"cannot be converted ({error!r})", remedy) from error
        # The converter passes over what it does not know; a tensor it took keeps its place in memory.
        taken = {value.data_ptr() for _, tensors in converted for value in tensors.values()}
        if unknown := [key for key, value in used.items() if value.data_ptr() not in taken]:
            raise ModelError(label, f"has unknown {name_some(unknown)}", remedy)
        for network, tensors in converted:
            fill(network, tensors, label, remedy)
        restore_position_ids(text)
        return parts


def architecture(name: str) -> dict[str, dict[str, Any]]:
    """The ``vae``, ``unet`` and ``text_encoder`` configurations stored with the package under ``name``."""
    text = (resources.files("deixis.backbones") / "configs" / f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, dict[str, Any]] = json.loads(text)
    return config


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP vocabulary.

    Raises:
        ModelError: if a file is missing or damaged.
    """
    alternatives = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((folder / name).is_file() for name in names) for names in alternatives):
        raise ModelError(folder, "lacks vocab.json or merges.txt", AGAIN)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ModelError(folder, f"is not a whole CLIP vocabulary ({first_line(error)})", AGAIN) from error
    return tokenizer


def read_autoencoder(folder: Path) -> AutoencoderKL:
    """The image autoencoder of a diffusers folder.

    Raises:
        ModelError: if a file is missing, damaged or does not fit.
    """
    vae = cast(AutoencoderKL, _read_part(AutoencoderKL, folder))
    factor = vae.config.scaling_factor
    if not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise ModelError(folder / "config.json", f"says scaling_factor {factor!r}", AGAIN)
    return vae


def read_denoiser(folder: Path) -> UNet2DConditionModel:
    """The U-Net of a diffusers folder.

    Raises:
        ModelError: if a file is missing, damaged or does not fit.
    """
    return cast(UNet2DConditionModel, _read_part(UNet2DConditionModel, folder))


def read_text_encoder(folder: Path) -> CLIPTextModel:
    """The text tower of a diffusers folder.

    Raises:
        ModelError: if a file is missing, damaged or does not fit.
    """
    tower = empty_text_tower(folder)
    fill(tower, read_text_tower(folder, tower), folder, AGAIN)
    restore_position_ids(tower)
    return tower


def empty_text_tower(folder: Path) -> CLIPTextModel:
    """The text tower that ``folder/config.json`` describes, on the meta device; that of a whole CLIP model as well.

    Raises:
        ModelError: if the file is missing, damaged or describes something else.
    """
    config = _read_config(folder, "model_type", ("clip_text_model", "clip"))
    try:
        with torch.device("meta"):
            return CLIPTextModel(CLIPTextConfig.from_dict(config.get("text_config") or config))
    except Exception as error:  # whatever a damaged configuration makes the library raise
        raise ModelError(folder / "config.json", f"describes no text tower ({first_line(error)})", AGAIN) from error


def read_text_tower(folder: Path, like: CLIPTextModel) -> dict[str, Tensor]:
    """Text tower weights under the keys that ``like`` has; the rest of a whole CLIP model is left out.

    Raises:
        ModelError: if the file is missing or damaged.
    """
    return _text_keys(_read_weights(folder, "model"), like)


def restore_position_ids(network: nn.Module) -> None:
    """Make the constant of CLIP text towers that is not saved, so that building on the meta device leaves it empty."""
    for module in network.modules():
        ids = module._buffers.get("position_ids")
        if ids is not None and ids.is_meta:
            module._buffers["position_ids"] = torch.arange(ids.shape[-1]).unsqueeze(0)


def _text_keys(tensors: Mapping[str, Tensor], like: CLIPTextModel) -> dict[str, Tensor]:
    # transformers 5 dropped ``text_model.`` in memory and accepts both on disk.
    prefix = "text_model." if any(key.startswith("text_model.") for key in like.state_dict()) else ""
    return {
        prefix + key.removeprefix("text_model."): value
        for key, value in tensors.items()
        if not _NOT_TEXT.fullmatch(key)
    }


def _read_part(cls: type[Any], folder: Path) -> nn.Module:
    config = _read_config(folder, "_class_name", (cls.__name__,))
    try:
        with torch.device("meta"), _quiet():
            network: nn.Module = cls.from_config(config)
    except Exception as error:  # whatever a damaged configuration makes the library raise
        raise ModelError(folder / "config.json", f"describes no {cls.__name__} ({first_line(error)})", AGAIN) from error
    tensors = _read_weights(folder, "diffusion_pytorch_model")
    if cls is AutoencoderKL:
        old = re.compile(rf"(.+\.attentions\.0\.)({'|'.join(_OLD_VAE)})(\.\w+)")
        tensors = {old.sub(lambda m: m[1] + _OLD_VAE[m[2]] + m[3], key): value for key, value in tensors.items()}
    fill(network, tensors, folder, AGAIN)
    return network.eval()


def _read_config(folder: Path, field: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """``folder/config.json``, whose ``field`` must be one of ``wanted``."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(folder, f"has no readable config.json ({error.strerror})", AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(path, f"is not JSON ({error})", AGAIN) from error
    found = config.get(field) if isinstance(config, dict) else None
    if found not in wanted:
        raise ModelError(path, f"describes {found or 'nothing'}, not {' or '.join(wanted)}", AGAIN)
    assert isinstance(config, dict)
    return config


def _read_weights(folder: Path, stem: str) -> dict[str, Tensor]:
    """``stem.safetensors``, the files of ``stem.safetensors.index.json``, or ``stem.fp16.safetensors``.

    The last is all there is where diffusers was told ``variant="fp16"``.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    half = folder / f"{stem}.fp16.safetensors"
    if single.is_file():
        return read_safetensors(single)
    if not index.is_file() and half.is_file():
        return read_safetensors(half)
    if not index.is_file():
        others = sorted(path.name for path in folder.glob("*.bin")) + sorted(
            path.name for path in folder.glob("*.safetensors")
        )
        found = f" (it has {name_some(others)})" if others else ""
        raise ModelError(folder, f"has no {single.name}{found}", f"copy that file into {folder}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(index, f"is damaged ({error!r})", AGAIN) from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(folder, f"lacks {name}, which its index names", AGAIN)
        tensors |= read_safetensors(folder / name)
    return tensors


def _sort_original(
    state: Mapping[str, Tensor], label: object, remedy: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the networks, and notes on the others, which are left out by name."""
    used: dict[str, Tensor] = {}
    left: dict[str, int] = {}
    unknown = []
    for key, value in state.items():
        what = next((what for what, pattern in _NOT_NETWORK if pattern.fullmatch(key)), None)
        if what is not None:
            left[what] = left.get(what, 0) + 1
        elif key.startswith(_NETWORKS):
            used[key] = value
        else:
            unknown.append(key)
    if unknown:
        raise ModelError(label, f"has unknown {name_some(unknown)}", remedy)
    counts = [(what, left[what]) for what, _ in _NOT_NETWORK if what in left]
    return used, tuple(f"left out: {what} ({count} tensors)" for what, count in counts)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's warnings say what is checked here, at greater length."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
