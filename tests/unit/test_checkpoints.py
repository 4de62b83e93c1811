"""Official checkpoints to weight folders and back: every key, every way a file can be wrong."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
import resource
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.checkpoints.convert import (
    EMBEDDING,
    FAMILIES,
    K_INDEX,
    K_MINUS_1,
    convert,
    from_official,
    revert,
    to_official,
)
from deixis.checkpoints.files import Checkpoint, read_checkpoint
from deixis.checkpoints.folder import (
    FILES,
    Manifest,
    Preprocessing,
    digest,
    fill_parts,
    load_folder,
    network,
    read_manifest,
    read_part,
    save_folder,
    split,
)
from deixis.checkpoints.keys import official_key, official_shape
from deixis.errors import CheckpointError, DeixisError, ModelError, UsageError
from deixis.registry import shipped_folder
from tests.tiny import CONFIG, TEXT_WIDTH, write_folder

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures" / "evp"
CASES = {
    "evp_depth_nyu": "evp-depth-nyu",
    "evp_depth_kitti": "evp-depth-kitti",
    "evp_depth_nyu_individual": "evp-depth-nyu",
    "evp_refer_refcoco": "evp-refer",
    "vpd_depth_nyu": "vpd-depth",
    "vpd_refer": "vpd-refer",
}


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    message = str(error.value)
    assert isinstance(error.value, DeixisError)
    assert "\n" not in message
    assert "; " in message  # the remedy
    return message


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Keys, shapes, number formats and bits."""
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and value.shape == second[key].shape and torch.equal(value, second[key])
        for key, value in first.items()
    )


# Key tables, at full size: each tensor is one number, expanded to its official shape.


def official(case: str) -> dict[str, Tensor]:
    """The official state dict of a recorded case, each float tensor filled with a number of its own."""
    manifest = json.loads((FIXTURES / f"{case}.manifest.json").read_text())
    rows = [*manifest["tensors"], *((key, spec["shape"]) for key, spec in manifest["special_tensors"].items())]
    tensors = {}
    for i, (key, shape) in enumerate(rows):
        dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        tensors[key] = torch.full((1,) * len(shape), i, dtype=dtype).expand(shape)
    if K_INDEX in tensors:
        tensors[K_INDEX] = torch.arange(64).view(1, 64, 1, 1)
        tensors[K_MINUS_1] = torch.full((1, 1, 1, 1), 63.0)
    return tensors


def there_and_back(tensors: dict[str, Tensor], to: str, **more: Any) -> dict[str, Tensor]:
    converted = from_official(Checkpoint(tensors), to, "file", **more)
    manifest = Manifest(**{**vars(converted.manifest), "official": json_round_trip(converted.manifest.official)})
    return to_official(manifest, converted.parts, "folder")


