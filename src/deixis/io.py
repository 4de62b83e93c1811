"""Safe image reading, naming of outputs, and writing of results that appear whole or not at all."""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import logging
import os
import re
import secrets
import stat
import struct
import sys
import threading
import unicodedata
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from deixis.camera import Camera, exif_tags
from deixis.errors import DeixisError, InputError, UsageError
from deixis.types import RGB, Answer, Depth, FloatMap, Mask, Text

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = "str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | torch.Tensor"

DEFAULT_MAX_PIXELS = 120_000_000
"""Largest picture that is read unless the caller lifts the limit: a 100-megapixel camera with some room."""

MAX_NAME = 255
"""Longest file name of the usual file systems [bytes]."""

IMAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PCX": (".pcx",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}
"""Formats Pillow may try, and their extensions. EPS and PDF, which start other programs, and containers that
hide a picture of another size are left out. TGA has no signature and so comes last."""

IMAGE_SUFFIXES = frozenset(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)

_STRIP_PIXELS = 4_000_000
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+:/|data:|file:)", re.IGNORECASE)
_GRAY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_WIDE_GRAY = _GRAY_16 | {"I", "F"}
_SPECIAL_FILES = (
    (stat.S_ISDIR, "is a folder", "pass a picture in it; 'deixis depth' takes whole folders"),
    (stat.S_ISFIFO, "is a named pipe", "save the picture to a file and pass that"),
    (stat.S_ISSOCK, "is a socket", "save the picture to a file and pass that"),
    (stat.S_ISCHR, "is a device", "save the picture to a file and pass that"),
    (stat.S_ISBLK, "is a device", "save the picture to a file and pass that"),
)
# What Pillow's decoders are known to raise on damaged data.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_pillow_lock = threading.RLock()


# --------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A picture ready for a model.

    Attributes:
        rgb: uint8 [H, W, 3], upright, sRGB as stored, transparency laid on white.
        name: short label for messages.
        path: the file it came from, None for pictures in memory.
        camera: intrinsics of the upright picture according to EXIF, None where it does not tell.
    """

    rgb: RGB
    name: str
    path: Path | None
    camera: Camera | None


def read_image(source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> LoadedImage:
    """Read one picture, upright and as 8-bit RGB, whatever it is stored as.

    Args:
        source: a path, a PIL image, an array (uint8, bool, or float in [0, 1]; [H, W], [H, W, 3] or
            [H, W, 4]) or a tensor (the same, or channels first). Of animations and multi-page files the first
            picture is read.
        max_pixels: refuse larger pictures before decoding them.

    Returns:
        The picture, with its camera when EXIF tells the focal length.

    Raises:
        InputError: if the file or the values cannot be used as a picture.
        UsageError: for standard input, URLs, and things that are no picture source.
    """
    if max_pixels < 1:
        raise UsageError("max_pixels", f"is {max_pixels}", "give a number of pixels above 0")
    torch = sys.modules.get("torch")
    if isinstance(source, (str, os.PathLike)):
        return _read_path(source, max_pixels)
    if isinstance(source, Image.Image):
        return _read_pillow(source, max_pixels)
    if isinstance(source, np.ndarray):
        return _read_array(source, "image array", max_pixels)
    if torch is not None and isinstance(source, torch.Tensor):
        return _read_tensor(source, max_pixels)
    raise UsageError(
        f"image of type {type(source).__name__}",
        "is not a picture source",
        "pass a path, a PIL image, a numpy array or a torch tensor",
    )


def printable(path: object) -> str:
    """A file name for messages: control characters and undecodable bytes become question marks."""
    return "".join(c if c.isprintable() or c in " \u00a0\u3000" else "?" for c in str(path))


def _read_path(source: str | os.PathLike[str], max_pixels: int) -> LoadedImage:
    _refuse_stdin_and_urls(source)
    path = Path(source)
    label = printable(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _path_error(path, error) from error
    for is_kind, problem, remedy in _SPECIAL_FILES:
        # Opening a pipe or a device may block for ever.
        if is_kind(status.st_mode):
            raise InputError(label, problem, remedy)
    if status.st_size == 0:
        raise InputError(label, "is empty", "download or export it again")
    rgb, orientation, camera = _decode_file(path, label, max_pixels)
    return LoadedImage(rgb=_upright(rgb, orientation), name=label, path=path, camera=camera)


def _decode_file(path: Path, label: str, max_pixels: int) -> tuple[RGB, int, Camera | None]:
    """Pixels as stored, EXIF orientation, camera. Pillow's own copy is freed on return."""
    with _decoding(label), path.open("rb") as file, Image.open(file, formats=_formats()) as image:
        _check_size(label, image.width, image.height, max_pixels)
        _load(image)
        return _to_rgb(image, label), _orientation(image), Camera.from_exif(image)


