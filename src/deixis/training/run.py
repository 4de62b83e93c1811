"""From a recipe to a weight folder."""

from __future__ import annotations

import copy
import os
import pydoc_data.topics
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import OmegaConf
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from deixis.backbones.stable_diffusion import (
    TOKENIZER_FILES,
    StableDiffusion,
    read_autoencoder,
    read_denoiser,
    read_text_encoder,
    read_tokenizer,
)
from deixis.backbones.weights import tensors_sha256
from deixis.checkpoints.folder import (
    FILES,
    MANIFEST,
    Manifest,
    Preprocessing,
    check_free,
    fill_parts,
    fingerprint,
    network,
    place_of,
    read_manifest,
    read_part,
    save_folder,
    split,
)
from deixis.checkpoints.layout import SCHEDULER
from deixis.conditioning.describe import NYU_SCENES, TEMPLATES, class_words
from deixis.conditioning.embed import Embeddings
from deixis.conditioning.text import Padding, TextTower
from deixis.data import nyuv2
from deixis.errors import DeixisError, UsageError
from deixis.heads.metric_bins import MetricBins
from deixis.io import write_json, write_text
from deixis.registry import RELATIVE, SYSTEMS
from deixis.training import relative
from deixis.training.augment import Augmentation
from deixis.training.autoencoder import Autoencoder, AutoencoderTask, start_as_pooling
from deixis.training.best import Best
from deixis.training.boards import open_board
from deixis.training.cache import Cache, ask_alone, changed_by
from deixis.training.card import CARD, write_card
from deixis.training.checkpoint import load_state
from deixis.training.checks import STAGES, check_shares, nearest
from deixis.training.contrast import ContrastTask, TextSide
from deixis.training.depth import DepthLearning, DepthTask
from deixis.training.disk import Disk, disk_task, open_disk
from deixis.training.distill import Distillation
from deixis.training.licences import licence_of
from deixis.training.log import Begin, Log, RunLog
from deixis.training.loop import Schedule, Task, train
from deixis.training.machine import Hardware, add_lora, merge_lora, place, together, unets
from deixis.training.machine import begin as begin_process
from deixis.training.objectives import System
from deixis.training.recipe import Recipe, difference
from deixis.training.record import write_curves, write_environment
from deixis.training.refer import ReferTask
from deixis.training.semantics import Semantics
from deixis.training.store import Store, load_store
from deixis.training.stream import StreamTask
from deixis.training.stream_card import write_stream_card
from deixis.training.text_to_image import TextToImage, TextToImageTask, fitted
from deixis.training.tokenizer import train_tokenizer
from deixis.world import words

PIPELINE = "model_index.json"
INIT_REMEDY = "train what the recipe starts from first, or pass init=DIR"
# Trains a network; gives the averaged one.
Learn = Callable[[nn.Module, Task], nn.Module]
# Writes a trained network as a folder; it may take it apart.
Save = Callable[[Any, Path], None]
# What is learned from and validated on: frames in memory, or sets on disk.
Given = tuple[Store, Store] | Disk
# Latent values the autoencoder's scale is measured on.
SCALE_PICTURES = 400


def run(
    recipe: Recipe, log: Log, say: Callable[[str], None] = lambda line: None, begin: Begin = lambda step: None
) -> Path:
    """Train, resuming what is there, and write ``out/weights`` with their card; returns that folder.

    A run folder holds ``recipe.yaml``, ``tokenizer/``, ``log.jsonl``, ``state.pt`` (the last checkpoint),
    ``tensorboard/``, ``skipped.jsonl`` where samples could not be read, and at the end ``weights/``, ``weights-best/``
    where the recipe says what is best, ``curves.png`` and ``environment.json``. Each is there whole or not at all, so
    the same call goes on from wherever it was interrupted.

    Args:
        recipe: what to train.
        log: called with each row of the log.
        say: called with a line before what takes a while and logs nothing.
        begin: called with the step that training goes on from, the last one where it is done.

    Raises:
        DeixisError: one line for anything wrong with recipe, data or run folder.
    """
    weights = fit(recipe, log, say, begin)
    if os.environ.get("RANK", "0") == "0" and not (weights / CARD).is_file():
        seconds = load_state(Path(recipe.out) / "state.pt")["seconds"]
        if recipe.data.sets:
            write_stream_card(recipe, weights, seconds)
        else:
            say("writing the card: numbers on held-out frames, a few minutes")
            write_card(recipe, weights, seconds)
    return weights


