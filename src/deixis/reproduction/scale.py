"""How large the minis' experiments are, and the frames they are run on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from deixis.data.world import Kind, world_split
from deixis.io import printable
from deixis.processes import cores
from deixis.reproduction.official import Given
from deixis.training.findings import FULL as WHOLE
from deixis.training.findings import Extent
from deixis.world.generate import Failure, Settings, render_shards

# What the layout has from which our own split and captions are made.
LABELLED = ("official_splits/train", "classes40.json")


@dataclass(frozen=True)
class Scale:
    """How large a mini's experiment is.

    Attributes:
        name: of the scale.
        rooms: world frames of a kind, of which one in twenty is held out.
        heldout: held-out world frames of a kind, at least: those that are missing are drawn beside the others.
        settings: of the world's pictures.
        frames: held-out samples of a dataset that are scored, at most; None for all.
        seeds: trainings of a row.
        extent: of what is measured of affine-invariant systems.
        table4: overrides of the recipe of table 4.
        iris: overrides of that of affine-invariant systems.
    """

    name: str
    rooms: int
    heldout: int
    settings: Settings
    frames: int | None
    seeds: int
    extent: Extent
    table4: tuple[str, ...] = ()
    iris: tuple[str, ...] = ()


_SMALL = ("data.stored=[72,96]", "data.size=[64,88]")
_FEW = ("optimisation.batch_size=4", "optimisation.warmup=4")
FULL = Scale("full", 2000, 100, Settings(), None, 3, WHOLE)
QUICK = Scale(
    "quick",
    120,
    12,
    Settings(96, 72, 1),
    24,
    2,
    Extent(seeds=2, frames=12, step_frames=6, refined=12),
    table4=(*_FEW, "optimisation.steps=30"),
    iris=(*_SMALL, *_FEW, "optimisation.steps=40", "optimisation.eval_every=10"),
)


def photos(given: Given) -> Path | None:
    """The root of NYU Depth v2 if it has the layout with labels."""
    return None if without_photos(given) else given.roots["nyuv2"]


def without_photos(given: Given) -> str | None:
    """Why there are no held-out photos; None if there are."""
    root = given.roots.get("nyuv2")
    if root is None:
        return "data nyuv2, labelled training frames: not given, so the world alone; --root nyuv2=DIR adds photos"
    lost = next((one for one in LABELLED if not (root / one).exists()), None)
    return None if lost is None else f"data nyuv2, labelled training frames: {printable(root)} lacks {lost}"


def world(given: Given, scale: Scale, kind: Kind) -> Path:
    """The given shards, or rendered ones."""
    if given.world is not None:
        return given.world
    folder = given.out / f"world-{scale.name}" / kind
    failed: list[Failure] = []
    given.say(f"world: {scale.rooms} {kind}, of which {scale.heldout} or more are held out, in {folder}")
    render_shards(folder, (kind,), 0, scale.rooms, scale.settings, workers=cores(), fail=failed.append)
    seeds = (seed for seed in itertools.count() if world_split(seed) == "heldout")
    for seed in itertools.islice(seeds, scale.heldout):
        if seed >= scale.rooms:
            render_shards(folder, (kind,), seed, 1, scale.settings, fail=failed.append)
    for one in failed:
        given.say(f"{one.kind} {one.seed} could not be made ({one.problem})")
    return folder
