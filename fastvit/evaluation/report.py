"""A run as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import jinja2
import torch
from matplotlib.figure import Figure

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


def write_report(path: Path, title: str, summary: str, sections: Sequence[Section]) -> Path:
    """Write a self-contained HTML file atomically."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastvit.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("report.html").render(
        title=title,
        summary=summary,
        sections=sections,
        environment=environment_table(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    write_text(path, html)
    return path


def environment_table() -> Table:
    """What a number was measured with: versions and hardware."""
    packages = ("torch", "torchvision", "timm", "lightning", "onnx", "onnxruntime", "numpy")
    rows = [("fastvit", __version__), ("Python", platform.python_version())]
    rows += [(name, metadata.version(name)) for name in packages]
    rows += [
        ("system", platform.platform()),
        ("processor", processor()),
        ("torch threads", str(torch.get_num_threads())),
    ]
    if torch.cuda.is_available():
        rows.append(("GPU", torch.cuda.get_device_name()))
    return Table(("what", "which"), rows)


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return f"{names[0]}, {len(names)} cores visible"
    return platform.processor() or platform.machine()


def read_history(path: Path) -> dict[str, list[tuple[float, float]]]:
    """(epoch, value) pairs of each epoch-wise metric in a run's metrics.csv."""
    history: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for column, name in (
                ("train/loss_epoch", "train/loss"),
                ("val/loss", "val/loss"),
                ("val/top1", "val/top1"),
            ):
                if value := row.get(column):
                    history.setdefault(name, []).append((float(row["epoch"]) + 1, float(value)))
    return history
