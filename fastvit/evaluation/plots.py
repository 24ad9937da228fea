"""The pictures of a report, each a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fastvit.bench.latency import Timing

BLUE, GREEN, RED, GREY = "#2563eb", "#15803d", "#b91c1c", "#6b7280"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def training_curves(history: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Loss on the left, validation top-1 on the right, over epochs; `history` maps a name to (epoch, value) pairs."""
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for name, color in (("train/loss", BLUE), ("val/loss", GREEN)):
        if points := history.get(name):
            left.plot(*zip(*points, strict=True), color=color, marker=".", label=name)
    left.set(xlabel="epoch", ylabel="cross entropy", title="Loss")
    left.legend()
    if points := history.get("val/top1"):
        epochs, values = zip(*points, strict=True)
        right.plot(epochs, [100 * v for v in values], color=GREEN, marker=".")
        right.annotate(
            f"{100 * values[-1]:.1f}%",
            (epochs[-1], 100 * values[-1]),
            (-4, -14),
            textcoords="offset points",
            ha="right",
        )
    right.set(xlabel="epoch", ylabel="percent", title="Top-1 on the held-out images")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Rows are true classes, columns predicted ones; the shade is the share of the row."""
    figure = _figure(6.4, 5.6)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        ticks = range(len(classes))
        axes.set_xticks(ticks, classes, rotation=45, ha="right")
        axes.set_yticks(ticks, classes)
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class")
    return figure


def latency_bars(timings: Mapping[str, Timing], reference: str) -> Figure:
    """Median milliseconds of each runtime with its quartiles, and its speed against `reference`."""
    figure = _figure(9, 0.55 * len(timings) + 1.1)
    axes = figure.subplots()
    names = list(timings)[::-1]
    medians = np.array([timings[name].median for name in names])
    spread = np.abs([[timings[n].median - timings[n].low, timings[n].high - timings[n].median] for n in names]).T
    axes.barh(
        names, medians, xerr=spread, color=[GREY if n == reference else BLUE for n in names], height=0.6, capsize=3
    )
    for row in range(len(names)):
        label = f"  {medians[row]:.2f} ms, {timings[reference].median / medians[row]:.2f}x"
        axes.annotate(label, (medians[row] + spread[1, row], row), va="center")
    axes.set(xlabel="milliseconds a call, median and quartiles", xlim=(0, 1.35 * (medians + spread[1]).max()))
    return figure
