"""Segmenters: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import pytest

from tests.tasks.contracts import HEADS, DenseContract, Make, images, make_segmenter, model  # noqa: F401


@pytest.fixture(scope="module", params=HEADS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Make:
    return make_segmenter


class TestSegmenter(DenseContract):
    tolerance = 1e-12
