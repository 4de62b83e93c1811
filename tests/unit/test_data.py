"""The NYUv2 loaders: splits that do not leak, labels, expressions, and files that are not as they should be."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data import nyuv2, nyuv2_refer
from deixis.errors import InputError
from deixis.training.recipe import Data
from deixis.training.scenes import load_scenes
from deixis.training.store import load_store
from deixis.world.words import place_forms
from tests.recipes import tiny_nyuv2


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny_nyuv2.write(tmp_path_factory.mktemp("nyuv2"), train=2, val=1, heldout=1)


@pytest.fixture
def root(original, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "nyuv2"))


def frame(scene: str, index: int) -> nyuv2.Frame:
    nowhere = Path("nowhere")
    return nyuv2.Frame(index, scene, nowhere, nowhere, None)


SCENES = sorted({*nyuv2.HELDOUT_SCENES, *nyuv2.VAL_SCENES, *nyuv2.CUTS, "basement", "bookstore", "furniture_store"})
EVERY = [frame(scene, index) for scene in SCENES for index in range(1, 1450)]


# ------------------------------------------------------------------------------------------------ splits


def test_scene_types_are_on_one_side_or_cut_once():
    assert not nyuv2.HELDOUT_SCENES & nyuv2.VAL_SCENES
    assert not (nyuv2.HELDOUT_SCENES | nyuv2.VAL_SCENES) & set(nyuv2.CUTS)
    order = {"train": 0, "val": 1, "heldout": 2}
    for scene in SCENES:
        sides = [nyuv2.split_of(one) for one in EVERY if one.scene == scene]
        ranks = [order[side] for side in sides if side is not None]
        assert ranks == sorted(ranks), scene
        assert ("train" in sides) == (scene not in nyuv2.HELDOUT_SCENES | nyuv2.VAL_SCENES)


def test_no_run_of_indices_is_on_two_sides():
    # The indices that the data set has around each cut; a run without a gap may be one room.
    present = {
        "bookstore": [*range(91, 116)],
        "furniture_store": [*range(222, 249)],
        "kitchen": [*range(876, 905)],
        "office": [614, 615, *range(621, 632)],
        "bathroom": [719, 720, 721, 722, 728, 729, 734],
        "bedroom": [1115, 1119, 1120, 1121, 1131, 1132, 1142, 1158, 1159],
        "classroom": [307, 308, 312, 313, 317, 318],
        "dining_room": [1418, 1419, 1424, 1425, 1428, 1433, 1434],
        "home_office": [392, 393, 551, 552],
        "living_room": [1299, 1300, 1308, 1312, 1315, 1316],
    }
    # Consecutive indices across a side: looked at, another room begins there.
    looked_at = {("kitchen", 893), ("office", 628)}
    for scene, indices in present.items():
        for one, other in pairwise(indices):
            sides = {nyuv2.split_of(frame(scene, index)) for index in (one, other)} - {None}
            touching = other == one + 1 and (scene, one) not in looked_at
            assert not (touching and len(sides) > 1), (scene, one, other)
    assert nyuv2.split_of(frame("bookstore", 113)) is None
    assert nyuv2.split_of(frame("kitchen", 885)) == "train"
    assert nyuv2.split_of(frame("kitchen", 887)) == "val"


def test_the_split_of_a_frame_does_not_depend_on_the_others(root):
    whole = {split: nyuv2.frames(root, split) for split in ("train", "val", "heldout")}
    everything = nyuv2.frames(root)
    assert [f.index for f in everything] == sorted(f.index for f in everything)
    assert sum(map(len, whole.values())) == len(everything)
    (whole["train"][0].rgb).unlink()
    assert nyuv2.frames(root, "train") == whole["train"][1:]
    assert nyuv2.frames(root, "heldout") == whole["heldout"]


def test_an_empty_split_is_named(root):
    nyuv2.frames(root, "val")[0].rgb.unlink()
    assert nyuv2.frames(root, "val") == []
    with pytest.raises(InputError, match="holds no frame of the split 'val'"):
        nyuv2.some_frames(root, "val")


def test_rooms_are_runs_of_indices_in_one_scene_type():
    found = [frame(s, i) for s, i in [("a", 1), ("a", 2), ("b", 3), ("b", 4), ("a", 5), ("a", 7), ("a", 8)]]
    numbers = nyuv2.rooms(random.Random(0).sample(found, len(found)))
    groups: dict[int, list[int]] = {}
    for index, number in sorted(numbers.items()):
        groups.setdefault(number, []).append(index)
    assert sorted(groups.values()) == [[1, 2], [3, 4], [5], [7, 8]]


# ------------------------------------------------------------------------------------------------ reading


def test_what_is_read(root):
    one = nyuv2.frames(root, "train")[0]
    rgb, depth, labels = one.read_rgb(), one.read_depth(), one.read_labels()
    assert (rgb.shape, rgb.dtype) == ((480, 640, 3), np.uint8)
    assert (depth.shape, depth.dtype) == ((480, 640), np.float32)
    assert 0.5 < depth.min() <= depth.max() < 8
    assert labels.max() <= 40
    assert nyuv2.class_names(root)[labels[240, 320] - 1] in tiny_nyuv2.NAMES


def read_all(found: list[nyuv2.Frame]) -> None:
    for one in found:
        one.read_rgb()
        one.read_depth()
        one.read_labels()


@pytest.mark.parametrize("kind", ["rgb_*.jpg", "sync_depth_*.png", "labels40_*.png"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "text", "folder"])
def test_damaged_files_are_named(root, kind, damage):
    found = nyuv2.frames(root)  # before the damage, as a long run has them
    path = sorted(root.glob(f"official_splits/train/*/{kind}"))[1]
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"not a picture"}[damage])
    with pytest.raises(InputError) as caught:
        read_all(found)
    assert str(caught.value).startswith(f"{path}: ")
    assert ("has gone" in str(caught.value)) == (damage == "gone")


def test_checksums_of_pictures_are_looked_at(root):
    one = nyuv2.frames(root)[0]
    content = bytearray(one.depth.read_bytes())
    content[-14] ^= 1  # the pixels' checksum, before the 12 bytes that end a PNG
    one.depth.write_bytes(content)
    assert np.asarray(Image.open(one.depth)).all()  # Pillow alone takes it
    with pytest.raises(InputError, match="cannot be read"):
        one.read_depth()


def test_pictures_that_are_something_else(root):
    one = nyuv2.frames(root)[0]
    Image.new("RGB", (640, 480)).save(one.depth)
    with pytest.raises(InputError, match="not a grey picture of millimetres"):
        one.read_depth()
    assert one.labels is not None
    Image.fromarray(np.full((480, 640), 41, dtype=np.uint8)).save(one.labels)
    with pytest.raises(InputError, match="labels 0 to 40"):
        one.read_labels()


def test_layouts_that_are_not_the_official_one(root, tmp_path):
    with pytest.raises(InputError, match="holds no official_splits"):
        nyuv2.frames(tmp_path / "elsewhere")
    one = nyuv2.frames(root)[0]
    one.depth.rename(one.depth.with_name("hidden.png"))
    with pytest.raises(InputError, match=re.escape(f"{one.rgb}: has no {one.depth.name} beside it")):
        nyuv2.frames(root)
    one.depth.with_name("hidden.png").rename(one.depth)
    copy = one.rgb.parents[1] / "office" / one.rgb.name
    copy.parent.mkdir()
    shutil.copyfile(one.rgb, copy)
    shutil.copyfile(one.depth, copy.with_name(one.depth.name))
    with pytest.raises(InputError, match="has the index of"):
        nyuv2.frames(root)
    copy.rename(copy.with_name("rgb_first.jpg"))
    with pytest.raises(InputError, match="is not called rgb_<index>"):
        nyuv2.frames(root)


@pytest.mark.parametrize("content", [None, "{", '["wall"]', "{}", json.dumps([1] * 40)])
def test_class_names_that_are_none(root, content):
    path = root / "classes40.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"classes40\.json"):
        nyuv2.class_names(root)


# ------------------------------------------------------------------------------------------------- labels


def test_visible_classes_largest_first_with_their_regions():
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[:50] = 1  # wall
    labels[60:70, 10:20] = labels[60:70, 40:50] = 5  # two chairs
    labels[80:81, :30] = 7  # a table of 0.3 %
    labels[90:, :30] = 40  # otherprop
    names = tiny_nyuv2.NAMES
    found = nyuv2.visible(labels, names)
    assert [(name, count) for name, _, count in found] == [("wall", 1), ("chair", 2)]
    np.testing.assert_array_equal(found[1][1], labels == 5)


def test_many_crumbs_are_visible_but_none_is_a_region():
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[::4, ::4] = 23
    ((name, _, regions),) = nyuv2.visible(labels, tiny_nyuv2.NAMES)
    assert (name, regions) == ("books", 0)


def test_scene_words():
    assert nyuv2.scene_words("living_room") == "living room"
    assert nyuv2.scene_words("excercise_room") == "exercise room"


# -------------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize("seed", range(10))
def test_run_lengths_there_and_back(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 9, size=2)) < rng.random()
    np.testing.assert_array_equal(nyuv2_refer.decode_rle(tiny_nyuv2.encode_rle(mask)), mask)


def test_run_lengths_go_down_the_columns():
    mask = nyuv2_refer.decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(mask, [[False, True, False], [True, False, False]])


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [2, 3], "counts": [1, 2, 2]},
        {"size": [2, 3], "counts": [1, -2, 7]},
        {"size": [2, 3], "counts": "PYn0"},
        {"size": [2, 3], "counts": [[1, 2, 3]]},
        {"size": [2], "counts": [2]},
        {"counts": [6]},
        {},
    ],
)
def test_run_lengths_that_are_none(segmentation):
    with pytest.raises(InputError, match="segmentation: "):
        nyuv2_refer.decode_rle(segmentation)
    thing = nyuv2_refer.ReferredObject(12, "chair", ("the chair",), 1.0, segmentation)
    with pytest.raises(InputError, match="the chair of frame 12 in refer_train"):
        thing.mask()


def test_what_no_label_map_knows_is_not_said_to_be_absent() -> None:
    labels = np.array([[1, 0]], dtype=np.uint8)
    assert nyuv2_refer.absent(3, labels, ["bed", "chair"], ["bed", "chair", "robot"]) == ["chair"]
    assert nyuv2_refer.absent(3, labels, [], ["chair"]) == []


def test_expressions_point_to_their_frames(original):
    things = nyuv2_refer.objects(original)
    by_index = {one.index: one for one in nyuv2.frames(original)}
    assert things
    for thing in things:
        labels = by_index[thing.frame].read_labels()
        assert (labels[thing.mask()] == tiny_nyuv2.label(thing.category)).all()
        assert all(thing.category in words for words in thing.expressions)


@pytest.mark.parametrize("damage", ["gone", "half", "text", "row"])
def test_damaged_expressions_are_named(root, damage):
    path = root / "refer_train.json.gz"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "row":
        with gzip.open(path, "wt") as file:
            json.dump([{"image": "a/rgb_1.jpg"}], file)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "half" else b"[]")
    with pytest.raises(InputError, match=r"refer_train\.json\.gz"):
        nyuv2_refer.objects(root)


# ------------------------------------------------------------------------------------- frames of one's own


def test_frames_of_ones_own_have_their_own_split_and_need_no_labels(root):
    for file in (*root.rglob("labels40_*.png"), root / "classes40.json", root / "refer_train.json.gz"):
        file.unlink()
    own = root / "official_splits" / "train"
    for old, new in (("cafe", "hall"), ("playroom", "attic")):
        (own / old).rename(own / new)
    assert [one.scene for one in nyuv2.frames(root, "val")] == []
    (root / "split.json").write_text('{"val": ["hall"], "heldout": ["attic"]}')
    sides = {one.scene: nyuv2.split_of(one) for one in nyuv2.frames(root)}
    assert sides == {"basement": "train", "hall": "val", "attic": "heldout"}
    data = Data(root=str(root), stored=(24, 32), size=(24, 32))
    store = load_store(data, "train")
    assert not store.ids.any()
    said = " ".join(sentence for level in store.captions[0] for sentence in level)
    assert not {"with", "showing", "containing"} & set(said.split())
    (scene,) = load_scenes(data)[0].splits["heldout"]
    assert any(form in scene.caption for form in place_forms("attic"))
    things, names = scene.things()
    assert (things.shape, things.any(), names) == ((480, 640), False, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "does not say what is val and what is heldout; write it as"),
        ('{"val": ["cafe"]}', "does not say what is val"),
        ('{"val": "cafe", "heldout": ["playroom"]}', "says val 'cafe'"),
        ('{"val": [], "heldout": ["playroom"]}', r"says val \[\]"),
        ('{"val": ["caffe"], "heldout": ["playroom"]}', "names 'caffe', which is no folder"),
        ('{"val": ["cafe"], "heldout": ["cafe"]}', "names 'cafe' twice"),
    ],
)
def test_a_split_that_is_none(root, content, said):
    (root / "split.json").write_text(content)
    with pytest.raises(InputError, match=rf"split\.json: {said}"):
        nyuv2.frames(root)
