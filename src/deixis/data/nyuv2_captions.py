"""Captions of labelled NYU Depth v2 photos at four levels, from their label maps and scene types (``oracle``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deixis.data import nyuv2
from deixis.data.world import LEVELS
from deixis.world import words

PARAPHRASES = 2
STRUCTURE = ("wall", "floor", "ceiling")


def photo_captions(
    frame: nyuv2.Frame, names: Sequence[str], labels: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32]
) -> list[list[str]]:
    """Captions of a labelled photo, four levels of ``PARAPHRASES`` (oracle); the wording depends on its index alone.

    Args:
        frame: the photo.
        names: class names.
        labels: its label map [h, w], of any size.
        depth: its depth [h, w] [m], 0 where unknown.
    """
    rng = np.random.default_rng([frame.index, 40])
    found = []
    for name, mask, count in nyuv2.visible(labels, names):
        if name not in STRUCTURE:
            measured = depth[mask & (depth > 0)]
            distance = float(np.median(measured)) if len(measured) else math.nan
            found.append((name, count, float(np.nonzero(mask)[1].mean()) / mask.shape[1], distance))
    return [[_photo_caption(frame.scene, found, level, rng) for _ in range(PARAPHRASES)] for level in range(LEVELS)]


def _photo_caption(
    scene: str, found: Sequence[tuple[str, int, float, float]], level: int, rng: np.random.Generator
) -> str:
    """One caption from things as (name, regions, horizontal centre in [0, 1], distance [m])."""
    place = words.pick(words.place_forms(nyuv2.scene_words(scene)), rng)
    opening = words.pick(("a photo of {}", "a picture of {}", "{}", "an indoor photo of {}", "a view of {}"), rng)
    start = opening.format(words.indefinite("", place))
    chosen = list(found[: (1, 3, 9, 7)[level]])
    if level == 0 and rng.random() < 0.5:
        chosen = []
    said = []
    for number in rng.permutation(len(chosen)).tolist():
        name, count, u, distance = chosen[number]
        noun = words.pick(words.noun_forms(name), rng) if rng.random() < 0.5 else words.noun_forms(name)[0]
        several = count > 1 and level >= 2 and not words.is_plural(noun)
        thing = f"{words.number(count)} {words.plural(noun)}" if several else words.indefinite("", noun)
        if level >= 2 and count == 1:
            thing += " on the left" if u < 0.33 else " on the right" if u > 0.67 else ""
        if level == 3 and math.isfinite(distance):
            thing += f" {distance:.1f} m away"
        said.append(thing)
    if not said:
        return start
    return f"{start} {words.pick(('with', 'showing', 'containing'), rng)} {', '.join(said)}"
