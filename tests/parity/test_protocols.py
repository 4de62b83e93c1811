"""Protocols, SiLog loss and test-time augmentation against recorded values of the official EVP code.

The fixtures were made by the official code (commit in each file's ``source``) on the scenes and images that
their recipes describe. Cases marked ``raises`` are calls on which that code fails; here they are defined.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deixis.protocols.depth import DEPTH_METRICS, NYU_EIGEN, DepthProtocol, depth_metrics
from deixis.protocols.refer import REFER_NATIVE, ReferMetrics
from deixis.training.losses import silog_loss
from deixis.tta import official_resize_predict, predict
from tests.parity.pseudo_weights import pseudo_input

FIXTURES = Path(__file__).parent / "fixtures" / "evp"
DEPTH = json.loads((FIXTURES / "depth_metrics.json").read_text())
TTA = json.loads((FIXTURES / "depth_tta.json").read_text())
REFER = json.loads((FIXTURES / "refer_metrics.json").read_text())

METRIC_TOLERANCE = 1e-4  # relative, as the fixtures' README asks
POISONED = (100, 100), (101, 101), (102, 102)


def by_name(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


@cache
def scene(tag: str) -> tuple[Tensor, Tensor]:
    """Prediction and ground truth [H, W] of a recorded scene."""
    s = DEPTH["scenes"][tag]
    shape = (s["h"], s["w"])
    base = np.float32(s["lo"]) + np.float32(s["span"]) * pseudo_input(f"{tag}.base", shape)
    truth = np.where(pseudo_input(f"{tag}.hole", shape) < s["hole"], np.float32(0), base)
    prediction = base * (np.float32(0.3) + np.float32(1.2) * pseudo_input(f"{tag}.noise", shape))
    return torch.from_numpy(prediction), torch.from_numpy(truth)


def poisoned_scene(tag: str) -> tuple[Tensor, Tensor]:
    prediction, truth = (values.clone() for values in scene(tag))
    truth[100:103, 100:103] = 2.0
    for pixel, value in zip(POISONED, (math.inf, math.nan, -math.inf), strict=True):
        prediction[pixel] = value
    return prediction, truth


def protocol_of(args: dict[str, Any]) -> DepthProtocol:
    """The protocol that the official command line arguments stand for."""
    crops = {"garg_crop": "kitti_garg", "eigen_crop": "kitti_eigen", None: "none"}
    kitti = args["dataset"] == "kitti"
    return DepthProtocol(
        name="recorded",
        crop="nyu_eigen" if args["dataset"] == "nyudepthv2" else crops[args["kitti_crop"]],
        max_depth=args["max_depth_eval"],
        min_depth=args["min_depth_eval"],
        benchmark_crop=kitti and bool(args["do_kb_crop"]),
    )


@by_name([case for case in DEPTH["cases"] if "raises" not in case])
def test_depth_metrics_are_the_recorded_ones(case):
    prediction, truth = poisoned_scene(case["scene"]) if case["poison"] else scene(case["scene"])
    protocol = protocol_of(case["args"])

    assert protocol.window(*truth.shape) == tuple(case["window_rows_cols_half_open"])
    predicted, scored = protocol.select(prediction, truth, kind="metric")
    assert len(scored) == case["n_valid"]
    assert scored.double().sum().item() == pytest.approx(case["gt_sum"], rel=1e-9)
    assert predicted.double().sum().item() == pytest.approx(case["pred_sum"], rel=1e-9)
    assert protocol.score(prediction, truth, kind="metric") == pytest.approx(case["metrics"], rel=METRIC_TOLERANCE)


@by_name([case for case in DEPTH["cases"] if "raises" in case])
def test_where_the_official_metrics_raise_ours_score_the_frame_that_is_left(case):
    """The benchmark crop cuts both maps; without a crop the frame it leaves is scored whole."""
    prediction, truth = scene(case["scene"])
    protocol = protocol_of(case["args"])
    height, width = truth.shape
    if case["args"]["do_kb_crop"]:
        left = (width - 1216) // 2
        frame = slice(height - 352, height), slice(left, left + 1216)
    else:
        frame = slice(0, height), slice(0, width)
    uncut = DepthProtocol("uncut", crop=protocol.crop, max_depth=protocol.max_depth)

    score = protocol.score(prediction, truth, kind="metric")

    assert score == uncut.score(prediction[frame], truth[frame], kind="metric")
    assert all(math.isfinite(value) for value in score.values())
    if protocol.crop == "none":
        scored = (truth[frame] > 1e-3) & (truth[frame] < 80)
        assert len(protocol.select(prediction, truth, kind="metric")[0]) == scored.sum()


def test_non_finite_predictions_become_the_recorded_values():
    (case,) = [case for case in DEPTH["cases"] if case["poison"]]
    prediction, truth = poisoned_scene(case["scene"])
    only_poisoned = torch.zeros_like(truth)
    for pixel in POISONED:
        only_poisoned[pixel] = truth[pixel]
    predicted, _ = NYU_EIGEN.select(prediction, only_poisoned, kind="metric")
    assert predicted.tolist() == case["poisoned_pixels_after"]
    assert torch.isnan(prediction[101, 101]), "the caller's map must stay as it is"


def test_a_ratio_of_exactly_1_25_is_outside_d1():
    small = DEPTH["eval_depth_small"]
    ours = depth_metrics(torch.tensor(small["pred"]), torch.tensor(small["target"]))
    assert tuple(ours) == DEPTH_METRICS
    assert ours == pytest.approx(small["metrics"], rel=1e-6)


@pytest.mark.parametrize("case", [case for case in DEPTH["silog"] if "scene" in case])
def test_silog_loss_and_gradient_are_the_recorded_ones(case):
    prediction, truth = scene(case["scene"])
    prediction = prediction.clone().requires_grad_()
    loss = silog_loss(prediction, truth, lambd=case["lambd"])
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert loss.item() == pytest.approx(case["value"], rel=METRIC_TOLERANCE)
    assert gradient.double().norm().item() == pytest.approx(case["grad_l2"], rel=METRIC_TOLERANCE)
    assert int((gradient != 0).sum()) == case["grad_nonzero"]


@pytest.mark.parametrize("case", [case for case in DEPTH["silog"] if "pred" in case])
def test_silog_loss_is_finite_where_the_recorded_one_is_not(case):
    prediction = torch.tensor(case["pred"], requires_grad=True)
    loss = silog_loss(prediction, torch.tensor(case["target"]), lambd=case["lambd"])
    (gradient,) = torch.autograd.grad(loss, prediction)
    expected = 0.0 if case["value"] == "nan" else case["value"]
    assert loss.item() == pytest.approx(expected, rel=METRIC_TOLERANCE)
    assert torch.isfinite(gradient).all()
    if "nan" in case.get("grad", []) or case["value"] == "nan":
        assert not gradient.any()


def toy_model(images: Tensor) -> Tensor:
    """The recorded toy: depends on the column within the view, so it is not flip-symmetric."""
    red, green, blue = images.split(1, dim=1)
    column = torch.arange(images.shape[3], dtype=torch.float32) / (images.shape[3] - 1)
    return 1 + 0.5 * red + 0.25 * green + column * blue


@by_name(TTA["cases"])
def test_tta_is_the_official_loop_on_every_column_that_it_defines(case):
    args, (height, width) = case["args"], case["pred_shape"]
    image = torch.from_numpy(pseudo_input(f"tta.{args['dataset']}.image", (1, 3, height, width)))
    views: list[tuple[int, ...]] = []

    def forward(batch: Tensor) -> Tensor:
        views.extend([tuple(batch[:1].shape)] * len(batch))
        return toy_model(batch)

    flip = args["flip_test"]
    if args["shift_window_test"]:
        prediction = predict(forward, image, windows=args["shift_size"], flip=flip)
    else:
        prediction = official_resize_predict(forward, image, flip=flip)

    extra_windows = bool(case["nan_columns"]) * (2 if flip else 1)
    assert views == [tuple(case["model_input_shape"])] * (case["model_calls"] + extra_windows)
    ours = prediction[0, 0].double().numpy()
    assert np.isfinite(ours).all()

    recorded = np.load(FIXTURES / "depth_tta.npz")
    for theirs, same in (
        (recorded[case["name"]], ours[::8, ::8]),
        (recorded[f"{case['name']}.last_columns"], ours[::8, -24:]),
    ):
        covered = np.isfinite(theirs)
        np.testing.assert_allclose(same[covered], theirs[covered], rtol=0, atol=1e-6)

    first, last = case["nan_columns"] or (width, width)
    covered = np.delete(ours, np.s_[first:last], axis=1)
    assert covered.mean() == pytest.approx(case["finite_mean"], rel=1e-6)
    assert covered.std() == pytest.approx(case["finite_std"], rel=1e-6)
    if case["nan_columns"]:
        flush = image[..., -height:]
        alone = predict(toy_model, flush, flip=flip)[0, 0]
        np.testing.assert_array_equal(prediction[0, 0, :, first:], alone[:, first - width :])

    truth = scene("nyu" if args["dataset"] == "nyudepthv2" else "kitti")[1]
    score = protocol_of(args).score(prediction[0, 0], truth, kind="metric")
    # The recorded metrics count NaN columns as the minimum depth, but the crops leave those columns out.
    assert score == pytest.approx(case["metrics"], rel=METRIC_TOLERANCE)


def refer_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = []
    for index, item in enumerate(REFER["recipe"]["objects"]):
        truth = np.zeros((32, 32), dtype=bool)
        if item["rectangle"]:
            top, bottom, left, right = item["rectangle"]
            truth[top:bottom, left:right] = True
        for sentence, share in enumerate(item["p_per_sentence"]):
            pairs.append((truth ^ (pseudo_input(f"refer_eval.{index}.{sentence}", (32, 32)) < share), truth))
    return pairs


def test_refer_metrics_are_the_recorded_ones():
    metrics = ReferMetrics(REFER_NATIVE)
    counts, ious = [], []
    for prediction, truth in refer_pairs():
        metrics.update(prediction, truth)
        counts.append(REFER_NATIVE.counts(prediction, truth))
        ious.append(REFER_NATIVE.score(prediction, truth))

    assert counts == [(pair["I"], pair["U"]) for pair in REFER["pairs"]]
    assert ious == REFER["per_sentence_iou"]
    result = metrics.compute()
    assert result["oiou"] == pytest.approx(REFER["overall_IoU_percent"], abs=1e-9)
    assert result["miou"] == pytest.approx(REFER["mean_IoU_percent"], abs=1e-9)
    for level, percent in REFER["precision_percent"].items():
        assert result[f"p@{level}"] == pytest.approx(percent, abs=1e-9)
    assert result["expressions"] == REFER["seg_total"]
    assert result["empty_unions"] == 1
