"""What is asked of an evaluation, and what a task measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any

from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.reports.metric_format import Metric
from fastvit.reports.page import Section


@dataclass(frozen=True)
class EvaluationRequest:
    """How to measure.

    Attributes:
        size: height and width in pixels, or of a task whose images keep their shape the shorter and longer side within
            which they are shown; None for the network's own.
        crop_pct: center crop as a share of the resized image; None for the network's own.
        real_labels: also measure against ImageNet's ReaL labels.
        skip_unreadable: leave out images that cannot be decoded, with a warning, instead of raising an error.
        batch_size: images a step, of a task that takes batches; None for 64.
        num_workers: processes that decode images; None takes one a core but one.
    """

    size: tuple[int, int] | None = None
    crop_pct: float | None = None
    real_labels: bool = False
    skip_unreadable: bool = False
    batch_size: int | None = None
    num_workers: int | None = None

    def within(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return a preprocessing that keeps the shape of images, for the size that is asked for.

        Raises:
            UserError: the size is too small, or cannot be chosen.
        """
        if self.size is None:
            return preprocessing
        if min(self.size) < 32:
            raise UserError(f"size must be at least 32 pixels a side, got {self.size[0]}x{self.size[1]}")
        if preprocessing.resize == "letterbox":
            height, width = preprocessing.size
            raise UserError(f"the network takes images of {height}x{width} pixels and no other size: leave size out")
        return replace(preprocessing, size=self.size)


@dataclass(frozen=True)
class Rate:
    """Images a second.

    Attributes:
        key: in JSON.
        label: in tables.
        value: None where too few images were measured to tell.
    """

    key: str
    label: str
    value: float | None


@dataclass(frozen=True)
class Parts:
    """Values for each class, joint or other part.

    Attributes:
        name: of one part, such as "class".
        header: of the table.
        rows: of the table, the worst first.
        values: of each part by its name, for JSON.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: dict[str, Any]

    @classmethod
    def of_metric(cls, name: str, metric: Metric, values: dict[str, float]) -> Parts:
        """Return parts with one metric each; NaN where there is nothing to measure."""
        sign = 1 if not metric.lower_is_better else -1
        order = sorted(values.items(), key=lambda row: float("-inf") if isnan(row[1]) else sign * row[1])
        rows = [(part, metric.text(value)) for part, value in order]
        return cls(name, (name, metric.label), rows, {part: known(value) for part, value in values.items()})


@dataclass(frozen=True)
class Measurement:
    """What a task measured on validation images.

    Attributes:
        images: how many were counted.
        metrics: by name, those of `TaskSpec.metrics`; NaN where there is nothing to measure.
        parts: values for each class or other part.
        rates: images a second.
        skipped: images that could not be decoded, which are in no number.
        details: more for JSON alone.
        results: files for a benchmark's server, by name.
        sections: sections of the page that the task has beside the numbers and parts; made when they are wanted.
    """

    images: int
    metrics: dict[str, float]
    parts: Parts
    rates: list[Rate]
    skipped: int = 0
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    results: dict[str, Any] = field(default_factory=dict, repr=False)
    sections: Callable[[], list[Section]] = field(default=list, repr=False)


def known(value: float) -> float | None:
    """Return a value for JSON, which has no NaN."""
    return None if isnan(value) else value


class Clock:
    """How often, and after the first time how long, a block ran."""

    def __init__(self) -> None:
        self.count, self._seconds = 0, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.count:
            self._seconds += time.perf_counter() - self._start
        self.count += 1

    def rates(self) -> list[Rate]:
        """Return images a second of a block that ran once for each, the first left out.

        Raises:
            UserError: it never ran.
        """
        if not self.count:
            raise UserError("there is no image to evaluate on")
        return [Rate("images_per_second", "images/s", (self.count - 1) / self._seconds if self.count > 1 else None)]
