"""Answers to "how far is it?": whether the thing was found, how far off its distance is, what its interval is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deixis.ask import depths_of, measure
from deixis.errors import KindError
from deixis.types import Depth, Mask

AskRow = dict[str, float | bool | None]


@dataclass(frozen=True)
class AskProtocol:
    """How an answer is scored.

    Attributes:
        name: how errors and reports call it.
    """

    name: str = "ask"

    def score(self, mask: Mask, depth: Depth, *, there: bool, distance_m: float | None) -> AskRow:
        """One referent, measured as :func:`deixis.ask.ask` does.

        Args:
            mask: what a referring system found [H, W].
            depth: metric depth of the same picture [H, W].
            there: whether the words mean something.
            distance_m: true planar depth of what they mean [m]; None where unknown.

        Returns:
            ``there``, ``found``, ``score``, ``truth_m``, ``median_m``, ``p10_m``, ``p90_m`` [m], and ``rank``, the
            share of the depths measured that are below the truth, ties counted half; None where there is none.

        Raises:
            KindError: if the depth map is not metric.
            UsageError: if the sizes differ.
        """
        if depth.kind != "metric":
            raise KindError(self.name, f"asks for metres of {depth.kind} depth", "use a metric model such as evp-depth")
        found = mask.found and mask.area > 0
        distance = measure(mask, depth) if found else None
        rank = None
        if distance is not None and distance_m is not None:
            values = depths_of(mask, depth)
            rank = float(np.mean(values < distance_m) + np.mean(values == distance_m) / 2)
        return {
            "there": there,
            "found": found,
            "score": mask.score,
            "truth_m": distance_m,
            **{f"{name}_m": None if distance is None else distance[name] for name in ("median", "p10", "p90")},
            "rank": rank,
        }


ASK = AskProtocol()
