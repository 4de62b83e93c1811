"""Pre-training piece by piece: frames in memory, the autoencoder's start, and batches whose texts fit the pictures."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from deixis.backbones.stable_diffusion import StableDiffusion, read_tokenizer
from deixis.checkpoints.layout import SCHEDULER
from deixis.conditioning.text import TextTower, tokenize
from deixis.data import nyuv2
from deixis.data import world as world_data
from deixis.data.nyuv2_captions import PARAPHRASES, photo_captions
from deixis.data.world import LEVELS
from deixis.errors import CheckpointError, DeixisError, UsageError
from deixis.training import contrast, store, text_to_image
from deixis.training.autoencoder import (
    Autoencoder,
    AutoencoderTask,
    as_picture,
    chroma,
    reconstruction,
    start_as_pooling,
)
from deixis.training.contrast import ContrastTask, ImageSide, TextSide, grid_features
from deixis.training.distill import BLOCKS
from deixis.training.recipe import Data
from deixis.training.run import save_backbone
from deixis.training.store import Sampler, Store, load_store
from deixis.training.text_to_image import CLEAN_STEPS, TextToImage, TextToImageTask, text_gate
from deixis.world.words import flip, noun_forms, plural
from tests.recipes import tiny_nyuv2
from tests.tiny import CONFIG, stable_diffusion, write_folder
from tests.unit.test_training import generator, largest_file

EVEN = (1.0, 1.0, 1.0)
LEVEL_SHARES = (1.0, 2.0, 4.0, 1.0)


# ------------------------------------------------------------------------------------------------ frames


def test_splits_are_by_scene_and_by_seed(rooms, world):
    def numbers(split: nyuv2.Split) -> dict[store.Source, list[int]]:
        found = load_store(Data(root=str(rooms), world=str(world), stored=(36, 48), size=(32, 48)), split)
        assert found.images.shape == (len(found), 3, 36, 48)
        assert found.depths.shape == (len(found), 1, 36, 48)
        assert found.ids.shape == (len(found), 36, 48)
        assert len(found.places) == len(found.captions) == len(found.expressions) == len(found.numbers) == len(found)
        return {source: [found.numbers[row] for row in found.rows(source).tolist()] for source in store.SOURCES}

    first = tiny_nyuv2.TRAIN[1]
    assert numbers("train") == {
        "nyuv2": list(range(first, first + 6)),
        "rooms": list(range(1, 10)),
        "roads": list(range(1, 10)),
    }
    assert numbers("val") == {"nyuv2": [tiny_nyuv2.VAL[1]], "rooms": [10], "roads": [10]}
    assert numbers("heldout") == {"nyuv2": [tiny_nyuv2.HELDOUT[1]], "rooms": [0], "roads": [0]}


def test_either_source_is_enough(rooms, world):
    photos = load_store(Data(root=str(rooms), stored=(36, 48), size=(32, 48)), "train")
    drawn = load_store(Data(world=str(world), stored=(36, 48), size=(32, 48)), "train")
    assert (len(photos), len(drawn)) == (6, 18)
    assert not any(photos.expressions)
    assert all(drawn.expressions)
    assert photos.depths.dtype == torch.float16
    assert drawn.depths.max() > 10


def test_frames_with_other_pixels_or_words_are_others(stores):
    given = stores[0]

    def other(part: Tensor) -> Tensor:
        changed = part.clone()
        changed.view(-1)[-1] += 1
        return changed

    changed = [replace(given, **{name: other(getattr(given, name))}) for name in ("images", "depths", "ids")]
    for name in ("numbers", "places", "captions", "expressions"):
        values = getattr(given, name)
        changed.append(replace(given, **{name: [values[-1], *values[1:]]}))
    found = [one.fingerprint for one in (given, *changed)]
    assert len(set(found)) == len(found)
    assert replace(given, images=given.images.clone()).fingerprint == given.fingerprint
    assert re.fullmatch("6 nyuv2, 9 rooms, 9 roads [0-9a-f]{8}", given.fingerprint)


def test_no_data_is_named(world, monkeypatch):
    with pytest.raises(UsageError, match="data: names no dataset"):
        load_store(Data(size=(32, 48)), "train")
    monkeypatch.setattr(world_data, "WORLD_REMAINDERS", {"val": 15, "heldout": 0})
    with pytest.raises(UsageError, match="data: holds no frame of the split 'val'"):
        load_store(Data(world=str(world), stored=(36, 48), size=(32, 48)), "val")


def test_frames_are_drawn_in_their_shares(stores):
    train = stores[0]
    rows = Sampler(train, (1.0, 2.0, 1.0))(4000, generator())
    counts = torch.bincount(train.source[rows], minlength=3) / len(rows)
    torch.testing.assert_close(counts, torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.03)
    assert set(rows.tolist()) == set(range(len(train)))
    assert rows.equal(Sampler(train, (1.0, 2.0, 1.0))(4000, generator()))
    assert (train.source[Sampler(train, (0.0, 0.0, 1.0))(100, generator())] == 2).all()


def test_a_source_without_frames_has_no_share(stores, rooms):
    photos = load_store(Data(root=str(rooms), stored=(36, 48), size=(32, 48)), "train")
    assert Sampler(photos, EVEN)(50, generator()).max() < 6
    with pytest.raises(UsageError, match=r"data\.shares: leave no frame"):
        Sampler(photos, (0.0, 1.0, 1.0))


def test_tokens_of_all_captions(stores, tokenizer):
    ids = stores[0].token_ids(tokenizer, 12)
    assert ids.shape == (len(stores[0]), LEVELS, PARAPHRASES, 12)
    assert ids[3, 2, 1].equal(tokenize(tokenizer, [stores[0].captions[3][2][1]], 12)[0].int())


def test_photos_have_captions_of_four_levels(rooms):
    names = nyuv2.class_names(rooms)
    for frame in nyuv2.frames(rooms, "train"):
        labels, depth = frame.read_labels(), frame.read_depth()
        captions = photo_captions(frame, names, labels, depth)
        assert [len(level) for level in captions] == [PARAPHRASES] * LEVELS
        assert captions == photo_captions(frame, names, labels, depth)
        assert not any(re.search(r"\d|\bm\b|metre", text) for level in captions[:3] for text in level)
        assert all(re.search(r"\d\.\d m away", text) for text in captions[3])
        assert all(a <= b for a, b in pairwise(sum(map(len, level)) for level in captions[:3]))
        seen = {name for name, _, _ in nyuv2.visible(labels, names)} & set(tiny_nyuv2.THINGS)
        for name in seen:
            forms = [form for one in noun_forms(name) for form in (one, plural(one))]
            assert all(any(form in text for form in forms) for text in captions[2]), (name, captions[2])


def test_photos_without_depth_have_no_distances(rooms):
    frame = nyuv2.frames(rooms, "train")[0]
    labels = frame.read_labels()
    captions = photo_captions(frame, nyuv2.class_names(rooms), labels, np.zeros(labels.shape, dtype=np.float32))
    assert not any(re.search(r"\d", text) for level in captions for text in level)


# --------------------------------------------------------------------------------------------- autoencoder


def autoencoder(widths: tuple[int, ...] = (16, 16, 16, 16), **more: Any) -> AutoencoderKL:
    sizes = {"norm_num_groups": 4, "latent_channels": 4, **more}
    vae: AutoencoderKL = AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        **sizes,
    )
    return vae.eval()


def smooth(n: int, size: tuple[int, int] = (48, 64)) -> Tensor:
    coarse = torch.rand(n, 3, size[0] // 8, size[1] // 8, generator=generator()) * 2 - 1
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_it_starts_as_a_pool_and_an_enlargement():
    vae = autoencoder()
    start_as_pooling(vae, gain=1.8)
    x = smooth(4)
    posterior = vae.encode(x).latent_dist
    pooled = F.avg_pool2d(x, 8)
    torch.testing.assert_close(posterior.mean[:, :3] / 1.8, pooled, rtol=0, atol=0.01)
    enlarged = F.interpolate(pooled, scale_factor=8, mode="nearest")
    torch.testing.assert_close(vae.decode(posterior.mean).sample, enlarged, rtol=0, atol=0.02)
    assert posterior.std.max() < 0.06


@torch.no_grad()
def test_of_other_widths_it_starts_as_nearly_that():
    """Channels beyond the colours' are left as drawn, and take part in the norms."""
    vae = autoencoder((16, 24, 64, 96))
    start_as_pooling(vae)
    x = smooth(4)
    enlarged = F.interpolate(F.avg_pool2d(x, 8), scale_factor=8, mode="nearest")
    out = Autoencoder(vae)(x)[0]
    slope = (out * enlarged).sum() / enlarged.square().sum()
    assert 0.7 < slope < 1.1
    assert (out / slope - enlarged).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("widths", "more"),
    [
        ((16, 16, 16, 16), {"norm_num_groups": 8}),
        ((8, 16, 16, 16), {}),
        ((16, 16, 16, 16), {"latent_channels": 3}),
    ],
)
def test_other_sizes_have_no_such_start(widths, more):
    with pytest.raises(ValueError, match="a pooling start needs"):
        start_as_pooling(autoencoder(widths, **more))


