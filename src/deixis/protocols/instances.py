"""Depth error on things: on all, on small ones, and on those that the text names against those it does not.

There is no published protocol; the definitions are here. A map is aligned on the whole picture, as its set asks
(:class:`~deixis.protocols.affine.AffineProtocol`; metric maps as they are), and AbsRel is taken over the pixels of one
thing that count. Every thing weighs the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from deixis.errors import UsageError
from deixis.protocols.accumulate import ImageMetric
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.depth import DepthMap
from deixis.types import Depth, DepthKind, IntMap

SMALL = 0.01
"""Things whose mask is below this share of the whole picture are small."""


def named_in(text: str, names: Mapping[int, str]) -> set[int]:
    """The things whose name is in a text as whole words, in singular or regular plural, whatever the case.

    Args:
        text: description that a map was conditioned on.
        names: of the things, by their number.
    """
    return {
        number for number, name in names.items() if re.search(rf"\b{re.escape(name)}(?:s|es)?\b", text, re.IGNORECASE)
    }


class InstanceMetrics(ImageMetric):
    """Mean AbsRel over things; the same bits in any order and on any number of processes.

    Args:
        protocol: how maps are aligned, and which pixels count.
    """

    def __init__(self, protocol: AffineProtocol) -> None:
        super().__init__(width=3)
        self.protocol = protocol

    def update(
        self,
        prediction: Depth | DepthMap,
        target: DepthMap,
        instances: IntMap,
        mask: Tensor | None = None,
        *,
        named: Collection[int] = (),
        kind: DepthKind | None = None,
    ) -> None:
        """Add the things of one picture; those without a pixel that counts are counted as skipped.

        Args:
            prediction: [H, W]; a bare array or tensor needs ``kind``.
            target: raw ground truth [H, W] [m]; 0, infinity or NaN where unknown.
            instances: the thing at each pixel [H, W], 0 for none.
            mask: of the set's mask file [H, W], if it has one.
            named: things that the text names, see :func:`named_in`.
            kind: what a bare ``prediction`` is.

        Raises:
            UsageError: if ``instances`` is of another size; otherwise as :meth:`AffineProtocol.align`.
        """
        if instances.shape != tuple(target.shape):
            sizes = f"instances are {list(instances.shape)} and ground truth {list(target.shape)}"
            raise UsageError(
                self.protocol.dataset.name, sizes, "bring both to one size (instances by nearest neighbour)"
            )
        things = torch.from_numpy(instances.astype("int64"))
        numbers, areas = (values.tolist() for values in things[things > 0].unique(return_counts=True))
        found = self.protocol.aligned(prediction, target, mask, kind=kind)
        if found is None:
            self.skipped += len(numbers)
            return
        framed = self.protocol.dataset.frame(things).to(found.values.device)
        for number, area in zip(numbers, areas, strict=True):
            inside = found.valid & (framed == number)
            if not inside.any():
                self.skipped += 1
                continue
            truth = found.target[inside].double()
            error = ((found.values[inside].double() - truth).abs() / truth).mean().item()
            self.append([error, area / instances.size, number in named])

    def compute(self) -> dict[str, float]:
        """Mean AbsRel: ``abs_rel`` of all things, ``abs_rel_small``, ``abs_rel_named``, ``abs_rel_unnamed``.

        The counts of each are ``instances``, ``small``, ``named``, ``unnamed``, and ``skipped`` those without a pixel
        that counts. The mean of a group without things is left out.

        Raises:
            UsageError: if no thing was scored.
        """
        rows = list(zip(*self.columns(), strict=True))
        if not rows:
            problem = f"no instance was scored and {int(self.skipped)} skipped for want of ground truth in range"
            raise UsageError(self.protocol.dataset.name, problem, "give it pictures with instances and ground truth")
        groups = {
            "instances": [error for error, _, _ in rows],
            "small": [error for error, share, _ in rows if share < SMALL],
            "named": [error for error, _, named in rows if named],
            "unnamed": [error for error, _, named in rows if not named],
        }
        means = {
            "abs_rel" if name == "instances" else f"abs_rel_{name}": math.fsum(errors) / len(errors)
            for name, errors in groups.items()
            if errors
        }
        return {**means, **{name: len(errors) for name, errors in groups.items()}, "skipped": int(self.skipped)}
