"""Predictors without a picture are the best of their kind, by brute force; intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from deixis.errors import InputError, UsageError
from deixis.protocols.depth import DepthProtocol, depth_metrics
from deixis.protocols.trivial import DepthPriors, LocationPrior, aligned_abs_rel, interval

WHOLE = DepthProtocol("whole", crop="none", max_depth=10.0)


def room_depths(seed: int, count: int = 7, shape: tuple[int, int] = (18, 10)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    depths = rng.gamma(3.0, 1.0, size=(count, *shape)).astype(np.float32)
    depths[rng.random(depths.shape) < 0.2] = 0
    return list(depths)


@pytest.mark.parametrize("seed", range(5))
def test_no_constant_has_less_abs_rel_or_more_d1(seed):
    depths = room_depths(seed)
    priors = DepthPriors.fit(depths, WHOLE)
    values = np.concatenate([d[(d > WHOLE.min_depth) & (d < WHOLE.max_depth)] for d in depths]).astype(np.float64)

    def abs_rel(c: float) -> float:
        return float(np.mean(np.abs(c - values) / values))

    def d1(c: float) -> float:
        return float(np.mean(np.maximum(c / values, values / c) < 1.25))

    candidates = np.concatenate([values, np.linspace(0.1, 10, 500)])
    assert abs_rel(priors.constant) <= min(map(abs_rel, candidates)) + 1e-12
    # d1's threshold is strict: candidates a hair beside the window's ends.
    candidates = np.concatenate([candidates, values * 1.2499999, values / 1.2499999])
    assert d1(priors.constant_d1) >= max(map(d1, candidates)) - 1e-12


def test_the_constant_of_the_card_is_the_one_the_protocol_scores_best():
    depths = room_depths(3)
    constant = DepthPriors.fit(depths, WHOLE).constant
    import torch

    target = torch.from_numpy(np.concatenate([d[(d > 0) & (d < 10)] for d in depths]))
    scores = {c: depth_metrics(torch.full_like(target, c), target)["abs_rel"] for c in (constant * 0.97, constant)}
    scores[constant * 1.03] = depth_metrics(torch.full_like(target, constant * 1.03), target)["abs_rel"]
    assert min(scores, key=scores.__getitem__) == constant


def test_maps_leave_out_what_was_not_measured():
    depths = room_depths(0)
    depths[0][0, 0] = 2
    for depth in depths[1:]:
        depth[0, 0] = 0
    for depth in depths:
        depth[5, 5] = 0
    priors = DepthPriors.fit(depths, WHOLE)
    assert priors.median[0, 0] == priors.mean[0, 0] == 2
    assert priors.median[5, 5] == pytest.approx(priors.constant)  # nothing else is known there
    stack = np.stack(depths).astype(np.float64)
    y, x = 7, 3
    there = stack[:, y, x][stack[:, y, x] > 0]
    assert priors.median[y, x] == pytest.approx(np.median(there))
    assert priors.mean[y, x] == pytest.approx(there.mean())
    assert priors.median.dtype == priors.mean.dtype == np.float32


def test_constants_are_fitted_where_the_protocol_scores():
    depth = np.full((480, 640), 9.0, dtype=np.float32)
    depth[45:471, 41:601] = 3.0
    crop = DepthProtocol("crop", crop="nyu_eigen", max_depth=10.0)
    assert DepthPriors.fit([depth], crop).constant == 3.0


def test_depth_priors_need_depth():
    with pytest.raises(UsageError, match="no depth map"):
        DepthPriors.fit([], WHOLE)
    with pytest.raises(UsageError, match="no scored pixel"):
        DepthPriors.fit([np.zeros((4, 4), dtype=np.float32)], WHOLE)


def overall_iou(mask: np.ndarray, masks: np.ndarray) -> float:
    return float((mask & masks).sum() / (mask | masks).sum())


@pytest.mark.parametrize("seed", range(20))
def test_no_set_of_pixels_has_a_better_overall_iou(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 3, 3)) < rng.random((3, 3))
    masks[0, 0, 0] = True
    prior = LocationPrior.fit(list(masks))
    sets = ((np.arange(2**9)[:, None] >> np.arange(9)) & 1).astype(bool).reshape(-1, 3, 3)
    best = max(overall_iou(one, masks) for one in sets[1:])
    assert overall_iou(prior.mask, masks) == pytest.approx(best, abs=1e-12)


def test_the_location_prior_needs_a_mask():
    with pytest.raises(UsageError, match="no mask"):
        LocationPrior.fit([])


def test_alignment_undoes_any_scale_and_shift():
    truth = room_depths(1)[0] + 1
    assert aligned_abs_rel(0.3 * truth + 2, truth, WHOLE) == pytest.approx(0, abs=1e-5)
    flat = aligned_abs_rel(np.full_like(truth, 4), truth, WHOLE)
    scored = truth[truth < 10].astype(np.float64)
    assert flat == pytest.approx(np.mean(np.abs(scored.mean() - scored) / scored), rel=1e-5)
    with pytest.raises(InputError, match="no ground truth"):
        aligned_abs_rel(truth, np.zeros_like(truth), WHOLE)


def test_the_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = interval(lambda rows: float(values[rows].mean()), len(values))
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_clusters_are_drawn_whole():
    clusters = [7, 7, 7, 2, 2, 9]
    seen = []
    interval(lambda rows: float(seen.append(np.sort(rows)) or 0), 6, clusters=clusters, resamples=200)
    for rows in seen:
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[1] == counts[2]
        assert counts[3] == counts[4]
        assert counts[0] + counts[3] + counts[5] == 3


def test_copies_in_one_cluster_add_no_certainty():
    values = np.random.default_rng(0).normal(size=40)
    repeated = np.repeat(values, 10)
    alone = interval(lambda rows: float(values[rows].mean()), 40)
    naive = interval(lambda rows: float(repeated[rows].mean()), 400)
    clustered = interval(lambda rows: float(repeated[rows].mean()), 400, clusters=np.repeat(np.arange(40), 10).tolist())
    assert clustered == pytest.approx(alone)
    assert naive[1] - naive[0] < 0.5 * (alone[1] - alone[0])


def test_interval_is_reproducible_and_checks_its_arguments():
    def mean(rows: np.ndarray) -> float:
        return float(rows.mean())

    assert interval(mean, 9, resamples=50) == interval(mean, 9, resamples=50)
    with pytest.raises(UsageError, match="name 3 for 4 samples"):
        interval(mean, 4, clusters=[1, 2, 3])
    with pytest.raises(UsageError, match="no sample"):
        interval(mean, 0)
