"""Train a small CLIP-format tokenizer (``vocab.json``, ``merges.txt``) on given text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from deixis.backbones.stable_diffusion import read_tokenizer
from deixis.io import write_json, write_text

# Bytes, and bytes that end a word, and the two special tokens: no vocabulary is smaller.
SMALLEST = 2 * 256 + 2

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(corpus: Iterable[str], vocabulary: int, out: Path, *, length: int = 77) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's pre-tokenisation, saved to ``out`` and loaded back.

    The same corpus always gives the same vocabulary. ``tokenizer_config.json`` is written last: with it the folder
    is whole.

    Args:
        corpus: sentences, most useful ones repeated.
        vocabulary: number of tokens, the two special ones included.
        out: folder for ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        length: longest sequence of the text tower.

    Raises:
        DeixisError: if a file cannot be written.
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
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # CLIP's order: bytes, bytes that end a word, merges, special tokens.
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=alphabet,
        # Equally frequent pairs are merged in the order of their numbers. Bytes that end a word are otherwise
        # numbered as they come out of a hash table, which is another order in each process.
        special_tokens=tokens,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]][: vocabulary - len(tokens) - 2]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [START, END]
    write_text(out / "vocab.json", json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    write_text(out / "merges.txt", "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": length,
        "do_lower_case": True,
    }
    write_json(out / "tokenizer_config.json", config)
    return read_tokenizer(out)
