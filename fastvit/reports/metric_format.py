"""Labels, units and texts of metrics, on the terminal and in reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Label, unit and format of a metric.

    Attributes:
        label: name of the metric in tables and plots.
        unit: "percent" for a fraction, "mm" for a length in millimeters, "" for a plain number.
        lower_is_better: whether it is an error.
        compared: whether the comparison of runs shows it.
    """

    label: str
    unit: Literal["percent", "mm", ""] = "percent"
    lower_is_better: bool = False
    compared: bool = True

    @property
    def title(self) -> str:
        """Label with a capital first letter; words such as mIoU stay."""
        return self.label[0].upper() + self.label[1:] if self.label.split()[0].islower() else self.label

    @property
    def factor(self) -> float:
        """Factor from a value to its number in `unit`."""
        return 100.0 if self.unit == "percent" else 1.0

    def text(self, value: float) -> str:
        """Return a value with its unit; a dash for NaN, where nothing was measured."""
        if value != value:
            return "-"
        return {"percent": f"{value:.2%}", "mm": f"{value:.2f} mm", "": f"{value:.4f}"}[self.unit]


TOP1 = Metric("top-1")
LOSS = Metric("loss", "", lower_is_better=True)
