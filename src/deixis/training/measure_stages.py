"""What the stages of pre-training reach on frames they never saw, as sections of their cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from deixis.backbones.stable_diffusion import (
    read_autoencoder,
    read_denoiser,
    read_text_encoder,
    read_tokenizer,
)
from deixis.conditioning.text import TextTower, tokenize
from deixis.errors import CheckpointError
from deixis.training.autoencoder import Autoencoder, chroma, reconstruction
from deixis.training.checkpoint import load_state
from deixis.training.comparison import Comparison, Estimate, comparison_table, mean, table
from deixis.training.contrast import ImageSide, TextSide, grid_features
from deixis.training.distill import teacher_maps
from deixis.training.gallery import drawn
from deixis.training.recipe import Recipe
from deixis.training.scenes import CAPTION_LEVEL, TITLES
from deixis.training.store import SOURCES, Store
from deixis.training.text_to_image import TextToImage, TextToImageTask, caption_losses, retrieved, sampled

# Frames of a source that are looked at.
FRAMES = 100
# Captions to choose from.
CHOICES = 10
# From all but clean, as perception reads the U-Net, to all but noise.
TIMESTEPS = (20, 200, 400, 600, 800)
FREE_PROMPTS = (
    "a bedroom with a red bed and a lamp",
    "a kitchen with a white refrigerator",
    "a blue sofa in a living room",
    "a village street with a row of trees",
)
STEPS = 30


def _some(store: Store, number: int) -> Tensor:
    """Positions of at most :data:`FRAMES` frames of a source, evenly spread."""
    rows = store.rows(SOURCES[number])
    return rows[torch.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).long()] if len(rows) else rows


def autoencoder_sections(weights: Path, recipe: Recipe, store: Store) -> list[str]:
    """How well pictures come back, against their average over blocks of 8 x 8.

    Args:
        weights: the trained folder.
        recipe: what it was trained by.
        store: held-out frames.
    """
    model = Autoencoder(read_autoencoder(weights / "vae"))
    scale = float(model.vae.config.scaling_factor)
    numbers, comparisons = [], []
    for number, source in enumerate(SOURCES):
        rows = _some(store, number)
        for size in dict.fromkeys(((int(recipe.data.size[0]), int(recipe.data.size[1])), store.size)):
            if not len(rows):
                continue
            found = [reconstruction(model, store.images[row][None], size) for row in rows.tolist()]
            pooled = [pooling(store.images[row][None], size) for row in rows.tolist()]
            where = f"{TITLES[source]}, {size[1]} x {size[0]}"
            clusters = list(range(len(rows)))
            psnr = Estimate.mean([one["psnr"] for one in found], clusters, 1)
            errors = Estimate.mean([100 * one["chroma"] for one in found], clusters, 2)
            std = Estimate.mean([scale * one["std"] for one in found], clusters, 2)
            numbers.append([where, len(rows), psnr, errors, std])
            for name, label, smaller in (("psnr", "PSNR [dB]", False), ("chroma", "chroma error", True)):
                pair = mean([one[name] for one in found]), mean([one[name] for one in pooled])
                comparisons.append(
                    Comparison.of(where, label, "8 x 8 average", pair, clusters, smaller_is_better=smaller)
                )
    return [
        "## Reconstruction of held-out frames",
        "",
        "Posterior mean, decoded. Chroma error: mean absolute error of Cb and Cr in percent of their range. Latents:"
        f" standard deviation within a picture, times the scaling factor {scale:.3f}, which makes it 1 over all"
        " training pictures together.",
        "",
        *table(("on", "frames", "PSNR [dB]", "chroma error [%]", "latents"), numbers),
        *comparison_table(comparisons),
    ]


def pooling(images: Tensor, size: tuple[int, int]) -> dict[str, float]:
    """What :func:`deixis.training.autoencoder.reconstruction` says of averages over blocks of 8 x 8 pixels."""
    x = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    x = x[..., : size[0] // 8 * 8, : size[1] // 8 * 8] / 127.5 - 1
    y = F.interpolate(F.avg_pool2d(x, 8), scale_factor=8, mode="nearest")
    psnr = 10 * torch.log10(4 / (x - y).square().mean(dim=(1, 2, 3)))
    return {"psnr": float(psnr.mean()), "chroma": float((chroma(x) - chroma(y)).abs().mean() / 2)}


@torch.inference_mode()
def contrast_sections(state: Path, weights: Path, store: Store) -> list[str]:
    """How often the right picture's caption is first.

    Args:
        state: last checkpoint, which has what the weights leave out: the two projections.
        weights: the trained folder.
        store: held-out frames.

    Raises:
        CheckpointError: if the checkpoint is of another network.
    """
    tower = TextTower(read_text_encoder(weights / "text_encoder"), frozen=True)
    text_side, image_side = TextSide(tower), ImageSide()
    kept = load_state(state)
    prefix = "auxiliary."
    try:
        text_side.load_state_dict(kept["average"])
        image_side.load_state_dict({k[len(prefix) :]: v for k, v in kept["trained"].items() if k.startswith(prefix)})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(state, "is of another network", "finish the run with its own recipe") from error
    text_side.eval()
    image_side.eval()
    ids = store.token_ids(read_tokenizer(weights / "tokenizer"), tower.clip.config.max_position_embeddings)
    rows = []
    for number, source in enumerate(SOURCES):
        chosen = _some(store, number)
        if len(chosen) < CHOICES:
            continue
        chosen = _shuffled(chosen)
        image = image_side(grid_features(teacher_maps(store.images[chosen])).float())
        text = torch.cat([text_side(part.long()) for part in ids[chosen, CAPTION_LEVEL, 0].split(256)])
        groups = torch.arange(len(chosen) // CHOICES * CHOICES).view(-1, CHOICES)
        hits = [(image[g] @ text[g].T).argmax(dim=1).eq(torch.arange(CHOICES)) for g in groups]
        rows.append([TITLES[source], groups.numel(), Estimate.share(int(torch.stack(hits).sum()), groups.numel())])
    return [
        "## Retrieval on held-out frames",
        "",
        f"How often the right one of {CHOICES} captions (of frames of the same source, everything visible) is nearest"
        f" to the picture, percent; chance is {100 / CHOICES:.0f}. Intervals are Wilson's, as if frames were"
        " independent. The picture's side is a frozen EfficientNet-Lite0 with a projection that is not in the weights.",
        "",
        *table(("on", "pictures", f"first of {CHOICES} [%]"), rows),
    ]


def _shuffled(rows: Tensor) -> Tensor:
    """Neighbours in the data may show one room: the captions to choose from come from all over it."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(7))]


