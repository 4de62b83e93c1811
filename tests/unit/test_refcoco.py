"""RefCOCO and gRefCOCO: the world's export read back, outlines, and files that are not what they should be."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data import refcoco
from deixis.data.refcoco import PICTURES, PUBLISHED, Counts, RefCoco, decode_mask, picture_name, read_plain
from deixis.data.world import WorldFrame, frame_of
from deixis.errors import InputError, UsageError
from deixis.world.export_refcoco import export_refcoco, polygons

HEIGHT, WIDTH = 18, 24
REFS, INSTANCES = "refcoco/refs(unc).p", "refcoco/instances.json"
PHRASES = (("the lamp", (2,)), ("a chair", (1,)), ("the thing on the left", (2,)), ("red car", ()), ("a dog", ()))


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def world_frame(seed: int) -> WorldFrame:
    """A frame with two ragged things, a chair and a lamp, and expressions for them and for nothing."""
    rng = np.random.default_rng(seed)
    row = {
        "seed": seed,
        "kind": "rooms",
        "place": "bedroom",
        "captions": [],
        "expressions": [{"text": t, "kind": "class", "targets": list(ids)} for t, ids in PHRASES],
        "image": png(np.full((HEIGHT, WIDTH, 3), 40 * seed, dtype=np.uint8)),
        "ids": png(rng.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)),
        "scene": json.dumps({"things": [{"name": "chair"}, {"name": "lamp"}]}),
    }
    return frame_of(row, Path("nowhere.parquet"))


FRAMES = [world_frame(seed) for seed in range(1, 5)]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The export. Not to be changed."""
    out = tmp_path_factory.mktemp("refcoco")
    assert export_refcoco(iter(FRAMES), out) == 4
    return out


