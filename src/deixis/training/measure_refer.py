"""What a trained referring method reaches on frames it never saw, as sections of its card.

Everything goes through :mod:`deixis.predict`, exactly as a user gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deixis.asking import measure
from deixis.errors import InputError
from deixis.predict import DepthPredictor, MaskPredictor
from deixis.protocols.ask import balanced_quantile, relative_error
from deixis.protocols.refer import REFER_NATIVE, iou
from deixis.protocols.trivial import LocationPrior, Rows
from deixis.training.comparison import Comparison, Estimate, Statistic, comparison_table, mean, table
from deixis.training.scenes import Asked, Scene, Scenes
from deixis.types import BoolMap, Depth

# Expressions of a source of the world that are asked for, and those that location priors are fitted on.
EXPRESSIONS, FITTED = 300, 1000
# Kinds with fewer expressions are left out of the table of kinds.
OF_A_KIND = 10
FALSE_ABSTENTION = 0.05
# Candidates for the probability above which a pixel belongs to the object.
CUTS = tuple(round(0.05 * n, 2) for n in range(1, 11))


@dataclass(frozen=True)
class Answers:
    """What a referring model says of the expressions of one source.

    Attributes:
        clusters: of the frames, one for each expression for something that is there.
        counts: intersection and union of the model's masks and of the prior's, [2, N] each.
        kinds: of the expressions.
        found: whether it calls something that is there found.
        absent: whether it calls something that is not there found.
        absent_clusters: of the frames of these.
        strange: whether it calls what other frames' expressions name found, in frames without it.
        strange_clusters: of the frames of these.
    """

    clusters: list[int]
    counts: dict[str, Rows]
    kinds: list[str]
    found: list[bool]
    absent: list[bool]
    absent_clusters: list[int]
    strange: list[bool]
    strange_clusters: list[int]


def calibrate(predictor: MaskPredictor, sources: Sequence[Scenes]) -> tuple[float, float]:
    """Where to cut probabilities and scores, on validation frames; photos and world weigh the same.

    Returns:
        the object probability with the best overall IoU as a cut (argmax would leave most masks of a small network
        empty), and the score under which 5 % of the referents that are there fall.

    Raises:
        InputError: if there is no expression to calibrate on.
    """
    groups: list[list[tuple[list[tuple[int, int]], float]]] = []  # per group, per expression: per cut, and the score
    for group in ([s for s in sources if s.source == "nyuv2"], [s for s in sources if s.source != "nyuv2"]):
        found = [
            _at_cuts(predictor, scene, asked)
            for scenes in group
            for scene, asked in scenes.pairs("val", EXPRESSIONS // len(group))
        ]
        groups += [found] if found else []
    if not groups:
        raise InputError("the validation frames", "have no expression", "render more of the world, or give data.root")

    def oiou(cut: int) -> float:
        sums = [np.sum([counts[cut] for counts, _ in found], axis=0) for found in groups]
        return sum(iou(*total) for total in sums)

    best = max(range(len(CUTS)), key=oiou)
    scores = [np.sort([score for _, score in found]) for found in groups]
    return CUTS[best], round(balanced_quantile(scores, FALSE_ABSTENTION), 3)


def _at_cuts(predictor: MaskPredictor, scene: Scene, asked: Asked) -> tuple[list[tuple[int, int]], float]:
    """Intersection and union at each of :data:`CUTS`, and the mask's score."""
    found, truth = predictor(scene.rgb(), asked.text), scene.mask(asked)
    return [REFER_NATIVE.counts(found.probability > cut, truth) for cut in CUTS], found.score


