"""Samples that are read from disk while they are learned from: in which order, by whom, and what if one is lost.

A step's batch is made of micro-batches of one set each. Which set and which samples a micro-batch has is a pure
function of the seed and its number, and what is drawn for a sample of the seed and the sample's place in the run. So
neither the number of worker processes, nor that of the run's own processes, nor an interruption changes what is
learned. Sets take turns so that their shares are exact, and each is gone through in a new order again and again.

A sample that cannot be read is replaced by another of its set, named, and listed in the run folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset as Indexed

from deixis.data.captions import Texts, read_captions
from deixis.data.dataset import Dataset, Sample
from deixis.data.readers import open_dataset
from deixis.data.transforms import benchmark_frame
from deixis.devices import one_thread
from deixis.errors import DeixisError, InputError, UsageError
from deixis.io import printable
from deixis.training.ahead import Ahead
from deixis.training.gallery import ROWS, Cell
from deixis.training.loop import SEEDS_APART
from deixis.training.recipe import DiskSet, Recipe
from deixis.viz import contact_sheet

# Tensors of a picture, or of a micro-batch along their first dimension; and what goes with them as lists.
Item = dict[str, Any]
# A picture's caption among its texts: it is mirrored with them.
CAPTION = "told"
# Names of bad samples that a worker tries to replace one picture by, at most.
_TRIES = 100
# Samples of a set that are looked at before a run, until one has what is learned.
_LOOKED_AT = 20


class BadSamplesError(DeixisError):
    """More samples cannot be read than the recipe allows."""


@dataclass(frozen=True)
class Source:
    """A set that is learned from, or validated on.

    Attributes:
        label: its key in the recipe.
        given: what the recipe says of it.
        dataset: its samples.
        captions: of its pictures; None for none.
    """

    label: str
    given: DiskSet
    dataset: Dataset
    captions: Texts | None

    def __getitem__(self, index: int) -> Sample:
        """A sample with its caption, cut to the frame that the recipe names.

        Raises:
            InputError: if it cannot be read, or has no caption where there is a file of them.
            UsageError: if it is smaller than that frame.
        """
        sample = self.dataset[index]
        if self.captions is not None:
            content = self.dataset.encoded(index)
            told = None if content is None else self.captions.by_hash.get(hashlib.sha256(content).hexdigest())
            told = told or self.captions.by_path.get(sample.name)
            if told is None:
                name = printable(sample.name)
                raise InputError(f"{self.label}: {name}", f"has no caption in {self.given.captions}", "caption it too")
            sample = replace(sample, texts={**(sample.texts or {}), CAPTION: told})
        return benchmark_frame(sample) if self.given.crop == "benchmark" else sample

    @property
    def fingerprint(self) -> str:
        """Which samples these are and what their captions say, in a few letters; equal for equal copies.

        Pictures and depth are not looked at: there may be too many of them, and times of files differ between copies.
        """
        known = "\n".join(self.dataset.names)
        if self.captions is not None:
            known = json.dumps([known, *({key: one.text for key, one in by.items()} for by in self.captions)])
        digest = hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return f"{len(self.dataset)} {self.dataset.name} {self.dataset.split} {digest}"


def open_source(label: str, given: DiskSet, key: str) -> Source:
    """A set of a recipe.

    Args:
        label: its key in the recipe.
        given: what the recipe says of it.
        key: of the section, for errors.

    Raises:
        DeixisError: if the root does not hold the dataset, its list or its captions cannot be read, or none of the
            captions is of its pictures.
    """
    try:
        dataset = open_dataset(given.dataset, given.root, given.split, given.list)
    except DeixisError as error:
        raise type(error)(f"{key}.{label}: {error.subject}", error.problem, error.remedy) from error
    return Source(label, given, dataset, None if given.captions is None else read_captions(given.captions))


def open_sources(recipe: Recipe) -> tuple[list[Source], list[Source]]:
    """What a recipe learns from, and validates on; errors as :func:`open_source`."""
    data = recipe.data
    learned = [open_source(label, one, "data.sets") for label, one in data.sets.items() if one.share > 0]
    return learned, [open_source(label, one, "data.validation") for label, one in data.validation.items()]


# --------------------------------------------------------------------------------------------------- the order


def turn(number: int, shares: Sequence[float]) -> tuple[int, int]:
    """Who of several has turn ``number``, from 0, and how many he had before.

    Of any number of turns everyone has had his share, to within one where they are two.
    """
    rest = float(sum(shares))
    for i, share in enumerate(shares[:-1]):
        part = share / rest
        before = math.floor(number * part)
        if math.floor((number + 1) * part) > before:
            return i, before
        number -= before
        rest -= share
    return len(shares) - 1, number


def generator_of(*numbers: int | str) -> torch.Generator:
    """Random numbers that depend on these alone."""
    digest = hashlib.sha256("/".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Order:
    """Which samples a micro-batch has.

    Args:
        sizes: samples of each set.
        shares: of the micro-batches.
        micro_batch: samples.
        seed: of the orders.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float], micro_batch: int, seed: int) -> None:
        self.sizes, self.shares, self.micro_batch, self.seed = list(sizes), list(shares), micro_batch, seed
        self._orders: dict[int, tuple[int, Tensor]] = {}  # of each set the round it is in, and its order

    def __call__(self, number: int) -> tuple[int, list[int]]:
        """The set of a micro-batch, and its samples."""
        source, before = turn(number, self.shares)
        first = before * self.micro_batch
        return source, [self._sample(source, first + i) for i in range(self.micro_batch)]

    def _sample(self, source: int, place: int) -> int:
        lap, at = divmod(place, self.sizes[source])
        known = self._orders.get(source)
        if known is None or known[0] != lap:
            known = lap, torch.randperm(self.sizes[source], generator=generator_of("order", self.seed, source, lap))
            self._orders[source] = known
        return int(known[1][at])


