"""What a recipe must satisfy beyond known keys: values that can be trained with, and parts that fit together."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig

from deixis.conditioning.text import Padding
from deixis.data.readers import READERS
from deixis.errors import UsageError
from deixis.registry import RELATIVE, SYSTEMS
from deixis.training.best import ORDERS
from deixis.training.boards import BOARDS
from deixis.training.groups import Groups
from deixis.training.muon import Optimiser
from deixis.training.schedules import Shape
from deixis.training.tokenizer import SMALLEST

if TYPE_CHECKING:
    from deixis.training.recipe import DiskSet, Recipe

# Stages of pre-training, and the part that each adds to the folder it starts from.
STAGES = {"autoencoder": "vae", "contrast": "text_encoder", "text-to-image": "unet"}

# The stride of Stable Diffusion's latents, and the resolutions of its U-Net, on which VPD's and EVP's heads rely.
RESOLUTIONS = 4
# What is done to samples that are read from disk (:mod:`deixis.training.stream`).
TRANSFORMS = ("none", "flip", "vpd")
PARTS: dict[str, Callable[..., object]] = {
    "vae": AutoencoderKL.__init__,
    "unet": UNet2DConditionModel.__init__,
    "text_encoder": CLIPTextConfig.__init__,
}


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """A remedy for a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"


def check(recipe: Recipe) -> None:
    """Check a recipe's values, and how they go together.

    Raises:
        UsageError: naming the key, its value and what it may be.
    """
    known = [*SYSTEMS, *RELATIVE, *STAGES]
    if recipe.system not in known:
        raise UsageError(f"system {recipe.system}", "is not known", nearest(recipe.system, known))
    _check_numbers(recipe)
    if recipe.text_padding not in get_args(Padding):
        _refuse("text_padding", recipe.text_padding, f"choose {' or '.join(get_args(Padding))}")
    if recipe.text_padding != "none" and recipe.system not in RELATIVE:
        _refuse("text_padding", recipe.text_padding, f"leave it out: {recipe.system} pads by its own rule")
    if recipe.system in SYSTEMS:
        _check_config(recipe)
    elif recipe.config:
        _refuse("config", recipe.config, f"leave it out: {recipe.system} has no switches")
    if recipe.system == "autoencoder":
        _check_crop(recipe)
    if recipe.system in RELATIVE and any(side % 8 for side in recipe.data.size):
        _refuse("data.size", list(recipe.data.size), "choose multiples of 8: latents are an eighth of it")
    if recipe.disparity and not recipe.system.startswith("lotus"):
        _refuse("disparity", "true", f"leave it out: {recipe.system} learns depth")
    if recipe.pixels < 1 and recipe.system != "evp-depth":
        _refuse("pixels", recipe.pixels, f"leave it out: {recipe.system} learns from all of them")
    _check_backbone(recipe)
    if recipe.data.sets:
        _check_sets(recipe)
    elif recipe.data.validation:
        _refuse("data.validation", ", ".join(recipe.data.validation), "leave it out, or name data.sets to learn from")


def _check_sets(recipe: Recipe) -> None:
    """Datasets that are read from disk."""
    for key, given in (("data.root", recipe.data.root), ("data.world", recipe.data.world)):
        if given is not None:
            _refuse(key, given, "leave it out: data.sets are read from disk, and these are held in memory")
    if recipe.system in STAGES:
        _refuse("data.sets", ", ".join(recipe.data.sets), f"give {recipe.system} data.root and data.world")
    for key, weight in (("teacher.weight", recipe.teacher.weight), ("semantic", recipe.semantic)):
        if weight:
            _refuse(key, weight, "use 0 with data.sets: it goes with frames in memory")
    if recipe.pixels < 1:
        _refuse("pixels", recipe.pixels, "use 1 with data.sets: a part of them goes with frames in memory")
    if recipe.init is None:
        _refuse("init", "null", "name a diffusers folder: with data.sets there is no vocabulary to make one from")
    if recipe.data.transforms not in TRANSFORMS:
        _refuse("data.transforms", recipe.data.transforms, f"choose {', '.join(TRANSFORMS[:-1])} or {TRANSFORMS[-1]}")
    refer = recipe.system in SYSTEMS and SYSTEMS[recipe.system].task == "refer"
    if recipe.data.transforms == "vpd" and (refer or recipe.system in RELATIVE):
        _refuse("data.transforms", "vpd", f"use flip or none: {recipe.system} needs no depth in its pictures")
    if refer and list(recipe.text_shares) != [1, 0, 0]:
        _refuse("text_shares", list(recipe.text_shares), "use [1,0,0]: what is asked for comes from the datasets")
    for section, sets in (("sets", recipe.data.sets), ("validation", recipe.data.validation)):
        for label, one in sets.items():
            _check_set(recipe, f"data.{section}.{label}", one)
    if not sum(one.share for one in recipe.data.sets.values()) > 0:
        _refuse("data.sets", "without a share", "give a share above 0 to one of them")
    check_shares(recipe, 1)