@torch.no_grad()
def test_the_divergence_is_of_the_mean_latent():
    model = Autoencoder(autoencoder())
    x = smooth(2)
    posterior = model.vae.encode(x).latent_dist
    by_hand = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    noise = torch.randn(2, 4, 6, 8)
    rebuilt, divergence = model(x, noise)
    torch.testing.assert_close(divergence, by_hand)
    torch.testing.assert_close(rebuilt, model.vae.decode(posterior.mean + posterior.std * noise).sample)


def autoencoder_task(stores: tuple[Store, Store], **changes: Any) -> AutoencoderTask:
    settings: dict[str, Any] = {
        "shares": EVEN,
        "crop": 16,
        "batch_size": 12,
        "depth_share": 0.1,
        "kl": 1e-4,
        "size": (32, 48),
        **changes,
    }
    return AutoencoderTask(*stores, **settings)


def test_crops_are_functions_of_their_generator(stores):
    task = autoencoder_task(stores)
    a, b, c = task.batch(generator(1)), task.batch(generator(1)), task.batch(generator(2))
    assert all(a[key].equal(b[key]) for key in a)
    assert not a["image"].equal(c["image"])
    assert a["image"].shape == (12, 3, 16, 16)
    assert a["noise"].shape == (12, 4, 2, 2)
    assert a["image"].abs().max() <= 1
    assert task.data == stores[0].fingerprint


