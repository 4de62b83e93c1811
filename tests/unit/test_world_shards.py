"""Frames of the synthetic world as shards and as files: the same bytes always, whole or not at all."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.cli import main
from deixis.data.world import COLUMNS, load_arrays, read_shards
from deixis.errors import DeixisError, InputError, UsageError
from deixis.training.store import resized
from deixis.world.generate import Settings, make_frame, make_row, render_files, render_shards, rounded
from deixis.world.mesh import triangles
from deixis.world.rooms import make_room
from deixis.world.scene import Part

trimesh = pytest.importorskip("trimesh")

SIZE = Settings(48, 36, 2)
KINDS = ("rooms", "roads")
FIRST, FRAMES = 3, 4


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of rooms, two of roads. Not to be changed."""
    out = tmp_path_factory.mktemp("world")
    render_shards(out, KINDS, FIRST, FRAMES, SIZE, shard_frames=2)
    return out


@pytest.fixture
def copy(folder, tmp_path):
    """The shards, to be changed."""
    out = tmp_path / "copy"
    out.mkdir()
    for name, data in contents(folder).items():
        (out / name).write_bytes(data)
    return out


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs ``deixis world render``: exit code, stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["world", "render", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return caught.value.code, out, err.splitlines()

    return command


# ------------------------------------------------------------------------------------------------ shards


def test_the_same_bytes_with_more_workers(folder, tmp_path):
    counted = []
    paths = render_shards(
        tmp_path / "b", KINDS, FRAMES - 1, FRAMES, SIZE, workers=2, shard_frames=2, advance=counted.append
    )
    assert [path.name for path in paths] == [f"{kind}-00000{seed}.parquet" for kind in KINDS for seed in (3, 5)]
    assert sum(counted) == 2 * FRAMES
    assert contents(tmp_path / "b") == contents(folder)


def test_a_missing_shard_is_made_again_and_the_others_stay(folder, copy):
    (copy / "rooms-000005.parquet").unlink()
    (copy / "roads-000003.parquet").write_bytes(b"PAR1 torn")
    untouched = copy / "rooms-000003.parquet"
    before = untouched.stat().st_mtime_ns
    render_shards(copy, KINDS, FIRST, FRAMES, SIZE, shard_frames=2)
    assert contents(copy) == contents(folder)
    assert untouched.stat().st_mtime_ns == before


def test_more_frames_lengthen_the_last_shard(copy):
    assert len(list(read_shards(copy, kind="rooms"))) == FRAMES
    (copy / "rooms-000005.parquet").unlink()
    render_shards(copy, ["rooms"], FIRST, 3, SIZE, shard_frames=2)
    assert [frame.seed for frame in read_shards(copy, kind="rooms")] == [3, 4, 5]
    render_shards(copy, ["rooms"], FIRST, 4, SIZE, shard_frames=2)
    assert [frame.seed for frame in read_shards(copy, kind="rooms")] == [3, 4, 5, 6]


def test_seeds_are_not_rendered_twice(copy):
    with pytest.raises(UsageError, match=r"rooms-000003\.parquet: holds some of the seeds 4 to 5 already"):
        render_shards(copy, ["rooms"], 4, 2, SIZE, shard_frames=2)


def test_other_settings_do_not_mix(copy):
    with pytest.raises(UsageError, match=r"world\.json: tells of other settings \(width 48 not 64\)"):
        render_shards(copy, ["rooms"], FIRST, 2, Settings(64, 36, 2))
    (copy / "world.json").write_text("{")
    with pytest.raises(UsageError, match="other settings"):
        render_shards(copy, ["rooms"], FIRST, 2, SIZE)
    (copy / "world.json").unlink()
    with pytest.raises(UsageError, match=r"holds shards but no world\.json"):
        render_shards(copy, ["rooms"], FIRST, 2, SIZE)


def test_a_full_disk_is_told_and_leaves_nothing_half(copy, monkeypatch):
    (copy / "rooms-000005.parquet").unlink()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeixisError, match=r"rooms-000005\.parquet: cannot be written \(No space left on device\)"):
        render_shards(copy, ["rooms"], FIRST, FRAMES, SIZE, shard_frames=2)
    assert sorted(path.name for path in copy.iterdir() if "rooms" in path.name) == ["rooms-000003.parquet"]


def test_a_process_that_dies_is_told_and_whole_shards_stay(tmp_path):
    def kill(_):
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(DeixisError, match=r"rooms from seed \d+: a drawing process died"):
        render_shards(tmp_path, ["rooms"], 0, 40, SIZE, shard_frames=2, advance=lambda n: n and kill(n))
    assert not list(tmp_path.glob("*.partial"))
    assert [frame.seed for frame in read_shards(tmp_path)][:2] == [0, 1]


# ------------------------------------------------------------------------------------------------ reader


