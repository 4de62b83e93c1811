"""Descriptions changed on purpose: grown phrase by phrase, their words shuffled, their sense turned round.

What a depth system makes of these says what it makes of words: more details should help where they name things
(Iris, iterative refinement), shuffled and contradicting ones should not.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import cycle

import numpy as np

from deixis.errors import UsageError
from deixis.world.words import COLOURS, NOUNS, PLACES, ROAD_ONLY

# Where a description may be cut: at the end of a sentence or a clause, and before a phrase that adds something.
_BREAK = re.compile(
    r"(?<=[.;!?])\s+|(?<=,)\s+|\s+(?=(?:with|and|beside|behind|near|next to|in front of|on top of)\b)", re.IGNORECASE
)
# Words that mean nothing by themselves.
SILENT = frozenset(
    ("a", "an", "the", "and", "or", "of", "in", "on", "at", "to", "with", "is", "are", "there", "it", "its", "by")
)
_OPPOSITES = (
    ("left", "right"),
    ("leftmost", "rightmost"),
    ("near", "far from"),
    ("nearest", "farthest"),
    ("nearby", "far away"),
    ("close", "distant"),
    ("small", "large"),
    ("smaller", "larger"),
    ("little", "big"),
    ("short", "tall"),
    ("low", "high"),
    ("narrow", "wide"),
    ("behind", "in front of"),
    ("above", "below"),
    ("on top of", "under"),
    ("dark", "bright"),
    ("empty", "crowded"),
    ("inside", "outside"),
    ("indoors", "outdoors"),
    ("indoor", "outdoor"),
    ("interior", "exterior"),
)
_OUTDOOR_THINGS = ("truck", "tree", "traffic light", "house", "bicycle", "hedge")
_INDOOR_THINGS = ("bed", "cupboard", "sofa", "lamp", "bathtub", "desk")
_OTHER_COLOURS = {
    **dict.fromkeys(("white", "beige", "light blue", "light green", "pink"), "black"),
    **dict.fromkeys(("black", "dark blue", "dark green", "dark brown", "dark red", "grey"), "white"),
    **dict.fromkeys(("red", "orange", "yellow", "brown"), "blue"),
    **dict.fromkeys(("green", "turquoise", "blue", "purple"), "red"),
}
_ROADS = ("street", "road", "suburb", "highway", "motorway", "avenue", "car park", "crossroads", "junction", "park")


def grown(text: str) -> list[str]:
    """A description from its first phrase to all of it, one phrase longer each time.

    It is cut after sentences and clauses and before words such as ``with`` and ``and``; a first piece that is an
    article alone, say, belongs to the next one.
    """
    pieces = [piece for piece in _BREAK.split(text.strip()) if piece]
    ends = [" ".join(pieces[: i + 1]) for i in range(len(pieces))]
    found = [end.rstrip(",; ") for end in ends if len(end.split()) > 1 or end == ends[-1]]
    return [end for end in found if any(character.isalnum() for character in end)]


def added(before: str, after: str) -> list[str]:
    """The phrases that ``after`` has and ``before`` has not, as they stand in ``after``."""
    old, new = before.split(), after.split()
    blocks = SequenceMatcher(None, _plain(old), _plain(new), autojunk=False).get_opcodes()
    return [" ".join(new[start:end]).strip(".,; ") for tag, _, _, start, end in blocks if tag in ("insert", "replace")]


def _plain(words: list[str]) -> list[str]:
    return [word.strip(".,;:!?").lower() for word in words]


def can_be_shuffled(text: str) -> bool:
    """Whether the words have another order."""
    return len(set(text.split())) > 1


def shuffled(text: str, seed: int) -> str:
    """The same words in another order, drawn from ``seed``; the same text if they have none."""
    if not can_be_shuffled(text):
        return text
    words = text.split()
    generator = np.random.default_rng(seed)
    while True:
        order = [words[i] for i in generator.permutation(len(words))]
        if order != words:
            return " ".join(order)


def contradicted(text: str) -> str:
    """The description with every word that has a contrary replaced by it.

    Sides, sizes and distances become their opposites, colours become others, rooms streets and streets bedrooms,
    furniture things of the street and the other way round.

    Raises:
        UsageError: if no word has a contrary.
    """
    table = _contraries()
    outdoors, indoors = cycle(_OUTDOOR_THINGS), cycle(_INDOOR_THINGS)
    pattern = "|".join(re.escape(form) for form in sorted(table, key=len, reverse=True))

    def contrary(match: re.Match[str]) -> str:
        word = match.group(1)
        other = table[word.lower()]
        if other == _OUTDOOR:
            other = next(outdoors)
        elif other == _INDOOR:
            other = next(indoors)
        other += match.group(2) if not other.endswith("s") else ""  # the plural stays one
        return other.capitalize() if word[:1].isupper() else other

    changed = re.sub(rf"\b({pattern})(s?)\b", contrary, text, flags=re.IGNORECASE)
    if changed == text:
        raise UsageError(
            "text", "holds no word with a contrary", "name things, colours, sizes, sides or the kind of place"
        )
    return re.sub(r"\b([Aa])n?(?= ([A-Za-z]))", _article, changed)


_OUTDOOR, _INDOOR = "<outdoor>", "<indoor>"


def _article(match: re.Match[str]) -> str:
    return match.group(1) + ("n" if match.group(2).lower() in "aeiou" else "")


def _contraries() -> dict[str, str]:
    """Words in lower case, and what takes their place."""
    table: dict[str, str] = {}
    for name, forms in NOUNS.items():
        table |= dict.fromkeys(forms, _INDOOR if name in ROAD_ONLY else _OUTDOOR)
    for name, forms in COLOURS.items():
        table |= dict.fromkeys(forms, _OTHER_COLOURS[name])
    for name, forms in PLACES.items():
        table |= dict.fromkeys(forms, "bedroom" if any(road in name for road in _ROADS) else "city street")
    for one, other in _OPPOSITES:
        table |= {one: other, other: one}
    return table
