"""For every test: no network, no display, the same random numbers each time."""

from __future__ import annotations

import os

# Read when the libraries are first imported, so set before anything else is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import diffusers.loaders  # noqa: F401  # before a command imports less of it (deixis.cli.start), which then stays
import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core; more threads would only get in each other's way
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed Python, numpy and torch before each test, so that order and selection do not matter."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 11 rooms and 11 roads at 48 x 36: of each, one to validate, one held out. Not to be changed."""
    for name in ("embreex", "pyarrow", "pyoidn"):
        pytest.importorskip(name)
    from deixis.world.generate import Settings, render_shards

    folder = tmp_path_factory.mktemp("world")
    render_shards(folder, ("rooms", "roads"), 0, 11, Settings(48, 36, 1))
    return folder


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, even where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
