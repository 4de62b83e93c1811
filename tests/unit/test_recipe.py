"""Recipes: what is wrong is one line that names the key; what a run folder was begun with is remembered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from deixis.errors import UsageError
from deixis.training.recipe import difference, read_recipe

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "recipes" / "mini").glob("*.yaml"))
DEPTH = REPOSITORY / "tests" / "recipes" / "untrained_depth.yaml"
ROOT = "data.root=somewhere"

# What every recipe needs; the system is still open.
LEAST = """\
init: somewhere
out: runs/least
data: {root: somewhere, stored: [64, 80], size: [48, 64]}
optimisation: {steps: 1, batch_size: 1, lr: 1, warmup: 0}
"""


@pytest.fixture
def least(tmp_path) -> Path:
    path = tmp_path / "least.yaml"
    path.write_text(LEAST)
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_recipe(path, list(overrides))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_once_it_knows_where_things_are(path):
    recipe = read_recipe(path, [ROOT, "data.world=elsewhere"])
    assert (recipe.data.root, recipe.data.world) == ("somewhere", "elsewhere")
    moved = read_recipe(path, [ROOT, "data.world=elsewhere", "init=there", "out=here"])
    assert (moved.init, moved.out) == ("there", "here")


def test_recipes_start_from_recipes_before_them():
    outs: list[str] = []
    for path in RECIPES:
        recipe = read_recipe(path, [ROOT, "data.world=elsewhere"])
        assert recipe.out not in outs
        assert recipe.init is None or recipe.init.removesuffix("/weights") in outs
        outs.append(recipe.out)
    assert RECIPES


def test_overrides_win_over_the_file():
    recipe = read_recipe(DEPTH, [ROOT, "optimisation.lr=3e-4", "data.size=[64,96]", "config.std=null", "out=x y"])
    assert (recipe.optimisation.lr, tuple(recipe.data.size), recipe.out) == (3e-4, (64, 96), "x y")
    assert recipe.config["std"] is None


@pytest.mark.parametrize(
    ("override", "names", "remedy"),
    [
        ("optimisation.step=3", "optimisation.step", "did you mean optimisation.steps?"),
        ("optimization.steps=3", "optimization", "did you mean optimisation?"),
        ("teacher.wieght=0", "teacher.wieght", "did you mean teacher.weight?"),
        ("config.token=3", "config.token", "did you mean config.tokens?"),
        ("data.wrold=x", "data.wrold", "did you mean data.world?"),
        ("bf16=true", "bf16", "known are system, config"),
        ("backbone.uent={}", "backbone.uent", "did you mean backbone.unet?"),
        ("backbone.unet.block_channels=[8]", "backbone.unet.block_channels", "unet.block_out_channels?"),
        ("backbone.text_encoder.hiden_size=8", "backbone.text_encoder.hiden_size", "text_encoder.hidden_size?"),
    ],
)
def test_unknown_keys_get_the_nearest_known_one(override, names, remedy):
    line = complaint(DEPTH, ROOT, override)
    assert line.startswith(f"{names}:")
    assert remedy in line


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("optimisation.steps=many", "optimisation.steps"),
        ("optimisation.steps=2.5", "optimisation.steps"),
        ("optimisation=3", "optimisation"),
        ("threads=some", "threads"),
        ("data.size=large", "data.size"),
        ("data.size=[120]", "data.size"),
        ("data.size=[120,160,3]", "data.size"),
        ("data.size=[0,160]", "data.size"),
        ("data.size=[-120,160]", "data.size"),
        ("text_shares=[0,0,0]", "text_shares"),
        ("text_shares=[1,-0.5,0.5]", "text_shares"),
        ("text_shares=[1,1]", "text_shares"),
        ("text_shares=[1,.nan,1]", "text_shares"),
        ("data.shares=[0,0,0]", "data.shares"),
        ("data.shares=[1,1]", "data.shares"),
        ("data.stored=[64]", "data.stored"),
        ("text_levels=[1,1,1]", "text_levels"),
        ("text_levels=[1,-1,1,1]", "text_levels"),
        ("text_rate=1.5", "text_rate"),
        ("clean=-1", "clean"),
        ("crop=0", "crop"),
        ("depth_share=2", "depth_share"),
        ("kl=-1", "kl"),
        ("bins=[9,0.7]", "bins"),
        ("bins=[0,9]", "bins"),
        ("optimisation.steps=0", "optimisation.steps"),
        ("optimisation.batch_size=0", "optimisation.batch_size"),
        ("optimisation.lr=0", "optimisation.lr"),
        ("optimisation.lr=.nan", "optimisation.lr"),
        ("optimisation.warmup=100000", "optimisation.warmup"),
        ("optimisation.ema=1.5", "optimisation.ema"),
        ("optimisation.seed=-1", "optimisation.seed"),
        ("optimisation.save_every=0", "optimisation.save_every"),
        ("augment.zoom=0.5", "augment.zoom"),
        ("augment.flip=2", "augment.flip"),
        ("threads=0", "threads"),
        ("vocabulary=100", "vocabulary"),
        ("lambd=2", "lambd"),
        ("teacher.weight=-1", "teacher.weight"),
        ("config.tokens=some", "config.tokens"),
        ("config.tokens=0", "config.tokens"),
        ("config.tokens=100", "config.tokens"),
        ("config.text=cb", "config.text"),
        ("config.imafr=1", "config.imafr"),
        ("config.filters=[8,8]", "config.filters"),
        ("config.std=0", "config.std"),
        ("config.max_depth=-1", "config.max_depth"),
        ("backbone.vae=big", "backbone.vae"),
        ("backbone.vae.block_out_channels=[16,32,48]", "backbone.vae.block_out_channels"),
        ("backbone.vae.block_out_channels=wide", "backbone.vae.block_out_channels"),
        ("backbone.vae.block_out_channels=[16,30,96,128]", "backbone.vae.norm_num_groups"),
        ("backbone.vae.norm_num_groups=0", "backbone.vae.norm_num_groups"),
        ("backbone.unet.norm_num_groups=10", "backbone.unet.norm_num_groups"),
        ("backbone.unet.norm_num_groups=0", "backbone.unet.norm_num_groups"),
        ("backbone.unet.down_block_types=[DownBlock2D]", "backbone.unet.down_block_types"),
        ("backbone.unet.in_channels=5", "backbone.unet.in_channels"),
        ("backbone.unet.cross_attention_dim=80", "backbone.unet.cross_attention_dim"),
        ("backbone.text_encoder.num_attention_heads=5", "backbone.text_encoder.num_attention_heads"),
    ],
)
def test_wrong_values_are_named(override, names):
    line = complaint(DEPTH, ROOT, override)
    assert line.startswith(f"{names}: "), line
    assert "; " in line


def test_groups_are_refused_with_both_numbers():
    line = complaint(DEPTH, ROOT, "backbone.unet.norm_num_groups=10")
    assert re.search(r"is 10, which does not divide 8 in backbone\.unet\.block_out_channels", line)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("system=evp-dept", "did you mean evp-depth?"),
        ("system=autoencoders", "did you mean autoencoder?"),
        ("system=zoe", "known are evp-depth"),
        ("system=evp-refer", "config.max_depth: is not a switch of evp-refer"),
        ("system=contrast", "leave it out: contrast has no switches"),
        ("config.text=cd", "config.aggregate: is i"),
        ("config.text=cd", "use v or vd with config.text=cd"),
        ("text_shares=[1,1,1]", "config.clip_frozen: is false; use true"),
        ("config.bins=false", "has no metric bins"),
    ],
)
def test_systems_and_switches_that_do_not_go_together(override, part):
    assert part in complaint(DEPTH, ROOT, override)


def test_the_mean_of_the_captions_is_for_a_text_tower_that_does_not_learn():
    assert read_recipe(DEPTH, [ROOT, "text_shares=[1,1,1]", "config.clip_frozen=true"]).text_shares[1] == 1


def test_a_mean_embedding_is_for_a_recipe_that_gives_one():
    given = (ROOT, "embedding=e.safetensors", "config.clip_frozen=true")
    assert read_recipe(DEPTH, [*given, "text_shares=[1,1,1]"]).embedding == "e.safetensors"
    for overrides in (["text_shares=[1,0,1]"], ["text_shares=[1,1,1]", "config.text=cd", "config.aggregate=v"]):
        assert complaint(DEPTH, *given, *overrides).startswith("embedding: is e.safetensors; ")


@pytest.mark.parametrize("system", ["autoencoder", "contrast", "text-to-image", "evp-refer", "vpd-depth", "vpd-refer"])
def test_every_system_has_a_recipe(least, system):
    assert read_recipe(least, [f"system={system}"]).init == "somewhere"
    assert "add init=DIR" in complaint(least, f"system={system}", "init=null")
    assert "has no metric bins" in complaint(least, "system=evp-refer", "bins=[0.7,9]")


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("crop=60", "crop"),
        ("crop=72", "crop"),
        ("data.stored=[60,80]", "crop"),  # without a crop, all of the height
        ("data.stored=[32,80]", "data.stored"),
        ("config.tokens=3", "config"),
    ],
)
def test_crops_become_whole_latents(least, override, names):
    assert read_recipe(least, ["system=autoencoder", "crop=32"]).crop == 32
    assert complaint(least, "system=autoencoder", override).startswith(f"{names}: ")


@pytest.mark.parametrize(
    ("part", "sizes", "names"),
    [
        (
            "vae",
            "block_out_channels: [8, 8, 8, 9], down_block_types: [A, A, A, A], up_block_types: [A, A, A, A]",
            "backbone.vae.norm_num_groups",
        ),
        ("unet", "block_out_channels: [8, 8]", "backbone.unet.block_out_channels"),
        ("text_encoder", "num_attention_heads: 7", "backbone.text_encoder.num_attention_heads"),
    ],
)
def test_parts_are_checked_one_by_one(tmp_path, part, sizes, names):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{LEAST}system: contrast\nbackbone: {{{part}: {{{sizes}}}}}\n")
    assert complaint(path).startswith(f"{names}: ")


def test_what_refers_to_an_open_value_is_open():
    path = REPOSITORY / "recipes" / "evp_depth_nyu.yaml"  # validated on where it is trained
    line = complaint(path, "init=x")
    assert line == f"{path}: leaves data.sets.nyu.root open; add data.sets.nyu.root=VALUE to the command"
    # A misspelt key is said first: it is why the value is open.
    assert complaint(path, "init=x", "data.sets.nyu.rot=y").startswith("data.sets.nyu.rot: is not a key of a set; did")


def test_open_values_are_listed():
    assert re.search(r"leaves data\.root open; add data\.root=VALUE", complaint(DEPTH))
    assert read_recipe(DEPTH, ["data.root=null", "data.world=somewhere"]).data.root is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("system: [evp-depth", "cannot be read"),
        ("- system", "is not a mapping of keys"),
        ("3", "cannot be read"),
        ("", "leaves "),
        ("\x00", "cannot be read"),
        ("system: evp-depth\nconfig: 3", "config"),
        ("1: 2", "1: is not a key"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, text, part):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert part in complaint(path)


def test_paths_that_are_no_recipe(tmp_path):
    assert "is not a recipe" in complaint(tmp_path)
    # An installed package has none.
    assert "is not a recipe; pass a YAML file; the project's are in recipes/ of its" in complaint(tmp_path / "none")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 256)))
    assert "cannot be read" in complaint(tmp_path / "binary.yaml")


@pytest.mark.parametrize("override", ["steps", "=3", "optimisation.steps=[1", "a.b.c=3", "optimisation.steps="])
def test_overrides_that_are_none(override):
    complaint(DEPTH, ROOT, override)


def stored(tmp_path: Path, *overrides: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(read_recipe(DEPTH, [ROOT, *overrides]))))
    return path


@pytest.mark.parametrize(
    "override",
    [
        "out=elsewhere",
        "data.root=moved",
        "data.world=moved",
        "init=moved",
        "device=cuda",
        "threads=2",
        "optimisation.save_every=7",
        "optimisation.eval_every=7",
    ],
)
def test_what_may_change_between_two_starts_of_a_run(tmp_path, override):
    assert difference(read_recipe(DEPTH, [ROOT, override]), stored(tmp_path)) is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimisation.lr=0.5", "optimisation.lr 0.0015, not 0.5"),
        ("data.size=[64,64]", "data.size [96, 128], not [64, 64]"),
        ("data.stored=[64,64]", "data.stored [72, 96], not [64, 64]"),
        ("data.shares=[1,0,0]", "data.shares [1.0, 1.0, 1.0], not [1.0, 0.0, 0.0]"),
        ("bins=[1,9]", "bins [0.7, 9.0], not [1.0, 9.0]"),
        ("config.tokens=8", "config.tokens 12, not 8"),
        ("config.imafr=true", "config.imafr not set, not True"),
    ],
)
def test_what_may_not(tmp_path, override, words):
    present = read_recipe(DEPTH, [ROOT, "optimisation.lr=0.0015", "data.size=[96,128]", override])
    assert difference(present, stored(tmp_path, "optimisation.lr=0.0015", "data.size=[96,128]")) == words


def test_recipes_of_older_versions_lack_keys_that_had_their_present_default(tmp_path):
    path = stored(tmp_path)
    path.write_text(path.read_text().replace("dice: 0.0\n", ""))
    assert difference(read_recipe(DEPTH, [ROOT]), path) is None
    assert difference(read_recipe(DEPTH, [ROOT, "dice=1"]), path) == "dice 0.0, not 1.0"


def test_a_stored_recipe_that_is_damaged(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        difference(read_recipe(DEPTH, [ROOT]), path)


# ------------------------------------------------------------------------------------------- sets on disk

NYU = "data.sets.nyu={dataset: nyuv2, root: there}"
ROOMS = ["data.sets.rooms.root=shards"]


@pytest.fixture
def on_disk(least: Path) -> Path:
    """A recipe of a depth system that reads a set from disk."""
    sets = "sets: {nyu: {dataset: nyuv2, root: there, split: sync, size: [48, 64]}}"
    text = least.read_text().replace("root: somewhere, stored: [64, 80]", f"{sets}, transforms: vpd")
    least.write_text(f"{text}system: vpd-depth\nconfig: {{max_depth: 10.0}}\n")
    return least


def test_sets_are_given_and_changed_by_name(on_disk):
    recipe = read_recipe(on_disk, ["data.sets.nyu.root=elsewhere", "data.sets.rooms.dataset=world-rooms", *ROOMS])
    assert {label: (one.dataset, one.root) for label, one in recipe.data.sets.items()} == {
        "nyu": ("nyuv2", "elsewhere"),
        "rooms": ("world-rooms", "shards"),
    }
    assert list(read_recipe(on_disk, ["data.sets.nyu=null", *ROOMS, "data.sets.rooms.dataset=world"]).data.sets) == [
        "rooms"
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.sets.nyu.dataset=nyuv3", "data.sets.nyu.dataset: is nyuv3; did you mean nyuv2?"),
        ("data.sets.nyu.rot=x", "data.sets.nyu.rot: is not a key of a set; did you mean data.sets.nyu.root?"),
        ("data.sets.nyu.split=training", "data.sets.nyu.split: is training; use one of test, train, sync"),
        ("data.sets.nyu.share=-1", "data.sets.nyu.share: is -1"),
        ("data.sets.nyu.share=0", "data.sets: is without a share; give a share above 0"),
        ("data.sets.nyu.share=many", "data.sets.nyu.share: is many"),
        ("data.sets.nyu.size=[8]", "data.sets.nyu.size: is [8]"),
        ("data.sets.nyu.size=[0,8]", "data.sets.nyu.size: is [0, 8]"),
        ("data.sets.nyu.crop=middle", "data.sets.nyu.crop: is middle; choose none or benchmark"),
        ("data.sets.nyu.max_depth=0", "data.sets.nyu.max_depth: is 0"),
        ("data.sets.nyu=7", "data.sets.nyu: is 7; give its keys"),
        ("data.sets=7", "data.sets: is 7; name your sets one by one"),
        ("data.sets.more.root=x", "leaves data.sets.more.dataset open"),
        ("data.validation.v.root=x", "leaves data.validation.v.dataset open"),
        ("data.root=x", "data.root: is x; leave it out"),
        ("data.world=x", "data.world: is x; leave it out"),
        ("data.transforms=all", "data.transforms: is all; choose none, flip or vpd"),
        ("data.validated=0", "data.validated: is 0"),
        ("data.bad_samples=-1", "data.bad_samples: is -1"),
        ("hardware.workers=-1", "hardware.workers: is -1"),
        ("teacher.weight=1", "teacher.weight: is 1.0; use 0 with data.sets"),
        ("init=null", "init: is null; name a diffusers folder"),
        ("disparity=true", "disparity: is true; leave it out: vpd-depth learns depth"),
        ("optimisation.micro_batch=2", "optimisation.micro_batch: is 2, and a batch of 1 has not as many"),
        ("hardware.accumulation=2", "optimisation.batch_size: is 1, which 1 processes in 2 turns"),
    ],
)
def test_what_is_wrong_with_a_set_is_one_line(on_disk, override, said):
    more = ["backbone.text_encoder={}"] if override == "init=null" else []
    assert said in complaint(on_disk, override, *more)


def test_sets_are_for_systems_and_micro_batches_for_sets(least):
    assert "leave it out: it goes with data.sets" in complaint(least, "system=marigold", "optimisation.micro_batch=1")
    stage = ["system=contrast", "data.root=null", NYU, "backbone.text_encoder={}"]
    assert complaint(least, *stage).startswith("data.sets: is nyu; give contrast data.root")
    refer = ["system=evp-refer", "data.root=null", NYU]
    assert "what is asked for comes from the datasets" in complaint(least, *refer, "text_shares=[1,1,0]")
    assert complaint(least, *refer, "data.transforms=vpd").startswith("data.transforms: is vpd; use flip or none")
    marigold = ["system=marigold", "data.root=null", NYU]
    assert "choose multiples of 8" in complaint(least, *marigold, "data.sets.nyu.size=[12,16]")
    assert complaint(least, "system=marigold", "data.validation.v={dataset: nyuv2, root: x}").startswith(
        "data.validation: is v; leave it out"
    )


def test_where_sets_lie_may_change_and_what_they_are_may_not(on_disk, tmp_path):
    stored = tmp_path / "recipe.yaml"
    stored.write_text(OmegaConf.to_yaml(OmegaConf.structured(read_recipe(on_disk, []))))
    moved = ["data.sets.nyu.root=other", "data.sets.nyu.list=l.txt", "data.sets.nyu.captions=c.parquet"]
    moved += ["hardware.workers=4", "data.bad_samples=3", "data.validation.v={dataset: nyuv2, root: x}"]
    assert difference(read_recipe(on_disk, moved), stored) is None
    changed = read_recipe(on_disk, ["data.sets.nyu.share=3"])
    assert difference(changed, stored) == "data.sets.nyu.share 1.0, not 3.0"


def test_no_is_a_word_here(least):
    assert read_recipe(least, ["system=marigold", "hardware.precision=no"]).hardware.precision == "no"
