"""Timing: the arithmetic and the turns, never the time itself."""

from __future__ import annotations

import fastvit
from fastvit.bench.forms import bench_forms
from fastvit.bench.latency import measure
from tests.helpers import tiny


def test_calls_take_turns_after_a_warmup() -> None:
    order: list[str] = []
    ticks: list[int] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = measure(calls, rounds=3, warmup=2, tick=lambda: ticks.append(len(order)))
    assert "".join(order) == "aabb" + "ab" * 3
    assert ticks == [6, 8, 10]
    assert all(t.low <= t.median <= t.high and t.rounds == 3 for t in timings.values())


def test_every_form_is_timed() -> None:
    model = tiny()
    assert list(bench_forms(model, batch=2, size=(32, 32), rounds=1)) == ["train form", "fused", "onnxruntime"]
    assert list(bench_forms(fastvit.merge_branches(model), size=(32, 32), rounds=1))[0] == "merged form"
    assert list(bench_forms(fastvit.fuse(model), size=(32, 32), rounds=1)) == ["fused", "onnxruntime"]
