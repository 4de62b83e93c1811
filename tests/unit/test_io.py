"""Real files of every kind a user may have: read upright and right, or refused in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from deixis import io
from deixis.camera import Camera
from deixis.errors import DeixisError, InputError, UsageError
from deixis.types import Answer, Depth, DepthKind, Mask, Referent, Text

WORDS = Text("a small bedroom", "user")


def photo(width: int = 40, height: int = 30) -> np.ndarray:
    """Smooth enough for lossy formats, and different in every corner; uint8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x / max(width - 1, 1), y / max(height - 1, 1), (x + y) / max(width + height - 2, 1)]
    return np.stack([40 + 170 * channel for channel in channels], axis=-1).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG of uint16 [H, W] or [H, W, 3] or [H, W, 4]."""
    colour = {1: 0, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, colour, rows)


def tiff16_rgb(values: np.ndarray) -> bytes:
    """An uncompressed 16-bit RGB TIFF of uint16 [H, W, 3], which Pillow reads but does not write."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 14 + len(data)) + struct.pack("<HHH", 16, 16, 16) + data + directory + bytes(4)


def one_line(error: DeixisError) -> None:
    text = str(error)
    assert "\n" not in text
    assert text.count("; ") >= 1
    assert all([error.subject, error.problem, error.remedy])
    assert " object at 0x" not in text


def refused(source: io.ImageSource, match: str, kind: type[DeixisError] = InputError) -> DeixisError:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=match) as caught:
            io.read_image(source)
    one_line(caught.value)
    return caught.value


