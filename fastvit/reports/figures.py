"""Figures and pictures of a page: what they show in words, and colors that follow the browser's color scheme."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fastvit.console import printable

# Colors of pages and figures in the light scheme, and what each becomes in the dark one.
INK, PAPER, LINE, FRAME = "#000000", "#ffffff", "#b0b0b0", "#cccccc"
BLUE, GREEN, RED, GRAY = "#2563eb", "#15803d", "#b91c1c", "#6b7280"
DARK = {
    INK: "#e5e7eb",
    PAPER: "#111827",
    LINE: "#6a7383",
    FRAME: "#4b5563",
    BLUE: "#60a5fa",
    GREEN: "#4ade80",
    RED: "#f87171",
    GRAY: "#9ca3af",
    # Matplotlib's color cycle.
    "#1f77b4": "#5aa9e6",
    "#ff7f0e": "#ffa14d",
    "#2ca02c": "#57c957",
    "#d62728": "#ff6b6b",
    "#9467bd": "#b794e0",
    "#8c564b": "#c49488",
    "#e377c2": "#f0a0d8",
    "#7f7f7f": "#a8a8a8",
    "#bcbd22": "#d9da4a",
    "#17becf": "#4fdbe8",
}
# Text on a cell whose own color is the same in both schemes.
ON_LIGHT, ON_DARK = "#111111", "#fafafa"
# Sides of images in pixels up to which they are enlarged without smoothing.
_TINY = 64


@dataclass(frozen=True)
class Plot:
    """A figure and the text for readers who do not see it.

    Attributes:
        figure: drawn as SVG.
        alt: what the figure shows, with its main numbers.
    """

    figure: Figure
    alt: str

    @property
    def source(self) -> str:
        """The figure as a data URI."""
        return _data_uri("image/svg+xml", svg(self.figure).encode())

    @property
    def width(self) -> int:
        """Width of the figure in CSS pixels."""
        return round(96 * self.figure.get_figwidth())

    @property
    def least_width(self) -> int:
        """Width below which its text cannot be read; where a screen is narrower, the plot scrolls in its box."""
        return round(0.7 * self.width)


@dataclass(frozen=True)
class Picture:
    """A photograph with a caption.

    Attributes:
        image: RGB.
        alt: what the picture shows.
        caption: lines of text below it.
        wrong: whether the prediction is wrong; the caption is then red.
    """

    image: Image.Image
    alt: str
    caption: Sequence[str] = ()
    wrong: bool = False

    @property
    def tiny(self) -> bool:
        """True if the image is enlarged without smoothing."""
        return max(self.image.size) <= _TINY

    def source(self, side: int) -> str:
        """Return the image as a data URI, scaled down to fit a square.

        Args:
            side: side of the square, in pixels.
        """
        image, buffer = self.image.convert("RGB"), io.BytesIO()
        image.thumbnail((side, side))
        if self.tiny:
            image.save(buffer, "PNG")
            return _data_uri("image/png", buffer.getvalue())
        image.save(buffer, "JPEG", quality=90)
        return _data_uri("image/jpeg", buffer.getvalue())


@dataclass(frozen=True)
class Gallery:
    """Pictures in rows.

    Attributes:
        pictures: pictures, in order.
        columns: number of pictures per row on a wide screen.
        phone_columns: number of pictures per row on a phone.
        side: largest side of a picture in pixels; larger ones are scaled down.
    """

    pictures: Sequence[Picture]
    columns: int
    phone_columns: int
    side: int


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure with a constrained layout, in which `$` does not start a formula.

    Args:
        width: width in inches.
        height: height in inches.
    """
    return _PlainFigure(figsize=(width, height), layout="constrained")


class _PlainFigure(Figure):
    """A figure in which names with `$` are not formulas and control characters do not break the file."""

    def draw(self, *args: Any, **options: Any) -> None:
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        super().draw(*args, **options)


def color_variables() -> str:
    """Return CSS that defines a variable for each color, in the light and in the dark scheme."""
    light = "; ".join(f"{_variable(color)}: {color}" for color in DARK)
    dark = "; ".join(f"{_variable(color)}: {value}" for color, value in DARK.items())
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def css_color(color: str) -> str:
    """Return a CSS value for a light color of `DARK` that follows the color scheme."""
    return f"var({_variable(color)})"


def svg(figure: Figure) -> str:
    """Return a figure as SVG whose colors follow the browser's color scheme; colors not in `DARK` stay."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r"#[0-9a-f]{6}\b", lambda found: css_color(found[0]) if found[0] in DARK else found[0], drawn)
    # Matplotlib writes no fill for black text.
    style = f"{color_variables()}\nsvg {{ fill: {css_color(INK)} }}"
    return drawn.replace('<style type="text/css">', f'<style type="text/css">{style}\n', 1)


def _variable(color: str) -> str:
    return f"--c{color[1:]}"


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
