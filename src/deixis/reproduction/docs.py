"""``docs/reproduction.md`` from stored results.

    python -m deixis.reproduction.docs docs [deixis-out/reproduce]

The second folder is the ``--out`` of ``deixis reproduce``: its results and their pictures are stored first, as
``docs/results/EXPERIMENT.json``. The page is made from what is stored alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import USAGE
from deixis.errors import DeixisError
from deixis.io import write_json, write_text
from deixis.reproduction.experiments import EXPERIMENTS
from deixis.reproduction.report import joined, markdown, stored

RESULTS = "results"
SAID = """\
The papers' numbers, beside what was measured here. Each section names the command that gives its numbers; it goes on
where it was interrupted, and says what is missing for the rest. With the real data and weights the same command scores
them: `deixis reproduce EXPERIMENT --root DATASET=DIR --weights NAME=DIR`.

This page is made by `python -m deixis.reproduction.docs docs` from the files in `docs/results`."""


def store(docs: Path, results: Path) -> None:
    """Keep the results of ``deixis reproduce`` with the pictures they show.

    Raises:
        DeixisError: if a file is damaged, or cannot be written.
    """
    for experiment in EXPERIMENTS.values():
        if (results / f"{experiment.name}.json").is_file():
            content = stored(results, experiment)
            write_json(docs / RESULTS / f"{experiment.name}.json", content)
            for name in _pictures(content["ours"]):
                shutil.copyfile(results / name, docs / RESULTS / name)


def page(docs: Path) -> str:
    """The page's Markdown.

    Raises:
        DeixisError: if a stored file is damaged.
    """
    parts = []
    for experiment in EXPERIMENTS.values():
        content = stored(docs / RESULTS, experiment)
        text = "\n".join(markdown(experiment, content))
        for name in _pictures(content["ours"]):
            text = text.replace(f"]({name})", f"]({RESULTS}/{name})")
        parts.append(text)
    return joined(SAID, parts)


def _pictures(ours: dict[str, dict[str, list[str]]]) -> list[str]:
    return [name for one in ours.values() for name in one["pictures"]]


def main(
    docs: Annotated[Path, typer.Argument(help="Folder of the page.")],
    results: Annotated[Path | None, typer.Argument(help="The --out of 'deixis reproduce'.")] = None,
) -> None:
    """Store results, where they are given, and write reproduction.md."""
    try:
        if results is not None:
            store(docs, results)
        write_text(docs / "reproduction.md", page(docs))
    except DeixisError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from error


if __name__ == "__main__":
    typer.run(main)
