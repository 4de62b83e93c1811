"""The published settings as they are compared: a split, its number of samples, a protocol, test-time augmentation.

Crop, cap, alignment and the kinds of depth that are refused belong to the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from deixis.data.refcoco import PUBLISHED
from deixis.errors import InputError
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.depth import KITTI_GARG, NYU_EIGEN, DepthProtocol
from deixis.protocols.masks import DIODE, ETH3D, KITTI, NYUV2, SCANNET
from deixis.protocols.refer import GENERAL_REFER, REFER_512, ReferProtocol
from deixis.types import TTA


@dataclass(frozen=True)
class Benchmark:
    """One published setting.

    Attributes:
        name: how reports call it.
        dataset: its name, as readers have it.
        split: which part, as readers have it.
        count: samples that are scored: pictures, or expressions; None where we know no published number.
        protocol: how one is scored.
        tta: how its maps are predicted.
    """

    name: str
    dataset: str
    split: str
    count: int | None
    protocol: DepthProtocol | AffineProtocol | ReferProtocol
    tta: TTA = "none"

    def differs(self, *, scored: int | None, missed: int, tta: TTA, own_list: str | None) -> str | None:
        """Why a result is not comparable with published ones, all reasons; None if it is.

        Args:
            scored: pictures or expressions; None while nobody knows.
            missed: samples of the split that are not scored, be it for a limit or because they cannot be read.
            tta: how maps were predicted.
            own_list: what names the samples where that is not the published list.
        """
        reasons = []
        if self.count is not None and scored not in (None, self.count):
            reasons.append(f"{scored} of {self.count} are scored")
        elif missed:
            reasons.append(f"{missed} of its samples are not scored")
        if own_list is not None:
            reasons.append(f"its samples are not those of the published list ({own_list})")
        if tta != self.tta:
            reasons.append(f"test-time augmentation is '{tta}', not '{self.tta}'")
        return "; ".join(reasons) or None

    def check(self, *, scored: int | None, missed: int, tta: TTA, own_list: str | None) -> None:
        """Refuse a result that is to bear this name and is not comparable; arguments as :meth:`differs`.

        Raises:
            InputError: if it is not; says why.
        """
        why = self.differs(scored=scored, missed=missed, tta=tta, own_list=own_list)
        if why is not None:
            remedy = f"evaluate all of {self.split} with --tta {self.tta}; deixis eval without --protocol takes a part"
            raise InputError(self.name, why.replace(";", ","), remedy)


def _referring() -> list[Benchmark]:
    found = []
    for dataset, splits in PUBLISHED.items():
        protocol = GENERAL_REFER if dataset == "grefcoco" else REFER_512
        for split, counts in splits.items():
            if not split.endswith("-train"):
                expressions = counts.expressions if counts else None
                found.append(Benchmark(f"refer-{dataset}-{split}", dataset, split, expressions, protocol))
    return found


# KITTI's Eigen split lists 697 pictures; the 45 without a depth map are left out by every reader. DIODE's validation
# set is 325 pictures indoors and 446 outdoors.
BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark("metric-nyuv2", "nyuv2", "test", 654, NYU_EIGEN, tta="windows"),
        Benchmark("metric-kitti", "kitti", "test", 652, KITTI_GARG, tta="windows"),
        Benchmark("affine-nyuv2", "nyuv2", "test", 654, AffineProtocol(NYUV2)),
        Benchmark("affine-kitti", "kitti", "test", 652, AffineProtocol(KITTI)),
        Benchmark("affine-eth3d", "eth3d", "full", 454, AffineProtocol(ETH3D)),
        Benchmark("affine-scannet", "scannet", "val", 800, AffineProtocol(SCANNET)),
        Benchmark("affine-diode", "diode", "val", 771, AffineProtocol(DIODE)),
        *_referring(),
    )
}


def named_setting(name: str | None) -> Benchmark | None:
    """The published setting that a protocol's name is, None if it is none."""
    return None if name is None else BENCHMARKS.get(name)


def benchmark(dataset: str, split: str, protocol: object) -> Benchmark | None:
    """The published setting of a split under a protocol, None where there is none."""
    fits = (one for one in BENCHMARKS.values() if (one.dataset, one.split, one.protocol) == (dataset, split, protocol))
    return next(fits, None)
