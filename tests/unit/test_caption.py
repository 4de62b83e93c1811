"""Captions, their embeddings and the latents' deviation of whole datasets: what is written, and that none is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deixis.checkpoints.convert import _read_embedding
from deixis.checkpoints.folder import load_folder
from deixis.cli import main
from deixis.conditioning import caption as captioning
from deixis.conditioning.caption import PROMPTS, Captioner
from deixis.conditioning.describe import aggregate, encoder
from deixis.conditioning.embed import Embeddings, embed_captions, read_clip
from deixis.conditioning.text import tokenize
from deixis.data.captions import Caption, Journal, Settings, journal_path, read_captions
from deixis.data.world import read_shards
from deixis.errors import InputError, ModelError, UsageError
from deixis.training.latent_std import LatentSpread, image_encoder
from deixis.training.run import _mean_embedding
from deixis.types import Text
from tests.captioners import FAMILIES, write_captioner
from tests.tiny import write_folder

pq = pytest.importorskip("pyarrow.parquet")

Run = Callable[..., tuple[int, str, list[str]]]
SIZES = ((40, 60), (90, 30), (56, 56), (30, 80), (50, 50))


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family. Not to be changed."""
    root = tmp_path_factory.mktemp("captioners")

    def folder(family: str) -> Path:
        path = root / family
        return path if path.exists() else write_captioner(path, family)

    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder. Not to be changed."""
    return write_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs ``deixis``: exit code, stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, [line for line in err.splitlines() if line.strip() and "━" not in line]

    return command


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray[Any, Any]:
    """A picture of coarse noise, and its pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return np.asarray(image)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures of different sizes in two folders."""
    for index, size in enumerate(SIZES):
        draw(tmp_path / "photos" / f"scene_{index % 2}" / f"{index}.png", index, size)
    return tmp_path / "photos"


def rows(path: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


# -------------------------------------------------------------------------------------------- captioners


@pytest.mark.parametrize("family", FAMILIES)
def test_a_caption_does_not_depend_on_its_batch(captioner: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    model = Captioner(captioner(family), torch.device("cpu"))
    assert model.family == family
    pictures = [draw(tmp_path / "x.png", index, size) for index, size in enumerate(SIZES[:3])]
    for prompt in (PROMPTS[model.family], "describe the lamp"):
        for seeds in (None, [5, 6, 7]):
            together = model(pictures, prompt, 6, seeds)
            alone = [model([p], prompt, 6, seeds and seeds[i : i + 1])[0] for i, p in enumerate(pictures)]
            assert together == alone
            assert len(set(together)) > 1  # they say what is seen
            assert all(len(words.split()) <= 6 for words in together)
    assert model(pictures, "a photo", 6, [5, 6, 7]) != model(pictures, "a photo", 6, [8, 9, 10])


def test_words_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(3000, 3)
    drawn = captioning._Draw(range(3000))(torch.zeros(3000, 1, dtype=torch.long), logits).argmax(dim=1)
    np.testing.assert_allclose(torch.bincount(drawn) / 3000, [0.1, 0.2, 0.7], atol=0.03)


def broken(folder: Path, captioner: Callable[[str], Path], change: str) -> None:
    """A copy of the tiny LLaVA with something wrong."""
    folder.mkdir()
    for file in captioner("llava_next").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if change == "tensor":
        tensors = load_file(folder / "model.safetensors")
        tensors.popitem()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif change == "template":
        (folder / "chat_template.jinja").unlink()
    else:
        content = {} if change == "none" else {"model_type": change}
        (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("qwen2_vl", "names the architecture qwen2_vl, which is unknown here; pass a model of blip-2, llava_next"),
        ("internvl_chat", "pass the version of it that transformers reads, whose name ends in -hf"),
        ("none", "names no architecture"),
        ("tensor", "has missing keys: "),
        ("template", "has no chat template"),
    ],
)
def test_models_that_cannot_be_used(
    captioner: Callable[[str], Path], tmp_path: Path, run: Run, photos: Path, change: str, part: str
) -> None:
    broken(tmp_path / "model", captioner, change)
    code, out, lines = run("caption", photos, "--model", tmp_path / "model")
    assert (code, out, len(lines)) == (2, "", 1)
    assert part in lines[0]
    assert not list(tmp_path.glob("captions*"))


def test_hub_ids_come_from_the_cache_alone_when_there_is_no_hub(run: Run, photos: Path) -> None:
    code, _, lines = run("caption", photos, "--model", "nobody/blip2")
    assert (code, len(lines)) == (2, 1)
    assert "nobody/blip2: is not a folder here, cannot be fetched" in lines[0]
    code, _, lines = run("caption", photos, "--model", "blip2")
    assert (code, lines) == (2, ["deixis: 'blip2': is neither a folder nor a hub id; pass a folder, or owner/name"])


# ------------------------------------------------------------------------------------------------ the file


def test_the_file_and_what_training_reads(run: Run, photos: Path, captioner: Callable[[str], Path]) -> None:
    model = captioner("blip-2")
    code, out, lines = run("caption", photos, "--model", model, "--batch", 2, "--seed", 3, "--max-new-tokens", 5)
    assert (code, out) == (0, "captions.parquet\n")
    assert lines[-1] == "5 captioned, 0 there already, 0 failed; in captions.parquet"
    assert not journal_path(Path("captions.parquet")).exists()
    found = rows("captions.parquet")
    names = sorted(f"scene_{index % 2}/{index}.png" for index in range(5))
    assert [row["image"] for row in found] == names
    digest = hashlib.sha256(hashlib_line(model / "model.safetensors")).hexdigest()
    for row in found:
        assert row["image_sha256"] == hashlib.sha256((photos / row["image"]).read_bytes()).hexdigest()
        same = {"model": "blip-2", "model_version": f"sha256:{digest}", "prompt": "", "seed": 3}
        assert {key: row[key] for key in same} == same
    texts = read_captions("captions.parquet")
    first = found[0]
    assert texts.by_path[first["image"]] == Text(first["caption"], "caption:blip-2")
    assert texts.by_hash[first["image_sha256"]] == texts.by_path[first["image"]]
    assert len(texts.by_hash) == len(texts.by_path) == 5


def hashlib_line(file: Path) -> bytes:
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()


def test_only_what_is_new_or_changed_is_captioned_again(
    run: Run, photos: Path, captioner: Callable[[str], Path]
) -> None:
    command = ("caption", photos, "--model", captioner("internvl"), "--max-new-tokens", 4, "--out", "out/c.parquet")
    assert run(*command)[0] == 0
    before = {row["image"]: row for row in rows("out/c.parquet")}
    draw(photos / "scene_0" / "0.png", 77)
    draw(photos / "new.png", 78)
    code, out, _ = run(*command, "--json")
    assert code == 0
    assert json.loads(out) == {"file": "out/c.parquet", "made": 2, "kept": 4, "failed": []}
    after = {row["image"]: row for row in rows("out/c.parquet")}
    assert after.keys() == {*before, "new.png"}
    assert {name for name in before if after[name] != before[name]} == {"scene_0/0.png"}
    for option, value, told in (
        ("--prompt", "where is the lamp", f"prompt {PROMPTS['internvl']!r} not 'where is the lamp'"),
        ("--seed", 1, "seed None not 1"),
        ("--model", captioner("blip-2"), "model 'internvl' not 'blip-2'"),
    ):
        code, out, lines = run(*command, option, value)
        assert (code, out, len(lines)) == (2, "", 1)
        assert f"out/c.parquet: was made with {told}" in lines[0]


def test_pictures_that_cannot_be_read_are_named_and_the_rest_is_done(
    run: Run, photos: Path, captioner: Callable[[str], Path]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    command = ("caption", photos, "gone.png", "--model", captioner("llava_next"), "--max-new-tokens", 3, "--batch", 4)
    code, out, lines = run(*command, "--json")
    assert code == 1
    assert [Path(one["input"]).name for one in json.loads(out)["failed"]] == ["gone.png", "broken.jpg"]
    assert lines[0] == "deixis: gone.png: does not exist; check the path"
    assert f"{photos / 'broken.jpg'}: " in lines[1]
    assert len(rows("captions.parquet")) == 5


def test_without_a_picture_there_is_no_file(run: Run, captioner: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for path in ("gone.png", "notes.txt"):
        code, out, lines = run("caption", path, "--model", captioner("blip-2"))
        assert (code, out) == (2, "")
        assert path in lines[0]
        assert not list(tmp_path.glob("captions*"))


def test_one_picture_the_model_cannot_take_does_not_cost_the_others(photos: Path) -> None:
    def picky(pictures: list[Any], prompt: str, length: int, seeds: None) -> list[str]:
        if any(picture.shape[:2] == SIZES[2] for picture in pictures):
            raise RuntimeError("too square")
        return ["a room"] * len(pictures)

    jobs = [captioning._Job(path, path.name) for path in sorted(photos.rglob("*.png"))]
    made = captioning._caption_chunk(picky, jobs, Settings("m", "v", "", None, 5), 10**6)  # type: ignore[arg-type]
    (lost,) = (one for one in made if isinstance(one, captioning.Failure))
    assert lost.path.name == "2.png"
    assert "has no caption (RuntimeError: too square)" in str(lost.error)
    assert {one.image for one in made if isinstance(one, Caption)} == {"0.png", "1.png", "3.png", "4.png"}


def test_pictures_of_one_name_are_refused(run: Run, tmp_path: Path, captioner: Callable[[str], Path]) -> None:
    draw(tmp_path / "a" / "1.png", 0)
    draw(tmp_path / "b" / "1.png", 1)
    code, _, lines = run("caption", "a", "b", "--model", captioner("blip-2"))
    assert (code, lines) == (
        2,
        ["deixis: b/1.png: would be called 1.png, as a/1.png is; caption the folders into files of their own"],
    )


# ------------------------------------------------------------------------------------------------ survival


SETTINGS = Settings("m", "sha256:0", "", None, 5)


def row(index: int) -> Caption:
    return Caption(f"{index}.png", f"{index:064x}", f"caption {index}", "m", "sha256:0", "", None)


def test_a_line_cut_off_in_the_journal_is_no_caption(tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    journal = Journal(out, SETTINGS)
    journal.add([row(0), row(1)])
    with pytest.raises(UsageError, match="is being written by another run"):
        Journal(out, SETTINGS)
    journal.close()
    whole = journal.path.read_bytes()
    for end in (len(whole) - 1, len(whole) - 30, 10):
        journal.path.write_bytes(whole[:end])
        again = Journal(out, SETTINGS)
        kept = [f"{i}.png" for i in range(2)][: 1 if end > 10 else 0]
        assert list(again.rows) == kept
        again.add([row(2)])
        again.close()
        third = Journal(out, SETTINGS)
        assert list(third.rows) == [*kept, "2.png"]
        third.close()
    journal.path.write_bytes(whole.replace(b'"image"', b'"imago"'))
    with pytest.raises(InputError, match="is damaged"):
        Journal(out, SETTINGS)


def test_files_that_hold_no_captions(tmp_path: Path, world: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_captions(tmp_path / "gone.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"is no whole Parquet file .*; delete it and run"):
        read_captions(tmp_path / "torn.parquet")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"is no whole Parquet file .*; pass a file of 'deixis caption'"):
        read_captions(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match="holds no captions"):
        read_captions(next(world.glob("*.parquet")))


def test_killed_and_started_again_no_picture_is_lost_and_none_captioned_twice(
    run: Run, tmp_path: Path, captioner: Callable[[str], Path]
) -> None:
    names = [f"{index:02}.png" for index in range(16)]
    for index, name in enumerate(names):
        draw(tmp_path / "many" / name, index)
    options = ("--model", captioner("llava_next"), "--batch", 1, "--seed", 0, "--max-new-tokens", 24)
    command = ["caption", "many", *map(str, options)]
    journal = tmp_path / "captions.parquet.journal"

    def lines() -> list[bytes]:
        return journal.read_bytes().splitlines(keepends=True)[1:] if journal.exists() else []

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(
        [sys.executable, "-m", "deixis", *command, "--processes", "2"], cwd=tmp_path, env=environment
    )
    patience = time.monotonic() + 300
    while len(lines()) < 3 and started.poll() is None and time.monotonic() < patience:
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    before = [json.loads(line) for line in lines() if line.endswith(b"\n")]
    assert 3 <= len(before) < len(names)
    assert not Path("captions.parquet").exists()

    code, out, _ = run(*command, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["made"], told["kept"]) == (len(names) - len(before), len(before))
    found = rows("captions.parquet")
    assert [one["image"] for one in found] == names
    assert [one for one in found if one["image"] in {old["image"] for old in before}] == before
    # What one process says of a picture is what another would have said.
    assert run(*command, "--out", "whole.parquet")[0] == 0
    assert rows("whole.parquet") == found


# ---------------------------------------------------------------------------------------------- embeddings


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A file of seven captions."""
    out = tmp_path / "nyu.parquet"
    journal = Journal(out, SETTINGS)
    words = ["a photo of a red chair", "the blue lamp", "", "a lamp " * 40, "a chair", "the left", "a photo"]
    journal.add([Caption(f"{i}.png", f"{i:064x}", said, "m", "sha256:0", "", None) for i, said in enumerate(words)])
    journal.finish()
    journal.close()
    return out


