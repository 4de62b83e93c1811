"""A folder of pictures and other files as people have them, with what a run over it owes to each.

``python -m tests.awkward FOLDER [--large]`` writes it for a look by hand.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, features

Size = tuple[int, int]
DONE, REFUSED, EITHER = "done", "refused", "either"


@dataclass(frozen=True)
class Owed:
    """What a run owes to a file.

    Attributes:
        outcome: ``done``, ``refused`` with a reason, or ``either``.
        size: (width, height) of the upright picture, if it is done; None if that is not checked.
    """

    outcome: str
    size: Size | None = None


def photo(width: int = 40, height: int = 30) -> Image.Image:
    """Smooth colours, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x / max(width - 1, 1), y / max(height - 1, 1), (x + y) / max(width + height - 2, 1)]
    return Image.fromarray(np.stack([40 + 170 * channel for channel in channels], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    """The picture as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, format=fmt, **options)
    return buffer.getvalue()


def exif(**tags: Any) -> Image.Exif:
    """EXIF by tag name; those of the Exif directory go there."""
    block = Image.Exif()
    inner = block.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        place = block if name in ("Orientation", "Make", "ImageDescription") else inner
        place[getattr(ExifTags.Base, name)] = value
    return block


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


class Folder:
    """The folder while it is being filled.

    Attributes:
        root: where it lies.
        owed: what is owed to each file, by its path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owed: dict[Path, Owed] = {}
        root.mkdir(parents=True)

    def add(self, name: str | bytes, data: bytes, outcome: str = DONE, size: Size | None = (40, 30)) -> Path:
        """Write a file."""
        path = self.root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.owed[path] = Owed(outcome, size if outcome == DONE else None)
        return path

    def special(self, name: str, make: Callable[[Path], object], outcome: str, size: Size | None = None) -> None:
        """Something that is no plain file, where this system has it."""
        path = self.root / name
        try:
            make(path)
        except (OSError, AttributeError, NotImplementedError):
            return
        self.owed[path] = Owed(outcome, size)


def fill(root: Path, *, large: bool = False) -> dict[Path, Owed]:
    """Make the folder ``root``; returns what is owed to each file in it.

    Args:
        root: must not exist.
        large: with pictures of up to 100 megapixels as well.
    """
    folder = Folder(root)
    _formats(folder)
    _modes(folder)
    _orientations(folder)
    _sizes(folder, large)
    _names(folder)
    _animations(folder)
    _metadata(folder)
    _damaged(folder)
    _no_pictures(folder)
    _special_files(folder)
    return folder.owed


def _formats(folder: Folder) -> None:
    image = photo()
    for suffix, fmt in {
        "jpg": "JPEG",
        "jpeg": "JPEG",
        "JPG": "JPEG",
        "jfif": "JPEG",
        "png": "PNG",
        "bmp": "BMP",
        "dib": "DIB",
        "gif": "GIF",
        "tif": "TIFF",
        "tiff": "TIFF",
        "webp": "WEBP",
        "ppm": "PPM",
        "tga": "TGA",
        "pcx": "PCX",
        "sgi": "SGI",
    }.items():
        folder.add(f"formats/plain-{suffix}.{suffix}", encoded(image, fmt))
    if features.check("jpg_2000"):
        folder.add("formats/plain.jp2", encoded(image, "JPEG2000"))
    if features.check("avif"):
        folder.add("formats/plain.avif", encoded(image, "AVIF"))
    folder.add("formats/progressive.jpg", encoded(image, "JPEG", progressive=True))
    folder.add("formats/quality-1.jpg", encoded(image, "JPEG", quality=1))
    folder.add("formats/full-colour.jpg", encoded(image, "JPEG", subsampling=0))
    folder.add("formats/lossless.webp", encoded(image, "WEBP", lossless=True))
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "raw"):
        folder.add(f"formats/{compression}.tif", encoded(image, "TIFF", compression=compression))
    folder.add("formats/group4.tif", encoded(image.convert("1"), "TIFF", compression="group4"))
    folder.add("formats/big.tif", encoded(image, "TIFF", big_tiff=True))
    # The content decides, not the name.
    folder.add("formats/png-named.jpg", encoded(image, "PNG"))
    folder.add("formats/jpg-named.txt", encoded(image, "JPEG"))
    folder.add("formats/jpg-without-extension", encoded(image, "JPEG"))
    # Formats that start other programs, hold many pictures or none.
    folder.add("formats/icon.ico", encoded(image, "ICO"), REFUSED)
    folder.add("formats/print.eps", encoded(image, "EPS"), REFUSED)
    folder.add("formats/page.pdf", encoded(image, "PDF"), REFUSED)
    folder.add("formats/drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', REFUSED)
    folder.add("formats/phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), REFUSED)


def _modes(folder: Folder) -> None:
    image = photo()
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    for mode in ("1", "L", "P"):
        folder.add(f"modes/{mode}.png", encoded(image.convert(mode), "PNG"))
    folder.add("modes/RGBA.png", encoded(alpha, "PNG"))
    folder.add("modes/LA.png", encoded(alpha.convert("LA"), "PNG"))
    folder.add("modes/transparent.png", encoded(Image.new("RGBA", (40, 30)), "PNG"))
    folder.add("modes/palette-index.png", encoded(image.convert("P"), "PNG", transparency=3))
    folder.add("modes/palette-bytes.png", encoded(image.convert("P"), "PNG", transparency=bytes(range(256))))
    folder.add("modes/colour-key.png", encoded(image, "PNG", transparency=(40, 40, 40)))
    gray16 = np.linspace(0, 65535, 1200, dtype=np.uint16).reshape(30, 40)
    folder.add("modes/gray16.png", encoded(Image.fromarray(gray16), "PNG"))
    for colour, channels in ((2, 3), (6, 4)):
        pixels = np.repeat(gray16[..., None], channels, axis=2).astype(">u2")
        folder.add(
            f"modes/rgb16-{channels}.png", png(40, 30, 16, colour, b"".join(b"\0" + r.tobytes() for r in pixels))
        )
    folder.add("modes/L.jpg", encoded(image.convert("L"), "JPEG"))
    folder.add("modes/CMYK.jpg", encoded(image.convert("CMYK"), "JPEG"))
    folder.add("modes/CMYK.tif", encoded(image.convert("CMYK"), "TIFF"))
    folder.add("modes/LAB.tif", encoded(image.convert("LAB"), "TIFF"))
    folder.add("modes/YCbCr.tif", encoded(image.convert("YCbCr"), "TIFF"))
    folder.add("modes/RGBA.tif", encoded(alpha, "TIFF"))
    folder.add("modes/RGBA.webp", encoded(alpha, "WEBP"))
    folder.add("modes/gray16.tif", encoded(Image.fromarray(gray16), "TIFF"))
    folder.add("modes/int32.tif", encoded(Image.fromarray(gray16.astype(np.int32) - 9000), "TIFF"))
    floats = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    folder.add("modes/float.tif", encoded(Image.fromarray(floats), "TIFF"))
    folder.add("modes/float-wide.tif", encoded(Image.fromarray(5000 * floats - 700), "TIFF"))
    folder.add("modes/float.pfm", encoded(Image.fromarray(floats), "PPM"), EITHER)
    floats[3, 4] = np.nan
    folder.add("modes/float-nan.tif", encoded(Image.fromarray(floats), "TIFF"), REFUSED)
    folder.add("modes/black.png", encoded(Image.new("RGB", (40, 30)), "PNG"))
    folder.add("modes/one-colour.jpg", encoded(Image.new("RGB", (40, 30), "orange"), "JPEG"))


def _orientations(folder: Folder) -> None:
    for orientation in (0, *range(1, 10), 77):
        size = (30, 40) if orientation in (5, 6, 7, 8) else (40, 30)
        tag = exif(Orientation=orientation)
        folder.add(f"turned/{orientation}.jpg", encoded(photo(), "JPEG", exif=tag), size=size)
    for fmt in ("PNG", "TIFF", "WEBP"):
        data = encoded(photo(), fmt, exif=exif(Orientation=6).tobytes())
        folder.add(f"turned/6.{fmt.lower()}", data, size=(30, 40))


def _sizes(folder: Folder, large: bool) -> None:
    sizes = [(1, 1), (1, 2), (2, 1), (3, 3), (1, 5000), (5000, 1), (63, 65), (1200, 60), (640, 480)]
    if large:
        sizes += [(20000, 3), (3, 20000), (65000, 2), (8000, 1000), (4000, 3000)]
    for width, height in sizes:
        folder.add(f"sizes/{width}x{height}.png", encoded(photo(width, height), "PNG"), size=(width, height))
    if large:
        big = Image.new("RGB", (10000, 10000), "teal")
        folder.add("sizes/100-megapixels.jpg", encoded(big, "JPEG"), size=(10000, 10000))
        folder.add("sizes/144-megapixels.png", encoded(Image.new("L", (12000, 12000)), "PNG"), REFUSED)
    # Few bytes that claim to be many pixels.
    folder.add("sizes/bomb.png", png(100_000, 100_000, 8, 2, bytes(1000)), REFUSED)
    folder.add("sizes/no-width.png", png(0, 30, 8, 2, b""), REFUSED)


def _names(folder: Folder) -> None:
    data = encoded(photo(), "JPEG")
    for name in (
        "with space.jpg",
        " leading and trailing .jpg",
        "tab\tin it.jpg",
        "line\nend.jpg",
        "-dash.jpg",
        "--help.jpg",
        "спальня.jpg",
        "寝室.jpg",
        "غرفة.jpg",
        "🛏️ bed.jpg",
        "cafe\u0301.jpg",
        "café.jpg",
        "'quotes' \"both\".jpg",
        "100%.jpg",
        "back\\slash.jpg",
        "[red]markup[/red].jpg",
        "dot.at.end.jpg.",
        "two.ends.tar.jpg",
        ".hidden.jpg",
        ".jpg",
        "CON.jpg",
        "$HOME `ls`;rm.jpg",
        "*.jpg",
        "x" * 200 + ".jpg",
    ):
        folder.add(f"names/{name}", data)
    for length in (244, 246):  # no room for .preview.png, and none for .depth.npy either
        folder.add("names/" + "y" * length + ".jpg", data, REFUSED)
    folder.add(b"names/\xff\xfe bytes.jpg", data)
    # Stems that would be one: an extension each, or a number.
    for name in ("same.jpg", "same.jpeg", "same.png", "Same.jpg", "SAME.JPG", "same"):
        folder.add(f"same/{name}", data)
    folder.add("same/deeper/same.jpg", data)
    folder.add("same/same.depth.png", data)  # named as an output is


def _animations(folder: Folder) -> None:
    frames = [photo(), photo().rotate(180), photo().rotate(90)]
    for fmt, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "apng"), ("TIFF", "tif")):
        data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
        folder.add(f"moving/many.{suffix}", data)
    pages = [photo(), photo(90, 20)]
    folder.add("moving/pages.tiff", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    folder.add("moving/still.gif", encoded(photo().convert("P"), "GIF", transparency=0, interlace=1))
    folder.add("moving/two.mpo", encoded(frames[0], "MPO", save_all=True, append_images=frames[1:2]))


def _metadata(folder: Folder) -> None:
    image = photo()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    folder.add("metadata/srgb.jpg", encoded(image, "JPEG", icc_profile=srgb))
    folder.add("metadata/broken-profile.jpg", encoded(image, "JPEG", icc_profile=b"no profile" * 50))
    folder.add("metadata/broken-profile.png", encoded(image, "PNG", icc_profile=b"no profile"))
    folder.add("metadata/comment.jpg", encoded(image, "JPEG", comment=b"x" * 60000))
    folder.add("metadata/no-exif.jpg", encoded(image, "JPEG", exif=b"Exif\0\0nonsense" * 20))
    folder.add("metadata/cut-exif.jpg", encoded(image, "JPEG", exif=exif(Orientation=1, Make="x" * 99).tobytes()[:40]))
    folder.add("metadata/focal-zero.jpg", encoded(image, "JPEG", exif=exif(FocalLength=(0, 0))))
    folder.add("metadata/focal-35.jpg", encoded(image, "JPEG", exif=exif(FocalLengthIn35mmFilm=28)))
    folder.add("metadata/orientation-text.jpg", encoded(image, "JPEG", exif=exif(ImageDescription="a\0b\n\udcff"[:3])))


def _damaged(folder: Folder) -> None:
    image = photo(200, 150)
    for fmt, suffix in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
    ):
        data = encoded(image, fmt)
        for share in (0.02, 0.5, 0.9):
            folder.add(f"damaged/{suffix}-{share:.0%}.{suffix}", data[: max(4, int(len(data) * share))], REFUSED)
    data = encoded(image, "JPEG")
    folder.add("damaged/without-end.jpg", data[:-2], EITHER)
    folder.add("damaged/more-after-the-end.jpg", data + b"more" * 100, size=(200, 150))
    noise = bytearray(data)
    noise[len(data) // 2 : len(data) // 2 + 40] = b"\xff\xd9" * 20
    folder.add("damaged/overwritten.jpg", bytes(noise), EITHER)
    data = encoded(image, "PNG")
    folder.add("damaged/wrong-sum.png", data[:60] + bytes([data[60] ^ 255]) + data[61:], EITHER)
    folder.add("damaged/zero-bytes.jpg", b"", REFUSED)
    folder.add("damaged/zero-bytes.png", b"", REFUSED)
    folder.add("damaged/one-byte.jpg", b"\xff", REFUSED)
    folder.add("damaged/zeros.jpg", bytes(5000), REFUSED)
    folder.add("damaged/random.jpg", np.random.default_rng(0).bytes(5000), REFUSED)


def _no_pictures(folder: Folder) -> None:
    for name, data in {
        "text.jpg": b"This is no picture.\n",
        "page.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "README.md": b"# Holiday\n",
        "notes.txt": "Приве́т\n".encode(),
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(100),
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(100),
        "photo.json": b"{}",
        "photo.xmp": b"<x:xmpmeta/>",
        "clip.mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
        "archive.zip": b"PK\3\4" + bytes(100),
        "script.py": b"print(1)\n",
        "array.npy": b"\x93NUMPY\1\0" + bytes(100),
        "~$draft.docx": b"\x05user",
    }.items():
        folder.add(f"others/{name}", data, REFUSED)


def _special_files(folder: Folder) -> None:
    data = encoded(photo(), "JPEG")
    (folder.root / "special").mkdir()
    (folder.root / "special/empty").mkdir()
    folder.add("special/folder.jpg/inside.jpg", data)
    folder.add("special/target.jpg", data)
    folder.special("special/link.jpg", lambda path: path.symlink_to("target.jpg"), DONE, (40, 30))
    folder.special("special/broken-link.jpg", lambda path: path.symlink_to("missing.jpg"), REFUSED)
    folder.special("special/loop.jpg", lambda path: path.symlink_to("loop.jpg"), REFUSED)
    folder.special("special/device.jpg", lambda path: path.symlink_to("/dev/zero"), REFUSED)
    folder.special("special/pipe.jpg", os.mkfifo, REFUSED)
    # The name of a socket is short by law, so it is made from inside the folder.
    here = Path.cwd()
    try:
        os.chdir(folder.root / "special")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jpg")
        folder.owed[folder.root / "special/socket.jpg"] = Owed(REFUSED)
    except (OSError, AttributeError):
        pass
    finally:
        os.chdir(here)
    locked = folder.add("special/locked.jpg", data, EITHER)  # root may read it
    locked.chmod(0)
    # Links that lead back up: their folders are walked once.
    (folder.root / "special/up").symlink_to("..", target_is_directory=True)


if __name__ == "__main__":
    made = fill(Path(sys.argv[1]), large="--large" in sys.argv)
    print(f"{len(made)} files in {sys.argv[1]}")
