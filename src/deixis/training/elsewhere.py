"""Expressions of other frames, asked where nothing is called so.

A source's own expressions for nothing are worded otherwise than those for something: hardly any names a material, a
neighbour or the nearest of several. What learns from them alone learns their wording, and not to look. The same words
asked in another frame tell nothing by their form; what remains to guess by is how often a frame has such a thing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np

from deixis.world.words import HYPERNYMS, alike

Named = tuple[str, str]
"""An expression and the class of what it means."""


def elsewhere(asked: Sequence[Sequence[Named]], shown: Sequence[Collection[str]], count: int) -> list[list[Named]]:
    """For each frame expressions of the other ones, for things of a class that is not to be seen in it.

    Args:
        asked: for each frame, the expressions for what is there.
        shown: for each frame, the classes to be seen in it.
        count: of expressions wanted for each frame; there may be fewer, where most classes are to be seen.

    Returns:
        for each frame, what is not there. The frame's position alone decides the choice.
    """
    pool = [one for frame in asked for one in frame]
    found: list[list[Named]] = []
    for i, names in enumerate(shown):
        here = frozenset(names)
        draws = np.random.default_rng([i, 43]).permutation(len(pool))[: 16 * count].tolist()
        found.append([pool[k] for k in draws if _may_mean(*pool[k]).isdisjoint(here)][:count])
    return found


@cache
def _may_mean(text: str, name: str) -> frozenset[str]:
    """Classes that a listener might take an expression for."""
    broader = [noun for noun, members in HYPERNYMS.items() if name in members and noun in text]
    return frozenset(other for noun in (name, *broader) for other in alike(noun))
