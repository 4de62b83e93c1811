"""How each dataset scores each task. What is not in this table is not evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from deixis.data.dataset import Sample
from deixis.data.readers import check_name
from deixis.errors import InputError, KindError, UsageError
from deixis.io import printable
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.ask import ASK, AskProtocol
from deixis.protocols.benchmarks import BENCHMARKS
from deixis.protocols.depth import KITTI_EIGEN, KITTI_GARG, NYU_EIGEN, DepthProtocol
from deixis.protocols.masks import DIODE, ETH3D, KITTI, NYUV2, SCANNET, EvaluationSet
from deixis.protocols.ranges import INDOORS, OUTDOORS
from deixis.protocols.refer import GENERAL_REFER, REFER_512, REFER_NATIVE, ReferProtocol

Task = Literal["metric", "affine", "refer", "ask"]
Protocol = DepthProtocol | AffineProtocol | ReferProtocol | AskProtocol
GIVES: dict[Task, str] = {
    "metric": "gives metric depth",
    "affine": "gives depth without metres",
    "refer": "gives masks",
    "ask": "gives distances of what words mean",
}


@dataclass(frozen=True)
class Setting:
    """How a dataset scores a task.

    Attributes:
        name: as ``--protocol`` takes it; none of a published setting.
        protocol: what is scored, and where.
        error_max_m: upper end of the colour scale of error maps, the same for all pictures [m].
        ranges: near ends of the ranges of true depth that errors are told apart by [m].
    """

    name: str
    protocol: Protocol
    error_max_m: float = 2.0
    ranges: tuple[float, ...] = INDOORS

    @property
    def region(self) -> DepthProtocol | None:
        """Where, and within which range, depth counts; None where none is scored."""
        if isinstance(self.protocol, AffineProtocol):
            return self.protocol.dataset.region
        return self.protocol if isinstance(self.protocol, DepthProtocol) else None

    @property
    def words(self) -> str:
        """The protocol in a sentence."""
        protocol = self.protocol
        if isinstance(protocol, AskProtocol):
            return "distances of referents at the picture's own size, medians of planar depth"
        if isinstance(protocol, ReferProtocol):
            size = protocol.size
            where = f"masks at {f'{size[0]} x {size[1]} px' if size else 'the own size of each picture'}"
            return f"{where}, empty where nothing is found" if protocol.general else where
        region = self.region
        assert region is not None  # what is left scores depth
        said = [f"depth above {region.min_depth:g} and below {region.max_depth:g} m", f"crop '{region.crop}'"]
        if isinstance(protocol, AffineProtocol) and protocol.dataset.mask_file:
            said = ["where the mask file of the set says so"]
        if region.benchmark_crop:
            said.append("in the 352 x 1216 benchmark frame")
        if isinstance(protocol, AffineProtocol):
            said.append("after the scale and shift that fit best by least squares")
        return ", ".join(said)


def _depth(protocol: DepthProtocol) -> Setting:
    far = protocol.max_depth > 10
    return Setting(protocol.name, protocol, *((8.0, OUTDOORS) if far else (2.0, INDOORS)))


def _affine(dataset: EvaluationSet) -> Setting:
    far = dataset.max_depth > 10
    return Setting(f"{dataset.name}-affine", AffineProtocol(dataset), *((8.0, OUTDOORS) if far else (2.0, INDOORS)))


def _whole(name: str, max_depth: float) -> dict[Task, tuple[Setting, ...]]:
    """Depth on whole frames up to a cap."""
    return {
        "metric": (_depth(DepthProtocol(name, "none", max_depth, 1e-3)),),
        "affine": (_affine(EvaluationSet(name, 1e-3, max_depth)),),
    }


_MASKS: dict[Task, tuple[Setting, ...]] = {"refer": (Setting(REFER_NATIVE.name, REFER_NATIVE),)}
_ANSWERS: dict[Task, tuple[Setting, ...]] = {**_MASKS, "ask": (Setting(ASK.name, ASK),)}
_COCO: dict[Task, tuple[Setting, ...]] = {"refer": (Setting(REFER_512.name, REFER_512), *_MASKS["refer"])}
_NYU: dict[Task, tuple[Setting, ...]] = {"metric": (_depth(NYU_EIGEN),), "affine": (_affine(NYUV2),)}

# The first setting of a pair is its default. Caps of the training sets are those they are trained with.
SETTINGS: dict[str, dict[Task, tuple[Setting, ...]]] = {
    "nyuv2": _NYU,
    "nyuv2-rooms": {**_NYU, **_ANSWERS},
    "kitti": {"metric": (_depth(KITTI_GARG), _depth(KITTI_EIGEN)), "affine": (_affine(KITTI),)},
    "eth3d": {"affine": (_affine(ETH3D),)},
    "scannet": {"affine": (_affine(SCANNET),)},
    "diode": {"affine": (_affine(DIODE),)},
    "hypersim": _whole("hypersim", 65.0),
    "vkitti2": _whole("vkitti2", 80.0),
    "refcoco": _COCO,
    "refcoco+": _COCO,
    "refcocog": _COCO,
    "grefcoco": {"refer": (Setting(GENERAL_REFER.name, GENERAL_REFER), *_COCO["refer"])},
    # The world reaches to the horizon; beyond this, as KITTI does it, nothing is scored.
    "world": {**_whole("world", 80.0), **_ANSWERS},
    "world-rooms": {**_whole("world-rooms", 10.0), **_ANSWERS},
    "world-roads": {**_whole("world-roads", 80.0), **_ANSWERS},
}


def choose(dataset: str, task: Task, model: str, wanted: str | None = None) -> Setting:
    """How a dataset scores what a model gives.

    Args:
        dataset: its name.
        task: what the model gives.
        model: how errors call it.
        wanted: name of a setting, or of a published one with the same protocol; the dataset's first by default.

    Raises:
        KindError: if the dataset does not score that.
        UsageError: for an unknown dataset, or one without that setting.
    """
    check_name(dataset, SETTINGS)
    found = SETTINGS[dataset].get(task)
    if found is None:
        others = ", ".join(name for name, tasks in SETTINGS.items() if task in tasks)
        scored = " or ".join(GIVES[one].removeprefix("gives ") for one in get_args(Task) if one in SETTINGS[dataset])
        raise KindError(
            printable(model), f"{GIVES[task]}, and {dataset} scores {scored}", f"use a dataset such as {others}"
        )
    if wanted is None:
        return found[0]
    published = [one for one in BENCHMARKS.values() if one.dataset == dataset]
    fits = [(one.name, setting) for setting in found for one in published if one.protocol == setting.protocol]
    named = {**{setting.name: setting for setting in found}, **dict(fits)}
    if wanted in named:
        return named[wanted]
    raise UsageError(
        f"protocol '{printable(wanted)}'",
        f"is not one of {dataset} for a model that {GIVES[task]}",
        f"use {', '.join(named)}",
    )


def check_frame(sample: Sample, region: DepthProtocol) -> None:
    """Refuse a picture of a size for which the part that is scored is not defined.

    Raises:
        InputError: if it is such a one.
    """
    height, width = sample.rgb.shape[:2]
    try:
        region.window(height, width)
    except UsageError as error:
        problem = f"is {width}x{height} pixels; {region.name} {error.problem}"
        raise InputError(sample.name, problem, "use the picture as it is published") from error
