"""Cards: their numbers are those of held-out frames, thresholds come from validation, photos stay out of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deixis
from deixis.data.world import read_shards, world_split
from deixis.errors import InputError
from deixis.protocols.ask import balanced_quantile
from deixis.training import card, comparison, gallery
from deixis.training.comparison import Comparison, Estimate
from deixis.training.measure_refer import calibrate
from deixis.training.recipe import Data, Optimisation, Recipe
from deixis.training.run import run
from deixis.training.scenes import load_scenes
from deixis.world.generate import Settings, render_shards
from tests.recipes import tiny_nyuv2

VAE = {
    "block_out_channels": [16, 16, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
UNET = {
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
}
CONFIG: dict[str, dict[str, Any]] = {
    "evp-depth": {
        "max_depth": 80.0,
        "text": "id",
        "aggregate": "i",
        "tokens": 12,
        "width": 4,
        "filters": [8, 8, 8],
        "num_bins": 8,
        "bin_width": 8,
        "bottleneck": 8,
    },
    "evp-refer": {"clip_frozen": False, "tokens": 12},
    "autoencoder": {},
    "text-to-image": {},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    render_shards(folder, ["rooms"], 0, 24, Settings(48, 36, 1))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return tiny_nyuv2.write(tmp_path_factory.mktemp("nyuv2"), train=3, val=1, heldout=2)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 20)


def trained(system: str, out: Path, root: Path | None, world: Path | None, init: Path | None = None) -> Path:
    """Weights after one step."""
    backbone = {"vae": VAE} if system == "autoencoder" else {"vae": VAE, "unet": UNET, "text_encoder": TEXT}
    threads = torch.get_num_threads()
    recipe = Recipe(
        system=system,
        config=CONFIG[system],
        backbone={} if init else backbone,
        init=None if init is None else str(init),
        vocabulary=600,
        text_shares=(0.4, 0.3, 0.3),
        crop=32 if system == "autoencoder" else None,
        threads=threads,
        out=str(out),
        data=Data(
            root=None if root is None else str(root),
            world=None if world is None else str(world),
            stored=(36, 48),
            size=(32, 48),
        ),
        optimisation=Optimisation(steps=1, batch_size=2, lr=1e-3, warmup=0),
    )
    return run(recipe, lambda row: None)


def test_the_depth_card_says_what_a_user_would_measure(tmp_path, world, photos):
    weights = trained("evp-depth", tmp_path / "tiny", photos, world)
    text = (weights / "README.md").read_text("utf-8")
    assert "\n# tiny\n" in text
    for part in ("| NYU Depth v2 photos | 3 | 1 | 2 |", "| world rooms | 21 | 1 | 2 |", "Not at hand", "world roads"):
        assert part in text
    assert "nan" not in text

    predictor = deixis.load(weights)
    errors = []
    for frame in read_shards(world):
        if frame.seed % 20 == 0:
            depth = predictor(frame.rgb).values
            known = (frame.depth > 1e-3) & (frame.depth < 80)
            errors.append(np.mean(np.abs(depth - frame.depth)[known] / frame.depth[known]))
    assert f"| world rooms | 2 | {np.mean(errors):.3f} (" in text
    for other in ("empty text", "no text given (mean of captions)", "another frame's"):
        assert f"| {other} |" in text


def test_a_card_does_not_deny_what_its_start_learned_from(tmp_path, world, photos):
    start = trained("evp-depth", tmp_path / "start", photos, None)
    text = (trained("evp-depth", tmp_path / "tiny", None, world, init=start) / "README.md").read_text("utf-8")
    assert "- nyu_depth_v2\n- deixis-world\n" in text
    assert "Not at hand, so neither learned from nor measured on: NYU Depth v2 photos, world roads; `start`" in text
    assert "* It has seen rendered rooms and roads, beside what `start` had, and nothing else." in text
    alone = (trained("evp-depth", tmp_path / "alone", None, world) / "README.md").read_text("utf-8")
    assert "nyu_depth_v2" not in alone
    assert "measured on: NYU Depth v2 photos, world roads.\n" in alone
    assert "* It has seen rendered rooms and roads, and nothing else." in alone


def test_photos_are_drawn_into_the_run_folder_alone(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(gallery, "demo_photo", lambda: None)
    weights = trained("evp-depth", tmp_path / "tiny", photos, None)
    assert (tmp_path / "tiny" / "gallery-nyuv2.jpg").is_file()
    assert not list(weights.rglob("*.jpg"))
    assert not list(weights.rglob("*.png"))


def test_thresholds_come_from_validation_frames_alone(tmp_path, world, photos):
    weights = trained("evp-refer", tmp_path / "tiny", photos, world)
    predictor = deixis.load(weights)
    sources = load_scenes(Data(root=str(photos), world=str(world), size=(32, 48)))
    found = calibrate(predictor, sources)
    assert found == (predictor.manifest.mask_threshold, predictor.manifest.threshold)
    for scenes in sources:
        scenes.splits["heldout"].clear()
        scenes.splits["train"].clear()
    assert calibrate(predictor, sources) == found
    for scenes in sources:
        scenes.splits["val"].clear()
    with pytest.raises(InputError, match="no expression"):
        calibrate(predictor, sources)
    text = (weights / "README.md").read_text("utf-8")
    assert f"below a score of {found[1]}" in text


def test_a_lost_card_is_written_again_the_same(tmp_path, world):
    weights = trained("autoencoder", tmp_path / "tiny", None, world)
    before = (weights / "README.md").read_bytes()
    assert b"| world rooms, 48 x 32 | 2 |" in before
    assert (weights / "gallery.jpg").is_file()
    (weights / "README.md").unlink()
    trained("autoencoder", tmp_path / "tiny", None, world)
    assert (weights / "README.md").read_bytes() == before


def test_the_card_of_text_to_image_has_samples(tmp_path, world, monkeypatch):
    monkeypatch.setattr("deixis.training.measure_stages.STEPS", 2)
    weights = trained("text-to-image", tmp_path / "tiny", None, world)
    text = (weights / "README.md").read_text("utf-8")
    assert "| world rooms | loss |" in text
    assert (weights / card.SAMPLES).is_file()


def test_splits_of_the_world_go_by_seeds():
    assert [world_split(seed) for seed in (0, 10, 20, 1, 30)] == ["heldout", "val", "heldout", "train", "val"]


def test_groups_weigh_the_same_whatever_their_size():
    many, few = np.linspace(0.5, 0.6, 1000), np.array([0.1, 0.2])
    assert balanced_quantile([many, few], 0.05) == pytest.approx(0.1)
    assert balanced_quantile([many, few], 0.4) == pytest.approx(0.2)


def test_a_verdict_needs_an_interval_clear_of_zero():
    def one(low: float, high: float, *, smaller: bool) -> str:
        return Comparison("x", "m", "o", 0.0, 0.0, (low, high), smaller).verdict

    assert one(-0.2, -0.1, smaller=True) == "better"
    assert one(-0.2, -0.1, smaller=False) == "worse"
    assert one(-0.1, 0.1, smaller=True) == "not clear"


def test_wilsons_interval():
    share = Estimate.share(8, 10)  # by hand: 0.490 to 0.943
    assert (share.low, share.high) == (pytest.approx(49.0, abs=0.1), pytest.approx(94.3, abs=0.1))