def test_embeddings_are_those_of_the_tower(run: Run, captions: Path, backbone: Path) -> None:
    code, out, lines = run("embed", captions, "--clip", backbone, "--out", "e.safetensors", "--batch", 3, "--json")
    assert (code, lines[-1]) == (0, "7 captions embedded; in e.safetensors")
    tower, tokenizer = read_clip(str(backbone))
    said = [one["caption"] for one in rows(captions)]
    with torch.no_grad():
        direct = tower.clip(input_ids=tokenize(tokenizer, said, 40))
    found = load_file("e.safetensors")
    assert found.keys() == {"i", "v", "d", "vd", "image_sha256"}
    expected = {
        "i": direct.last_hidden_state,
        "v": direct.pooler_output[:, None],
        "d": direct.last_hidden_state.mean(dim=0, keepdim=True),
        "vd": direct.pooler_output[:, None].mean(dim=0, keepdim=True),
    }
    for kind, values in expected.items():
        assert found[kind].shape == values.shape
        torch.testing.assert_close(found[kind], values, atol=1e-5, rtol=1e-5)
    told = json.loads(out)
    assert {key: told[key] for key in ("captions", "caption_model", "count", "tokens", "clip")} == {
        "captions": "nyu.parquet",
        "caption_model": "m",
        "count": 7,
        "tokens": 40,
        "clip": backbone.name,
    }
    with safe_open("e.safetensors", "pt") as file:
        assert file.metadata()["clip_sha256"] == told["clip_sha256"]

    embeddings = Embeddings("e.safetensors")
    assert len(embeddings) == 7
    mean, text = embeddings.of_dataset("d")
    assert torch.equal(mean, found["d"])
    assert text == Text("", "aggregate:nyu")
    third = embeddings.of_picture("i", f"{3:064x}")
    assert third is not None
    assert torch.equal(third, found["i"][3:4])
    assert embeddings.of_picture("v", "f" * 64) is None
    # What 'deixis convert --embedding' takes for a checkpoint that lacks its own.
    assert torch.equal(_read_embedding(Path("e.safetensors")), found["d"])


