"""Muon: matrices learn by orthogonal steps (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

A gradient's few large directions drown the many small ones. Muon gives all of them one length: the step is the matrix
with the same singular vectors and singular values near 1. Small networks that start from little learn in less
than half of the steps (docs/recipes.md). Steps are as large as AdamW's on average, so a learning rate means what it
means there (Liu et al. 2025, arXiv:2502.16982, section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Optimiser = Literal["adamw", "muon"]

MOMENTUM = 0.95
# Of the quintic whose fixed points are near 1; five rounds bring singular values from 0.01 to 1 there.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
# Root mean square of AdamW's steps.
_RMS = 0.2
# With fewer rows or columns there are hardly directions to speak of.
_SMALLEST = 16


class Muon(torch.optim.AdamW):
    """Muon for matrices and kernels, AdamW for the rest: biases, norms, embeddings, and what has few rows or columns.

    A kernel [out, in, h, w] counts as a matrix [out, in * h * w]. torch's own ``Muon`` takes matrices alone.
    Gradients are there before ``step()`` is called, which takes no closure.

    Args:
        groups: as those of AdamW; their weight decay holds for both.
        lr: learning rate of both.
        betas: of AdamW.
        embeddings: parameters that are tables of vectors, which are no matrices in this sense.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], embeddings: Iterable[Tensor] = ()
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        tables = {id(table) for table in embeddings}
        self._matrices = {
            id(parameter)
            for group in self.param_groups
            for parameter in group["params"]
            if id(parameter) not in tables and _is_matrix(parameter)
        }
        self.register_step_pre_hook(lambda optimiser, args, named: self._turn())

    @torch.no_grad()
    def _turn(self) -> None:
        """Take the matrices' step, before AdamW takes that of the rest; their gradients are gone then."""
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None and id(parameter) in self._matrices:
                    alike.setdefault((parameter.flatten(1).shape, parameter.device), []).append(parameter)
            for parameters in alike.values():  # a network has many of one shape: they are turned together
                steps = orthogonal(torch.stack([self._ahead(parameter) for parameter in parameters]))
                length = group["lr"] * _RMS * max(steps.shape[1:]) ** 0.5
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step.view_as(parameter), alpha=length)
                    parameter.grad = None  # AdamW leaves out what has none

    def _ahead(self, parameter: Tensor) -> Tensor:
        """The matrix [M, N] to turn: momentum with Nesterov's look ahead."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:  # torch looks for a step in every state that it loads
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        state["step"] += 1
        momentum = state["momentum"].mul_(MOMENTUM).add_(parameter.grad)
        return (parameter.grad + MOMENTUM * momentum).flatten(1)


def embeddings(module: nn.Module) -> list[Tensor]:
    """The tables of a network's embeddings."""
    return [child.weight for child in module.modules() if isinstance(child, nn.Embedding)]


def orthogonal(matrix: Tensor) -> Tensor:
    """[..., M, N] to matrices with the same singular vectors; the values, all but tiny ones, become 0.7 to 1.2.

    Newton and Schulz' iteration ``X <- (a + b X X' + c (X X')^2) X``. What it multiplies with are functions of one
    small matrix, so that the large one is met twice only.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    wide = (matrix.mT if tall else matrix).float()
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    gram = wide @ wide.mT  # [..., m, m]
    one = torch.eye(gram.shape[-1], device=gram.device)
    product = one
    for _ in range(_ROUNDS):
        factor = a * one + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    wide = product @ wide
    return wide.mT if tall else wide


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _SMALLEST
