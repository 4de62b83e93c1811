"""The training loop: every step is a pure function of the state, the seed and the step's number.

Batches, augmentation and text dropout of step ``k`` are drawn from a generator seeded with ``(seed, k)``, and the
checkpoint holds the rest. So a run that is killed at any moment and started again ends with the very same weights,
bit for bit, as one left alone: on the same machine with the same libraries, data and number of threads. Another
number of threads adds in another order, and the last bits differ.

The processes of a run all draw that one batch, and each learns from its share of it (:mod:`deixis.training.shares`):
how many there are changes the weights by no more than that. Nor does it matter whether each holds the whole network or
a part of it (:mod:`deixis.training.fsdp`).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from deixis.errors import CheckpointError, DeixisError, UsageError
from deixis.training.ahead import Ahead
from deixis.training.best import Best
from deixis.training.cache import Cache
from deixis.training.checkpoint import load_state, save_state
from deixis.training.fsdp import optimiser_in_parts, own, part_as, scatter, whole
from deixis.training.groups import Groups, parameter_groups
from deixis.training.leaving import StoppedError, requests
from deixis.training.log import RunLog
from deixis.training.machine import Hardware, begin, place, prepare_blocks, together
from deixis.training.muon import Muon, Optimiser, embeddings
from deixis.training.schedules import Shape, rate, scaled
from deixis.training.shares import Averaged, share_batch_norms, share_of

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
        """Draw one training batch, the same in every process."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Scalar loss of the batch, or of a share of it: the shares' mean is the batch's."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on the validation split."""
        ...

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """A sheet of a few validation samples, the same each time, with what the model makes of them."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps.
        lr: peak learning rate.
        warmup: steps in which it rises.
        final: where it falls to, as a share of the peak.
        weight_decay: of AdamW; at 0 this is Adam.
        clip: largest gradient norm; None does not clip.
        ema: decay of the averaged weights, which are evaluated and saved; at 0 those are the last.
        seed: seed of everything random.
        save_every: steps between checkpoints.
        eval_every: steps between evaluations.
        shape: of the rise and fall (:func:`deixis.training.schedules.rate`).
        fall: ``exponential``: the step at which the fall ends; None for the last.
        groups: who learns how fast and decays (:mod:`deixis.training.groups`).
        betas: of AdamW.
        optimiser: ``adamw``, or ``muon`` (:mod:`deixis.training.muon`).
    """

    steps: int
    lr: float
    warmup: int
    final: float
    weight_decay: float
    clip: float | None
    ema: float
    seed: int
    save_every: int
    eval_every: int
    shape: Shape = "cosine"
    fall: int | None = None
    groups: Groups = "matrices"
    betas: tuple[float, float] = (0.9, 0.99)
    optimiser: Optimiser = "adamw"

    def lr_at(self, step: int, scale: float = 1.0) -> float:
        """Learning rate of ``step`` (from 0) of a group with a share of ``scale``."""
        steps = self.fall if self.shape == "exponential" and self.fall is not None else self.steps
        full = rate(self.shape, step, peak=self.lr, steps=steps, warmup=self.warmup, final=self.final)
        return full * scaled(self.shape, step, scale)


# Between the first steps' seeds of two runs whose seeds are neighbours; those of neighbouring steps are 1 apart.
SEEDS_APART = 1_000_003
# What may change between one start of a run and the next: it does not touch the weights.
FREE = ("save_every", "eval_every")


class NaNLossError(DeixisError):
    """The loss, or its gradient, is not a finite number."""


def train(
    model: nn.Module,
    task: Task,
    schedule: Schedule,
    out: Path,
    log: RunLog,
    device: str = "cpu",
    hardware: Hardware | None = None,
    *,
    system: str | None = None,
    best: Best | None = None,
    accelerator: Accelerator | None = None,
    cache: Cache | None = None,
    makers: int = 0,
    origin: str | None = None,
) -> nn.Module:
    """Train ``model`` in place, resuming from ``out/state.pt`` if it is there.

    Args:
        model: the network.
        task: data, loss and evaluation.
        schedule: length, rates, seed.
        out: folder of the run.
        log: called with the numbers of every tenth step and every evaluation.
        device: where to train.
        hardware: how.
        system: whose parameter groups, where they are the published ones.
        best: keeps the best of the evaluated weights.
        accelerator: this process among those of the run.
        cache: of the frozen networks; how often it had what was asked for is logged.
        makers: processes that make batches ahead; 0 makes one when its step begins. For a task that has all it learns
            from in memory; one that reads from disk reads ahead by itself.
        origin: what the network was built from, in a few letters; a run does not go on with another.

    Returns:
        the averaged model. With ``fsdp`` it is the main process's alone that holds the weights.

    Raises:
        NaNLossError: if loss or gradient is not finite; the weights of the last checkpoint are.
        StoppedError: if the process got SIGTERM or SIGINT; the step it was in is in the checkpoint.
        LostWorkerError: if another process of the run is gone.
        UsageError: if the checkpoint in ``out`` belongs to another schedule, other data or another origin.
        CheckpointError: if it is damaged or does not fit the network.
        DeixisError: if a checkpoint or the log cannot be written.
    """
    hardware = hardware or Hardware()
    accelerator = accelerator or begin(device, hardware.precision)
    main, where = accelerator.is_main_process, place(accelerator, device)
    in_parts = hardware.fsdp and accelerator.num_processes > 1
    average = copy.deepcopy(model).requires_grad_(False) if schedule.ema or in_parts else model
    trained = nn.ModuleDict({"model": model, "auxiliary": task.auxiliary})
    layout = torch.channels_last if hardware.channels_last and not in_parts else torch.preserve_format
    for part in (trained, average):
        part.to(where, memory_format=layout)  # type: ignore[call-overload]  # torch's own stub
    path = out / "state.pt"
    state = None
    if path.exists():
        state = load_state(path)
        _check_same(state, schedule, task.data, origin, path)
        with _fitting(path):
            trained.load_state_dict(state["trained"])
            average.load_state_dict(state["average"])
    call = _distributed(trained, task, hardware, accelerator)
    mean = _Mean(average, model, where)
    groups = parameter_groups(model, task.auxiliary, schedule.weight_decay, schedule.groups, system)
    scales = [group.pop("scale") for group in groups]
    optimiser = (
        Muon(groups, lr=schedule.lr, betas=schedule.betas, embeddings=embeddings(trained))
        if schedule.optimiser == "muon"
        else torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas)
    )
    start, spent, running = 0, 0.0, 0.0
    if state is not None:
        with _fitting(path):
            optimiser.load_state_dict(optimiser_in_parts(state["optimiser"], optimiser))
            _check_shapes(optimiser)
            start, spent, running = state["step"], float(state["seconds"]), float(state.get("running", 0.0))
            if accelerator.scaler is not None and state.get("scaler"):
                accelerator.scaler.load_state_dict(state["scaler"])
        del state
    if main:
        log.rewind(start)
    if best is not None:
        best.begin(start)
    stepper = _Stepper(call, task, schedule, hardware, accelerator, where, optimiser)

    steps = range(start, schedule.steps)
    batches = Ahead(_Batches(task, schedule.seed), steps, makers, pin=bool(makers) and where.type == "cuda")
    began = time.perf_counter() - spent
    trained.train()
    waited, since = 0.0, time.perf_counter()
    with requests() as leave:
        for step in steps:
            for group, scale in zip(optimiser.param_groups, scales, strict=True):
                group["lr"] = schedule.lr_at(step, scale)
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            loss, norm = stepper(batch, step)
            mean.take(min(schedule.ema, (step + 1) / (step + 10)))

            running += loss
            done = step + 1
            now = time.perf_counter()
            if done % 10 == 0:
                row = {"step": done, "loss": running / 10, "lr": schedule.lr_at(step), "norm": norm}
                if cache is not None:
                    row["cached"] = cache.share()
                if main:
                    log({**row, "seconds": now - began, "waiting": waited / (now - since)})
                running, waited, since = 0.0, 0.0, now
            with together(accelerator):
                stopped = leave.of_any(accelerator)
            last = done == schedule.steps
            looks = last or done % schedule.eval_every == 0
            saves = last or done % schedule.save_every == 0 or bool(stopped)
            if not looks and not saves:
                continue
            # The log comes before the checkpoint: what a kill between the two leaves too much is dropped by the resume,
            # what it left out would be missing for good.
            with together(accelerator), mean.network(keep=main or looks) as averaged:
                if looks:
                    found = task.evaluate(averaged)
                    if main:
                        log({"step": done, "seconds": now - began, **found})
                        if (picture := task.pictures(averaged)) is not None:
                            log.picture(done, picture)
                    if best is not None and main:
                        best(found, averaged, done)
                    saves = saves or bool(leave.of_any(accelerator))  # who was asked meanwhile does not go on
                if saves:
                    learned = whole({"trained": trained.state_dict(), "optimiser": optimiser.state_dict()}, keep=main)
                    if main:
                        save_state(
                            {
                                **learned,
                                "average": averaged.state_dict(),
                                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
                                "step": done,
                                "seconds": now - began,
                                "running": running,
                                "schedule": vars(schedule),
                                "data": task.data,
                                "origin": origin,
                            },
                            path,
                        )
            with together(accelerator):
                stopped = leave.of_any(accelerator)
            if saves and stopped:
                raise StoppedError(stopped, done, out)
    with together(accelerator), mean.network(keep=main) as averaged:
        return averaged


class _Batches(Dataset[dict[str, Any]]):
    """The batch of each step."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self.first = seed * SEEDS_APART

    def __getitem__(self, step: int) -> dict[str, Any]:
        # Seeds of neighbouring steps are neighbours; torch's generator mixes them well.
        return self.task.batch(torch.Generator().manual_seed(self.first + step))


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Says that a checkpoint is of another network."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = next(iter(str(error).splitlines()), "")[:120]
        raise CheckpointError(path, f"does not fit this network ({why})", OTHER_FOLDER) from error


