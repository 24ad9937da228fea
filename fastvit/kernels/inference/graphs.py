"""A plan captured as a CUDA graph: one call of the driver where there were dozens of launches."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor

from fastvit.kernels.inference.program import Plan


class Graph:
    """A plan for images of one shape and memory format, replayed on the current stream.

    The outputs of a replay are copied out, so that the next one does not change them. Graphs that share a pool may not
    run at the same time: on whatever streams they are replayed, each waits for the one before it.

    Args:
        plan: that has run for such images before, so that its kernels are compiled and loaded.
        images: (B, H, W, C).
        pool: of memory, from `torch.cuda.graph_pool_handle`.
        done: recorded after each replay of a graph of that pool.
    """

    def __init__(self, plan: Plan, images: Tensor, pool: Any, done: torch.cuda.Event) -> None:
        self._input = torch.empty_strided(images.shape, images.stride(), dtype=images.dtype, device=images.device)
        self._input.copy_(images)
        self._graph = torch.cuda.CUDAGraph()
        self._done = done
        # Libraries choose their workspaces on a stream's first calls: let them on the one that is captured.
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                plan(self._input)
            stream.synchronize()
            gc_was_on = gc.isenabled()
            gc.disable()  # freeing another graph while this one is captured would break it
            try:
                # Other threads, such as a data loader's that pins memory, may go on meanwhile.
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
