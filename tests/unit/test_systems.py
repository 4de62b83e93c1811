"""EVP and VPD at toy width: every switch, any size, batches, and where gradients go."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deixis.systems.evp import EVPDepth, EVPDepthConfig, EVPRefer, EVPReferConfig
from deixis.systems.vpd import VPDDepth, VPDDepthConfig, VPDRefer, VPDReferConfig
from tests.tiny import TEXT_WIDTH, VOCABULARY, stable_diffusion

# Table 4 of EVP, row by row: imafr, bins, std, text, aggregate, clip_frozen.
TABLE_4 = {
    1: (False, False, None, "cd", "v", True),
    2: (True, False, None, "cd", "v", True),
    3: (True, True, None, "cd", "v", True),
    4: (True, True, 5.07543, "cd", "v", True),
    5: (True, True, 5.07543, "id", "v", True),
    6: (True, True, 5.07543, "id", "v", False),
    7: (True, True, 5.07543, "cd", "vd", True),
    8: (False, True, 5.07543, "id", "vd", True),
    9: (True, False, 5.07543, "id", "vd", True),
    10: (True, True, 5.07543, "id", "vd", True),
    11: (True, True, 5.07543, "id", "d", True),
    12: (True, True, 5.07543, "id", "i", True),
}
SIZES = [(33, 47), (64, 64), (100, 40), (1, 130)]


def table_4(row: int, **more: Any) -> EVPDepthConfig:
    names = ("imafr", "bins", "std", "text", "aggregate", "clip_frozen")
    small = {"width": 16, "filters": (8, 8, 8), "num_bins": 16, "bin_width": 8, "bottleneck": 16}
    return EVPDepthConfig(max_depth=10.0, **dict(zip(names, TABLE_4[row], strict=True)), **small, **more)


def build(name: str, tokens: int = 40) -> nn.Module:
    """A system in evaluation mode."""
    backbone = stable_diffusion()
    if name == "evp-depth":
        return EVPDepth(table_4(12, tokens=tokens), backbone).eval()
    if name == "evp-refer":
        return EVPRefer(EVPReferConfig(tokens=tokens), backbone).eval()
    if name == "vpd-depth":
        return VPDDepth(VPDDepthConfig(width=16, filters=(8, 8, 8)), backbone).eval()
    return VPDRefer(VPDReferConfig(tokens=tokens), backbone).eval()


shared = cache(build)  # for tests that leave it as it is


def text_for(model: nn.Module, batch: int) -> Tensor:
    tokens = 1 if isinstance(model, VPDDepth) else model.config.tokens
    if isinstance(model, EVPDepth):
        tokens = model.config.context_tokens
    return torch.randn(batch, tokens, TEXT_WIDTH)


NAMES = ["evp-depth", "evp-refer", "vpd-depth", "vpd-refer"]


@pytest.mark.parametrize("row", TABLE_4)
def test_every_row_of_table_4_runs_at_any_size(row: int) -> None:
    config = table_4(row)
    model = EVPDepth(config, stable_diffusion()).eval()
    for size in SIZES:
        with torch.inference_mode():
            depth = model(torch.rand(1, 3, *size), text_for(model, 1))
        assert depth.shape == (1, 1, *size)
        assert depth.isfinite().all()
        assert (depth > 0).all()
    assert (model.imafr is not None) == config.imafr
    assert (model.bins is not None) == config.bins
    assert model.text_tower is not None
    assert all(p.requires_grad != config.clip_frozen for p in model.text_tower.parameters())
    assert config.context_tokens == (1 if config.aggregate in ("v", "vd") else 40)
    # Attention maps are channels: one for each text vector.
    assert model.unet.channels == [16, 24 + config.context_tokens, 32 + config.context_tokens, 32]


@pytest.mark.parametrize("row", [11, 5, 1])
def test_depth_at_some_pixels_is_that_of_the_whole_map(row: int) -> None:
    model = EVPDepth(table_4(row), stable_diffusion()).eval().double()
    for height, width in SIZES:
        image, text = torch.rand(2, 3, height, width).double(), text_for(model, 2).double()
        points = torch.randint(height * width, (2, 50))
        points[:, 0], points[:, 1] = 0, height * width - 1
        with torch.inference_mode():
            whole, some = model(image, text), model(image, text, points)
        assert some.shape == (2, 1, 50)
        torch.testing.assert_close(some, whole.flatten(2).gather(2, points[:, None]), rtol=1e-6, atol=1e-9)


def test_std_divides_the_latents() -> None:
    plain = EVPDepth(table_4(3), stable_diffusion()).eval()
    divided = EVPDepth(table_4(4), stable_diffusion()).eval()
    divided.load_state_dict(plain.state_dict())
    seen: list[Tensor] = []
    for model in (plain, divided):
        model.unet.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        with torch.inference_mode():
            model(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, 48))
    torch.testing.assert_close(seen[0] / 5.07543, seen[1])


@pytest.mark.parametrize("tokens", [40, 77])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_output_has_the_size_of_the_input(name: str, size: tuple[int, int], tokens: int) -> None:
    model = shared(name, tokens)
    with torch.inference_mode():
        out = model(torch.rand(1, 3, *size), text_for(model, 1))
    assert out.shape == (1, 1 if name.endswith("depth") else 2, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_batches_equal_singles(name: str) -> None:
    model = shared(name)
    image, text = torch.rand(3, 3, 70, 90), text_for(model, 3)
    with torch.inference_mode():
        together = model(image, text)
        one_by_one = torch.cat([model(image[i : i + 1], text[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_text_matters_and_pictures_matter(name: str) -> None:
    model = shared(name)
    image, text = torch.rand(2, 3, 64, 64), text_for(model, 2)
    with torch.inference_mode():
        out = model(image[:1], text[:1])
        assert not torch.allclose(out, model(image[1:], text[:1]), rtol=0, atol=1e-7)
        assert not torch.allclose(out, model(image[:1], 5 * text[1:]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_mid_grey(name: str) -> None:
    """A picture padded by hand with 0.5 to the network's multiple gives the same values where it was."""
    model = shared(name)
    image, text = torch.rand(1, 3, 40, 50), text_for(model, 1)
    padded = torch.full((1, 3, 64, 64), 0.5)
    padded[..., :40, :50] = image
    seen: list[Tensor] = []
    hook = model.image_encoder.register_forward_hook(lambda _module, _args, out: seen.append(out))
    with torch.inference_mode():
        model(image, text)
        model(padded, text)
    hook.remove()
    torch.testing.assert_close(seen[0], seen[1])


