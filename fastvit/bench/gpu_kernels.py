"""Each step of an accelerated network: how long its kernel takes, how long PyTorch's, and how long it has to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastvit.bench.machine import Machine
from fastvit.errors import UserError
from fastvit.kernels.inference.accelerate import AcceleratedClassifier
from fastvit.kernels.inference.program import make_plan
from fastvit.kernels.inference.step import TORCH, Choice, Step
from fastvit.kernels.inference.timing import try_choices
from fastvit.kernels.inference.tuning import key


@dataclass(frozen=True)
class KernelRow:
    """A kind of step of a network.

    Attributes:
        network: its name.
        batch: images.
        step: what is computed, on which map.
        choice: what computes it.
        count: how often in the network.
        ms: of the choice; None where it failed.
        torch_ms: of PyTorch in NHWC; None where it failed.
        floor_ms: the bytes at the speed of a copy, or the arithmetic at that of a large matrix product.
    """

    network: str
    batch: int
    step: str
    choice: str
    count: int
    ms: float | None
    torch_ms: float | None
    floor_ms: float


def kernel_rows(name: str, model: AcceleratedClassifier, images: Tensor, machine: Machine) -> list[KernelRow]:
    """Time each kind of step of a network, in the order in which they come.

    Args:
        name: of the network.
        model: on a GPU.
        images: (B, C, H, W), of the model's precision.
        machine: the GPU's roof.
    """
    network = model.network
    if network is None:
        raise UserError(f"{name} runs in PyTorch: {model.reason}")
    rows: dict[str, KernelRow] = {}

    def choose(step: Step, x: Tensor, residual: Tensor | None) -> Choice:
        choice = network.choose(step, x, residual)
        kind = key(step, x)
        if kind in rows:
            rows[kind] = replace(rows[kind], count=rows[kind].count + 1)
        else:
            trials = try_choices(step, x, residual, list(dict.fromkeys([TORCH, choice])))
            rows[kind] = KernelRow(
                name,
                len(images),
                kind.partition(", batch")[0],
                str(choice),
                1,
                trials[-1].ms,
                trials[0].ms,
                floor(step, x, machine),
            )
        return choice

    with torch.inference_mode(False), torch.no_grad():
        make_plan(network.nodes, images.permute(0, 2, 3, 1), choose)
    return list(rows.values())


def floor(step: Step, x: Tensor, machine: Machine) -> float:
    """Milliseconds that a step takes at least on a machine, the taps of depthwise convolutions counted in float32."""
    cost = step.cost(x)
    products = cost.macs / machine.gflops["bf16" if x.dtype == torch.bfloat16 else "fp16"]
    taps = cost.fmas / machine.gflops["fp32"]
    return max(cost.bytes / machine.copy_gbps, 2 * products, 2 * taps) / 1e6
