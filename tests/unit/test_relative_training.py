"""How Marigold, Lotus and E2E-FT hear a caption while they learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from deixis.backbones.stable_diffusion import StableDiffusion
from deixis.conditioning.text import Padding, TextTower
from deixis.errors import UsageError
from deixis.training import relative
from deixis.training.augment import Augmentation
from deixis.training.checks import check
from deixis.training.recipe import Data, Optimisation, Recipe
from deixis.training.store import Store
from tests.tiny import CONFIG

SIZE = (32, 48)


@pytest.mark.parametrize(("padding", "length"), [("none", None), ("max_length", 77)])
def test_what_is_heard_after_the_end_of_a_caption(
    stores: tuple[Store, Store], tokenizer: CLIPTokenizer, padding: Padding, length: int | None
) -> None:
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "vocab_size": len(tokenizer),
    }
    parts = StableDiffusion.from_config(copy.deepcopy({key: CONFIG[key] for key in ("vae", "unet")}))
    tower = TextTower(CLIPTextModel(CLIPTextConfig.from_dict({**CONFIG["text_encoder"], **special})), frozen=True)
    task = relative.RelativeTask(
        system="e2e-ft",
        train=stores[0],
        val=stores[1],
        shares=(1.0, 1.0, 1.0),
        tokenizer=tokenizer,
        size=SIZE,
        batch_size=2,
        text_rate=0.5,
        padding=padding,
        augmentation=Augmentation(),
        alphas_cumprod=DDIMScheduler(**relative.SCHEDULES["e2e-ft"]).alphas_cumprod,
    )
    model = relative.network("e2e-ft", parts.vae, parts.unet, tower, SIZE)
    heard: list[dict[str, Any]] = []
    model.unet.register_forward_pre_hook(lambda _, __, given: heard.append(given), with_kwargs=True)
    batch = task.batch(torch.Generator().manual_seed(0))
    assert torch.isfinite(task.loss(model, batch))
    (given,) = heard
    longest = int(task._lengths(batch["ids"]).max())
    assert given["encoder_hidden_states"].shape[1] == (length or longest)
    mask = given.get("encoder_attention_mask")
    assert (mask is None) == (padding == "max_length")
    if mask is not None:
        assert mask.sum(dim=1).tolist() == task._lengths(batch["ids"]).tolist()
    assert relative.index_of("e2e-ft", SIZE, padding)["_text_padding"] == padding


@pytest.mark.parametrize(
    ("system", "padding", "said"),
    [("e2e-ft", "some", "choose none or max_length"), ("evp-depth", "max_length", "pads by its own rule")],
)
def test_padding_rules_that_are_none(system: str, padding: str, said: str) -> None:
    data, schedule = Data(size=SIZE), Optimisation(steps=1, batch_size=1, lr=1e-3, warmup=0)
    with pytest.raises(UsageError, match=said):
        check(Recipe(system=system, text_padding=padding, data=data, optimisation=schedule, out="x"))