def _check_set(recipe: Recipe, key: str, given: DiskSet) -> None:
    if given.dataset not in READERS:
        raise UsageError(f"{key}.dataset", f"is {given.dataset}", nearest(given.dataset, list(READERS)))
    splits = READERS[given.dataset].splits
    if given.split is not None and given.split not in splits:
        raise UsageError(f"{key}.split", f"is {given.split}", f"use one of {', '.join(splits)}")
    if given.crop not in ("none", "benchmark"):
        _refuse(f"{key}.crop", given.crop, "choose none or benchmark")
    if not 0 <= given.share < math.inf:
        _refuse(f"{key}.share", given.share, "choose 0 or more")
    if given.max_depth is not None and not 0 < given.max_depth < math.inf:
        _refuse(f"{key}.max_depth", given.max_depth, "choose a depth above 0 in metres, or null")
    size: Sequence[int] | None = given.size
    if size is not None and min(size) < 1:
        _refuse(f"{key}.size", list(size), "give height and width in pixels, for example [480,640]")
    if size is not None and recipe.system in RELATIVE and any(side % 8 for side in size):
        _refuse(f"{key}.size", list(size), "choose multiples of 8: latents are an eighth of it")


def _refuse(key: str, value: object, remedy: str) -> NoReturn:
    raise UsageError(key, f"is {value}", remedy)


def _check_numbers(recipe: Recipe) -> None:
    opt, augment = recipe.optimisation, recipe.augment
    for key, value, low, high in (
        ("vocabulary", recipe.vocabulary, SMALLEST, math.inf),
        ("text_rate", recipe.text_rate, 0, 1),
        ("clean", recipe.clean, 0, 1),
        ("crop", 8 if recipe.crop is None else recipe.crop, 8, math.inf),
        ("pixels", recipe.pixels, 1e-3, 1),
        ("depth_share", recipe.depth_share, 0, 1),
        ("kl", recipe.kl, 0, math.inf),
        ("dice", recipe.dice, 0, math.inf),
        ("presence", recipe.presence, 0, math.inf),
        ("semantic", recipe.semantic, 0, math.inf),
        ("lambd", recipe.lambd, 0, 1),
        ("threads", recipe.threads, 1, math.inf),
        ("teacher.weight", recipe.teacher.weight, 0, math.inf),
        ("optimisation.steps", opt.steps, 1, math.inf),
        ("optimisation.batch_size", opt.batch_size, 1, math.inf),
        ("expressions", recipe.expressions, 1, math.inf),
        ("optimisation.warmup", opt.warmup, 0, opt.steps),
        ("optimisation.final", opt.final, 0, 1),
        ("optimisation.weight_decay", opt.weight_decay, 0, math.inf),
        ("optimisation.ema", opt.ema, 0, 1),
        ("optimisation.lr_batch", 1 if opt.lr_batch is None else opt.lr_batch, 1, math.inf),
        ("optimisation.fall", opt.steps if opt.fall is None else opt.fall, opt.warmup + 1, math.inf),
        ("optimisation.micro_batch", 1 if opt.micro_batch is None else opt.micro_batch, 1, math.inf),
        ("hardware.accumulation", recipe.hardware.accumulation, 1, math.inf),
        ("hardware.workers", recipe.hardware.workers, 0, math.inf),
        ("data.validated", recipe.data.validated, 1, math.inf),
        ("data.bad_samples", recipe.data.bad_samples, 0, math.inf),
        ("lora", recipe.lora, 0, math.inf),
        ("optimisation.seed", opt.seed, 0, 2**31),
        ("optimisation.save_every", opt.save_every, 1, math.inf),
        ("optimisation.eval_every", opt.eval_every, 1, math.inf),
        ("augment.flip", augment.flip, 0, 1),
        ("augment.grey", augment.grey, 0, 1),
        ("augment.zoom", augment.zoom, 1, math.inf),
        ("augment.rotate_deg", augment.rotate_deg, 0, 180),
        ("augment.colour", augment.colour, 0, 1),
    ):
        if not low <= value <= high or math.isinf(value):  # NaN fails the first
            limits = f"{low} or more" if math.isinf(high) else f"{low} to {high}"
            _refuse(key, value, f"choose {limits}")
    for key, value in (("optimisation.lr", opt.lr), ("optimisation.clip", 1.0 if opt.clip is None else opt.clip)):
        if not 0 < value < math.inf:
            _refuse(key, value, "choose a number above 0")
    _check_names(recipe)
    _check_batch(recipe)
    # Lists of any length in a YAML file, whatever their annotation says.
    size: Sequence[int] = recipe.data.size
    stored: Sequence[int] = recipe.data.stored
    bins: Sequence[float] | None = recipe.bins
    for key, sides in (("data.size", size), ("data.stored", stored)):
        if len(sides) != 2 or min(sides) < 1:
            _refuse(key, list(sides), "give height and width in pixels, for example [120,160]")
    groups: tuple[tuple[str, Sequence[float], int], ...] = (
        ("text_shares", recipe.text_shares, 3),
        ("data.shares", recipe.data.shares, 3),
        ("text_levels", recipe.text_levels, 4),
    )
    for key, shares, count in groups:
        if len(shares) != count or not all(0 <= share < math.inf for share in shares) or not sum(shares) > 0:
            example = "[0.4,0.2,0.4]" if count == 3 else "[1,2,4,1]"
            _refuse(key, list(shares), f"give {count} shares of at least 0, not all 0, for example {example}")
    if bins is not None and (len(bins) != 2 or not 0 < bins[0] < bins[1] < math.inf):
        _refuse("bins", list(bins), "give the nearest and the farthest depth in metres, for example [0.7,9]")


