"""Milliseconds on a GPU: launches in a CUDA graph between events, so that what Python takes is in none of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastvit.kernels.inference.step import TORCH, Choice, Step

# Milliseconds that one replay should take, for the events' resolution, and launches in it.
_REPLAY = 1.0
_LAUNCHES = 4, 100
_ROUNDS = 7
# Maps below this share of the L2 cache come from it, in a network as here; larger ones are rotated past it.
_IN_CACHE = 0.25
# Relative difference from PyTorch's output that rounding cannot explain.
_WRONG = {torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Trial:
    """What came of trying a choice.

    Attributes:
        choice: that was tried.
        ms: a launch, the median; None where it failed.
        failure: why, in one line.
    """

    choice: Choice
    ms: float | None
    failure: str = ""


def try_choices(step: Step, x: Tensor, residual: Tensor | None, choices: Sequence[Choice]) -> list[Trial]:
    """Run every choice, compare its output with PyTorch's, and time those that are right; in their order."""
    reference = step.torch(x, residual)
    inputs = _rotated(x, residual)
    return [_try(step, inputs, reference, choice) for choice in choices]


def _try(step: Step, inputs: list[tuple[Tensor, Tensor | None]], reference: Tensor, choice: Choice) -> Trial:
    try:
        # What is freed here is what the output is likely to get: an element left unwritten is a NaN.
        poison = torch.full_like(reference, torch.nan)
        del poison
        output = step.run(*inputs[0], choice)
        apart = float((output.float() - reference.float()).norm() / reference.float().norm())
        if choice != TORCH and not apart <= _WRONG[output.dtype]:
            return Trial(choice, None, f"its output is {apart:.1e} from PyTorch's")
        return Trial(choice, graph_ms([partial(step.run, *pair, choice) for pair in inputs]))
    except Exception as error:  # compilers, and the driver where a block asks for more than the GPU has
        return Trial(choice, None, next(iter(str(error).splitlines()), "") or type(error).__name__)


def _rotated(x: Tensor, residual: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    size = x.numel() * x.element_size() * (1 if residual is None else 2)
    cache = torch.cuda.get_device_properties(x.device).L2_cache_size
    copies = 1 if size < _IN_CACHE * cache else max(2, -(-2 * cache // size))
    others = [(x.clone(), None if residual is None else residual.clone()) for _ in range(copies - 1)]
    return [(x, residual), *others]


def graph_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Median milliseconds of a call, of calls that take turns, each as often as the others."""
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
    """Median milliseconds between events before and behind a call."""
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]
