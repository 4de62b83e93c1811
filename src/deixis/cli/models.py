"""``deixis models``."""

from __future__ import annotations

import shutil
import sys
import textwrap

from deixis.cli.common import OK, JsonOption, emit, put
from deixis.hub import download, is_hub_id
from deixis.registry import BACKBONE, Weight, weights


def models(as_json: JsonOption = False) -> int:
    """Every set of weights: what it gives, its licence and size, where it lies or comes from.

    A paragraph each on a terminal; elsewhere a line each: name, system, kind, licence, MB, place.
    """
    found = weights()
    if as_json:
        emit([weight.to_dict() for weight in found])
    elif sys.stdout.isatty():
        put("\n\n".join(_paragraph(weight, shutil.get_terminal_size().columns) for weight in found))
    else:
        for weight in found:
            put("\t".join((weight.name, weight.system, _kind(weight), weight.licence, _size(weight), weight.source)))
    return OK


def _paragraph(weight: Weight, columns: int) -> str:
    """For people, as wide as the terminal."""
    if weight.available:
        place = [f"here: {weight.source}"]
    else:
        convert = f"deixis convert FILE OUT --to {weight.name}, and --model OUT"
        then = f"{download(weight.name)}, and --model DIR" if is_hub_id(weight.name) else convert
        place = [f"published at {weight.source}", f"then {then}"]
    size = f", {_size(weight)} MB" if weight.size_mb is not None else ""
    lines = [f"{_kind(weight)}, by {weight.system}{size}", f"licence: {weight.licence}", *place]
    width, indent = max(columns, 30), "    "
    wrapped = [textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent) for line in lines]
    return "\n".join([weight.name, *wrapped])


def _kind(weight: Weight) -> str:
    if weight.task == BACKBONE:
        return BACKBONE
    return "mask" if weight.kind is None else f"{weight.kind} depth"


def _size(weight: Weight) -> str:
    return "" if weight.size_mb is None else f"{weight.size_mb:.1f}"