class _Mean:
    """The averaged weights, and the network that is evaluated and saved with them.

    Args:
        average: that network; the trained one itself where nothing is averaged.
        model: what is averaged. Where it is in parts, so are the averages, and their network waits on the CPU.
        where: the device.
    """

    def __init__(self, average: nn.Module, model: nn.Module, where: torch.device) -> None:
        self.average, self.model, self.where = average, model, where
        own_values, values = average.state_dict().values(), model.state_dict().values()
        self.values = [part_as(mean, value) for mean, value in zip(own_values, values, strict=True)]
        self.in_parts = any(own(value) is not value for value in self.values)
        if self.in_parts:
            average.cpu()

    def take(self, decay: float) -> None:
        """Move towards the model."""
        if self.average is not self.model:
            _average(self.values, list(self.model.state_dict().values()), decay)

    @contextmanager
    def network(self, *, keep: bool) -> Iterator[nn.Module]:
        """The network with the averaged weights, on the device; all processes ask together.

        Args:
            keep: whether this process makes use of it.
        """
        if not self.in_parts:
            yield self.average
            return
        if keep:
            self.average.to(self.where)
        for mean, value in zip(self.average.state_dict().values(), self.values, strict=True):
            full = whole(value, keep=keep)
            if keep:
                mean.copy_(full)
        yield self.average
        self.average.cpu()


