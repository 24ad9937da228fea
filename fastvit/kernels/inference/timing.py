"""Timing of kernels on a GPU: launches in a CUDA graph between events, which leaves out the time of Python."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastvit.kernels.inference.step import TORCH, Choice, Step

# Milliseconds that one replay should take, because of the resolution of events; least and most launches in it.
_REPLAY = 1.0
_LAUNCHES = 4, 100
_ROUNDS = 7
# Maps below this share of the L2 cache stay in it, both in a network and here. Larger ones take turns with copies, so
# that they do not.
_IN_CACHE = 0.25
# Relative difference from PyTorch's output that rounding cannot explain.
_WRONG = {torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Trial:
    """Result of a trial of a choice.

    Attributes:
        choice: choice that was tried.
        ms: median time of a launch, in milliseconds; None if the choice failed.
        failure: reason of the failure, in one line.
    """

    choice: Choice
    ms: float | None
    failure: str = ""


def try_choices(step: Step, x: Tensor, residual: Tensor | None, choices: Sequence[Choice]) -> list[Trial]:
    """Run every choice, compare its output with PyTorch's, and time the choices whose output is correct.

    Args:
        step: step to compute.
        x: input map.
        residual: map that the step adds, or None.
        choices: choices to try.

    Returns:
        A trial for each choice, in their order.
    """
    reference = step.torch(x, residual)
    inputs = _rotated(x, residual)
    return [_try(step, inputs, reference, choice) for choice in choices]


def _try(step: Step, inputs: list[tuple[Tensor, Tensor | None]], reference: Tensor, choice: Choice) -> Trial:
    try:
        # The output is likely to get the memory that is freed here: elements that are not written are then NaN.
        poison = torch.full_like(reference, torch.nan)
        del poison
        output = step.run(*inputs[0], choice)
        apart = float((output.float() - reference.float()).norm() / reference.float().norm())
        if choice != TORCH and not apart <= _WRONG[output.dtype]:
            return Trial(choice, None, f"its output differs from PyTorch's by {apart:.1e}")
        return Trial(choice, graph_ms([partial(step.run, *pair, choice) for pair in inputs]))
    except Exception as error:  # from compilers, or from the driver if a block needs more than the GPU has
        return Trial(choice, None, next(iter(str(error).splitlines()), "") or type(error).__name__)


def _rotated(x: Tensor, residual: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    size = x.numel() * x.element_size() * (1 if residual is None else 2)
    cache = torch.cuda.get_device_properties(x.device).L2_cache_size
    copies = 1 if size < _IN_CACHE * cache else max(2, -(-2 * cache // size))
    others = [(x.clone(), None if residual is None else residual.clone()) for _ in range(copies - 1)]
    return [(x, residual), *others]


def graph_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Return the median time of a call in milliseconds; the calls take turns, each equally often."""
    for call in calls:
        call()
    estimate = max(_between(lambda: [call() for call in calls], 1) / len(calls), 1e-3)
    least, most = _LAUNCHES
    turns = -(-int(min(max(_REPLAY / estimate, least), most)) // len(calls))
    graph = torch.cuda.CUDAGraph()
    gc_was_on = gc.isenabled()
    gc.disable()  # freeing another graph while this one is captured would break it
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(turns):
                for call in calls:
                    call()
    finally:
        if gc_was_on:
            gc.enable()
    graph.replay()
    return _between(graph.replay, _ROUNDS) / (turns * len(calls))


def _between(call: Callable[[], object], rounds: int) -> float:
    """Return the median time between events before and after a call, in milliseconds."""
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]
