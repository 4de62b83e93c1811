"""Affine-invariant depth on photos and world frames: Marigold, Lotus and E2E-FT on one backbone, with text (Iris).

Autoencoder and text tower stay as they are; the U-Net learns from pictures that are encoded anew for each step.
Captions are padded to one length within a batch. By the rule ``none`` the padding is masked out, which is the same as
no padding: the empty text is its start and its end, as the originals ask for it. By ``max_length`` all 77 tokens are
heard, as E2E-FT's original trains. The rule is stored with the weights, and inference keeps to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from deixis.backbones.latents import encode
from deixis.checkpoints.layout import SCHEDULER
from deixis.checkpoints.pipelines import PADDING
from deixis.conditioning.text import Padding, TextTower, encode_whole, tokenize
from deixis.data.nyuv2_captions import PARAPHRASES
from deixis.protocols.affine import affine_metrics, align_depth, align_disparity, limited
from deixis.relative import STRIDE
from deixis.systems.e2e_ft import E2EFT, E2EFTConfig
from deixis.systems.lotus import Lotus, LotusConfig
from deixis.systems.marigold import Marigold, MarigoldConfig
from deixis.training.augment import Augmentation, draw_warp, jitter_colour
from deixis.training.cache import is_asked_alone
from deixis.training.depth import NON_METRIC_LEVELS, shown_depth
from deixis.training.gallery import ROWS, depth_row
from deixis.training.normalise import Target, e2e_ft_target, far_where_invalid, lotus_target, marigold_target
from deixis.training.objectives import (
    System,
    TorchNoise,
    annealed_strength,
    depth_unet,
    e2e_ft_objective,
    latent_mask,
    lotus_objective,
    marigold_objective,
    multi_resolution_noise,
)
from deixis.training.scenes import spread
from deixis.training.shares import weight
from deixis.training.store import SOURCES, Sampler, Store, resized
from deixis.types import RGB
from deixis.viz import contact_sheet

# What each system's schedule has beside Stable Diffusion's: Marigold v1-1's ends in pure noise.
SCHEDULES: dict[System, dict[str, Any]] = {
    "marigold": {**SCHEDULER, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    "e2e-ft": {**SCHEDULER, "timestep_spacing": "trailing"},
    "lotus-d": SCHEDULER,
    "lotus-g": SCHEDULER,
}
# Pipeline classes under which folders are written; diffusers knows the first.
CLASSES: dict[System, str] = {
    "marigold": "MarigoldDepthPipeline",
    "e2e-ft": "MarigoldDepthPipeline",
    "lotus-d": "LotusDPipeline",
    "lotus-g": "LotusGPipeline",
}
# Denoising steps where nobody says how many.
STEPS: dict[System, int] = {"marigold": 1, "e2e-ft": 1, "lotus-d": 1, "lotus-g": 1}
# Frames of a source that are looked at during a run.
VALIDATED = 40
# The world reaches to the horizon; nothing beyond is learned from or scored [m].
FAR = 80.0


class RelativeLearning:
    """The systems' own objectives: what is learned, wherever pictures come from.

    Attributes:
        system, tokenizer, size, padding, alphas_cumprod: see :class:`RelativeTask`.
    """

    system: System
    tokenizer: CLIPTokenizer
    size: tuple[int, int]
    padding: Padding
    alphas_cumprod: Tensor

    def _known(self, valid: Tensor) -> Tensor:
        """What the loss is a mean over: pixels of E2E-FT's decoded map, latent cells of the others."""
        return valid if self.system == "e2e-ft" else latent_mask(valid)

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The system's own objective."""
        model_: Any = model
        vae: AutoencoderKL = model_.vae
        with torch.no_grad():
            picture = encode(vae, batch["image"])
            ids, text = self._told(model_.text_tower, batch["ids"])
        unet = model_.unet if self.padding == "max_length" else Heard(model_.unet, self._heard(ids))
        unet = cast(UNet2DConditionModel, unet)
        alphas = self.alphas_cumprod.to(picture.device)
        share = weight(self._known(batch["valid"]).sum(), batch["known"])
        if self.system == "e2e-ft":
            loss = e2e_ft_objective(unet, vae, picture, text, batch["depth"], batch["valid"], alphas).loss
            return loss * share
        with torch.no_grad():
            target = encode(vae, batch["values"].expand(-1, 3, -1, -1))
        mask = latent_mask(batch["valid"])
        if self.system == "marigold":
            noise, timesteps = batch["noise"], batch["timesteps"]
            return marigold_objective(unet, picture, target, text, noise, timesteps, alphas, mask).loss * share
        both, targets = torch.cat([picture, picture]), torch.cat([target, picture])
        noise = batch["noise"].transpose(0, 1).flatten(0, 1) if self.system == "lotus-g" else None
        parts = lotus_objective(unet, both, targets, text, noise, alphas, mask).parts
        return parts["annotation"] * share + parts["reconstruction"]

    def _told(self, tower: TextTower, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [B, T] and their vectors [B, T, C]; by the rule ``none`` as long as the longest text.

        What follows the end of a shorter one is not heard.
        """
        if self.padding == "max_length":
            return ids, tower(ids)
        lengths = self._lengths(ids).tolist()
        longest = max(lengths)
        ids = ids[:, :longest]
        if not is_asked_alone(tower):
            return ids, tower(ids)
        # Each at its own length: an entry of the cache must not depend on the others.
        rows = [tower(row[None, :length]) for row, length in zip(ids, lengths, strict=True)]
        return ids, torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])

    def _lengths(self, ids: Tensor) -> Tensor:
        """Tokens of each text with its start and its end [B]."""
        return (ids == self.tokenizer.eos_token_id).int().argmax(dim=1) + 1

    def _heard(self, ids: Tensor) -> Tensor:
        """Bool [B, T], where a text has not ended yet."""
        return torch.arange(ids.shape[1], device=ids.device) < self._lengths(ids)[:, None]

    @torch.inference_mode()
    def aligned(
        self,
        model: nn.Module,
        rgb: RGB,
        truth: Tensor,
        text: str,
        seed: int,
        far: float,
        size: tuple[int, int],
    ) -> Tensor | None:
        """Depth [H, W] [m] of a picture, aligned to the truth; None without a known depth.

        Args:
            model: in evaluation mode.
            rgb: uint8 [H, W, 3].
            truth: float32 [H, W] [m].
            text: what the model is told.
            seed: of its noise.
            far: deeper is not scored [m].
            size: (height, width) at which the model sees it [px], multiples of 8.
        """
        valid = _scored(truth, far)
        if not valid.any():
            return None
        model_: Any = model
        vectors, _ = encode_whole(model_.text_tower, self.tokenizer, text, padding=self.padding)
        image = (resized(rgb, size)[None].float() / 127.5 - 1).to(vectors.device)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((1, 4, *(side // STRIDE for side in size)), generator=generator).to(vectors.device)
        map_ = F.interpolate(predict(model, image, vectors, noise), size=truth.shape, mode="bilinear")[0, 0].cpu()
        align = align_disparity if getattr(model.config, "kind", "affine") == "disparity" else align_depth
        return limited(align(map_, truth, valid)[0], 1e-3, far)


@dataclass
class RelativeTask(RelativeLearning):
    """Batches of pictures, depth and captions for :func:`deixis.training.loop.train`.

    Args:
        system: whose objective.
        train, val: the frames.
        shares: of the sources.
        tokenizer: of the text tower.
        size: (height, width) of the pictures [px], multiples of 8.
        batch_size: pictures a step.
        text_rate: how often there is a caption.
        padding: what is heard after the end of a caption.
        augmentation: how far pictures are changed.
        alphas_cumprod: of the noise schedule [S].
        disparity: Lotus: learn disparity.

    Attributes:
        data: which frames there are, in a few letters.
    """

    system: System
    train: Store
    val: Store
    shares: tuple[float, float, float]
    tokenizer: CLIPTokenizer
    size: tuple[int, int]
    batch_size: int
    text_rate: float
    padding: Padding
    augmentation: Augmentation
    alphas_cumprod: Tensor
    disparity: bool = False
    auxiliary: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.data = self.train.fingerprint
        self.sampler = Sampler(self.train, self.shares)
        tokens = self.tokenizer.model_max_length
        self.ids = self.train.token_ids(self.tokenizer, tokens)[:, :NON_METRIC_LEVELS]
        self.flipped_ids = self.train.token_ids(self.tokenizer, tokens, mirrored=True)[:, :NON_METRIC_LEVELS]
        self.empty = tokenize(self.tokenizer, [""], tokens)

    def batch(self, generator: torch.Generator) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [-1, 1], ``values``, ``depth``, ``valid`` [B, 1, H, W], ``ids`` [B, T], noise.

        ``values`` are what the system's network should give, in [-1, 1]; ``noise`` [B, 4, h, w] and ``timesteps``
        [B] are Marigold's; Lotus-G has noise for both of its tasks [B, 2, 4, h, w]. ``known`` is how much of the depth
        is known, as :meth:`_known` counts.
        """
        n = self.batch_size
        rows = self.sampler(n, generator)
        warp = draw_warp(self.augmentation, n, self.size, generator, self.train.size)
        image = jitter_colour(warp.image(self.train.images[rows].float() / 255), self.augmentation, generator)
        depth = warp.depth(self.train.depths[rows].float())
        targets = [self._target(one) for one in depth]
        level = torch.randint(NON_METRIC_LEVELS, (n,), generator=generator)
        which = torch.randint(PARAPHRASES, (n,), generator=generator)
        told = torch.where(warp.flipped[:, None], self.flipped_ids[rows, level, which], self.ids[rows, level, which])
        said = torch.rand(n, generator=generator) < self.text_rate
        timesteps = torch.randint(len(self.alphas_cumprod), (n,), generator=generator)
        valid = torch.stack([target.valid for target in targets])
        return {
            "image": image * 2 - 1,
            "values": torch.stack([far_where_invalid(target) for target in targets]),
            "depth": torch.stack([target.depth for target in targets]),
            "valid": valid,
            "known": self._known(valid).sum(),
            "ids": torch.where(said[:, None], told.long(), self.empty),
            "noise": noise_for(self.system, timesteps, len(self.alphas_cumprod), self._latents, generator),
            "timesteps": timesteps,
        }

    def _target(self, depth: Tensor) -> Target:
        valid = (depth > 0) & (depth <= FAR)
        if self.system == "e2e-ft":
            return e2e_ft_target(depth, valid)
        if self.system == "marigold":
            return marigold_target(depth, valid)
        return lotus_target(depth, valid, "trunc_disparity" if self.disparity else "truncnorm")

    @property
    def _latents(self) -> tuple[int, int]:
        """(height, width) of the pictures' latents."""
        return self.size[0] // STRIDE, self.size[1] // STRIDE

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """AbsRel and d1 after alignment on validation frames of each source, without text; ``told``: with captions."""
        training = model.training
        model.eval()
        found: dict[str, float] = {}
        for source in SOURCES:
            rows = self.val.rows(source)[:VALIDATED].tolist()
            for told in ("", "_told") if self.text_rate else ("",):
                texts = [self.val.captions[row][NON_METRIC_LEVELS - 1][0] if told else "" for row in rows]
                values = [self._aligned(model, row, text) for row, text in zip(rows, texts, strict=True)]
                scored = [one for one in values if one is not None]
                for name in ("abs_rel", "d1") if scored else ():
                    found[f"val_{source}{told}_{name}"] = float(np.mean([one[name] for one in scored]))
        model.train(training)
        return found

    def _aligned(self, model: nn.Module, row: int, text: str) -> dict[str, float] | None:
        rgb, truth = self.val.images[row].permute(1, 2, 0).numpy(), self.val.depths[row, 0].float()
        return metrics_of(self.aligned(model, rgb, truth, text, row, FAR, self.size), truth, FAR)

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """Picture, truth, prediction without text after alignment, and error of a few validation frames."""
        training = model.training
        model.eval()
        rows = []
        for row in spread(range(len(self.val)), ROWS):
            rgb, truth = self.val.images[row].permute(1, 2, 0).numpy(), self.val.depths[row, 0].float()
            depth = self.aligned(model, rgb, truth, "", row, FAR, self.size)
            if depth is not None:
                rows.append(depth_row(rgb, truth.numpy(), shown_depth(depth, FAR), self.val.places[row]))
        model.train(training)
        return contact_sheet(rows) if rows else None


def metrics_of(depth: Tensor | None, truth: Tensor, far: float) -> dict[str, float] | None:
    """AbsRel, d1 … of a depth map that :meth:`RelativeLearning.aligned` gave; None where it gave none."""
    if depth is None:
        return None
    valid = _scored(truth, far)
    return affine_metrics(depth[valid], truth[valid])


def _scored(truth: Tensor, far: float) -> Tensor:
    """Where depth [H, W] [m] is known and no farther than what is scored."""
    return (truth > 1e-3) & (truth <= far)


def noise_for(
    system: System, timesteps: Tensor, length: int, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """What a system is trained with beside pictures: noise [B, 4, h, w]; of Lotus-G for both tasks [B, 2, 4, h, w].

    Args:
        system: whose.
        timesteps: Marigold's, int64 [B].
        length: of its schedule.
        size: (height, width) of latents.
        generator: of the numbers.
    """
    n = len(timesteps)
    if system == "marigold":
        strength = annealed_strength(timesteps, length=length)
        return multi_resolution_noise((n, 4, *size), strength, source=TorchNoise(generator))
    if system == "lotus-g":  # a picture's two together, so that a batch can be divided
        return torch.randn((2, n, 4, *size), generator=generator).transpose(0, 1)
    return torch.randn((n, 4, *size), generator=generator)


def network(
    system: System,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    tower: TextTower,
    size: tuple[int, int],
    kind: Literal["affine", "disparity"] = "affine",
) -> Marigold | Lotus | E2EFT:
    """A system before training: everything frozen but the U-Net, which is made ready for it if it is not.

    Args:
        system: which.
        vae: the backbone's autoencoder.
        unet: its denoiser: a plain one, changed in place, or one of a system with the same input and task switch.
        tower: its text tower.
        size: (height, width) of the training pictures [px].
        kind: what Lotus learns.
    """
    vae.requires_grad_(False)
    ready = 4 if system == "lotus-d" else 8, "projection" if system.startswith("lotus") else None
    if (unet.config.in_channels, unet.config.class_embed_type) != ready:
        depth_unet(unet, system)
    scheduler = DDIMScheduler(**SCHEDULES[system])
    longer = max(size)
    if system == "marigold":
        return Marigold(MarigoldConfig(STEPS[system], longer), vae, unet, tower, scheduler)
    if system == "e2e-ft":
        return E2EFT(E2EFTConfig(longer), vae, unet, tower, scheduler)
    return Lotus(LotusConfig(kind, longer), vae, unet, tower)


def index_of(system: System, size: tuple[int, int], padding: Padding, *, disparity: bool = False) -> dict[str, Any]:
    """What ``model_index.json`` says beside the parts."""
    return {
        "_class_name": CLASSES[system],
        "prediction_type": "disparity" if disparity else "depth",
        "scale_invariant": True,
        "shift_invariant": True,
        "default_denoising_steps": STEPS[system],
        "default_processing_resolution": max(size),
        PADDING: padding,
    }


class Heard:
    """A U-Net that does not listen to what follows the end of a text.

    Args:
        unet: the network.
        heard: bool [B, T], where there is text.
    """

    def __init__(self, unet: nn.Module, heard: Tensor) -> None:
        self.unet = unet
        self.heard = heard

    def __call__(self, inputs: Tensor, timestep: int | Tensor, **given: Tensor) -> Any:  # noqa: ANN401 - the U-Net's own output
        """As the U-Net; a batch may hold everything several times over (Lotus' two tasks)."""
        heard = self.heard.repeat(len(inputs) // len(self.heard), 1)
        return self.unet(inputs, timestep, encoder_attention_mask=heard, **given)


def predict(model: nn.Module, image: Tensor, text: Tensor, noise: Tensor) -> Tensor:
    """A map [B, 1, H, W] in [0, 1] of any of the systems, with its own number of steps."""
    if isinstance(model, E2EFT):
        return cast(Tensor, model(image, text))
    assert isinstance(model, Marigold | Lotus)
    return cast(Tensor, model(image, text, noise))
