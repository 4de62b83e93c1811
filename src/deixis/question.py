"""What a question asks: which things it names, and whether it compares them.

The language is English, as typed: a question ("how far is the red chair?"), a request ("tell me the
distance to the door") or a bare phrase ("the red chair"). A phrase in any other language is taken as one
referring expression and handed on unchanged.

The grammar is the table ``_PATTERNS``: one line per shape of question, tried from the top. Everything a
question says besides naming things ("please", "in metres", "from the camera") is dropped; the names
themselves are kept as the user wrote them, article included.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deixis.errors import UsageError, quoted

QuestionKind = Literal["distance", "nearer", "farther", "gap"]

MAX_LENGTH = 1000
"""Longest question read [characters]; far above any text encoder's limit."""

_EXAMPLE = "ask for example 'how far is the red chair?' or 'which is nearer, the lamp or the sofa?'"


@dataclass(frozen=True)
class Question:
    """A question about distance, read.

    Attributes:
        text: the question as asked.
        kind: ``distance``: how far one thing is; ``nearer`` or ``farther``: which of two things is;
            ``gap``: two things, none preferred ("distance between the bed and the window"). Whatever the
            kind, two things are answered by their two distances from the camera and by the difference of
            these depths; the length of the line from one thing to the other is not estimated.
        referents: one or two referring expressions, in the order and in the words of the user.
    """

    text: str
    kind: QuestionKind
    referents: tuple[str, ...]


# --- words ----------------------------------------------------------------------------------------------

_NEARER = "nearer|closer|nearest|closest|less far|less distant"
_FARTHER = "farther|further|farthest|furthest|more distant"
_ARTICLE = "the|an?|my|your|his|her|its|our|their|this|that|these|those|another|some"
_UNIT = r"(?:centi|kilo)?met(?:er|re)s?|feet|foot|ft|inch(?:es)?|yards?|cm|m"
_COLOUR = "black|white|red|green|blue|yellow|brown|gr[ae]y|orange|pink|purple|beige|silver|gold|golden|dark|light"

_PRONOUN = "i|me|us|we|you|it|here|there|myself|each other|one another"

# The camera, however it is called; what is asked about it is a plain distance. Pronouns stand in the same
# place without naming anything: "how far is it from the bed", "how far are they from each other".
_CAMERA = (
    rf"{_PRONOUN}|(?:the|my|this|our) (?:camera|viewer|observer|lens|photographer|position|viewpoint|spot)"
    "|(?:where )?(?:i|we|you)(?:'m|'re| am| are)?(?: stand| standing| sit| sitting)?"
)

# Macros of the pattern table. <a>, <b> and <list> capture names; <order> captures the comparative.
_MACROS = {
    "<a>": "(?P<a>.+?)",
    "<b>": "(?P<b>.+?)",
    "<list>": "(?P<list>(?!to |from |than ).+?)",
    "<be>": "(?:is|are|am|was|were)",
    "<is>": "(?: is| are| am| was| were|'s|'re|'m)",
    # The verb in a relative clause ("the man that is sitting") is not the verb of the question.
    "<main is>": r"(?<!\bthat)(?<!\bwhich)(?<!\bwho)(?: is| are| am|'s|'re|'m)",
    "<main>": (
        "(?<! that is)(?<! which is)(?<! who is)(?<! that are)(?<! which are)(?<! who are)(?<! that's)(?<! who's)"
    ),
    "<away>": "(?:(?<!further)(?<!farther) away)?",
    "<far>": "(?:far|close|near|distant)(?: away| off| out| back)?",
    "<close>": "(?:close|near)",
    # "The second chair from the left" is one name; the chair "next to" the bed is one name too.
    "<from>": (
        r"<away> from (?!(?:the )?(?:far )?(?:left|right|top|bottom|front|back|end)"
        r"(?: side| edge| end)?(?:$| (?:from|in|on)\b))"
    ),
    "<to>": (
        r"(?<!\bnext)(?<!\bclose)(?<!\bcloser)(?<!\bclosest)(?<!\bnear)(?<!\bnearer)(?<!\bnearest)"
        r"(?<!\badjacent) to "
    ),
    "<camera>": f"(?:{_CAMERA})",
    "<pronoun>": "(?:it|that|this|they|those|he|she)",
    "<article>": f"(?:{_ARTICLE})",
    "<comparative>": f"(?:{_NEARER}|{_FARTHER})(?: away| off| back)?",
    "<order>": (
        rf"(?:the |a bit |a little |much |any )?(?P<order>{_NEARER}|{_FARTHER})(?: one)?"
        rf"(?: or (?:{_NEARER}|{_FARTHER}))?(?: away| off| back)?(?: (?:to|from) (?:{_CAMERA}))?"
    ),
    "<which>": "(?:which|what|who)",
    "<of them>": "(?: of (?:them|these|those|the two))?",
    "<what>": "(?:what<is>|what would be|what|how (?:big|large|wide|great|long|much)(?:<is>)?)",
    "<distance>": (
        "(?:<what> )?(?:the |a )?(?:exact |approximate |rough )?(?:distance|depth)(?:<is>)?(?: there)?(?: away)?"
    ),
    "<gap>": "(?:gap|space|separation|depth difference|difference in (?:depth|distance))",
}