@pytest.fixture
def root(original, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(root: Path, path: str, change) -> None:
    """Change the content of an annotation file in place."""
    file = root / path
    if path.endswith(".p"):
        content = pickle.loads(file.read_bytes())  # written by this test run
        change(content)
        file.write_bytes(pickle.dumps(content, protocol=0))
    else:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def as_refcocog(root: Path) -> None:
    """The same refs as RefCOCOg's, divided as by UMD."""
    shutil.copytree(root / "refcoco", root / "refcocog")
    (root / "refcocog/refs(unc).p").rename(root / "refcocog/refs(umd).p")
    edit(root, "refcocog/refs(umd).p", lambda refs: [ref.update(split="test") for ref in refs])


# ------------------------------------------------------------------------------------- the export, read back


@pytest.mark.parametrize("packed", [False, True])
def test_refs_come_back_in_order_with_every_sentence(original, tmp_path, packed):
    root = original
    if packed:
        root = tmp_path / "refcoco.tar"
        with tarfile.open(root, "w:") as tar:
            tar.add(original, arcname=".")
    for frame, split in zip(FRAMES, ("unc-train", "unc-val", "unc-testA", "unc-testB"), strict=True):
        dataset = RefCoco(root, "refcoco", split)
        lamp, chair = dataset
        assert [[one.text for one in sample.expressions] for sample in (lamp, chair)] == [
            ["the lamp", "the thing on the left"],
            ["a chair"],
        ]
        for sample, thing in ((lamp, 2), (chair, 1)):
            np.testing.assert_allclose(sample.rgb, frame.rgb, atol=3)  # a JPEG
            for expression in sample.expressions:
                np.testing.assert_array_equal(expression.mask, frame.ids == thing)
        assert dataset.own_list == REFS


def test_names_are_unique_within_a_dataset(original):
    for name, count in (("refcoco", 3), ("grefcoco", len(PHRASES))):
        samples = [sample for split in PUBLISHED["grefcoco"] for sample in RefCoco(original, name, split)]
        expressions = [one.name for sample in samples for one in sample.expressions]
        assert len(set(expressions)) == len(expressions) == len(FRAMES) * count
        assert len({sample.name for sample in samples}) == len(samples)


def test_expressions_for_nothing_have_an_empty_mask(original):
    dataset = RefCoco(original, "grefcoco", "unc-val")
    found = {one.text: one for sample in dataset for one in sample.expressions}
    assert [text for text, one in found.items() if not one.found] == ["red car", "a dog"]
    assert found["a dog"].mask.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(found["a chair"].mask, FRAMES[1].ids == 1)


def test_several_targets_are_one_mask_without_crowds(root):
    def join(refs):
        (lamp,) = (ref for ref in refs if ref["split"] == "val" and ref["sentences"][0]["raw"] == "the lamp")
        (chair,) = (ref for ref in refs if ref["split"] == "val" and ref["sentences"][0]["raw"] == "a chair")
        lamp["ann_id"] += chair["ann_id"]

    edit(root, "grefcoco/grefs(unc).json", join)
    first = RefCoco(root, "grefcoco", "unc-val")[0]
    np.testing.assert_array_equal(first.expressions[0].mask, FRAMES[1].ids > 0)

    def crowd(instances):
        (one,) = (a for a in instances["annotations"] if a["image_id"] == 2 and a["category_id"] == 1)
        one["iscrowd"] = 1

    edit(root, "grefcoco/instances.json", crowd)
    first = RefCoco(root, "grefcoco", "unc-val")[0]
    np.testing.assert_array_equal(first.expressions[0].mask, FRAMES[1].ids == 2)


def test_other_folders_of_pictures_and_another_dataset(root):
    as_refcocog(root)
    (root / PICTURES[0]).rename(root / "train2014")
    dataset = RefCoco(root, "refcocog", "umd-test")
    assert len(dataset) == 8
    np.testing.assert_array_equal(dataset[7].expressions[0].mask, FRAMES[3].ids == 1)


# ---------------------------------------------------------------------------------------------------- pickles


class Bomb:
    """Unpickled in the ordinary way, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused(root, tmp_path, protocol):
    trace = tmp_path / "ran"
    content = pickle.dumps([{"ref_id": Bomb(trace)}], protocol=protocol)
    (root / REFS).write_bytes(content)
    with pytest.raises(InputError, match=rf"refs\(unc\)\.p: is not only data: it names {os.mkdir.__module__}\.mkdir"):
        RefCoco(root, "refcoco", "unc-val")
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # it was a live one


def test_a_persistent_id_is_refused(root):
    (root / REFS).write_bytes(b"Panything\n.")
    with pytest.raises(InputError, match=r"refs\(unc\)\.p: is damaged"):
        RefCoco(root, "refcoco", "unc-val")


def test_pickles_of_python_2_are_read():
    content = b"(lp0\n(dp1\nS'raw'\np2\nS'caf\\xc3\\xa9'\np3\nsS'ids'\np4\n(lp5\nI7\naL8L\naF0.5\nasa."
    assert read_plain(content, "refs") == [{"raw": "café", "ids": [7, 8, 0.5]}]


# ---------------------------------------------------------------------------------------------------- outlines


# By pycocotools 2.0.11.
TRIANGLE: list[list[int]] = [[], [1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3], [1, 2], [1], [], [], []]
COMPRESSED = "5220002O"


def test_polygons_golden():
    mask = decode_mask([[1, 1, 7, 1, 1, 7]], 9, 9)
    rows = [np.flatnonzero(row).tolist() for row in mask]
    assert rows == TRIANGLE
    both = decode_mask([[1, 1, 7, 1, 1, 7], [0, 0, 4, 0, 4, 4, 0, 4]], 9, 9)
    np.testing.assert_array_equal(both, mask | decode_mask([[0, 0, 4, 0, 4, 4, 0, 4]], 9, 9))
    assert both.sum() < mask.sum() + 16


def test_run_lengths_golden():
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:4] = expected[3, 4] = True
    np.testing.assert_array_equal(decode_mask({"size": [4, 5], "counts": [5, 2, 2, 2, 2, 2, 4, 1]}, 4, 5), expected)
    np.testing.assert_array_equal(decode_mask({"size": [4, 5], "counts": COMPRESSED}, 4, 5), expected)


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    side = rng.integers(1, 300)
    mask = np.repeat(rng.random((side, 7)) < 0.5, rng.integers(1, 60), axis=1)  # short runs and long ones
    encoded = refcoco.coco_masks().encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}
    np.testing.assert_array_equal(decode_mask(segmentation, *mask.shape), mask)


@pytest.mark.parametrize("seed", range(5))
def test_rectangles_are_rasterised_to_the_pixels_they_came_from(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(2, 30, size=2)) < 0.2 + 0.15 * seed
    mask[0, 0] = True
    np.testing.assert_array_equal(decode_mask(polygons(mask), *mask.shape), mask)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        (None, "neither polygons nor run lengths"),
        ([], "neither polygons nor run lengths"),
        ([[1, 1, 3, 3]], "fewer than three points"),
        ([[1, 1, 3, 3, 2, 2, 1]], "fewer than three points"),
        ([[1, 1, 3, 3, float("nan"), 2]], "no number"),
        ([[1, 1, 3, 3, "2", 2]], "no number"),
        ([[1, 1, 1e9, 3, 2, 2]], "far outside"),
        ({"size": [5, 4], "counts": [20]}, "is of size"),
        ([[1, 1, 10**400, 3, 2, 2]], "far outside"),
        ({"size": [4, 5], "counts": [-5, 25]}, "has a run of -5 pixels"),
        ({"size": [4, 5], "counts": [1.5, 18.5]}, "not an uncompressed run-length"),
        ({"size": [4, 5]}, "not an uncompressed run-length"),
        ({"size": [4, 5], "counts": [19]}, "runs add up to 19"),
        ({"size": [4, 5], "counts": ""}, "runs add up to 0"),
        ({"size": [4, 5], "counts": "522"}, "runs add up to 9"),
        ({"size": [4, 5], "counts": "52P"}, "ends within one"),
        ({"size": [4, 5], "counts": "52~"}, "other characters"),
    ],
)
def test_outlines_that_are_none(segmentation, problem):
    with pytest.raises(InputError, match=problem):
        decode_mask(segmentation, 4, 5)


def test_sizes_of_run_lengths_may_be_written_as_fractions():
    found = decode_mask({"size": [4.0, 5.0], "counts": [1, 2, 17]}, 4, 5)
    np.testing.assert_array_equal(found, decode_mask({"size": [4, 5], "counts": [1, 2, 17]}, 4, 5))


def test_where_no_count_is_published_none_is_claimed(root):
    found = RefCoco(root, "grefcoco", "unc-val")
    assert (found.incomplete, found.own_list) == (None, "grefcoco/grefs(unc).json")
    edit(root, "grefcoco/instances.json", lambda instances: instances.pop("info"))
    found = RefCoco(root, "grefcoco", "unc-val")
    assert (found.incomplete, found.own_list) == (None, "grefcoco/grefs(unc).json")


def test_a_stamp_tells_whether_a_ref_is_still_what_it_was(root):
    before = RefCoco(root, "refcoco", "unc-val")
    edit(root, REFS, lambda refs: refs[2]["sentences"][0].update(raw="the bed"))
    words = RefCoco(root, "refcoco", "unc-val")
    assert [before.stamp(i) == words.stamp(i) for i in range(2)] == [False, True]
    edit(root, INSTANCES, lambda instances: instances["annotations"][3].update(segmentation=[[1, 1, 9, 1, 9, 9]]))
    outlines = RefCoco(root, "refcoco", "unc-val")
    assert [words.stamp(i) == outlines.stamp(i) for i in range(2)] == [False, True]


# --------------------------------------------------------------------------------------- what is not as it should be


def test_a_wrong_root_says_what_it_lacks_and_what_it_holds(root, tmp_path):
    with pytest.raises(InputError) as caught:
        RefCoco(root / "refcoco", "refcoco", "unc-val")
    message = str(caught.value)
    for part in (
        f"{root}/refcoco: has no {REFS}, no {INSTANCES}, no pictures in {PICTURES[0]}",
        "it holds instances.json",
    ):
        assert part in message
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="it holds nothing; pass the folder that has 'refcoco'"):
        RefCoco(empty)
    with pytest.raises(InputError, match=r"has no refcoco/refs\(google\)\.p; it holds"):
        RefCoco(root, "refcoco", "google-val")


def test_unknown_names_are_refused(original):
    with pytest.raises(UsageError, match="dataset 'flickr': is unknown; use one of refcoco, "):
        RefCoco(original, "flickr")
    with pytest.raises(UsageError, match="split 'val': is none of refcoco; use one of unc-val, unc-testA"):
        RefCoco(original, "refcoco", "val")


def test_counts_that_are_not_the_published_ones_are_told_and_what_is_there_is_read(root, monkeypatch):
    edit(root, INSTANCES, lambda instances: instances["info"].clear())
    dataset = RefCoco(root, "refcoco", "unc-val")
    where = (
        f"{root / REFS} (refs of unc-val): holds 2 samples where 3811 are published; copy the dataset again, or name"
    )
    assert str(dataset.incomplete).startswith(where)
    assert (len(dataset), dataset.own_list, dataset[0].expressions[0].found) == (2, REFS, True)
    for counts, what in ((Counts(2, 2, 3), "pictures"), (Counts(2, 1, 4), "sentences")):
        monkeypatch.setitem(refcoco.PUBLISHED["refcoco"], "unc-val", counts)
        assert f"({what} of unc-val): holds" in str(RefCoco(root, "refcoco", "unc-val").incomplete)
    monkeypatch.setitem(refcoco.PUBLISHED["refcoco"], "unc-val", Counts(2, 1, 3))
    dataset = RefCoco(root, "refcoco", "unc-val")
    assert (len(dataset), dataset.own_list, dataset.incomplete) == (2, None, None)


def test_only_pictures_are_looked_for(root):
    dataset = RefCoco(root, "grefcoco", "unc-val")
    assert list(dataset.missing()) == []
    picture = root / PICTURES[0] / picture_name(2)
    picture.write_bytes(b"torn")
    assert list(dataset.missing()) == []  # it is there; reading it is another matter
    picture.unlink()
    assert list(dataset.missing()) == [f"{picture}: is not there"]  # once, for all its refs


def test_a_ref_without_its_annotation_costs_no_other(root):
    first = RefCoco(root, "refcoco", "unc-val")._refs[0].annotations[0]

    def drop(instances):
        instances["annotations"] = [one for one in instances["annotations"] if one["id"] != first]

    edit(root, INSTANCES, drop)
    dataset = RefCoco(root, "refcoco", "unc-val")
    told = f"{root / INSTANCES}: has no annotation {first}, which a ref names"
    assert list(dataset.missing()) == [told]
    with pytest.raises(InputError, match=re.escape(told)):
        dataset[0]
    assert dataset[1].expressions[0].found


def test_grefcoco_may_be_pickled(root):
    before = RefCoco(root, "grefcoco", "unc-val")
    refs = root / "grefcoco/grefs(unc).json"
    refs.with_suffix(".p").write_bytes(pickle.dumps(json.loads(refs.read_text()), protocol=2))
    refs.unlink()
    after = RefCoco(root, "grefcoco", "unc-val")
    assert (after.names, after.own_list) == (before.names, "grefcoco/grefs(unc).p")


def test_a_part_of_a_copy_is_read_where_that_is_asked_for(root):
    edit(root, INSTANCES, lambda instances: instances["info"].clear())
    part = RefCoco(root, "refcoco", "unc-val", part=True)
    assert (len(part), part.own_list) == (2, REFS)
    assert {part.image(index) for index in (0, 1)} == {picture_name(int(part.names[0].split("-")[0]))}
    (root / PICTURES[0] / part.image(0)).unlink()
    with pytest.raises(InputError, match=r"holds no picture of 2 refs of unc-val"):
        RefCoco(root, "refcoco", "unc-val", part=True)
    assert len(RefCoco(root, "refcoco", "unc-train", part=True)) > 0


def test_a_list_names_some_of_a_split(root, tmp_path):
    edit(root, INSTANCES, lambda instances: instances["info"].clear())  # no longer said to be the world's
    refs = [ref for ref in pickle.loads((root / REFS).read_bytes()) if ref["split"] == "val"]  # of this test run
    names = [f"{ref['image_id']:012d}-{ref['ref_id']}" for ref in refs]
    listing = tmp_path / "mine.txt"
    listing.write_text(f"{names[1]}\n\n{refs[0]['ref_id']} and more\n")
    dataset = RefCoco(root, "refcoco", "unc-val", listing)
    assert dataset.names == names[::-1]
    assert dataset.own_list == str(listing)
    listing.write_text(f"\ufeff{names[0]}", encoding="utf-8")  # as Windows begins them
    assert RefCoco(root, "refcoco", "unc-val", listing).names == names[:1]
    for content, problem in (
        ("", "names no sample"),
        ("12345", "names '12345', which is not in this split"),
        (f"{names[0]}\n{refs[0]['ref_id']}", rf"mine\.txt: names '{names[0]}' twice"),
    ):
        listing.write_text(content)
        with pytest.raises(InputError, match=problem):
            RefCoco(root, "refcoco", "unc-val", listing)
    with pytest.raises(InputError, match="cannot be read"):
        RefCoco(root, "refcoco", "unc-val", tmp_path / "gone.txt")


def test_splits_of_one_dataset_add_up():
    totals = {
        (name, by): sum(counts.expressions or 0 for split, counts in splits.items() if counts and split.startswith(by))
        for name, splits in PUBLISHED.items()
        for by in ("unc", "umd")
    }
    assert totals["refcoco", "unc"] == 142210
    assert totals["refcoco+", "unc"] == 141564
    assert totals["refcocog", "umd"] == 95010
    google, umd = (
        sum(counts.refs for split, counts in PUBLISHED["refcocog"].items() if counts and split.startswith(by))
        for by in ("google", "umd")
    )
    assert google == umd


@pytest.mark.parametrize("path", [REFS, INSTANCES, f"{PICTURES[0]}/{picture_name(2)}"])
@pytest.mark.parametrize("damage", ["half", "text", "empty"])
def test_damaged_files_are_named(root, path, damage):
    file = root / path
    content = file.read_bytes()
    file.write_bytes({"half": content[: len(content) // 2], "text": b"no such thing", "empty": b""}[damage])
    with pytest.raises(InputError, match=re.escape(f"{file}: is damaged")):
        list(RefCoco(root, "refcoco", "unc-val"))


def test_a_missing_picture_is_named(root):
    file = root / PICTURES[0] / picture_name(2)
    file.unlink()
    dataset = RefCoco(root, "refcoco", "unc-val")
    with pytest.raises(InputError, match=re.escape(f"{file}: is not there")):
        dataset[0]


@pytest.mark.parametrize(
    ("path", "change", "problem"),
    [
        (REFS, lambda refs: refs[3].pop("sentences"), "ref 3 is incomplete"),
        (REFS, lambda refs: refs.insert(0, 7), "ref 0 is incomplete"),
        (REFS, lambda refs: refs[2].update(ann_id=999), "has no annotation 999"),
        (REFS, lambda refs: refs[2].update(image_id=999), "has no image 999"),
        (REFS, lambda refs: refs.clear(), "has no refs of unc-val"),
        (REFS, lambda refs: refs.append(refs[2]), "two refs of one number"),
        (INSTANCES, lambda instances: instances.pop("images"), "no file of COCO annotations"),
        (INSTANCES, lambda instances: instances["annotations"][2].pop("segmentation"), "no file of COCO annotations"),
        (INSTANCES, lambda instances: instances["annotations"][2].update(segmentation=[]), "annotation 3 in"),
        (REFS, lambda refs: refs[2]["sentences"][0].update(raw=" "), "has no words in sentence"),
        (INSTANCES, lambda instances: instances["images"][1].update(height=17, width=30), "is 24x18 pixels and 30x17"),
    ],
)
def test_files_that_do_not_fit_together(root, path, change, problem):
    edit(root, path, change)
    with pytest.raises(InputError, match=problem) as caught:
        list(RefCoco(root, "refcoco", "unc-val"))
    assert "refcoco" in str(caught.value)


def test_refs_that_are_no_list(root):
    (root / REFS).write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="is no list of refs"):
        RefCoco(root, "refcoco", "unc-val")


def test_without_pycocotools_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(refcoco, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'deixis\[data\]'"):
        decode_mask([[0, 0, 2, 0, 2, 2]], 4, 5)
