"""What language does for affine-invariant depth: the findings of Iris, measured at mini scale.

    python -m deixis.training.findings OUT --recipe recipes/mini/7_marigold.yaml --recipe recipes/mini/7_lotus_d.yaml
        init=DIR data.root=DIR data.world=DIR optimisation.steps=240 data.size=[64,88]

Each system is trained with captions and without any, from the same backbone by the same schedule, with three seeds.
On held-out frames of what was learned from: (a) error with text against without, overall, on small things and on
things that the text names, for texts of different sources; (b) Marigold's error against its denoising steps; (c) error
against training steps; (d) error on a region before and after the phrase that names it. ``OUT/README.md`` says what
came out, with plots beside it. Everything that is finished stays finished: the same command goes on where it was
interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from deixis.cli.common import SOME_FAILED, USAGE
from deixis.errors import DeixisError, UsageError
from deixis.io import write_image, write_text
from deixis.predict import load
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.instances import InstanceMetrics, named_in
from deixis.protocols.masks import NYUV2
from deixis.registry import RELATIVE
from deixis.relative import RelativePredictor
from deixis.systems.marigold import Marigold
from deixis.training.comparison import Comparison, Estimate, comparison_table, mean, table
from deixis.training.jobs import run_jobs
from deixis.training.measure_relative import WORLD
from deixis.training.recipe import Recipe, read_recipe
from deixis.training.scenes import TITLES, Scene, Scenes, load_scenes, spread
from deixis.training.store import SOURCES, Source
from deixis.types import Depth, Text
from deixis.viz import curves
from deixis.wording import added, grown, shuffled
from deixis.world.words import NOUNS

STEPS = (1, 2, 4, 10, 25, 50)
TEXTS = ("scene", "classes", "empty", "another frame's", "shuffled words")
METRICS = ("AbsRel", "d1", "AbsRel, small things", "AbsRel, named things")
UP = "AbsRel after alignment"
# A frame's numbers, None where it has no such thing.
Row = list[float | None]
Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        seeds: trainings of each kind.
        frames: held-out frames of a source, at most.
        step_frames: those on which Marigold's steps are counted.
        refined: those that are refined.
    """

    seeds: int = 3
    frames: int = 60
    step_frames: int = 16
    refined: int = 40