_PATTERNS = (
    # Which of two is nearer or farther.
    r"<which>(?: (?P<noun>[\w-]+))??<of them><is> <order>[,:;-]* (?:between |of )?<list>",
    "<which>(?: one| thing| object)? of <list><is> <order>",
    "(?:between |of )?<list>[-,:;.?]* <which>(?: one)?<of them><is> <order>",
    "<order>[,:;] <list>",
    "<be> <a><main> <order> than <b>",
    "<be> <a><main> <order>,? or(?: is)? <b>",
    "<be> <list><main> <order>",
    "<be> it <list> that<is> <order>",
    "(?:if|whether) <a><main is> <order> than <b>",
    "(?:if|whether) <list><main is> <order>",
    # By how much, and other questions for the gap between two.
    "(?:by )?how much<is> <a> <comparative> than <b>",
    "(?:by )?how much <comparative><is> <a> than <b>",
    "(?:by )?how much <comparative> <a><is> than <b>",
    "how <far> (?:apart|together)(?: in depth)?<is> <list>(?: in depth)?",
    "how <far> (?:apart|together)(?: in depth)? <list><is>",
    "how <far><is> <list> apart(?: in depth)?",
    "how <far> (?:behind|in front of|beyond|past) <a><main is> <b>",
    "<what> (?:the |a )?<gap>(?:<is>)?(?: there)? between <list>",
    "(?:the )?(?:<gap> in depth|depth difference|difference in (?:depth|distance)) between <list>",
    "compare <list>",
    # The distance, by its name.
    "<distance>(?: in depth)? between <list>(?: in depth)?(?: is)?",
    "<distance> to <a><from><b>",
    "<distance> (?:of|from) <a><to><b>",
    "<distance> (?:of|from) <a><from><b>",
    "<distance> (?:of|to|from|for|till|until) <a>(?: is)?",
    "(?:what<is> )?<a>'s? (?:distance|depth)(?: (?:from|to) <b>)?",
    "(?:at )?(?:what|which) (?:distance|depth)<is> <a><from><b>",
    "(?:at )?(?:what|which) (?:distance|depth)<is> <a>(?: at)?",
    "what <a>'s? (?:distance|depth)<is>",
    # How far.
    "how <far>(?:<is>(?: it| there)?)? between <list>",
    "how <far>(?:<is> it| it<is>)? from <a><to><b>",
    "how <far> from <a><main is> <b>",
    "how <close> to <a><main is> <b>",
    "how <far>(?:<is>(?: it| there)?| it<is>)? (?:to|from|till|until) <a>",
    "how <far><is> <a><from><b>",
    "how <far><is> <a><to><camera>",
    "how <close><is> <a><to><b>",
    "how <far><is> <a><away>",
    "how <far> <a><main is><from><b>",
    "how <close> <a><main is><to><b>",
    "how <far> <a><is><away>",
    "how <far> (?P<a><article> .+)",
    "how <far> (?:do|must|would) <camera> (?:(?:have|need) to )?(?:walk|go|move) (?:to|from) <a>",
    "<a>[-,:;.?!]+ how <far>(?:<is> <pronoun>| <pronoun><is>)?",
    "<be> <a> (?:far(?: away)? from|close to|near(?: to)?) <b>",
    "<be> <a> (?:very |too |that |equally )?(?:<far>|nearby|close by)",
    # Where.
    "where(?:abouts)?<is> <a>",
    "where(?:abouts)? <a><is>",
    "where (?:can|do) <camera> (?:find|see) <a>",
    "(?:what|how) about <a>",
    # A statement to be checked.
    "<a><main is> <order> than <b>",
)


