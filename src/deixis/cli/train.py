"""``deixis train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deixis.cli.common import OK, field, put


def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A YAML file; the project's are in recipes/ of its repository."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="key=value, for example data.root=DIR out=DIR optimisation.steps=100.", metavar="KEY=VALUE"
        ),
    ] = None,
) -> int:
    """Train a recipe. The same command goes on where an interrupted run stopped; stdout gets the weight folder.

    SIGTERM and Ctrl-C end it after its step, with a checkpoint; a second Ctrl-C at once.
    """
    from deixis.training.recipe import read_recipe
    from deixis.training.run import run

    settings = read_recipe(recipe, overrides or [])
    console = Console(stderr=True)
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    silent = sys.stderr.closed or os.environ.get("RANK", "0") != "0"  # of several processes the first speaks
    shown = Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty(), disable=silent)
    with shown:
        bar = shown.add_task("train", total=settings.optimisation.steps, loss="–", pace="")
        before = (0.0, 0.0)

        def tell(line: str) -> None:
            if not silent:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        def log(values: dict[str, float]) -> None:
            nonlocal before
            step, seconds = values["step"], values["seconds"]
            shown.update(bar, completed=step)
            if "loss" in values:
                if before[0]:  # where a resumed run began is not in the rows
                    shown.update(bar, pace=f"{(seconds - before[1]) / (step - before[0]):.2f} s a step")
                shown.update(bar, loss=f"{values['loss']:.3f}")
                before = (step, seconds)
            else:
                tell("  ".join(f"{key} {value:.4g}" for key, value in values.items()))

        weights = run(settings, log, tell, lambda step: shown.update(bar, completed=step))
    if os.environ.get("RANK", "0") == "0":
        put(field(weights))
    return OK
