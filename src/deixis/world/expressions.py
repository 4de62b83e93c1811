"""Referring expressions of a frame: each true of exactly one visible thing, or, where negative, of none.

Whether an expression fits only its target is decided against everything visible, down to one pixel, and read
generously: a thing that might be called so, or might hold such a part, counts as another thing that fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from deixis.world import words
from deixis.world.colours import nearest_colour
from deixis.world.scene import Frame, Scene
from deixis.world.visible import RELATIONS, Relation, Seen, holds, perhaps, visible
from deixis.world.words import pick, vary

Rng = np.random.Generator
Kind = Literal[
    "class",
    "colour",
    "material",
    "pattern",
    "size",
    "position",
    "ordinal",
    "relation",
    "nearest",
    "farthest",
    "comparative",
    "negative",
]
Place = Literal["", "left", "right", "top", "bottom", "middle", "leftmost", "rightmost", "topmost", "bottommost"]
Extreme = Literal["", "nearest", "farthest", "nearer", "farther", "bigger", "smaller", "taller", "shorter"]


@dataclass(frozen=True)
class Meaning:
    """What an expression says, free of wording; empty fields say nothing.

    Attributes:
        name: class or hypernym of what is meant.
        colour, material, pattern, build: as in :class:`~deixis.world.scene.Thing`.
        place: where in the picture.
        ordinal: 1 for the first, counted from the side ``start``; 0 says nothing.
        start: ``left`` or ``right``.
        relation: to a thing of class ``anchor``.
        anchor: see there.
        extreme: among the visible things of the class (with the attributes); the comparatives are of two.
    """

    name: str
    colour: str = ""
    material: str = ""
    pattern: str = ""
    build: Literal["", "small", "large"] = ""
    place: Place = ""
    ordinal: int = 0
    start: Literal["", "left", "right"] = ""
    relation: Relation | Literal[""] = ""
    anchor: str = ""
    extreme: Extreme = ""


@dataclass(frozen=True)
class Expression:
    """A phrase for one thing, or for something that is not there.

    Attributes:
        text: the phrase.
        kind: what singles the thing out.
        target_ids: its id; empty where negative.
        meaning: what the phrase says.
    """

    text: str
    kind: Kind
    target_ids: tuple[int, ...]
    meaning: Meaning


_SHARES: dict[Kind, float] = {
    "class": 2.6,
    "colour": 1.5,
    "material": 1.2,
    "pattern": 2.0,
    "size": 3.0,
    "position": 0.7,
    "ordinal": 2.0,
    "relation": 4.5,
    "nearest": 0.7,
    "farthest": 1.5,
    "comparative": 3.0,
    "negative": 1.5,
}
_MARGIN = 0.08  # between centroids, as a share of the picture
_TRIES = 4  # per expression asked for

_PLACES: tuple[Place, ...] = (
    "left",
    "right",
    "top",
    "bottom",
    "middle",
    "leftmost",
    "rightmost",
    "topmost",
    "bottommost",
)
_OPPOSITE: dict[Extreme, Extreme] = {"nearer": "farther", "bigger": "smaller", "taller": "shorter"}


def expressions(frame: Frame, rng: Rng, limit: int, seen: Sequence[Seen] | None = None) -> list[Expression]:
    """Up to ``limit`` different expressions, in random order; fewer where the frame does not allow as many.

    Args:
        frame: what they are about.
        rng: chooses targets, kinds and wording.
        limit: how many at most.
        seen: ``visible(frame)``, where it is known already.
    """
    speaker = _Speaker(frame, list(visible(frame) if seen is None else seen), rng)
    shares = dict(_SHARES)
    found: dict[str, Expression] = {}
    for _ in range(limit * _TRIES):
        if len(found) >= limit:
            break
        at = rng.random() * sum(shares.values())
        for kind in shares:
            at -= shares[kind]
            if at < 0:
                break
        one = speaker.say(kind)
        if one is None or one.text in found:
            shares[kind] *= 0.5  # this frame hardly allows it: time is better spent on other kinds
        else:
            found[one.text] = one
    return list(found.values())


@dataclass
class _Speaker:
    """Finds expressions in one frame.

    Attributes:
        frame: what they are about.
        seen: everything visible.
        rng: source of choices.
        targets: what is seen well enough to be meant.
        loose: those that are not structure, which is meant by its class only.
        paired: those of them whose class is seen more than once.
        parts: classes that each thing seen may hold as parts of itself.
        colours: of the larger parts of each thing, by id.
    """

    frame: Frame
    seen: list[Seen]
    rng: Rng
    targets: list[Seen] = field(default_factory=list)
    loose: list[Seen] = field(default_factory=list)
    paired: list[Seen] = field(default_factory=list)
    parts: list[list[str]] = field(default_factory=list)
    colours: dict[int, set[str]] = field(default_factory=dict)
    _pools: dict[tuple[str, str], tuple[list[Seen], list[Seen]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.targets = [s for s in self.seen if s.clear]
        self.loose = [s for s in self.targets if s.thing.name not in words.STRUCTURE]
        count = Counter(s.thing.name for s in self.seen)
        self.paired = [s for s in self.loose if count[s.thing.name] > 1]
        # A bed whose pillows are things of their own has no further ones among its parts.
        carried: dict[int, set[str]] = {}
        for thing in self.frame.scene.things:
            carried.setdefault(thing.on, set()).add(thing.name)
        for s in self.seen:
            own = carried.get(s.thing.id, set())
            parts = words.HOLDS.get(s.thing.name, ())
            self.parts.append([part for part in parts if words.alike(part).isdisjoint(own)])
        self.colours = part_colours(self.frame.scene, [s.thing.id for s in self.seen])

    def say(self, kind: Kind) -> Expression | None:
        """An expression of this kind; None where the few targets tried do not allow one."""
        if kind == "negative":
            attempts = (self._negative() for _ in range(4))
            return next((one for one in attempts if one is not None), None)
        make = _MAKERS[kind]
        targets = self.targets if kind == "class" else self.loose
        if kind in ("ordinal", "nearest", "farthest", "comparative"):
            targets = self.paired
        for i in self.rng.permutation(len(targets))[:4]:
            one = make(self, targets[int(i)])
            if one is not None:
                return one
        return None

    def pool(self, name: str, form: str = "") -> tuple[list[Seen], list[Seen]]:
        """What might be called so, and what may hold such a thing as a part of itself."""
        key = name, form
        if key not in self._pools:
            near = words.alike(name, form)
            called = [s for s in self.seen if s.thing.name in near]
            holders = [
                s
                for s, parts in zip(self.seen, self.parts, strict=True)
                if s.thing.name not in near and not near.isdisjoint(parts)
            ]
            self._pools[key] = called, holders
        return self._pools[key]

    def noun(self, name: str) -> str:
        """One of the class's nouns."""
        forms = (name,) if name in words.HYPERNYMS else words.noun_forms(name)
        return forms[0] if self.rng.random() < 0.3 else pick(forms, self.rng)

    # Kinds. Each returns None where this target cannot be singled out so.

    def _class(self, target: Seen) -> Expression | None:
        name = target.thing.name
        if self.rng.random() < 0.35:
            names = [h for h, members in words.HYPERNYMS.items() if name in members]
            # The last classes of each list are members in doubt: they can confuse but not be meant.
            names = [h for h in names if name in words.HYPERNYMS[h][: words.SURE[h]]]
            if names:
                name = pick(names, self.rng)
        noun = self.noun(name)
        called, holders = self.pool(name, noun)
        if holders or any(s is not target for s in called):
            return None
        purposes = words.PURPOSES.get(name)
        pattern = "{n}"
        if purposes and self.rng.random() < 0.5:
            pattern = f"{{n}} {pick(words.FOR, self.rng)} {pick(purposes, self.rng)}"
        return self._told("class", target, Meaning(name), noun, pattern)

    def _colour(self, target: Seen) -> Expression | None:
        return self._attribute("colour", target, Meaning(target.thing.name, colour=target.thing.colour))

    def _material(self, target: Seen) -> Expression | None:
        if target.thing.name in words.SILENT:
            return None
        return self._attribute("material", target, Meaning(target.thing.name, material=target.thing.material))

    def _pattern(self, target: Seen) -> Expression | None:
        return self._attribute("pattern", target, Meaning(target.thing.name, pattern=target.thing.pattern))

    def _attribute(self, kind: Kind, target: Seen, meaning: Meaning) -> Expression | None:
        if meaning == Meaning(target.thing.name):
            return None
        noun = self.noun(target.thing.name)
        called, holders = self.pool(target.thing.name, noun)
        if holders or any(s is not target and self.might(s, meaning) for s in called):
            return None
        return self._told(kind, target, meaning, noun, "{n}")

    def _size(self, target: Seen) -> Expression | None:
        """Small or large for its class; the others must be clearly otherwise in the world and in the picture."""
        build = target.thing.build
        noun = self.noun(target.thing.name)
        called, holders = self.pool(target.thing.name, noun)
        if not build or holders:
            return None
        for other in called:
            if other is target:
                continue
            small, large = (target, other) if build == "small" else (other, target)
            if other.thing.build == build or not _bigger(large, small):
                return None
        return self._told("size", target, Meaning(target.thing.name, build=build), noun, "{n}")

    def _position(self, target: Seen) -> Expression | None:
        base, noun, others = self._rivals(target)
        if others is None or not others:
            return None
        fits = [place for place in _PLACES if _placed(target, others, place)]
        if not fits:
            return None
        place = fits[int(self.rng.random() * len(fits))]
        pattern = pick(words.AT[place], self.rng).replace("SIDE", words.SIDES.get(place, ""))
        return self._told("position", target, replace(base, place=place), noun, pattern)

    def _ordinal(self, target: Seen) -> Expression | None:
        base, noun, others = self._rivals(target)
        if not others or not _countable(noun) or not all(_counts(s, target, base) for s in others):
            return None
        row = sorted([target, *others], key=lambda s: s.centroid[0])
        if len(row) > 8 or any(b.centroid[0] - a.centroid[0] < _MARGIN for a, b in pairwise(row)):
            return None
        rank = next(i for i, s in enumerate(row) if s is target)
        start: Literal["left", "right"] = "left" if self.rng.random() < 0.5 else "right"
        ordinal = rank + 1 if start == "left" else len(row) - rank
        word = words.ORDINALS[ordinal - 1]
        count, end = words.number(ordinal), "right" if start == "left" else "left"
        pattern = pick(words.COUNTED, self.rng).format(word=word, start=start, end=end, count=count, n="{n}", p="{p}")
        meaning = replace(base, ordinal=ordinal, start=start)
        return self._told("ordinal", target, meaning, noun, pattern)

    def _relation(self, target: Seen) -> Expression | None:
        base, noun, others = self._rivals(target)
        if others is None:
            return None
        anchors = [s for s in self.targets if s is not target]
        for i in self.rng.permutation(len(anchors))[:4]:
            anchor = anchors[int(i)]
            word = self.noun(anchor.thing.name)
            same, holders = self.pool(anchor.thing.name, word)
            if any(s is target for s in same) or anchor.thing.name in words.alike(target.thing.name, noun):
                continue
            for j in self.rng.permutation(len(RELATIONS)):
                relation = RELATIONS[int(j)]
                if relation != "on" and (len(same) > 1 or holders or anchor.thing.name in words.STRUCTURE):
                    continue
                if not holds(relation, target, anchor):
                    continue
                if any(perhaps(relation, other, one) for other in others for one in [*same, *holders]):
                    continue
                how = words.RELATION_WORDS[relation]
                if target.thing.mount == "hanging" and relation == "on":
                    how = words.HELD_WORDS.get(anchor.thing.name, "on")
                pattern = f"{{n}} {how} the {word}"
                if self.rng.random() < 0.15:
                    pattern = f"{{n}} that {{be}} {how} the {word}"
                meaning = replace(base, relation=relation, anchor=anchor.thing.name)
                return self._told("relation", target, meaning, noun, pattern)
        return None

    def _nearest(self, target: Seen) -> Expression | None:
        return self._by_depth("nearest", target)

    def _farthest(self, target: Seen) -> Expression | None:
        return self._by_depth("farthest", target)

    def _by_depth(self, extreme: Literal["nearest", "farthest"], target: Seen) -> Expression | None:
        base, noun, others = self._rivals(target)
        if not others or all(s.thing.name != target.thing.name for s in others):
            return None
        for other in others:
            near, far = (target, other) if extreme == "nearest" else (other, target)
            if not _nearer(near, far):
                return None
        meaning = replace(base, extreme=extreme)
        return self._told(extreme, target, meaning, noun, pick(words.EXTREMES[extreme], self.rng))

    def _comparative(self, target: Seen) -> Expression | None:
        """Of two things of one class that are both seen well."""
        base, noun, others = self._rivals(target)
        if others is None or len(others) != 1 or not _countable(noun):
            return None
        other = others[0]
        if not _counts(other, target, base):
            return None
        fits: list[Extreme] = []
        for extreme, test in _COMPARE.items():
            if test(target, other):
                fits.append(extreme)
            elif test(other, target):
                fits.append(_OPPOSITE[extreme])
        if not fits:
            return None
        extreme = fits[int(self.rng.random() * len(fits))]
        meaning = replace(base, extreme=extreme)
        return self._told("comparative", target, meaning, noun, pick(words.EXTREMES[extreme], self.rng))

    def _rivals(self, target: Seen) -> tuple[Meaning, str, list[Seen] | None]:
        """A description that may fit others too, its noun, and those others; None where a part may be meant."""
        t, rng = target.thing, self.rng
        meaning = Meaning(t.name)
        if t.colour and rng.random() < 0.3:
            meaning = replace(meaning, colour=t.colour)
        elif t.material and t.name not in words.SILENT and rng.random() < 0.2:
            meaning = replace(meaning, material=t.material)
        noun = self.noun(t.name)
        called, holders = self.pool(t.name, noun)
        others = [s for s in called if s is not target and self.might(s, meaning)]
        return meaning, noun, None if holders else others

    def _negative(self) -> Expression | None:
        """A class that is not there, or one that is, in a colour that nothing like it has."""
        rng = self.rng
        if rng.random() < 0.5 or not self.targets:
            names = _ROAD_NAMES if self.frame.scene.kind == "road" else _ROOM_NAMES
            if rng.random() < 0.15:
                names = _ROOM_NAMES if self.frame.scene.kind == "road" else _ROAD_NAMES
            name, colour = pick(names, rng), ""
            if rng.random() < 0.35:
                colour = pick(_COLOUR_NAMES, rng)
        else:
            name = self.targets[int(rng.random() * len(self.targets))].thing.name
            if name in words.STRUCTURE:
                return None
            colour = pick(_COLOUR_NAMES, rng)
        meaning = Meaning(name, colour=colour)
        noun = self.noun(name)
        called, holders = self.pool(name)
        if holders or any(self.might(s, meaning) for s in called):
            return None
        pattern = "{n}"
        if rng.random() < 0.25:
            place: Place = "left" if rng.random() < 0.5 else "right"
            meaning = replace(meaning, place=place)
            pattern = f"{{n}} {words.SIDES[place]}"
        return self._told("negative", None, meaning, noun, pattern)

    def might(self, one: Seen, meaning: Meaning) -> bool:
        """Whether the attributes said could be those of the thing or of a large part of it, read generously."""
        t = one.thing
        near = words.near_colours(meaning.colour)
        return (
            (not meaning.colour or t.colour in near or not near.isdisjoint(self.colours[t.id]))
            and (not meaning.material or t.material in words.near_materials(meaning.material))
            and (not meaning.pattern or bool(t.pattern))
        )

    # Wording.

    def _told(self, kind: Kind, target: Seen | None, meaning: Meaning, noun: str, pattern: str) -> Expression:
        rng = self.rng
        before, after = [], ""
        if meaning.build:
            before.append(pick(words.BUILDS[meaning.build], rng))
        if meaning.pattern:
            adjectives, phrases = words.pattern_forms(meaning.pattern)
            if rng.random() < 0.7:
                before.append(pick(adjectives, rng))
            else:
                after = f" {pick(phrases, rng)}"
        if meaning.colour:
            forms = words.colour_forms(meaning.colour)
            colour = forms[0] if rng.random() < 0.35 else pick(forms, rng)
            if meaning.name in words.WEARERS:
                after += f" {vary(words.WEARING, rng)} {colour}"
            elif rng.random() < 0.85 or after:
                before.append(colour)
            else:
                after = f" that {_be(noun)} {colour}"
        if meaning.material:
            adjectives, phrases = words.material_forms(meaning.material)
            if rng.random() < 0.75 or after:
                before.append(pick(adjectives, rng))
            else:
                after = f" {pick(phrases, rng)}"
        looks = " ".join(before)
        name = f"{looks} {noun}{after}".strip()
        several = f"{looks} {words.plural(noun)}{after.replace(' is ', ' are ')}".strip()
        text = vary(pattern, rng).format(n=name, p=several, be=_be(noun))
        text = self._framed(text, noun, kind, pattern)
        ids = () if target is None else (target.thing.id,)
        return Expression(words.once(" ".join(text.split())), kind, ids, meaning)

    def _framed(self, text: str, noun: str, kind: Kind, pattern: str) -> str:
        """With or without article, now and then as a request."""
        rng = self.rng
        share = rng.random()
        if noun.startswith("something"):
            named = text
        elif kind in ("class", "colour", "material", "pattern", "size", "negative") and pattern == "{n}":
            if share < 0.3:
                named = text
            elif share < 0.37 and _countable(noun):
                named = words.indefinite("", text)
            elif share < 0.4:
                named = f"the only {text}"
            else:
                named = f"the {text}"
            if 0.4 <= share < 0.55:
                named = f"{named} {vary(words.WHICH, rng)}"
        else:
            named = text if share < 0.2 and "of the" not in text else f"the {text}"
        if rng.random() < 0.15:
            ask = vary(words.ASK, rng)
            if ask == "where is" and words.is_plural(noun):
                ask = "where are"
            return f"{ask} {named}"
        return named


