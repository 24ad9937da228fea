"""Scores by hand."""

from __future__ import annotations

import pytest

from fastvit.evaluation.robustness.corruptions import CORRUPTIONS
from fastvit.evaluation.robustness.scores import (
    ALEXNET,
    ALEXNET_CLEAN,
    corruption_errors,
    mce,
    mean_error,
    relative_mce,
)


def test_alexnet_against_itself() -> None:
    assert tuple(ALEXNET) == tuple(CORRUPTIONS)
    errors = {name: [error] * 5 for name, error in ALEXNET.items()}
    assert mce(errors) == pytest.approx(1)
    assert relative_mce(errors, ALEXNET_CLEAN) == pytest.approx(1)


def test_by_hand() -> None:
    errors = {"fog": [0.2, 0.3, 0.4, 0.5, 0.6], "snow": [0.1] * 5}
    assert mean_error(errors) == pytest.approx((0.4 + 0.1) / 2)
    # The benchmark's definition: sums over the severities, AlexNet's sum being five times its mean.
    fog, snow = 2.0 / (5 * 0.819324), 0.5 / (5 * 0.866816)
    assert corruption_errors(errors) == pytest.approx({"fog": fog, "snow": snow})
    assert mce(errors) == pytest.approx((fog + snow) / 2)
    relative = ((0.4 - 0.05) / (0.819324 - 0.43478) + (0.1 - 0.05) / (0.866816 - 0.43478)) / 2
    assert relative_mce(errors, 0.05) == pytest.approx(relative)
