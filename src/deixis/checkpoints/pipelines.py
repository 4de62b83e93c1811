"""Diffusers folders of depth estimators: Marigold, Lotus and E2E-FT as their authors publish them.

::

    model_index.json   class of the original pipeline, its defaults
    unet/ vae/ text_encoder/ tokenizer/ scheduler/

Which system a folder holds is read from its networks and its scheduler, and must agree with the class it names. No
code of a folder is ever run.

Two keys of ``model_index.json`` are this project's own; diffusers passes over them, as over all that begin with an
underscore. ``_text_padding`` is the rule by which the network has learned to read its text
(:data:`deixis.conditioning.text.Padding`). ``_shared`` names parts that several folders have in common and that lie
once, in a folder beside this one: part to that folder's name and the digest of its files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import diffusers.schedulers
import torch
from diffusers import DDIMScheduler, LCMScheduler
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from deixis.backbones.stable_diffusion import (
    read_autoencoder,
    read_denoiser,
    read_text_encoder,
    read_tokenizer,
)
from deixis.checkpoints.folder import beside, check_beside, check_free, copy_card, file_digest
from deixis.checkpoints.layout import AGAIN, CLASSES, INDEX, System, kind_of, read_json, system_of
from deixis.conditioning.text import Padding, TextTower
from deixis.errors import CheckpointError, ModelError
from deixis.io import write_json
from deixis.registry import PIPELINE_PARTS
from deixis.systems.e2e_ft import E2EFT, E2EFTConfig
from deixis.systems.lotus import Lotus, LotusConfig
from deixis.systems.marigold import Marigold, MarigoldConfig
from deixis.types import DepthKind

PADDING = "_text_padding"
SHARED = "_shared"
# Parts that may lie in another folder.
SHAREABLE = ("vae", "text_encoder", "tokenizer")
# The class of each part, by its library.
LIBRARIES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}

# What a scheduler takes the network's output for.
PREDICTIONS = ("epsilon", "sample", "v_prediction")
# What all noise schedules of Stable Diffusion state, whoever steps through them.
BETAS = {"beta_start", "beta_end", "beta_schedule"}


@dataclass(frozen=True)
class Pipeline:
    """What a folder holds.

    Attributes:
        system: the method.
        model: its networks, in evaluation mode.
        tokenizer: vocabulary of its text tower.
        kind: what its maps are.
        scheduler: ``scheduler_config.json``.
        padding: how texts are read.
        index: ``model_index.json``.
    """

    system: System
    model: Marigold | Lotus | E2EFT
    tokenizer: CLIPTokenizer
    kind: DepthKind
    scheduler: dict[str, Any]
    padding: Padding
    index: dict[str, Any]


def read_pipeline(folder: Path) -> Pipeline:
    """Load a folder.

    Raises:
        ModelError: if a part is missing, damaged or does not fit, if the pipeline is for something else, or if the
            class it names and what it holds disagree.
    """
    index = read_json(folder / INDEX)
    named = index.get("_class_name")
    if not isinstance(named, str) or named not in CLASSES:
        raise ModelError(
            folder / INDEX,
            f"names the pipeline {named or 'nothing'}, which gives no depth here",
            f"pass a folder of {', '.join(CLASSES)}",
        )
    places = {part: folder / part for part in PIPELINE_PARTS} | _shared_parts(folder, index)
    missing = [part for part, place in places.items() if not place.is_dir()]
    if missing:
        raise ModelError(
            folder, f"has no '{missing[0]}' folder", f"such a folder holds {', '.join(PIPELINE_PARTS)}; {AGAIN}"
        )
    schedule = folder / "scheduler" / "scheduler_config.json"
    system = _system(folder)
    if system not in CLASSES[named]:
        raise ModelError(
            folder,
            f"names the pipeline {named}, but holds the networks of {system}",
            f"copy the right unet and scheduler, or correct _class_name in {INDEX}",
        )
    scheduler = _read_scheduler(schedule, system)
    vae, unet = read_autoencoder(places["vae"]), read_denoiser(folder / "unet")
    latents, given = vae.config.latent_channels, unet.config.out_channels
    if (latents, given) != (4, 4):
        raise ModelError(
            folder,
            f"has latents of {latents} channels and a unet that gives {given}, where {system} has 4",
            "copy vae and unet from one source",
        )
    tokenizer = read_tokenizer(places["tokenizer"])
    tower = TextTower(read_text_encoder(places["text_encoder"]), frozen=True)
    width = unet.config.cross_attention_dim
    if tower.clip.config.hidden_size != width:
        raise ModelError(
            folder,
            f"has text vectors of {tower.clip.config.hidden_size} channels for a unet that reads {width}",
            "copy text_encoder and unet from one source",
        )
    if len(tokenizer) > tower.clip.config.vocab_size:
        raise ModelError(
            places["tokenizer"],
            f"has {len(tokenizer)} words, the text tower knows {tower.clip.config.vocab_size}",
            "copy tokenizer and text_encoder from one source",
        )
    kind = kind_of(folder, index, system)
    padding = index.get(PADDING, "none")
    if padding not in get_args(Padding):
        raise ModelError(folder / INDEX, f"says {PADDING} {padding!r}", f"use {' or '.join(get_args(Padding))}")
    resolution = _whole(folder, index, "default_processing_resolution", 768)
    model: Marigold | E2EFT | Lotus
    if system == "marigold":
        assert scheduler is not None
        config = MarigoldConfig(
            steps=_whole(folder, index, "default_denoising_steps", 4) or 1,
            resolution=resolution,
            scale_invariant=bool(index.get("scale_invariant", True)),
            shift_invariant=bool(index.get("shift_invariant", True)),
        )
        try:
            scheduler.set_timesteps(config.steps)
        except ValueError as error:
            raise ModelError(
                folder / INDEX, f"says default_denoising_steps {config.steps}", "its schedule has fewer; correct it"
            ) from error
        model = Marigold(config, vae, unet, tower, scheduler)
    elif system == "e2e-ft":
        assert isinstance(scheduler, DDIMScheduler)
        model = E2EFT(E2EFTConfig(resolution), vae, unet, tower, scheduler)
    else:
        assert kind != "metric"
        model = Lotus(LotusConfig(kind, resolution), vae, unet, tower)
    return Pipeline(system, model.eval(), tokenizer, kind, read_json(schedule), padding, index)


def _system(folder: Path) -> System:
    unet = read_json(folder / "unet" / "config.json")
    system = system_of(unet, read_json(folder / "scheduler" / "scheduler_config.json"))
    if system is None:
        channels, embedding = unet.get("in_channels"), unet.get("class_embed_type")
        raise ModelError(
            folder / "unet",
            f"has {channels} input channels and class embedding {embedding}, as no system here",
            "pass a folder of Marigold (8, none), Lotus (4 or 8, projection of 4) or E2E-FT (8, none)",
        )
    return system


def _whole(folder: Path, index: dict[str, Any], key: str, default: int) -> int:
    value = index.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelError(folder / INDEX, f"says {key} {value!r}", "correct it to a whole number")
    return value


def _read_scheduler(path: Path, system: System) -> DDIMScheduler | LCMScheduler | None:
    """The schedule of the noise; None for Lotus, whose one step has none, whatever its folder names."""
    config = read_json(path)
    named = config.get("_class_name")
    # Names only: a listed class is not imported.
    if not isinstance(named, str) or not named.endswith("Scheduler") or named not in dir(diffusers.schedulers):
        raise ModelError(
            path, f"names the scheduler {named or 'nothing'}, which diffusers does not have", "correct _class_name"
        )
    if system.startswith("lotus"):
        return None
    classes: dict[str, Any] = {"DDIMScheduler": DDIMScheduler, "LCMScheduler": LCMScheduler}
    if system == "e2e-ft" and config.keys() >= BETAS:
        classes[named] = DDIMScheduler  # as the original's inference reads it
    if named not in classes:
        raise ModelError(path, f"names the scheduler {named}", f"use one of {', '.join(classes)}")
    kind = classes[named]
    try:
        scheduler: DDIMScheduler | LCMScheduler = kind.from_config({**config, "_class_name": kind.__name__})
        scheduler.set_timesteps(1)  # what it finds wrong first when it is used
    except Exception as error:  # whatever a damaged configuration makes the library raise
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(path, f"describes no {kind.__name__} ({why})", AGAIN) from error
    if scheduler.config.prediction_type not in PREDICTIONS:
        said = f"says prediction_type {scheduler.config.prediction_type!r}"
        raise ModelError(path, said, f"use one of {', '.join(PREDICTIONS)}")
    return scheduler


# ------------------------------------------------------------------------------------------------ shared parts


def _shared_parts(folder: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each part that lies elsewhere, checked to the bit."""
    stated = index.get(SHARED, {})
    places = {}
    try:
        entries = [(part, str(entry["folder"]), str(entry["sha256"])) for part, entry in stated.items()]
    except (AttributeError, TypeError, LookupError) as error:
        raise ModelError(folder / INDEX, f"has a damaged {SHARED} ({error!r})", AGAIN) from error
    for part, name, sha256 in entries:
        if part not in SHAREABLE:
            raise ModelError(folder / INDEX, f"shares '{part}'", f"parts that can be shared are {', '.join(SHAREABLE)}")
        found = beside(folder, name, part) / part
        if part_digest(found) != sha256:
            raise ModelError(
                found, f"is not the {part} that {folder.name} was made with", f"copy '{name}' again, or {folder.name}"
            )
        places[part] = found
    return places


