"""The card of a trained mini: what it learned from, how long, what it reaches on rooms it never saw, its limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from deixis.checkpoints.folder import MANIFEST
from deixis.data import nyuv2, nyuv2_refer
from deixis.errors import InputError
from deixis.io import write_json, write_text
from deixis.predict import DepthPredictor, MaskPredictor, load
from deixis.protocols.depth import DEPTH_METRICS, NYU_EIGEN, DepthMetrics
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics, iou
from deixis.protocols.trivial import DepthPriors, LocationPrior, Rows, aligned_abs_rel, interval
from deixis.training.nyuv2_depth import describe
from deixis.training.recipe import Recipe
from deixis.types import BoolMap, FloatMap

CARD = "README.md"
FALSE_ABSTENTION = 0.05
# Candidates for the probability above which a pixel belongs to the object.
CUTS = tuple(round(0.05 * n, 2) for n in range(1, 11))
RESAMPLES = 2000


Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A model's number beside another one, paired over the same samples.

    Attributes:
        metric: name of the number.
        other_name: what the model is compared with.
        model: the model's number.
        other: the other's.
        by_room: 95 % interval of model minus other, rooms resampled.
        by_image: the same, images resampled as if each were a room of its own.
        smaller_is_better: for errors.
        digits: after the point.
    """

    metric: str
    other_name: str
    model: float
    other: float
    by_room: Interval
    by_image: Interval
    smaller_is_better: bool
    digits: int = 3

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval over rooms is clear of zero."""
        low, high = self.by_room
        if low <= 0 <= high:
            return "not clear"
        return "better" if (high < 0) == self.smaller_is_better else "worse"

    @property
    def row(self) -> str:
        """A line of the card's table."""
        n = self.digits
        by_room, by_image = (f"{low:+.{n}f} to {high:+.{n}f}" for low, high in (self.by_room, self.by_image))
        return (
            f"| {self.metric} | {self.model:.{n}f} | {self.other_name} | {self.other:.{n}f} |"
            f" {by_room} | {by_image} | {self.verdict} |"
        )


TABLE = (
    "| metric | model | other | its number | difference, 95 % over rooms | over images | the model is |",
    "|---|---|---|---|---|---|---|",
)


def _intervals(
    statistic: Callable[[Rows], float], frames: Sequence[nyuv2.Frame], rooms: dict[int, int]
) -> tuple[Interval, Interval]:
    """Intervals of a statistic of samples, given each one's frame: over rooms and over images."""
    indices = [frame.index for frame in frames]
    by_room, by_image = (
        interval(statistic, len(frames), clusters=clusters, resamples=RESAMPLES)
        for clusters in ([rooms[index] for index in indices], indices)
    )
    return by_room, by_image


def write_card(recipe: Recipe, weights: Path, seconds: float) -> None:
    """Evaluate ``weights`` on the held-out rooms and write their README.md.

    Args:
        recipe: what they were trained by.
        weights: the folder; referring models get their threshold first.
        seconds: training time.

    Raises:
        InputError: if the dataset is incomplete or a file of it cannot be read.
        ModelError: if the weights cannot be loaded.
        DeixisError: if the card cannot be written.
    """
    root = Path(recipe.data.root)
    predictor = load(weights.absolute())
    if isinstance(predictor, MaskPredictor):
        things = _by_frame(nyuv2_refer.objects(root))
        manifest = json.loads((weights / MANIFEST).read_text(encoding="utf-8"))
        cut, threshold = calibrate(predictor, root, things)
        manifest["mask_threshold"] = predictor.manifest.mask_threshold = cut
        manifest["threshold"] = predictor.manifest.threshold = threshold
        write_json(weights / MANIFEST, manifest)
        results = _refer_results(predictor, recipe, things)
    else:
        results = _depth_results(predictor, recipe)
    write_text(weights / CARD, "\n".join([*_opening(recipe, weights, seconds, root), *results, ""]))


