"""The card of a trained mini: what it learned from, how long, what it reaches on scenes it never saw, its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from deixis.checkpoints.folder import MANIFEST
from deixis.data import nyuv2, nyuv2_refer
from deixis.io import write_json, write_text
from deixis.predict import DepthPredictor, MaskPredictor, load
from deixis.protocols.depth import NYU_EIGEN, DepthMetrics
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics
from deixis.protocols.trivial import DepthPriors, LocationPrior, interval
from deixis.training.nyuv2_depth import describe
from deixis.training.recipe import Recipe

CARD = "README.md"
FALSE_ABSTENTION = 0.05
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Comparison:
    """A model's number beside a trivial one, paired over the same samples.

    Attributes:
        name: of the trivial predictor and the metric.
        model: the model's number.
        trivial: the trivial predictor's.
        low, high: 95 % interval of model minus trivial.
    """

    name: str
    model: float
    trivial: float
    low: float
    high: float

    @property
    def row(self) -> str:
        """A line of the card's table."""
        return f"| {self.name} | {self.model:.3f} | {self.trivial:.3f} | {self.low:+.3f} to {self.high:+.3f} |"


def calibrate(weights: Path, root: Path) -> float:
    """The score below which a referent counts as absent: 5 % of the validation scenes' true ones fall under it."""
    predictor = load(weights)
    assert isinstance(predictor, MaskPredictor)
    kept = {frame.index: frame for frame in nyuv2.frames(root, "val")}
    scores = [
        predictor(kept[thing.frame].read_rgb(), words).score
        for thing in nyuv2_refer.objects(root)
        if thing.frame in kept
        for words in thing.expressions
    ]
    return round(float(np.quantile(scores, FALSE_ABSTENTION)), 3)


def write_card(recipe: Recipe, weights: Path, seconds: float) -> None:
    """Evaluate ``weights`` on the held-out scenes and write their README.md.

    Args:
        recipe: what they were trained by.
        weights: the folder; referring models get their threshold first.
        seconds: training time.
    """
    root = Path(recipe.data.root)
    predictor = load(weights)
    if isinstance(predictor, MaskPredictor):
        manifest = json.loads((weights / MANIFEST).read_text(encoding="utf-8"))
        manifest["threshold"] = calibrate(weights, root)
        write_json(weights / MANIFEST, manifest)
        predictor = load(weights)
        assert isinstance(predictor, MaskPredictor)
        results = _refer_results(predictor, root)
    else:
        results = _depth_results(predictor, root)
    write_text(weights / CARD, "\n".join([*_opening(recipe, weights, seconds, root), *results, ""]))


