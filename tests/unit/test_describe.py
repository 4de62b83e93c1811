"""From words, or none, to the vectors a depth model attends to, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deixis.conditioning.describe import (
    NYU_SCENES,
    TEMPLATES,
    Describer,
    aggregate,
    class_description,
    class_words,
    unread,
)
from deixis.errors import UsageError
from deixis.predict import load
from deixis.types import Text

Toy = Callable[[str], Path]


class Lengths:
    """An encoder whose vectors are the lengths of the words, and which remembers what it read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, texts: Sequence[str], *, pooled: bool = False) -> Tensor:
        self.read += texts
        tokens = 1 if pooled else 3
        return torch.tensor([[[float(len(text))] * 2] * tokens for text in texts])


def describer(encode: Any = None, **more: Any) -> Describer:
    settings: dict[str, Any] = {"stored": (), "vectors": None, "aggregate": "i", "text": "id"}
    settings.update(more)
    return Describer("m", encode=encode, why_no_encode=("has no text tower", "leave the text out"), **settings)


CLASSES = {
    "stored": ("class:living_room", "class:kitchen"),
    "vectors": torch.tensor([[[1.0, 1.0]], [[3.0, 5.0]]]),
}


def test_templates_and_scenes_are_those_of_the_paper() -> None:
    assert len(TEMPLATES) == 80
    assert len(set(TEMPLATES)) == 80
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert len(NYU_SCENES) == 27
    assert "living_room" in NYU_SCENES


def test_class_words() -> None:
    assert [class_words(name) for name in ("living_room", " Kitchen ", "home office")] == [
        "living room",
        "kitchen",
        "home office",
    ]


def test_a_user_text_is_encoded_as_it_is() -> None:
    encode = Lengths()
    vectors, text = describer(encode)(" A red chair ")
    assert encode.read == [" A red chair "]
    assert vectors.shape == (1, 3, 2)
    assert text == Text(" A red chair ", "user")


@pytest.mark.parametrize("words", [None, "", "  \n"])
def test_no_text_is_the_empty_prompt(words: str | None) -> None:
    encode = Lengths()
    vectors, text = describer(encode)(words)
    assert encode.read == [""]
    assert vectors.shape == (1, 3, 2)
    assert text == Text("", "empty")


@pytest.mark.parametrize(("rule", "tokens"), [("v", 1), ("vd", 1), ("d", 3), ("i", 3)])
def test_aggregation_says_how_many_vectors(rule: str, tokens: int) -> None:
    assert describer(Lengths(), aggregate=rule)("a hall")[0].shape == (1, tokens, 2)


def test_stored_classes_by_their_words() -> None:
    describe = describer(**CLASSES)
    for words in ("living room", "Living_Room", " LIVING ROOM ", "class:living_room"):
        vectors, text = describe(words)
        assert vectors.tolist() == [[[1.0, 1.0]]]
        assert text == Text(words, "class:living_room")


def test_without_a_text_the_mean_of_the_classes() -> None:
    vectors, text = describer(**CLASSES)(None)
    assert vectors.tolist() == [[[2.0, 3.0]]]
    assert text == Text("", "aggregate:classes")


def test_an_unknown_class_is_answered_with_all_of_them() -> None:
    with pytest.raises(UsageError) as caught:
        describer(**CLASSES)("a bathroom")
    assert str(caught.value) == "text 'a bathroom': m knows only its classes; use one of: living room, kitchen"


def test_stored_classes_and_a_text_tower() -> None:
    encode = Lengths()
    describe = describer(encode, **CLASSES, text="cd", aggregate="v")
    assert describe("kitchen")[1] == Text("kitchen", "class:kitchen")
    assert encode.read == []
    vectors, text = describe("home_office")
    assert encode.read == [template.format("home office") for template in TEMPLATES]
    assert text == Text("home_office", "class:home_office")
    assert vectors.shape == (1, 1, 2)


def test_an_aggregate_is_the_default_of_its_model() -> None:
    describe = describer(stored=("aggregate:nyuv2",), vectors=torch.ones(1, 3, 2))
    vectors, text = describe(None)
    assert vectors.tolist() == torch.ones(1, 3, 2).tolist()
    assert text == Text("", "aggregate:nyuv2")
    with pytest.raises(UsageError, match="text 'a hall': m has no text tower; leave the text out"):
        describe("a hall")
    with pytest.raises(UsageError, match="text '': m has no text tower"):
        describe("")


def test_mean_over_a_dataset() -> None:
    sentences = ["a", "bbb", "ccccc"]
    for batch in (1, 2, 64):
        assert aggregate(sentences, Lengths(), batch=batch).tolist() == [[[3.0, 3.0]] * 3]
    assert aggregate(sentences, Lengths(), pooled=True).shape == (1, 1, 2)
    with pytest.raises(UsageError, match="sentences: is empty"):
        aggregate([], Lengths())


def test_class_description_is_the_mean_over_templates() -> None:
    lengths = [len(template.format("kitchen")) for template in TEMPLATES]
    got = class_description("kitchen", Lengths())
    assert got.shape == (1, 1, 2)
    assert got[0, 0, 0].item() == pytest.approx(sum(lengths) / 80)


def test_what_is_not_read(toy: Toy) -> None:
    tokenizer = load(toy("evp-depth")).tokenizer
    assert tokenizer is not None
    words = "a red chair a blue lamp"
    assert unread(words, tokenizer, 77) is None
    assert unread("", tokenizer, 2) is None
    assert unread(words, tokenizer, 8) is None  # six words, start and end
    assert unread(words, tokenizer, 7) == "lamp"
    assert unread("word " * 5000, tokenizer, 77) is not None


def test_what_is_not_read_has_no_influence(toy: Toy) -> None:
    predictor = load(toy("evp-depth"))
    encode, tokens = predictor.encode, predictor.tokens
    assert encode is not None
    assert predictor.tokenizer is not None
    words = "a red chair a blue lamp on the left of a window"
    rest = unread(words, predictor.tokenizer, tokens)
    assert rest
    assert torch.equal(encode([words]), encode([words.removesuffix(rest)]))
    assert not torch.equal(encode([words]), encode(["a blue chair"]))
