"""Segmenters: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import pytest

from tests.tasks.contracts import HEADS, DenseContract, Make, make_segmenter


class TestSegmenter(DenseContract):
    tolerance = 1e-12

    @pytest.fixture(scope="class", params=HEADS)
    def kind(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(scope="class")
    def make(self) -> Make:
        return make_segmenter