FULL = Extent()


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        recipe: its file.
        overrides: of the recipe.
        told: with captions, or without any.
        seed: of everything random.
        out: folder of the run.
        extent: of what is measured.
    """

    recipe: Path
    overrides: tuple[str, ...]
    told: bool
    seed: int
    out: Path
    extent: Extent

    def read(self) -> Recipe:
        """The recipe with its overrides. Raises UsageError as :func:`read_recipe`."""
        own = [f"optimisation.seed={self.seed}", f"out={self.out}", *([] if self.told else ["text_rate=0.0"])]
        return read_recipe(self.recipe, [*self.overrides, *own])

    def measure(self, weights: Path, recipe: Recipe) -> dict[str, Any]:
        """As :func:`measure`."""
        predictor = load(weights, recipe.device)
        assert isinstance(predictor, RelativePredictor)
        learned = [scenes for scenes in load_scenes(recipe.data) if recipe.data.shares[SOURCES.index(scenes.source)]]
        return measure(predictor, learned, self.extent, told=self.told)


def study(
    out: Path,
    recipes: Sequence[Path],
    overrides: Sequence[str],
    *,
    workers: int,
    say: Callable[[str], None],
    extent: Extent = FULL,
) -> Path:
    """Run everything that is not there yet, as :func:`runs_of`, and write the report; returns its path."""
    found = runs_of(out, recipes, overrides, workers=workers, say=say, extent=extent)
    report = out / "README.md"
    write_text(report, "\n".join([*_report(found, out), ""]))
    return report


def runs_of(
    out: Path,
    recipes: Sequence[Path],
    overrides: Sequence[str],
    *,
    workers: int,
    say: Callable[[str], None],
    extent: Extent,
) -> dict[str, Runs]:
    """Train and measure everything that is not there yet; returns what is there, by system.

    Args:
        out: folder of the study.
        recipes: of Marigold, Lotus or E2E-FT.
        overrides: of all recipes.
        workers: trainings at once.
        say: called with a line about what is done.
        extent: of what is measured.

    Raises:
        DeixisError: one line for anything wrong with recipes or data.
    """
    jobs = []
    for recipe in recipes:
        for told in (True, False):
            for seed in range(extent.seeds):
                name = f"{recipe.stem}-{'text' if told else 'no-text'}-{seed}"
                jobs.append(Job(recipe, tuple(overrides), told, seed, out / "runs" / name, extent))
    read = [job.read() for job in jobs]
    for recipe_ in read:
        if recipe_.system not in RELATIVE:
            raise UsageError(recipe_.system, "is no system of affine-invariant depth", f"use {', '.join(RELATIVE)}")
    results = run_jobs(jobs, workers, say)
    found: dict[str, Runs] = {}
    for job, recipe_, measured in zip(jobs, read, results, strict=True):
        lines = (job.out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        runs = found.setdefault(recipe_.system, Runs(recipe_))
        (runs.told if job.told else runs.untold).append(measured)
        (runs.told_logs if job.told else runs.untold_logs).append([json.loads(line) for line in lines])
    return found


class Runs:
    """What a system's runs gave, one entry a seed.

    Attributes:
        recipe: of one of them.
        told, untold: measured on held-out frames.
        told_logs, untold_logs: rows of the training log.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.told: list[dict[str, Any]] = []
        self.untold: list[dict[str, Any]] = []
        self.told_logs: list[list[dict[str, float]]] = []
        self.untold_logs: list[list[dict[str, float]]] = []


# ---------------------------------------------------------------------------------------------------- measuring


