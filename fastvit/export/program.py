"""The network as it is exported: fused, with its input and outputs as asked for."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvit.errors import UserError
from fastvit.export.options import ExportOptions, Output
from fastvit.fusion import fuse
from fastvit.model.classifier import FastViT
from fastvit.runtime.artifact import Input, Precision, Signature
from fastvit.weights.description import Description

DTYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Exportable(nn.Module):
    """(B, C, H, W) images of a kind -> a tuple of float32 outputs.

    For pixels and images in [0, 1] the normalisation is inside, exactly: the mean is taken off before the first
    convolution, which pads with zeros (folded into its bias, the border would be wrong), the division by std is folded
    into the convolution's weights.

    Args:
        model: fused; it is taken over and changed.
        kind: of images.
        output: what to give.
        dtype: of the arithmetic between input and outputs.
    """

    shift: Tensor | None

    def __init__(self, model: FastViT, kind: Input, output: Output, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.output, self.dtype = output, dtype
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            for values in (model.preprocessing.mean, model.preprocessing.std)
        )
        shift = None
        if kind != "normalised":
            scale = 255.0 if kind == "pixels" else 1.0
            first = next(module for module in model.backbone.stem.modules() if isinstance(module, nn.Conv2d))
            with torch.no_grad():
                first.weight.copy_((first.weight.double() / (std * scale)).to(first.weight.dtype))
            shift = (mean * scale).float()
        self.register_buffer("shift", shift)
        self.model = (model.backbone if output == "features" else model).to(dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.float() if images.dtype == torch.uint8 else images
        x = (x if self.shift is None else x - self.shift).to(self.dtype)
        if self.output == "features":
            return tuple(stage.float() for stage in self.model(x))
        logits = self.model(x).float()
        return (logits.softmax(1) if self.output == "probabilities" else logits,)


@dataclass(frozen=True)
class Program:
    """What a target writes.

    Attributes:
        module: an Exportable in eval mode.
        example: images to trace it with.
        description: of the model.
        signature: of the artifact.
        keep_float: names of layers, or patterns of them, that int8 leaves in float.
    """

    module: Exportable
    example: Tensor
    description: Description
    signature: Signature
    keep_float: tuple[str, ...] = ()

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any]] | None:
        """torch.export's description of what may vary; None where nothing may."""
        dims: dict[int, Any] = {}
        if self.signature.batch is None:
            dims[0] = torch.export.Dim("batch")
        if self.signature.size is None:
            dims |= {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
        return (dims,) if dims else None


def build_program(model: FastViT, options: ExportOptions, cast: tuple[Precision, ...] = ()) -> Program:
    """Fuse a model and give it the input and outputs that were asked for.

    Args:
        model: in any form; it is left alone.
        options: one batch; the size is the model's own where none is given.
        cast: precisions for which the network itself is cast.
    """
    fused = fuse(model).cpu().float()
    size = None if options.size == "dynamic" else options.size or fused.preprocessing.size
    fused.preprocessing = fused.preprocessing.at_size(size or fused.preprocessing.size)
    description = Description.of(fused)
    outputs = tuple(f"stride{s}" for s in fused.backbone.strides) if options.output == "features" else (options.output,)
    batch = None if options.batch == "dynamic" else options.batch
    signature = Signature(options.precision, options.input, batch, size, outputs, digest(fused))
    if options.output != "features" and fused.num_classes == 0:
        raise UserError("the model has no head: export its feature maps with --output features")
    dtype = DTYPES[options.precision] if options.precision in cast else torch.float32
    module = Exportable(copy.deepcopy(fused), options.input, options.output, dtype).eval()
    # A batch of 1 would be taken for a constant.
    shape = (batch or 2, fused.config.in_chans, *fused.preprocessing.size)
    example = torch.zeros(shape, dtype=_dtype(options.input))
    return Program(module, example, description, signature, options.keep_float)


def digest(model: FastViT) -> str:
    """SHA-256 of a model's tensors with their names."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()


def _dtype(kind: Input) -> torch.dtype:
    return torch.uint8 if kind == "pixels" else torch.float32
