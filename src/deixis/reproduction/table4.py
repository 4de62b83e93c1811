"""EVP's table 4 with the minis: twelve rows from one backbone, by one schedule, with several seeds.

A row is a setting of the switches of :class:`deixis.systems.evp.EVPDepthConfig`, all else is alike. A row whose
``aggregate`` is over the dataset is trained and asked with that one embedding; any other with the description of each
picture, which comes from labels (``oracle``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deixis.predict import DepthPredictor, load_metric
from deixis.protocols.depth import depth_metrics
from deixis.protocols.trivial import best_constant
from deixis.reproduction.experiments import EXPERIMENTS
from deixis.training.comparison import Comparison, Estimate, mean
from deixis.training.jobs import run_jobs
from deixis.training.recipe import Recipe, read_recipe
from deixis.training.scenes import Scene, Scenes, load_scenes, spread
from deixis.training.store import SOURCES, Source

# RMSE and AbsRel of each seed and frame [S, N, 2].
Samples = npt.NDArray[np.float64]
METRICS = ("RMSE [m]", "AbsRel")
# What the paper says of its rows (section 4.5): (the better one, the other, what it shows).
ORDERINGS = (
    (2, 1, "IMAFR"),
    (3, 2, "metric bins"),
    (4, 3, "latents divided by their standard deviation"),
    (4, 5, "class descriptions, not free-form ones of each picture, with a frozen CLIP"),
    (6, 5, "a CLIP that learns"),
    (7, 4, "one vector of class descriptions for the dataset"),
    (10, 8, "IMAFR, beside everything else"),
    (10, 9, "metric bins, beside everything else"),
    (10, 7, "free-form in place of class descriptions"),
    (11, 10, "40 vectors for the dataset in place of one"),
    (12, 11, "40 vectors for each picture in place of the dataset's"),
    (12, 1, "EVP against VPD"),
)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        number: its name there.
        imafr, bins, std, text, aggregate, clip_frozen: see :class:`deixis.systems.evp.EVPDepthConfig`; ``std`` is
            whether latents are divided by their standard deviation.
        rmse, abs_rel: the paper's [m].
    """

    number: int
    imafr: bool
    bins: bool
    std: bool
    text: Literal["cd", "id"]
    aggregate: Literal["v", "d", "vd", "i"]
    clip_frozen: bool
    rmse: float
    abs_rel: float

    @property
    def of_dataset(self) -> bool:
        """Whether one embedding stands for all pictures."""
        return self.aggregate in ("d", "vd")

    @property
    def overrides(self) -> tuple[str, ...]:
        """What sets the row apart in a recipe."""
        switches = {"imafr": self.imafr, "bins": self.bins, "clip_frozen": self.clip_frozen}
        found = [f"config.{name}={str(on).lower()}" for name, on in switches.items()]
        found += [f"config.text={self.text}", f"config.aggregate={self.aggregate}"]
        found += [] if self.std else ["config.std=null"]  # otherwise that of the backbone's latents
        found += [] if self.bins else ["bins=null"]
        return (*found, f"text_shares={'[0,1,0]' if self.of_dataset else '[1,0,0]'}")

    def said(self, scene: Scene) -> str | None:
        """What the trained row is told of a scene; None leaves it to the dataset's embedding."""
        if self.of_dataset:
            return None
        return scene.caption if self.text == "id" else scene.place