def _distributed(trained: nn.ModuleDict, task: Task, hardware: Hardware, accelerator: Accelerator) -> nn.Module:
    """What a share comes to, as a call that all processes make together."""
    if accelerator.num_processes > 1:
        share_batch_norms(trained)
    prepare_blocks(trained, hardware)
    call = _Call(trained, task)
    in_parts = hardware.fsdp and accelerator.num_processes > 1
    with together(accelerator):
        if in_parts:
            scatter(call, accelerator)
        # In evaluation mode accelerate leaves the distribution to others.
        prepared: nn.Module = accelerator.prepare_model(call, device_placement=False, evaluation_mode=in_parts)
    return prepared


class _Call(nn.Module):
    """What a share comes to, as one call of one module: that is what accelerate distributes."""

    def __init__(self, trained: nn.ModuleDict, task: Task) -> None:
        super().__init__()
        self.trained = trained
        self.task = task

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a share, or the averages it is a function of."""
        model = self.trained["model"]
        return self.task.averages(model, batch) if isinstance(self.task, Averaged) else self.task.loss(model, batch)


class _Stepper:
    """One optimiser step on a whole batch, of which this process takes its share, in turns.

    Args:
        call: what a share comes to (:func:`_distributed`).
        task, schedule, hardware, accelerator: of the run.
        where: the device.
        optimiser: of what is trained.
    """

    def __init__(
        self,
        call: nn.Module,
        task: Task,
        schedule: Schedule,
        hardware: Hardware,
        accelerator: Accelerator,
        where: torch.device,
        optimiser: torch.optim.Optimizer,
    ) -> None:
        self.call, self.task, self.schedule, self.accelerator, self.where = call, task, schedule, accelerator, where
        self.turns, self.processes = hardware.accumulation, accelerator.num_processes
        self.optimiser = accelerator.prepare_optimizer(optimiser, device_placement=False)

    def __call__(self, batch: dict[str, Any], step: int) -> tuple[float, float]:
        """Learn from a batch; its loss, and the norm of its gradient.

        Raises:
            NaNLossError: if one of them is not finite; nothing was learned then.
            LostWorkerError: if another process is gone.
        """
        accelerator, count = self.accelerator, self.turns * self.processes
        first = accelerator.process_index * self.turns
        shares = [share_of(batch, first + i, count) if count > 1 else batch for i in range(self.turns)]
        with together(accelerator):
            common = self._common(shares, first, step)
            total = torch.zeros((), device=self.where)
            self.optimiser.zero_grad(set_to_none=True)
            for i, share in enumerate(shares):
                with nullcontext() if i == self.turns - 1 else accelerator.no_sync(self.call):
                    loss = self._loss(self._called(share, first + i, step), common)
                    accelerator.backward(loss / self.turns)
                total = total + loss.detach() / self.turns
            if self.processes > 1:
                total = cast(Tensor, accelerator.reduce(total, "mean"))
        _check_finite(total, "loss", step)
        largest = math.inf if self.schedule.clip is None else self.schedule.clip
        with together(accelerator):
            norm = cast(Tensor, whole(accelerator.clip_grad_norm_(self.call.parameters(), largest)))
        if accelerator.scaler is None:  # which leaves out steps whose gradient is too large for half precision
            _check_finite(norm, "gradient", step)
        self.optimiser.step()
        return total.item(), norm.item()

    def _called(self, share: dict[str, Any], number: int, step: int) -> Tensor:
        # What a network draws by itself is another in each share, and the same when a share is computed twice.
        torch.manual_seed(self.schedule.seed * SEEDS_APART + step + (number << 40))
        return self.call(_moved(share, self.where))

    def _loss(self, own: Tensor, common: Tensor | None) -> Tensor:
        """The scalar whose gradients' mean over all shares is that of the whole batch."""
        if not isinstance(self.task, Averaged):
            return own
        if self.processes > 1 and common is None:
            common = cast(Tensor, self.accelerator.reduce(own.detach(), "mean"))
        return self.task.of_averages(own if common is None else own + (common - own).detach())

    def _common(self, shares: list[dict[str, Any]], first: int, step: int) -> Tensor | None:
        """The whole batch's averages, where they must be known before the first of several turns."""
        if self.turns == 1 or not isinstance(self.task, Averaged):
            return None
        before = [buffer.clone() for buffer in self.call.buffers()]
        with torch.no_grad():
            own = torch.stack([self._called(share, first + i, step) for i, share in enumerate(shares)]).mean(dim=0)
            for buffer, value in zip(self.call.buffers(), before, strict=True):
                buffer.copy_(value)  # a batch norm counts each share once
        return cast(Tensor, self.accelerator.reduce(own, "mean")) if self.processes > 1 else own


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - whatever a batch is made of
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return [_moved(one, device) for one in value] if isinstance(value, list) else value


