"""Timing of several calls side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rich.progress import Progress

from fastvit.errors import UserError, first_line
from fastvit.timing import Clock, Timing, measure, wall_clock

Call = Callable[[], object]
Key = TypeVar("Key")


def refuse_none(rounds: int, batches: Sequence[int]) -> None:
    """Check the number of rounds and the batch sizes.

    Raises:
        UserError: one of them is below 1.
    """
    if min([rounds, *batches]) < 1:
        raise UserError(f"batch and rounds must be at least 1, got {list(batches)} and {rounds}")


def side_by_side(
    makers: Mapping[Key, Callable[[], Call | None]],
    rounds: int,
    progress: Progress,
    warmup: int = 5,
    patience: int = 1,
    clock: Clock = wall_clock,
) -> tuple[dict[Key, Timing], dict[Key, str]]:
    """Build calls and time them, taking turns.

    Args:
        makers: functions that build a call, by key; they may raise any error, and return None if there is nothing to
            time.
        rounds: number of timed calls of each key, see `fastvit.timing.measure`.
        progress: progress display.
        warmup: number of calls before timing, see `fastvit.timing.measure`.
        patience: largest multiple of `rounds`, see `fastvit.timing.measure`.
        clock: clock, see `fastvit.timing.measure`.

    Returns:
        The timings of the calls that ran, and the reasons of failures, in one line each.
    """
    calls: dict[Key, Call] = {}
    failures: dict[Key, str] = {}
    for key, make in progress.track(makers.items(), description="building"):
        try:
            call = make()
            if call is not None:
                call()
                calls[key] = call
        except Exception as error:  # networks, compilers, exporters and runtimes raise errors of any type
            failures[key] = first_line(_root(error))
    bar = progress.add_task("timing", total=rounds)
    timings = measure(calls, rounds, warmup, lambda: progress.advance(bar), patience, clock)
    return timings, failures


def _root(error: BaseException) -> BaseException:
    """Return the first cause of an error; exporters wrap it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
