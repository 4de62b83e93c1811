"""What a trained affine-invariant depth method reaches on frames it never saw, as sections of its card.

Everything goes through :mod:`deixis.relative`, exactly as a user gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deixis.protocols.affine import AffineProtocol
from deixis.protocols.masks import NYUV2, EvaluationSet
from deixis.protocols.trivial import DepthPriors
from deixis.relative import RelativePredictor
from deixis.training.comparison import Comparison, Estimate, comparison_table, mean, table
from deixis.training.measure_depth import of_others
from deixis.training.scenes import Scene, Scenes, spread
from deixis.types import Depth, Text

NAMES = {"abs_rel": "AbsRel", "d1": "d1"}
# Frames of a source that are looked at: each is seen with three texts.
FRAMES = 150
WORLD = EvaluationSet("world", 1e-3, 80.0)


def relative_sections(predictor: RelativePredictor, sources: Sequence[Scenes]) -> list[str]:
    """Depth after alignment on held-out frames, against the mean map, and what the text is worth."""
    numbers: list[list[object]] = []
    priors: list[Comparison] = []
    texts: list[Comparison] = []
    for scenes in sources:
        protocol = AffineProtocol(NYUV2 if scenes.source == "nyuv2" else WORLD)
        scored = [s for s in scenes.splits["heldout"] if bool(protocol.prepare(_truth(s), s.depth())[2].any())]
        some = spread(scored, FRAMES)
        if not some:
            continue
        clusters = [scene.cluster for scene in some]
        captions = [scene.caption for scene in some]
        told: dict[str, Sequence[str | None]] = {
            "no text": [None] * len(some),
            "its caption": captions,
            "another frame's": of_others(captions),
        }
        found: dict[str, list[dict[str, float]]] = {}
        for name, given in told.items():
            for scene, text in zip(some, given, strict=True):
                depth: Any = predictor(scene.rgb(), text)
                found.setdefault(name, []).append(protocol.score(depth, scene.depth()))
        for name, values in found.items():
            estimates = [Estimate.mean([one[metric] for one in values], clusters) for metric in NAMES]
            numbers.append([scenes.title, name, len(some), *estimates])
        for metric, label in NAMES.items():
            smaller = metric == "abs_rel"
            right = mean([one[metric] for one in found["its caption"]])
            texts += [
                Comparison.of(
                    scenes.title,
                    label,
                    other,
                    (right, mean([one[metric] for one in found[other]])),
                    clusters,
                    smaller_is_better=smaller,
                )
                for other in ("no text", "another frame's")
            ]
        priors += _against_mean_map(scenes, some, found["no text"], protocol)
    steps = getattr(predictor.model.config, "steps", 1)
    space = "disparity" if predictor.kind == "disparity" else "depth"
    return [
        "## Results on held-out frames",
        "",
        f"After the scale and shift that fit best, by least squares in {space};"
        f" {steps} {'steps' if steps > 1 else 'step'}, one map, seed 0. Photos: NYU Eigen crop at 640 x 480; world:"
        " whole frames, up to 80 m. Captions are oracle.",
        "",
        *table(("on", "text", "frames", *NAMES.values()), numbers),
        "## Against the mean depth map",
        "",
        *comparison_table(priors),
        "The mean map of training frames of the same source, aligned in the same way, sees no picture.",
        "",
        "## What the text is worth",
        "",
        *comparison_table(texts, "its caption"),
    ]


def _truth(scene: Scene) -> Depth:
    """The ground truth as if it had been predicted: which pixels count does not depend on the prediction."""
    return Depth(scene.depth(), "metric", Text("", "oracle"), "truth")


def _against_mean_map(
    scenes: Scenes, some: Sequence[Scene], found: Sequence[dict[str, float]], protocol: AffineProtocol
) -> list[Comparison]:
    if not scenes.splits["train"]:
        return []
    priors = DepthPriors.fit((scene.depth() for scene in scenes.splits["train"]), scenes.protocol)
    other = [protocol.score(priors.mean, scene.depth(), kind="affine") for scene in some]
    clusters = [scene.cluster for scene in some]
    return [
        Comparison.of(
            scenes.title,
            label,
            "mean map",
            (mean([one[metric] for one in found]), mean([one[metric] for one in other])),
            clusters,
            smaller_is_better=metric == "abs_rel",
        )
        for metric, label in NAMES.items()
    ]