def part_digest(folder: Path) -> str:
    """SHA-256 over the names and the SHA-256 of a part's files, in the order of their names."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        whole.update(path.name.encode() + b"\0" + file_digest(path))
    return whole.hexdigest()


def share_pipeline_parts(folder: Path, backbone: Path) -> list[str]:
    """Leave away what a pipeline folder and the backbone beside it have in common, to the bit.

    Args:
        folder: a pipeline folder; parts are deleted from it and named in its ``model_index.json``.
        backbone: a diffusers folder with the same parent.

    Returns:
        the names of the parts.

    Raises:
        ModelError: if either is damaged.
        UsageError: if they do not lie beside each other.
    """
    check_beside(folder, backbone)
    index = read_json(folder / INDEX)
    places = {part: folder / part for part in SHAREABLE if (folder / part).is_dir()}
    common = [part for part, place in places.items() if _same_part(part, place, backbone / part)]
    entries = {part: {"folder": backbone.name, "sha256": part_digest(backbone / part)} for part in common}
    # Named first, deleted then: an interruption leaves a folder that still loads.
    write_json(folder / INDEX, {**index, SHARED: {**index.get(SHARED, {}), **entries}})
    for part in common:
        shutil.rmtree(places[part])
    return common


def _same_part(part: str, one: Path, other: Path) -> bool:
    """Whether two folders give the same network or vocabulary."""
    if not other.is_dir():
        return False
    if part == "tokenizer":
        mine, theirs = read_tokenizer(one), read_tokenizer(other)
        same_words = mine.get_vocab() == theirs.get_vocab()
        return same_words and mine.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    read: Any = read_autoencoder if part == "vae" else read_text_encoder
    a, b = read(one), read(other)
    return _settings(one) == _settings(other) and _same_tensors(a.state_dict(), b.state_dict())


def _settings(folder: Path) -> dict[str, Any]:
    """A part's configuration, without what says who wrote it, with which version and precision."""
    apart = ("transformers_version", "dtype", "torch_dtype")
    config = read_json(folder / "config.json")
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in apart}