@cache
def _formats() -> list[str]:
    """The formats of ``IMAGE_FORMATS`` that this build of Pillow has (AVIF may be missing)."""
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def _read_pillow(image: Image.Image, max_pixels: int) -> LoadedImage:
    label = printable(getattr(image, "filename", "") or "PIL image")
    _check_size(label, image.width, image.height, max_pixels)
    with _decoding(label):
        _load(image)
        rgb, orientation, camera = _to_rgb(image, label), _orientation(image), Camera.from_exif(image)
    return LoadedImage(rgb=_upright(rgb, orientation), name=label, path=None, camera=camera)


def _load(image: Image.Image) -> None:
    with _muted_stderr() if image.format == "TIFF" else nullcontext():
        image.load()


def _read_tensor(tensor: torch.Tensor, max_pixels: int) -> LoadedImage:
    shape = tuple(tensor.shape)
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    elif len(shape) == 4:
        raise InputError("image tensor", f"has shape {shape}", "pass one image [C, H, W], or a list of them")
    if tensor.dtype.is_floating_point:
        # numpy knows no bfloat16
        tensor = tensor.float()
    return _read_array(tensor.detach().cpu().numpy(), "image tensor", max_pixels)


def _read_array(array: npt.NDArray[Any], label: str, max_pixels: int) -> LoadedImage:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        remedy = "pass [H, W], [H, W, 3] or [H, W, 4]"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            remedy = "move the channels last: array.transpose(1, 2, 0)"
        raise InputError(label, f"has shape {array.shape}", remedy)
    if array.size == 0:
        raise InputError(label, f"has shape {array.shape}, which holds no pixel", "pass at least one pixel")
    _check_size(label, array.shape[1], array.shape[0], max_pixels)
    image = Image.fromarray(np.ascontiguousarray(_to_uint8(array, label)))
    return LoadedImage(rgb=_to_rgb(image, label), name=label, path=None, camera=None)