def json_round_trip(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("case", CASES)
def test_every_official_key_has_its_place(case: str) -> None:
    tensors = official(case)
    converted = from_official(Checkpoint(tensors), CASES[case], "file")
    report = converted.report
    assert report.total == len(tensors)
    assert {*report.converted, *report.kept, *report.by_name} == set(tensors)
    for key, place in report.converted.items():
        part, tail = place.split("/", 1)
        value = converted.parts[part][tail]
        assert value.numel() == tensors[key].numel(), key
        assert value.flatten()[0] == tensors[key].flatten()[0], key
    text = "\n".join(report.lines())
    assert text.startswith(f"{len(tensors)} keys: {len(report.converted)} converted")
    assert all(key in text for key in (*report.kept, *report.by_name))
    assert all(key in "\n".join(report.lines(every=True)) for key in tensors)
    json.dumps(report.to_dict())


@pytest.mark.parametrize("case", CASES)
def test_full_size_there_and_back(case: str) -> None:
    tensors = official(case)
    assert same(tensors, there_and_back(tensors, CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_full_size_network_takes_what_was_converted(case: str) -> None:
    converted = from_official(Checkpoint(official(case)), CASES[case], "file")
    model = fill_parts(converted.manifest, converted.parts, "folder")
    assert not any(value.is_meta for value in [*model.parameters(), *model.buffers()])


def test_switches_follow_from_the_checkpoint() -> None:
    found = {case: from_official(Checkpoint(official(case)), to, "f").manifest.config for case, to in CASES.items()}
    assert found["evp_depth_nyu"] == {
        "max_depth": 10.0,
        "std": 5.07543,
        "tokens": 40,
        "aggregate": "d",
        "stored": ["aggregate:nyuv2"],
    }
    assert found["evp_depth_kitti"]["max_depth"] == 80.0
    assert found["evp_depth_kitti"]["std"] == 4.6211
    assert found["evp_depth_nyu_individual"]["aggregate"] == "i"
    assert found["evp_depth_nyu_individual"]["clip_frozen"] is False
    assert found["evp_refer_refcoco"] == {"std": 4.7164, "tokens": 40}
    assert len(found["vpd_depth_nyu"]["stored"]) == 27
    assert found["vpd_depth_nyu"]["stored"][6] == "class:kitchen"
    assert found["vpd_refer"] == {"tokens": 40}


# Small checkpoints: the same keys at toy widths, whole files on disk.

SWITCHES: dict[str, dict[str, Any]] = {
    "evp-depth-nyu": {"max_depth": 10.0, "tokens": 40, "stored": ("aggregate:nyuv2",)},
    "evp-depth-kitti": {"max_depth": 80.0, "tokens": 40, "stored": ("aggregate:kitti",)},
    "evp-depth-individual": {"max_depth": 10.0, "tokens": 40, "aggregate": "i", "clip_frozen": False},
    "evp-depth-classes": {
        "max_depth": 10.0,
        "text": "cd",
        "aggregate": "v",
        "tokens": 1,
        "stored": tuple(f"class:{i}" for i in range(5)),
    },
    "evp-depth-one-vector": {"max_depth": 10.0, "aggregate": "vd", "tokens": 1, "stored": ("aggregate:nyuv2",)},
    "evp-refer": {"tokens": 40},
    "vpd-depth": {"stored": tuple(f"class:{i}" for i in range(5))},
    "vpd-refer": {"tokens": 40},
}
TO = {name: name if name in FAMILIES else "evp-depth-nyu" for name in SWITCHES}
# Classes are stored as [N, C], everything else as [N, T, C].
CLASSES = ("vpd-depth", "evp-depth-classes")


def small(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A random official checkpoint of that family, as its model's ``state_dict()`` would be."""
    return dict(_small(name, dtype))


@cache
def _small(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    system = FAMILIES[TO[name]].system
    tower = name in ("evp-depth-individual", "evp-refer")
    sizes = {part: config for part, config in CONFIG.items() if tower or part != "text_encoder"}
    torch.manual_seed(1)
    manifest = Manifest(system, SWITCHES[name], Preprocessing((64, 64), "fit"), "", sizes, "")
    backbone = StableDiffusion.from_config(sizes)
    extra = {f"image_encoder.post_quant_conv.{k}": v for k, v in backbone.vae.post_quant_conv.state_dict().items()}
    if name.endswith("refer"):
        for layer in ("conv_norm_out", "conv_out"):
            module = getattr(backbone.unet, layer)
            extra |= {f"unet.unet.{layer}.{k}": v for k, v in module.state_dict().items()}
    tensors = {}
    for key, value in {**network(manifest, backbone).state_dict(), **extra}.items():
        value = torch.randn(value.shape).to(dtype) if value.is_floating_point() else value
        shape = (5, TEXT_WIDTH) if key == "stored_text" and name in CLASSES else tuple(value.shape)
        tensors[official_key(key, system)] = value.reshape(official_shape(key, shape))
    if system == "evp-depth":
        tensors[K_INDEX] = torch.arange(64).view(1, 64, 1, 1)
        tensors[K_MINUS_1] = torch.full((1, 1, 1, 1), 63.0).to(dtype)
    return tensors


ARGS = argparse.Namespace(
    dataset=None,
    lr=5e-4,
    milestones=[1, 2.5],
    resume=None,
    output_dir=pathlib.PurePosixPath("/data/run"),
    device=torch.device("cuda"),
    best=np.float64(0.061),
    steps=np.int64(3),
)


def write(path: Path, tensors: dict[str, Tensor], kind: str = "training") -> Path:
    if kind == "safetensors":
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    elif kind == "bare":
        torch.save(collections.OrderedDict(tensors), path)
    else:
        optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
        content = {"model": tensors, "optimizer": optimizer, "args": ARGS, "epoch": 3}
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old")
    return path


def unchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


def wrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in tensors.items()}


def with_position_ids(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(key for key in tensors if key.endswith("embeddings.position_embedding.weight"))
    return {**tensors, key.replace("position_embedding.weight", "position_ids"): torch.arange(77)[None]}


def without_text_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("text_model.", ""): value for key, value in tensors.items()}


def old_and_wrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return wrapped(with_position_ids(without_text_model(tensors)))


def without_constants(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if "log_binomial_transform" not in key}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "training") for name in SWITCHES), *(("vpd-refer", kind) for kind in ("old", "bare", "safetensors"))],
)
def test_files_there_and_back(tmp_path: Path, name: str, kind: str) -> None:
    tensors = small(name)
    source = write(tmp_path / "in.pth", tensors, kind)
    report = convert(source, tmp_path / "folder", TO[name], sizes=CONFIG)
    assert report.total == len(tensors)
    out = tmp_path / ("out.safetensors" if kind == "safetensors" else "out.pth")
    assert revert(tmp_path / "folder", out) == len(tensors)
    if kind == "safetensors":
        assert same(load_file(out), tensors)
    else:
        assert same(torch.load(out, weights_only=True)["model"], tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.pth", "folder", out.name])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("vpd-refer", wrapped, "prefix 'module.'"),
        ("evp-refer", wrapped, "prefix 'module.'"),
        ("evp-refer", with_position_ids, "position_ids: a constant that older transformers versions saved"),
        ("evp-depth-individual", with_position_ids, "position_ids: a constant"),
        ("evp-refer", without_text_model, "36 text tower keys lack 'text_model.'"),
        ("evp-depth-individual", without_text_model, "36 text tower keys lack 'text_model.'"),
        ("evp-depth-individual", old_and_wrapped, "embeddings.position_ids: a constant"),
        ("evp-depth-nyu", without_constants, "k_idx is absent: a constant, computed here"),
    ],
)
def test_other_library_versions_are_handled_by_name_and_restored(
    tmp_path: Path, name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str
) -> None:
    plain, changed = small(name), change(small(name))
    report = convert(write(tmp_path / "in.pth", changed), tmp_path / "folder", TO[name], sizes=CONFIG)
    assert said in "\n".join(report.lines())
    assert report.total == len(changed)
    revert(tmp_path / "folder", tmp_path / "out.pth")
    assert same(torch.load(tmp_path / "out.pth", weights_only=True)["model"], changed)
    # In the folder it makes no difference.
    reference = from_official(Checkpoint(plain), TO[name], "file", sizes=CONFIG)
    for part in FILES:
        assert same(read_part(tmp_path / "folder", part), reference.parts[part])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_formats_stay_on_disk_and_are_float32_in_memory(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = small("evp-depth-nyu", dtype)
    convert(write(tmp_path / "in.pth", tensors), tmp_path / "folder", "evp-depth-nyu", sizes=CONFIG)
    assert read_part(tmp_path / "folder", "unet")["conv_in.weight"].dtype == dtype
    model, _, _ = load_folder(tmp_path / "folder")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    revert(tmp_path / "folder", tmp_path / "out.pth")
    assert same(torch.load(tmp_path / "out.pth", weights_only=True)["model"], tensors)


@pytest.mark.parametrize("name", SWITCHES)
def test_converted_folder_computes_what_the_tensors_say(tmp_path: Path, name: str) -> None:
    tensors = small(name)
    convert(write(tmp_path / "in.pth", tensors), tmp_path / "folder", TO[name], sizes=CONFIG)
    model, manifest, tokenizer = load_folder(tmp_path / "folder")
    assert tokenizer is None
    assert manifest == read_manifest(tmp_path / "folder")
    assert not model.training
    own = model.state_dict()
    for key, value in own.items():
        assert torch.equal(value.flatten(), tensors[official_key(key, manifest.system)].flatten()), key
    tokens = getattr(model.config, "tokens", 1)
    with torch.inference_mode():
        out = model(torch.rand(1, 3, 48, 70), torch.randn(1, tokens, TEXT_WIDTH))
        if model.text_tower is not None:
            assert model.text_tower(torch.arange(7)[None]).isfinite().all()
    assert out.shape[-2:] == (48, 70)


# Embeddings and text towers from outside


def test_absent_embedding_is_said_and_may_come_from_a_file(tmp_path: Path) -> None:
    tensors = small("evp-depth-nyu")
    vectors = tensors.pop(EMBEDDING)
    source = write(tmp_path / "in.pth", tensors)
    report = convert(source, tmp_path / "without", "evp-depth-nyu", sizes=CONFIG)
    assert any(EMBEDDING in note and "--embedding FILE" in note for note in report.notes)
    assert read_manifest(tmp_path / "without").config.get("stored") is None

    for i, content in enumerate(({"aggregated": vectors}, {"aggregated": vectors[0], "other": {"caption": ["x"]}})):
        torch.save(content, tmp_path / "embedding.pth")
        folder = tmp_path / f"with{i}"
        report = convert(source, folder, "evp-depth-nyu", tmp_path / "embedding.pth", sizes=CONFIG)
        assert report.total == len(tensors)
        assert any("taken from --embedding" in note for note in report.notes)
        model, manifest, _ = load_folder(folder)
        assert manifest.config["stored"] == ["aggregate:nyuv2"]
        assert torch.equal(model.stored_text, vectors)
        revert(folder, tmp_path / f"out{i}.pth")
        assert same(torch.load(tmp_path / f"out{i}.pth", weights_only=True)["model"], tensors)


def test_wrong_embeddings_are_refused(tmp_path: Path) -> None:
    tensors = small("evp-depth-nyu")
    whole = write(tmp_path / "whole.pth", tensors)
    tensors.pop(EMBEDDING)
    source = write(tmp_path / "in.pth", tensors)
    file = tmp_path / "embedding.pth"

    def message(content: Any, checkpoint: Path = source, to: str = "evp-depth-nyu") -> str:
        torch.save(content, file)
        with pytest.raises(DeixisError) as caught:
            convert(checkpoint, tmp_path / "out", to, file, sizes=CONFIG)
        assert not (tmp_path / "out").exists()
        return one_line(caught)

    assert "[1, 40, 9] instead of [1, 40, 48]" in message({"aggregated": torch.zeros(1, 40, 9)})
    assert "[1, 7, 48] instead of [1, 40, 48]" in message({"aggregated": torch.zeros(1, 7, TEXT_WIDTH)})
    assert "holds no tensor 'aggregated'" in message({"a.jpg": {"caption": ["x"]}, "b.jpg": {}})
    assert "has its own" in message({"aggregated": torch.zeros(1, 40, TEXT_WIDTH)}, whole)
    refer = write(tmp_path / "refer.pth", small("vpd-refer"))
    assert "is for EVP depth" in message({"aggregated": torch.zeros(1, 40, TEXT_WIDTH)}, refer, "vpd-refer")


def test_stored_text_of_other_kinds() -> None:
    """Table 4 of EVP has rows with one vector for each class or for the dataset; nothing published is like that."""
    classes = from_official(Checkpoint(small("evp-depth-classes")), "evp-depth-nyu", "file", sizes=CONFIG).manifest
    assert (classes.config["text"], classes.config["aggregate"]) == ("cd", "v")
    assert classes.config["stored"] == [f"class:{i}" for i in range(5)]
    one = from_official(Checkpoint(small("evp-depth-one-vector")), "evp-depth-nyu", "file", sizes=CONFIG).manifest
    assert one.config["aggregate"] == "vd"
    assert one.config["stored"] == ["aggregate:nyuv2"]


def test_clip_from_outside(tmp_path: Path) -> None:
    clip = write_folder(tmp_path / "sd")
    tensors = small("vpd-refer")
    source = write(tmp_path / "in.pth", tensors)
    report = convert(source, tmp_path / "plain", "vpd-refer", sizes=CONFIG)
    assert any("--clip FOLDER" in note for note in report.notes)
    report = convert(source, tmp_path / "folder", "vpd-refer", clip=clip, sizes=CONFIG)
    assert report.total == len(tensors)
    model, manifest, tokenizer = load_folder(tmp_path / "folder")
    assert "text_encoder" in manifest.architecture
    tower = StableDiffusion.from_pretrained(clip).text_encoder
    assert tower is not None
    assert same(dict(model.text_tower.clip.state_dict()), dict(tower.state_dict()))
    assert tokenizer is not None
    assert not any(parameter.requires_grad for parameter in model.text_tower.parameters())
    revert(tmp_path / "folder", tmp_path / "out.pth")
    assert same(torch.load(tmp_path / "out.pth", weights_only=True)["model"], tensors)


def test_clip_with_its_own_layout_and_for_aggregated_depth(tmp_path: Path) -> None:
    """The model's own repository: vocabulary and weights side by side."""
    folder = write_folder(tmp_path / "sd")
    clip = tmp_path / "clip"
    shutil.copytree(folder / "text_encoder", clip)
    shutil.copytree(folder / "tokenizer", clip, dirs_exist_ok=True)
    convert(write(tmp_path / "in.pth", small("evp-depth-nyu")), tmp_path / "out", "evp-depth-nyu", None, clip, CONFIG)
    model, manifest, tokenizer = load_folder(tmp_path / "out")
    assert manifest.config["aggregate"] == "d"
    assert model.text_tower is not None
    assert tokenizer is not None
    assert not (tmp_path / "out/tokenizer/model.safetensors").exists()


def test_trained_tower_is_not_replaced(tmp_path: Path) -> None:
    clip = write_folder(tmp_path / "sd")
    tensors = small("evp-refer")
    convert(write(tmp_path / "in.pth", tensors), tmp_path / "out", "evp-refer", clip=clip, sizes=CONFIG)
    model, _, tokenizer = load_folder(tmp_path / "out")
    assert tokenizer is not None
    key = "clip_model.text_model.final_layer_norm.weight"
    name = next(k for k in model.state_dict() if k.endswith("final_layer_norm.weight"))
    assert torch.equal(model.state_dict()[name], tensors[key])


def test_wrong_clip_folders(tmp_path: Path) -> None:
    clip = write_folder(tmp_path / "sd")
    source = write(tmp_path / "in.pth", small("vpd-refer"))

    def message() -> str:
        with pytest.raises(DeixisError) as caught:
            convert(source, tmp_path / "out", "vpd-refer", clip=clip, sizes=CONFIG)
        assert not (tmp_path / "out").exists()
        return one_line(caught)

    tensors = load_file(clip / "text_encoder/model.safetensors")
    save_file({key: torch.zeros(3) for key in tensors}, clip / "text_encoder/model.safetensors")
    assert "wrong shapes" in message()
    (clip / "text_encoder/model.safetensors").unlink()
    assert "has no model.safetensors" in message()
    shutil.rmtree(clip / "text_encoder")
    assert "has no text_encoder/" in message()
    shutil.rmtree(clip / "tokenizer")
    assert "lacks vocab.json" in message()
    shutil.rmtree(clip)
    assert "is not a folder" in message()


# Files that cannot be read


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = one_line(caught)
    assert str(path) in message
    return message


def test_training_options_are_read(tmp_path: Path) -> None:
    for kind in ("training", "old"):
        found = read_checkpoint(write(tmp_path / "in.pth", {"a": torch.ones(1)}, kind))
        assert found.args == vars(ARGS)
        assert found.notes == ()


def test_harmless_paths_of_both_systems(tmp_path: Path) -> None:
    args = argparse.Namespace(a=pathlib.Path("/x"), b=pathlib.PureWindowsPath("C:/x"), c=[pathlib.PurePosixPath("y")])
    torch.save({"model": {"w": torch.ones(1)}, "args": args}, tmp_path / "in.pth")
    assert str(read_checkpoint(tmp_path / "in.pth").args["a"]) == "/x"


def test_missing_folder_empty_and_unreadable(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.pth")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.pth").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "empty.pth")
    if os.geteuid() != 0:
        write(tmp_path / "in.pth", {"a": torch.ones(1)}).chmod(0)
        assert "cannot be read" in refusal(tmp_path / "in.pth")