def _check_names(recipe: Recipe) -> None:
    """Words that choose among a few."""
    opt = recipe.optimisation
    for key, value, known in (
        ("optimisation.shape", opt.shape, get_args(Shape)),
        ("optimisation.groups", opt.groups, get_args(Groups)),
        ("optimisation.optimiser", opt.optimiser, get_args(Optimiser)),
        ("hardware.precision", recipe.hardware.precision, ("no", "bf16", "fp16")),
        ("log", recipe.log, BOARDS),
    ):
        if value not in known:
            _refuse(key, value, f"choose {', '.join(known[:-1])} or {known[-1]}")
    if opt.shape == "exponential" and not opt.final > 0:
        _refuse("optimisation.final", opt.final, "choose a share above 0: an exponential never comes to 0")
    if opt.shape == "vpd-depth" and opt.warmup < 1:
        _refuse("optimisation.warmup", opt.warmup, "choose the steps of half of the epochs")
    betas: Sequence[float] = opt.betas  # of any length in a YAML file
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        _refuse("optimisation.betas", list(betas), "give two of at least 0 and below 1, for example [0.9,0.999]")
    if opt.groups == "published" and recipe.system in STAGES:
        _refuse("optimisation.groups", opt.groups, f"choose matrices: nobody has published {recipe.system}")
    if recipe.hardware.precision == "fp16" and recipe.device == "cpu":
        _refuse("hardware.precision", "fp16", "choose bf16 or no: CPUs compute in no other format")
    if recipe.hardware.precision == "fp16" and recipe.hardware.fsdp:
        _refuse("hardware.precision", "fp16", "choose bf16 or no: hardware.fsdp scales no losses")
    if opt.optimiser == "muon" and recipe.hardware.fsdp:
        _refuse("optimisation.optimiser", "muon", "choose adamw: hardware.fsdp gives no process a whole matrix")
    if recipe.cache is not None and recipe.hardware.fsdp:
        _refuse("cache", recipe.cache, "use null with hardware.fsdp, whose processes must all compute the same")
    if recipe.lora and (recipe.system in STAGES or recipe.init is None):
        _refuse("lora", recipe.lora, "give init=DIR to a depth or referring system: updates need weights to update")
    if recipe.best is not None and (len(recipe.best.split()) != 2 or recipe.best.split()[1] not in ORDERS):
        _refuse("best", recipe.best, "give a metric and min or max, for example best='val_nyuv2_abs_rel min'")


