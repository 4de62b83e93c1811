"""What is measured at full size, on toy networks: every row runs, and says what it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deixis import bench
from deixis.checkpoints.pipelines import read_pipeline
from deixis.errors import DeixisError
from tests.tiny import CONFIG


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    from deixis.backbones import stable_diffusion

    # The vocabulary that is copied is that of the shipped backbone.
    sizes = {**CONFIG, "text_encoder": {**CONFIG["text_encoder"], "vocab_size": 4096}}
    monkeypatch.setattr(stable_diffusion, "architecture", lambda name: sizes)


@pytest.mark.usefixtures("small")
def test_rows_run_on_folders_that_load(tmp_path: Path) -> None:
    written = {}
    for engine, system in bench.ROWS:
        bench.write(tmp_path, system)
        assert read_pipeline(tmp_path).system == system
        found = bench.measure(tmp_path, engine, "cpu", 64, 1, 1, 1)
        assert set(found) == {"seconds", "first_seconds", "load_seconds", "peak_mb"}
        assert min(found.values()) > 0
        vae = (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
        assert written.setdefault("vae", vae) == vae  # written once


def test_full_size_is_full_size() -> None:
    from deixis.backbones.stable_diffusion import architecture

    sizes = architecture(bench.FULL)
    assert sizes["unet"]["cross_attention_dim"] == sizes["text_encoder"]["hidden_size"] == 1024


def test_a_process_that_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeixisError, match="bench measure deixis: failed") as caught:
        bench._process("measure", tmp_path, "deixis", "cpu", 64, 1, 1, 1)
    assert "\n" not in str(caught.value)


def test_rounds_go_in_turns_and_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter((3.0, 5.0, 1.0, 6.0, 2.0, 7.0))

    def process(what: str, *arguments: object) -> str:
        if what == "write":
            return ""
        seconds = next(took)
        return json.dumps(dict.fromkeys(("seconds", "first_seconds", "load_seconds"), seconds) | {"peak_mb": seconds})

    monkeypatch.setattr(bench, "_process", process)
    monkeypatch.setattr(bench, "ROWS", bench.ROWS[:2])
    rows = list(bench.bench(resolution=64, rounds=3))
    assert [row.name for row in rows] == ["diffusers marigold", "deixis marigold"] * 3
    assert bench.merged(rows) == [
        bench.Row("diffusers marigold", 1.0, 1.0, 1.0, 2.0),
        bench.Row("deixis marigold", 5.0, 5.0, 5.0, 6.0),
    ]