@pytest.mark.parametrize("kind", ["training", "old", "bare", "safetensors"])
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "in.pth", {f"layer.{i}": torch.randn(40, 10) for i in range(5)}, kind)
    content = path.read_bytes()
    for end in [1, 4, 8, 9, 20, 100, *(len(content) * i // 13 for i in range(1, 13)), len(content) - 1]:
        path.write_bytes(content[:end])
        message = refusal(path)
        assert "executed" not in message, end


@pytest.mark.parametrize(
    "content", [b"hello, world", b"\x89PNG\r\n\x1a\n" + b"0" * 99, bytes(range(256)), b"\0" * 4096, b"PK\3\4rest"]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.pth").write_bytes(content)
    assert "neither" in refusal(tmp_path / "in.pth") or content.startswith(b"PK")


def test_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "in.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "not one of PyTorch" in refusal(path)
    write(tmp_path / "stored.pth", {"a": torch.zeros(1000)})
    with zipfile.ZipFile(tmp_path / "stored.pth") as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    assert "has been compressed again" in refusal(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"model": {"a": 1}}, "holds no tensors"),
        ({1: torch.ones(1)}, "holds no tensors"),
        ({"a": torch.ones(2).to_sparse()}, "holds a in a special format"),
        ({"a": torch.ones(2, device="meta")}, "holds a in a special format"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, problem: str) -> None:
    torch.save(content, tmp_path / "in.pth")
    assert problem in refusal(tmp_path / "in.pth")


class Hostile:
    """Unpickling it runs a command."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A file that a hostile pickle would make; it must not."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("wrap", ["model", "args", "optimizer"])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_checkpoints_are_refused_by_name(tmp_path: Path, trap: Path, wrap: str, zipped: bool) -> None:
    content: dict[str, Any] = {"model": {"w": torch.ones(1)}, "args": argparse.Namespace(), "optimizer": {}}
    evil = Hostile(os.system, f"touch {trap}")
    content[wrap] = argparse.Namespace(x=evil) if wrap == "args" else {"w": torch.ones(1), "x": evil}
    torch.save(content, tmp_path / "in.pth", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "in.pth")
    assert f"{os.system.__module__}.system" in message
    assert "refused" in message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_plain_pickles(tmp_path: Path, trap: Path, protocol: int) -> None:
    content = pickle.dumps({"model": Hostile(os.system, f"touch {trap}")}, protocol=protocol)
    (tmp_path / "in.pth").write_bytes(content)
    assert f"{os.system.__module__}.system" in refusal(tmp_path / "in.pth")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Hostile(eval, "1"), "builtins.eval"),
        (Hostile(getattr, 1, "real"), "builtins.getattr"),
        (datetime.date(2024, 1, 1), "datetime.date"),
        (np.zeros(3), "numpy.ndarray"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (collections.defaultdict(list), "collections.defaultdict"),
    ],
)
def test_anything_else_that_needs_code_is_named(tmp_path: Path, value: Any, name: str) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "x": value}, tmp_path / "in.pth")
    assert name in refusal(tmp_path / "in.pth")


def test_hostile_safetensors_name_does_not_help(tmp_path: Path, trap: Path) -> None:
    torch.save({"x": Hostile(os.system, f"touch {trap}")}, tmp_path / "in.safetensors")
    assert "refused" in refusal(tmp_path / "in.safetensors")


def test_training_checkpoints_cost_their_models_memory_only(tmp_path: Path) -> None:
    """Tensors stay in the file until they are used; the optimiser's are never read."""
    path = tmp_path / "in.pth"
    torch.save({"model": {"w": torch.zeros(100)}, "optimizer": torch.zeros(50_000_000)}, path)  # 200 MB

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    before = resident()
    found = read_checkpoint(path)
    assert resident() - before < 50_000_000
    assert found.tensors["w"].sum() == 0


# Checkpoints that do not fit


def failure(tensors: dict[str, Tensor], to: str) -> str:
    with pytest.raises(DeixisError) as caught:
        from_official(Checkpoint(tensors), to, "file", sizes=CONFIG)
    return one_line(caught)


def test_nothing_is_written_of_what_does_not_fit(tmp_path: Path) -> None:
    tensors = small("vpd-refer")
    tensors.popitem()
    source = write(tmp_path / "in.pth", tensors)
    for to in ("vpd-refer", "evp-refer", "nothing"):
        with pytest.raises(DeixisError) as caught:
            convert(source, tmp_path / "out", to, sizes=CONFIG)
        one_line(caught)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


@pytest.mark.parametrize("to", FAMILIES)
@pytest.mark.parametrize("name", SWITCHES)
def test_wrong_family(name: str, to: str) -> None:
    system = FAMILIES[TO[name]].system
    if FAMILIES[to].system == system:
        return
    message = failure(small(name), to)
    assert f"is a checkpoint of {system}, not of {FAMILIES[to].system}" in message
    assert f"use --to {system}" in message


def test_family_from_the_training_options() -> None:
    tensors = small("evp-depth-nyu")

    def checkpoint(**args: Any) -> Checkpoint:
        return Checkpoint(tensors, args)

    kitti = from_official(checkpoint(dataset="kitti"), "evp-depth", "f", sizes=CONFIG)
    assert kitti.manifest.config["std"] == 4.6211
    nyu = from_official(checkpoint(dataset="nyudepthv2", max_depth=12), "evp-depth", "f", sizes=CONFIG)
    assert nyu.manifest.config["max_depth"] == 12.0
    assert any("maximum depth 12 m" in note for note in nyu.report.notes)
    for odd in (None, "10", -1, float("nan")):
        found = from_official(checkpoint(max_depth=odd), "evp-depth-nyu", "f", sizes=CONFIG)
        assert found.manifest.config["max_depth"] == 10.0
    with pytest.raises(UsageError, match="does not say the dataset"):
        from_official(checkpoint(), "evp-depth", "f", sizes=CONFIG)
    with pytest.raises(CheckpointError, match="was trained on kitti"):
        from_official(checkpoint(dataset="kitti"), "evp-depth-nyu", "f", sizes=CONFIG)
    with pytest.raises(UsageError, match="is not a known family"):
        from_official(checkpoint(), "evp", "f", sizes=CONFIG)


def test_not_a_checkpoint_of_ours() -> None:
    backbone = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}
    assert "is not an EVP or VPD checkpoint" in failure(backbone, "evp-refer")


def test_small_checkpoint_is_not_of_stable_diffusion_size(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pth", small("vpd-refer"))
    with pytest.raises(CheckpointError, match="wrong shapes"):
        convert(source, tmp_path / "out", "vpd-refer")


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t, key: t.pop(key), "lacks {key}"),
        (lambda t, key: t.update({"surplus.weight": torch.ones(1)}), "has unknown surplus.weight"),
        (lambda t, key: t.update({key: torch.ones(3, 3)}), "wrong shapes: {key} [3, 3]"),
        (lambda t, key: t.update({key: t[key].to(torch.int8)}), "wrong number formats: {key} int8"),
        (lambda t, key: t.update({key: t[key].flatten()}), "wrong shapes: {key}"),
    ],
    ids=["missing", "unknown", "shape", "format", "flat"],
)
def test_tensors_that_do_not_fit(name: str, change: Callable[..., Any], problem: str) -> None:
    tensors = small(name)
    key = next(key for key in tensors if key.endswith("mid.attn_1.q.weight"))
    change(tensors, key)
    message = failure(tensors, TO[name])
    assert problem.format(key=key) in message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("evp-depth-nyu", "encoder.layer2.0.weight"),
        ("evp-refer", "classifier.conv1_3.weight"),
        ("vpd-refer", "classifier.conv1_3.weight"),
        ("vpd-depth", EMBEDDING),
    ],
)
def test_layers_that_tell_the_number_of_tokens(name: str, key: str) -> None:
    tensors = small(name)
    tensors[key] = torch.ones(2, 3)
    assert f"wrong shapes: {key} [2, 3]" in failure(tensors, TO[name])
    tensors.pop(key)
    assert f"lacks {key}" in failure(tensors, TO[name])


