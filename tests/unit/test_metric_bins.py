"""The metric-bins head against its formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from deixis.heads.metric_bins import LogBinomial


@pytest.mark.parametrize("bins", [2, 7, 64])
def test_probabilities_are_log_binomial(bins: int) -> None:
    """``softmax_k((log C(n, k) + k log p + (n - k) log q) / t)``, the coefficient by Stirling's formula."""
    torch.manual_seed(bins)
    head = LogBinomial(6, bins, (0.02, 50.0)).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64) * 3
    got = head(x)

    p0, p1, t0, t1 = (head.mlp(x) + 1e-4).unbind(dim=1)
    p = (p0 / (p0 + p1)).clamp(1e-4, 1)
    q = (1 - p0 / (p0 + p1)).clamp(1e-4, 1)
    temperature = (50.0 - 0.02) * t0 / (t0 + t1) + 0.02
    n = bins - 1 + 1e-7
    scores = []
    for k in range(bins):
        stirling = n * math.log(n) - (k + 1e-7) * math.log(k + 1e-7)
        stirling -= (n - k - 1e-7) * math.log(n - k)
        scores.append((stirling + k * p.log() + (bins - 1 - k) * q.log()) / temperature)
    torch.testing.assert_close(got, F.softmax(torch.stack(scores, dim=1), dim=1), rtol=1e-6, atol=1e-9)
