"""Captions of a frame at four levels, from a few words to distances in metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deixis.world import words
from deixis.world.scene import Frame, Scene, Thing
from deixis.world.visible import RELATIONS, Seen, holds, visible
from deixis.world.words import pick, vary

Rng = np.random.Generator

WORD_LIMIT = 55  # of a caption; with digits and marks it stays within the 77 tokens of CLIP's text encoder
TOKEN_LIMIT = 72
UNSAID = ""  # for a sentence in doubt: it takes its random numbers, so that all else stays as it was without it


@dataclass
class _Voice:
    """How one caption calls things: the same noun for the same class throughout."""

    scene: Scene
    seen: list[Seen]
    rng: Rng
    level: int
    nouns: dict[str, str] = field(default_factory=dict)

    def noun(self, name: str) -> str:
        if name not in self.nouns:
            forms = words.noun_forms(name)
            self.nouns[name] = forms[0] if self.rng.random() < 0.3 else pick(forms, self.rng)
        return self.nouns[name]

    def called(self, noun: str) -> int:
        """How many of all things seen the noun may mean: what is a cushion to one is a pillow to another."""
        return sum(s.thing.name in words.named(noun) for s in self.seen)

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


def caption(frame: Frame, level: int, rng: Rng, seen: list[Seen] | None = None) -> str:
    """A caption that is true of the frame.

    Args:
        frame: what it describes.
        level: 0 a few words; 1 the place, its main things and their colours; 2 everything notable with attributes
            and relations; 3 with distances in words and metres. Levels 0 to 2 hold no metric knowledge.
        rng: chooses the wording.
        seen: ``visible(frame)``, where it is known already.
    """
    seen = visible(frame) if seen is None else seen
    voice = _Voice(frame.scene, seen, rng, level)
    things = _notable(seen)
    if level == 0:
        text = _title(voice, things)
    elif level == 1:
        text = _short(voice, things, frame)
    else:
        text = _long(voice, things, frame)
    return _tidy(text)


def tokens(text: str) -> int:
    """An upper estimate of the tokens that CLIP's tokenizer makes of a text, its two end marks included."""
    count = 2
    for word in text.lower().replace("-", " - ").split():
        letters = "".join(c for c in word if c.isalpha())
        others = len(word) - len(letters)
        count += others + (0 if not letters else 1 if len(letters) <= 8 else 2)
    return count


def _notable(seen: Sequence[Seen]) -> list[Seen]:
    """What is worth a word, the most conspicuous first; structure is told apart by the caller."""

    def weight(one: Seen) -> float:
        u, v = one.centroid
        return one.area * (1.2 - abs(u - 0.5) - 0.4 * abs(v - 0.5))

    return sorted((s for s in seen if s.clear), key=weight, reverse=True)


def _loose(things: Sequence[Seen]) -> list[Seen]:
    return [s for s in things if s.thing.name not in words.STRUCTURE]


def _place(voice: _Voice) -> str:
    return pick(words.place_forms(voice.scene.place or voice.scene.kind), voice.rng)


def _look(voice: _Voice) -> str:
    return words.LOOK_INTO if voice.scene.kind == "room" else words.LOOK_ALONG


def _shot(voice: _Voice) -> str:
    kind = words.INDOOR_SHOT if voice.scene.kind == "room" else words.OUTDOOR_SHOT
    return kind if voice.chance(0.25) else words.SHOT


def _title(voice: _Voice, things: Sequence[Seen]) -> str:
    rng = voice.rng
    slots = {
        "shot": _shot(voice),
        "showing": words.SHOWING,
        "place": _place(voice),
        "a_place": words.indefinite("", _place(voice)),
        "look": _look(voice),
    }
    title = vary(pick(words.TITLES, rng).format(**slots), rng)
    loose = _loose(things)[:4]
    if not loose or voice.chance(0.3):
        return title
    chosen = _sample(loose, 1 + int(voice.chance(0.4)), rng)
    names = list(dict.fromkeys(s.thing.name for s in chosen))
    nouns = [_counted(voice, [s for s in voice.seen if s.thing.name == name], "") for name in names]
    if voice.chance(0.25):
        return " and ".join(nouns)
    return f"{title} with {' and '.join(nouns)}"


def _short(voice: _Voice, things: Sequence[Seen], frame: Frame) -> str:
    """The place and its main things with their colours."""
    rng = voice.rng
    groups = _groups(voice, _loose(things))[: int(rng.integers(2, 5))]
    parts = [_counted(voice, group, _adjectives(voice, group, 1)) + _clothed(voice, group) for group in groups]
    for i, group in enumerate(groups):
        if voice.chance(0.6):
            parts[i] += _purpose(voice, group[0].thing.name)
    if voice.chance(0.3):
        parts += _surfaces(voice, things)[:1]
    text = _joined(voice, _mood(voice, frame), parts)
    return _extend(text, _asides(voice, frame), voice, 0.35, ", ")