def read(source: io.ImageSource) -> np.ndarray:
    """Read with every leaking warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = io.read_image(source).rgb
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.flags.c_contiguous
    return rgb


# ------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("suffix", "tolerance", "options"),
    [
        (".png", 0, {}),
        (".bmp", 0, {}),
        (".dib", 0, {}),
        (".ppm", 0, {}),
        (".tif", 0, {}),
        (".tiff", 0, {"compression": "tiff_lzw"}),
        (".tga", 0, {}),
        (".sgi", 0, {}),
        (".pcx", 0, {}),
        (".webp", 0, {"lossless": True}),
        (".jp2", 2, {}),
        (".jpg", 12, {"quality": 95}),
        (".jpeg", 12, {"progressive": True}),
        (".avif", 12, {}),
        (".mpo", 12, {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]}),
    ],
)
def test_formats(tmp_path: Path, suffix: str, tolerance: int, options: dict[str, object]) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(photo()).save(path, **options)
    assert suffix in io.IMAGE_SUFFIXES
    difference = np.abs(read(path).astype(int) - photo())
    assert difference.max() <= tolerance


@pytest.mark.parametrize("suffix", ["", ".txt", ".JPG", ".eps"])
def test_content_counts_not_the_extension(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(photo()).save(path, "PNG")
    assert np.array_equal(read(path), photo())


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_and_camera(tmp_path: Path, fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 28
    path = tmp_path / "photo"
    Image.fromarray(photo()).save(path, fmt, exif=exif.tobytes())
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    for source in (path, Image.open(path)):
        loaded = io.read_image(source)
        assert np.array_equal(loaded.rgb, np.asarray(upright))
        assert loaded.camera is not None
        assert (loaded.camera.width, loaded.camera.height) == upright.size


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_impossible_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), photo())


def test_damaged_exif_does_not_spoil_the_picture(tmp_path: Path) -> None:
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\x7f"
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=damaged, quality=95)
    assert read(tmp_path / "a.jpg").shape == (30, 40, 3)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBa", "La", "I", "F"],
)
def test_modes(mode: str) -> None:
    gray = Image.fromarray(photo()).convert("L")
    via = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode)
    source = gray.convert("RGB") if mode in ("LAB", "HSV", "YCbCr", "CMYK") else gray
    image = source.convert(via).convert(mode) if via else source.convert(mode)
    if mode == "F":
        image = image.point(lambda value: value / 255)
    rgb = read(image)
    expected = np.asarray(gray.convert("1") if mode == "1" else gray, dtype=float)
    expected = expected * 255 if mode == "1" else expected
    assert np.abs(rgb.mean(axis=2) - expected).max() <= 4


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_cmyk_files(tmp_path: Path, suffix: str) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / f"a{suffix}")
    assert np.abs(read(tmp_path / f"a{suffix}")[4, 4].astype(int) - (255, 0, 0)).max() < 8


def test_lab_file(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "a.tif")
    assert (read(tmp_path / "a.tif") >= 254).all()


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    half = np.dstack([np.zeros((2, 2, 3), np.uint8), np.array([[0, 255], [128, 64]], np.uint8)])
    expected = np.array([[255, 0], [127, 191]])
    for image in (Image.fromarray(half), Image.fromarray(half[..., [0, 3]])):
        image.save(tmp_path / "a.png")
        assert np.abs(read(tmp_path / "a.png") - expected[..., None]).max() <= 1
    for mode, colour, transparent in (("P", 1, 1), ("L", 9, 9), ("RGB", (9, 9, 9), (9, 9, 9)), ("1", 0, 0)):
        image = Image.new(mode, (3, 3), colour)
        if mode == "P":
            image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(tmp_path / "b.png", transparency=transparent)
        assert (read(tmp_path / "b.png") == 255).all(), mode
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "c.png", transparency=b"\x00\xff")
    assert read(tmp_path / "c.png").tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896], [65535, 1000, 60000]], dtype=np.uint16)
    expected = np.rint(values / 257)[..., None]
    rgb = np.stack([values, values[::-1], values], axis=-1)
    files = {
        "gray.png": png16(values),
        "gray.pgm": b"P5 3 2 65535\n" + values.astype(">u2").tobytes(),
        "big_endian.tif": None,
        "gray.tif": None,
    }
    Image.fromarray(values).save(tmp_path / "gray.tif")
    Image.frombytes("I;16B", (3, 2), values.astype(">u2").tobytes()).save(tmp_path / "big_endian.tif")
    for name, data in files.items():
        if data:
            (tmp_path / name).write_bytes(data)
        assert np.abs(read(tmp_path / name) - expected).max() <= 1, name
    for name, data in {"rgb.png": png16(rgb), "rgb.tif": tiff16_rgb(rgb)}.items():
        (tmp_path / name).write_bytes(data)
        assert np.abs(read(tmp_path / name) - rgb / 257).max() <= 1, name
    (tmp_path / "rgba.png").write_bytes(png16(np.dstack([rgb, np.full((2, 3), 65535)])))
    assert np.abs(read(tmp_path / "rgba.png") - rgb / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), (0, 255)),
        (np.array([[0, 65535]], np.int32), (0, 255)),
        (np.array([[-500, 100000]], np.int32), (0, 255)),
        (np.array([[0.0, 1.0]], np.float32), (0, 255)),
        (np.array([[0.2, 0.4]], np.float32), (51, 102)),
        (np.array([[-3.0, 12.5]], np.float32), (0, 255)),
        (np.array([[7e30, 7e30]], np.float32), (0, 0)),
    ],
)
def test_wide_gray_is_scaled_not_clipped(tmp_path: Path, values: np.ndarray, expected: tuple[int, int]) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == list(expected)


def test_float_file_with_nan(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "NaN")


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_picture_of_many(tmp_path: Path, fmt: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if fmt == "WEBP" else {}
    frames[0].save(tmp_path / "a", fmt, save_all=True, append_images=frames[1:], **options)
    assert Image.open(tmp_path / "a").n_frames == 3
    assert (read(tmp_path / "a") == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20000, 1), (6000, 400)])
def test_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(photo(*size)).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), photo(*size))


@pytest.mark.parametrize(
    "name",
    [
        "with space.png",
        "Küche 台所 кухня.png",
        "new\nline.png",
        "tab\t.png",
        "quote'\".png",
        "-.png",
        "%41.png",
    ],
)
def test_awkward_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(photo()).save(path, "PNG")
    loaded = io.read_image(path)
    assert np.array_equal(loaded.rgb, photo())
    assert loaded.path == path
    assert loaded.name.isprintable()
    path.write_bytes(b"not a picture")
    refused(path, "not a picture")


def test_undecodable_name(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png"))
    path.write_bytes(b"")
    error = refused(path, "empty")
    str(error).encode("utf-8")


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"\0" * 1000, "not a picture"),
        (b"hello\n" * 100, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "not a picture"),
        (b"%PDF-1.4\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not a picture"),
        (png(0, 5, 8, 2, b""), "not a picture|has size|damaged"),
        (png(9, 9, 8, 2, b"\0" * 20), "damaged"),
        (png(9, 9, 8, 2, bytes(range(252)))[:90], "damaged"),
    ],
)
def test_files_that_are_no_picture(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    refused(tmp_path / "a.jpg", match)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "TGA", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated_files(tmp_path: Path, fmt: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, fmt)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "damaged|not a picture")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_corrupt_tiff_is_silent(tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Libtiff writes to standard error by itself."""
    path = tmp_path / "a.tif"
    Image.fromarray(photo()).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[rng.integers(8, len(data))] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read(path)
        except InputError as error:
            one_line(error)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "SGI", "PCX"])
