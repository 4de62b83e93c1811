"""The papers' experiments at the size of the minis: on the synthetic world, and on real frames where they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from deixis.errors import DeixisError, UsageError
from deixis.io import write_image, write_text
from deixis.predict import load
from deixis.processes import cores
from deixis.registry import shipped_folder
from deixis.relative import RelativePredictor
from deixis.reproduction import table4
from deixis.reproduction.experiments import Experiment
from deixis.reproduction.official import Given
from deixis.reproduction.report import score_table
from deixis.reproduction.scale import FULL, QUICK, Scale, photos, without_photos, world
from deixis.reproduction.scores import Scored, available, pictures, reports, scored, short_of
from deixis.training import findings
from deixis.training.comparison import Comparison, Estimate, comparison_table, table
from deixis.training.recipe import read_recipe
from deixis.training.scenes import TITLES, load_scenes
from deixis.training.store import Source
from deixis.viz import curves

BACKBONE = "mini-sd"
_RESAMPLED = {"nyuv2": "rooms of the dataset", "rooms": "frames", "roads": "frames"}
# Frames of a source in table 4 at full size.
TABLE4_FRAMES = 150


@dataclass(frozen=True)
class Section:
    """What came out of one part of an experiment.

    Attributes:
        lines: Markdown.
        data: the same in numbers, JSON-ready.
        drawn: a plot of them.
        pictures: files in the folder of results.
    """

    lines: list[str]
    data: dict[str, Any]
    drawn: Image.Image | None = None
    pictures: tuple[str, ...] = ()


def run_mini(experiment: Experiment, given: Given) -> tuple[dict[str, Any], list[str]]:
    """Run an experiment with the minis, or go on with it.

    Returns:
        ``scale``, ``command``, ``lines`` (Markdown), ``data`` and ``pictures`` (files in the folder of results); and
        what was missing, a line each.

    Raises:
        DeixisError: one line for anything wrong with data or folders.
    """
    scale = QUICK if given.quick else FULL
    on_photos = experiment.mini != "scores" or any("nyuv2-rooms" in one.datasets for one in experiment.minis)
    missing = [line] if on_photos and (line := without_photos(given)) else []
    sections = []
    if experiment.name == "iris.refinement":
        section, lacking = _refined_minis(experiment, given, scale)
        sections.append(section)
        missing += lacking
    elif experiment.minis:
        section, lacking = _scores(experiment, given, scale)
        sections.append(section)
        missing += lacking
    if experiment.mini == "table4":
        sections.append(_table4(given, scale))
    elif experiment.mini == "iris":
        sections.append(_iris(experiment, given, scale))
    return {
        "scale": scale.name,
        "command": given.command,
        "lines": [line for one in sections for line in one.lines],
        "data": {key: value for one in sections for key, value in one.data.items()},
        "pictures": [name for one in sections for name in one.pictures],
    }, missing


def _recipe(given: Given, name: str, base: str, system: str) -> Path:
    """A recipe of the package, in the folder of results: what was trained can be read there."""
    text = resources.files("deixis.reproduction").joinpath(base).read_text(encoding="utf-8")
    path = given.out / "recipes" / f"{name}.yaml"
    write_text(path, text if "\nsystem:" in text else f"{text}\nsystem: {system}\n")
    return path


def _data(given: Given, scale: Scale) -> list[str]:
    """Overrides of all recipes."""
    folder = photos(given)
    root = [] if folder is None else [f"data.root={folder.absolute()}"]
    rooms, backbone = world(given, scale, "rooms").absolute(), shipped_folder() / BACKBONE
    return [f"data.world={rooms}", f"init={backbone}", f"device={given.device}", *root]


# ------------------------------------------------------------------------------------------------------- scores


def _scores(experiment: Experiment, given: Given, scale: Scale) -> tuple[Section, list[str]]:
    """Minis, scored as ``deixis eval`` does it, and what is missing."""
    found, missing = scored(experiment, given, scale)
    if not found:
        return Section(["### Shipped minis", "", "None could be scored.", ""], {"rows": []}), missing
    lines = ["### Shipped minis", "", *score_table([one.row for one in found], experiment.metrics), *short_of(found)]
    if scale.frames is not None:
        lines += ["Of each dataset some held-out frames are scored, evenly spread, as many as the table says.", ""]
    names: list[str] = []
    if experiment.drawn:
        names.append(f"{experiment.name}-{scale.name}.png")
        write_image(given.out / names[0], pictures(found))
        lines += ["Samples at the sixths of the error, errors on a fixed scale:", "", f"![pictures]({names[0]})", ""]
    against = _steps_of(found)
    if against:
        names.append(f"{experiment.name}-minis-{scale.name}.png")
        write_image(given.out / names[-1], curves(against, "denoising steps", "AbsRel after alignment", log=True))
        lines += [f"![AbsRel against denoising steps]({names[-1]})", ""]
    lines += ["Reports, with the worst and best pictures of each:", "", *reports(found), ""]
    return Section(lines, {"rows": [one.row for one in found]}, pictures=tuple(names)), missing


def _steps_of(found: Sequence[Scored]) -> dict[str, tuple[list[float], list[float]]]:
    """AbsRel by denoising steps, a line for each dataset and text; none where steps were not asked for."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for one in found:
        if one.plan.steps is not None:
            text = "without text" if one.plan.text == "none" else f"with {one.plan.text}"
            steps, values = lines.setdefault(f"{one.name}, {one.plan.dataset}, {text}", ([], []))
            steps.append(one.plan.steps)
            values.append(one.row["metrics"]["abs_rel"]["value"])
    return lines