def calibrate(
    predictor: MaskPredictor, root: Path, things: dict[int, list[nyuv2_refer.ReferredObject]]
) -> tuple[float, float]:
    """Where to cut probabilities and scores, on the validation rooms.

    Returns:
        the object probability with the best overall IoU as a cut (a network that learned for half an hour is less
        sure than right, and argmax would leave most masks empty), and the score under which 5 % of the referents
        that are there fall.
    """
    found: list[tuple[FloatMap, BoolMap]] = []
    for frame in nyuv2.some_frames(root, "val"):
        rgb = frame.read_rgb()
        for thing in things.get(frame.index, ()):
            truth = thing.mask()
            found += [(predictor(rgb, words).probability, truth) for words in thing.expressions]
    if not found:
        raise InputError(root, "has no expression for its validation frames", "copy the dataset again")

    def oiou(cut: float) -> float:
        intersection = sum(np.count_nonzero((probability > cut) & truth) for probability, truth in found)
        return intersection / sum(np.count_nonzero((probability > cut) | truth) for probability, truth in found)

    cut = max(CUTS, key=oiou)
    scores = [float(p[p > cut].mean()) if (p > cut).any() else float(p.max()) for p, _ in found]
    return cut, round(float(np.quantile(scores, FALSE_ABSTENTION)), 3)


def _by_frame(things: Sequence[nyuv2_refer.ReferredObject]) -> dict[int, list[nyuv2_refer.ReferredObject]]:
    grouped: dict[int, list[nyuv2_refer.ReferredObject]] = {}
    for thing in things:
        grouped.setdefault(thing.frame, []).append(thing)
    return grouped


