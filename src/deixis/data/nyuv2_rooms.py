"""Our own split, by rooms, of the labelled NYU Depth v2 training frames, as a dataset.

Its captions come from label maps and its classes from scene types, so their provenance is ``oracle``.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

from deixis.data import nyuv2, nyuv2_refer
from deixis.data.container import COPY_AGAIN, stamp_of
from deixis.data.dataset import Dataset, Expression, Sample
from deixis.data.nyuv2_captions import photo_captions
from deixis.data.world_dataset import CAPTION_LEVEL
from deixis.errors import InputError, UsageError
from deixis.io import printable
from deixis.types import Text


class NYUv2Rooms(Dataset):
    """Frames of one side of the split, with the expressions of ``refer_train.json.gz`` where that is there.

    Beside what is in a frame, two classes are asked for that are not. ``texts`` are ``class``, the scene type, and
    ``caption``, if the frame has a label map.

    Args:
        root: folder of ``official_splits``; see :mod:`deixis.data.nyuv2`.
        split: ``train``, ``val`` or ``heldout``.

    Raises:
        InputError: if the folder does not hold the layout, or no frame of the split.
        UsageError: for an unknown split.
    """

    name = "nyuv2-rooms"

    def __init__(self, root: str | Path, split: str = "heldout") -> None:
        chosen: nyuv2.Split | None = next((one for one in get_args(nyuv2.Split) if one == split), None)
        if chosen is None:
            raise UsageError(
                f"split '{printable(split)}'", f"is not one of {self.name}", f"use {', '.join(get_args(nyuv2.Split))}"
            )
        self.split = split
        self._frames = nyuv2.some_frames(root, chosen)
        self.names = [frame.rgb.relative_to(root).as_posix() for frame in self._frames]
        labelled = any(frame.labels for frame in self._frames)
        self._classes = nyuv2.class_names(root) if labelled else []
        self._refer = Path(root) / "refer_train.json.gz"
        things = nyuv2_refer.objects(root) if self._refer.is_file() else []
        self._categories = sorted({thing.category for thing in things})
        self._things: dict[int, list[nyuv2_refer.ReferredObject]] = {}
        for thing in things:
            self._things.setdefault(thing.frame, []).append(thing)

    def stamp(self, index: int) -> str:
        """Of picture, depth, labels and expressions."""
        frame = self._frames[index]
        files = (frame.rgb, frame.depth, frame.labels, self._refer)
        return " ".join(stamp_of(one) for one in files if one is not None)

    def encoded(self, index: int) -> bytes:
        """The file of the picture. Raises InputError where it has gone."""
        path = self._frames[index].rgb
        try:
            return path.read_bytes()
        except OSError as error:
            why = f"cannot be read ({error.strerror or error})"
            raise InputError(printable(path), why, COPY_AGAIN) from error

    def __getitem__(self, index: int) -> Sample:
        """Read a frame. Raises InputError where one of its files has gone or is damaged."""
        frame, name = self._frames[index], self.names[index]
        depth = frame.read_depth()
        said = [
            (text, thing.mask(), thing.median_depth_m)
            for thing in self._things.get(frame.index, ())
            for text in thing.expressions
        ]
        expressions = [Expression(text, mask, f"{name}/{n}", far) for n, (text, mask, far) in enumerate(said)]
        texts = {"class": Text(nyuv2.scene_words(frame.scene), "oracle")}
        if frame.labels is not None:
            labels = frame.read_labels()
            caption = photo_captions(frame, self._classes, labels, depth)[CAPTION_LEVEL][0]
            texts["caption"] = Text(caption, "oracle")
            if self._categories:
                nothing = np.zeros(depth.shape, dtype=np.bool_)
                missing = nyuv2_refer.absent(frame.index, labels, self._classes, self._categories)
                expressions += [Expression(f"the {one}", nothing, f"{name}/no-{one}") for one in missing]
        return Sample(name, frame.read_rgb(), depth, camera=nyuv2.CAMERA, expressions=tuple(expressions), texts=texts)
