"""Kill ``deixis train`` at random moments, across systems: always the same bits in the end.

    python -m tests.recipes.kills [--times 50] [--seed 0] [--systems evp-depth,marigold] [--out DIR]

Every system trains a tiny recipe undisturbed once. Then one after the other is started, gets SIGKILL at a random
moment, and is given the same command again: at any time, or while a checkpoint, the weights or the vocabulary are
being written. A run that comes to its end is compared with the undisturbed one, and another begins.

A row for each kill: its number, the system, when it was to happen, and the step of the checkpoint that is there (``-``
before the first), which must be whole. Exit code 1 if a checkpoint was not, or an end was another.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from deixis.errors import DeixisError
from deixis.training.checkpoint import load_state
from deixis.world.generate import Settings, render_shards
from tests.recipes import tiny_nyuv2
from tests.recipes.killed import Due, attempt, moment
from tests.recipes.test_minis import GIVEN, MINIS, RECIPES, Chain, rows, weights

# Each with its share.
MOMENTS = {"any": 12, "checkpoint": 5, "weights": 2, "vocabulary": 1}
SYSTEMS = "evp-depth,evp-refer,vpd-depth,marigold,lotus-d,lotus-g,e2e-ft,text-to-image,autoencoder"


def apart(work: Callable[[], object]) -> None:
    """Do something in a process of its own: this one computes nothing, so that it can be forked."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(2)


class Victim:
    """A system's recipe, its undisturbed run, and the run that is being killed.

    Args:
        name: of the recipe.
        chain: of the undisturbed runs.
        root: of the disturbed ones.
    """

    def __init__(self, name: str, chain: Chain, root: Path) -> None:
        self.name, self.chain, self.root = name, chain, root
        self.round = 0
        self.seconds = 0.0

    @property
    def out(self) -> Path:
        """The present run's folder."""
        return self.root / f"{self.name}-{self.round}"

    def train(self, due: Due, out: Path | None = None) -> int:
        """One attempt; minus the signal, or the exit code."""
        return attempt(["train", str(RECIPES[self.name]), *self.chain.overrides(self.name, out or self.out)], due)

    def undisturbed(self) -> None:
        """Train what the others are compared with."""
        began = time.monotonic()
        if self.train(lambda: False, self.chain.runs / self.name):
            raise SystemExit(2)
        # What is there from an earlier call takes no time: then what training took does.
        self.seconds = max(time.monotonic() - began, load_state(self.chain.runs / self.name / "state.pt")["seconds"])

    def due(self, when: str, rng: random.Random) -> Due:
        """When the next attempt is killed."""
        pause = rng.uniform(0, self.seconds if when == "any" else 0.01)
        happens = (lambda: True) if when == "any" else moment(when, self.out, rng)
        seen: list[float] = []

        def due() -> bool:
            if not seen and happens():
                seen.append(time.monotonic())
            return bool(seen) and time.monotonic() >= seen[0] + pause

        return due

    def checkpoint(self) -> str:
        """The step of the checkpoint, or what is wrong with it."""
        path = self.out / "state.pt"
        try:
            return str(load_state(path)["step"]) if path.exists() else "-"
        except DeixisError as error:
            return str(error)

    def end(self) -> str:
        """How the finished run differs from the undisturbed one; empty if in nothing. The next run begins."""
        found, wanted = self.out, self.chain.runs / self.name
        mine, theirs = weights(found), weights(wanted)
        other = sorted(file for file in mine.keys() | theirs.keys() if mine.get(file) != theirs.get(file))
        left = [path.name for path in found.glob(".*partial")]
        self.round += 1
        if other or left or rows(found) != rows(wanted):
            return f"{found.name}: {', '.join(other + left) or 'another log'}"
        return ""


def kill(victims: list[Victim], times: int, rng: random.Random, say: Callable[[str], object]) -> list[str]:
    """Kill the victims in turn, let them all come to their ends, and say what was wrong."""
    wrong: list[str] = []
    ends = 0

    def finished(victim: Victim, code: int) -> None:
        nonlocal ends
        problem = f"{victim.out.name}: exit code {code}" if code else victim.end()
        ends += 1
        if problem:
            wrong.append(problem)
            say(problem)

    done = 0
    while done < times and not wrong:
        victim = victims[done % len(victims)]
        when = rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        code = victim.train(victim.due(when, rng))
        if code != -9:  # the moment was missed
            finished(victim, code)
            continue
        done += 1
        step = victim.checkpoint()
        say(f"{done}\t{victim.name}\t{when}\t{step}")
        if not step.isdecimal() and step != "-":
            wrong.append(step)
    for victim in victims:
        finished(victim, victim.train(lambda: False))
    say(f"{done} kills, {ends} ends of {len(victims)} systems: {'; '.join(wrong) or 'all bit-identical'}")
    return wrong


def needed(names: list[str]) -> list[str]:
    """Recipes with those they start from, in their order."""
    found = set(names)
    for name in reversed(MINIS):
        if name in found and GIVEN[name].get("init"):
            found.add(next(other for other in MINIS if GIVEN[name]["init"] == f"{GIVEN[other]['out']}/weights"))
    return [name for name in MINIS if name in found]


def main(arguments: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--out", type=Path, help="folder of data and runs, kept; a temporary one by default")
    given = parser.parse_args(arguments)
    names = [next(name for name in MINIS if GIVEN[name]["system"] == system) for system in given.systems.split(",")]
    with tempfile.TemporaryDirectory(prefix="deixis-kills-") as temporary:
        root = given.out or Path(temporary)
        chain = Chain(root / "nyuv2", root / "world", root / "undisturbed")
        if not chain.root.exists():
            apart(lambda: tiny_nyuv2.write(chain.root, train=12, val=1, heldout=2))
        if not chain.world.exists():
            apart(lambda: render_shards(chain.world, ("rooms", "roads"), 0, 11, Settings(48, 36, 1)))
        victims = {name: Victim(name, chain, root / "killed") for name in needed(names)}
        for victim in victims.values():
            victim.undisturbed()
        wrong = kill([victims[name] for name in names], given.times, random.Random(given.seed), print)
    return bool(wrong)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream
    sys.exit(main(sys.argv[1:]))
