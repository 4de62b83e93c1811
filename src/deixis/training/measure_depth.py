"""What a trained depth method reaches on frames it never saw, as sections of its card.

Everything goes through :mod:`deixis.predict`, exactly as a user gets it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deixis.predict import DepthPredictor
from deixis.protocols.depth import depth_metrics
from deixis.protocols.trivial import DepthPriors, aligned_abs_rel
from deixis.training.comparison import Comparison, Estimate, comparison_table, mean, table
from deixis.training.scenes import Scene, Scenes, spread

NAMES = {"abs_rel": "AbsRel", "rmse": "RMSE [m]", "log10": "log10", "d1": "d1", "d2": "d2", "d3": "d3"}
# Frames of a source on which texts are compared.
TEXT_FRAMES = 150


def depth_sections(predictor: DepthPredictor, sources: Sequence[Scenes]) -> list[str]:
    """Metric depth on held-out frames, against trivial predictors, and what the text is worth."""
    numbers, priors, mirrored, texts = [], [], [], []
    for scenes in sources:
        found = [one for one in (_depth_of(predictor, scenes, s) for s in scenes.splits["heldout"]) if one is not None]
        if not found:
            continue
        scored, predicted = [scene for scene, _, _ in found], [values for _, values, _ in found]
        clusters = [scene.cluster for scene in scored]
        estimates = [Estimate.mean([values[name] for values in predicted], clusters) for name in NAMES]
        numbers.append([scenes.title, len(scored), *estimates])
        priors += _against_priors(scenes, found, clusters)
        mirrored += _with_mirror_image(predictor, scenes, found, clusters)
        texts += _text_effect(predictor, scenes, scored)
    said = "its caption" if predictor.describe.text == "id" else "the name of its place"
    return [
        "## Results on held-out frames",
        "",
        "No text given, one pass (`--tta none`); photos: NYU Eigen crop at 640 x 480; world: whole frames at their own"
        " size, up to 80 m. Per-image values averaged over images, with 95 % intervals.",
        "",
        *table(("on", "frames", *NAMES.values()), numbers),
        "## Against predictors that see no picture",
        "",
        *comparison_table(priors),
        "Constants and maps are the best ones for training frames of the same source. Alignment fits a scale and a"
        " shift per image to the ground truth.",
        "",
        "## With the mirror image",
        "",
        "The mean with the prediction of the mirrored picture (`--tta flip`, twice the time), part of the papers' test"
        " protocol, against one pass.",
        "",
        *comparison_table(mirrored, "`--tta flip`"),
        "## What the text is worth",
        "",
        f"The same picture with the right text ({said}, oracle) and with others; at most {TEXT_FRAMES} frames of a"
        " source.",
        "",
        *comparison_table(texts, "right text"),
    ]


_Scored = tuple[Scene, dict[str, float], float | None]


def _depth_of(predictor: DepthPredictor, scenes: Scenes, scene: Scene) -> _Scored | None:
    """A scene with its metrics and, on photos, its aligned error; None where nothing can be scored."""
    truth = scene.depth()
    prediction = predictor(scene.rgb())
    p, t = scenes.protocol.select(prediction, truth)
    if not len(t):
        return None
    aligned = aligned_abs_rel(prediction.values, truth, scenes.protocol) if scenes.source == "nyuv2" else None
    return scene, depth_metrics(p, t), aligned


def _against_priors(scenes: Scenes, found: Sequence[_Scored], clusters: Sequence[int]) -> list[Comparison]:
    if not scenes.splits["train"]:
        return []
    priors = DepthPriors.fit((scene.depth() for scene in scenes.splits["train"]), scenes.protocol)
    maps = {
        "constant": np.full_like(priors.median, priors.constant),
        "constant_d1": np.full_like(priors.median, priors.constant_d1),
        "median": priors.median,
    }
    others: dict[str, list[dict[str, float]]] = {name: [] for name in maps}
    aligned = []
    for scene, _, of_model in found:
        truth = scene.depth()
        for name, values in maps.items():
            others[name].append(depth_metrics(*scenes.protocol.select(values, truth, kind="metric")))
        if of_model is not None:
            aligned.append((of_model, aligned_abs_rel(priors.mean, truth, scenes.protocol)))

    ours = [values for _, values, _ in found]
    constants = f"best constant ({priors.constant:.2f} m)", f"best constant ({priors.constant_d1:.2f} m)"
    rows = [
        _compared(scenes, "abs_rel", ours, others["constant"], constants[0], clusters),
        _compared(scenes, "abs_rel", ours, others["median"], "median map", clusters),
        _compared(scenes, "d1", ours, others["constant_d1"], constants[1], clusters),
        _compared(scenes, "d1", ours, others["median"], "median map", clusters),
    ]
    if aligned:
        pair = mean([one for one, _ in aligned]), mean([other for _, other in aligned])
        label = "AbsRel after affine alignment"
        rows.append(Comparison.of(scenes.title, label, "mean map", pair, clusters, smaller_is_better=True))
    return rows


def _with_mirror_image(
    predictor: DepthPredictor, scenes: Scenes, found: Sequence[_Scored], clusters: Sequence[int]
) -> list[Comparison]:
    """Paired comparisons of the mean of a picture's and its mirror image's depth with one pass."""
    both = []
    for scene, _, _ in found:
        prediction = predictor(scene.rgb(), tta="flip")
        both.append(depth_metrics(*scenes.protocol.select(prediction, scene.depth())))
    single = [values for _, values, _ in found]
    return [_compared(scenes, metric, both, single, "one pass", clusters) for metric in ("abs_rel", "d1")]


def _text_effect(predictor: DepthPredictor, scenes: Scenes, scored: Sequence[Scene]) -> list[Comparison]:
    """Paired comparisons of the right text with none, with the dataset's and with another frame's."""
    some = spread(scored, TEXT_FRAMES)
    told = [scene.caption if predictor.describe.text == "id" else scene.place for scene in some]
    others = of_others(told)
    values: dict[str, list[dict[str, float]]] = {}
    for scene, right, other in zip(some, told, others, strict=True):
        rgb, truth = scene.rgb(), scene.depth()
        texts = {"right": right, "empty text": "", "no text given": None, "another frame's": other}
        for name, text in texts.items():
            prediction = predictor(rgb, text)
            if name == "no text given" and prediction.text.provenance == "empty":
                continue  # this model has no mean embedding: the same as an empty text
            if name == "another frame's" and not other:
                continue
            values.setdefault(name, []).append(depth_metrics(*scenes.protocol.select(prediction, truth)))
    clusters = [scene.cluster for scene in some]
    rows = []
    for metric in ("abs_rel", "d1"):
        for name in list(values)[1:]:
            label = {"no text given": "no text given (mean of captions)"}.get(name, name)
            rows.append(_compared(scenes, metric, values["right"], values[name], label, clusters))
    return rows


def _compared(
    scenes: Scenes,
    metric: str,
    ours: Sequence[dict[str, float]],
    others: Sequence[dict[str, float]],
    label: str,
    clusters: Sequence[int],
) -> Comparison:
    """AbsRel or d1 of the same scenes, one way and another."""
    pair = mean([values[metric] for values in ours]), mean([values[metric] for values in others])
    smaller = metric == "abs_rel"
    return Comparison.of(scenes.title, NAMES[metric], label, pair, clusters, smaller_is_better=smaller)


def of_others(told: Sequence[str]) -> list[str]:
    """For each text one of a frame far away in the list that says something else; empty where all are the same."""
    n, found = len(told), []
    for i, own in enumerate(told):
        order = [told[(i + n // 2 + step) % n] for step in range(n)]
        found.append(next((other for other in order if other != own), ""))
    return found