def refer_sections(predictor: MaskPredictor, sources: Sequence[Scenes], depth: DepthPredictor | None) -> list[str]:
    """Masks on held-out frames against a location prior, things that are not there, and distances of what is found.

    Args:
        predictor: with its cut and threshold set.
        sources: where to look.
        depth: measures what is found; None leaves distances out.
    """
    rows: list[Comparison] = []
    absences, kinds = [], []
    for scenes in sources:
        answers = _answers(predictor, scenes)
        if answers is None:
            continue
        rows += _against_location(scenes.title, answers)
        kinds += _by_kind(scenes.title, answers)
        asked = (
            (answers.found, answers.clusters),
            (answers.absent, answers.absent_clusters),
            (answers.strange, answers.strange_clusters),
        )
        absences.append([scenes.title, *(_called_absent(*one) for one in asked)])
    manifest = predictor.manifest
    sections = [
        "## Results on held-out frames",
        "",
        f"At most {EXPRESSIONS} expressions of the world's rooms and of its roads, at the frames' own size, and all"
        " template expressions on photos, at 640 x 480; one pass; percent. Every mask counts, whether its score makes"
        " it found or not.",
        "",
        *comparison_table(rows),
        "The location prior is the set of pixels with the best overall IoU on training masks of the same source; it"
        " sees neither picture nor words.",
        "",
        "## No such object",
        "",
        f"A pixel belongs to the mask above a probability of {manifest.mask_threshold}, the cut with the best oIoU on"
        f" validation frames. A referent counts as absent below a score of {manifest.threshold}, under which"
        f" {FALSE_ABSTENTION:.0%} of true ones fall there; photos and world weigh the same. On held-out frames it calls"
        " absent:",
        "",
        *table(("on", "of what is there", "of what is not there", "of what is in other frames"), absences),
        "Not there are the world's own expressions for nothing and, on photos, classes without a labelled pixel in the"
        " frame; these are worded otherwise than those for what is there, and so words alone can tell some of them. In"
        " other frames are things that their expressions single out there, asked in a frame without anything called"
        " so: their wording tells nothing, though a thing that few frames have is guessed absent more easily.",
        "",
    ]
    if kinds:
        sections += [
            f"## By what singles the thing out (kinds with at least {OF_A_KIND} expressions)",
            "",
            *table(("on", "kind", "expressions", "oIoU", "location prior"), kinds),
        ]
    if depth is not None and sources[0].source == "nyuv2":
        sections += distance_section(predictor, depth, sources[0])
    return sections


def _called_absent(found: list[bool], clusters: list[int]) -> str:
    if not found:
        return "none"
    return f"{Estimate.mean(100 * (1 - np.array(found, dtype=float)), clusters, 0)} % of {len(found)}"


def _limit(scenes: Scenes) -> int:
    return 10**6 if scenes.source == "nyuv2" else EXPRESSIONS


def _answers(predictor: MaskPredictor, scenes: Scenes) -> Answers | None:
    """The model's answers on held-out frames; None where nothing is asked for."""
    fitted = [scene.mask(asked) for scene, asked in scenes.pairs("train", FITTED)]
    pairs = list(scenes.pairs("heldout", _limit(scenes)))
    if not pairs or not fitted:
        return None
    prior = LocationPrior.fit(fitted)
    del fitted
    model, other, found = [], [], []
    for scene, asked in pairs:
        mask, truth = predictor(scene.rgb(), asked.text), scene.mask(asked)
        model.append(REFER_NATIVE.counts(mask.probability > predictor.manifest.mask_threshold, truth))
        other.append(REFER_NATIVE.counts(prior.mask, truth))
        found.append(mask.found)
    absent = list(scenes.pairs("heldout", _limit(scenes), absent=True))
    strange = list(scenes.elsewhere("heldout", _limit(scenes)))
    return Answers(
        [scene.cluster for scene, _ in pairs],
        {"model": np.transpose(model), "prior": np.transpose(other)},
        [asked.kind for _, asked in pairs],
        found,
        [predictor(scene.rgb(), asked.text).found for scene, asked in absent],
        [scene.cluster for scene, _ in absent],
        [predictor(scene.rgb(), asked.text).found for scene, asked in strange],
        [scene.cluster for scene, _ in strange],
    )