def _subset(store: Store, rows: Tensor) -> Store:
    """Some frames of a store."""
    chosen: dict[str, Any] = {}
    for name, value in vars(store).items():
        if isinstance(value, Tensor):
            chosen[name] = value[rows]
        elif isinstance(value, list):
            chosen[name] = [value[row] for row in rows.tolist()]
    return replace(store, **chosen)


def text_to_image_sections(weights: Path, recipe: Recipe, store: Store) -> list[str]:
    """What captions are worth to the denoiser.

    Args:
        weights: the trained folder.
        recipe: what it was trained by.
        store: held-out frames.
    """
    tower = TextTower(read_text_encoder(weights / "text_encoder"), frozen=True)
    unet = read_denoiser(weights / "unet")
    model = TextToImage(tower, unet).eval()
    comparisons, bands, hits = [], [], []
    for number, source in enumerate(SOURCES):
        chosen = _shuffled(_some(store, number))
        if len(chosen) < 2:
            continue
        some = _subset(store, chosen)
        task = TextToImageTask(
            train=some,
            val=some,
            shares=(1.0, 1.0, 1.0),
            vae=read_autoencoder(weights / "vae"),
            size=(int(recipe.data.size[0]), int(recipe.data.size[1])),
            tokenizer=read_tokenizer(weights / "tokenizer"),
            tokens=tower.clip.config.max_position_embeddings,
            batch_size=1,
            text_levels=tuple(recipe.text_levels),
            text_rate=1.0,
            clean=0.0,
            align=0.0,
            channels=unet.config.block_out_channels,
        )
        generator = torch.Generator().manual_seed(7)
        order = torch.arange(len(some))
        losses = caption_losses(task, model, order, TIMESTEPS, generator).double().numpy()  # [steps, 3, N]
        right, empty, other = losses.mean(axis=0)
        clusters = list(range(len(some)))
        for name, values in (("empty text", empty), ("another frame's", other)):
            comparisons.append(
                Comparison.of(
                    TITLES[source],
                    "loss",
                    name,
                    (mean(right), mean(values)),
                    clusters,
                    smaller_is_better=True,
                    digits=4,
                )
            )
        for step, (at_right, at_empty, at_other) in zip(TIMESTEPS, losses, strict=True):
            gains = [100 * (values / at_right.mean() - at_right / at_right.mean()) for values in (at_empty, at_other)]
            bands.append(
                [TITLES[source], step, f"{at_right.mean():.3f}", *(Estimate.mean(gain, clusters, 1) for gain in gains)]
            )
        if len(some) >= CHOICES:
            first = retrieved(task, model, order, TIMESTEPS[1:-1], generator, CHOICES)
            hits.append([TITLES[source], len(first), Estimate.share(int(first.sum()), len(first))])
    return [
        "## Does it read?",
        "",
        f"Squared error of the velocity on held-out frames, at most {FRAMES} of a source, at timesteps"
        f" {', '.join(map(str, TIMESTEPS))} of 1000, with the same noise for each text: the frame's own caption"
        " (everything visible, oracle), none, and that of another frame.",
        "",
        *comparison_table(comparisons, "right caption"),
        "How much larger the loss becomes without the right caption, in percent of it, by timestep (0 is clean):",
        "",
        *table(("on", "timestep", "loss", "empty text [%]", "another frame's [%]"), bands),
        f"How often the right one of {CHOICES} captions (of frames of the same source) gives the smallest loss,"
        f" percent; chance is {100 / CHOICES:.0f}. Intervals are Wilson's, as if frames were independent.",
        "",
        *table(("on", "pictures", f"first of {CHOICES} [%]"), hits),
    ]


