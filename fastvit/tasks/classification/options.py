"""What a person may choose of training a classifier. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixing:
    """Of whole batches, on the device.

    Attributes:
        mixup: alpha of mixup, 0 for none (arXiv 1710.09412).
        cutmix: alpha of CutMix, 0 for none (arXiv 1905.04899).
        switch: probability of CutMix where both are on.
        prob: share of batches that are mixed.
        smoothing: label smoothing, in [0, 1).
    """

    mixup: float = 0.2
    cutmix: float = 1.0
    switch: float = 0.5
    prob: float = 1.0
    smoothing: float = 0.1
