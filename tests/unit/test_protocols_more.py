"""Expressions for nothing, distances, things and prompts: definitions by brute force, and one number for any share."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from deixis.asking import answer
from deixis.data.refcoco import PUBLISHED
from deixis.errors import InputError, KindError, UsageError
from deixis.protocols.accumulate import RowMetric
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.ask import AskMetrics, balanced_quantile, relative_error, true_distance
from deixis.protocols.benchmarks import BENCHMARKS, benchmark
from deixis.protocols.depth import KITTI_GARG, NYU_EIGEN, DepthMetrics, DepthProtocol
from deixis.protocols.instances import InstanceMetrics, named_in
from deixis.protocols.masks import EvaluationSet
from deixis.protocols.refer import GENERAL_REFER, REFER_NATIVE, GeneralReferMetrics, ReferMetrics
from deixis.protocols.sensitivity import PromptSensitivity
from deixis.types import Depth, Mask, Referent, Text

ROOM = AffineProtocol(EvaluationSet("room", 1e-3, 10.0))
TEXT = Text("the chair", "user")
SHAPE = (20, 30)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disparity, depth with holes [m] and things [H, W]; every fifth scene has no ground truth."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9.5, SHAPE).astype(np.float32)
    disparity = (0.4 / depth + 0.1 + rng.normal(0, 0.02, SHAPE)).astype(np.float32)
    depth[rng.random(SHAPE) < 0.2] = 0
    if seed % 5 == 4:
        depth[:] = 0
    things = np.zeros(SHAPE, dtype=np.int32)
    things[2:4, 3:5], things[6:18, 4:20], things[0, 0] = 7, 3, 12  # 4, 192 and 1 of 600 pixels
    return disparity, depth, things


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target; each is empty now and then."""
    rng = np.random.default_rng(seed)
    target = (rng.random((6, 7)) < 0.5) & (seed % 3 != 0)
    return (target ^ (rng.random((6, 7)) < 0.1 * (seed % 4))) & (seed % 5 != 0), target


def referent(seed: int) -> tuple[Referent, bool, float | None]:
    """An answer, whether the thing is there, and its distance [m], which is unknown now and then."""
    rng = np.random.default_rng(seed)
    there, truth, score = seed % 3 != 0, float(rng.uniform(1, 9)), float(rng.random())
    found = score > 0.3
    p10, median, p90 = sorted((truth * rng.uniform(0.7, 1.4, 3)).tolist())
    distance = {"median": median, "p10": p10, "p90": p90} if found and seed % 7 else None
    mask = Mask(np.zeros((2, 2), bool), np.zeros((2, 2), np.float32), score, found, TEXT, "toy")
    return Referent("the chair", found, distance, None, mask), there, truth if there and seed % 8 else None


# ------------------------------------------------------------------------------------- expressions for nothing


def test_general_referring_is_its_definition():
    pairs = [masks(seed) for seed in range(40)]
    metrics = GeneralReferMetrics(GENERAL_REFER)
    for pair in pairs:
        metrics.update(*pair)
    # As the code of the paper does it, one expression after the other.
    ious, inter, union, silent, spoken, hits = [], 0, 0, [], [], []
    for prediction, target in pairs:
        nothing = not prediction.any()
        i, u = int((prediction & target).sum()), int((prediction | target).sum())
        if not target.any():
            silent.append(nothing)
            ious.append(1.0 if nothing else 0.0)
            union += 0 if nothing else u
        else:
            spoken.append(not nothing)
            ious.append(i / u)
            hits.append(i / u)
            inter, union = inter + i, union + u
    expected = {
        "giou": 100 * np.mean(ious),
        "ciou": 100 * inter / union,
        "n_acc": 100 * np.mean(silent),
        "t_acc": 100 * np.mean(spoken),
        **{f"p@{level}": 100 * np.mean(np.array(hits) >= level) for level in (0.7, 0.8, 0.9)},
        "expressions": 40,
        "no_target": len(silent),
    }
    assert 0 < expected["n_acc"] < 100
    assert 0 < expected["t_acc"] < 100
    assert metrics.compute() == pytest.approx(expected, rel=1e-12)


def test_without_expressions_for_nothing_it_is_the_ordinary_summary():
    pairs = [pair for pair in map(masks, range(40)) if pair[1].any()]
    general, ordinary = GeneralReferMetrics(GENERAL_REFER), ReferMetrics(REFER_NATIVE)
    for pair in pairs:
        general.update(*pair)
        ordinary.update(*pair)
    one, other = general.compute(), ordinary.compute()
    assert "n_acc" not in one
    assert (one["giou"], one["ciou"], one["p@0.7"]) == pytest.approx((other["miou"], other["oiou"], other["p@0.7"]))


