"""Stable Diffusion as a backbone: loading it strictly, and its features against diffusers' own forward pass."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deixis.backbones.features import ImageEncoder, UNetFeatures, pad_to_multiple
from deixis.backbones.stable_diffusion import SD1, StableDiffusion, architecture
from deixis.checkpoints.keys import official_key
from deixis.errors import ModelError
from tests.tiny import CONFIG, TEXT_WIDTH, stable_diffusion, write_folder

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("template") / "sd")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A diffusers folder for each test to change."""
    return Path(shutil.copytree(template, tmp_path / "sd"))


def state(parts: StableDiffusion) -> dict[str, dict[str, Tensor]]:
    assert parts.text_encoder is not None
    networks = {"vae": parts.vae, "unet": parts.unet, "text_encoder": parts.text_encoder}
    return {name: dict(network.state_dict()) for name, network in networks.items()}


def same(first: StableDiffusion, second: StableDiffusion) -> bool:
    a, b = state(first), state(second)
    return all(
        a[part].keys() == b[part].keys() and all(torch.equal(a[part][key], b[part][key]) for key in a[part])
        for part in a
    )


def edit(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, metadata={"format": "pt"})


def refusal(source: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        StableDiffusion.from_pretrained(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders


def test_folder_gives_back_what_was_saved(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    parts = StableDiffusion.from_pretrained(folder)
    assert capfd.readouterr() == ("", "")
    saved = {"vae": load_file(folder / VAE), "unet": load_file(folder / UNET)}
    for part, tensors in saved.items():
        assert all(torch.equal(tensors[key], value) for key, value in state(parts)[part].items())
    assert parts.tokenizer is not None
    assert parts.text_encoder is not None
    ids = torch.tensor([parts.tokenizer("a red chair").input_ids])
    assert parts.text_encoder(ids).last_hidden_state.isfinite().all()
    assert parts.notes == ()


def test_half_precision_folder_is_read_as_float32(folder: Path) -> None:
    full = StableDiffusion.from_pretrained(folder)
    for file in (UNET, VAE, TEXT):
        edit(folder / file, lambda t: t.update({key: value.half() for key, value in t.items()}))
    parts = StableDiffusion.from_pretrained(folder)
    assert {value.dtype for tensors in state(parts).values() for value in tensors.values()} == {torch.float32}
    torch.testing.assert_close(state(parts)["unet"], state(full)["unet"], rtol=1e-3, atol=1e-4)


def rename(change: Callable[[str], str]) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        renamed = {change(key): tensors.pop(key) for key in list(tensors)}
        tensors.update(renamed)

    return apply


def test_names_of_older_and_newer_library_versions_are_known(folder: Path) -> None:
    before = StableDiffusion.from_pretrained(folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    edit(folder / VAE, rename(lambda key: re.sub("|".join(old), lambda match: old[match[0]], key)))
    assert same(before, StableDiffusion.from_pretrained(folder))
    for prefix in ("text_model.", ""):
        edit(folder / TEXT, rename(lambda key, prefix=prefix: prefix + key.removeprefix("text_model.")))
        assert same(before, StableDiffusion.from_pretrained(folder))
    edit(folder / TEXT, lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
    assert same(before, StableDiffusion.from_pretrained(folder))


def test_whole_clip_model_gives_its_text_tower(folder: Path) -> None:
    before = StableDiffusion.from_pretrained(folder)
    config = json.loads((folder / "text_encoder/config.json").read_text())
    whole = {"model_type": "clip", "text_config": config, "vision_config": {}}
    (folder / "text_encoder/config.json").write_text(json.dumps(whole))
    edit(folder / TEXT, rename(lambda key: "text_model." + key.removeprefix("text_model.")))
    edit(folder / TEXT, lambda t: t.update({"vision_model.a": torch.ones(1), "logit_scale": torch.ones(1)}))
    assert same(before, StableDiffusion.from_pretrained(folder))


def test_sharded_weights(folder: Path) -> None:
    before = StableDiffusion.from_pretrained(folder)
    tensors = load_file(folder / UNET)
    keys = sorted(tensors)
    shards = {"unet/a.safetensors": keys[::2], "unet/b.safetensors": keys[1::2]}
    for name, own in shards.items():
        save_file({key: tensors[key] for key in own}, folder / name)
    index = {"weight_map": {key: Path(name).name for name, own in shards.items() for key in own}}
    (folder / UNET).unlink()
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    assert same(before, StableDiffusion.from_pretrained(folder))
    (folder / "unet/b.safetensors").unlink()
    assert "lacks b.safetensors, which its index names" in refusal(folder)


def test_the_half_precision_variant_where_there_is_no_other(folder: Path) -> None:
    for file in (UNET, VAE, TEXT):
        tensors = {
            key: value.half() if value.is_floating_point() else value for key, value in load_file(folder / file).items()
        }
        save_file(tensors, folder / file)
    before = StableDiffusion.from_pretrained(folder)
    for file in (UNET, VAE, TEXT):
        (folder / file).rename((folder / file).with_suffix(".fp16.safetensors"))
    assert same(before, StableDiffusion.from_pretrained(folder))
    save_file({"other": torch.ones(1)}, folder / UNET)  # comes first where there is one
    assert "lacks conv_in.weight" in refusal(folder)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer"])
def test_missing_part(folder: Path, part: str) -> None:
    (folder / part).rename(folder / f"no_{part}")
    assert f"has no '{part}' folder" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (UNET, "has no diffusion_pytorch_model.safetensors"),
        (VAE, "has no diffusion_pytorch_model.safetensors"),
        (TEXT, "has no model.safetensors"),
        ("unet/config.json", "has no readable config.json"),
        ("vae/config.json", "has no readable config.json"),
        ("text_encoder/config.json", "has no readable config.json"),
        ("tokenizer/vocab.json", "lacks vocab.json or merges.txt"),
        ("tokenizer/merges.txt", "lacks vocab.json or merges.txt"),
    ],
)
def test_missing_file(folder: Path, file: str, problem: str) -> None:
    (folder / file).unlink()
    message = refusal(folder)
    assert problem in message
    assert str((folder / file).parent) in message


def test_other_weight_formats_are_named(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin")
    assert "it has diffusion_pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop(sorted(t)[0]), "lacks"),
        (lambda t: t.update(surplus=torch.ones(1)), "unknown surplus"),
        (lambda t: t.update({sorted(t)[0]: torch.ones(3, 5)}), "wrong shapes"),
        (lambda t: t.update({sorted(t)[0]: t[sorted(t)[0]].to(torch.int8)}), "number formats"),
    ],
    ids=["missing", "unknown", "shape", "format"],
)
def test_weights_that_do_not_fit(
    folder: Path, file: str, change: Callable[[dict[str, Tensor]], Any], problem: str
) -> None:
    edit(folder / file, change)
    assert problem in refusal(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("file", [UNET, TEXT])
def test_truncated_weights(folder: Path, file: str, share: float) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(share * len(content))])
    assert "is not a whole safetensors file" in refusal(folder)


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "text_encoder/config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"_class_name": "X", "model_type": "X"}', "\xff"])
def test_damaged_configuration(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(content.encode("latin-1"))
    assert str(folder / file) in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_configuration_that_builds_nothing(folder: Path, part: str) -> None:
    config = json.loads((folder / part / "config.json").read_text())
    (folder / part / "config.json").write_text(json.dumps({**config, "block_out_channels": "wide"}))
    assert f"{part}/config.json: describes no" in refusal(folder)


def test_parts_of_another_model(folder: Path) -> None:
    (folder / "vae").rename(folder / "swap")
    (folder / "unet").rename(folder / "vae")
    (folder / "swap").rename(folder / "unet")
    assert "describes UNet2DConditionModel, not AutoencoderKL" in refusal(folder)


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_damaged_vocabulary(folder: Path, file: str) -> None:
    (folder / "tokenizer" / file).write_text("{")
    assert "is not a whole CLIP vocabulary" in refusal(folder)


# Names


def test_hub_id_offline_says_what_to_put_where(capfd: pytest.CaptureFixture[str]) -> None:
    message = refusal("nobody/no-such-model")
    assert "vae, unet, text_encoder, tokenizer" in message
    assert "huggingface.co/nobody/no-such-model" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["nothing", "./a/b", "/a/b", "a/b/c", "../x", "a b/c", "weights/sd.safetensors"])
def test_paths_that_do_not_exist_are_not_looked_up(name: str) -> None:
    assert "is not a file or folder here" in refusal(name)


# Single files


def original(parts: StableDiffusion) -> dict[str, Tensor]:
    """The parts under the keys of the original latent diffusion code: our key tables and, here, the decoder's."""
    tensors: dict[str, Tensor] = {}
    for key, value in parts.unet.state_dict().items():
        name = official_key(f"unet.unet.{key}", "vpd-refer").removeprefix("unet.unet.")
        tensors[f"model.{name}"] = value
    for key, value in parts.vae.state_dict().items():
        if key.startswith("decoder."):
            name = decoder_key(key)
        else:
            name = official_key(f"image_encoder.{key}", "vpd-refer").removeprefix("encoder_vq.")
        # There, attention is written as 1 x 1 convolutions.
        value = value[..., None, None] if ".attn_1." in name and value.dim() == 2 else value
        tensors[f"first_stage_model.{name}"] = value
    assert parts.text_encoder is not None
    for key, value in parts.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return tensors


def decoder_key(key: str) -> str:
    rules = (
        (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0", lambda m: "mid.attn_1"),
        (r"conv_norm_out", lambda m: "norm_out"),
        (r"conv_shortcut", lambda m: "nin_shortcut"),
        (r"group_norm", lambda m: "norm"),
        (r"to_out\.0", lambda m: "proj_out"),
        (r"to_([qkv])", lambda m: m[1]),
    )
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


EXTRAS = {
    **{f"model_ema.diffusion_modelx{i}": torch.zeros(1) for i in range(120)},
    "model_ema.decay": torch.zeros(()),
    "betas": torch.zeros(1000),
    "alphas_cumprod": torch.zeros(1000),
    "alphas_cumprod_prev": torch.zeros(1000),
    "sqrt_one_minus_alphas_cumprod": torch.zeros(1000),
    "posterior_mean_coef1": torch.zeros(1000),
    "log_one_minus_alphas_cumprod": torch.zeros(1000),
    "lvlb_weights": torch.zeros(1000),
    "first_stage_model.loss.logvar": torch.zeros(()),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "bare.ckpt"])
def test_single_file(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    parts = stable_diffusion()
    tensors = {key: value.clone().contiguous() for key, value in {**original(parts), **EXTRAS}.items()}
    path = tmp_path / f"sd.{suffix}"
    if suffix == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if "bare" in suffix else {"state_dict": tensors, "global_step": 470000}, path)
    loaded = StableDiffusion.from_pretrained(path, CONFIG)
    assert same(parts, loaded)
    assert loaded.tokenizer is None
    assert loaded.notes[0] == "left out: moving average of the denoiser (121 tensors)"
    assert [note.split(" (")[0] for note in loaded.notes[1:]] == [
        "left out: noise schedule",
        "left out: autoencoder's training loss",
        "left out: position ids",
    ]
    assert loaded.text_encoder is not None
    assert loaded.text_encoder(torch.arange(5)[None]).last_hidden_state.isfinite().all()
    assert capfd.readouterr() == ("", "")


def test_single_file_of_full_size() -> None:
    """Stable Diffusion 1.x itself, each tensor one number expanded to its shape."""
    config = architecture(SD1)
    with torch.device("meta"):
        shapes = original(StableDiffusion.from_config(config))
    tensors = {key: torch.full((1,), float(i)).expand(value.shape) for i, (key, value) in enumerate(shapes.items())}
    assert len(tensors) == 686 + 248 + 196
    loaded = original(StableDiffusion.from_original(tensors, config, "sd"))
    assert loaded.keys() == tensors.keys()
    for key, value in loaded.items():
        assert value.shape == tensors[key].shape, key
        assert value.flatten()[0] == tensors[key].flatten()[0], key


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop("first_stage_model.decoder.conv_in.weight"), "lacks decoder.conv_in.weight"),
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), "lacks conv_out.bias"),
        (lambda t: t.pop("model.diffusion_model.input_blocks.1.0.in_layers.0.weight"), "lacks"),
        (lambda t: t.update({"lora_up": torch.ones(1)}), "unknown lora_up"),
        (lambda t: t.update({"model.diffusion_model.label_emb.weight": torch.ones(1)}), "unknown model.diffusion"),
        (lambda t: t.update({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(16, 9, 3, 3)}), "shapes"),
        (lambda t: [t.pop(key) for key in list(t) if key.startswith("cond_stage")], "lacks"),
        (lambda t: [t.pop(key) for key in list(t) if key.startswith("model.")], "is not an original Stable"),
    ],
)
def test_single_files_that_do_not_fit(change: Callable[[dict[str, Tensor]], Any], problem: str) -> None:
    tensors = original(stable_diffusion())
    change(tensors)
    with pytest.raises(ModelError) as caught:
        StableDiffusion.from_original(tensors, CONFIG, "sd.ckpt")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_single_file_of_another_version() -> None:
    with pytest.raises(ModelError, match="text vectors of 48 channels, Stable Diffusion 1"):
        StableDiffusion.from_original(original(stable_diffusion()), architecture(SD1), "sd2.ckpt")