def _opening(recipe: Recipe, weights: Path, seconds: float, root: Path) -> list[str]:
    opt = recipe.optimisation
    manifest = json.loads((weights / MANIFEST).read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
    scenes = {frame.scene for frame in nyuv2.frames(root, "heldout")}
    counts = {split: len(nyuv2.frames(root, split)) for split in get_args(nyuv2.Split)}
    depth = recipe.system.endswith("depth")
    text = "captions from class labels (oracle)" if depth else "template expressions and class words (oracle)"
    teacher = " Teacher: EfficientNet-Lite0 features (ImageNet, Apache-2.0), not part of the weights."
    return [
        f"# {Path(recipe.out).name}",
        "",
        f"System `{recipe.system}` on a small backbone that was not pre-trained: {size / 2e6:.1f} M parameters in"
        f" float16 ({size / 1e6:.1f} MB).",
        "",
        f"* **Data**: the labelled training frames of NYU Depth v2: {counts['train']} for training,"
        f" {counts['val']} for choosing the recipe{'' if depth else ' and the threshold'}, {counts['heldout']} held"
        f" out. Text: {text}.",
        f"* **Held out by whole scenes**: all of {', '.join(sorted(nyuv2.HELDOUT_SCENES))}; of the large scene types"
        f" the last frames by index, cut at a gap; {len(scenes)} scene types in all (`deixis.data.nyuv2`). Looked at"
        " for the numbers below and nothing else.",
        f"* **Training**: {opt.steps} steps of {opt.batch_size} at {recipe.data.size[1]} x {recipe.data.size[0]},"
        f" {seconds / 60:.0f} minutes on {recipe.threads} CPU thread{'s' if recipe.threads > 1 else ''} of a busy"
        f" machine, seed {opt.seed}, one run; average of the weights (EMA).{teacher if recipe.teacher.weight else ''}",
        f"* **Licence**: {manifest['licence']}.",
        "",
    ]


def _depth_results(predictor: DepthPredictor, root: Path) -> list[str]:
    priors = DepthPriors.fit(frame.read_depth() for frame in nyuv2.frames(root, "train"))
    names = nyuv2.class_names(root)
    metrics = {name: DepthMetrics(NYU_EIGEN) for name in ("model", "caption", "constant", "median", "mean")}
    aligned: dict[str, list[float]] = {"model": [], "mean": []}
    for frame in nyuv2.frames(root, "heldout"):
        truth, rgb = frame.read_depth(), frame.read_rgb()
        found = predictor(rgb)
        metrics["model"].update(found, truth)
        metrics["caption"].update(predictor(rgb, describe(frame, names)[0]), truth)
        metrics["constant"].update(np.full_like(truth, priors.constant), truth, kind="metric")
        metrics["median"].update(priors.median, truth, kind="metric")
        metrics["mean"].update(priors.mean, truth, kind="metric")
        for name, values in (("model", found.values), ("mean", priors.mean)):
            aligned[name].append(_aligned_abs_rel(values, truth))
    count = len(aligned["model"])
    columns = {name: dict(zip(("abs_rel", "d1"), _columns(metric), strict=True)) for name, metric in metrics.items()}
    rows = [
        _paired("AbsRel, against the best constant", columns["model"]["abs_rel"], columns["constant"]["abs_rel"]),
        _paired("AbsRel, against the median map", columns["model"]["abs_rel"], columns["median"]["abs_rel"]),
        _paired("d1, against the best constant", columns["model"]["d1"], columns["constant"]["d1"]),
        _paired("d1, against the median map", columns["model"]["d1"], columns["median"]["d1"]),
        _paired("AbsRel after affine alignment, against the mean map", aligned["model"], aligned["mean"]),
        _paired(
            "AbsRel, oracle caption against no text",
            columns["caption"]["abs_rel"],
            columns["model"]["abs_rel"],
        ),
    ]
    overall = metrics["model"].compute()
    return [
        "## Results on the held-out scenes",
        "",
        f"NYU Eigen crop at 640 x 480, {count} frames, no text, one pass (`--tta none`); per-image values averaged over"
        " images. The interval is over images (paired bootstrap, 2000 resamples).",
        "",
        f"AbsRel {overall['abs_rel']:.3f}, RMSE {overall['rmse']:.3f} m, log10 {overall['log10']:.3f},"
        f" d1 {overall['d1']:.3f}, d2 {overall['d2']:.3f}, d3 {overall['d3']:.3f}.",
        "",
        "| metric | model | other | difference, 95 % |",
        "|---|---|---|---|",
        *(row.row for row in rows),
        "",
        "The last row compares the same model with the frame's own labels as its caption and without text.",
        "",
        "## Limits",
        "",
        "* Indoor rooms as a Kinect sees them: eye height, a horizontal field of view near 60 degrees, 0.7 to 10 m."
        " Other cameras, outdoor scenes and close-ups give numbers without meaning.",
        "* Blurred: it works at 160 x 120 and on a stride-8 latent. Thin things and edges are lost.",
        "* No pre-training: these are averages of rooms bent towards the picture. Use converted EVP or VPD weights"
        " where distances matter.",
    ]


def _columns(metric: DepthMetrics) -> tuple[list[float], list[float]]:
    from deixis.protocols.depth import DEPTH_METRICS

    columns = metric.columns()
    return columns[DEPTH_METRICS.index("abs_rel")], columns[DEPTH_METRICS.index("d1")]


def _aligned_abs_rel(values: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> float:
    """AbsRel after the least-squares scale and shift in depth, inside the Eigen crop."""
    top, bottom, left, right = NYU_EIGEN.window(*truth.shape)
    p = values[top:bottom, left:right].ravel().astype(np.float64)
    t = truth[top:bottom, left:right].ravel().astype(np.float64)
    valid = (t > NYU_EIGEN.min_depth) & (t < NYU_EIGEN.max_depth)
    p, t = p[valid], t[valid]
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), t, rcond=None)[0]
    return float(np.mean(np.abs(np.clip(scale * p + shift, NYU_EIGEN.min_depth, None) - t) / t))


