"""`fastvit.accelerate`: a fused model whose FastViT runs in kernels where these are faster than PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from fastvit.errors import UserError
from fastvit.fusion import fuse, replaced
from fastvit.kernels.inference.network import Network
from fastvit.kernels.inference.program import Node, backbone_nodes, classifier_nodes, unknown_part
from fastvit.kernels.inference.step import nchw
from fastvit.kernels.inference.support import unsupported
from fastvit.model.backbone import Backbone
from fastvit.model.classifier import FastViT
from fastvit.model.task_model import TaskModel

Model = TypeVar("Model", bound=nn.Module)
# Held while a network is made for kernels: threads that share a model share it. Not in the model, which is copied.
_MAKING = threading.Lock()


def accelerate(model: Model, example: Tensor | None = None, *, time: bool = True, graphs: bool = True) -> Model:
    """The same function, faster on a GPU: every FastViT in the model is replaced by one that runs in kernels.

    Kernels are for NVIDIA GPUs from Ampere on, in float16 and bfloat16: `model.half()` before, if the precision is to
    change; it is never changed here. Everywhere else, and for what needs gradients, the network runs in PyTorch as it
    is; the attribute `reason` of what replaced it says why. For every new kind of shape (the batch to the next power of
    two, the sides to three significant bits) each step's fastest kernel is found once and remembered on disk, with
    PyTorch's among the candidates. Batches of up to 128 images of 256 px are replayed as CUDA graphs from the second
    call on. Other threads wait while a call is under way.

    Args:
        model: a classifier, backbone, detector, segmenter, or any module that contains one; it is fused if it is not
            yet, and stays as it is itself.
        example: images such as will come; what takes time is then done now.
        time: False takes the kernel that is the likeliest instead of timing what is not known.
        graphs: False never captures a CUDA graph.

    Returns:
        A new module in eval mode, whose parameters need no gradients. It can be moved and cast; `fastvit.save` takes
        the fused model, not this.

    Raises:
        UserError: there is no FastViT in the model.
    """
    with torch.inference_mode(False):  # parameters made in it could be used in inference mode alone
        new = replaced(fuse(model), lambda module: _accelerated(module, time, graphs)).requires_grad_(False).eval()
    if not any(isinstance(module, Accelerated) for module in new.modules()):
        raise UserError(f"there is no FastViT in this {type(model).__name__} to accelerate")
    if example is not None:
        with torch.no_grad():
            new(example)
    return cast(Model, new)


def _accelerated(module: nn.Module, time: bool, graphs: bool) -> nn.Module | None:
    if isinstance(module, Accelerated):
        return module
    if isinstance(module, FastViT):
        return AcceleratedClassifier(module, time, graphs)
    return AcceleratedBackbone(module, time, graphs) if isinstance(module, Backbone) else None


class Accelerated(nn.Module):
    """What replaces a network: in kernels where these can serve, else the network as it is.

    Attributes:
        model: the fused network.
    """

    model: nn.Module
    _steps: Callable[[Any], list[Node]]

    def _take(self, model: nn.Module, time: bool, graphs: bool) -> None:
        self.model = model
        self._unknown = unknown_part(model)
        self._options = {"time": time, "graphs": graphs}
        self._network: Network | None = None

    @property
    def reason(self) -> str | None:
        """Why this runs in PyTorch wherever its parameters are now; None where it runs in kernels."""
        if self._unknown:
            return f"there are no kernels for {self._unknown}"
        like = next(self.model.parameters())
        return unsupported(like.device, like.dtype)

    @property
    def network(self) -> Network | None:
        """What runs in kernels, made when it is first needed; None where nothing can."""
        with _MAKING:
            if self._network is None and self.reason is None:
                with torch.no_grad():
                    device = next(self.model.parameters()).device
                    self._network = Network(type(self)._steps(self.model), device, **self._options)
            return self._network

    def _outputs(self, images: Tensor) -> list[Tensor] | None:
        """Of (B, C, H, W) images, NHWC or (B, ...); None where kernels cannot serve this call."""
        if self.training or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        network = self.network
        like = next(self.model.parameters())
        fits = images.ndim == 4 and images.numel() > 0 and (images.device, images.dtype) == (like.device, like.dtype)
        if network is None or not fits or (torch.is_grad_enabled() and images.requires_grad):
            return None
        dense = images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
        x = (images if dense else images.contiguous()).detach().permute(0, 2, 3, 1)
        if torch.cuda.is_current_stream_capturing() and not network.has_plan(x):
            return None
        return network(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Accelerated:
        # Moved or cast: what was made for the parameters as they were is of no use.
        self._network = None
        return cast(Accelerated, super()._apply(fn, recurse))

    def __getstate__(self) -> dict[str, Any]:
        # Graphs and compiled kernels stay in their process; a copy makes its own.
        return {**self.__dict__, "_network": None}


class AcceleratedClassifier(TaskModel, Accelerated):
    """(B, C, H, W) images -> (B, num_classes) logits."""

    task = FastViT.task
    output_names = ("logits",)
    _steps = staticmethod(classifier_nodes)

    def __init__(self, model: FastViT, time: bool = True, graphs: bool = True) -> None:
        super().__init__(model.config, model.variant, classes=model.classes, preprocessing=model.preprocessing)
        self._take(model, time, graphs)

    def forward(self, images: Tensor) -> Tensor:
        outputs = self._outputs(images)
        logits: Tensor = self.model(images) if outputs is None else outputs[0]
        return logits

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self(images),)


class AcceleratedBackbone(Accelerated):
    """(B, C, H, W) images -> a map a stage, in memory format channels_last."""

    _steps = staticmethod(backbone_nodes)

    def __init__(self, model: Backbone, time: bool = True, graphs: bool = True) -> None:
        super().__init__()
        self.config = model.config
        self._take(model, time, graphs)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each map."""
        return self.config.channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Of each map against the image."""
        return self.config.strides

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self._outputs(images)
        maps: list[Tensor] = self.model(images) if outputs is None else [nchw(output) for output in outputs]
        return maps
