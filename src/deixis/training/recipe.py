"""Recipes: one YAML file per experiment, checked key by key, with command-line overrides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # comes with omegaconf

from deixis.errors import UsageError, first_line
from deixis.training.checks import check, nearest


@dataclass
class DiskSet:
    """A dataset that is read from disk while it is learned from.

    Attributes:
        dataset: its name (``deixis data check`` knows them all).
        root: folder or plain tar, in a published layout.
        split: which part; null takes the dataset's first.
        list: file that names the samples; null takes the published list.
        share: how often it is taken, relative to the other sets; exact over the run.
        captions: file of ``deixis caption`` for its pictures, or the folder of the world's shards.
        crop: ``none``, or ``benchmark``: KITTI's frame of 352 x 1216 is cut out first.
        size: (height, width) to which pictures are resized [px]. Null: to ``data.size`` for masks, and for metric depth
            of which no window is cut; otherwise they stay as they are.
        max_depth: farther depth is not learned from [m]; null has no such limit.
    """

    dataset: str = MISSING
    root: str = MISSING
    split: str | None = None
    list: str | None = None
    share: float = 1.0
    captions: str | None = None
    crop: str = "none"
    size: tuple[int, int] | None = None
    max_depth: float | None = None


@dataclass
class Data:
    """Where the pictures are: all in memory (``root``, ``world``), or read from disk as they are needed (``sets``).

    Attributes:
        root: folder of NYU Depth v2's labelled training frames.
        world: folder of world shards (``deixis world render``).
        shares: how often a frame is a photo, a room, a road.
        stored: (height, width) of the frames in memory [px].
        size: (height, width) of the training pictures [px].
        sets: datasets to learn from, under names of your own; ``data.sets.NAME=null`` leaves one out.
        validation: datasets to validate on.
        validated: samples of each of them that are looked at, evenly spaced.
        transforms: what is done to samples of ``sets``: ``none``, ``flip``, or ``vpd``: CutDepth, flip, a window
            (``crop``, or ``size``) and colour, as VPD and EVP train depth.
        bad_samples: samples that may be skipped because they cannot be read, before a run ends.
    """

    root: str | None = None
    world: str | None = None
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stored: tuple[int, int] = (132, 176)
    size: tuple[int, int] = MISSING
    sets: dict[str, DiskSet] = field(default_factory=dict)
    validation: dict[str, DiskSet] = field(default_factory=dict)
    validated: int = 100
    transforms: str = "flip"
    bad_samples: int = 20


@dataclass
class Teacher:
    """Feature distillation from an ImageNet classifier.

    Attributes:
        weight: of its loss; 0 trains without a teacher.
    """

    weight: float = 0.0


@dataclass
class Optimisation:
    """See :class:`deixis.training.loop.Schedule`.

    Attributes:
        batch_size: of a whole step, whatever the number of processes and turns.
        lr_batch: batch size that ``lr`` is for; another ``batch_size`` is refused until it is given anew.
        micro_batch: ``data.sets``: pictures of one set whose loss is one mean; that of a step is the mean of those.
            Null takes the whole batch.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    lr_batch: int | None = None
    micro_batch: int | None = None
    warmup: int = MISSING
    shape: str = "cosine"
    fall: int | None = None
    groups: str = "matrices"
    optimiser: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    final: float = 0.02
    weight_decay: float = 0.05
    clip: float | None = 1.0
    ema: float = 0.998
    seed: int = 0
    save_every: int = 100
    eval_every: int = 250


@dataclass
class Hardware:
    """See :class:`deixis.training.machine.Hardware`."""

    precision: str = "no"
    accumulation: int = 1
    checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    fsdp: bool = False
    workers: int = 0


@dataclass
class Augment:
    """See :class:`deixis.training.augment.Augmentation`."""

    flip: float = 0.5
    zoom: float = 1.0
    rotate_deg: float = 0.0
    colour: float = 0.0
    grey: float = 0.0