FROZEN = {
    "evp-depth": ("text_tower.",),  # row 12 of table 4
    "evp-refer": (),
    "vpd-depth": ("text_tower.", "image_encoder."),
    "vpd-refer": ("text_tower.", "image_encoder."),
}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    model = build(name).train()
    ids = torch.randint(VOCABULARY, (2, 1 if name == "vpd-depth" else 40))
    out = model(torch.rand(2, 3, 64, 64), model.text_tower(ids))
    out.square().mean().backward()
    for key, parameter in model.named_parameters():
        frozen = key.startswith(FROZEN[name])
        assert parameter.requires_grad != frozen, key
        assert (parameter.grad is None) == frozen, key
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), key


def test_trained_clip_gets_gradients_in_row_6() -> None:
    model = EVPDepth(table_4(6), stable_diffusion())
    text = model.text_tower(torch.randint(VOCABULARY, (2, 12)), pooled=True)
    model(torch.rand(2, 3, 64, 64), text).mean().backward()
    towers = [parameter.grad for parameter in model.text_tower.parameters()]
    assert all(grad is not None for grad in towers)
    assert any(bool(grad.abs().max() > 0) for grad in towers if grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_what_perception_never_uses_is_not_kept(name: str) -> None:
    """Neither the VAE's decoder nor the denoiser's exit."""
    keys = shared(name).state_dict()
    assert not any(".decoder." in key for key in keys if key.startswith("image_encoder"))
    assert not any("conv_out" in key or "conv_norm_out" in key for key in keys if key.startswith("unet."))


def test_stored_embeddings_are_part_of_the_state() -> None:
    depth = EVPDepth(table_4(11, stored=("aggregate:nyuv2",)), stable_diffusion(text_encoder=False))
    classes = VPDDepth(
        VPDDepthConfig(width=16, filters=(8, 8, 8), stored=("class:kitchen", "class:cafe")), stable_diffusion()
    )
    assert depth.state_dict()["stored_text"].shape == (1, 40, TEXT_WIDTH)
    assert classes.state_dict()["stored_text"].shape == (2, 1, TEXT_WIDTH)
    assert depth.text_tower is None


@pytest.mark.parametrize("name", ["evp-refer", "vpd-refer"])
def test_expressions_of_one_picture_share_its_latents(name: str) -> None:
    """Two pictures with three expressions each: the same as six pictures."""
    model = build(name).eval()
    torch.manual_seed(3)
    image, text = torch.rand(2, 3, 64, 64), torch.randn(6, 40, TEXT_WIDTH)
    with torch.no_grad():
        shared = model(image, text)
        alone = model(image.repeat_interleave(3, dim=0), text)
    assert shared.shape == (6, 2, 64, 64)
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)
