"""Work in several processes: an interrupted or failed main one does not wait for what they are at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from deixis.errors import DeixisError
from deixis.processes import in_order, pool_of

# Two workers that would take ten minutes; each says who it is.
SCRIPT = """
import os, sys, time
from pathlib import Path
from deixis.processes import pool_of

def long(place):
    (Path(place) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with pool_of(2) as pool:
        list(pool.map(long, [sys.argv[1]] * 2))
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def started(tmp_path: Path, script: str, workers: int) -> tuple[subprocess.Popen[bytes], Path]:
    """A script that runs, and the folder in which as many workers of its have noted something."""
    (tmp_path / "main.py").write_text(script)
    notes = tmp_path / "notes"
    notes.mkdir()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "main.py", notes],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 90
    while len(list(notes.iterdir())) < workers:
        assert time.monotonic() < until
        time.sleep(0.05)
    return process, notes


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_main_process_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    process, notes = started(tmp_path, SCRIPT, 2)
    process.send_signal(number)
    assert process.wait(timeout=20) != 0
    until = time.monotonic() + 20
    workers = [int(path.name) for path in notes.iterdir()]
    while any(map(alive, workers)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_failure_ends_the_others() -> None:
    sleeping = []

    def fail() -> None:
        with pool_of(2) as pool:
            sleeping.append(pool.submit(time.sleep, 600))
            pool.submit(divmod, 1, 0).result()

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(BrokenProcessPool):
        sleeping[0].result(timeout=30)


# A worker's trainings note that they began; a stopped one ends as trainings do.
STUDY = """
import sys, time
from pathlib import Path
from deixis.processes import pool_of
from deixis.training.leaving import StoppedError, last_of_worker, requests

def train(place):
    with last_of_worker(), requests() as asked:
        (place / str(len(list(place.iterdir())))).touch()
        while not asked.number:
            time.sleep(0.05)
        raise StoppedError(asked.number, 1, place)

if __name__ == "__main__":
    with pool_of(1) as pool:
        list(pool.map(train, [Path(sys.argv[1])] * 3))
"""


@pytest.mark.slow
def test_a_stopped_study_begins_no_other_training(tmp_path: Path) -> None:
    process, notes = started(tmp_path, STUDY, 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert len(list(notes.iterdir())) == 1


def test_results_come_in_the_order_of_their_jobs_and_a_death_is_told() -> None:
    def died(job: int) -> DeixisError:
        return DeixisError(f"job {job}", "died", "try again")

    assert list(in_order(abs, [-5, 4, -3, 2, -1], 2, died)) == [5, 4, 3, 2, 1]
    assert list(in_order(abs, [], 2, died)) == []
    with pytest.raises(DeixisError, match="job 3: died"):
        list(in_order(os._exit, [3], 2, died))
