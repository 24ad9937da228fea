"""Plots of a robustness report. Errors are fractions, drawn in percent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastvit.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from fastvit.evaluation.robustness.scores import Errors
from fastvit.reports.figures import ON_DARK, ON_LIGHT, Plot, new_figure


def heat_map(errors: Errors) -> Plot:
    """Return a heat map of the error: a row for each corruption, a column for each severity."""
    figure = new_figure(4.9, 0.36 * len(errors) + 1.2)
    axes = figure.subplots()
    values = 100 * np.array(list(errors.values()))
    image = axes.imshow(values, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(SEVERITIES)), [str(severity) for severity in SEVERITIES])
    axes.set_yticks(range(len(errors)), list(errors))
    for (row, column), value in np.ndenumerate(values):
        color = ON_DARK if value > 55 else ON_LIGHT
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="severity")
    figure.colorbar(image, ax=axes, label="error, percent")
    cells = {(name, level): error for name, row in errors.items() for level, error in zip(SEVERITIES, row, strict=True)}
    return Plot(figure, f"Heat map of the error by corruption and severity: {_range(cells)}.")


def _range(cells: Mapping[tuple[str, int], float]) -> str:
    least, most = min(cells, key=lambda cell: cells[cell]), max(cells, key=lambda cell: cells[cell])
    if cells[least] == cells[most]:
        return f"{cells[least]:.1%} in all cells"
    return " to ".join(f"{cells[cell]:.1%} for {cell[0]} at severity {cell[1]}" for cell in (least, most))


def severity_curves(errors: Errors, clean: float | None = None) -> list[Plot]:
    """Return plots of error against severity, one for each group of corruptions.

    Args:
        errors: errors of each corruption at the severities 1 to 5.
        clean: error on clean images, drawn at severity 0; None leaves it out.
    """
    groups: dict[str, list[str]] = {}
    for name in errors:
        groups.setdefault(CORRUPTIONS[name].group, []).append(name)
    severities, start = (SEVERITIES, []) if clean is None else ((0, *SEVERITIES), [clean])
    plots = []
    for group, names in groups.items():
        figure = new_figure(4.9, 3.4)
        axes = figure.subplots()
        curves = {name: [*start, *errors[name]] for name in names}
        for name, curve in curves.items():
            axes.plot(severities, [100 * error for error in curve], marker=".", label=name)
        axes.set(title=group, xlabel="severity", ylabel="error, percent", ylim=(0, 100), xticks=severities)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        values = "; ".join(f"{name} from {curve[0]:.1%} to {curve[-1]:.1%}" for name, curve in curves.items())
        text = f"Error against severity {severities[0]} to {severities[-1]}, {group} corruptions: {values}."
        plots.append(Plot(figure, text))
    return plots
