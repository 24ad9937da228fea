"""Times of each step of an accelerated network: kernel, PyTorch, and the roofline bound."""

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
        model: name of the network.
        batch: batch size.
        step: what it computes, with the shape of its input.
        choice: kernel and its configuration.
        count: number of such steps in the network.
        ms: time of the kernel in milliseconds; None if it failed.
        torch_ms: time of PyTorch in NHWC in milliseconds; None if it failed.
        floor_ms: roofline bound in milliseconds: its bytes at copy speed, or its arithmetic at matrix product speed.
    """

    model: str
    batch: int
    step: str
    choice: str
    count: int
    ms: float | None
    torch_ms: float | None
    floor_ms: float


def kernel_rows(name: str, model: AcceleratedClassifier, images: Tensor, machine: Machine) -> list[KernelRow]:
    """Time each kind of step of a network, in the order of the network.

    Args:
        name: name of the network.
        model: accelerated model on a GPU.
        images: (B, C, H, W) images in the precision of the model.
        machine: peak performance of the GPU.

    Raises:
        UserError: the model does not run in kernels.
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
    """Return the roofline bound of a step in milliseconds; depthwise convolutions count as float32 arithmetic.

    Args:
        step: step of the network.
        x: its input.
        machine: peak performance of the GPU.
    """
    cost = step.cost(x)
    products = cost.macs / machine.gflops["bf16" if x.dtype == torch.bfloat16 else "fp16"]
    taps = cost.fmas / machine.gflops["fp32"]
    return max(cost.bytes / machine.copy_gbps, 2 * products, 2 * taps) / 1e6
