"""The parts of a Stable Diffusion model from a diffusers folder, a hub id or an original single file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from deixis.errors import ModelError

PARTS = ("vae", "unet", "text_encoder", "tokenizer")

# Architecture files of Stable Diffusion 1.x, which EVP and VPD start from; no weights.
SD1 = "sd1"


@dataclass
class StableDiffusion:
    """The parts perception needs. ``text_encoder`` and ``tokenizer`` may be absent.

    Attributes:
        vae: image autoencoder; only its encoder is used.
        unet: the denoiser.
        text_encoder: CLIP text tower.
        tokenizer: its vocabulary.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel | None = None
    tokenizer: CLIPTokenizer | None = None

    @classmethod
    def from_config(cls, config: dict[str, dict[str, Any]], tokenizer: CLIPTokenizer | None = None) -> StableDiffusion:
        """Untrained parts of the sizes in ``config`` (keys ``vae``, ``unet`` and optionally ``text_encoder``)."""
        text = config.get("text_encoder")
        return cls(
            vae=AutoencoderKL.from_config(config["vae"]),
            unet=UNet2DConditionModel.from_config(config["unet"]),
            text_encoder=None if text is None else CLIPTextModel(CLIPTextConfig.from_dict(text)),
            tokenizer=tokenizer,
        )

    @classmethod
    def from_pretrained(cls, source: str | Path) -> StableDiffusion:
        """Load from a diffusers folder, a single ``.ckpt``/``.safetensors`` file, or a hub id.

        A hub id (``owner/name``) is the only thing that may be downloaded, and only because it was named.

        Raises:
            ModelError: if ``source`` is none of these, or a part is missing or damaged.
        """
        path = Path(source)
        if path.is_file():
            return cls._from_single_file(path)
        if path.is_dir():
            return cls._from_folder(path)
        if str(source).count("/") == 1 and not str(source).startswith((".", "/", "~")):
            return cls._from_folder(_download(str(source)))
        raise ModelError(source, "is not a file or folder here", "pass a diffusers folder, a single file or a hub id")

    @classmethod
    def _from_folder(cls, folder: Path) -> StableDiffusion:
        for part in PARTS:
            if not (folder / part).is_dir():
                raise ModelError(
                    folder, f"has no '{part}' folder", f"a diffusers Stable Diffusion folder holds {', '.join(PARTS)}"
                )
        options = {"local_files_only": True, "use_safetensors": True}
        try:
            return cls(
                vae=AutoencoderKL.from_pretrained(folder / "vae", **options),
                unet=UNet2DConditionModel.from_pretrained(folder / "unet", **options),
                text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", **options),
                tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(folder, f"cannot be read ({error})", "copy the folder again from its source") from error

    @classmethod
    def _from_single_file(cls, path: Path) -> StableDiffusion:
        from diffusers.loaders.single_file_utils import (
            convert_ldm_clip_checkpoint,
            convert_ldm_unet_checkpoint,
            convert_ldm_vae_checkpoint,
        )

        from deixis.checkpoints.files import read_checkpoint

        state = read_checkpoint(path).tensors
        config = architecture(SD1)
        first = state.get("model.diffusion_model.input_blocks.0.0.weight")
        keys = state.get("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
        if first is None or keys is None:
            raise ModelError(
                path, "is not an original Stable Diffusion checkpoint", "pass one, or a diffusers folder"
            )
        if keys.shape[1] != config["unet"]["cross_attention_dim"]:
            raise ModelError(
                path,
                f"has text vectors of {keys.shape[1]} channels, Stable Diffusion 1.x has 768",
                "convert other versions to a diffusers folder first and pass that",
            )
        with torch.device("meta"):
            parts = cls.from_config(config)
        assert parts.text_encoder is not None
        try:
            parts.unet.load_state_dict(convert_ldm_unet_checkpoint(state, config=dict(parts.unet.config)), assign=True)
            parts.vae.load_state_dict(convert_ldm_vae_checkpoint(state, config=dict(parts.vae.config)), assign=True)
            clip = {k: v for k, v in convert_ldm_clip_checkpoint(state).items() if not k.endswith("position_ids")}
            prefixed = any(k.startswith("text_model.") for k in parts.text_encoder.state_dict())
            clip = clip if prefixed else {k.removeprefix("text_model."): v for k, v in clip.items()}
            # The position ids are a constant that is not stored in memory-less construction.
            parts.text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(config["text_encoder"]))
            parts.text_encoder.load_state_dict(clip)
        except (KeyError, RuntimeError) as error:
            raise ModelError(path, f"does not fit Stable Diffusion 1.x ({error})", "pass a 1.x checkpoint") from error
        return parts


def architecture(name: str) -> dict[str, dict[str, Any]]:
    """The ``vae``, ``unet`` and ``text_encoder`` configurations stored with the package under ``name``."""
    text = resources.files("deixis.backbones").joinpath("configs", f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, dict[str, Any]] = json.loads(text)
    return config


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"{part}/*" for part in PARTS]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*.bin", "*.ckpt", "*.msgpack"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            hub_id,
            "cannot be fetched from the model hub and is not in its cache",
            f"connect to the internet, or copy the folder from huggingface.co/{hub_id} and pass its path",
        ) from error
