"""Network that runs its steps with the fastest kernels; plans and graphs are made when a shape first needs them."""

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

# Most pixels of a batch for which a graph is faster. Above, the GPU takes longer than Python's launches, and a graph
# would only add the copy of the images.
GRAPH_PIXELS = 128 * 256 * 256
# Most shapes with a graph; each graph has memory for its images and outputs, and all graphs share the rest.
_GRAPHS = 8


class Network:
    """Network on a GPU: (B, H, W, C) images -> outputs.

    Args:
        nodes: nodes of the network, with parameters on the GPU.
        device: GPU that runs the network.
        time: if False, kernels without a stored choice are guessed instead of timed.
        graphs: whether batches of up to GRAPH_PIXELS are replayed as CUDA graphs, from the second batch of a shape on.
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
        # Buffers that outlive the call may not be inference tensors, which are writable in inference mode only.
        with self._lock, torch.inference_mode(False), torch.no_grad(), torch.cuda.device(self._device):
            pixels = x.shape[0] * x.shape[1] * x.shape[2]
            # A graph cannot be replayed while the caller captures another one.
            if not self._graphing or pixels > GRAPH_PIXELS or torch.cuda.is_current_stream_capturing():
                return self.plan(x)(x)
            return self._replayable(x)(x)

    def plan(self, x: Tensor) -> Plan:
        """Return the plan for images of this shape; shapes that are rounded to the same one share a plan."""
        name = (like(x), x.dtype)
        if name not in self._plans:
            self._plans[name] = make_plan(self.nodes, x, self.choose)
            # Calls on other streams read the weights that were packed on this one.
            torch.cuda.current_stream(self._device).synchronize()
            self._tuner.save()
        return self._plans[name]

    def _replayable(self, x: Tensor) -> Plan | Graph:
        """Return the plan for the first batch of a shape, and its graph from the second on.

        A graph is not worth its capture if every image has another size.
        """
        name = (x.shape, x.stride(), x.dtype)
        graph = self._graphs.get(name)
        if graph is None:
            plan = self.plan(x)
            if name not in self._graphs:
                while len(self._graphs) >= _GRAPHS:
                    self._replayed.synchronize()  # the last replay may still run on another stream
                    self._graphs.popitem(last=False)
                self._graphs[name] = None
                return plan
            plan(x)
            graph = self._graphs[name] = Graph(plan, x, self._pool, self._replayed)
        self._graphs.move_to_end(name)
        return graph

    def choose(self, step: Step, x: Tensor, residual: Tensor | None) -> Choice:
        """Return the kernel for a step and its maps.

        Args:
            step: step to compute.
            x: input map.
            residual: map that the step adds, or None.
        """
        return self._tuner.choose(step, x, residual)

    def has_plan(self, x: Tensor) -> bool:
        """Return whether the plan for images of this shape exists, so that nothing needs to be compiled."""
        return (like(x), x.dtype) in self._plans
