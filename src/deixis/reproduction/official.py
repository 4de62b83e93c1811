"""Official weights on official data, scored as ``deixis eval`` does it, and what is missing for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.readers import READERS
from deixis.data.splits import split_lists
from deixis.errors import DeixisError, UsageError
from deixis.hub import expanded, is_hub_id
from deixis.io import printable
from deixis.protocols.affine import AffineProtocol
from deixis.protocols.depth import DepthProtocol
from deixis.registry import weights
from deixis.reproduction.experiments import EXPERIMENTS, Experiment, Score

# Where datasets are published, on which terms, and how much disk they take, as far as their pages say.
DATASETS = {
    "nyuv2": "cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, labelled set; 2.8 GB",
    "kitti": "cvlibs.net/datasets/kitti, raw data and annotated depth maps; CC BY-NC-SA 3.0; 175 GB and 14 GB",
    "eth3d": "eth3d.net, high-resolution multi-view, training; CC BY-NC-SA 4.0",
    "scannet": "scan-net.org, after agreeing to its terms of use; 800 frames are needed",
    "diode": "diode-dataset.org, validation set; MIT; 2.6 GB",
    "refcoco": "github.com/lichengunc/refer, and COCO's train2014 pictures from cocodataset.org; annotations CC BY 4.0;"
    " 13 GB",
}
# The published lists of a benchmark's dataset, any of which will do.
LISTS = {
    "nyuv2": ("nyuv2.test", "nyuv2.evp_test"),
    "kitti": ("kitti.eigen_test", "kitti.evp_test"),
    "eth3d": ("eth3d.full",),
    "scannet": ("scannet.val",),
    "diode": ("diode.val",),
}
# Longer side at which the authors' evaluations of Marigold, Lotus and E2E-FT show a set's pictures to networks [px];
# 0 is the picture's own. What a folder says of itself (768, mostly) is for pictures of one's own.
PROCESSING = {"affine-nyuv2": 0, "affine-kitti": 0, "affine-eth3d": 756, "affine-scannet": 0, "affine-diode": 640}
LOTUS_ETH3D = 768


@dataclass(frozen=True)
class Given:
    """What the user has.

    Attributes:
        roots: datasets by name.
        weights: folders, or hub ids, by the name of published weights.
        world: shards; rendered where None.
        out: folder of everything that is measured.
        command: the command line.
        quick: minutes in place of a night.
        say: called with a line about what is done.
        fail: called with an error that costs one row.
        device: where networks are trained and run.
    """

    roots: Mapping[str, Path]
    weights: Mapping[str, str]
    world: Path | None
    out: Path
    command: str
    quick: bool
    say: Callable[[str], None]
    fail: Callable[[DeixisError], None]
    device: str = "cpu"


def check_given(roots: Mapping[str, Path], folders: Mapping[str, str]) -> None:
    """Refuse names that nothing is called by.

    Raises:
        UsageError: for an unknown dataset or unknown weights.
    """
    for name in roots:
        if name not in READERS:
            raise UsageError(f"--root {printable(name)}=", "names no dataset", f"use one of {', '.join(READERS)}")
    experiments = EXPERIMENTS.values()
    known = dict.fromkeys(wanted(one) for experiment in experiments for one in experiment.scores)
    known |= dict.fromkeys(one.model for experiment in experiments for one in experiment.minis)
    for name in folders:
        if name not in known:
            raise UsageError(f"--weights {printable(name)}=", "names no weights", f"use one of {', '.join(known)}")


def wanted(score: Score) -> str:
    """The name of a row's weights: their own, or the row's where nobody published them."""
    return score.weights or score.row


def rescored(experiment: Experiment, given: Given) -> tuple[list[dict[str, Any]], list[str]]:
    """Every row that can be measured, and what is missing for the others, a line each.

    Returns:
        rows with ``row``, ``weights``, ``benchmark``, ``split``, ``protocol``, ``scored``, ``differs`` (why the number
        is not comparable, None if it is), ``steps``, ``text`` and ``metrics``; and the lines.
    """
    from deixis.evaluation.run import Listener, evaluate
    from deixis.evaluation.scoring import Plan

    available = {one.name for one in weights() if one.available}
    rows, missing = [], _missing(experiment.scores, given, available)
    for score in experiment.scores:
        name, setting = wanted(score), score.setting
        model = given.weights.get(name, name if name in available else None)
        if model is None or setting.dataset not in given.roots:
            continue
        plan = Plan(
            task=_task(score),
            model=model,
            dataset=setting.dataset,
            root=str(given.roots[setting.dataset]),
            split=setting.split,
            protocol=score.benchmark,
            tta=setting.tta,
            steps=score.steps,
            resolution=processing(score),
            text="caption" if score.weights is None and _task(score) == "affine" else "none",
            device=given.device,
        )
        steps = "" if score.steps is None else f"-{score.steps}-steps"
        folder = given.out / "official" / f"{name.replace('/', '--').replace(' ', '-')}-{score.benchmark}{steps}"
        given.say(f"scoring {name} on {score.benchmark}")
        try:
            listener = Listener(lambda total, done: None, lambda: None, given.say)
            result = evaluate(plan, folder, given.command, listener)
        except DeixisError as error:
            given.fail(error)
            missing.append(f"{score.row} on {score.benchmark}: {error}")
            continue
        rows.append({"row": score.row, "benchmark": score.benchmark, **measured(result), "folder": str(folder)})
    return rows, list(dict.fromkeys(missing))


def processing(score: Score) -> int | None:
    """The longer side at which a row's network sees the pictures [px]; None where its folder says it (EVP, VPD)."""
    if score.benchmark == "affine-eth3d" and score.row.startswith("lotus"):
        return LOTUS_ETH3D
    return PROCESSING.get(score.benchmark)


def measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says of a result of ``deixis eval``."""
    return {
        "model": result["model"],
        "weights_sha256": result["weights_sha256"],
        "dataset": result["dataset"],
        "split": result["split"],
        "protocol": result["protocol"]["words"],
        "tta": result["tta"],
        "steps": result["steps"],
        "resolution": result["resolution"],
        "seed": result["seed"],
        "text": list(result["text_provenance"]),
        "scored": result["rows"] if result["task"] == "refer" else result["scored"],
        "differs": result["differs"],
        "metrics": result["metrics"],
    }


def _task(score: Score) -> Any:  # noqa: ANN401 - the Task of evaluation, which takes long to import
    protocol = score.setting.protocol
    if isinstance(protocol, DepthProtocol):
        return "metric"
    return "affine" if isinstance(protocol, AffineProtocol) else "refer"


def _missing(scores: Sequence[Score], given: Given, available: set[str]) -> list[str]:
    """A line for each dataset, list and set of weights that is not there."""
    lines = []
    known, lists = {one.name: one for one in weights()}, split_lists()
    for score in scores:
        dataset, name = score.setting.dataset, wanted(score)
        if dataset not in given.roots:
            count, split = score.setting.count, score.setting.split
            lines.append(f"data {dataset} ({split}, {count}): {DATASETS[dataset]}; then --root {dataset}=DIR")
        names = LISTS.get(dataset, ())
        if names and not any(lists[one].local.is_file() for one in names):
            remedy = lists[names[0]].remedy.replace(str(expanded("~")), "~")
            lines.append(f"list {names[0]}: {lists[names[0]].source}; {remedy}")
        if name in given.weights or name in available:
            continue
        if score.weights is None:
            lines.append(f"weights of row '{name}': nobody published them; train them, then --weights '{name}=DIR'")
            continue
        weight = known[name]
        then = f"--weights {name}={name} fetches them, --weights {name}=DIR takes a folder"
        if not is_hub_id(name):
            then = f"deixis convert FILE DIR --to {name}, then --weights {name}=DIR"
        lines.append(f"weights {name}: {weight.source}; {weight.licence}; {then}")
    if any(line.startswith(("data ", "weights ")) for line in lines):
        lines.append("time of official weights: not measured here; 'deixis bench' tells this machine's a picture")
    return list(dict.fromkeys(lines))
