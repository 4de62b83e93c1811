"""The five sets on which affine-invariant depth is compared: frames, valid pixels, and how their files are named.

Source: dataset classes and configurations of prs-eth/Marigold; Lotus and E2E-FT evaluate on the same lists with
the same masks. Cases that they leave undefined are settled in ``docs/semantics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from deixis.errors import UsageError
from deixis.protocols.depth import Crop, DepthProtocol


@dataclass(frozen=True)
class EvaluationSet:
    """Where, and within which range, a set's depth counts.

    Attributes:
        name: how errors and reports call it.
        min_depth: pixels whose ground truth is at or below it do not count, predictions are raised to it [m].
        max_depth: the same at the other end [m]; may be infinite.
        crop: counted part of the frame, see :class:`DepthProtocol`.
        benchmark_crop: the frame is KITTI's 352 x 1216, bottom and centre.
        mask_file: the pixels that count come from a file of the set, and the range does not.
        max_res: scale and shift are fitted on maps no larger than this [px]; None for their own size.
    """

    name: str
    min_depth: float
    max_depth: float
    crop: Crop = "none"
    benchmark_crop: bool = False
    mask_file: bool = False
    max_res: int | None = None

    def __post_init__(self) -> None:
        _ = self.region  # refuses a crop or a range that makes no sense

    @property
    def region(self) -> DepthProtocol:
        """The same as a protocol for metric depth, without mask file."""
        return DepthProtocol(self.name, self.crop, self.max_depth, self.min_depth, self.benchmark_crop)

    def frame(self, x: Tensor) -> Tensor:
        """A map or picture [..., H, W] cut to the frame; one that has been cut already stays as it is.

        Raises:
            UsageError: if it is smaller than the frame.
        """
        if not self.benchmark_crop:
            return x
        whole = DepthProtocol(self.name, "none", self.max_depth, self.min_depth, benchmark_crop=True)
        top, bottom, left, right = whole.window(*x.shape[-2:])
        return x[..., top:bottom, left:right]

    def valid(self, depth: Tensor, mask: Tensor | None = None) -> Tensor:
        """The pixels that count, bool [H, W] of the frame.

        Args:
            depth: raw ground truth [H, W], not filled in [m]; 0, infinity or NaN where unknown.
            mask: [H, W], not 0 where the set's mask file says so; needed if the set has one.

        Raises:
            UsageError: if the mask is missing, not wanted or of another size, or the set's crop is not defined
                for frames of that size.
        """
        if depth.ndim != 2:
            raise UsageError(self.name, f"depth has shape {list(depth.shape)}", "pass one map [H, W] at a time")
        if (mask is not None) != self.mask_file:
            problem, remedy = ("has a mask file", "pass it") if self.mask_file else ("has no mask file", "pass none")
            raise UsageError(self.name, problem, f"{remedy} as mask")
        depth = self.frame(depth)
        if mask is not None:
            mask = self.frame(mask)
            if mask.shape != depth.shape:
                raise UsageError(
                    self.name, f"depth is {list(depth.shape)} and mask {list(mask.shape)}", "pass maps of one size"
                )
            # Only the file decides, but a depth that is none cannot be compared with.
            return (mask != 0) & torch.isfinite(depth) & (depth > 0)
        top, bottom, left, right = self.region.window(*depth.shape)
        inside = torch.zeros_like(depth, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        return inside & (depth > self.min_depth) & (depth < self.max_depth)


NYUV2 = EvaluationSet("nyuv2", 1e-3, 10.0, crop="nyu_eigen")
KITTI = EvaluationSet("kitti", 1e-5, 80.0, crop="kitti_eigen", benchmark_crop=True)
ETH3D = EvaluationSet("eth3d", 1e-5, math.inf, max_res=1024)
SCANNET = EvaluationSet("scannet", 1e-3, 10.0)
DIODE = EvaluationSet("diode", 0.6, 350.0, mask_file=True)
EVALUATION_SETS = {one.name: one for one in (NYUV2, KITTI, ETH3D, SCANNET, DIODE)}


def read_split(lines: Iterable[str]) -> list[tuple[str, ...]]:
    """The samples of a split list: picture, depth and, in some sets, one more field (mask file, focal length).

    Lines whose depth is ``None``, as 45 of KITTI's, and empty lines are left out.

    Args:
        lines: of the list, fields separated by white space.

    Raises:
        UsageError: if a line names no depth.
    """
    samples = []
    for number, line in enumerate(lines, start=1):
        fields = tuple(line.split())
        if len(fields) == 1:
            raise UsageError(f"line {number}", "names a picture without a depth", "give both, separated by a space")
        if fields and fields[1] != "None":
            samples.append(fields)
    return samples


def prediction_name(picture: str) -> str:
    """The file of a picture's map beside the public evaluation: ``a/rgb_0001.png`` becomes ``pred_0001.npy``."""
    return f"pred_{PurePosixPath(picture).stem.removeprefix('rgb_')}.npy"