def measure(predictor: RelativePredictor, sources: Sequence[Scenes], extent: Extent, *, told: bool) -> dict[str, Any]:
    """Held-out results.

    Args:
        predictor: a trained system.
        sources: the frames.
        extent: how many of them.
        told: whether it was trained with captions; one that was not gets none.

    Returns:
        ``sources``: per source ``clusters`` and, per text, a row per frame of :data:`METRICS`; ``steps``: per source
        ``clusters`` and, per text, a row per frame of AbsRel at :data:`STEPS` (Marigold); ``refined``: per source
        ``clusters`` and pairs of AbsRel on a region, before and after the phrase that names it.
    """
    result: dict[str, Any] = {"sources": {}, "steps": {}, "refined": {}}
    for scenes in sources:
        protocol = _protocol(scenes)
        some = spread([scene for scene in scenes.splits["heldout"] if _counts(scene, protocol)], extent.frames)
        if not some:
            continue
        rows: dict[str, list[Row]] = {}
        for i, scene in enumerate(some):
            for name, text in _texts(scene, some[(i + len(some) // 2) % len(some)]).items():
                if told or name == "empty":
                    rows.setdefault(name, []).append(_row(predictor, scene, text, protocol))
        result["sources"][scenes.source] = {"clusters": [scene.cluster for scene in some], "texts": rows}
        if isinstance(predictor.model, Marigold):
            few = spread(some, extent.step_frames)
            result["steps"][scenes.source] = _against_steps(predictor, few, protocol, told=told)
        if told:
            result["refined"][scenes.source] = _refined(predictor, spread(some, extent.refined), protocol)
    return result


def refined(predictor: RelativePredictor, sources: Sequence[Scenes], extent: Extent) -> dict[str, Any]:
    """Of :func:`measure` what it calls ``refined``, on as many frames."""
    found = {}
    for scenes in sources:
        protocol = _protocol(scenes)
        some = spread([scene for scene in scenes.splits["heldout"] if _counts(scene, protocol)], extent.refined)
        if some:
            found[scenes.source] = _refined(predictor, some, protocol)
    return {"refined": found}


def _protocol(scenes: Scenes) -> AffineProtocol:
    return AffineProtocol(NYUV2 if scenes.source == "nyuv2" else WORLD)


def _counts(scene: Scene, protocol: AffineProtocol) -> bool:
    truth = Depth(scene.depth(), "metric", Text("", "oracle"), "truth")
    return bool(protocol.prepare(truth, scene.depth())[2].any())


def _texts(scene: Scene, other: Scene) -> dict[str, str]:
    names = list(dict.fromkeys(scene.things()[1].values()))
    texts = (scene.caption, ", ".join(names), "", other.caption, shuffled(scene.caption, scene.cluster))
    return dict(zip(TEXTS, texts, strict=True))


def _named(text: str, names: dict[int, str]) -> set[int]:
    """Things that a text names by any noun of their class."""
    nouns = {number: NOUNS.get(name, (name,)) for number, name in names.items()}
    return {number for number, forms in nouns.items() if any(named_in(text, {number: form}) for form in forms)}


def _row(predictor: RelativePredictor, scene: Scene, text: str, protocol: AffineProtocol) -> Row:
    depth: Any = predictor(scene.rgb(), text)
    truth = scene.depth()
    whole = protocol.score(depth, truth)
    ids, names = scene.things()
    things = InstanceMetrics(protocol)
    # What is named is asked of the caption, whatever was said: the same things for every text.
    things.update(depth, truth, ids, named=_named(scene.caption, names))
    found = things.compute() if len(things.rows) else {}
    return [whole["abs_rel"], whole["d1"], *(found.get(f"abs_rel_{group}") for group in ("small", "named"))]


def _against_steps(
    predictor: RelativePredictor, some: Sequence[Scene], protocol: AffineProtocol, *, told: bool
) -> dict[str, Any]:
    rows: dict[str, list[Row]] = {}
    for scene in some:
        for name, text in (("scene", scene.caption), ("empty", "")) if told else (("empty", ""),):
            depths: list[Any] = [predictor(scene.rgb(), text, steps=steps) for steps in STEPS]
            rows.setdefault(name, []).append([protocol.score(one, scene.depth())["abs_rel"] for one in depths])
    return {"clusters": [scene.cluster for scene in some], "texts": rows}


def _refined(predictor: RelativePredictor, some: Sequence[Scene], protocol: AffineProtocol) -> dict[str, Any]:
    """The first phrase of each caption that names something counts, so that frames weigh about the same."""
    clusters, pairs = [], []
    for scene in some:
        ids, names = scene.things()
        before = ""
        for text in grown(scene.caption):
            phrases = " ".join(added(before, text))
            region = np.isin(ids, list(_named(phrases, names)))
            if before and region.any():
                errors = [_on(predictor, scene, one, protocol, region.astype(np.int32)) for one in (before, text)]
                if None not in errors:
                    clusters.append(scene.cluster)
                    pairs.append(errors)
                break
            before = text
    return {"clusters": clusters, "pairs": pairs}


def _on(
    predictor: RelativePredictor, scene: Scene, text: str, protocol: AffineProtocol, region: npt.NDArray[np.int32]
) -> float | None:
    depth: Any = predictor(scene.rgb(), text)
    things = InstanceMetrics(protocol)
    things.update(depth, scene.depth(), region)
    return things.compute()["abs_rel"] if len(things.rows) else None


# --------------------------------------------------------------------------------------------------- the report


def _report(found: dict[str, Runs], out: Path) -> list[str]:
    runs = next(iter(found.values()))
    recipe, seeds = runs.recipe, len(runs.told)
    opt, size = recipe.optimisation, recipe.data.size
    return [
        "# What language does for affine-invariant depth",
        "",
        f"{', '.join(found)}: each trained with captions ({recipe.text_rate:.0%} of the time) and without any, from the"
        f" same backbone by the same schedule: {opt.steps} steps of {opt.batch_size} at {size[1]} x {size[0]}, seeds 0"
        f" to {seeds - 1}. Numbers are of held-out frames after the best scale and shift; things are scored after the"
        " picture's own alignment. Intervals (95 %): paired bootstrap over frames (rooms of NYU Depth v2), of the mean"
        " of the seeds. All captions and class words come from labels or scene graphs (`oracle`).",
        "",
        "## (a) With text against without",
        "",
        "Trained and asked with the caption, against trained and asked without any:",
        "",
        *comparison_table(
            [one for name, runs in found.items() for one in with_against_without(name, runs)], "with text"
        ),
        "### Texts of other sources, asked of the systems trained with captions",
        "",
        *_texts_table(found),
        "The right caption (scene) against the others:",
        "",
        *comparison_table([one for name, runs in found.items() for one in against_other_texts(name, runs)], "scene"),
        "## (b) Marigold: error against denoising steps",
        "",
        *_steps_section(found, out),
        "## (c) Error against training steps",
        "",
        *_training_section(found, out),
        "## (d) Refinement: a region before and after the phrase that names it",
        "",
        *comparison_table([one for name, runs in found.items() for one in refinement(name, runs)], "after"),
    ]


def _samples(results: Sequence[dict[str, Any]], part: str, source: str, text: str) -> Samples:
    """[seeds, frames, numbers]."""
    return np.array([one[part][source]["texts"][text] for one in results], dtype=np.float64)


def _compare(
    where: str, metric: str, other: str, pair: tuple[Samples, Samples], clusters: Sequence[int]
) -> Comparison | None:
    """Two models' numbers [seeds, frames], on the frames that have them; None where none has."""
    known = ~np.isnan(pair[0]).any(axis=0) & ~np.isnan(pair[1]).any(axis=0)
    if not known.any():
        return None
    one, two = (mean(samples[:, known].mean(axis=0)) for samples in pair)
    kept = [clusters[i] for i in np.flatnonzero(known).tolist()]
    smaller = metric != "d1"
    return Comparison.of(where, metric, other, (one, two), kept, smaller_is_better=smaller)


def with_against_without(name: str, runs: Runs) -> list[Comparison]:
    """A system trained and asked with captions beside one trained and asked without any."""
    found = []
    for source, measured in runs.told[0]["sources"].items():
        told = _samples(runs.told, "sources", source, "scene")
        untold = _samples(runs.untold, "sources", source, "empty")
        for i, metric in enumerate(METRICS):
            pair = (told[..., i], untold[..., i])
            found.append(_compare(f"{name}, {TITLES[source]}", metric, "without", pair, measured["clusters"]))
    return [one for one in found if one is not None]


def against_other_texts(name: str, runs: Runs) -> list[Comparison]:
    """A system trained with captions, asked with the right one, beside itself asked with other texts."""
    found = []
    for source, measured in runs.told[0]["sources"].items():
        samples = {text: _samples(runs.told, "sources", source, text)[..., 0] for text in TEXTS}
        for text in TEXTS[1:]:
            pair = (samples["scene"], samples[text])
            found.append(_compare(f"{name}, {TITLES[source]}", "AbsRel", text, pair, measured["clusters"]))
    return [one for one in found if one is not None]


def _texts_table(found: dict[str, Runs]) -> list[str]:
    rows: list[list[object]] = []
    for name, runs in found.items():
        for source, measured in runs.told[0]["sources"].items():
            samples = [_samples(runs.told, "sources", source, text)[..., 0].mean(axis=0) for text in TEXTS]
            estimates = [Estimate.mean(values, measured["clusters"]) for values in samples]
            rows.append([name, TITLES[source], len(measured["clusters"]), *estimates])
    return table(("system", "on", "frames", *(f"AbsRel: {text}" for text in TEXTS)), rows)


def _steps_section(found: dict[str, Runs], out: Path) -> list[str]:
    runs = found.get("marigold")
    if runs is None:
        return ["Marigold was not trained.", ""]
    write_image(out / "steps.png", steps_curves(runs))
    return [*steps_table(runs), "![AbsRel against denoising steps](steps.png)", ""]


def steps_table(runs: Runs) -> list[str]:
    """Lines of the table of :func:`against_steps`."""
    head = ("on", "trained", "frames", *(f"{n} step{'s' if n > 1 else ''}" for n in STEPS))
    return table(
        head, [[TITLES[source], label, count, *values] for source, label, count, values in against_steps(runs)]
    )


def steps_curves(runs: Runs) -> Image.Image:
    """The plot of :func:`against_steps`."""
    lines = {
        f"{TITLES[source]}, {label}": (STEPS, [one.value for one in values])
        for source, label, _, values in against_steps(runs)
    }
    return curves(lines, "denoising steps", UP, log=True)


def against_steps(runs: Runs) -> list[tuple[Source, str, int, list[Estimate]]]:
    """Marigold's AbsRel at each of :data:`STEPS`: on what, how trained and asked, on how many frames."""
    found = []
    for source, measured in runs.told[0]["steps"].items():
        for label, results, text in (
            ("with text", runs.told, "scene"),
            ("with text, asked without", runs.told, "empty"),
            ("without", runs.untold, "empty"),
        ):
            values = _samples(results, "steps", source, text).mean(axis=0)  # [frames, steps]
            estimates = [Estimate.mean(values[:, i], measured["clusters"]) for i in range(len(STEPS))]
            found.append((source, label, len(values), estimates))
    return found


def _training_section(found: dict[str, Runs], out: Path) -> list[str]:
    lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    source = next(iter(next(iter(found.values())).told[0]["sources"]))
    for name, runs in found.items():
        for label, (steps, values) in against_training(runs, source).items():
            lines[f"{name}, {label}"] = (steps, values.mean(axis=0).tolist())
    write_image(out / "training.png", curves(lines, "training steps", UP))
    rows: list[list[object]] = [[name, *(f"{value:.3f}" for value in values)] for name, (_, values) in lines.items()]
    steps_head = next(iter(lines.values()))[0]
    return [
        f"Mean of the seeds on validation frames ({TITLES[source]}), which no training saw:",
        "",
        *table(("system", *(f"step {step:g}" for step in steps_head)), rows),
        "![AbsRel against training steps](training.png)",
        "",
    ]


def against_training(runs: Runs, source: Source) -> dict[str, tuple[list[float], Samples]]:
    """AbsRel on validation frames of a source, with text and without: steps, and a row a seed [seeds, steps]."""
    found = {}
    for label, logs, key in (
        ("with text", runs.told_logs, f"val_{source}_told_abs_rel"),
        ("without", runs.untold_logs, f"val_{source}_abs_rel"),
    ):
        steps = [row["step"] for row in logs[0] if key in row]
        found[label] = (steps, np.array([[row[key] for row in log if key in row] for log in logs]))
    return found


def refinement(name: str, runs: Runs) -> list[Comparison]:
    """Error on a region after the phrase that names it, beside that before."""
    found = []
    for source, measured in runs.told[0]["refined"].items():
        pairs = np.array([one["refined"][source]["pairs"] for one in runs.told], dtype=np.float64)
        if pairs.size:
            both = (pairs[..., 1], pairs[..., 0])
            where = f"{name}, {TITLES[source]}"
            found.append(_compare(where, "AbsRel on the region", "before", both, measured["clusters"]))
    return [one for one in found if one is not None]


# ----------------------------------------------------------------------------------------------------- command


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the study.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of all recipes.")] = None,
    recipe: Annotated[
        list[Path] | None, typer.Option(help="Of an affine-invariant system; several may be given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 2,
) -> None:
    """Train with and without captions, and compare on held-out frames."""
    try:
        if not recipe:
            raise UsageError("--recipe", "is needed", "name one at least")
        print(study(out, recipe, overrides or [], workers=workers, say=lambda line: print(line, flush=True)))
    except DeixisError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE if isinstance(error, UsageError) else SOME_FAILED) from error


if __name__ == "__main__":
    typer.run(main)