def _compile(pattern: str) -> re.Pattern[str]:
    """A line of the table as a regular expression: macros, and the macros within them, spelt out."""
    while (spelt := re.sub(r"(?<!P)<[a-z ]+>", lambda macro: _MACROS[macro[0]], pattern)) != pattern:
        pattern = spelt
    return re.compile(pattern, re.IGNORECASE)


_GRAMMAR = tuple(_compile(pattern) for pattern in _PATTERNS)

# What people wrap around a question. After a request to say something only a question makes sense ("tell me
# a joke" names nothing to look for); after a request to find something a bare name does.
_GREETING = re.compile(
    r"(?:hi|hello|hey|ok|okay|so|please|excuse me|and|but|now)\b[,!.:]* |well[,!.:]+ |(?:question|distance): "
    rf"|in (?:{_UNIT})[,:]? |(?:about|roughly|approximately|exactly|just) ",
    re.IGNORECASE,
)
_SAY = re.compile(
    r"(?:(?:can|could|would|will) (?:you|we) (?:please )?)?(?:tell me|tell|say|let me know)(?: please)?,? "
    r"|do you (?:happen to )?know,? |(?:do you have )?any idea "
    r"|(?:i (?:want|need|would like|wish)|i'd like) to (?:know|find out|learn),? "
    r"|i (?:wonder|was wondering|am wondering),? |i'm wondering,? ",
    re.IGNORECASE,
)
_FIND = re.compile(
    r"(?:(?:can|could|would|will) (?:you|we) (?:please )?)?"
    r"(?:find(?: out)?|locate|segment|measure|estimate|compute|calculate|work out"
    r"|give me|show me|point (?:to|at)) "
    r"|(?:there(?: is|'s)|i (?:can )?see) ",
    re.IGNORECASE,
)
_REWRITES = (
    (re.compile(r"^\((.*)\)$"), r"\1"),
    (re.compile(r'["\u201c\u201d\u201e\u00ab\u00bb]'), ""),
    (re.compile(r"[\u2018\u2019\u02bc\uff07]"), "'"),
    (re.compile(r"^(what|where|who|which)s ", re.IGNORECASE), r"\1 is "),
    (re.compile(rf" \(?in (?:{_UNIT})\)?(?=$|[\s?!.,])", re.IGNORECASE), ""),
    (re.compile(r" in this (?:picture|photo|photograph|image|scene)\b", re.IGNORECASE), ""),
    (re.compile(r" (?:would you say|do you (?:think|reckon))(?: that)?\b", re.IGNORECASE), ""),
    (re.compile(r"(?<=\bfar) (?:exactly|approximately|roughly|about|actually)\b", re.IGNORECASE), ""),
    (re.compile(rf"\bhow many (?:{_UNIT})(?: away| off)?\b", re.IGNORECASE), "how far"),
    (re.compile(r"[,;?]* (and|or) how (?:far|close)(?: away)? (?:is|are) (?=\w)", re.IGNORECASE), r" \1 "),
    (re.compile(r"[,.!?]* (?:please|thanks|thank you)$|, right$", re.IGNORECASE), ""),
)

# A phrase that opens like this is a sentence, not a name ("can" alone may be a thing on a table).
_SENTENCE = re.compile(
    r"(?:what|who|whom|whose|which|when|where|why|how|is|are|am|was|were|do|does|did|could|would|shall|should"
    r"|has|have|had|if|whether|i|you|we|they|it)(?:'\w+)?\b"
    r"|(?:the )?distance\b|(?:describe|explain)\b|.*far(?: away)? (?:is|are)\b"
    rf"|(?:can|will|may|might) (?:{_CAMERA}|{_ARTICLE}|he|she|they)\b",
    re.IGNORECASE,
)
_NO_NAME = re.compile(
    rf"{_PRONOUN}|{_ARTICLE}|he|she|him|them|they|both|either|ones?|something|anything|everything|nothing|things?"
    r"|hello|hi|hey|thanks|thank you|yes|no|ok|okay|please|help|bye|goodbye|good (?:morning|evening)"
    r"|(?:the |a )?(?:distance|depth)|how (?:far|close)(?: .*)?|(?:from|than|to|between) .*|.* apart",
    re.IGNORECASE,
)
_AROUND_NAME = re.compile(r"^(?:either|both|only|just) | each$", re.IGNORECASE)
_IS_CAMERA = re.compile(_CAMERA, re.IGNORECASE)