def _paired(name: str, model: Sequence[float], other: Sequence[float]) -> Comparison:
    a, b = np.asarray(model), np.asarray(other)
    low, high = interval(lambda rows: float((a[rows] - b[rows]).mean()), len(a))
    return Comparison(name, float(a.mean()), float(b.mean()), low, high)


def _refer_results(predictor: MaskPredictor, root: Path) -> list[str]:
    train = {frame.index for frame in nyuv2.frames(root, "train")}
    held = {frame.index: frame for frame in nyuv2.frames(root, "heldout")}
    names = nyuv2.class_names(root)
    things = nyuv2_refer.objects(root)
    prior = LocationPrior.fit([thing.mask() for thing in things if thing.frame in train for _ in thing.expressions])
    metrics = {"model": ReferMetrics(REFER_NATIVE), "prior": ReferMetrics(REFER_NATIVE)}
    found = []
    for thing in things:
        if thing.frame in held:
            rgb, truth = held[thing.frame].read_rgb(), thing.mask()
            for words in thing.expressions:
                mask = predictor(rgb, words)
                found.append(mask.found)
                metrics["model"].update(mask, truth)
                metrics["prior"].update(prior.mask, truth)
    # Things that are not there: classes of the training expressions without a labelled pixel in the frame.
    categories = sorted({thing.category for thing in things})
    rng = np.random.default_rng(0)
    absent = []
    for frame in held.values():
        labels = frame.read_labels()
        missing = [name for name in categories if not (labels == names.index(name) + 1).any()]
        asked = rng.choice(missing, size=min(2, len(missing)), replace=False)
        absent += [predictor(frame.read_rgb(), f"the {name}").found for name in asked]
    counts = {name: np.asarray(metric.columns()) for name, metric in metrics.items()}

    def oiou(name: str, rows: Rows) -> float:
        intersection, union = counts[name][:, rows].sum(axis=1)
        return float(100 * intersection / union)

    everything = np.arange(counts["model"].shape[1])
    low, high = interval(lambda rows: oiou("model", rows) - oiou("prior", rows), len(everything))
    values, trivial = metrics["model"].compute(), metrics["prior"].compute()
    ious = {name: np.where(c[1] > 0, c[0] / np.maximum(c[1], 1), 0.0) for name, c in counts.items()}
    mlow, mhigh = interval(lambda rows: float(100 * (ious["model"] - ious["prior"])[rows].mean()), len(everything))
    return [
        "## Results on the held-out scenes",
        "",
        f"{len(everything)} template expressions on {len({t.frame for t in things if t.frame in held})} frames at"
        " 640 x 480, one pass. The location prior is the set of pixels with the best overall IoU on the training masks"
        " (it sees neither picture nor words). The interval is over expressions (paired bootstrap, 2000 resamples).",
        "",
        "| metric | model | location prior | difference, 95 % |",
        "|---|---|---|---|",
        f"| oIoU | {values['oiou']:.1f} | {trivial['oiou']:.1f} | {low:+.1f} to {high:+.1f} |",
        f"| mIoU | {values['miou']:.1f} | {trivial['miou']:.1f} | {mlow:+.1f} to {mhigh:+.1f} |",
        f"| P@0.5 | {values['p@0.5']:.1f} | {trivial['p@0.5']:.1f} | |",
        "",
        f"Threshold of the score {predictor.manifest.threshold}, set on the validation scenes so that 5 % of true"
        " referents fall under it. On the held-out scenes: of things that are there"
        f" {100 * (1 - np.mean(found)):.0f} % are called absent ({len(found)} expressions); of classes that are not"
        f" there {100 * (1 - np.mean(absent)):.0f} % are called absent ({len(absent)} expressions).",
        "",
        "## Limits",
        "",
        '* About forty words for furniture, their common synonyms, and "on the left", "on the right", "closer",'
        ' "farther away". Colours, materials, relations and other objects were never seen: it answers by what the words'
        " remind it of.",
        "* The expressions are templates on class labels; about one in ten is doubtful by eye.",
        "* Masks are blurred: it works at 160 x 120. Small things are often missed.",
        '* "No such object" is weak: do not rely on it.',
    ]
