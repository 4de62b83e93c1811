"""Several processes that know of each other, forked from one that has imported everything:

    python -m tests.unit.crew COUNT gradients JOBS     one step of each job, with its gradients in JOBS.RANK; then the
                                                       last process dies, and the others take the first job's once more
    python -m tests.unit.crew COUNT train ARGUMENTS    deixis train

What each says on stderr goes to stderr, and their exit codes to stdout as a list.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from deixis.cli import main
from deixis.errors import DeixisError
from deixis.training import run
from deixis.training.fsdp import whole
from deixis.training.loop import Schedule, _distributed, _Stepper
from deixis.training.machine import Hardware, begin

SCHEDULE = Schedule(
    steps=1, lr=0.0, warmup=0, final=1.0, weight_decay=0.0, clip=None, ema=0.0, seed=0, save_every=1, eval_every=1
)
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


def gradients(path: str) -> None:
    jobs = torch.load(path, weights_only=False)
    steps = {
        fsdp: [one_step(*job, Hardware(fsdp=fsdp)) for job in copy.deepcopy(jobs)] for fsdp in (False, True)
    }
    torch.save(steps, f"{path}.{os.environ['RANK']}")
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
