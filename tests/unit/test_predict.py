"""From a name or folder and a picture of any sort to depth and masks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import deixis
from deixis import predict
from deixis.checkpoints.folder import Preprocessing
from deixis.errors import DeixisError, InputError, ModelError, UsageError
from deixis.io import read_image
from deixis.predict import DepthPredictor, MaskPredictor, load, load_depth, load_mask, surest, to_tensor, working_size
from deixis.types import Text
from tests.awkward import exif, photo
from tests.folders import SIZE, write_weights

Toy = Callable[[str], Path]
SIZES = [(1, 1), (1, 2), (1, 5000), (5000, 1), (48, 64), (64, 48), (37, 91), (90, 4000), (480, 640)]


@pytest.fixture(scope="module")
def loaded(toy: Toy) -> Callable[[str], Any]:
    """The predictor of a toy network, loaded once."""
    return cache(lambda name: load(toy(name)))


@pytest.fixture
def depth(loaded: Callable[[str], Any]) -> DepthPredictor:
    return loaded("evp-depth")


@pytest.fixture
def mask(loaded: Callable[[str], Any]) -> MaskPredictor:
    return loaded("evp-refer")


def one_line(error: DeixisError) -> str:
    text = str(error)
    assert "\n" not in text
    assert error.subject
    assert error.problem
    assert error.remedy
    assert len(text) < 700
    return text


# -------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["evp-depth", "vpd-depth"])
def test_depth_has_the_size_of_the_picture(loaded: Callable[[str], Any], name: str, size: tuple[int, int]) -> None:
    found = loaded(name)(photo(size[1], size[0]))
    assert found.values.shape == size
    assert found.values.dtype == np.float32
    assert found.valid.all()
    assert found.kind == "metric"
    assert found.seconds > 0


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["evp-refer", "vpd-refer"])
def test_masks_have_the_size_of_the_picture(loaded: Callable[[str], Any], name: str, size: tuple[int, int]) -> None:
    found = loaded(name)(photo(size[1], size[0]), "the red chair")
    assert found.mask.shape == found.probability.shape == size
    assert (found.mask.dtype, found.probability.dtype) == (np.bool_, np.float32)
    assert found.probability.min() >= 0
    assert found.probability.max() <= 1


@pytest.mark.parametrize("tta", ["flip", "windows"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (37, 91), (91, 37)], ids=str)
def test_augmentation_at_any_size(depth: DepthPredictor, tta: Any, size: tuple[int, int]) -> None:
    values = depth(photo(size[1], size[0]), tta=tta).values
    assert values.shape == size
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (640, 480), (1, 1), (1, 5000), (5000, 1), (500, 4000), (10000, 10000)]
)
def test_working_size_keeps_area_and_aspect_as_far_as_it_can(height: int, width: int) -> None:
    got = working_size(height, width, Preprocessing((120, 160), "fit"))
    assert min(got) >= predict.MIN_SIDE
    assert working_size(height, width, Preprocessing((8, 8), "fit")) == (64, 64)
    assert got[0] * got[1] <= 1.3 * 120 * 160
    assert (got[0] >= got[1]) == (height >= width)
    if max(height, width) < 4 * min(height, width):
        assert got[0] / got[1] == pytest.approx(height / width, rel=0.02)
        assert got[0] * got[1] == pytest.approx(120 * 160, rel=0.02)
    assert working_size(height, width, Preprocessing((120, 160), "stretch")) == (120, 160)


def test_pictures_of_the_training_size_are_not_resampled() -> None:
    assert working_size(120, 160, Preprocessing((120, 160), "fit")) == (120, 160)
    rgb = np.asarray(photo(160, 120))
    assert torch.equal(to_tensor(rgb, (120, 160)), torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] / 255)


def test_small_pictures_are_shrunk_with_antialiasing() -> None:
    stripes = np.zeros((512, 512, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = to_tensor(stripes, (64, 64))
    assert small.shape == (1, 3, 64, 64)
    assert (small - 0.5).abs().max() < 0.05


def test_the_answer_is_repeatable_and_leaves_the_picture_alone(depth: DepthPredictor) -> None:
    rgb = np.asarray(photo(50, 40)).copy()
    before = rgb.copy()
    assert np.array_equal(depth(rgb).values, depth(rgb).values)
    assert np.array_equal(rgb, before)
    assert not any(parameter.grad is not None for parameter in depth.model.parameters())
    assert not depth.model.training


# -------------------------------------------------------------------------------------------- inputs


def test_every_sort_of_picture_gives_the_same(depth: DepthPredictor, mask: MaskPredictor, tmp_path: Path) -> None:
    image = photo(50, 40)
    image.save(tmp_path / "a.png")
    rgb = np.asarray(image)
    sources: list[Any] = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        image,
        rgb,
        rgb.astype(np.float32) / 255,
        rgb / 255.0,
        torch.from_numpy(rgb.copy()),
        torch.from_numpy(rgb.copy()).permute(2, 0, 1),
        torch.from_numpy(rgb.copy()).permute(2, 0, 1) / 255,
        read_image(image),
    ]
    expected, masked = depth(image).values, mask(image, "the red chair").probability
    for source in sources:
        assert np.array_equal(depth(source).values, expected)
        assert np.array_equal(mask(source, "the red chair").probability, masked)


def test_lists_give_lists(depth: DepthPredictor, mask: MaskPredictor) -> None:
    pictures = [photo(50, 40), np.asarray(photo(20, 30)), photo(1, 1)]
    found = depth(pictures, ["a bedroom", None, ""])
    assert [one.values.shape for one in found] == [(40, 50), (30, 20), (1, 1)]
    assert [one.text for one in found] == [Text("a bedroom", "user"), Text("", "empty"), Text("", "empty")]
    assert np.array_equal(found[0].values, depth(pictures[0], "a bedroom").values)
    assert [one.text.text for one in depth(tuple(pictures), "a hall")] == ["a hall"] * 3
    assert depth([]) == []
    assert depth([], []) == []

    masks = mask(pictures, ["the bed", "the lamp", "the door"])
    assert [one.expression for one in masks] == ["the bed", "the lamp", "the door"]
    assert [one.expression for one in mask(pictures, "the bed")] == ["the bed"] * 3
    assert isinstance(depth([pictures[0]]), list)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([photo()] * 3, ["a", "b"]), "text: has 2 entries for 3 pictures; pass one string, or one each"),
        ((photo(), ["a"]), "text: is a list for one picture"),
        ((photo(), 3), "text: is of type int; pass one string"),
        (([photo()], 3), "text: is of type int; pass one string, or one each"),
        (([photo()], [3]), "text: is of type int; pass one string"),
        (([], ["a"]), "has 1 entries for 0 pictures"),
        ((b"bytes",), "is not a picture source"),
        ((None,), "is not a picture source"),
        ((torch.zeros(2, 3, 8, 8),), "pass one image .C, H, W., or a list"),
        (("",), "is an empty path"),
        (("gone.jpg",), "does not exist"),
    ],
)
def test_inputs_that_make_no_sense(depth: DepthPredictor, arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(DeixisError, match=match) as caught:
        depth(*arguments)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expression: is empty"),
        (" \n", "expression: is empty"),
        (None, "expression: is missing"),
        (["a"], "text: is a list for one picture"),
        (3, "text: is of type int; pass one expression"),
    ],
)
def test_expressions_that_make_no_sense(mask: MaskPredictor, text: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        mask(photo(), text)
    one_line(caught.value)
    with pytest.raises(UsageError, match="expression: is empty"):
        mask([photo()] * 2, ["the bed", None])


def test_limit_on_pixels(depth: DepthPredictor, mask: MaskPredictor) -> None:
    with pytest.raises(InputError, match="above the limit of 10"):
        depth(photo(4, 4), max_pixels=10)
    with pytest.raises(InputError, match="above the limit of 10"):
        mask([photo(4, 4)], "x", max_pixels=10)


def test_the_camera_comes_from_exif(depth: DepthPredictor, tmp_path: Path) -> None:
    photo(80, 60).save(tmp_path / "a.jpg", exif=exif(FocalLengthIn35mmFilm=28))
    camera = depth(tmp_path / "a.jpg").camera
    assert camera is not None
    assert camera.fx == pytest.approx(28 / np.hypot(36, 24) * 100)
    assert depth(photo()).camera is None


# ---------------------------------------------------------------------------------------------- text


def test_provenance(loaded: Callable[[str], Any]) -> None:
    picture = photo()
    assert loaded("evp-depth")(picture).text == Text("", "empty")
    assert loaded("evp-depth")(picture, "  ").text == Text("", "empty")
    assert loaded("evp-depth")(picture, "a small bedroom").text == Text("a small bedroom", "user")
    assert loaded("evp-depth-average")(picture).text == Text("", "aggregate:nyuv2")
    assert loaded("vpd-depth-classes")(picture).text == Text("", "aggregate:classes")
    assert loaded("vpd-depth-classes")(picture, "kitchen").text == Text("kitchen", "class:kitchen")
    assert loaded("vpd-depth-classes")(picture, " LIVING room").text == Text(" LIVING room", "class:living_room")
    assert loaded("vpd-depth-classes")(picture, "class:living_room").text.provenance == "class:living_room"
    # VPD describes by class, in CLIP's templates.
    assert loaded("vpd-depth")(picture, "a hall").text == Text("a hall", "class:a hall")
    assert loaded("evp-refer")(picture, "the bed").text == Text("the bed", "user")


def test_text_changes_the_prediction(loaded: Callable[[str], Any]) -> None:
    picture = photo(64, 48)
    for name, texts in (("evp-depth", ["a hall", "a red chair"]), ("vpd-depth-classes", ["kitchen", "living room"])):
        first, second = (loaded(name)(picture, text).values for text in texts)
        assert not np.array_equal(first, second)
    first, second = (loaded("evp-refer")(picture, text).probability for text in ("the bed", "a blue lamp"))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        (
            "vpd-depth-classes",
            "a bathroom",
            "text 'a bathroom': .* knows only its classes; use one of: kitchen, living",
        ),
        ("evp-depth-average", "a bathroom", "has no text tower; leave the text out"),
        ("evp-depth-wordless", "a bathroom", "has no vocabulary; copy the tokenizer folder"),
        ("evp-depth-wordless", None, "has no vocabulary"),
        ("evp-depth-silent", None, "has no text tower"),
        ("evp-depth-average", "x" * 5000, "text 'xxx.*\\.\\.\\.': .* has no text tower"),
    ],
)
def test_models_that_cannot_take_the_text(
    loaded: Callable[[str], Any], name: str, text: str | None, match: str
) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        loaded(name)(photo(), text)
    one_line(caught.value)


def test_a_referring_model_without_its_text_tower(loaded: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match=r"expression 'the bed': .* keeps its text tower outside .* --clip") as caught:
        loaded("vpd-refer-towerless")(photo(), "the bed")
    one_line(caught.value)


@pytest.mark.parametrize("text", ["寝室の写真", "🛏️", "a\nb\tc", "x" * 5000, "word " * 500, "\ud800 lone", "\0"])
def test_any_text_is_read(depth: DepthPredictor, mask: MaskPredictor, text: str) -> None:
    if "\ud800" in text:
        text = text.encode("utf-8", "replace").decode()
    assert np.isfinite(depth(photo(), text).values).all()
    assert mask(photo(), text).expression == text


def test_text_that_is_cut_is_remarked_upon(depth: DepthPredictor, mask: MaskPredictor) -> None:
    assert depth.remark(None) is None
    assert depth.remark("a red chair") is None
    remark = depth.remark("a red chair " * 8)
    assert remark is not None
    assert remark.endswith(
        "reads 10 tokens of text; what follows is ignored: 'red chair a red chair a red chair a red chair a red chair'"
    )
    assert mask.remark("the blue lamp on the left of the small bed and the window") is not None
    # What is said to be ignored is.
    long = "a red chair " * 8
    assert np.array_equal(depth(photo(), long).values, depth(photo(), long + " a window").values)


# ------------------------------------------------------------------------------- test-time augmentation


def test_flip_is_the_mean_with_the_mirror_image(depth: DepthPredictor) -> None:
    rgb = np.asarray(photo(*SIZE[::-1]))
    plain, mirrored = depth(rgb).values, depth(np.ascontiguousarray(rgb[:, ::-1])).values[:, ::-1]
    np.testing.assert_allclose(depth(rgb, tta="flip").values, (plain + mirrored) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tta", ["flip", "windows"])
def test_augmentation_does_not_depend_on_the_batch(
    depth: DepthPredictor, monkeypatch: pytest.MonkeyPatch, tta: Any
) -> None:
    picture = photo(200, 60)
    maps = []
    sizes: list[list[int]] = []
    for most in (1, 2, 3, 8):
        monkeypatch.setattr(predict, "_batch_that_fits", lambda _picture, most=most: most)
        seen: list[int] = []
        handle = depth.model.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(len(args[0])))
        maps.append(depth(picture, tta=tta).values)
        handle.remove()
        sizes.append(seen)
    for values in maps[1:]:
        np.testing.assert_allclose(values, maps[0], rtol=1e-4, atol=1e-5)
    assert max(sizes[0]) == 1
    assert len(sizes[-1]) == 1
    assert {sum(seen) for seen in sizes} == {sizes[-1][0]}


def test_batches_fit_into_memory() -> None:
    assert predict._batch_that_fits(torch.empty(1, 3, 64, 64)) == 8
    assert predict._batch_that_fits(torch.empty(1, 3, 1, 1).expand(1, 3, 100_000, 100_000)) == 1


def test_unknown_augmentation(depth: DepthPredictor) -> None:
    with pytest.raises(UsageError, match="tta 'rotate': is not known; use one of none, flip, windows"):
        depth(photo(), tta="rotate")  # type: ignore[call-overload]


# --------------------------------------------------------------------------------------------- masks


def test_score_is_the_mean_of_the_surest_pixels(mask: MaskPredictor) -> None:
    found = mask(photo(64, 48), "the red chair")
    assert found.found
    assert 0 < found.area < found.mask.size
    assert np.array_equal(found.mask, found.probability > 0.5)
    highest = np.sort(found.probability.ravel())[-31:]  # 1 % of 64 x 48
    assert found.score == pytest.approx(highest.mean())


def test_below_the_threshold_nothing_is_found(loaded: Callable[[str], Any]) -> None:
    sure, shy = (loaded(name)(photo(64, 48), "the red chair") for name in ("evp-refer", "evp-refer-shy"))
    assert np.array_equal(sure.probability, shy.probability)
    assert sure.score == shy.score
    assert (shy.found, shy.area, shy.box) == (False, 0, None)


def test_without_a_likely_pixel_there_is_a_score_all_the_same(loaded: Callable[[str], Any]) -> None:
    found = loaded("evp-refer-blind")(photo(64, 48), "the red chair")
    assert (found.found, found.area) == (False, 0)
    assert found.score == found.probability.max() == 0


def test_the_score_of_fewer_than_a_hundred_pixels_is_the_peak() -> None:
    assert surest(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)) == 1.0


# ------------------------------------------------------------------------------------------- loading


def test_names_and_paths(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy("evp-depth")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    expected = load(folder)(photo()).values
    for name in (str(folder), "evp-depth/", "./evp-depth", "~/evp-depth", f"../{folder.parent.name}/evp-depth"):
        predictor = load(name)
        assert predictor.name == name
        assert isinstance(predictor, DepthPredictor)
        assert np.array_equal(predictor(photo()).values, expected)
        assert predictor(photo()).model == name
    # A name without a separator is a folder here unless it is one of the shipped names.
    assert isinstance(load("evp-refer"), MaskPredictor)
    Path("evp-depth-mini").mkdir()
    assert load("evp-depth-mini").manifest.system == "evp-depth"


def test_shipped_names() -> None:
    assert isinstance(deixis.load("evp-depth-mini"), DepthPredictor)
    assert isinstance(deixis.load("evp-refer-mini"), MaskPredictor)


def test_load_of_one_task(toy: Toy) -> None:
    assert load_depth(toy("evp-depth")).kind == "metric"
    assert load_mask(toy("evp-refer")).kind == "mask"
    with pytest.raises(UsageError, match="gives depth, not masks; use one such as evp-refer-mini"):
        load_mask(toy("evp-depth"))
    with pytest.raises(UsageError, match="gives masks, not depth; use one such as evp-depth-mini"):
        load_depth(toy("evp-refer"))


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta", "", "cpu:x"])
def test_devices_that_are_not_there(toy: Toy, device: str) -> None:
    with pytest.raises(UsageError, match="cannot be used here; use cpu") as caught:
        load(toy("evp-depth"), device)
    one_line(caught.value)


def test_device(toy: Toy) -> None:
    assert load(toy("evp-depth"), "cpu").device == torch.device("cpu")


@pytest.fixture
def broken(toy: Toy, tmp_path: Path) -> Iterator[Path]:
    """A copy of a weight folder to break."""
    folder = tmp_path / "weights"
    shutil.copytree(toy("evp-depth"), folder)
    yield folder
    with pytest.raises(ModelError) as caught:
        load(folder)
    text = one_line(caught.value)
    assert "object at 0x" not in text


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "missing",
    [
        "deixis.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "head/model.safetensors",
    ],
)
def test_missing_files(broken: Path, missing: str) -> None:
    (broken / missing).unlink()


@pytest.mark.parametrize("part", ["vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model", "head/model"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_tensors(broken: Path, part: str, share: float) -> None:
    path = broken / f"{part}.safetensors"
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize(
    "name", ["deixis.json", "unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json"]
)
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\ufffd\0", '"text"'])
def test_files_that_are_no_json(broken: Path, name: str, content: str) -> None:
    (broken / name).write_text(content)


@pytest.mark.parametrize(
    "values",
    [
        {"system": "evp-3d"},
        {"system": 3},
        {"system": None},
        {"system": "vpd-depth"},
        {"system": "evp-refer"},
        {"format": 99},
        {"format": "1"},
        {"config": {"max_depth": 10.0, "depth_of_soul": 1}},
        {"config": {}},
        {"config": None},
        {"config": {"max_depth": "ten"}},
        {"preprocessing": {}},
        {"preprocessing": {"size": [48], "resize": "fit", "windows": 2}},
        {"preprocessing": {"size": [0, 64], "resize": "fit", "windows": 2}},
        {"preprocessing": {"size": ["a", "b"], "resize": "fit", "windows": 2}},
        {"preprocessing": {"size": [48, 64], "resize": "crop", "windows": 2}},
        {"threshold": "high"},
    ],
    ids=str,
)
def test_manifests_that_fit_nothing(broken: Path, values: dict[str, Any]) -> None:
    change(broken / "deixis.json", **values)


def test_a_network_of_other_sizes(broken: Path) -> None:
    change(broken / "unet/config.json", cross_attention_dim=32)


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no deixis\.json; pass a folder written by"):
        load(tmp_path)
    with pytest.raises(ModelError, match="is neither a known model nor a folder; use evp-depth-mini"):
        load(tmp_path / "gone")


def test_weights_in_half_precision_load_as_float32(toy: Toy, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(toy("evp-depth"), folder)
    path = folder / "head/model.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}, path)
    predictor = load(folder)
    assert {p.dtype for p in predictor.model.parameters()} == {torch.float32}
    assert np.isfinite(predictor(photo()).values).all()


def test_class_descriptions_with_a_text_tower(tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "cd", "evp-depth", text="cd", aggregate="v")
    found = load(folder)(photo(), "kitchen")
    assert found.text == Text("kitchen", "class:kitchen")
    assert np.isfinite(found.values).all()


def test_predictions_show_themselves(depth: DepthPredictor, mask: MaskPredictor) -> None:
    found: Image.Image = depth(photo(50, 40)).colorize()
    assert found.size == (50, 40)
    json.dumps([depth(photo()).to_dict(), mask(photo(), "x").to_dict()], allow_nan=False)


def test_what_forward_sees_is_the_working_picture(depth: DepthPredictor) -> None:
    seen: list[Tensor] = []
    handle = depth.model.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    depth(photo(640, 480))
    depth(photo(640, 480), tta="windows")
    handle.remove()
    assert seen[0].shape == (1, 3, *working_size(480, 640, depth.manifest.preprocessing))
    assert 0 <= seen[0].min() <= seen[0].max() <= 1
    assert sum(len(batch) for batch in seen[1:]) >= 4
