"""Frames of one split at their own size, with what is asked about them: what the numbers of a card are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from deixis.data import nyuv2, nyuv2_refer
from deixis.data.nyuv2_captions import photo_captions
from deixis.data.world import LEVELS, Kind, WorldFrame, kinds_in, read_shards, world_split
from deixis.protocols.depth import NYU_EIGEN, DepthProtocol
from deixis.training.elsewhere import elsewhere
from deixis.training.recipe import Data
from deixis.training.store import SOURCES, Source
from deixis.types import BoolMap, FloatMap, IntMap
from deixis.world.words import STRUCTURE

Some = TypeVar("Some")

SPLITS: tuple[nyuv2.Split, ...] = ("train", "val", "heldout")
# World frames of a split that are kept, the first ones: of the training frames only trivial predictors are fitted.
KEPT = {"train": 600, "val": 100, "heldout": 300}
# Captions of everything visible, without distances.
CAPTION_LEVEL = LEVELS - 2
# The world reaches to the horizon; beyond this, as KITTI does it, nothing is scored [m].
WORLD_PROTOCOL = DepthProtocol("world", crop="none", max_depth=80.0)


@dataclass(frozen=True)
class Asked:
    """A referring expression.

    Attributes:
        text: its words.
        kind: ``template`` on photos; in the world, what singles the thing out.
        thing: what it means: an annotated object, or ids of the id map; None where nothing is meant.
    """

    text: str
    kind: str
    thing: nyuv2_refer.ReferredObject | tuple[int, ...] | None


@dataclass(frozen=True)
class Scene:
    """One frame.

    Attributes:
        frame: where its pictures are.
        cluster: scenes with the same number are not independent: the room of a photo, the frame in the world.
        place: what it shows as a whole.
        caption: of everything visible (oracle).
        asked: expressions for it.
        classes: of a photo's label map, none where photos have no such maps.
    """

    frame: nyuv2.Frame | WorldFrame
    cluster: int
    place: str
    caption: str
    asked: tuple[Asked, ...]
    classes: tuple[str, ...] = ()

    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3]. Raises InputError as the data's readers do."""
        return self.frame.read_rgb() if isinstance(self.frame, nyuv2.Frame) else self.frame.rgb

    def depth(self) -> FloatMap:
        """float32 [H, W] [m], 0 where unknown. Raises InputError as the data's readers do."""
        return self.frame.read_depth() if isinstance(self.frame, nyuv2.Frame) else self.frame.depth

    def things(self) -> tuple[IntMap, dict[int, str]]:
        """The thing at each pixel, int32 [H, W], and the class of each: of a photo the regions of its label map.

        What the room or the street is made of (:data:`deixis.world.words.STRUCTURE`) is no thing and has 0.
        Raises InputError as the data's readers do.
        """
        if isinstance(self.frame, WorldFrame):
            names = {one["id"]: one["name"].replace("_", " ") for one in self.frame.scene["things"]}
            names = {number: name for number, name in names.items() if name not in STRUCTURE}
            return np.where(np.isin(self.frame.ids, list(names)), self.frame.ids, 0).astype(np.int32), names
        if not self.classes:
            return np.zeros(self.depth().shape, dtype=np.int32), {}
        labels, names = self.frame.read_labels(), {}
        found = np.zeros(labels.shape, dtype=np.int32)
        for name, mask, _ in nyuv2.visible(labels, self.classes):
            if name not in STRUCTURE:
                regions, count = ndimage.label(mask)
                first = len(names)
                found[mask] = regions[mask] + first
                names |= dict.fromkeys(range(first + 1, first + count + 1), name)
        return found, names

    def shown(self) -> set[str]:
        """Classes with a pixel in the frame, structure among them. Raises InputError as the data's readers do."""
        if isinstance(self.frame, WorldFrame):
            seen = set(np.unique(self.frame.ids).tolist())
            return {one["name"] for one in self.frame.scene["things"] if one["id"] in seen}
        return {self.classes[label - 1] for label in np.unique(self.frame.read_labels()).tolist() if label}

    def name(self, asked: Asked) -> str:
        """The class of what an expression means, empty where nothing is meant."""
        if asked.thing is None:
            return ""
        if isinstance(asked.thing, nyuv2_refer.ReferredObject):
            return asked.thing.category
        assert isinstance(self.frame, WorldFrame)
        names: dict[int, str] = {one["id"]: one["name"] for one in self.frame.scene["things"]}
        return names[asked.thing[0]]

    def mask(self, asked: Asked) -> BoolMap:
        """Bool [H, W], what an expression for something that is there means. Raises InputError as the readers do."""
        assert asked.thing is not None
        if isinstance(asked.thing, nyuv2_refer.ReferredObject):
            return asked.thing.mask()
        assert isinstance(self.frame, WorldFrame)
        mask: BoolMap = np.isin(self.frame.ids, asked.thing)
        return mask