def _to_uint8(array: npt.NDArray[Any], label: str) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(label, f"has type {array.dtype}", "pass uint8 values from 0 to 255 or floats from 0 to 1")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(label, "holds NaN or infinite values", "replace them first")
    # Resampling filters overshoot by rounding errors.
    if low < -1e-3 or high > 1 + 1e-3:
        remedy = "divide by 255" if low >= 0 and high <= 255 else "scale them to [0, 1]"
        raise InputError(label, f"holds floats from {low:g} to {high:g}, not 0 to 1", remedy)
    return np.rint(array.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _to_rgb(image: Image.Image, label: str) -> RGB:
    """A decoded picture as uint8 [H, W, 3], strip by strip so that the extra memory stays small."""
    low, high = _gray_range(image, label) if image.mode in _WIDE_GRAY else (0.0, 1.0)
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows in _strips(image.height, image.width):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if strip.mode in _WIDE_GRAY:
            gray = (np.asarray(strip, dtype=np.float64) - low) * (255 / ((high - low) or 1.0))
            rgb[rows] = np.rint(gray)[..., None]
        elif strip.mode == "LAB":
            rgb[rows] = _lab_to_rgb(strip)
        elif strip.has_transparency_data:
            # Pillow leads from premultiplied gray to RGBA only by way of LA.
            rgba = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
            white = Image.new("RGBA", strip.size, "white")
            rgb[rows] = np.asarray(Image.alpha_composite(white, rgba))[..., :3]
        else:
            rgb[rows] = np.asarray(strip.convert("RGB"))
    return rgb


def _gray_range(image: Image.Image, label: str) -> tuple[float, float]:
    """Values of black and white of a 16-bit, 32-bit or float picture.

    Sixteen bits span their type and floats within [0, 1] are taken as they are. Wider types do not say what
    white is: the smallest of 8 bits and 16 bits that holds the values, or else from minimum to maximum.
    """
    if image.mode in _GRAY_16:
        return 0.0, 65535.0
    low, high = np.inf, -np.inf
    for rows in _strips(image.height, image.width):
        strip = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        low, high = np.minimum(low, strip.min()), np.maximum(high, strip.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(label, "holds NaN or infinite values", "replace them, or save it with 8 bits")
    for white in (1.0,) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return float(low), float(high)


def _lab_to_rgb(strip: Image.Image) -> RGB:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        strip, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # only None when converting in place
    return np.asarray(converted)


def _orientation(image: Image.Image) -> int:
    orientation = exif_tags(image).get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) else 1


def _upright(rgb: RGB, orientation: int) -> RGB:
    """Pixels [H, W, 3] turned as EXIF orientation 1 to 8 demands."""
    turned = {
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.swapaxes(0, 1),
        6: rgb.swapaxes(0, 1)[:, ::-1],
        7: rgb[::-1, ::-1].swapaxes(0, 1),
        8: rgb.swapaxes(0, 1)[::-1],
    }
    return np.ascontiguousarray(turned.get(orientation, rgb))


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


@contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Keeps Pillow quiet and turns what it raises into an :class:`InputError`.

    Pillow's size limit and Python's warning filters belong to the process, so one picture is decoded at a
    time; this also bounds the memory. The size is checked by :func:`_check_size` before pixels are decoded.
    """
    logger = logging.getLogger("PIL.TiffImagePlugin")
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        disabled, logger.disabled = logger.disabled, True
        try:
            yield
        except UnidentifiedImageError as error:
            raise InputError(
                label,
                "is not a picture in a known format, or its head is damaged",
                "save it as JPEG, PNG, TIFF or WebP",
            ) from error
        except _DECODER_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise _path_error(Path(label), error) from error
            raise InputError(
                label, f"is truncated or damaged ({printable(error)})", "download or export it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            logger.disabled = disabled


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Sends what C code writes to standard error nowhere: libtiff prints there, past Pillow and Python."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed, as in a daemon
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def _check_size(label: str, width: int, height: int, max_pixels: int) -> None:
    pixels = width * height
    if pixels == 0:
        raise InputError(label, f"has size {width} x {height}", "pass a picture with at least one pixel")
    if pixels > max_pixels:
        raise InputError(
            label,
            f"has {width} x {height} = {pixels:,} pixels, above the limit of {max_pixels:,}",
            f"lift the limit with --max-pixels {pixels} (Python: max_pixels={pixels}) or shrink the picture",
        )


def _refuse_stdin_and_urls(source: str | os.PathLike[str]) -> None:
    text = os.fspath(source)
    # A file may have such a name; Path has eaten the slashes of https://.
    if os.path.lexists(text):
        return
    if not text:
        raise UsageError("''", "is an empty path", "pass the path of a picture")
    if text == "-":
        raise UsageError("-", "standard input is not read", "save the picture to a file and pass its path")
    if _URL.match(text):
        raise UsageError(printable(text), "is a URL", "download the picture and pass its path")


def _path_error(path: Path, error: OSError | ValueError) -> InputError:
    label = printable(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        if path.is_symlink():
            return InputError(
                label, f"is a link to {printable(path.readlink())}, which is missing", "repair or remove it"
            )
        return InputError(label, "does not exist", "check the path")
    if isinstance(error, PermissionError):
        return InputError(label, "may not be read (permission denied)", "give yourself read permission")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return InputError(label, "is a link that leads back to itself", "repair or remove it")
    problem = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(label, f"cannot be opened ({problem})", "check the path")


# ------------------------------------------------------------------------------------- inputs of a run


@dataclass(frozen=True)
class InputItem:
    """One input of a run.

    Attributes:
        path: the file.
        name: what its outputs are called, unique in the run, ``/`` between folders.
        error: why there is nothing to read; None for a file that is worth trying.
    """

    path: Path
    name: str
    error: DeixisError | None = None


def collect_inputs(paths: Sequence[str | os.PathLike[str]], *, exclude: Path | None = None) -> list[InputItem]:
    """The files a command line names, in its order; folders are walked and their files sorted.

    Every file of a folder is listed, pictures or not, so that a run can account for each. Names are stems
    relative to the folder given; files whose names would collide (also on file systems that ignore case) keep
    their extension, and a number if that is not enough. Files without an image extension always keep it.

    Args:
        paths: files and folders. A missing one becomes an item with an error and does not stop the others.
        exclude: the output folder, not searched for inputs.
    """
    files: list[tuple[Path, str]] = []
    errors: dict[Path, DeixisError] = {}
    for given in paths:
        path = Path(given)
        try:
            _refuse_stdin_and_urls(given)
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except UsageError as error:
            errors[path] = error
            files.append((path, ""))
        except (OSError, ValueError) as error:
            errors[path] = _path_error(path, error)
            files.append((path, ""))
        else:
            found = _files_below(path, exclude, errors) if is_folder else [path]
            root = path if is_folder else path.parent
            files += [(file, file.relative_to(root).as_posix()) for file in found]

    unique: dict[Path, tuple[Path, str]] = {}
    for path, full in files:
        unique.setdefault(path.absolute(), (path, full))
    once = list(unique.values())
    readable = [(path, full) for path, full in once if path not in errors]
    unique_names = _unique_names([full for _, full in readable])
    names = {path: name for (path, _), name in zip(readable, unique_names, strict=True)}
    return [InputItem(path, names.get(path, ""), errors.get(path)) for path, _ in once]


def _files_below(folder: Path, exclude: Path | None, errors: dict[Path, DeixisError]) -> list[Path]:
    """All that is not a folder below ``folder``, sorted; folders that fail are returned and in ``errors``."""
    seen = {_identity(exclude)} if exclude is not None and _is_folder(exclude) else set()
    if _identity(folder) in seen:
        errors[folder] = UsageError(printable(folder), "is the output folder too", "give another --out")
        return [folder]
    files: list[Path] = []
    pending = deque([folder])
    while pending:
        current = pending.popleft()
        try:
            identity = _identity(current)
            # A linked folder is walked once, so links that form a circle come to an end.
            if identity in seen:
                continue
            seen.add(identity)
            entries = sorted(current.iterdir(), key=lambda path: (path.is_symlink(), path.name))
        except OSError as error:
            errors[current] = _path_error(current, error)
            files.append(current)
            continue
        for entry in entries:
            (pending if _is_folder(entry) else files).append(entry)
    if not files:
        errors[folder] = InputError(printable(folder), "holds no files", "pass a folder with pictures in it")
        return [folder]
    return sorted(files, key=lambda path: path.parts)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # read_image will say why
        return False


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def output_name(path: str | os.PathLike[str]) -> str:
    """What the outputs of a picture are called: its path without an image extension; others stay."""
    full = os.fspath(path)
    suffix = Path(full).suffix
    return full.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else full


def check_out(out: Path) -> None:
    """Find out, before the work is done, whether results can be written below a folder. Nothing is made.

    Raises:
        UsageError: if they cannot.
    """
    if any(len(os.fsencode(part)) > MAX_NAME for part in out.parts):
        raise UsageError(printable(out), "cannot be made (a name in it is too long)", "choose another --out")
    nearest = out.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    label = printable(out)
    if not nearest.is_dir():
        problem = "is no folder" if nearest == out.absolute() else f"cannot be made ({printable(nearest)} is no folder)"
        raise UsageError(label, problem, "choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UsageError(label, f"cannot be written (no permission in {printable(nearest)})", "choose another --out")


def _unique_names(full_names: Sequence[str]) -> list[str]:
    names = [output_name(full) for full in full_names]
    while True:
        uses = Counter(map(_file_key, names))
        longer = [full if uses[_file_key(name)] > 1 else name for name, full in zip(names, full_names, strict=True)]
        if longer == names:
            break
        names = longer

    taken = {key for key, count in uses.items() if count == 1}
    for index, name in enumerate(names):
        if uses[_file_key(name)] > 1:
            numbered = (f"{name}-{number}" for number in itertools.count(1))
            names[index] = next(candidate for candidate in numbered if _file_key(candidate) not in taken)
            taken.add(_file_key(names[index]))
    return names


def _file_key(name: str) -> str:
    """Equal for names that are one file on some file system (case, composed characters)."""
    return unicodedata.normalize("NFC", name).casefold()


# --------------------------------------------------------------------------------------------- writing


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """An open file that takes the place of ``path`` when all went well and leaves nothing otherwise.

    Raises:
        DeixisError: if the folder or the disk does not take the file.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _write_error(path, error) from error


def _check_names(files: Sequence[Path]) -> None:
    """Refuse names that the disk does not take before the first file is written, not between two of them."""
    longest = max(files, key=lambda file: len(os.fsencode(file.name)))
    if len(os.fsencode(longest.name)) > MAX_NAME:
        raise _write_error(longest, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))


