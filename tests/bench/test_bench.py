"""Timing: the arithmetic, the turns and what is computed; never the time itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from rich.progress import Progress
from torch import nn

import fastvit
from fastvit.bench.backends import BACKENDS, Backend, call_of, find_backends
from fastvit.bench.bench_report import explanation, result_table, write_bench_report
from fastvit.bench.complexity import work
from fastvit.bench.harness import side_by_side
from fastvit.bench.machine import Machine, measure_machine, torch_threads
from fastvit.bench.models import BenchModel, fastvit_model, find_model
from fastvit.bench.peers import PEERS, Peer
from fastvit.bench.suite import bench, bench_model, bench_models
from fastvit.timing import Timing, measure, summary
from tests.helpers import Clock, randomize, tiny


def test_calls_take_turns_after_a_warmup() -> None:
    order: list[str] = []
    ticks: list[int] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = measure(calls, rounds=20, warmup=2, tick=lambda: ticks.append(len(order)))
    assert "".join(order[:6]) == "aabbcc"
    rounds = ["".join(order[start : start + 3]) for start in range(6, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 3, "no call always comes after the same other one"
    assert ticks == list(range(9, 9 + 3 * 20, 3))
    assert all(t.low <= t.median <= t.high and t.rounds == 20 for t in timings.values())


def test_rounds_are_added_while_what_the_clock_tells_still_moves() -> None:
    told = iter([1.0, 2.0, *[9.0] * 10])
    timing = measure({"a": lambda: None}, rounds=4, warmup=0, patience=4, clock=lambda call: next(told))["a"]
    assert timing == Timing(9, 9, 9, 12, True)
    told = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    timing = measure({"a": lambda: None}, rounds=5, warmup=0, clock=lambda call: next(told))["a"]
    assert timing == Timing(3, 2, 4, 5, False)


def test_what_cannot_be_made_or_does_not_run_is_told_and_the_others_are_timed() -> None:
    def make() -> None:
        try:
            raise OSError("no compiler\nat all")
        except OSError as error:
            raise RuntimeError("the exporter failed") from error

    makers = {"exporter": make, "nothing": lambda: None, "call": lambda: lambda: 1 / 0, "well": lambda: lambda: None}
    timings, failures = side_by_side(makers, rounds=2, progress=Progress(disable=True))
    assert list(timings) == ["well"]
    assert failures == {"exporter": "no compiler", "call": "division by zero"}


def test_times_are_milliseconds(clock: Clock) -> None:
    """The median and the quartiles of five rounds, without the warm-up."""
    timings = measure({"a": clock.takes(7, 0.001, 0.002, 0.004, 0.003, 0.005), "b": clock.takes(0.25)}, 5, warmup=1)
    assert (timings["a"].low, timings["a"].median, timings["a"].high) == pytest.approx((2, 3, 4))
    assert (timings["b"].low, timings["b"].median, timings["b"].high) == pytest.approx((250, 250, 250))
    assert [timing.rounds for timing in timings.values()] == [5, 5]


def test_rounds_are_added_until_all_medians_have_converged(clock: Clock) -> None:
    restless, steady = [1, 2, 4, 8, 16, 32, 64, 128], [1]
    for calls, rounds in (((steady, steady), 2), ((steady, restless), 8), ((restless, steady), 8)):
        named = {number: clock.takes(*times) for number, times in enumerate(calls)}
        timings = measure(named, rounds=2, warmup=0, patience=4)
        assert [timing.rounds for timing in timings.values()] == [rounds] * 2
        assert [timing.converged for timing in timings.values()] == [times is steady for times in calls]


def test_three_percent_have_converged() -> None:
    """Halves whose medians are 98.5 and 101.5 around 100, or further apart."""
    assert summary([98.5, 98.5, 101.5, 101.5]).converged
    assert not summary([98.4, 98.4, 101.5, 101.5]).converged
    assert not summary([101.5, 101.5, 98.4, 98.4]).converged


def test_a_machine_by_hand(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and copies that take 0.01 s, but for a round that others disturb and the first, which warms up."""
    call = clock.takes(1e-9, 0.02, 0.01)
    product, copied = torch.Tensor.__matmul__, torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda *args: (call(), product(*args))[1])
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *args: (call(), copied(*args))[1])
    found = measure_machine("cpu", size=10, megabytes=1, rounds=2)
    assert found.gflops["fp32"] == pytest.approx(2 * 10**3 / 0.01 / 1e9)
    assert found.copy_gbps == pytest.approx(2 * 2**20 / 0.01 / 1e9), "read and written"


def test_medians_settle_or_say_that_they_did_not() -> None:
    steady = summary([10.0, 10.1, 9.9, 10.2, 10.0, 10.1])
    assert (steady.median, steady.converged) == (pytest.approx(10.05), True)
    assert not summary([10.0, 10.0, 10.0, 12.0, 12.0, 12.0]).converged
    assert not summary([10.0]).converged


def test_work_of_a_convolution_by_hand() -> None:
    counted = work(nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 4, 4))
    assert counted.gmacs == pytest.approx(8 * 3 * 9 * 16 / 1e9)
    # weights, input and output, four bytes each
    assert counted.megabytes == pytest.approx(4 * (216 + 48 + 128) / 1e6)


FLOAT32 = [
    pytest.param(backend, id=backend.name, marks=[pytest.mark.slow] if backend.slow else [])
    for backend in BACKENDS.values()
    if backend.device != "cuda" and backend.precision == "fp32" and backend.name != "timm"
]


