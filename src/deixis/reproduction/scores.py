"""The minis on held-out frames, scored as ``deixis eval`` does it, and what they give beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from deixis.data.world import Kind
from deixis.errors import DeixisError
from deixis.evaluation.journal import Journal
from deixis.evaluation.run import ROWS, Listener, evaluate, notes
from deixis.evaluation.scoring import Plan, load_scorer
from deixis.io import printable
from deixis.protocols.summary import Row
from deixis.registry import weights
from deixis.reproduction.experiments import Experiment, MiniScore
from deixis.reproduction.official import Given, measured
from deixis.reproduction.scale import Scale, photos, world
from deixis.viz import contact_sheet

PICTURES = 3
"""Samples of a dataset that are drawn."""


@dataclass(frozen=True)
class Scored:
    """One evaluation.

    Attributes:
        name: of the mini.
        plan: what was evaluated on what.
        folder: of its results.
        row: of the table.
    """

    name: str
    plan: Plan
    folder: Path
    row: dict[str, Any]


def available(minis: Sequence[MiniScore], given: Given) -> tuple[dict[str, str], list[str]]:
    """Where the minis are that are here, by name; and a line for each that is not."""
    shipped = {one.name for one in weights() if one.available}
    there, missing = {}, []
    for mini in minis:
        if mini.model in given.weights or mini.model in shipped:
            there[mini.model] = given.weights.get(mini.model, mini.model)
        else:
            missing.append(
                f"weights {mini.model}: not shipped; recipes/mini/{mini.recipe}.yaml of the repository trains them, an"
                f" hour or two on one core; then --weights {mini.model}=DIR"
            )
    return there, list(dict.fromkeys(missing))


def scored(experiment: Experiment, given: Given, scale: Scale) -> tuple[list[Scored], list[str]]:
    """Every evaluation of an experiment's minis that can be made, and what is missing for the others, a line each."""
    there, missing = available(experiment.minis, given)
    found = []
    for mini in experiment.minis:
        for dataset in mini.datasets if mini.model in there else ():
            root = photos(given) if dataset == "nyuv2-rooms" else world(given, scale, _kind(dataset))
            if root is None:
                continue
            for text in mini.texts:
                for steps in mini.steps:
                    plan = Plan(
                        task=mini.task,
                        model=there[mini.model],
                        dataset=dataset,
                        root=str(root),
                        split="heldout",
                        text=text,
                        steps=steps,
                        device=given.device,
                    )
                    try:
                        found.append(_scored(mini.model, plan, given, scale))
                    except DeixisError as error:
                        given.fail(error)
                        missing.append(f"{mini.model} on {dataset}: {error}")
    return found, list(dict.fromkeys(missing))


def _scored(name: str, plan: Plan, given: Given, scale: Scale) -> Scored:
    parts = [name, plan.dataset]
    parts += [] if plan.text == "none" else [plan.text]
    parts += [] if plan.steps is None else [f"{plan.steps}-steps"]
    folder = given.out / f"minis-{scale.name}" / "-".join(parts)
    given.say(f"scoring {', '.join(parts)}")
    listener = Listener(lambda total, done: None, lambda: None, given.say)
    frames = scale.frames if plan.steps is None else scale.extent.step_frames
    result = evaluate(plan, folder, given.command, listener, limit=frames)
    return Scored(name, plan, folder, {"row": name, **measured(result), "folder": str(folder)})


def _kind(dataset: str) -> Kind:
    return "roads" if dataset == "world-roads" else "rooms"


def short_of(found: Sequence[Scored]) -> list[str]:
    """A line for each metric mini that is asked for more than its own farthest depth."""
    lines = []
    for one in found:
        for line in notes(one.plan, one.plan.setting()):
            lines += [f"{line}.", ""]
    return lines


def pictures(found: Sequence[Scored]) -> Image.Image:
    """What the minis give beside the truth, errors on the fixed scale of each dataset.

    Samples are not chosen by eye: of those that the first mini was scored on they are at the sixths of its error.

    Args:
        found: evaluations; those of one task and dataset are drawn beside one another.
    """
    lines = []
    for task, dataset in dict.fromkeys((one.plan.task, one.plan.dataset) for one in found):
        beside = [one for one in found if (one.plan.task, one.plan.dataset) == (task, dataset)]
        scorers = [load_scorer(one.plan, one.plan.open()) for one in beside]
        tables = [{_key(row): row for row in _rows(one.folder)} for one in beside]
        order = sorted(tables[0].values(), key=lambda row: float(row["iou" if task == "refer" else "abs_rel"] or 0))
        for sixth in range(1, 2 * PICTURES, 2):
            row = order[sixth * len(order) // (2 * PICTURES)]
            index = row["index"]
            assert isinstance(index, int)
            sample = scorers[0].dataset[index]
            line = [(picture, f"{dataset}: {caption}") for picture, caption in scorers[0].show(sample, row)[:2]]
            for one, scorer, table in zip(beside, scorers, tables, strict=True):
                line += [
                    (picture, f"{one.name}: {caption}")
                    for picture, caption in scorer.show(sample, table[_key(row)])[2:]
                ]
            lines.append(line)
    return contact_sheet(lines)


def _rows(folder: Path) -> list[Row]:
    rows = [row for entry in Journal(folder / ROWS).entries.values() for row in entry.rows]
    return [row for row in rows if row.get("there", True)]


def _key(row: Row) -> tuple[object, ...]:
    return row["sample"], row.get("expression")


def reports(found: Sequence[Scored]) -> list[str]:
    """Lines that name the report of each evaluation."""
    return [f"- {' '.join([one.name, 'on', one.plan.dataset])}: {printable(one.folder)}/report.html" for one in found]
