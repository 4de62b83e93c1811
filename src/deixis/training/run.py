"""From a recipe to a weight folder."""

from __future__ import annotations

import pydoc_data.topics
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import StableDiffusion, read_tokenizer
from deixis.checkpoints.folder import (
    MANIFEST,
    Manifest,
    Preprocessing,
    check_free,
    load_folder,
    network,
    save_folder,
    split,
)
from deixis.conditioning.describe import NYU_SCENES, TEMPLATES, class_words
from deixis.data import nyuv2
from deixis.errors import DeixisError, ModelError, UsageError
from deixis.io import write_text
from deixis.registry import SYSTEMS
from deixis.training.augment import Augmentation
from deixis.training.card import CARD, write_card
from deixis.training.checkpoint import load_state
from deixis.training.distill import Distillation
from deixis.training.log import Log, RunLog
from deixis.training.loop import Schedule, train
from deixis.training.nyuv2_depth import DepthTask
from deixis.training.nyuv2_refer import SYNONYMS, ReferTask, plural
from deixis.training.recipe import Recipe, difference
from deixis.training.semantics import Semantics
from deixis.training.tokenizer import train_tokenizer


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


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> tuple[nn.Module, Manifest]:
    """The untrained network of a recipe and its manifest.

    Raises:
        UsageError: if the libraries cannot build such a backbone.
        ModelError: if the system cannot work with it.
    """
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
    try:
        model = network(manifest, StableDiffusion.from_config(architecture, tokenizer))
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            "backbone", f"cannot be built ({why})", "compare its sizes with recipes/evp_depth_mini.yaml"
        ) from error
    if recipe.bins is not None:
        bins: Any = model.bins
        bins.spread(*recipe.bins)
    return model, manifest


def _start_from(model: nn.Module, folder: Path) -> None:
    """Take the backbone of another system's weights; every tensor of its parts must fit.

    Raises:
        ModelError: if the folder is damaged or its backbone is of other sizes.
    """
    donor, _, _ = load_folder(folder)
    for part in ("image_encoder", "unet", "text_tower"):
        try:
            model.get_submodule(part).load_state_dict(donor.get_submodule(part).state_dict())
        except (RuntimeError, AttributeError) as error:
            why = next(iter(str(error).splitlines()), part)
            raise ModelError(
                folder, f"does not fit the recipe's {part} ({why})", "use weights of the same sizes"
            ) from error


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
    semantics = None
    if recipe.semantic:
        semantics = Semantics(network_.unet.channels[0], len(nyuv2.class_names(Path(recipe.data.root))))
    return ReferTask(
        shares=recipe.text_shares, dice=recipe.dice, semantic=recipe.semantic, semantics=semantics, **common
    )


def run(recipe: Recipe, log: Log, say: Callable[[str], None] = lambda line: None) -> Path:
    """Train, resuming what is there, and write ``out/weights`` with their card; returns that folder.

    A run folder holds ``recipe.yaml``, ``tokenizer/``, ``log.jsonl``, ``state.pt`` (the last checkpoint) and at the
    end ``weights/``. Each is there whole or not at all, so the same call goes on from wherever it was interrupted.

    Args:
        recipe: what to train.
        log: called with each row of the log.
        say: called with a line before what takes a while and logs nothing.

    Raises:
        DeixisError: one line for anything wrong with recipe, data or run folder.
    """
    out = Path(recipe.out)
    weights = out / "weights"
    torch.set_num_threads(recipe.threads)
    trained = (weights / MANIFEST).is_file()
    begun = trained or (out / "state.pt").is_file()
    _claim(recipe, out, begun=begun)
    if not trained:
        _train(recipe, out, weights, RunLog(out / "log.jsonl", log), begun=begun)
    if not (weights / CARD).is_file():
        say("writing the card: numbers on the held-out scenes, a few minutes")
        write_card(recipe, weights, load_state(out / "state.pt")["seconds"])
    return weights


def _claim(recipe: Recipe, out: Path, *, begun: bool) -> None:
    """Make a run folder this recipe's, or see that it is.

    Raises:
        UsageError: if a run with another recipe was begun in it.
        DeixisError: if it cannot be written.
    """
    stored = out / "recipe.yaml"
    if begun and stored.is_file():
        different = difference(recipe, stored)
        if different is not None:
            raise UsageError(
                out, f"was begun with {different}", "finish it with its own recipe, or choose another out=DIR"
            )
    else:
        check_free(out / "weights")
    for left in out.glob(".weights.*.partial"):  # of a run that was killed while it wrote them
        shutil.rmtree(left, ignore_errors=True)
    write_text(stored, OmegaConf.to_yaml(OmegaConf.structured(recipe)))


def _vocabulary(recipe: Recipe, folder: Path, *, begun: bool) -> CLIPTokenizer:
    """Made at the beginning of a run, and kept: another Python has other texts to make it from."""
    if begun:
        return read_tokenizer(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if recipe.init is not None:
        donor = Path(recipe.init)
        if not (donor / MANIFEST).is_file():
            raise UsageError(
                f"init {donor}", "is not a weight folder", "pass one, or train what the recipe starts from first"
            )
        read_tokenizer(donor / "tokenizer")
        try:
            shutil.copytree(donor / "tokenizer", folder)
        except OSError as error:
            raise DeixisError(folder, f"cannot be written ({error.strerror})", "choose another out=DIR") from error
        return read_tokenizer(folder)
    return train_tokenizer(corpus(Path(recipe.data.root)), recipe.vocabulary, folder)


def _train(recipe: Recipe, out: Path, weights: Path, log: RunLog, *, begun: bool) -> None:
    nyuv2.some_frames(recipe.data.root, "train")  # a wrong folder is told before anything is made from it
    tokenizer = _vocabulary(recipe, out / "tokenizer", begun=begun)
    model, manifest = build(recipe, tokenizer)
    if recipe.init is not None and not begun:  # afterwards the checkpoint has it all
        _start_from(model, Path(recipe.init))
    task = task_of(recipe, model, tokenizer)
    settings = {k: v for k, v in asdict(recipe.optimisation).items() if k != "batch_size"}
    trained = train(model, task, Schedule(**settings), out, log)
    state = {key: value.half() if value.is_floating_point() else value for key, value in trained.state_dict().items()}
    # The files of the vocabulary, not the object: that remembers how it was last called, and saves it.
    save_folder(weights, manifest, split(state), out / "tokenizer")
