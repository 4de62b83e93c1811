"""The training loop: every step is a pure function of the state, the seed and the step's number.

Batches, augmentation and text dropout of step ``k`` are drawn from a generator seeded with ``(seed, k)``, and the
checkpoint holds the rest. So a run that is killed at any moment and started again ends with the very same weights,
bit for bit, as one left alone: on the same machine with the same libraries, data and number of threads. Another
number of threads adds in another order, and the last bits differ.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deixis.errors import CheckpointError, DeixisError, UsageError
from deixis.training.checkpoint import load_state, save_state
from deixis.training.log import RunLog

OTHER_FOLDER = "finish it with its own recipe, or choose another run folder with out=DIR"


class Task(Protocol):
    """What is learned: batches, a loss and an evaluation.

    Attributes:
        auxiliary: parts that are trained along and then thrown away.
        data: which samples there are, in a few letters; a run does not go on with others.
    """

    auxiliary: nn.Module
    data: str

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
        warmup: steps of linear warm-up, the last of which has the peak; then a cosine towards ``final`` times the
            peak, which the step after the last would reach.
        final: learning rate after the last step as a share of the peak.
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


# What may change between one start of a run and the next: it does not touch the weights.
FREE = ("save_every", "eval_every")


class NaNLossError(DeixisError):
    """The loss, or its gradient, is not a finite number."""


def train(
    model: nn.Module, task: Task, schedule: Schedule, out: Path, log: RunLog, device: str | torch.device = "cpu"
) -> nn.Module:
    """Train ``model`` in place, resuming from ``out/state.pt`` if it is there.

    Args:
        model: the network.
        task: data, loss and evaluation.
        schedule: length, rates, seed.
        out: folder of the run.
        log: called with the numbers of every tenth step and every evaluation.
        device: where to train.

    Returns:
        the averaged model.

    Raises:
        NaNLossError: if loss or gradient is not finite; the weights of the last checkpoint are.
        UsageError: if the checkpoint in ``out`` belongs to another schedule or other data.
        CheckpointError: if it is damaged or does not fit the network.
        DeixisError: if a checkpoint or the log cannot be written.
    """
    trained = nn.ModuleDict({"model": model, "auxiliary": task.auxiliary})
    # Convolutions are twice as fast on CPUs with the channels last; the values do not change.
    trained.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
    optimiser = torch.optim.AdamW(_groups(trained, schedule.weight_decay), lr=schedule.lr, betas=(0.9, 0.99))
    average = copy.deepcopy(model).requires_grad_(False)
    start, spent, running = 0, 0.0, 0.0
    path = out / "state.pt"
    if path.exists():
        state = load_state(path)
        _check_same(state, schedule, task.data, path)
        try:
            trained.load_state_dict(state["trained"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            start, spent, running = int(state["step"]), float(state["seconds"]), float(state.get("running", 0.0))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            why = next(iter(str(error).splitlines()), "")[:120]
            raise CheckpointError(path, f"does not fit this network ({why})", OTHER_FOLDER) from error
    log.rewind(start)

    began = time.perf_counter() - spent
    trained.train()
    for step in range(start, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr_at(step)
        # Seeds of neighbouring steps are neighbours; torch's generator mixes them well.
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        loss = task.loss(model, _moved(task.batch(generator), device))
        _check_finite(loss, "loss", step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained.parameters(), schedule.clip)
        _check_finite(norm, "gradient", step)
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
        # The log comes before the checkpoint: what a kill between the two leaves too much is dropped by the resume,
        # what it left out would be missing for good.
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
                    "running": running,
                    "schedule": vars(schedule),
                    "data": task.data,
                },
                path,
            )
    return average


def _moved(value: Any, device: str | torch.device) -> Any:  # noqa: ANN401 - whatever a batch is made of
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return [_moved(one, device) for one in value] if isinstance(value, list) else value


def _check_same(state: dict[str, Any], schedule: Schedule, data: str, path: Path) -> None:
    """Whether a state may go on with this schedule and these samples."""
    stored = state.get("schedule")
    if not isinstance(stored, dict):
        raise CheckpointError(path, "is no training state", "delete it to start the run anew")
    for name, value in vars(schedule).items():
        if name not in FREE and stored.get(name) != value:
            raise UsageError(path, f"was written with {name} {stored.get(name)}, not {value}", OTHER_FOLDER)
    if state.get("data", data) != data:  # states of the first runs do not say
        raise UsageError(
            path, f"was written with other training data ({state['data']}, now {data})", "bring back the same files"
        )


def _check_finite(value: Tensor, what: str, step: int) -> None:
    if not torch.isfinite(value):
        raise NaNLossError(
            f"step {step}",
            f"the {what} is {value.item()}",
            "the last checkpoint is intact; begin anew with a lower optimisation.lr and another out",
        )


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and gains."""
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * model``, for batch norm's statistics as well; counters are copied."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
