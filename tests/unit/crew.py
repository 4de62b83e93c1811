"""Several processes that know of each other, forked from one that has imported everything:

    python -m tests.unit.crew COUNT gradients JOBS     one step of each job, and of one more in parts and in turns, with
                                                       their gradients in JOBS.RANK; a run in parts that is interrupted
                                                       and goes on, in JOBS.run; one that a single process began goes
                                                       on in parts, in JOBS.begun; then the last process dies, and the
                                                       others take the first job's step once more
    python -m tests.unit.crew COUNT train ARGUMENTS    deixis train

What each says on stderr goes to stderr, and their exit codes to stdout as a list.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from deixis.cli import main
from deixis.errors import DeixisError
from deixis.training import run
from deixis.training.fsdp import whole
from deixis.training.log import RunLog
from deixis.training.loop import Schedule, _distributed, _Stepper, train
from deixis.training.machine import Hardware, begin

SCHEDULE = Schedule(
    steps=1, lr=0.0, warmup=0, final=1.0, weight_decay=0.0, clip=None, ema=0.0, seed=0, save_every=1, eval_every=1
)
# The job whose last step is in parts and in turns: one without batch norms, which would see a turn alone.
TURNED = 2
Step = dict[str, Any]


def one_step(task: Any, model: torch.nn.Module, batch: dict[str, Any], hardware: Hardware) -> Step:
    """Loss, gradient norm, gradients and batch statistics of a step without a learning rate."""
    trained = torch.nn.ModuleDict({"model": model, "auxiliary": task.auxiliary}).train()
    accelerator = begin("cpu", hardware.precision)
    call = _distributed(trained, task, hardware, accelerator)
    optimiser = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=0.0)
    loss, norm = _Stepper(call, task, SCHEDULE, hardware, accelerator, torch.device("cpu"), optimiser)(batch, 0)
    gradients = whole({name: p.grad for name, p in trained.named_parameters() if p.grad is not None})
    statistics = {name: value for name, value in trained.named_buffers() if "running" in name}
    return {"loss": loss, "norm": norm, "gradients": gradients, "statistics": statistics}


class Ripples:
    """A regression on blocks as they are in a U-Net, in double precision.

    Args:
        stop: drawing the batch of this step ends it.
    """

    data = "ripples"

    def __init__(self, stop: int | None = None) -> None:
        torch.manual_seed(1)
        self.auxiliary: nn.Module = nn.Conv2d(4, 1, 1).double()
        self.stop = stop

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        if self.stop == 0:
            raise KeyboardInterrupt
        self.stop = None if self.stop is None else self.stop - 1
        return {"x": torch.rand(4, 4, 6, 6, generator=generator).double()}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        x = batch["x"]
        wrong: Tensor = (model(x) - x.sum(dim=1, keepdim=True).sin()).square().mean()
        return wrong + 0.1 * self.auxiliary(x).square().mean()

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val": float(model.eval()(torch.ones(1, 4, 6, 6).double()).mean())}

    def pictures(self, model: nn.Module) -> None:
        """None."""


class Blocks(nn.Module):
    """What is fetched as one, a batch norm, what is left to the root, and what does not learn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = ResnetBlock2D(in_channels=4, out_channels=6, temb_channels=None, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 1, 1)
        self.frozen = nn.Conv2d(1, 1, 1).requires_grad_(False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.frozen(self.last(self.norm(self.block(x, None))))
        return y


RIPPLES = replace(SCHEDULE, steps=7, lr=1e-2, weight_decay=0.01, clip=0.5, ema=0.7, save_every=2, eval_every=3)


def ripple(out: Path, hardware: Hardware, stop: int | None = None) -> nn.Module:
    """Train :class:`Blocks`, or go on with it; one process, or this one of several."""
    out.mkdir(exist_ok=True)
    log = RunLog(out / "log.jsonl", lambda row: None)
    return train(Blocks(), Ripples(stop), RIPPLES, out, log, hardware=hardware)


def in_parts(out: Path) -> None:
    """Interrupted at step 5, whose checkpoint is kept; the second start finishes it."""
    hardware = Hardware(fsdp=True, checkpointing=True)
    try:
        ripple(out, hardware, stop=5)
    except KeyboardInterrupt:
        torch.distributed.barrier()
    if os.environ["RANK"] == "0":
        shutil.copyfile(out / "state.pt", out / "half.pt")
    torch.distributed.barrier()
    ripple(out, hardware)


def gradients(path: str) -> None:
    jobs = torch.load(path, weights_only=False)
    steps = [one_step(*job, Hardware()) for job in copy.deepcopy(jobs)]
    steps.append(one_step(*copy.deepcopy(jobs[TURNED]), Hardware(fsdp=True, accumulation=2)))
    torch.save(steps, f"{path}.{os.environ['RANK']}")
    in_parts(Path(f"{path}.run"))
    ripple(Path(f"{path}.begun"), Hardware(fsdp=True))
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        os._exit(9)
    one_step(*jobs[0], Hardware())


def member(name: str, arguments: list[str]) -> int:
    """The exit code of a process."""
    try:
        {"gradients": gradients, "train": lambda *words: main(["train", *words])}[name](*arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except DeixisError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 98
    return 0


if __name__ == "__main__":
    # Cards tell how long it took, and would take as long as all the rest.
    run.write_card = lambda recipe, weights, seconds: None
    count, name, *arguments = sys.argv[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(int(count)):
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            code = 97
            try:
                code = member(name, arguments)
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    Path("/dev/stdout").write_text(json.dumps(codes))
