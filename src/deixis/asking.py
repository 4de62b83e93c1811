"""Ask a photo how far something is: words point at pixels, pixels have depth, their depth is the answer.

Read from the top: :func:`ask` joins two models and a camera, :func:`answer` turns their outputs into an
:class:`~deixis.types.Answer`, :func:`measure` and :func:`locate` do the geometry, :func:`describe` says it in
a sentence. What a question means is read in :mod:`deixis.question`.

Distances are planar depths along the camera's axis, as everywhere in this package. For two things both
distances and their difference are given; the length of the line between the things is not estimated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt

from deixis.calibration import Known, calibrate
from deixis.camera import choose_camera
from deixis.errors import KindError, UsageError
from deixis.io import LoadedImage, read_image
from deixis.known import check_calibration, no_metres, parse_known, parse_known_point
from deixis.question import parse_question
from deixis.regions import core
from deixis.types import DEPTH_KINDS, RGB, Answer, BoolMap, Depth, Mask, Referent

if TYPE_CHECKING:
    from deixis.io import ImageSource

TINY = 0.0005
"""Masks below this share of the image are remarked upon (12 x 12 pixels of 480 x 640)."""

SAME = 0.8
"""Two masks with this intersection over union are remarked upon as one."""

WIDE = 0.5
"""A p10-p90 interval longer than this share of the median is remarked upon."""

EQUAL = 0.005
"""Two things whose distances differ by less are at the same distance: the gap would be told as 0.00 m [m]."""

Picture: TypeAlias = "ImageSource | LoadedImage"


class DepthModel(Protocol):
    """A loaded depth system, as :func:`deixis.load` returns it."""

    @property
    def kind(self) -> str:
        """Kind of its maps; ``ask`` calibrates those without metres."""

    def __call__(self, image: RGB, *, text: str | None = None) -> Depth:
        """Depth of an image [H, W, 3]; without text the system's default."""


class MaskModel(Protocol):
    """A loaded referring segmentation system, as :func:`deixis.load` returns it."""

    def __call__(self, image: RGB, *, text: str) -> Mask:
        """Mask of what ``text`` refers to in an image [H, W, 3]."""


# ----------------------------------------------------------------------------------- from picture to answer


@overload
def ask(
    image: Picture,
    question: str,
    *,
    depth: str | os.PathLike[str] | DepthModel = ...,
    segment: str | os.PathLike[str] | MaskModel = ...,
    text: str | None = ...,
    known: Sequence[str] = ...,
    known_points: Sequence[str] = ...,
    metric: str | os.PathLike[str] | DepthModel | None = ...,
    fov: float | None = ...,
    focal_px: float | None = ...,
) -> Answer: ...


@overload
def ask(
    image: list[Any] | tuple[Any, ...],
    question: str,
    *,
    depth: str | os.PathLike[str] | DepthModel = ...,
    segment: str | os.PathLike[str] | MaskModel = ...,
    text: str | None = ...,
    known: Sequence[str] = ...,
    known_points: Sequence[str] = ...,
    metric: str | os.PathLike[str] | DepthModel | None = ...,
    fov: float | None = ...,
    focal_px: float | None = ...,
) -> list[Answer]: ...