def rows() -> list[Row]:
    """The twelve rows."""
    (table,) = EXPERIMENTS["evp.table4"].tables
    return [Row(int(number), *values) for number, values in table.rows.items()]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        row: of the table.
        seed: of everything random.
        recipe: its file.
        overrides: of the recipe, for all rows.
        frames: held-out frames of a source that are measured, at most.
        out: folder of the run.
    """

    row: Row
    seed: int
    recipe: Path
    overrides: tuple[str, ...]
    frames: int
    out: Path

    def read(self) -> Recipe:
        """The recipe with its overrides. Raises UsageError as :func:`read_recipe`."""
        own = [*self.row.overrides, f"optimisation.seed={self.seed}", f"out={self.out}"]
        return read_recipe(self.recipe, [*self.overrides, *own])

    def measure(self, weights: Path, recipe: Recipe) -> dict[str, Any]:
        """As :func:`measure`."""
        return measure(load_metric(weights, recipe.device), load_scenes(recipe.data), self.row, self.frames)


@dataclass(frozen=True)
class Result:
    """A row's runs, on one source.

    Attributes:
        row: which.
        clusters: of the frames: those of one cluster are not independent.
        samples: RMSE and AbsRel [S, N, 2].
        text: provenance of what it was told.
    """

    row: Row
    clusters: list[int]
    samples: Samples
    text: str

    def estimate(self, metric: int) -> Estimate:
        """The mean of the seeds with its interval over frames."""
        return Estimate.mean(self.samples[..., metric].mean(axis=0), self.clusters)

    def better_than(self, constant: Constant, metric: int) -> bool:
        """Whether the mean of the seeds is, on paired frames, with an interval clear of 0."""
        ours = self.samples[..., metric].mean(axis=0)
        return Estimate.mean(ours - constant.samples[:, metric], self.clusters).high < 0


def study(
    out: Path,
    wanted: Sequence[Row],
    recipe: Path,
    overrides: Sequence[str],
    *,
    seeds: int,
    frames: int,
    workers: int,
    say: Callable[[str], None],
) -> dict[Source, list[Result]]:
    """Train and measure everything that is not there yet; returns what is there, by source.

    Args:
        out: folder of the study.
        wanted: rows of the table.
        recipe: of all rows.
        overrides: of the recipe.
        seeds: trainings of a row.
        frames: held-out frames of a source, at most.
        workers: trainings at once.
        say: called with a line about what is done.

    Raises:
        DeixisError: one line for anything wrong with recipe or data.
    """
    jobs = [
        Job(row, seed, recipe, tuple(overrides), frames, out / "runs" / f"row-{row.number:02d}-seed-{seed}")
        for row in wanted
        for seed in range(seeds)
    ]
    measured = run_jobs(jobs, workers, say)
    found: dict[Source, list[Result]] = {}
    for row in wanted:
        runs = [one for job, one in zip(jobs, measured, strict=True) if job.row == row]
        for source in (one for one in SOURCES if one in runs[0]):
            samples, first = np.array([run[source]["samples"] for run in runs]), runs[0][source]
            found.setdefault(source, []).append(Result(row, first["clusters"], samples, first["text"]))
    return found


def measure(predictor: DepthPredictor, sources: Sequence[Scenes], row: Row, frames: int) -> dict[str, Any]:
    """RMSE [m] and AbsRel of held-out frames.

    Args:
        predictor: the trained row.
        sources: the frames.
        row: says what it is told.
        frames: of a source, at most.

    Returns:
        per source ``clusters`` and ``samples``, an entry a frame, and the provenance of ``text``.
    """
    found: dict[str, Any] = {}
    for scenes in sources:
        if scenes.source == "roads":  # beyond the rows' 10 m
            continue
        some = _scored(scenes, frames)
        if not some:
            continue
        samples, text = [], ""
        for scene in some:
            depth = predictor(scene.rgb(), row.said(scene))
            values = depth_metrics(*scenes.protocol.select(depth, scene.depth()))
            samples.append([values["rmse"], values["abs_rel"]])
            text = depth.text.provenance if row.of_dataset else "oracle"
        found[scenes.source] = {"clusters": [scene.cluster for scene in some], "samples": samples, "text": text}
    return found


@dataclass(frozen=True)
class Constant:
    """What a row must beat: one depth for all pixels, the best in AbsRel for the training frames.

    Attributes:
        metres: that depth.
        samples: its RMSE and AbsRel on each frame that rows are measured on [N, 2].
    """

    metres: float
    samples: Samples


def constant(scenes: Scenes, frames: int) -> Constant:
    """The best constant of a source, measured on the frames of :func:`measure`."""
    depths = (scene.depth() for scene in scenes.splits["train"])
    # A few hundred pixels of each frame are plenty for one number.
    scored = [scenes.protocol.select(depth, depth, kind="metric")[1].numpy() for depth in depths]
    some = np.concatenate([values[:: 1 + len(values) // 500] for values in scored])
    metres = best_constant(np.sort(some.astype(np.float64)))
    samples = []
    for scene in _scored(scenes, frames):
        truth = scene.depth()
        said = np.full_like(truth, metres)
        values = depth_metrics(*scenes.protocol.select(said, truth, kind="metric"))
        samples.append([values["rmse"], values["abs_rel"]])
    return Constant(metres, np.array(samples))


def _scored(scenes: Scenes, frames: int) -> list[Scene]:
    """Held-out frames with something to score, evenly spread, at most so many."""
    return spread([scene for scene in scenes.splits["heldout"] if _counts(scene, scenes)], frames)


def _counts(scene: Scene, scenes: Scenes) -> bool:
    return len(scenes.protocol.select(scene.depth(), scene.depth(), kind="metric")[1]) > 0


@dataclass(frozen=True)
class Ordering:
    """Whether the minis agree that one row is better than another.

    Attributes:
        better: number of the row that is better in the paper.
        other: of the other.
        shows: what the pair shows.
        comparison: of ours.
        agreeing: seeds whose difference has the paper's sign.
        seeds: how many there are.
    """

    better: int
    other: int
    shows: str
    comparison: Comparison
    agreeing: int
    seeds: int

    @property
    def verdict(self) -> str:
        """``holds`` or ``reversed`` where the interval is clear of zero and no seed disagrees."""
        verdict = self.comparison.verdict
        if verdict == "better" and self.agreeing == self.seeds:
            return "holds"
        return "reversed" if verdict == "worse" and not self.agreeing else "not clear"


def orderings(results: Sequence[Result], metric: int) -> list[Ordering]:
    """The paper's orderings among the rows that were trained, on one source."""
    by_number: Mapping[int, Result] = {one.row.number: one for one in results}
    found = []
    for better, other, shows in ORDERINGS:
        if better not in by_number or other not in by_number:
            continue
        pair = [by_number[number].samples[..., metric] for number in (better, other)]
        statistics = mean(pair[0].mean(axis=0)), mean(pair[1].mean(axis=0))
        comparison = Comparison.of(
            f"row {better}",
            METRICS[metric],
            f"row {other}",
            statistics,
            by_number[better].clusters,
            smaller_is_better=True,
        )
        agreeing = int((pair[0].mean(axis=1) < pair[1].mean(axis=1)).sum())
        found.append(Ordering(better, other, shows, comparison, agreeing, len(pair[0])))
    return found
