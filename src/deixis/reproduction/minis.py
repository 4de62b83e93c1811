"""The papers' experiments at the size of the minis: on the synthetic world, and on real frames where they are given."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deixis.data.world import Kind, world_split
from deixis.errors import InputError
from deixis.evaluation.run import Listener, evaluate
from deixis.evaluation.scoring import Plan
from deixis.io import write_text
from deixis.registry import shipped_folder
from deixis.reproduction import table4
from deixis.reproduction.experiments import Experiment
from deixis.reproduction.official import Given, measured
from deixis.reproduction.report import score_table
from deixis.training import findings
from deixis.training.comparison import Comparison, Estimate, comparison_table, table
from deixis.training.recipe import read_recipe
from deixis.training.scenes import TITLES, load_scenes
from deixis.training.store import Source
from deixis.world.generate import Failure, Settings, render_shards

BACKBONE = "mini-sd"
# What the layout has from which our own split and captions are made.
LABELLED = ("official_splits/train", "classes40.json")
_RESAMPLED = {"nyuv2": "rooms of the dataset", "rooms": "frames", "roads": "frames"}


@dataclass(frozen=True)
class Scale:
    """How large a mini's experiment is.

    Attributes:
        name: of the scale.
        rooms: world frames of a kind, of which one in twenty is held out.
        heldout: held-out world frames of a kind, at least: those that are missing are drawn beside the others.
        settings: of the world's pictures.
        frames: held-out samples of a dataset that are scored, at most; None for all.
        seeds: trainings of a row.
        extent: of what is measured of affine-invariant systems.
        table4: overrides of the recipe of table 4.
        iris: overrides of that of affine-invariant systems.
    """

    name: str
    rooms: int
    heldout: int
    settings: Settings
    frames: int | None
    seeds: int
    extent: findings.Extent
    table4: tuple[str, ...] = ()
    iris: tuple[str, ...] = ()


_SMALL = ("data.stored=[72,96]", "data.size=[64,88]")
FULL = Scale("full", 2000, 100, Settings(), None, 3, findings.FULL)
QUICK = Scale(
    "quick",
    120,
    24,
    Settings(96, 72, 1),
    24,
    2,
    findings.Extent(seeds=2, frames=16, step_frames=8, refined=12),
    table4=(*_SMALL, "crop=64", "optimisation.steps=40", "optimisation.warmup=4", "optimisation.batch_size=8"),
    iris=(
        *_SMALL,
        "optimisation.steps=60",
        "optimisation.warmup=6",
        "optimisation.batch_size=8",
        "optimisation.eval_every=20",
    ),
)
# Frames of a source in table 4 at full size.
TABLE4_FRAMES = 150


@dataclass(frozen=True)
class Section:
    """What came out of one part of an experiment.

    Attributes:
        lines: Markdown.
        data: the same in numbers, JSON-ready.
    """

    lines: list[str]
    data: dict[str, Any]


def run_mini(experiment: Experiment, given: Given) -> tuple[dict[str, Any], list[str]]:
    """Run an experiment with the minis, or go on with it.

    Returns:
        ``scale``, ``lines`` (Markdown) and ``data``; and what was missing, a line each.

    Raises:
        DeixisError: one line for anything wrong with data or folders.
    """
    scale = QUICK if given.quick else FULL
    missing = (
        [] if _photos(given) else ["real frames: --root nyuv2=DIR, official_splits with labels, or the world only"]
    )
    if experiment.mini == "scores":
        section = _scores(experiment, given, scale)
    elif experiment.mini == "table4":
        section = _table4(given, scale)
    else:
        section = _iris(experiment, given, scale)
    return {"scale": scale.name, "command": given.command, "lines": section.lines, "data": section.data}, missing


def _photos(given: Given) -> Path | None:
    """The root of NYU Depth v2 if it has the layout with labels."""
    root = given.roots.get("nyuv2")
    return root if root is not None and all((root / one).exists() for one in LABELLED) else None


def _world(given: Given, scale: Scale, kind: Kind) -> Path:
    """The given shards, or rendered ones."""
    if given.world is not None:
        return given.world
    folder = given.out / f"world-{scale.name}" / kind
    failed: list[Failure] = []
    given.say(f"world: {scale.rooms} {kind}, of which {scale.heldout} or more are held out, in {folder}")
    render_shards(folder, (kind,), 0, scale.rooms, scale.settings, workers=_cores(), fail=failed.append)
    seeds = (seed for seed in itertools.count() if world_split(seed) == "heldout")
    for seed in itertools.islice(seeds, scale.heldout):
        if seed >= scale.rooms:
            render_shards(folder, (kind,), seed, 1, scale.settings, fail=failed.append)
    for one in failed:
        given.say(f"{one.kind} {one.seed} could not be made ({one.problem})")
    return folder


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _recipe(given: Given, name: str, base: str, system: str) -> Path:
    """A recipe of the package, in the folder of results: what was trained can be read there."""
    text = resources.files("deixis.reproduction").joinpath(base).read_text(encoding="utf-8")
    path = given.out / "recipes" / f"{name}.yaml"
    write_text(path, text if "\nsystem:" in text else f"{text}\nsystem: {system}\n")
    return path


def _data(given: Given, scale: Scale) -> list[str]:
    """Overrides of all recipes."""
    photos = _photos(given)
    root = [] if photos is None else [f"data.root={photos.absolute()}"]
    world, backbone = _world(given, scale, "rooms").absolute(), shipped_folder() / BACKBONE
    return [f"data.world={world}", f"init={backbone}", *root]


# ------------------------------------------------------------------------------------------------------- scores


def _scores(experiment: Experiment, given: Given, scale: Scale) -> Section:
    """Shipped minis, scored as ``deixis eval`` does it."""
    rows = []
    for mini in experiment.minis:
        for dataset in mini.datasets:
            photos = _photos(given)
            if dataset == "nyuv2-rooms" and photos is None:
                continue
            root = photos if dataset == "nyuv2-rooms" else _world(given, scale, _kind(dataset))
            plan = Plan(task=mini.task, model=mini.model, dataset=dataset, root=str(root), split="heldout")
            folder = given.out / f"minis-{scale.name}" / f"{mini.model}-{dataset}"
            given.say(f"scoring {mini.model} on {dataset}")
            listener = Listener(lambda total, done: None, lambda: None, given.say)
            result = evaluate(plan, folder, given.command, listener, limit=scale.frames)
            rows.append({"row": mini.model, **measured(result), "folder": str(folder)})
    if not rows:
        raise InputError(experiment.name, "has nothing to score", "give --root nyuv2=DIR or --world DIR")
    reports = [f"- {one['row']} on {one['dataset']}: {one['folder']}/report.html" for one in rows]
    lines = [*score_table(rows, experiment.metrics), "Pictures, with error maps on a fixed scale:", "", *reports, ""]
    return Section(lines, {"rows": rows})


def _kind(dataset: str) -> Kind:
    return "roads" if dataset == "world-roads" else "rooms"


# ------------------------------------------------------------------------------------------------------ table 4


def _table4(given: Given, scale: Scale) -> Section:
    recipe = _recipe(given, "evp-depth", "evp_depth.yaml", "evp-depth")
    overrides = [*_data(given, scale), *scale.table4]
    results = table4.study(
        given.out / f"table4-{scale.name}",
        table4.rows(),
        recipe,
        overrides,
        seeds=scale.seeds,
        frames=scale.frames or TABLE4_FRAMES,
        workers=_cores(),
        say=given.say,
    )
    opt, size = (one := read_recipe(recipe, [*overrides, "out=."])).optimisation, one.data.size
    lines = [
        f"Each row: {opt.steps} steps of {opt.batch_size} at {size[1]} x {size[0]} from {BACKBONE}, seeds 0 to"
        f" {scale.seeds - 1}. Row 1 is VPD but for the image encoder, which learns in all rows. Told: `oracle` is the"
        " picture's own description or place, from labels; otherwise the dataset's one embedding. Intervals (95 %):"
        " bootstrap over held-out frames of the mean of the seeds.",
        "",
    ]
    data: dict[str, Any] = {}
    for source, found in results.items():
        lines += _table4_source(source, found)
        data[source] = {
            "frames": len(found[0].clusters),
            "seeds": scale.seeds,
            "rows": {
                one.row.number: {
                    "text": one.text,
                    **{name: asdict(one.estimate(i)) for i, name in enumerate(table4.METRICS)},
                    "seeds": one.samples.mean(axis=1).tolist(),
                }
                for one in found
            },
            "orderings": [
                {"shows": one.shows, "verdict": one.verdict, "agreeing": one.agreeing, **asdict(one.comparison)}
                for i in range(len(table4.METRICS))
                for one in table4.orderings(found, i)
            ],
        }
    return Section(lines, data)


_ORDERING = ("better in the paper", "other", "shows", "ours", "the other", "difference, 95 %", "seeds agree")
_PROTOCOLS = {
    "nyuv2": "held-out rooms of its labelled training frames, Eigen crop at 640 x 480, up to 10 m",
    "rooms": "held-out frames, whole at their own size",
    "roads": "held-out frames, whole at their own size",
}


def _table4_source(source: Source, found: Sequence[table4.Result]) -> list[str]:
    rows = []
    for one in found:
        row = one.row
        marks = ["yes" if on else "" for on in (row.imafr, row.bins, row.std)]
        clip = "frozen" if row.clip_frozen else "learns"
        seeds = ", ".join(f"{value:.3f}" for value in one.samples[..., 0].mean(axis=1))
        numbers = (row.rmse, one.estimate(0), seeds, row.abs_rel, one.estimate(1))
        rows.append([row.number, *marks, row.text, row.aggregate, clip, one.text, *numbers])
    switches = ("row", "IMAFR", "bins", "std", "text", "aggregate", "CLIP", "told")
    head = (*switches, "paper's RMSE [m]", "RMSE [m]", "of each seed", "paper's AbsRel", "AbsRel")
    lines = [
        f"### {TITLES[source]}",
        "",
        f"{len(found[0].clusters)} {_PROTOCOLS[source]}; clusters of the bootstrap: {_RESAMPLED[source]}.",
        "",
        *table(head, rows),
        "Which of the paper's orderings hold: the paired difference is clear of 0, and no seed disagrees.",
        "",
    ]
    for i, metric in enumerate(table4.METRICS):
        pairs = table4.orderings(found, i)
        counts = Counter(one.verdict for one in pairs)
        lines += table(
            (*_ORDERING, metric),
            [_ordering(one) for one in pairs],
        )
        lines += [
            f"{metric} on {TITLES[source]}: of {len(pairs)} orderings {counts['holds']} hold, {counts['reversed']} are"
            f" reversed, {counts['not clear']} are not clear.",
            "",
        ]
    return lines


def _ordering(one: table4.Ordering) -> list[object]:
    ours, (low, high) = one.comparison, one.comparison.difference
    numbers = (f"{ours.model:.3f}", f"{ours.other:.3f}", f"{low:+.3f} to {high:+.3f}")
    return [f"row {one.better}", f"row {one.other}", one.shows, *numbers, f"{one.agreeing} of {one.seeds}", one.verdict]


# --------------------------------------------------------------------------------------------------------- Iris


def _iris(experiment: Experiment, given: Given, scale: Scale) -> Section:
    """One study for all of Iris: what is trained for one experiment is there for the next."""
    recipes = [_recipe(given, system, "iris.yaml", system) for system in experiment.systems]
    overrides = [*_data(given, scale), *scale.iris]
    out = given.out / f"iris-{scale.name}"
    found = findings.runs_of(out, recipes, overrides, workers=_cores(), say=given.say, extent=scale.extent)
    recipe = next(iter(found.values())).recipe
    opt, size = recipe.optimisation, recipe.data.size
    lines = [
        f"Each system: {opt.steps} steps of {opt.batch_size} at {size[1]} x {size[0]} from {BACKBONE} on rooms of the"
        f" world, with captions ({recipe.text_rate:.0%} of the time) and without any, seeds 0 to"
        f" {scale.extent.seeds - 1}. Held-out frames, after the best scale and shift; captions come from labels"
        " (`oracle`). Intervals (95 %): paired bootstrap over frames (rooms of NYU Depth v2) of the mean of the seeds.",
        "",
    ]
    part = {
        "iris.zero_shot": _with_text,
        "iris.steps": _steps,
        "iris.convergence": _convergence,
        "iris.refinement": _refinement,
    }[experiment.name]
    section = part(found)
    return Section([*lines, *section.lines], {"seeds": scale.extent.seeds, **section.data})


Found = dict[str, findings.Runs]


def _with_text(found: Found) -> Section:
    pairs = [one for name, runs in found.items() for one in findings.with_against_without(name, runs)]
    return _compared(pairs, "with text", _counts(found))


def _refinement(found: Found) -> Section:
    pairs = [one for name, runs in found.items() for one in findings.refinement(name, runs)]
    regions = {TITLES[source]: len(one["clusters"]) for source, one in found["marigold"].told[0]["refined"].items()}
    return _compared(pairs, "after", regions)


def _counts(found: Found) -> dict[str, int]:
    first = next(iter(found.values())).told[0]["sources"]
    return {TITLES[source]: len(one["clusters"]) for source, one in first.items()}


def _compared(pairs: Sequence[Comparison], model: str, counts: dict[str, int]) -> Section:
    """A table, and in words where the paper's finding, that text helps, holds."""
    told = {"better": "holds", "worse": "reversed", "not clear": "is not clear"}
    lines = [f"Frames: {', '.join(f'{count} {source}' for source, count in counts.items())}.", ""]
    lines += comparison_table(pairs, model)
    for verdict, words in told.items():
        where = [f"{one.where} ({one.metric})" for one in pairs if one.verdict == verdict]
        if where:
            lines += [f"That {model} is better {words}: {'; '.join(where)}.", ""]
    return Section(lines, {"frames": counts, "comparisons": [{**asdict(one), "verdict": one.verdict} for one in pairs]})