def ask(
    image: Picture | list[Any] | tuple[Any, ...],
    question: str,
    *,
    depth: str | os.PathLike[str] | DepthModel = "evp-depth-mini",
    segment: str | os.PathLike[str] | MaskModel = "evp-refer-mini",
    text: str | None = None,
    known: Sequence[str] = (),
    known_points: Sequence[str] = (),
    metric: str | os.PathLike[str] | DepthModel | None = None,
    fov: float | None = None,
    focal_px: float | None = None,
) -> Answer | list[Answer]:
    """Answer a question about distance in a picture.

    Args:
        image: a path, PIL image, array, tensor or picture already read; a list gives a list of answers.
        question: "how far is the red chair?", "the red chair", "which is nearer, the lamp or the sofa?".
        depth: a depth system: a name, a folder, or what ``load`` returned. One without metres is calibrated.
        segment: a referring segmentation system, likewise.
        text: a description of the scene for the depth system.
        known: known distances in words, "the door is 2.0 m away", to calibrate by.
        known_points: known distances of pixels, ``X,Y=METRES``, to calibrate by, alone or with ``known``.
        metric: a metric depth system to calibrate by instead.
        fov: horizontal field of view [deg] of the upright picture.
        focal_px: focal length [px] of the upright picture, instead of ``fov``. With neither, EXIF is asked.

    Raises:
        UsageError: for a question that cannot be read, for ``fov`` and ``focal_px`` together or out of range,
            for a picture source or a model of the wrong sort, for known distances that cannot be read, that are
            not in the picture or that contradict it (:func:`deixis.calibration.calibrate`).
        KindError: if the depth system is not metric and there is nothing to calibrate it by, or if it is and there is.
        InputError: if the picture cannot be read.
        ModelError: if a model cannot be loaded.
    """
    # Whatever can be wrong with the words and numbers is found before a model is loaded.
    parse_question(question)
    choose_camera(None, (1, 1), fov, focal_px)
    for name, stated in (("known", known), ("known_points", known_points)):
        _check_strings(name, stated)
    things = [parse_known(one) for one in known]
    points = [parse_known_point(one) for one in known_points]
    check_calibration(bool(things or points), metric is not None)
    depth_model = _depth_model(depth, calibrated=bool(things or points or metric is not None))
    metric_model = None if metric is None else _depth_model(metric, calibrated=False)
    mask_model = _mask_model(segment)

    def ask_one(picture: Picture) -> Answer:
        loaded = picture if isinstance(picture, LoadedImage) else read_image(picture)
        camera = choose_camera(loaded.camera, loaded.rgb.shape[:2], fov, focal_px)
        depth_map = depth_model(loaded.rgb, text=text)
        if metric_model is not None:
            depth_map = calibrate(depth_map, metric_model(loaded.rgb))
        elif things or points:
            places = [Known(metres, mask_model(loaded.rgb, text=name)) for name, metres in things]
            places += [Known(metres, (column, row)) for column, row, metres in points]
            depth_map = calibrate(depth_map, places)
        depth_map = replace(depth_map, camera=camera)
        return answer(question, depth_map, lambda expression: mask_model(loaded.rgb, text=expression))

    if isinstance(image, (list, tuple)):
        return [ask_one(picture) for picture in image]
    return ask_one(image)


def answer(question: str, depth: Depth, masks: Callable[[str], Mask]) -> Answer:
    """Answer a question from a depth map and a way to find what words refer to.

    Args:
        question: the question as asked.
        depth: metric depth [H, W] of the picture; positions need its camera.
        masks: gives the mask [H, W] of a referring expression in the same picture; called once per referent.

    Raises:
        UsageError: if the question cannot be read, or a mask has another size than the depth map.
        KindError: if the depth map is not metric; found before ``masks`` is called.
    """
    asked = parse_question(question)
    depth.metres()
    referents = tuple(_referent(expression, masks(expression), depth) for expression in asked.referents)
    notes = [note for referent in referents for note in _remarks(referent)]
    calibration = depth.calibration
    if calibration is not None:
        notes = [f"calibrated by {', '.join(calibration.by)}: {calibration.formula}", *calibration.notes, *notes]
    nearer, gap_m = None, None
    if len(referents) == 2:
        nearer, gap_m, remarks = _compare(*referents)
        notes += remarks
        if gap_m is not None and asked.kind == "gap":
            notes.append(
                "the gap is the difference of the two depths along the camera's axis, not the length of the"
                " line between the two objects"
            )
    if depth.camera is None and any(referent.found for referent in referents):
        notes.append("no position: the focal length is unknown; pass --fov or --focal-px")
    if calibration is not None:
        # Last: scale and shift move both things of a comparison alike, and cannot turn it around.
        referents = tuple(
            replace(one, distance_m=calibration.widened(one.distance_m)) if one.distance_m else one for one in referents
        )
    return Answer(question, referents, depth, nearer, gap_m, tuple(notes))


