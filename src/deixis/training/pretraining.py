"""Does pre-training matter, and does its text? One fine-tuning from several starts, compared on held-out frames.

    python -m deixis.training.pretraining OUT --recipe recipes/mini/4_evp_depth.yaml --start text=DIR
        --start "no text"=DIR data.root=DIR data.world=DIR optimisation.steps=300

Each start, and the same networks at random, is fine-tuned at every learning rate of :data:`RATES`; the one that is
best on the validation frames is taken for three seeds more, which are then measured on frames held out: with the
right text, an empty one and another frame's. ``OUT/README.md`` says what came out. Everything that is finished stays
finished: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from deixis.backbones.stable_diffusion import read_autoencoder, read_denoiser, read_text_encoder, read_tokenizer
from deixis.cli.common import SOME_FAILED, USAGE
from deixis.errors import DeixisError, InputError, UsageError
from deixis.io import write_text
from deixis.predict import DepthPredictor, MaskPredictor, load
from deixis.protocols.depth import depth_metrics
from deixis.protocols.refer import REFER_NATIVE, iou
from deixis.relative import RelativePredictor
from deixis.training.comparison import Comparison, Estimate, Statistic, comparison_table, mean, table
from deixis.training.jobs import run_jobs
from deixis.training.recipe import Recipe, read_recipe
from deixis.training.refer import mask_probability
from deixis.training.run import architecture_of, network_parts, save_backbone
from deixis.training.scenes import TITLES, Scene, Scenes, load_scenes, spread
from deixis.types import BoolMap

# Two numbers of each sample and seed [S, N, 2].
Samples = npt.NDArray[np.float64]

RANDOM = "random"
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = 3
# Learning rates are chosen on another seed than those that are reported.
TUNING_SEED = 100
# Frames of a source that depth is measured on, and expressions of a source that masks are.
FRAMES, EXPRESSIONS = 150, 200
CUTS = tuple(round(0.05 * n, 2) for n in range(1, 11))
TEXTS = ("right", "empty", "another frame's")


@dataclass(frozen=True)
class Job:
    """One fine-tuning.

    Attributes:
        recipe: its file.
        overrides: of the recipe.
        start: name of what it starts from.
        rate: peak learning rate.
        seed: of everything random.
        out: folder of the run.
        tunes: whether it is there to choose the rate, and so measured on validation frames, not on held-out ones.
    """

    recipe: Path
    overrides: tuple[str, ...]
    start: str
    rate: float
    seed: int
    out: Path
    tunes: bool

    def read(self) -> Recipe:
        """The recipe with its overrides. Raises UsageError as :func:`read_recipe`."""
        own = [f"optimisation.lr={self.rate}", f"optimisation.seed={self.seed}", f"out={self.out}"]
        return read_recipe(self.recipe, [*self.overrides, *own])

    def measure(self, weights: Path, recipe: Recipe) -> dict[str, Any]:
        """How good it ended on validation frames (larger is better), or as :func:`measure`."""
        predictor = load(weights, "cpu")
        assert not isinstance(predictor, RelativePredictor)  # no recipe makes one
        if not self.tunes:
            return measure(predictor, load_scenes(recipe.data))
        if isinstance(predictor, DepthPredictor):
            return {"validated": _validated(self.out)}
        return {"validated": _best_cut(predictor, load_scenes(recipe.data))[1]}


def study(
    out: Path,
    recipes: Sequence[Path],
    starts: Mapping[str, Path],
    overrides: Sequence[str],
    *,
    workers: int,
    say: Callable[[str], None],
) -> Path:
    """Run everything that is not there yet, and write the report; returns its path.

    Args:
        out: folder of the study.
        recipes: fine-tuning recipes of EVP or VPD.
        starts: names and folders of pre-trained backbones of one architecture.
        overrides: of all recipes.
        workers: fine-tunings at once.
        say: called with a line about what is done.

    Raises:
        DeixisError: one line for anything wrong with recipes, starts or data.
    """
    folders = {**starts, RANDOM: out / "starts" / RANDOM}
    random_start(folders[RANDOM], next(iter(starts.values())))
    found: list[tuple[Recipe, dict[str, float], dict[str, list[dict[str, Any]]]]] = []
    for recipe in recipes:

        def jobs(
            start: str, rates: Sequence[float], seeds: Sequence[int], *, tunes: bool, recipe: Path = recipe
        ) -> list[Job]:
            given = (*overrides, f"init={folders[start]}")
            name = f"{recipe.stem}-{start.replace(' ', '-')}"
            return [
                Job(recipe, given, start, rate, seed, out / "runs" / f"{name}-{rate:g}-{seed}", tunes)
                for rate in rates
                for seed in seeds
            ]

        tuning = [job for start in folders for job in jobs(start, RATES, [TUNING_SEED], tunes=True)]
        validated = [one["validated"] for one in run_jobs(tuning, workers, say)]
        rates = {}
        for start in folders:
            own = {job.rate: value for job, value in zip(tuning, validated, strict=True) if job.start == start}
            rates[start] = max(own, key=own.__getitem__)
        final = [job for start in folders for job in jobs(start, [rates[start]], range(SEEDS), tunes=False)]
        results: dict[str, list[dict[str, Any]]] = {start: [] for start in folders}
        for job, measured in zip(final, run_jobs(final, workers, say), strict=True):
            results[job.start].append(measured)
        found.append((final[0].read(), rates, results))
    report = out / "README.md"
    write_text(report, "\n".join([*_report(found, list(folders)), ""]))
    return report


def random_start(folder: Path, like: Path) -> None:
    """The networks of a backbone as they are before any training, with its vocabulary."""
    if folder.is_dir():
        return
    tokenizer = read_tokenizer(like / "tokenizer")
    trained = {
        "vae": read_autoencoder(like / "vae"),
        "unet": read_denoiser(like / "unet"),
        "text_encoder": read_text_encoder(like / "text_encoder"),
    }
    recipe = Recipe(backbone={name: architecture_of(part) for name, part in trained.items()})
    recipe.optimisation.seed = TUNING_SEED
    parts = network_parts(recipe, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_backbone(folder, parts, like / "tokenizer")


def _validated(out: Path) -> float:
    """The error of depth that a run ended with on validation frames, negative; sources weigh the same."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [row for row in rows if any(name.startswith("val_") for name in row)][-1]
    return -float(np.mean([value for name, value in last.items() if name.endswith("_abs_rel")]))


