"""Timing of calls side by side, on machines that other programs use too. Needs NumPy only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")
# Function that runs a call and returns its milliseconds.
Clock = Callable[[Callable[[], object]], float]

# Most times that the rounds are run until the medians have converged.
PATIENCE = 4
# A median has converged if it changes by at most this fraction between the two halves of the rounds.
STEADY = 0.03


@dataclass(frozen=True)
class Timing:
    """Measured time of a call, in milliseconds.

    Attributes:
        median: median of the rounds.
        low: lower quartile; the IQR is from `low` to `high`.
        high: upper quartile.
        rounds: number of rounds.
        converged: whether the medians of the first and the second half of the rounds differ by at most 3%.
    """

    median: float
    low: float
    high: float
    rounds: int
    converged: bool = True


def wall_clock(call: Callable[[], object]) -> float:
    """Run a call and return its time in milliseconds; on a GPU, the call must synchronize before it returns."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int = 50,
    warmup: int = 5,
    tick: Callable[[], object] = lambda: None,
    patience: int = 1,
    clock: Clock = wall_clock,
) -> dict[Key, Timing]:
    """Time several calls in turns, so that other programs on the machine disturb all of them equally.

    Each round has a random order, so that a call does not always follow the same other one.

    Args:
        calls: calls by name.
        rounds: number of timed rounds.
        warmup: untimed runs of each call before the first round.
        tick: function that is called after every round, for a progress bar.
        patience: most times that the rounds are run until all medians have converged.
        clock: function that times a call.

    Returns:
        The timing of each call, by name.
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    samples: dict[Key, list[float]] = {name: [] for name in calls}
    turns, generator = list(calls), random.Random(0)
    for _ in range(patience):
        for _ in range(rounds):
            generator.shuffle(turns)
            for name in turns:
                samples[name].append(clock(calls[name]))
            tick()
        if all(_converged(times) for times in samples.values()):
            break
    return {name: summary(times) for name, times in samples.items()}


def summary(times: Sequence[float]) -> Timing:
    """Return the timing for measured milliseconds, in the order in which they were measured."""
    low, median, high = np.percentile(times, (25, 50, 75)).tolist()
    return Timing(median, low, high, len(times), _converged(times))


def _converged(times: Sequence[float]) -> bool:
    half = len(times) // 2
    if not half:
        return False
    first, second = np.median(times[:half]), np.median(times[half:])
    return bool(abs(first - second) <= STEADY * np.median(times))
