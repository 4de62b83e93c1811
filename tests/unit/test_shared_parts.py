"""Parts that several systems have in common lie once, in the backbone's folder beside theirs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.checkpoints.folder import MANIFEST, load_folder, read_part, share_parts
from deixis.errors import ModelError, UsageError
from deixis.predict import load_depth
from deixis.registry import BACKBONE, find, weights
from tests.folders import write_weights


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A system, and a backbone that has its text tower and vocabulary, its autoencoder, and another U-Net."""
    system = write_weights(tmp_path / "system", "evp-depth")
    backbone = tmp_path / "base"
    for part in ("vae", "unet", "text_encoder", "tokenizer"):
        shutil.copytree(system / part, backbone / part)
    file = backbone / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "decoder.conv_in.bias": torch.ones(3)}, file)
    file = backbone / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(file).items()}, file)
    return system, backbone


def test_shared_parts_are_left_away_and_found_again(pair):
    system, backbone = pair
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    before = load_depth(system)(picture, "a red chair").values
    assert share_parts(system, backbone) == ["vae", "text_encoder", "tokenizer"]
    assert sorted(path.name for path in system.iterdir()) == [MANIFEST, "head", "unet"]
    np.testing.assert_array_equal(load_depth(system)(picture, "a red chair").values, before)
    assert share_parts(system, backbone) == []  # nothing is left to share
    np.testing.assert_array_equal(load_depth(system)(picture, "a red chair").values, before)


def test_a_missing_backbone_is_named(pair):
    system, backbone = pair
    share_parts(system, backbone)
    backbone.rename(backbone.with_name("elsewhere"))
    with pytest.raises(ModelError, match=r"shares its vae with 'base', which is not here; copy 'base' beside it"):
        load_folder(system)


def test_a_name_cannot_leave_the_folder(pair):
    system, backbone = pair
    share_parts(system, backbone)
    content = json.loads((system / MANIFEST).read_text(encoding="utf-8"))
    content["shared"]["vae"] = "../base"
    (system / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="which is not here"):
        load_folder(system)


def test_parts_lie_beside_each_other(pair, tmp_path):
    system, backbone = pair
    moved = shutil.move(backbone, tmp_path / "deeper" / "base")
    with pytest.raises(UsageError, match="does not lie beside"):
        share_parts(system, Path(moved))


def test_own_parts_come_first(pair):
    system, _ = pair
    assert read_part(system, "unet", {"text_encoder": "base"}).keys() == read_part(system, "unet").keys()


def test_a_backbone_is_listed_loads_by_name_and_answers_nothing():
    backbones = [weight.name for weight in weights() if weight.task == BACKBONE]
    assert backbones == ["mini-sd"]
    with pytest.raises(ModelError, match="is a backbone, which answers nothing by itself; use evp-depth-mini"):
        find("mini-sd")
    parts = StableDiffusion.from_pretrained("mini-sd")
    assert parts.unet.config.cross_attention_dim == parts.text_encoder.config.hidden_size
    assert len(parts.tokenizer) == parts.text_encoder.config.vocab_size


def test_what_ships_is_small():
    sizes = {weight.name: weight.size_mb for weight in weights() if weight.available}
    assert max(sizes.values()) <= 14
    assert sum(sizes.values()) <= 64


def test_the_readme_says_how_large_each_is():
    sizes = {weight.name: weight.size_mb for weight in weights() if weight.available}
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    told = {}
    for row in re.findall(r"^\| \[`.* MB.*$", readme, re.MULTILINE):
        size = re.search(r"([\d.]+) MB", row)
        told |= dict.fromkeys(re.findall(r"\[`([\w-]+)`\]", row), float(size[1]))
    assert told == pytest.approx(sizes, rel=0.05)
