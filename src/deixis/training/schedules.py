"""Learning rates of the published training loops, step by step, and the minis' own."""

from __future__ import annotations

import math
from typing import Literal

from deixis.training.objectives import iter_exponential

Shape = Literal["cosine", "evp-depth", "evp-refer", "vpd-depth", "vpd-refer", "exponential", "constant"]
# Of VPD's two schedules.
_POWER = 0.9


def rate(shape: Shape, step: int, *, peak: float, steps: int, warmup: int, final: float) -> float:
    """The learning rate of an optimiser step.

    * ``cosine``: a linear rise from 0, whose last step has the peak, then half a cosine towards ``final`` times the
      peak, which the step after the last would reach.
    * ``evp-depth``: the rise begins at ``final`` times the peak. The cosine behind it is as long as the whole run, so
      that the run ends before it does. Source: ``depth/train.py`` of Lavreniuk/EVP; warm-up of one epoch.
    * ``evp-refer``: as that, but the first step has ``final`` times the peak itself, and the first step after the
      warm-up the peak. Source: ``refer/train.py`` of Lavreniuk/EVP with timm 0.4.12; warm-up of one epoch.
    * ``vpd-depth``: from ``final`` times the peak up to it in ``warmup`` steps, half of the epochs, and as fast down
      again, both by a power of 0.9. Source: ``depth/train.py`` of wl-zhao/VPD.
    * ``vpd-refer``: from the peak to 0 by a power of 0.9. Source: ``refer/train.py`` of wl-zhao/VPD.
    * ``exponential``: Marigold and E2E-FT, see :func:`deixis.training.objectives.iter_exponential`.
    * ``constant``: Lotus.

    Args:
        shape: which.
        step: from 0.
        peak: the recipe's learning rate.
        steps: of the run, or of what falls (``exponential``).
        warmup: steps of the rise.
        final: as a share of the peak.
    """
    if shape == "constant":
        return peak
    if shape == "exponential":
        return peak * iter_exponential(step, steps, final, warmup)
    if shape == "cosine":
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
    if shape == "vpd-refer":
        return float(peak * (1 - step / steps) ** _POWER)
    least = final * peak
    if shape == "vpd-depth":
        risen = (step + 1) / warmup
        if risen < 1:
            return float(least + (peak - least) * risen**_POWER)
        return float(max(least, peak - (peak - least) * (risen - 1) ** _POWER))
    done = step + 1 if shape == "evp-depth" else step
    if done < warmup:
        return least + (peak - least) * done / warmup
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * (done - warmup) / steps))


def scaled(shape: Shape, step: int, scale: float) -> float:
    """What a group's share of the learning rate comes to at a step.

    The referring loop of EVP hands its groups the warm-up's first rate as it is, and multiplies from the second step
    on: a frozen group's share of 0 included. That of VPD never multiplies: its groups all learn at one rate.
    """
    return 1.0 if shape == "vpd-refer" or (shape == "evp-refer" and step == 0) else scale