def test_referring_checkpoint_without_its_text_tower() -> None:
    tensors = {key: value for key, value in small("evp-refer").items() if not key.startswith("clip_model.")}
    assert "lacks the text tower" in failure(tensors, "evp-refer")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (K_INDEX, torch.arange(64).flip(0).view(1, 64, 1, 1), "has other values than 0 to 63"),
        (K_INDEX, torch.arange(63).view(1, 63, 1, 1), "has other values than 0 to 63"),
        (K_MINUS_1, torch.full((1, 1, 1, 1), 62.0), "has other values than 63 in"),
        (K_MINUS_1, torch.full((1, 1, 1, 1), float("nan")), "has other values than 63 in"),
        (
            "encoder.clip_model.transformer.text_model.embeddings.position_ids",
            torch.arange(77)[None] + 1,
            "has other values than 0 to 76",
        ),
    ],
)
def test_constants_with_other_values(key: str, value: Tensor, problem: str) -> None:
    tensors = {**small("evp-depth-individual"), key: value}
    message = failure(tensors, "evp-depth-nyu")
    assert problem in message
    assert key in message


# Writing


def tiny_folder(folder: Path) -> Path:
    tensors = small("vpd-refer")
    converted = from_official(Checkpoint(tensors), "vpd-refer", "file", sizes=CONFIG)
    save_folder(folder, converted.manifest, converted.parts)
    return folder


