"""Time and memory of Marigold, Lotus and E2E-FT at full size beside diffusers' own Marigold pipeline, on this machine.

Weights are random, of the sizes of Stable Diffusion 2.1, from which all of them were made, and lie in files as the
released ones do. Each row is a process of its own: what it took at most is its peak, reading the weights included. On
a GPU that is what torch held of the GPU's memory.

    python -m deixis.bench write FOLDER SYSTEM ARCHITECTURE
    python -m deixis.bench measure FOLDER ENGINE DEVICE RESOLUTION STEPS REPEATS THREADS
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from deixis.checkpoints.layout import INDEX, SCHEDULER, System
from deixis.errors import DeixisError
from deixis.io import write_json
from deixis.registry import shipped_folder

if TYPE_CHECKING:  # at run time each process imports what it measures
    import numpy as np
    import numpy.typing as npt

    RGB = npt.NDArray[np.uint8]

# Stable Diffusion 2.1 (deixis.backbones.configs).
FULL = "sd21"
# What runs, and which system's weights it runs on; in an order in which weights are written as rarely as possible.
ROWS: tuple[tuple[str, System], ...] = (
    ("diffusers", "marigold"),
    ("deixis", "marigold"),
    ("deixis", "e2e-ft"),
    ("deixis", "lotus-g"),
    ("deixis", "lotus-d"),
)
TASK = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
# What each system has beside the backbone's: pipeline class, U-Net, schedule.
OWN: dict[System, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "marigold": (
        "MarigoldDepthPipeline",
        {"in_channels": 8},
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    ),
    "e2e-ft": ("MarigoldDepthPipeline", {"in_channels": 8}, {"timestep_spacing": "trailing"}),
    "lotus-g": ("LotusGPipeline", {"in_channels": 8, **TASK}, {}),
    "lotus-d": ("LotusDPipeline", {"in_channels": 4, **TASK}, {}),
}


@dataclass(frozen=True)
class Row:
    """One system, measured.

    Attributes:
        name: who runs it, and which it is.
        seconds: fastest picture after the first [s].
        first_seconds: the first picture, which fetches weights from their file [s].
        load_seconds: until it could begin [s].
        peak_mb: most memory its process took, or held of the GPU's [MB].
    """

    name: str
    seconds: float
    first_seconds: float
    load_seconds: float
    peak_mb: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def bench(
    *,
    resolution: int,
    steps: int = 1,
    rounds: int = 1,
    repeats: int = 2,
    threads: int = 2,
    architecture: str = FULL,
    device: str = "cpu",
) -> Iterator[Row]:
    """Each row in turn, as many times as there are rounds; :func:`merged` makes one of a name's rows.

    Args:
        resolution: longer side of the picture, which is 3/4 as high [px].
        steps: of Marigold; the others take one.
        rounds: a machine is faster at one time than at another; in turns, all have their share of both.
        repeats: pictures after the first.
        threads: of each process.
        architecture: sizes of the parts (:func:`deixis.backbones.stable_diffusion.architecture`).
        device: ``cpu`` or a GPU.

    Raises:
        DeixisError: if a process fails.
    """
    with tempfile.TemporaryDirectory(prefix="deixis-bench-") as place:
        folder = Path(place)
        for engine, system in ROWS * rounds:
            _process("write", folder, system, architecture)
            found = json.loads(_process("measure", folder, engine, device, resolution, steps, repeats, threads))
            yield Row(f"{engine} {system}", **found)


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row per name: its shortest times, and the median of its peaks."""
    found = []
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        found.append(
            Row(
                name,
                seconds=min(row.seconds for row in own),
                first_seconds=min(row.first_seconds for row in own),
                load_seconds=min(row.load_seconds for row in own),
                peak_mb=round(median(row.peak_mb for row in own), 1),
            )
        )
    return found


