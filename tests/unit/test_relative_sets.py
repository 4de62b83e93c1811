"""The sets of affine depth: read from what the world's exporters write, and refused where something is wrong."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data import hypersim, listed, vkitti2
from deixis.data.captions import read_captions
from deixis.data.diode import DIODE
from deixis.data.eth3d import ETH3D
from deixis.data.hypersim import CAMERA, Hypersim, distance_of, planar, tone_map
from deixis.data.listed import ListedFrames
from deixis.data.readers import READERS, open_dataset
from deixis.data.scannet import ScanNet
from deixis.data.splits import Listing, split_list, split_lists
from deixis.data.vkitti2 import VirtualKITTI2
from deixis.data.world import WorldFrame, read_shards
from deixis.errors import InputError, UsageError
from deixis.world.export import CAPTIONS, LAYOUTS, LIST, write_layout
from deixis.world.export_common import Fitted, fitted

h5py = pytest.importorskip("h5py")

# Of each layout: reader, split and the size that pictures are exported at (None: their own).
SETS: dict[str, tuple[type[ListedFrames], str, tuple[int, int] | None]] = {
    "eth3d": (ETH3D, "full", None),
    "scannet": (ScanNet, "val", (640, 480)),
    "diode": (DIODE, "val", (1024, 768)),
    "vkitti2": (VirtualKITTI2, "train", (1242, 375)),
    "hypersim": (Hypersim, "train", (1024, 768)),
}
FRAMES = 2


@pytest.fixture(scope="module")
def originals(world, tmp_path_factory) -> dict[str, Path]:
    """One export per layout. Not to be changed."""
    roots = {name: tmp_path_factory.mktemp(name) / "root" for name in SETS}
    for name, root in roots.items():
        assert write_layout(world, root, name, FRAMES) == FRAMES
    return roots


@pytest.fixture
def copy(originals, tmp_path):
    """A copy of an export, to be damaged."""
    return lambda name: Path(shutil.copytree(originals[name], tmp_path / name))


def read(name: str, root: Path, split: str | None = None, list_file: Path | None = None) -> ListedFrames:
    reader, usual, _ = SETS[name]
    return reader(root, split or usual, list_file)


def exported(name: str, world: Path) -> list[WorldFrame]:
    return list(read_shards(world, kind=LAYOUTS[name].kind, limit=FRAMES))


def shown(name: str, frame: WorldFrame) -> Fitted:
    height, width = frame.depth.shape
    return fitted(frame, *(SETS[name][2] or (width, height)))


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", SETS)
def test_an_export_has_the_captions_of_its_samples(originals, world, name):
    kept = read_captions(originals[name] / CAPTIONS)
    told = [frame.captions[2][0] for frame in exported(name, world)]
    found = read(name, originals[name], list_file=originals[name] / LIST)
    for index, (sample, text) in enumerate(zip(found.names, told, strict=True)):
        own = kept.by_hash.get(hashlib.sha256(found.encoded(index) or b"").hexdigest()) or kept.by_path[sample]
        assert (own.text, own.provenance) == (text, "oracle")


@pytest.mark.parametrize("name", SETS)
def test_what_was_exported_is_read(name, originals, world):
    dataset = read(name, originals[name])
    # Hypersim and Virtual KITTI 2 have the second frame for validation.
    assert len(dataset) == (1 if "train" in dataset.splits else FRAMES)
    assert list(dataset.missing()) == []
    sample = dataset[0]
    listed = [line.split()[0].endswith(sample.name) for line in (originals[name] / LIST).read_text().splitlines()]
    truth = shown(name, exported(name, world)[listed.index(True)])
    assert sample.name == dataset.names[0]
    assert (sample.rgb.dtype, sample.rgb.shape) == (np.uint8, truth.rgb.shape)
    assert sample.depth is not None
    assert sample.depth.dtype == np.float32
    steps = {"eth3d": 0.0, "diode": 0.0, "scannet": 0.00051, "vkitti2": 0.0051, "hypersim": 0.0}[name]
    share = 5e-4 if name == "hypersim" else 1e-6  # of 16-bit floats
    seen = truth.depth > 0
    assert seen.any()
    near = np.abs(sample.depth - truth.depth) <= steps + share * truth.depth
    assert near[seen].all()
    assert (sample.depth[~seen] == (np.float32(655.35) if name == "vkitti2" else 0)).all()
    if name != "hypersim":  # which is exposed anew
        assert np.abs(sample.rgb.astype(int) - truth.rgb).mean() < (1 if name == "diode" else 8)


def test_hypersim_pictures_are_exposed_for_what_is_seen(originals, world):
    truth = shown("hypersim", exported("hypersim", world)[0])
    sample = read("hypersim", originals["hypersim"])[0]
    radiance = ((truth.rgb.astype(np.float32) / 255) ** 2.2).astype(np.float16)
    np.testing.assert_array_equal(sample.rgb, tone_map(radiance.astype(np.float64), truth.ids > 0))
    assert sample.camera == CAMERA


def test_diode_depth_counts_where_the_mask_says(copy):
    root = copy("diode")
    before = read("diode", root)[0]
    assert before.mask is not None
    assert before.depth is not None
    np.testing.assert_array_equal(before.mask, before.depth > 0)
    mask, depth = np.zeros((768, 1024), dtype=np.float32), np.full((768, 1024, 1), 1000.0)
    mask[5, 7], depth[9, 9] = 1, np.inf
    np.save(root / read("diode", root).paths[0][2], mask)
    np.save(root / read("diode", root).paths[0][1], depth)
    after = read("diode", root)[0]
    assert after.mask is not None
    assert after.depth is not None
    assert np.argwhere(after.mask).tolist() == [[5, 7]]
    assert (after.depth[9, 9], after.depth[0, 0]) == (0, 1000)  # the range does not matter


def test_virtual_kitti_cameras(copy, world):
    root = copy("vkitti2")
    camera = read("vkitti2", root)[0].camera
    truth = shown("vkitti2", exported("vkitti2", world)[0]).camera
    assert camera is not None
    for key in ("fx", "fy", "cx", "cy", "width", "height"):
        assert getattr(camera, key) == pytest.approx(getattr(truth, key), rel=1e-6)
    text = root / "vkitti_2.0.3_textgt" / "Scene02" / "clone" / "intrinsic.txt"
    text.write_text(text.read_text().replace("\n0 0 ", "\n1 0 "))
    with pytest.raises(InputError, match=f"{text}: says nothing of frame 0 of camera 0"):
        read("vkitti2", root)[0]
    text.write_text("frame cameraID\n")
    with pytest.raises(InputError, match=re.escape(f"{text}: is damaged (does not begin with 'frame cameraID K[0,0]")):
        read("vkitti2", root)[0]
    text.write_text(f"{vkitti2.HEADER}\n0 0 0 725 620 187\n")
    with pytest.raises(InputError, match=re.escape(f"{text}: is damaged (has a camera of (0.0, 725.0, 620.0, 187.0))")):
        read("vkitti2", root)[0]
    text.unlink()
    assert read("vkitti2", root)[0].camera == vkitti2.CAMERA
    assert (vkitti2.CAMERA.cx, vkitti2.CAMERA.cy) == (1242 / 2, 375 / 2)


def as_tar(root: Path, to: Path) -> Path:
    with tarfile.open(to, "w") as tar:
        tar.add(root, arcname=".")
    return to


@pytest.mark.parametrize("name", SETS)
def test_folder_tar_and_list_give_the_same(name, originals, tmp_path):
    root = originals[name]
    dataset, tarred = read(name, root), read(name, as_tar(root, tmp_path / "set.tar"))
    assert tarred.names == dataset.names
    first, second = dataset[0], tarred[0]
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.camera == second.camera
    # The list has its own order, and all frames whatever their split.
    lines = (root / LIST).read_text().splitlines()
    assert len(lines) == FRAMES
    (tmp_path / "turned.txt").write_text("\n".join(reversed(lines)))
    turned, straight = read(name, root, list_file=tmp_path / "turned.txt"), read(name, root, list_file=root / LIST)
    assert turned.names == straight.names[::-1]
    assert set(dataset.names) <= set(turned.names)


# -------------------------------------------------------------------------------------------- other layouts


def test_every_layout_of_virtual_kitti_has_the_same_names(copy, tmp_path):
    published = copy("vkitti2")
    dataset = read("vkitti2", published)
    assert dataset.names == ["Scene02/clone/frames/rgb/Camera_0/rgb_00000.jpg"]
    assert read("vkitti2", published, "val").names == ["Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg"]
    marigold, lotus = tmp_path / "marigold", tmp_path / "lotus"
    for part in ("rgb", "depth"):
        shutil.copytree(published / f"vkitti_2.0.3_{part}", marigold / part)
        shutil.copytree(published / f"vkitti_2.0.3_{part}", lotus, dirs_exist_ok=True)
    for root, layout in ((marigold, "marigold"), (lotus, "lotus")):
        other = read("vkitti2", root, list_file=published / LIST)
        assert (other.layout, len(other)) == (layout, FRAMES)
        assert other.names[:1] == dataset.names == read("vkitti2", root).names
        np.testing.assert_array_equal(other[0].depth, dataset[0].depth)
    # Marigold's list leaves fog out, and so do we.
    shutil.copytree(marigold / "rgb" / "Scene02" / "clone", marigold / "rgb" / "Scene02" / "fog")
    assert read("vkitti2", marigold).names == dataset.names


def test_every_layout_of_hypersim_has_the_same_names(originals, tmp_path):
    raw = read("hypersim", originals["hypersim"])
    sample, name = raw[0], raw.names[0]
    assert sample.depth is not None
    assert name == "ai_001_001/rgb_cam_00_fr0000.png"
    one, above, lotus = tmp_path / "one", tmp_path / "above", tmp_path / "lotus"
    for root in (one, above / "train"):
        (root / "ai_001_001").mkdir(parents=True)
        Image.fromarray(sample.rgb).save(root / name, compress_level=1)
        codes = (sample.depth * 1000).astype(np.uint16)
        Image.fromarray(codes).save(root / name.replace("rgb", "depth_plane"), compress_level=1)
    images = lotus / "train" / "ai_001_001" / "images"
    shutil.copytree(originals["hypersim"] / "ai_001_001" / "images", images)
    (images / "scene_cam_00_final_preview").mkdir()
    Image.fromarray(sample.rgb).save(images / "scene_cam_00_final_preview" / "frame.0000.tonemap.jpg")
    lines = tmp_path / "list.txt"
    lines.write_text(f"{name} {name.replace('rgb', 'depth_plane')}\n")
    for root, layout in ((one, "marigold"), (above, "marigold"), (lotus, "lotus"), (originals["hypersim"], "raw")):
        for list_file in (None, lines):
            dataset = read("hypersim", root, list_file=list_file)
            assert (dataset.layout, dataset.names, list(dataset.missing())) == (layout, [name], [])
        other = dataset[0]
        np.testing.assert_allclose(other.depth, sample.depth, atol=0.001)
        assert np.abs(other.rgb.astype(int) - sample.rgb).mean() < (8 if layout == "lotus" else 0.1)
        assert other.camera == CAMERA


def test_hypersim_splits_are_those_of_its_table(copy):
    root = copy("hypersim")
    (train,), (val,) = read("hypersim", root).names, read("hypersim", root, "val").names
    assert train != val
    with pytest.raises(InputError, match="holds no frame of the split 'test' of hypersim"):
        read("hypersim", root, "test")
    table = root / hypersim.SPLITS_FILE
    table.write_text(table.read_text().replace(",0,True,,train", ",0,False,CONTENT FLAGGED FOR REMOVAL,"))
    with pytest.raises(InputError, match="holds no frame of the split 'train'"):
        read("hypersim", root)
    table.write_text("scene_name,camera_name\n")
    with pytest.raises(InputError, match=f"{table}: is damaged .does not begin with scene_name,"):
        read("hypersim", root)
    table.unlink()
    with pytest.raises(InputError, match=f"{table}: is not there, and alone says"):
        read("hypersim", root)
    assert len(read("hypersim", root, list_file=root / LIST)) == FRAMES


def test_diode_places_and_the_folder_above(copy, tmp_path):
    root = copy("diode")
    indoors = read("diode", root, "indoors")
    assert len(indoors) == FRAMES
    with pytest.raises(InputError, match="holds no frame of the split 'outdoor' of diode"):
        read("diode", root, "outdoor")
    with pytest.raises(InputError, match=f"{LIST}: holds no frame of the split 'outdoor' of diode"):
        read("diode", root, "outdoor", root / LIST)
    above = tmp_path / "above"
    above.mkdir()
    root.rename(above / "val")
    for list_file in (None, above / "val" / LIST):
        moved = read("diode", above, list_file=list_file)
        assert moved.names == indoors.names
        assert list(moved.missing()) == []


# ------------------------------------------------------------------------------------------------ formulas


def test_planar_depth_as_recorded():
    # Made with Marigold's hypersim_util.dist_2_depth on distances of 3 m.
    depth = planar(np.full((768, 1024), 3, dtype=np.float16))
    recorded = [2.433565616607666, 2.753554344177246, 2.9999990463256836, 2.433565616607666, 2.637145757675171]
    assert depth[[0, 0, 383, 767, 100], [0, 512, 511, 1023, 900]].tolist() == recorded
    depth[5, 5] = 0
    distance = distance_of(depth)
    assert np.isnan(distance[5, 5])
    np.testing.assert_allclose(planar(distance), depth, rtol=3e-7)


def test_tone_map_as_recorded():
    # Made with Marigold's hypersim_util.tone_map, truncated.
    radiance = (np.arange(24).reshape(2, 4, 3) % 7) * 0.37 + 0.01
    seen = np.array([[1, 1, 0, 1], [1, 1, 1, 1]], dtype=bool)
    recorded = [
        [[19, 100, 136], [163, 186, 205], [223, 19, 100], [136, 163, 186]],
        [[205, 223, 19], [100, 136, 163], [186, 205, 223], [19, 100, 136]],
    ]
    assert tone_map(radiance, seen).tolist() == recorded
    assert tone_map(radiance * 7, seen).tolist() == recorded  # exposure does not matter
    assert not tone_map(radiance * 1e-5, seen).any()
    assert tone_map(np.full((1, 1, 3), 1.0), np.zeros((1, 1), dtype=bool)).tolist() == [[[255, 255, 255]]]


# --------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("damage", ["gone", "half", "text"])
def test_damaged_files_are_named(name, damage, copy):
    root = copy(name)
    dataset = read(name, root)  # before the damage, as a long run has it
    for relative in dataset.paths[0]:
        path = root / relative
        content = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_bytes(content[: len(content) // 2] if damage == "half" else b"no such file")
        with pytest.raises(InputError) as caught:
            dataset[0]
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert ("is not there" in message) == (damage == "gone")
        assert list(dataset.missing()) == ([f"{path}: is not there"] if damage == "gone" else [])
        path.write_bytes(content)


@pytest.mark.parametrize("name", SETS)
def test_maps_of_another_size_are_refused(name, copy):
    root = copy(name)
    dataset = read(name, root)
    path = root / dataset.paths[0][1]
    sizes = ("[4, 5]", str(list(dataset[0].rgb.shape[:2])))
    if name == "eth3d":
        path.write_bytes(path.read_bytes() + bytes(4))
        sizes = ("6916 bytes", "36 x 48 float32 take 6912")
    elif name == "diode":
        np.save(path, np.ones((4, 5, 1)))
    elif name == "hypersim":
        with h5py.File(path, "w") as file:
            file["dataset"] = np.ones((4, 5))
    else:
        Image.fromarray(np.ones((4, 5), dtype=np.uint16)).save(path)
    with pytest.raises(InputError, match=re.escape(f"{path}: ")) as caught:
        dataset[0]
    assert all(size in str(caught.value) for size in sizes)


def test_depth_of_several_channels_is_refused(copy):
    root = copy("diode")
    dataset = read("diode", root)
    path = root / dataset.paths[0][1]
    for channels in (0, 3):
        np.save(path, np.ones((768, 1024, channels)))
        with pytest.raises(InputError, match=re.escape(f"{path}: is [768, 1024, {channels}] where its picture")):
            dataset[0]


def test_a_table_of_splits_without_numbers_is_told(copy):
    root = copy("hypersim")
    table = root / hypersim.SPLITS_FILE
    head, row, *_ = table.read_text().splitlines()
    values = row.split(",")
    values[hypersim.SPLITS_COLUMNS.index("frame_id")] = "x"
    table.write_text(f"{head}\n{','.join(values)}\n")
    with pytest.raises(InputError, match=re.escape(f"{table}: is damaged (invalid literal for int()")):
        read("hypersim", root)


@pytest.mark.parametrize("name", ["eth3d", "scannet", "diode"])
def test_lists_that_slipped_by_a_line_are_refused(name, originals, tmp_path):
    lines = [line.split() for line in (originals[name] / LIST).read_text().splitlines()]
    path = tmp_path / "list.txt"
    path.write_text(" ".join([lines[0][0], *lines[1][1:]]))
    with pytest.raises(InputError, match=r"names '.*', which does not belong to .*; name "):
        read(name, originals[name], list_file=path)


@pytest.mark.parametrize("name", SETS)
def test_wrong_roots_say_what_was_expected_and_found(name, tmp_path):
    reader, split, _ = SETS[name]
    with pytest.raises(InputError, match=r"holds no .*; found nothing; ") as caught:
        reader(tmp_path, split)
    assert reader.expected in str(caught.value)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: holds no ") + ".*; found holiday, readme.txt; "):
        reader(tmp_path, split, tmp_path / "readme.txt")
    with pytest.raises(UsageError, match=f"split 'heldout': is none of {reader.name}; use one of {reader.splits[0]}"):
        reader(tmp_path, "heldout")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("rgb/a/images/dslr_images/b.JPG", "line 1 names a picture without a depth"),
        ("", "names no sample"),
        (b"\xff\xfe\x00", "is no text"),
        (None, "is not there"),
    ],
)
def test_lists_that_are_none(line, problem, originals, tmp_path):
    path = tmp_path / "list.txt"
    if line is not None:
        path.write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(InputError, match=re.escape(f"{path}: ") + f".*{problem}"):
        read("eth3d", originals["eth3d"], list_file=path)


def test_lines_that_name_too_few_files(originals, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("indoors/a.png indoors/a_depth.npy\n")
    with pytest.raises(InputError, match=r"names 'indoors/a\.png .*', which is a sample of 2 files where diode has 3"):
        read("diode", originals["diode"], list_file=path)


def test_lists_that_lead_out_of_the_root(originals, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("rgb/a.JPG depth/../../a.JPG\n")
    with pytest.raises(UsageError, match=r"depth/\.\./\.\./a\.JPG: leads out of the dataset's root"):
        read("eth3d", originals["eth3d"], list_file=path)


def test_the_published_list_is_the_default_where_it_is_here(originals, monkeypatch):
    root, known = originals["diode"], split_list("diode.val")
    line = tuple((root / LIST).read_text().splitlines()[0].split())
    lost = tuple(field.replace("scene_", "scene_9") for field in line)
    monkeypatch.setattr(listed, "is_here", bool)
    monkeypatch.setattr(listed, "find_listing", lambda names, file: Listing((line, lost), root, known))
    whole = read("diode", root)
    assert (whole.names, whole.own_list) == ([line[0], lost[0]], None)
    part = open_dataset("diode", root, part=True)
    assert (part.names, part.own_list) == ([line[0]], str(root))
    monkeypatch.setattr(listed, "find_listing", lambda names, file: Listing((lost,), root, known))
    assert line[0] in open_dataset("diode", root, part=True).names


def test_whose_list_it_is(originals, tmp_path):
    root = originals["diode"]
    assert read("diode", root).own_list == str(root)
    assert read("diode", root, list_file=root / LIST).own_list == str(root / LIST)
    assert read("diode", root, list_file=root / LIST).incomplete is None
    changed = tmp_path / "diode_val_all_filename_list.txt"
    shutil.copyfile(root / LIST, changed)
    with pytest.raises(InputError, match=r"is not the published list diode\.val: 2 lines .* where 771 lines"):
        read("diode", root, list_file=changed)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_in_the_table_of_readers(name, originals):
    reader, split, _ = SETS[name]
    dataset = open_dataset(name, originals[name], split)
    assert isinstance(dataset, reader)
    assert dataset.name == READERS[name].name == name
    assert READERS[name].splits == reader.splits
    assert {one for lists in reader.lists.values() for one in lists} <= set(split_lists())


@pytest.mark.parametrize("picture", ["holiday/beach.jpg", "beach.jpg"])
@pytest.mark.parametrize("name", ["vkitti2", "hypersim", "diode", "eth3d", "scannet"])
def test_lines_of_another_set(name, picture, originals, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"{picture} holiday/beach.png holiday/mask.npy\n")
    with pytest.raises(InputError, match=rf"list\.txt: names '{picture}', which is"):
        read(name, originals[name], list_file=path)


def test_a_missing_library_is_named(originals, monkeypatch):
    dataset = read("hypersim", originals["hypersim"])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"h5py: is not installed; run pip install 'deixis\[data\]'"):
        dataset[0]


def test_hdf5_without_the_array(copy):
    root = copy("hypersim")
    dataset = read("hypersim", root)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["other"] = np.ones(3)
    path = root / dataset.paths[0][0]
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=re.escape(f"{path}: is damaged")):
        dataset[0]


# --------------------------------------------------------------------------------------------- counts and lists


@pytest.mark.parametrize("name", [name for name in SETS if name != "hypersim"])
def test_a_root_of_another_count_says_so(name, originals, monkeypatch):
    reader, split, _ = SETS[name]
    part = read(name, originals[name])
    told = f"{originals[name]}: holds {len(part)} samples where {reader.counts[split]} are published; copy"
    assert str(part.incomplete).startswith(told)
    monkeypatch.setattr(reader, "counts", {split: len(part)})
    whole = read(name, originals[name])
    assert (whole.incomplete, whole.own_list, whole.names) == (None, None, part.names)


def test_counts_are_those_of_the_published_lists():
    for reader, _, _ in SETS.values():
        for split, names in reader.lists.items():
            if reader.counts and split in ("val", "train", "full"):
                assert [split_lists()[one].lines for one in names] == [reader.counts[split]]
    assert DIODE.counts["indoors"] + DIODE.counts["outdoor"] == DIODE.counts["val"]


def test_raw_hypersim_is_counted_by_its_table(copy):
    root = copy("hypersim")
    assert read("hypersim", root).incomplete is None
    table = root / hypersim.SPLITS_FILE
    table.write_text(table.read_text() + "ai_001_009,cam_00,7,True,,train\n")
    dataset = read("hypersim", root)
    assert len(dataset) == 1
    assert "holds 1 samples where 2 are published" in str(dataset.incomplete)


@pytest.mark.parametrize("name", SETS)
def test_a_published_list_that_is_here_is_taken(name, originals, tmp_path, monkeypatch):
    reader, split, _ = SETS[name]
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(tmp_path))
    (published,) = reader.lists[split]
    (tmp_path / f"{published}.txt").write_text("a b c\n")
    with pytest.raises(InputError, match=rf"{published}\.txt: is not the published list {published}: 1 lines"):
        read(name, originals[name])


@pytest.mark.parametrize("name", ["hypersim", "vkitti2", "diode"])
def test_lines_of_other_datasets_are_told_with_their_list(name, originals, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("rgb/a.png depth/a.png mask/a.png\n")
    with pytest.raises(InputError, match=r"mine\.txt: names 'rgb/a\.png', which is no picture of .*; correct the list"):
        read(name, originals[name], list_file=path)


def test_hidden_files_are_no_frames(copy, tmp_path):
    root = copy("diode")
    before = read("diode", root).names
    picture = root / before[0]
    picture.with_name(f"._{picture.name}").write_bytes(b"of a Mac")
    assert read("diode", root).names == before
    assert read("diode", as_tar(root, tmp_path / "set.tar")).names == before


def test_a_torn_tar_is_told(originals, tmp_path):
    tar = as_tar(originals["diode"], tmp_path / "set.tar")
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=r"set\.tar: is no plain tar file, or a torn one .*; copy it again"):
        read("diode", tar)


@pytest.mark.parametrize("name", ["diode", "hypersim"])
def test_arrays_of_other_things_are_refused(name, copy):
    root = copy(name)
    dataset = read(name, root)
    path = root / dataset.paths[0][1]
    if name == "hypersim":
        with h5py.File(path, "w") as file:
            file["dataset"] = np.full((768, 1024), b"a")
    else:
        np.save(path, np.full((768, 1024), "a"))
    with pytest.raises(InputError, match=re.escape(f"{path}: is no array of numbers (")):
        dataset[0]
    if name == "diode":
        with path.open("wb") as file:
            np.savez(file, depth=np.ones((768, 1024)))
        with pytest.raises(InputError, match=re.escape(f"{path}: is no array of numbers (NpzFile)")):
            dataset[0]


def test_radiance_that_is_no_number_is_black_and_infinite_radiance_white():
    radiance = np.full((4, 5, 3), 0.5)
    before = tone_map(radiance, np.ones((4, 5), dtype=bool))
    radiance[0, 0], radiance[1, 1] = np.nan, np.inf
    after = tone_map(radiance, np.ones((4, 5), dtype=bool))
    assert (after[0, 0].tolist(), after[1, 1].tolist()) == ([0, 0, 0], [255, 255, 255])
    np.testing.assert_array_equal(after[2:], before[2:])
