"""Diffusers folders of depth estimators: Marigold, Lotus and E2E-FT as their authors publish them.

::

    model_index.json   class of the original pipeline, its defaults
    unet/ vae/ text_encoder/ tokenizer/ scheduler/

Which system a folder holds is read from its networks and its scheduler, and must agree with the class it names. No
code of a folder is ever run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffusers import DDIMScheduler, LCMScheduler
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import (
    AGAIN,
    read_autoencoder,
    read_denoiser,
    read_text_encoder,
    read_tokenizer,
)
from deixis.conditioning.text import TextTower
from deixis.errors import ModelError
from deixis.registry import PIPELINE_PARTS
from deixis.systems.e2e_ft import E2EFT, E2EFTConfig
from deixis.systems.lotus import Lotus, LotusConfig
from deixis.systems.marigold import Marigold, MarigoldConfig
from deixis.types import DepthKind

INDEX = "model_index.json"
System = Literal["marigold", "lotus-d", "lotus-g", "e2e-ft"]
# Pipeline classes of the originals, with the systems that were published under them.
CLASSES: dict[str, tuple[System, ...]] = {
    "MarigoldPipeline": ("marigold", "e2e-ft"),
    "MarigoldDepthPipeline": ("marigold", "e2e-ft"),
    "LotusDPipeline": ("lotus-d",),
    "LotusGPipeline": ("lotus-g",),
}


@dataclass(frozen=True)
class Pipeline:
    """What a folder holds.

    Attributes:
        system: the method.
        model: its networks, in evaluation mode.
        tokenizer: vocabulary of its text tower.
        kind: what its maps are.
    """

    system: System
    model: Marigold | Lotus | E2EFT
    tokenizer: CLIPTokenizer
    kind: DepthKind


def read_pipeline(folder: Path) -> Pipeline:
    """Load a folder.

    Raises:
        ModelError: if a part is missing, damaged or does not fit, if the pipeline is for something else, or if the
            class it names and what it holds disagree.
    """
    index = _read_json(folder / INDEX)
    named = index.get("_class_name")
    if named not in CLASSES:
        raise ModelError(
            folder / INDEX,
            f"names the pipeline {named or 'nothing'}, which gives no depth here",
            f"pass a folder of {', '.join(CLASSES)}",
        )
    missing = [part for part in PIPELINE_PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            folder, f"has no '{missing[0]}' folder", f"such a folder holds {', '.join(PIPELINE_PARTS)}; {AGAIN}"
        )
    scheduler = _read_scheduler(folder / "scheduler" / "scheduler_config.json")
    sizes = _read_json(folder / "unet" / "config.json")
    system = _system(folder, sizes, scheduler)
    if system not in CLASSES[named]:
        raise ModelError(
            folder,
            f"names the pipeline {named}, but holds the networks of {system}",
            f"copy the right unet and scheduler, or correct _class_name in {INDEX}",
        )
    vae, unet = read_autoencoder(folder / "vae"), read_denoiser(folder / "unet")
    tokenizer = read_tokenizer(folder / "tokenizer")
    tower = TextTower(read_text_encoder(folder / "text_encoder"), frozen=True)
    width = unet.config.cross_attention_dim
    if tower.clip.config.hidden_size != width:
        raise ModelError(
            folder,
            f"has text vectors of {tower.clip.config.hidden_size} channels for a unet that reads {width}",
            "copy text_encoder and unet from one source",
        )
    if len(tokenizer) > tower.clip.config.vocab_size:
        raise ModelError(
            folder / "tokenizer",
            f"has {len(tokenizer)} words, the text tower knows {tower.clip.config.vocab_size}",
            "copy tokenizer and text_encoder from one source",
        )
    kind = _kind(folder, index, system)
    resolution = _whole(folder, index, "default_processing_resolution", 768)
    model: Marigold | E2EFT | Lotus
    if system == "marigold":
        config = MarigoldConfig(
            steps=_whole(folder, index, "default_denoising_steps", 4) or 1,
            resolution=resolution,
            scale_invariant=bool(index.get("scale_invariant", True)),
            shift_invariant=bool(index.get("shift_invariant", True)),
        )
        model = Marigold(config, vae, unet, tower, scheduler)
    elif system == "e2e-ft":
        assert isinstance(scheduler, DDIMScheduler)
        model = E2EFT(E2EFTConfig(resolution), vae, unet, tower, scheduler)
    else:
        assert kind != "metric"
        model = Lotus(LotusConfig(kind, resolution), vae, unet, tower)
    return Pipeline(system, model.eval(), tokenizer, kind)


def _system(folder: Path, unet: dict[str, Any], scheduler: DDIMScheduler | LCMScheduler) -> System:
    channels, embedding = unet.get("in_channels"), unet.get("class_embed_type")
    if embedding == "projection" and unet.get("projection_class_embeddings_input_dim") == 4:
        if channels == 4:
            return "lotus-d"
        if channels == 8:
            return "lotus-g"
    elif embedding is None and channels == 8:
        # E2E-FT's step starts at the last timestep of a schedule whose end is not pure noise.
        config = scheduler.config
        trailing = config.timestep_spacing == "trailing" and not config.rescale_betas_zero_snr
        return "e2e-ft" if isinstance(scheduler, DDIMScheduler) and trailing else "marigold"
    raise ModelError(
        folder / "unet",
        f"has {channels} input channels and class embedding {embedding}, as no system here",
        "pass a folder of Marigold (8, none), Lotus (4 or 8, projection of 4) or E2E-FT (8, none)",
    )


def _kind(folder: Path, index: dict[str, Any], system: System) -> DepthKind:
    """Lotus comes in both kinds, and says so in nothing but its name."""
    stated = index.get("prediction_type")
    if stated not in (None, "depth", "disparity"):
        raise ModelError(folder / INDEX, f"says that it predicts {stated}", "pass a folder that predicts depth")
    if stated is None and system.startswith("lotus"):
        names = (str(index.get("_name_or_path", "")), folder.resolve().name)
        stated = "disparity" if any("disparity" in name.lower() for name in names) else "depth"
    return "disparity" if stated == "disparity" else "affine"


def _whole(folder: Path, index: dict[str, Any], key: str, default: int) -> int:
    value = index.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelError(folder / INDEX, f"says {key} {value!r}", "correct it to a whole number")
    return value


def _read_scheduler(path: Path) -> DDIMScheduler | LCMScheduler:
    config = _read_json(path)
    classes: dict[str, Any] = {"DDIMScheduler": DDIMScheduler, "LCMScheduler": LCMScheduler}
    named = config.get("_class_name")
    if named not in classes:
        raise ModelError(path, f"names the scheduler {named or 'nothing'}", f"use one of {', '.join(classes)}")
    try:
        scheduler: DDIMScheduler | LCMScheduler = classes[named].from_config(config)
    except Exception as error:  # whatever a damaged configuration makes the library raise
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(path, f"describes no {named} ({why})", AGAIN) from error
    return scheduler


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", AGAIN) from error
    except ValueError as error:
        raise ModelError(path, f"is not JSON ({error})", AGAIN) from error
    if not isinstance(content, dict):
        raise ModelError(path, "is not a mapping of keys", AGAIN)
    return content
