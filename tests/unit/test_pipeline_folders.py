"""Pipeline folders: shared parts, whole copies, padding rules, the names of the released ones, what is listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline
from safetensors.torch import load_file, save_file

import deixis
from deixis import registry
from deixis.checkpoints import layout, pipelines
from deixis.checkpoints.pipelines import PADDING, SHARED, read_pipeline, share_pipeline_parts
from deixis.conditioning.text import encode_whole
from deixis.errors import CheckpointError, ModelError, UsageError
from deixis.relative import RelativePredictor
from tests.pipelines import write_pipeline

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def edit(folder: Path, name: str = "model_index.json", **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def maps(folder: Path, **settings: Any) -> Any:
    model = deixis.load(folder, "cpu")
    assert isinstance(model, RelativePredictor)
    found = model(PICTURE, resolution=0, **settings)
    assert not isinstance(found, list)
    return found.values


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``marigold`` and ``lotus``, and ``base``, a backbone with their autoencoder, text tower and vocabulary."""
    root = tmp_path_factory.mktemp("made")
    write_pipeline(root / "marigold", "marigold-v1-1")
    write_pipeline(root / "lotus", "lotus-d")
    shutil.copytree(root / "marigold", root / "base")
    edit(root / "base", _class_name="StableDiffusionPipeline")
    edit(root / "base", "unet/config.json", in_channels=4)
    return root


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    for name in ("marigold", "base"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "marigold", tmp_path / "base"


# ------------------------------------------------------------------------------------------------ shared parts


def test_shared_parts_are_left_away_and_found_again(pair: tuple[Path, Path]) -> None:
    folder, backbone = pair
    # Who wrote a configuration, and with which version, is no difference.
    edit(backbone, "vae/config.json", _diffusers_version="0.1")
    before = maps(folder, steps=1)
    assert share_pipeline_parts(folder, backbone) == ["vae", "text_encoder", "tokenizer"]
    assert sorted(path.name for path in folder.iterdir()) == ["model_index.json", "scheduler", "unet"]
    assert np.array_equal(maps(folder, steps=1), before)
    assert share_pipeline_parts(folder, backbone) == []
    assert np.array_equal(maps(folder, steps=1), before)


def test_a_part_that_differs_in_a_bit_or_a_setting_stays(pair: tuple[Path, Path]) -> None:
    folder, backbone = pair
    file = backbone / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, file)
    edit(backbone, "text_encoder/config.json", hidden_act="gelu")
    assert share_pipeline_parts(folder, backbone) == ["tokenizer"]
    assert (folder / "vae").is_dir()


