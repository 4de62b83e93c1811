"""Weight folders of toy networks, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.folders import write_weights

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
