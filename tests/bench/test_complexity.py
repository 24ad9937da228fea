"""Counting against the published rows."""

from __future__ import annotations

import pytest

from fastvit.bench.complexity import complexity
from fastvit.model.variants import VARIANTS


def test_against_a_row_of_the_family() -> None:
    row = VARIANTS["fastvit_t8"]
    counted = complexity(row.config, (256, 256))
    assert (counted.params, counted.params_fused) == (row.params, row.params_fused)
    assert counted.gmacs == pytest.approx(row.gmacs, abs=5e-4)
    assert complexity(row.config, (512, 256)).gmacs == pytest.approx(2 * counted.gmacs, rel=0.01)
