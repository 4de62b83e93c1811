"""DIODE (Vasiljevic et al., 2019), the validation frames, indoors and outdoors.

``indoors/scene_<n>/scan_<n>/<frame>.png`` (the same under ``outdoor``) with ``<frame>_depth.npy`` (metres,
[H, W, 1]) and ``<frame>_depth_mask.npy`` (1 where depth counts) beside it. The root may also be the folder above, whose
``val`` holds them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from deixis.data.dataset import Sample
from deixis.data.listed import ListedFrames, Paths, check_pair
from deixis.errors import InputError
from deixis.io import printable

PICTURES = "scene_*/scan_*/*.png"
PLACES = ("indoors", "outdoor")


class DIODE(ListedFrames):
    """Photos with laser-scanned depth; 325 indoors and 446 outdoors are published.

    Which pixels count is for the mask file alone to say, not for the depth's range.
    """

    name = "diode"
    splits = ("val", *PLACES)
    lists: ClassVar = dict.fromkeys(splits, ("diode.val",))
    counts: ClassVar = {"val": 771, "indoors": 325, "outdoor": 446}
    fields = 3
    expected = f"{{{','.join(PLACES)}}}/{PICTURES}"
    remedy = "unpack val.tar.gz of diode-dataset.org and pass its folder 'val', or a plain tar of that"

    def pictures(self) -> list[str]:
        """Every photo of both places."""
        for self._prefix in ("", "val/"):
            pictures = [one for place in PLACES for one in self.files.glob(f"{self._prefix}{place}/{PICTURES}")]
            if pictures:
                break
        return pictures

    def found(self, pictures: Sequence[str]) -> list[tuple[str, Paths]]:
        """Those of the split's places."""
        names = [picture.removeprefix(self._prefix) for picture in pictures]
        return self.listed([(name, *map_paths(name)) for name in names])

    def listed(self, lines: Sequence[Paths]) -> list[tuple[str, Paths]]:
        """The lines of the split's places. Raises InputError for one of no place."""
        for line in lines:
            if line[0].split("/")[0] not in PLACES:
                raise InputError(printable(line[0]), "is no picture of DIODE", f"correct the list: {self.expected}")
            for path, expected in zip(line[1:], map_paths(line[0]), strict=True):
                check_pair(path, line[0], expected)
        places = PLACES if self.split == "val" else (self.split,)
        return [
            (line[0], tuple(f"{self._prefix}{path}" for path in line))
            for line in lines
            if line[0].split("/")[0] in places
        ]

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            InputError: if one of its files is missing or damaged, or their sizes differ.
        """
        picture, depth, mask = self.paths[index]
        rgb = self.files.picture(picture)
        values, counts = self._map(depth), self._map(mask)
        self.check_size(depth, values, rgb)
        self.check_size(mask, counts, rgb)
        return Sample(
            self.names[index],
            rgb,
            depth=np.where(np.isfinite(values), values, 0).astype(np.float32),
            mask=counts != 0,
        )

    def _map(self, path: str) -> npt.NDArray[Any]:
        """Numbers [H, W], stored with or without a last axis."""
        values = self.files.numbers(path, lambda content: np.load(io.BytesIO(content), allow_pickle=False))
        return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def map_paths(picture: str) -> tuple[str, str]:
    """Where the depth and the mask of a photo lie."""
    stem = picture.removesuffix(".png")
    return f"{stem}_depth.npy", f"{stem}_depth_mask.npy"
