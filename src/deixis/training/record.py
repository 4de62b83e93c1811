"""What a finished run leaves beside its weights: curves, and what it was computed with."""

from __future__ import annotations

import io
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from PIL import Image

from deixis import __version__
from deixis.io import write_image, write_json

PACKAGES = (
    "accelerate",
    "diffusers",
    "numpy",
    "omegaconf",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


def write_environment(path: Path, device: torch.device, processes: int, precision: str) -> None:
    """Versions and hardware as JSON.

    Raises:
        DeixisError: if the file cannot be written.
    """
    versions = {"deixis": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an optional one
            continue
    computed = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "unknown"
    write_json(
        path,
        {
            "versions": versions,
            "system": platform.platform(),
            "device": str(device),
            "computed_by": computed,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": processes,
            "precision": precision,
        },
    )


def write_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Loss, learning rate and every validation metric over the steps, as one PNG.

    Raises:
        DeixisError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    names = [name for name in ("loss", "lr") if any(name in row for row in rows)]
    names += sorted({name for row in rows for name in row if name.startswith("val_")})
    if not names:  # of fewer than ten steps, without an evaluation
        return
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 2.8 * lines), layout="constrained")
    for axes, name in zip(figure.subplots(lines, columns, squeeze=False).flat, names, strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axes.set_title(name.removeprefix("val_").replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if name == "loss" and min(value for _, value in points) > 0:
            axes.set_yscale("log")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    with Image.open(buffer) as picture:
        write_image(path, picture)
