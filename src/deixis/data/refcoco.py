"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: expressions for things in COCO's training pictures, as published.

Layout of lichengunc/refer and henghuiding/gRefCOCO, under one root::

    refcoco/refs(unc).p  refs(google).p  instances.json
    refcoco+/refs(unc).p  instances.json
    refcocog/refs(umd).p  refs(google).p  instances.json
    grefcoco/grefs(unc).json  instances.json                        (or grefs(unc).p)
    images/mscoco/images/train2014/COCO_train2014_000000000009.jpg   (or images/train2014, or train2014)

A ref is a thing, or in gRefCOCO any number of them, with its sentences. The pickles are read without executing what
they may name. Masks are COCO's polygons, rasterised by pycocotools as in all published numbers, or run lengths.
"""

from __future__ import annotations

import io
import json
import math
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from deixis.data.container import COPY_AGAIN, Container
from deixis.data.dataset import CountError, Dataset, Expression, Sample, count_error
from deixis.data.nyuv2_refer import decode_rle
from deixis.errors import InputError, UsageError
from deixis.io import printable
from deixis.types import BoolMap

PICTURES = ("images/mscoco/images/train2014", "images/train2014", "train2014")
"""Folders of the pictures; the first is where lichengunc/refer has them."""

WORLD = "synthetic world of Deixis"
"""``info.description`` of an ``instances.json`` that is no published one, and has other counts."""


@dataclass(frozen=True)
class Counts:
    """What is published of a split.

    Attributes:
        refs: things referred to: samples.
        pictures: that they are in.
        expressions: sentences; None where we know no source.
    """

    refs: int
    pictures: int
    expressions: int | None


# Refs and pictures: table of TensorFlow Datasets' ref_coco. Sentences: as papers on grounding give them; over splits
# they add up to 142210, 141564 and 95010, the totals of the datasets. For gRefCOCO's splits we know no source.
PUBLISHED: dict[str, dict[str, Counts | None]] = {
    "refcoco": {
        "unc-val": Counts(3811, 1500, 10834),
        "unc-testA": Counts(1975, 750, 5657),
        "unc-testB": Counts(1810, 750, 5095),
        "google-val": Counts(5000, 4559, None),
        "google-test": Counts(5000, 4527, None),
        "unc-train": Counts(42404, 16994, 120624),
        "google-train": Counts(40000, 19213, None),
    },
    "refcoco+": {
        "unc-val": Counts(3805, 1500, 10758),
        "unc-testA": Counts(1975, 750, 5726),
        "unc-testB": Counts(1798, 750, 4889),
        "unc-train": Counts(42278, 16992, 120191),
    },
    "refcocog": {
        "umd-val": Counts(2573, 1300, 4896),
        "umd-test": Counts(5023, 2600, 9602),
        "google-val": Counts(5000, 4650, None),
        "umd-train": Counts(42226, 21899, 80512),
        "google-train": Counts(44822, 24698, None),
    },
    "grefcoco": dict.fromkeys(("unc-val", "unc-testA", "unc-testB", "unc-train")),
}


def refs_path(name: str, partition: str) -> str:
    """The file of a dataset's refs, inside the root."""
    return f"{name}/grefs({partition}).json" if name == "grefcoco" else f"{name}/refs({partition}).p"


def instances_path(name: str) -> str:
    """The file of a dataset's annotations, inside the root."""
    return f"{name}/instances.json"


def picture_name(image_id: int) -> str:
    """The file of a COCO training picture."""
    return f"COCO_train2014_{image_id:012d}.jpg"


@dataclass(frozen=True)
class _Ref:
    """Things with their sentences; ``annotations`` is empty where nothing is meant."""

    ref_id: int
    image_id: int
    split: str
    annotations: tuple[int, ...]
    sentences: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """Of the sample: picture and ref."""
        return f"{self.image_id:012d}-{self.ref_id}"

    @classmethod
    def of(cls, row: dict[str, Any]) -> _Ref:
        named = row["ann_id"]
        ids = [int(one) for one in (named if isinstance(named, list) else [named])]
        # gRefCOCO's mark for nothing; its field "no_target" says the same.
        annotations = () if ids == [-1] else tuple(ids)
        # "raw" is what EVP, VPD and most others read; "sent" is without punctuation.
        sentences = tuple((int(one["sent_id"]), str(one["raw"])) for one in row["sentences"])
        return cls(int(row["ref_id"]), int(row["image_id"]), str(row["split"]), annotations, sentences)