# --------------------------------------------------------------------------------------------------- reading


class Prepare(Protocol):
    """Makes of a sample what is learned from; called in worker processes."""

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        """Tensors of one picture, and words.

        Raises:
            InputError: if the sample lacks what is needed.
            UsageError: if it can never be used, as where it is smaller than a crop.
        """
        ...


class Made(NamedTuple):
    """A micro-batch as a worker made it.

    Attributes:
        item: tensors with the pictures along the first dimension, and lists; None where there was an error.
        bad: what could not be read on the way: sample and problem.
        error: why there is none.
    """

    item: Item | None
    bad: list[tuple[str, str]]
    error: DeixisError | None


class _MicroBatches(Indexed[Made]):
    """Micro-batches by number."""

    def __init__(self, sources: Sequence[Source], prepare: Prepare, order: Order) -> None:
        self.sources, self.prepare, self.order = list(sources), prepare, order

    def __getitem__(self, number: int) -> Made:
        bad: list[tuple[str, str]] = []
        try:
            with one_thread():  # as in worker processes: the last bits do not depend on who computes
                index, samples = self.order(number)
                items = [
                    self._item(index, sample, number * self.order.micro_batch + i, bad)
                    for i, sample in enumerate(samples)
                ]
        except DeixisError as error:  # those of workers lose their class on the way, as they take three words
            return Made(None, bad, error)
        return Made(_together(items), bad, None)

    def _item(self, index: int, sample: int, place: int, bad: list[tuple[str, str]]) -> Item:
        source = self.sources[index]
        for attempt in range(_TRIES):
            try:
                generator = generator_of("sample", self.order.seed, place)
                return self.prepare(source[sample], source.given, generator)
            except InputError as error:
                bad.append((f"{source.label}: {source.dataset.names[sample]}", f"{error.subject}: {error.problem}"))
                again = generator_of("again", self.order.seed, place, attempt)
                sample = int(torch.randint(len(source.dataset), (), generator=again))
        raise InputError(f"data.sets.{source.label}", f"has {_TRIES} samples running that cannot be read", bad[-1][1])


def _together(items: Sequence[Item]) -> Item:
    return {
        key: torch.stack([item[key] for item in items]) if isinstance(value, Tensor) else [item[key] for item in items]
        for key, value in items[0].items()
    }


class Skipped:
    """Samples that could not be read, each once, in ``skipped.jsonl`` of the run folder.

    Args:
        path: that file; what earlier starts of the run have listed stays.
        limit: how many this start may skip.
        say: told of each.
    """

    def __init__(self, path: Path, limit: int, say: Callable[[str], None]) -> None:
        self.path, self.limit, self.say = path, limit, say
        self.names: set[str] = set()

    def __call__(self, name: str, problem: str) -> None:
        """List a sample.

        Raises:
            BadSamplesError: if it is one too many.
            DeixisError: if the disk does not take it.
        """
        if name in self.names:
            return
        self.names.add(name)
        try:
            listed = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
            line = json.dumps({"sample": name, "problem": problem})
            if line not in listed:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        except OSError as error:
            raise DeixisError(self.path, f"cannot be written ({error.strerror})", "free space on the disk") from error
        self.say(f"skipped {printable(name)}: {problem}")
        if len(self.names) > self.limit:
            raise BadSamplesError(
                self.path,
                f"lists {len(self.names)} samples that cannot be read, and data.bad_samples allows {self.limit}",
                "the last checkpoint is intact; repair the dataset or raise data.bad_samples, and give the same"
                " command again",
            )


@dataclass(frozen=True)
class Reading:
    """Who reads, and how far ahead.

    Attributes:
        batch_size: pictures of a step.
        micro_batch: pictures of a micro-batch.
        seed: of the run.
        steps: of the run; nothing is read beyond them.
        workers: processes that read ahead; 0 reads when asked.
        process: number of this process of the run.
        processes: how many there are.
        pin: keep batches where a GPU gets them from quickly.
    """

    batch_size: int
    micro_batch: int
    seed: int
    steps: int
    workers: int = 0
    process: int = 0
    processes: int = 1
    pin: bool = False


