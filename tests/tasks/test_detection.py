"""Detectors: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import pytest

from tests.tasks.contracts import DETECTORS, DenseContract, Make, images, make_detector, model  # noqa: F401


@pytest.fixture(scope="module", params=DETECTORS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Make:
    return make_detector


class TestDetector(DenseContract):
    tolerance = 1e-9
