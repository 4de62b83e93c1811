"""BLIP-2, LLaVA-1.6 and InternVL3 at toy width: real networks of transformers, saved as their authors publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

FAMILIES = ("blip-2", "llava_next", "internvl")
WORDS = ["a", "photo", "of", "the", "room", "bed", "chair", "lamp", "left", "right", "describe", "image", "sentence"]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
IMAGE = len(SPECIAL)  # id of the picture's token
SIDE, PATCH = 28, 14
SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
VISION: dict[str, Any] = {**SMALL, "image_size": SIDE, "patch_size": PATCH}
TEXT: dict[str, Any] = {**SMALL, "num_hidden_layers": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}PICTURE "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}sentence{% endif %}"
)


def write_captioner(folder: Path, family: str) -> Path:
    """Save random networks of an architecture with a vocabulary of a few words."""
    torch.manual_seed(1)
    {"blip-2": _blip_2, "llava_next": _llava_next, "internvl": _internvl}[family](folder)
    return folder


def _tokenizer(*tokens: str, **roles: str) -> PreTrainedTokenizerFast:
    """Words by white space; ``tokens`` are whole wherever they stand."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *tokens, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra: dict[str, Any] = {"extra_special_tokens": roles} if roles else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **names, **extra)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    return tokenizer


def _speaking(model: Any) -> Any:
    """Logits that depend on the picture; as they are first drawn they hardly do."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.6)
    return model


def _blip_2(folder: Path) -> None:
    tokenizer = _tokenizer("<image>")
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "ffn_dim": 16, "word_embed_proj_dim": 16}
    qformer = {**SMALL, "vocab_size": len(tokenizer), "num_hidden_layers": 2, "max_position_embeddings": 32}
    config = Blip2Config(
        vision_config={**VISION, "num_hidden_layers": 1},
        qformer_config=qformer,
        text_config={"model_type": "opt", **TEXT, **text},
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    _speaking(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    Blip2Processor(pictures, tokenizer, num_query_tokens=4).save_pretrained(folder)


def _llava_next(folder: Path) -> None:
    tokenizer = _tokenizer("<image>")
    tiles = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "num_key_value_heads": 2}
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **VISION, "num_hidden_layers": 2, "projection_dim": 16},
        text_config={"model_type": "llama", **TEXT, **text},
        image_token_index=IMAGE,
        image_grid_pinpoints=tiles,
    )
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=tiles
    )
    processor = LlavaNextProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    )
    _speaking(LlavaNextForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)


def _internvl(folder: Path) -> None:
    roles = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(*roles.values(), **roles)
    tokenizer.chat_template = TEMPLATE.replace("PICTURE", "<IMG_CONTEXT>")
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "num_key_value_heads": 2}
    config = InternVLConfig(
        vision_config={**VISION, "image_size": [SIDE] * 2, "patch_size": [PATCH] * 2, "num_hidden_layers": 1},
        text_config={"model_type": "qwen2", **TEXT, **text},
        image_token_id=IMAGE,
        image_seq_length=1,
    )
    _speaking(InternVLForConditionalGeneration(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=4).save_pretrained(folder)
