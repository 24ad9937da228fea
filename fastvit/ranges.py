"""Ranges of options, and their check. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from fastvit.errors import UserError


@dataclass(frozen=True)
class Range:
    """Range of a number.

    Attributes:
        low: lower bound.
        high: upper bound; None for none.
        above: exclude the lower bound.
        below: exclude the upper bound.
    """

    low: float
    high: float | None = None
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < (float("inf") if self.high is None else self.high) or (value == self.high and not self.below)
        return over and under

    def __str__(self) -> str:
        if self.high is not None and not self.above and not self.below:
            return f"from {self.low:g} to {self.high:g}"
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        return low if self.high is None else f"{low} and {'below' if self.below else 'at most'} {self.high:g}"


PROBABILITY = Range(0, 1)
RATE = Range(0, 1, below=True)
SHARE = Range(0, 1, above=True)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)
# Side of an image in pixels: the total stride of the network.
SIDE = Range(32)


def check_ranges(options: Any, ranges: Mapping[str, Range], prefix: str = "") -> None:
    """Check that the values of options are in their ranges.

    Args:
        options: dataclass that has the options.
        ranges: ranges by the names of the options, such as "epochs" or "optim.lr". The range of a tuple is that of its
            elements; None is always allowed.
        prefix: prefix of the names in messages, such as "mixup.".

    Raises:
        UserError: a value is out of range.
    """
    for name, allowed in ranges.items():
        *sections, last = name.split(".")
        holder = reduce(getattr, sections, options)
        value = getattr(holder, last)
        if value is None:
            continue
        whole = isinstance(value, tuple)
        if not all(number in allowed for number in (value if whole else (value,))):
            null = " or null" if type(holder).__dataclass_fields__[last].default is None else ""
            each = "values " if whole else ""
            raise UserError(f"{prefix}{name} must be {each}{allowed}{null}, got {list(value) if whole else value}")


def check_bounds(name: str, bounds: tuple[float, float], allowed: Range) -> None:
    """Check the smallest and largest value of an option.

    Args:
        name: name of the option, for the message.
        bounds: the two values.
        allowed: range of both.

    Raises:
        UserError: a value is out of range, or the first is larger than the second.
    """
    if not all(bound in allowed for bound in bounds) or bounds[0] > bounds[1]:
        raise UserError(f"{name} must be the smallest and the largest value, each {allowed}, got {list(bounds)}")
