"""What errors on corrupted images amount to (Hendrycks & Dietterich, arXiv 1903.12261). All are fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

Errors = Mapping[str, Sequence[float]]

# AlexNet's error on each corruption, the mean of the five severities, as the benchmark's repository gives it
# (github.com/hendrycks/robustness), and on clean images: that of torchvision's weights, which it used.
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
    """Mean over corruptions of the mean over severities."""
    return fmean(fmean(row) for row in errors.values())


def corruption_errors(errors: Errors) -> dict[str, float]:
    """CE of each corruption: the error over the five severities as a share of AlexNet's."""
    return {name: fmean(row) / ALEXNET[name] for name, row in errors.items()}


def mce(errors: Errors) -> float:
    """Mean corruption error; 1 is as good as AlexNet."""
    return fmean(corruption_errors(errors).values())


def relative_mce(errors: Errors, clean: float) -> float:
    """The same of what corruption adds to the error on clean images; 1 is as robust as AlexNet."""
    return fmean((fmean(row) - clean) / (ALEXNET[name] - ALEXNET_CLEAN) for name, row in errors.items())
