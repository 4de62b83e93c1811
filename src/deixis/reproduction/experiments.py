"""What the papers report, and what each number needs to be measured again."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from deixis.errors import UsageError
from deixis.io import printable

if TYPE_CHECKING:
    from deixis.protocols.benchmarks import Benchmark

Mini = Literal["scores", "table4", "iris"]


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper, or a plot read off.

    Attributes:
        caption: what was measured.
        columns: of numbers and switches.
        rows: values of each row by its name, in the order of the columns.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Score:
    """A row that official weights give.

    Attributes:
        row: of the paper's table.
        weights: their name; None where nobody published them.
        benchmark: name of the published setting.
        steps: denoising steps of Marigold; None for other systems.
    """

    row: str
    weights: str | None
    benchmark: str
    steps: int | None = None

    @property
    def setting(self) -> Benchmark:
        """Split, count and protocol."""
        from deixis.protocols.benchmarks import BENCHMARKS  # torch comes with it

        return BENCHMARKS[self.benchmark]


@dataclass(frozen=True)
class MiniScore:
    """A mini on datasets that stand for the paper's.

    Attributes:
        model: its name.
        recipe: that trains it.
        task: what it gives.
        datasets: names, as readers have them.
        texts: sources of what it is told.
        steps: denoising steps, each of which is scored; None leaves them to the system.
    """

    model: str
    recipe: str
    task: Literal["metric", "affine", "refer"]
    datasets: tuple[str, ...]
    texts: tuple[str, ...] = ("none",)
    steps: tuple[int | None, ...] = (None,)


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        name: how the command calls it.
        metrics: that are printed of scores.
        scores: what official weights give.
        mini: how the minis run it.
        minis: which of them are scored, or refined.
        systems: affine-invariant systems that are trained, for ``iris``.
        drawn: whether what the minis give is drawn beside the truth.
        hours: of the mini's full run on two cores, about.
    """

    name: str
    metrics: tuple[str, ...]
    scores: tuple[Score, ...]
    mini: Mini
    minis: tuple[MiniScore, ...] = ()
    systems: tuple[str, ...] = ()
    drawn: bool = False
    hours: float = 0.5

    @property
    def published(self) -> dict[str, Any]:
        """``title``, ``paper``, ``note`` and the text of its tables."""
        return dict(_papers()[self.name])

    @property
    def tables(self) -> list[PaperTable]:
        """The paper's numbers."""
        return [
            PaperTable(one["caption"], tuple(one["columns"]), {row: tuple(v) for row, v in one["rows"].items()})
            for one in self.published["tables"]
        ]


@cache
def _papers() -> dict[str, Any]:
    text = resources.files("deixis.reproduction").joinpath("papers.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


NYU, KITTI, REFCOCO = "metric-nyuv2", "metric-kitti", "refer-refcoco-unc-val"
AFFINE = ("affine-nyuv2", "affine-kitti", "affine-eth3d", "affine-scannet", "affine-diode")
DEPTH = ("abs_rel", "rmse", "log10", "d1", "d2", "d3")
# As published, without text; the variants of Iris that were trained with text are not published.
IRIS = {
    "marigold": "prs-eth/marigold-depth-v1-0",
    "lotus-d": "jingheya/lotus-depth-d-v1-0",
    "lotus-g": "jingheya/lotus-depth-g-v1-0",
    "e2e-ft": "GonzaloMG/marigold-e2e-ft-depth",
}
# Marigold's own evaluation takes as many.
MARIGOLD_STEPS = 50
PAPER_STEPS = (3, 4, 5, 10, 15, 20, 25, 50)
MINI_STEPS = (1, 2, 4, 10, 25, 50)

_ROOMS, _ROADS = ("nyuv2-rooms", "world-rooms"), ("world-roads",)
_DEPTH_RECIPES = {"vpd-depth-mini": "6_vpd_depth", "evp-depth-mini": "4_evp_depth_fine"}
_IN_ROOMS = tuple(MiniScore(name, recipe, "metric", _ROOMS) for name, recipe in _DEPTH_RECIPES.items())
_ON_ROADS = (MiniScore("evp-depth-roads-mini", "4_evp_depth_roads", "metric", _ROADS),)
_MASKS = MiniScore("evp-refer-mini", "5_evp_refer_fine", "refer", _ROOMS)
_TOLD = tuple(
    MiniScore(f"{system}-mini", f"7_{system.replace('-', '_')}", "affine", _ROOMS, ("none", "caption"))
    for system in IRIS
)


def _with_text(names: Mapping[str, str], benchmarks: tuple[str, ...]) -> tuple[Score, ...]:
    """Each system as published and, by nobody yet, with text."""
    found = []
    for row, weights in names.items():
        steps = MARIGOLD_STEPS if row == "marigold" else None
        found += [Score(row, weights, one, steps) for one in benchmarks]
        found += [Score(f"{row} + text", None, one, steps) for one in benchmarks]
    return tuple(found)


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "evp.table1",
            DEPTH,
            (Score("VPD", "vpd-depth", NYU), Score("EVP", "evp-depth-nyu", NYU)),
            "scores",
            _IN_ROOMS,
        ),
        Experiment(
            "evp.table2",
            ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3"),
            (Score("EVP", "evp-depth-kitti", KITTI),),
            "scores",
            _ON_ROADS,
        ),
        Experiment(
            "evp.table3",
            ("oiou", "miou"),
            (Score("VPD", "vpd-refer", REFCOCO), Score("EVP", "evp-refer", REFCOCO)),
            "scores",
            (_MASKS,),
        ),
        Experiment(
            "evp.table4",
            ("rmse", "abs_rel"),
            (
                Score("1", "vpd-depth", NYU),
                *(Score(str(row), None, NYU) for row in range(2, 12)),
                Score("12", "evp-depth-nyu", NYU),
            ),
            "table4",
            hours=2,
        ),
        Experiment(
            "evp.figure4",
            ("abs_rel", "rmse", "oiou"),
            (
                Score("VPD", "vpd-depth", NYU),
                Score("EVP", "evp-depth-nyu", NYU),
                Score("EVP", "evp-depth-kitti", KITTI),
                Score("EVP", "evp-refer", REFCOCO),
            ),
            "scores",
            (*_IN_ROOMS, *_ON_ROADS, _MASKS),
            drawn=True,
        ),
        Experiment("iris.zero_shot", ("d1", "abs_rel"), _with_text(IRIS, AFFINE), "iris", _TOLD, tuple(IRIS), hours=8),
        Experiment(
            "iris.steps",
            ("abs_rel",),
            tuple(
                Score(row, weights, benchmark, steps)
                for row, weights in (("marigold", IRIS["marigold"]), ("marigold + text", None))
                for benchmark in AFFINE[:2]
                for steps in PAPER_STEPS
            ),
            "iris",
            (replace(_TOLD[0], steps=MINI_STEPS),),
            ("marigold",),
            hours=3,
        ),
        Experiment("iris.convergence", ("abs_rel",), (), "iris", systems=("marigold",), hours=3),
        Experiment("iris.refinement", ("abs_rel",), (), "iris", _TOLD, ("marigold",), hours=3),
    )
}


def experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        UsageError: if there is none; names the nearest.
    """
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "use one of"
        raise UsageError(f"experiment '{printable(name)}'", "is unknown", f"{hint} {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
