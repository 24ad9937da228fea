"""Reports: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import jinja2
from matplotlib.figure import Figure

from fastvit.console import printable
from fastvit.environment import environment
from fastvit.files import write_text
from fastvit.version import __version__


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; cells that are numbers should come formatted."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and then a figure, a table or both.

    Attributes:
        title: of the section.
        text: plain text.
        figure: drawn as vectors, or as pixels where `pixels` says so (photographs).
        table: below the figure.
        pixels: how to draw the figure.
    """

    title: str
    text: str = ""
    figure: Figure | None = None
    table: Table | None = None
    pixels: bool = False

    @property
    def image(self) -> str | None:
        """The figure as a data URI."""
        if self.figure is None:
            return None
        return data_uri(self.figure, "png" if self.pixels else "svg")


def data_uri(figure: Figure, kind: Literal["png", "svg"]) -> str:
    """A figure as a string for an <img src>."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    mime = "image/png" if kind == "png" else "image/svg+xml"
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shown(value: object) -> object:
    """Return what a template writes for a value: a name's control characters as escapes."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")  # what a macro made is markup
    return printable(str(value)) if is_text else value


def write_report(
    path: Path,
    title: str,
    summary: str,
    sections: Sequence[Section],
    measured_with: Mapping[str, str] | None = None,
) -> Path:
    """Write a self-contained HTML file atomically.

    Args:
        path: of the file.
        title: plain text.
        summary: a sentence or two, plain text.
        sections: in order.
        measured_with: the environment of the numbers; by default this one.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fastvit.reports"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = templates.get_template("report.html").render(
        title=title,
        summary=summary,
        sections=sections,
        environment=Table(("what", "which"), list((measured_with or environment()).items())),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    write_text(path, html)
    return path
