"""A few kills at random moments; ``python -m tests.recipes.kills`` is for many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_runs_that_are_killed_at_random_end_with_the_same_bits(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.recipes.kills", "--times", "4"),
            *("--systems", "autoencoder,contrast", "--out", str(tmp_path)),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    *kills, last = done.stdout.splitlines()
    assert [line.split("\t")[:2] for line in kills] == [
        ["1", "1_vae"],
        ["2", "2_text"],
        ["3", "1_vae"],
        ["4", "2_text"],
    ], done.stderr
    assert last.startswith("4 kills, ")
    assert last.endswith(" ends of 2 systems: all bit-identical")
    assert done.returncode == 0
