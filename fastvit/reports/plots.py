"""The pictures of a report, each a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from fastvit.console import printable
from fastvit.reports.figures import new_figure
from fastvit.reports.metric_format import Metric
from fastvit.timing import Timing

BLUE, GREEN, RED, GRAY = "#2563eb", "#15803d", "#b91c1c", "#6b7280"


History = Mapping[str, Sequence[tuple[float, float]]]


def training_curves(history: History, metrics: Mapping[str, Metric]) -> Figure:
    """Loss, validation metrics and learning rate over epochs, each where it was recorded.

    Args:
        history: (epoch, value) pairs of "train/loss", "val/loss", "val/top1" or another metric, and "lr".
        metrics: those to draw, by name, all of one unit.
    """
    shown = {f"val/{name}": metric for name, metric in metrics.items() if history.get(f"val/{name}")}
    panels: list[Callable[[Axes], None]] = []
    if history.get("train/loss") or history.get("val/loss"):
        panels.append(lambda axes: _draw_loss(axes, history))
    if shown:
        panels.append(lambda axes: _draw_metrics(axes, history, shown))
    if history.get("lr"):
        panels.append(lambda axes: _draw_lr(axes, history))
    figure = new_figure(4.5 * max(len(panels), 2), 3.2)
    for axes, draw in zip(figure.subplots(1, max(len(panels), 1), squeeze=False).flat, panels, strict=False):
        draw(axes)
        _over_epochs(axes)
    return figure


def _draw_loss(axes: Axes, history: History) -> None:
    for name, color in (("train/loss", BLUE), ("val/loss", GREEN)):
        if points := history.get(name):
            axes.plot(*zip(*points, strict=True), color=color, marker=".", label=name)
    axes.set(ylabel="loss", title="Loss")
    axes.legend()


def _draw_metrics(axes: Axes, history: History, metrics: Mapping[str, Metric]) -> None:
    for (name, metric), color in zip(metrics.items(), (GREEN, BLUE, RED), strict=False):
        epochs, values = zip(*history[name], strict=True)
        axes.plot(epochs, [metric.factor * v for v in values], color=color, marker=".", label=metric.label)
        last = epochs[-1], metric.factor * values[-1]
        axes.annotate(
            f"{last[1]:.1f}{'%' if metric.unit == 'percent' else ' ' + metric.unit}",
            last,
            (-4, -14),
            textcoords="offset points",
            ha="right",
        )
    first = next(iter(metrics.values()))
    if len(metrics) > 1:
        axes.legend()
        axes.set(ylabel=first.unit, title="On the validation images")
        return
    axes.set(ylabel=first.unit, title=f"{_title(first.label)} on the validation images")


def _draw_lr(axes: Axes, history: History) -> None:
    axes.plot(*zip(*history["lr"], strict=True), color=GRAY)
    axes.set(title="Learning rate", ylim=(0, None))


def _over_epochs(axes: Axes) -> None:
    axes.set(xlabel="epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def overlaid_curves(histories: Mapping[str, History], name: str, metric: Metric) -> Figure:
    """Validation loss and one metric of several runs over epochs.

    Args:
        histories: as `training_curves` takes them, by run.
        name: of the metric.
        metric: how it is shown.
    """
    panels = [("val/loss", "loss", "Loss on the validation images", 1.0)]
    if any(history.get(f"val/{name}") for history in histories.values()):
        title = f"{_title(metric.label)} on the validation images"
        panels.append((f"val/{name}", metric.unit, title, metric.factor))
    figure = new_figure(10, 3.6)
    for axes, (name, ylabel, title, factor) in zip(figure.subplots(1, 2), panels, strict=False):
        recorded_by = {run: history[name] for run, history in histories.items() if history.get(name)}
        for points in recorded_by.values():
            axes.plot([e for e, _ in points], [factor * v for _, v in points], marker=".")
        axes.set(ylabel=ylabel, title=title)
        _over_epochs(axes)
        if recorded_by:
            axes.legend(axes.lines, recorded_by)  # as labels of lines, names that begin with _ would be left out
    return figure


def _title(label: str) -> str:
    return label[0].upper() + label[1:]


def tradeoff(points: Mapping[str, tuple[float, float]], cost: str, metric: Metric) -> Figure:
    """Accuracy or error against a cost, with the Pareto front: what no other run beats in both.

    Args:
        points: name -> cost and metric.
        cost: label of the axis.
        metric: how the metric is shown.
    """
    factor = metric.factor
    figure = new_figure(6.4, 4.2) if len(points) < 9 else new_figure(8.8, 5.4)
    axes = figure.subplots()
    front = sorted(points[name] for name in pareto_front(points, metric.lower_is_better))
    axes.plot([c for c, _ in front], [factor * a for _, a in front], color=GRAY, linestyle="--", zorder=0)
    for point in points.values():
        axes.plot(point[0], factor * point[1], "o", color=BLUE if point in front else RED)
    axes.set(xlabel=cost, ylabel=f"{metric.label}, {metric.unit}")
    axes.margins(0.18)
    axes.grid(alpha=0.3)
    _name({name: (value, factor * accuracy) for name, (value, accuracy) in points.items()}, axes)
    return figure


def _name(points: Mapping[str, tuple[float, float]], axes: Axes) -> None:
    """Write each name beside its point, on the first side where it covers neither a point nor another name."""
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
    """Names of those (cost, accuracy or error) that no other one equals in both and beats in one."""
    sign = -1 if lower_is_better else 1

    def beaten(own: tuple[float, float]) -> bool:
        return any(c <= own[0] and sign * a >= sign * own[1] and (c, a) != own for c, a in points.values())

    return [name for name, point in points.items() if not beaten(point)]


def share_within(distances: Sequence[float], shares: Sequence[float]) -> Figure:
    """What share of points is at most how far off.

    Args:
        distances: millimeters.
        shares: of each distance, a fraction.
    """
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    axes.plot(distances, [100 * share for share in shares], color=BLUE)
    axes.set(xlabel="distance, mm", ylabel="share of the joints, percent", xlim=(0, None), ylim=(0, 100))
    axes.grid(alpha=0.3)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Rows are true classes, columns predicted ones; the shade is the share of the row."""
    figure = new_figure(6.4, 5.6)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        ticks, names = range(len(classes)), [printable(name) for name in classes]
        axes.set_xticks(ticks, names, rotation=45, ha="right")
        axes.set_yticks(ticks, names)
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class")
    return figure


def latency_bars(timings: Mapping[str, Timing], reference: str) -> Figure:
    """Median milliseconds of each runtime with its quartiles, and its speed against `reference`."""
    figure = new_figure(9, 0.55 * len(timings) + 1.1)
    axes = figure.subplots()
    names = list(timings)[::-1]
    medians = np.array([timings[name].median for name in names])
    spread = np.abs([[timings[n].median - timings[n].low, timings[n].high - timings[n].median] for n in names]).T
    axes.barh(
        names, medians, xerr=spread, color=[GRAY if n == reference else BLUE for n in names], height=0.6, capsize=3
    )
    for row in range(len(names)):
        label = f"  {medians[row]:.2f} ms, {timings[reference].median / medians[row]:.2f}x"
        axes.annotate(label, (medians[row] + spread[1, row], row), va="center")
    axes.set(xlabel="milliseconds a call, median and quartiles", xlim=(0, 1.35 * (medians + spread[1]).max()))
    return figure
