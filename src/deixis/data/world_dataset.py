"""The synthetic world as a dataset: frames of ``deixis world render`` with everything that is known of them.

Captions and the names of places come from the scenes themselves, so their provenance is ``oracle``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deixis.camera import Camera
from deixis.data.container import stamp_of
from deixis.data.dataset import Dataset, Expression, Sample
from deixis.data.world import Kind, WorldFrame, read_group, shard_seeds, shards, world_split
from deixis.errors import InputError
from deixis.io import printable
from deixis.types import Text

# The caption of everything visible, without distances.
CAPTION_LEVEL = 2


class WorldDataset(Dataset):
    """Frames of one side of the world's split, rooms before roads, by their seeds.

    ``texts`` are ``class``, the place, ``caption``, and ``caption-0`` to ``caption-3``, each level's first wording.

    Args:
        root: what ``deixis world render`` wrote.
        split: ``train``, ``val``, ``heldout`` or ``all``.
        kind: ``rooms`` or ``roads``; None for both.

    Raises:
        InputError: if the folder holds no shard or no frame of the split, or a shard is damaged.
        UsageError: if pyarrow is not installed.
    """

    def __init__(self, root: str | Path, split: str = "heldout", kind: Kind | None = None) -> None:
        self.name = "world" if kind is None else f"world-{kind}"
        self.split = split
        self.names: list[str] = []
        self._places: list[tuple[Path, int, int]] = []
        self._group: tuple[tuple[Path, int], list[WorldFrame]] | None = None
        for path in shards(root, kind):
            for group, seeds in enumerate(shard_seeds(path)):
                for position, seed in enumerate(seeds):
                    if split in ("all", world_split(seed)):
                        self.names.append(f"{path.name.split('-')[0]}-{seed:06d}")
                        self._places.append((path, group, position))
        if not self.names:
            raise InputError(
                printable(root),
                f"holds no frame of the split '{split}'",
                "render 20 frames or more, or use --split all",
            )

    def __getitem__(self, index: int) -> Sample:
        """Read a frame. Raises InputError where its shard is damaged."""
        return self._sample(self.names[index], self._frame(index))

    def stamp(self, index: int) -> str:
        """Of its shard."""
        return stamp_of(self._places[index][0])

    def encoded(self, index: int) -> bytes:
        """The picture as the shard has it. Raises InputError where that is damaged."""
        return self._frame(index).encoded

    def _frame(self, index: int) -> WorldFrame:
        path, group, position = self._places[index]
        if self._group is None or self._group[0] != (path, group):
            self._group = ((path, group), read_group(path, group))  # the next frames are of this group too
        return self._group[1][position]

    def _sample(self, name: str, frame: WorldFrame) -> Sample:
        depth, ids, view = frame.depth, frame.ids, frame.scene["view"]
        expressions = []
        for number, phrase in enumerate(frame.expressions):
            mask = np.isin(ids, phrase.targets)
            measured = depth[mask & (depth > 0)]
            distance = float(np.median(measured)) if measured.size else None
            expressions.append(Expression(phrase.text, mask, f"{name}/{number}", distance))
        levels = {f"caption-{level}": wordings[0] for level, wordings in enumerate(frame.captions)}
        said = {"class": frame.place, "caption": levels[f"caption-{CAPTION_LEVEL}"], **levels}
        return Sample(
            name,
            frame.rgb,
            depth,
            camera=Camera(*(view[key] for key in ("fx", "fy", "cx", "cy", "width", "height"))),
            expressions=tuple(expressions),
            instances=ids,
            instance_names={
                one["id"]: f"{one['colour']} {one['name']}".strip().replace("_", " ") for one in frame.scene["things"]
            },
            texts={source: Text(text, "oracle") for source, text in said.items()},
        )