def fit(
    recipe: Recipe, log: Log, say: Callable[[str], None] = lambda line: None, begin: Begin = lambda step: None
) -> Path:
    """Like :func:`run`, but for the card."""
    _check_device(recipe.device)
    accelerator = begin_process(recipe.device, recipe.hardware.precision)
    check_shares(recipe, accelerator.num_processes)
    torch.set_num_threads(recipe.threads)
    with together(accelerator):
        return _fit(recipe, log, say, begin, accelerator)


def _fit(recipe: Recipe, log: Log, say: Callable[[str], None], begin: Begin, accelerator: Accelerator) -> Path:
    """The part of one process."""
    hardware = Hardware(**asdict(recipe.hardware))
    out = Path(recipe.out)
    weights = out / "weights"
    done = weights / (PIPELINE if recipe.system in (*STAGES, *RELATIVE) else MANIFEST)
    trained = done.is_file()
    begun = trained or (out / "state.pt").is_file()
    history = RunLog(out / "log.jsonl", log, partial(open_board, recipe.log, out, say=say), begin)
    if not trained and recipe.init is not None and not Path(recipe.init).is_dir():
        raise UsageError(f"init {recipe.init}", "is no folder", INIT_REMEDY)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            _claim(recipe, out, begun=begun)
    if trained:
        begin(recipe.optimisation.steps)
    else:
        say("reading the data")
        given: Given
        if recipe.data.sets:
            given = open_disk(recipe, out, say, accelerator.process_index, accelerator.num_processes)
        else:
            given = load_store(recipe.data, "train"), load_store(recipe.data, "val")
        best = None if recipe.best is None else Best(recipe.best, out / "best.pt")
        cache = None if recipe.cache is None else Cache(Path(recipe.cache), say)

        # Parts that stay as they are do not lie in a checkpoint: only this tells that they are the same.
        origin = None if recipe.init is None else fingerprint(Path(recipe.init))[:8]

        def learn(model: nn.Module, task: Task) -> nn.Module:
            if cache is not None:
                _ask_alone(recipe, model, cache, say)
            return train(
                model,
                task,
                _settings(recipe),
                out,
                history,
                recipe.device,
                hardware,
                system=recipe.system,
                best=best,
                accelerator=accelerator,
                cache=cache,
                makers=0 if recipe.data.sets else hardware.workers,
                origin=origin,
            )

        finish = _finetune_relative if recipe.system in RELATIVE else _finetune
        with accelerator.main_process_first():
            begun = begun or not accelerator.is_main_process
            tokenizer = None
            if recipe.system != "autoencoder":
                tokenizer = _vocabulary(recipe, out / "tokenizer", given, begun=begun)
        if recipe.system in STAGES:
            assert not isinstance(given, Disk)  # no recipe of a stage names sets
            model, save = _pretrain(recipe, out, given, tokenizer, learn, cache)
        else:
            model, save = finish(recipe, out, given, tokenizer, learn)
        if accelerator.is_main_process:
            if best is not None and best.path.is_file() and not (out / "weights-best").is_dir():
                chosen = copy.deepcopy(model)
                chosen.load_state_dict(load_state(best.path)["average"])
                save(chosen, out / "weights-best")
            save(model, weights)
    if accelerator.is_main_process:
        if not (out / "environment.json").is_file():
            where = place(accelerator, recipe.device)
            write_environment(out / "environment.json", where, accelerator.num_processes, hardware.precision)
        if not (out / "curves.png").is_file():
            write_curves(history.rows(), out / "curves.png")
    accelerator.wait_for_everyone()
    return weights


def _ask_alone(recipe: Recipe, model: nn.Module, cache: Cache, say: Callable[[str], None]) -> None:
    """Frozen networks ask the cache first; says what is kept of what is learned from."""
    changed = changed_by(recipe)
    found = ask_alone(model, cache, repeated=changed is None)
    if recipe.system == "text-to-image":  # whose latents are known by now
        return
    if "pictures" in found and changed is not None:
        say(f"cache: no latents but of validation pictures: {changed} makes new pictures in each step")
    elif not found:
        say(f"cache: nothing is kept: all of {recipe.system} learns")


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError("device", f"is {device}, which torch cannot use here ({why})", "use cpu") from error