def test_embeddings_in_part_and_wrong_calls(run: Run, captions: Path, backbone: Path, tmp_path: Path) -> None:
    about = embed_captions(captions, str(backbone), tmp_path / "d.safetensors", kinds=("d",), tokens=12)
    assert about["tokens"] == "12"
    assert load_file(tmp_path / "d.safetensors")["d"].shape == (1, 12, 48)
    with pytest.raises(InputError, match=r"holds no 'i'; run 'deixis embed' with --kind i"):
        Embeddings(tmp_path / "d.safetensors").of_picture("i", "0" * 64)
    with pytest.raises(InputError, match="holds no embeddings of captions"):
        Embeddings(backbone / "text_encoder" / "model.safetensors")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        Embeddings(captions)
    for arguments, part in (
        ((captions, "--clip", backbone, "--tokens", 78), "tokens 78: is not between 2 and 77"),
        ((captions, "--clip", "nothing"), "'nothing': is neither a folder nor a hub id"),
        (("gone.parquet", "--clip", backbone), "gone.parquet: does not exist"),
        ((captions, "--clip", backbone, "--out", tmp_path), "is a folder"),
    ):
        code, out, lines = run("embed", *arguments)
        assert (code, out, len(lines)) == (2, "", 1)
        assert part in lines[0]
    assert not (tmp_path / "embeddings.safetensors").exists()


