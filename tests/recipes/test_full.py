"""The recipes at full scale, at tiny width on tiny sets in the published layouts: they learn, go on, and load."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import deixis
from deixis.backbones.stable_diffusion import read_denoiser
from deixis.data.captions import Caption
from deixis.data.readers import open_dataset
from deixis.data.splits import split_lists
from deixis.errors import UsageError
from deixis.io import write_parquet
from deixis.registry import RELATIVE
from deixis.reproduction import table4
from deixis.training import loop
from deixis.training.objectives import widen_input
from deixis.training.recipe import Recipe, read_recipe
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
    "optimisation.steps=2",
    "optimisation.batch_size=2",
    "optimisation.lr_batch=2",
    "optimisation.micro_batch=1",
    "optimisation.save_every=1",
    "optimisation.eval_every=2",
)
# One step of one picture.
SHORT = (
    "data.validation=null",
    "optimisation.steps=1",
    "optimisation.warmup=0",
    "optimisation.fall=2",
    "optimisation.batch_size=1",
    "optimisation.lr_batch=1",
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
        own = [*TINY, *small, *(["optimisation.fall=2"] if "exponential" in RECIPES[name].read_text() else [])]
        rise = 0 if system.startswith("lotus") or system == "vpd-refer" else 1
        own += ["crop=32"] if "\ncrop: " in RECIPES[name].read_text() else []
        given = [*self.overrides(name), *own, f"optimisation.warmup={rise}", f"init={self.init}", f"out={out}", *more]
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
    with Image.open(whole / "validation" / "step_000002.png") as sheet:
        assert sheet.width > 800  # four pictures in a row

    saved: list[int] = []
    save = loop.save_state

    def save_and_die(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        saved.append(state["step"])
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(sets.recipe(name, killed, "data.validation=null"), lambda row: None)
    workers = "hardware.workers=1" if name in ("evp_depth_nyu", "marigold") else "hardware.workers=0"
    run(sets.recipe(name, killed, "data.validation=null", workers), lambda row: None)
    assert saved == [1, 2]
    assert weights_in(killed / "weights") == weights_in(weights)

    photo = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    found = deixis.load(weights)(photo, text="the red chair")
    assert isinstance(found, Mask if "refer" in name else Depth)
    card = (weights / "README.md").read_text()
    assert "* **Licence**: unknown; trained on " in card
    assert "one's own" not in card


def test_what_a_cache_holds_changes_no_bit(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is killed while it fills one, and goes on with what is there."""
    steps = ["optimisation.steps=10", "optimisation.save_every=4", "optimisation.eval_every=10"]
    steps += ["optimisation.batch_size=1", "optimisation.lr_batch=1"]
    steps += ["data.sets.vkitti2=null", "data.validation.vkitti2=null"]
    cached = [*steps, f"cache={tmp_path / 'cache'}"]
    other = f"cache={tmp_path / 'other'}"
    plain = weights_in(run(sets.recipe("marigold", tmp_path / "plain", *steps, other), lambda row: None))
    save = loop.save_state

    def save_and_die(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(sets.recipe("marigold", tmp_path / "filling", *cached), lambda row: None)
    monkeypatch.undo()
    said: list[str] = []
    weights = run(sets.recipe("marigold", tmp_path / "filling", *cached), lambda row: None, said.append)
    assert weights_in(weights) == plain
    assert [line for line in said if "cache" in line] == []  # what is said, is said of pictures that learn or change
    assert 0.5 < rows_of(tmp_path / "filling")[0]["cached"] <= 1
    metrics = [rows_of(tmp_path / out)[-1] for out in ("plain", "filling")]
    assert {**metrics[0], "seconds": 0} == {**metrics[1], "seconds": 0}


def test_the_loss_falls(sets: Sets, tmp_path: Path) -> None:
    rates = ["optimisation.lr=5e-3", "optimisation.groups=matrices", "optimisation.shape=constant"]
    long = ["optimisation.steps=20", "optimisation.save_every=20", "optimisation.eval_every=20"]
    run(sets.recipe("evp_refer_refcoco", tmp_path, *rates, *long), lambda row: None)
    first, last = (row["loss"] for row in rows_of(tmp_path) if "loss" in row)
    assert last < first
    assert all(0 <= row["waiting"] <= 1 for row in rows_of(tmp_path) if "loss" in row)


def read(name: str, *more: str) -> Recipe:
    """A recipe as it is, with something for what it leaves open."""
    keys = [f"data.sets.{label}.root=there" for label in LAYOUTS if f"\n    {label}: " in RECIPES[name].read_text()]
    return read_recipe(RECIPES[name], ["init=there", *keys, *more])


def test_numbers_of_the_affine_recipes_are_the_recorded_ones() -> None:
    said = json.loads((FIXTURES / "iris" / "training_hyperparameters.json").read_text())
    for name, key in (("marigold", "marigold_v1_0"), ("lotus_d", "lotus_d"), ("e2e_ft", "e2e_ft")):
        recipe, recorded = read(name), said[key]
        opt = recipe.optimisation
        assert opt.lr == recorded["lr"]
        assert recorded["ema"] == "none"
        assert opt.ema == 0
        assert list(opt.betas) == [0.9, 0.999]
        assert f"betas {opt.betas[0]}/{opt.betas[1]}" in recorded["optimizer"]
        assert opt.groups == "published"
        steps = recorded.get("steps", 30000)
        assert opt.steps == steps
        assert {one.share for one in recipe.data.sets.values()} == {9, 1}
        assert recipe.data.transforms == "flip"
        assert recorded["flip"] == 0.5
    marigold, lotus, e2e = (read(name) for name in ("marigold", "lotus_d", "e2e_ft"))
    assert "30000" in said["marigold_v1_0"]["max_iter"]
    first = marigold.optimisation
    assert (first.batch_size, first.micro_batch) == tuple(
        said["marigold_v1_0"][key] for key in ("effective_batch", "micro_batch")
    )
    assert marigold.hardware.accumulation == said["marigold_v1_0"]["accumulation"]
    assert (first.weight_decay, first.clip) == (0, None)  # Adam
    assert "total 25000, final ratio 0.01, warm-up 100" in said["marigold_v1_0"]["schedule"]
    assert (first.shape, first.fall, first.final, first.warmup) == ("exponential", 25000, 0.01, 100)
    assert first.seed == said["marigold_v1_0"]["seed"]
    second = lotus.optimisation
    assert said["lotus_d"]["batch"].startswith("16 per device x 8 devices = 128")
    assert (second.batch_size, second.micro_batch) == (128, 16)
    assert said["lotus_d"]["schedule"] == "constant, no warm-up"
    assert (second.shape, second.warmup, second.seed) == ("constant", 0, said["lotus_d"]["seed"])
    assert second.clip == said["lotus_d"]["grad_clip"]
    assert "weight decay 0.01" in said["lotus_d"]["optimizer"]
    assert second.weight_decay == 0.01
    assert said["lotus_d"]["precision"].startswith("fp16 mixed")
    assert lotus.hardware.precision == "fp16"
    assert said["lotus_d"]["norm_type"].startswith("trunc_disparity")
    assert lotus.disparity
    third = e2e.optimisation
    assert said["e2e_ft"]["batch"] == "2 per device x 16 accumulation = 32"
    assert (third.batch_size, third.micro_batch, e2e.hardware.accumulation) == (32, 2, 16)
    assert "total 20000, final ratio 0.01, warm-up 100" in said["e2e_ft"]["schedule"]
    assert (third.shape, third.fall, third.final, third.warmup) == ("exponential", 20000, 0.01, 100)
    assert (third.clip, third.weight_decay) == (said["e2e_ft"]["grad_clip"], 0.01)
    assert "padded to 77 tokens in training" in said["e2e_ft"]["text"]
    assert e2e.text_padding == "max_length"
    # Lotus-G is Lotus-D but for what the system is.
    one, other = (RECIPES[name].read_text().split("\nsystem: ")[1] for name in ("lotus_d", "lotus_g"))
    assert other.replace("lotus-g", "lotus-d") == one


def test_numbers_of_the_metric_and_referring_recipes_are_the_recorded_ones() -> None:
    groups = json.loads(gzip.decompress((FIXTURES / "evp" / "optim.json.gz").read_bytes()))
    rates = json.loads((FIXTURES / "evp" / "lr_schedules.json").read_text())
    for name, case in (
        ("evp_depth_nyu", "evp_depth"),
        ("evp_depth_kitti", "evp_depth"),
        ("evp_refer_refcoco", "evp_refer"),
        ("vpd_depth_nyu", "vpd_depth"),
        ("vpd_refer_refcoco", "vpd_refer"),
    ):
        opt = read(name).optimisation
        assert opt.weight_decay == max(decay for _, decay in groups[case]["parameters"].values())
        assert (opt.groups, opt.clip, opt.ema, list(opt.betas)) == ("published", None, 0, [0.9, 0.999])
    for name, case in (("evp_depth_nyu", "evp_depth"), ("evp_refer_refcoco", "evp_refer")):
        opt, recorded = read(name).optimisation, rates[case]
        assert (opt.lr, opt.lr * opt.final) == pytest.approx((recorded["base_lr"], recorded["min_lr"]))
        assert opt.steps == recorded["epochs"] * opt.warmup  # a warm-up of one epoch
        assert opt.shape == case.replace("_", "-")
    assert [read(name).config["std"] for name in ("evp_depth_nyu", "evp_depth_kitti")] == [5.07543, 4.6211]
    # Epochs of the published lists, divided among GPUs as torch's DistributedSampler does, without what is left over.
    lists = {one.name: one.lines for one in split_lists().values()}
    counts = {
        "evp_depth_nyu": (lists["nyuv2.evp_train"], 2, 15),
        "evp_depth_kitti": (lists["kitti.evp_train"], 2, 15),
        "evp_refer_refcoco": (42404, 2, 20),
        "vpd_depth_nyu": (lists["nyuv2.evp_train"], 8, 25),
        "vpd_refer_refcoco": (42404, 8, 40),
    }
    for name, (samples, gpus, epochs) in counts.items():
        opt = read(name).optimisation
        assert opt.micro_batch == opt.batch_size // gpus
        assert opt.steps == epochs * (-(-samples // gpus) // (opt.batch_size // gpus))


def test_the_rows_of_table_4_are_overrides_of_the_recipe() -> None:
    for row in table4.rows():
        recipe = read("evp_depth_nyu", *row.overrides)
        assert recipe.config["imafr"] == row.imafr
        assert recipe.config["std"] == (5.07543 if row.std else None)
        assert list(recipe.text_shares) == ([0, 1, 0] if row.of_dataset else [1, 0, 0])


@pytest.mark.parametrize("name", RECIPES)
def test_the_head_of_a_recipe_says_how_and_what_to_expect(name: str) -> None:
    head = RECIPES[name].read_text().split("\nsystem:")[0]
    assert f"deixis train recipes/{name}.yaml init=" in head
    for word in ("# Hardware: ", "# Hours: ", "# Expect", "accelerate launch", "From the public code"):
        assert word in head or (word == "accelerate launch" and name == "e2e_ft")
    recipe = read(name)
    groups = recipe.optimisation.batch_size // (recipe.optimisation.micro_batch or 1)
    assert groups % recipe.hardware.accumulation == 0


def test_without_text_takes_one_override(sets: Sets, tmp_path: Path) -> None:
    """And with text but without captions it is said in a line."""
    bare = ["data.sets.hypersim.captions=null", "data.sets.vkitti2=null", *SHORT]
    recipe = sets.recipe("marigold", tmp_path / "a", *bare, "text_rate=0")
    assert (run(recipe, lambda row: None) / "unet").is_dir()
    with pytest.raises(UsageError, match=r"data.sets.hypersim: is hypersim, which has no captions \(name them by"):
        run(sets.recipe("marigold", tmp_path / "b", *bare), lambda row: None)
    other = [f"data.sets.vkitti2.root={sets.root('vkitti2')}", "data.sets.vkitti2.dataset=vkitti2"]
    with pytest.raises(UsageError, match=r"data.sets.vkitti2: is vkitti2, which has no expressions; name another set"):
        run(sets.recipe("evp_refer_refcoco", tmp_path / "c", *other), lambda row: None)
    with pytest.raises(UsageError, match=r"init .* has no vocabulary"):
        run(sets.recipe("vpd_depth_nyu", tmp_path / "d", f"init={tmp_path}"), lambda row: None)


def test_e2e_ft_starts_from_a_marigold_too(sets: Sets, tmp_path: Path) -> None:
    """Whose input is as wide as its own already."""
    wide = widen_input(read_denoiser(sets.init / "unet"))
    start = Path(shutil.copytree(sets.init, tmp_path / "marigold"))
    wide.save_pretrained(start / "unet")
    recipe = sets.recipe("e2e_ft", tmp_path / "run", f"init={start}", "optimisation.lr=1e-12", *SHORT)
    weights = run(recipe, lambda row: None)
    learned = read_denoiser(weights / "unet").conv_in.weight
    assert torch.allclose(learned, wide.conv_in.weight, atol=1e-3)