def _depth_model(model: str | os.PathLike[str] | DepthModel, *, calibrated: bool) -> DepthModel:
    """The depth system, loaded; refused if it has no metres to give, or if it has and is to be calibrated."""
    loaded = _load(model)
    kind = getattr(loaded, "kind", None)
    if kind not in DEPTH_KINDS:
        raise UsageError(_label(model), "is not a depth system", "use one such as evp-depth-mini for depth")
    if kind != "metric" and not calibrated:
        raise no_metres(_label(model), kind)
    if kind == "metric" and calibrated:
        raise KindError(_label(model), "gives metres already", "leave the calibration out")
    return cast("DepthModel", loaded)


def _mask_model(model: str | os.PathLike[str] | MaskModel) -> MaskModel:
    """The referring segmentation system, loaded."""
    loaded = _load(model)
    if getattr(loaded, "kind", None) in DEPTH_KINDS:
        raise UsageError(_label(model), "gives depth, not masks", "use one such as evp-refer-mini for masks")
    if not callable(loaded):
        raise UsageError(_label(model), "is not a referring system", "use one such as evp-refer-mini for masks")
    return cast("MaskModel", loaded)


def _check_strings(name: str, given: object) -> None:
    """Refuse one string where a list is meant, which would be read letter by letter, and what holds no strings."""
    if isinstance(given, str) or not isinstance(given, Collection) or not all(isinstance(one, str) for one in given):
        raise UsageError(name, "is no list of strings", f"pass {name}=[...]")


def _load(model: object) -> object:
    if not isinstance(model, (str, os.PathLike)):
        return model
    from deixis.predict import load

    return load(os.fspath(model))


def _label(model: object) -> str:
    """What a user calls a model: as it was named, loaded or not."""
    name = model if isinstance(model, (str, os.PathLike)) else getattr(model, "name", None)
    return str(name) if name else type(model).__name__


# ------------------------------------------------------------------------------------- from mask to metres


def measure(mask: Mask, depth: Depth) -> dict[str, float] | None:
    """Distance of what a mask shows: ``median``, ``p10`` and ``p90`` [m] of the depth inside its outline.

    The border is eroded (:data:`deixis.regions.BORDER`), by less where little would be left, and not at all along the
    frame of the picture. Depths that are not finite or not positive do not count.

    Args:
        mask: the pixels [H, W].
        depth: metric depth [H, W] of the same picture.

    Returns:
        The three numbers, or None if no pixel of the mask has a depth.

    Raises:
        KindError: if the depth map is not metric.
        UsageError: if the two sizes differ.
    """
    values = depths_of(mask, depth)
    if not len(values):
        return None
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}


def depths_of(mask: Mask, depth: Depth) -> npt.NDArray[np.float64]:
    """The depths [N] [m] that :func:`measure` looks at; arguments and errors as there."""
    rows, columns = core(mask, depth)
    return depth.metres()[rows, columns].astype(np.float64)


def locate(mask: Mask, depth: Depth) -> tuple[float, float, float] | None:
    """Camera coordinates (x right, y down, z forward) [m] of what a mask shows, at its median depth.

    The pixel that is unprojected is the one nearest to the median row and column among those measured, so
    that it lies on the object even where the middle of the mask does not (a ring, a crescent).

    Returns:
        The point, or None if the camera is unknown or no pixel of the mask has a depth.

    Raises:
        KindError: if the depth map is not metric.
        UsageError: if the two sizes differ.
    """
    values = depth.metres()
    rows, columns = core(mask, depth)
    if depth.camera is None or not len(rows):
        return None
    middle = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
    # Pixel centres lie half a pixel inside.
    u, v = float(columns[middle]) + 0.5, float(rows[middle]) + 0.5
    return depth.camera.point(u, v, float(np.median(values[rows, columns].astype(np.float64))))


def _referent(expression: str, mask: Mask, depth: Depth) -> Referent:
    """What ``expression`` names, measured if it was found."""
    if not (mask.found and mask.area):
        return Referent(expression, False, None, None, mask)
    return Referent(expression, True, measure(mask, depth), locate(mask, depth), mask)


