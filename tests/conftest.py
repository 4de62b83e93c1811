"""For every test: no network, no display, the same random numbers each time."""

from __future__ import annotations

import os

# Read when the libraries are first imported, so set before anything else is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed Python, numpy and torch before each test, so that order and selection do not matter."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
