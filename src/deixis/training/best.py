"""The best of a run's evaluated weights, by a rule that the recipe states."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from deixis.errors import UsageError
from deixis.training.checkpoint import load_state, save_state

ORDERS = ("min", "max")


class Best:
    """Keeps the weights whose metric is best, the first of equals.

    Args:
        rule: a metric of the evaluation and whether a small or a large one is good: ``val_nyuv2_abs_rel min``.
        path: where they are kept.
    """

    def __init__(self, rule: str, path: Path) -> None:
        self.metric, self.order = rule.split()
        self.path = path
        self.value = math.nan

    def begin(self, step: int) -> None:
        """Go on from ``step`` with what was best so far, or anew from 0.

        A run that was killed may have found its best after its last checkpoint. It will come to that again.

        Raises:
            CheckpointError: if the best of an interrupted run is damaged.
            UsageError: if that was chosen by another rule.
        """
        if step == 0:
            self.path.unlink(missing_ok=True)
        elif self.path.is_file():
            kept = load_state(self.path)
            rule = f"{self.metric} {self.order}"
            if kept["rule"] != rule:
                raise UsageError(
                    self.path, f"was chosen by {kept['rule']}, not {rule}", "delete it to choose from here on"
                )
            self.value = kept["value"]

    def __call__(self, found: dict[str, float], model: nn.Module, step: int) -> None:
        """Keep ``model`` if it is better than all before.

        Raises:
            UsageError: if the evaluation has no such metric.
            DeixisError: if the disk does not take it; what was best before is as it was.
        """
        if self.metric not in found:
            raise UsageError(
                f"best {self.metric}", "is no metric of this evaluation", f"choose one of {', '.join(found)}"
            )
        value = found[self.metric]
        better = value < self.value if self.order == "min" else value > self.value
        if better or (math.isnan(self.value) and not math.isnan(value)):
            rule = f"{self.metric} {self.order}"
            save_state({"average": model.state_dict(), "rule": rule, "value": value, "step": step}, self.path)
            self.value = value
