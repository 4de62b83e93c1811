"""``deixis train``."""

from __future__ import annotations

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
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/evp_depth_mini.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example data.root=DIR.")] = None,
) -> int:
    """Train a recipe; the same command goes on where an interrupted run stopped."""
    from deixis.training.recipe import read_recipe
    from deixis.training.run import run

    settings = read_recipe(recipe, overrides or [])
    console = Console(stderr=True)
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        bar = shown.add_task("train", total=settings.optimisation.steps, loss=float("nan"))

        def log(values: dict[str, float]) -> None:
            shown.update(bar, completed=values["step"])
            if "loss" in values:
                shown.update(bar, loss=values["loss"])
            else:
                shown.log("  ".join(f"{key} {value:.4g}" for key, value in values.items()))

        weights = run(settings, log)
    put(field(weights))
    return OK
