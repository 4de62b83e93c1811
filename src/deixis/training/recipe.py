"""Recipes: one YAML file per experiment, checked key by key, with command-line overrides."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deixis.errors import UsageError


@dataclass
class Data:
    """Where the pictures are.

    Attributes:
        root: folder of the dataset.
        size: (height, width) of the training pictures [px].
    """

    root: str = MISSING
    size: tuple[int, int] = MISSING


@dataclass
class Teacher:
    """Feature distillation from an ImageNet classifier.

    Attributes:
        weight: of its loss; 0 trains without a teacher.
    """

    weight: float = 0.0


@dataclass
class Optimisation:
    """See :class:`deixis.training.loop.Schedule`."""

    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    warmup: int = MISSING
    final: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    save_every: int = 100
    eval_every: int = 250


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
        system: the method.
        config: its switches.
        backbone: sizes of an untrained backbone (``vae``, ``unet``, ``text_encoder``), or ``from``: a diffusers
            folder, hub id or single file.
        vocabulary: tokens of a tokenizer trained for an untrained backbone.
        bins: (nearest, farthest) metric bin before training [m]; for depth without pre-training.
        text_shares: depth: how often the full caption, the scene alone and nothing are given; referring: how
            often an expression, a class word and an absent thing are asked for.
        dice: weight of the Dice loss of referring.
        lambd: of the SiLog loss of depth.
        bf16: compute the forward pass in bfloat16 where that is safe.
        threads: CPU threads.
        out: folder of the run.
    """

    system: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 2000
    bins: tuple[float, float] | None = None
    text_shares: tuple[float, float, float] = (1.0, 0.0, 0.0)
    dice: float = 0.0
    lambd: float = 0.5
    bf16: bool = False
    threads: int = 2
    out: str = MISSING
    data: Data = field(default_factory=Data)
    teacher: Teacher = field(default_factory=Teacher)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augment: Augment = field(default_factory=Augment)


def read_recipe(path: Path, overrides: list[str]) -> Recipe:
    """A recipe file with ``key=value`` overrides, every key and type checked.

    Raises:
        UsageError: for a missing file, an unknown key (with the nearest known one), a wrong type or a value that
            is still open.
    """
    if not path.is_file():
        raise UsageError(path, "is not a recipe", "pass a YAML file, for example recipes/evp_depth_mini.yaml")
    for override in overrides:
        if "=" not in override:
            raise UsageError(f"override '{override}'", "has no '='", "write key=value, for example data.root=DIR")
    schema = OmegaConf.structured(Recipe)
    try:
        given = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(overrides))
        if not isinstance(given, DictConfig):
            raise UsageError(path, "is not a mapping of keys", "write it as the other recipes")
        _check_keys(given, Recipe, "")
        merged = OmegaConf.merge(schema, given)
        open_keys = sorted(OmegaConf.missing_keys(merged))
        if open_keys:
            raise UsageError(path, f"leaves {', '.join(open_keys)} open", f"add {open_keys[0]}=VALUE to the command")
        recipe: Recipe = OmegaConf.to_object(merged)  # type: ignore[assignment]  # of the schema's class
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or path
        raise UsageError(key, str(error).splitlines()[0], "see the recipe's comments") from error
    except (OSError, ValueError) as error:  # YAML errors are ValueErrors or carry their own lines
        raise UsageError(path, f"cannot be read ({str(error).splitlines()[0]})", "repair the YAML") from error
    return recipe


def _check_keys(given: DictConfig, schema: type[Any], prefix: str) -> None:
    known = [f.name for f in fields(schema)]
    for name in given:
        key = str(name)
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise UsageError(f"{prefix}{key}", "is not a key of a recipe", hint)
        child, section = given[key] if not OmegaConf.is_missing(given, key) else None, SECTIONS.get(key)
        if isinstance(child, DictConfig) and section is not None:
            _check_keys(child, section, f"{key}.")


# Keys that hold keys of their own. ``config`` and ``backbone`` are checked by what they configure.
SECTIONS = {"data": Data, "teacher": Teacher, "optimisation": Optimisation, "augment": Augment}