def test_the_worlds_captions_are_embedded_and_stand_for_it_in_training(
    run: Run, world: Path, toy: Callable[[str], Path], backbone: Path
) -> None:
    weights = toy("evp-depth")
    assert run("embed", world, "--clip", weights, "--tokens", 12, "--level", 1)[0] == 0
    model, _, tokenizer = load_folder(weights)
    network: Any = model
    assert tokenizer is not None
    frames = list(read_shards(world))
    said = [frame.captions[1][0] for frame in frames]
    expected = aggregate(said, encoder(network.text_tower, tokenizer, 12))
    mean = _mean_embedding("embeddings.safetensors", network)
    torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-5)
    for switch in ("v", "vd"):  # a text is one vector: so is the mean
        one = SimpleNamespace(text_tower=network.text_tower, config=SimpleNamespace(aggregate=switch, tokens=12))
        single = aggregate(said, encoder(network.text_tower, tokenizer, 12), pooled=True)
        torch.testing.assert_close(_mean_embedding("embeddings.safetensors", one), single, atol=1e-6, rtol=1e-5)
    embeddings = Embeddings("embeddings.safetensors")
    assert embeddings.about["caption_model"] == "world"
    digest = hashlib.sha256(frames[4].encoded).hexdigest()
    alone = embeddings.of_picture("i", digest)
    assert alone is not None
    torch.testing.assert_close(alone, encoder(network.text_tower, tokenizer, 12)([said[4]]), atol=1e-5, rtol=1e-5)

    assert run("embed", world, "--clip", weights, "--tokens", 10, "--kind", "d", "--out", "short.safetensors")[0] == 0
    with pytest.raises(UsageError, match="has 10 tokens, the model 12; run 'deixis embed' with --tokens 12"):
        _mean_embedding("short.safetensors", network)
    assert run("embed", world, "--clip", backbone, "--tokens", 12, "--kind", "d", "--out", "other.safetensors")[0] == 0
    with pytest.raises(UsageError, match="is of another text tower"):
        _mean_embedding("other.safetensors", network)


