"""Reproducible weights and inputs: pure functions of a name, a shape and a seed.

The recorded reference outputs were made with these very values, so that a checkpoint of a billion
parameters travels as a list of keys and shapes (``<case>.manifest.json``).
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def _uniform(name: str, shape: tuple[int, ...]) -> FloatArray:
    """Float32 values in [0, 1) of that shape, a pure function of the arguments."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return rng.random(math.prod(shape), dtype=np.float32).reshape(shape)


def pseudo_tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> FloatArray | npt.NDArray[np.int64]:
    """The pseudo-weight of a checkpoint key.

    * ``*.num_batches_tracked``: zeros (int64)
    * ``*.running_var``: uniform in [0.5, 1.5]; ``*.running_mean``: uniform in [-0.1, 0.1]
    * other ``*.weight`` of at most one dimension (normalisation scales): uniform in [0.9, 1.1]
    * anything else of at most one dimension (biases, gammas): uniform in [-0.05, 0.05]
    * two and more dimensions: uniform with variance 1 / fan_in, fan_in = prod(shape[1:])
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    unit = _uniform(f"{seed}:{key}", shape) * 2 - 1
    if key.endswith("running_var"):
        return 1.0 + 0.5 * unit
    if key.endswith("running_mean"):
        return 0.1 * unit
    if len(shape) <= 1:
        return 1.0 + 0.1 * unit if key.endswith("weight") else 0.05 * unit
    return unit * math.sqrt(3.0 / math.prod(shape[1:]))


def pseudo_input(name: str, shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    """The pseudo-input of that name, uniform in [0, 1)."""
    return _uniform(f"input:{seed}:{name}", shape)


def pseudo_state_dict(manifest: str | Path, seed: int = 0) -> dict[str, FloatArray | npt.NDArray[np.int64]]:
    """The pseudo-weights of every ``[key, shape]`` row of a manifest file."""
    rows = json.loads(Path(manifest).read_text())["tensors"]
    return {key: pseudo_tensor(key, tuple(shape), seed) for key, shape in rows}
