"""The plots of a report, each a Matplotlib figure with its alternative text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from fastvit.console import printable
from fastvit.reports.figures import BLUE, GRAY, GREEN, INK, ON_DARK, ON_LIGHT, RED, Plot, new_figure
from fastvit.reports.metric_format import LOSS, Metric
from fastvit.timing import Timing

History = Mapping[str, Sequence[tuple[float, float]]]
# Width of a plot in inches: its text is readable on a phone.
_WIDTH = 4.9


@dataclass(frozen=True)
class _Panel:
    """A plot over epochs: how to draw it, and what it shows."""

    draw: Callable[[Axes], None]
    alt: str


def training_curves(history: History, metrics: Mapping[str, Metric]) -> Figure:
    """Return one figure with the plots of `training_plots` side by side.

    Args:
        history: (epoch, value) pairs of "train/loss", "val/loss", "val/top1" or another metric, and "lr".
        metrics: metrics to draw, by name, all in the same unit.
    """
    panels = _training_panels(history, metrics)
    figure = new_figure(4.5 * max(len(panels), 2), 3.2)
    for axes, panel in zip(figure.subplots(1, max(len(panels), 1), squeeze=False).flat, panels, strict=False):
        panel.draw(axes)
        _over_epochs(axes)
    return figure


def training_plots(history: History, metrics: Mapping[str, Metric]) -> list[Plot]:
    """Return plots of losses, validation metrics and learning rate over epochs, those that were recorded.

    Args:
        history: history, see `training_curves`.
        metrics: metrics, see `training_curves`.
    """
    plots = []
    for panel in _training_panels(history, metrics):
        figure = new_figure(_WIDTH, 3.2)
        axes = figure.subplots()
        panel.draw(axes)
        _over_epochs(axes)
        plots.append(Plot(figure, panel.alt))
    return plots


def _training_panels(history: History, metrics: Mapping[str, Metric]) -> list[_Panel]:
    shown = {f"val/{name}": metric for name, metric in metrics.items() if history.get(f"val/{name}")}
    losses = {name: LOSS for name in ("train/loss", "val/loss") if history.get(name)}
    panels = []
    if losses:
        panels.append(_Panel(lambda axes: _draw_loss(axes, history), _over_epochs_alt("Loss", history, losses)))
    if shown:
        title = _metrics_title(shown)
        panels.append(_Panel(lambda axes: _draw_metrics(axes, history, shown), _over_epochs_alt(title, history, shown)))
    if history.get("lr"):
        panels.append(_Panel(lambda axes: _draw_lr(axes, history), _lr_alt(history["lr"])))
    return panels


def _over_epochs_alt(title: str, history: History, metrics: Mapping[str, Metric]) -> str:
    curves = []
    for name, metric in metrics.items():
        (first, start), (last, end) = history[name][0], history[name][-1]
        label = name if metric is LOSS else metric.label
        ends = dict.fromkeys([f"{metric.text(start)} at epoch {first:g}", f"{metric.text(end)} at epoch {last:g}"])
        curves.append(f"{label} {', '.join(ends)}")
    return f"{title} over epochs. {'; '.join(curves)}."


def _lr_alt(points: Sequence[tuple[float, float]]) -> str:
    rates = [rate for _, rate in points]
    if min(rates) == max(rates):
        return f"Learning rate over epochs: {rates[0]:.3g}."
    return f"Learning rate over epochs: from {rates[0]:.3g} to {rates[-1]:.3g}, {max(rates):.3g} at most."


def _draw_loss(axes: Axes, history: History) -> None:
    for name, color in (("train/loss", BLUE), ("val/loss", GREEN)):
        if points := history.get(name):
            axes.plot(*zip(*points, strict=True), color=color, marker=".", label=name)
    axes.set(ylabel="loss", title="Loss")
    axes.legend()


def _metrics_title(metrics: Mapping[str, Metric]) -> str:
    if len(metrics) > 1:
        return "Validation metrics"
    return f"Validation {next(iter(metrics.values())).label}"


def _draw_metrics(axes: Axes, history: History, metrics: Mapping[str, Metric]) -> None:
    for (name, metric), color in zip(metrics.items(), (GREEN, BLUE, RED), strict=False):
        epochs, values = zip(*history[name], strict=True)
        label = f"{metric.label}, last {metric.text(values[-1])}"
        axes.plot(epochs, [metric.factor * v for v in values], color=color, marker=".", label=label)
    first = next(iter(metrics.values()))
    axes.legend()
    axes.set(ylabel=first.unit, title=_metrics_title(metrics))


def _draw_lr(axes: Axes, history: History) -> None:
    axes.plot(*zip(*history["lr"], strict=True), color=GRAY)
    axes.set(title="Learning rate", ylim=(0, None))


def _over_epochs(axes: Axes) -> None:
    axes.set(xlabel="epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def overlaid_curves(histories: Mapping[str, History], name: str, metric: Metric) -> list[Plot]:
    """Return plots of the validation loss and of one metric of several runs over epochs, those that were recorded.

    Args:
        histories: histories by run, see `training_curves`.
        name: name of the metric.
        metric: format of the metric.
    """
    plots = []
    for key, shown in (("val/loss", LOSS), (f"val/{name}", metric)):
        recorded_by = {run: history[key] for run, history in histories.items() if history.get(key)}
        if not recorded_by:
            continue
        title = f"Validation {shown.label}"
        figure = new_figure(_WIDTH, 3.6)
        axes = figure.subplots()
        for points in recorded_by.values():
            axes.plot([e for e, _ in points], [shown.factor * v for _, v in points], marker=".")
        axes.set(ylabel=shown.unit or shown.label, title=title)
        _over_epochs(axes)
        axes.legend(axes.lines, recorded_by)  # as labels of lines, names that begin with _ would be left out
        ends = "; ".join(f"{run} {shown.text(points[-1][1])}" for run, points in recorded_by.items())
        plots.append(Plot(figure, f"{title} over epochs, at the end of each run: {ends}."))
    return plots


def tradeoff(points: Mapping[str, tuple[float, float]], cost: str, metric: Metric) -> Plot:
    """Return a plot of accuracy or error against a cost, with the Pareto front.

    Args:
        points: cost and metric by name.
        cost: label of the axis.
        metric: format of the metric.
    """
    factor = metric.factor
    figure = new_figure(_WIDTH, 3.8) if len(points) < 9 else new_figure(8.8, 5.4)
    axes = figure.subplots()
    on_front = pareto_front(points, metric.lower_is_better)
    front = sorted(points[name] for name in on_front)
    axes.plot([c for c, _ in front], [factor * a for _, a in front], color=GRAY, linestyle="--", zorder=0)
    for point in points.values():
        axes.plot(point[0], factor * point[1], "o", color=BLUE if point in front else RED)
    axes.set(xlabel=cost, ylabel=", ".join(filter(None, (metric.label, metric.unit))))
    axes.margins(0.18)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(alpha=0.3)
    _name({name: (value, factor * accuracy) for name, (value, accuracy) in points.items()}, axes)
    values = "; ".join(f"{name} {metric.text(value)} at {at:.3g}" for name, (at, value) in points.items())
    best = f" Pareto front: {', '.join(on_front)}." if len(points) > 1 else ""
    return Plot(figure, f"Scatter plot of {metric.label} against {cost}: {values}.{best}")


def _name(points: Mapping[str, tuple[float, float]], axes: Axes) -> None:
    """Write each name beside its point, on the first side that is free."""
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # now the axes have their place and limits
    left, right = axes.get_window_extent().intervalx
    places = {name: axes.transData.transform(point) for name, point in points.items()}
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places.values()]
    unit = figure.dpi / 72  # pixels a point
    for name in sorted(points, key=lambda name: places[name][0]):
        x, y = places[name]
        width, height = 0.6 * 8.5 * unit * len(name), 10 * unit
        sides = [(8, 0), (8, -11), (8, 11), (-8, 0), (-8, -11), (-8, 11), (8, -20), (-8, -20), (8, 20), (-8, 20)]
        boxes = [
            Bbox.from_bounds(x + dx * unit - width * (dx < 0), y + (dy - 4) * unit, width, height) for dx, dy in sides
        ]
        free = [
            offset
            for offset, box in zip(sides, boxes, strict=True)
            if left <= box.x0 and box.x1 <= right and not any(box.overlaps(other) for other in taken)
        ]
        dx, dy = free[0] if free else sides[0]
        taken.append(boxes[sides.index((dx, dy))])
        side = "left" if dx > 0 else "right"
        axes.annotate(name, points[name], (dx, dy), textcoords="offset points", fontsize=8.5, ha=side, va="center")


def pareto_front(points: Mapping[str, tuple[float, float]], lower_is_better: bool = False) -> list[str]:
    """Return the names of the points on the Pareto front."""
    sign = -1 if lower_is_better else 1

    def beaten(own: tuple[float, float]) -> bool:
        return any(c <= own[0] and sign * a >= sign * own[1] and (c, a) != own for c, a in points.values())

    return [name for name, point in points.items() if not beaten(point)]


def share_within(distances: Sequence[float], shares: Sequence[float]) -> Plot:
    """Return a plot of the share of joints within a distance of the ground truth.

    Args:
        distances: thresholds in millimeters.
        shares: share of the joints within each threshold, a fraction.
    """
    figure = new_figure(_WIDTH, 3.4)
    axes = figure.subplots()
    axes.plot(distances, [100 * share for share in shares], color=BLUE)
    axes.set(xlabel="distance, mm", ylabel="joints, percent", xlim=(0, None), ylim=(0, 100))
    axes.grid(alpha=0.3)
    chosen = range(len(distances) // 4, len(distances), max(len(distances) // 4, 1))
    values = ", ".join(f"{shares[index]:.1%} within {distances[index]:.0f} mm" for index in chosen)
    return Plot(figure, f"Share of the joints within a distance of the ground truth: {values}.")


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Plot:
    """Return a plot with a row for each ground truth class and a column for each predicted one.

    Args:
        counts: (classes, classes) numbers of images; the color of a cell is its share of the row.
        classes: names, drawn for at most 20 classes.
    """
    named = len(classes) <= 20
    side = max(_WIDTH, 2.2 + 0.3 * len(classes)) if named else 6.4
    figure = new_figure(side, 0.88 * side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")  # with equal sides, labels are cut off
    if named:
        ticks, names = range(len(classes)), [printable(name) for name in classes]
        axes.set_xticks(ticks, names, rotation=45, ha="right")
        axes.set_yticks(ticks, names)
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                color = ON_DARK if shares[row, column] > 0.5 else ON_LIGHT
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="prediction", ylabel="ground truth")
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the ground truth class")
    alt = (
        f"Confusion matrix of {len(classes)} classes: {np.trace(counts)} of {counts.sum()} images are on the diagonal, "
        f"predicted correctly.{_most_confused(counts, classes)}"
    )
    return Plot(figure, alt)


def _most_confused(counts: np.ndarray, classes: Sequence[str]) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    if not wrong.any():
        return ""
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    return f" The most frequent mistake: {classes[row]} predicted as {classes[column]}, {wrong[row, column]} times."


def latency_bars(timings: Mapping[str, Timing], reference: str) -> Plot:
    """Return a bar chart of the median latency of each backend with its IQR, and its speedup over `reference`.

    Args:
        timings: timings by backend.
        reference: key of the backend that the others are compared with.
    """
    figure = new_figure(_WIDTH, 0.62 * len(timings) + 0.9)
    axes = figure.subplots()
    names = list(timings)[::-1]
    medians = np.array([timings[name].median for name in names])
    spread = np.abs([[timings[n].median - timings[n].low, timings[n].high - timings[n].median] for n in names]).T
    colors = [GRAY if name == reference else BLUE for name in names]
    bars = axes.barh(names, medians, xerr=spread, color=colors, ecolor=INK, height=0.6, capsize=3)
    labels = [f"{median:.2f} ms, {timings[reference].median / median:.2f}x" for median in medians]
    axes.bar_label(bars, labels, padding=5)
    axes.set(xlabel="latency, ms (median, IQR)", xlim=(0, 1.75 * (medians + spread[1]).max()))
    values = "; ".join(f"{name} {label}" for name, label in zip(names[::-1], labels[::-1], strict=True))
    return Plot(figure, f"Bar chart of the median latency and the speedup over {reference}: {values}.")
