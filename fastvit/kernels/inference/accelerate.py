"""`fastvit.accelerate`: run a fused model with GPU kernels wherever these are faster than PyTorch."""

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
# Lock while a network is made for kernels, because threads may share a model. It is not in the model, which is copied.
_MAKING = threading.Lock()


def accelerate(model: Model, example: Tensor | None = None, *, time: bool = True, graphs: bool = True) -> Model:
    """Return a faster model for GPUs: every FastViT in it is fused and runs with the kernels of this package.

    The kernels need an NVIDIA GPU (Ampere or newer) and float16 or bfloat16. The dtype is not changed here: call
    `model.half()` before. On other devices, in other dtypes and for gradients, the fused network runs in PyTorch; the
    attribute `reason` of the module that replaces it contains the reason.

    For each step and shape the fastest kernel is found once, with PyTorch among the candidates, and cached on disk.
    Shapes are rounded for this: the batch up to a power of two, height and width to three significant bits. Batches of
    up to 128 images of 256 px are replayed as CUDA graphs from the second call on. Calls from several threads run one
    after the other.

    Args:
        model: classifier, backbone, detector, segmenter, or any module that contains one. It is not changed.
        example: images of the shape that will be used; kernels are then compiled and timed now, not in the first call.
        time: if False, kernels without a stored choice are guessed instead of timed.
        graphs: if False, no CUDA graph is captured.

    Returns:
        A new module in eval mode, whose parameters need no gradients. It can be moved and cast. `fastvit.save` takes
        the fused model, not this one.

    Raises:
        UserError: the model does not contain a FastViT.
    """
    with torch.inference_mode(False):  # parameters that are made in inference mode can be used only there
        new = replaced(fuse(model), lambda module: _accelerated(module, time, graphs)).requires_grad_(False).eval()
    if not any(isinstance(module, Accelerated) for module in new.modules()):
        raise UserError(f"cannot accelerate {type(model).__name__}: it does not contain a FastViT")
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
    """Module that replaces a network: it runs the kernels where they are supported, else the network in PyTorch.

    Attributes:
        model: fused network.
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
        """Reason why the network runs in PyTorch on its current device; None if it runs with kernels."""
        if self._unknown:
            return f"the kernels do not support {self._unknown}"
        like = next(self.model.parameters())
        return unsupported(like.device, like.dtype)

    @property
    def network(self) -> Network | None:
        """Network that runs with kernels, made when it is first needed; None if the kernels are not supported."""
        with _MAKING:
            if self._network is None and self.reason is None:
                with torch.no_grad():
                    device = next(self.model.parameters()).device
                    self._network = Network(type(self)._steps(self.model), device, **self._options)
            return self._network

    def _outputs(self, images: Tensor) -> list[Tensor] | None:
        """Return the outputs, NHWC or (B, ...), for (B, C, H, W) images; None if kernels cannot compute this call."""
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
        # The parameters are moved or cast: a network for the old ones is of no use.
        self._network = None
        return cast(Accelerated, super()._apply(fn, recurse))

    def __getstate__(self) -> dict[str, Any]:
        # Graphs and compiled kernels belong to a process; a copy makes its own.
        return {**self.__dict__, "_network": None}


class AcceleratedClassifier(TaskModel, Accelerated):
    """Classifier with kernels: (B, C, H, W) images -> (B, num_classes) logits."""

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
    """Backbone with kernels: (B, C, H, W) images -> a map per stage, in memory format channels_last."""

    _steps = staticmethod(backbone_nodes)

    def __init__(self, model: Backbone, time: bool = True, graphs: bool = True) -> None:
        super().__init__()
        self.config = model.config
        self._take(model, time, graphs)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return self.config.channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each map against the image."""
        return self.config.strides

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self._outputs(images)
        maps: list[Tensor] = self.model(images) if outputs is None else [nchw(output) for output in outputs]
        return maps