# ---------------------------------------------------------------------------------------------------- distances


def test_ask_is_its_definition():
    rows = [referent(seed) for seed in range(60)]
    metrics = AskMetrics()
    for said, there, truth in rows:
        metrics.update(said, there=there, distance_m=truth)
    result = metrics.compute()
    present, absent = [r for r in rows if r[1]], [r for r in rows if not r[1]]
    measured = [(r.distance_m, truth) for r, _, truth in present if r.found and r.distance_m and truth]
    errors = [abs(d["median"] - truth) / truth for d, truth in measured]
    assert 0 < len(measured) < len(present) < 60
    expected = {
        "present": len(present),
        "absent": len(absent),
        "measured": len(measured),
        "false_abstention": np.mean([not r.found for r, _, _ in present]),
        "correct_abstention": np.mean([not r.found for r, _, _ in absent]),
        "median_rel_error": np.median(errors),
        "mean_rel_error": np.mean(errors),
        "coverage": np.mean([d["p10"] <= truth <= d["p90"] for d, truth in measured]),
    }
    for share in (0.01, 0.05, 0.1):
        # The largest threshold that silences at most the share of what is there.
        kept = [r.mask.score for r, _, _ in present]
        threshold = max(t for t in kept if sum(s < t for s in kept) <= share * len(kept))
        expected[f"correct_abstention@{share}"] = np.mean([r.mask.score < threshold for r, _, _ in absent])
    assert result == pytest.approx(expected, rel=1e-12)


def test_silence_is_no_error_of_distance():
    said = next(r for r, there, truth in map(referent, range(60)) if there and truth and r.distance_m)
    silent = Referent("the chair", False, None, None, said.mask)
    alone, more = AskMetrics(), AskMetrics()
    for metrics in (alone, more):
        metrics.update(said, there=True, distance_m=2.0)
    more.update(silent, there=True, distance_m=5.0)
    one, other = alone.compute(), more.compute()
    assert one["mean_rel_error"] == other["mean_rel_error"] == relative_error(said.distance_m["median"], 2.0)
    assert (one["false_abstention"], other["false_abstention"]) == (0, 0.5)
    assert "correct_abstention" not in one


def test_answers_of_ask_are_scored_as_they_are():
    depth = np.full((40, 50), 4.0, dtype=np.float32)
    depth[10:30, 10:30] = 2.0
    mask = depth == 2.0
    mask_of = Mask(mask, mask.astype(np.float32), 1.0, True, TEXT, "toy")
    (said,) = answer("how far is the chair?", Depth(depth, "metric", TEXT, "toy"), lambda words: mask_of).referents
    metrics = AskMetrics()
    metrics.update(said, there=True, distance_m=true_distance(mask, depth * np.float32(1.25)))
    assert metrics.compute()["mean_rel_error"] == pytest.approx(0.2)
    assert metrics.compute()["coverage"] == 0


def test_true_distances_are_medians_of_what_is_known():
    depth = np.array([[1, 2, 9, 0], [math.nan, math.inf, -1, 100]], dtype=np.float32)
    inside = np.ones((2, 4), dtype=bool)
    inside[1, 3] = False
    assert true_distance(inside, depth) == 2
    assert true_distance(~inside & (depth < 0), depth) is None


@pytest.mark.parametrize(("there", "distance"), [(True, 0.0), (True, math.inf), (True, math.nan), (False, 2.0)])
def test_distances_that_make_no_sense_are_refused(there, distance):
    said, _, _ = referent(1)
    with pytest.raises(UsageError, match="'the chair': is"):
        AskMetrics().update(said, there=there, distance_m=distance)


def test_one_group_is_an_ordinary_quantile():
    values = np.random.default_rng(0).random(101)
    threshold = balanced_quantile([values], 0.05)
    assert threshold == np.sort(values)[5]  # 5 of 101 are below, a sixth would be too many


# ------------------------------------------------------------------------------------------------------- things


