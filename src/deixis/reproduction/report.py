"""Results of experiments as JSON and as Markdown, each with what it needs to be believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.errors import InputError
from deixis.io import printable, write_json, write_text
from deixis.reproduction.experiments import EXPERIMENTS, Experiment, PaperTable

JOINED = "README.md"


def stored(out: Path, experiment: Experiment) -> dict[str, Any]:
    """What was measured before: ``official`` rows, ``ours`` by scale, and what was ``missing``.

    Raises:
        InputError: if the file is damaged.
    """
    path = out / f"{experiment.name}.json"
    if not path.is_file():
        return {"official": [], "ours": {}, "missing": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {"official": list(content["official"]), "ours": dict(content["ours"])}
        return {**kept, "missing": list(content["missing"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(printable(path), "is damaged", "remove it; what it says is measured again") from error


def write(out: Path, experiment: Experiment, content: Mapping[str, Any]) -> str:
    """Write ``EXPERIMENT.json``, ``EXPERIMENT.md`` and all experiments joined; returns the Markdown of this one.

    Raises:
        DeixisError: if they cannot be written.
    """
    text = "\n".join(markdown(experiment, content))
    write_json(out / f"{experiment.name}.json", content)
    write_text(out / f"{experiment.name}.md", text)
    parts = [path.read_text("utf-8") for name in EXPERIMENTS if (path := out / f"{name}.md").is_file()]
    write_text(out / JOINED, joined("Written by `deixis reproduce` from what it measured.", parts))
    return text


def joined(said: str, parts: Sequence[str]) -> str:
    """One page of several experiments' Markdown, under a head that says something."""
    return "\n".join(
        [f"# Reproduction\n\n{said}\n", *(f"#{part.replace(chr(10) + '#', chr(10) + '##')}" for part in parts)]
    )


def markdown(experiment: Experiment, content: Mapping[str, Any]) -> list[str]:
    """Lines: the paper's numbers, official weights re-scored, ours, and what is missing."""
    published = experiment.published
    lines = [f"# {experiment.name}: {published['title']}", "", f"{published['paper']}.", "", "## Paper", ""]
    for one in experiment.tables:
        lines += [f"{one.caption}:", "", *paper_table(one)]
    lines += [published["note"], ""] if published["note"] else []
    lines += ["## Official weights, re-scored", ""]
    rows = content["official"]
    lines += score_table(rows, experiment.metrics) if rows else ["Nothing yet.", ""]
    lines += [f"`{command}`" for command in dict.fromkeys(one["command"] for one in rows)] + [""] * bool(rows)
    if not content["ours"]:
        command = f"deixis reproduce {experiment.name} --mini"
        lines += ["## Ours, the minis", "", f"Nothing yet: `{command}`, or `{command} --quick`.", ""]
    for scale, ours in content["ours"].items():
        lines += [f"## Ours, the minis ({scale})", "", f"`{ours['command']}`", ""]
        if scale == "quick":
            lines += ["A quick run: it shows that the command works, and is too short to decide a finding.", ""]
        lines += ours["lines"]
    if content["missing"]:
        lines += ["## Missing", "", *(f"- {line}" for line in content["missing"]), ""]
    return lines


def paper_table(published: PaperTable) -> list[str]:
    """Lines of a paper's table; the numbers of a column have the same digits."""
    from deixis.training.comparison import table

    digits = [
        max((len(f"{row[i]:g}".partition(".")[2]) for row in published.rows.values() if _is_number(row[i])), default=0)
        for i in range(len(published.columns))
    ]
    rows = [[name, *map(_cell, values, digits)] for name, values in published.rows.items()]
    return table(("row", *published.columns), rows)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any, digits: int) -> str:  # noqa: ANN401 - numbers, switches and words
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}f}" if _is_number(value) else str(value)


def score_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Lines of a table of results of ``deixis eval``, each with its split, count, seed, text and protocol."""
    from deixis.training.comparison import table

    cells = []
    for one in rows:
        values = [_measured(one["metrics"].get(name)) for name in metrics]
        steps = one["steps"] or ""
        about = (one["dataset"], one["split"], one["scored"], steps, one["seed"], ", ".join(one["text"]))
        cells.append([one["row"], *about, *values, one["protocol"], one["differs"] or "yes"])
    head = ("row", "dataset", "split", "scored", "steps", "seed", "text", *metrics, "protocol", "comparable")
    return [*table(head, cells), "Intervals (95 %): bootstrap over images.", ""]


def _measured(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return ""
    digits = 1 if one["unit"] == "%" else 3
    return f"{one['value']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"
