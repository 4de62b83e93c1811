"""Two evaluations of the same samples, pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deixis.data.dataset import spread
from deixis.errors import InputError, UsageError
from deixis.evaluation.journal import Entry, Journal
from deixis.evaluation.run import RATIOS, RESULT, ROWS, read_json
from deixis.io import printable
from deixis.protocols.summary import Row

# What two runs must share: the text they were told, and the system, may differ.
SAME = ("task", "dataset", "split", "layout", "samples_sha256", "protocol")


def compare(one: Path, other: Path, metric: str | None = None) -> dict[str, Any]:
    """Differences of two result folders, first less second, with paired 95 % intervals over images.

    Args:
        one: a folder that ``deixis eval`` finished.
        other: another one.
        metric: its name; all of them by default.

    Returns:
        ``a`` and ``b``, what they are; ``text_differs``, None or what to know before the two are compared; and
        ``metrics``, by name.

    Raises:
        InputError: if a folder holds no finished evaluation.
        UsageError: if the two are of other samples or protocols, or have no such metric.
    """
    first, second = (read_json(folder / RESULT) for folder in (one, other))
    for key in SAME:
        if first.get(key) != second.get(key):
            words = [_words(found.get(key)) for found in (first, second)]
            raise UsageError(
                f"{printable(one)} and {printable(other)}",
                f"differ in {key}: {words[0]} and {words[1]}",
                "compare runs of the same samples and protocol",
            )
    scored = [_entries(folder, found) for folder, found in ((one, first), (other, second))]
    tables = [[row for entry in entries for row in entry.rows] for entries in scored]
    _check_same(one, other, tables)
    _check_truth(other, *scored)
    ratios = [{ratio.name: ratio for ratio in RATIOS[first["task"]](rows)} for rows in tables]
    if metric is not None and metric not in ratios[0]:
        raise UsageError(f"metric '{printable(metric)}'", "is not of this task", f"use one of {', '.join(ratios[0])}")
    metrics = {}
    for name in ratios[0] if metric is None else [metric]:
        mine, theirs = ratios[0][name], ratios[1][name]
        if metric is None and not (mine.counts & theirs.counts).any():
            continue
        found = mine.against(theirs)
        metrics[name] = {
            "a": found.one,
            "b": found.other,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "unit": mine.unit,
            "better": mine.better,
            "a_better": found.wins,
            "equal": found.ties,
            "samples": found.samples,
        }
    return {
        "a": _about(one, first),
        "b": _about(other, second),
        "text_differs": _texts(first, second),
        "metrics": metrics,
    }


def _entries(folder: Path, result: dict[str, Any]) -> list[Entry]:
    entries, chosen = Journal(folder / ROWS).entries, spread(result["samples"], result["count"])
    missing = [i for i in chosen if i not in entries]
    if missing:
        raise InputError(printable(folder / ROWS), f"lacks sample {missing[0]}", "run 'deixis eval' again")
    return [entries[i] for i in chosen]


def _check_same(one: Path, other: Path, tables: list[list[Row]]) -> None:
    """Refuse rows of different samples; names the first that is missing on one side."""
    a, b = ([(str(row["sample"]), row.get("expression")) for row in rows] for rows in tables)
    for folder, mine, theirs in ((other, a, set(b)), (one, b, set(a))):
        lost = next((key[0] for key in mine if key not in theirs), None)
        if lost is not None:
            raise UsageError(
                printable(folder),
                f"has no scores of {lost}",
                "evaluate both on the same samples, with the same --limit",
            )


def _check_truth(folder: Path, first: list[Entry], second: list[Entry]) -> None:
    """Refuse samples that were compared with something else; names the first."""
    known = {entry.name: entry.truth for entry in first if entry.rows}
    for entry in second:
        if entry.rows and entry.truth != known[entry.name]:
            raise UsageError(
                printable(folder),
                f"was scored against another ground truth of {printable(entry.name)}",
                "evaluate both on the same copy of the dataset",
            )


def _about(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    keys = ("model", "mask_model", "weights_sha256", "text_source", "text_provenance", "oracle")
    return {"folder": str(folder), **{key: result[key] for key in keys if key in result}}


def _texts(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    if first["oracle"] != second["oracle"]:
        which = "a" if first["oracle"] else "b"
        return f"{which} was told oracle text and the other was not: this is no fair comparison of systems"
    if set(first["text_provenance"]) != set(second["text_provenance"]):
        return "the two were told texts of different provenance"
    return None


def _words(value: object) -> str:
    return f"'{value['name']}'" if isinstance(value, dict) else printable(value)[:20]