def _write_error(path: Path, error: OSError) -> DeixisError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DeixisError(printable(path), "cannot be written (no permission)", "choose another --out")
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return DeixisError(
            printable(path), "cannot be written (a file or folder is in its place)", "choose another --out"
        )
    if error.errno == errno.ENAMETOOLONG:
        return DeixisError(printable(path), "cannot be written (the name is too long)", "rename the input")
    # numpy reports a short write without an error number
    reason = error.strerror or str(error)
    return DeixisError(
        printable(path), f"cannot be written ({reason})", "free space on the disk or choose another --out"
    )


def write_npy(path: Path, values: npt.NDArray[Any]) -> None:
    """Write an array as NPY."""
    with _replacing(path) as file:
        np.save(file, values, allow_pickle=False)


def write_png16(path: Path, values: npt.NDArray[np.uint16], text: Mapping[str, str]) -> None:
    """Write uint16 [H, W] as a 16-bit grayscale PNG with text chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    with _replacing(path) as file:
        Image.fromarray(values).save(file, format="PNG", pnginfo=chunks)


def write_image(path: Path, image: Image.Image) -> None:
    """Write a picture as JPEG if the path says so, as PNG otherwise."""
    with _replacing(path) as file:
        image.save(file, format="JPEG" if path.suffix.lower() in IMAGE_FORMATS["JPEG"] else "PNG")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write strict JSON: readable, UTF-8, and without NaN or infinity (ValueError)."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; undecodable bytes of file names are escaped as Python and JSON do."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file."""
    with _replacing(path) as file:
        file.write(content)


