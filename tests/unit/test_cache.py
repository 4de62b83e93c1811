"""What frozen networks make of texts and pictures, kept on disk: the same bits, less often computed."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deixis.backbones.latents import encode
from deixis.backbones.stable_diffusion import read_autoencoder, read_text_encoder
from deixis.conditioning.text import TextTower
from deixis.errors import DeixisError, UsageError
from deixis.training.cache import Cache, ask_alone, changed_by
from deixis.training.recipe import read_recipe
from tests.tiny import write_folder
from tests.unit.test_training import largest_file

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cache") / "tiny-sd")


def tower(folder: Path, cache: Cache) -> TextTower:
    found = TextTower(read_text_encoder(folder / "text_encoder"), frozen=True)
    assert ask_alone(found, cache, repeated=True) == {"texts"}
    return found


def entries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


IDS = torch.tensor([[598, 5, 6, 599], [598, 599, 599, 599], [598, 5, 6, 599]])


def test_an_entry_is_computed_once(tmp_path: Path) -> None:
    said: list[str] = []
    cache, calls = Cache(tmp_path / "cache", said.append), []

    def compute() -> Tensor:
        calls.append(1)
        return torch.arange(6.0).view(2, 3).bfloat16()

    assert [cache("ab12", compute).equal(compute()) for _ in range(3)] == [True] * 3
    assert len(calls) == 4
    assert cache.share() == pytest.approx(2 / 3)
    assert cache.share() == 0  # since then nothing was asked
    (entry,) = entries(tmp_path)
    assert entry == tmp_path / "cache" / "ab" / "ab12.safetensors"
    assert list(entry.parent.iterdir()) == [entry]
    assert copy.deepcopy(cache) is cache
    assert said == []


def test_many_may_fill_it_at_once(tmp_path: Path) -> None:
    said: list[str] = []

    def fill(_: int) -> bool:
        cache = Cache(tmp_path, said.append)
        return all(cache(f"{i}a", lambda i=i: torch.full((50,), i)).eq(i).all() for i in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fill, range(4))) == [True] * 4
    assert len(entries(tmp_path)) == len([one for one in tmp_path.rglob("*") if one.is_file()]) == 20
    assert said == []


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_entry_is_named_and_computed_again(damage: str, tmp_path: Path) -> None:
    said: list[str] = []
    cache = Cache(tmp_path, said.append)
    cache("ab", lambda: torch.ones(9))
    (entry,) = entries(tmp_path)
    content = entry.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    entry.write_bytes({"cut": content[:-5], "bit": flipped, "empty": b""}[damage])
    assert cache("ab", lambda: torch.ones(9)).equal(torch.ones(9))
    assert said == [f"{entry} is damaged: it is computed again"]
    assert entry.read_bytes() == content


def test_what_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", print)
    with (
        largest_file(1000),
        pytest.raises(DeixisError, match=r"cannot be written .* or give the same .* cache="),
    ):
        cache("ab", lambda: torch.ones(1000))
    assert entries(tmp_path) == []
    assert cache("ab", lambda: torch.ones(1000)).sum() == 1000
    (tmp_path / "file").write_text("")
    with pytest.raises(DeixisError, match=r"cannot be (read|written) "):
        Cache(tmp_path / "file", print)("ab", lambda: torch.ones(1))
    (tmp_path / "cache" / "cd").mkdir()
    (tmp_path / "cache" / "cd" / "cd.safetensors").mkdir()
    with pytest.raises(DeixisError, match=r"cd.safetensors: cannot be (read|written) "):
        cache("cd", lambda: torch.ones(1))


def test_texts_come_out_of_it_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    plain = TextTower(read_text_encoder(folder / "text_encoder"), frozen=True)
    alone, cache = tower(folder, Cache(tmp_path / "other", print)), Cache(tmp_path / "own", print)
    kept = tower(folder, cache)
    torch.testing.assert_close(alone(IDS), plain(IDS))
    for _ in range(2):
        assert kept(IDS).equal(alone(IDS))
    assert len(entries(tmp_path / "own")) == 2  # of three texts two are the same
    assert cache.share() == 0.5
    assert kept(IDS[:, :3]).equal(alone(IDS[:, :3]))  # another length is another text
    assert kept(IDS, pooled=True).equal(alone(IDS, pooled=True))
    assert kept(IDS, pooled=True).shape == (3, 1, 48)
    assert cache.share() == pytest.approx(2 / 6)
    assert copy.deepcopy(kept)(IDS).equal(alone(IDS))  # an average's
    with torch.inference_mode():
        assert kept(IDS).equal(alone(IDS))
    assert cache.share() == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert kept(IDS).equal(alone(IDS))
    assert cache.share() == 0


def test_another_network_has_entries_of_its_own(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path, print)
    first, second = tower(folder, cache), tower(folder, cache)
    first(IDS)
    with torch.no_grad():  # as a run that goes on reads its weights after it was built
        next(second.parameters()).mul_(2)
    assert not second(IDS).equal(first(IDS))
    third = TextTower(read_text_encoder(folder / "text_encoder"), frozen=True)
    third.clip.config.num_attention_heads = 2  # the same tensors
    ask_alone(third, cache, repeated=True)
    cache.share()
    third(IDS)
    assert cache.share() == 0
    restarted = tower(folder, Cache(tmp_path, print))
    restarted(IDS)
    assert restarted.forward.cache.share() == 1  # type: ignore[attr-defined]  # ask_alone has replaced it


@pytest.mark.parametrize("repeated", [True, False])
def test_latents_of_a_frozen_autoencoder(repeated: bool, folder: Path, tmp_path: Path) -> None:
    def autoencoder(cache: Cache) -> nn.Module:
        vae = read_autoencoder(folder / "vae").requires_grad_(False).to(memory_format=torch.channels_last)
        assert ask_alone(vae, cache, repeated=repeated) == {"pictures"}
        return vae

    own = tmp_path / "own"
    cache = Cache(own, print)
    alone, kept = autoencoder(Cache(tmp_path / "other", print)), autoencoder(cache)
    pictures = torch.rand(3, 16, 24, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    for vae in (alone, kept):
        vae.train()
    for _ in range(2):  # as it lies in memory does not matter
        assert encode(kept, pictures).equal(encode(alone, pictures))
        pictures = pictures.contiguous()
    assert (len(entries(own)), cache.share()) == ((3, 0.5) if repeated else (0, 0))
    kept.eval()
    encode(kept, pictures)
    assert (len(entries(own)), cache.share()) == (3, 1 if repeated else 0)
    # As the encoder gives them: another rule or scale is no other entry.
    kept.register_to_config(scaling_factor=2.0)
    torch.testing.assert_close(encode(kept, pictures), encode(alone.eval(), pictures) * 2 / alone.config.scaling_factor)
    assert cache.share() == 1


def test_what_learns_or_draws_is_left_alone(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path, print)
    learning = nn.ModuleList(
        [TextTower(read_text_encoder(folder / "text_encoder"), frozen=False), read_autoencoder(folder / "vae")]
    )
    assert ask_alone(learning, cache, repeated=True) == set()
    drawing = TextTower(read_text_encoder(folder / "text_encoder"), frozen=True)
    drawing.clip.config.attention_dropout = 0.1
    assert ask_alone(drawing, cache, repeated=True) == set()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("marigold", [], None),
        ("lotus_g", ["data.transforms=none"], None),
        ("vpd_refer_refcoco", [], None),
        ("evp_depth_nyu", [], "crop=480"),
        ("vpd_depth_nyu", ["crop=null"], "data.transforms=vpd"),
        ("vpd_depth_nyu", ["crop=null", "data.transforms=flip"], None),
        (
            "vpd_depth_nyu",
            ["crop=null", "data.transforms=flip", "data.sets.nyu.size=[96,128]"],
            "data.sets.nyu.size=[96, 128]",
        ),
        ("mini/7_marigold", [], "augment.zoom=1.1"),
        ("mini/7_marigold", ["augment.zoom=1", "augment.rotate_deg=0", "augment.colour=0"], "augment.grey=0.05"),
        *(
            (name, ["augment={zoom: 1, rotate_deg: 0, colour: 0, grey: 0}", f"data.size={size}"], said)
            for name, size, said in (
                ("mini/7_marigold", "[96,128]", None),
                ("mini/7_marigold", "[96,96]", "data.size=[96, 96]"),
                ("mini/5_evp_refer", "[96,96]", None),
            )
        ),
    ],
)
def test_pictures_that_come_again(name: str, changes: list[str], said: str | None) -> None:
    label = {"marigold": "hypersim", "lotus_g": "hypersim", "vpd_refer_refcoco": "coco"}.get(name, "nyu")
    given = ["data.world=x"] if name.startswith("mini") else ["init=x", f"data.sets.{label}.root=x"]
    given += ["data.sets.vkitti2.root=x"] if label == "hypersim" else []
    assert changed_by(read_recipe(RECIPES / f"{name}.yaml", [*given, *changes])) == said


def test_a_network_in_parts_has_no_cache() -> None:
    with pytest.raises(UsageError, match=r"cache: is here; use null with hardware.fsdp"):
        read_recipe(RECIPES / "mini" / "7_marigold.yaml", ["data.world=x", "cache=here", "hardware.fsdp=true"])
