"""Pictures of results: coloured depth with a scale in metres, masks over photos, answers, contact sheets.

Near is warm and far is cold in every depth picture, whatever the kind of the map. Composed pictures are drawn
at a size for people (small ones enlarged, large ones reduced), so that their text can be read; text stands
beside the pictures, not on them, and survives any size and aspect ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from deixis.errors import UsageError
from deixis.types import RGB, Answer, BoolMap, Depth, DepthKind, FloatMap, Mask, Referent

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

DEPTH_COLORMAP = "Spectral"
ERROR_COLORMAP = "inferno"
SIGNED_COLORMAP = "RdBu"
DEPTH_PERCENTILES = (1.0, 99.0)
"""Ends of the colour scale: a few outliers must not wash out the rest."""

LONG_SIDE = 1600
"""Composed pictures are about this large at most [px]."""

_SMALL_SIDE = 480  # pictures whose long side is shorter are enlarged to it
_THIN_SIDE = 24  # thinner pictures are stretched to it: a line of one pixel shows nothing
_MIN_COLUMN = 320  # room for text beneath or above narrow pictures
_GAP = 12
_PAPER = (255, 255, 255)
_INK = (28, 28, 30)
_SOFT_INK = (110, 110, 115)
_NO_DEPTH = (60, 60, 64)
ERROR_COLOURS = ((0, 190, 90), (235, 50, 60), (40, 120, 255))
"""Of :func:`mask_error`: right, added, missed."""
_MASK_COLOURS = ((255, 45, 120), (0, 170, 230), (255, 170, 0), (130, 90, 255), (0, 175, 95))

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


# ----------------------------------------------------------------------------------------------- maps


def colorize_depth(depth: Depth, low: float | None = None, high: float | None = None) -> Image.Image:
    """The map as a picture [H, W], near warm and far cold; pixels without depth are dark grey.

    Args:
        depth: the map.
        low: near end of the colour scale (far end for disparity) in the map's own unit; by default its 1st
            percentile.
        high: the other end; by default its 99th percentile.

    Raises:
        UsageError: if ``low`` is above ``high``.
    """
    robust_low, robust_high = depth_range(depth)
    low, high = robust_low if low is None else low, robust_high if high is None else high
    if low > high:
        raise UsageError("colour scale", f"runs from {low:g} to {high:g}", "pass low below high")
    position = _position(depth.values, low, high)
    if depth.kind == "disparity":
        position = 1 - position
    return Image.fromarray(_paint(position, DEPTH_COLORMAP, depth.valid))


def depth_range(depth: Depth) -> tuple[float, float]:
    """Robust ends (1st and 99th percentile) of the map in its own unit; (0, 1) for a map without depth."""
    # A hundred thousand pixels give the percentiles of any map.
    step = max(1, math.isqrt(depth.values.size // 100_000))
    seen = replace(depth, values=depth.values[::step, ::step])
    values = seen.values[seen.valid]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, DEPTH_PERCENTILES)
    return float(low), float(high)


def error_map(pred: FloatMap, gt: FloatMap, vmax: float) -> Image.Image:
    """Absolute error as a picture [H, W]: black is 0, light yellow ``vmax`` or more, grey has no truth.

    Args:
        pred: predicted map [H, W].
        gt: true map [H, W] in the same unit; not finite or not positive where nothing was measured.
        vmax: upper end of the colour scale in the maps' unit.

    Raises:
        UsageError: if the maps differ in shape or ``vmax`` is not positive.
    """
    if pred.shape != gt.shape:
        raise UsageError("error map", f"compares shapes {pred.shape} and {gt.shape}", "resize one map first")
    if not vmax > 0:
        raise UsageError("error map", f"has the upper end {vmax}", "pass a vmax above 0")
    known = np.isfinite(gt) & (gt > 0) & np.isfinite(pred)
    return Image.fromarray(_paint(_position(np.abs(pred - gt), 0.0, vmax), ERROR_COLORMAP, known))


def signed_map(difference: FloatMap, end: float) -> Image.Image:
    """A difference as a picture [H, W]: white is 0, red (nearer) ``-end`` or less, blue (farther) ``end`` or more.

    Args:
        difference: [H, W].
        end: upper end of the colour scale, in the difference's unit.

    Raises:
        UsageError: if ``end`` is not positive.
    """
    if not end > 0:
        raise UsageError("difference map", f"has the upper end {end}", "pass one above 0")
    return Image.fromarray(_paint(_position(difference, -end, end), SIGNED_COLORMAP, np.isfinite(difference)))


def attention_overlay(rgb: RGB, attention: FloatMap) -> Image.Image:
    """The picture in grey under its attention [H, W], from the least of it (dark) to the most (yellow)."""
    low, high = float(attention.min()), float(attention.max())
    heat = _paint(_position(attention, low, high), ERROR_COLORMAP, np.ones_like(attention, dtype=np.bool_))
    grey = np.asarray(Image.fromarray(rgb).convert("L").convert("RGB"))
    return Image.blend(Image.fromarray(grey), Image.fromarray(heat), 0.6)


def depth_legend(low: float, high: float, kind: DepthKind, width: int) -> Image.Image:
    """A horizontal colour bar ``width`` pixels wide: near on the left; metres for metric maps.

    Args:
        low: left end of the colour scale [m].
        high: right end of the colour scale [m].
        kind: the map's kind; the relative ones have no numbers.
        width: width of the picture [px].
    """
    return _legend(low, high, width, DEPTH_COLORMAP, None if kind == "metric" else ("near", "far"))


def error_legend(vmax: float, width: int) -> Image.Image:
    """The colour bar of :func:`error_map`, ``width`` pixels wide, from 0 to ``vmax`` metres."""
    return _legend(0.0, vmax, width, ERROR_COLORMAP, None)


def _legend(low: float, high: float, width: int, colormap: str, ends: tuple[str, str] | None) -> Image.Image:
    """A colour bar with numbers in metres, or with words at its ends."""
    size = _text_size(width)
    font = _font(size)
    bar = max(10, size * 3 // 4)
    picture = Image.new("RGB", (width, bar + size + 10), _PAPER)
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (bar, width))
    picture.paste(Image.fromarray(_paint(ramp, colormap, np.ones_like(ramp, dtype=np.bool_))), (0, 0))
    draw = ImageDraw.Draw(picture)
    top = bar + 4
    if ends is not None:
        draw.text((0, top), ends[0], _INK, font)
        draw.text((width, top), ends[1], _INK, font, anchor="ra")
        return picture
    for value, label in _ticks(low, high, at_most=max(2, width // (size * 5))):
        x = (value - low) / (high - low) * (width - 1) if high > low else (width - 1) / 2
        draw.line([(x, bar), (x, bar + 3)], _INK, width=1)
        half = font.getlength(label) / 2
        draw.text((min(max(x, half), width - half), top), label, _INK, font, anchor="ma")
    return picture


def mask_error(rgb: RGB, pred: BoolMap, truth: BoolMap) -> Image.Image:
    """The photo [H, W], grey, with what a mask gets right in green, what it adds in red, what it misses in blue.

    Raises:
        UsageError: if the sizes differ.
    """
    if not pred.shape == truth.shape == rgb.shape[:2]:
        raise UsageError(
            "mask error", f"compares sizes {pred.shape}, {truth.shape} and {rgb.shape[:2]}", "resize them to one"
        )
    grey = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2)
    for where, colour in zip((pred & truth, pred & ~truth, truth & ~pred), ERROR_COLOURS, strict=True):
        grey[where] = 0.45 * grey[where] + 0.55 * np.array(colour)
    return Image.fromarray(grey.astype(np.uint8))


# ----------------------------------------------------------------------------------- composed pictures


def depth_picture(depth: Depth, rgb: RGB | None = None) -> Image.Image:
    """The coloured map over its colour bar, beside the photo (or below a wide one) if that is given.

    Args:
        depth: the map.
        rgb: the photo, uint8 [H, W, 3].
    """
    if rgb is None:
        return _framed(_depth_panel(depth, LONG_SIDE, []))
    join, long_side = _layout(depth.values.shape)
    return _framed(join([_photo_panel(rgb, long_side, [], []), _depth_panel(depth, long_side, [])]))


def overlay_mask(rgb: RGB, mask: BoolMap, label: str) -> Image.Image:
    """The photo with everything but the mask dimmed, an outline, and the label above.

    Args:
        rgb: the photo, uint8 [H, W, 3].
        mask: bool [H, W]; the photo stays as it is where the mask is empty.
        label: one line of text.
    """
    panel = _photo_panel(rgb, LONG_SIDE, [mask], [""])
    width = max(panel.width, _MIN_COLUMN)
    return _framed(_column([_text(label, width, swatch=_MASK_COLOURS[0] if mask.any() else _SOFT_INK), panel]))


def answer_picture(rgb: RGB, answer: Answer) -> Image.Image:
    """The answer at a glance: question, distances, the photo with the masks, and the depth map.

    Args:
        rgb: the photo, uint8 [H, W, 3].
        answer: the answer.
    """
    join, long_side = _layout(rgb.shape)
    masks = [referent.mask.mask & referent.found for referent in answer.referents]
    tags = [f"{r.distance_m['median']:.2f} m" if r.distance_m else "" for r in answer.referents]
    photo = _photo_panel(rgb, long_side, masks, tags)
    pictures = join([photo, _depth_panel(answer.depth, long_side, masks)])
    column = max(pictures.width, _MIN_COLUMN)
    lines = _answer_lines(answer, column)
    lines += [_text(note, column, colour=_SOFT_INK, scale=0.85) for note in answer.notes]
    return _framed(_column([_column(lines, gap=4), pictures]))


def _answer_lines(answer: Answer, width: int) -> list[Image.Image]:
    """Question, distances and comparison, ``width`` pixels wide."""
    lines = [_text(answer.question, width, scale=1.25)]
    for referent, colour in zip(answer.referents, cycle(_MASK_COLOURS), strict=False):
        lines.append(_text(answer_label(referent), width, swatch=colour if referent.found else _SOFT_INK))
    if answer.nearer is not None and answer.gap_m is not None:
        lines.append(_text(f"nearer: {answer.nearer}, by {answer.gap_m:.2f} m", width))
    elif answer.gap_m is not None:
        lines.append(_text("both at the same distance", width))
    return lines


def overview(rgb: RGB, depth: Depth, masks: Sequence[Mask], answer: Answer) -> Image.Image:
    """Four pictures of one size: the photo, its depth, what some expressions refer to, and an answer.

    Args:
        rgb: the photo, uint8 [H, W, 3].
        depth: its depth map.
        masks: masks of some expressions, drawn into one picture.
        answer: the answer to a question about it.
    """
    long_side = LONG_SIDE // 2
    photo = _photo_panel(rgb, long_side, [], [])
    width = max(photo.width, _MIN_COLUMN)
    low, high = depth_range(depth)
    span = f"depth, {low:.1f} to {high:.1f} m" if depth.kind == "metric" else f"{depth.kind} depth"
    said = f' ("{depth.text.text}")' if depth.text.text else ""
    named = [
        _text(
            f"{mask.expression}: {f'score {mask.score:.2f}' if mask.found else 'not found'}",
            width,
            swatch=colour if mask.found else _SOFT_INK,
        )
        for mask, colour in zip(masks, cycle(_MASK_COLOURS), strict=False)
    ]
    tags = [f"{r.distance_m['median']:.2f} m" if r.distance_m else "" for r in answer.referents]
    asked = [referent.mask.mask for referent in answer.referents]
    rows = [
        [
            ([_text("the photo", width)], photo),
            ([_text(span + said, width)], _depth_panel(depth, long_side, [])),
        ],
        [
            (named, _photo_panel(rgb, long_side, [mask.mask for mask in masks], [""] * len(masks))),
            (_answer_lines(answer, width), _photo_panel(rgb, long_side, asked, tags)),
        ],
    ]
    return _framed(_column([_row(_headed(row), gap=2 * _GAP) for row in rows], gap=2 * _GAP))


def _headed(cells: Sequence[tuple[Sequence[Image.Image], Image.Image]]) -> list[Image.Image]:
    """Pictures below their lines of text, all beginning at one height."""
    heads = [_column(lines, gap=4) for lines, _ in cells]
    tallest = max(head.height for head in heads)
    blocks = []
    for head, (_, picture) in zip(heads, cells, strict=True):
        room = Image.new("RGB", (head.width, tallest), _PAPER)
        room.paste(head, (0, tallest - head.height))
        blocks.append(_column([room, picture], gap=_GAP // 2))
    return blocks


def answer_label(referent: Referent) -> str:
    """For example ``the red chair: 2.31 m (2.20–2.52)``: median and 10th to 90th percentile."""
    if not referent.found or referent.distance_m is None:
        return f"{referent.expression}: not found"
    distance = referent.distance_m
    return f"{referent.expression}: {distance['median']:.2f} m ({distance['p10']:.2f}\N{EN DASH}{distance['p90']:.2f})"


def contact_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]]) -> Image.Image:
    """Rows of pictures with a caption beneath each, in columns of one width.

    Raises:
        UsageError: if there is no picture.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise UsageError("contact sheet", "has no pictures", "pass at least one")
    width = min(max(LONG_SIDE // columns, 240), LONG_SIDE // 2)
    lines = []
    for row in rows:
        if not row:
            continue
        pictures = [_display(picture, width) for picture, _ in row]
        tallest = max(picture.height for picture in pictures)
        cells = []
        for picture, (_, caption) in zip(pictures, row, strict=True):
            cell = Image.new("RGB", (width, tallest), _PAPER)
            cell.paste(picture, ((width - picture.width) // 2, tallest - picture.height))
            cells.append(_column([cell, _text(caption, width)], gap=4))
        lines.append(_row(cells))
    return _framed(_column(lines))


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str, up: str, *, log: bool = False
) -> Image.Image:
    """Named lines through points (x, y), with a legend beside them.

    Args:
        lines: for each name its x and its y.
        across: what x is.
        up: what y is.
        log: x on a logarithmic scale.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, marker="o", markersize=3, label=name)
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")


# -------------------------------------------------------------------------------------- colour of maps


def _position(values: FloatMap, low: float, high: float) -> FloatMap:
    """Place on the colour scale [H, W]: 0 at ``low``, 1 at ``high``; 0.5 for a scale of one value."""
    if high == low:
        return np.full(values.shape, 0.5, dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return ((values - np.float32(low)) / np.float32(high - low)).astype(np.float32)


def _paint(position: FloatMap, colormap: str, valid: BoolMap) -> RGB:
    """Colours [H, W, 3] of places [H, W] on the colour scale, clipped to it."""
    steps = np.nan_to_num(position, nan=0.0).clip(0, 1) * np.float32(255)
    painted = _palette(colormap)[np.rint(steps).astype(np.uint8)]
    painted[~valid] = _NO_DEPTH
    return painted


@lru_cache
def _palette(colormap: str) -> npt.NDArray[np.uint8]:
    """256 colours [256, 3] of a matplotlib colour map."""
    from matplotlib import colormaps

    colours = colormaps[colormap](np.linspace(0, 1, 256))[:, :3]
    return np.asarray(np.rint(np.asarray(colours) * 255), dtype=np.uint8)


def _ticks(low: float, high: float, at_most: int) -> list[tuple[float, str]]:
    """Round values between the ends with labels in metres; the value itself where both ends are one."""
    if not high > low:
        return [(low, f"{low:.2f} m")]
    rough = (high - low) / at_most
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [number * step for number in range(first, last + 1)]
    if len(values) < 2:
        values, decimals = [low, high], decimals + 1
    return [(value, f"{value:.{decimals}f} m") for value in values]


# ---------------------------------------------------------------------------------- panels of pictures


def _layout(shape: tuple[int, ...]) -> tuple[Callable[[Sequence[Image.Image]], Image.Image], int]:
    """How two pictures of a shape [H, W, ...] are joined and how long their sides are: wide ones stacked."""
    height, width = shape[:2]
    return (_column, LONG_SIDE) if width > 2 * height else (_row, LONG_SIDE // 2)


def _photo_panel(rgb: RGB, long_side: int, masks: Sequence[BoolMap], tags: Sequence[str]) -> Image.Image:
    """The photo at its display size; all but the masks is dimmed if any of them holds a pixel.

    Each mask has an outline and, where its tag is not empty, the tag on its upper edge.
    """
    photo = _display(Image.fromarray(_thinned(rgb, long_side)), long_side)
    shown = [_display_mask(mask, photo.size) for mask in masks]
    inside = np.zeros((photo.height, photo.width), dtype=np.bool_)
    for mask in shown:
        inside |= mask
    if not inside.any():
        return photo
    pixels = np.asarray(photo, dtype=np.float32)
    dimmed = 0.37 * pixels + 0.21 * pixels.mean(axis=2, keepdims=True)
    pixels = np.where(inside[..., None], pixels, dimmed)
    for mask, colour in zip(shown, cycle(_MASK_COLOURS), strict=False):
        pixels[_ring(mask, _stroke(photo.size))] = colour
    panel = Image.fromarray(pixels.astype(np.uint8))
    taken: list[Box] = []
    for mask, colour, tag in zip(shown, cycle(_MASK_COLOURS), tags, strict=False):
        if tag and mask.any():
            taken += _pin(panel, mask, tag, colour, taken)
    return panel


def _pin(panel: Image.Image, mask: BoolMap, tag: str, colour: Colour, taken: Sequence[Box]) -> list[Box]:
    """Draw a short tag on the upper edge of a mask or, where others are, below; where it came to lie, if it did."""
    size = round(_text_size(2 * panel.width) * 1.1)
    font = _font(size)
    width, height = math.ceil(font.getlength(tag)) + size, round(size * 1.5)
    if width > panel.width or height > panel.height:
        return []
    top = int(np.flatnonzero(mask.any(axis=1))[0])
    middle = int(np.median(np.flatnonzero(mask[top])))
    left = min(max(middle - width // 2, 0), panel.width - width)
    highest = min(max(top - height // 2, 0), panel.height - height)
    for upper in (*range(highest, panel.height - height + 1, height + 4), *range(highest, -1, -height - 4)):
        place = (left, upper, left + width, upper + height)
        if not any(_overlap(place, other) for other in taken):
            draw = ImageDraw.Draw(panel)
            draw.rounded_rectangle(place, radius=size // 3, fill=colour)
            draw.text((left + width / 2, upper + height / 2), tag, _PAPER, font, anchor="mm")
            return [place]
    return []


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _depth_panel(depth: Depth, long_side: int, masks: Sequence[BoolMap]) -> Image.Image:
    """The coloured map at its display size with the masks' outlines, over its colour bar."""
    low, high = depth_range(depth)
    small = replace(depth, values=_thinned(depth.values, long_side))
    panel = _display(colorize_depth(small, low, high), long_side)
    pixels = np.array(panel)
    for mask, colour in zip(masks, cycle(_MASK_COLOURS), strict=False):
        shown = _display_mask(mask, panel.size)
        pixels[_ring(shown, _stroke(panel.size) + 2)] = _PAPER
        pixels[_ring(shown, _stroke(panel.size))] = colour
    legend = depth_legend(low, high, depth.kind, max(panel.width, _MIN_COLUMN))
    return _column([Image.fromarray(pixels), legend], gap=6)


_Pixel = TypeVar("_Pixel", np.uint8, np.float32)


def _thinned(array: npt.NDArray[_Pixel], long_side: int) -> npt.NDArray[_Pixel]:
    """Every n-th pixel of [H, W, ...], still at least twice the display's: spares full-size copies."""
    step = max(1, max(array.shape[:2]) // (2 * long_side))
    return np.ascontiguousarray(array[::step, ::step])


def _display(picture: Image.Image, long_side: int) -> Image.Image:
    """The picture at a size for people: never tiny, never a thread, never larger than ``long_side``."""
    longest = max(picture.size)
    scale = min(max(longest, _SMALL_SIDE), long_side) / longest
    size = [max(_THIN_SIDE, round(side * scale)) for side in picture.size]
    return picture.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _display_mask(mask: BoolMap, size: tuple[int, int]) -> BoolMap:
    """The mask at a display size (width, height); what holds a pixel keeps at least one."""
    grown = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
    coverage = np.asarray(grown)
    shown: BoolMap = coverage > 127
    return shown if shown.any() else coverage > 0


def _ring(mask: BoolMap, width: int) -> BoolMap:
    """The pixels around a mask [H, W], ``width`` pixels wide."""
    grown = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * width + 1))
    return (np.asarray(grown) > 0) & ~mask


def _stroke(size: tuple[int, int]) -> int:
    return max(2, max(size) // 300)


# ------------------------------------------------------------------------------------- text and layout


def _column(blocks: Sequence[Image.Image], gap: int = _GAP) -> Image.Image:
    """Pictures below each other, aligned left."""
    height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    picture = Image.new("RGB", (max(block.width for block in blocks), height), _PAPER)
    top = 0
    for block in blocks:
        picture.paste(block, (0, top))
        top += block.height + gap
    return picture


def _row(blocks: Sequence[Image.Image], gap: int = _GAP) -> Image.Image:
    """Pictures beside each other, aligned at the top."""
    width = sum(block.width for block in blocks) + gap * (len(blocks) - 1)
    picture = Image.new("RGB", (width, max(block.height for block in blocks)), _PAPER)
    left = 0
    for block in blocks:
        picture.paste(block, (left, 0))
        left += block.width + gap
    return picture


def _framed(block: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (block.width + 2 * _GAP, block.height + 2 * _GAP), _PAPER)
    picture.paste(block, (_GAP, _GAP))
    return picture


def _text(
    text: str, width: int, *, scale: float = 1.0, colour: Colour = _INK, swatch: Colour | None = None
) -> Image.Image:
    """Up to three lines of text in a picture of the given width, with a patch of colour before them."""
    size = round(_text_size(width) * scale)
    font = _font(size)
    indent = size + 6 if swatch else 0
    lines = _wrapped(text, font, width - indent)
    step = round(size * 1.3)
    picture = Image.new("RGB", (width, step * len(lines) + 2), _PAPER)
    draw = ImageDraw.Draw(picture)
    if swatch:
        draw.rectangle((0, size * 0.2, size * 0.85, size * 1.05), fill=swatch)
    for number, line in enumerate(lines):
        draw.text((indent, number * step), line, colour, font)
    return picture


def _wrapped(text: str, font: FreeTypeFont, width: int, at_most: int = 3) -> list[str]:
    """Text broken at spaces, or anywhere if a word is longer than a line; the rest becomes an ellipsis."""
    # Control characters and lone surrogates (undecodable file names) cannot be drawn.
    clean = "".join(c if c.isprintable() else " " for c in text[:1000])
    lines = [""]
    for word in clean.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    if len(lines) > at_most:
        last = lines[at_most - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: at_most - 1], last.rstrip() + "…"]
    return lines


def _text_size(width: int) -> int:
    """Height of text [px] in a column of this width [px]."""
    return min(max(15, width // 48), 26)


@lru_cache
def _font(size: int) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek, Cyrillic and more."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
