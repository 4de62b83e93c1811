"""What there is: systems, and weights by name with their source, licence and size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from torch import nn

from deixis.errors import ModelError
from deixis.systems.evp import EVPDepth, EVPDepthConfig, EVPRefer, EVPReferConfig
from deixis.systems.vpd import VPDDepth, VPDDepthConfig, VPDRefer, VPDReferConfig
from deixis.types import DepthKind

Task = Literal["depth", "refer"]


@dataclass(frozen=True)
class System:
    """A method: its network, its switches and what it gives.

    Attributes:
        name: as in a weight folder's ``deixis.json``.
        task: ``depth`` or ``refer``.
        network: class of the network.
        config: class of its switches.
        kind: what a depth map of it means; None for masks.
    """

    name: str
    task: Task
    network: type[nn.Module]
    config: type[Any]
    kind: DepthKind | None


SYSTEMS = {
    system.name: system
    for system in (
        System("evp-depth", "depth", EVPDepth, EVPDepthConfig, "metric"),
        System("evp-refer", "refer", EVPRefer, EVPReferConfig, None),
        System("vpd-depth", "depth", VPDDepth, VPDDepthConfig, "metric"),
        System("vpd-refer", "refer", VPDRefer, VPDReferConfig, None),
    )
}


@dataclass(frozen=True)
class Weight:
    """A set of weights that ``load`` knows by name.

    Attributes:
        name: what to pass to ``--model``.
        system: the method.
        task: ``depth`` or ``refer``.
        kind: kind of depth, None for masks.
        licence: of the weights.
        source: where they lie or come from.
        size_mb: size of the folder [MB]; None where it is not here.
        sha256: digest of the weight files, None where they are not here.
        available: whether they can be loaded as they are.
    """

    name: str
    system: str
    task: Task
    kind: DepthKind | None
    licence: str
    source: str
    size_mb: float | None
    sha256: str | None
    available: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


# Published weights, which their authors host. None is fetched; ``deixis convert`` reads a downloaded file.
_PUBLISHED = (
    ("evp-depth-nyu", "evp-depth", "MIT", "github.com/Lavreniuk/EVP, README: depth, NYU Depth v2"),
    ("evp-depth-kitti", "evp-depth", "MIT", "github.com/Lavreniuk/EVP, README: depth, KITTI"),
    ("evp-refer", "evp-refer", "MIT", "github.com/Lavreniuk/EVP, README: referring, RefCOCO"),
    ("vpd-depth", "vpd-depth", "MIT", "github.com/wl-zhao/VPD, README: depth, NYU Depth v2"),
    ("vpd-refer", "vpd-refer", "MIT", "github.com/wl-zhao/VPD, README: referring"),
)


def shipped_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(resources.files("deixis").joinpath("weights")))


def weights() -> list[Weight]:
    """Every set of weights by name: shipped ones first, then published ones to convert."""
    found = []
    for manifest in sorted(shipped_folder().glob("*/deixis.json")):
        content = json.loads(manifest.read_text(encoding="utf-8"))
        system = SYSTEMS[content["system"]]
        size = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
        found.append(
            Weight(
                name=manifest.parent.name,
                system=system.name,
                task=system.task,
                kind=system.kind,
                licence=content["licence"],
                source=str(manifest.parent),
                size_mb=round(size / 1e6, 1),
                sha256=content["sha256"],
                available=True,
            )
        )
    for name, system_name, licence, source in _PUBLISHED:
        system = SYSTEMS[system_name]
        found.append(Weight(name, system.name, system.task, system.kind, licence, source, None, None, False))
    return found


def find(name: str | Path) -> Path:
    """Folder of the weights called ``name``, or ``name`` itself if it is a folder.

    Raises:
        ModelError: if there is no such name, or it names published weights that are not here.
    """
    path = Path(name)
    if path.is_dir():
        return path
    known = {weight.name: weight for weight in weights()}
    weight = known.get(str(name))
    if weight is None:
        if path.is_file():
            raise ModelError(
                name,
                "is a file, not a weight folder",
                f"convert it first: deixis convert {path} OUT --to NAME",
            )
        ready = ", ".join(w.name for w in known.values() if w.available)
        raise ModelError(name, "is neither a known model nor a folder", f"use {ready} or the path of a weight folder")
    if not weight.available:
        raise ModelError(
            name,
            "is published by its authors and not shipped",
            f"download it ({weight.source}), run 'deixis convert FILE OUT --to {name}' and pass OUT",
        )
    return Path(weight.source)
