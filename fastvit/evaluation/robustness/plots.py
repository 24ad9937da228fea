"""Plots of a robustness report, as matplotlib figures. Errors are fractions, shown in percent."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fastvit.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from fastvit.evaluation.robustness.scores import Errors
from fastvit.reports.figures import new_figure


def heat_map(errors: Errors) -> Figure:
    """Return a heat map of the errors, with a row per corruption and a column per severity."""
    figure = new_figure(6.4, 0.36 * len(errors) + 1.2)
    axes = figure.subplots()
    values = 100 * np.array(list(errors.values()))
    image = axes.imshow(values, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(SEVERITIES)), [str(severity) for severity in SEVERITIES])
    axes.set_yticks(range(len(errors)), list(errors))
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="severity")
    figure.colorbar(image, ax=axes, label="error, percent")
    return figure


def severity_curves(errors: Errors, clean: float | None = None) -> Figure:
    """Return plots of the error by severity, one panel per group of corruptions.

    Args:
        errors: errors of each corruption at the severities 1 to 5.
        clean: error on clean images, shown as severity 0; None leaves it out.
    """
    groups: dict[str, list[str]] = {}
    for name in errors:
        groups.setdefault(CORRUPTIONS[name].group, []).append(name)
    figure = new_figure(9, 3.2 * ((len(groups) + 1) // 2))
    panels = figure.subplots((len(groups) + 1) // 2, min(2, len(groups)), sharey=True, squeeze=False).ravel()
    severities, start = (SEVERITIES, []) if clean is None else ((0, *SEVERITIES), [100 * clean])
    for axes, (group, names) in zip(panels, groups.items(), strict=False):
        for name in names:
            axes.plot(severities, [*start, *(100 * error for error in errors[name])], marker=".", label=name)
        axes.set(title=group, xlabel="severity", ylabel="error, percent", ylim=(0, 100), xticks=severities)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in panels[len(groups) :]:
        axes.axis("off")
    return figure
