"""The training loop: every step is a pure function of the weights, the seed and the step's number.

Batches, augmentation and text dropout of step ``k`` are drawn from a generator seeded with ``(seed, k)``, so a
run that is killed and started again continues exactly as if nothing had happened.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deixis.errors import DeixisError, UsageError
from deixis.training.checkpoint import load_state, save_state


class Task(Protocol):
    """What is learned: batches, a loss and an evaluation.

    Attributes:
        auxiliary: parts that are trained along and then thrown away.
    """

    auxiliary: nn.Module

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """Draw one training batch."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Scalar loss of the batch."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on the validation split."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps.
        lr: peak learning rate.
        warmup: steps of linear warm-up; then a cosine to ``final`` times the peak.
        final: last learning rate as a share of the peak.
        weight_decay: AdamW weight decay, on matrices and kernels only.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are evaluated and saved.
        seed: seed of everything random.
        save_every: steps between checkpoints.
        eval_every: steps between evaluations.
    """

    steps: int
    lr: float
    warmup: int
    final: float
    weight_decay: float
    clip: float
    ema: float
    seed: int
    save_every: int
    eval_every: int

    def lr_at(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))


class NaNLossError(DeixisError):
    """The loss is not a finite number."""


Log = Callable[[dict[str, float]], None]


def train(model: nn.Module, task: Task, schedule: Schedule, out: Path, log: Log) -> nn.Module:
    """Train ``model`` in place, resuming from ``out/state.pt`` if it is there.

    Args:
        model: the network.
        task: data, loss and evaluation.
        schedule: length, rates, seed.
        out: folder of the run.
        log: called with the numbers of every tenth step and every evaluation.

    Returns:
        the averaged model.

    Raises:
        NaNLossError: if the loss is not finite; the last checkpoint is intact.
        UsageError: if the checkpoint in ``out`` belongs to another schedule.
    """
    trained = nn.ModuleDict({"model": model, "auxiliary": task.auxiliary})
    optimiser = torch.optim.AdamW(_groups(trained, schedule.weight_decay), lr=schedule.lr, betas=(0.9, 0.99))
    average = copy.deepcopy(model).requires_grad_(False)
    start, spent = 0, 0.0
    path = out / "state.pt"
    if path.exists():
        state = load_state(path)
        if state["schedule"] != vars(schedule):
            raise UsageError(
                path,
                "was written with another schedule",
                "finish it with its own recipe or choose another run folder",
            )
        trained.load_state_dict(state["trained"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start, spent = state["step"], state["seconds"]

    began = time.perf_counter() - spent
    trained.train()
    running = 0.0
    for step in range(start, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr_at(step)
        # The second seed decouples neighbouring steps; torch's generator mixes it well.
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        loss = task.loss(model, task.batch(generator))
        if not torch.isfinite(loss):
            raise NaNLossError(
                f"step {step}",
                f"loss is {loss.item()}",
                "lower the learning rate; the last checkpoint is intact",
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained.parameters(), schedule.clip)
        optimiser.step()
        _average(average, model, min(schedule.ema, (step + 1) / (step + 10)))

        running += loss.item()
        done = step + 1
        seconds = time.perf_counter() - began
        if done % 10 == 0:
            log(
                {
                    "step": done,
                    "loss": running / 10,
                    "lr": schedule.lr_at(step),
                    "norm": norm.item(),
                    "seconds": seconds,
                }
            )
            running = 0.0
        if done % schedule.eval_every == 0 or done == schedule.steps:
            log({"step": done, "seconds": seconds, **task.evaluate(average)})
        if done % schedule.save_every == 0 or done == schedule.steps:
            save_state(
                {
                    "trained": trained.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": done,
                    "seconds": seconds,
                    "schedule": vars(schedule),
                },
                path,
            )
    return average


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
