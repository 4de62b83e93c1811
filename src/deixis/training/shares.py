"""One batch in several shares: for the processes of a run, and one after another in each of them.

Every share is a part of the same batch, and what is learned is what the whole batch teaches, to rounding. Where a loss
is a mean over pictures, the mean of the shares' gradients is that already. Two kinds are not:

* means over what a picture may have more or less of (pixels with depth, objects): a task puts its amount in the whole
  batch there as a scalar, :func:`share_of` divides it, and the task weighs a share's mean by :func:`weight`;
* a function of such means, like SiLog's root: a task that is :class:`Averaged`.

Batch norms see the other processes' pictures as well (:func:`share_batch_norms`), but not those of the shares before
and after: with ``hardware.accumulation`` their statistics are those of a share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


@runtime_checkable
class Averaged(Protocol):
    """A task whose loss is a function of averages over the batch."""

    def averages(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Averages [K] of a share; their mean over the shares is that of the whole batch."""
        ...

    def of_averages(self, averages: Tensor) -> Tensor:
        """The batch's scalar loss."""
        ...


def share_of(batch: dict[str, Any], index: int, count: int) -> dict[str, Any]:
    """Share ``index`` of ``count`` of a batch.

    Tensors and lists are cut along their first dimension, which is that of the pictures, or a multiple of it where a
    picture's entries follow each other. Scalars are amounts in the whole batch: a share gets the mean amount.
    """
    return {key: _part(value, index, count) for key, value in batch.items()}


def _part(value: Any, index: int, count: int) -> Any:  # noqa: ANN401 - whatever a batch is made of
    if isinstance(value, list) and all(isinstance(one, Tensor) for one in value):  # maps at several sizes
        return [_part(one, index, count) for one in value]
    if isinstance(value, Tensor) and value.ndim == 0:
        return value / count
    size = len(value) // count
    return value[index * size : (index + 1) * size]


def weight(amount: Tensor, mean: Tensor) -> Tensor:
    """How much a share's mean counts: its amount by the mean amount of the shares, 1 where there is one share."""
    return amount.float() / mean.float().clamp_min(1e-12)


def share_batch_norms(module: nn.Module) -> None:
    """Batch norms of a module see the pictures of all processes from now on, on CPUs as well; in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            shared = _SharedBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            shared.to(child.running_mean)
            if child.affine:
                shared.weight, shared.bias = child.weight, child.bias
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: FunctionCtx, mine: Tensor) -> Tensor:
        """A tensor of one shape everywhere to that shape."""
        del ctx
        total = mine.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """What every process's loss asks of the sum."""
        return _Sum.forward(ctx, gradient)


_sum: Callable[[Tensor], Tensor] = _Sum.apply


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's own (``SyncBatchNorm``) has no CPU form. Shares are of one size, so means of means are means."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, ...] to the same."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        processes = torch.distributed.get_world_size()
        moments = torch.stack([x.mean(axes), x.square().mean(axes)])  # [2, C]
        mean, square = _sum(moments) / processes
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            count = processes * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(1, count - 1), momentum)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        out = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)