_MAKERS: dict[Kind, Callable[[_Speaker, Seen], Expression | None]] = {
    "class": _Speaker._class,
    "colour": _Speaker._colour,
    "material": _Speaker._material,
    "pattern": _Speaker._pattern,
    "size": _Speaker._size,
    "position": _Speaker._position,
    "ordinal": _Speaker._ordinal,
    "relation": _Speaker._relation,
    "nearest": _Speaker._nearest,
    "farthest": _Speaker._farthest,
    "comparative": _Speaker._comparative,
}
_COLOUR_NAMES = tuple(words.COLOURS)
_ROAD_NAMES = (*(n for n in words.ROAD_ONLY if n not in words.STRUCTURE), "person")
_ROOM_NAMES = tuple(n for n in words.NOUNS if n not in words.ROAD_ONLY and n not in words.STRUCTURE)


_TWO_COLOURED = ("stripes", "checks", "speckle")


def part_colours(scene: Scene, numbers: Sequence[int]) -> dict[int, set[str]]:
    """Names of the colours of every part that makes up a fifth or more of its thing's surface, by thing."""
    wanted = set(numbers)
    surface: dict[int, dict[int, float]] = {number: {} for number in numbers}
    for part in scene.parts:
        if part.thing in wanted:
            x, y, z = part.size
            of = surface[part.thing]
            of[part.material] = of.get(part.material, 0.0) + x * y + y * z + z * x
    found = {}
    for number, of in surface.items():
        least = 0.2 * sum(of.values())
        large = [scene.materials[m] for m, area in of.items() if area >= least]
        # Panes and tyres are never what the colour of a thing is named after.
        large = [m for m in large if m.name not in ("glass", "rubber")]
        found[number] = {nearest_colour(m.albedo) for m in large}
        found[number] |= {nearest_colour(m.second) for m in large if m.texture in _TWO_COLOURED}
    return found


