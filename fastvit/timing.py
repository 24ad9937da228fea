"""Timing calls side by side on a machine that others use too. Needs NumPy only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")
# Runs a call; returns the milliseconds that it takes.
Clock = Callable[[Callable[[], object]], float]

# Rounds are added up to so many times the first ones while the medians still move.
PATIENCE = 4
# Medians that move less than this share between two halves of the rounds have converged.
STEADY = 0.03


@dataclass(frozen=True)
class Timing:
    """Of one call, in milliseconds.

    Attributes:
        median: over the rounds.
        low: lower quartile.
        high: upper quartile.
        rounds: how many there were.
        converged: whether the medians of the first and the second half of the rounds agree, to 3%.
    """

    median: float
    low: float
    high: float
    rounds: int
    converged: bool = True


def wall_clock(call: Callable[[], object]) -> float:
    """Run a call that has finished its work when it returns (synchronize inside on a GPU); return its milliseconds."""
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
    """Time several calls, taking turns, so that a noisy neighbor disturbs all of them alike.

    Each round has an order of its own, so that no call always comes after the same other one.

    Args:
        calls: name -> a call.
        rounds: timed calls of each.
        warmup: untimed calls of each, before.
        tick: called after every round, for a progress bar.
        patience: as long as a median has not converged, time as many rounds again, up to so many times in all.
        clock: times a call.
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
    """Of milliseconds, in the order in which they were measured."""
    low, median, high = np.percentile(times, (25, 50, 75)).tolist()
    return Timing(median, low, high, len(times), _converged(times))


def _converged(times: Sequence[float]) -> bool:
    half = len(times) // 2
    if not half:
        return False
    first, second = np.median(times[:half]), np.median(times[half:])
    return bool(abs(first - second) <= STEADY * np.median(times))