# Where a list of names may be cut.
_JOIN = re.compile(rf",? (and|&|or|vs\.?|versus) (?:(?:to|of|from) (?=(?:{_ARTICLE})\b))?", re.IGNORECASE)
_ARTICLE_NEXT = re.compile(rf"(?:{_ARTICLE})\b", re.IGNORECASE)
_COLOUR_BEFORE = re.compile(rf"\b(?:{_COLOUR})$", re.IGNORECASE)
_COLOUR_NEXT = re.compile(rf"(?:{_COLOUR})\b", re.IGNORECASE)
_DESCRIBED = re.compile(
    r"\b(?:with|without|between|of|in|on|at|by|near|beside|behind|under|above|over|next|holding|wearing|that|which"
    r"|who|against|around|from)\b",
    re.IGNORECASE,
)


def parse_question(text: str) -> Question:
    """Read a question about distance, or a bare phrase, in English.

    Args:
        text: "how far is the red chair?", "the red chair", "which is nearer, the lamp or the sofa?", ...

    Raises:
        UsageError: if it is no string, if nothing is asked, if what is asked is not a distance, or if it names no
            thing, more than two things, or the same thing twice.
    """
    if not isinstance(text, str):
        raise UsageError("question", f"is of type {type(text).__name__}", _EXAMPLE)
    if not any(character.isalnum() for character in text):
        raise UsageError(quoted(text), "is not a question", _EXAMPLE)
    if len(text) > MAX_LENGTH:
        raise UsageError(
            quoted(text), f"has {len(text)} characters, the limit is {MAX_LENGTH}", "ask a shorter question"
        )
    words, must_ask = _unwrap(text)
    problem = ""
    for pattern in _GRAMMAR:
        match = pattern.fullmatch(words)
        if match is None:
            continue
        groups = match.groupdict()
        order = groups.get("order")
        parts = _parts(match)
        names = [part for part in parts if not _NO_NAME.fullmatch(part)]
        if len(parts) > 1 and order is None:  # "the distance between the camera and the bed"
            names = [name for name in names if not _IS_CAMERA.fullmatch(name)]
        one_will_do = order is None and ("list" not in groups or len(parts) > 1)
        if len(names) > 1 or (names and one_will_do):
            return _question(text, names, order)
        # A later line may read the same words differently; if none does, this is what was wrong.
        problem = problem or (
            f"compares, but names only {quoted(names[0])}" if names else "names no object to look for"
        )
    if not must_ask and not _SENTENCE.match(words):
        names = [name for name in _split(words, plural=False) if not _NO_NAME.fullmatch(name)]
        if names:
            return _question(text, names, None)
        problem = "names no object to look for"
    raise UsageError(quoted(text), problem or "is not understood as a question about distance", _EXAMPLE)


def _question(text: str, names: list[str], order: str | None) -> Question:
    """The question that names ``names``, ordered by ``order`` ("nearer", ...), or an error about them."""
    if len(names) > 2:
        listed = ", ".join(quoted(name) for name in names)
        raise UsageError(quoted(text), f"names {len(names)} things, {listed}", "ask about one or two")
    if any(re.search(r"[?!;]\s|\bhow (?:far|close)\b", name) for name in names):
        raise UsageError(quoted(text), "asks several things", "ask one question at a time")
    if len(names) == 2 and names[0].casefold() == names[1].casefold():
        raise UsageError(quoted(text), f"names {quoted(names[0])} twice", "name two different things")
    if len(names) == 1:
        return Question(text, "distance", (names[0],))
    if order is None:
        return Question(text, "gap", (names[0], names[1]))
    kind: QuestionKind = "nearer" if re.fullmatch(_NEARER, order, re.IGNORECASE) else "farther"
    return Question(text, kind, (names[0], names[1]))


