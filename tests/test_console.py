"""Names on the terminal, in figures, pages and pictures: text, whatever is in them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import unicodedata
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

import fastvit
from fastvit.console import counted, new_table, print_line, print_styled, printable, track
from fastvit.reports.metric_format import TOP1
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import confusion_matrix, overlaid_curves, tradeoff
from fastvit.tasks.classification.drawing import draw, prediction_sheet
from fastvit.tasks.classification.prediction import ClassPrediction, Label
from tests.helpers import noise_pictures, tiny

# As they come from people's folders: markup of rich, of matplotlib, of HTML; emoji codes; what steers a terminal.
NAMES = ("[/]", "[red]x", "a[/b]", "$a$", "x $ $_ y$", r"\$1", ":smile:", "_x", "<b>&", "a\x1b[31mb", "\x9b2J", "c\rd")
SHOWN = tuple(printable(name) for name in NAMES)


@given(st.text(st.characters()))
def test_printable_text_can_be_printed_and_steers_nothing(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    shown.encode()  # no half of a surrogate pair
    assert not [one for one in shown if one != "\n" and unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")]
    if text.isprintable():
        assert shown == text


def test_what_people_write_stays_as_it_is() -> None:
    for name in ("Käse", "猫", "Screenshot 2026-11-28 at 9.41\u202fAM.png", "👩‍🌾", "a b\nc"):
        assert printable(name) == name


def test_numbers_with_nouns() -> None:
    assert [counted(count, "image") for count in (0, 1, 1000)] == ["0 images", "1 image", "1,000 images"]
    assert [counted(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_tables_and_lines_show_names() -> None:
    table = new_table("name", "class")
    for name in NAMES:
        table.add_row(name, name)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_styled(table)
        for name in NAMES:
            print_styled(name)
            print_line(name)
    lines = out.getvalue().splitlines()
    for shown in SHOWN:
        assert sum(shown in line for line in lines) >= 3, shown
    assert "\x1b" not in out.getvalue()


def test_progress_shows_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal then
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert [list(track(range(3), name)) for name in NAMES] == [[0, 1, 2]] * len(NAMES)
    assert "[red]x" in errors.getvalue()
    assert "a\x1b[31mb" not in errors.getvalue()


def texts(figure: object) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}  # type: ignore[attr-defined]


def test_figures_show_names() -> None:
    curves = {name: {"val/loss": [(0, 1.0), (1, 0.5)], "val/top1": [(0, 0.1), (1, 0.2)]} for name in NAMES}
    labels = [Label(index, name, 0.5) for index, name in enumerate(NAMES)]
    images = [Image.new("RGB", (8, 8))] * len(NAMES)
    for figure in (
        confusion_matrix(np.eye(len(NAMES), dtype=int), NAMES).figure,
        *(plot.figure for plot in overlaid_curves(curves, "top1", TOP1)),
        tradeoff({name: (index, index) for index, name in enumerate(NAMES)}, "ms", TOP1).figure,
        prediction_sheet(images, labels, NAMES[::-1]),
    ):
        svg = io.StringIO()
        figure.savefig(svg, format="svg")
        xml.dom.minidom.parseString(svg.getvalue())
        shown = "\n".join(texts(figure))
        assert [name for name in SHOWN if name not in shown] == []
        assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_pages_show_names(tmp_path: Path) -> None:
    path = write_report(tmp_path / "page.html", NAMES[0], NAMES[1], [Section(NAMES[2], table=Table(NAMES, [NAMES]))])
    page = path.read_text()
    for shown in SHOWN:
        assert page.count(shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) >= 2, shown
    assert "\x1b" not in page


def test_pictures_take_names_of_several_lines() -> None:
    draw(noise_pictures(1)[0], ClassPrediction("a.png", tuple(Label(0, name, 0.5) for name in (*NAMES, "a\nb"))))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(len(NAMES))
    model.classes = NAMES
    path = tmp_path_factory.mktemp("names") / "model.safetensors"
    fastvit.save(model, path)
    return path


def command(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    line = [sys.executable, "-m", "fastvit", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment)


def test_commands_show_names(checkpoint: Path, tmp_path: Path) -> None:
    files = [f"{name.replace('/', 'I')}.png" for name in NAMES]
    (tmp_path / "a[").mkdir()
    files.append("a[/b].png")
    for name in files:
        noise_pictures(1)[0].save(tmp_path / name)
    (tmp_path / "[bad].png").write_text("no image")
    done = command("predict", checkpoint, *files, "[bad].png", "--runtime", "torch", "--k", 12, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "warning: " in done.stderr
    assert "; it is skipped" in done.stderr
    assert "[bad].png" in done.stderr
    squeezed = "".join(done.stdout.split())
    for shown in (*(printable(name) for name in files), *SHOWN):
        assert "".join(shown.split()) in squeezed or len(shown) > 8, shown
    assert "\x1b" not in done.stdout + done.stderr
    described = command("info", checkpoint, folder=tmp_path)
    assert described.returncode == 0, described.stderr
    assert ", ".join(SHOWN[:8]) in described.stdout


def test_names_that_a_terminal_or_a_file_cannot_take(checkpoint: Path, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, as old archives have them; line feeds; a tilde; more letters than a name may have."""
    names = [os.fsdecode(b"caf\xe9.png"), "~nouser.png", "x\nfastvit: error: forged.png", f"{'a' * 250}.png"]
    for name in names:
        noise_pictures(1)[0].save(tmp_path / name)
    bad = "y\nfastvit: error: forged.png"
    (tmp_path / bad).write_text("no image")
    options = ["--runtime", "torch", "--out", "p.parquet", "--draw", "drawn"]
    done = command("predict", checkpoint, *names, bad, *options, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert len(list((tmp_path / "drawn").iterdir())) == len(names)
    shown = command("predict", checkpoint, *names, "--runtime", "torch", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert r"x\nfastvit:" in "".join(shown.stdout.split())
    missing = command("predict", checkpoint, "~nobody.png", folder=tmp_path)
    assert missing.returncode == 2
    assert "~nobody.png was not found: neither this file nor a user of that name exists" in missing.stderr


def test_an_encoding_without_the_letters_of_a_name(tmp_path: Path) -> None:
    model = tiny(2)
    model.classes = ("猫", "b")
    fastvit.save(model, tmp_path / "cat.safetensors")
    line = [sys.executable, "-m", "fastvit", "info", str(tmp_path / "cat.safetensors")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\u732b, b" in done.stdout


def test_evaluation_shows_names(checkpoint: Path, tmp_path: Path) -> None:
    """Of classes that a folder can have: in the table, the figures and the page."""
    names = tuple(name for name in NAMES if "/" not in name)
    model = tiny(len(names))
    model.classes = tuple(sorted(names))
    fastvit.save(model, tmp_path / "model.safetensors")
    for name in names:
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        noise_pictures(1)[0].save(tmp_path / "data" / "val" / name / f"{name}.png")
    done = command("eval", "model.safetensors", "--data", "data", "--out", "page", "--num-workers", 0, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "evaluation.html").read_text()
    for name in names:
        assert printable(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in page, name
    missing = command("eval", "model.safetensors", "--data", "no\x1b[31m", folder=tmp_path)
    assert missing.returncode == 2
    assert r"no\x1b[31m" in missing.stderr
    assert "\x1b" not in done.stdout + done.stderr + missing.stderr