def _remarks(referent: Referent) -> list[str]:
    """What a reader should know about one referent."""
    name, mask = f"'{referent.expression}'", referent.mask
    if not referent.found:
        return [f"{name}: no such object in the picture (confidence {mask.score:.2f})"]
    remarks = []
    if mask.area < TINY * mask.mask.size:
        pixels = "1 pixel" if mask.area == 1 else f"{mask.area} pixels"
        remarks.append(f"{name}: the mask is tiny ({pixels}), the distance is uncertain")
    if referent.distance_m is None:
        remarks.append(f"{name}: the depth map has no depth inside the mask")
    elif referent.distance_m["p90"] - referent.distance_m["p10"] > WIDE * referent.distance_m["median"]:
        remarks.append(
            f"{name}: its depth varies widely ({_interval(referent.distance_m)}), the mask may cover"
            " more than the object"
        )
    return remarks


def _compare(first: Referent, second: Referent) -> tuple[str | None, float | None, list[str]]:
    """The nearer of two referents, the gap between them [m], and remarks; None where it cannot be told."""
    a, b = first.distance_m, second.distance_m
    if a is None or b is None:
        return None, None, []
    remarks = []
    if _iou(first.mask.mask, second.mask.mask) >= SAME:
        remarks.append(f"'{first.expression}' and '{second.expression}' point at almost the same pixels")
    gap_m = abs(a["median"] - b["median"])
    if gap_m < EQUAL:
        return None, gap_m, [*remarks, "both are at the same distance"]
    nearer = first if a["median"] < b["median"] else second
    if a["p10"] <= b["p90"] and b["p10"] <= a["p90"]:
        remarks.append("the depths of the two overlap, which of them is nearer is uncertain")
    return nearer.expression, gap_m, remarks


def _iou(a: BoolMap, b: BoolMap) -> float:
    """Intersection over union of two masks that are not both empty."""
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


# ---------------------------------------------------------------------------------------------- in words


def describe(answer: Answer) -> str:
    """The answer in one line, or in two where one of two things could not be measured.

    "the red chair: 2.3 m away (2.1-2.6 m), 0.4 m to the right"; "the lamp is nearer: 1.9 m against 3.2 m, a
    gap of 1.3 m"; "the unicorn: no such object in the picture". Distances that were calibrated say by what, at the
    end. The notes are not repeated.
    """
    if answer.gap_m is None:
        said = "\n".join(_describe_one(referent) for referent in answer.referents)
    else:
        said = _describe_two(answer, answer.gap_m)
    return said if answer.calibration is None else f"{said}; calibrated by {', '.join(answer.calibration.by)}"


def _describe_one(referent: Referent) -> str:
    if not referent.found:
        return f"{referent.expression}: no such object in the picture"
    if referent.distance_m is None:
        return f"{referent.expression}: found, but its depth is unknown"
    distance = _metres(referent.distance_m["median"])
    line = f"{referent.expression}: {distance} away ({_interval(referent.distance_m)})"
    aside = round(referent.position_m[0], 1) if referent.position_m else 0.0
    if aside:
        line += f", {abs(aside):.1f} m to the {'right' if aside > 0 else 'left'}"
    return line


def _describe_two(answer: Answer, gap_m: float) -> str:
    first, second = answer.referents
    distances = [r.distance_m["median"] for r in answer.referents if r.distance_m is not None]
    near, far = min(distances), max(distances)
    # So many decimals that the two numbers differ.
    decimals = 2 if near < 1 or gap_m < 0.1 else 1
    gap = f"a gap of {gap_m:.{decimals}f} m"
    if answer.nearer is None:
        return f"{first.expression} and {second.expression}: both {_metres(near)} away"
    kind = parse_question(answer.question).kind
    if kind == "gap":
        parts = [f"{r.expression}: {d:.{decimals}f} m away" for r, d in zip(answer.referents, distances, strict=True)]
        return f"{', '.join(parts)}, {gap} in depth"
    if kind == "nearer":
        return f"{answer.nearer} is nearer: {near:.{decimals}f} m against {far:.{decimals}f} m, {gap}"
    farther = second if answer.nearer == first.expression else first
    return f"{farther.expression} is farther: {far:.{decimals}f} m against {near:.{decimals}f} m, {gap}"


def _metres(value: float) -> str:
    return f"{value:.{1 if value >= 1 else 2}f} m"


def _interval(distance_m: dict[str, float]) -> str:
    decimals = 1 if distance_m["median"] >= 1 else 2
    return f"{distance_m['p10']:.{decimals}f}-{distance_m['p90']:.{decimals}f} m"
