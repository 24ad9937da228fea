"""Runs side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import fastvit
from fastvit.cli.main import main
from fastvit.compare.comparison import collect, result_table, settings_table
from fastvit.evaluation.robustness.measure import Robustness
from fastvit.evaluation.robustness.robustness_report import write_robustness
from fastvit.reports.plots import pareto_front
from tests.evaluation.runs import make_run
from tests.helpers import tiny


def test_tables(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", optim={"lr": 0.1}, accumulate_grad_batches=2)
    second = make_run(tmp_path / "b", epochs=3, top1=0.625)
    measured = Robustness("imagenet-c", "sample", 9, True, True, 0, {"top1": 0.6, "mean_error": 0.4})
    write_robustness(measured, "first", first / "best-imagenet-c")
    (second / "evaluation.json").write_text(json.dumps({"ece": 0.031}))
    entries = collect([str(first), str(second)])
    table = result_table(entries, {})
    assert list(table.header) == ["run", "a", "b"]
    rows = {name: values for name, *values in table.rows}
    assert rows["epochs"] == ["2", "3"]
    assert rows["images seen"] == ["640", "480"]  # 20 steps of 2 x 16, 30 steps of 16
    assert rows["top-1"] == ["50.00%", "62.50%"]
    assert rows["calibration error (ECE)"] == ["-", "3.10%"]
    assert rows["imagenet-c mean error"] == ["40.00%", "-"]
    assert "imagenet-c mCE" not in rows
    assert "latency, ms" not in rows
    model = fastvit.load(first)
    fused = fastvit.fuse(model)
    assert rows["parameters, M"][0] == f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"
    assert rows["parameters (fused), M"][0] == f"{sum(p.numel() for p in fused.parameters()) / 1e6:.2f}"
    differing = {name: values for name, *values in settings_table(entries).rows}
    assert differing == {"epochs": ["2", "3"], "optim.lr": ["0.1", "0.001"], "accumulate_grad_batches": ["2", "1"]}


def test_pareto_front() -> None:
    points = {"fast": (1.0, 0.7), "good": (3.0, 0.9), "slow": (4.0, 0.8), "twin": (3.0, 0.9), "same": (3.0, 0.85)}
    assert pareto_front(points) == ["fast", "good", "twin"]


def test_report_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / name, top1=top1)) for name, top1 in (("a", 0.5), ("b", 0.6))]
    alone = str(fastvit.save(tiny(), tmp_path / "alone.safetensors"))
    out = tmp_path / "report.html"
    assert main(["compare", *runs, alone, "--out", str(out), "--rounds", "2", "--device", "cpu"]) == 0
    assert "60.00%" in capsys.readouterr().out
    html = out.read_text()
    for heading in ("Results", "Top-1 vs. latency", "Top-1 vs. parameters", "Training curves", "Environment"):
        assert f"<h2>{heading}</h2>" in html
    assert "latency, ms" in html
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', html)
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml") for source in sources)
    assert main(["compare", alone, "--no-latency", "--out", str(out)]) == 0
    assert "latency" not in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RUN"),
        (["nowhere"], "there is no file nowhere"),
        (["EMPTY"], "does not contain weights"),
        (["RUN", "RUN"], "given twice"),
        (["RUN", "--rounds", "0"], "rounds must be at least 1"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {"RUN": str(make_run(tmp_path / "run")), "EMPTY": str(tmp_path / "empty")}
    assert main(["compare", *(places.get(a, a) for a in arguments), "--out", str(tmp_path / "r.html")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
