"""Frames in numbers: from a kind and a seed to a drawn and described frame, and many of them to Parquet shards.

A frame depends on its kind, its seed and the settings alone, a shard on its frames alone: whoever renders them again,
with however many processes, gets the same bytes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from deixis import __version__
from deixis.data.world import COLUMNS, LEVELS, Kind, WorldFrame, check_kind, frame_of, parquet
from deixis.errors import DeixisError, UsageError
from deixis.io import printable
from deixis.processes import in_order
from deixis.world.captions import caption
from deixis.world.expressions import expressions
from deixis.world.mesh import triangles
from deixis.world.render import draw
from deixis.world.roads import make_road
from deixis.world.rooms import make_room
from deixis.world.scene import Frame, Part, Scene
from deixis.world.visible import visible

SHARD_FRAMES = 250
MIN_SIDE = 32  # of a picture [px]

_GROUP_FRAMES = 50
_CHUNK = 5  # frames that a process draws before it hands them over
_PARAPHRASES = 2
_POSITIVES, _NEGATIVES = 8, 3
_ASKED = 80  # expressions that are looked for, to have as many
_DECIMALS = 5  # of numbers in a scene
_SHEET_FRAMES = 16
_WORDS_SEED = 51703  # sets the wording's random numbers apart from the scene's
_SETTINGS_FILE = "world.json"

Row = dict[str, Any]
Job = tuple[Kind, int]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Settings:
    """What all frames of a folder have in common.

    Attributes:
        width: of the pictures [px].
        height: of the pictures [px].
        samples: rays a pixel, see :func:`deixis.world.render.draw`.
    """

    width: int = 176
    height: int = 132
    samples: int = 4

    def __post_init__(self) -> None:
        if min(self.width, self.height) < MIN_SIDE:
            raise UsageError(f"size {self.width}x{self.height}", "is too small", f"use at least {MIN_SIDE}x{MIN_SIDE}")
        if self.samples < 1:
            raise UsageError(f"samples {self.samples}", "draw nothing", "use 1 or more")


@dataclass(frozen=True)
class Failure:
    """A frame that could not be made.

    Attributes:
        kind: of the frame.
        seed: of the frame.
        problem: what went wrong, in one line.
    """

    kind: Kind
    seed: int
    problem: str


# --------------------------------------------------------------------------------------------- one frame


def make_frame(kind: str, seed: int, width: int, height: int, samples: int = 4) -> Frame:
    """Build and draw the scene of a seed.

    Args:
        kind: ``rooms`` or ``roads``.
        seed: 0 or more; decides everything.
        width: of the picture [px].
        height: of the picture [px].
        samples: rays a pixel, see :func:`deixis.world.render.draw`.

    Raises:
        UsageError: for an unknown kind, or if the renderer is not installed.
    """
    make = make_room if check_kind(kind) == "rooms" else make_road
    return draw(rounded(make(seed, width, height)), samples=samples)


def rounded(scene: Scene) -> Scene:
    """The scene with numbers of five decimals, so that what is drawn is exactly what is written."""
    return _rounded(scene)


def _rounded(value: _Value) -> _Value:
    if isinstance(value, float):
        return round(float(value), _DECIMALS) + 0.0  # type: ignore[return-value]  # a float; 0.0 for -0.0
    if isinstance(value, tuple):
        return tuple(_rounded(item) for item in value)  # type: ignore[return-value]  # the tuples here are plain
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: _rounded(item) for name, item in vars(value).items()})
    return value


def describe(frame: Frame) -> tuple[list[list[str]], list[Row]]:
    """Captions and expressions of a frame.

    Returns:
        For each of the four levels two paraphrases; and expressions as dictionaries of ``text``, ``kind`` and
        ``targets`` (ids), up to eight for things and three for nothing.
    """
    rng = np.random.default_rng([frame.scene.seed, _WORDS_SEED])
    seen = visible(frame)
    captions = [[caption(frame, level, rng, seen) for _ in range(_PARAPHRASES)] for level in range(LEVELS)]
    found = expressions(frame, rng, _ASKED, seen)
    chosen = [e for e in found if e.target_ids][:_POSITIVES] + [e for e in found if not e.target_ids][:_NEGATIVES]
    return captions, [{"text": e.text, "kind": e.kind, "targets": list(e.target_ids)} for e in chosen]


def make_row(kind: Kind, seed: int, settings: Settings) -> Row:
    """A frame as a shard holds it: pictures encoded, the scene as JSON.

    The picture is a JPEG. Depth is a 16-bit PNG with 0 where there is only sky; elsewhere it is ``depth_scale`` [m]
    times the value, the scale being the smallest of 1, 2, 4 … mm with which the farthest point fits.
    """
    frame = make_frame(kind, seed, settings.width, settings.height, settings.samples)
    captions, told = describe(frame)
    scale = 0.001
    while float(frame.depth.max()) > 65535 * scale:
        scale *= 2
    steps = np.rint(frame.depth.astype(np.float64) / scale).clip(1, 65535)
    codes = np.where(frame.depth > 0, steps, 0).astype(np.uint16)
    about = {"kind": "metric", "unit": "m", "scale": repr(scale), "offset": "0.0"}
    return {
        "seed": seed,
        "kind": kind,
        "place": frame.scene.place,
        "width": settings.width,
        "height": settings.height,
        "image": _encoded(Image.fromarray(frame.rgb), format="JPEG", quality=95, subsampling="4:4:4"),
        "depth": _png(codes, about),
        "depth_scale": scale,
        "ids": _png(frame.ids.astype(np.uint8 if frame.ids.max() < 256 else np.uint16), {}),
        "scene": _scene_json(frame.scene),
        "captions": [{"level": level, "text": t} for level, texts in enumerate(captions) for t in texts],
        "expressions": told,
    }


def _scene_json(scene: Scene) -> str:
    # ``vars`` instead of ``Scene.as_dict``: ten times faster, the same text.
    return json.dumps(vars(scene), default=vars, separators=(",", ":"), allow_nan=False)


def _png(values: npt.NDArray[Any], text: dict[str, str]) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    return _encoded(Image.fromarray(values), format="PNG", pnginfo=chunks)


def _encoded(image: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's options
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------- many frames


def make_rows(jobs: Sequence[Job], settings: Settings, workers: int) -> Generator[Row | Failure, None, None]:
    """Frames in the order of the jobs, drawn by several processes.

    Raises:
        DeixisError: if a process dies.
        UsageError: if ``workers`` is not positive.
    """
    if workers < 1:
        raise UsageError(f"workers {workers}", "draw nothing", "use 1 or more")
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]

    def died(chunk: Sequence[Job]) -> DeixisError:
        kind, seed = chunk[0]
        remedy = "free memory or lower --workers, and run the command again to go on"
        return DeixisError(f"{kind} from seed {seed}", "a drawing process died", remedy)

    # Always processes, even for one worker: rounding must not depend on the threads of whoever calls.
    with closing(in_order(partial(_draw_chunk, settings=settings), chunks, workers, died)) as drawn:
        for rows in drawn:
            yield from rows


def _draw_chunk(jobs: Sequence[Job], settings: Settings) -> list[Row | Failure]:
    rows: list[Row | Failure] = []
    for kind, seed in jobs:
        try:
            rows.append(make_row(kind, seed, settings))
        except Exception as error:
            # One bad scene among thousands must not cost the others.
            rows.append(Failure(kind, seed, " ".join(f"{type(error).__name__}: {error}".split())))
    return rows


# ------------------------------------------------------------------------------------------------ shards


def render_shards(
    out: Path,
    kinds: Sequence[Kind],
    first: int,
    frames: int,
    settings: Settings,
    *,
    workers: int = 1,
    shard_frames: int = SHARD_FRAMES,
    advance: Callable[[int], None] = lambda _: None,
    fail: Callable[[Failure], None] = lambda _: None,
) -> list[Path]:
    """Render frames to Parquet shards ``<kind>-<first seed>.parquet``; whole ones that are there already stay.

    Args:
        out: folder; made if missing.
        kinds: ``rooms``, ``roads`` or both.
        first: seed of the first frame of each kind.
        frames: how many of each kind; their seeds follow one another.
        settings: what they have in common with all others of the folder.
        workers: processes that draw.
        shard_frames: frames a shard, at most.
        advance: told of frames as they are done or found done.
        fail: told of frames that could not be made. Shards go without them.

    Returns:
        The shards that hold these frames.

    Raises:
        DeixisError: if a file cannot be written or a process dies; shards that were finished stay.
        UsageError: if the folder holds other settings, or other shards with the same seeds; if a library is missing.
    """
    check_installed()
    open_folder(out, settings)
    starts = range(first, first + frames, shard_frames)
    plan = [_Shard(kind, start, min(shard_frames, first + frames - start)) for kind in kinds for start in starts]
    there = [shard for kind in kinds for shard in _shards_there(out, kind)]
    _check_overlap(out, plan, there)
    whole = {(shard.kind, shard.first) for old in there for shard in plan if old.holds(shard)}
    todo = [shard for shard in plan if (shard.kind, shard.first) not in whole]
    advance(sum(shard.count for shard in plan) - sum(shard.count for shard in todo))
    jobs = [(shard.kind, seed) for shard in todo for seed in shard.seeds]
    empty = set()
    with closing(make_rows(jobs, settings, workers)) as rows:
        for shard in todo:
            made = []
            for row in islice(rows, shard.count):
                advance(1)
                if isinstance(row, Failure):
                    fail(row)
                else:
                    made.append(row)
            if made:
                write_whole(out / shard.name, _parquet(made, shard))
            else:
                empty.add(shard)
    return [out / shard.name for shard in plan if shard not in empty]


@dataclass(frozen=True)
class _Shard:
    """Which seeds a shard stands for."""

    kind: Kind
    first: int
    count: int

    @property
    def seeds(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def name(self) -> str:
        return f"{frame_name(self.kind, self.first)}.parquet"

    def holds(self, other: _Shard) -> bool:
        """Whether it is the other, or begins as it does and goes on further."""
        return (self.kind, self.first) == (other.kind, other.first) and self.count >= other.count


def frame_name(kind: Kind, seed: int) -> str:
    """``rooms-000012``: stem of the files of a frame, and of the shard that begins with it."""
    return f"{kind}-{seed:06d}"


def _check_overlap(out: Path, plan: Sequence[_Shard], there: Sequence[_Shard]) -> None:
    """Refuse to render frames that another shard of the folder holds already."""
    for old in there:
        for new in plan:
            meet = old.kind == new.kind and old.first < new.seeds.stop and new.first < old.seeds.stop
            if meet and old.first != new.first:
                raise UsageError(
                    printable(out / old.name),
                    f"holds some of the seeds {new.first} to {new.seeds[-1]} already",
                    "begin elsewhere with --seed or choose another folder",
                )


def check_installed() -> None:
    """Find out before the work whether it can be done.

    Raises:
        UsageError: if a library of the extra ``world`` is missing.
    """
    parquet()
    for module in ("embreex", "pyoidn"):
        try:
            import_module(module)
        except ImportError as error:
            raise UsageError(module, "is not installed", "run pip install 'deixis[world]'") from error


def open_folder(out: Path, settings: Settings) -> None:
    """Make a folder for frames of these settings, which it remembers.

    Raises:
        UsageError: if it holds others.
        DeixisError: if it cannot be made or written.
    """
    path = out / _SETTINGS_FILE
    wanted = {"format": "deixis-world", "deixis": __version__, **asdict(settings)}
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        if any(out.glob("*.parquet")):
            raise UsageError(printable(out), f"holds shards but no {_SETTINGS_FILE}", "choose another folder") from None
        write_whole(path, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    except OSError as error:
        raise _write_error(path, error) from error
    except ValueError:
        found = None
    if found != wanted:
        was = found if isinstance(found, dict) else {}
        told = ", ".join(f"{key} {was.get(key)} not {value}" for key, value in wanted.items() if was.get(key) != value)
        raise UsageError(printable(path), f"tells of other settings ({told})", "use the same or choose another folder")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, even after a power cut.

    Raises:
        DeixisError: if the folder or the disk does not take it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> DeixisError:
    reason = error.strerror or str(error)
    return DeixisError(
        printable(path), f"cannot be written ({reason})", "free space on the disk or choose another folder"
    )


def _shards_there(out: Path, kind: Kind) -> list[_Shard]:
    """The whole shards in a folder; damaged ones are none and will be rendered again."""
    found = []
    for path in sorted(out.glob(f"{kind}-*.parquet")):
        with suppress(OSError, ValueError, LookupError, TypeError):
            about = parquet().read_schema(path).metadata
            found.append(_Shard(kind, int(about[b"first"]), int(about[b"count"])))
    return found


def _parquet(rows: Sequence[Row], shard: _Shard) -> bytes:
    """A file of some frames. It remembers which seeds it stands for, even if some failed."""
    pa = parquet("pyarrow")
    text, number = pa.string(), pa.int32()
    types = {
        "seed": pa.int64(),
        "kind": text,
        "place": text,
        "width": number,
        "height": number,
        "image": pa.binary(),
        "depth": pa.binary(),
        "depth_scale": pa.float64(),
        "ids": pa.binary(),
        "scene": pa.large_string(),
        "captions": pa.list_(pa.struct({"level": pa.int8(), "text": text})),
        "expressions": pa.list_(pa.struct({"text": text, "kind": text, "targets": pa.list_(number)})),
    }
    about = {"first": str(shard.first), "count": str(shard.count)}
    schema = pa.schema([(name, types[name]) for name in COLUMNS], about)
    buffer = io.BytesIO()
    parquet().write_table(
        pa.Table.from_pylist(list(rows), schema),
        buffer,
        row_group_size=_GROUP_FRAMES,
        compression="zstd",
        use_dictionary=["kind", "place"],
        write_statistics=["seed"],
    )
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------- files


def render_files(
    out: Path,
    kinds: Sequence[Kind],
    first: int,
    frames: int,
    settings: Settings,
    *,
    meshes: bool = False,
    workers: int = 1,
    advance: Callable[[int], None] = lambda _: None,
    fail: Callable[[Failure], None] = lambda _: None,
) -> list[Path]:
    """Render frames to files that people can open, and ``sheet.jpg``, which shows some of them.

    A frame is ``<kind>-<seed>.jpg``, ``.depth.png``, ``.ids.png`` and ``.json``, pictures as in a shard.

    Args:
        out: folder; made if missing.
        kinds: ``rooms``, ``roads`` or both.
        first: seed of the first frame of each kind.
        frames: how many of each kind; their seeds follow one another.
        settings: what they have in common with all others of the folder.
        meshes: write ``.glb`` too: the geometry in world coordinates, a node ``<id> <name>`` for each thing.
        workers: processes that draw.
        advance: told of frames as they are done.
        fail: told of frames that could not be made.

    Returns:
        The files.

    Raises:
        DeixisError: if a file cannot be written or a process dies.
        UsageError: if the folder holds other settings, or if a library is missing.
    """
    check_installed()
    if meshes:
        _trimesh()
    open_folder(out, settings)
    shown: list[WorldFrame] = []
    written: list[Path] = []
    jobs = [(kind, seed) for kind in kinds for seed in range(first, first + frames)]
    with closing(make_rows(jobs, settings, workers)) as rows:
        for row in rows:
            advance(1)
            if isinstance(row, Failure):
                fail(row)
                continue
            frame = frame_of(row, out)
            written += _write_frame(out, frame, row, meshes)
            if sum(other.kind == frame.kind for other in shown) < _SHEET_FRAMES // len(kinds):
                shown.append(frame)
    if shown:
        write_whole(out / "sheet.jpg", _sheet(shown))
        written.append(out / "sheet.jpg")
    return written


def _write_frame(out: Path, frame: WorldFrame, row: Row, meshes: bool) -> list[Path]:
    """The files of one frame; the JSON, which names the others, comes last."""
    name = frame_name(frame.kind, frame.seed)
    files = {".jpg": row["image"], ".depth.png": row["depth"], ".ids.png": row["ids"]}
    if meshes:
        files[".glb"] = _glb(frame.scene)
    files[".json"] = _sidecar(frame, row["depth_scale"], [f"{name}{suffix}" for suffix in files])
    for suffix, data in files.items():
        write_whole(out / f"{name}{suffix}", data)
    return [out / f"{name}{suffix}" for suffix in files]


def _sidecar(frame: WorldFrame, depth_scale: float, files: Sequence[str]) -> bytes:
    """What a frame's JSON file says, with the scene on one line."""
    view = frame.scene["view"]
    about = {
        "seed": frame.seed,
        "kind": frame.kind,
        "place": frame.place,
        "files": files,
        "depth_scale": depth_scale,
        "camera": {key: view[key] for key in ("width", "height", "fx", "fy", "cx", "cy", "position", "rotation")},
        "captions": frame.captions,
        "expressions": [asdict(phrase) for phrase in frame.expressions],
        "scene": frame.scene,
    }
    lines = (f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in about.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _trimesh() -> Any:  # noqa: ANN401 - trimesh has no types
    try:
        return import_module("trimesh")
    except ImportError as error:
        raise UsageError("trimesh", "is not installed", "run pip install 'deixis[export]'") from error


def _glb(scene: dict[str, Any]) -> bytes:
    """The geometry as binary glTF, in world coordinates (z up), faces in the colour of their material."""
    trimesh = _trimesh()
    albedo = np.array([material["albedo"] for material in scene["materials"]])  # [M, 3], linear
    srgb = np.where(albedo <= 0.0031308, 12.92 * albedo, 1.055 * albedo ** (1 / 2.4) - 0.055)
    parts = [Part(**part) for part in scene["parts"]]
    whole = trimesh.Scene()
    for thing in scene["things"]:
        own = [part for part in parts if part.thing == thing["id"]]
        if not own:
            continue
        vertices, faces, owners = triangles(own)
        colours = np.rint(255 * srgb[[part.material for part in own]]).astype(np.uint8)[owners]  # [F, 3]
        mesh = trimesh.Trimesh(vertices, faces, face_colors=colours, process=False)
        name = f"{thing['id']} {thing['name']}"
        whole.add_geometry(mesh, node_name=name, geom_name=name)
    data: bytes = whole.export(file_type="glb")
    return data


def _sheet(frames: Sequence[WorldFrame]) -> bytes:
    """A JPEG of some frames: the picture, its depth, its things each in a colour."""
    from deixis import viz
    from deixis.types import Depth, Text

    cells = []
    for frame in frames:
        depth = Depth(frame.depth, "metric", Text("", "empty"), "deixis world")
        low, high = viz.depth_range(depth)
        pictures = Image.fromarray(frame.rgb), viz.colorize_depth(depth), Image.fromarray(_id_colours(frame.ids))
        labels = (
            f"{frame.kind} {frame.seed}: {frame.place}",
            f"{low:.1f} to {high:.1f} m",
            f"{len(np.unique(frame.ids[frame.ids > 0]))} things",
        )
        cells.append(list(zip(pictures, labels, strict=True)))
    rows = [[cell for frame in cells[i : i + 2] for cell in frame] for i in range(0, len(cells), 2)]
    return _encoded(viz.contact_sheet(rows), format="JPEG", quality=90)


def _id_colours(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """A colour for every id [H, W, 3]: neighbouring numbers get hues far apart; 0 is black."""
    turn = (ids * 0.618034) % 1
    hues = 0.5 + 0.5 * np.cos(2 * np.pi * (turn[..., None] + np.array([0.0, 1 / 3, 2 / 3])))
    light = 0.55 + 0.15 * (ids % 4)[..., None]
    return np.where(ids[..., None] > 0, np.rint(255 * hues * light), 0).astype(np.uint8)
