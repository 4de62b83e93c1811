"""Sheets of pictures beside a card, and during a run: what a model makes of frames it never saw.

Photos of NYU Depth v2 may not be passed on: their sheets go into the run folder, never beside the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from deixis.asking import measure
from deixis.errors import DeixisError
from deixis.io import read_image
from deixis.predict import DepthPredictor, MaskPredictor
from deixis.relative import RelativePredictor
from deixis.training.scenes import Asked, Scene, Scenes, spread
from deixis.types import RGB, BoolMap, Depth, FloatMap, Text
from deixis.viz import DEPTH_PERCENTILES, colorize_depth, contact_sheet, depth_legend, error_map

Cell = tuple[Image.Image, str]

# Width of one picture [px]; four of them fill a sheet.
WIDTH = 380
TRUTH, FOUND = (0, 200, 120), (255, 45, 120)
# Errors from this share of the colour scale's far end on are drawn alike.
WORST = 0.25
# Rows of a sheet of validation pictures.
ROWS = 3
# What the demo's photo is asked for.
DEMO_EXPRESSIONS = ("the bed", "the window")


def demo_photo() -> RGB | None:
    """The photograph of ``deixis demo``; None where its package is not installed."""
    from deixis.cli.demo import photo

    try:
        return read_image(photo()).rgb
    except DeixisError:
        return None


# --------------------------------------------------------------------------------------------------------- depth


def depth_sheet(
    predictor: DepthPredictor, sources: Sequence[tuple[Scenes, int]], photo: RGB | None = None
) -> Image.Image | None:
    """Picture, true depth, predicted depth on the same colour scale, and error, a row for each frame.

    Args:
        predictor: the model.
        sources: held-out frames, and how many of each are shown.
        photo: one more picture, whose depth nobody knows.
    """
    rows = [
        _depth_row(predictor, scene) for scenes, count in sources for scene in spread(scenes.splits["heldout"], count)
    ]
    if photo is not None:
        depth = predictor(photo)
        low, high = _ends(depth.values)
        rows.append([(_over(_enlarged(photo)), "the demo's photo"), (_coloured(depth, low, high), "predicted depth")])
    return contact_sheet(rows) if rows else None


def _depth_row(predictor: DepthPredictor, scene: Scene) -> list[Cell]:
    rgb = scene.rgb()
    return depth_row(rgb, scene.depth(), predictor(rgb), scene.place)


def depth_row(rgb: RGB, truth: FloatMap, depth: Depth, said: str) -> list[Cell]:
    """Picture, true depth, predicted depth on the same colour scale, and error.

    Args:
        rgb: the picture, uint8 [H, W, 3].
        truth: float32 [H, W] [m], 0 where unknown.
        depth: what was predicted, in metres.
        said: beneath the picture.
    """
    known = (truth > 0) & (truth < 80)
    low, high = _ends(np.where(known, truth, 0))
    worst = max(0.1, WORST * high)
    off = float(np.mean(np.abs(depth.values - truth)[known] / truth[known])) if known.any() else float("nan")
    true = Depth(np.where(known, truth, 0).astype(np.float32), "metric", depth.text, "truth")
    wrong = np.asarray(error_map(depth.values, true.values, worst))
    return [
        (_over(_enlarged(rgb)), said),
        (_coloured(true, low, high), "true depth"),
        (_coloured(depth, low, high), "predicted depth"),
        (_over(_enlarged(wrong)), f"error, black 0, yellow {worst:.1f} m; AbsRel {off:.2f}"),
    ]


def relative_sheet(
    predictor: RelativePredictor, sources: Sequence[tuple[Scenes, int]], photo: RGB | None = None
) -> Image.Image | None:
    """Picture, true depth, and depth without and with its caption, a row for each frame; arguments as depth_sheet."""
    rows = []
    for scenes, count in sources:
        for scene in spread(scenes.splits["heldout"], count):
            rgb, truth = scene.rgb(), scene.depth()
            known = (truth > 0) & (truth < 80)
            low, high = _ends(np.where(known, truth, 0))
            true = Depth(np.where(known, truth, 0).astype(np.float32), "metric", Text("", "oracle"), "truth")
            told = [(_plain(predictor, rgb, None), "no text"), (_plain(predictor, rgb, scene.caption), "its caption")]
            rows.append([(_over(_enlarged(rgb)), scene.place), (_coloured(true, low, high), "true depth"), *told])
    if photo is not None:
        rows.append([(_over(_enlarged(photo)), "the demo's photo"), (_plain(predictor, photo, None), "no text")])
    return contact_sheet(rows) if rows else None


def _plain(predictor: RelativePredictor, rgb: RGB, text: str | None) -> Image.Image:
    depth = predictor(rgb, text)
    assert isinstance(depth, Depth)
    return _over(_enlarged(np.asarray(depth.colorize())))


def _ends(values: FloatMap) -> tuple[float, float]:
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, DEPTH_PERCENTILES)
    return float(low), float(high)


def _coloured(depth: Depth, low: float, high: float) -> Image.Image:
    """The map over its colour bar."""
    picture = _enlarged(np.asarray(colorize_depth(depth, low, high)))
    return _over(picture, depth_legend(low, high, "metric", picture.width))


def _over(picture: Image.Image, legend: Image.Image | None = None) -> Image.Image:
    """A picture over a colour bar, or over as much room: so all of a row are at one height."""
    room = depth_legend(0, 1, "metric", picture.width).height
    whole = Image.new("RGB", (picture.width, picture.height + 6 + room), (255, 255, 255))
    whole.paste(picture, (0, 0))
    if legend is not None:
        whole.paste(legend, (0, picture.height + 6))
    return whole


def _enlarged(rgb: RGB) -> Image.Image:
    """A picture at :data:`WIDTH`."""
    picture = Image.fromarray(rgb)
    smooth = Image.Resampling.BICUBIC if picture.width < WIDTH else Image.Resampling.LANCZOS
    return picture.resize((WIDTH, max(1, round(WIDTH * picture.height / picture.width))), smooth)


# ----------------------------------------------------------------------------------------------------- referring


def refer_sheet(
    predictor: MaskPredictor,
    depth: DepthPredictor | None,
    sources: Sequence[tuple[Scenes, int]],
    photo: RGB | None = None,
) -> Image.Image | None:
    """What is meant beside what is found, two expressions a row, with distances where there is a depth model.

    Args:
        predictor: the model.
        depth: measures what is found.
        sources: held-out frames, and how many expressions of each are shown.
        photo: one more picture.
    """
    cells = [
        _refer_cells(predictor, depth, scene, asked)
        for scenes, count in sources
        for scene, asked in _examples(scenes, count)
    ]
    if photo is not None:
        for words in DEMO_EXPRESSIONS:
            seen, said = _found(predictor, depth, photo, words)
            cells.append([(_enlarged(photo), f"the demo's photo: “{words}”"), (seen, said)])
    return contact_sheet(in_pairs(cells)) if cells else None


def _examples(scenes: Scenes, count: int) -> Iterator[tuple[Scene, Asked]]:
    """Expressions from different frames, the last of them for something that is not there."""
    there = list(scenes.pairs("heldout", 10**6))
    absent = list(scenes.pairs("heldout", 10**6, absent=True))
    nothing = min(1, len(absent)) if count > 1 else 0
    wanted = min(count - nothing, len(there))
    # Half a step in: where frames have as many expressions, these differ in kind.
    for i in range(wanted):
        yield there[int((i + 0.5) * len(there) / wanted)]
    if nothing:
        yield absent[len(absent) // 2]


def _refer_cells(predictor: MaskPredictor, depth: DepthPredictor | None, scene: Scene, asked: Asked) -> list[Cell]:
    rgb = scene.rgb()
    seen, said = _found(predictor, depth, rgb, asked.text)
    if asked.thing is None:
        return [(_enlarged(rgb), f"“{asked.text}” (not there)"), (seen, said)]
    mask, truth = scene.mask(asked), scene.depth()
    measured = truth[mask & (truth > 0)]
    away = f", {float(np.median(measured)):.1f} m away" if len(measured) and depth is not None else ""
    return [(_outlined(rgb, mask, TRUTH), f"“{asked.text}”{away}"), (seen, said)]


def mask_cells(rgb: RGB, words: str, truth: BoolMap, found: BoolMap) -> list[Cell]:
    """What an expression means in a picture uint8 [H, W, 3] beside what was found, masks bool [H, W]."""
    said = f"found, IoU {np.sum(truth & found) / np.sum(truth | found):.2f}" if found.any() else "nothing found"
    return [(_outlined(rgb, truth, TRUTH), f"“{words}”"), (_outlined(rgb, found, FOUND, filled=True), said)]


def in_pairs(cells: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Rows with two of these each."""
    return [[cell for pair in cells[i : i + 2] for cell in pair] for i in range(0, len(cells), 2)]