def test_corrupt_files_never_leak(tmp_path: Path, fmt: str) -> None:
    path = tmp_path / "a"
    Image.fromarray(photo()).save(path, fmt)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, min(len(data), 300), 4):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                io.read_image(path, max_pixels=1_000_000)
            except InputError as error:
                one_line(error)


def test_special_files(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "named pipe")
    refused("/dev/zero", "is a device")
    refused(tmp_path / "missing.jpg", "does not exist")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "a.jpg", "does not exist")
    (tmp_path / "broken").symlink_to(tmp_path / "gone.jpg")
    refused(tmp_path / "broken", "link to .*gone.jpg, which is missing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "leads back to itself")
    refused("a\0b.jpg", "null")
    refused("x" * 5000, "too long")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short}/s")  # a socket's path must be short
        refused(Path(short, "s"), "is a socket")


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that an ordinary user may enter; root, who may read all, becomes such a user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(action: Callable[[], object]) -> None:
    if os.geteuid() != 0:
        action()
        return
    os.seteuid(65534)
    try:
        action()
    finally:
        os.seteuid(0)


def test_unreadable_file_and_folder(nobody: Path) -> None:
    Image.fromarray(photo()).save(nobody / "a.png")
    (nobody / "a.png").chmod(0)
    (nobody / "closed").mkdir()
    (nobody / "closed" / "b.png").write_bytes(b"")
    (nobody / "closed").chmod(0)
    as_nobody(lambda: refused(nobody / "a.png", "permission denied"))
    as_nobody(lambda: refused(nobody / "closed" / "b.png", "permission denied"))

    def collect() -> None:
        items = io.collect_inputs([nobody])
        assert [item.path.name for item in items] == ["a.png", "closed"]
        assert items[0].error is None
        assert "permission denied" in str(items[1].error)

    as_nobody(collect)
    (nobody / "closed").chmod(0o755)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.b/c.jpg",
        "HTTPS://a.b/c.jpg",
        "ftp://a/b",
        "s3://a/b",
        "gs://a/b",
        "data:image/png;base64,AA",
        "file:///a",
    ],
)
def test_urls_and_stdin_are_refused_with_a_remedy(url: str) -> None:
    refused(url, "is a URL; download", UsageError)
    refused(Path(url), "is a URL; download", UsageError)
    refused("-", "standard input", UsageError)
    refused("", "empty path", UsageError)


def test_a_file_may_be_called_like_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data:a.png", "-"):
        Image.fromarray(photo()).save(name, "PNG")
        assert np.array_equal(read(Path(name)), photo())


@pytest.mark.parametrize("source", [None, 3, b"bytes", [1], {}])
def test_no_picture_source(source: object) -> None:
    refused(source, "is not a picture source", UsageError)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- size and memory