def test_a_frame_comes_back_as_it_was_made(folder):
    frames = list(read_shards(folder))
    assert [(frame.kind, frame.seed) for frame in frames] == [(kind, seed) for kind in KINDS for seed in range(3, 7)]
    for read in frames[::3]:
        made = make_frame(read.kind, read.seed, SIZE.width, SIZE.height, SIZE.samples)
        assert (read.rgb.dtype, read.depth.dtype, read.ids.dtype) == (np.uint8, np.float32, np.int32)
        assert np.abs(read.rgb.astype(float) - made.rgb).mean() < 4  # JPEG
        np.testing.assert_array_equal(read.ids, made.ids)
        np.testing.assert_array_equal(read.depth > 0, made.depth > 0)
        np.testing.assert_allclose(read.depth, made.depth, atol=0.0021)
        assert read.scene == json.loads(json.dumps(made.scene.as_dict()))
        assert read.place == made.scene.place
        assert [len(texts) for texts in read.captions] == [2, 2, 2, 2]
        assert all(phrase.targets == () for phrase in read.expressions if phrase.kind == "negative")
        for phrase in read.expressions:
            assert set(phrase.targets) <= set(np.unique(made.ids).tolist())
    assert len(list(read_shards(folder, kind="roads", limit=3))) == 3


def test_a_rounded_scene_stays_as_it_is():
    scene = rounded(make_room(1, 48, 36))
    assert rounded(scene) == scene


def test_arrays_hold_every_frame(folder):
    native = load_arrays(folder, (36, 48))
    frames = list(read_shards(folder))
    assert len(native) == 8
    assert native.seeds.tolist() == [3, 4, 5, 6] * 2
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(native.images[i].permute(1, 2, 0).numpy(), frame.rgb)
        np.testing.assert_array_equal(native.depth[i, 0].numpy(), frame.depth)
        np.testing.assert_array_equal(native.ids[i].numpy(), frame.ids)
        assert native.captions[i] == frame.captions
        assert native.expressions[i] == [(phrase.text, phrase.targets) for phrase in frame.expressions]
        assert native.things[i] == {one["id"]: one["name"] for one in frame.scene["things"]}
    small = load_arrays(folder, (12, 16), kind="rooms", wanted=lambda seed: seed < 6)
    assert (small.images.shape, small.images.dtype) == ((3, 3, 12, 16), torch.uint8)
    assert (small.depth.shape, small.ids.shape, small.ids.dtype) == ((3, 1, 12, 16), (3, 12, 16), torch.int16)
    # A third of the size: the middle of three pixels, and what a model would be given.
    np.testing.assert_array_equal(small.depth[0, 0].numpy(), frames[0].depth[1::3, 1::3])
    np.testing.assert_array_equal(small.images[0].numpy(), resized(frames[0].rgb, (12, 16)).numpy())


def test_a_wrong_folder_is_told(tmp_path, folder):
    with pytest.raises(InputError, match="is no folder"):
        list(read_shards(tmp_path / "gone"))
    with pytest.raises(InputError, match="holds no shards"):
        load_arrays(tmp_path, (8, 8))
    with pytest.raises(UsageError, match="kind 'boats': is unknown"):
        list(read_shards(folder, kind="boats"))


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped"])
def test_a_damaged_shard_is_told(copy, damage):
    path = copy / "rooms-000003.parquet"
    data = path.read_bytes()
    torn = {"torn": data[: len(data) // 2], "empty": b"", "flipped": data[:200] + bytes(9000) + data[9200:]}
    path.write_bytes(torn[damage])

    def decode_all():
        for frame in read_shards(copy):
            assert frame.rgb.shape == (36, 48, 3)
            assert frame.scene["kind"]

    for read in (decode_all, lambda: load_arrays(copy, (36, 48))):
        with pytest.raises(InputError, match=r"rooms-000003\.parquet: ") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_another_table_is_no_shard(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"seed": [1]}), tmp_path / "rooms-000000.parquet")
    with pytest.raises(InputError, match=r"is no shard of frames \(no column captions\)"):
        list(read_shards(tmp_path))


# ------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One room and one road as files."""
    out = tmp_path_factory.mktemp("files")
    written = render_files(out, KINDS, FIRST, 1, SIZE, meshes=True)
    assert sorted(written) == sorted(path for path in out.iterdir() if path.name != "world.json")
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_what_shards_hold(files, folder, kind):
    name = f"{kind}-000003"
    row = make_row(kind, FIRST, SIZE)
    shard = next(read_shards(folder, kind=kind))
    about = json.loads((files / f"{name}.json").read_text())
    for suffix, column in ((".jpg", "image"), (".depth.png", "depth"), (".ids.png", "ids")):
        assert (files / f"{name}{suffix}").read_bytes() == row[column]
    assert set(row) == set(COLUMNS)
    with Image.open(files / f"{name}.depth.png") as png:
        assert (png.mode, float(png.text["scale"]), png.text["unit"]) == ("I;16", about["depth_scale"], "m")
    assert about["scene"] == shard.scene
    assert about["captions"] == shard.captions
    assert [phrase["targets"] for phrase in about["expressions"]] == [list(p.targets) for p in shard.expressions]
    assert about["files"] == [f"{name}{suffix}" for suffix in (".jpg", ".depth.png", ".ids.png", ".glb")]
    with Image.open(files / "sheet.jpg") as sheet:
        assert sheet.width > 300


