"""The recipes at full scale, at tiny width on tiny sets in the published layouts: they learn, go on, and load."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deixis
from deixis.data.captions import Caption, read_captions
from deixis.data.readers import READERS, open_dataset
from deixis.errors import UsageError
from deixis.io import write_parquet
from deixis.registry import RELATIVE
from deixis.reproduction import table4
from deixis.training import loop
from deixis.training.recipe import Recipe, difference, read_recipe
from deixis.training.run import run
from deixis.types import Depth, Mask
from deixis.world.export import LIST, write_layout
from tests.tiny import write_folder

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "tests" / "parity" / "fixtures"
RECIPES = {path.stem: path for path in sorted((REPOSITORY / "recipes").glob("*.yaml"))}
# Layout of the world's export for each set of a recipe, and the size that pictures are brought to.
LAYOUTS = {
    "nyu": ("nyuv2-sync", "[40,56]"),
    "kitti": ("kitti", "[40,56]"),
    "coco": ("refcoco", "[32,48]"),
    "hypersim": ("hypersim", "[32,48]"),
    "vkitti2": ("vkitti2", "[24,64]"),
}
SPLIT = {"nyu": "sync", "kitti": "train", "coco": "unc-train", "hypersim": "train", "vkitti2": "train"}
TINY = (
    "device=cpu",
    "threads=1",
    "log=none",
    "data.size=[32,48]",
    "data.validated=1",
    "hardware.precision=no",
    "hardware.accumulation=1",
    "hardware.checkpointing=false",
    "hardware.workers=0",
    "optimisation.steps=3",
    "optimisation.batch_size=4",
    "optimisation.lr_batch=4",
    "optimisation.micro_batch=2",
    "optimisation.save_every=1",
    "optimisation.eval_every=3",
)
SMALL = {"tokens": "8", "width": "4", "filters": "[8,8,8]", "num_bins": "16", "bin_width": "8", "bottleneck": "8"}
OF_SYSTEM = {"evp-depth": tuple(SMALL), "vpd-depth": ("width", "filters"), "evp-refer": ("tokens",)}
OF_SYSTEM["vpd-refer"] = OF_SYSTEM["evp-refer"]


@pytest.fixture(scope="module", autouse=True)
def same_number_of_threads() -> Iterator[None]:
    """Recipes set it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def captioned(out: Path, root: Path, name: str, split: str, list_file: Path | None) -> Path:
    """A file of captions as ``deixis caption`` writes it."""
    pa = pytest.importorskip("pyarrow")
    import hashlib

    dataset = open_dataset(name, root, split, list_file)
    rows = []
    for index in range(len(dataset)):
        content = dataset.encoded(index)
        assert content is not None
        digest = hashlib.sha256(content).hexdigest()
        rows.append(Caption(f"elsewhere/{index}.jpg", digest, f"a red chair {index} on the left", "tiny", "", "", None))
    columns = {key: [vars(row)[key] for row in rows] for key in vars(rows[0])}
    types = [(key, pa.int64() if key == "seed" else pa.string()) for key in columns]
    write_parquet(out, pa.table(columns, pa.schema(types)))
    return out


class Sets:
    """Exports of the world, each made when it is first asked for, with captions and lists of their own."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.init = write_folder(folder / "tiny-sd")

    def root(self, label: str) -> Path:
        root = self.folder / label
        if not root.is_dir():
            write_layout(self.world, root, LAYOUTS[label][0], 4)
        return root

    def overrides(self, name: str) -> list[str]:
        """What leads a recipe to them."""
        found = []
        text = RECIPES[name].read_text()
        for label in LAYOUTS:
            if f"\n    {label}: " in text:
                root, key = self.root(label), f"data.sets.{label}"
                dataset = {"nyu": "nyuv2", "coco": "refcoco"}.get(label, label)
                own = root / LIST if label in ("nyu", "kitti") else None
                found += [f"{key}.root={root}", f"{key}.size={LAYOUTS[label][1]}", f"{key}.crop=none"]
                found += [f"{key}.list={own}"] if own else []
                found += [f"data.validation.{label}.{one}" for one in ("crop=none", f"size={LAYOUTS[label][1]}")]
                # The exports have no test split beside the one for training.
                found += [f"data.validation.{label}.split={SPLIT[label]}"]
                found += [f"data.validation.{label}.list={own}"] if own else []
                if label != "coco":
                    captions = self.folder / f"{label}.parquet"
                    if not captions.is_file():
                        captioned(captions, root, dataset, SPLIT[label], own)
                    found.append(f"{key}.captions={captions}")
        return found

    def recipe(self, name: str, out: Path, *more: str) -> Recipe:
        system = str(read_recipe(RECIPES[name], [*self.overrides(name), "init=x"]).system)
        small = [f"config.{one}={SMALL[one]}" for one in OF_SYSTEM.get(system, ())]
        own = [*TINY, *small, *(["optimisation.fall=3"] if "exponential" in RECIPES[name].read_text() else [])]
        rise = "optimisation.warmup=0" if system.startswith("lotus") or system == "vpd-refer" else "optimisation.warmup=1"
        given = [*self.overrides(name), *own, rise, f"init={self.init}", f"out={out}", *more]
        return read_recipe(RECIPES[name], given)


@pytest.fixture(scope="module")
def sets(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    for name in ("h5py", "pycocotools", "kornia"):
        pytest.importorskip(name)
    return Sets(world, tmp_path_factory.mktemp("sets"))


def rows_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def test_there_is_one_for_each_system() -> None:
    systems = {name: path.read_text().split("\nsystem: ")[1].split()[0] for name, path in RECIPES.items()}
    assert set(systems.values()) == {"evp-depth", "evp-refer", "vpd-depth", "vpd-refer", *RELATIVE}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_goes_on_and_loads(
    name: str, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a step and begun again with read-ahead in other processes, it ends with the same bits."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    weights = run(sets.recipe(name, whole), lambda row: None)
    (row,) = rows_of(whole)
    assert all(math.isfinite(value) for value in row.values())
    assert any(key.startswith("val_") for key in row)

    saved: list[int] = []
    save = loop.save_state

    def save_and_die(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        saved.append(state["step"])
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(sets.recipe(name, killed), lambda row: None)
    workers = "hardware.workers=1" if name in ("evp_depth_nyu", "marigold") else "hardware.workers=0"
    run(sets.recipe(name, killed, workers), lambda row: None)
    assert saved == [1, 2, 3]
    assert weights_in(killed / "weights") == weights_in(weights)

    photo = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    found = deixis.load(weights)(photo, text="the red chair")
    assert isinstance(found, Mask if "refer" in name else Depth)
    card = (weights / "README.md").read_text()
    assert "* **Licence**: unknown; trained on " in card
    assert "one's own" not in card