def _steps(found: Found) -> Section:
    against = findings.against_steps(found["marigold"])
    head = ("on", "trained", "frames", *(f"{n} step{'s' if n > 1 else ''}" for n in findings.STEPS))
    lines = table(head, [[TITLES[source], label, count, *values] for source, label, count, values in against])
    lines += _settled(against)
    data = [
        {
            "source": source,
            "trained": label,
            "frames": count,
            "steps": findings.STEPS,
            "abs_rel": list(map(asdict, values)),
        }
        for source, label, count, values in against
    ]
    return Section(lines, {"rows": data})


# Converged: no more above the last than this share.
NEAR = 0.02


def _settled(against: Sequence[tuple[Source, str, int, list[Estimate]]]) -> list[str]:
    """With how many steps each comes near what it reaches with all."""
    lines = []
    for source, label, _, values in against:
        near = next(
            n for n, one in zip(findings.STEPS, values, strict=True) if one.value <= (1 + NEAR) * values[-1].value
        )
        steps = f"{near} of {findings.STEPS[-1]} steps"
        lines.append(f"- {TITLES[source]}, {label}: within {NEAR:.0%} of its last error, or below it, with {steps}")
    return ["The paper: with text 10 steps are enough, without 25.", "", *lines, ""]


def _convergence(found: Found) -> Section:
    runs = found["marigold"]
    lines, data = [], []
    for scenes in load_scenes(runs.recipe.data):
        if scenes.source not in runs.told[0]["sources"]:
            continue
        rows: list[list[object]] = []
        steps: list[float] = []
        for label, (steps, values) in findings.against_training(runs, scenes.source).items():
            cells = [f"{one.mean():.3f} ({one.min():.3f} to {one.max():.3f})" for one in values.T]
            rows.append([label, *cells])
            data.append({"source": scenes.source, "trained": label, "steps": steps, "abs_rel": values.tolist()})
        lines += [
            f"### {scenes.title}",
            "",
            f"AbsRel on {min(scenes.counts['val'], 100)} validation frames: mean of {len(runs.told)} seeds (lowest to"
            " highest of them).",
            "",
            *table(("trained", *(f"step {step:g}" for step in steps)), rows),
        ]
    return Section(lines, {"rows": data})