def _refined_minis(experiment: Experiment, given: Given, scale: Scale) -> tuple[Section, list[str]]:
    """Regions before and after the phrase that names them, by the minis that are here, and what is missing."""
    there, missing = available(experiment.minis, given)
    recipe = read_recipe(_recipe(given, "marigold", "iris.yaml", "marigold"), [*_data(given, scale), "out=."])
    sources = load_scenes(recipe.data)
    found = {}
    for name, model in there.items():
        given.say(f"refining with {name}")
        try:
            predictor = load(model, given.device)
            if not isinstance(predictor, RelativePredictor):
                raise UsageError(f"--weights {name}={model}", "are not of affine-invariant depth", "give its own")
        except DeixisError as error:
            given.fail(error)
            missing.append(f"{name}: {error}")
            continue
        found[name] = findings.Runs(recipe)
        found[name].told.append(findings.refined(predictor, sources, scale.extent))
    if not found:
        return Section(["### Shipped minis", "", "None could be asked.", ""], {"shipped": []}), missing
    section = _refinement(found)
    said = "Regions of held-out frames, after the best scale and shift; captions come from labels (`oracle`)."
    return Section(["### Shipped minis", "", said, "", *section.lines], {"shipped": section.data}), missing


# ------------------------------------------------------------------------------------------------------ table 4


def _table4(given: Given, scale: Scale) -> Section:
    recipe = _recipe(given, "evp-depth", "evp_depth.yaml", "evp-depth")
    overrides = [*_data(given, scale), *scale.table4]
    frames = scale.frames or TABLE4_FRAMES
    results = table4.study(
        given.out / f"table4-{scale.name}",
        table4.rows(),
        recipe,
        overrides,
        seeds=scale.seeds,
        frames=frames,
        workers=cores(),
        say=given.say,
    )
    whole = read_recipe(recipe, [*overrides, "out=."])
    opt, size = whole.optimisation, whole.data.size
    constants = {one.source: table4.constant(one, frames) for one in load_scenes(whole.data) if one.source in results}
    lines = [
        "### Twelve rows, trained alike",
        "",
        f"Each row: {opt.steps} steps of {opt.batch_size} at {size[1]} x {size[0]} from {BACKBONE}, seeds 0 to"
        f" {scale.seeds - 1}. Row 1 is VPD but for the image encoder, which learns in all rows. Told: `oracle` is the"
        " picture's own description or place, from labels; otherwise the dataset's one embedding. Intervals (95 %):"
        " bootstrap over held-out frames of the mean of the seeds.",
        "",
    ]
    data: dict[str, Any] = {}
    for source, found in results.items():
        lines += _table4_source(source, found, constants[source])
        data[source] = {
            "frames": len(found[0].clusters),
            "seeds": scale.seeds,
            "constant": {
                "metres": constants[source].metres,
                **dict(zip(table4.METRICS, constants[source].samples.mean(axis=0).tolist(), strict=True)),
            },
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
    "nyuv2": "labelled training frames of held-out rooms, Eigen crop at 640 x 480, up to 10 m",
    "rooms": "held-out frames, whole at their own size",
    "roads": "held-out frames, whole at their own size",
}


