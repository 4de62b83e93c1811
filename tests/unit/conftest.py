"""Weight folders of toy networks and tiny data sets, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer

from deixis.training.recipe import Data
from deixis.training.store import Store, load_store
from deixis.training.tokenizer import train_tokenizer
from tests.folders import write_weights
from tests.recipes import tiny_nyuv2

KINDS: dict[str, dict[str, Any]] = {
    "evp-depth": {},
    "evp-refer": {},
    "evp-refer-shy": {"threshold": 1.5},  # finds nothing, ever
    "evp-refer-blind": {"lean": -1e4},  # no pixel is likelier than not
    "vpd-refer": {"resize": "stretch"},
    "vpd-depth": {},
    "vpd-depth-classes": {"text_tower": False, "stored": ("class:kitchen", "class:living_room")},
    "evp-depth-average": {"text_tower": False, "stored": ("aggregate:nyuv2",)},
    "evp-depth-silent": {"text_tower": False},
    "evp-depth-wordless": {"tokenizer": False},
    "vpd-refer-towerless": {"text_tower": False},
}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The weight folder of a name in ``KINDS``."""
    root = tmp_path_factory.mktemp("weights")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            write_weights(path, "-".join(name.split("-")[:2]), **KINDS[name])
        return path

    return folder


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set in the layout of NYU Depth v2. Not to be changed."""
    return tiny_nyuv2.write(tmp_path_factory.mktemp("nyuv2"), train=6, val=1, heldout=1)


@pytest.fixture(scope="session")
def stores(rooms: Path, world: Path) -> tuple[Store, Store]:
    """Its photos and the tiny world at 36 x 48: training and validation."""
    data = Data(root=str(rooms), world=str(world), stored=(36, 48), size=(32, 48))
    return load_store(data, "train"), load_store(data, "val")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """A vocabulary for tiny text towers."""
    sentences = [f"the {name} on the left" for name in tiny_nyuv2.NAMES] + ["a photo of a room on the right"]
    return train_tokenizer(sentences, 700, tmp_path_factory.mktemp("words"))
