"""Affine-invariant depth from the folders of Marigold, Lotus and E2E-FT: what loads, what comes out, what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, MarigoldDepthPipeline
from diffusers.models.upsampling import Upsample2D
from torch import nn

import deixis
from deixis.backbones.latents import decode, encode
from deixis.backbones.lighten import FoldedUpsample, HeavyConv, lighten_autoencoder, lighten_unet
from deixis.checkpoints.pipelines import read_pipeline
from deixis.conditioning.describe import unread
from deixis.conditioning.text import _chunks, encode_whole, tokenize, words_at
from deixis.ensemble import ensemble_depth
from deixis.errors import KindError, ModelError, UsageError
from deixis.relative import RelativePredictor, processing_size
from deixis.types import Depth
from tests.pipelines import KINDS, write_pipeline
from tests.tiny import CONFIG

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The folder of one of ``KINDS``. Not to be changed."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).is_dir() else write_pipeline(root / kind, kind)

    return folder


def predictor(folder: Path) -> RelativePredictor:
    found = deixis.load(folder, "cpu")
    assert isinstance(found, RelativePredictor)
    return found


def depth_of(found: Depth | list[Depth]) -> Depth:
    assert isinstance(found, Depth)
    return found


def picture(height: int = 40, width: int = 56) -> Any:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


SYSTEMS = {
    "marigold-v1-0": ("marigold", "affine"),
    "marigold-v1-1": ("marigold", "affine"),
    "marigold-lcm": ("marigold", "affine"),
    "e2e-ft": ("e2e-ft", "affine"),
    "lotus-d": ("lotus-d", "affine"),
    "lotus-g": ("lotus-g", "affine"),
    "lotus-d-disparity": ("lotus-d", "disparity"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_folder_gives_its_own_kind_of_depth(pipeline: Make, kind: str) -> None:
    model = predictor(pipeline(kind))
    assert (model.system, model.kind) == SYSTEMS[kind]
    depth = depth_of(model(picture()))
    assert depth.values.shape == (40, 56)
    assert depth.values.dtype == np.float32
    assert 0 <= depth.values.min() <= depth.values.max() <= 1
    assert depth.kind == SYSTEMS[kind][1]
    assert depth.text.provenance == "empty"
    told = depth_of(model(picture(), "a small bedroom with a red chair"))
    assert told.text.provenance == "user"
    assert not np.array_equal(told.values, depth.values)
    assert np.array_equal(depth_of(model(picture())).values, depth.values)
    with pytest.raises(KindError, match="has no metres"):
        depth.metres()


@pytest.mark.parametrize("kind", ["marigold-v1-1", "lotus-g", "lotus-d", "e2e-ft"])
def test_another_seed_matters_where_noise_is_drawn(pipeline: Make, kind: str) -> None:
    model = predictor(pipeline(kind))
    one, other = (depth_of(model(picture(), seed=seed)).values for seed in (0, 1))
    assert np.array_equal(one, other) != model.draws_noise
    assert model.draws_noise == (kind in ("marigold-v1-1", "lotus-g"))


@pytest.mark.parametrize("kind", ["marigold-v1-0", "marigold-v1-1"])
@pytest.mark.parametrize("compat", [None, "official"])
def test_the_same_map_as_from_diffusers(pipeline: Make, kind: str, compat: Any) -> None:
    """Sides that divide by 8, no resizing: ours, the original and diffusers agree."""
    folder = pipeline(kind)
    theirs = MarigoldDepthPipeline.from_pretrained(str(folder), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    rgb = picture(48, 64)
    noise = torch.randn((1, 4, 6, 8), generator=torch.Generator().manual_seed(3))
    wanted = theirs(
        torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255,
        num_inference_steps=3,
        processing_resolution=0,
        latents=noise,
    ).prediction[0, :, :, 0]
    found = depth_of(predictor(folder)(rgb, steps=3, resolution=0, seed=3, compat=compat)).values
    assert np.abs(found - wanted).max() < 2e-5


@pytest.mark.parametrize(
    ("height", "width", "resolution"),
    [(16, 16, 0), (17, 90, 0), (90, 31, 16), (41, 43, 40), (8, 64, 64), (33, 47, 64), (64, 20, 16)],
)
def test_any_size(pipeline: Make, height: int, width: int, resolution: int) -> None:
    for kind in ("marigold-v1-1", "lotus-d"):
        values = depth_of(predictor(pipeline(kind))(picture(height, width), steps=1, resolution=resolution)).values
        assert values.shape == (height, width)
        assert np.isfinite(values).all()


def test_padding_hides_nothing(pipeline: Make) -> None:
    """A side of 43 is seen whole; the original sees 40 of it and stretches what comes out."""
    model = predictor(pipeline("lotus-d"))
    ours = depth_of(model(picture(43, 64), resolution=0)).values
    official = depth_of(model(picture(43, 64), resolution=0, compat="official")).values
    assert ours.shape == official.shape == (43, 64)
    assert not np.allclose(ours, official)


def test_lists_and_their_texts(pipeline: Make) -> None:
    model = predictor(pipeline("lotus-d"))
    found = model([picture(), picture(48, 48)], ["a red chair", None])
    assert isinstance(found, list)
    assert [one.text.provenance for one in found] == ["user", "empty"]
    assert np.array_equal(found[0].values, depth_of(model(picture(), "a red chair")).values)
    with pytest.raises(UsageError, match="has 1 entries for 2 pictures"):
        model([picture(), picture()], ["a"])
    with pytest.raises(UsageError, match="is a list for one picture"):
        model(picture(), ["a"])
    wrong: Any = 3
    with pytest.raises(UsageError, match="is of type int; pass one string"):
        model(picture(), wrong)
    with pytest.raises(UsageError, match="is of type int; pass one string, or one each"):
        model([picture()], wrong)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("e2e-ft", {"steps": 2}, "gives its depth in one step"),
        ("lotus-d", {"ensemble": 2}, "draws no noise"),
        ("marigold-v1-1", {"steps": 0}, "is no number of steps"),
        ("marigold-v1-1", {"steps": 1001}, "are more than .* has"),
        ("marigold-lcm", {"steps": 51}, "are more than .* has"),
        ("marigold-v1-1", {"ensemble": 0}, "is no number of maps"),
        ("marigold-v1-1", {"resolution": 4}, "is too small"),
        (
            "marigold-v1-1",
            {"compat": "Official"},
            "compat 'Official': is no such switch; choose official, or leave it out",
        ),
    ],
)
def test_settings_a_system_does_not_have(pipeline: Make, kind: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        predictor(pipeline(kind))(picture(), **given)


def test_an_ensemble_says_how_sure_it_is(pipeline: Make) -> None:
    depth = depth_of(predictor(pipeline("marigold-v1-1"))(picture(), ensemble=3, steps=1))
    assert depth.uncertainty is not None
    assert depth.uncertainty.shape == depth.values.shape
    assert (depth.uncertainty >= 0).all()
    assert depth.uncertainty.max() > 0


# ------------------------------------------------------------------------------------------------ wrong folders


def spoilt(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(source, target)
    change(target)
    return target


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def other_latents(folder: Path) -> None:
    AutoencoderKL.from_config({**CONFIG["vae"], "latent_channels": 8}).save_pretrained(folder / "vae")


def flow_matching(folder: Path) -> None:
    about = {"_class_name": "FlowMatchEulerDiscreteScheduler", "timestep_spacing": "trailing"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("lotus-d", edit("model_index.json", _class_name="LotusGPipeline"), "holds the networks of lotus-d"),
        ("e2e-ft", edit("model_index.json", _class_name="LotusDPipeline"), "holds the networks of e2e-ft"),
        ("e2e-ft", edit("model_index.json", _class_name="MarigoldNormalsPipeline"), "which gives no depth here"),
        ("e2e-ft", edit("model_index.json", prediction_type="normals"), "says that it predicts normals"),
        ("marigold-v1-1", edit("model_index.json", default_denoising_steps="four"), "says default_denoising_steps"),
        ("marigold-v1-1", edit("unet/config.json", class_embed_type="timestep"), "as no system here"),
        ("marigold-v1-1", edit("unet/config.json", cross_attention_dim=24), r"unet"),
        ("marigold-v1-1", edit("scheduler/scheduler_config.json", _class_name="PNDMScheduler"), "names the scheduler"),
        (
            "marigold-v1-1",
            edit("scheduler/scheduler_config.json", timestep_spacing="odd"),
            "describes no DDIMScheduler",
        ),
        ("marigold-v1-1", edit("scheduler/scheduler_config.json", prediction_type="odd"), "says prediction_type 'odd'"),
        ("marigold-v1-1", edit("model_index.json", default_denoising_steps=1001), "says default_denoising_steps 1001"),
        ("marigold-v1-1", lambda folder: shutil.rmtree(folder / "vae"), "has no 'vae' folder"),
        ("lotus-d", other_latents, "has latents of 8 channels and a unet that gives 4, where lotus-d has 4"),
        ("lotus-d", edit("vae/config.json", scaling_factor=None), r"vae/config\.json: says scaling_factor None"),
        ("e2e-ft", edit("vae/config.json", scaling_factor=0.0), r"vae/config\.json: says scaling_factor 0\.0"),
        ("marigold-v1-1", lambda folder: (folder / "model_index.json").write_text("{"), "is not JSON"),
        ("marigold-v1-1", lambda folder: (folder / "model_index.json").write_text("[]"), "is not a mapping"),
        ("e2e-ft", lambda folder: (folder / "model_index.json").write_text("[" * 200_000), "index.json: is not JSON"),
        ("e2e-ft", edit("model_index.json", _class_name=["MarigoldPipeline"]), "index.json: names the pipeline"),
        ("e2e-ft", edit("scheduler/scheduler_config.json", _class_name=["a"]), "config.json: names the scheduler"),
        ("e2e-ft", edit("scheduler/scheduler_config.json", _class_name="EvilScheduler"), "diffusers does not have"),
        ("lotus-d", edit("scheduler/scheduler_config.json", _class_name="os.system"), "diffusers does not have"),
        ("e2e-ft", flow_matching, "names the scheduler FlowMatchEulerDiscreteScheduler; use one of"),
        (
            "marigold-v1-1",
            lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 40),
            "unet",
        ),
    ],
)
def test_wrong_folders_are_one_line(
    pipeline: Make, tmp_path: Path, kind: str, change: Callable[[Path], Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        read_pipeline(spoilt(pipeline(kind), tmp_path / "model", change))
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_its_index_is_told_so(pipeline: Make, tmp_path: Path) -> None:
    folder = spoilt(pipeline("e2e-ft"), tmp_path / "model", lambda folder: (folder / "model_index.json").unlink())
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        deixis.load(folder)
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        deixis.load(folder)


def test_a_folder_that_states_what_it_predicts(pipeline: Make, tmp_path: Path) -> None:
    folder = spoilt(pipeline("lotus-d"), tmp_path / "plain", edit("model_index.json", prediction_type="disparity"))
    assert read_pipeline(folder).kind == "disparity"


def test_depth_folders_give_no_masks(pipeline: Make) -> None:
    from deixis.predict import load_mask, load_metric

    with pytest.raises(UsageError, match="gives depth, not masks"):
        load_mask(pipeline("lotus-d"))
    with pytest.raises(UsageError, match="gives disparity depth, which has no metres"):
        load_metric(pipeline("lotus-d-disparity"))


# --------------------------------------------------------------------------------------------------------- text


def test_the_empty_text_is_start_and_end(pipeline: Make) -> None:
    found = read_pipeline(pipeline("lotus-d"))
    assert found.model.text_tower is not None
    vectors, dropped = encode_whole(found.model.text_tower, found.tokenizer, "")
    assert vectors.shape[:2] == (1, 2)
    assert dropped is None


def test_bytes_that_are_no_utf_8_are_question_marks(pipeline: Make) -> None:
    """As Python gives them from file names and from terminals of another encoding."""
    model = predictor(pipeline("lotus-d"))
    given, read = "a red ch\udce2teau", "a red ch?teau"
    for official in (True, False):
        assert torch.equal(model._read(given, official=official)[0], model._read(read, official=official)[0])
    assert words_at(model.tokenizer, given, 75) == words_at(model.tokenizer, read, 75)
    assert torch.equal(*(tokenize(model.tokenizer, [text], 77) for text in (given, read)))
    assert unread(given, model.tokenizer, 4) == unread(read, model.tokenizer, 4) is not None


def test_long_texts_are_read_whole(pipeline: Make) -> None:
    model = predictor(pipeline("lotus-d"))
    tower = model.model.text_tower
    assert tower is not None
    long = "a red chair and a blue lamp " * 20
    whole, dropped = encode_whole(tower, model.tokenizer, long)
    cut, lost = encode_whole(tower, model.tokenizer, long, official=True)
    assert whole.shape[1] > 77 + 2
    assert cut.shape[1] == 77
    assert dropped is None
    assert lost
    assert long.strip().endswith(lost.strip())
    assert model.remark(long) is None
    assert "ignores the end" in (model.remark(long, "official") or "")
    with pytest.warns(UserWarning, match="ignores the end of a long text as its original does"):
        model(picture(), long, resolution=0, compat="official")
    # A text that fits is the same either way.
    assert torch.equal(*(encode_whole(tower, model.tokenizer, "a red chair", official=o)[0] for o in (True, False)))


@pytest.mark.parametrize("seed", range(30))
def test_chunks_hold_everything_and_cut_between_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words, limit = rng.integers(1, 10, rng.integers(0, 60)).tolist(), int(rng.integers(2, 13))
    tokens = ["x</w>" if i == n - 1 else "x" for n in words for i in range(n)]
    chunks = _chunks(list(range(len(tokens))), tokens, limit)
    assert [i for chunk in chunks for i in chunk] == list(range(len(tokens)))
    assert all(len(chunk) <= limit for chunk in chunks)
    assert len(chunks) >= 1
    if max(words, default=0) <= limit:
        assert all(tokens[chunk[-1]].endswith("</w>") for chunk in chunks if chunk)


# -------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("seed", range(50))
def test_the_longer_side_is_the_resolution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, resolution = (int(rng.integers(*limits)) for limits in ((1, 4000), (1, 4000), (16, 1024)))
    found = processing_size(height, width, resolution)
    assert max(found) == resolution
    assert min(found) >= 1
    official = processing_size(height, width, resolution, official=True)
    assert all(0 <= one - other <= 1 for one, other in zip(found, official, strict=True))
    assert processing_size(height, width, 0) == (height, width)


# ----------------------------------------------------------------------------------------------------- ensembles


def scenes(seed: int, n: int) -> torch.Tensor:
    """The same map [12, 16] ``n`` times, each with a scale and a shift of its own."""
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.random((12, 16)), axis=1)
    base = (base - base.min()) / np.ptp(base)
    maps = [base * rng.uniform(0.3, 0.9) + rng.uniform(0, 0.1) for _ in range(n)]
    return torch.from_numpy(np.stack(maps)[:, None]).float()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_scale_and_shift_do_not_count(seed: int, n: int, reduction: Any) -> None:
    maps = scenes(seed, n)
    merged, spread = ensemble_depth(maps, reduction=reduction)
    wanted = (maps[:1] - maps[:1].min()) / (maps[:1].max() - maps[:1].min())
    assert torch.allclose(merged, wanted, atol=1e-4)
    assert float(spread.max()) < 1e-4


def test_an_outlier_is_pulled_in_and_nothing_collapses() -> None:
    maps = scenes(0, 5) + 0.02 * torch.randn(5, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    ours, official = ensemble_depth(maps), ensemble_depth(maps, compat="official")
    for merged, _ in (ours, official):
        assert float(merged.min()) == 0
        assert float(merged.max()) == pytest.approx(1)
    assert float(ours[1].mean()) <= 1.05 * float(official[1].mean())


@pytest.mark.parametrize("shift_invariant", [True, False])
@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_the_official_ensemble_is_diffusers_own(shift_invariant: bool, reduction: Any) -> None:
    """To the last digits of its cost, by which its optimiser finds its way."""
    maps = scenes(1, 3) + 0.02 * torch.rand(3, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    ours = ensemble_depth(maps, shift_invariant=shift_invariant, reduction=reduction, compat="official")
    theirs = MarigoldDepthPipeline.ensemble_depth(
        maps, True, shift_invariant, output_uncertainty=True, reduction=reduction, max_iter=50, tol=1e-6
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("n", [2, 4])
def test_the_median_of_an_even_number_lies_in_the_middle(n: int) -> None:
    maps = torch.rand(n, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    merged, spread = ensemble_depth(maps, scale_invariant=False, shift_invariant=False)
    middle = torch.from_numpy(np.median(maps, axis=0, keepdims=True))
    away = torch.from_numpy(np.median((maps - middle).abs(), axis=0, keepdims=True))
    assert torch.allclose(merged, middle / middle.max())
    assert torch.allclose(spread, away / middle.max())
    if n == 2:
        assert torch.allclose(spread, (maps[:1] - maps[1:]).abs() / 2 / middle.max())
    aligned = ensemble_depth(maps)[1]
    assert float(aligned.max()) > 0.01
    official = ensemble_depth(maps, scale_invariant=False, shift_invariant=False, compat="official")[0]
    assert torch.equal(official, maps.median(dim=0, keepdim=True).values / maps.median(dim=0).values.max())


def test_what_cannot_be_merged() -> None:
    with pytest.raises(UsageError, match=r"pass \[N, 1, H, W\]"):
        ensemble_depth(torch.zeros(3, 4, 5))
    with pytest.raises(UsageError, match="align scales as well"):
        ensemble_depth(torch.zeros(2, 1, 4, 5), scale_invariant=False)
    flat, spread = ensemble_depth(torch.full((3, 1, 4, 5), 0.5))
    assert torch.isfinite(flat).all()
    assert torch.isfinite(spread).all()


# ---------------------------------------------------------------------------------------------- faster, the same


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (8, 5)])
def test_a_folded_upsampling_is_the_library_s(height: int, width: int) -> None:
    torch.manual_seed(height)
    original = Upsample2D(6, use_conv=True, out_channels=10).double()
    x = torch.randn(2, 6, height, width, dtype=torch.float64)
    folded = FoldedUpsample(original)
    assert torch.allclose(folded(x), original(x), atol=1e-12)
    assert folded.state_dict().keys() == original.state_dict().keys()
    elsewhere = folded.to("meta")(x.to("meta"))  # no CPU: enlarged, then convolved
    assert elsewhere.shape == original(x).shape


def test_a_lightened_autoencoder_is_the_same_one() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(CONFIG["vae"]).eval()
    weights = {key: value.clone() for key, value in vae.state_dict().items()}
    x = torch.rand(1, 3, 40, 24) * 2 - 1
    with torch.inference_mode():
        latents = encode(vae, x)
        whole = decode(vae, latents)
        lighten_autoencoder(vae)
        assert sum(isinstance(module, FoldedUpsample) for module in vae.modules()) == 3
        assert torch.allclose(encode(vae, x), latents, atol=1e-6)
        assert torch.allclose(decode(vae, latents), whole, atol=1e-5)
    assert vae.state_dict().keys() == weights.keys()
    assert all(value.equal(weights[key]) for key, value in vae.state_dict().items())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (8, 5)])  # the last has more cells than channels
def test_a_heavy_kernel_is_read_as_it_lies(height: int, width: int, stride: int) -> None:
    torch.manual_seed(height)
    original = nn.Conv2d(6, 12, 3, stride, padding=1).double()
    assert HeavyConv.fits(original)
    x = torch.randn(2, 6, height, width, dtype=torch.float64)
    heavy = HeavyConv(original)
    assert torch.allclose(heavy(x), original(x), atol=1e-12)
    assert heavy.state_dict().keys() == original.state_dict().keys()
    elsewhere = heavy.to("meta")(x.to("meta"))
    assert elsewhere.shape == original(x).shape


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 3, (1, 2), padding=1),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_other_convolutions_stay(other: nn.Conv2d) -> None:
    assert not HeavyConv.fits(other)


def test_a_lightened_unet_is_the_same_one(pipeline: Make) -> None:
    unet = read_pipeline(pipeline("marigold-v1-1")).model.unet
    weights = {key: value.clone() for key, value in unet.state_dict().items()}
    x, words = torch.randn(1, 8, 4, 2), torch.randn(1, 3, unet.config.cross_attention_dim)
    with torch.inference_mode():
        whole = unet(x, 5, encoder_hidden_states=words).sample
        lighten_unet(unet)
        assert any(isinstance(module, HeavyConv) for module in unet.modules())
        assert torch.allclose(unet(x, 5, encoder_hidden_states=words).sample, whole, atol=1e-5)
    assert unet.state_dict().keys() == weights.keys()
    assert all(value.equal(weights[key]) for key, value in unet.state_dict().items())


def test_a_text_is_read_once_for_many_pictures(pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = predictor(pipeline("lotus-d"))
    read = []
    tower = found.model.text_tower
    assert tower is not None
    real = tower.forward
    monkeypatch.setattr(tower, "forward", lambda ids, **how: (read.append(len(ids)), real(ids, **how))[1])
    asked = ["a chair", "a chair", "", "a chair"]
    maps = [depth_of(found(picture(), text)).values for text in asked]
    assert len(read) == 3  # the second had been read
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[3])
    assert not np.array_equal(maps[0], maps[2])