def _check_batch(recipe: Recipe) -> None:
    """A learning rate is for a batch of one size."""
    opt = recipe.optimisation
    if opt.lr_batch is not None and opt.lr_batch != opt.batch_size:
        raise UsageError(
            "optimisation.batch_size",
            f"is {opt.batch_size}, and optimisation.lr {opt.lr:g} is for batches of {opt.lr_batch}",
            f"add optimisation.lr_batch={opt.batch_size} with a learning rate for it; in proportion that would be "
            f"optimisation.lr={opt.lr * opt.batch_size / opt.lr_batch:.3g}",
        )
    check_shares(recipe, 1)


def check_shares(recipe: Recipe, processes: int) -> None:
    """Whether processes and turns can divide the batch among them.

    Raises:
        UsageError: naming batch, processes and turns.
    """
    size, turns = recipe.optimisation.batch_size, recipe.hardware.accumulation
    if size % (processes * turns):
        raise UsageError(
            "optimisation.batch_size",
            f"is {size}, which {processes} processes in {turns} turns each (hardware.accumulation) cannot share",
            f"choose a multiple of {processes * turns}",
        )
    if recipe.data.sets:
        micro = recipe.optimisation.micro_batch or size
        if size % micro or (size // micro) % (processes * turns):
            raise UsageError(
                "optimisation.micro_batch",
                f"is {micro}, and a batch of {size} has not as many of them for each of {processes} processes in"
                f" {turns} turns (hardware.accumulation)",
                "choose one that divides the batch into a multiple of processes and turns",
            )
    elif recipe.optimisation.micro_batch is not None:
        _refuse("optimisation.micro_batch", recipe.optimisation.micro_batch, "leave it out: it goes with data.sets")
    if recipe.system == "contrast" and processes * turns > 1:
        raise UsageError(
            "contrast",
            f"compares all of a batch with each other, and {processes} processes in {turns} turns would not",
            "train it in one process with hardware.accumulation=1",
        )


def _check_crop(recipe: Recipe) -> None:
    """Crops become whole latents, and are cut from stored frames that are no smaller than the pictures."""
    height, width = recipe.data.stored
    crop = recipe.crop or min(height, width)
    if crop % 8 or crop > min(height, width):
        _refuse("crop", crop, f"choose a multiple of 8 that fits into data.stored, {height} x {width}")
    if height < recipe.data.size[0]:
        _refuse("data.stored", [height, width], f"store at least the height of data.size, {recipe.data.size[0]}")


def _check_config(recipe: Recipe) -> None:
    system = SYSTEMS[recipe.system]
    hints = get_type_hints(system.config)
    known = [f.name for f in fields(system.config)]
    for name, value in recipe.config.items():
        if name not in known:
            raise UsageError(f"config.{name}", f"is not a switch of {system.name}", nearest(name, known, "config."))
        if not _fits(value, hints[name]):
            raise UsageError(f"config.{name}", f"is {value!r}", f"give {_words(hints[name])}")
    switches = _switches(recipe)
    for name in ("tokens", "width", "num_bins", "bin_width", "bottleneck"):
        if switches.get(name, 1) < 1:
            _refuse(f"config.{name}", switches[name], "choose 1 or more")
    if switches.get("max_depth", 1) <= 0:
        _refuse("config.max_depth", switches["max_depth"], "choose a depth above 0 in metres")
    std = switches.get("std")
    if std is not None and std <= 0:
        _refuse("config.std", std, "choose a standard deviation above 0, or null for none")
    filters = switches.get("filters", (1, 1, 1))
    if len(filters) != 3 or min(filters) < 1:
        _refuse("config.filters", list(filters), "give the widths of three deconvolutions")
    if system.task == "depth":
        _check_text(recipe, switches)
    if recipe.bins is not None and not switches.get("bins"):
        _refuse("bins", list(recipe.bins), f"leave it out: this {system.name} has no metric bins")


def _check_text(recipe: Recipe, switches: Mapping[str, Any]) -> None:
    """One vector for a description of the class, that or one a token for a caption; what is computed once stays."""
    pooled, classes = switches.get("aggregate", "v") in ("v", "vd"), switches.get("text", "cd") == "cd"
    if classes and not pooled:
        _refuse("config.aggregate", switches["aggregate"], "use v or vd with config.text=cd, or config.text=id")
    if recipe.embedding is not None and (pooled or not recipe.text_shares[1]):
        _refuse(
            "embedding", recipe.embedding, "leave it out, or use config.aggregate=d and a share of the mean embedding"
        )
    if (classes or recipe.text_shares[1]) and not switches.get("clip_frozen", True):
        why = "class descriptions and mean embeddings are computed once"
        _refuse("config.clip_frozen", "false", f"use true, or config.text=id without a share of the mean: {why}")


def _switches(recipe: Recipe) -> dict[str, Any]:
    """The system's switches with this recipe's values."""
    config = SYSTEMS[recipe.system].config
    try:
        return asdict(config(**{k: tuple(v) if isinstance(v, list) else v for k, v in recipe.config.items()}))
    except TypeError as error:  # a switch without a default
        raise UsageError("config", f"leaves a switch open ({error})", "add it") from error


def _check_backbone(recipe: Recipe) -> None:
    given: dict[str, dict[str, Any]] = {}
    for part in recipe.backbone:
        if part not in PARTS:
            raise UsageError(f"backbone.{part}", "is no part of it", nearest(str(part), list(PARTS), "backbone."))
        if not isinstance(recipe.backbone[part], dict):
            _refuse(f"backbone.{part}", recipe.backbone[part], "give its sizes, as the other recipes do")
        known = {name: p.default for name, p in inspect.signature(PARTS[part]).parameters.items() if name != "self"}
        for name in recipe.backbone[part]:
            if name not in known:
                raise UsageError(
                    f"backbone.{part}.{name}", "is no size of it", nearest(str(name), list(known), f"backbone.{part}.")
                )
        given[part] = {**known, **recipe.backbone[part]}
    if recipe.init is None and not recipe.backbone:
        raise UsageError("backbone", "is empty, and there is no init to start from", "add init=DIR")
    for part in ("vae", "unet"):
        if part in given:
            _check_blocks(given[part], f"backbone.{part}")
    pairs = (
        ("unet", "in_channels", "vae", "latent_channels"),
        ("unet", "cross_attention_dim", "text_encoder", "hidden_size"),
    )
    for part, name, other, wanted in pairs:
        if part in given and other in given:
            one, two = _positive(given[part], part, name), _positive(given[other], other, wanted)
            if one != two:
                raise UsageError(
                    f"backbone.{part}.{name}", f"is {one} and backbone.{other}.{wanted} {two}", "make them equal"
                )
    if "text_encoder" in given:
        text = partial(_positive, given["text_encoder"], "text_encoder")
        _divides(text("hidden_size"), text("num_attention_heads"), "backbone.text_encoder", "num_attention_heads")
        longest = text("max_position_embeddings")
        tokens = _switches(recipe).get("tokens", 1) if recipe.system in SYSTEMS else 1
        if tokens > longest:
            _refuse("config.tokens", tokens, f"choose at most backbone.text_encoder.max_position_embeddings, {longest}")


def _check_blocks(sizes: Mapping[str, Any], key: str) -> None:
    widths = sizes["block_out_channels"]
    if not isinstance(widths, (list, tuple)) or not all(_fits(w, int) and w > 0 for w in widths):
        _refuse(f"{key}.block_out_channels", widths, "give positive whole numbers, for example [48,64,96,128]")
    if len(widths) != RESOLUTIONS:
        _refuse(f"{key}.block_out_channels", list(widths), f"give {RESOLUTIONS} widths, as Stable Diffusion has")
    for name in ("down_block_types", "up_block_types"):
        if not isinstance(sizes[name], (list, tuple)) or len(sizes[name]) != len(widths):
            raise UsageError(
                f"{key}.{name}",
                f"does not name {len(widths)} blocks",
                f"name one for each of block_out_channels {list(widths)}",
            )
    groups = _positive(sizes, key.removeprefix("backbone."), "norm_num_groups")
    for width in widths:
        _divides(width, groups, key, "norm_num_groups", "block_out_channels")


def _divides(width: int, by: int, key: str, divisor: str, name: str = "hidden_size") -> None:
    if width % by:
        raise UsageError(
            f"{key}.{divisor}", f"is {by}, which does not divide {width} in {key}.{name}", "choose one that divides it"
        )


def _positive(sizes: Mapping[str, Any], part: str, name: str) -> int:
    value = sizes[name]
    if not _fits(value, int) or value < 1:
        _refuse(f"backbone.{part}.{name}", value, "give a positive whole number")
    return int(value)


def _fits(value: object, hint: object) -> bool:
    """Whether a plain value is of an annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        hints = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        return len(hints) == len(value) and all(map(_fits, value, hints))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _words(hint: object) -> str:
    """A type as a user would say it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is tuple:
        return f"a list, each {_words(args[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", NoneType: "null"}
    return names[hint] if isinstance(hint, type) and hint in names else str(hint)