def write_parquet(path: Path, table: Any) -> None:  # noqa: ANN401 - pyarrow has no types
    """Write a pyarrow table; it is safe on the disk when this returns."""
    from deixis.data.world import parquet

    with _replacing(path) as file:
        parquet().write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


class TensorWriter:
    """Tensors of a safetensors file, filled row by row; see :func:`tensor_writer`."""

    def __init__(self, file: IO[bytes], like: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        self._file = file
        self._rows: dict[str, tuple[int, int]] = {}  # where a tensor begins, and how long a row is [bytes]
        end = 0
        for name, values in like.items():
            header[name] = {
                "dtype": {"float32": "F32", "uint8": "U8"}[values.dtype.name],
                "shape": list(values.shape),
                "data_offsets": [end, end + values.nbytes],
            }
            self._rows[name] = (end, values.nbytes // len(values))
            end += values.nbytes
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        file.write(struct.pack("<Q", len(head)) + head)
        self._start = file.tell()
        file.truncate(self._start + end)

    def put(self, name: str, first: int, values: npt.NDArray[Any]) -> None:
        """Set the rows of a tensor from ``first`` on; ``values`` are of its type."""
        begin, row = self._rows[name]
        self._file.seek(self._start + begin + first * row)
        self._file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())


@contextmanager
def tensor_writer(
    path: Path, like: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> Iterator[TensorWriter]:
    """A safetensors file of tensors that need not fit into memory; it appears when the context ends well.

    Args:
        path: the file.
        like: shape and type (float32 or uint8) of each tensor, none empty. The values are not read: ``np.broadcast_to``
            makes any shape of one.
        metadata: what the file says of itself.

    Raises:
        DeixisError: if it cannot be written.
    """
    with _replacing(path) as file:
        yield TensorWriter(file, like, metadata)


def write_exr(path: Path, values: FloatMap) -> None:
    """Write float32 [H, W] as the ``Z`` channel of an OpenEXR file (extra ``export``)."""
    openexr = _export_library("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with _replacing(path) as file:
        try:
            openexr.File(header, {"Z": np.ascontiguousarray(values)}).write(file.name)
        except RuntimeError as error:
            raise OSError(str(error)) from error


def write_ply(path: Path, points: FloatMap, colors: RGB) -> None:
    """Write a binary PLY point cloud (extra ``export``).

    Args:
        path: the file.
        points: float32 [N, 3], x right, y down, z forward [m].
        colors: uint8 [N, 3].
    """
    _write_points(path, points, colors, "ply")


def write_glb(path: Path, points: FloatMap, colors: RGB) -> None:
    """Write a binary glTF point cloud (extra ``export``), turned to glTF's axes (y up, looking along -z).

    Args:
        path: the file.
        points: float32 [N, 3], x right, y down, z forward [m].
        colors: uint8 [N, 3].
    """
    _write_points(path, points * np.array([1, -1, -1], dtype=np.float32), colors, "glb")


def _write_points(path: Path, points: FloatMap, colors: RGB, file_type: str) -> None:
    cloud = _export_library("trimesh").PointCloud(points, colors=colors)
    with _replacing(path) as file:
        file.write(cloud.export(file_type=file_type))


def _export_library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{name}", "is not installed", "run pip install 'deixis[export]'") from error


# -------------------------------------------------------------------------------------------- results


def save_depth(depth: Depth, out: Path, name: str, rgb: RGB | None = None) -> list[Path]:
    """Write a depth map for programs and for people.

    * ``name.depth.npy``: ``depth.values``, float32 [H, W].
    * ``name.depth.png``: 16 bits, ``value = png * scale``, scale in the PNG's text and in the sidecar.
      Metric: 1 mm steps up to 65.535 m, beyond that 1/256 m as in KITTI, doubled until the farthest pixel
      fits; 0 marks pixels without depth (not finite or not positive) and is used for nothing else.
      Relative kinds: 1/65535 steps over [0, 1], values outside clipped; every pixel has a value and 0 is one.
    * ``name.preview.png``: the coloured map with its scale, beside the photo if given.
    * ``name.uncertainty.npy``: where there is an ensemble, how far its maps lie apart, float32 [H, W]; elsewhere that
      of an earlier map is removed.
    * ``name.json``: what the map is, from which model and words. Written last.

    Args:
        depth: the map.
        out: folder; made if missing.
        name: stem of the files, may hold sub-folders.
        rgb: the photo, uint8 [H, W, 3].

    Returns:
        The paths written.

    Raises:
        DeixisError: if a file cannot be written, or the map holds no finite value, or, for a relative kind,
            a value that is not finite.
    """
    from deixis import viz

    valid = depth.valid
    if not valid.any() or (depth.kind != "metric" and not valid.all()):
        raise DeixisError(
            name,
            f"{int((~valid).sum())} of {valid.size} pixels of the depth map have no value",
            f"check the model {depth.model}",
        )
    about = depth.to_dict()
    scale = _png_scale(depth.kind, about["max"])
    invalid = 0 if depth.kind == "metric" else None
    suffixes = [".depth.npy", ".depth.png", ".preview.png", ".json"]
    if depth.uncertainty is not None:
        suffixes.insert(3, ".uncertainty.npy")
    files = [out / f"{name}{suffix}" for suffix in suffixes]
    npy, png, preview, sidecar = *files[:3], files[-1]
    _check_names(files)

    write_npy(npy, depth.values)
    if depth.uncertainty is not None:
        write_npy(files[3], depth.uncertainty)
    elif os.path.lexists(stale := out / f"{name}.uncertainty.npy"):
        try:
            stale.unlink()
        except OSError as error:
            raise _write_error(stale, error) from error
    meaning = f"{'metres' if depth.kind == 'metric' else depth.kind} = value * {scale!r}"
    text = {
        "Title": "Depth map",
        "Software": "deixis",
        "Description": meaning + ("; 0 = no depth" if depth.kind == "metric" else ""),
        "kind": depth.kind,
        "unit": depth.unit or "",
        "scale": repr(scale),
        "offset": "0.0",
    }
    write_png16(png, _quantize(depth.values, valid, scale, lowest=1 if depth.kind == "metric" else 0), text)
    write_image(preview, viz.depth_picture(depth, rgb))
    write_json(sidecar, {**about, "png": {"scale": scale, "offset": 0.0, "invalid": invalid}})
    return files


def _png_scale(kind: str, high: float) -> float:
    if kind != "metric":
        return 1 / 65535
    if high < 65.5355:  # rounds to 65535 mm
        return 0.001
    scale = 1 / 256
    while high > 65535 * scale:
        scale *= 2
    return scale


def _quantize(values: FloatMap, valid: npt.NDArray[np.bool_], scale: float, lowest: int) -> npt.NDArray[np.uint16]:
    codes = np.zeros(values.shape, dtype=np.uint16)
    for rows in _strips(*values.shape):
        steps = np.rint(values[rows].astype(np.float64) / scale).clip(lowest, 65535)
        codes[rows] = np.where(valid[rows], steps, 0)
    return codes


def load_depth(path: str | os.PathLike[str]) -> Depth:
    """Read back what :func:`save_depth` wrote: all but the calibration, which is only told in ``name.json``.

    Args:
        path: ``name.json`` or ``name.depth.npy``; the other lies beside it.

    Raises:
        UsageError: for other names.
        InputError: if a file is missing, damaged, or does not belong to the other.
    """
    text = os.fspath(path)
    label = printable(text)
    stem = text.removesuffix(".depth.npy").removesuffix(".json")
    if stem == text:
        raise UsageError(label, "is no saved depth map", "pass a .depth.npy file or the .json beside it")
    sidecar, npy = Path(f"{stem}.json"), Path(f"{stem}.depth.npy")
    try:
        data = json.loads(sidecar.read_text(encoding="utf-8"))
        values = np.load(npy, allow_pickle=False)
        if values.shape != (data["height"], data["width"]):
            raise ValueError(f"{npy.name} has shape {values.shape}")
        return Depth(
            values=values,
            kind=data["kind"],
            text=Text(**data["text"]),
            model=data["model"],
            camera=Camera(**data["camera"]) if data["camera"] else None,
            seconds=data["seconds"],
            uncertainty=_load_uncertainty(Path(f"{stem}.uncertainty.npy"), values.shape),
        )
    except OSError as error:
        raise _path_error(Path(error.filename or text), error) from error
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, UsageError) as error:
        raise InputError(label, f"is no saved depth map ({printable(error)})", "save it again") from error


def _load_uncertainty(path: Path, shape: tuple[int, ...]) -> FloatMap | None:
    """float32 [H, W] of a map of that shape; None where there is no such file."""
    if not path.is_file():
        return None
    values: FloatMap = np.load(path, allow_pickle=False)
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"{path.name} has shape {values.shape} and type {values.dtype}")
    return values


def save_mask(mask: Mask, out: Path, name: str, rgb: RGB, index: int | None = None) -> list[Path]:
    """Write ``name.mask.png`` (0 or 255), ``name.overlay.png`` and ``name.mask.json``.

    Args:
        mask: the mask.
        out: folder; made if missing.
        name: stem of the files, may hold sub-folders.
        rgb: the photo, uint8 [H, W, 3].
        index: number of the expression when there are several: ``name.1.mask.png`` and so on.

    Returns:
        The paths written; the JSON comes last.

    Raises:
        DeixisError: if a file cannot be written.
    """
    from deixis import viz

    stem = name if index is None else f"{name}.{index}"
    files = [out / f"{stem}{suffix}" for suffix in (".mask.png", ".overlay.png", ".mask.json")]
    png, overlay, sidecar = files
    _check_names(files)
    found = f"score {mask.score:.2f}" if mask.found else "not found"
    write_image(png, Image.fromarray(mask.mask.astype(np.uint8) * np.uint8(255)))
    write_image(overlay, viz.overlay_mask(rgb, mask.mask, f"{mask.expression} ({found})"))
    write_json(sidecar, mask.to_dict())
    return files


def save_answer(answer: Answer, out: Path, name: str, rgb: RGB) -> list[Path]:
    """Write ``name.answer.png``, a picture of the answer, and ``name.answer.json``.

    Args:
        answer: the answer.
        out: folder; made if missing.
        name: stem of the files, may hold sub-folders.
        rgb: the photo, uint8 [H, W, 3].

    Returns:
        The paths written; the JSON comes last.

    Raises:
        DeixisError: if a file cannot be written.
    """
    from deixis import viz

    picture, sidecar = files = [out / f"{name}.answer.png", out / f"{name}.answer.json"]
    _check_names(files)
    write_image(picture, viz.answer_picture(rgb, answer))
    write_json(sidecar, answer.to_dict())
    return files
