"""Settings of an evaluation, and its measured values."""

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
    """Settings of an evaluation.

    Attributes:
        size: height and width of the images in pixels; for tasks whose images keep their aspect ratio, the largest
            lengths of the shorter and the longer side. None for that of the network.
        crop_pct: center crop as a share of the resized image; None for that of the network.
        real_labels: also compute accuracy on ImageNet's ReaL labels.
        skip_unreadable: skip unreadable (corrupt) images with a warning, instead of raising an error.
        batch_size: images per batch, for tasks that predict in batches; None for 64.
        num_workers: number of processes that decode images; None for the number of CPU cores minus one.
    """

    size: tuple[int, int] | None = None
    crop_pct: float | None = None
    real_labels: bool = False
    skip_unreadable: bool = False
    batch_size: int | None = None
    num_workers: int | None = None

    def within(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return a preprocessing with `size`, for tasks whose images keep their aspect ratio.

        Args:
            preprocessing: preprocessing of the network.

        Raises:
            UserError: the size is below 32 pixels, or the network has a fixed size.
        """
        if self.size is None:
            return preprocessing
        if min(self.size) < 32:
            raise UserError(f"size must be at least 32 pixels per side, got {self.size[0]}x{self.size[1]}")
        if preprocessing.resize == "letterbox":
            height, width = preprocessing.size
            raise UserError(f"the network has the fixed image size {height}x{width} pixels: leave size out")
        return replace(preprocessing, size=self.size)


@dataclass(frozen=True)
class Rate:
    """Images per second.

    Attributes:
        key: name in JSON.
        label: name in tables.
        value: images per second; None if there were too few images to measure it.
    """

    key: str
    label: str
    value: float | None


@dataclass(frozen=True)
class Parts:
    """Values for each class, joint or other part.

    Attributes:
        name: name of the kind of part, such as "class".
        header: header of the table.
        rows: rows of the table, the worst first.
        values: values of each part by its name, for JSON.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: dict[str, Any]

    @classmethod
    def of_metric(cls, name: str, metric: Metric, values: dict[str, float]) -> Parts:
        """Return parts with one metric.

        Args:
            name: name of the kind of part, such as "class".
            metric: metric of the values.
            values: value of each part by its name; NaN if it could not be measured.
        """
        sign = 1 if not metric.lower_is_better else -1
        order = sorted(values.items(), key=lambda row: float("-inf") if isnan(row[1]) else sign * row[1])
        rows = [(part, metric.text(value)) for part, value in order]
        return cls(name, (name, metric.label), rows, {part: known(value) for part, value in values.items()})


@dataclass(frozen=True)
class Measurement:
    """Values that a task measured on images.

    Attributes:
        images: number of evaluated images.
        metrics: metrics of `TaskSpec.metrics` by name; NaN if one could not be measured.
        parts: values for each class or other part.
        rates: images per second.
        skipped: number of unreadable images, which do not count.
        details: further values for JSON.
        results: contents of files for the evaluation server of a benchmark, by file name.
        results_format: name of the format of these files.
        sections: function that creates additional sections of the HTML page.
    """

    images: int
    metrics: dict[str, float]
    parts: Parts
    rates: list[Rate]
    skipped: int = 0
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    results: dict[str, Any] = field(default_factory=dict, repr=False)
    results_format: str = "the benchmark's submission format"
    sections: Callable[[], list[Section]] = field(default=list, repr=False)


def known(value: float) -> float | None:
    """Return a value for JSON: None instead of NaN."""
    return None if isnan(value) else value


class Clock:
    """Context manager that counts the runs of a block, and measures their time without the first one."""

    def __init__(self) -> None:
        self.count, self._seconds = 0, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.count:
            self._seconds += time.perf_counter() - self._start
        self.count += 1

    def rates(self) -> list[Rate]:
        """Return the images per second of a block that ran once per image, without the first image.

        Raises:
            UserError: the block never ran.
        """
        if not self.count:
            raise UserError("there are no images to evaluate")
        return [Rate("images_per_second", "images/s", (self.count - 1) / self._seconds if self.count > 1 else None)]