@dataclass
class Scenes:
    """The frames of one source.

    Attributes:
        source: photos, rooms or roads.
        protocol: how their depth is scored.
        counts: frames of each split that there are.
        splits: the frames that are looked at, per split.
    """

    source: Source
    protocol: DepthProtocol
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    splits: dict[str, list[Scene]] = field(default_factory=lambda: {split: [] for split in SPLITS})

    @property
    def title(self) -> str:
        """How the card calls it."""
        return TITLES[self.source]

    @property
    def clusters(self) -> str:
        """What is resampled for the intervals."""
        return "rooms" if self.source == "nyuv2" else "frames"

    def pairs(self, split: nyuv2.Split, limit: int, *, absent: bool = False) -> Iterator[tuple[Scene, Asked]]:
        """Expressions for what is there (or is not), at most ``limit``, spread over the frames of a split."""
        found = [(s, a) for s in self.splits[split] for a in s.asked if (a.thing is None) == absent]
        yield from spread(found, limit)

    def elsewhere(self, split: nyuv2.Split, limit: int) -> Iterator[tuple[Scene, Asked]]:
        """Expressions of other frames in frames without such a thing, at most ``limit``, spread over the split.

        Frames of photos without label maps are left out: what they show is not known.
        """
        scenes = [scene for scene in self.splits[split] if isinstance(scene.frame, WorldFrame) or scene.classes]
        told = [[(a.text, name) for a in scene.asked if (name := scene.name(a))] for scene in scenes]
        strange = elsewhere(told, [scene.shown() for scene in scenes], nyuv2_refer.ABSENT)
        found = [
            (scene, Asked(text, "elsewhere", None))
            for scene, asked in zip(scenes, strange, strict=True)
            for text, _ in asked
        ]
        yield from spread(found, limit)


TITLES: dict[Source, str] = {"nyuv2": "NYU Depth v2 photos", "rooms": "world rooms", "roads": "world roads"}


def spread(items: Sequence[Some], limit: int) -> list[Some]:
    """At most ``limit`` of all, evenly spread from the first on."""
    return [items[i] for i in np.linspace(0, len(items), min(limit, len(items)), endpoint=False).astype(int)]


def load_scenes(data: Data) -> list[Scenes]:
    """The sources that a recipe names.

    Raises:
        InputError: if a dataset is incomplete or damaged.
    """
    found = [] if data.root is None else [_photos(Path(data.root))]
    if data.world is not None:
        found += [_world(Path(data.world), kind) for kind in kinds_in(data.world)]
    return sorted(found, key=lambda scenes: SOURCES.index(scenes.source))


def _photos(root: Path) -> Scenes:
    scenes = Scenes("nyuv2", NYU_EIGEN)
    frames = nyuv2.frames(root)
    labelled = any(frame.labels for frame in frames)
    rooms, names = nyuv2.rooms(frames), nyuv2.class_names(root) if labelled else []
    things: dict[int, list[nyuv2_refer.ReferredObject]] = {}
    if (root / "refer_train.json.gz").is_file():
        for thing in nyuv2_refer.objects(root):
            things.setdefault(thing.frame, []).append(thing)
    categories = sorted({thing.category for group in things.values() for thing in group})
    for frame in frames:
        split = nyuv2.split_of(frame)
        if split is None:
            continue
        asked = [Asked(text, "template", thing) for thing in things.get(frame.index, ()) for text in thing.expressions]
        caption = ""
        if split == "heldout":  # captions and absent things of the others are not asked for
            depth = frame.read_depth()
            labels = frame.read_labels() if labelled else np.zeros(depth.shape, dtype=np.uint8)
            caption = photo_captions(frame, names, labels, depth)[CAPTION_LEVEL][0]
            missing = nyuv2_refer.absent(frame.index, labels, names, categories)
            asked += [Asked(f"the {name}", "negative", None) for name in missing]
        scenes.counts[split] += 1
        scenes.splits[split].append(
            Scene(frame, rooms[frame.index], nyuv2.scene_words(frame.scene), caption, tuple(asked), tuple(names))
        )
    return scenes


def _world(folder: Path, kind: Kind) -> Scenes:
    scenes = Scenes(kind, WORLD_PROTOCOL)
    for frame in read_shards(folder, kind=kind):
        split = world_split(frame.seed)
        scenes.counts[split] += 1
        if len(scenes.splits[split]) < KEPT[split]:
            asked = tuple(Asked(one.text, one.kind, one.targets or None) for one in frame.expressions)
            scenes.splits[split].append(Scene(frame, frame.seed, frame.place, frame.captions[CAPTION_LEVEL][0], asked))
    return scenes