@torch.inference_mode()
def samples(weights: Path, recipe: Recipe, store: Store) -> list[tuple[Image.Image, str]]:
    """Pictures of captions, of held-out frames of the world and of a few others: DDIM with guidance."""
    tower = TextTower(read_text_encoder(weights / "text_encoder"), frozen=True)
    tokenizer, tokens = read_tokenizer(weights / "tokenizer"), tower.clip.config.max_position_embeddings
    model, vae = TextToImage(tower, read_denoiser(weights / "unet")).eval(), read_autoencoder(weights / "vae")
    prompts = []
    for rows in (store.rows("rooms")[:5], store.rows("roads")[:3]):
        prompts += [store.captions[row][1][0] for row in rows.tolist()]  # the main things: short enough to be read
    prompts += FREE_PROMPTS
    ids = tokenize(tokenizer, [*prompts, *[""] * len(prompts)], tokens)
    size = (int(recipe.data.size[0]), int(recipe.data.size[1]))
    pictures = sampled(model, vae, ids, size, STEPS)
    return [(drawn(one[None]), prompt) for one, prompt in zip(pictures, prompts, strict=True)]


@torch.inference_mode()
def reconstructed(weights: Path, recipe: Recipe, images: Tensor) -> list[list[tuple[Image.Image, str]]]:
    """For each picture uint8 [N, 3, h, w] a row: itself at the recipe's size, its reconstruction, its 8 x 8 average."""
    vae = read_autoencoder(weights / "vae")
    height, width = (int(side) // 8 * 8 for side in recipe.data.size)
    rows = []
    for image in images:
        x = F.interpolate(image[None].float(), size=(height, width), mode="bilinear", antialias=True) / 127.5 - 1
        back: Tensor = vae.decode(vae.encode(x).latent_dist.mean).sample
        average = F.interpolate(F.avg_pool2d(x, 8), scale_factor=8, mode="nearest")
        named = ((x, "picture"), (back, "encoded and decoded"), (average, "averaged over 8 x 8"))
        rows.append([(drawn(one), name) for one, name in named])
    return rows
