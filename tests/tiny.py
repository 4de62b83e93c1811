"""Real parts of a few thousand parameters: the networks of the published models at toy widths."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.training.tokenizer import train_tokenizer

TEXT_WIDTH = 48
VOCABULARY = 600

# Stable Diffusion 1.x in structure (blocks, layers, attention), not in width.
CONFIG: dict[str, dict[str, Any]] = {
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [8, 8, 16, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 4,
    },
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": 4,  # diffusers' name for the number of heads
        "block_out_channels": [16, 24, 32, 32],
        "cross_attention_dim": TEXT_WIDTH,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "in_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "out_channels": 4,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    },
    "text_encoder": {
        "model_type": "clip_text_model",
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "max_position_embeddings": 77,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": VOCABULARY - 1,
    },
}


def stable_diffusion(*, text_encoder: bool = True, seed: int = 0) -> StableDiffusion:
    """Randomly initialised parts."""
    config = copy.deepcopy(CONFIG)
    if not text_encoder:
        del config["text_encoder"]
    torch.manual_seed(seed)
    return StableDiffusion.from_config(config)


def write_folder(folder: Path) -> Path:
    """The same parts as a diffusers folder, written by the libraries themselves."""
    torch.manual_seed(0)
    AutoencoderKL.from_config(CONFIG["vae"]).save_pretrained(folder / "vae")
    UNet2DConditionModel.from_config(CONFIG["unet"]).save_pretrained(folder / "unet")
    CLIPTextModel(CLIPTextConfig.from_dict(CONFIG["text_encoder"])).save_pretrained(folder / "text_encoder")
    train_tokenizer(["a photo of a red chair", "the blue lamp on the left"] * 20, VOCABULARY, folder / "tokenizer")
    return folder