def _process(*arguments: object) -> str:
    """What a process of this module says.

    It starts from this one, which has read no weights: Linux counts what a parent took to its children's peak.
    """
    command = [sys.executable, "-m", "deixis.bench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        killed = done.returncode < 0
        remedy = "free some memory or lower --resolution" if killed else "see the message"
        raise DeixisError(f"bench {arguments[0]} {arguments[2]}", f"failed ({last})", remedy)
    return done.stdout


def write(folder: Path, system: System, architecture: str = FULL) -> None:
    """Random weights of a system as a diffusers folder; what is there already and fits is left alone."""
    from deixis.backbones.stable_diffusion import architecture as stored

    sizes = stored(architecture)
    named, unet, schedule = OWN[system]
    wanted = {"vae": sizes["vae"], "unet": {**sizes["unet"], **unet}, "text_encoder": sizes["text_encoder"]}
    for part, config in wanted.items():
        path = folder / part / "config.json"
        if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != config:
            _write_part(folder / part, part, config)
    # Any vocabulary does: the empty text is asked.
    shutil.copytree(shipped_folder() / "mini-sd" / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    write_json(
        folder / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler", **SCHEDULER, **schedule}
    )
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    write_json(folder / INDEX, {"_class_name": named, "prediction_type": "depth", **classes})


def _write_part(folder: Path, part: str, config: Mapping[str, Any]) -> None:
    """One network's random weights: small numbers, norms at 1, biases at 0, so that what comes out is finite."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        if part == "text_encoder":
            network: Any = CLIPTextModel(CLIPTextConfig.from_dict(dict(config)))
        else:
            network = {"vae": AutoencoderKL, "unet": UNet2DConditionModel}[part].from_config(dict(config))
    block = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for key, like in network.state_dict().items():
        if like.ndim > 1:
            copies = math.ceil(like.numel() / len(block))
            tensors[key] = block.repeat(copies)[: like.numel()].clone().reshape(like.shape)
        else:
            tensors[key] = torch.full(like.shape, float(key.endswith("weight")))
    if part == "text_encoder":  # transformers 5 dropped the prefix in memory; on disk it stays
        tensors = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in tensors.items()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def measure(
    folder: Path, engine: str, device: str, resolution: int, steps: int, repeats: int, threads: int
) -> dict[str, float]:
    """What :class:`Row` holds of one engine, in this process."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    height = max(8, resolution * 3 // 4 // 8 * 8)
    picture = np.random.default_rng(0).integers(0, 256, (height, resolution, 3), dtype=np.uint8)
    began = time.perf_counter()
    run = {"deixis": _deixis, "diffusers": _diffusers}[engine](folder, picture, device, steps, resolution)
    loaded = time.perf_counter() - began
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        run()  # gives its map on the CPU: a GPU has ended then
        seconds.append(time.perf_counter() - began)
    if torch.device(device).type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": round(min(seconds[1:]), 3),
        "first_seconds": round(seconds[0], 3),
        "load_seconds": round(loaded, 3),
        "peak_mb": round(peak / 1e6, 1),
    }


def _deixis(folder: Path, picture: RGB, device: str, steps: int, resolution: int) -> Callable[[], object]:
    from deixis.predict import load
    from deixis.relative import RelativePredictor

    model = load(folder, device)
    assert isinstance(model, RelativePredictor)
    own = steps if model.system == "marigold" else None
    return lambda: model(picture, steps=own, resolution=resolution)


def _diffusers(folder: Path, picture: RGB, device: str, steps: int, resolution: int) -> Callable[[], object]:
    import torch
    from diffusers import MarigoldDepthPipeline
    from PIL import Image

    pipeline = MarigoldDepthPipeline.from_pretrained(str(folder), local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": steps, "processing_resolution": resolution}
    image = Image.fromarray(picture)
    return lambda: pipeline(image, generator=torch.Generator(device).manual_seed(0), **given)


if __name__ == "__main__":
    task, place, what, *more = sys.argv[1:]
    if task == "write":
        write(Path(place), what, *more)  # type: ignore[arg-type]  # a system, as the other process says
    else:
        sys.stdout.write(json.dumps(measure(Path(place), what, more[0], *map(int, more[1:]))))
