"""Known distances in words and numbers: "the door is 2.0 m away", ``120,80=2.0``.

The language is English. Lengths are numbers with a unit; without one, a point's are metres, and a sentence is refused.
So are negations, bounds and ranges, which state no distance, and numbers that can be read in two ways.
"""

from __future__ import annotations

import math
import re

from deixis.errors import KindError, UsageError, quoted

# Metres of each unit.
_UNITS = {
    r"m|met(?:er|re)s?": 1.0,
    r"cm|centimet(?:er|re)s?": 0.01,
    r"mm|millimet(?:er|re)s?": 0.001,
    r"km|kilomet(?:er|re)s?": 1000.0,
    r"ft|feet|foot|'|\u2032": 0.3048,
    r"in|inch(?:es)?|\"|\u2033": 0.0254,
    r"yd|yards?": 0.9144,
}
_PLAIN = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
# All that looks like a number is taken whole, so that no name ends in half of one. "1,500" and "0,500" differ.
_NUMBER = r"[-+]?(?:\d{1,3}(?: \d{3})+|(?:\d[\d.,]*)?\d|\.\d+)(?:e[-+]?\d+)?"
_DECIMAL = re.compile(rf"{_PLAIN}|[-+]?(?:\d+,(?!\d{{3}}$)\d+|0+,\d+)")
_UNIT = rf"(?:{'|'.join(_UNITS)})(?![a-z])"
_PART = rf"{_NUMBER}\s*-?{_UNIT}"
# Two parts make "6 feet 2 inches".
_LENGTH = rf"(?<![\w.,+-])(?P<length>{_PART}(?:(?:,| and)?\s*{_PART})?)"
_ABOUT = r"(?:(?:about|around|roughly|approximately|approx\.?|nearly|almost|exactly|some|only|at|in) |~ ?)*"
# Before a length these say what the distance is not.
_BOUND = re.compile(
    r"(?:\b(?:not|never|between|than|over|under|above|below|beyond|within|least|most|up to)|n't|[<>\u2264\u2265])"
    rf" ?{_ABOUT}{_NUMBER}\s*-?(?:{_UNIT}|and\b|to\b|or\b|-)",
    re.IGNORECASE,
)
_RANGE = re.compile(rf"{_NUMBER}\s*(?:{_UNIT})?\s*(?:-|\bto\b|\bor\b)\s*{_PART}", re.IGNORECASE)
_HERE = r"(?:me|us|here|the (?:camera|viewer|lens|observer|photographer))"
_FROM_HERE = rf"(?: (?:from|in front of|to) {_HERE})?"
# The distance from one thing to another is none from the camera; a chair "next to" the bed is one thing.
_FROM_ONE = rf"from(?! .+(?<! next)(?<! close) to (?!{_HERE}))"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:the )?(?:distance|depth) (?:from {_HERE} to|between {_HERE} and|to|of|{_FROM_ONE}) (?P<name>.+?)"
        rf"(?: (?:from|to) {_HERE})?(?: is|:| =|=) ?{_ABOUT}{_LENGTH}(?: away)?",
        rf"(?:it is |it's |there are )?{_ABOUT}{_LENGTH} (?:from {_HERE} )?to (?P<name>.+)",
        r"(?!(?:the )?(?:distance|depth) (?:to|of|from|between) )"
        rf"(?P<name>.+?)(?P<verb> is| are|'s| stands?| lies?|:| =|=)? ?{_ABOUT}{_LENGTH}"
        rf"(?: (?:away|off|far|distant|deep))?{_FROM_HERE}",
    )
)
_POINT = re.compile(rf"\s*({_PLAIN})\s*,\s*({_PLAIN})\s*=\s*(?:{_LENGTH}|(?P<metres>{_NUMBER}))\s*", re.IGNORECASE)
_SAY = "say for example 'the door is 2.0 m away'"


