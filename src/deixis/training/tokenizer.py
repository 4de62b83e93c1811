"""Train a small CLIP-format tokenizer (``vocab.json``, ``merges.txt``) on given text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(corpus: Iterable[str], vocabulary: int, out: Path, *, length: int = 77) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's pre-tokenisation, saved to ``out`` and loaded back.

    Args:
        corpus: sentences, most useful ones repeated.
        vocabulary: number of tokens, the two special ones included.
        out: folder for ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        length: longest sequence of the text tower.
    """
    bpe = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,  # an upper bound: the bytes that end a word are counted below
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # CLIP's order: bytes, bytes that end a word, merges, special tokens.
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    merges = [tuple(pair) for pair in model["merges"]][: vocabulary - len(tokens) - 2]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [START, END]
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False), "utf-8")
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n", "utf-8")
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": START,
                "eos_token": END,
                "unk_token": END,
                "pad_token": END,
                "model_max_length": length,
                "do_lower_case": True,
            },
            indent=2,
        )
        + "\n",
        "utf-8",
    )
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(out, local_files_only=True)
    return tokenizer