@dataclass
class Recipe:
    """One experiment.

    Attributes:
        system: the method, or a stage of pre-training (:data:`deixis.training.checks.STAGES`).
        config: the method's switches.
        backbone: sizes of the untrained parts: ``vae``, ``unet``, ``text_encoder``; those that ``init`` has are left
            out.
        vocabulary: tokens of a tokenizer trained for an untrained backbone.
        bins: (nearest, farthest) metric bin before training [m]; for depth without pre-training.
        text_shares: depth: how often a caption, the dataset's mean embedding and nothing are given; referring: how
            often an expression, a class word and an absent thing are asked for.
        embedding: depth: file of ``deixis embed`` whose mean (``d``, or ``vd`` where a text is one vector) is the
            dataset's; null takes that of the training captions. Those of single captions are not read from it: the
            model's own text tower gives them, see ``cache``.
        expressions: referring: how many are asked for in one picture, which is encoded once.
        text_levels: pre-training: how often a caption of each level is taken, from a few words to distances.
        text_rate: pre-training: how often there is a caption at all.
        text_padding: Marigold, Lotus and E2E-FT: what is heard after the end of a caption, ``none`` or ``max_length``
            (:data:`deixis.conditioning.text.Padding`).
        disparity: Lotus: learn disparity, the inverse of depth.
        clean: text-to-image: share of samples that are all but clean, as perception reads the U-Net.
        crop: autoencoder and depth: side of the square windows that are learned from [px]; null takes all.
        pixels: EVP depth on pictures in memory: share of the pixels that are learned from, other ones in each step.
        depth_share: autoencoder: how often a crop is of a depth map.
        kl: autoencoder: weight of the divergence.
        init: what the network starts from: a diffusers folder whose parts it takes, the weight folder of a system that
            goes on learning, or of another system (EVP, VPD) whose image encoder, U-Net and text tower it takes.
        frozen: EVP and VPD: parts that stay as they are, for example ``unet``.
        semantic: weight of the label maps' loss of referring (:mod:`deixis.training.semantics`).
        dice: weight of the Dice loss of referring.
        presence: weight of the loss of whether a thing referred to is there at all.
        lambd: of the SiLog loss of depth.
        lora: rank of the U-Net's low-rank updates; 0 trains all of its weights.
        best: metric of the evaluation and ``min`` or ``max``, for example ``val_nyuv2_abs_rel min``: those weights
            are left as well, in ``weights-best``.
        log: ``tensorboard``, ``wandb`` or ``none``, beside ``log.jsonl``.
        cache: folder where what frozen networks make of texts and pictures is kept (:mod:`deixis.training.cache`).
        threads: CPU threads.
        device: where to train: ``cpu``, ``cuda`` …
        out: folder of the run.
    """

    system: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 2000
    bins: tuple[float, float] | None = None
    text_shares: tuple[float, float, float] = (1.0, 0.0, 0.0)
    embedding: str | None = None
    expressions: int = 1
    text_levels: tuple[float, float, float, float] = (1.0, 2.0, 4.0, 1.0)
    text_rate: float = 0.9
    text_padding: str = "none"
    disparity: bool = False
    clean: float = 0.0
    crop: int | None = None
    pixels: float = 1.0
    depth_share: float = 0.1
    kl: float = 5e-4
    init: str | None = None
    frozen: tuple[str, ...] = ()
    semantic: float = 0.0
    dice: float = 0.0
    presence: float = 0.0
    lambd: float = 0.5
    lora: int = 0
    best: str | None = None
    log: str = "tensorboard"
    cache: str | None = None
    threads: int = 2
    device: str = "cpu"
    out: str = MISSING
    data: Data = field(default_factory=Data)
    teacher: Teacher = field(default_factory=Teacher)
    optimisation: Optimisation = field(default_factory=Optimisation)
    hardware: Hardware = field(default_factory=Hardware)
    augment: Augment = field(default_factory=Augment)


# Keys that hold keys of their own. Those of ``config`` and ``backbone`` are known by what they configure.
SECTIONS = {
    "data": Data,
    "teacher": Teacher,
    "optimisation": Optimisation,
    "hardware": Hardware,
    "augment": Augment,
}

SETS = ("sets", "validation")

# What may differ between two starts of one run: where things lie, how often it is looked at, and who computes.
FREE = frozenset(
    {
        "out",
        "data.root",
        "data.world",
        "data.validated",
        "data.bad_samples",
        "init",
        "device",
        "threads",
        "best",
        "log",
        "cache",
        "optimisation.lr_batch",
        "optimisation.save_every",
        "optimisation.eval_every",
        "hardware.accumulation",
        "hardware.checkpointing",
        "hardware.channels_last",
        "hardware.compile",
        "hardware.fsdp",
        "hardware.workers",
    }
)
# The same of a set: its list and captions are known by what they say.
FREE_OF_SETS = ("root", "list", "captions")


def read_recipe(path: Path, overrides: list[str]) -> Recipe:
    """A recipe file with ``key=value`` overrides, every key, type and value checked.

    Raises:
        UsageError: for a missing file, an unknown key (with the nearest known one), a wrong type, a value that is
            still open, or one that no network can be built or trained with.
    """
    if not path.is_file():
        raise UsageError(path, "is not a recipe", "pass a YAML file; the project's are in recipes/ of its repository")
    for override in overrides:
        if "=" not in override:
            raise UsageError(f"override '{override}'", "has no '='", "write key=value, for example data.root=DIR")
    given = _merge(path, overrides)
    merged = OmegaConf.structured(Recipe)
    for key, value in _entries(given):
        try:
            OmegaConf.update(merged, key, value, merge=True)
        except OmegaConfBaseException as error:
            raise UsageError(key, f"is {value} ({first_line(error)})", "see the recipe's comments") from error
    open_keys = OmegaConf.missing_keys(merged)
    if open_keys:
        raise _left_open(path, open_keys)
    recipe: Recipe = OmegaConf.to_object(merged)  # type: ignore[assignment]  # of the schema's class
    check(recipe)
    return recipe


