"""Peak memory of EVP depth's training steps at full size: random weights of Stable Diffusion 1.5's sizes, on the CPU.

    python -m tests.training_memory [--size 480x640] [--batches 1,2] [--keep-activations]

A line for each batch size: its pictures, the process's peak so far [GB] and the seconds of the step. Float32, AdamW
with the published parameter groups, and gradient checkpointing unless activations are kept. A step on a small picture
comes first: from then on the optimiser's states are there. Needs some 20 GB, and minutes a step on two cores.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import torch
from torch import Tensor, nn

from deixis.backbones.stable_diffusion import StableDiffusion, architecture
from deixis.systems.evp import EVPDepth, EVPDepthConfig
from deixis.training.groups import parameter_groups
from deixis.training.loop import Schedule, _distributed, _Stepper
from deixis.training.losses import silog_loss
from deixis.training.machine import Hardware, begin

SCHEDULE = Schedule(
    steps=2, lr=1e-6, warmup=0, final=1.0, weight_decay=0.1, clip=0.1, ema=0.0, seed=0, save_every=1, eval_every=1
)


class Random:
    """Any picture and depth: how much memory a step takes does not depend on what is seen."""

    auxiliary: nn.Module = nn.Identity()
    data = "random"

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """SiLog, with the text that the frozen tower gives."""
        tower: Any = model.text_tower
        return silog_loss(model(batch["image"], tower(batch["ids"])), batch["depth"])


def peak_gb() -> float:
    """Most memory this process has taken so far [GB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", default="480x640", help="height x width [px]")
    parser.add_argument("--batches", default="1", help="pictures a step, ascending")
    parser.add_argument("--keep-activations", action="store_true", help="without gradient checkpointing")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    model = EVPDepth(EVPDepthConfig(max_depth=10.0, std=5.07543), StableDiffusion.from_config(architecture("sd1")))
    model.to(memory_format=torch.channels_last)
    trained = nn.ModuleDict({"model": model, "auxiliary": Random.auxiliary}).train()
    groups = parameter_groups(model, Random.auxiliary, SCHEDULE.weight_decay, "published", "evp-depth")
    learned = sum(p.numel() for group in groups for p in group["params"])
    frozen = sum(p.numel() for p in model.parameters()) - learned
    print(f"{learned / 1e6:.0f} M parameters learn, {frozen / 1e6:.0f} M are frozen, {peak_gb():.1f} GB", flush=True)
    optimiser = torch.optim.AdamW([{k: v for k, v in group.items() if k != "scale"} for group in groups], lr=1e-6)
    hardware, accelerator, task = Hardware(checkpointing=not given.keep_activations), begin("cpu"), Random()
    call = _distributed(trained, task, hardware, accelerator)
    stepper = _Stepper(call, task, SCHEDULE, hardware, accelerator, torch.device("cpu"), optimiser)
    sizes = [(pictures, height, width) for pictures in map(int, given.batches.split(","))]
    for step, (pictures, rows, columns) in enumerate([(1, 64, 64), *sizes]):
        batch = {
            "image": torch.rand(pictures, 3, rows, columns),
            "depth": 1 + torch.rand(pictures, 1, rows, columns),
            "ids": torch.randint(500, (pictures, 40)),
        }
        began = time.perf_counter()
        stepper(batch, step)
        print(f"{pictures} x {rows} x {columns}\t{peak_gb():.2f} GB\t{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
