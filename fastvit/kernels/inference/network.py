"""Steps, run by the fastest kernels for whatever shape comes: plans and graphs are made when they are first needed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvit.kernels.inference.graphs import Graph
from fastvit.kernels.inference.program import Node, Plan, make_plan
from fastvit.kernels.inference.step import Choice, Step
from fastvit.kernels.inference.tuning import Tuner, like

# Pixels of a batch up to which a graph pays: above, the GPU takes longer than Python does to launch, and the images
# need not be copied to where the graph expects them.
GRAPH_PIXELS = 128 * 256 * 256
# Shapes that graphs are kept for; each holds the memory of its images and outputs, and all share the rest.
_GRAPHS = 8


class Network:
    """(B, H, W, C) images on a GPU -> outputs.

    Args:
        nodes: on that GPU.
        device: the GPU.
        time: as in Tuner.
        graphs: whether batches of up to GRAPH_PIXELS are replayed as CUDA graphs, from the second of a shape on.
    """

    def __init__(self, nodes: Sequence[Node], device: torch.device, time: bool = True, graphs: bool = True) -> None:
        self.nodes = nodes
        self._device, self._graphing = device, graphs
        self._tuner = Tuner(device, time)
        self._plans: dict[Any, Plan] = {}
        self._graphs: OrderedDict[Any, Graph | None] = OrderedDict()
        self._pool, self._replayed = torch.cuda.graph_pool_handle(), torch.cuda.Event()
        self._lock = threading.RLock()

    def __call__(self, x: Tensor) -> list[Tensor]:
        # Buffers that outlive the call may not be inference tensors, which could be written to in inference mode alone.
        with self._lock, torch.inference_mode(False), torch.no_grad(), torch.cuda.device(self._device):
            pixels = x.shape[0] * x.shape[1] * x.shape[2]
            # In a graph of the caller's there is no room for one of ours.
            if not self._graphing or pixels > GRAPH_PIXELS or torch.cuda.is_current_stream_capturing():
                return self.plan(x)(x)
            return self._replayable(x)(x)

    def plan(self, x: Tensor) -> Plan:
        """Kernels for images of such a shape; those of the first that is like it serve them all."""
        name = (like(x), x.dtype)
        if name not in self._plans:
            self._plans[name] = make_plan(self.nodes, x, self.choose)
            # Calls on other streams read the weights that were laid out on this one.
            torch.cuda.current_stream(self._device).synchronize()
            self._tuner.save()
        return self._plans[name]

    def _replayable(self, x: Tensor) -> Plan | Graph:
        """A plan for the first of a shape: images that all have sizes of their own would not pay for capturing."""
        name = (x.shape, x.stride(), x.dtype)
        graph = self._graphs.get(name)
        if graph is None:
            plan = self.plan(x)
            if name not in self._graphs:
                while len(self._graphs) >= _GRAPHS:
                    self._replayed.synchronize()  # on another stream it may not have ended
                    self._graphs.popitem(last=False)
                self._graphs[name] = None
                return plan
            plan(x)
            graph = self._graphs[name] = Graph(plan, x, self._pool, self._replayed)
        self._graphs.move_to_end(name)
        return graph

    def choose(self, step: Step, x: Tensor, residual: Tensor | None) -> Choice:
        """The kernel for a step and a map, as plans have it."""
        return self._tuner.choose(step, x, residual)

    def has_plan(self, x: Tensor) -> bool:
        """Whether nothing needs to be compiled for such images."""
        return (like(x), x.dtype) in self._plans
