"""A network in parts on the processes of a run: fully sharded data parallel, by torch's ``fully_shard``.

Every process holds its part of each parameter, of its gradient, of its optimiser state and of its average, and has the
whole of a block only while it computes it. What lies on disk is whole: any number of processes goes on with it.

accelerate has this for accelerators alone: its ``AcceleratorState`` takes the plugin from ``MULTI_GPU`` and its kind,
not from ``MULTI_CPU``. Asked directly, torch does the same on both, so what the tests see on CPUs is what GPUs do.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

# What is fetched and given back as one.
UNITS = (ResnetBlock2D, BasicTransformerBlock, CLIPEncoderLayer)


def scatter(module: nn.Module, accelerator: Accelerator) -> None:
    """Leave each process its part of a module's parameters, in place; optimisers are made after it.

    Args:
        module: the same in every process, contiguous. It is called as a whole from now on.
        accelerator: this process among those of the run.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for child in list(module.modules()):
        if isinstance(child, UNITS):
            fully_shard(child, mesh=mesh)
    fully_shard(module, mesh=mesh)


def own(value: Tensor) -> Tensor:
    """This process's part of a tensor; all of one that is not in parts."""
    return value.to_local() if isinstance(value, DTensor) else value


def part_as(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in parts as ``like`` is, on its device; itself there, where that is whole."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    # Every process has the whole: nothing needs to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole(value: Any, *, keep: bool = True) -> Any:  # noqa: ANN401 - a state: tensors in dictionaries and lists
    """The same with whole tensors on the CPU for those in parts; all processes ask together.

    Args:
        value: a tensor, or a state that holds some.
        keep: False leaves empty tensors for them: this process takes part for the others' sake.
    """
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else torch.empty(0)
    if isinstance(value, dict):
        return {key: whole(one, keep=keep) for key, one in value.items()}
    return [whole(one, keep=keep) for one in value] if isinstance(value, list) else value


def optimiser_in_parts(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimiser state as this one's parameters are; unchanged where those are whole."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    entries = {
        number: {
            name: part_as(one, parameters[number]) if one.ndim else one  # the rest counts steps
            for name, one in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}