def _claim(recipe: Recipe, out: Path, *, begun: bool) -> None:
    """Make a run folder this recipe's, or see that it is. What it was begun with stays written there.

    Raises:
        UsageError: if a run with another recipe was begun in it.
        DeixisError: if it cannot be written.
    """
    stored = out / "recipe.yaml"
    goes_on = begun and stored.is_file()
    if goes_on:
        different = difference(recipe, stored)
        if different is not None:
            raise UsageError(
                out, f"was begun with {different}", "finish it with its own recipe, or choose another out=DIR"
            )
    else:
        check_free(out / "weights")
    for left in out.glob(".weights*.partial"):  # of a run that was killed while it wrote them
        shutil.rmtree(left, ignore_errors=True)
    if goes_on:
        return
    try:
        write_text(stored, OmegaConf.to_yaml(OmegaConf.structured(recipe)))
    except DeixisError as error:
        raise DeixisError(
            error.subject, error.problem, "free space on the disk, or choose another run folder with out=DIR"
        ) from error


def corpus(store: Store) -> list[str]:
    """Text for a small vocabulary: the captions and expressions of the data, every word of the world, and English.

    The general English is Python's own documentation, which every interpreter carries.
    """
    own = [sentence for levels in store.captions for level in levels for sentence in level]
    own += [text for found in store.expressions for text, _ in found]
    listed = sorted(words.vocabulary()) + [class_words(scene) for scene in NYU_SCENES]
    listed += [template.format(class_words(scene)) for template in TEMPLATES for scene in NYU_SCENES]
    return own[:: max(1, len(own) // 40_000)] + listed * 40 + list(pydoc_data.topics.topics.values()) * 3


def _vocabulary(recipe: Recipe, folder: Path, given: Given, *, begun: bool) -> CLIPTokenizer:
    """That of ``init`` where it has one, otherwise made; and kept: another Python has other texts to make it from.

    Raises:
        UsageError: if there is none, and no frames in memory to make one from.
    """
    if begun:
        return read_tokenizer(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if recipe.init is not None:
        init = Path(recipe.init)
        shared = read_manifest(init).shared if (init / MANIFEST).is_file() else {}
        source = place_of(init, "tokenizer", shared) / "tokenizer"
        if source.is_dir():
            _copy(source, folder)
            return read_tokenizer(folder)
    if isinstance(given, Disk):
        raise UsageError(f"init {recipe.init}", "has no vocabulary (tokenizer/)", "pass a whole diffusers folder")
    return train_tokenizer(corpus(given[0]), recipe.vocabulary, folder)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target)
    except OSError as error:
        why = error.strerror or error.args[0][0][2]  # shutil gathers what went wrong: (from, to, why) of each file
        raise DeixisError(
            target, f"cannot be written ({why})", "free space on the disk, or choose another out=DIR"
        ) from error


def network_parts(recipe: Recipe, tokenizer: CLIPTokenizer | None) -> dict[str, nn.Module]:
    """``vae``, ``text_encoder`` and ``unet``: from ``init`` those it has, untrained those that ``backbone`` has.

    Raises:
        UsageError: if the libraries cannot build such a part.
        ModelError: if a part of ``init`` is damaged.
    """
    parts: dict[str, nn.Module] = {}
    torch.manual_seed(recipe.optimisation.seed)
    try:
        if "vae" in recipe.backbone:
            vae = AutoencoderKL.from_config(recipe.backbone["vae"])
            if vae.config.norm_num_groups == 4:
                start_as_pooling(vae)
            parts["vae"] = vae
        if "text_encoder" in recipe.backbone and tokenizer is not None:
            special = {
                "vocab_size": len(tokenizer),
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            }
            parts["text_encoder"] = CLIPTextModel(
                CLIPTextConfig.from_dict({**recipe.backbone["text_encoder"], **special})
            )
        if "unet" in recipe.backbone:
            parts["unet"] = UNet2DConditionModel.from_config(recipe.backbone["unet"])
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError("backbone", f"cannot be built ({why})", "compare its sizes with recipes/mini/") from error
    if recipe.init is not None:
        folder = Path(recipe.init)
        readers = {"vae": read_autoencoder, "text_encoder": read_text_encoder, "unet": read_denoiser}
        for part, read in readers.items():
            if part not in parts and (folder / part).is_dir():
                parts[part] = read(folder / part)
    return parts


def _wanted(parts: Mapping[str, object], names: tuple[str, ...], recipe: Recipe) -> None:
    for name in names:
        if name not in parts:
            raise UsageError(recipe.system, f"has no {name} to start from", f"add backbone.{name} or {INIT_REMEDY}")


def _settings(recipe: Recipe) -> Schedule:
    given = asdict(recipe.optimisation)
    del given["batch_size"], given["lr_batch"], given["micro_batch"]
    return Schedule(**given | {"betas": tuple(given["betas"])})


def _pretrain(
    recipe: Recipe,
    out: Path,
    stores: tuple[Store, Store],
    tokenizer: CLIPTokenizer | None,
    learn: Learn,
    cache: Cache | None,
) -> tuple[nn.Module, Save]:
    """A stage of pre-training; its folder holds the parts it started from and the one it adds."""
    parts = network_parts(recipe, tokenizer)
    common: dict[str, Any] = {
        "train": stores[0],
        "val": stores[1],
        "shares": tuple(recipe.data.shares),
        "batch_size": recipe.optimisation.batch_size,
    }
    model: nn.Module
    task: Task
    if recipe.system == "autoencoder":
        _wanted(parts, ("vae",), recipe)
        model = Autoencoder(cast(AutoencoderKL, parts["vae"]))
        task = AutoencoderTask(
            crop=recipe.crop or min(stores[0].size),
            depth_share=recipe.depth_share,
            kl=recipe.kl,
            size=(int(recipe.data.size[0]), int(recipe.data.size[1])),
            **common,
        )
    else:
        assert tokenizer is not None
        _wanted(parts, ("text_encoder",), recipe)
        tower = TextTower(cast(CLIPTextModel, parts["text_encoder"]), frozen=False)
        common |= {
            "tokenizer": tokenizer,
            "tokens": tower.clip.config.max_position_embeddings,
            "text_levels": tuple(recipe.text_levels),
        }
        if recipe.system == "contrast":
            model, task = TextSide(tower), ContrastTask(**common)
        else:
            _wanted(parts, ("vae", "unet"), recipe)
            unet = cast(UNet2DConditionModel, parts["unet"])
            model = TextToImage(tower, unet)
            if cache is not None:
                ask_alone(parts["vae"].requires_grad_(False), cache, repeated=True)
            task = TextToImageTask(
                vae=cast(AutoencoderKL, parts["vae"]),
                size=(int(recipe.data.size[0]), int(recipe.data.size[1])),
                text_rate=recipe.text_rate,
                clean=recipe.clean,
                align=recipe.teacher.weight,
                channels=unet.config.block_out_channels,
                **common,
            )

    def save(trained: Any, folder: Path) -> None:  # noqa: ANN401 - of one of three classes
        if recipe.system == "autoencoder":
            parts["vae"] = trained.vae.cpu()
            size = (int(recipe.data.size[0]), int(recipe.data.size[1]))
            _set_scale(cast(AutoencoderKL, parts["vae"]), stores[0], size)
        else:
            parts["text_encoder"] = trained.text_tower.clip.cpu()
            if recipe.system == "text-to-image":
                parts["unet"] = trained.unet.cpu()
        save_backbone(folder, parts, out / "tokenizer" if tokenizer is not None else None)

    return learn(model, task), save


@torch.inference_mode()
def _set_scale(vae: AutoencoderKL, store: Store, size: tuple[int, int]) -> None:
    """Scale the latents of pictures of ``size`` to a standard deviation of 1, as Stable Diffusion does."""
    step = max(1, len(store) // SCALE_PICTURES)
    pictures = fitted(store.images[::step], size)
    means = [vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in pictures.split(32)]
    vae.register_to_config(scaling_factor=round(1 / float(torch.cat(means).std()), 5))


def save_backbone(
    folder: Path,
    parts: dict[str, nn.Module],
    tokenizer: Path | None,
    index: dict[str, Any] | None = None,
    schedule: dict[str, Any] = SCHEDULER,
) -> None:
    """Write parts as a diffusers folder in half precision; it appears whole or not at all.

    With all of them, ``model_index.json`` lets diffusers' own pipeline load it.

    Args:
        folder: where.
        parts: ``vae``, ``unet``, ``text_encoder``, those that there are.
        tokenizer: folder of its vocabulary.
        index: what ``model_index.json`` says beside the parts; that it is a Stable Diffusion, by default.
        schedule: of the noise.

    Raises:
        CheckpointError: if ``folder`` is in the way.
        DeixisError: if it cannot be written.
    """
    check_free(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    plain = index is None
    index = dict(index or {"_class_name": "StableDiffusionPipeline"})
    classes = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}
    try:
        disable_progress_bar()  # of transformers, for a file of two megabytes
        for name, part in parts.items():
            cast(Any, part).half().save_pretrained(partial / name)
            index[name] = ["transformers" if name == "text_encoder" else "diffusers", classes[name]]
        if tokenizer is not None:
            (partial / "tokenizer").mkdir(parents=True)
            for name in TOKENIZER_FILES:
                if (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, partial / "tokenizer" / name)
            index["tokenizer"] = ["transformers", "CLIPTokenizer"]
        if "unet" in parts:
            write_json(partial / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler", **schedule})
            index["scheduler"] = ["diffusers", "DDIMScheduler"]
        if "unet" in parts and plain:
            index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
            index["requires_safety_checker"] = False
        write_json(partial / PIPELINE, index)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise DeixisError(folder, f"cannot be written ({why})", "free space on the disk and start it again") from error
    finally:
        enable_progress_bar()
        shutil.rmtree(partial, ignore_errors=True)


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> tuple[nn.Module, Manifest]:
    """The network of a recipe before training, and its manifest.

    Raises:
        UsageError: if the libraries cannot build such a backbone, or the weights in ``init`` have other switches.
        ModelError: if the system cannot work with it.
    """
    if recipe.init is not None and (Path(recipe.init) / MANIFEST).is_file():
        init = Path(recipe.init)
        before = read_manifest(init)
        go_on = _continued if before.system == recipe.system else _borrowed
        model, manifest = go_on(recipe, init, before)
        if recipe.bins is not None:
            _bins(model).spread(*recipe.bins)
        return model, manifest
    parts = network_parts(recipe, tokenizer)
    _wanted(parts, ("vae", "unet", "text_encoder"), recipe)
    architecture = {name: architecture_of(part) for name, part in parts.items()}
    config = dict(recipe.config)
    vae = cast(AutoencoderKL, parts["vae"])
    if recipe.system.startswith("evp"):  # divided by what they were divided by when the U-Net was pre-trained
        config.setdefault("std", 1 / vae.config.scaling_factor)
    manifest = Manifest(
        system=recipe.system,
        config=config,
        preprocessing=_preprocessing(recipe),
        licence=licence_of(recipe),
        architecture=architecture,
        source=f"recipe for {recipe.system}, seed {recipe.optimisation.seed}",
    )
    backbone = StableDiffusion(
        vae=vae,
        unet=cast(UNet2DConditionModel, parts["unet"]),
        text_encoder=cast(CLIPTextModel, parts["text_encoder"]),
        tokenizer=tokenizer,
    )
    torch.manual_seed(recipe.optimisation.seed)
    model = network(manifest, backbone)
    if recipe.bins is not None:
        _bins(model).spread(*recipe.bins)
    return model, manifest


def _bins(model: Any) -> MetricBins:  # noqa: ANN401 - EVP depth
    bins: MetricBins = model.bins
    return bins


def _borrowed(recipe: Recipe, init: Path, before: Manifest) -> tuple[nn.Module, Manifest]:
    """Image encoder, U-Net and text tower of another system, under a head that has learned nothing."""
    _wanted(before.architecture, ("text_encoder",), recipe)
    config = dict(recipe.config)
    if recipe.system.startswith("evp"):
        config.setdefault("std", before.config.get("std", 1 / before.architecture["vae"]["scaling_factor"]))
    seed = recipe.optimisation.seed
    manifest = Manifest(
        system=recipe.system,
        config=config,
        preprocessing=_preprocessing(recipe),
        licence=licence_of(recipe),
        architecture=before.architecture,
        source=f"recipe for {recipe.system}, seed {seed}, on parts of ({before.source})",
    )
    torch.manual_seed(seed)
    fresh = split(network(manifest, StableDiffusion.from_config(before.architecture)).state_dict())
    parts = {part: read_part(init, part, before.shared) for part in FILES} | {"head": fresh["head"]}
    return copy.deepcopy(fill_parts(manifest, parts, init)), manifest


def _continued(recipe: Recipe, init: Path, before: Manifest) -> tuple[nn.Module, Manifest]:
    """The weights of the same system, to go on from; depth may be given another range."""
    for key, value in recipe.config.items():
        if key != "max_depth" and before.config.get(key) != value:
            raise UsageError(f"config.{key}", f"is {value}, and {before.config.get(key)} in {init}", "leave it out")
    config = {key: value for key, value in {**before.config, **recipe.config}.items() if key != "stored"}
    went_on = re.search(r"; went on by recipe, seeds [\d, ]+$", before.source)
    source = f"{before.source}{',' if went_on else '; went on by recipe, seeds'} {recipe.optimisation.seed}"
    manifest = replace(
        before,
        config=config,
        preprocessing=_preprocessing(recipe),
        shared={},
        source=source,
        licence=licence_of(recipe),
    )
    parts = {part: read_part(init, part, before.shared) for part in FILES}
    parts["head"].pop("stored_text", None)  # the mean of captions that are not learned from now
    # A copy: what is float32 on disk is mapped from there.
    return copy.deepcopy(fill_parts(manifest, parts, init)), manifest


def _preprocessing(recipe: Recipe) -> Preprocessing:
    size = (int(recipe.data.size[0]), int(recipe.data.size[1]))
    return Preprocessing(size, "stretch" if SYSTEMS[recipe.system].task == "refer" else "fit")


def architecture_of(part: nn.Module) -> dict[str, Any]:
    """A part's configuration as it is written beside its weights."""
    config: Any = part.config
    sizes = config.to_dict() if hasattr(config, "to_dict") else config
    # What diffusers notes of its defaults is in the order of a set, another one in each process.
    return {name: value for name, value in sizes.items() if name != "_use_default_values"}


def task_of(
    recipe: Recipe, model: nn.Module, tokenizer: CLIPTokenizer, given: Given
) -> DepthTask | ReferTask | StreamTask:
    """Data, loss and evaluation of a method's recipe."""
    network_: Any = model
    if isinstance(given, Disk):
        mean = None if recipe.embedding is None else _mean_embedding(recipe.embedding, network_)
        return disk_task(recipe, model, tokenizer, given, mean)
    auxiliary: nn.Module = nn.Identity()
    if recipe.teacher.weight:
        auxiliary = Distillation(tuple(network_.unet.channels[:2]))
    common: dict[str, Any] = {
        "train": given[0],
        "val": given[1],
        "shares": tuple(recipe.data.shares),
        "tokenizer": tokenizer,
        "size": tuple(recipe.data.size),
        "batch_size": recipe.optimisation.batch_size,
        "augmentation": Augmentation(**asdict(recipe.augment)),
        "distill": recipe.teacher.weight,
        "auxiliary": auxiliary,
    }
    if SYSTEMS[recipe.system].task == "depth":
        config: Any = network_.config
        size = common["size"]
        if recipe.crop is not None:
            common["size"] = (recipe.crop, recipe.crop)
        return DepthTask(
            text_shares=recipe.text_shares,
            lambd=recipe.lambd,
            pixels=recipe.pixels,
            descriptions=getattr(config, "text", "cd"),
            pooled=getattr(config, "aggregate", "v") in ("v", "vd"),
            tokens=getattr(config, "tokens", tokenizer.model_max_length),
            max_depth=config.max_depth,
            picture=size,
            mean=None if recipe.embedding is None else _mean_embedding(recipe.embedding, network_),
            **common,
        )
    semantics = Semantics(network_.unet.channels[0], nyuv2.CLASSES) if recipe.semantic else None
    return ReferTask(
        root=None if recipe.data.root is None else Path(recipe.data.root),
        expressions=recipe.expressions,
        text_shares=recipe.text_shares,
        tokens=network_.config.tokens,
        dice=recipe.dice,
        presence=recipe.presence,
        semantic=recipe.semantic,
        semantics=semantics,
        **common,
    )


def _mean_embedding(path: str, model: Any) -> Tensor:  # noqa: ANN401 - EVP depth
    """The mean embedding in a file, of the model's own text tower and as long as its texts."""
    embeddings = Embeddings(path)
    mean, _ = embeddings.of_dataset(_kind(model.config))
    if embeddings.about["clip_sha256"] != tensors_sha256(model.text_tower.clip):
        raise UsageError(f"embedding {path}", "is of another text tower", "run 'deixis embed' with --clip, as init")
    if mean.shape[1] not in (1, getattr(model.config, "tokens", 1)):
        raise UsageError(
            f"embedding {path}",
            f"has {mean.shape[1]} tokens, the model {model.config.tokens}",
            f"run 'deixis embed' with --tokens {model.config.tokens}",
        )
    return mean


def _kind(config: Any) -> Literal["d", "vd"]:  # noqa: ANN401 - of EVP or VPD depth
    """Which mean stands for a dataset: of vectors for each token, or of one vector for a whole text."""
    return "vd" if getattr(config, "aggregate", "v") in ("v", "vd") else "d"


def _finetune(
    recipe: Recipe, out: Path, given: Given, tokenizer: CLIPTokenizer | None, learn: Learn
) -> tuple[nn.Module, Save]:
    """EVP or VPD; a weight folder."""
    assert tokenizer is not None
    model, manifest = build(recipe, tokenizer)
    for name in recipe.frozen:
        named = dict(model.named_children())
        if name not in named:
            raise UsageError(f"frozen {name}", f"is no part of {recipe.system}", nearest(name, list(named)))
        named[name].requires_grad_(False)
    task = task_of(recipe, model, tokenizer, given)
    learning = task.learning if isinstance(task, StreamTask) else task
    _adapt(recipe, model)

    def save(trained: nn.Module, folder: Path) -> None:
        merge_lora(trained.cpu())
        state = trained.state_dict()
        if isinstance(learning, DepthLearning) and recipe.text_shares[1]:
            # The dataset's mean embedding goes with the weights: it stands in for a description nobody gave.
            told = None
            if recipe.embedding is not None:
                told = Embeddings(recipe.embedding).of_dataset(_kind(trained.config))[1].provenance
            manifest.config["stored"] = [told or "aggregate:" + "+".join(_sources(recipe))]
            state["stored_text"] = learning.fixed_text(trained)[0].cpu()
        half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        # The files of the vocabulary, not the object: that remembers how it was last called, and saves it.
        save_folder(folder, manifest, split(half), out / "tokenizer")

    return learn(model, task), save


def _adapt(recipe: Recipe, model: nn.Module) -> None:
    """Low-rank updates for the U-Net, where the recipe asks for them."""
    if recipe.lora:
        torch.manual_seed(recipe.optimisation.seed)
        for unet in unets(model):
            add_lora(unet, recipe.lora)


def _finetune_relative(
    recipe: Recipe, out: Path, given: Given, tokenizer: CLIPTokenizer | None, learn: Learn
) -> tuple[nn.Module, Save]:
    """Marigold, Lotus or E2E-FT; the folder is a diffusers pipeline."""
    assert tokenizer is not None
    parts = network_parts(recipe, tokenizer)
    _wanted(parts, ("vae", "unet", "text_encoder"), recipe)
    torch.manual_seed(recipe.optimisation.seed)
    system, padding = cast(System, recipe.system), cast(Padding, recipe.text_padding)
    size = (int(recipe.data.size[0]), int(recipe.data.size[1]))
    tower = TextTower(cast(CLIPTextModel, parts["text_encoder"]), frozen=True)
    vae, unet = cast(AutoencoderKL, parts["vae"]), cast(UNet2DConditionModel, parts["unet"])
    model = relative.network(system, vae, unet, tower, size, "disparity" if recipe.disparity else "affine")
    task: Task
    if isinstance(given, Disk):
        task = disk_task(recipe, model, tokenizer, given, None)
    else:
        task = relative.RelativeTask(
            system=system,
            train=given[0],
            val=given[1],
            shares=recipe.data.shares,
            tokenizer=tokenizer,
            size=size,
            batch_size=recipe.optimisation.batch_size,
            text_rate=recipe.text_rate,
            padding=padding,
            augmentation=Augmentation(**asdict(recipe.augment)),
            alphas_cumprod=DDIMScheduler(**relative.SCHEDULES[system]).alphas_cumprod,
            disparity=recipe.disparity,
        )
    _adapt(recipe, model)

    def save(trained: Any, folder: Path) -> None:  # noqa: ANN401 - of one of three classes
        merge_lora(trained.cpu())
        written = {"vae": trained.vae, "unet": trained.unet, "text_encoder": trained.text_tower.clip}
        index = relative.index_of(system, size, padding, disparity=recipe.disparity)
        save_backbone(folder, written, out / "tokenizer", index, relative.SCHEDULES[system])

    return learn(model, task), save


def _sources(recipe: Recipe) -> list[str]:
    memory = ["nyuv2"] * (recipe.data.root is not None) + ["world"] * (recipe.data.world is not None)
    return memory + list(dict.fromkeys(one.dataset for one in recipe.data.sets.values() if one.share))
