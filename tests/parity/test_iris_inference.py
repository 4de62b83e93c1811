"""What Marigold, Lotus and E2E-FT predict, against the recorded outputs of their original code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.iris_inference import CHECKS

FIXTURES = Path(__file__).parent / "fixtures" / "iris"


@pytest.mark.parametrize("name", CHECKS)
def test_every_recorded_number_agrees(name: str) -> None:
    rows = CHECKS[name](FIXTURES)
    assert len(rows) > 10
    assert [row for row in rows if not row.passes] == []
