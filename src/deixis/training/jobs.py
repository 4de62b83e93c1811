"""Many trainings of one study, each measured when it is done; what is finished stays finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deixis.io import write_json
from deixis.processes import pool_of
from deixis.training.leaving import last_of_worker
from deixis.training.recipe import Recipe, difference
from deixis.training.run import fit

MEASURED = "measured.json"


class Job(Protocol):
    """One training; it must be picklable."""

    @property
    def out(self) -> Path:
        """Folder of the run."""

    def read(self) -> Recipe:
        """What is trained, into ``out``."""

    def measure(self, weights: Path, recipe: Recipe) -> dict[str, Any]:
        """What is kept of it, JSON-ready."""


_Job = TypeVar("_Job", bound=Job)


def run_jobs(jobs: Sequence[_Job], workers: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train and measure everything that is not there yet.

    Args:
        jobs: the trainings.
        workers: how many at once.
        say: called with a line about what is done.

    Returns:
        what each measured.

    Raises:
        DeixisError: one line for anything wrong with recipes or data.
    """
    todo = [job for job in jobs if not _is_done(job)]
    done = len(jobs) - len(todo)
    say(f"{done} of {len(jobs)} are trained and measured")
    if todo:
        with pool_of(workers) as pool:
            for i, (job, _) in enumerate(zip(todo, pool.map(_do, todo), strict=True), start=done + 1):
                say(f"{i} of {len(jobs)} trained and measured: {job.out.name}")
    return [json.loads((job.out / MEASURED).read_text("utf-8")) for job in jobs]


def _is_done(job: Job) -> bool:
    """Whether a run is measured; that of another recipe is not, and then says so when it is gone on with."""
    return (job.out / MEASURED).is_file() and difference(job.read(), job.out / "recipe.yaml") is None


def _do(job: Job) -> None:
    recipe = job.read()
    with last_of_worker():
        weights = fit(recipe, lambda row: None)
    if not (job.out / MEASURED).is_file():
        write_json(job.out / MEASURED, job.measure(weights.absolute(), recipe))
    (job.out / "state.pt").unlink(missing_ok=True)  # ten times the weights, and needed no more
