"""Plan that is captured as a CUDA graph: one call of the driver replaces dozens of launches."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor

from fastvit.kernels.inference.program import Plan


class Graph:
    """CUDA graph of a plan for images of one shape and memory format; it is replayed on the current stream.

    Each replay returns copies of the outputs, so that the next one does not change them. Graphs that share a pool may
    not run at the same time: each replay waits for the one before it, on any stream.

    Args:
        plan: plan that has run for such images before, so that its kernels are compiled and loaded.
        images: example images, (B, H, W, C).
        pool: memory pool, from `torch.cuda.graph_pool_handle`.
        done: event that is recorded after each replay of a graph of this pool.
    """

    def __init__(self, plan: Plan, images: Tensor, pool: Any, done: torch.cuda.Event) -> None:
        self._input = torch.empty_strided(images.shape, images.stride(), dtype=images.dtype, device=images.device)
        self._input.copy_(images)
        self._graph = torch.cuda.CUDAGraph()
        self._done = done
        # Libraries allocate their workspaces in the first calls on a stream: make these calls on the captured stream.
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                plan(self._input)
            stream.synchronize()
            gc_was_on = gc.isenabled()
            gc.disable()  # freeing another graph while this one is captured would break it
            try:
                # Other threads may continue, such as one of a data loader that pins memory.
                with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = plan(self._input)
            finally:
                if gc_was_on:
                    gc.enable()
        torch.cuda.current_stream(images.device).wait_stream(stream)

    def __call__(self, images: Tensor) -> list[Tensor]:
        stream = torch.cuda.current_stream(images.device)
        stream.wait_event(self._done)
        self._input.copy_(images, non_blocking=True)
        self._graph.replay()
        outputs = [output.clone() for output in self._outputs]
        self._done.record(stream)
        return outputs
