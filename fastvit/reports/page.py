"""Reports: an HTML file that contains its figures and styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from fastvit.console import printable
from fastvit.environment import environment
from fastvit.files import write_text
from fastvit.reports.figures import FRAME, GRAY, INK, PAPER, RED, Gallery, Plot, color_variables, css_color
from fastvit.version import __version__


@dataclass(frozen=True)
class Table:
    """Header and rows of a table; numbers are formatted by the caller."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A section: heading, text, plots, pictures and table; all but the heading are optional.

    Attributes:
        title: heading.
        text: plain text.
        plots: side by side where the page is wide enough.
        gallery: pictures with captions.
        table: below the plots and pictures.
    """

    title: str
    text: str = ""
    plots: Sequence[Plot] = ()
    gallery: Gallery | None = None
    table: Table | None = None


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
        path: the file.
        title: plain text.
        summary: a sentence or two, plain text.
        sections: sections of the page, in order.
        measured_with: environment of the measurements; by default this one.

    Returns:
        The path.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fastvit.reports"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colors = {"ink": INK, "paper": PAPER, "line": FRAME, "soft": GRAY, "red": RED}
    html = templates.get_template("report.html").render(
        title=title,
        summary=summary,
        sections=sections,
        environment=Table(("setting", "value"), list((measured_with or environment()).items())),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        color_variables=color_variables(),
        **{name: css_color(color) for name, color in colors.items()},
    )
    write_text(path, html)
    return path
