"""Known distances in words and numbers: "the door is 2.0 m away", ``120,80=2.0``.

The language is English. Lengths are numbers with a unit; without one, a point's are metres, and a sentence is refused.
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
_NUMBER = r"[-+]?(?:\d+(?:[.,]\d+)?|\.\d+)"
_PART = rf"{_NUMBER}\s*-?(?:{'|'.join(_UNITS)})(?![a-z])"
# Two parts make "6 feet 2 inches".
_LENGTH = rf"(?P<length>{_PART}(?:(?:,| and)?\s*{_PART})?)"
_ABOUT = r"(?:(?:about|around|roughly|approximately|exactly|some|only|at|in) )*"
_FROM_HERE = r"(?: (?:from|in front of|to) (?:me|us|here|the (?:camera|viewer|lens|observer|photographer)))?"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:the )?(?:distance|depth) (?:to|of|from) (?P<name>.+?)(?: is|:| =|=) ?{_ABOUT}{_LENGTH}(?: away)?",
        rf"(?:it is |it's |there are )?{_ABOUT}{_LENGTH} (?:from (?:me|us|here|the camera) )?to (?P<name>.+)",
        rf"(?P<name>.+?)(?: is| are|'s| stands?| lies?|:| =|=)? ?{_ABOUT}{_LENGTH}"
        rf"(?: (?:away|off|far|distant|deep))?{_FROM_HERE}",
    )
)
_POINT = re.compile(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*=\s*(?:{_LENGTH}|(?P<metres>{_NUMBER}))\s*", re.IGNORECASE)
_SAY = "say for example 'the door is 2.0 m away'"


def parse_known(text: str) -> tuple[str, float]:
    """What a sentence names, and how far away it is [m].

    Args:
        text: "the door is 2.0 m away", "the red chair: 180 cm", "6 feet 2 inches to the lamp".

    Raises:
        UsageError: if it does not say that, or the distance is not above 0.
    """
    words = " ".join(text.replace("\u2019", "'").split()).rstrip(".!")
    for pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is not None:
            name = match["name"].strip(" ,;:")
            # "The 19 inch screen" is a name; "the door is 2 m or" is not.
            if not any(map(str.isalpha, name)) or re.search(rf"\b(?:is|are)\b.*{_PART}", name, re.IGNORECASE):
                break
            return name, _checked(text, _metres(match["length"]))
    raise UsageError(quoted(text), "is not understood as one thing and its distance with a unit", _SAY)


def parse_known_point(text: str) -> tuple[float, float, float]:
    """Column and row [px] and distance [m] of ``X,Y=METRES``; the distance may have a unit of its own.

    Raises:
        UsageError: if it is something else, or the distance is not above 0.
    """
    match = _POINT.fullmatch(text)
    if match is None:
        raise UsageError(quoted(text), "is no point with its distance", "write X,Y=METRES, for example 120,80=2.0")
    metres = _metres(match["length"]) if match["length"] else float(match["metres"].replace(",", "."))
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


def _metres(length: str) -> float:
    total = 0.0
    for number, unit in re.findall(rf"({_NUMBER})\s*-?({'|'.join(_UNITS)})(?![a-z])", length, re.IGNORECASE):
        scale = next(scale for names, scale in _UNITS.items() if re.fullmatch(names, unit, re.IGNORECASE))
        total += float(number.replace(",", ".")) * scale
    return total


def _checked(text: str, metres: float) -> float:
    if not (metres > 0 and math.isfinite(metres)):
        raise UsageError(quoted(text), f"states a distance of {metres:g} m", "state one above 0")
    return metres