def first_hits(vertices, faces, camera, pixels):
    """Planar depth (0 where nothing is met) and face (or -1) of some pixels, by plain algebra in double precision."""
    v, u = np.divmod(pixels, camera["width"])
    ray = np.stack([(u + 0.5 - camera["cx"]) / camera["fx"], (v + 0.5 - camera["cy"]) / camera["fy"], u**0], axis=1)
    ray = ray @ np.array(camera["rotation"]).T  # [N, 3], one metre deep
    a, b, c = (vertices - camera["position"])[faces].transpose(1, 0, 2)  # [F, 3] each
    # A ray from the origin meets a triangle if it is on the same side of the planes through the origin and each edge.
    sides = [ray @ np.cross(p, q).T for p, q in ((a, b), (b, c), (c, a))]  # [N, F] each
    inside = np.all([side >= 0 for side in sides], axis=0) | np.all([side <= 0 for side in sides], axis=0)
    normal = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (normal * a).sum(axis=1) / (ray @ normal.T)
    depth = np.where(inside & (depth > 0), depth, np.inf)
    face = depth.argmin(axis=1)
    depth = depth[np.arange(len(ray)), face]
    return np.where(np.isfinite(depth), depth, 0), np.where(np.isfinite(depth), face, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_geometry_written_is_the_geometry_drawn(files, kind):
    about = json.loads((files / f"{kind}-000003.json").read_text())
    parts = [Part(**part) for part in about["scene"]["parts"]]
    vertices, faces, owners = triangles(parts)
    pixels = np.arange(0, SIZE.width * SIZE.height, 5)
    depth, face = first_hits(vertices, faces, about["camera"], pixels)
    with Image.open(files / f"{kind}-000003.depth.png") as png:
        drawn = np.asarray(png).ravel()[pixels] * about["depth_scale"]
    with Image.open(files / f"{kind}-000003.ids.png") as png:
        ids = np.asarray(png).ravel()[pixels]
    things = np.array([part.thing for part in parts])
    found = np.where(face >= 0, things[owners[face]], 0)
    # Rays along an edge may fall to either side of it.
    assert (found == ids).mean() > 0.99
    same = found == ids
    np.testing.assert_allclose(drawn[same], depth[same], rtol=1e-4, atol=about["depth_scale"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_mesh_has_a_node_for_each_thing(files, kind):
    about = json.loads((files / f"{kind}-000003.json").read_text())
    mesh = trimesh.load(files / f"{kind}-000003.glb")
    nodes = {mesh.graph[name][1]: name for name in mesh.graph.nodes_geometry}
    owners = {part["thing"] for part in about["scene"]["parts"]}
    assert set(nodes.values()) == {f"{t['id']} {t['name']}" for t in about["scene"]["things"] if t["id"] in owners}
    vertices, _, _ = triangles([Part(**part) for part in about["scene"]["parts"]])
    np.testing.assert_allclose(mesh.bounds, [vertices.min(axis=0), vertices.max(axis=0)], atol=1e-3)


# -------------------------------------------------------------------------------------------- command line


def test_render_writes_shards(run, folder):
    code, out, lines = run("out", "--kind", "rooms", "--frames", 2, "--seed", 3, "--size", "48x36", "--samples", 2)
    assert (code, out) == (0, "out\n")
    assert lines[-1] == "2 done, 0 failed; 1 files in out"
    assert Path("out/rooms-000003.parquet").read_bytes() == (folder / "rooms-000003.parquet").read_bytes()
    code, out, _ = run(
        "out", "--kind", "rooms", "--frames", 2, "--seed", 3, "--size", "48x36", "--samples", 2, "--json"
    )
    assert code == 0
    assert json.loads(out) == {"folder": "out", "files": ["out/rooms-000003.parquet"], "frames": 2, "failed": []}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--frames", "0"], "--frames"),
        (["--frames", "2", "--seed", "-1"], "--seed"),
        (["--frames", "2", "--kind", "boats"], "'boats'"),
        (["--frames", "2", "--size", "48"], "--size 48: is no size"),
        (["--frames", "2", "--size", "31x48"], "is too small"),
        (["--frames", "2", "--samples", "0"], "--samples"),
        (["--frames", "2", "--workers", "0"], "--workers"),
        (["--frames", "2", "--meshes"], "add --files"),
        ([], "--frames"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, arguments, part):
    code, out, lines = run("out", *arguments)
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("deixis: ")
    assert part in lines[0]
    assert not Path("out").exists()


def test_a_file_in_place_of_the_folder_is_told(run):
    Path("out").write_text("")
    code, out, lines = run("out", "--frames", 1)
    assert (code, out, len(lines)) == (2, "", 1)
    assert "out/world.json: cannot be written (Not a directory); " in lines[0]


def test_other_settings_are_told(run, copy):
    code, out, lines = run(copy, "--frames", 2, "--size", "64x48")
    assert (code, out, len(lines)) == (2, "", 1)
    assert "tells of other settings (width 48 not 64, height 36 not 48, samples 2 not 4); " in lines[0]
