"""The world on disk: frames as small datasets in published layouts, so that readers meet real files.

Each layout is a function of its own module, registered here. It writes the frames under a folder with exactly the
published names and encodings, each file whole or not at all, and returns how many samples there are. Where the
layout's samples are named by a list, it writes ``list.txt`` beside them, and their captions come into
``captions.parquet``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from deixis.data.captions import WORLD, Caption, file_sha256, write_captions
from deixis.data.world import Kind, WorldFrame, read_shards
from deixis.data.world_dataset import CAPTION_LEVEL
from deixis.errors import UsageError
from deixis.io import check_out, printable

Writer: TypeAlias = Callable[[Iterable[WorldFrame], Path], int]
LIST = "list.txt"
"""The samples of an export, as ``deixis data check --list`` takes it."""
CAPTIONS = "captions.parquet"
"""Their captions, as recipes take them."""


@dataclass(frozen=True)
class Layout:
    """A way to lay frames out as files.

    Attributes:
        name: as ``deixis world export --as`` takes it.
        kind: of the frames it shows; None for both.
        module: of :mod:`deixis.world`, with the function ``export_NAME`` that writes it. It is imported when that is
            called for: names are listed without h5py and the like.
    """

    name: str
    kind: Kind | None
    module: str

    def writer(self) -> Writer:
        """The function that writes it."""
        found: Writer = getattr(import_module(f"deixis.world.{self.module}"), f"export_{self.name.replace('-', '_')}")
        return found


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("nyuv2", "rooms", "export_nyuv2"),
        Layout("nyuv2-labelled", "rooms", "export_nyuv2"),
        Layout("nyuv2-mat", "rooms", "export_nyuv2"),
        Layout("nyuv2-sync", "rooms", "export_nyuv2"),
        Layout("kitti", "roads", "export_kitti"),
        Layout("kitti-selection", "roads", "export_kitti"),
        Layout("hypersim", "rooms", "export_relative"),
        Layout("vkitti2", "roads", "export_relative"),
        Layout("eth3d", None, "export_relative"),
        Layout("scannet", "rooms", "export_relative"),
        Layout("diode", None, "export_relative"),
        Layout("refcoco", None, "export_refcoco"),
    )
}


def write_layout(shards: str | Path, out: Path, layout: str, frames: int | None = None) -> int:
    """Write the frames of a folder of shards in a published layout.

    Args:
        shards: what ``deixis world render`` wrote.
        out: folder for the files; made if missing, and empty.
        layout: a name of ``LAYOUTS``.
        frames: how many at most; None for all.

    Returns:
        How many samples were written.

    Raises:
        InputError: if there are no shards with frames of the layout's kind, or one is damaged.
        UsageError: for an unknown layout, or if ``out`` holds something already or cannot be written.
        DeixisError: if a file cannot be written.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout '{printable(layout)}'", "is unknown", f"use one of {', '.join(LAYOUTS)}")
    check_out(out)
    if out.is_dir() and any(out.iterdir()):
        # Frames of two exports would be read as one set.
        raise UsageError(printable(out), "holds files already", "export into an empty folder")
    chosen = LAYOUTS[layout]
    count = chosen.writer()(read_shards(shards, kind=chosen.kind, limit=frames), out)
    if (out / LIST).is_file():
        pictures = [line.split()[0].lstrip("/") for line in (out / LIST).read_text(encoding="utf-8").splitlines()]
        told = (frame.captions[CAPTION_LEVEL][0] for frame in read_shards(shards, kind=chosen.kind, limit=frames))
        write_captions(out / CAPTIONS, [_caption(out, *one) for one in zip(pictures, told, strict=True)])
    return count


def _caption(out: Path, picture: str, words: str) -> Caption:
    """A picture that is no file of its own, as Hypersim's, is found by its name."""
    file = out / picture
    return Caption(picture, file_sha256(file) if file.is_file() else "", words, WORLD, "", "", None)