class Stream:
    """The micro-batches of each step.

    Args:
        sources: the sets.
        prepare: makes of a sample what is learned from.
        reading: how.
        skipped: told of samples that cannot be read.

    Attributes:
        data: which samples there are, in a few letters.
    """

    def __init__(self, sources: Sequence[Source], prepare: Prepare, reading: Reading, skipped: Skipped) -> None:
        self.reading, self.skipped = reading, skipped
        self.data = ", ".join(one.fingerprint for one in sources)
        order = Order(
            [len(one.dataset) for one in sources],
            [one.given.share for one in sources],
            reading.micro_batch,
            reading.seed,
        )
        self._micro_batches = _MicroBatches(sources, prepare, order)
        self._count = reading.batch_size // reading.micro_batch
        each = self._count // reading.processes
        self._mine = range(reading.process * each, (reading.process + 1) * each)
        self._next = -1
        self._made: Iterator[Made] = iter(())

    def __call__(self, step: int) -> list[Item | None]:
        """The micro-batches of a step; None in the place of those that are other processes'.

        Steps that follow each other have been read ahead.

        Raises:
            BadSamplesError: if too many samples cannot be read.
            DeixisError: as preparing a sample, and if a worker process is gone.
        """
        if step != self._next:
            self._made = self._begin(step)
        self._next = step + 1
        found: list[Item | None] = [None] * self._count
        for number in self._mine:
            found[number] = self._take()
        return found

    def _begin(self, step: int) -> Iterator[Made]:
        reading = self.reading
        numbers = [n * self._count + i for n in range(step, reading.steps) for i in self._mine]
        return Ahead(self._micro_batches, numbers, reading.workers, pin=reading.pin)

    def _take(self) -> Item:
        item, bad, error = next(self._made)
        for name, problem in bad:
            self.skipped(name, problem)
        if error is not None:
            raise error
        assert item is not None
        return item


# ------------------------------------------------------------------------------------------------------ learning


class Learning(Protocol):
    """What is learned from a micro-batch.

    Attributes:
        auxiliary: parts that are trained along and then thrown away.
    """

    auxiliary: nn.Module

    def completed(self, item: Item) -> dict[str, Any]:
        """A micro-batch with what only the main process knows: words become token ids."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Scalar loss of a micro-batch."""
        ...

    def validate(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> dict[str, float]:
        """Metrics on some samples of a set."""
        ...

    def shown(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> list[list[Cell]]:
        """Rows of pictures: samples of a set, and what the model makes of them."""
        ...


class StreamTask:
    """A task for :func:`deixis.training.loop.train`: the loss of a batch is the mean of its micro-batches'.

    Args:
        learning: what is learned.
        stream: from what.
        validation: sets to validate on.
        validated: samples of each that are looked at.
        seed: of the run.
    """

    def __init__(
        self, learning: Learning, stream: Stream, validation: Sequence[Source], validated: int, seed: int
    ) -> None:
        self.learning, self.stream, self.validation, self.validated = learning, stream, validation, validated
        self.auxiliary = learning.auxiliary
        self.data = stream.data
        self._first = seed * SEEDS_APART

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``micro``: the micro-batches of the step that the generator is of."""
        found = self.stream(generator.initial_seed() - self._first)
        return {"micro": [None if item is None else self.learning.completed(item) for item in found]}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The mean over the micro-batches."""
        return torch.stack([self.learning.loss(model, one) for one in batch["micro"]]).mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on each validation set, ``val_LABEL_NAME``."""
        found: dict[str, float] = {}
        for source in self.validation:
            values = self.learning.validate(model, source.given, self._looked_at(source, self.validated))
            found |= {f"val_{source.label}_{name}": value for name, value in values.items()}
        return found

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """A row or a few of each validation set, but not more than :data:`~deixis.training.gallery.ROWS` in all."""
        rows: list[list[Cell]] = []
        for i, source in enumerate(self.validation[:ROWS]):
            count = ROWS // len(self.validation) + (i < ROWS % len(self.validation))
            rows += self.learning.shown(model, source.given, self._looked_at(source, count))
        return contact_sheet(rows) if rows else None

    def _looked_at(self, source: Source, some: int) -> Iterator[Sample]:
        count = min(some, len(source.dataset))
        for index in (i * len(source.dataset) // count for i in range(count)):
            try:
                yield source[index]
            except InputError as error:
                name = f"{source.label}: {source.dataset.names[index]}"
                self.stream.skipped(name, f"{error.subject}: {error.problem}")


def check_has(source: Source, what: Callable[[Sample], bool], name: str) -> None:
    """Refuse a set whose first samples all lack what is to be learned.

    Args:
        source: the set.
        what: whether a sample has it.
        name: of that, for the error.

    Raises:
        UsageError: naming the set.
        InputError: if the first samples cannot be read either.
    """
    error: InputError | None = None
    for index in range(min(len(source.dataset), _LOOKED_AT)):
        try:
            if what(source[index]):
                return
        except InputError as damaged:
            error = damaged
    if error is not None:
        raise error
    raise UsageError(f"data.sets.{source.label}", f"is {source.given.dataset}, which has no {name}", "name another set")