def test_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pth", small("vpd-refer"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(CheckpointError) as caught:
            convert(source, tmp_path / name, "vpd-refer", sizes=CONFIG)
        assert "already exists" in one_line(caught)
    assert (tmp_path / "full/mine.txt").read_text() == (tmp_path / "file").read_text() == "x"
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", "vpd-refer", sizes=CONFIG)
    load_folder(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="already exists"):
        revert(tmp_path / "empty", tmp_path / "file")


def test_output_below_new_folders_with_the_usual_permissions(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "a/b/c")
    (tmp_path / "usual").mkdir()
    assert folder.stat().st_mode == (tmp_path / "usual").stat().st_mode
    revert(folder, tmp_path / "d/e.pth")
    assert (tmp_path / "d/e.pth").is_file()


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    source = write(tmp_path / "in.pth", small("vpd-refer"))
    with pytest.raises(CheckpointError) as caught:
        convert(source, tmp_path / "file/out", "vpd-refer", sizes=CONFIG)
    assert "cannot be written" in one_line(caught)
    folder = tiny_folder(tmp_path / "folder")
    with pytest.raises(CheckpointError) as caught:
        revert(folder, tmp_path / "file/out.pth")
    assert "cannot be written" in one_line(caught)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_nothing_is_left_of_what_could_not_be_written(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = write(tmp_path / "in.pth", small("vpd-refer"))
    folder = tiny_folder(tmp_path / "folder")
    request.getfixturevalue("small_disk")
    before = sorted(tmp_path.iterdir())
    for attempt in (
        lambda: convert(source, tmp_path / "out", "vpd-refer", sizes=CONFIG),
        lambda: revert(folder, tmp_path / "out.pth"),
        lambda: revert(folder, tmp_path / "out.safetensors"),
    ):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert "cannot be written" in one_line(caught)
        assert sorted(tmp_path.iterdir()) == before


def test_too_little_room_is_said_beforehand(tmp_path: Path) -> None:
    converted = from_official(Checkpoint(official("vpd_refer")), "vpd-refer", "file")
    part = {"x": torch.zeros(1).expand(10**15)}  # no disk has 4 PB free
    with pytest.raises(CheckpointError) as caught:
        save_folder(tmp_path / "out", converted.manifest, {"head": part})
    assert "needs 4000000.0 GB" in one_line(caught)
    assert not list(tmp_path.iterdir())


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    parts = {"head": {"a": whole[:6].view(2, 3), "b": whole[3:9], "c": whole.view(4, 6).T, "d": whole, "e": whole}}
    manifest = Manifest("vpd-refer", {}, Preprocessing((64, 64), "fit"), "", {}, "")
    save_folder(tmp_path / "out", manifest, parts)
    assert same(read_part(tmp_path / "out", "head"), parts["head"])


def test_only_what_was_converted_goes_back(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "folder")
    path = folder / "deixis.json"
    content = json.loads(path.read_text())
    tensors = load_file(folder / FILES["head"])

    def message() -> str:
        with pytest.raises(DeixisError) as caught:
            revert(folder, tmp_path / "out.pth")
        assert not (tmp_path / "out.pth").exists()
        return one_line(caught)

    path.write_text(json.dumps({**content, "official": {}}))
    assert "was not converted" in message()
    path.write_text(json.dumps(content))
    save_file({**tensors, "surplus": torch.ones(1)}, folder / FILES["head"])
    assert "head/surplus, which has no official name" in message()
    tensors.popitem()
    save_file(tensors, folder / FILES["head"])
    assert f"of the {len(small('vpd-refer'))} official tensors" in message()
    (folder / FILES["head"]).write_bytes(b"cut")
    assert "is not a whole safetensors file" in message()


# Reading folders


def load_failure(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_folder(folder)
    message = one_line(caught)
    assert str(folder) in message
    return message


def test_saving_and_loading_a_network_trained_here(tmp_path: Path) -> None:
    manifest = Manifest("evp-refer", {"tokens": 12}, Preprocessing((64, 64), "fit"), "L", CONFIG, "S", {}, 0.25)
    model = network(manifest, StableDiffusion.from_config(CONFIG))
    save_folder(tmp_path / "m", manifest, split(model.state_dict()))
    loaded, read, _ = load_folder(tmp_path / "m")
    assert same(dict(loaded.state_dict()), dict(model.state_dict()))
    assert read == manifest
    assert json.loads((tmp_path / "m/deixis.json").read_text())["sha256"] == digest(tmp_path / "m")


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "folder")
    path = folder / "deixis.json"
    content = path.read_text()
    for damage in ("", "{", "[]", "{}", '{"format": 1}', "\0"):
        path.write_text(damage)
        assert "is damaged" in load_failure(folder)
    values = json.loads(content)
    for change, problem in (
        ({"format": 99}, "has format 99"),
        ({"system": "other"}, "is not a system of this version"),
        ({"config": {"speed": 1}}, "has no switch speed"),
        ({"config": {"tokens": "many"}}, "describes no network"),
        ({"preprocessing": {"size": 3}}, "is damaged"),
    ):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(ModelError) as caught:
            load_folder(folder)
        assert problem in one_line(caught)
    path.unlink()
    assert "has no deixis.json" in load_failure(folder)
    path.write_text(content)

    config = folder / "unet/config.json"
    kept = config.read_text()
    config.write_text("{")
    assert "is missing or damaged" in load_failure(folder)
    config.write_text(kept)

    for part in ("unet", "head"):
        file = folder / FILES[part]
        kept_bytes, tensors = file.read_bytes(), {k: v.clone() for k, v in load_file(file).items()}
        first = sorted(tensors)[0]
        save_file({k: v for k, v in tensors.items() if k != first}, file)
        assert f"lacks {'' if part == 'head' else 'unet.unet.'}{first}" in load_failure(folder)
        save_file({**tensors, "surplus": torch.ones(1)}, file)
        assert f"unknown {part}/surplus" in load_failure(folder)
        save_file({**tensors, first: torch.ones(9, 9)}, file)
        assert "wrong shapes" in load_failure(folder)
        file.write_bytes(kept_bytes[: len(kept_bytes) // 2])
        assert "is not a whole safetensors file" in load_failure(folder)
        file.unlink()
        assert "lacks" in load_failure(folder)
        file.write_bytes(kept_bytes)
    load_folder(folder)


def test_vocabulary_larger_than_the_text_tower_knows(tmp_path: Path) -> None:
    clip = write_folder(tmp_path / "sd")
    sizes = {**CONFIG, "text_encoder": {**CONFIG["text_encoder"], "vocab_size": 300}}
    manifest = Manifest("evp-refer", {"tokens": 12}, Preprocessing((64, 64), "fit"), "L", sizes, "S")
    model = network(manifest, StableDiffusion.from_config(sizes))
    save_folder(tmp_path / "m", manifest, split(model.state_dict()), clip / "tokenizer")
    assert "the text tower knows 300" in load_failure(tmp_path / "m")


SHIPPED = sorted(manifest.parent for manifest in shipped_folder().glob("*/deixis.json"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_weights_are_what_their_manifest_says(folder: Path) -> None:
    assert json.loads((folder / "deixis.json").read_text())["sha256"] == digest(folder)
    load_folder(folder)