def test_limit_on_pixels(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", Image.fromarray(photo()), photo(), torch.from_numpy(photo())):
        assert io.read_image(source, max_pixels=1200).rgb.shape == (30, 40, 3)
        with pytest.raises(InputError, match=r"40 x 30 = 1,200 pixels.*limit of 1,199.*--max-pixels 1200") as caught:
            io.read_image(source, max_pixels=1199)
        one_line(caught.value)
    with pytest.raises(UsageError, match="max_pixels"):
        io.read_image(photo(), max_pixels=0)


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path, fmt: str) -> None:
    heads = {
        "PNG": png(60000, 60000, 8, 0, b"\0"),
        "GIF": b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + b"\0\0\0\xff\xff\xff"
        + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "BMP": b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        "PPM": b"P6 60000 60000 255\n" + b"\0" * 10,
    }
    if fmt == "TIFF":
        data = tiff16_rgb(np.zeros((1, 1, 3), np.uint16)).replace(
            struct.pack("<HHII", 256, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, 4_000_000_000)
        )
    else:
        data = heads[fmt]
    (tmp_path / "bomb").write_bytes(data)
    limit = Image.MAX_IMAGE_PIXELS
    refused(tmp_path / "bomb", "above the limit of 120,000,000")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_hundred_megapixels_in_bounded_memory(tmp_path: Path) -> None:
    Image.new("LA", (10000, 10000), (7, 255)).save(tmp_path / "big.tif", compression="tiff_lzw")
    code = (
        "import re, sys, warnings\n"
        "from pathlib import Path\n"
        "warnings.simplefilter('error')\n"
        "from deixis import io\n"
        "loaded = io.read_image(sys.argv[1])\n"
        "assert loaded.rgb.shape == (10000, 10000, 3) and (loaded.rgb[::999, ::999] == 7).all()\n"
        # Not getrusage: its peak includes that of the process which started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.tif")], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert int(result.stdout) < 1100  # MiB: Pillow's copy, ours, and a strip


def test_reading_in_threads(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    limit, filters, results = Image.MAX_IMAGE_PIXELS, list(warnings.filters), []
    threads = [
        threading.Thread(target=lambda: results.append(io.read_image(tmp_path / "a.png").rgb)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    assert all(np.array_equal(rgb, photo()) for rgb in results)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


# -------------------------------------------------------------------------------- arrays and tensors


def test_arrays_and_tensors_agree() -> None:
    rgb = photo()
    floats = rgb.astype(np.float32) / 255
    opaque = np.dstack([rgb, np.full((30, 40), 255, np.uint8)])
    tensor = torch.from_numpy(rgb.copy())
    sources: list[io.ImageSource] = [
        rgb,
        rgb[:, ::-1][:, ::-1],
        np.asfortranarray(rgb),
        floats,
        floats.astype(np.float64),
        opaque,
        tensor,
        tensor.permute(2, 0, 1),
        tensor.permute(2, 0, 1) / 255,
        (tensor / 255).requires_grad_(),
        torch.from_numpy(opaque).permute(2, 0, 1),
        Image.fromarray(rgb),
    ]
    for source in sources:
        assert np.array_equal(read(source), rgb)
    assert np.abs(read(torch.from_numpy(floats).bfloat16()).astype(int) - rgb).max() <= 1
    assert np.abs(read(floats.astype(np.float16)).astype(int) - rgb).max() <= 1


def test_gray_bool_and_transparent_arrays() -> None:
    gray = photo()[..., 0]
    for source in (gray, gray[..., None], torch.from_numpy(gray[None].copy()), gray / np.float32(255)):
        assert np.array_equal(read(source), np.repeat(gray[..., None], 3, axis=2))
    assert read(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (read(clear) == 255).all()
    assert read(np.float32([[1.0005, -0.0005]])).tolist() == [[[255] * 3, [0] * 3]]


def test_the_result_is_a_copy() -> None:
    rgb = photo()
    io.read_image(rgb).rgb[:] = 0
    assert np.array_equal(rgb, photo())


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "infinite"),
        (np.full((4, 4, 3), 200, np.float32), "not 0 to 1; divide by 255"),
        (np.full((4, 4, 3), -0.5, np.float32), r"not 0 to 1; scale them"),
        (np.zeros((4, 4, 3), np.uint16), "type uint16"),
        (np.zeros((4, 4, 3), np.int64), "type int64"),
        (np.zeros((4, 4, 3), np.complex64), "type complex64"),
        (np.zeros((4, 4, 3), object), "type object"),
        (np.zeros((3, 40, 50), np.uint8), r"shape \(3, 40, 50\); move the channels last"),
        (np.zeros((40, 50, 2), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixel"),
        (torch.zeros(2, 3, 4, 4), "pass one image"),
        (torch.zeros(4, 4, 3, dtype=torch.int32), "type int32"),
        (torch.full((3, 4, 4), torch.nan), "NaN"),
        (torch.zeros(7, 4, 5), "shape"),
    ],
)
def test_arrays_that_are_no_picture(array: io.ImageSource, match: str) -> None:
    refused(array, match)


def test_closed_and_truncated_pillow_images(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    refused(closed, "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:-60])
    refused(Image.open(tmp_path / "b.png"), "b.png.*damaged")


# ---------------------------------------------------------------------------------- inputs of a run


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(items: list[io.InputItem]) -> dict[str, str]:
    return {item.path.name: item.name for item in items}


def test_a_folder_is_walked_and_everything_in_it_accounted_for(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "sub/c.PNG", "sub/deep/d.tif", ".DS_Store", "notes.txt", ".hidden/e.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken.jpg").symlink_to("gone")
    (tmp_path / "self").symlink_to("self")
    items = io.collect_inputs([tmp_path])
    assert [item.name for item in items] == [
        ".DS_Store", ".hidden/e", "a", "b", "broken", "notes.txt", "pipe", "self", "sub/c", "sub/deep/d",
    ]  # fmt: skip
    assert all(item.error is None for item in items)
    for item in items:
        with pytest.raises(InputError):
            io.read_image(item.path)


def test_files_keep_the_order_given_and_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "z.jpg", "folder/a.jpg", "folder/b.jpg")
    monkeypatch.chdir(tmp_path)
    items = io.collect_inputs(["z.jpg", "folder", Path("folder/b.jpg"), tmp_path / "z.jpg", "./z.jpg"])
    assert [item.name for item in items] == ["z", "a", "b"]
    assert [item.name for item in io.collect_inputs(["."])] == ["folder/a", "folder/b", "z"]


def test_links_that_form_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert [item.name for item in io.collect_inputs([tmp_path])] == ["a/x", "b/y"]


def test_the_output_folder_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "out/a.depth.png", "out/a.json", "sub/out/b.jpg")
    items = io.collect_inputs([tmp_path], exclude=tmp_path / "sub" / ".." / "out")
    assert [item.name for item in items] == ["a", "sub/out/b"]
    (same,) = io.collect_inputs([tmp_path], exclude=tmp_path)
    assert isinstance(same.error, UsageError)
    assert len(io.collect_inputs([tmp_path], exclude=tmp_path / "missing")) == 4
    assert len(io.collect_inputs([tmp_path / "sub"], exclude=tmp_path)) == 1


def test_missing_empty_and_impossible_inputs_do_not_stop_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "gone.jpg", tmp_path / "empty", "https://a.b/c.jpg", "-", "a\0b", tmp_path / "a.jpg"]
    items = io.collect_inputs(given)
    assert [item.error is None for item in items] == [False] * 5 + [True]
    for item, match in zip(items, ["does not exist", "holds no files", "URL", "standard input", "null"], strict=False):
        assert item.error is not None
        one_line(item.error)
        assert match in str(item.error)
    assert items[-1].name == "a"
    assert io.collect_inputs([]) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["A.jpg", "a.jpg", "a.png"], ["A.jpg-1", "a.jpg-2", "a.png"]),
        (["a.jpg", "a.txt", "a.json"], ["a", "a.json", "a.txt"]),
        (["a", "a.jpg"], ["a", "a.jpg"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.jpg.png", "a.png"]),
        (["A.jpg", "a.jpg", "a.jpg-1", "a.jpg-1.png"], ["A.jpg-2", "a.jpg-3", "a.jpg-1", "a.jpg-1.png"]),
        (["sub/a.jpg", "sub/a.png", "a.jpg"], ["a", "sub/a.jpg", "sub/a.png"]),
        (["caf\u00e9.jpg", "cafe\u0301.png"], ["cafe\u0301.png", "caf\u00e9.jpg"]),
        ([".jpg", "..jpg", "x..jpg"], ["..jpg", ".jpg", "x."]),
    ],
)
def test_output_names_are_unique(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    touch(tmp_path, *files)
    if len(list(tmp_path.rglob("*.*"))) < len([name for name in files if "." in name]):
        pytest.skip("this file system ignores case")
    found = [item.name for item in io.collect_inputs([tmp_path])]
    assert len({name.casefold() for name in found}) == len(files)
    if files[0] != ".jpg":
        assert found == expected


def test_same_names_from_two_folders(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg")
    items = io.collect_inputs([tmp_path / "one", tmp_path / "two"])
    assert [item.name for item in items] == ["a.jpg-1", "a.jpg-2", "b"]


# -------------------------------------------------------------------------------------------- writing


def depth_map(kind: DepthKind, values: np.ndarray, camera: Camera | None = None) -> Depth:
    return Depth(values.astype(np.float32), kind, WORDS, "test-model", camera, 0.25)


@pytest.mark.parametrize("kind", ["metric", "affine", "disparity"])
def test_depth_round_trip(tmp_path: Path, kind: DepthKind) -> None:
    camera = Camera.from_fov(60, 40, 30)
    depth = depth_map(kind, np.random.default_rng(0).random((30, 40)), camera)
    files = io.save_depth(depth, tmp_path / "new" / "out", "sub/Küche a.b")
    assert [file.name for file in files] == [
        f"Küche a.b{s}" for s in (".depth.npy", ".depth.png", ".preview.png", ".json")
    ]
    assert sorted(tmp_path.rglob("*.*")) == sorted(files)
    for source in (files[0], str(files[3])):
        back = io.load_depth(source)
        assert np.array_equal(back.values, depth.values)
        assert (back.kind, back.text, back.model, back.camera, back.seconds) == (
            kind,
            WORDS,
            "test-model",
            camera,
            0.25,
        )
    data = json.loads(files[3].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (data["unit"], data["width"], data["height"]) == ("m" if kind == "metric" else None, 40, 30)
    assert data["min"] == pytest.approx(float(depth.values.min()))
    assert data["max"] == pytest.approx(float(depth.values.max()))
    with Image.open(files[1]) as stored:
        assert stored.mode.startswith("I")
        assert float(stored.text["scale"]) == data["png"]["scale"]
        assert stored.text["kind"] == kind
        codes = np.asarray(stored).astype(np.float64)
    limit = 0.5 if kind != "metric" else 1.0  # a metre below half a millimetre is still not 0
    assert np.abs(codes * data["png"]["scale"] - depth.values).max() <= limit * data["png"]["scale"] + 1e-7
    assert data["png"]["invalid"] == (0 if kind == "metric" else None)


@pytest.mark.parametrize(
    ("farthest", "scale"),
    [(65.535, 0.001), (65.54, 1 / 256), (255.9, 1 / 256), (256.5, 1 / 128), (70000.0, 2.0)],
)
def test_step_of_metric_pngs(tmp_path: Path, farthest: float, scale: float) -> None:
    files = io.save_depth(depth_map("metric", np.array([[1.0, farthest]])), tmp_path, "a")
    assert json.loads(files[3].read_text())["png"]["scale"] == scale
    codes = np.asarray(Image.open(files[1])).astype(float)
    assert np.abs(codes * scale - [1.0, farthest]).max() <= max(scale, 1e-3)


def test_zero_in_a_metric_png_means_no_depth_and_nothing_else(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, 0, -1], [1e-9, 0.0004, 0.001, 2]])
    files = io.save_depth(depth_map("metric", values), tmp_path, "a")
    assert np.asarray(Image.open(files[1])).tolist() == [[0, 0, 0, 0], [1, 1, 1, 2000]]
    data = json.loads(files[3].read_text(), parse_constant=pytest.fail)
    assert (data["min"], data["max"]) == (pytest.approx(1e-9), 2)


def test_zero_in_a_relative_png_is_a_value(tmp_path: Path) -> None:
    files = io.save_depth(depth_map("affine", np.array([[0, 1, 0.5, -0.1, 1.2]])), tmp_path, "a")
    assert np.asarray(Image.open(files[1])).tolist() == [[0, 65535, 32768, 0, 65535]]


@pytest.mark.parametrize(("kind", "values"), [("metric", [[np.nan, 0]]), ("affine", [[0.5, np.nan]])])
def test_maps_without_values_are_not_saved(tmp_path: Path, kind: DepthKind, values: list[list[float]]) -> None:
    with pytest.raises(DeixisError, match="have no value") as caught:
        io.save_depth(depth_map(kind, np.array(values)), tmp_path, "a")
    one_line(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_map_without_an_ensemble_leaves_no_older_uncertainty(tmp_path: Path) -> None:
    plain = depth_map("affine", np.array([[0, 0.5, 1]]))
    spread = np.array([[0.1, 0.2, 0.3]], np.float32)
    files = io.save_depth(replace(plain, uncertainty=spread), tmp_path, "a")
    assert tmp_path / "a.uncertainty.npy" in files
    assert np.array_equal(io.load_depth(tmp_path / "a.json").uncertainty, spread)
    np.save(tmp_path / "a.uncertainty.npy", spread.T)
    with pytest.raises(InputError, match=r"no saved depth map \(a\.uncertainty\.npy has shape \(3, 1\)"):
        io.load_depth(tmp_path / "a.json")
    io.save_depth(plain, tmp_path, "b")
    assert (tmp_path / "a.uncertainty.npy").is_file()
    files = io.save_depth(plain, tmp_path, "a")
    assert sorted(tmp_path.glob("a.*")) == sorted(files)
    (tmp_path / "b.uncertainty.npy").mkdir()
    with pytest.raises(DeixisError, match=r"b\.uncertainty\.npy: cannot be written"):
        io.save_depth(plain, tmp_path, "b")


def test_loading_what_is_no_depth_map(tmp_path: Path) -> None:
    files = io.save_depth(depth_map("metric", np.ones((3, 4))), tmp_path, "a")
    with pytest.raises(UsageError, match="no saved depth map"):
        io.load_depth(files[1])
    with pytest.raises(InputError, match="does not exist"):
        io.load_depth(tmp_path / "b.json")
    good = files[3].read_text()
    bad = [
        "",
        "[]",
        "{}",
        "null",
        good.replace('"metric"', '"other"'),
        good.replace('"width": 4', '"width": 5'),
        "\xff",
    ]
    for text in bad:
        files[3].write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match="no saved depth map") as caught:
            io.load_depth(files[0])
        one_line(caught.value)
    files[3].write_text(good)
    for data in (b"", b"garbage", files[0].read_bytes()[:140]):
        files[0].write_bytes(data)
        with pytest.raises(InputError, match="no saved depth map"):
            io.load_depth(files[3])
    files[0].unlink()
    with pytest.raises(InputError, match="does not exist"):
        io.load_depth(files[3])


def mask_of(shape: tuple[int, int], *, found: bool = True) -> Mask:
    pixels = np.zeros(shape, dtype=np.bool_)
    pixels[2:5, 3:9] = found
    return Mask(pixels, pixels.astype(np.float32), 0.75, found, Text("красный стул", "user"), "test-model", 0.1)


@pytest.mark.parametrize("index", [None, 1, 2])
@pytest.mark.parametrize("found", [True, False])
def test_mask_files(tmp_path: Path, index: int | None, found: bool) -> None:
    files = io.save_mask(mask_of((30, 40), found=found), tmp_path, "sub/a", photo(), index)
    stem = "a" if index is None else f"a.{index}"
    assert [file.name for file in files] == [f"{stem}.mask.png", f"{stem}.overlay.png", f"{stem}.mask.json"]
    with Image.open(files[0]) as stored:
        assert stored.mode == "L"
        assert np.array_equal(np.asarray(stored), mask_of((30, 40), found=found).mask * 255)
    data = json.loads(files[2].read_text(encoding="utf-8"))
    assert data["expression"] == "красный стул"
    assert data["box"] == ([3, 2, 9, 5] if found else None)
    assert (data["found"], data["area"], data["score"]) == (found, 18 if found else 0, 0.75)
    assert data["text"]["provenance"] == "user"


def test_answer_files(tmp_path: Path) -> None:
    distance = {"median": 2.31, "p10": 2.2, "p90": 2.52}
    referent = Referent("the red chair", True, distance, (0.1, 0.2, 2.3), mask_of((30, 40)))
    answer = Answer("how far is it?", (referent,), depth_map("metric", np.ones((30, 40))))
    picture, sidecar = io.save_answer(answer, tmp_path, "a", photo())
    assert json.loads(sidecar.read_text())["distance_m"] == distance
    assert Image.open(picture).width > 300


def test_png16_text(tmp_path: Path) -> None:
    values = np.array([[0, 1, 65535]], dtype=np.uint16)
    io.write_png16(tmp_path / "a.png", values, {"scale": "0.001", "note": "глубина"})
    with Image.open(tmp_path / "a.png") as stored:
        assert np.array_equal(np.asarray(stored), values)
        assert stored.text == {"scale": "0.001", "note": "глубина"}


def test_json_is_strict_and_takes_any_name(tmp_path: Path) -> None:
    io.write_json(tmp_path / "a.json", {"name": "台所 \udcff", "x": 1.5})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "台所 \udcff", "x": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(tmp_path / "a.json", {"x": float("nan")})


def test_pictures_by_suffix(tmp_path: Path) -> None:
    for name, fmt in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")):
        io.write_image(tmp_path / name, Image.fromarray(photo()))
        assert Image.open(tmp_path / name).format == fmt


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        io.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A file size limit of the process stands in for a full disk."""
    io.write_npy(tmp_path / "a.npy", np.zeros(3))
    old = (tmp_path / "a.npy").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = np.random.default_rng(0).integers(0, 65536, (400, 400), dtype=np.uint16)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        for write in (
            lambda: io.write_npy(tmp_path / "a.npy", large),
            lambda: io.write_png16(tmp_path / "a.png", large, {}),
            lambda: io.write_text(tmp_path / "a.txt", "x" * 100_000),
            lambda: io.write_image(tmp_path / "b.png", Image.fromarray(large)),
        ):
            with pytest.raises(DeixisError, match="free space on the disk") as caught:
                write()
            one_line(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_bytes() == old


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with io._replacing(tmp_path / "a.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_places_that_take_no_file(nobody: Path) -> None:
    (nobody / "file").write_text("x")
    (nobody / "taken.txt").mkdir()
    cases = {
        nobody / "file" / "a.txt": "in its place",
        nobody / "taken.txt": "in its place",
        nobody / ("x" * 300 + ".txt"): "name is too long",
    }
    for path, match in cases.items():
        with pytest.raises(DeixisError, match=match) as caught:
            io.write_text(path, "x")
        one_line(caught.value)

    def forbidden() -> None:
        with pytest.raises(DeixisError, match="no permission"):
            io.write_text(nobody / "a.txt", "x")
        with pytest.raises(DeixisError, match="no permission"):
            io.write_text(nobody / "new" / "a.txt", "x")

    nobody.chmod(0o555)
    as_nobody(forbidden)
    nobody.chmod(0o755)
    assert sorted(path.name for path in nobody.iterdir()) == ["file", "taken.txt"]


def test_write_error_names_the_reason() -> None:
    error = io._write_error(Path("a"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert re.search("No space left.*free space", str(error))


# --------------------------------------------------------------------------------------- export extra


def test_exr(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    values = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    io.write_exr(tmp_path / "sub" / "a.exr", values)
    stored = openexr.File(str(tmp_path / "sub" / "a.exr"))
    assert np.array_equal(stored.channels()["Z"].pixels, values)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.exr"]


@pytest.mark.parametrize(("write", "sign"), [(io.write_ply, 1), (io.write_glb, -1)])
def test_point_clouds(tmp_path: Path, write: Callable[..., None], sign: int) -> None:
    trimesh = pytest.importorskip("trimesh")
    points = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    colors = np.random.default_rng(1).integers(0, 256, (50, 3), dtype=np.uint8)
    path = tmp_path / f"a.{write.__name__.removeprefix('write_')}"
    write(path, points, colors)
    (cloud,) = trimesh.load_scene(path).geometry.values()
    assert np.allclose(cloud.vertices, points * [1, sign, sign])
    assert np.array_equal(np.asarray(cloud.visual.vertex_colors)[:, :3], colors)


def test_missing_export_library() -> None:
    with pytest.raises(UsageError, match=r"not installed; run pip install 'deixis\[export\]'"):
        io._export_library("no_such_library_here")


# --------------------------------------------------------------------------------- names and places of outputs


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jpg", "a"),
        ("sub/a.JPEG", "sub/a"),
        ("a.b.png", "a.b"),
        ("a.2024", "a.2024"),
        ("a", "a"),
        (".jpg", ".jpg"),
        ("寝室.webp", "寝室"),
    ],
)
def test_output_name(path: str, name: str) -> None:
    assert io.output_name(path) == name


def test_places_for_outputs_are_checked_and_not_made(tmp_path: Path) -> None:
    io.check_out(tmp_path)
    io.check_out(tmp_path / "deep/er")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder; choose another --out"):
        io.check_out(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be made"):
        io.check_out(tmp_path / "file/deep")
    with pytest.raises(UsageError, match=r"a name in it is too long\); choose another --out"):
        io.check_out(tmp_path / ("n" * 256) / "deep")


def test_a_place_for_outputs_without_permission(nobody: Path) -> None:
    (nobody / "locked").mkdir()
    (nobody / "locked").chmod(0o555)

    def check() -> None:
        with pytest.raises(UsageError, match="no permission in"):
            io.check_out(nobody / "locked/deep")

    as_nobody(check)


@pytest.mark.parametrize("length", [244, 246, 251])
def test_names_that_do_not_fit_leave_nothing_behind(tmp_path: Path, length: int) -> None:
    name = "x" * length
    with pytest.raises(DeixisError, match="the name is too long"):
        io.save_depth(depth_map("metric", np.ones((2, 2), np.float32)), tmp_path, name)
    with pytest.raises(DeixisError, match="the name is too long"):
        io.save_mask(mask_of((2, 2)), tmp_path, name, photo(2, 2))
    assert list(tmp_path.iterdir()) == []