@pytest.mark.parametrize("backend", FLOAT32)
def test_every_backend_computes_the_network(backend: Backend, tmp_path: Path) -> None:
    """Those in float32, on the images that are timed; but for timm's, whose weights are others."""
    if reason := backend.missing("cpu"):
        pytest.skip(reason)
    bench_model = fastvit_model(randomize(tiny()))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = bench_model.model(torch.from_numpy(images)).numpy()
    output = call_of(bench_model, backend, 2, (64, 64), tmp_path, "cpu")()
    assert np.asarray(output[0] if isinstance(output, list) else output) == pytest.approx(expected, abs=1e-4)


def test_what_is_timed() -> None:
    bench_model = find_model("t8")
    assert (bench_model.name, bench_model.size, bench_model.published[:2]) == ("fastvit_t8", (256, 256), (256, 76.2))
    ours, timm_reference = (
        sum(p.numel() for p in network.parameters()) for network in (bench_model.deployed, bench_model.timm_reference)
    )
    # A block of timm's has a layer scale, and a norm with two vectors where ours has a bias.
    widths = [stage.width for stage in bench_model.model.config.stages for _ in range(stage.depth)]
    assert timm_reference - ours == 2 * sum(widths)
    assert fastvit_model(tiny()).timm_reference is None
    assert fastvit_model(fastvit.fuse(tiny())).train_form is None
    with pytest.raises(fastvit.UserError, match="unknown FastViT variant"):
        find_model("resnet51")


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_peers_are_timms(peer: Peer) -> None:
    assert f"{peer.name}.{peer.weights}" in timm.list_models(pretrained=True)
    assert 70 < peer.top1 < 90
    assert peer.source


class OnlySquare(nn.Module):
    """Somebody's network that does not take every size."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] != 64:
            raise RuntimeError("this network takes 64 px\nand nothing else")
        return images.mean((2, 3))


def test_results_table_and_report(tmp_path: Path) -> None:
    backends = [BACKENDS[name] for name in ("timm", "fused")]
    t8 = fastvit_model(fastvit.create_model("t8", num_classes=10).eval())
    peer = BenchModel("somebody's", OnlySquare(), (64, 64), (64, 70.5, "them"))
    results = bench([t8, peer], backends, batches=[2], sizes=[(64, 64), (96, 64)], rounds=1)
    found = [(r.case.bench_model.name, r.case.backend.name, r.case.size, bool(r.timing)) for r in results]
    names = [backend.name for backend in backends]
    assert found == [
        *(("fastvit_t8", name, (64, 64), True) for name in names),
        ("somebody's", "timm", (64, 64), True),
        *(("fastvit_t8", name, (96, 64), True) for name in names),
        ("somebody's", "timm", (96, 64), False),
    ]
    by_name = {r.case.backend.name: r for r in results[:2]}
    fused, timms = by_name["fused"], by_name["timm"]
    assert timms.speedup == 1
    assert fused.speedup == timms.timing.median / fused.timing.median
    assert fused.images_per_second == pytest.approx(2e3 / fused.timing.median)
    assert fused.gflops == pytest.approx(2 * fused.work.gmacs * fused.images_per_second)
    assert fused.gbps == pytest.approx(1e-3 * fused.work.megabytes * fused.images_per_second)
    assert results[2].top1 == 70.5
    assert results[0].top1 is None
    assert results[-1].failure == "this network takes 64 px"

    machine = Machine({"fp32": 100.0}, 10.0, 1)
    table = result_table(results, machine)
    assert len(table.rows) == 5
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert all(column in explanation(table) for column in ("% of GEMM peak", "% of copy speed"))
    assert row["% of GEMM peak"] == f"{fused.gflops:.0f}"
    assert row["speedup over timm"] == f"{fused.speedup:.2f}x"

    report = write_bench_report(tmp_path / "out", results, machine, [("a backend", "not here")])
    text = report.read_text()
    assert "fastvit_t8, batch size 2, 64x64" in text
    assert "not here" in text
    with (tmp_path / "out" / "latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[1]["median_ms"]) == fused.timing.median
    assert rows[-1]["failure"] == "this network takes 64 px"


def test_forms_of_one_model_and_models_side_by_side() -> None:
    model = tiny(preprocessing=fastvit.Preprocessing((32, 32)))
    assert list(bench_model(model, compiled=False)) == ["train form", "fused", "onnxruntime"]
    assert list(bench_model(fastvit.fuse(model), compiled=False)) == ["fused", "onnxruntime"]
    assert list(bench_models({"a": model, "b": fastvit.fuse(model)}, rounds=1)) == ["a", "b"]


def test_backends_by_name() -> None:
    backends, missing = find_backends("auto", "cpu")
    assert {"timm", "fused", "onnxruntime", "predictor"} <= {backend.name for backend in backends}
    assert not missing
    assert not any(backend.slow or backend.device == "cuda" for backend in backends)
    _, missing = find_backends("all", "cpu")
    assert "this benchmark on cpu" in missing["fused-fp16"]
    with pytest.raises(fastvit.UserError, match="unknown backend 'tvm'; choose from auto, all, timm"):
        find_backends("fused,tvm", "cpu")
    with pytest.raises(fastvit.UserError, match="fused-fp16: it runs on cuda"):
        find_backends("fused-fp16", "cpu")


def test_the_machine_has_a_roof() -> None:
    before = torch.get_num_threads()
    with torch_threads(1):
        machine = measure_machine(size=64, megabytes=1, rounds=1)
    assert machine.threads == 1
    assert torch.get_num_threads() == before
    assert machine.copy_gbps > 0
    assert set(machine.gflops) == {"fp32", "bf16"}