def _unwrap(text: str) -> tuple[str, bool]:
    """The question without greeting, request, unit and closing words, and whether it must be a question."""
    words = _trim(" ".join(text.split()))
    for pattern, replacement in _REWRITES:
        words = _trim(pattern.sub(replacement, words))
    must_ask = False
    while True:
        for wrapping in (_SAY, _FIND, _GREETING):
            match = wrapping.match(words)
            if match:
                words = _trim(words[match.end() :])
                must_ask |= wrapping is _SAY
                break
        else:
            return words, must_ask


def _parts(match: re.Match[str]) -> list[str]:
    """What a matched question names, the camera and pronouns included."""
    groups = match.groupdict()
    if "list" in groups:
        parts = _split_list(groups["list"], join="or" if "order" in groups else "and")
    else:
        verb = match.string[: match.start("a")] + match.string[match.end("a") :]
        plural = re.search(r"\bare\b|'re\b", verb, re.IGNORECASE) is not None
        names = (groups["a"], groups.get("b"))
        parts = [part for name in names if name for part in _split(name, plural=plural)]
    noun = groups.get("noun")
    if noun and noun.lower() not in {"one", "thing", "object", "item"}:
        # "Which chair is nearer, the red one or the blue one": alone, "the red one" would say too little.
        parts = [re.sub(r"\bone\b", noun, part) for part in parts]
    return parts


def _split_list(text: str, join: str) -> list[str]:
    """The names in what must be a list: cut at ``join`` ("or", "and") or, without one, at any such word."""
    joins = _joins(text)
    joins = [match for match in joins if match[1].lower() == join] or joins
    cuts = [match for match in joins if _ARTICLE_NEXT.match(text, match.end())] or joins
    return _clean(name for part in _cut(text, cuts) for name in part.split(", "))


def _split(text: str, *, plural: bool) -> list[str]:
    """The names in what is usually one name: "the salt and pepper" is one, "the bed and the lamp" are two.

    "The bowl with the apple and the spoon" is one as well, unless the verb of the question is plural.
    """
    joins = _joins(text)
    cuts = [
        match
        for match in joins
        if match[1].lower().startswith("v")
        or (_ARTICLE_NEXT.match(text, match.end()) and (plural or not _DESCRIBED.search(text, 0, match.start())))
    ]
    if plural and len(joins) == 1 and not _ARTICLE_NEXT.match(text):
        cuts = joins  # "chair and table"
    if not cuts:
        return _clean([text])
    return _clean(name for part in _cut(text, cuts) for name in re.split(rf", (?=(?:{_ARTICLE})\b)", part))


def _joins(text: str) -> list[re.Match[str]]:
    """The words "and", "or", "versus" that may separate two names in ``text``."""
    joins = [
        match
        for match in _JOIN.finditer(text)
        if not (_COLOUR_BEFORE.search(text, 0, match.start()) and _COLOUR_NEXT.match(text, match.end()))
    ]
    # Every "between" inside a name owns the next free "and", the innermost first, as brackets do.
    for between in reversed(list(re.finditer(r"\bbetween\b", text, re.IGNORECASE))):
        owned = next((m for m in joins if m[1].lower() == "and" and m.start() > between.end()), None)
        joins = [match for match in joins if match is not owned]
    return joins


def _cut(text: str, cuts: list[re.Match[str]]) -> list[str]:
    """``text`` without ``cuts``, in pieces."""
    starts = [0, *(match.end() for match in cuts)]
    ends = [*(match.start() for match in cuts), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _clean(names: Iterable[str]) -> list[str]:
    """The names without the punctuation and the small words around them; empty ones are dropped."""
    trimmed = (_trim(_AROUND_NAME.sub("", _trim(name))) for name in names)
    return [name for name in trimmed if name]


def _trim(text: str) -> str:
    """``text`` without the spaces and the punctuation, in any script, at its ends."""
    start, end = 0, len(text)
    while start < end and _is_edge(text[start]):
        start += 1
    while end > start and _is_edge(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_edge(character: str) -> bool:
    """Whether ``character`` says nothing at the end of a name; brackets and "#" belong to the name."""
    return unicodedata.category(character)[0] in "PZC" and character not in "()[]#%&"
