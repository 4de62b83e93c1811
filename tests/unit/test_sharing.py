"""Models as whole folders, on the model hub and back: the same output to the bit, cards, and every refusal in a line.

The hub is a server on this machine that huggingface_hub talks to over HTTP (:mod:`tests.hub`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import deixis
from deixis.checkpoints.folder import MANIFEST, fingerprint, share_parts
from deixis.cli import main
from deixis.errors import CheckpointError, DeixisError, ModelError, UsageError
from deixis.predict import DepthPredictor, MaskPredictor
from deixis.relative import RelativePredictor
from deixis.sharing import metadata, with_metadata
from tests.hub import TOKEN, FakeHub, fake_hub
from tests.pipelines import write_pipeline

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SAID = "a red chair"
VAE = "vae/diffusion_pytorch_model.safetensors"

Toy = Callable[[str], Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.fixture(scope="module")
def model(toy: Toy) -> DepthPredictor:
    return DepthPredictor.from_pretrained(toy("evp-depth"), "cpu")


@pytest.fixture
def depth(toy: Toy, tmp_path: Path) -> Path:
    """A depth model in half precision whose text tower, vocabulary and autoencoder lie in ``base``, with a card."""
    folder, base = tmp_path / "depth", tmp_path / "base"
    shutil.copytree(toy("evp-depth"), folder)
    for file in folder.rglob("*.safetensors"):
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in load_file(file).items()}
        save_file(tensors, file)
    for part in ("vae", "unet", "text_encoder", "tokenizer"):
        shutil.copytree(folder / part, base / part)
    # A decoder, as backbones have one: not used, but copied.
    save_file({**load_file(base / VAE), "decoder.conv_in.bias": torch.ones(3)}, base / VAE)
    assert share_parts(folder, base) == ["vae", "unet", "text_encoder", "tokenizer"]
    (folder / "README.md").write_text("# depth\n\n![Frames](gallery.jpg)\n", "utf-8")
    (folder / "gallery.jpg").write_bytes(b"a picture")
    (folder / "notes.txt").write_text("not for sharing", "utf-8")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_saved_model_needs_no_other_folder_and_gives_the_same_to_the_bit(depth: Path, tmp_path: Path) -> None:
    model = DepthPredictor.from_pretrained(depth, "cpu")
    before = model(PICTURE, SAID).values
    model.save_pretrained(tmp_path / "whole")
    decoder = load_file(tmp_path / "whole" / VAE)["decoder.conv_in.bias"]
    assert torch.equal(decoder, torch.ones(3))
    shutil.rmtree(depth)
    shutil.rmtree(tmp_path / "base")
    again = DepthPredictor.from_pretrained(tmp_path / "whole", "cpu")
    assert again.manifest.shared == {}
    np.testing.assert_array_equal(again(PICTURE, SAID).values, before)
    written = names(tmp_path / "whole")
    assert {"README.md", "gallery.jpg", MANIFEST, "head/model.safetensors", "text_encoder/config.json"} < set(written)
    assert "notes.txt" not in written
    # In the precision it had.
    assert {value.dtype for value in load_file(tmp_path / "whole" / VAE).values()} == {torch.float16, torch.float32}


def test_what_was_changed_since_is_saved_in_a_precision_that_holds_it(depth: Path, tmp_path: Path) -> None:
    model = DepthPredictor.from_pretrained(depth, "cpu")
    with torch.no_grad():
        next(model.model.parameters()).add_(1e-7)
    changed = model(PICTURE).values
    model.save_pretrained(tmp_path / "changed")
    np.testing.assert_array_equal(DepthPredictor.from_pretrained(tmp_path / "changed", "cpu")(PICTURE).values, changed)


def test_masks_keep_their_thresholds(toy: Toy, tmp_path: Path) -> None:
    model = MaskPredictor.from_pretrained(toy("evp-refer-shy"), "cpu")
    model.manifest.mask_threshold = 0.4
    model.save_pretrained(tmp_path / "refer")
    again = MaskPredictor.from_pretrained(tmp_path / "refer", "cpu")
    assert (again.manifest.threshold, again.manifest.mask_threshold) == (1.5, 0.4)
    np.testing.assert_array_equal(again(PICTURE, SAID).probability, model(PICTURE, SAID).probability)


def test_a_folder_in_the_way_is_left_alone_and_nothing_is_half_written(model: DepthPredictor, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine", "utf-8")
    with pytest.raises(CheckpointError, match="already exists"):
        model.save_pretrained(tmp_path / "there")
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(CheckpointError, match="cannot be written"):
        model.save_pretrained(tmp_path / "file" / "deeper")
    assert names(tmp_path) == ["file", "there/mine"]


def test_pushed_loads_by_its_id_and_again_without_the_hub(
    depth: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DepthPredictor.from_pretrained(depth, "cpu")
    before = model(PICTURE, SAID).values
    assert model.push_to_hub("somebody/depth", private=True, token=TOKEN) == f"{hub.endpoint}/somebody/depth"
    assert hub.private == {"somebody/depth"}
    assert hub.commits == 1
    files = hub.repos["somebody/depth"]["main"]
    assert {name for name in files if not name.endswith((".json", ".safetensors", ".txt"))} == {
        ".gitattributes",
        "README.md",
        "gallery.jpg",
    }
    card = ModelCard(files["README.md"].decode())
    assert card.data.to_dict() == metadata("evp-depth", "none")
    assert card.text.strip().startswith("# depth")
    found = DepthPredictor.from_pretrained("somebody/depth", "cpu")
    np.testing.assert_array_equal(found(PICTURE, SAID).values, before)
    assert (found.folder / "gallery.jpg").is_file()  # so that it can be passed on with its card
    hub.status = 503
    again = deixis.load("somebody/depth", "cpu")
    assert fingerprint(again.folder or Path()) == fingerprint(found.folder)


def test_a_pipeline_is_pushed_over_another_model(model: DepthPredictor, hub: FakeHub, tmp_path: Path) -> None:
    model.push_to_hub("somebody/model", token=TOKEN)
    hub.repos["somebody/model"]["main"]["LICENSE"] = b"mine"
    pipeline = RelativePredictor.from_pretrained(write_pipeline(tmp_path / "lotus-disparity", "lotus-d"), "cpu")
    pipeline.push_to_hub("somebody/model", token=TOKEN)
    files = hub.repos["somebody/model"]["main"]
    assert MANIFEST not in files
    assert "head/model.safetensors" not in files
    assert files["LICENSE"] == b"mine"
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "unknown"
    assert "deixis depth photo.jpg --model somebody/model" in card.text
    again = RelativePredictor.from_pretrained("somebody/model", "cpu")
    assert again.kind == "disparity"
    np.testing.assert_array_equal(again(PICTURE).values, pipeline(PICTURE).values)


def test_command(toy: Toy, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[object, str, list[str]]:
        with pytest.raises(SystemExit) as caught:
            main(["push", *map(str, arguments)])
        out, err = capsys.readouterr()
        return caught.value.code, out, err.splitlines()

    folder = toy("evp-depth")
    assert run(folder, "somebody/m") == (
        2,
        "",
        ["deixis: token: is missing; run 'hf auth login', set HF_TOKEN or pass --token"],
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, lines = run(folder, "somebody/m", "--revision", "small/one")
    assert (code, out, lines) == (0, f"{hub.endpoint}/somebody/m/tree/small/one\n", [])
    assert list(hub.repos["somebody/m"]["main"]) == [".gitattributes"]
    assert MANIFEST in hub.repos["somebody/m"]["small/one"]
    code, out, lines = run(folder, "somebody/m", "--json")
    assert (code, lines) == (0, [])
    assert json.loads(out) == {"model": "somebody/m", "revision": "main", "address": f"{hub.endpoint}/somebody/m"}
    # A folder that does not load is not uploaded.
    (code, out, lines), made = run(folder / "head", "somebody/n"), "somebody/n" in hub.repos
    assert (code, out, made) == (2, "", False)
    assert "has no deixis.json" in lines[0]


@pytest.mark.parametrize(
    ("hub_id", "token", "status", "said"),
    [
        ("no-owner", TOKEN, None, "no-owner: is no hub id; give owner/name"),
        ("some--body/m", TOKEN, None, "is no hub id"),
        (
            "somebody/m",
            "hf_wrong",
            None,
            "somebody/m: is refused: the hub does not know the token; run",
        ),
        ("else/m", TOKEN, None, "else/m: is refused: the token may not write there; use one with write"),
        ("somebody/m", TOKEN, 404, "somebody/m: is not there for this token"),
        ("somebody/m", TOKEN, 500, "somebody/m: cannot be uploaded to the model hub .*500.*; connect to the internet"),
    ],
)
def test_refusals(model: DepthPredictor, hub: FakeHub, hub_id: str, token: str, status: int | None, said: str) -> None:
    hub.status = status
    with pytest.raises(DeixisError, match=said) as caught:
        model.push_to_hub(hub_id, token=token)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_without_a_network(model: DepthPredictor, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(DeixisError, match=r"somebody/m: cannot be uploaded to the model hub \(.*refused.*\)"):
        model.push_to_hub("somebody/m", token=TOKEN)


def test_what_is_no_model_on_the_hub_is_named(hub: FakeHub) -> None:
    hub.repos["somebody/else"] = {"main": {"config.json": b"{}"}}
    with pytest.raises(ModelError, match=r"somebody/else: holds neither deixis.json nor model_index.json; name"):
        deixis.load("somebody/else")
    with pytest.raises(ModelError, match="somebody/none: is not a folder here, cannot be fetched") as caught:
        deixis.load("somebody/none")
    said = "(or copy model_index.json and the folders unet, vae, text_encoder, tokenizer, scheduler of huggingface.co/"
    assert said in str(caught.value)


def test_other_kinds_are_refused_by_class(toy: Toy) -> None:
    with pytest.raises(UsageError, match="gives masks, not depth"):
        DepthPredictor.from_pretrained(toy("evp-refer"))
    with pytest.raises(UsageError, match="gives depth, not masks"):
        MaskPredictor.from_pretrained(toy("evp-depth"))
    with pytest.raises(UsageError, match="is not Marigold, Lotus or E2E-FT; load it with"):
        RelativePredictor.from_pretrained(toy("evp-depth"))


def test_the_head_of_a_card() -> None:
    head = metadata("vpd-refer", "Apache-2.0; for research use", ["refcoco"])
    assert head["license"] == "other"
    assert head["license_name"] == "apache-2.0-for-research-use"
    assert (head["library_name"], head["pipeline_tag"]) == ("deixis", "image-segmentation")
    assert (head["datasets"], head["metrics"]) == (["refcoco"], ["oiou", "miou"])
    assert metadata("marigold", "Apache-2.0")["license"] == "apache-2.0"
    # What the card says itself stays, however often it is pushed.
    once = with_metadata("---\nlicense: mit\n---\n# Mine\n", head)
    card = ModelCard(once)
    assert (card.data.license, card.data.library_name, card.text.strip()) == ("mit", "deixis", "# Mine")
    assert with_metadata(once, head) == once
    for broken in ("---\na: [\n---\n", "---\n- a\n---\n"):
        with pytest.raises(UsageError, match=r"README.md: has a head that is no"):
            with_metadata(broken, head)