def _found(predictor: MaskPredictor, depth: DepthPredictor | None, rgb: RGB, words: str) -> Cell:
    mask = predictor(rgb, words)
    if not mask.found:
        return _enlarged(rgb), f"not found (score {mask.score:.2f})"
    said = measure(mask, depth(rgb)) if depth is not None else None
    away = f", {said['median']:.1f} m away" if said is not None else ""
    return _outlined(rgb, mask.mask, FOUND, filled=True), f"found (score {mask.score:.2f}){away}"


def _outlined(rgb: RGB, mask: BoolMap, colour: tuple[int, int, int], *, filled: bool = False) -> Image.Image:
    """The picture with the outline of a mask, and its inside tinted."""
    picture = _enlarged(rgb)
    large = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(picture.size, Image.Resampling.BILINEAR)
    inside = np.asarray(large) > 127
    grown = np.asarray(Image.fromarray(inside.astype(np.uint8)).filter(ImageFilter.MaxFilter(7))) > 0
    pixels = np.asarray(picture, dtype=np.float32).copy()
    if filled:
        pixels[inside] = 0.55 * pixels[inside] + 0.45 * np.asarray(colour, dtype=np.float32)
    pixels[grown & ~inside] = colour
    return Image.fromarray(pixels.astype(np.uint8))


# ---------------------------------------------------------------------------------------------------- the stages


def drawn(x: Tensor) -> Image.Image:
    """[1, 3, H, W] in [-1, 1] as a picture."""
    return Image.fromarray(((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy())


def sheet(cells: Sequence[Cell], columns: int) -> Image.Image:
    """Small pictures enlarged, with a line beneath each."""
    large = [(_enlarged(np.asarray(picture)), said) for picture, said in cells]
    return contact_sheet([large[i : i + columns] for i in range(0, len(large), columns)])