def _check_shapes(optimiser: torch.optim.Optimizer) -> None:
    """Raise ValueError if what is remembered of a parameter is of another shape; torch does not look."""
    for parameter, remembered in optimiser.state.items():
        for name, value in remembered.items():
            if value.ndim and value.shape != parameter.shape:  # the rest counts steps
                raise ValueError(f"{name} of the optimiser {list(value.shape)}, not {list(parameter.shape)}")


def _check_same(state: dict[str, Any], schedule: Schedule, data: str, origin: str | None, path: Path) -> None:
    """Whether a state may go on with this schedule, these samples and this origin."""
    stored, step = state.get("schedule"), state.get("step")
    # Older states do not know the newer fields, and were written as if those had their defaults.
    before = {field.name: field.default for field in fields(Schedule)} | (stored if isinstance(stored, dict) else {})
    if any(value is MISSING for value in before.values()) or not isinstance(step, int):
        raise CheckpointError(path, "is no training state", "delete it to start the run anew")
    for name, value in vars(schedule).items():
        if name not in FREE and before[name] != value:
            raise UsageError(path, f"was written with {name} {before[name]}, not {value}", OTHER_FOLDER)
    if not 0 <= step <= schedule.steps:
        raise CheckpointError(path, f"is of step {step}, and the run has {schedule.steps}", OTHER_FOLDER)
    if state.get("origin", origin) != origin:  # nor do older ones know it
        raise UsageError(
            path,
            f"was written with another init ({state['origin']}, now {origin})",
            "bring back the same folder, wherever it lies, or choose another run folder with out=DIR",
        )
    if state.get("data", data) != data:  # states of the first runs do not say
        raise UsageError(
            path,
            f"was written with other training data, or by an earlier version ({state['data']}, now {data})",
            "bring back the same files, or choose another run folder with out=DIR",
        )


def _check_finite(value: Tensor, what: str, step: int) -> None:
    if not torch.isfinite(value):
        raise NaNLossError(
            f"step {step}",
            f"the {what} is {value.item()}",
            "the last checkpoint is intact; begin anew with a lower optimisation.lr and another out",
        )


@torch.no_grad()
def _average(means: list[Tensor], values: list[Tensor], decay: float) -> None:
    """``mean = decay * mean + (1 - decay) * value``, for batch norm's statistics as well; counters are copied."""
    for mean, value in zip(map(own, means), map(own, values), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
