"""Diffusers folders of Marigold, Lotus and E2E-FT at toy width, in the layout their authors publish."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from deixis.backbones.stable_diffusion import TOKENIZER_FILES
from deixis.training.tokenizer import train_tokenizer
from tests.folders import WORDS
from tests.tiny import CONFIG, VOCABULARY

SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
TASK = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
TRAILING = {"timestep_spacing": "trailing"}
# Pipeline class, channels of the U-Net, what else it has, scheduler class and settings.
KINDS: dict[str, tuple[str, int, dict[str, Any], type[Any], dict[str, Any]]] = {
    "marigold-v1-0": ("MarigoldPipeline", 8, {}, DDIMScheduler, {"timestep_spacing": "leading"}),
    "marigold-v1-1": (
        "MarigoldDepthPipeline",
        8,
        {},
        DDIMScheduler,
        {**TRAILING, "rescale_betas_zero_snr": True},
    ),
    "marigold-lcm": ("MarigoldPipeline", 8, {}, LCMScheduler, {}),
    "e2e-ft": ("MarigoldPipeline", 8, {}, DDIMScheduler, TRAILING),
    "lotus-d": ("LotusDPipeline", 4, TASK, DDIMScheduler, {}),
    "lotus-g": ("LotusGPipeline", 8, TASK, DDIMScheduler, {}),
    "lotus-d-disparity": ("LotusDPipeline", 4, TASK, DDIMScheduler, {}),
}


def write_pipeline(folder: Path, kind: str, **index: Any) -> Path:
    """Save random networks of one of :data:`KINDS`; ``index`` goes into ``model_index.json``."""
    named, channels, more, scheduler, settings = KINDS[kind]
    config = copy.deepcopy(CONFIG)
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**config["unet"], **more, "in_channels": channels})
    unet.save_pretrained(folder / "unet")
    AutoencoderKL.from_config(config["vae"]).save_pretrained(folder / "vae")
    tokenizer = train_tokenizer(WORDS * 20, VOCABULARY, folder.parent / f"{folder.name}-words")
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    tower = CLIPTextModel(CLIPTextConfig.from_dict({**config["text_encoder"], **special}))
    tower.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    for name in TOKENIZER_FILES:
        source = folder.parent / f"{folder.name}-words" / name
        if source.is_file():
            (folder / "tokenizer" / name).write_bytes(source.read_bytes())
    kept = {k: v for k, v in SCHEDULE.items() if k != "steps_offset" or scheduler is DDIMScheduler}
    scheduler(**{**kept, **settings}).save_pretrained(folder / "scheduler")
    content = {
        "_class_name": named,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler.__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "default_denoising_steps": 2,
        "default_processing_resolution": 64,
        **index,
    }
    (folder / "model_index.json").write_text(json.dumps(content))
    return folder
