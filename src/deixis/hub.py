"""Folders of the model hub, fetched only because somebody named them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deixis.errors import ModelError

# owner/name; what looks like a path or a file is none.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def fetch(hub_id: str, parts: Sequence[str]) -> Path:
    """The folder of a hub id, from the hub or from its cache: ``model_index.json`` and the folders in ``parts``.

    Raises:
        ModelError: if it is in neither.
    """
    patterns = ["model_index.json"]
    patterns += [f"{part}/*.{suffix}" for part in parts for suffix in ("json", "txt", "safetensors")]
    return _snapshot(hub_id, patterns, f"the folders {', '.join(parts)}")


def fetch_files(hub_id: str, patterns: Sequence[str]) -> Path:
    """The folder of a hub id, from the hub or from its cache: the files that match.

    Raises:
        ModelError: if it is in neither.
    """
    return _snapshot(hub_id, patterns, f"the files {', '.join(patterns)}")


def _snapshot(hub_id: str, patterns: Sequence[str], what: str) -> Path:
    from huggingface_hub import snapshot_download

    ignored = ["*.fp16.*", "*.non_ema.*"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), ignore_patterns=ignored))
    except Exception as error:  # among them those of its HTTP library, which differs between versions
        raise ModelError(
            hub_id,
            "is not a folder here, cannot be fetched from the model hub and is not in its cache",
            f"connect to the internet, or copy {what} of huggingface.co/{hub_id} and pass"
            " the path of the folder they are in",
        ) from error