def test_depth_maps_are_grey_crops(stores):
    def grey(share: float) -> Tensor:
        image = autoencoder_task(stores, depth_share=share).batch(generator())["image"]
        return (image - image[:, :1]).abs().amax(dim=(1, 2, 3)) < 1e-6

    assert grey(1.0).all()
    assert not grey(0.0).any()


def test_depth_as_a_picture():
    depth = torch.linspace(1, 9, 500).view(1, 20, 25).clone()
    depth[0, 0, :5] = 0
    picture = as_picture(depth)
    assert picture.shape == (3, 20, 25)
    assert picture[0].equal(picture[2])
    assert (picture[0, 0, :5] == 1).all()  # the unknown is far, as the sky is
    known = picture[0][depth[0] > 0]
    assert (known.min(), known.max()) == (-1, 1)
    assert (known.diff() >= 0).all()
    assert not as_picture(torch.zeros(1, 4, 4)).any()


def test_what_is_measured_of_an_autoencoder(stores):
    vae = autoencoder()
    start_as_pooling(vae)
    model = Autoencoder(vae).train()
    flat = torch.full((2, 3, 36, 48), 100, dtype=torch.uint8)
    values = reconstruction(model, flat, (36, 48))
    assert values["psnr"] > 40
    assert values["chroma"] < 0.01
    assert values["std"] < 0.1
    assert model.training
    found = autoencoder_task(stores).evaluate(model)
    names = [f"val_{source}_{name}_{size}" for source in store.SOURCES for name in values for size in (32, 36)]
    assert found.keys() == set(names)
    assert all(np.isfinite(list(found.values())))


def test_chroma_is_of_colours_alone():
    grey = torch.rand(2, 1, 4, 4).expand(-1, 3, -1, -1) * 2 - 1
    assert chroma(grey).abs().max() < 1e-6
    blue, red = torch.tensor([-1.0, -1.0, 1.0]), torch.tensor([1.0, -1.0, -1.0])
    cb, cr = chroma(blue.view(1, 3, 1, 1))[0, 0], chroma(red.view(1, 3, 1, 1))[0, 1]
    assert (cb.item(), cr.item()) == (pytest.approx(1), pytest.approx(1))


# ------------------------------------------------------------------------------------- texts and pictures