def parse_known(text: str) -> tuple[str, float]:
    """What a sentence names, and how far away it is [m].

    Args:
        text: "the door is 2.0 m away", "the red chair: 180 cm", "6 feet 2 inches to the lamp".

    Raises:
        UsageError: if it does not say that, or the distance is not above 0.
    """
    words = " ".join(_plain(text).split()).rstrip(".!")
    for pattern, what in ((_BOUND, "a bound or a negation"), (_RANGE, "a range")):
        if pattern.search(words):
            raise UsageError(quoted(text), f"is not understood as one distance: it states {what}", _SAY)
    for pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is not None:
            name = match["name"].strip(" ,;:-")
            if not any(map(str.isalpha, name)) or _is_sentence(name, match.groupdict().get("verb", "")):
                break
            return name, _checked(text, _metres(text, match["length"]))
    raise UsageError(quoted(text), "is not understood as one thing and its distance with a unit", _SAY)


def parse_known_point(text: str) -> tuple[float, float, float]:
    """Column and row [px] and distance [m] of ``X,Y=METRES``; the distance may have a unit of its own.

    Raises:
        UsageError: if it is something else, or the distance is not above 0.
    """
    match = _POINT.fullmatch(_plain(text))
    if match is None:
        raise UsageError(quoted(text), "is no point with its distance", "write X,Y=METRES, for example 120,80=2.0")
    metres = _metres(text, match["length"]) if match["length"] else _number(text, match["metres"])
    return float(match[1]), float(match[2]), _checked(text, metres)


def check_calibration(known: bool, metric: bool) -> None:
    """Whether there is one thing to calibrate by, or none.

    Raises:
        UsageError: if there are known distances and a metric system.
    """
    if known and metric:
        raise UsageError(
            "known distances and a metric system", "both say what the metres are", "calibrate by either of them"
        )


def no_metres(label: str, kind: str) -> KindError:
    """The error of a depth system without metres where there is nothing to calibrate it by; it names the ways out."""
    return KindError(
        label,
        f"gives {kind} depth, which has no metres",
        "state a known distance (--known 'the door is 2.0 m away', --known-point X,Y=METRES), name a metric system to"
        " calibrate it by (--metric-model evp-depth-mini), or ask one",
    )


def _plain(text: str) -> str:
    """``text`` with the signs that keyboards have."""
    return text.replace("\u2019", "'").replace("\u2212", "-").replace("\u2013", "-")


def _is_sentence(name: str, verb: str | None) -> bool:
    """Whether what stands before a length says more than a name does.

    "The 19 inch screen" and "the man who is sitting" are names; "the door is 2 m or" and "the door is hardly" are not.
    """
    if re.search(rf"\b(?:is|are)\b.*{_PART}", name, re.IGNORECASE):
        return True
    return verb is None and bool(re.search(r"^(?!.*\b(?:who|which|that)\b).*\b(?:is|are)\b", name, re.IGNORECASE))


def _metres(text: str, length: str) -> float:
    total, last = 0.0, math.inf
    for number, unit in re.findall(rf"({_NUMBER})\s*-?({_UNIT})", length, re.IGNORECASE):
        scale = next(scale for names, scale in _UNITS.items() if re.fullmatch(names, unit, re.IGNORECASE))
        if scale >= last:  # "2 m and 4 m"
            raise UsageError(quoted(text), "states more than one distance", _SAY)
        total, last = total + _number(text, number) * scale, scale
    return total


def _number(text: str, number: str) -> float:
    if not _DECIMAL.fullmatch(number):
        doubt = "can be read in two ways" if "," in number else "is no plain number"
        raise UsageError(quoted(text), f"says '{number}', which {doubt}", "write it like 1500 or 1.5")
    return float(number.replace(",", "."))


def _checked(text: str, metres: float) -> float:
    if not (metres > 0 and math.isfinite(metres)):
        raise UsageError(quoted(text), f"states a distance of {metres:g} m", "state one above 0")
    return metres
