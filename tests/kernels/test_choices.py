"""What is offered for a shape, how a choice is written down, and that every offer compiles for the GPUs in question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastvit
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.depthwise_cuda import strips
from fastvit.kernels.inference.feed_forward import FeedForward, split
from fastvit.kernels.inference.feed_forward_cuda import layouts
from fastvit.kernels.inference.pointwise import Pointwise
from fastvit.kernels.inference.program import backbone_nodes, classifier_nodes
from fastvit.kernels.inference.step import TORCH, Choice, Step
from fastvit.kernels.inference.tuning import SHIPPED, key, launchable, like, read_table
from fastvit.weights.layouts import skeleton

KERNELS = "cuda", "hopper", "triton"
FAMILY = "t8", "t12", "s12", "sa12", "sa24", "sa36", "ma36"


def steps(name: str, batch: int = 128, size: int = 256) -> list[tuple[Step, torch.Tensor]]:
    """Those of a variant, each with the map that it gets; nothing is computed."""
    model = skeleton(fastvit.create_model(name).config, "fused").to(torch.float16)
    x = torch.empty(batch, size, size, 3, dtype=torch.float16, device="meta")
    found = []
    for node in classifier_nodes(model):
        found.append((node.step, x))
        x = node.step.torch(x)
    return found


@pytest.mark.parametrize(("name", "batch"), [("t8", 128), ("sa12", 1), ("ma36", 128)])
def test_every_step_of_the_family_has_a_kernel(name: str, batch: int) -> None:
    """But for the last layer, in which PyTorch's is as good; few enough to try all of them."""
    for step, x in steps(name, batch):
        offered = step.choices(x, KERNELS)
        assert len(offered) <= 14
        assert len(set(offered)) == len(offered)
        if not step.name.startswith("linear"):
            assert offered, step.name
        if isinstance(step, Depthwise):
            few = x.numel() <= 1 << 20
            assert offered[0].kernel == ("triton" if few and step.stride == 1 else "cuda")
            assert {choice.kernel for choice in offered} == ({"cuda", "triton"} if few else {"cuda"})
            assert {choice.kernel for choice in step.choices(x, ["triton"])} == {"triton"}
        assert step.choices(x, []) == []


def test_the_least_that_a_network_costs() -> None:
    """SA12 at batch 128, by hand: multiply-accumulates as counted elsewhere, and its largest block's bytes."""
    costs = [(step, step.cost(x)) for step, x in steps("sa12")]
    macs = sum(cost.macs for _, cost in costs)
    # Without the depthwise convolutions and squeeze-and-excitation, which no matrix unit does.
    assert 0.85 * 128 * 1.937e9 < macs < 128 * 1.937e9
    ffn = next(cost for step, cost in costs if isinstance(step, FeedForward))
    assert ffn.bytes == 2 * (3 * 128 * 64 * 64 * 64 + 2 * 64 * 256)
    assert ffn.macs == 128 * 64 * 64 * 2 * 64 * 256


def test_strips_fit_the_map() -> None:
    """At 256 px those of 8, at 224 px those of 7; the least wasteful for what no strip divides."""
    assert [strip for strip, _ in strips(7, 1, 64)] == [8, 6, 4]
    assert [strip for strip, _ in strips(7, 1, 14)] == [7]
    assert [strip for strip, _ in strips(7, 1, 9)] == [8, 6, 4, 7]
    assert [strip for strip, _ in strips(3, 2, 1)] == [4]
    assert strips(5, 1, 64) == []


def test_a_width_that_no_kernel_takes() -> None:
    x = torch.empty(1, 8, 8, 7, dtype=torch.float16)
    conv = nn.Conv2d(7, 7, 7, 1, 3, groups=7).half()
    assert {choice.kernel for choice in Depthwise(conv).choices(x, KERNELS)} == {"triton"}
    tripled = nn.Conv2d(8, 24, 3, 1, 1, groups=8).half()
    assert {choice.kernel for choice in Depthwise(tripled).choices(x, KERNELS)} == {"triton"}
    assert Pointwise(nn.Linear(8, 8, bias=False)).choices(x, KERNELS) == []


def test_a_choice_is_remembered(tmp_path: Path) -> None:
    choice = Choice.of("cuda", strip=8, blocks=2, rows=32)
    (tmp_path / "table.json").write_text(json.dumps({"a step": choice.to_dict(), "another": {"kernel": "torch"}}))
    assert read_table(tmp_path / "table.json") == {"a step": choice, "another": Choice("torch")}
    for damage in ("", "[]", '{"a step": {}}', '{"a step": {"kernel": "cuda", "rows": "many"}}', '{"a step": 3}'):
        (tmp_path / "table.json").write_text(damage)
        assert read_table(tmp_path / "table.json") == {}
    assert read_table(tmp_path / "none.json") == {}


def test_a_choice_whose_kernel_is_not_here_is_none() -> None:
    table = {name: Choice.of(name, rows=1) for name in ("torch", "triton", "two", "cuda", "hopper")}
    assert set(launchable(table, ["triton"])) == {"torch", "triton", "two"}
    assert set(launchable(table, KERNELS)) == set(table)