def pooled_maps(images: Tensor, **_: Any) -> list[Tensor]:
    """In place of the teacher's: something that knows left from right and one picture from the other."""
    x = images.float().mean(dim=1, keepdim=True) / 255
    return [
        (F.adaptive_avg_pool2d(x, (3 // stride + 1, 4 // stride)) * torch.linspace(1, 2, width).view(-1, 1, 1)).half()
        for stride, (_, width) in enumerate(BLOCKS, 1)
    ]


def owners(given: Tensor, straight: Tensor, mirrored: Tensor) -> list[tuple[int, bool]]:
    """Which row each sample is, and whether it is mirrored."""
    found = []
    for one in given:
        a, b = ((both.float() - one).flatten(1).abs().amax(dim=1) for both in (straight, mirrored))
        assert min(a.min(), b.min()) == 0
        found.append((int((a if a.min() == 0 else b).argmin()), bool(a.min() > 0)))
    return found


def read(captions: list[list[str]], tokenizer: Any, tokens: int, *, mirrored: bool) -> list[list[int]]:
    """Captions of one frame as ids."""
    texts = [flip(text) if mirrored else text for level in captions for text in level]
    found: list[list[int]] = tokenize(tokenizer, texts, tokens).tolist()
    return found


@pytest.fixture
def contrast_task(stores, tokenizer, monkeypatch) -> ContrastTask:
    monkeypatch.setattr(contrast, "teacher_maps", pooled_maps)
    return ContrastTask(*stores, shares=EVEN, tokenizer=tokenizer, tokens=40, batch_size=24, text_levels=LEVEL_SHARES)


def tower() -> TextTower:
    clip = stable_diffusion().text_encoder
    assert clip is not None
    clip.resize_token_embeddings(1000)  # for any tiny vocabulary
    return TextTower(clip, frozen=False)


def test_pairs_are_functions_of_their_generator(contrast_task):
    a, b, c = (contrast_task.batch(generator(seed)) for seed in (1, 1, 2))
    assert all(a[key].equal(b[key]) for key in a)
    assert not a["ids"].equal(c["ids"])
    assert a["ids"].shape == (24, 40)
    assert a["features"].shape == (24, sum(width for _, width in BLOCKS) * 6)


def test_captions_belong_to_the_pictures_and_are_mirrored_like_them(contrast_task, stores, tokenizer):
    batch = contrast_task.batch(generator())
    found = owners(batch["features"], contrast_task.features, contrast_task.flipped)
    for (row, mirrored), ids in zip(found, batch["ids"].tolist(), strict=True):
        assert ids in read(stores[0].captions[row], tokenizer, 40, mirrored=mirrored)
    assert 4 < sum(mirrored for _, mirrored in found) < 20


def test_captions_and_pictures_learn_to_find_each_other(contrast_task):
    model = TextSide(tower())
    assert model(contrast_task.val_ids[:, 0, 0].long()).shape == (3, contrast.WIDTH)
    both = nn.ModuleList([model, contrast_task.auxiliary])
    optimiser = torch.optim.Adam(both.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss = contrast_task.loss(model, contrast_task.batch(generator(step)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert contrast_task.evaluate(model) == {"val_first_of_10": 0}  # there are but three
    assert contrast_task.auxiliary.training
    assert model.training


def test_the_pictures_side():
    side = ImageSide()
    maps = [torch.rand(5, width, 4, 6) for _, width in BLOCKS]
    out = side(grid_features(maps))
    assert out.shape == (5, contrast.WIDTH)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(5))
    side.log_scale.data.fill_(9.0)
    assert side.scale() == 100


def text_to_image_task(stores: tuple[Store, Store], tokenizer: Any, **changes: Any) -> TextToImageTask:
    torch.manual_seed(0)
    vae = autoencoder()
    start_as_pooling(vae)
    settings: dict[str, Any] = {
        "shares": EVEN,
        "vae": vae,
        "size": (32, 48),
        "tokenizer": tokenizer,
        "tokens": 40,
        "batch_size": 32,
        "text_levels": LEVEL_SHARES,
        "text_rate": 0.9,
        "clean": 0.25,
        "align": 0.0,
        "channels": CONFIG["unet"]["block_out_channels"],
        **changes,
    }
    return TextToImageTask(*stores, **settings)


def test_latents_are_functions_of_their_generator(stores, tokenizer, monkeypatch):
    monkeypatch.setattr(text_to_image, "teacher_maps", pooled_maps)
    task = text_to_image_task(stores, tokenizer, align=1.0)
    a, b, c = (task.batch(generator(seed)) for seed in (1, 1, 2))
    maps = a.pop("maps")
    assert all(one.equal(other) for one, other in zip(maps, b.pop("maps"), strict=True))
    assert all(a[key].equal(b[key]) for key in a)
    assert not a["latents"].equal(c["latents"])
    assert {key: tuple(value.shape) for key, value in a.items()} == {
        "latents": (32, 4, 4, 6),
        "noise": (32, 4, 4, 6),
        "timestep": (32,),
        "ids": (32, 40),
    }
    assert [tuple(one.shape[:2]) for one in maps] == [(32, width) for _, width in BLOCKS]


def test_captions_belong_to_the_latents_and_all_is_mirrored_together(stores, tokenizer, monkeypatch):
    monkeypatch.setattr(text_to_image, "teacher_maps", pooled_maps)
    task = text_to_image_task(stores, tokenizer, align=1.0, text_rate=1.0)
    batch = task.batch(generator())
    found = owners(batch["latents"], task.latents[:, 0], task.latents[:, 1])
    for i, (row, mirrored) in enumerate(found):
        ids = batch["ids"][i].tolist()
        assert ids in read(stores[0].captions[row], tokenizer, 40, mirrored=mirrored)
        for given, stored in zip(batch["maps"], task.maps, strict=True):
            assert given[i].equal((stored[row].flip(-1) if mirrored else stored[row]).float())
    assert 6 < sum(mirrored for _, mirrored in found) < 26


def test_latents_are_those_of_the_pictures(stores, tokenizer):
    task = text_to_image_task(stores, tokenizer)
    x = text_to_image.fitted(stores[0].images[:2], (32, 48)).float() / 127.5 - 1
    scale = task.vae.config.scaling_factor
    with torch.no_grad():
        for picture, index in ((x, 0), (x.flip(-1), 1)):
            wanted = task.vae.encode(picture).latent_dist.mean * scale
            torch.testing.assert_close(task.latents[:2, index].float(), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_captions_are_there_at_their_rate(stores, tokenizer, rate):
    task = text_to_image_task(stores, tokenizer, text_rate=rate, batch_size=200)
    silent = (task.batch(generator())["ids"] == task.empty).all(dim=1).float().mean().item()
    assert silent == pytest.approx(1 - rate, abs=0.1 if rate == 0.5 else 0)


def test_clean_samples(stores, tokenizer):
    def steps(clean: float) -> Tensor:
        return text_to_image_task(stores, tokenizer, clean=clean, batch_size=200).batch(generator())["timestep"]

    assert steps(1.0).max() < CLEAN_STEPS
    assert (steps(0.0) >= CLEAN_STEPS).float().mean() > 0.85
    assert (steps(0.5) < CLEAN_STEPS).float().mean().item() == pytest.approx(0.525, abs=0.1)


@pytest.mark.parametrize("align", [0.0, 0.5])
def test_the_velocity_and_the_teachers_maps_are_learned(stores, tokenizer, monkeypatch, align):
    monkeypatch.setattr(text_to_image, "teacher_maps", pooled_maps)
    task = text_to_image_task(stores, tokenizer, align=align, batch_size=4)
    unet = stable_diffusion().unet
    model = TextToImage(tower(), unet)
    batch = task.batch(generator())
    loss = task.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in task.auxiliary.parameters())
    assert (len(list(task.auxiliary.parameters())) > 0) == (align > 0)
    plain = task.errors(model, batch)
    assert plain.shape == (4,)
    assert (loss > plain.mean()) if align else torch.isclose(loss, plain.mean())
    assert not any(module._forward_hooks for module in model.modules())


class Oracle(nn.Module):
    """Knows the picture of each caption, and nothing where there is none."""

    def __init__(self, task: TextToImageTask, *, listens: bool) -> None:
        super().__init__()
        self.ids = task.val_ids[:, LEVELS - 2, 0].long()
        self.latents = task.val_latents.float()
        self.scheduler = DDIMScheduler(**SCHEDULER)
        self.listens = listens

    def forward(self, noisy: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        told = (ids[:, None] == self.ids).all(dim=2)
        clean = (told.float() @ self.latents.flatten(1)).view_as(noisy) * float(self.listens)
        alpha = self.scheduler.alphas_cumprod[timestep].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - alpha**2).sqrt()
        velocity: Tensor = alpha * (noisy - alpha * clean) / sigma - sigma * clean
        return velocity


@pytest.fixture
def distinct(stores) -> Store:
    """Twelve frames, each with its own words."""
    n = 12
    captions = [
        [[f"{word} picture {level} {i}" for i in range(2)] for level in range(4)] for word in tiny_nyuv2.NAMES[:n]
    ]
    return Store(
        size=(32, 48),
        images=torch.randint(256, (n, 3, 32, 48), dtype=torch.uint8, generator=generator()),
        depths=torch.ones(n, 1, 32, 48).half(),
        ids=torch.zeros(n, 32, 48, dtype=torch.int16),
        source=torch.ones(n, dtype=torch.long),
        numbers=list(range(n)),
        places=["room"] * n,
        captions=captions,
        expressions=[[] for _ in range(n)],
        things=[{} for _ in range(n)],
    )


def test_the_gate_opens_for_a_model_that_listens(distinct, tokenizer):
    task = text_to_image_task((distinct, distinct), tokenizer)
    found = text_gate(task, Oracle(task, listens=True), limit=12)
    assert found["loss"] < 1e-6
    assert found["first_of_10"] == 1
    assert found["empty_minus_right"] > found["empty_minus_right_low"] > 0
    assert found["other_minus_right"] > found["other_minus_right_low"] > 0


def test_the_gate_stays_shut_for_a_model_that_does_not(distinct, tokenizer):
    task = text_to_image_task((distinct, distinct), tokenizer)
    found = text_gate(task, Oracle(task, listens=False), limit=12)
    assert found["first_of_10"] == pytest.approx(0.1)
    assert found["empty_minus_right"] == found["other_minus_right"] == found["other_minus_right_low"] == 0
    assert task.evaluate(Oracle(task, listens=False)).keys() == {f"val_{name}" for name in found}


def test_a_store_is_its_frames_whatever_their_size(stores, tokenizer):
    half = replace(stores[0], images=F.interpolate(stores[0].images.float(), size=(32, 48)).byte())
    assert text_to_image.fitted(half.images, (32, 48)) is half.images
    assert text_to_image_task((half, stores[1]), tokenizer).latents.shape == (len(half), 2, 4, 4, 6)


# ------------------------------------------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """A whole one, as the last stage writes it."""
    root = tmp_path_factory.mktemp("backbone")
    source = write_folder(root / "source")
    read_parts = StableDiffusion.from_pretrained(source)
    parts: dict[str, nn.Module] = {"vae": read_parts.vae, "unet": read_parts.unet}
    assert read_parts.text_encoder is not None
    save_backbone(root / "saved", {**parts, "text_encoder": read_parts.text_encoder}, source / "tokenizer")
    return root / "saved"


def test_a_saved_backbone_is_read_back(backbone):
    mine = StableDiffusion.from_pretrained(backbone)
    theirs = StableDiffusion.from_pretrained(backbone.parent / "source")
    for part in ("vae", "unet", "text_encoder"):
        saved, before = getattr(mine, part).state_dict(), getattr(theirs, part).state_dict()
        assert saved.keys() == before.keys()
        for key, value in before.items():
            torch.testing.assert_close(saved[key], value.half().to(saved[key].dtype), rtol=0, atol=0)
    assert mine.tokenizer is not None
    assert len(mine.tokenizer) == len(read_tokenizer(backbone / "tokenizer"))


def test_diffusers_draws_with_a_saved_backbone(backbone):
    pipeline = StableDiffusionPipeline.from_pretrained(str(backbone), safety_checker=None, local_files_only=True)
    assert pipeline.safety_checker is None
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)
    drawn = pipeline("a red chair", height=32, width=48, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, 32, 48, 3)
    assert np.isfinite(drawn).all()


def test_some_parts_are_a_folder_too(tmp_path):
    save_backbone(tmp_path / "weights", {"vae": stable_diffusion().vae}, None)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"vae", "model_index.json"}


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "precious").write_text("mine")
    with pytest.raises(CheckpointError, match="already exists"):
        save_backbone(tmp_path / "weights", {"vae": stable_diffusion().vae}, None)


def test_a_backbone_on_a_full_disk_leaves_nothing(tmp_path):
    with largest_file(2000), pytest.raises(DeixisError, match="weights: cannot be written"):
        save_backbone(tmp_path / "weights", {"vae": stable_diffusion().vae}, None)
    assert not list(tmp_path.iterdir())
