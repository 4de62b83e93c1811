"""What computes: devices, processes and number formats, through accelerate; and what saves memory on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deixis.errors import DeixisError

# Attention layers that LoRA adapts, as in diffusers' own training scripts.
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Hardware:
    """How a step is computed. Nothing of it changes what is learned by more than rounding.

    Attributes:
        precision: ``bf16`` or ``fp16`` compute in half precision where that is safe; weights stay float32.
        accumulation: turns in which a process goes through its part of the batch.
        checkpointing: compute activations of the U-Net and the autoencoder twice instead of keeping them.
        channels_last: keep the channels of a pixel together in memory: twice as fast on CPUs. Not with ``fsdp``, which
            cuts what lies in the usual order.
        compile: translate the U-Net's blocks with ``torch.compile``.
        fsdp: of several processes, each holds a part of the parameters, gradients, optimiser states and averages
            (:mod:`deixis.training.fsdp`), where otherwise each holds all.
        workers: processes that read and augment data ahead (:mod:`deixis.training.ahead`); 0 does it when a step asks.
    """

    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulation: int = 1
    checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    fsdp: bool = False
    workers: int = 0


class LostWorkerError(DeixisError):
    """Another process of the run is gone."""


def begin(device: str, precision: str = "no") -> Accelerator:
    """This process among those of its run: alone, or as ``accelerate launch`` and ``torchrun`` have told it."""
    # A program may train twice, the second time in another number format: accelerate remembers the first.
    AcceleratorState._reset_state()
    # What a batch does not use has no gradient, for example the text tower in a step without text.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=device == "cpu", mixed_precision=precision, device_placement=False, kwargs_handlers=[unused])


def place(accelerator: Accelerator, device: str) -> torch.device:
    """Where this process computes: the device it was told, or its own of several."""
    return accelerator.device if accelerator.num_processes > 1 else torch.device(device)


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Says in one line when another process is gone.

    Raises:
        LostWorkerError: when a collective call fails.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        broken = isinstance(error, torch.distributed.DistError) or any(
            word in text for word in ("gloo", "nccl", "connection")
        )
        if accelerator.num_processes == 1 or not broken:
            raise
        raise LostWorkerError(
            f"process {accelerator.process_index} of {accelerator.num_processes}",
            "has lost another one",
            "see what ended it, and give the same command again: the last checkpoint is intact",
        ) from error


def unets(model: nn.Module) -> list[UNet2DConditionModel]:
    """The U-Nets of a network."""
    return [module for module in model.modules() if isinstance(module, UNet2DConditionModel)]


def prepare_blocks(module: nn.Module, hardware: Hardware) -> None:
    """Checkpointing of a network's residual and transformer blocks and compilation of its U-Nets', in place.

    diffusers' own switches are in the modules around them, which :class:`deixis.backbones.features.UNetFeatures` goes
    through layer by layer. Compiling one kind of block is also much quicker than compiling the whole.

    Group norms stay in float32: on GPUs ``torch.autocast`` sees to it, on CPUs it does not, and there they learn four
    times as slowly in bf16.
    """
    if hardware.precision == "bf16":
        for norm in [child for child in module.modules() if isinstance(child, nn.GroupNorm)]:
            norm.__class__ = _NormInFloat32  # not a forward of its own: each block would be translated alone
    if hardware.checkpointing:
        for block in _blocks(module):
            block.forward = partial(_twice, block.forward)
    if hardware.compile:
        for unet in unets(module):
            for block in _blocks(unet):
                block.compile()


def _blocks(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, ResnetBlock2D | BasicTransformerBlock)]


class _NormInFloat32(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:
        """[B, C, ...] to the same."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def _twice(forward: Any, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - of any block
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, **named)


def add_lora(unet: UNet2DConditionModel, rank: int) -> None:
    """Freeze a U-Net but for low-rank updates of its attention (Hu et al. 2022), and layers new to its system.

    Raises:
        DeixisError: if peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise DeixisError("lora", "needs peft, which is not installed", "pip install 'deixis[train]'") from error
    plain = {name for name, _ in unet.named_parameters()}
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ADAPTED))
    assert plain - {name for name, _ in unet.named_parameters()}  # something was adapted
    if unet.config.in_channels != unet.config.out_channels:
        unet.conv_in.requires_grad_(True)
    if unet.class_embedding is not None:
        unet.class_embedding.requires_grad_(True)


def merge_lora(model: nn.Module) -> None:
    """Add the updates to the weights they belong to, in place: the network is a plain one again."""
    for unet in unets(model):
        if getattr(unet, "peft_config", None):
            unet.fuse_lora()
            unet.unload_lora()