def test_instances_are_scored_after_alignment_of_the_whole_picture():
    metrics = InstanceMetrics(ROOM)
    found: dict[str, list[float]] = {"abs_rel": [], "abs_rel_small": [], "abs_rel_named": [], "abs_rel_unnamed": []}
    skipped = 0
    for seed in range(5):
        disparity, depth, things = scene(seed)
        metrics.update(disparity, depth, things, named={3}, kind="disparity")
        valid = depth > 0
        if not valid.any():
            skipped += 3
            continue
        design = np.stack([disparity[valid], np.ones(valid.sum())], axis=1).astype(np.float64)
        scale, shift = np.linalg.lstsq(design, 1 / depth[valid].astype(np.float64))[0]
        aligned = np.clip(1 / np.maximum(disparity * scale + shift, 1e-3), 1e-3, 10)
        for number in (3, 7, 12):
            inside = valid & (things == number)
            if not inside.any():
                skipped += 1
                continue
            error = np.mean(np.abs(aligned - depth)[inside] / depth[inside])
            found["abs_rel"].append(error)
            found["abs_rel_named" if number == 3 else "abs_rel_unnamed"].append(error)
            if number != 3:
                found["abs_rel_small"].append(error)
    result = metrics.compute()
    assert {name: result[name] for name in found} == pytest.approx({n: np.mean(v) for n, v in found.items()}, rel=1e-5)
    counts = {name: result[name] for name in ("instances", "small", "named", "unnamed", "skipped")}
    assert counts == {
        "instances": len(found["abs_rel"]),
        "small": len(found["abs_rel_small"]),
        "named": 4,
        "unnamed": len(found["abs_rel_unnamed"]),
        "skipped": skipped,
    }


def test_a_thing_is_small_below_one_hundredth_of_the_picture():
    depth = np.ones((10, 20), dtype=np.float32)
    things = np.zeros((10, 20), dtype=np.int32)
    things[0, 0], things[1, :2] = 1, 2
    metrics = InstanceMetrics(ROOM)
    metrics.update(depth, depth, things, kind="metric")
    result = metrics.compute()
    assert (result["instances"], result["small"]) == (2, 1)
    assert "abs_rel_named" not in result


def test_instances_follow_the_frame_of_the_set():
    frame = AffineProtocol(EvaluationSet("kitti", 1e-5, 80.0, crop="kitti_eigen", benchmark_crop=True))
    depth = np.full((375, 1242), 5.0, dtype=np.float32)
    things = np.zeros(depth.shape, dtype=np.int32)
    things[:20], things[200:210, 600:610] = 1, 2  # the first is cut off
    prediction = np.where(things == 2, 6.0, 5.0).astype(np.float32)
    metrics = InstanceMetrics(frame)
    metrics.update(prediction, depth, things, kind="metric")
    result = metrics.compute()
    assert (result["abs_rel"], result["instances"], result["skipped"]) == (pytest.approx(0.2), 1, 1)


def test_names_are_found_as_whole_words():
    names = {1: "chair", 2: "Box", 3: "car", 4: "night stand", 5: "c++ book"}
    assert named_in("Two chairs, boxes and a carpet by the Night Stand.", names) == {1, 2, 4}


# ------------------------------------------------------------------------------------------------------ prompts


def test_prompt_sensitivity_is_its_definition():
    metrics = PromptSensitivity(ROOM)
    expected = []
    for seed in range(5):
        _, depth, _ = scene(seed)
        maps = [scene(seed)[0] + np.float32(0.01 * n) * scene(seed + 10 * n)[0] for n in range(3)]
        metrics.update(maps, depth, kind="disparity")
        if depth.any():
            aligned = [
                ROOM.align(one, depth, kind="disparity")[0].numpy()[depth > 0].astype(np.float64) for one in maps
            ]
            pairs = [np.mean(2 * np.abs(a - b) / (a + b)) for a, b in itertools.combinations(aligned, 2)]
            expected.append(np.mean(pairs))
    assert metrics.compute() == pytest.approx({"sensitivity": np.mean(expected), "images": 4, "skipped": 1})


def test_what_alignment_takes_out_is_no_sensitivity():
    disparity, depth, _ = scene(0)
    metrics = PromptSensitivity(ROOM)
    metrics.update([disparity, 3 * disparity + 2], depth, kind="disparity")
    assert metrics.compute()["sensitivity"] == pytest.approx(0, abs=1e-5)
    metrics.reset()
    metres = np.full(SHAPE, 2.0, dtype=np.float32)
    metrics.update([metres, metres * 1.5], depth, kind="metric")
    assert metrics.compute()["sensitivity"] == pytest.approx(0.4)


# --------------------------------------------------------------------------------------- what all have in common


