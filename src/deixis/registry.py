"""What there is: systems, and weights by name with their source, licence and size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from deixis.checkpoints.layout import INDEX, MANIFEST, kind_of, read_json, system_of
from deixis.errors import ModelError, quoted
from deixis.hub import cached, expanded, fetch, fetch_files, is_hub_id
from deixis.types import DepthKind

if TYPE_CHECKING:
    from torch import nn

Task = Literal["depth", "refer"]
# A backbone answers nothing by itself: systems start from it, or share parts with it.
BACKBONE: Literal["backbone"] = "backbone"
Classes: TypeAlias = "tuple[type[nn.Module], type[Any]]"


# A system's classes are imported when it is built: names are listed and checked without the seconds that
# torch and diffusers take to import.


def _evp_depth() -> Classes:
    from deixis.systems.evp import EVPDepth, EVPDepthConfig

    return EVPDepth, EVPDepthConfig


def _evp_refer() -> Classes:
    from deixis.systems.evp import EVPRefer, EVPReferConfig

    return EVPRefer, EVPReferConfig


def _vpd_depth() -> Classes:
    from deixis.systems.vpd import VPDDepth, VPDDepthConfig

    return VPDDepth, VPDDepthConfig


def _vpd_refer() -> Classes:
    from deixis.systems.vpd import VPDRefer, VPDReferConfig

    return VPDRefer, VPDReferConfig


@dataclass(frozen=True)
class System:
    """A method: its network, its switches and what it gives.

    Attributes:
        name: as in a weight folder's ``deixis.json``.
        task: ``depth`` or ``refer``.
        kind: what a depth map of it means; None for masks.
        classes: imports the class of the network and the class of its switches.
    """

    name: str
    task: Task
    kind: DepthKind | None
    classes: Callable[[], Classes]

    @property
    def network(self) -> type[nn.Module]:
        """Class of the network."""
        return self.classes()[0]

    @property
    def config(self) -> type[Any]:
        """Class of its switches."""
        return self.classes()[1]


SYSTEMS = {
    system.name: system
    for system in (
        System("evp-depth", "depth", "metric", _evp_depth),
        System("evp-refer", "refer", None, _evp_refer),
        System("vpd-depth", "depth", "metric", _vpd_depth),
        System("vpd-refer", "refer", None, _vpd_refer),
    )
}


@dataclass(frozen=True)
class Weight:
    """A set of weights that ``load`` knows by name.

    Attributes:
        name: what to pass to ``--model``.
        system: the method.
        task: ``depth``, ``refer``, or ``backbone``.
        kind: kind of depth, None for masks and backbones.
        licence: of the weights.
        source: where they lie or come from.
        size_mb: size of the folder [MB]; None where it is not here.
        sha256: digest of the weight files, None where they are not here.
        available: whether they can be loaded as they are.
    """

    name: str
    system: str
    task: Task | Literal["backbone"]
    kind: DepthKind | None
    licence: str
    source: str
    size_mb: float | None
    sha256: str | None
    available: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


# Systems that lie in diffusers folders of their own.
RELATIVE = ("marigold", "lotus-d", "lotus-g", "e2e-ft")
# Folders of a depth estimator's diffusers pipeline.
PIPELINE_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# Files of a captioner's folder.
CAPTIONER_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")

# Of everything trained by the recipes that ship with the project.
MINI_LICENCE = "Apache-2.0; trained on NYU Depth v2 frames, which are for research use"

# Published checkpoints, which their authors host. None is fetched; ``deixis convert`` reads a downloaded file.
# EVP's authors name the place in issue 1 of github.com/Lavreniuk/EVP; none is named for KITTI.
_PUBLISHED = (
    ("evp-depth-nyu", "evp-depth", "MIT", "huggingface.co/spaces/MykolaL/evp, Files: best_model_nyu.ckpt"),
    ("evp-depth-kitti", "evp-depth", "MIT", "github.com/Lavreniuk/EVP, which names no file for KITTI: ask its authors"),
    ("evp-refer", "evp-refer", "MIT", "huggingface.co/spaces/MykolaL/evp, Files: best_model_refcoco.pth"),
    ("vpd-depth", "vpd-depth", "MIT", "github.com/wl-zhao/VPD, depth/README.md: NYU Depth v2"),
    ("vpd-refer", "vpd-refer", "MIT", "github.com/wl-zhao/VPD, refer/README.md: RefCOCO"),
)


# Published diffusers folders by their hub id, with the kind of their maps. Fetched only when they are named.
_HUB: tuple[tuple[str, str, DepthKind, str], ...] = (
    ("prs-eth/marigold-depth-v1-0", "marigold", "affine", "Apache-2.0"),
    ("prs-eth/marigold-depth-v1-1", "marigold", "affine", "RAIL++-M"),
    ("prs-eth/marigold-depth-lcm-v1-0", "marigold", "affine", "Apache-2.0"),
    ("jingheya/lotus-depth-d-v1-0", "lotus-d", "affine", "Apache-2.0"),
    ("jingheya/lotus-depth-d-v1-1", "lotus-d", "affine", "Apache-2.0"),
    ("jingheya/lotus-depth-d-v2-0-disparity", "lotus-d", "disparity", "Apache-2.0"),
    ("jingheya/lotus-depth-g-v1-0", "lotus-g", "affine", "Apache-2.0"),
    ("jingheya/lotus-depth-g-v2-0-disparity", "lotus-g", "disparity", "Apache-2.0"),
    ("jingheya/lotus-depth-g-v2-1-disparity", "lotus-g", "disparity", "Apache-2.0"),
    ("GonzaloMG/marigold-e2e-ft-depth", "e2e-ft", "affine", "Apache-2.0"),
    ("GonzaloMG/stable-diffusion-e2e-ft-depth", "e2e-ft", "affine", "Apache-2.0"),
)


def shipped_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(resources.files("deixis").joinpath("weights")))


def weights() -> list[Weight]:
    """Every set of weights by name: shipped ones first, then published ones to convert, then those of the hub.

    Raises:
        ModelError: if a shipped folder is damaged.
    """
    found = [_shipped(manifest) for manifest in sorted(shipped_folder().glob(f"*/{MANIFEST}"))]
    found += [_diffusers(index.parent) for index in sorted(shipped_folder().glob(f"*/{INDEX}"))]
    for name, system_name, licence, source in _PUBLISHED:
        system = SYSTEMS[system_name]
        found.append(Weight(name, system.name, system.task, system.kind, licence, source, None, None, False))
    return found + [_published(*entry) for entry in _HUB]


def _shipped(manifest: Path) -> Weight:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        system = SYSTEMS[content["system"]]
        return Weight(
            name=manifest.parent.name,
            system=system.name,
            task=system.task,
            kind=system.kind,
            licence=content["licence"],
            source=str(manifest.parent),
            size_mb=_megabytes(manifest.parent),
            sha256=content["sha256"],
            available=True,
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(manifest, f"is damaged ({error!r})", "install deixis again") from error


def _diffusers(folder: Path) -> Weight:
    """A shipped diffusers folder: a depth estimator, or a backbone, which is a plain Stable Diffusion."""
    system = system_of(
        read_json(folder / "unet" / "config.json"), read_json(folder / "scheduler" / "scheduler_config.json")
    )
    return Weight(
        name=folder.name,
        system=system or "stable-diffusion",
        task="depth" if system else BACKBONE,
        kind=kind_of(folder, read_json(folder / INDEX), system) if system else None,
        licence=MINI_LICENCE,
        source=str(folder),
        size_mb=_megabytes(folder),
        sha256=None,
        available=True,
    )


def _published(hub_id: str, system: str, kind: DepthKind, licence: str) -> Weight:
    folder = cached(hub_id, PIPELINE_PARTS)
    return Weight(
        name=hub_id,
        system=system,
        task="depth",
        kind=kind,
        licence=licence,
        source=str(folder or f"huggingface.co/{hub_id}"),
        size_mb=_megabytes(folder) if folder else None,
        sha256=None,
        available=folder is not None,
    )


def _megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1)


def find(name: str | Path) -> Path:
    """Folder of the weights called ``name``, or ``name`` itself if it is a folder.

    A name of shipped weights means these, whatever lies in the working directory; for a folder of that name
    say ``./name``. A hub id, ``owner/name``, is looked for on the model hub and in its cache.

    Raises:
        ModelError: if there is no such name, or it names published weights that are not here.
    """
    known = {weight.name: weight for weight in weights()}
    weight = known.get(str(name))
    if weight is not None and weight.task == BACKBONE:
        raise ModelError(name, "is a backbone, which answers nothing by itself", f"use {_ready(known)}")
    if weight is not None and weight.available:
        return Path(weight.source)
    if not str(name).strip():
        raise ModelError("model ''", "has no name", f"use {_ready(known)} or the path of a weight folder")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no such user, a name too long for the disk
        reason = getattr(error, "strerror", None) or error
        raise ModelError(name, f"cannot be a path ({reason})", f"use {_ready(known)}") from error
    if is_folder:
        return path
    if weight is not None and not is_hub_id(weight.name):
        raise ModelError(
            name,
            "is published by its authors and not shipped",
            f"download it ({weight.source}), run 'deixis convert FILE OUT --to {name}' and pass OUT",
        )
    if is_file:
        raise ModelError(
            name, "is a file, not a weight folder", f"convert it first: deixis convert {path} OUT --to NAME"
        )
    if is_hub_id(str(name)):
        folder = fetch(str(name), PIPELINE_PARTS, own=("head",))
        if not any((folder / index).is_file() for index in (MANIFEST, INDEX)):
            raise ModelError(
                name, f"holds neither {MANIFEST} nor {INDEX}", "name a model of deixis or a diffusers pipeline"
            )
        return folder
    raise ModelError(
        name, "is neither a known model nor a folder", f"use {_ready(known)} or the path of a weight folder"
    )


def find_parts(source: str, patterns: Sequence[str]) -> Path:
    """Folder of something that systems are made of: as named, shipped under that name, or of a hub id.

    Args:
        source: path, name, or hub id.
        patterns: files that are fetched of a hub id.

    Raises:
        ModelError: if there is none.
    """
    path = expanded(source)
    if source and path.is_dir():  # "" is no name of the folder one is in
        return path
    if source and path.name == source and (shipped_folder() / source).is_dir():
        return shipped_folder() / source
    if is_hub_id(source):
        return fetch_files(source, patterns)
    raise ModelError(quoted(source), "is neither a folder nor a hub id", "pass a folder, or owner/name")


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a diffusers pipeline, not one of the project's own."""
    return (folder / INDEX).is_file() and not (folder / MANIFEST).is_file()


def _ready(known: dict[str, Weight]) -> str:
    return ", ".join(weight.name for weight in known.values() if weight.available and weight.task != BACKBONE)
