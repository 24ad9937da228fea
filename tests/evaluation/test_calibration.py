"""Calibration error against hand computation and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from fastvit.evaluation.calibration import BINS, Bin, expected_calibration_error, reliability


def test_by_hand() -> None:
    # Bins of a fifteenth: 0.50 and 0.52 share (7/15, 8/15], 0.9 is in (13/15, 14/15], 1.0 in the last.
    probability = np.array([0.50, 0.52, 0.90, 1.0, 1.0])
    correct = np.array([True, False, True, True, False])
    bins = reliability(probability, correct)
    assert [(b.images, b.accuracy) for b in bins] == [(2, 0.5), (1, 1.0), (2, 0.5)]
    assert [b.confidence for b in bins] == pytest.approx([0.51, 0.9, 1.0])
    assert (bins[0].low, bins[-1].high) == pytest.approx((7 / 15, 1.0))
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.01 + 1 * 0.1 + 2 * 0.5) / 5)


def test_edges_belong_to_the_bin_below() -> None:
    bins = reliability(np.array([0.0, 0.5, 1.0]), np.array([True, True, True]), bins=2)
    assert bins == [Bin(0.0, 0.5, 2, 0.25, 1.0), Bin(0.5, 1.0, 1, 1.0, 1.0)]


def test_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(400, 7, generator=generator)).softmax(1)
    labels = torch.randint(0, 7, (400,), generator=generator)
    top, guess = probabilities.max(1)
    reference = MulticlassCalibrationError(7, n_bins=BINS, norm="l1")(probabilities, labels)
    own = expected_calibration_error(reliability(top.numpy(), (guess == labels).numpy()))
    assert own == pytest.approx(float(reference), abs=1e-6)
