"""What the small files of a depth estimator's diffusers folder say, read without the libraries that run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from deixis.errors import ModelError
from deixis.types import DepthKind

INDEX = "model_index.json"
MANIFEST = "deixis.json"
AGAIN = "copy the folder again from its source"
# What a folder says of itself: its card, and the pictures that a card may show.
CARD = "README.md"
GALLERY, SAMPLES = "gallery.jpg", "samples.jpg"
# Of the noise of Stable Diffusion 2, with v-prediction.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
System = Literal["marigold", "lotus-d", "lotus-g", "e2e-ft"]
# Pipeline classes of the originals, with the systems that were published under them.
CLASSES: dict[str, tuple[System, ...]] = {
    "MarigoldPipeline": ("marigold", "e2e-ft"),
    "MarigoldDepthPipeline": ("marigold", "e2e-ft"),
    "StableDiffusionPipeline": ("e2e-ft",),
    "LotusDPipeline": ("lotus-d",),
    "LotusGPipeline": ("lotus-g",),
    "DirectRegressionPipeline": ("lotus-d",),
    "DirectDiffusionY0Pipeline": ("lotus-g",),
}


def system_of(unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> System | None:
    """The method whose networks these are; None for any other, a plain Stable Diffusion among them.

    Args:
        unet: the denoiser's ``config.json``.
        scheduler: ``scheduler_config.json``.
    """
    channels, embedding = unet.get("in_channels"), unet.get("class_embed_type")
    if embedding == "projection" and unet.get("projection_class_embeddings_input_dim") == 4:
        return "lotus-d" if channels == 4 else "lotus-g" if channels == 8 else None
    if embedding is None and channels == 8:
        # E2E-FT's step starts at the last timestep of a schedule whose end is not pure noise. Its training saves the
        # class of its own schedule (DDPM), and its inference reads that as DDIM.
        last = scheduler.get("timestep_spacing") == "trailing" and not scheduler.get("rescale_betas_zero_snr")
        return "e2e-ft" if last and scheduler.get("_class_name") != "LCMScheduler" else "marigold"
    return None


def kind_of(folder: Path, index: Mapping[str, Any], system: System) -> DepthKind:
    """What the maps are. Lotus comes in both kinds, and says so in nothing but its name.

    Raises:
        ModelError: if the folder predicts something else.
    """
    stated = index.get("prediction_type")
    if stated not in (None, "depth", "disparity"):
        raise ModelError(folder / INDEX, f"says that it predicts {stated}", "pass a folder that predicts depth")
    if stated is None and system.startswith("lotus"):
        real = folder.resolve()
        # In the hub's cache a folder is called after its revision, and the model two folders up.
        model = real.parent.parent if real.parent.name == "snapshots" else real
        names = (str(index.get("_name_or_path", "")), model.name)
        stated = "disparity" if any("disparity" in name.lower() for name in names) else "depth"
    return "disparity" if stated == "disparity" else "affine"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        ModelError: if it is missing, damaged or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(path, f"is not JSON ({error})", AGAIN) from error
    if not isinstance(content, dict):
        raise ModelError(path, "is not a mapping of keys", AGAIN)
    return content
