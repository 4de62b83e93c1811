"""From a recipe with ``data.sets`` to a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.text import Padding
from deixis.data.dataset import Sample
from deixis.registry import RELATIVE, SYSTEMS
from deixis.training import relative
from deixis.training.objectives import System
from deixis.training.recipe import Recipe
from deixis.training.stream import Learning, Reading, Skipped, Source, Stream, StreamTask, check_has, open_sources
from deixis.training.streamed import (
    CLASS,
    OWN_CAPTION,
    PrepareDepth,
    PrepareRefer,
    PrepareRelative,
    StreamedDepth,
    StreamedRefer,
    StreamedRelative,
    words_of,
)


@dataclass(frozen=True)
class Disk:
    """Opened sets, and how they are read.

    Attributes:
        learned: sets to learn from.
        validation: sets to validate on.
        reading: who reads, and how far ahead.
        skipped: told of samples that cannot be read.
    """

    learned: Sequence[Source]
    validation: Sequence[Source]
    reading: Reading
    skipped: Skipped


def open_disk(recipe: Recipe, out: Path, say: Callable[[str], None], process: int, processes: int) -> Disk:
    """Open what a recipe names.

    Args:
        recipe: with ``data.sets``.
        out: folder of the run.
        say: told of samples that are skipped.
        process: number of this process of the run.
        processes: how many there are.

    Raises:
        DeixisError: as :func:`deixis.training.stream.open_source`, and if a set lacks what is to be learned.
    """
    opt = recipe.optimisation
    learned, validation = open_sources(recipe)
    for source in (*learned, *validation):
        if (lacking := source.dataset.incomplete) is not None:
            say(f"note: {lacking.subject}: {lacking.problem}; what is there is used")
    for source in learned:
        for name, has in _needed(recipe).items():
            check_has(source, has, name)
    reading = Reading(
        batch_size=opt.batch_size,
        micro_batch=opt.micro_batch or opt.batch_size,
        seed=opt.seed,
        steps=opt.steps,
        workers=recipe.hardware.workers,
        process=process,
        processes=processes,
        pin=recipe.device.startswith("cuda"),
    )
    return Disk(learned, validation, reading, Skipped(out / "skipped.jsonl", recipe.data.bad_samples, say))


def _needed(recipe: Recipe) -> dict[str, Callable[[Sample], bool]]:
    """What samples must have, by the name of it."""

    def said(kind: str) -> Callable[[Sample], bool]:
        return lambda sample: words_of(sample, kind) is not None

    if recipe.system in SYSTEMS and SYSTEMS[recipe.system].task == "refer":
        return {"expressions": lambda sample: bool(sample.expressions)}
    needed: dict[str, Callable[[Sample], bool]] = {"depth": lambda sample: sample.depth is not None}
    captions = "captions (name them by 'captions', or train without text)"
    if recipe.system in RELATIVE:
        return needed | ({captions: said(OWN_CAPTION)} if recipe.text_rate else {})
    classes = recipe.system == "vpd-depth" or recipe.config.get("text") == "cd"
    described = recipe.text_shares[0] or (recipe.text_shares[1] and recipe.embedding is None)
    if described and classes:
        return needed | {"classes": said(CLASS)}
    return needed | ({captions: said(OWN_CAPTION)} if described else {})


def disk_task(
    recipe: Recipe, model: nn.Module, tokenizer: CLIPTokenizer, disk: Disk, mean: Tensor | None
) -> StreamTask:
    """Data, loss and evaluation of a recipe with ``data.sets``.

    Args:
        recipe: what is trained.
        model: its network.
        tokenizer: of its text tower.
        disk: its opened sets.
        mean: the dataset's mean embedding [1, T, C]; None takes that of the sets' texts.
    """
    size = int(recipe.data.size[0]), int(recipe.data.size[1])
    config: Any = getattr(model, "config", None)
    learning: Learning
    prepare: PrepareDepth | PrepareRefer | PrepareRelative
    if recipe.system in RELATIVE:
        system = cast(System, recipe.system)
        alphas = DDIMScheduler(**relative.SCHEDULES[system]).alphas_cumprod
        prepare = PrepareRelative(system, recipe.data.transforms, recipe.text_rate, recipe.disparity, len(alphas))
        learning = StreamedRelative(
            prepare, tokenizer, size=size, padding=cast(Padding, recipe.text_padding), alphas_cumprod=alphas
        )
    elif SYSTEMS[recipe.system].task == "refer":
        prepare = PrepareRefer(size, recipe.data.transforms, recipe.expressions)
        learning = StreamedRefer(prepare, tokenizer, tokens=config.tokens, dice=recipe.dice, presence=recipe.presence)
    else:
        descriptions: Literal["id", "cd"] = getattr(config, "text", "cd")
        shares = recipe.text_shares
        window = size if recipe.crop is None else (recipe.crop, recipe.crop)
        prepare = PrepareDepth(size, window, recipe.data.transforms, config.max_depth, descriptions, shares)
        learning = StreamedDepth(
            disk.learned,
            prepare,
            tokenizer,
            tokens=getattr(config, "tokens", tokenizer.model_max_length),
            pooled=getattr(config, "aggregate", "v") in ("v", "vd"),
            lambd=recipe.lambd,
            mean=mean,
        )
    stream = Stream(disk.learned, prepare, disk.reading, disk.skipped)
    return StreamTask(learning, stream, disk.validation, recipe.data.validated, recipe.optimisation.seed)
