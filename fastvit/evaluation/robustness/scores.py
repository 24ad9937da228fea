"""Metrics of errors on corrupted images (Hendrycks & Dietterich, arXiv 1903.12261), as fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

Errors = Mapping[str, Sequence[float]]

# Error of AlexNet on each corruption, the mean over the five severities, from the repository of the benchmark
# (github.com/hendrycks/robustness), and on clean images: that of torchvision's weights, which the benchmark used.
ALEXNET = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)
ALEXNET_CLEAN = 0.43478


def mean_error(errors: Errors) -> float:
    """Return the mean error over all corruptions and severities."""
    return fmean(fmean(row) for row in errors.values())


def corruption_errors(errors: Errors) -> dict[str, float]:
    """Return the corruption error (CE) of each corruption: the mean error over severities divided by AlexNet's."""
    return {name: fmean(row) / ALEXNET[name] for name, row in errors.items()}


def mce(errors: Errors) -> float:
    """Return the mean corruption error (mCE); AlexNet has 1."""
    return fmean(corruption_errors(errors).values())


def relative_mce(errors: Errors, clean: float) -> float:
    """Return the relative mCE: mCE of the error minus the error on clean images; AlexNet has 1.

    Args:
        errors: errors of each corruption at the severities 1 to 5.
        clean: error on clean images.
    """
    return fmean((fmean(row) - clean) / (ALEXNET[name] - ALEXNET_CLEAN) for name, row in errors.items())