def test_shapes_that_stand_for_others() -> None:
    def stands(*shape: int) -> tuple[int, ...]:
        return like(torch.empty(shape, device="meta"))

    assert stands(128, 256, 256, 3) == (128, 256, 256, 3)
    assert stands(3, 224, 56, 76) == (4, 224, 56, 76)
    assert stands(1, 7, 9, 5) == (1, 7, 10, 5)
    assert stands(257, 33, 1333, 5) == (512, 40, 1536, 5)
    assert stands(5, 1024) == (8, 1024)
    sides = {stands(1, side, 1, 1)[1] for side in range(1, 2049)}
    assert len(sides) < 50
    assert all(side <= stands(1, side, 1, 1)[1] < 1.25 * side + 1 for side in range(1, 2049))


def test_what_a_choice_depends_on() -> None:
    step = Pointwise(nn.Conv2d(8, 16, 1), act=True)
    keys = [key(step, torch.empty(batch, 4, 5, 8, dtype=torch.float16)) for batch in (5, 8, 9)]
    assert keys[:2] == ["1x1 8-16 GELU @ 4x5, batch 8, float16"] * 2
    assert keys[2] == "1x1 8-16 GELU @ 4x5, batch 16, float16"
    names = {node.step.name for node in backbone_nodes(fastvit.fuse(fastvit.create_model("t8")).backbone)}
    assert {"depthwise 7x7/1 48", "depthwise 7x7/2 48-96", "1x1 96-96 GELU", "FFN 48-144-48 +"} <= names


def jobs_of(name: str, batch: int, capability: int) -> list[dict[str, object]]:
    """Every Triton kernel that is offered for the FFNs of a variant, the widest and the narrowest."""
    found = []
    for step, x in steps(name, batch):
        if isinstance(step, FeedForward):
            first, second = split(step.channels)
            for choice in step.choices(x, ["triton"]):
                options = choice.options
                if choice.kernel == "triton":
                    sizes = {size: options.pop(size) for size in ("BLOCK_M", "BLOCK_N")}
                    constants = {"CHANNELS": step.channels, "HIDDEN": step.hidden, "FIRST": first, "SECOND": second}
                    job = {"name": "feed_forward", "capability": capability, "constants": {**constants, **sizes}}
                    found.append({**job, "dtype": "fp16", **options})
    return [job for i, job in enumerate(found) if job not in found[:i]]


def others(capability: int) -> list[dict[str, object]]:
    """One of each of the other kernels, in bfloat16."""
    depthwise = {"CHANNELS": 76, "MULTIPLIER": 2, "KERNEL": 7, "STRIDE": 2, "ACT": 1}
    shapes = {
        "pointwise": {"IN": 152, "OUT": 76, "ACT": 1, "RESIDUAL": 1, "BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64},
        "depthwise": {**depthwise, "BLOCK_H": 4, "BLOCK_W": 8, "BLOCK_C": 32},
        "stem": {"IN": 3, "OUT": 76, "TAPS": 32, "WIDTH": 128, "ROWS": 8, "BLOCK_M": 32},
        "attention": {"PIXELS": 121, "CHANNELS": 608, "HEAD": 32, "BLOCK": 128, "SCALE": 1},
        "gated_pool": {"PIXELS": 64, "CHANNELS": 1216, "HIDDEN": 76, "WIDTH": 2048, "BLOCK_P": 4, "BLOCK_H": 4},
    }
    return [
        {"name": name, "capability": capability, "constants": constants, "dtype": "bf16", "num_warps": 8}
        for name, constants in shapes.items()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_triton_kernels_compile_without_a_gpu(capability: int) -> None:
    pytest.importorskip("triton")
    jobs = others(capability)
    for name in ("t8", "sa12", "ma36"):
        jobs += jobs_of(name, 128, capability)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compile_triton"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        command, input=json.dumps(jobs), capture_output=True, text=True, env=environment, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(jobs)
    for result in results:
        assert result["registers"] <= 255
        assert result["local"] == 0
        # An H100 gives a block 227 KB; what an A100 has no room for is left out when it is timed.
        assert result["shared"] <= 227 * 1024, result
        if capability == 90 and result["job"]["name"] == "feed_forward":
            assert result["wgmma"], result


def test_what_is_shipped_can_be_launched() -> None:
    """Every choice of the tables that come along belongs to a step of the family, and is one of its launches."""
    tables = [read_table(path) for path in SHIPPED.glob("*.json")]
    assert tables
    known = {key(step, x): (step, x) for name in ("t8", "sa12", "ma36") for n in (1, 128) for step, x in steps(name, n)}
    for table in tables:
        assert table
        for name, choice in table.items():
            step, x = known[name]
            offered = step.choices(x, KERNELS)
            if isinstance(step, FeedForward):
                offered += [Choice("hopper", layout.options) for layout in layouts(step.channels, step.hidden)]
            assert choice in (TORCH, *offered), name