def _long(voice: _Voice, things: Sequence[Seen], frame: Frame) -> str:
    """Everything notable with attributes and relations; at level 3 with distances."""
    rng = voice.rng
    budget = WORD_LIMIT - int(rng.integers(0, 15))
    groups = _groups(voice, _loose(things))
    parts: list[str] = []
    length = 12
    for group in groups:
        part = _described(voice, group)
        length += len(part.split()) + 1
        if length > budget and len(parts) >= 2:
            break
        parts.append(part)
    surfaces = _surfaces(voice, things)[:2]
    if surfaces and voice.chance(0.6):
        parts += surfaces
    while len(parts) > 2 and tokens(" ".join(parts)) > TOKEN_LIMIT - 18:
        parts.pop(len(parts) // 2)
    text = _joined(voice, _mood(voice, frame), parts)
    while len(parts) > 1 and not _fits(text):
        parts.pop()
        text = _joined(voice, "", parts)
    more = _relations(voice, things)
    if voice.level == 3:
        more = _spans(voice, frame, things) + more
    text = _extend(text, more, voice, 0.75)
    return _extend(text, _asides(voice, frame), voice, 0.25, ", ")


def _fits(text: str) -> bool:
    return len(text.split()) <= WORD_LIMIT and tokens(text) <= TOKEN_LIMIT


def _extend(text: str, sentences: Sequence[str], voice: _Voice, share: float, mark: str = ". ") -> str:
    """The text with further sentences while they fit."""
    for sentence in sentences:
        longer = f"{text}{mark}{sentence}"
        if voice.chance(share) and sentence != UNSAID and _fits(longer):
            text = longer
    return text


def _joined(voice: _Voice, mood: str, parts: Sequence[str]) -> str:
    """Place and things in one of many sentence patterns."""
    rng = voice.rng
    place = _place(voice)
    slots = {
        "shot": _shot(voice),
        "showing": words.SHOWING,
        "place": f"{mood} {place}".strip(),
        "a_place": words.indefinite(mood, place),
        "look": _look(voice),
        "where": words.whereabouts(place, voice.scene.kind),
        "with": words.WITH if voice.scene.kind == "room" else words.ROAD_WITH,
        "there": words.THERE,
        "kind": words.INDOORS if voice.scene.kind == "room" else words.OUTDOORS,
        "list": "\0",  # kept out of ``vary``
    }
    if not parts:
        return vary(pick(words.OPENINGS, rng).format(**slots), rng)
    slots["opening"] = pick(words.OPENINGS, rng).format(**slots)
    pattern = pick(words.PATTERNS_OF_LISTS, rng) if voice.chance(0.85) else pick(words.LISTS, rng)
    if len(parts) < 2 and pattern == words.LISTS[1]:
        pattern = words.LISTS[0]
    text = vary(pattern.format(**slots), rng)
    if not parts[0].startswith(("a ", "an ")) and "\0" in text:
        for single, many in words.AGREEING:
            text = text.replace(f"{single} \0", f"{many} \0")
    return text.replace("\0", _listed(parts, rng))


def _listed(parts: Sequence[str], rng: Rng) -> str:
    if len(parts) == 1:
        return parts[0]
    last = pick(words.AND, rng)
    return ", ".join(parts[:-1]) + last + parts[-1]


def _groups(voice: _Voice, things: Sequence[Seen]) -> list[list[Seen]]:
    """Things of one class and look together, in the order of their first."""
    groups: dict[tuple[str, ...], list[Seen]] = {}
    for one in things:
        t = one.thing
        groups.setdefault((t.name, t.colour, t.material, t.pattern), []).append(one)
    return list(groups.values())


def _counted(voice: _Voice, group: Sequence[Seen], adjectives: str) -> str:
    """``a red chair`` or ``three red chairs``; a count only where nobody could count otherwise."""
    name = group[0].thing.name
    noun = voice.noun(name)
    if len(group) == 1:
        return words.indefinite(adjectives, noun)
    same = [s for s in voice.seen if s.thing.name == name]
    hidden = any(not s.clear for s in same)
    many = f"{adjectives} {words.plural(noun)}".strip()
    if words.is_mass(noun) or words.is_plural(noun):
        return f"some {many}" if words.is_plural(noun) else many
    if any(_means(adjectives, group[0].thing, s.thing) for s in same if s not in group):
        return f"some {many}"
    if hidden and adjectives == "":
        return vary(f"{words.SEVERAL if len(same) > 2 else 'some'} {many}", voice.rng)
    if hidden and len(group) < 3:
        return f"some {many}"
    return vary(f"{words.SEVERAL} {many}", voice.rng) if hidden else f"{words.number(len(group))} {many}"


def _means(adjectives: str, one: Thing, other: Thing) -> bool:
    """Whether words for the look of one thing fit another of its class: adjectives leave out what they like."""
    looks = (
        (words.colour_forms(one.colour), words.colour_forms(other.colour)),
        (words.material_forms(one.material)[0], words.material_forms(other.material)[0]),
        (words.pattern_forms(one.pattern)[0], words.pattern_forms(other.pattern)[0]),
    )
    for mine, theirs in looks:
        said = max((form for form in mine if form and form in adjectives), key=len, default="")
        # Dark brown is brown as well.
        if not any(said in form for form in theirs):
            return False
    return True


def _adjectives(voice: _Voice, group: Sequence[Seen], level: int) -> str:
    """Colour, and from level 2 size, pattern and material, where all of the group share them."""
    rng, t = voice.rng, group[0].thing
    found = []
    builds = {s.thing.build for s in group}
    if level >= 2 and t.build and len(builds) == 1 and voice.chance(0.7):
        found.append(pick(words.BUILDS[t.build], rng))
    if level >= 2 and t.pattern and voice.chance(0.8):
        found.append(pick(words.pattern_forms(t.pattern)[0], rng))
    if t.colour and t.name not in words.WEARERS and voice.chance(0.9):
        forms = words.colour_forms(t.colour)
        found.append(forms[0] if voice.chance(0.3) else pick(forms, rng))
    if level >= 2 and t.material and t.name not in words.SILENT and voice.chance(0.6):
        found.append(pick(words.material_forms(t.material)[0], rng))
    return " ".join(found)


def _clothed(voice: _Voice, group: Sequence[Seen]) -> str:
    """What people wear; empty for all else."""
    t = group[0].thing
    if t.name not in words.WEARERS or not t.colour or voice.chance(0.2):
        return ""
    return f" {vary(words.WEARING, voice.rng)} {pick(words.colour_forms(t.colour), voice.rng)}"


def _described(voice: _Voice, group: Sequence[Seen]) -> str:
    """A group with attributes, what holds it and where it is; at level 3 also how far."""
    rng, one = voice.rng, group[0]
    text = _counted(voice, group, _adjectives(voice, group, 2)) + _clothed(voice, group)
    if voice.chance(0.2):
        text += _purpose(voice, one.thing.name)
    if len(group) > 1:
        if voice.level == 3 and voice.chance(0.6):
            low, high = min(s.depth for s in group), max(s.depth for s in group)
            if high < 1.1 * low:
                return f"{text} {_distance(voice, 0.5 * (low + high))}"
            return f"{text} from {_digits(low)} to {_digits(high)} {vary(words.METRES, rng)} away"
        return text
    held = _held(voice, one)
    if held and voice.chance(0.55):
        text += f" {held}"
    if voice.level == 3 and voice.chance(0.85):
        text += f" {_distance(voice, one.depth)}"
    side = _side(one)
    if side and voice.chance(0.45):
        text += f" {vary(words.SIDES[side], rng)}"
    return text


def _held(voice: _Voice, one: Seen) -> str:
    """``standing on a desk``, ``hanging on the wall``; empty where what holds it is not seen."""
    rng = voice.rng
    under = next((s for s in voice.seen if s.thing.id == one.thing.on), None)
    if under is None or not under.clear or one.thing.mount == "structure" or not holds("on", one, under):
        return ""
    noun = voice.noun(under.thing.name)
    unique = voice.called(noun) == 1 or under.thing.name in ("wall", "floor")
    other = f"the {noun}" if unique else f"one of the {words.plural(noun)}"
    if words.is_mass(noun):
        other = f"the {noun}"
    if one.thing.mount == "hanging":
        verb, how = words.HANGS, words.HELD_WORDS.get(under.thing.name, "on")
    else:
        verb, how = (words.LIES if one.thing.name in _FLAT else words.STANDS), "on"
        if one.thing.name in words.RISING:
            verb = words.RISES
        if under.thing.name not in words.STRUCTURE:
            how = words.RELATION_WORDS["on"]
    return vary(f"{verb} {how} {other}" if voice.chance(0.7) else f"{how} {other}", rng)


_FLAT = frozenset(words.split("pillow|cushion|blanket|towel|paper|book|clothes|floor mat|rug|keyboard|bag|soap"))


def _side(one: Seen) -> str:
    """Where it clearly is in the picture; empty where that would be argued."""
    u, v = one.centroid
    x0, _, x1, _ = one.box
    if x1 - x0 > 0.55:
        return ""
    if u < 0.36 and x1 < 0.6:
        return "left"
    if u > 0.64 and x0 > 0.4:
        return "right"
    if 0.43 < u < 0.57 and x1 - x0 < 0.45:
        return "middle"
    return "top" if v < 0.22 else "bottom" if v > 0.8 else ""


def _surfaces(voice: _Voice, things: Sequence[Seen]) -> list[str]:
    """``beige walls``, ``a wooden floor``, ``a grey road``."""
    found = []
    for name in ("wall", "floor", "road", "pavement", "grass", "field", "ceiling", "hill", "kerb"):
        group = [s for s in things if s.thing.name == name]
        if not group:
            continue
        same = len({(s.thing.colour, s.thing.material, s.thing.pattern) for s in group}) == 1
        looks = _adjectives(voice, group, 2) if same else ""
        noun = voice.noun(name)
        if len(group) > 1 and not words.is_mass(noun):
            found.append(f"{looks} {words.plural(noun)}".strip())
        else:
            found.append(words.indefinite(looks, noun))
    return [found[i] for i in voice.rng.permutation(len(found))]


def _relations(voice: _Voice, things: Sequence[Seen]) -> list[str]:
    """Sentences on how things lie to each other; only between things that are the only ones of their class."""
    rng = voice.rng
    count: dict[str, int] = {}
    for s in voice.seen:
        count[s.thing.name] = count.get(s.thing.name, 0) + 1
    told: set[tuple[int, int]] = set()
    single = [s for s in _loose(things) if count[s.thing.name] == 1][:7]
    found = []
    for i in rng.permutation(len(single) ** 2)[:24]:
        a, b = single[i // len(single)], single[i % len(single)]
        if a is b or (b.thing.id, a.thing.id) in told:
            continue
        for j in rng.permutation(len(RELATIONS)):
            relation = RELATIONS[int(j)]
            if holds(relation, a, b):
                sentence = _relation(voice, a, b, relation)
                alone = all(voice.called(voice.noun(one.thing.name)) == 1 for one in (a, b))
                found.append(sentence if alone else UNSAID)
                told.add((a.thing.id, b.thing.id))
                break
        if len(found) == 3:
            break
    return found


def _relation(voice: _Voice, a: Seen, b: Seen, relation: str) -> str:
    first, second = voice.noun(a.thing.name), voice.noun(b.thing.name)
    be = "are" if words.is_plural(first) else "is"
    stand = f"{be} {words.FOUND}"
    how = words.RELATION_WORDS[relation]
    if voice.chance(0.2) and relation in ("left", "right", "front", "behind", "next"):
        return vary(f"{how} the {second} {be} the {first}", voice.rng)
    return vary(f"the {first} {stand} {how} the {second}", voice.rng)


def _purpose(voice: _Voice, name: str) -> str:
    options = words.PURPOSES.get(name)
    if not options:
        return ""
    frame = pick(words.FOR, voice.rng)
    return f" {frame} {pick(options, voice.rng)}"


def _mood(voice: _Voice, frame: Frame) -> str:
    """An adjective for the picture's light, where it is plain."""
    if not voice.chance(0.3):
        return ""
    mean = float(frame.rgb[::8, ::8].mean())
    if mean < 70:
        return vary(words.DARK, voice.rng)
    return vary(words.BRIGHT, voice.rng) if mean > 165 else ""


def _asides(voice: _Voice, frame: Frame) -> list[str]:
    """True remarks on viewpoint, weather, tone and what is absent, in any order."""
    rng, view = voice.rng, frame.scene.view
    found = []
    rise = view.rotation[2][2]  # the viewing direction's height
    if rise < -0.3:
        found.append(words.DOWN)
    if rise > 0.2:
        found.append(words.UP)
    if frame.scene.weather:
        found.append(pick(words.weather_forms(frame.scene.weather), rng))
    red, _, blue = (float(c) for c in frame.rgb[::8, ::8].reshape(-1, 3).mean(axis=0))
    if abs(red - blue) > 18:
        found.append(words.WARM if red > blue else words.COOL)
    if view.noise > 0.03:
        found.append(words.GRAINY)
    if view.blur_px > 1.2:
        found.append(words.BLURRY)
    names = {s.thing.name for s in voice.seen}
    if not names & {"person", "pedestrian"}:
        found.append(words.NOBODY)
    if frame.scene.kind == "road" and not names & set(words.HYPERNYMS["vehicle"]):
        found.append(words.NO_TRAFFIC)
    return [vary(found[i], rng) for i in rng.permutation(len(found))]


def _distance(voice: _Voice, metres: float) -> str:
    """``2.1 m away``, ``about four metres from here``, ``close by``."""
    rng = voice.rng
    vague = words.CLOSE if metres < 1.3 else words.FAR if metres > 25 else ""
    if vague and voice.chance(0.25):
        return vary(vague, rng)
    kind = rng.random()
    spoken = _spoken(metres)
    if kind < 0.45 and spoken:
        length = f"{words.ABOUT if voice.chance(0.75) else 'at'} {spoken} (metres|meters)"
    else:
        length = f"{_digits(metres)} {words.METRES}"
        if voice.chance(0.3):
            length = f"{words.ABOUT} {length}"
    if " one metre" in f" {spoken}":
        length = f"{words.ABOUT} one (metre|meter)"
    return vary(f"{length} {words.AWAY}".replace("at at", "at"), rng)


def _digits(metres: float) -> str:
    return f"{metres:.1f}" if metres < 10 else f"{metres:.0f}"


def _spoken(metres: float) -> str:
    """A round number of metres in words, where that is true within 7 per cent; empty otherwise."""
    half = round(2 * metres) / 2
    if metres < 6 and half >= 0.5 and abs(half - metres) <= 0.07 * metres:
        whole, rest = int(half), half - int(half)
        if whole == 0:
            return ""
        if rest:
            return f"{words.number(whole)} and a half"
        return "one metre" if whole == 1 else words.number(whole)
    whole = round(metres)
    if 6 <= metres <= 20.4 and abs(whole - metres) <= 0.07 * metres:
        return words.number(whole)
    tens = 10 * round(metres / 10)
    return words.TENS.get(tens, "") if abs(tens - metres) <= 0.07 * metres else ""


def _spans(voice: _Voice, frame: Frame, things: Sequence[Seen]) -> list[str]:
    """Metric remarks on the whole: the far wall, how deep the view reaches."""
    rng = voice.rng
    found, doubtful = [], UNSAID
    walls = [s for s in things if s.thing.name == "wall"]
    if frame.scene.kind == "room" and len(walls) > 1:
        far = max(walls, key=lambda s: s.depth)
        if far.area > 0.04:
            found.append(words.FAR_WALL.format(distance=_measure(voice, far.depth)))
    loose = _loose(things)
    if len(loose) > 1:
        near = min(loose, key=lambda s: s.depth)
        # Rivals are also those that the frame cuts off, too little of which is seen to be named.
        rivals = [s for s in _loose(voice.seen) if s is not near]
        if all(s.thing.name != near.thing.name and s.depth > 1.15 * near.depth for s in rivals):
            noun = voice.noun(near.thing.name)
            be = "are" if words.is_plural(noun) else "is"
            found.append(words.NEAREST.format(be=be, n=noun, distance=_measure(voice, near.depth)))
            if not all(s.near > near.near for s in rivals):  # a table begins before the bowl that stands on it
                doubtful = found[-1]
    deepest = float(frame.depth.max())
    if frame.scene.kind == "room":
        found.append(words.WITHIN.format(metres=f"{np.ceil(deepest * 1.02 + 0.05):.0f}"))
        if deepest < 2.6:
            found.append(words.SMALL_DEPTH)
        elif deepest > 8:
            found.append(words.LARGE_DEPTH)
    elif deepest > 40:
        found.append(words.REACH.format(metres=10 * int(deepest / 10.5)))
    told = [(found[i], vary(found[i], rng)) for i in rng.permutation(len(found))]
    return [UNSAID if pattern == doubtful else text for pattern, text in told]


def _measure(voice: _Voice, metres: float) -> str:
    spoken = _spoken(metres)
    if spoken and "metre" not in spoken and voice.chance(0.5):
        return f"{words.ABOUT} {spoken} (metres|meters) {words.AWAY}"
    return f"{_digits(metres)} {words.METRES} {words.AWAY}"


def _sample(things: Sequence[Seen], count: int, rng: Rng) -> list[Seen]:
    return [things[int(i)] for i in rng.permutation(len(things))[:count]]


def _tidy(text: str) -> str:
    text = words.once(" ".join(text.split()))
    return text.replace(" ,", ",").replace(" .", ".").replace("..", ".")