# Features


@pytest.mark.parametrize(
    ("sides", "padded"), [((33, 47), (64, 64)), ((64, 128), (64, 128)), ((1, 65), (64, 128)), ((0, 64), (0, 64))]
)
def test_padding(sides: tuple[int, int], padded: tuple[int, int]) -> None:
    image = torch.ones(2, 3, *sides)
    out = pad_to_multiple(image, 64)
    assert out.shape == (2, 3, *padded)
    assert out.sum() == image.sum()
    assert torch.equal(out[..., : sides[0], : sides[1]], image)


def test_image_encoder_is_the_posterior_mean() -> None:
    vae = stable_diffusion().vae.eval()
    encoder = ImageEncoder(vae).eval()
    image = torch.rand(2, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(encoder(image), vae.encode(image).latent_dist.mean)
    assert encoder.stride == 8


def features(*, attention_maps: bool = True, tokens: int = 12) -> UNetFeatures:
    return UNetFeatures(stable_diffusion().unet, attention_maps=attention_maps, tokens=tokens).eval()


@pytest.mark.parametrize("tokens", [1, 12, 77])
@pytest.mark.parametrize("sides", [(8, 8), (16, 40), (24, 8)])
def test_four_levels_finest_first(sides: tuple[int, int], tokens: int) -> None:
    unet = features(tokens=tokens)
    height, width = sides
    with torch.inference_mode():
        levels = unet(torch.randn(2, 4, height, width), torch.randn(2, tokens, TEXT_WIDTH))
    assert unet.channels == [16, 24 + tokens, 32 + tokens, 32]
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, height >> i, width >> i) for i, channels in enumerate(unet.channels)
    ]


