"""The GPU benchmark without a GPU: its arithmetic, its tables and files, and what it says where it cannot run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

import fastvit
from fastvit.bench.gpu import ACCELERATED, COMPILED, UNFUSED, Exactness, GpuResult, GpuRun, lively, measure_gpu
from fastvit.bench.gpu_kernels import KernelRow, floor
from fastvit.bench.gpu_report import bars, exactness_table, kernel_table, network_table, write_gpu_report
from fastvit.bench.machine import Machine
from fastvit.cli.main import main
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.feed_forward import FeedForward
from fastvit.timing import Timing
from tests.helpers import tiny

MACHINE = Machine({"fp32": 5e4, "fp16": 7e5, "bf16": 7e5}, 3000.0, 1)


def timed(network: str, backend: str, batch: int, ms: float, memory: float, top1: float) -> GpuResult:
    return GpuResult(network, backend, batch, 256, Timing(ms, ms, ms, 3), memory, top1)


def make_gpu_run() -> GpuRun:
    first, second = COMPILED.values()
    results = [
        timed("ours", ACCELERATED, 128, 3.0, 500, 80.9),
        timed("ours", first, 128, 8.0, 600, 80.9),
        timed("ours", second, 128, 7.5, 900, 80.9),
        timed("ours", UNFUSED, 128, 18.0, 450, 80.9),
        timed("ours", ACCELERATED, 1, 0.4, 40, 80.9),
        timed("ours", second, 1, 0.6, 50, 80.9),
        GpuResult("ours", first, 1, 256, failure="there was no time left", top1=80.9),
        timed("theirs", first, 128, 9.0, 700, 82.7),
    ]
    kernels = [
        KernelRow("ours", 128, "FFN", "triton BLOCK_M=128", 2, 0.14, 0.46, 0.07),
        KernelRow("ours", 128, "attention", "torch", 1, None, None, 0.01),
    ]
    return GpuRun(MACHINE, results, kernels, [Exactness("ours", 2e-4, 3e-4)])


@pytest.fixture
def run() -> GpuRun:
    return make_gpu_run()


def test_bars_are_held_or_not(run: GpuRun) -> None:
    found = {(row[1], row[2]): row[3:] for row in bars(run).rows}
    assert found["128", "2.0x torch.compile"] == ["2.50x", "yes"]  # the better of the two modes
    assert found["128", "5x unfused"] == ["6.00x", "yes"]
    assert found["128", "memory at most timm's"] == ["1.11x", "NO"]
    assert found["1", "1/0.6x torch.compile"] == ["1.50x", "NO"]
    assert found["1", "memory at most timm's"] == ["0.80x", "yes"]


def test_tables_and_files(run: GpuRun, tmp_path: Path) -> None:
    networks = network_table(run)
    assert [row[:3] for row in networks.rows if row[0] == "theirs"] == [["theirs", "timm, torch.compile", "128"]]
    assert networks.rows[0][3:] == ["3.000", "3.000 to 3.000", "42667", "2.50x", "500", "80.9"]
    assert len(networks.rows) == 7
    kernels = kernel_table(run.kernels).rows
    assert kernels[0][5:] == ["0.1400", "0.4600", "0.0700", "2.0x", "0.2800"]
    assert kernels[1][5:] == ["-", "-", "0.0100", "-", "-"]
    assert exactness_table(run).rows == [["ours", "2.00e-04", "3.00e-04", "0.67"]]
    text = write_gpu_report(tmp_path, run).read_text()
    assert "Accuracy vs. latency, batch size 128" in text
    assert "there was no time left" in text
    with (tmp_path / "networks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(run.results)
    assert (rows[0]["median_ms"], rows[6]["median_ms"]) == ("3.0", "")
    with (tmp_path / "kernels.csv").open() as file:
        assert next(csv.DictReader(file))["floor_ms"] == "0.07"


def test_the_floor_by_hand() -> None:
    """The FFN of SA12's first stage at batch 128: three maps of 67 MB at 3 TB/s."""
    step = FeedForward(nn.Conv2d(64, 256, 1).half(), nn.Conv2d(256, 64, 1).half())
    x = torch.empty(128, 64, 64, 64, dtype=torch.float16, device="meta")
    assert floor(step, x, MACHINE) == pytest.approx(0.0671, abs=1e-4)
    fast = Machine({"fp32": 5e4, "fp16": 7e5, "bf16": 7e5}, 1e9, 1)
    assert floor(step, x, fast) == pytest.approx(2 * 17.18e9 / 7e14 * 1e3, rel=1e-3)
    taps = Depthwise(nn.Conv2d(64, 64, 7, padding=3, groups=64).half())
    assert floor(taps, x, MACHINE) == pytest.approx(2 * 49 * 33.55e6 / 5e13 * 1e3, rel=1e-3)


def test_weights_are_lively() -> None:
    model = lively(tiny())
    images = torch.randn(2, 3, 32, 32)
    assert fastvit.verify(model, fastvit.fuse(model), images).relative < 1e-4
    still = tiny()
    still.load_state_dict(model.state_dict() | {k: v * 0 for k, v in model.state_dict().items() if "gamma" in k})
    assert fastvit.verify(model, still, images).relative > 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(fastvit.UserError, match="needs an NVIDIA GPU"):
        measure_gpu(["t8"])
    assert main(["bench", "gpu", "t8", "--minutes", "8"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