def _opening(recipe: Recipe, weights: Path, seconds: float, root: Path) -> list[str]:
    opt = recipe.optimisation
    manifest = json.loads((weights / MANIFEST).read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
    counts = {split: len(nyuv2.frames(root, split)) for split in get_args(nyuv2.Split)}
    nowhere = len(nyuv2.frames(root)) - sum(counts.values())
    depth = recipe.system.endswith("depth")
    text = (
        "captions made from the frames' class labels (oracle), withheld part of the time"
        if depth
        else "template expressions, and class words from the frames' labels (oracle)"
    )
    lessons = ["the features of EfficientNet-Lite0 (ImageNet, Apache-2.0)"] * bool(recipe.teacher.weight)
    lessons += ["the frames' label maps"] * bool(recipe.semantic)
    aside = f" The U-Net also learned to predict {' and '.join(lessons)}; the heads that do are not in the weights."
    start = "that was not pre-trained"
    if recipe.init is not None:
        donor = Path(recipe.init)
        start = f"that comes from `{(donor.parent if donor.name == 'weights' else donor).name}`"
    return [
        f"# {Path(recipe.out).name}",
        "",
        f"System `{recipe.system}` on a small backbone {start}: {size / 2e6:.1f} M parameters in"
        f" float16 ({size / 1e6:.1f} MB).",
        "",
        f"* **Data**: the labelled training frames of NYU Depth v2: {counts['train']} for training, {counts['val']} for"
        f" choosing the recipe{'' if depth else ' and the threshold'}, {counts['heldout']} held out."
        f" {_sentence(text)}.",
        f"* **Held out by rooms**: all of {', '.join(sorted(nyuv2.HELDOUT_SCENES))}, and of"
        f" {', '.join(sorted(nyuv2.CUTS))} the frames from an index on at which the room changes"
        f" (`deixis.data.nyuv2`); {nowhere} frames of rooms that training shows as well are left out altogether."
        " Other rooms of the same homes may be among the training frames. The held-out frames' numbers were looked"
        " at for this card and nothing else.",
        f"* **Training**: {opt.steps} steps of {opt.batch_size} at {recipe.data.size[1]} x {recipe.data.size[0]},"
        f" {seconds / 60:.0f} minutes on {recipe.threads} CPU thread{'s' if recipe.threads > 1 else ''} of a busy"
        f" machine. The weights are a moving average over the steps.{aside if lessons else ''}",
        f"* **One run, seed {opt.seed}**: the intervals below say how much depends on which rooms were held out, not"
        " how another seed would have come out.",
        f"* **Licence**: {manifest['licence']}.",
        "",
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _depth_results(predictor: DepthPredictor, recipe: Recipe) -> list[str]:
    root = Path(recipe.data.root)
    priors = DepthPriors.fit((frame.read_depth() for frame in nyuv2.some_frames(root, "train")), NYU_EIGEN)
    names = nyuv2.class_names(root)
    metrics = {name: DepthMetrics(NYU_EIGEN) for name in ("model", "caption", "constant", "constant_d1", "median")}
    aligned: dict[str, list[float]] = {"model": [], "mean": []}
    scored = []
    for frame in nyuv2.some_frames(root, "heldout"):
        truth, rgb = frame.read_depth(), frame.read_rgb()
        if not len(NYU_EIGEN.select(truth, truth, kind="metric")[1]):
            continue
        scored.append(frame)
        found = predictor(rgb)
        metrics["model"].update(found, truth)
        metrics["caption"].update(predictor(rgb, describe(frame, names)[0]), truth)
        for name, values in (
            ("constant", np.full_like(truth, priors.constant)),
            ("constant_d1", np.full_like(truth, priors.constant_d1)),
            ("median", priors.median),
        ):
            metrics[name].update(values, truth, kind="metric")
        aligned["model"].append(aligned_abs_rel(found.values, truth, NYU_EIGEN))
        aligned["mean"].append(aligned_abs_rel(priors.mean, truth, NYU_EIGEN))
    overall = metrics["model"].compute()
    columns = {name: dict(zip(DEPTH_METRICS, metric.columns(), strict=True)) for name, metric in metrics.items()}
    rooms = nyuv2.rooms(nyuv2.frames(root))

    def paired(label: str, other_label: str, one: Sequence[float], other: Sequence[float]) -> Comparison:
        a, b = np.asarray(one), np.asarray(other)
        by_room, by_image = _intervals(lambda rows: float((a - b)[rows].mean()), scored, rooms)
        return Comparison(
            label, other_label, float(a.mean()), float(b.mean()), by_room, by_image, label.startswith("AbsRel")
        )

    def compare(metric: str, label: str, other: str, other_label: str, model: str = "model") -> Comparison:
        return paired(label, other_label, columns[model][metric], columns[other][metric])

    rows = [
        compare("abs_rel", "AbsRel", "constant", f"best constant ({priors.constant:.2f} m)"),
        compare("abs_rel", "AbsRel", "median", "median map"),
        compare("d1", "d1", "constant_d1", f"best constant ({priors.constant_d1:.2f} m)"),
        compare("d1", "d1", "median", "median map"),
        paired("AbsRel after affine alignment", "mean map", aligned["model"], aligned["mean"]),
        compare("abs_rel", "AbsRel with an oracle caption", "model", "the same without text", model="caption"),
    ]
    height, width = recipe.data.size
    return [
        "## Results on the held-out rooms",
        "",
        f"NYU Eigen crop at 640 x 480, {len(scored)} frames, no text, one pass (`--tta none`); per-image values"
        " averaged over images:"
        f" AbsRel {overall['abs_rel']:.3f}, RMSE {overall['rmse']:.3f} m, log10 {overall['log10']:.3f},"
        f" d1 {overall['d1']:.3f}, d2 {overall['d2']:.3f}, d3 {overall['d3']:.3f}.",
        "",
        *TABLE,
        *(row.row for row in rows),
        "",
        "Constants and maps are the best ones for the training frames and see no picture. Alignment fits a scale and a"
        " shift per image to the ground truth. The caption lists the classes that the frame's own labels name.",
        "",
        _how_intervals(len({rooms[frame.index] for frame in scored}), "frames"),
        "",
        "## Limits",
        "",
        "* Indoor rooms as a Kinect sees them: eye height, a horizontal field of view near 60 degrees, 0.7 to 10 m."
        " Other cameras, outdoor scenes and close-ups give numbers without meaning.",
        f"* Blurred: it works at {width} x {height} and on a stride-8 latent. Thin things and edges are lost.",
        "* No pre-training: these are averages of rooms bent towards the picture. Use converted EVP or VPD weights"
        " where distances matter.",
    ]


def _how_intervals(rooms: int, samples: str) -> str:
    return (
        f"Intervals: paired bootstrap with {RESAMPLES} resamples of {rooms} rooms, each with all its {samples}: frames"
        " of one room are not independent, and the verdict goes by this interval. A room is taken to be a run of"
        " consecutive indices in one scene type, which may join several. The interval over images resamples those as"
        " if no two showed the same room."
    )


def _refer_results(
    predictor: MaskPredictor, recipe: Recipe, things: dict[int, list[nyuv2_refer.ReferredObject]]
) -> list[str]:
    root = Path(recipe.data.root)
    prior = LocationPrior.fit(
        [
            mask
            for frame in nyuv2.some_frames(root, "train")
            for thing in things.get(frame.index, ())
            for mask in [thing.mask()] * len(thing.expressions)
        ]
    )
    names = nyuv2.class_names(root)
    categories = sorted({thing.category for group in things.values() for thing in group})
    rooms = nyuv2.rooms(nyuv2.frames(root))
    metrics = {"model": ReferMetrics(REFER_NATIVE), "prior": ReferMetrics(REFER_NATIVE)}
    found: list[bool] = []
    absent: list[bool] = []
    asked_of: list[nyuv2.Frame] = []
    rng = np.random.default_rng(0)
    for frame in nyuv2.some_frames(root, "heldout"):
        rgb, labels, here = frame.read_rgb(), frame.read_labels(), things.get(frame.index, ())
        for thing in here:
            truth = thing.mask()
            for words in thing.expressions:
                mask = predictor(rgb, words)
                found.append(mask.found)
                asked_of.append(frame)
                metrics["model"].update(mask, truth)
                metrics["prior"].update(prior.mask, truth)
        # Things that are not there: classes of the expressions without a labelled pixel in the frame.
        missing = [name for name in categories if not (labels == names.index(name) + 1).any()]
        asked = rng.choice(missing, size=min(2, len(missing)), replace=False)
        absent += [predictor(rgb, f"the {name}").found for name in asked]
    if not found:
        raise InputError(root, "has no expression for its held-out frames", "copy the dataset again")
    counts = {name: np.asarray(metric.columns()) for name, metric in metrics.items()}  # [2, N] each
    ious = {name: 100 * c[0] / np.maximum(c[1], 1) for name, c in counts.items()}
    values = {name: metric.compute() for name, metric in metrics.items()}

    def oiou(name: str, rows: Rows) -> float:
        return 100 * iou(*counts[name][:, rows].sum(axis=1))

    def compare(metric: str, label: str, statistic: Callable[[str, Rows], float]) -> Comparison:
        by_room, by_image = _intervals(
            lambda rows: statistic("model", rows) - statistic("prior", rows), asked_of, rooms
        )
        one, other = values["model"][metric], values["prior"][metric]
        return Comparison(label, "location prior", one, other, by_room, by_image, smaller_is_better=False, digits=1)

    rows = [
        compare("oiou", "oIoU", oiou),
        compare("miou", "mIoU", lambda name, rows: float(ious[name][rows].mean())),
        compare("p@0.5", "P@0.5", lambda name, rows: float(100 * (ious[name][rows] >= 50).mean())),
    ]
    height, width = recipe.data.size
    images = {frame.index for frame in asked_of}
    return [
        "## Results on the held-out rooms",
        "",
        f"{len(found)} template expressions on {len(images)} frames at 640 x 480, one pass; percent. Every mask counts,"
        " whether its score makes it found or not.",
        "",
        *TABLE,
        *(row.row for row in rows),
        "",
        "The location prior is the set of pixels with the best overall IoU on the training masks; it sees neither"
        " picture nor words.",
        "",
        _how_intervals(len({rooms[index] for index in images}), "expressions"),
        "",
        "## No such object",
        "",
        f"A pixel belongs to the mask above a probability of {predictor.manifest.mask_threshold}, the cut with the best"
        " oIoU on the validation rooms."
        f" A referent counts as absent below a score of {predictor.manifest.threshold}, under which"
        f" {FALSE_ABSTENTION:.0%} of true ones fall on the validation rooms. On the held-out rooms it calls"
        f" {100 * (1 - np.mean(found)):.0f} % of {len(found)} things that are there absent, and"
        f" {100 * (1 - np.mean(absent)):.0f} % of {len(absent)} that are not (classes without a labelled pixel in the"
        " frame, two per frame).",
        "",
        "## Limits",
        "",
        '* About forty words for furniture, their common synonyms, and "on the left", "on the right", "closer",'
        ' "farther away". Colours, materials, relations and other objects were never seen: it answers by what the words'
        " remind it of.",
        "* The expressions are templates on class labels; about one in ten is doubtful by eye.",
        f"* Masks are blurred: it works at {width} x {height}. Small things are often missed.",
        '* "No such object" is weak: do not rely on it.',
    ]
