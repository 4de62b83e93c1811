"""Split lists: which samples a published number was measured on, named by source, checksum and count.

The lists are their authors' files and not shipped. One is taken from a local file, or from the folder of lists
(``$DEIXIS_DATA_LISTS``, or else ``~/.cache/deixis/lists``), where ``deixis data lists --fetch NAME`` puts it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.request import urlopen

from deixis.errors import InputError, UsageError
from deixis.hub import expanded
from deixis.io import check_out, printable, write_text

FOLDER_VARIABLE = "DEIXIS_DATA_LISTS"
HOST = "https://raw.githubusercontent.com"
_FETCH_TIMEOUT_S = 60


@dataclass(frozen=True)
class SplitList:
    """A published list.

    Attributes:
        name: what it is called here, dataset and split: ``nyuv2.test``.
        repository: on GitHub, owner and name.
        commit: 40 hex digits.
        path: inside the repository.
        sha256: of the file.
        lines: how many it has, those without ground truth included.
        first_line: for people.
    """

    name: str
    repository: str
    commit: str
    path: str
    sha256: str
    lines: int
    first_line: str

    @property
    def file_name(self) -> str:
        """What the published file is called."""
        return PurePosixPath(self.path).name

    @property
    def local(self) -> Path:
        """Where it lies once fetched."""
        return lists_folder() / f"{self.name}.txt"

    @property
    def source(self) -> str:
        """Where it is published."""
        return f"github.com/{self.repository}, {self.path} at {self.commit[:7]}"

    @property
    def remedy(self) -> str:
        """How to come by it."""
        return f"run 'deixis data lists --fetch {self.name}', or copy {self.source} to {printable(self.local)}"


@dataclass(frozen=True)
class Listing:
    """Samples and who says that they are the split.

    Attributes:
        samples: fields of each line, paths first; those without ground truth are left out.
        file: the list.
        published: the published list that it is; None for a list of one's own.
    """

    samples: tuple[tuple[str, ...], ...]
    file: Path
    published: SplitList | None

    @property
    def own(self) -> str | None:
        """The file of a list of one's own, None for a published one: results say so."""
        return None if self.published else printable(self.file)


def lists_folder() -> Path:
    """Where lists are looked for: ``$DEIXIS_DATA_LISTS``, or else ``~/.cache/deixis/lists``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or expanded("~/.cache/deixis/lists"))


@cache
def split_lists() -> dict[str, SplitList]:
    """Every known list by name."""
    text = resources.files("deixis.data").joinpath("split_lists.json").read_text(encoding="utf-8")
    return {name: SplitList(name, **facts) for name, facts in json.loads(text).items()}


def split_list(name: str) -> SplitList:
    """A list by its name.

    Raises:
        UsageError: if there is no such list.
    """
    known = split_lists()
    if name not in known:
        raise UsageError(f"list '{printable(name)}'", "is unknown", f"use one of {', '.join(known)}")
    return known[name]


def read_split_list(name: str, file: str | Path | None = None) -> Listing:
    """The published list of that name.

    Args:
        name: see :func:`split_lists`.
        file: where it lies; None for the folder of lists.

    Raises:
        UsageError: if there is no list of that name.
        InputError: if the file is not there, or is not the published one: its count or its checksum differs.
    """
    known = split_list(name)
    path = known.local if file is None else Path(file)
    if file is None and not path.is_file():
        remedy = f"{known.remedy}, or name the samples you have with --list"
        raise InputError(f"list '{name}'", f"is not in {printable(path.parent)}", remedy)
    content = _read(path)
    _verify(known, content, printable(path), known.remedy)
    return _listing(path, content, known)


def find_listing(names: Sequence[str], file: str | Path | None) -> Listing:
    """The samples of a split: the published list, or what a file says.

    Args:
        names: the published lists of the split, any of which will do; they name the same samples.
        file: a list; None for the first of the published ones in the folder of lists. A file that is one of them is
            taken for it. One that is merely called like one of them is damaged; any other is a list of one's own.

    Raises:
        InputError: if there is no list, or a damaged one, or its lines name no samples.
    """
    known = [split_list(name) for name in names]
    if file is None:
        here = [one for one in known if one.local.is_file()]
        return read_split_list((here or known)[0].name)
    path = Path(file)
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    published = next((one for one in known if one.sha256 == digest), None)
    if published is None:
        for one in known:
            if path.name in (one.file_name, one.local.name):
                remedy = "copy it again; if it is a list of your own, give it another name"
                _verify(one, content, printable(path), remedy)
    return _listing(path, content, published)


def is_here(names: Sequence[str]) -> bool:
    """Whether one of these published lists is in the folder of lists."""
    return any(split_list(name).local.is_file() for name in names)


def fetch_list(name: str, out: Path) -> Path:
    """Fetch a list from where it is published; nothing is written unless it is the published one.

    Args:
        name: see :func:`split_lists`.
        out: folder for it; made if missing.

    Returns:
        The file, ``NAME.txt``.

    Raises:
        UsageError: if there is no list of that name, or ``out`` cannot be written.
        InputError: if it cannot be fetched, or something else was found there.
    """
    known = split_list(name)
    check_out(out)
    url = f"{HOST}/{known.repository}/{known.commit}/{known.path}"
    try:
        with urlopen(url, timeout=_FETCH_TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:  # urllib's own errors are of the former
        why = f"cannot be fetched ({printable(error)})"
        raise InputError(
            url, why, f"connect to the internet, or copy it by hand to {printable(known.local)}"
        ) from error
    _verify(known, content, url, "try again later; nothing was written")
    path = out / known.local.name
    write_text(path, content.decode())
    return path


def inside(path: str) -> str:
    """A path of a list, relative to the root: some lists begin theirs with a slash, or with ``./``.

    Raises:
        UsageError: if it leads out of the root.
    """
    relative = PurePosixPath(path.lstrip("/"))
    if ".." in relative.parts:
        raise UsageError(printable(path), "leads out of the dataset's root", "correct the list")
    return str(relative)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(printable(path), why, "check the path of the list") from error


def _verify(known: SplitList, content: bytes, label: str, remedy: str) -> None:
    """Refuse what is not the published list, byte by byte."""
    digest, lines = hashlib.sha256(content).hexdigest(), len(content.splitlines())
    if digest != known.sha256:
        raise InputError(
            label,
            f"is not the published list {known.name}: {lines} lines with sha256 {digest} where {known.lines} lines"
            f" with sha256 {known.sha256} are published",
            remedy,
        )


def _listing(path: Path, content: bytes, published: SplitList | None) -> Listing:
    from deixis.protocols.masks import (
        read_split,
    )  # torch comes with it, which those who only name lists need not wait for

    try:
        samples = read_split(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise InputError(printable(path), "is no text", "pass a list of paths, one sample a line") from error
    except UsageError as error:
        raise InputError(printable(path), f"{error.subject} {error.problem}", error.remedy) from error
    if not samples:
        raise InputError(printable(path), "names no sample", "pass a list with one sample a line")
    if published is None and len({sample[0] for sample in samples}) < len(samples):
        twice = next(name for name, times in Counter(sample[0] for sample in samples).items() if times > 1)
        raise InputError(printable(path), f"names '{printable(twice)}' twice", "leave each sample on one line")
    return Listing(tuple(samples), path, published)
