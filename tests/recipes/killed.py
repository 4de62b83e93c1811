"""Run ``deixis train`` and kill it, again and again: ``python -m tests.recipes.killed FILE``.

The file holds a JSON list of jobs, ``{"moments": [...], "recipe": path, "overrides": [...]}``; what is printed became
of each one's attempts: minus the signal, or the exit code. Each attempt is a process of its own that gets SIGKILL at
its moment; the last is left alone. Processes are forked from this one, which has imported everything and computed
nothing: importing would take longer than training.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deixis.cli import main
from deixis.training import run
from deixis.training.recipe import read_recipe

PATIENCE_S = 1800

# Cards tell how long it took, and would take as long as all the rest.
run.write_card = lambda recipe, weights, seconds: None

Due = Callable[[], bool]


def moment(name: str, out: Path, rng: random.Random) -> Due:
    """Whether it is time to kill; made when the attempt begins."""
    if name == "vocabulary":  # is there, and nothing else yet
        return (out / "tokenizer" / "vocab.json").is_file
    if name == "checkpoint":  # is being written
        partial, before = out / "state.pt.partial", time.time_ns()
        return lambda: partial.is_file() and partial.stat().st_ctime_ns > before
    if name == "weights":  # are being written
        return lambda: any(out.glob(".weights.*.partial"))
    assert name == "any"  # some time after the log has one or two more rows
    wanted, pause = rows(out) + rng.choice((1, 2)), rng.uniform(0, 0.3)
    seen: list[float] = []

    def due() -> bool:
        if not seen and rows(out) >= wanted:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + pause

    return due


def rows(out: Path) -> int:
    """How many the log has."""
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def attempt(arguments: list[str], due: Due) -> int:
    """Start ``deixis`` and kill it when due; minus the signal, or its exit code."""
    child = os.fork()
    if not child:
        os.dup2(2, 1)  # stdout is for the story
        try:
            main(arguments)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        finally:
            os._exit(99)
    patience = time.monotonic() + PATIENCE_S
    killed = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if not killed and (due() or time.monotonic() > patience):
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.0005)


def story(job: dict[str, list[str]], rng: random.Random) -> list[int]:
    """What became of a job's attempts."""
    recipe = str(job["recipe"])
    out = Path(read_recipe(Path(recipe), job["overrides"]).out)
    command = ["train", recipe, *job["overrides"]]
    killed = [attempt(command, moment(name, out, rng)) for name in job["moments"]]
    return [*killed, attempt(command, lambda: False)]


if __name__ == "__main__":
    told = random.Random(0)
    sys.stdout.write(json.dumps([story(job, told) for job in json.loads(Path(sys.argv[1]).read_text())]) + "\n")
