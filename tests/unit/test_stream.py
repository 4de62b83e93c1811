"""Samples from disk: in which order, the same whoever reads them, and what if one cannot be read."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deixis.data.captions import Texts
from deixis.data.dataset import Dataset, Sample
from deixis.data.transforms import resized
from deixis.errors import DeixisError, InputError, UsageError
from deixis.training.gallery import Cell
from deixis.training.licences import OWN, PLAIN, licence_of
from deixis.training.loop import SEEDS_APART
from deixis.training.recipe import Data, DiskSet, Optimisation, Recipe
from deixis.training.stream import (
    BadSamplesError,
    Item,
    Order,
    Reading,
    Skipped,
    Source,
    Stream,
    StreamTask,
    check_has,
    generator_of,
    open_source,
    turn,
)
from deixis.types import Text

READING = Reading(batch_size=6, micro_batch=2, seed=7, steps=5)


class Numbers(Dataset):
    """Pictures of one pixel that is their number; some cannot be read."""

    def __init__(self, count: int, first: int = 0, bad: tuple[int, ...] = ()) -> None:
        self.name, self.split = "numbers", "train"
        self.names = [f"{first + i}" for i in range(count)]
        self.first, self.bad = first, bad

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise InputError(f"{self.names[index]}.png", "is not there", "copy the dataset again")
        return Sample(self.names[index], np.full((1, 1, 3), self.first + index, dtype=np.uint8))

    def stamp(self, index: int) -> str:
        return self.names[index]


@dataclass(frozen=True)
class Prepared:
    """The number, and a draw of its own."""

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        del given
        draw = torch.rand((), generator=generator)
        return {"number": torch.tensor(int(sample.rgb[0, 0, 0])), "draw": draw, "told": sample.name}


class Mortal(Prepared):
    """Ends the process that reads."""

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sample, given, generator)


class Never(Prepared):
    """Cannot use any sample."""

    def __call__(self, sample: Sample, given: DiskSet, generator: torch.Generator) -> Item:
        raise UsageError("crop", "of 4 x 4 is not within 1 x 1", "choose a smaller one")


def sources(*bad: int) -> list[Source]:
    return [
        Source("many", DiskSet("a", "b", share=2), Numbers(5, bad=bad), None),
        Source("few", DiskSet("a", "b", share=1), Numbers(3, first=100), None),
    ]


def stream(
    folder: Path, *bad: int, limit: int = 9, prepare: Prepared | None = None, **changes: Any
) -> tuple[Stream, list[str]]:
    said: list[str] = []
    skipped = Skipped(folder / "skipped.jsonl", limit, said.append)
    return Stream(sources(*bad), prepare or Prepared(), replace(READING, **changes), skipped), said


def numbers(items: list[Item | None]) -> list[tuple[list[int], list[float]]]:
    return [(item["number"].tolist(), item["draw"].tolist()) for item in items if item is not None]


@pytest.mark.parametrize("shares", [(9, 1), (1, 1, 2), (0.3, 0.7), (5,), (1, 2, 3, 4)])
def test_everyone_has_his_share_at_any_time(shares: tuple[float, ...]) -> None:
    count: Counter[int] = Counter()
    for number in range(200):
        who, before = turn(number, shares)
        assert before == count[who]  # so that no turn of a set is left out or taken twice
        count[who] += 1
        for i, share in enumerate(shares):
            assert abs(count[i] - (number + 1) * share / sum(shares)) < len(shares)


def test_a_set_is_gone_through_again_and_again_in_new_orders() -> None:
    order = Order([6, 4], [1, 1], 3, seed=1)
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for number in range(16):
        source, samples = order(number)
        drawn[source] += samples
    for source, size in ((0, 6), (1, 4)):
        laps = [drawn[source][i : i + size] for i in range(0, 24, size)]
        assert all(sorted(lap) == list(range(size)) for lap in laps)
        assert len({tuple(lap) for lap in laps}) > 1
    # A function of the number alone, in any order.
    again = Order([6, 4], [1, 1], 3, seed=1)
    assert [again(number) for number in (9, 2, 15)] == [order(number) for number in (9, 2, 15)]
    assert [Order([6, 4], [1, 1], 3, seed=2)(number) for number in range(4)] != [order(number) for number in range(4)]


def test_a_run_does_not_go_on_with_other_captions() -> None:
    def known(**said: str) -> str:
        texts = {key: Text(words, "caption:x") for key, words in said.items()}
        return Source("a", DiskSet("a", "b"), Numbers(2), Texts(texts, texts) if said else None).fingerprint

    assert known(a="a red chair", b="a bed") == known(a="a red chair", b="a bed")
    assert len({known(), known(a="a red chair"), known(a="a blue chair"), known(b="a red chair")}) == 4


def test_random_numbers_depend_on_every_word() -> None:
    def first(*words: int | str) -> float:
        return float(torch.rand((), generator=generator_of(*words)))

    assert first("a", 1, 2) == first("a", 1, 2)
    assert len({first("a", 1, 2), first("a", 12), first("b", 1, 2), first("a", 2, 1)}) == 4


def test_steps_are_the_same_whoever_reads_and_wherever_a_run_begins(tmp_path: Path) -> None:
    alone, _ = stream(tmp_path)
    steps = [numbers(alone(step)) for step in range(5)]
    assert all(len(step) == 3 for step in steps)
    assert len({draw for step in steps for _, draws in step for draw in draws}) == 30
    ahead, _ = stream(tmp_path, workers=2)
    assert [numbers(ahead(step)) for step in (3, 4)] == steps[3:]  # as after an interruption
    assert [numbers(ahead(step)) for step in (0, 1)] == steps[:2]
    mine = [stream(tmp_path, process=i, processes=3)[0] for i in range(3)]
    for step in range(2):
        parts = [one(step) for one in mine]
        assert [[item is None for item in part] for part in parts] == [[j != i for j in range(3)] for i in range(3)]
        assert [one for part in parts for one in numbers(part)] == steps[step]
    other, _ = stream(tmp_path, seed=8)
    assert numbers(other(0)) != steps[0]


def test_reading_draws_nothing_from_the_run(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    stream(tmp_path)[0](0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_sample_that_cannot_be_read_is_replaced_named_and_listed(tmp_path: Path) -> None:
    whole = [numbers(stream(tmp_path)[0](step)) for step in range(5)]
    lossy, said = stream(tmp_path, 1, 4)
    steps = [numbers(lossy(step)) for step in range(5)]
    for before, after in zip(whole, steps, strict=True):
        for (ones, draws), (others, others_draws) in zip(before, after, strict=True):
            assert draws == others_draws  # all else is as if nothing had happened
            assert all(b == a for a, b in zip(ones, others, strict=True) if a not in (1, 4))
    assert not {1, 4} & {number for step in steps for ones, _ in step for number in ones}
    assert sorted(said) == ["skipped many: 1: 1.png: is not there", "skipped many: 4: 4.png: is not there"]
    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert sorted(listed, key=str) == [
        {"sample": "many: 1", "problem": "1.png: is not there"},
        {"sample": "many: 4", "problem": "4.png: is not there"},
    ]
    again, _ = stream(tmp_path, 1, 4, workers=1)
    assert [numbers(again(step)) for step in range(5)] == steps
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 2


def test_too_many_of_them_end_the_run(tmp_path: Path) -> None:
    lossy, _ = stream(tmp_path, 0, 1, 2, limit=1)
    with pytest.raises(BadSamplesError, match=r"lists 2 samples that cannot be read, and data.bad_samples allows 1; "):
        [lossy(step) for step in range(5)]
    hopeless, _ = stream(tmp_path, 0, 1, 2, 3, 4, limit=99)
    with pytest.raises(InputError, match=r"data.sets.many: has 100 samples running that cannot be read; .* not there"):
        [hopeless(step) for step in range(5)]


def test_other_errors_of_workers_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="crop: of 4 x 4 is not within 1 x 1; choose a smaller one"):
        stream(tmp_path, prepare=Never(), workers=1)[0](0)
    with pytest.raises(DeixisError, match=r"a worker that reads data: is gone .*the last checkpoint is intact"):
        stream(tmp_path, prepare=Mortal(), workers=1)[0](0)


class Learner:
    """Learns a weight for numbers."""

    auxiliary = nn.Identity()

    def completed(self, item: Item) -> dict[str, Any]:
        return {"number": item["number"].float()}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return (model(batch["number"][:, None]) ** 2).mean()

    def validate(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> dict[str, float]:
        return {"mean": float(np.mean([sample.rgb.mean() for sample in samples]))}

    def shown(self, model: nn.Module, given: DiskSet, samples: Iterator[Sample]) -> list[list[Cell]]:
        return [[(Image.fromarray(sample.rgb), sample.name)] for sample in samples]


def test_a_task_has_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    read, said = stream(tmp_path)
    task = StreamTask(Learner(), read, sources(2)[:1], 3, seed=7)
    batch = task.batch(torch.Generator().manual_seed(7 * SEEDS_APART + 2))
    expected = numbers(stream(tmp_path)[0](2))
    assert [one["number"].tolist() for one in batch["micro"]] == [ones for ones, _ in expected]
    model = nn.Linear(1, 1, bias=False)
    means = [np.mean(np.square(ones)) for ones, _ in expected]
    assert task.loss(model, batch).item() == pytest.approx(model.weight.item() ** 2 * np.mean(means), rel=1e-5)
    assert task.data == "5 numbers train " + task.data.split()[3] + " 3 numbers train " + task.data.split()[-1]
    assert task.evaluate(model) == {"val_many_mean": pytest.approx(4 / 3)}  # of samples 0, 1 and 3
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deixis.training.stream.contact_sheet", lambda found: rows.extend(found))
        task.pictures(model)
        StreamTask(Learner(), read, sources(), 3, seed=7).pictures(model)
        assert StreamTask(Learner(), read, [], 3, seed=7).pictures(model) is None
    assert [name for ((_, name),) in rows] == ["0", "1", "3", "0", "2", "100"]  # three in all, evenly spread in each
    task = StreamTask(Learner(), read, sources(3)[:1], 3, seed=7)
    assert task.evaluate(model) == {"val_many_mean": 0.5}
    assert said == ["skipped many: 3: 3.png: is not there"]


def test_sets_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    source = sources()[0]
    with pytest.raises(UsageError, match=r"data.sets.many: is a, which has no depth"):
        check_has(source, lambda sample: sample.depth is not None, "depth")
    check_has(replace(source, dataset=Numbers(5, bad=(0,))), lambda sample: sample.name == "3", "three")
    with pytest.raises(InputError, match=r"1.png: is not there"):
        check_has(replace(source, dataset=Numbers(2, bad=(0, 1))), lambda sample: True, "anything")
    with pytest.raises(InputError, match=rf"^data.sets.nyu: {re.escape(str(tmp_path))}: holds no "):
        open_source("nyu", DiskSet("nyuv2", str(tmp_path), "sync"), "data.sets")
    with pytest.raises(InputError, match=r"^data.sets.k: .*nowhere.*is no folder or tar file"):
        open_source("k", DiskSet("kitti", str(tmp_path / "nowhere")), "data.sets")


def test_resizing_moves_everything_and_keeps_values() -> None:
    rgb = np.zeros((4, 6, 3), dtype=np.uint8)
    depth = np.arange(24, dtype=np.float32).reshape(4, 6)
    small = resized(Sample("a", rgb, depth), 2, 3)
    assert small.rgb.shape == (2, 3, 3)
    assert small.depth is not None
    np.testing.assert_array_equal(small.depth, depth[1::2, 1::2])
    assert resized(small, 2, 3) is small


def recipe(**data: Any) -> Recipe:
    schedule = Optimisation(steps=1, batch_size=1, lr=1.0, warmup=0)
    return Recipe(system="vpd-depth", data=Data(size=(8, 8), **data), optimisation=schedule, out="x")


def test_licences_come_from_what_was_learned_from(tmp_path: Path) -> None:
    nyu = "Apache-2.0; trained on NYU Depth v2 frames, which are for research use"
    assert licence_of(recipe(root=str(tmp_path))) == nyu
    assert licence_of(recipe(root=str(tmp_path), world="x")) == nyu
    assert licence_of(recipe(world="x")) == PLAIN
    (tmp_path / "split.json").write_text("{}")
    own = licence_of(recipe(root=str(tmp_path)))
    assert own == f"{PLAIN}; {OWN}"
    assert "NYU" not in own
    sets = {"a": DiskSet("kitti", "x"), "b": DiskSet("nyuv2", "x"), "c": DiskSet("diode", "x", share=0)}
    start = tmp_path / "start"
    start.mkdir()
    asked = replace(recipe(sets=sets), init=str(start))
    terms = f"trained on KITTI, CC BY-NC-SA 3.0; {nyu.split('; ')[1]}"
    assert licence_of(asked) == f"unknown; {terms}"
    (start / "README.md").write_text("---\nlicense: creativeml-openrail-m\ntags: []\n---\n")
    assert licence_of(asked) == f"creativeml-openrail-m; {terms}"
    (start / "README.md").write_text(f"# mini\n\n* **Licence**: {nyu}.\n")
    assert licence_of(replace(recipe(world="x"), init=str(start))) == nyu
    (start / "deixis.json").write_text(json.dumps({"licence": "MIT"}))
    assert licence_of(asked) == f"MIT; {terms}"