def add(metric: RowMetric, seed: int) -> None:
    """Give a metric the sample of a seed."""
    disparity, depth, things = scene(seed)
    match metric:
        case GeneralReferMetrics():
            metric.update(*masks(seed))
        case AskMetrics():
            said, there, truth = referent(seed)
            metric.update(said, there=there, distance_m=truth)
        case InstanceMetrics():
            metric.update(disparity, depth, things, named={7}, kind="disparity")
        case PromptSensitivity():
            metric.update([disparity, disparity**2], depth, kind="disparity")


MAKERS = [
    lambda: GeneralReferMetrics(GENERAL_REFER),
    AskMetrics,
    lambda: InstanceMetrics(ROOM),
    lambda: PromptSensitivity(ROOM),
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("shares", [[range(0, 12, 2), range(1, 12, 2)], [range(7, 12), range(7)], [range(12), []]])
def test_merged_states_give_the_bits_of_one_process(maker, shares):
    alone, first, second = maker(), maker(), maker()
    for seed in range(12):
        add(alone, seed)
    for part, seeds in zip((first, second), shares, strict=True):
        for seed in seeds:
            add(part, seed)
    first.merge_state(second)
    assert first.compute() == alone.compute()


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_to_score_is_an_error(maker):
    with pytest.raises(UsageError, match="give it"):
        maker().compute()


def test_maps_that_do_not_fit_are_refused():
    disparity, depth, things = scene(0)
    in_depth = InstanceMetrics(AffineProtocol(ROOM.dataset, alignment="depth"))
    with pytest.raises(KindError, match="disparity depth and the alignment 'depth'"):
        in_depth.update(disparity, depth, things, kind="disparity")
    with pytest.raises(UsageError, match=r"instances are \[20, 29\] and ground truth \[20, 30\]"):
        InstanceMetrics(ROOM).update(disparity, depth, things[:, :-1], kind="disparity")
    with pytest.raises(UsageError, match="may be of any kind"):
        PromptSensitivity(ROOM).update([disparity, disparity], depth)
    with pytest.raises(UsageError, match="got 1 maps"):
        PromptSensitivity(ROOM).update([disparity], depth, kind="disparity")


def test_benchmarks_have_the_published_numbers_of_samples():
    expected = {
        "metric-nyuv2": 654,
        "metric-kitti": 652,
        "affine-nyuv2": 654,
        "affine-kitti": 652,
        "affine-eth3d": 454,
        "affine-scannet": 800,
        "affine-diode": 325 + 446,
        "refer-refcoco-unc-val": 10834,
        "refer-refcocog-umd-test": 9602,
    }
    for name, count in expected.items():
        assert BENCHMARKS[name].count == count
    referring = [one for one in BENCHMARKS.values() if one.name.startswith("refer-")]
    evaluated = [split for splits in PUBLISHED.values() for split in splits if not split.endswith("train")]
    assert len(referring) == len(evaluated)
    assert BENCHMARKS["refer-grefcoco-unc-val"].count is None  # no published number is known


def test_a_result_is_comparable_or_says_why_not():
    found = benchmark("nyuv2", "test", NYU_EIGEN)
    assert found is BENCHMARKS["metric-nyuv2"]
    assert benchmark("nyuv2", "train", NYU_EIGEN) is None
    assert benchmark("nyuv2", "test", KITTI_GARG) is None
    assert found.differs(scored=654, missed=0, tta="windows", own_list=None) is None
    assert found.differs(scored=653, missed=0, tta="windows", own_list=None) == "653 of 654 are scored"
    assert "'none', not 'windows'" in str(found.differs(scored=654, missed=0, tta="none", own_list=None))
    assert "(mine.txt)" in str(found.differs(scored=654, missed=0, tta="windows", own_list="mine.txt"))
    found.check(scored=654, missed=0, tta="windows", own_list=None)
    for given in (
        {"scored": 653, "missed": 0, "tta": "windows", "own_list": None},
        {"scored": 654, "missed": 0, "tta": "flip", "own_list": None},
        {"scored": 654, "missed": 0, "tta": "windows", "own_list": "mine.txt"},
    ):
        with pytest.raises(InputError, match=r"^metric-nyuv2: .*; deixis eval without --protocol takes a part"):
            found.check(**given)


def test_benchmarks_refuse_the_kinds_that_their_protocols_refuse():
    depth = torch.rand(480, 640) + 1
    for name, kind in (("metric-nyuv2", "affine"), ("metric-nyuv2", "disparity")):
        protocol = BENCHMARKS[name].protocol
        assert isinstance(protocol, DepthProtocol)
        with pytest.raises(KindError):
            DepthMetrics(protocol).update(depth, depth, kind=kind)