def _oiou(counts: Rows) -> Statistic:
    return lambda rows: 100 * iou(*counts[:, rows].sum(axis=1))


def _against_location(title: str, answers: Answers) -> list[Comparison]:
    model, prior = answers.counts["model"], answers.counts["prior"]
    ious = {name: 100 * c[0] / np.maximum(c[1], 1) for name, c in answers.counts.items()}
    halves = {name: 100.0 * (values >= 50) for name, values in ious.items()}
    statistics = {
        "oIoU": (_oiou(model), _oiou(prior)),
        "mIoU": (mean(ious["model"]), mean(ious["prior"])),
        "P@0.5": (mean(halves["model"]), mean(halves["prior"])),
    }
    where = f"{title}, {len(answers.found)}"
    return [
        Comparison.of(where, metric, "location prior", pair, answers.clusters, smaller_is_better=False, digits=1)
        for metric, pair in statistics.items()
    ]


def _by_kind(title: str, answers: Answers) -> list[list[object]]:
    """Overall IoU of each kind of expression, where there are several."""
    names = sorted(set(answers.kinds))
    rows: list[list[object]] = []
    for name in names if len(names) > 1 else []:
        chosen = np.flatnonzero([kind == name for kind in answers.kinds])
        if len(chosen) < OF_A_KIND:
            continue
        clusters = [answers.clusters[i] for i in chosen.tolist()]
        model, prior = (answers.counts[which][:, chosen] for which in ("model", "prior"))
        rows.append(
            [
                title,
                name,
                len(chosen),
                Estimate.of(_oiou(model), clusters, 1),
                f"{_oiou(prior)(np.arange(len(chosen))):.1f}",
            ]
        )
    return rows


def distance_section(predictor: MaskPredictor, depth: DepthPredictor, photos: Scenes) -> list[str]:
    """How far off ``deixis ask`` is on held-out photos."""
    maps: dict[int, Depth] = {}
    errors, outlined, constants, clusters = [], [], [], []
    asked_for = 0
    train = [_distance(asked) for _, asked in photos.pairs("train", 10**6)]
    constant = float(np.median(train)) if train else float("nan")
    for scene, asked in photos.pairs("heldout", 10**6):
        truth = _distance(asked)
        rgb = scene.rgb()
        number = id(scene)
        if number not in maps:
            maps = {number: depth(rgb)}
        mask = predictor(rgb, asked.text)
        asked_for += 1
        said = measure(mask, maps[number]) if mask.found else None
        if said is None:
            continue
        inside: BoolMap = scene.mask(asked)
        errors.append(relative_error(said["median"], truth))
        outlined.append(relative_error(float(np.median(maps[number].values[inside])), truth))
        constants.append(relative_error(constant, truth))
        clusters.append(scene.cluster)
    if not errors:
        return []

    def median(values: Sequence[float]) -> Statistic:
        array = np.asarray(values)
        return lambda rows: float(np.median(array[rows]))

    rows = [
        Comparison.of(
            photos.title,
            "median relative error",
            other,
            (median(errors), median(values)),
            clusters,
            smaller_is_better=True,
        )
        for other, values in (
            (f"always {constant:.2f} m", constants),
            ("the same depth in the true mask", outlined),
        )
    ]
    return [
        "## How far it is",
        "",
        f"`deixis ask` with `{depth.name}` for the depth: the median inside the predicted mask against the measured"
        f" median inside the true one, for the {len(errors)} of {asked_for} template expressions whose thing it calls"
        f" found. Median relative error {Estimate.of(median(errors), clusters)}.",
        "",
        *comparison_table(rows, "ask"),
    ]


def _distance(asked: Asked) -> float:
    assert asked.thing is not None
    assert not isinstance(asked.thing, tuple)
    return asked.thing.median_depth_m