def test_a_whole_copy_of_a_folder_with_shared_parts_is_one_for_diffusers(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, backbone = pair
    share_pipeline_parts(folder, backbone)
    model = deixis.load(folder, "cpu")
    assert isinstance(model, RelativePredictor)
    model.save_pretrained(tmp_path / "whole")
    assert SHARED not in json.loads((tmp_path / "whole" / "model_index.json").read_text())
    shutil.rmtree(backbone)
    ours = maps(tmp_path / "whole", steps=2, seed=3)
    theirs = MarigoldDepthPipeline.from_pretrained(str(tmp_path / "whole"), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 255,
        num_inference_steps=2,
        processing_resolution=0,
        latents=torch.randn((1, 4, 6, 8), generator=torch.Generator().manual_seed(3)),
    ).prediction[0, :, :, 0]
    assert np.abs(ours - wanted).max() < 2e-5
    with pytest.raises(CheckpointError, match="already exists"):
        model.save_pretrained(tmp_path / "whole")


def test_a_saved_lotus_stays_what_it_is_under_any_name(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "lotus", tmp_path / "lotus-disparity")
    model = deixis.load(tmp_path / "lotus-disparity", "cpu")
    assert isinstance(model, RelativePredictor)
    capfd.readouterr()
    model.save_pretrained(tmp_path / "other")
    assert capfd.readouterr() == ("", "")  # no bar of a library's
    again = read_pipeline(tmp_path / "other")
    assert (again.system, again.kind) == ("lotus-d", "disparity")
    assert np.array_equal(maps(tmp_path / "other"), maps(tmp_path / "lotus-disparity"))


def test_shared_parts_that_are_wrong_are_one_line(pair: tuple[Path, Path]) -> None:
    folder, backbone = pair
    share_pipeline_parts(folder, backbone)
    entries = json.loads((folder / "model_index.json").read_text())[SHARED]

    def wrong(said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            read_pipeline(folder)
        assert "\n" not in str(caught.value)

    edit(folder, **{SHARED: {**entries, "unet": entries["vae"]}})
    wrong("shares 'unet'; parts that can be shared are vae, text_encoder, tokenizer")
    edit(folder, **{SHARED: {**entries, "vae": {**entries["vae"], "folder": "../base"}}})
    wrong("shares its vae with '../base', which is not here")
    edit(folder, **{SHARED: ["vae"]})
    wrong("has a damaged _shared")
    edit(folder, **{SHARED: {"vae": "base"}})
    wrong("has a damaged _shared")
    edit(folder, **{SHARED: {part: entries[part] for part in ("vae", "tokenizer")}})
    wrong("has no 'text_encoder' folder")
    edit(folder, **{SHARED: entries})
    (backbone / "vae" / "config.json").write_text((backbone / "vae" / "config.json").read_text() + " ")
    wrong("base/vae: is not the vae that marigold was made with")
    backbone.rename(backbone.with_name("elsewhere"))
    wrong("shares its vae with 'base', which is not here; copy 'base' beside it")


def test_parts_lie_beside_each_other(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder, backbone = pair
    with pytest.raises(UsageError, match="does not lie beside"):
        share_pipeline_parts(folder, Path(shutil.move(backbone, tmp_path / "deeper" / "base")))


# ----------------------------------------------------------------------------------------------- padding rules


def test_the_padding_rule_of_a_folder_is_kept(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = pair
    plain = maps(folder, steps=1)
    assert read_pipeline(folder).padding == "none"  # released folders state none
    edit(folder, **{PADDING: "max_length"})
    found = read_pipeline(folder)
    assert found.padding == "max_length"
    padded = maps(folder, steps=1)
    assert not np.array_equal(padded, plain)
    # The originals do not pad at inference.
    assert np.abs(maps(folder, steps=1, compat="official") - plain).max() < 1e-5
    pipelines.save_pipeline(tmp_path / "saved", found)
    assert read_pipeline(tmp_path / "saved").padding == "max_length"
    edit(folder, **{PADDING: "some"})
    with pytest.raises(ModelError, match="says _text_padding 'some'; use none or max_length"):
        read_pipeline(folder)


def test_padding_is_heard_up_to_what_the_tower_reads(made: Path) -> None:
    found = read_pipeline(made / "lotus")
    tower = found.model.text_tower
    assert tower is not None
    for text, length in (("", 77), ("a red chair", 77), ("a red chair and a blue lamp " * 15, 2 * 77)):
        vectors, dropped = encode_whole(tower, found.tokenizer, text, padding="max_length")
        assert vectors.shape[1] == length
        assert dropped is None
    words = found.tokenizer
    ids = torch.tensor([[words.bos_token_id, words.eos_token_id] + [words.pad_token_id] * 75])
    assert torch.equal(encode_whole(tower, found.tokenizer, "", padding="max_length")[0], tower(ids))


# ---------------------------------------------------------------------------------------- what there is by name


@pytest.mark.parametrize(
    ("kind", "named", "system"),
    [
        ("e2e-ft", "StableDiffusionPipeline", "e2e-ft"),
        ("lotus-d", "DirectRegressionPipeline", "lotus-d"),
        ("lotus-g", "DirectDiffusionY0Pipeline", "lotus-g"),
    ],
)
def test_pipeline_classes_of_released_folders(tmp_path: Path, kind: str, named: str, system: str) -> None:
    write_pipeline(tmp_path / "released", kind, _class_name=named)
    assert read_pipeline(tmp_path / "released").system == system


@pytest.mark.parametrize(
    ("kind", "named", "scheduler"),
    [
        ("lotus-d", "DirectRegressionPipeline", "PNDMScheduler"),
        ("lotus-g", "LotusGPipeline", "EulerDiscreteScheduler"),
        ("e2e-ft", "StableDiffusionPipeline", "DDPMScheduler"),
        ("e2e-ft", "MarigoldPipeline", "PNDMScheduler"),
    ],
)
def test_folders_as_the_originals_training_saves_them(tmp_path: Path, kind: str, named: str, scheduler: str) -> None:
    """Lotus saves its backbone's scheduler, which it does not use; E2E-FT saves DDPM, and reads it as DDIM."""
    write_pipeline(tmp_path / "plain", kind)
    shutil.copytree(tmp_path / "plain", tmp_path / "saved")
    others = {"scheduler": ["diffusers", scheduler], "feature_extractor": ["transformers", "CLIPImageProcessor"]}
    edit(tmp_path / "saved", _class_name=named, safety_checker=[None, None], **others)
    edit(tmp_path / "saved", "scheduler/scheduler_config.json", _class_name=scheduler, skip_prk_steps=True)
    wanted = maps(tmp_path / "plain")
    assert np.array_equal(maps(tmp_path / "saved"), wanted)
    found = read_pipeline(tmp_path / "saved")
    assert found.system == kind
    pipelines.save_pipeline(tmp_path / "again", found)
    assert np.array_equal(maps(tmp_path / "again"), wanted)
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert (index["scheduler"], index["feature_extractor"]) == (["diffusers", scheduler], [None, None])
    again, saved = (tmp_path / name / "scheduler" / "scheduler_config.json" for name in ("again", "saved"))
    assert json.loads(again.read_text()) == json.loads(saved.read_text())


def test_a_backbone_is_no_depth_system(made: Path) -> None:
    with pytest.raises(ModelError, match="has 4 input channels and class embedding None, as no system here"):
        read_pipeline(made / "base")


def test_shipped_pipelines_are_told_from_backbones(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, backbone = pair
    share_pipeline_parts(folder, backbone)
    monkeypatch.setattr(registry, "shipped_folder", lambda: folder.parent)
    found = {weight.name: weight for weight in registry.weights()}
    assert (found["marigold"].system, found["marigold"].task, found["marigold"].kind) == ("marigold", "depth", "affine")
    assert (found["base"].system, found["base"].task, found["base"].kind) == ("stable-diffusion", "backbone", None)
    assert found["marigold"].available
    assert found["marigold"].size_mb is not None
    assert registry.find("marigold") == folder
    with pytest.raises(ModelError, match="is a backbone"):
        registry.find("base")


def test_released_weights_are_there_once_they_are_in_the_cache(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "jingheya/lotus-depth-d-v2-0-disparity"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def listed() -> registry.Weight:
        (found,) = [weight for weight in registry.weights() if weight.name == name]
        return found

    assert (listed().available, listed().size_mb, listed().licence) == (False, None, "Apache-2.0")
    assert listed().source == f"huggingface.co/{name}"
    with pytest.raises(ModelError, match=f"run 'hf download {name} --local-dir DIR'"):
        registry.find(name)
    model = tmp_path / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc123")
    shutil.copytree(made / "lotus", model / "snapshots" / "abc123")
    assert listed().available
    assert registry.find(name) == model / "snapshots" / "abc123"
    # The name of the folder is a revision; the kind stands in that of the model.
    assert (listed().kind, read_pipeline(registry.find(name)).kind) == ("disparity", "disparity")
    (model / "snapshots" / "abc123" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert not listed().available


def test_released_names_are_of_known_systems() -> None:
    listed = [weight for weight in registry.weights() if "/" in weight.name]
    assert len(listed) == len({weight.name for weight in listed}) == 11
    assert {weight.system for weight in listed} == set(registry.RELATIVE)
    for weight in listed:
        assert weight.kind == layout.kind_of(Path(weight.name), {}, weight.system)  # type: ignore[arg-type]
