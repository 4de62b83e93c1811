"""What words do to a depth map: wording, differences, attention, and the commands."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis import refine, wording
from deixis.attention import depth_with_words, reads_words
from deixis.cli import main
from deixis.conditioning.text import words_at
from deixis.errors import UsageError
from deixis.io import read_image
from deixis.predict import DepthPredictor, load, load_depth
from deixis.relative import RelativePredictor
from tests.captioners import write_captioner
from tests.folders import write_weights
from tests.pipelines import write_pipeline

TEXT = "A bedroom with a red chair on the left, a bed and two small lamps."


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "room.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def marigold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipelines") / "marigold", "marigold-v1-1")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


class TestWording:
    def test_a_text_grows_to_itself(self) -> None:
        steps = wording.grown(TEXT)
        assert steps[0] == "A bedroom"
        assert steps[-1] == TEXT
        assert all(later.startswith(earlier) for earlier, later in pairwise(steps))

    @pytest.mark.parametrize("text", ["chair", "  a chair ", "one. two. three", "with", "a,b", ", , ,x"])
    def test_any_text_grows(self, text: str) -> None:
        steps = wording.grown(text)
        assert steps
        assert all(step.strip() for step in steps)

    def test_what_was_added(self) -> None:
        assert wording.added("A bedroom", "A bedroom with a red chair.") == ["with a red chair"]
        assert wording.added("a room with a bed", "a large room with a bed") == ["large"]
        assert wording.added("a bed", "A bed.") == []

    def test_shuffled_words_are_the_same_words(self) -> None:
        mixed = wording.shuffled(TEXT, 3)
        assert mixed != TEXT
        assert sorted(mixed.split()) == sorted(TEXT.split())
        assert mixed == wording.shuffled(TEXT, 3)
        assert wording.shuffled("chair chair", 0) == "chair chair"

    def test_contraries(self) -> None:
        assert wording.contradicted(TEXT) == (
            "A city street with a blue truck on the right, a tree and two large traffic lights."
        )
        assert wording.contradicted("an empty street behind the house") == "a crowded bedroom in front of the bed"
        with pytest.raises(UsageError, match="holds no word with a contrary"):
            wording.contradicted("something else")


class TestWordsAt:
    def test_each_word_has_its_places_and_chunks_have_ends(self, marigold: Path) -> None:
        predictor = load_depth(marigold)
        assert not isinstance(predictor, DepthPredictor)
        tokenizer = predictor.tokenizer
        whole = words_at(tokenizer, "the red chair", 100)
        assert [word for word, _ in whole] == ["the", "red", "chair"]
        assert [place for _, places in whole for place in places] == list(range(1, 1 + sum(len(p) for _, p in whole)))
        text = "the red chair " * 6
        places = [place for _, found in words_at(tokenizer, text, 5) for place in found]
        ids = tokenizer(text)["input_ids"][1:-1]
        assert len(places) == len(set(places)) == len(ids)
        assert places[-1] > len(ids)  # starts and ends of chunks lie between
        assert max(place for _, found in words_at(tokenizer, text, 5, cut=True) for place in found) <= 5


class TestRefine:
    def test_differences_add_up(self, marigold: Path, picture: Path) -> None:
        predictor = load_depth(marigold)
        found = refine.refine(predictor, read_image(picture), [TEXT], steps=1)
        assert [reading.text for reading in found.each] == ["", *wording.grown(TEXT)]
        total = sum(reading.difference.astype(np.float64) for reading in found.each)
        np.testing.assert_allclose(total, found.total, atol=1e-6)
        assert found.total.any()
        assert found.each[1].depth.text.provenance == "user"

    def test_relative_maps_are_fitted_to_the_first(self, marigold: Path, picture: Path) -> None:
        predictor = load_depth(marigold)
        found = refine.refine(predictor, read_image(picture), ["a", "a bed"], steps=1)
        reference, last = found.each[0].values.ravel(), found.each[-1].values.ravel()
        residual = last - reference
        # Of a least-squares fit the residual is orthogonal to what was fitted.
        assert abs(residual.mean()) < 1e-5
        assert abs((residual * found.each[-1].depth.values.ravel()).mean()) < 1e-5

    def test_truth_gives_errors(self, marigold: Path, picture: Path) -> None:
        truth = np.random.default_rng(1).uniform(1, 5, (64, 96)).astype(np.float32)
        found = refine.refine(load_depth(marigold), read_image(picture), ["a bed"], truth=truth, steps=1)
        assert all(reading.abs_rel is not None and reading.abs_rel > 0 for reading in found.each)

    def test_compared_texts_are_against_the_right_one(self, marigold: Path, picture: Path) -> None:
        predictor = load_depth(marigold)
        assert isinstance(predictor, RelativePredictor)
        steps: list[object] = []
        predictor.model.unet.register_forward_hook(lambda *_: steps.append(None))
        found = refine.compare_text(predictor, read_image(picture), TEXT, steps=1)
        assert len(steps) == 4  # words are looked at on the way
        assert found.words
        assert [reading.label for reading in found.each] == ["right", "empty", "shuffled", "contradicting"]
        for reading in found.each:
            apart = (reading.values - found.each[0].values) / np.ptp(found.each[0].values)
            np.testing.assert_allclose(reading.difference, apart, atol=1e-6)
            assert reading.moved == pytest.approx(np.mean(np.abs(apart) > refine.MOVED), abs=1e-3)
            assert reading.mean == pytest.approx(np.mean(np.abs(apart)), abs=1e-6)
        assert np.ptp(found.each[0].values) < 0.9  # or this would not tell shares from values
        assert found.unit == "share of the first map's range"
        np.testing.assert_array_equal(found.total, found.each[-1].difference)

    def test_a_single_word_is_not_shuffled(self, marigold: Path, picture: Path) -> None:
        found = refine.compare_text(load_depth(marigold), read_image(picture), "sofa", steps=1)
        assert [reading.label for reading in found.each] == ["right", "empty", "contradicting"]
        assert refine.sheet(found).size

    @pytest.mark.parametrize("text", ["", "  ", "something else"])
    def test_texts_that_cannot_be_compared(self, marigold: Path, picture: Path, text: str) -> None:
        with pytest.raises(UsageError, match=r"is empty|no word with a contrary"):
            refine.compare_text(load_depth(marigold), read_image(picture), text)

    def test_an_empty_description_is_no_detail(self, marigold: Path, picture: Path) -> None:
        with pytest.raises(UsageError, match="is empty"):
            refine.refine(load_depth(marigold), read_image(picture), ["a bed", " "])


class TestAttention:
    def test_shares_of_all_tokens_are_one(self, marigold: Path, picture: Path) -> None:
        predictor = load_depth(marigold)
        _, maps = depth_with_words(predictor, picture, "the red chair", steps=1)
        assert [word for word, _ in maps] == ["the", "red", "chair"]
        assert all(values.shape == (64, 96) and (values > 0).all() for _, values in maps)
        assert (sum(values for _, values in maps) < 1).all()  # start and end take the rest

    def test_looking_changes_nothing(self, marigold: Path, picture: Path) -> None:
        predictor = load_depth(marigold)
        before = predictor(picture, "a chair", steps=1).values
        seen, _ = depth_with_words(predictor, picture, "a chair", steps=1)
        np.testing.assert_array_equal(seen.values, before)
        np.testing.assert_array_equal(predictor(picture, "a chair", steps=1).values, before)

    def test_one_vector_shows_no_words(self, tmp_path: Path, picture: Path) -> None:
        predictor = load(write_weights(tmp_path / "vpd", "vpd-depth"))
        assert isinstance(predictor, DepthPredictor)
        assert not reads_words(predictor, "a chair")
        with pytest.raises(UsageError, match="one vector"):
            depth_with_words(predictor, picture, "a chair")


class TestCommands:
    def test_refine_writes_what_it_says(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            run("refine", picture, "--text", "a room", "--text", "a room with a bed", "--out", tmp_path, "--json") == 0
        )
        told = json.loads(capsys.readouterr().out)
        written = json.loads((tmp_path / "room.refine.json").read_text())
        assert told["readings"] == written["readings"]
        assert {path.name for path in tmp_path.iterdir()} == {*written["files"], "room.refine.json"}
        for number, reading in enumerate(written["readings"][1:], start=1):
            difference = np.load(tmp_path / f"room.refine.{number}.difference.npy")
            assert reading["mean_abs_difference"] == pytest.approx(float(np.abs(difference).mean()), rel=1e-5)
        assert Image.open(tmp_path / "room.refine.png").size > (600, 300)

    def test_a_frame_of_the_world_is_told_in_its_own_words(
        self, world: Path, tmp_path: Path, marigold: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = run("refine", world, "--frame", 3, "--model", marigold, "--steps", 1, "--out", tmp_path)
        assert code == 0
        for line in capsys.readouterr().err.splitlines():
            assert re.fullmatch(r"step \d+: .+: moved by 0\.\d{3} of the range on average, AbsRel \d+\.\d{3}", line)
        written = json.loads((tmp_path / "rooms-3.refine.json").read_text())
        assert {reading["provenance"] for reading in written["readings"]} == {"empty", "oracle"}
        assert all(reading["abs_rel"] > 0 for reading in written["readings"])

    def test_a_captioner_describes(self, picture: Path, tmp_path: Path, marigold: Path) -> None:
        captioner = write_captioner(tmp_path / "blip", "blip-2")
        code = run("refine", picture, "--captioner", captioner, "--model", marigold, "--steps", 1, "--out", tmp_path)
        assert code == 0
        written = json.loads((tmp_path / "room.refine.json").read_text())
        assert {reading["provenance"] for reading in written["readings"][1:]} == {f"caption:{captioner}"}

    def test_compare_text_stands_beside_the_map(self, picture: Path, tmp_path: Path, marigold: Path) -> None:
        arguments = ("--model", marigold, "--steps", 1, "--text", "a red chair", "--compare-text")
        assert run("depth", picture, *arguments, "--out", tmp_path) == 0
        compared = json.loads((tmp_path / "room.compare.json").read_text())
        assert [reading["text"] for reading in compared["readings"]][:2] == ["a red chair", ""]
        assert (tmp_path / "room.depth.npy").is_file()

    def test_a_reading_that_is_left_out_is_noted(
        self, picture: Path, tmp_path: Path, marigold: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ("--model", marigold, "--steps", 1, "--text", "sofa", "--compare-text")
        assert run("depth", picture, *arguments, "--out", tmp_path) == 0
        assert "note: the description is one word, which cannot be shuffled" in capsys.readouterr().err

    def test_what_cannot_be_contradicted_is_told_before_anything_is_done(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ("--model", "nope", "--text", "qwerty zxcv", "--compare-text")
        assert run("depth", picture, *arguments, "--out", tmp_path / "out") == 2
        assert "holds no word with a contrary" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["refine", "PICTURE"], "has no description"),
            (["refine", "PICTURE", "--text", "a", "--frame", "3"], "several sources of descriptions"),
            (["refine", "PICTURE", "--captioner", "nowhere"], "nowhere"),
            (["refine", "PICTURE", "--text", "a", "--steps", "3"], "in one pass"),
            (["refine", "PICTURE", "--frame", "3"], "is no folder"),
            (["refine", "PICTURE", "--text", ""], "is empty"),
            (["depth", "PICTURE", "--compare-text"], "say what is true"),
            (["depth", "PICTURE", "--compare-text", "--text", "a bed", "--tta", "flip"], "is not compared"),
        ],
    )
    def test_wrong_calls(
        self,
        arguments: list[str],
        problem: str,
        picture: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        filled = [str(picture) if argument == "PICTURE" else argument for argument in arguments]
        assert run(*filled, "--out", tmp_path) == 2
        assert problem in capsys.readouterr().err

    def test_a_frame_that_is_not_there(self, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("refine", world, "--frame", 99999, "--out", tmp_path) == 2
        assert "no frame of seed 99999" in capsys.readouterr().err
