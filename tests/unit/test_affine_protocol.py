"""Scoring up to scale and shift: definitions, what must not change a score, and where the originals are undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deixis.errors import InputError, KindError, UsageError
from deixis.protocols.affine import (
    AFFINE_METRICS,
    AffineMetrics,
    AffineProtocol,
    affine_metrics,
    align_depth,
    align_disparity,
    depth_to_disparity,
    least_squares,
    limited,
    mean_metrics,
    thinned,
)
from deixis.protocols.depth import depth_metrics
from deixis.protocols.masks import (
    DIODE,
    ETH3D,
    EVALUATION_SETS,
    KITTI,
    NYUV2,
    SCANNET,
    EvaluationSet,
    prediction_name,
    read_split,
)
from deixis.types import Depth, Text

ROOM = EvaluationSet("room", 1e-3, 10.0)
SIZES = [(1, 2), (2, 1), (7, 13), (48, 64)]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def truth(*size: int, seed: int = 0) -> Tensor:
    return 0.5 + 9 * rand(*size, seed=seed)


# Alignment.


@pytest.mark.parametrize("size", SIZES)
def test_depth_is_found_up_to_scale_and_shift(size):
    target = truth(*size)
    aligned, fit = align_depth(0.03 * target - 0.1, target, target > 0)
    torch.testing.assert_close(aligned, target, rtol=1e-4, atol=1e-4)
    assert (fit.scale, fit.shift) == pytest.approx((1 / 0.03, 0.1 / 0.03), rel=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_disparity_is_found_up_to_scale_and_shift(size):
    target = truth(*size)
    aligned, fit = align_disparity(0.3 / target + 0.1, target, target > 0)
    torch.testing.assert_close(aligned, target, rtol=1e-3, atol=1e-3)
    assert (fit.scale, fit.shift) == pytest.approx((1 / 0.3, -0.1 / 0.3), rel=1e-3)


def test_the_fit_is_that_of_least_squares():
    p, t = rand(500), truth(500, seed=1)
    expected = np.linalg.lstsq(np.stack([p.numpy(), np.ones(500)], 1).astype(np.float64), t.double().numpy())[0]
    assert tuple(least_squares(p, t)) == pytest.approx(expected.tolist(), rel=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.1, -3.7, 1e6])
def test_a_flat_prediction_becomes_the_mean(level):
    target = truth(7, 13)
    aligned, fit = align_depth(torch.full_like(target, level), target, target > 0)
    assert fit.scale == 0
    torch.testing.assert_close(aligned, torch.full_like(target, target.mean().item()))


def test_nothing_to_fit_on_is_an_error():
    target = truth(7, 13)
    with pytest.raises(InputError, match="no pixel to fit on"):
        align_depth(target, target, target < 0)
    with pytest.raises(InputError, match="no pixel to fit on"):
        align_disparity(-target, target, target > 0)
    holes = target.clone()
    holes[2, 3] = math.nan
    with pytest.raises(InputError, match="1 of 91 pixels are not finite"):
        align_depth(holes, target, target > 0)


def test_bad_maps_are_refused():
    target = truth(7, 13)
    for prediction, valid in ((target.mT, target > 0), (target, target), (target[None], target > 0)):
        with pytest.raises(UsageError, match="alignment: was given"):
            align_depth(prediction, target, valid)
    with pytest.raises(UsageError, match="maps of 0 px"):
        align_depth(target, target, target > 0, max_res=0)


def test_disparity_is_fitted_where_both_are_positive():
    target = truth(7, 13)
    prediction = 0.3 / target
    prediction[0, 0] = 0.0
    target[0, 1], valid = 0.0, torch.ones(7, 13, dtype=torch.bool)
    _, fit = align_disparity(prediction, target, valid)
    assert (fit.scale, fit.shift) == pytest.approx((1 / 0.3, 0), abs=1e-5)
    # No aligned disparity is below 0.001.
    aligned, _ = align_disparity(torch.cat([prediction, torch.zeros(1, 13)]), truth(8, 13), torch.ones(8, 13) > 0)
    assert aligned.max() <= 1000
    assert aligned.min() > 0


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 100), (1, 70), (5, 4)])
def test_fits_on_smaller_maps(size):
    prediction, target = rand(*size), truth(*size, seed=1)
    small = thinned(prediction, target, target > 3, 32, None)
    share = min(1.0, 32 / max(size))
    assert max(small[0].shape) == min(32, max(size))
    assert [x.shape for x in small] == [(max(1, int(size[0] * share)), max(1, int(size[1] * share)))] * 3
    # The same pixels of all three.
    assert torch.equal(small[2], small[1] > 3)
    aligned, _ = align_depth(prediction, target, target > 3, max_res=32)
    assert aligned.shape == target.shape


def test_the_official_thinning_takes_columns_only():
    x = torch.arange(48 * 64.0).view(48, 64)
    prediction, _, valid = thinned(x, x, x % 2 == 0, 32, "official")
    assert torch.equal(prediction, x[:, ::2])
    assert valid.all()
    assert torch.equal(thinned(x, x, x > 0, 32, None)[0], x[::2, ::2])
    for compat in (None, "official"):
        assert thinned(x, x, x > 0, 64, compat)[0] is x


def test_disparity_of_depth():
    disparity, positive = depth_to_disparity(torch.tensor([0.0, 2, -1, 4, math.inf, math.nan]))
    assert disparity.tolist() == [0, 0.5, 0, 0.25, 0, 0]
    assert positive.tolist() == [False, True, False, True, True, False]


def test_limits():
    assert limited(torch.tensor([-1.0, 0.5, 20]), 0.1, 10).tolist() == pytest.approx([0.1, 0.5, 10])
    assert limited(torch.tensor([-1.0, math.inf]), 0, math.inf).tolist() == pytest.approx([1e-6, math.inf])


# Metrics.


def test_the_ten_metrics_are_their_definitions():
    p, t = truth(200), truth(200, seed=1)
    found = affine_metrics(p, t)
    assert tuple(found) == AFFINE_METRICS
    nine = depth_metrics(p, t)
    assert {name: value for name, value in found.items() if name in nine} == {
        name: value for name, value in nine.items() if name != "silog"
    }
    x, y = p.double().numpy(), t.double().numpy()
    assert found["i_rmse"] == pytest.approx(np.sqrt(np.mean((1 / x - 1 / y) ** 2)))
    assert found["silog_rmse"] == pytest.approx(100 * np.std(np.log(x) - np.log(y)))
    assert affine_metrics(3 * t, t)["silog_rmse"] == pytest.approx(0, abs=1e-4)
    assert affine_metrics(p[:1], t[:1])["silog_rmse"] == 0


def test_images_are_averaged_and_officially_mixed():
    p, t = truth(3, 7, 13), truth(3, 7, 13, seed=1)
    valid = rand(3, 7, 13, seed=2) < torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1)
    rows = [affine_metrics(p[i][valid[i]], t[i][valid[i]]) for i in range(3)]
    ours, official = mean_metrics(p, t, valid), mean_metrics(p, t, valid, "official")
    for name in AFFINE_METRICS:
        mean = np.mean([row[name] for row in rows])
        assert ours[name] == pytest.approx(mean)
        if name not in ("log10", "silog_rmse"):
            assert official[name] == pytest.approx(mean)
    assert official["log10"] == pytest.approx(affine_metrics(p[valid], t[valid])["log10"])
    assert official["silog_rmse"] == pytest.approx(math.sqrt(np.mean([row["silog_rmse"] ** 2 for row in rows])))
    one = mean_metrics(p[:1], t[:1], valid[:1])
    assert mean_metrics(p[:1], t[:1], valid[:1], "official") == pytest.approx(one)
    with pytest.raises(InputError, match="an image has no valid pixel"):
        mean_metrics(p, t, valid & (torch.arange(3) > 0).view(3, 1, 1))
    with pytest.raises(UsageError, match="3 dimensions"):
        mean_metrics(p[0], t[0], valid[0])


# A protocol.


@pytest.mark.parametrize("scale", [1.0, 0.01, 70.0, -2.0])
def test_scores_do_not_see_scale_and_shift(scale):
    target, noise = truth(48, 64), rand(48, 64, seed=1)
    protocol = AffineProtocol(ROOM)
    score = protocol.score(target + noise, target, kind="affine")
    assert protocol.score(scale * (target + noise) + 5, target, kind="affine") == pytest.approx(score, rel=1e-3)
    assert protocol.score(-target, target, kind="affine")["abs_rel"] == pytest.approx(0, abs=1e-5)
    # Disparity must stay positive, as it is fitted where it is.
    score = protocol.score(1 / (target + noise), target, kind="disparity")
    moved = abs(scale) / (target + noise) + 5
    assert protocol.score(moved, target, kind="disparity") == pytest.approx(score, rel=1e-2)
    assert score["abs_rel"] > 0.01


def test_the_kind_says_how_to_align():
    target = truth(7, 13)
    text = Text("", "empty")
    disparity = Depth((0.3 / target).numpy(), "disparity", text, "model")
    assert AffineProtocol(ROOM).score(disparity, target)["abs_rel"] == pytest.approx(0, abs=1e-4)
    metric = Depth((2 * target).numpy(), "metric", text, "model")
    assert AffineProtocol(ROOM).score(metric, target)["abs_rel"] > 0.3
    assert AffineProtocol(ROOM, "depth").score(metric, target)["abs_rel"] == pytest.approx(0, abs=1e-4)
    aligned, fit, valid = AffineProtocol(ROOM).align(metric, target)
    assert fit is None
    assert valid.all()
    assert aligned.max() == 10
    for kind, alignment in (
        ("disparity", "depth"),
        ("affine", "disparity"),
        ("affine", "none"),
        ("metric", "disparity"),
    ):
        with pytest.raises(KindError, match=f"the prediction is {kind} depth"):
            AffineProtocol(ROOM, alignment).score(target, target, kind=kind)
    with pytest.raises(UsageError, match="of any kind"):
        AffineProtocol(ROOM).score(target, target)
    with pytest.raises(UsageError, match="no alignment 'log'"):
        AffineProtocol(ROOM, "log")  # type: ignore[arg-type]


def test_what_cannot_be_scored_is_named():
    target = truth(7, 13)
    protocol = AffineProtocol(ROOM)
    with pytest.raises(UsageError, match=r"prediction is \[7, 12\] and ground truth \[7, 13\]"):
        protocol.score(target[:, 1:], target, kind="affine")
    with pytest.raises(UsageError, match=r"int64 \[7, 13\]"):
        protocol.score(target.long(), target, kind="affine")
    with pytest.raises(InputError, match="no ground truth in range"):
        protocol.score(target, 100 * target, kind="affine")
    holes = target.clone()
    holes[0, :2] = torch.tensor([math.nan, math.inf])
    with pytest.raises(InputError, match="2 predictions that count are not finite"):
        protocol.score(holes, target, kind="affine")
    unknown = target.clone()
    unknown[0, :2] = torch.tensor([0.0, math.nan])
    assert protocol.score(holes, unknown, kind="affine")["abs_rel"] == pytest.approx(0, abs=1e-5)


def test_the_average_weighs_images_alike_and_counts_the_rest():
    targets = [truth(7, 13), truth(48, 64, seed=1), torch.zeros(5, 5)]
    predictions = [target + rand(*target.shape, seed=9) for target in targets]
    protocol = AffineProtocol(ROOM)
    metrics = AffineMetrics(protocol)
    for prediction, target in zip(predictions, targets, strict=True):
        metrics.update(prediction, target, kind="affine")
    found = metrics.compute()
    assert (found["images"], found["skipped"]) == (2, 1)
    for name in AFFINE_METRICS:
        scores = [protocol.score(p, t, kind="affine")[name] for p, t in zip(predictions[:2], targets[:2], strict=True)]
        assert found[name] == pytest.approx(np.mean(scores))
    empty = AffineMetrics(protocol)
    empty.update(predictions[2], targets[2], kind="affine")
    with pytest.raises(UsageError, match="no image was scored and 1 skipped"):
        empty.compute()


# The sets.


def test_the_five_sets_are_here():
    assert list(EVALUATION_SETS) == ["nyuv2", "kitti", "eth3d", "scannet", "diode"]


def test_both_limits_are_excluded_and_nan_is_no_depth():
    depth = torch.tensor([[0.0, 1e-3, 2.0, 10.0, 9.999, math.nan, math.inf, -1.0]])
    assert SCANNET.valid(depth).tolist() == [[False, False, True, False, True, False, False, False]]
    assert ETH3D.valid(depth).tolist() == [[False, True, True, True, True, False, False, False]]


def test_nyuv2_counts_its_crop():
    valid = NYUV2.valid(torch.full((480, 640), 2.0))
    assert valid.sum() == (471 - 45) * (601 - 41)
    assert valid[45, 41]
    assert not valid[44].any()
    with pytest.raises(UsageError, match="not of 240x320"):
        NYUV2.valid(torch.full((240, 320), 2.0))


@pytest.mark.parametrize("size", [(352, 1216), (353, 1217), (375, 1242), (376, 1241)])
def test_kitti_is_cut_to_its_benchmark_frame(size):
    depth = torch.full(size, 2.0)
    depth[-1, (size[1] - 1216) // 2] = 7.0
    framed = KITTI.frame(depth)
    assert framed.shape == (352, 1216)
    assert framed[-1, 0] == 7
    assert torch.equal(KITTI.frame(framed), framed)
    valid = KITTI.valid(depth)
    assert torch.equal(valid, KITTI.valid(framed))
    assert valid.sum() == (321 - 117) * (1172 - 43)
    assert KITTI.frame(torch.zeros(3, *size)).shape == (3, 352, 1216)
    with pytest.raises(UsageError, match="352x1216"):
        KITTI.frame(torch.zeros(351, 1216))


def test_diode_counts_what_its_file_says():
    depth = torch.tensor([[0.1, 5.0, 400.0, 0.0, math.nan, math.inf]])
    mask = torch.tensor([[1, 0, 1, 1, 1, 1]])
    assert DIODE.valid(depth, mask).tolist() == [[True, False, True, False, False, False]]
    with pytest.raises(UsageError, match="diode: has a mask file"):
        DIODE.valid(depth)
    with pytest.raises(UsageError, match="scannet: has no mask file"):
        SCANNET.valid(depth, mask)
    with pytest.raises(UsageError, match=r"mask \[1, 5\]"):
        DIODE.valid(depth, mask[:, 1:])
    with pytest.raises(UsageError, match="one map"):
        DIODE.valid(depth[None], mask[None])
    score = AffineProtocol(DIODE).score(torch.linspace(0, 1, 6)[None], depth, mask, kind="affine")
    assert all(math.isfinite(value) for value in score.values())


def test_a_set_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="no crop 'middle'"):
        EvaluationSet("own", 0.1, 10, crop="middle")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 10 and 1 m"):
        EvaluationSet("own", 10, 1)


def test_split_lists():
    lines = ["a/rgb_1.png a/depth_1.png\n", "b.png None 721.5377", "", "  c.png\tc.npy  c_mask.npy "]
    assert read_split(lines) == [("a/rgb_1.png", "a/depth_1.png"), ("c.png", "c.npy", "c_mask.npy")]
    with pytest.raises(UsageError, match="line 2: names a picture without a depth"):
        read_split(["a.png a.npy", "b.png"])
    assert prediction_name("a/rgb_0001.png") == "pred_0001.npy"
    assert prediction_name("0000000069.png") == "pred_0000000069.npy"