class RefCoco(Dataset):
    """A split of one of the four datasets. A sample is a ref, in the published order, with all its sentences.

    Every sentence is an expression to be scored, as in EVP's and VPD's evaluation. A picture with several refs is
    several samples.

    Args:
        root: folder or plain tar.
        name: ``refcoco``, ``refcoco+``, ``refcocog`` or ``grefcoco``.
        split: who divided it and which part: ``unc-val``, ``umd-test`` …, see :data:`PUBLISHED`.
        list_file: names some of the samples, one in each line, or their refs' numbers; None for the whole split.
        part: of a copy that is not whole take the refs whose picture is there.

    Attributes:
        own_list: the list; the file of refs where it is not known to be the published one; the root where it is not
            whole; None otherwise.

    Raises:
        InputError: if the root has another layout, or a file is missing or damaged.
        UsageError: for an unknown dataset or split.
    """

    own_list: str | None

    def __init__(
        self,
        root: str | Path,
        name: str = "refcoco",
        split: str = "unc-val",
        list_file: str | Path | None = None,
        *,
        part: bool = False,
    ) -> None:
        if name not in PUBLISHED:
            raise UsageError(f"dataset '{printable(name)}'", "is unknown", f"use one of {', '.join(PUBLISHED)}")
        if split not in PUBLISHED[name]:
            remedy = f"use one of {', '.join(PUBLISHED[name])}"
            raise UsageError(f"split '{printable(split)}'", f"is none of {name}", remedy)
        self.name, self.split = name, split
        self._files = Container(root)
        partition, section = split.split("-")
        refs, instances = refs_path(name, partition), instances_path(name)
        pickled = refs.replace(".json", ".p")
        if not self._files.has(refs) and self._files.has(pickled):
            refs = pickled
        self._label = self._files.label(refs)
        self._pictures = self._layout(refs, instances)
        self._refs = [ref for ref in _read_refs(self._files, refs) if ref.split == section]
        if not self._refs:
            raise InputError(self._label, f"has no refs of {split}", COPY_AGAIN)
        count = len(self._refs)
        if list_file is not None:
            self._refs = _listed(self._refs, Path(list_file))
        elif part:
            self._refs = [ref for ref in self._refs if self._files.has(self._picture(ref))]
            if not self._refs:
                problem = f"holds no picture of {count} refs of {split}"
                raise InputError(self._files.label(self._pictures), problem, COPY_AGAIN)
        self._annotated = _Instances.read(self._files, instances, self._refs)
        if list_file is not None:
            self.own_list = printable(list_file)
        elif self._annotated.description == WORLD:
            self.own_list = refs
        else:
            self.incomplete = self._count_error(self._label)
            unknown = PUBLISHED[name][split] is None  # then nothing tells whether these are all
            self.own_list = refs if unknown or self.incomplete is not None else None
        if part and len(self._refs) < count:
            self.own_list = printable(self._files.root)
        self.names = [ref.name for ref in self._refs]
        if len(set(self.names)) < len(self.names):
            raise InputError(self._label, "has two refs of one number", COPY_AGAIN)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample: picture, and one expression for each sentence, all with the mask of the ref.

        Raises:
            InputError: if its picture is missing or damaged or of another size, its outline is missing or damaged, or
                a sentence is empty.
        """
        ref, name = self._refs[index], self.names[index]
        empty = next((number for number, text in ref.sentences if not text.strip()), None)
        if empty is not None:
            raise InputError(f"ref {ref.ref_id} in {self._label}", f"has no words in sentence {empty}", COPY_AGAIN)
        path = self._picture(ref)
        mask = self._annotated.mask(ref, skip_crowds=self.name == "grefcoco")
        rgb = self._files.picture(path)
        if mask.shape != rgb.shape[:2]:
            told = f"is {_size(rgb.shape)} and {_size(mask.shape)} in {instances_path(self.name)}"
            raise InputError(self._files.label(path), told, COPY_AGAIN)
        expressions = tuple(Expression(text, mask, f"{name}-{number}") for number, text in ref.sentences)
        return Sample(name, rgb, expressions=expressions)

    def stamp(self, index: int) -> str:
        """Of the picture, what is asked for in it, and its outlines."""
        ref = self._refs[index]
        return f"{self._files.stamp(self._picture(ref))} {ref.sentences} {self._annotated.told(ref)}"

    def encoded(self, index: int) -> bytes:
        """The file of the picture. Raises InputError if it is missing."""
        return self._files.read(self._picture(self._refs[index]))

    def image(self, index: int) -> str:
        """The picture, which other refs may be in too."""
        return picture_name(self._refs[index].image_id)

    def _picture(self, ref: _Ref) -> str:
        return f"{self._pictures}/{picture_name(ref.image_id)}"

    def missing(self) -> Iterator[str]:
        """Pictures and annotations that are not there, one line each."""
        for path in dict.fromkeys(map(self._picture, self._refs)):
            if not self._files.has(path):
                yield f"{self._files.label(path)}: is not there"
        lost = dict.fromkeys(what for ref in self._refs if (what := self._annotated.lacks(ref)) is not None)
        yield from (f"{self._annotated.label}: {what}" for what in lost)

    def _layout(self, *needed: str) -> str:
        """The folder of pictures; refuses a root that lacks it or a file."""
        folders = [folder for folder in PICTURES if self._files.has_folder(folder)]
        missing = [path for path in needed if not self._files.has(path)]
        if not folders:
            missing.append(f"pictures in {' or '.join(PICTURES)}")
        if missing:
            annotated = [path for path in self._files.glob(f"{self.name}/*") if path not in needed]
            shown = printable(", ".join(annotated[:6])) if annotated else self._files.contents()
            problem = f"has no {', no '.join(missing)}; it holds {shown}"
            raise InputError(
                printable(self._files.root),
                problem,
                f"pass the folder that has '{self.name}' and the pictures in it, laid out as lichengunc/refer says",
            )
        return folders[0]

    def _count_error(self, label: str) -> CountError | None:
        """The first count that is not the published one."""
        published = PUBLISHED[self.name][self.split]
        if published is None:
            return None
        counts = (
            ("refs", len(self._refs), published.refs),
            ("pictures", len({ref.image_id for ref in self._refs}), published.pictures),
            ("sentences", sum(len(ref.sentences) for ref in self._refs), published.expressions),
        )
        errors = (
            count_error(f"{label} ({what} of {self.split})", found, found if expected is None else expected)
            for what, found, expected in counts
        )
        return next((error for error in errors if error is not None), None)


def _listed(refs: Sequence[_Ref], file: Path) -> list[_Ref]:
    """The refs that a list names, in its order."""
    try:
        wanted = [line.split()[0] for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            printable(file), f"cannot be read ({why})", "pass a text file, one sample in each line"
        ) from error
    known = {key: ref for ref in refs for key in (ref.name, str(ref.ref_id))}
    missing = [one for one in wanted if one not in known]
    if missing or not wanted:
        problem = f"names '{printable(missing[0])}', which is not in this split" if missing else "names no sample"
        raise InputError(
            printable(file), problem, "name samples of the split, such as 000000000042-7, or their refs' numbers"
        )
    found = [known[one] for one in wanted]
    times = Counter(ref.name for ref in found)
    twice = next((one for one, ref in zip(wanted, found, strict=True) if times[ref.name] > 1), None)
    if twice is not None:
        raise InputError(printable(file), f"names '{printable(twice)}' twice", "leave each sample on one line")
    return found


@dataclass(frozen=True)
class _Instances:
    """What ``instances.json`` says of the things that are referred to.

    Attributes:
        label: how errors call the file.
        description: of the dataset.
        sizes: height and width of pictures [px].
        segmentations: polygons or run lengths, by annotation.
        crowds: annotations of crowds.
    """

    label: str
    description: str
    sizes: dict[int, tuple[int, int]]
    segmentations: dict[int, Any]
    crowds: set[int]

    @classmethod
    def read(cls, files: Container, path: str, refs: Iterable[_Ref]) -> _Instances:
        wanted = {number for ref in refs for number in ref.annotations}
        pictures = {ref.image_id for ref in refs}
        label = files.label(path)
        content = files.decode(path, json.loads)
        try:
            sizes = {int(one["id"]): (int(one["height"]), int(one["width"])) for one in content["images"]}
            things = {int(one["id"]): one for one in content["annotations"] if int(one["id"]) in wanted}
            segmentations = {number: one["segmentation"] for number, one in things.items()}
            crowds = {number for number, one in things.items() if one["iscrowd"]}
            description = str(content.get("info", {}).get("description", ""))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(label, f"is no file of COCO annotations ({error!r})", COPY_AGAIN) from error
        named = {number: size for number, size in sizes.items() if number in pictures}
        return cls(label, description, named, segmentations, crowds)

    def lacks(self, ref: _Ref) -> str | None:
        """What of a ref is not in the file; None for nothing."""
        if ref.image_id not in self.sizes:
            return f"has no image {ref.image_id}, which a ref names"
        lost = [number for number in ref.annotations if number not in self.segmentations]
        return f"has no annotation {lost[0]}, which a ref names" if lost else None

    def told(self, ref: _Ref) -> str:
        """All that the file says of a ref."""
        outlines = [(self.segmentations.get(number), number in self.crowds) for number in ref.annotations]
        return f"{self.sizes.get(ref.image_id)} {outlines}"

    def mask(self, ref: _Ref, *, skip_crowds: bool) -> BoolMap:
        """All pixels that a ref means, bool [H, W]. Raises InputError if that is not there or damaged."""
        lost = self.lacks(ref)
        if lost is not None:
            raise InputError(self.label, lost, COPY_AGAIN)
        mask = np.zeros(self.sizes[ref.image_id], dtype=np.bool_)
        for number in ref.annotations:
            if skip_crowds and number in self.crowds:  # as gRefCOCO's own reader
                continue
            try:
                mask |= decode_mask(self.segmentations[number], *mask.shape)
            except InputError as error:
                raise InputError(f"annotation {number} in {self.label}", error.problem, error.remedy) from error
        return mask


def decode_mask(segmentation: object, height: int, width: int) -> BoolMap:
    """COCO's outline of a thing to bool [H, W]; polygons that overlap count once.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, or run lengths: ``size`` and ``counts``, a list or
            COCO's compressed string.
        height: of the picture [px].
        width: of the picture [px].

    Raises:
        InputError: if it is no such outline, or one of another size.
        UsageError: if pycocotools is needed and not installed.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            _damaged(f"is of size {segmentation.get('size')}, the picture {[height, width]}")
        counts = segmentation.get("counts")
        runs = _runs(counts) if isinstance(counts, str) else counts
        return decode_rle({"size": [height, width], "counts": runs})  # 480.0 equals 480, and is no length of an array
    if not isinstance(segmentation, list) or not segmentation:
        _damaged("is neither polygons nor run lengths")
    for polygon in segmentation:
        _check_polygon(polygon, height, width)
    coco = coco_masks()
    # Its own decode makes arrays in a way that NumPy 2 deprecates.
    merged = coco.merge(coco.frPyObjects(segmentation, height, width))
    return decode_rle({"size": [height, width], "counts": _runs(merged["counts"].decode("ascii"))})


