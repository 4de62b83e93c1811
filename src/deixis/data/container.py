"""A dataset's root: a folder, or one plain tar of it, read alike.

The public evaluation loaders keep each set in one uncompressed tar whose members begin with ``./``; downloads are
folders. Readers name files by their path inside the root, with forward slashes, and need not know which it is.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deixis.errors import InputError
from deixis.io import printable
from deixis.types import RGB, FloatMap

T = TypeVar("T")
COPY_AGAIN = "copy the dataset again"


class Container:
    """The files of a dataset.

    Args:
        root: a folder, or an uncompressed tar file.

    Raises:
        InputError: if it is neither.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._members: dict[str, tuple[int, int]] | None = None
        self._folders: set[str] = set()
        if self.root.is_dir():
            return
        if not self.root.is_file():
            raise InputError(printable(self.root), "is no folder or tar file", "check the path")
        try:
            with tarfile.open(self.root, "r:") as tar:
                # A hard link has no bytes of its own: it is the file that it names.
                files = [
                    (member.name, tar.getmember(member.linkname) if member.islnk() else member)
                    for member in tar
                    if member.isfile() or member.islnk()
                ]
                links = {_inside(one.name): one.linkname for one in tar if one.issym()}
                sparse = next((one.name for one in tar if one.issparse()), None)
        except KeyError as error:
            raise InputError(printable(self.root), f"links to what it does not hold ({error})", COPY_AGAIN) from error
        except (tarfile.TarError, OSError) as error:
            raise InputError(
                printable(self.root),
                f"is no plain tar file, or a torn one ({error})",
                "copy it again; if it is compressed, unpack it and pass the folder",
            ) from error
        if sparse is not None:  # its bytes do not lie there one after the other
            remedy = "pack it without --sparse, or unpack it and pass the folder"
            raise InputError(printable(self.root), f"holds {printable(sparse)} as a sparse file", remedy)
        self._members = {_inside(name): (one.offset_data, one.size) for name, one in files}
        self._members |= {name: self._members[end] for name in links if (end := _end_of(name, links)) in self._members}
        self._folders = {str(above) for name in self._members for above in PurePosixPath(name).parents}

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        if self._members is not None:
            return path in self._members
        return (self.root / path).is_file()

    def has_folder(self, path: str) -> bool:
        """Whether there is such a folder."""
        if self._members is not None:
            return path in self._folders
        return (self.root / path).is_dir()

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted; ``.`` is the root."""
        if self._members is not None:
            return sorted(one.name for one in map(PurePosixPath, self._folders) if one.name and str(one.parent) == path)
        return sorted(one.name for one in (self.root / path).glob("*") if one.is_dir())

    def contents(self) -> str:
        """What lies at the top, for messages: a few names."""
        if self._members is not None:
            names = sorted({name.split("/")[0] for name in self._members})
        else:
            names = sorted(path.name for path in self.root.iterdir())
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return printable(", ".join(names[:6]) + more) if names else "nothing"

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, sorted; ``*`` stays within one folder. Hidden files (macOS's ``._a``) are left out."""
        if self._members is not None:
            depth = pattern.count("/")
            found = [name for name in self._members if name.count("/") == depth and PurePosixPath(name).match(pattern)]
        else:
            found = [path.relative_to(self.root).as_posix() for path in self.root.glob(pattern) if path.is_file()]
        return sorted(name for name in found if not PurePosixPath(name).name.startswith("."))

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            InputError: if it is not there, or cannot be read.
        """
        try:
            if self._members is None:
                return (self.root / path).read_bytes()
            if path not in self._members:
                raise FileNotFoundError(path)
            offset, size = self._members[path]
            with self.root.open("rb") as file:  # opened each time, so that worker processes can share this object
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "is not there" if missing else f"cannot be read ({error.strerror or error})"
            raise InputError(self.label(path), why, COPY_AGAIN) from error

    def stamp(self, *paths: str) -> str:
        """What changes when one of some files does: sizes and times; nothing for those that are not there."""
        if self._members is not None:
            found = [self._members.get(path) for path in paths]
            return f"{stamp_of(self.root)} {found}"
        return " ".join(stamp_of(self.root / path) for path in paths)

    def label(self, path: str) -> str:
        """How errors call a file."""
        return printable(os.fspath(self.root / path))

    def decode(self, path: str, decode: Callable[[bytes], T]) -> T:
        """A file, decoded.

        Raises:
            InputError: if it is not there, or damaged: whatever ``decode`` raises means that.
        """
        content = self.read(path)
        try:
            return decode(content)
        except InputError:
            raise
        except Exception as error:  # decoders report damage as anything from OSError to struct.error
            why = " ".join(f"{error}".split()) or type(error).__name__
            raise InputError(self.label(path), f"is damaged ({why})", COPY_AGAIN) from error

    def picture(self, path: str) -> npt.NDArray[np.uint8]:
        """A picture, uint8 [H, W, 3].

        Raises:
            InputError: if it is not there, or damaged.
        """
        return self.decode(path, lambda content: np.asarray(_opened(content).convert("RGB")))

    def numbers(self, path: str, decode: Callable[[bytes], object]) -> npt.NDArray[Any]:
        """An array of real numbers.

        Raises:
            InputError: as :meth:`decode`, and if it holds something else.
        """
        values = self.decode(path, decode)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
            what = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
            raise InputError(self.label(path), f"is no array of numbers ({what})", COPY_AGAIN)
        return values

    def metres(self, path: str, per_metre: float, like: RGB) -> FloatMap:
        """Depth stored as integers of 16 bits in a grey picture, 0 where unknown: float32 [H, W] [m].

        Args:
            path: of the grey picture.
            per_metre: what is stored for a metre.
            like: the picture [H, W, 3] that it belongs to.

        Raises:
            InputError: if it is not there, damaged, no such picture, or of another size than the picture's.
        """
        values = self.decode(path, lambda content: np.asarray(_opened(content)))
        # A picture of 8 bits is one to look at. Pillow gives 16 bits as such or, in some versions, as 32.
        if values.ndim != 2 or values.dtype.kind not in "iu" or values.dtype.itemsize < 2:
            told = f"is no grey picture of 16-bit integers ({list(values.shape)} {values.dtype})"
            raise InputError(self.label(path), told, COPY_AGAIN)
        if values.shape != like.shape[:2]:
            raise InputError(
                self.label(path), f"is {list(values.shape)} and its picture {list(like.shape[:2])}", COPY_AGAIN
            )
        return values.astype(np.float32) / np.float32(per_metre)


def _inside(name: str) -> str:
    """The path of a tar's member inside the root."""
    return str(PurePosixPath(name))


def _end_of(name: str, links: Mapping[str, str]) -> str:
    """Where a symbolic link of a tar leads, from link to link."""
    for _ in links:  # those that lead to each other have no end
        if name not in links:
            break
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), links[name]))
    return name


def stamp_of(path: Path) -> str:
    """Size and time of a file, ``-`` where there is none."""
    try:
        known = path.stat()
    except OSError:
        return "-"
    return f"{known.st_size}@{known.st_mtime_ns}"


def _opened(content: bytes) -> Image.Image:
    try:
        # A damaged PNG may decode to other pixels without an error: only this looks at its checksums.
        Image.open(io.BytesIO(content)).verify()
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # which tells an address in memory, another one each time
        raise ValueError("no picture") from error
    image.load()
    return image