def _same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ------------------------------------------------------------------------------------------------------ saving


def save_pipeline(folder: Path, pipeline: Pipeline, card: Path | None = None) -> None:
    """Write a pipeline with all its parts, in float32; it appears whole or not at all.

    What was shared is copied, so that diffusers' own pipelines load the folder.

    Args:
        folder: must not exist, or be empty.
        pipeline: as :func:`read_pipeline` gives it.
        card: a folder whose card goes along, where it has one.

    Raises:
        CheckpointError: if ``folder`` is in the way or cannot be written.
    """
    check_free(folder)
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    tower = pipeline.model.text_tower
    assert tower is not None  # every pipeline that is read has one
    parts: dict[str, nn.Module] = {"unet": pipeline.model.unet, "vae": pipeline.model.vae, "text_encoder": tower.clip}
    # Of what else a pipeline may have, a safety checker for one, nothing is read: it has none here.
    index = {key: [None, None] if isinstance(value, list) else value for key, value in pipeline.index.items()}
    index.pop(SHARED, None)
    index |= {part: list(library) for part, library in LIBRARIES.items()}
    index |= {"scheduler": ["diffusers", pipeline.scheduler["_class_name"]], PADDING: pipeline.padding}
    if pipeline.system.startswith("lotus"):
        # Under another name the folder could not be told from one of the other kind.
        index["prediction_type"] = "disparity" if pipeline.kind == "disparity" else "depth"
    try:
        disable_progress_bar()  # of transformers, which draws one for its only file
        for name, part in parts.items():
            cast(Any, part).save_pretrained(partial / name)
        pipeline.tokenizer.save_pretrained(partial / "tokenizer")
        (partial / "scheduler").mkdir()
        write_json(partial / "scheduler" / "scheduler_config.json", pipeline.scheduler)
        write_json(partial / INDEX, index)
        copy_card(card, partial)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            folder, f"cannot be written ({why})", "free some space or choose another place"
        ) from error
    finally:
        enable_progress_bar()
        shutil.rmtree(partial, ignore_errors=True)