def _merge(path: Path, overrides: list[str]) -> dict[str, Any]:
    try:
        loaded = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UsageError(path, f"cannot be read ({first_line(error)})", "repair the YAML") from error
    if not isinstance(loaded, DictConfig):
        raise UsageError(path, "is not a mapping of keys", "write it as the other recipes")
    try:
        changes = OmegaConf.from_dotlist(overrides)
    except (OmegaConfBaseException, ValueError, TypeError, YAMLError) as error:
        raise UsageError(f"overrides {' '.join(overrides)}", first_line(error), "write key=value") from error
    merged: object = loaded
    try:
        merged = OmegaConf.merge(loaded, changes)
        for _ in _entries(_plain(merged, resolve=False)):  # a misspelt key before what it leaves open
            pass
        return _plain(merged, resolve=True)
    except InterpolationToMissingValueError as error:
        written = _flat(_plain(merged, resolve=False), "")
        raise _left_open(path, [key for key, value in written.items() if value == MISSING]) from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise UsageError(path, first_line(error), "see the recipe's comments") from error


def _plain(merged: object, *, resolve: bool) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(merged, resolve=resolve)
    return {str(key): value for key, value in found.items()}


def _left_open(path: Path, keys: Iterable[str]) -> UsageError:
    keys = sorted(keys)
    return UsageError(path, f"leaves {', '.join(keys)} open", f"add {keys[0]}=VALUE to the command")


def _entries(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each key with its value, keys of sections one by one; all known."""
    known = [f.name for f in fields(Recipe)]
    for name, value in given.items():
        if name not in known:
            raise UsageError(name, "is not a key of a recipe", nearest(name, known))
        if name not in SECTIONS:
            yield name, value
            continue
        if not isinstance(value, dict):
            raise UsageError(name, f"is {value}", f"give its keys one by one, for example {name}.KEY=VALUE")
        names = [f.name for f in fields(SECTIONS[name])]
        for key, child in value.items():
            if key not in names:
                raise UsageError(f"{name}.{key}", "is not a key of a recipe", nearest(str(key), names, f"{name}."))
            if name == "data" and key in SETS:
                yield from _set_entries(f"{name}.{key}", child)
            else:
                yield f"{name}.{key}", "no" if (key, child) == ("precision", False) else child  # YAML's no is false


def _set_entries(key: str, sets: object) -> Iterator[tuple[str, Any]]:
    """The keys of each set one by one, so that an error names the one it is about."""
    if sets is None:
        return
    if not isinstance(sets, dict):
        raise UsageError(key, f"is {sets}", f"name your sets one by one, for example {key}.nyu.root=DIR")
    names = [f.name for f in fields(DiskSet)]
    for label, given in sets.items():
        if "." in str(label) or (given is not None and not isinstance(given, dict)):
            raise UsageError(f"{key}.{label}", f"is {given}", f"give its keys, for example {key}.nyu.root=DIR")
        if given is None:
            continue
        yield f"{key}.{label}", DiskSet()
        for name, child in given.items():
            if name not in names:
                raise UsageError(
                    f"{key}.{label}.{name}", "is not a key of a set", nearest(str(name), names, f"{key}.{label}.")
                )
            yield f"{key}.{label}.{name}", child


def difference(recipe: Recipe, stored: Path) -> str | None:
    """How a recipe differs from the one a run folder was begun with, in words; None where nothing of it matters.

    Args:
        recipe: the present one.
        stored: ``recipe.yaml`` of the run folder.

    Raises:
        UsageError: if the stored recipe cannot be read.
    """
    try:
        before = OmegaConf.to_container(OmegaConf.load(stored))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(stored, f"cannot be read ({first_line(error)})", "choose another out=DIR") from error
    # Keys that the recipes of an older version did not have had their present defaults.
    default = _flat(OmegaConf.to_container(OmegaConf.structured(Recipe)), "")
    old, new = {**default, **_flat(before, "")}, _flat(OmegaConf.to_container(OmegaConf.structured(recipe)), "")
    for key in [*new, *(key for key in old if key not in new)]:
        one, other = old.get(key, "not set"), new.get(key, "not set")
        if not _free(key) and one != other:
            return f"{key} {one}, not {other}"
    return None


def _free(key: str) -> bool:
    if key.startswith("data.validation."):
        return True
    return key in FREE or (key.startswith("data.sets.") and key.rpartition(".")[2] in FREE_OF_SETS)


def _flat(tree: object, prefix: str) -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        # What is a list in the file may have come as a tuple.
        return {} if tree == {} else {prefix.removesuffix("."): list(tree) if isinstance(tree, tuple) else tree}
    return {key: value for name, child in tree.items() for key, value in _flat(child, f"{prefix}{name}.").items()}
