"""Folders of the model hub, fetched only because somebody named them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from deixis.checkpoints.layout import CARD, GALLERY, INDEX, MANIFEST
from deixis.errors import ModelError

# owner/name; what looks like a path or a file is none.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

# The file without which a part is not there; large weights in several files are left to the hub's own library.
_FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "tokenizer": "vocab.json",
    "scheduler": "scheduler_config.json",
}


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` as the home folder; as it is where nobody knows that folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cached(hub_id: str, parts: Sequence[str]) -> Path | None:
    """The folder of a hub id in the hub's cache, None unless it is there with its ``parts``.

    The cache is where huggingface_hub documents it; importing that library takes longer than a light command may.
    """
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = expanded(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
    model = cache / f"models--{hub_id.replace('/', '--')}"
    try:
        revision = (model / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = model / "snapshots" / revision
    needed = [INDEX, *(f"{part}/{_FILES[part]}" for part in parts)]
    return folder if all((folder / name).is_file() for name in needed) else None


def fetch(hub_id: str, parts: Sequence[str], own: Sequence[str] = ()) -> Path:
    """The folder of a hub id, from the hub or from its cache: the folders in ``parts``, indices and card.

    Args:
        hub_id: owner/name.
        parts: folders of a diffusers pipeline.
        own: folders that only this project's own models have.

    Raises:
        ModelError: if it is in neither.
    """
    patterns = [INDEX, MANIFEST, CARD, GALLERY]
    patterns += [f"{part}/*.{suffix}" for part in (*parts, *own) for suffix in ("json", "txt", "safetensors")]
    return _snapshot(hub_id, patterns, f"{INDEX} and the folders {', '.join(parts)}")


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
            f"connect to the internet, or run '{download(hub_id)}' where there is one and pass DIR (or copy"
            f" {what} of huggingface.co/{hub_id} there by hand)",
        ) from error


def download(hub_id: str) -> str:
    """The command of huggingface_hub that downloads a hub id into a folder."""
    return f"hf download {hub_id} --local-dir DIR"
