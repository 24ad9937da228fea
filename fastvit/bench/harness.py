"""Calls that are timed side by side in one run: each is made, those that can be made take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rich.progress import Progress

from fastvit.errors import UserError, first_line
from fastvit.timing import Clock, Timing, measure, wall_clock

Call = Callable[[], object]
Key = TypeVar("Key")


def refuse_none(rounds: int, batches: Sequence[int]) -> None:
    """Check what is asked for.

    Raises:
        UserError: there would be no round, or a batch without images.
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
    """Make calls and time them, taking turns.

    Args:
        makers: key -> what makes a call; it may raise whatever it likes, and gives None where there is nothing to time.
        rounds: timed calls of each, as in `fastvit.timing.measure`.
        progress: shows how far it is.
        warmup: as in `fastvit.timing.measure`.
        patience: as in `fastvit.timing.measure`.
        clock: as in `fastvit.timing.measure`.

    Returns:
        The timings of the calls that ran, and why the others could not be made or did not run, in one line.
    """
    calls: dict[Key, Call] = {}
    failures: dict[Key, str] = {}
    for key, make in progress.track(makers.items(), description="building"):
        try:
            call = make()
            if call is not None:
                call()
                calls[key] = call
        except Exception as error:  # others' networks, compilers, exporters and runtimes raise whatever they like
            failures[key] = first_line(_root(error))
    bar = progress.add_task("timing", total=rounds)
    timings = measure(calls, rounds, warmup, lambda: progress.advance(bar), patience, clock)
    return timings, failures


def _root(error: BaseException) -> BaseException:
    """What went wrong first: exporters wrap it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