def test_text_towers_of_every_kind_of_folder(toy: Callable[[str], Path], backbone: Path) -> None:
    for source in (toy("evp-depth"), backbone, "mini-sd"):
        tower, tokenizer = read_clip(str(source))
        assert len(tokenizer) <= tower.clip.config.vocab_size
    with pytest.raises(ModelError, match="has no text tower, or no vocabulary"):
        read_clip(str(toy("evp-depth-silent")))


# ---------------------------------------------------------------------------------------------- latents


def test_latent_std_is_that_of_all_latents(run: Run, photos: Path, backbone: Path) -> None:
    (photos / "notes.txt").write_text("no picture")
    Image.new("RGB", (7, 30)).save(photos / "thin.png")
    code, out, lines = run("latent-std", photos, "--model", backbone, "--json")
    assert code == 1
    told = json.loads(out)
    assert [Path(one["input"]).name for one in told["failed"]] == ["notes.txt", "thin.png"]
    assert "is 7 x 30 pixels where one latent needs 8" in lines[1]
    encoder_ = image_encoder(str(backbone))
    latents = []
    for path in sorted(photos.rglob("[0-9].png")):
        pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            latents.append(encoder_(pixels / 127.5 - 1)[0].flatten(1).double().numpy())
    values = np.concatenate(latents, axis=1)
    assert (told["pictures"], told["values"]) == (5, values.size)
    np.testing.assert_allclose(told["std"], values.std(), rtol=1e-5)
    np.testing.assert_allclose(told["channels"], values.std(axis=1), rtol=1e-5)


def test_latent_std_of_other_folders_and_sizes(run: Run, photos: Path, toy: Callable[[str], Path]) -> None:
    printed = {}
    for height in ("32", "48"):
        code, out, lines = run("latent-std", photos, "--model", toy("vpd-depth"), "--height", height)
        assert (code, lines[-1]) == (0, "5 pictures, 0 failed")
        printed[height] = float(out)
    assert printed["32"] != printed["48"]
    code, out, lines = run("latent-std", photos, "--model", photos)
    assert (code, out, len(lines)) == (2, "", 1)
    assert "has no 'vae' folder" in lines[0]
    assert run("latent-std", "gone.png", "--model", photos)[:2] == (2, "")


def test_the_spread_of_latents_far_from_zero() -> None:
    values = 1e3 + np.random.default_rng(0).standard_normal((2, 5000))
    spread = LatentSpread()
    for part in np.split(values, 10, axis=1):
        spread.add(torch.from_numpy(part).view(1, 2, 50, 10))
    np.testing.assert_allclose(spread.std(), values.std(), rtol=1e-8)
