"""Test-time augmentation: every size is covered, batching changes nothing, windows are the official ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deixis.errors import UsageError
from deixis.tta import official_resize_predict, predict

SIZES = [(6, 8), (8, 6), (7, 7), (6, 20), (20, 6), (1, 1), (1, 9), (9, 1), (2, 100), (100, 2), (5, 6)]


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def pointwise(images: Tensor) -> Tensor:
    """The same answer for a pixel in whichever view it is seen."""
    return images.sum(dim=1, keepdim=True)


def positional(images: Tensor) -> Tensor:
    """Another answer for a pixel at another place of the view, in neither direction symmetric."""
    height, width = images.shape[2:]
    rows, columns = torch.arange(height).view(-1, 1) / height, torch.arange(width) / width
    return images[:, :1] + rows * images[:, 1:2] + columns.square() * images[:, 2:]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("windows", [0, 1, 2, 3, 8, 50])
@pytest.mark.parametrize("flip", [False, True])
def test_every_pixel_of_any_frame_is_predicted(size, windows, flip):
    image = picture(*size)
    prediction = predict(pointwise, image, windows=windows, flip=flip)
    assert prediction.shape == (1, 1, *size)
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, pointwise(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(h, w) for h, w in SIZES if w > h])
@pytest.mark.parametrize("windows", [2, 3, 4, 8])
def test_windows_are_the_official_sum_over_coverage_wherever_that_is_defined(size, windows):
    image, (height, width) = picture(*size), size
    interval = (width - height) // (windows - 1)
    total, coverage = np.zeros(size), np.zeros(size)
    for start in (i * interval for i in range(windows)):
        view = positional(image[..., start : start + height])[0, 0].numpy()
        total[:, start : start + height] += view
        coverage[:, start : start + height] += 1
    covered = coverage > 0
    prediction = predict(positional, image, windows=windows)[0, 0].numpy()
    np.testing.assert_allclose(prediction[covered], total[covered] / coverage[covered], rtol=0, atol=1e-6)


def test_uncovered_columns_come_from_one_window_flush_with_the_edge():
    image = picture(6, 13)  # 3 windows of 6 at 0, 3, 6 leave column 12
    seen: list[Tensor] = []

    def forward(batch: Tensor) -> Tensor:
        seen.extend(batch.split(1))
        return positional(batch)

    prediction = predict(forward, image, windows=3)
    assert len(seen) == 4
    torch.testing.assert_close(seen[-1], image[..., 7:])
    assert torch.equal(prediction[..., 12:], positional(image[..., 7:])[..., 5:])
    assert torch.equal(prediction[..., :12], predict(positional, image[..., :12], windows=3))


def test_a_gap_between_windows_is_filled_without_touching_them():
    image = picture(4, 20)  # 2 windows of 4 at 0 and 16; 4 to 16 lies between
    prediction = predict(positional, image, windows=2)
    for start in (0, 4, 8, 12, 16):
        view = image[..., start : start + 4]
        assert torch.equal(prediction[..., start : start + 4], positional(view))


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_tall_frames_are_windowed_from_top_to_bottom(windows):
    def transposed(images: Tensor) -> Tensor:
        return positional(images.mT).mT

    image = picture(7, 17)
    wide, tall = predict(positional, image, windows=windows), predict(transposed, image.mT, windows=windows)
    assert torch.equal(tall, wide.mT)


def test_a_square_frame_has_one_window():
    calls: list[int] = []

    def forward(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return positional(batch)

    image = picture(9, 9)
    assert torch.equal(predict(forward, image, windows=8), positional(image))
    assert calls == [1]


def test_flip_averages_with_the_mirror_image():
    image = picture(6, 9)
    mirrored = positional(image.flip(3)).flip(3)
    torch.testing.assert_close(predict(positional, image, flip=True), (positional(image) + mirrored) / 2)


@pytest.mark.parametrize("windows", [0, 4, 5])
@pytest.mark.parametrize("flip", [False, True])
def test_batching_saves_forwards_and_changes_nothing(windows, flip):
    image = picture(6, 17)
    one_by_one = predict(positional, image, windows=windows, flip=flip, max_batch=1)
    views = {0: 1, 4: 5, 5: 6}[windows] * (2 if flip else 1)
    for max_batch in (1, 2, 3, 4, 100):
        sizes: list[int] = []

        def forward(batch: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(batch))
            return positional(batch)

        prediction = predict(forward, image, windows=windows, flip=flip, max_batch=max_batch)
        assert torch.equal(prediction, one_by_one)
        assert len(sizes) == math.ceil(views / max_batch)
        assert sum(sizes) == views
        assert max(sizes) <= max_batch


def test_a_filler_that_is_nowhere_needed_cannot_spread_a_nan():
    def only_the_last_column(images: Tensor) -> Tensor:
        output = pointwise(images).clone()
        if len(images) == 1 and torch.equal(images, image[..., 7:]):
            output[..., :-1] = math.nan
        return output

    image = picture(6, 13)
    prediction = predict(only_the_last_column, image, windows=3, max_batch=1)
    torch.testing.assert_close(prediction, pointwise(image), rtol=0, atol=1e-6)


def test_half_precision_views_are_averaged_in_float32():
    image = picture(6, 11)
    prediction = predict(lambda batch: pointwise(batch).bfloat16(), image, windows=3)
    assert prediction.dtype == torch.float32


def test_gradients_reach_the_image():
    image = picture(6, 13).requires_grad_()
    predict(positional, image, windows=3, flip=True).sum().backward()
    assert image.grad is not None
    assert image.grad[:, 0].allclose(torch.ones(6, 13))


@pytest.mark.parametrize("size", [(480, 640), (5, 3), (480, 480)])
def test_official_resize_squeezes_to_480_and_back(size):
    shapes: list[tuple[int, ...]] = []

    def forward(batch: Tensor) -> Tensor:
        shapes.append(tuple(batch.shape))
        return batch[:, :1]

    row = torch.linspace(0, 1, size[1]).expand(1, 3, *size)
    prediction = official_resize_predict(forward, row, flip=True)
    assert shapes == [(2, 3, 480, 480)]
    torch.testing.assert_close(prediction, row[:, :1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("call", [predict, official_resize_predict])
def test_bad_images_and_batches_are_refused(call):
    for image in (
        torch.rand(2, 3, 4, 5),
        torch.rand(1, 1, 4, 5),
        torch.rand(3, 4, 5),
        torch.rand(1, 3, 0, 5),
        torch.ones(1, 3, 4, 5, dtype=torch.uint8),
    ):
        with pytest.raises(UsageError, match="image: has shape"):
            call(pointwise, image)
    with pytest.raises(UsageError, match="max_batch: is 0"):
        call(pointwise, picture(4, 5), max_batch=0)


def test_bad_windows_and_forwards_are_refused():
    with pytest.raises(UsageError, match="windows: is -1"):
        predict(pointwise, picture(4, 5), windows=-1)
    with pytest.raises(UsageError, match=r"forward: returned shape \[1, 3, 4, 5\]"):
        predict(lambda batch: batch, picture(4, 5))
