"""NYUv2 in four layouts and KITTI in two: what the world writes is what the readers give, whole copies or not."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.cli import main
from deixis.data import kitti, nyuv2_sets
from deixis.data.container import Container
from deixis.data.readers import READERS, open_dataset
from deixis.data.splits import Listing, split_list
from deixis.data.world import read_shards
from deixis.errors import DeixisError, InputError, UsageError
from deixis.io import write_png16
from deixis.protocols.depth import KITTI_GARG, NYU_EIGEN
from deixis.types import Text
from deixis.world.export import LAYOUTS, write_layout
from deixis.world.export_common import fitted
from deixis.world.export_nyuv2 import export_nyuv2_mat

h5py = pytest.importorskip("h5py")

FRAMES = 3
SPLITS = {
    "nyuv2": ("nyuv2", "test", "official_splits"),
    "nyuv2-labelled": ("nyuv2", "test", "labelled"),
    "nyuv2-mat": ("nyuv2", "test", "mat"),
    "nyuv2-sync": ("nyuv2", "sync", "sync"),
    "kitti": ("kitti", "test", "raw"),
    "kitti-selection": ("kitti", "selection", "selection"),
}
NYUV2 = [layout for layout in SPLITS if layout.startswith("nyuv2")]
KITTI = [layout for layout in SPLITS if layout.startswith("kitti")]


@pytest.fixture(scope="module")
def exports(world, tmp_path_factory):
    """A folder for each layout. Not to be changed."""
    out = tmp_path_factory.mktemp("exports")
    for layout in SPLITS:
        assert write_layout(world, out / layout, layout, FRAMES) == FRAMES
    return out


@pytest.fixture(scope="module")
def rooms(world):
    """The frames as they should be found again at 640 x 480."""
    return [fitted(frame, 640, 480) for frame in read_shards(world, kind="rooms", limit=FRAMES)]


@pytest.fixture(scope="module")
def roads(world):
    """The frames as they should be found again, at the size of the raw drives and of the selection."""
    frames = list(read_shards(world, kind="roads", limit=FRAMES))
    return {
        "kitti": [fitted(frame, 1242, 375) for frame in frames],
        "kitti-selection": [fitted(frame, 1216, 352) for frame in frames],
    }


@pytest.fixture
def copied(exports, tmp_path):
    """Copies an export, to be changed."""

    def copy(layout):
        return Path(shutil.copytree(exports / layout, tmp_path / layout))

    return copy


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs ``deixis``: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(tmp_path / "lists"))

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return command


def opened(root, layout, folder=None):
    name, split, _ = SPLITS[layout]
    return open_dataset(name, root, split, (folder or root) / "list.txt")


def packed(folder, tar):
    """A plain tar with members beginning with ``./``, as the public evaluation has them."""
    with tarfile.open(tar, "w:") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.add(path, f"./{path.relative_to(folder)}")
    return tar


# ------------------------------------------------------------------------------------- what is written is read


@pytest.mark.parametrize("layout", NYUV2)
def test_rooms_are_found_again_as_nyuv2(exports, rooms, layout):
    dataset = opened(exports / layout, layout)
    assert (dataset.name, dataset.split, dataset.layout) == SPLITS[layout]
    assert dataset.own_list == str(exports / layout / "list.txt")
    assert len(dataset) == FRAMES == len(set(dataset.names))
    assert list(dataset.missing()) == []
    for name, sample, room in zip(dataset.names, dataset, rooms, strict=True):
        assert sample.name == name
        assert sample.rgb.shape == (480, 640, 3)
        assert sample.depth.dtype == np.float32
        np.testing.assert_allclose(sample.depth, room.depth, atol=0.00051)
        inner = (slice(7, 474), slice(7, 632))
        error = np.abs(sample.rgb[inner].astype(int) - room.rgb[inner])
        if layout in ("nyuv2-labelled", "nyuv2-mat"):
            assert error.max() == 0
        else:
            assert error.mean() < 3  # JPEG
        assert (sample.camera.fx, sample.camera.width, sample.camera.height) == (518.857901, 640, 480)
        assert NYU_EIGEN.score(sample.depth, sample.depth, kind="metric")["d1"] == 1


def test_a_disk_that_is_full_is_told_and_keeps_no_half_of_the_mat(tmp_path):
    def frames():
        yield from ()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DeixisError, match=r"nyu_depth_v2_labeled\.mat: cannot be written \(No space left on device\)"):
        export_nyuv2_mat(frames(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_official_script_paints_the_border_black(exports):
    sample = opened(exports / "nyuv2", "nyuv2")[0]
    border = np.ones((480, 640), dtype=bool)
    border[7:474, 7:632] = False
    assert sample.rgb[border].mean() < 4
    assert sample.rgb[10:460, 10:620].mean() > 20


@pytest.mark.parametrize("layout", NYUV2)
def test_the_scene_type_is_an_oracles_text(exports, world, layout):
    places = [frame.place for frame in read_shards(world, kind="rooms", limit=FRAMES)]
    found = [sample.texts for sample in opened(exports / layout, layout)]
    assert found == [{"class": Text(place, "oracle")} for place in places]


def test_the_cameras_centre_is_half_a_pixel_inside(exports):
    camera = opened(exports / "nyuv2", "nyuv2")[0].camera
    assert (camera.cx, camera.cy) == pytest.approx((325.08, 253.24), abs=0.01)


@pytest.mark.parametrize("layout", KITTI)
def test_roads_are_found_again_as_kitti(exports, roads, layout):
    dataset = opened(exports / layout, layout)
    assert (dataset.name, dataset.split, dataset.layout) == SPLITS[layout]
    assert len(dataset) == FRAMES
    assert list(dataset.missing()) == []
    for sample, road in zip(dataset, roads[layout], strict=True):
        assert np.array_equal(sample.rgb, road.rgb)
        within = road.depth < 255.9
        np.testing.assert_allclose(sample.depth[within], road.depth[within], atol=0.5001 / 256)
        assert not sample.depth[road.depth > 256].any()
        for one in ("fx", "fy", "cx", "cy"):
            assert getattr(sample.camera, one) == pytest.approx(getattr(road.camera, one), abs=1e-4)
        assert sample.camera.width == sample.rgb.shape[1]
        assert sample.texts is None
        assert KITTI_GARG.score(sample.depth, sample.depth, kind="metric")["d1"] == 1


def test_geometry_survives_the_fit(world):
    frame = next(iter(read_shards(world, kind="roads")))
    shown = fitted(frame, 1242, 375)
    view = frame.scene["view"]
    height, width = frame.depth.shape
    for row, column in ((40, 80), (187, 621), (300, 1100)):
        # The ray through a pixel of the fitted frame meets the old frame in the pixel that its depth is from.
        x = (column + 0.5 - shown.camera.cx) / shown.camera.fx * view["fx"] + view["cx"]
        y = (row + 0.5 - shown.camera.cy) / shown.camera.fy * view["fy"] + view["cy"]
        assert 0 <= x < width
        assert 0 <= y < height
        assert shown.depth[row, column] == frame.depth[int(y), int(x)]


def test_stored_numbers_are_the_published_ones(exports, rooms, roads):
    with Image.open(next((exports / "nyuv2").glob("official_splits/test/*/sync_depth_00000.png"))) as image:
        assert np.array_equal(np.asarray(image), np.rint(rooms[0].depth.astype(float) * 1000))
    depth = "data_depth_annotated/val/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png"
    with Image.open(exports / "kitti" / depth) as image:
        expected = np.rint(roads["kitti"][0].depth.astype(float) * 256)
        assert np.array_equal(np.asarray(image), np.where(expected < 65536, expected, 0))


@pytest.mark.parametrize("layout", ["nyuv2", "nyuv2-labelled", "kitti", "kitti-selection"])
def test_a_tar_gives_what_the_folder_gives(exports, tmp_path, layout):
    folder, tar = exports / layout, packed(exports / layout, tmp_path / "set.tar")
    one, other = opened(folder, layout), opened(tar, layout, folder)
    assert one.names == other.names
    assert list(other.missing()) == []
    for left, right in zip(one, other, strict=True):
        assert np.array_equal(left.rgb, right.rgb)
        assert np.array_equal(left.depth, right.depth)
        assert left.camera == right.camera


# --------------------------------------------------------------------------------------------- lists and counts


WHOLE = {
    "nyuv2": r"official_splits/test: holds 3 samples where 654 are published; copy the dataset again, or name",
    "nyuv2-labelled": r"nyuv2-labelled/test: holds 3 samples where 654 are",
    "nyuv2-mat": r"splits\.mat: holds 3 samples where 654 are",
    "kitti-selection": r"val_selection_cropped/image: holds 3 samples where 1000 are",
}


@pytest.fixture
def no_lists(tmp_path, monkeypatch):
    """An empty folder of lists."""
    folder = tmp_path / "lists"
    folder.mkdir()
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(folder))
    return folder


@pytest.mark.parametrize("layout", WHOLE)
def test_without_a_list_a_copy_of_another_count_is_read_and_says_so(exports, no_lists, monkeypatch, layout):
    name, split, _ = SPLITS[layout]
    part = open_dataset(name, exports / layout, split)
    assert re.search(WHOLE[layout], str(part.incomplete))
    assert part.own_list == part.incomplete.subject
    listed = opened(exports / layout, layout)
    assert listed.incomplete is None
    assert sorted(part.names) == sorted(listed.names)
    found = part[part.names.index(listed.names[1])]
    assert np.array_equal(found.depth, listed[1].depth)
    monkeypatch.setitem(nyuv2_sets.COUNTS, "test", FRAMES)
    monkeypatch.setattr(kitti, "SELECTION_COUNT", FRAMES)
    whole = open_dataset(name, exports / layout, split)
    assert (whole.incomplete, whole.own_list, whole.names) == (None, None, part.names)


def test_a_part_of_a_copy_is_read_where_that_is_asked_for(exports, copied, no_lists):
    for layout, (name, split, _) in SPLITS.items():
        root = exports / layout
        part = open_dataset(name, root, split, part=True)
        assert sorted(part.names) == sorted(opened(root, layout).names)
        assert str(part.own_list).startswith(str(root))
    root = copied("nyuv2")
    next(root.glob("official_splits/test/*/sync_depth_*.png")).unlink()
    assert len(open_dataset("nyuv2", root, part=True)) == FRAMES - 1
    for path in root.glob("official_splits/test/*/sync_depth_*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds none of 3 frames such as official_splits/test/.* name the samples"):
        open_dataset("nyuv2", root, part=True)


def test_of_a_published_list_what_is_there_is_a_part(exports, monkeypatch):
    root, known = exports / "kitti", split_list("kitti.eigen_test")
    samples = [tuple(line.split()) for line in (root / "list.txt").read_text().splitlines()]
    lost = tuple(field.replace("_drive_0001_", "_drive_0099_") for field in samples[0])
    monkeypatch.setattr(kitti, "is_here", lambda names: True)
    monkeypatch.setattr(kitti, "find_listing", lambda names, file: Listing((lost, *samples), root, known))
    whole, part = (open_dataset("kitti", root, part=part) for part in (False, True))
    assert (len(whole), whole.own_list) == (FRAMES + 1, None)
    assert (part.names, part.own_list) == (whole.names[1:], str(root))


def test_more_frames_than_are_published_are_no_part(exports, tmp_path, monkeypatch):
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(tmp_path))
    monkeypatch.setattr(kitti, "split_list", lambda name: replace(split_list(name), lines=FRAMES - 1))
    with pytest.raises(InputError, match=r"list 'kitti\.eigen_test': is not in"):
        open_dataset("kitti", exports / "kitti", part=True)


@pytest.mark.parametrize("layout", ["nyuv2-sync", "kitti"])
def test_without_a_list_the_published_one_is_asked_for(exports, no_lists, layout):
    name, split, _ = SPLITS[layout]
    with pytest.raises(InputError, match=r"is not in .*; run 'deixis data lists --fetch"):
        open_dataset(name, exports / layout, split)


def test_a_published_list_that_is_here_names_the_labelled_frames(exports, no_lists):
    (no_lists / "nyuv2.test.txt").write_text("test/a/rgb_0001.png test/a/depth_0001.png\n")
    with pytest.raises(InputError, match=r"nyuv2\.test\.txt: is not the published list nyuv2\.test: 1 lines"):
        open_dataset("nyuv2", exports / "nyuv2-labelled")


def test_frames_without_annotated_depth_are_left_out(exports, tmp_path):
    own = tmp_path / "mine.txt"
    lines = (exports / "kitti" / "list.txt").read_text().splitlines()
    own.write_text("\n".join([lines[0], "2011_09_26/x/image_02/data/0000000001.png None 721.5", *lines[1:]]))
    assert len(open_dataset("kitti", exports / "kitti", "test", own)) == FRAMES


def test_pictures_may_be_kept_as_jpeg(copied):
    root = copied("kitti")
    for picture in root.glob("2011_*/*/image_02/data/*.png"):
        with Image.open(picture) as image:
            image.save(picture.with_suffix(".jpg"))
        picture.unlink()
    lines = root / "list.txt"
    lines.write_text(lines.read_text().replace("5.png 2011", "5.jpg 2011"))
    dataset = opened(root, "kitti")
    assert list(dataset.missing()) == []
    assert (dataset[0].rgb.shape, dataset[0].camera.width) == ((375, 1242, 3), 1242)


def test_frames_in_no_folder_have_no_scene_type(copied):
    root = copied("nyuv2")
    scene = next((root / "official_splits/test").iterdir())
    name = next(scene.glob("rgb_*.jpg")).name
    depth = name.replace("rgb", "sync_depth").replace("jpg", "png")
    for one in (name, depth):
        shutil.copy(scene / one, root / "official_splits/test" / one)
    (root / "list.txt").write_text(f"{name} {depth}\n")
    assert opened(root, "nyuv2")[0].texts is None


def test_evps_form_of_kittis_list_names_the_same_files(exports, copied, tmp_path):
    own = tmp_path / "mine.txt"
    lines = [line.split() for line in (exports / "kitti" / "list.txt").read_text().splitlines()]
    own.write_text("".join(f"/raw_data/{rgb} /data_depth_annotated/val/{depth}\n" for rgb, depth, _ in lines))
    root = copied("kitti")
    (root / "raw_data").mkdir()
    for date in root.glob("2011_*"):
        date.rename(root / "raw_data" / date.name)
    moved, before = open_dataset("kitti", root, "test", own), opened(exports / "kitti", "kitti")
    assert list(moved.missing()) == []
    assert moved.names == before.names
    assert moved[1].camera == before[1].camera


def test_the_public_evaluations_tar_has_depth_beside_the_dates(exports, copied, tmp_path):
    root = copied("kitti")
    for drive in (root / "data_depth_annotated" / "val").iterdir():
        drive.rename(root / drive.name)
    shutil.rmtree(root / "data_depth_annotated")
    dataset = opened(packed(root, tmp_path / "kitti.tar"), "kitti", root)
    assert list(dataset.missing()) == []
    assert np.array_equal(dataset[2].depth, opened(exports / "kitti", "kitti")[2].depth)


def test_numbers_of_the_mat_count_from_1_or_from_0(exports, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("/room/rgb_00001.jpg /room/sync_depth_00001.png\ntest/a/rgb_0001.png test/a/depth_0001.png\n")
    dataset = open_dataset("nyuv2", exports / "nyuv2-mat", "test", own)
    assert dataset.numbers == [2, 1]
    for line, problem in (
        ("room/rgb_7.jpg d.png", "names 'room/rgb_7.jpg', which tells no number"),
        ("test/a/rgb_0004.png d.png", "holds 3 frames and no frame 4"),
        ("test/a/rgb_0000.png d.png", "holds 3 frames and no frame 0"),
    ):
        own.write_text(line)
        with pytest.raises(InputError, match=problem):
            open_dataset("nyuv2", exports / "nyuv2-mat", "test", own)


def test_lists_of_other_datasets_are_refused(exports, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("rgb/a.png depth/a.png\n")
    with pytest.raises(InputError, match=r"mine\.txt: names 'rgb/a\.png'; name <date>/<drive>"):
        open_dataset("kitti", exports / "kitti", "test", own)


@pytest.mark.parametrize("layout", ["nyuv2-sync", "nyuv2-labelled", "kitti", "kitti-selection"])
def test_lists_that_slipped_by_a_line_are_refused(exports, tmp_path, layout):
    lines = [line.split() for line in (exports / layout / "list.txt").read_text().splitlines()]
    name, split, _ = SPLITS[layout]
    own = tmp_path / "mine.txt"
    own.write_text("\n".join(f"{line[0]} {other[1]}" for line, other in zip(lines, lines[1:] + lines[:1], strict=True)))
    with pytest.raises(
        InputError, match=r"mine\.txt: has beside the picture .* the depth .*; name picture and depth of"
    ):
        open_dataset(name, exports / layout, split, own)


def test_hard_links_in_a_tar_are_files(copied, tmp_path):
    root = copied("nyuv2")
    first, second, *_ = sorted(root.glob("official_splits/test/*/sync_depth_*.png"))
    second.unlink()
    second.hardlink_to(first)
    with tarfile.open(tmp_path / "linked.tar", "w:") as tar:
        tar.add(root, arcname=".")
        assert any(member.islnk() for member in tar)
    folder, linked = opened(root, "nyuv2"), opened(tmp_path / "linked.tar", "nyuv2", root)
    assert list(linked.missing()) == []
    for one, other in zip(folder, linked, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)


def test_symbolic_links_in_a_tar_are_files(copied, tmp_path):
    root = copied("nyuv2")
    first, second, third, *_ = sorted(root.glob("official_splits/test/*/sync_depth_*.png"))
    for link, target in ((second, first), (third, second)):
        link.unlink()
        link.symlink_to(os.path.relpath(target, link.parent))
    (root / "loop.png").symlink_to("loop.png")
    (root / "gone.png").symlink_to("nowhere.png")
    with tarfile.open(tmp_path / "linked.tar", "w:") as tar:
        tar.add(root, arcname=".")
        assert sum(member.issym() for member in tar) == 4
    folder, linked = opened(root, "nyuv2"), opened(tmp_path / "linked.tar", "nyuv2", root)
    assert list(linked.missing()) == []
    for one, other in zip(folder, linked, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
    assert not any(linked.files.has(name) for name in ("loop.png", "gone.png"))


def test_sparse_files_in_a_tar_are_refused(tmp_path):
    with tarfile.open(tmp_path / "sparse.tar", "w:", format=tarfile.GNU_FORMAT) as tar:
        holes = tarfile.TarInfo("./holes.npy")
        holes.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(holes)
    with pytest.raises(InputError, match=r"sparse\.tar: holds \./holes\.npy as a sparse file; pack it without"):
        Container(tmp_path / "sparse.tar")


# ----------------------------------------------------------------------------------------------- wrong roots


def test_a_wrong_root_says_what_was_expected_and_what_is_there(exports, tmp_path):
    cases = (
        (
            "nyuv2",
            "test",
            exports / "kitti-selection",
            r"official_splits/test/<scene>/rgb_<index>\.jpg .*depth_selection",
        ),
        ("nyuv2", "train", exports / "nyuv2", r"official_splits/train/<scene>.* but captions\.parquet, list"),
        ("nyuv2", "sync", exports / "nyuv2", r"holds no sync/<scene>/rgb_<index>\.jpg but captions\.parquet, list"),
        ("kitti", "test", exports / "nyuv2", r"holds no <date>/<drive>/image_02/data.* but captions\.parquet, list"),
        ("kitti", "test", exports / "kitti" / "data_depth_annotated", r"holds no <date>/<drive>.* but val"),
        ("kitti", "selection", exports / "kitti", r"holds no depth_selection/val_selection_cropped.* but 2011_09_26"),
        ("kitti", "test", tmp_path, "but nothing"),
        ("kitti", "test", tmp_path / "gone", "is no folder or tar file"),
        ("nyuv2", "test", tmp_path / "gone.mat", r"gone\.mat: is not there"),
        ("nyuv2", "test", exports / "nyuv2-mat" / "splits.mat", r"splits\.mat: is damaged, or no nyu_depth_v2_labeled"),
    )
    for name, split, root, message in cases:
        with pytest.raises(InputError, match=message):
            open_dataset(name, root, split)


def test_pictures_without_annotated_depth_are_no_kitti(copied):
    root = copied("kitti")
    shutil.rmtree(root / "data_depth_annotated")
    with pytest.raises(InputError, match=r"holds no <drive>/proj_depth/groundtruth/image_02"):
        opened(root, "kitti")


def test_two_layouts_of_a_split_are_not_chosen_between(copied):
    root = copied("nyuv2")
    shutil.copytree(copied("nyuv2-labelled") / "test", root / "test")
    with pytest.raises(InputError, match=r"more than once \(official_splits and labelled\); pass a folder with one"):
        opened(root, "nyuv2")
    assert len(opened(root / "official_splits", "nyuv2", root)) == FRAMES


def test_the_mat_is_not_read_inside_a_tar(exports, tmp_path):
    tar = packed(exports / "nyuv2-mat", tmp_path / "set.tar")
    with pytest.raises(InputError, match="cannot be read inside a tar; unpack it"):
        opened(tar, "nyuv2-mat", exports / "nyuv2-mat")


def test_unknown_names_are_told_with_those_there_are(exports):
    with pytest.raises(UsageError, match=r"dataset 'nyu2': is unknown; did you mean nyuv2\? There are nyuv2, kitti"):
        open_dataset("nyu2", exports)
    with pytest.raises(UsageError, match=r"split 'eigen': is none of kitti; use one of test, val, train, selection"):
        open_dataset("kitti", exports / "kitti", "eigen")


# -------------------------------------------------------------------------------------------- damaged copies


@pytest.mark.parametrize("layout", ["nyuv2", "nyuv2-labelled", "kitti", "kitti-selection"])
def test_damaged_and_missing_files_are_named(copied, layout):
    root = copied(layout)
    dataset = opened(root, layout)
    frame = dataset.frames[0]
    depth, picture = root / frame.depth, root / frame.picture
    depth.write_bytes(depth.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"{depth.name}: is damaged"):
        dataset[0]
    write_png16(depth, np.ones((4, 5), np.uint16), {})
    with pytest.raises(InputError, match=rf"{depth.name}: is \[4, 5\] and its picture \["):
        dataset[0]
    for picture_of_depth in (
        Image.new("RGB", (5, 4)),
        Image.new("L", dataset.files.picture(frame.picture).shape[1::-1]),
    ):
        picture_of_depth.save(depth)
        with pytest.raises(InputError, match=rf"{depth.name}: is no grey picture of 16-bit integers .*uint8"):
            dataset[0]
    depth.write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=rf"{depth.name}: is damaged \(no picture\)"):
        dataset[0]
    picture.unlink()
    with pytest.raises(InputError, match=rf"{picture.name}: is not there"):
        dataset[0]
    assert list(dataset.missing()) == [f"{picture}: is not there"]


def test_checksums_of_pictures_are_looked_at(tmp_path):
    path = tmp_path / "depth.png"
    write_png16(path, np.ones((4, 5), np.uint16), {})
    content = bytearray(path.read_bytes())
    content[-14] ^= 1  # the pixels' checksum, before the 12 bytes that end a PNG
    path.write_bytes(content)
    assert np.asarray(Image.open(path)).all()  # Pillow alone takes it
    with pytest.raises(InputError, match=r"depth\.png: is damaged"):
        Container(tmp_path).metres("depth.png", 1000, np.zeros((4, 5, 3), np.uint8))


def test_a_torn_mat_is_told(copied):
    root = copied("nyuv2-mat")
    mat = root / "nyu_depth_v2_labeled.mat"
    mat.write_bytes(mat.read_bytes()[: mat.stat().st_size // 2])
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled\.mat: is damaged"):
        opened(root, "nyuv2-mat")
    (root / "splits.mat").write_bytes(b"torn")
    mat.write_bytes((root / "splits.mat").read_bytes())
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled\.mat: is damaged"):
        open_dataset("nyuv2", root)


@pytest.mark.parametrize("damage", ["float", "narrow"])
def test_a_mat_of_other_arrays_is_told(copied, damage):
    root = copied("nyuv2-mat")
    name, change = {"float": ("images", lambda old: old / 255), "narrow": ("rawDepths", lambda old: old[:, :320])}[
        damage
    ]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "r+") as mat:
        values = change(mat[name][()])
        del mat[name]
        mat[name] = values
    with pytest.raises(InputError, match=r"labeled\.mat: frame 1 is \[480, 640, 3\] \w+ with depth \[480, \d+\]; copy"):
        opened(root, "nyuv2-mat")[0]


def test_a_torn_official_split_is_told(copied):
    root = copied("nyuv2-mat")
    (root / "splits.mat").write_bytes(b"torn" * 50)
    with pytest.raises(InputError, match=r"splits\.mat: holds no testNdxs"):
        open_dataset("nyuv2", root)


def test_calibration_is_taken_where_it_is(copied):
    root = copied("kitti")
    dataset = opened(root, "kitti")
    calibration = root / "2011_09_26" / "calib_cam_to_cam.txt"
    calibration.write_text("S_rect_02: 1.3e+03 3.75e+02\nP_rect_02: 700 0 620 0 0 700 180 0 0 0 1 0\n")
    assert dataset[0].camera is None  # of another size
    calibration.write_text("S_rect_02: 1.242e+03 3.75e+02\nP_rect_02: 700 0 620\n")
    with pytest.raises(InputError, match=r"calib_cam_to_cam\.txt: is damaged \(3 numbers where 12 make a camera\)"):
        dataset[0]
    calibration.unlink()
    assert dataset[0].camera is None
    assert dataset[1].camera is not None
    selection = opened(copied("kitti-selection"), "kitti-selection")
    shutil.rmtree(selection.files.root / "depth_selection/val_selection_cropped/intrinsics")
    assert selection[0].camera is None


# ------------------------------------------------------------------------------------------------- commands


def test_a_whole_copy_is_checked(exports, run, tmp_path):
    root = exports / "kitti"
    code, out, err = run("data", "check", "kitti", "--root", root, "--list", root / "list.txt", "--out", "o")
    assert code == 0
    lines = dict(line.split("\t", 1) for line in out.splitlines() if not line.startswith("sample\t"))
    assert lines["layout"] == "raw"
    assert lines["samples"] == "3"
    assert lines["missing files"] == "0"
    assert lines["list"] == str(root / "list.txt")
    assert "which is not the published list" in err
    with Image.open(tmp_path / lines["picture"]) as picture:
        assert picture.width > 800
    code, out, _ = run("data", "check", "kitti", "--root", root, "--list", root / "list.txt", "--out", "o", "--json")
    assert code == 0
    result = json.loads(out)
    depths = [one["depth_m"] for one in result["decoded"]]
    assert result["own_list"] == str(root / "list.txt")
    assert len(depths) == FRAMES
    assert all(0 < low < high < 256 for low, high in depths)


def test_an_incomplete_copy_is_told_file_by_file(copied, run, monkeypatch):
    root = copied("nyuv2-labelled")
    for path in sorted(root.glob("test/*/depth_*.png"))[:2]:
        path.unlink()
    code, out, err = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt", "--json")
    assert code == 1
    missing = json.loads(out)["missing"]
    assert len(missing) == 2
    assert all(f"deixis: {line}; copy the dataset again" in err.splitlines() for line in missing)
    assert err.count("is not there") == 2
    monkeypatch.setattr("deixis.cli.data.NAMED", 1)
    _, _, err = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt")
    assert err.count("is not there") == 1
    assert "deixis: 1 more are missing" in err


def test_a_damaged_sample_is_told(copied, run):
    root = copied("nyuv2")
    torn = sorted(root.glob("official_splits/test/*/rgb_*.jpg"))[0]
    torn.write_bytes(b"torn")
    code, out, err = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt", "--json")
    assert code == 1
    assert len(json.loads(out)["damaged"]) == 1
    assert f"deixis: {torn}: is damaged" in err


@pytest.mark.parametrize("value", [0, 12_000])
def test_a_sample_without_depth_to_score_is_told(copied, run, value):
    root = copied("nyuv2")
    depth = sorted(root.glob("official_splits/test/*/sync_depth_00000.png"))[0]
    write_png16(depth, np.full((480, 640), value, np.uint16), {})
    code, out, err = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt", "--json")
    assert code == 1
    result = json.loads(out)
    assert sorted(one["scored_share"] for one in result["decoded"]) == [0, 1, 1]
    assert result["damaged"][0].endswith("rgb_00000.jpg: has no depth that is scored")
    assert "has no depth that is scored; look whether its depth file is the published one" in err


def test_a_frame_of_another_size_is_told(copied, run):
    root = copied("nyuv2")
    odd = sorted(root.glob("official_splits/test/*/rgb_*.jpg"))[0]
    Image.fromarray(np.zeros((427, 561, 3), np.uint8)).save(odd)
    write_png16(
        odd.with_name(odd.name.replace("rgb", "sync_depth")).with_suffix(".png"), np.full((427, 561), 9, "<u2"), {}
    )
    code, out, err = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt", "--json")
    assert code == 1
    assert len(json.loads(out)["damaged"]) == 1
    assert f"{odd.parent.name}/{odd.name}: is 561x427 pixels; " in err


def test_a_folder_in_place_of_a_file_is_one_thing(copied, run):
    root = copied("nyuv2")
    depth = sorted(root.glob("official_splits/test/*/sync_depth_*.png"))[0]
    depth.unlink()
    depth.mkdir()
    code, out, _ = run("data", "check", "nyuv2", "--root", root, "--list", root / "list.txt", "--json")
    assert code == 1
    assert (len(json.loads(out)["missing"]), json.loads(out)["damaged"]) == (1, [])


def test_exit_codes_of_other_copies(exports, run, tmp_path):
    code, out, err = run("data", "check", "nyuv2", "--root", exports / "nyuv2", "--json")
    assert code == 1
    assert "official_splits/test: holds 3 samples where 654 are published; copy the dataset again" in err
    result = json.loads(out)
    assert result["incomplete"] == "holds 3 samples where 654 are published"
    assert (len(result["decoded"]), result["missing"], result["damaged"]) == (FRAMES, [], [])
    assert (tmp_path / result["picture"]).is_file()
    code, out, err = run("data", "check", "nyuv2", "--root", exports / "kitti")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    (tmp_path / "mine.txt").write_text("/a/rgb_00000.jpg /a/sync_depth_00000.png\n")
    code, _, err = run("data", "check", "nyuv2", "--root", exports / "nyuv2", "--list", "mine.txt")
    assert code == 2  # nothing of the list is there
    assert err.count("is not there") == 2


def test_the_world_is_exported_by_command(world, run, tmp_path):
    code, out, err = run("world", "export", world, "set", "--as", "nyuv2-labelled", "--frames", 1, "--json")
    assert code == 0
    assert json.loads(out) == {"folder": "set", "layout": "nyuv2-labelled", "samples": 1}
    assert "pass set/list.txt as --list" in err
    code, _, err = run("world", "export", world, "set", "--as", "nyuv2", "--frames", 1)
    assert code == 2
    assert "set: holds files already; export into an empty folder" in err
    code, _, err = run("world", "export", world, "other", "--as", "nyu")
    assert code == 2
    assert f"layout 'nyu': is unknown; use one of {', '.join(LAYOUTS)}" in err


def test_every_reader_names_its_splits():
    assert {name: reader.splits[0] for name, reader in READERS.items()}["nyuv2"] == "test"
    assert all(reader.name == name and reader.splits for name, reader in READERS.items())
