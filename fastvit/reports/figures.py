"""Figures that show names as they are."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from fastvit.console import printable


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure whose parts make room for each other; its text is no markup.

    Args:
        width: in inches.
        height: in inches.
    """
    return _PlainFigure(figsize=(width, height), layout="constrained")


class _PlainFigure(Figure):
    """A figure in which a name with two `$` is no formula, and a control character does not break the file."""

    def draw(self, *args: Any, **options: Any) -> None:
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        super().draw(*args, **options)