def test_attention_maps_are_probabilities_over_tokens() -> None:
    unet = features()
    with torch.inference_mode():
        levels = unet(torch.randn(2, 4, 16, 24), torch.randn(2, 12, TEXT_WIDTH))
    for level in UNetFeatures.attention_levels:
        maps = levels[level][:, -12:]
        assert (maps >= 0).all()
        torch.testing.assert_close(maps.sum(dim=1), torch.ones_like(maps[:, 0]))
        assert maps.std() > 0


def test_batches_equal_singles() -> None:
    unet = features()
    latents, text = torch.randn(3, 4, 16, 24), torch.randn(3, 12, TEXT_WIDTH)
    with torch.inference_mode():
        together = unet(latents, text)
        for i in range(3):
            for level, alone in zip(together, unet(latents[i : i + 1], text[i : i + 1]), strict=True):
                torch.testing.assert_close(level[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def independent(unet: nn.Module, latents: Tensor, text: Tensor) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Features and mean cross-attention maps, listened to while diffusers' own forward pass runs.

    Features: what enters the last layer of each up block but the finest, whose whole output is taken; maps by
    diffusers' own ``get_attention_scores``.
    """
    heard: dict[str, Tensor] = {}
    maps: dict[int, list[Tensor]] = {1: [], 2: []}

    def hear(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            heard[name] = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)

        return hook

    def attend(level: int) -> Callable[[Attention, Any, Any], None]:
        def hook(module: Attention, args: Any, kwargs: Any) -> None:
            query = module.head_to_batch_dim(module.to_q(args[0]))
            key = module.head_to_batch_dim(module.to_k(kwargs["encoder_hidden_states"]))
            scores = module.get_attention_scores(query, key)  # [B * heads, N, T]
            maps[level].append(scores.unflatten(0, (-1, module.heads)).mean(dim=1))

        return hook

    unet.up_blocks[0].resnets[1].register_forward_hook(hear("level3"))
    unet.up_blocks[1].attentions[1].register_forward_hook(hear("level2"))
    unet.up_blocks[2].attentions[1].register_forward_hook(hear("level1"))
    unet.up_blocks[3].register_forward_hook(hear("level0"))
    for level in maps:
        for block in (unet.down_blocks[level], unet.up_blocks[3 - level]):
            for attention in block.attentions:
                attention.transformer_blocks[0].attn2.register_forward_pre_hook(attend(level), with_kwargs=True)
    unet(latents, torch.tensor(1), encoder_hidden_states=text)
    levels = [heard[f"level{i}"] for i in range(4)]
    means = {level: torch.stack(found).mean(dim=0) for level, found in maps.items()}  # [B, N, T]
    sides = {level: levels[level].shape[-2:] for level in means}
    return levels, {level: mean.transpose(1, 2).unflatten(-1, sides[level]) for level, mean in means.items()}


@pytest.mark.parametrize("attention_maps", [True, False])
def test_features_are_those_of_diffusers_own_forward_pass(attention_maps: bool) -> None:
    parts = stable_diffusion()
    untouched = copy.deepcopy(parts.unet).eval()
    unet = UNetFeatures(parts.unet, attention_maps=attention_maps, tokens=12).eval()
    latents, text = torch.randn(2, 4, 16, 24), 3 * torch.randn(2, 12, TEXT_WIDTH)
    with torch.inference_mode():
        expected, maps = independent(untouched, latents, text)
        found = unet(latents, text)
    for level in range(4):
        own = expected[level].shape[1]
        torch.testing.assert_close(found[level][:, :own], expected[level], rtol=1e-5, atol=1e-5)
        if attention_maps and level in maps:
            torch.testing.assert_close(found[level][:, own:], maps[level], rtol=1e-5, atol=1e-5)
        else:
            assert found[level].shape[1] == own


def test_probabilities_exist_only_where_they_are_used() -> None:
    unet = features()
    kinds = {
        name: isinstance(module.processor, AttnProcessor2_0)
        for name, module in unet.unet.named_modules()
        if isinstance(module, Attention)
    }
    used = re.compile(r"(down_blocks\.[12]|up_blocks\.[12])\..*\.attn2")
    assert all(fused != bool(used.match(name)) for name, fused in kinds.items())
    assert sum(not fused for fused in kinds.values()) == 2 * (2 + 3)
    with torch.inference_mode():
        unet(torch.randn(1, 4, 8, 8), torch.randn(1, 12, TEXT_WIDTH))
    assert all(probe.map is None for probes in unet._probes.values() for probe in probes)
    assert all(
        isinstance(module.processor, AttnProcessor2_0)
        for module in features(attention_maps=False).modules()
        if isinstance(module, Attention)
    )


def test_unets_of_another_build_are_refused() -> None:
    config = {**CONFIG["unet"], "block_out_channels": [16, 24, 32]}
    config["down_block_types"], config["up_block_types"] = config["down_block_types"][1:], config["up_block_types"][:3]
    three = StableDiffusion.from_config({**CONFIG, "unet": config}).unet
    with pytest.raises(ModelError, match="has 3 resolutions"):
        UNetFeatures(three, attention_maps=True, tokens=12)
    blocks = {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}
    deaf = StableDiffusion.from_config({**CONFIG, "unet": {**CONFIG["unet"], **blocks}}).unet
    with pytest.raises(ModelError, match="no cross-attention at level 1"):
        UNetFeatures(deaf, attention_maps=True, tokens=12)