def _be(noun: str) -> str:
    return "are" if words.is_plural(noun) else "is"


def _countable(noun: str) -> bool:
    return not (words.is_plural(noun) or words.is_mass(noun))


def _counts(one: Seen, target: Seen, meaning: Meaning) -> bool:
    """Whether a person would count it among the things that the target is one of."""
    alike = one.thing.name == target.thing.name
    alike = alike and meaning.colour in ("", one.thing.colour) and meaning.material in ("", one.thing.material)
    return alike and one.area >= 0.0015 and one.shown >= 0.25


def _placed(target: Seen, others: Sequence[Seen], place: Place) -> bool:
    """Whether the target is at this place of the picture and every other thing clearly is not."""
    u, v = target.centroid
    us, vs = [s.centroid[0] for s in others], [s.centroid[1] for s in others]
    match place:
        case "left":
            return u < 0.4 and min(us) > 0.5 and min(us) - u > 2 * _MARGIN
        case "right":
            return u > 0.6 and max(us) < 0.5 and u - max(us) > 2 * _MARGIN
        case "top":
            return v < 0.4 and min(vs) > 0.5 and min(vs) - v > 2 * _MARGIN
        case "bottom":
            return v > 0.6 and max(vs) < 0.5 and v - max(vs) > 2 * _MARGIN
        case "middle":
            return 0.4 < u < 0.6 and all(abs(other - 0.5) > 0.2 for other in us)
        case "leftmost":
            return min(us) - u > _MARGIN and min(s.box[0] for s in others) > target.box[0]
        case "rightmost":
            return u - max(us) > _MARGIN and max(s.box[2] for s in others) < target.box[2]
        case "topmost":
            return min(vs) - v > _MARGIN and min(s.box[1] for s in others) > target.box[1]
        case "bottommost":
            return v - max(vs) > _MARGIN and max(s.box[3] for s in others) < target.box[3]
    return False


def _nearer(a: Seen, b: Seen) -> bool:
    """By the median and by what of each is nearest, both with a margin."""
    return a.depth < 0.87 * b.depth and a.near < 0.95 * b.near


def _bigger(a: Seen, b: Seen) -> bool:
    """Clearly bigger in the world, and not smaller in the picture."""
    volume_a, volume_b = float(np.prod(a.thing.size)), float(np.prod(b.thing.size))
    whole = not (a.truncated or b.truncated) and min(a.shown, b.shown) > 0.6
    return whole and volume_a > 1.7 * volume_b and max(a.thing.size) > max(b.thing.size) and a.area > 1.3 * b.area


def _taller(a: Seen, b: Seen) -> bool:
    """Clearly taller in the world, and in the picture."""
    whole = not (a.truncated or b.truncated) and min(a.shown, b.shown) > 0.6
    in_picture = a.box[3] - a.box[1] > 1.15 * (b.box[3] - b.box[1])
    return whole and a.thing.size[2] > 1.2 * b.thing.size[2] and in_picture


_COMPARE: dict[Extreme, Callable[[Seen, Seen], bool]] = {"nearer": _nearer, "bigger": _bigger, "taller": _taller}
