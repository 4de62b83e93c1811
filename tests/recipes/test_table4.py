"""EVP's table 4 with two rows, at tiny width, from end to end: trained, measured, told, and not done twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deixis
from deixis.backbones.stable_diffusion import read_text_encoder
from deixis.reproduction import minis, table4
from deixis.reproduction.experiments import experiment
from deixis.reproduction.official import Given
from tests.tiny import write_folder

TINY = (
    "data.stored=[40,56]",
    "data.size=[32,48]",
    "crop=32",
    "optimisation.steps=2",
    "optimisation.warmup=1",
    "optimisation.lr=5e-3",
    "optimisation.batch_size=2",
    *(
        f"config.{one}"
        for one in ("tokens=8", "width=4", "filters=[8,8,8]", "num_bins=16", "bin_width=8", "bottleneck=8")
    ),
)


def test_two_rows(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLIP that learns from pooled captions, and the same that is frozen; neither is done again."""
    five, six = (row for row in table4.rows() if row.number in (5, 6))
    write_folder(tmp_path / "tiny-sd")
    monkeypatch.setattr(table4, "rows", lambda: [five, six])
    monkeypatch.setattr(minis, "shipped_folder", lambda: tmp_path)
    monkeypatch.setattr(minis, "BACKBONE", "tiny-sd")
    monkeypatch.setattr(minis, "cores", lambda: 1)  # the libraries are imported anew in each process
    monkeypatch.setattr(minis, "QUICK", replace(minis.QUICK, frames=2, table4=TINY))
    said: list[str] = []
    given = Given({}, {}, world, tmp_path / "out", "deixis reproduce", True, said.append, lambda error: None)

    found, missing = minis.run_mini(experiment("evp.table4"), given)
    assert [line.split(":")[0] for line in missing] == ["data nyuv2, labelled training frames"]
    assert said[-1] == "4 of 4 trained and measured: row-06-seed-1"
    assert found["data"].keys() == {"rooms"}  # roads are beyond the rows' 10 m
    rooms = found["data"]["rooms"]
    assert (rooms["frames"], rooms["seeds"]) == (1, 2)
    assert {number: row["text"] for number, row in rooms["rows"].items()} == {5: "oracle", 6: "oracle"}
    assert np.array(rooms["rows"][6]["seeds"]).shape == (2, len(table4.METRICS))
    assert [one["shows"] for one in rooms["orderings"]] == ["a CLIP that learns"] * len(table4.METRICS)
    assert any("of 1 orderings" in line for line in found["lines"])
    assert 0.5 < rooms["constant"]["metres"] < 10
    (blind,) = (line for line in found["lines"] if line.startswith("- AbsRel of the best constant"))
    assert f"{rooms['constant']['metres']:.2f} m everywhere: {rooms['constant']['AbsRel']:.3f}" in blind

    before = {
        key: value.half()
        for key, value in read_text_encoder(tmp_path / "tiny-sd" / "text_encoder").state_dict().items()
    }
    learned = {}
    for row in (five, six):
        model: Any = deixis.load(given.out / "table4-quick" / "runs" / f"row-{row.number:02d}-seed-0" / "weights").model
        assert model.config.context_tokens == 1
        after = model.text_tower.clip.state_dict()
        learned[row.number] = any(not after[key].half().equal(value) for key, value in before.items())
    assert learned == {5: False, 6: True}

    times = {path: path.stat().st_mtime_ns for path in given.out.rglob("measured.json")}
    assert len(times) == 4
    assert minis.run_mini(experiment("evp.table4"), given)[0] == found
    assert times == {path: path.stat().st_mtime_ns for path in given.out.rglob("measured.json")}