def coco_masks() -> Any:  # noqa: ANN401 - pycocotools has no types
    """``pycocotools.mask``, which the extra ``data`` installs.

    Raises:
        UsageError: if it is not there.
    """
    try:
        return import_module("pycocotools.mask")
    except ImportError as error:
        raise UsageError("pycocotools", "is not installed", "run pip install 'deixis[data]'") from error


def _runs(text: str) -> list[int]:
    """Run lengths of COCO's compressed string.

    Each is written in groups of five bits, the lowest first, as characters from "0" on; 32 says that more follow, and
    16 in the last one that the number is negative. From the fourth on it is the difference to the last but one.
    """
    # pycocotools decodes strings that are too short as well, to whatever is in memory.
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            _damaged("has a string of run lengths with other characters")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        _damaged("has a string of run lengths that ends within one")
    return runs


def _check_polygon(polygon: object, height: int, width: int) -> None:
    """Refuse what pycocotools would misread: it takes four numbers for a box, and far points for large buffers."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        _damaged("has a polygon of fewer than three points")
    # A whole number may be too large for a float: it is told from a number of pixels below.
    if not all(isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) for value in polygon):
        _damaged("has a polygon with a coordinate that is no number")
    for values, side in ((polygon[::2], width), (polygon[1::2], height)):
        if min(values) < -side or max(values) > 2 * side:
            _damaged("has a polygon far outside the picture")


def _damaged(problem: str) -> NoReturn:
    raise InputError("segmentation", problem, COPY_AGAIN)


def _read_refs(files: Container, path: str) -> list[_Ref]:
    label = files.label(path)
    rows = files.decode(path, json.loads if path.endswith(".json") else lambda content: read_plain(content, label))
    if not isinstance(rows, list):
        raise InputError(label, "is no list of refs", COPY_AGAIN)
    refs = []
    for number, row in enumerate(rows):
        try:
            refs.append(_Ref.of(row))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(label, f"ref {number} is incomplete ({error!r})", COPY_AGAIN) from error
    return refs


def read_plain(content: bytes, label: str) -> object:
    """The containers, strings and numbers of a pickle, Python 2's included; nothing that it names is executed.

    Args:
        content: of the file.
        label: how errors call it.

    Raises:
        InputError: if it names a class or function.
        pickle.UnpicklingError: if it is damaged, or another error: whatever pickle raises.
    """
    return _PlainUnpickler(content, label).load()


class _PlainUnpickler(pickle.Unpickler):
    """Whatever a pickle can call, it finds by :meth:`find_class`, which refuses."""

    def __init__(self, content: bytes, label: str) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")  # of Python 2's byte strings
        self.label = label

    def find_class(self, module: str, name: str) -> NoReturn:
        what = printable(f"{module}.{name}")
        raise InputError(
            self.label,
            f"is not only data: it names {what}, which is not executed",
            "take the file from where the dataset is published",
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
