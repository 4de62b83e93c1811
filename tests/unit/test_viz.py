"""Pictures of results: colours mean what they should, and every size and label can be drawn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deixis import viz
from deixis.errors import UsageError
from deixis.types import Answer, Depth, DepthKind, Mask, Referent, Text

WORDS = Text("a room", "user")
SHAPES = [(1, 1), (1, 3000), (3000, 1), (2, 2), (60, 80), (480, 640), (90, 4000), (2500, 70)]
LABELS = [
    "the red chair",
    "",
    "красный стул",
    "赤い椅子 🪑",
    "a\nb\tc\x00d",
    "lone \udcff",
    "long " * 300,
    "x" * 500,
]


def ramp(kind: DepthKind, shape: tuple[int, int] = (30, 40)) -> Depth:
    """Near at the bottom, far at the top, as in most photos."""
    values = np.linspace(1, 0, shape[0], dtype=np.float32)[:, None] * np.ones(shape, dtype=np.float32)
    if kind == "metric":
        values = 1 + 9 * values
    elif kind == "disparity":
        values = 1 - values
    return Depth(values, kind, WORDS, "test-model")


def mask_of(pixels: np.ndarray, expression: str = "the red chair", *, found: bool = True) -> Mask:
    return Mask(pixels, pixels.astype(np.float32), 0.9, found, Text(expression, "user"), "test-model")


def referent(pixels: np.ndarray, expression: str = "the red chair") -> Referent:
    distance = {"median": 2.31, "p10": 2.2, "p90": 2.516}
    return Referent(expression, True, distance, None, mask_of(pixels, expression))


def warmth(pixel: tuple[int, int, int]) -> int:
    return pixel[0] - pixel[2]


@pytest.mark.parametrize("kind", ["metric", "affine", "disparity"])
def test_near_is_warm_for_every_kind(kind: DepthKind) -> None:
    picture = ramp(kind).colorize()
    assert picture.size == (40, 30)
    assert warmth(picture.getpixel((20, 29))) > 50 > -50 > warmth(picture.getpixel((20, 0)))


def test_relative_kinds_agree_on_colours() -> None:
    affine, disparity = (np.asarray(ramp(kind).colorize(low=0, high=1), dtype=int) for kind in ("affine", "disparity"))
    assert np.abs(affine - disparity).max() <= 3


def test_ends_of_the_scale() -> None:
    depth = ramp("metric")
    assert viz.depth_range(depth) == pytest.approx((1.09, 9.91), abs=0.25)
    assert np.asarray(depth.colorize(low=1, high=10)).tolist() != np.asarray(depth.colorize(low=1, high=30)).tolist()
    with pytest.raises(UsageError, match="colour scale"):
        depth.colorize(low=5, high=1)


def test_pixels_without_depth_are_grey_and_do_not_move_the_scale() -> None:
    depth = ramp("metric")
    holes = depth.values.copy()
    holes[10] = [np.nan, np.inf, 0, -1] * 10
    painted = np.asarray(viz.colorize_depth(Depth(holes, "metric", WORDS, "m"), low=1, high=10))
    assert (painted[10] == painted[10, 0]).all()
    assert np.array_equal(painted[11:], np.asarray(depth.colorize(low=1, high=10))[11:])
    nothing = Depth(np.zeros((4, 4), dtype=np.float32), "metric", WORDS, "m")
    assert viz.depth_range(nothing) == (0, 1)
    assert viz.depth_picture(nothing).width > 300


def test_error_map() -> None:
    gt = np.full((2, 3), 2, dtype=np.float32)
    gt[0, 0] = np.nan
    gt[0, 1] = 0
    pred = gt + np.array([[0, 0, 0], [0.5, 1, 9]], dtype=np.float32)
    painted = np.asarray(viz.error_map(pred, gt, vmax=1.0), dtype=int)
    assert painted.shape == (2, 3, 3)
    assert (painted[0, 0] == painted[0, 1]).all()
    brightness = painted.sum(axis=2)
    assert brightness[0, 2] < 30 < brightness[1, 0] < brightness[1, 1] == brightness[1, 2]
    with pytest.raises(UsageError, match="shapes"):
        viz.error_map(pred, gt.T, vmax=1.0)
    with pytest.raises(UsageError, match="upper end"):
        viz.error_map(pred, gt, vmax=0.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 9.7), (1, 1), (1, 1 + 1e-6), (0, 80), (0.001, 0.002), (3, 65000), (7.9, 8.1)]
)
def test_ticks_are_readable_and_inside(low: float, high: float) -> None:
    ticks = viz._ticks(low, high, at_most=6)
    assert 1 <= len(ticks) <= 7
    assert len({label for _, label in ticks}) == len(ticks)
    for value, label in ticks:
        assert low - 1e-9 <= value <= high + 1e-9
        assert float(label.removesuffix(" m")) == pytest.approx(value, rel=0.01, abs=0.005)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["metric", "disparity"])
def test_pictures_of_every_shape(shape: tuple[int, int], kind: DepthKind) -> None:
    rgb = np.full((*shape, 3), 128, dtype=np.uint8)
    pixels = np.zeros(shape, dtype=np.bool_)
    pixels[0, 0] = True
    depth = ramp(kind, shape)
    answer = Answer("how far?", (referent(pixels), referent(~pixels)), depth, "the red chair", 1.0, ("a note",))
    pictures = [
        viz.depth_picture(depth),
        viz.depth_picture(depth, rgb),
        viz.overlay_mask(rgb, pixels, "the red chair"),
        viz.answer_picture(rgb, answer),
        viz.contact_sheet([[(Image.fromarray(rgb), "photo"), (depth.colorize(), "depth")]]),
    ]
    for picture in pictures:
        assert picture.mode == "RGB"
        # room for text, and never much larger than a screen
        assert 300 <= picture.width <= viz.LONG_SIDE + 100
        assert picture.height <= 2 * viz.LONG_SIDE


@pytest.mark.parametrize("label", LABELS)
def test_any_label_can_be_drawn(label: str) -> None:
    rgb = np.zeros((50, 60, 3), dtype=np.uint8)
    pixels = np.ones((50, 60), dtype=np.bool_)
    answer = Answer(label, (referent(pixels, label),), ramp("metric", (50, 60)), notes=(label,))
    viz.overlay_mask(rgb, pixels, label)
    viz.answer_picture(rgb, answer)
    assert viz.contact_sheet([[(Image.fromarray(rgb), label)], []]).height < 700


def test_lines_fit_their_width() -> None:
    font = viz._font(16)
    for text in LABELS:
        lines = viz._wrapped(text, font, 150)
        assert 1 <= len(lines) <= 3
        assert all(font.getlength(line) <= 150 for line in lines)
    assert viz._wrapped("two words", font, 150) == ["two words"]


def test_overlay_dims_all_but_the_mask_and_leaves_an_empty_one_alone() -> None:
    rgb = np.full((400, 600, 3), 200, dtype=np.uint8)
    pixels = np.zeros((400, 600), dtype=np.bool_)
    untouched = np.asarray(viz.overlay_mask(rgb, pixels, "x"))
    pixels[100:300, 200:400] = True
    drawn = np.asarray(viz.overlay_mask(rgb, pixels, "x"))
    top, left = drawn.shape[0] - 12 - 400, 12
    photo = drawn[top : top + 400, left : left + 600]
    assert (photo[150:250, 250:350] == 200).all()
    assert (photo[:80] < 120).all()
    assert (photo[99, 250:350] == viz._MASK_COLOURS[0]).all()
    assert (untouched[top : top + 400, left : left + 600] == 200).all()


def test_a_tiny_mask_stays_visible_in_a_large_photo() -> None:
    pixels = np.zeros((3000, 4000), dtype=np.bool_)
    pixels[1500, 2000] = True
    assert viz._display_mask(pixels, (800, 600)).any()


def test_answer_labels() -> None:
    pixels = np.ones((2, 2), dtype=np.bool_)
    assert viz.answer_label(referent(pixels)) == "the red chair: 2.31 m (2.20–2.52)"
    absent = Referent("the cat", False, None, None, mask_of(~pixels, "the cat", found=False))
    assert viz.answer_label(absent) == "the cat: not found"


def test_contact_sheet_without_pictures() -> None:
    with pytest.raises(UsageError, match="contact sheet"):
        viz.contact_sheet([[]])


def test_import_is_light() -> None:
    code = "import sys, deixis.io, deixis.viz; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("shape", SHAPES)
def test_overview_of_every_shape(shape: tuple[int, int]) -> None:
    rgb = np.full((*shape, 3), 128, dtype=np.uint8)
    pixels = np.zeros(shape, dtype=np.bool_)
    pixels[0, 0] = True
    depth = ramp("metric", shape)
    answer = Answer("how far?", (referent(pixels), referent(~pixels)), depth, "the red chair", 1.0)
    masks = [mask_of(pixels), mask_of(~pixels, "the rest"), mask_of(pixels & False, "the cat", found=False)] * 3
    picture = viz.overview(rgb, depth, masks, answer)
    assert 600 <= picture.width <= viz.LONG_SIDE + 100
    assert picture.height <= 2 * viz.LONG_SIDE


def test_the_four_pictures_of_an_overview_are_of_one_size() -> None:
    rgb = np.zeros((600, 800, 3), dtype=np.uint8)
    rgb[:] = (10, 200, 10)
    nothing = np.zeros((600, 800), dtype=np.bool_)
    absent = Referent("the cat", False, None, None, mask_of(nothing, "the cat", found=False))
    sheet = viz.overview(
        rgb,
        ramp("metric", (600, 800)),
        [mask_of(nothing, found=False)],
        Answer("?", (absent,), ramp("metric", (600, 800))),
    )
    green = (np.asarray(sheet) == (10, 200, 10)).all(axis=2)
    # The photo three times, undimmed because nothing was found; the fourth place holds the depth.
    assert np.count_nonzero(green) == 3 * 600 * 800


def test_tags_of_two_masks_do_not_cover_each_other() -> None:
    pixels = np.zeros((400, 600), dtype=np.bool_)
    pixels[100:300, 500:] = True
    panel = viz._photo_panel(np.zeros((400, 600, 3), np.uint8), 600, [pixels, pixels], ["1.00 m", "2.00 m"])
    drawn = np.asarray(panel)
    areas = [np.count_nonzero((drawn == colour).all(axis=2)) for colour in viz._MASK_COLOURS[:2]]
    assert min(areas) > 1000
    # A third, fourth, ... tag that finds no room is left out.
    viz._photo_panel(np.zeros((40, 60, 3), np.uint8), 60, [pixels[:40, :60]] * 9, ["1.00 m"] * 9)
