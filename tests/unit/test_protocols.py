"""Protocols: what is scored, what is refused, and one number whatever the number of processes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from deixis.errors import InputError, KindError, UsageError
from deixis.protocols.depth import (
    DEPTH_METRICS,
    KITTI_EIGEN,
    KITTI_GARG,
    NYU_EIGEN,
    DepthMetrics,
    DepthProtocol,
    depth_metrics,
)
from deixis.protocols.refer import REFER_512, REFER_NATIVE, ReferMetrics, ReferProtocol
from deixis.types import Depth, Mask, Text

WHOLE = DepthProtocol("whole", crop="none", max_depth=10.0)
TEXT = Text("a room", "user")


def room(seed: int, shape: tuple[int, int] = (12, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a ground truth with holes [H, W] [m]."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9.5, shape).astype(np.float32)
    prediction = truth * rng.uniform(0.6, 1.6, shape).astype(np.float32)
    truth[rng.random(shape) < 0.2] = 0
    return prediction, truth


def masks(seed: int, shape: tuple[int, int] = (10, 14)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.4
    return truth ^ (rng.random(shape) < 0.2 * (seed % 4)), truth


def test_metrics_are_their_definitions():
    prediction, truth = room(0)
    ours = WHOLE.score(prediction, truth, kind="metric")
    p, t = (values[truth > 0].astype(np.float64) for values in (prediction, truth))
    g = np.log(p) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    expected = {
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_log": np.sqrt(np.mean(g**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "silog": np.sqrt(np.mean(g**2) - 0.5 * np.mean(g) ** 2),
        **{f"d{n}": np.mean(ratio < 1.25**n) for n in (1, 2, 3)},
    }
    assert ours == pytest.approx(expected, rel=1e-9)


def test_a_perfect_prediction_scores_perfectly():
    _, truth = room(1)
    score = WHOLE.score(truth, truth, kind="metric")
    assert score == {name: float(name in ("d1", "d2", "d3")) for name in DEPTH_METRICS}


def test_pixels_outside_window_and_range_do_not_count():
    prediction, truth = room(2, (480, 640))
    truth[100, 100], truth[100, 101] = 10.0, np.float32(1e-3)
    truth[100, 102], truth[100, 103], truth[100, 104] = math.nan, math.inf, -1.0
    score = NYU_EIGEN.score(prediction, truth, kind="metric")
    elsewhere = prediction.copy()
    elsewhere[:45] = elsewhere[471:] = elsewhere[:, :41] = elsewhere[:, 601:] = math.nan
    elsewhere[100, 100:105] = 1000.0
    assert NYU_EIGEN.score(elsewhere, truth, kind="metric") == score
    assert all(math.isfinite(value) for value in score.values())


@pytest.mark.parametrize("protocol", [KITTI_GARG, KITTI_EIGEN])
@pytest.mark.parametrize("shape", [(375, 1242), (370, 1224), (374, 1238), (370, 1226), (376, 1241), (352, 1216)])
def test_every_kitti_frame_is_scored_on_its_benchmark_frame(protocol, shape):
    height, width = shape
    top, bottom, left, right = protocol.window(height, width)
    cut = protocol.window(352, 1216)
    down, across = height - 352, (width - 1216) // 2
    assert (top - down, bottom - down, left - across, right - across) == cut
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width


def test_predictions_without_a_logarithm_are_replaced():
    prediction = np.array([[math.inf, -math.inf, math.nan, 0.0, -3.0, 1e-5, 20.0]], dtype=np.float32)
    predicted, _ = WHOLE.select(prediction, np.full((1, 7), 2.0, dtype=np.float32), kind="metric")
    assert predicted.tolist() == pytest.approx([10, 10, 1e-3, 1e-3, 1e-3, 1e-5, 20])


def test_depths_arrays_and_tensors_score_the_same():
    prediction, truth = room(3)
    expected = WHOLE.score(prediction, truth, kind="metric")
    prediction.flags.writeable = False
    assert WHOLE.score(Depth(prediction, "metric", TEXT, "toy"), truth) == expected
    assert WHOLE.score(torch.tensor(prediction), torch.tensor(truth), kind="metric") == expected
    assert WHOLE.score(prediction[:, ::-1], truth[:, ::-1].astype(np.float64), kind="metric") == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["affine", "disparity"])
def test_relative_depth_is_refused(kind):
    prediction, truth = room(4)
    depth = Depth(prediction, kind, TEXT, "toy")
    for call in (
        lambda: WHOLE.score(depth, truth),
        lambda: WHOLE.score(depth, truth, kind="metric"),
        lambda: WHOLE.score(prediction, truth, kind=kind),
        lambda: DepthMetrics(WHOLE).update(depth, truth),
    ):
        with pytest.raises(KindError, match=f"whole: .*{kind} depth; use a metric model"):
            call()
    with pytest.raises(UsageError, match="bare array"):
        WHOLE.score(prediction, truth)


@pytest.mark.parametrize(
    ("protocol", "prediction", "truth", "problem"),
    [
        (WHOLE, np.ones((4, 5)), np.ones((4, 6)), "prediction is 4x5 and ground truth 4x6"),
        (NYU_EIGEN, np.ones((240, 320)), np.ones((240, 320)), "480x640, not of 240x320"),
        (KITTI_GARG, np.ones((351, 1216)), np.ones((351, 1216)), "benchmark frame from 351x1216"),
        (KITTI_GARG, np.ones((352, 1216)), np.ones((375, 1242)), "prediction is 352x1216"),
        (WHOLE, np.ones((1, 4, 5)), np.ones((4, 5)), r"prediction has shape \[1, 4, 5\]"),
        (WHOLE, np.ones((4, 5)), np.ones((4, 5, 1)), r"ground truth has shape \[4, 5, 1\]"),
        (WHOLE, np.ones((4, 5)), np.full((4, 5), 2000, dtype=np.uint16), "ground truth holds uint16"),
    ],
)
def test_maps_that_do_not_fit_are_refused_in_one_line(protocol, prediction, truth, problem):
    with pytest.raises(UsageError, match=problem) as error:
        protocol.score(prediction, truth, kind="metric")
    assert str(error.value).startswith(f"{protocol.name}: ")
    assert "\n" not in str(error.value)


def test_senseless_protocols_are_refused():
    with pytest.raises(UsageError, match="no crop 'garg'"):
        DepthProtocol("mine", crop="garg", max_depth=80.0)
    with pytest.raises(UsageError, match="use 0 < min_depth < max_depth"):
        DepthProtocol("mine", crop="none", max_depth=1e-3)
    with pytest.raises(UsageError, match="at least one"):
        depth_metrics(torch.ones(0), torch.ones(0))


def test_an_image_without_a_scored_pixel_is_named_or_counted():
    prediction, truth = room(5)
    nothing = np.zeros_like(truth)
    with pytest.raises(InputError, match="whole: no ground truth between"):
        WHOLE.score(prediction, nothing, kind="metric")

    metrics = DepthMetrics(WHOLE)
    metrics.update(prediction, nothing, kind="metric")
    with pytest.raises(UsageError, match="no image was scored and 1 skipped"):
        metrics.compute()
    metrics.update(prediction, truth, kind="metric")
    expected = {**WHOLE.score(prediction, truth, kind="metric"), "images": 1, "skipped": 1}
    assert metrics.compute() == expected


def test_images_weigh_the_same_in_any_order():
    small, large = room(6, (3, 4)), room(7, (40, 50))
    scores = [WHOLE.score(*pair, kind="metric") for pair in (small, large)]
    results = []
    for order in ((small, large), (large, small)):
        metrics = DepthMetrics(WHOLE)
        for pair in order:
            metrics.update(*pair, kind="metric")
        results.append(metrics.compute())
    assert results[0] == results[1]
    assert results[0]["rmse"] == pytest.approx((scores[0]["rmse"] + scores[1]["rmse"]) / 2)


def test_reset_forgets():
    metrics = DepthMetrics(WHOLE)
    metrics.update(*room(8), kind="metric")
    metrics.reset()
    metrics.update(*room(9), kind="metric")
    assert metrics.compute() == {**WHOLE.score(*room(9), kind="metric"), "images": 1, "skipped": 0}


def test_refer_metrics_are_their_definitions():
    pairs = [masks(seed) for seed in range(8)]
    counts = np.array([[(p & t).sum(), (p | t).sum()] for p, t in pairs])
    ious = counts[:, 0] / counts[:, 1]
    metrics = ReferMetrics(REFER_NATIVE)
    for pair in pairs:
        metrics.update(*pair)
    expected = {
        "oiou": 100 * counts[:, 0].sum() / counts[:, 1].sum(),
        "miou": 100 * ious.mean(),
        **{f"p@{level}": 100 * np.mean(ious >= level) for level in (0.5, 0.6, 0.7, 0.8, 0.9)},
        "expressions": 8,
        "empty_unions": 0,
    }
    assert metrics.compute() == pytest.approx(expected, rel=1e-12)


def test_a_threshold_is_reached_at_equality():
    truth = np.arange(10).reshape(1, 10) < 10
    metrics = ReferMetrics(ReferProtocol("toy", thresholds=(0.6, 0.7)))
    metrics.update(np.arange(10).reshape(1, 10) < 6, truth)
    result = metrics.compute()
    assert (result["p@0.6"], result["p@0.7"]) == (100, 0)


def test_empty_masks_score_zero_and_are_counted():
    nothing = np.zeros((4, 4), dtype=bool)
    metrics = ReferMetrics(REFER_NATIVE)
    metrics.update(nothing, nothing)
    result = metrics.compute()
    assert (result["oiou"], result["miou"], result["p@0.5"], result["empty_unions"]) == (0, 0, 0, 1)


def test_masks_arrays_and_tensors_score_the_same():
    prediction, truth = masks(2)
    expected = REFER_NATIVE.score(prediction, truth)
    mask = Mask(prediction, prediction.astype(np.float32), 1.0, True, TEXT, "toy")
    assert REFER_NATIVE.score(mask, truth) == expected
    assert REFER_NATIVE.score(torch.tensor(prediction), truth.astype(np.uint8)) == expected


@pytest.mark.parametrize(
    ("protocol", "prediction", "truth", "problem"),
    [
        (
            REFER_NATIVE,
            np.ones((4, 5), bool),
            np.ones((4, 6), bool),
            "prediction is 4x5 and ground truth 4x6",
        ),
        (REFER_512, np.ones((4, 5), bool), np.ones((4, 5), bool), "bring both to 512x512"),
        (REFER_NATIVE, np.ones((4, 5)), np.ones((4, 5), bool), "prediction is float64"),
        (REFER_NATIVE, np.ones((4, 5), bool), np.full((4, 5), 255, np.uint8), "ground truth is uint8"),
        (REFER_NATIVE, np.ones((1, 4, 5), bool), np.ones((4, 5), bool), r"shape \[1, 4, 5\]"),
    ],
)
def test_masks_that_do_not_fit_are_refused(protocol, prediction, truth, problem):
    with pytest.raises(UsageError, match=problem):
        protocol.score(prediction, truth)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_expression_is_an_error():
    with pytest.raises(UsageError, match="no expression was scored"):
        ReferMetrics(REFER_NATIVE).compute()


def score_shares(shares: list[list[int]], rank: int) -> dict[str, dict[str, float]]:
    """What process ``rank`` reports for its share of the samples; sample 5 has no ground truth."""
    depth, refer = DepthMetrics(WHOLE), ReferMetrics(REFER_NATIVE)
    for seed in shares[rank]:
        prediction, truth = room(seed, (10 + seed, 16))
        depth.update(prediction, truth * (seed != 5), kind="metric")
        refer.update(*masks(seed))
    return {"depth": depth.compute(), "refer": refer.compute()}


def run_process(rank: int, splits: list[list[list[int]]], folder: str) -> None:
    import torch.distributed as dist

    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results = [score_shares(shares, rank) for shares in splits]
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def test_two_processes_report_the_bits_of_one(tmp_path):
    everything = [list(range(7))]
    splits = [
        [[0, 2, 4, 6], [1, 3, 5]],
        [[5, 6], [0, 1, 2, 3, 4]],
        [[], list(range(7))],
        [[5], [6, 4, 2, 0, 1, 3]],
    ]
    torch.multiprocessing.spawn(run_process, args=(splits, str(tmp_path)), nprocs=2)
    alone = score_shares(everything, 0)
    assert alone["depth"]["skipped"] == 1
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [alone] * len(splits)
