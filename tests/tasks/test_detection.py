"""Detectors: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import pytest

from tests.tasks.contracts import DETECTORS, DenseContract, Make, make_detector


class TestDetector(DenseContract):
    tolerance = 1e-9

    @pytest.fixture(scope="class", params=DETECTORS)
    def kind(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(scope="class")
    def make(self) -> Make:
        return make_detector