# ---------------------------------------------------------------------------------------------------- measuring


def measure(predictor: DepthPredictor | MaskPredictor, sources: Sequence[Scenes]) -> dict[str, Any]:
    """Held-out results per source, sample and text.

    Returns:
        per source its ``clusters`` and per text of :data:`TEXTS` a list over samples: [AbsRel, d1] of depth,
        [intersection, union] of masks.
    """
    if isinstance(predictor, DepthPredictor):
        return {one.source: found for one in sources if (found := _depth(predictor, one))}
    cut, _ = _best_cut(predictor, sources)
    return {one.source: found for one in sources if (found := _masks(predictor, one, cut))}


def _depth(predictor: DepthPredictor, scenes: Scenes) -> dict[str, Any]:
    scored = []
    for scene in scenes.splits["heldout"]:
        truth = scene.depth()
        if len(scenes.protocol.select(truth, truth, kind="metric")[1]):
            scored.append(scene)
    some = spread(scored, FRAMES)
    if not some:
        return {}
    result: dict[str, Any] = {"clusters": [scene.cluster for scene in some], **{text: [] for text in TEXTS}}
    for i, scene in enumerate(some):
        rgb, truth = scene.rgb(), scene.depth()
        told = (scene.caption, "", some[(i + len(some) // 2) % len(some)].caption)
        for name, text in zip(TEXTS, told, strict=True):
            values = depth_metrics(*scenes.protocol.select(predictor(rgb, text), truth))
            result[name].append([values["abs_rel"], values["d1"]])
    return result


def _probability(predictor: MaskPredictor, scene: Scene, texts: Sequence[str]) -> list[Any]:
    assert predictor.tokenizer is not None
    size = predictor.manifest.preprocessing.size
    found = mask_probability(predictor.model, predictor.tokenizer, predictor.tokens, size, scene.rgb(), tuple(texts))
    return list(found.cpu().numpy())


def _best_cut(predictor: MaskPredictor, sources: Sequence[Scenes]) -> tuple[float, float]:
    """The probability above which a pixel belongs to the object, best on validation, and the oIoU there.

    Sources weigh the same. After few steps no probability is above a half, and one cut for all would call runs equal
    that are not.
    """
    sums = []
    for scenes in sources:
        counts = np.zeros((len(CUTS), 2))
        for scene, asked in scenes.pairs("val", EXPRESSIONS // 2):
            p, truth = _probability(predictor, scene, [asked.text])[0], scene.mask(asked)
            counts += [REFER_NATIVE.counts(p > cut, truth) for cut in CUTS]
        sums.append([iou(*both) for both in counts])
    if not sums:
        raise InputError("the validation frames", "have no expression", "render more of the world, or give data.root")
    means = np.mean(sums, axis=0)
    best = int(np.argmax(means))
    return CUTS[best], float(means[best])


def _masks(predictor: MaskPredictor, scenes: Scenes, cut: float) -> dict[str, Any]:
    pairs = list(scenes.pairs("heldout", EXPRESSIONS))
    if not pairs:
        return {}
    result: dict[str, Any] = {"clusters": [scene.cluster for scene, _ in pairs], **{text: [] for text in TEXTS}}
    for i, (scene, asked) in enumerate(pairs):
        truth: BoolMap = scene.mask(asked)
        told = (asked.text, "", pairs[(i + len(pairs) // 2) % len(pairs)][1].text)
        for name, p in zip(TEXTS, _probability(predictor, scene, told), strict=True):
            result[name].append(list(REFER_NATIVE.counts(p > cut, truth)))
    return result


# ---------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class _Metric:
    """A number of a task, from the seeds' samples [S, N, 2]."""

    name: str
    statistic: Callable[[Samples], Statistic]
    smaller_is_better: bool
    digits: int

    def compare(self, where: str, pair: tuple[str, Samples, Samples], clusters: Sequence[int]) -> Comparison:
        """Samples of two models, the second with its name."""
        name, one, other = pair
        return Comparison.of(
            where,
            self.name,
            name,
            (self.statistic(one), self.statistic(other)),
            clusters,
            smaller_is_better=self.smaller_is_better,
            digits=self.digits,
        )


def _oiou(samples: Samples) -> Statistic:
    summed = samples.sum(axis=0)
    return lambda rows: 100 * iou(*summed[rows].sum(axis=0))


METRICS = {
    "depth": (
        _Metric("AbsRel", lambda samples: mean(samples[..., 0].mean(axis=0)), smaller_is_better=True, digits=3),
        _Metric("d1", lambda samples: mean(samples[..., 1].mean(axis=0)), smaller_is_better=False, digits=3),
    ),
    "refer": (_Metric("oIoU", _oiou, smaller_is_better=False, digits=1),),
}


def _report(
    found: Sequence[tuple[Recipe, dict[str, float], dict[str, list[dict[str, Any]]]]], starts: Sequence[str]
) -> list[str]:
    lines = [
        "# What pre-training is worth",
        "",
        f"The same fine-tuning from {', '.join(starts[:-1])} and {starts[-1]}: the same networks, steps, data and"
        f" order of the data. Learning rates were chosen alike, among {', '.join(f'{rate:g}' for rate in RATES)}, on"
        f" validation frames with seed {TUNING_SEED}; the numbers are of seeds 0 to {SEEDS - 1} on held-out frames.",
        "",
        "Intervals (95 %): paired bootstrap over held-out frames (rooms of NYU Depth v2), of the mean of the seeds. How"
        " far the seeds lie apart is in their own columns.",
        "",
    ]
    for recipe, rates, results in found:
        metrics = METRICS["refer" if recipe.system.endswith("refer") else "depth"]
        opt, size = recipe.optimisation, recipe.data.size
        chosen = ", ".join(f"{start} {rate:g}" for start, rate in rates.items())
        lines += [
            f"## {recipe.system}",
            "",
            f"{opt.steps} steps of {opt.batch_size} at {size[1]} x {size[0]}. Chosen learning rates: {chosen}.",
            "",
        ]
        lines += _starts_section(metrics, results)
        lines += _texts_section(metrics, results)
    return lines


def _samples(results: Sequence[dict[str, Any]], source: str, text: str) -> Samples:
    return np.array([one[source][text] for one in results], dtype=np.float64)


def _starts_section(metrics: Sequence[_Metric], results: dict[str, list[dict[str, Any]]]) -> list[str]:
    first, *others = results
    rows: list[list[object]] = []
    told, untold = [], []
    for source in [one for one in TITLES if one in results[first][0]]:
        clusters = results[first][0][source]["clusters"]
        where = f"{TITLES[source]}, {len(clusters)}"
        right, empty = ({start: _samples(runs, source, text) for start, runs in results.items()} for text in TEXTS[:2])
        for metric in metrics:
            for start, samples in right.items():
                every = np.arange(samples.shape[1])
                seeds = [f"{metric.statistic(one[None])(every):.{metric.digits}f}" for one in samples]
                estimate = Estimate.of(metric.statistic(samples), clusters, metric.digits)
                rows.append([where, metric.name, start, estimate, *seeds])
            for other in others:
                told.append(metric.compare(where, (other, right[first], right[other]), clusters))
                untold.append(metric.compare(where, (other, empty[first], empty[other]), clusters))
    seeds_head = [f"seed {seed}" for seed in range(SEEDS)]
    return [
        "With the right text:",
        "",
        *table(("on", "metric", "start", "mean", *seeds_head), rows),
        *comparison_table(told, first),
        "With an empty text, that is, what the start is worth apart from the words of the moment:",
        "",
        *comparison_table(untold, first),
    ]


def _texts_section(metrics: Sequence[_Metric], results: dict[str, list[dict[str, Any]]]) -> list[str]:
    comparisons = [
        metric.compare(
            f"{TITLES[source]}, from {start}",
            (text, _samples(runs, source, TEXTS[0]), _samples(runs, source, text)),
            runs[0][source]["clusters"],
        )
        for start, runs in results.items()
        for source in TITLES
        if source in runs[0]
        for metric in metrics
        for text in TEXTS[1:]
    ]
    return ["What the text is worth at test time:", "", *comparison_table(comparisons, "right text")]


# ----------------------------------------------------------------------------------------------------- command


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the study.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of all recipes.")] = None,
    recipe: Annotated[list[Path] | None, typer.Option(help="A fine-tuning recipe; several may be given.")] = None,
    start: Annotated[list[str] | None, typer.Option(help="NAME=DIR of a backbone; the first is compared.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Fine-tunings at once.")] = 2,
) -> None:
    """Fine-tune from several starts and compare them on held-out frames."""
    try:
        starts = dict(_named(one) for one in start or [])
        if not recipe or not starts:
            raise UsageError("--recipe and --start", "are needed", "name one of each at least")
        print(study(out, recipe, starts, overrides or [], workers=workers, say=lambda line: print(line, flush=True)))
    except DeixisError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE if isinstance(error, UsageError) else SOME_FAILED) from error


def _named(given: str) -> tuple[str, Path]:
    name, sign, folder = given.partition("=")
    if not sign or not (Path(folder) / "unet").is_dir():
        raise UsageError(f"--start {given}", "names no backbone", "write NAME=DIR, a diffusers folder")
    return name, Path(folder).absolute()


if __name__ == "__main__":
    typer.run(main)
