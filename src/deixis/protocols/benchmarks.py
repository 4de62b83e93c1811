"""The published settings as they are compared: a split, its number of samples, a protocol, test-time augmentation.

Crop, cap, alignment and the kinds of depth that are refused belong to the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from deixis.data.dataset import check_count
from deixis.data.refcoco import PUBLISHED
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

    def check_count(self, found: int) -> None:
        """Refuse a number of samples that is not the published one.

        Raises:
            InputError: if they differ; names both.
        """
        if self.count is not None:
            where = f"{self.name} ({self.dataset} {self.split})"
            check_count(where, found, self.count, "score the whole split once, or call it something else")


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
