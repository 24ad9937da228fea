"""Plots of an evaluation, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fastvit.evaluation.calibration import Bin
from fastvit.reports.figures import new_figure
from fastvit.reports.plots import BLUE, GRAY, RED


def reliability_diagram(bins: Sequence[Bin]) -> Figure:
    """Return a reliability diagram: accuracy and its gap to the mean confidence per bin, above the images per bin."""
    figure = new_figure(5.2, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    left, width = [b.low for b in bins], [b.high - b.low for b in bins]
    accuracy, confidence = (100 * np.array([getattr(b, name) for b in bins]) for name in ("accuracy", "confidence"))
    top.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", label="accuracy")
    gap = {"color": RED, "alpha": 0.25, "hatch": "//", "label": "gap to mean confidence"}
    top.bar(left, confidence - accuracy, width, accuracy, align="edge", **gap)
    top.plot((0, 1), (0, 100), color=GRAY, linestyle="--", linewidth=1)
    top.set(xlim=(0, 1), ylim=(0, 100), ylabel="accuracy, percent")
    top.legend(loc="upper left")
    bottom.bar(left, [b.images for b in bins], width, align="edge", color=GRAY, edgecolor="white")
    bottom.set(xlabel="probability of the predicted class", ylabel="images")
    return figure
