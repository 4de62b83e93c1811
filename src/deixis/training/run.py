"""From a recipe to a weight folder."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.checkpoints.folder import MANIFEST, Manifest, Preprocessing, network, save_folder, split
from deixis.conditioning.describe import NYU_SCENES, TEMPLATES, class_words
from deixis.data import nyuv2
from deixis.errors import UsageError
from deixis.registry import SYSTEMS
from deixis.training.augment import Augmentation
from deixis.training.card import CARD, write_card
from deixis.training.checkpoint import load_state
from deixis.training.distill import Distillation
from deixis.training.loop import Schedule, train
from deixis.training.nyuv2_depth import DepthTask
from deixis.training.nyuv2_refer import SYNONYMS, ReferTask, plural
from deixis.training.recipe import Recipe
from deixis.training.tokenizer import train_tokenizer

Log = Callable[[dict[str, float]], None]


def corpus(root: Path) -> list[str]:
    """Text for a small vocabulary: class names, their synonyms, scenes, templates, and general English.

    The general English is Python's own documentation, which every interpreter carries.
    """
    names = nyuv2.class_names(root)
    things = [
        *names,
        *(plural(name) for name in names),
        *(word for words in SYNONYMS.values() for word in words),
    ]
    scenes = [class_words(scene) for scene in NYU_SCENES]
    places = [
        "on the left",
        "on the right",
        "farther away",
        "closer",
        "nearest",
        "in the middle",
        "of a",
        "with a",
    ]
    own = [*things, *scenes, *places, *(t.format(s) for t in TEMPLATES for s in scenes)]
    return own * 20 + list(pydoc_data.topics.topics.values())


def build(recipe: Recipe, out: Path) -> tuple[nn.Module, Manifest, CLIPTokenizer]:
    """The untrained network of a recipe, its manifest and its vocabulary (made once, kept in ``out``).

    Raises:
        UsageError: if the system is unknown or the backbone does not say what it is.
    """
    if recipe.system not in SYSTEMS:
        raise UsageError(f"system {recipe.system}", "is not known", f"use one of {', '.join(SYSTEMS)}")
    if set(recipe.backbone) != {"vae", "unet", "text_encoder"}:
        raise UsageError("backbone", f"has keys {', '.join(recipe.backbone)}", "give vae, unet and text_encoder")
    folder = out / "tokenizer"
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    else:
        tokenizer = train_tokenizer(corpus(Path(recipe.data.root)), recipe.vocabulary, folder)
    architecture: dict[str, Any] = {
        **recipe.backbone,
        "text_encoder": {
            **recipe.backbone["text_encoder"],
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    }
    manifest = Manifest(
        system=recipe.system,
        config=dict(recipe.config),
        preprocessing=Preprocessing(recipe.data.size, "fit"),
        licence="Apache-2.0; trained on NYU Depth v2 frames, which are for research use",
        architecture=architecture,
        source=f"recipe for {recipe.system}, seed {recipe.optimisation.seed}",
    )
    torch.manual_seed(recipe.optimisation.seed)
    model = network(manifest, StableDiffusion.from_config(architecture, tokenizer))
    if recipe.bins is not None:
        bins: Any = model.bins
        bins.spread(*recipe.bins)
    return model, manifest, tokenizer


def task_of(recipe: Recipe, model: nn.Module, tokenizer: CLIPTokenizer) -> DepthTask | ReferTask:
    """Data, loss and evaluation of a recipe."""
    network_: Any = model
    auxiliary: nn.Module = nn.Identity()
    if recipe.teacher.weight:
        auxiliary = Distillation(tuple(network_.unet.channels[:2]))
    common: dict[str, Any] = {
        "root": Path(recipe.data.root),
        "tokenizer": tokenizer,
        "tokens": network_.config.tokens,
        "size": tuple(recipe.data.size),
        "batch_size": recipe.optimisation.batch_size,
        "augmentation": Augmentation(**asdict(recipe.augment)),
        "bf16": recipe.bf16,
        "distill": recipe.teacher.weight,
        "auxiliary": auxiliary,
    }
    if SYSTEMS[recipe.system].task == "depth":
        return DepthTask(text_shares=recipe.text_shares, lambd=recipe.lambd, **common)
    return ReferTask(shares=recipe.text_shares, dice=recipe.dice, **common)


def run(recipe: Recipe, log: Log) -> Path:
    """Train, resuming what is there, and write ``out/weights`` with their card; returns that folder.

    Raises:
        DeixisError: one line for anything wrong with recipe, data or run folder.
    """
    out = Path(recipe.out)
    weights = out / "weights"
    if not (weights / MANIFEST).is_file():
        _train(recipe, out, weights, log)
    if not (weights / CARD).is_file():
        write_card(recipe, weights, load_state(out / "state.pt")["seconds"])
    return weights


def _train(recipe: Recipe, out: Path, weights: Path, log: Log) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    OmegaConf.save(OmegaConf.structured(recipe), out / "recipe.yaml")
    model, manifest, tokenizer = build(recipe, out)
    task = task_of(recipe, model, tokenizer)
    settings = {k: v for k, v in asdict(recipe.optimisation).items() if k != "batch_size"}

    def record(values: dict[str, float]) -> None:
        with (out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        log(values)

    trained = train(model, task, Schedule(**settings), out, record)
    state = {key: value.half() if value.is_floating_point() else value for key, value in trained.state_dict().items()}
    save_folder(weights, manifest, split(state), tokenizer)
