"""What words do to a depth map: one picture under several descriptions, and what each changed.

Two uses: ever more detailed descriptions (:func:`refine`; Iris, iterative refinement), and right, empty, shuffled and
contradicting ones (:func:`compare_text`). The first map is the reference. Relative maps are fitted to it by scale and
shift first, since they are known up to these alone; differences are then in shares of the reference's range, and in
metres for metric maps. So the differences of the steps add up to that between the first map and the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deixis import viz, wording
from deixis.attention import depth_with_words, reads_words
from deixis.errors import UsageError
from deixis.io import LoadedImage, write_image, write_json, write_npy
from deixis.predict import DepthPredictor
from deixis.protocols.affine import AffineProtocol, least_squares
from deixis.protocols.depth import DepthProtocol
from deixis.protocols.masks import EvaluationSet
from deixis.relative import RelativePredictor
from deixis.types import RGB, Depth, FloatMap, Text

# A pixel has moved if it did so by more than this share of the reference's value, or range for relative maps.
MOVED = 0.01
# The part of the picture that moved most: this share of the pixels.
MOST = 0.05
# The whole frame, and up to which depth truth counts [m].
METRIC = DepthProtocol("frame", crop="none", max_depth=80.0)
RELATIVE = AffineProtocol(EvaluationSet("frame", METRIC.min_depth, METRIC.max_depth))

Predictor = DepthPredictor | RelativePredictor


@dataclass(frozen=True, eq=False)
class Reading:
    """One description, its map, and how the map differs from another.

    Attributes:
        label: what it is: ``step 2``, ``empty`` …
        text: the description; None for the model's own default.
        added: phrases that the description before has not.
        depth: as predicted.
        values: float32 [H, W], fitted to the reference where the map is relative.
        difference: float32 [H, W], ``values`` less those it is compared with [m, or shares of the first map's range].
        mean: mean absolute difference.
        signed: mean difference: positive where the words push things away (of disparity, pull them near).
        moved: share of pixels that moved by more than :data:`MOVED`.
        box: half-open bounding box (left, top, right, bottom) of the pixels that moved most [px]; None if none did.
        abs_rel: against the truth, relative maps aligned; None where it is not known.
    """

    label: str
    text: str | None
    added: list[str]
    depth: Depth
    values: FloatMap
    difference: FloatMap
    mean: float
    signed: float
    moved: float
    box: tuple[int, int, int, int] | None
    abs_rel: float | None

    def to_dict(self) -> dict[str, Any]:
        """What the reading says, without its pixels, as JSON-ready values."""
        return {
            "label": self.label,
            "text": self.text,
            "provenance": self.depth.text.provenance,
            "added": self.added,
            "mean_abs_difference": self.mean,
            "mean_difference": self.signed,
            "moved_share": self.moved,
            "moved_most_box": self.box,
            "abs_rel": self.abs_rel,
        }


@dataclass(frozen=True, eq=False)
class Readings:
    """A picture under several descriptions.

    Attributes:
        rgb: the picture, uint8 [H, W, 3].
        each: in the order of the descriptions.
        total: float32 [H, W], the last map less the first, in the unit of the differences.
        words: for each word that says something, of the last description or of the right one, the share of attention
            each pixel gives it, float32 [H, W]; None where the model sees descriptions as one vector.
    """

    rgb: RGB
    each: list[Reading]
    total: FloatMap
    words: list[tuple[str, FloatMap]] | None

    @property
    def unit(self) -> str:
        """Of the differences."""
        return "m" if self.each[0].depth.kind == "metric" else "share of the first map's range"

    def to_dict(self) -> dict[str, Any]:
        """What was found, without pixels, as JSON-ready values."""
        return {
            "model": self.each[0].depth.model,
            "kind": self.each[0].depth.kind,
            "unit": self.unit,
            "moved_above": f"{MOVED:.0%} of the first map's {'value' if self.unit == 'm' else 'range'}",
            "readings": [reading.to_dict() for reading in self.each],
            "total_mean_difference": float(self.total.mean(dtype=np.float64)),
            "total_mean_abs_difference": float(np.abs(self.total).mean(dtype=np.float64)),
        }


def refine(
    predictor: Predictor,
    image: LoadedImage,
    texts: Sequence[str],
    *,
    provenance: str = "user",
    truth: FloatMap | None = None,
    **settings: Any,  # noqa: ANN401 - those of the predictor
) -> Readings:
    """A picture under no description and under ever more detailed ones; each map is compared with the one before.

    Args:
        predictor: a depth model.
        image: the picture.
        texts: descriptions, in order; a single one is grown phrase by phrase (:func:`deixis.wording.grown`).
        provenance: where they come from.
        truth: float32 [H, W] [m], 0 where unknown.
        settings: passed to the predictor.

    Raises:
        UsageError: without a description, or if the model cannot take free text.
    """
    steps = wording.grown(texts[0]) if len(texts) == 1 else list(texts)
    if not steps or not all(text.strip() for text in steps):
        raise UsageError("text", "is empty", "describe the scene, each time in more detail")
    labels = ["no words", *(f"step {i}" for i in range(1, len(steps) + 1))]
    found = _read(predictor, image, labels, ["", *steps], against_first=False, truth=truth, settings=settings)
    return replace(found, each=[_from(provenance, reading) for reading in found.each])


def _from(provenance: str, reading: Reading) -> Reading:
    if not reading.text:
        return reading
    return replace(reading, depth=replace(reading.depth, text=Text(reading.text, provenance)))


def compare_text(predictor: Predictor, image: LoadedImage, text: str, seed: int = 0, **settings: Any) -> Readings:  # noqa: ANN401
    """A picture under a description, and under none, under its words shuffled, and under a contradicting one.

    Each map is compared with that of the description as it stands. A single word cannot be shuffled: that reading is
    left out.

    Args:
        predictor: a depth model.
        image: the picture.
        text: what is true of it.
        seed: of the shuffling, and of the noise of models that draw some.
        settings: passed to the predictor.

    Raises:
        UsageError: for an empty description, one whose words say nothing that can be contradicted, or a model that
            cannot take free text.
    """
    if not text.strip():
        raise UsageError("text", "is empty", "say what is true of the picture")
    readings = {"right": text, "empty": "", "shuffled": wording.shuffled(text, seed)}
    readings["contradicting"] = wording.contradicted(text)
    if not wording.can_be_shuffled(text):
        del readings["shuffled"]
    if isinstance(predictor, RelativePredictor):
        settings["seed"] = seed
    labels, texts = list(readings), list(readings.values())
    return _read(predictor, image, labels, texts, against_first=True, truth=None, settings=settings)


def _read(
    predictor: Predictor,
    image: LoadedImage,
    labels: Sequence[str],
    texts: Sequence[str],
    *,
    against_first: bool,
    truth: FloatMap | None,
    settings: dict[str, Any],
) -> Readings:
    readings: list[Reading] = []
    words = None
    for number, (label, text) in enumerate(zip(labels, texts, strict=True)):
        if number == (0 if against_first else len(texts) - 1) and reads_words(predictor, text):
            depth, found = depth_with_words(predictor, image, text, **settings)
            words = [(word, values) for word, values in found if word.isalnum() and word.lower() not in wording.SILENT]
        else:
            one = predictor(image, text, **settings)
            assert isinstance(one, Depth)  # of one picture
            depth = one
        values = _fitted(depth, readings[0].values) if readings else depth.values
        before = readings[0 if against_first else -1] if readings else None
        first = readings[0].depth if readings else depth
        difference = _difference(values, before.values if before else values, first)
        added = wording.added(before.text or "", text) if before and not against_first else []
        shares = np.abs(difference) / _scale(first)
        readings.append(
            Reading(
                label,
                text,
                added,
                depth,
                values,
                difference,
                float(np.abs(difference).mean(dtype=np.float64)),
                float(difference.mean(dtype=np.float64)),
                float((shares > MOVED).mean()),
                _box(np.abs(difference)),
                None
                if truth is None
                else (METRIC if depth.kind == "metric" else RELATIVE).score(depth, truth)["abs_rel"],
            )
        )
    total = _difference(readings[-1].values, readings[0].values, readings[0].depth)
    return Readings(image.rgb, readings, total, words)


def _fitted(depth: Depth, reference: FloatMap) -> FloatMap:
    """The values, those of a relative map with the scale and shift that bring them closest to the reference's."""
    if depth.kind == "metric":
        return depth.values
    fit = least_squares(torch.from_numpy(depth.values).flatten(), torch.from_numpy(reference).flatten())
    return (depth.values * np.float32(fit.scale) + np.float32(fit.shift)).astype(np.float32)


def _difference(values: FloatMap, other: FloatMap, first: Depth) -> FloatMap:
    """One map less another, in metres where they are metric, else in shares of the first map's range."""
    apart: FloatMap = values - other
    return apart if first.kind == "metric" else apart / np.float32(max(float(np.ptp(first.values)), 1e-6))


def _scale(first: Depth) -> FloatMap | float:
    """The difference that is as large as the first map: its value where it is metric, else 1, its range."""
    return np.maximum(first.values, np.float32(1e-3)) if first.kind == "metric" else 1.0


def _box(difference: FloatMap) -> tuple[int, int, int, int] | None:
    if not difference.any():
        return None
    most = difference >= np.quantile(difference, 1 - MOST)
    rows, columns = np.flatnonzero(most.any(axis=1)), np.flatnonzero(most.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def sheet(found: Readings) -> Image.Image:
    """All maps on one colour scale, all differences on another: nearer is red, farther blue."""
    first = found.each[0].depth
    low, high = viz.depth_range(first)
    ends = [np.quantile(np.abs(reading.difference), 0.99) for reading in found.each]
    end = max(float(max(ends)), 1e-6)
    sign = -1.0 if first.kind == "disparity" else 1.0
    unit = "m" if first.kind == "metric" else "of the range"
    rows = []
    for number, reading in enumerate(found.each):
        shown = Depth(reading.values, first.kind, reading.depth.text, first.model)
        said = f'{reading.label}: "{reading.text}"' if reading.text else f"{reading.label}: no description"
        row = [(viz.colorize_depth(shown, low=low, high=high), said)]
        if number:
            picture = viz.signed_map(np.float32(sign) * reading.difference, end)
            moved = f"moved by {reading.mean:.3f} {unit} on average, {reading.moved:.0%} of the pixels noticeably"
            if reading.abs_rel is not None:
                moved += f"; AbsRel {reading.abs_rel:.3f}"
            row.append((picture, f"{'; '.join(reading.added)}: {moved}" if reading.added else moved))
        else:
            row.append((Image.fromarray(found.rgb), f"the picture; red: nearer, blue: farther, up to {end:.3f} {unit}"))
        rows.append(row)
    return viz.contact_sheet(rows)


def attention_sheet(found: Readings, columns: int = 4) -> Image.Image | None:
    """The picture under each word, bright where pixels look at it; None where the model sees no words."""
    if not found.words:
        return None
    cells = [(viz.attention_overlay(found.rgb, values), word) for word, values in found.words]
    return viz.contact_sheet([cells[i : i + columns] for i in range(0, len(cells), columns)])


def save(found: Readings, out: Path, name: str, kind: str) -> list[Path]:
    """Write maps and differences as NPY, the sheet, the attention of words, and, last, the JSON.

    Args:
        found: what to write.
        out: folder; made if missing.
        name: stem of the files.
        kind: what stands between stem and suffix: ``refine`` or ``compare``.

    Returns:
        the files, the JSON first.

    Raises:
        DeixisError: if one cannot be written.
    """
    files = []
    for number, reading in enumerate(found.each):
        for what, values in (("depth", reading.depth.values), ("difference", reading.difference)):
            if number or what == "depth":
                files.append(out / f"{name}.{kind}.{number}.{what}.npy")
                write_npy(files[-1], values)
    files.append(out / f"{name}.{kind}.png")
    write_image(files[-1], sheet(found))
    words = attention_sheet(found)
    if words is not None:
        files.append(out / f"{name}.{kind}.attention.png")
        write_image(files[-1], words)
    path = out / f"{name}.{kind}.json"
    write_json(path, {**found.to_dict(), "files": [file.name for file in files]})
    return [path, *files]