def _table4_source(source: Source, found: Sequence[table4.Result], constant: table4.Constant) -> list[str]:
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
        f"#### {TITLES[source]}",
        "",
        f"{len(found[0].clusters)} {_PROTOCOLS[source]}; clusters of the bootstrap: {_RESAMPLED[source]}.",
        "",
        *table(head, rows),
        *_beaten(found, constant),
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


def _beaten(found: Sequence[table4.Result], constant: table4.Constant) -> list[str]:
    """Which rows have learned more than one depth for all pixels: what the others say of each other means little."""
    lines = []
    for i, metric in enumerate(table4.METRICS):
        ours = [one.better_than(constant, i) for one in found]
        better = [str(one.row.number) for one, ahead in zip(found, ours, strict=True) if ahead]
        said = "none" if not better else "all" if len(better) == len(found) else f"rows {', '.join(better)}"
        lines.append(
            f"- {metric} of the best constant, {constant.metres:.2f} m everywhere:"
            f" {constant.samples[:, i].mean():.3f}; clearly better: {said}"
        )
    return [*lines, ""]


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
    found = findings.runs_of(out, recipes, overrides, workers=cores(), say=given.say, extent=scale.extent)
    recipe = next(iter(found.values())).recipe
    opt, size = recipe.optimisation, recipe.data.size
    lines = [
        "### Trained alike, with and without text",
        "",
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
    data = {"seeds": scale.extent.seeds, **section.data}
    if section.drawn is None:
        return Section([*lines, *section.lines], data)
    name = f"{experiment.name}-{scale.name}.png"
    write_image(given.out / name, section.drawn)
    return Section([*lines, *section.lines, f"![AbsRel]({name})", ""], data, pictures=(name,))


Found = dict[str, findings.Runs]


def _with_text(found: Found) -> Section:
    pairs = [one for name, runs in found.items() for one in findings.with_against_without(name, runs)]
    return _compared(pairs, "with text", _counts(found))


def _refinement(found: Found) -> Section:
    pairs = [one for name, runs in found.items() for one in findings.refinement(name, runs)]
    first = next(iter(found.values())).told[0]["refined"]
    regions = {TITLES[source]: len(one["clusters"]) for source, one in first.items()}
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
    runs = found["marigold"]
    against = findings.against_steps(runs)
    lines = [*findings.steps_table(runs), *_settled(against)]
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
    return Section(lines, {"alike": data}, findings.steps_curves(runs))


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
    lines, data, drawn = [], [], {}
    for scenes in load_scenes(runs.recipe.data):
        if scenes.source not in runs.told[0]["sources"]:
            continue
        rows: list[list[object]] = []
        steps: list[float] = []
        for label, (steps, values) in findings.against_training(runs, scenes.source).items():
            cells = [f"{one.mean():.3f} ({one.min():.3f} to {one.max():.3f})" for one in values.T]
            rows.append([label, *cells])
            data.append({"source": scenes.source, "trained": label, "steps": steps, "abs_rel": values.tolist()})
            drawn[f"{scenes.title}, {label}"] = (steps, values.mean(axis=0).tolist())
        lines += [
            f"#### {scenes.title}",
            "",
            f"AbsRel on {min(scenes.counts['val'], 100)} validation frames: mean of {len(runs.told)} seeds (lowest to"
            " highest of them).",
            "",
            *table(("trained", *(f"step {step:g}" for step in steps)), rows),
        ]
    return Section(lines, {"alike": data}, curves(drawn, "training steps", "AbsRel after alignment"))
