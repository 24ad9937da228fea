"""Plots of a classifier's evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastvit.evaluation.calibration import Bin, expected_calibration_error
from fastvit.reports.figures import BLUE, GRAY, PAPER, RED, Plot, new_figure


def reliability_diagram(bins: Sequence[Bin]) -> Plot:
    """Return a reliability diagram: accuracy and its gap to the mean probability per bin, above the images per bin."""
    figure = new_figure(4.9, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    left, width = [b.low for b in bins], [b.high - b.low for b in bins]
    accuracy, confidence = (100 * np.array([getattr(b, name) for b in bins]) for name in ("accuracy", "confidence"))
    top.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor=PAPER, label="accuracy")
    gap = {"color": RED, "alpha": 0.25, "hatch": "//", "label": "distance from the mean probability"}
    top.bar(left, confidence - accuracy, width, accuracy, align="edge", **gap)
    top.plot((0, 1), (0, 100), color=GRAY, linestyle="--", linewidth=1)
    top.set(xlim=(0, 1), ylim=(0, 100), ylabel="top-1 accuracy, percent")
    top.legend(loc="upper left")
    bottom.bar(left, [b.images for b in bins], width, align="edge", color=GRAY, edgecolor=PAPER)
    bottom.set(xlabel="probability of the predicted class", ylabel="images")
    rows = "; ".join(f"{b.low:.2f} to {b.high:.2f}: {b.accuracy:.0%} of {b.images}" for b in bins)
    alt = (
        f"Reliability diagram, expected calibration error {expected_calibration_error(bins):.2%}. "
        f"Accuracy by probability of the predicted class: {rows}."
    )
    return Plot(figure, alt)
