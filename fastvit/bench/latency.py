"""Timing calls side by side on a machine that others use too. Needs NumPy only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Of one call, in milliseconds: the median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float
    rounds: int


def measure(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 50,
    warmup: int = 5,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time several calls, taking turns, so that a noisy neighbour disturbs all of them alike.

    Args:
        calls: name -> a call that has finished its work when it returns (synchronise inside on a GPU).
        rounds: timed calls of each.
        warmup: untimed calls of each, before.
        tick: called after every round, for a progress bar.
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(1e3 * (time.perf_counter() - start))
        tick()
    quartiles = {name: np.percentile(times, (25, 50, 75)).tolist() for name, times in samples.items()}
    return {name: Timing(median, low, high, rounds) for name, (low, median, high) in quartiles.items()}
