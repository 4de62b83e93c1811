"""Metric depth on the labelled NYUv2 frames, with image-specific text that is sometimes withheld."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.conditioning.text import tokenize
from deixis.data import nyuv2
from deixis.protocols.depth import NYU_EIGEN, DepthMetrics
from deixis.training.augment import Augmentation, draw_warp, jitter_colour
from deixis.training.distill import recorded, text_tower, unet
from deixis.training.losses import silog_loss


def describe(frame: nyuv2.Frame, names: Sequence[str]) -> tuple[str, str, str]:
    """Three descriptions of a frame from its labels: everything visible, the scene alone, nothing (oracle)."""
    scene = f"a photo of a {nyuv2.scene_words(frame.scene)}"
    things = [
        f"a {name}" if count == 1 else f"{name}s" if not name.endswith("s") else name
        for name, _, count in nyuv2.visible(frame.read_labels(), names)
        if name not in ("wall", "floor", "ceiling")
    ]
    return (f"{scene} with {', '.join(things[:10])}" if things else scene), scene, ""


@dataclass
class DepthTask:
    """Batches of photos, depth and text for :func:`deixis.training.loop.train`.

    Args:
        root: the dataset.
        tokenizer: of the text tower.
        tokens: text length.
        size: (height, width) of the training pictures [px].
        batch_size: pictures a step.
        text_shares: how often the full caption, the scene alone and nothing are given.
        augmentation: how far pictures are changed.
        lambd: of the SiLog loss.
        bf16: compute the forward pass in bfloat16 where that is safe.
        distill: weight of the teacher's loss.
        auxiliary: the :class:`~deixis.training.distill.Distillation`, where ``distill`` is not 0.

    Attributes:
        data: which frames there are, in a few letters.

    Raises:
        InputError: if a frame cannot be read, or a split is empty.
    """

    root: Path
    tokenizer: CLIPTokenizer
    tokens: int
    size: tuple[int, int]
    batch_size: int
    text_shares: tuple[float, float, float]
    augmentation: Augmentation
    lambd: float
    bf16: bool
    distill: float
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        frames = nyuv2.some_frames(self.root, "train")
        self.data = nyuv2.fingerprint(frames)
        names = nyuv2.class_names(self.root)
        # Half as large again as the training pictures, so that a zoomed crop keeps its sharpness.
        stored = (self.size[0] * 3 // 2, self.size[1] * 3 // 2)
        self.images = torch.stack([resized(frame.read_rgb(), stored) for frame in frames])  # uint8 [N, 3, h, w]
        self.depths = torch.stack(
            [
                F.interpolate(torch.from_numpy(frame.read_depth())[None, None], size=stored, mode="nearest")[0]
                for frame in frames
            ]
        )  # [N, 1, h, w]
        self.ids = torch.stack(
            [tokenize(self.tokenizer, describe(frame, names), self.tokens) for frame in frames]
        )  # [N, 3, T]
        self.val = nyuv2.some_frames(self.root, "val")
        self.val_ids = tokenize(self.tokenizer, [""], self.tokens)

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1], ``depth`` [B, 1, H, W] [m], ``ids`` [B, T]."""
        n = self.batch_size
        rows = torch.randint(len(self.images), (n,), generator=generator)
        warp = draw_warp(self.augmentation, n, self.size, generator)
        image = warp.image(self.images[rows].float() / 255)
        shares = torch.tensor(self.text_shares, dtype=torch.float)
        which = torch.multinomial(shares, n, replacement=True, generator=generator)
        return {
            "image": jitter_colour(image, self.augmentation, generator),
            "depth": warp.depth(self.depths[rows]),
            "ids": self.ids[rows, which],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """SiLog, as in EVP; NaN where the network has come to no number."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16), recorded(unet(model)) as features:
            depth = model(batch["image"], text_tower(model)(batch["ids"]))
        if not torch.isfinite(depth).all():
            return depth.float().sum() * math.nan
        loss = silog_loss(depth.float().clamp_min(1e-3), batch["depth"], self.lambd)
        if self.distill:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                loss = loss + self.distill * self.auxiliary(batch["image"], features[0])
        return loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Depth metrics on the validation scenes, without text, at full resolution in the Eigen crop."""
        predict = depth_predictor(model, self.val_ids, self.size)
        metrics = DepthMetrics(NYU_EIGEN)
        for frame in self.val:
            metrics.update(predict(frame.read_rgb()), frame.read_depth(), kind="metric")
        values = metrics.compute()
        return {f"val_{name}": values[name] for name in ("abs_rel", "d1", "rmse")}


def depth_predictor(
    model: nn.Module, ids: Tensor, size: tuple[int, int]
) -> Callable[[np.ndarray[Any, np.dtype[np.uint8]]], Tensor]:
    """A function from a photo uint8 [H, W, 3] to depth [H, W] [m], with fixed text ``ids`` [1, T]."""

    @torch.inference_mode()
    def predict(rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
        training = model.training
        model.eval()
        image = resized(rgb, size)[None].float() / 255
        depth = model(image, text_tower(model)(ids))
        model.train(training)
        full: Tensor = F.interpolate(depth, size=rgb.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        return full

    return predict


def resized(rgb: np.ndarray[Any, np.dtype[np.uint8]], size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3] to uint8 [3, *size], with antialiasing."""
    image = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
