"""Programs: fused networks with the inputs and outputs of an artifact."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fastvit.errors import UserError
from fastvit.export.options import FEATURES, ExportOptions
from fastvit.fusion import fuse
from fastvit.model.task_model import TaskModel
from fastvit.runtime.artifact import Input, Precision, Signature, whole_images
from fastvit.tasks.spec import TaskSpec
from fastvit.tasks.table import find_task
from fastvit.weights.description import Description

DTYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Exportable(nn.Module):
    """Network of an artifact: (B, C, H, W) images, and other inputs of the model -> a tuple of float32 outputs.

    For pixels and images in [0, 1] it contains the normalization, exactly: the mean is subtracted before the first
    convolution, which pads with zeros (folded into its bias, the border would be wrong); the division by std is folded
    into the weights of the convolution.

    Args:
        model: fused model; it is changed in place.
        kind: kind of the images.
        output: name of the output.
        dtype: type of the arithmetic between input and outputs.
    """

    shift: Tensor | None

    def __init__(self, model: TaskModel, kind: Input, output: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.output, self.dtype = output, dtype
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            for values in (model.preprocessing.mean, model.preprocessing.std)
        )
        shift = None
        if kind != "normalized":
            scale = 255.0 if kind == "pixels" else 1.0
            first = next(module for module in model.trunk.stem.modules() if isinstance(module, nn.Conv2d))
            with torch.no_grad():
                first.weight.copy_((first.weight.double() / (std * scale)).to(first.weight.dtype))
            shift = (mean * scale).float()
        self.register_buffer("shift", shift)
        self.model = (model.pyramid if output == FEATURES else model).to(dtype)

    def forward(self, images: Tensor, image_size: Tensor | None = None) -> tuple[Tensor, ...]:
        x = images.float() if images.dtype == torch.uint8 else images
        x = (x if self.shift is None else x - self.shift).to(self.dtype)
        if self.output == FEATURES:
            return as_maps(self.model(x))
        others = () if image_size is None else (image_size,)
        outputs = tuple(output.float() for output in cast(Any, self.model).outputs(x, *others))
        return tuple(output.softmax(1) for output in outputs) if self.output == "probabilities" else outputs


def as_maps(pyramid: Sequence[Tensor] | Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the result of `TaskModel.pyramid` as float32 feature maps."""
    maps = pyramid.values() if isinstance(pyramid, Mapping) else pyramid
    return tuple(one.float() for one in maps)


@dataclass(frozen=True)
class Program:
    """Input of an export target.

    Attributes:
        module: network, in eval mode.
        example: example images for tracing.
        others: other example inputs for tracing, in the order of the signature.
        description: description of the model.
        signature: inputs and outputs of the artifact.
        keep_float: names of layers, or patterns of names, that int8 keeps in float.
    """

    module: Exportable
    example: Tensor
    description: Description
    signature: Signature
    others: tuple[Tensor, ...] = ()
    keep_float: tuple[str, ...] = ()

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any]] | None:
        """Dynamic dimensions, as torch.export takes them; None if there are none."""
        dims: dict[int, Any] = {}
        if self.signature.batch is None:
            dims[0] = torch.export.Dim("batch")
        if self.signature.size is None:
            dims |= {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
        return (dims,) if dims else None


def build_program(model: TaskModel, options: ExportOptions, cast: tuple[Precision, ...] = ()) -> Program:
    """Fuse a model and give it the inputs and outputs of an artifact.

    Args:
        model: model in any form; it is not changed.
        options: options of the artifact.
        cast: precisions for which the network itself is cast.

    Raises:
        UserError: the model does not support the options.
    """
    spec = find_task(model.task)
    output = _output(model, options, spec)
    fused = fuse(model).cpu().float()
    size: tuple[int, int] | None = None
    if options.size != "dynamic":
        size, fused.preprocessing = spec.export_shape(fused.preprocessing, output, options.size)
    spec.prepare_export(fused)
    outputs = {
        FEATURES: tuple(f"stride{stride}" for stride in fused.pyramid_strides),
        "probabilities": ("probabilities",),
    }.get(output, fused.output_names)
    batch = None if options.batch == "dynamic" else options.batch
    inputs = ("images",) if output == FEATURES else fused.input_names
    signature = Signature(options.precision, options.input, batch, size, outputs, digest(fused), inputs)
    dtype = DTYPES[options.precision] if options.precision in cast else torch.float32
    module = Exportable(copy.deepcopy(fused), options.input, output, dtype).eval()
    # torch.export would treat a batch size of 1 as a constant.
    shape = (batch or 2, fused.config.in_chans, *(size or fused.preprocessing.fixed_size))
    example = torch.zeros(shape, dtype=_dtype(options.input))
    others = (torch.from_numpy(whole_images(example.numpy())),) if "image_size" in inputs else ()
    return Program(module, example, Description.of(fused), signature, others, options.keep_float)


def _output(model: TaskModel, options: ExportOptions, spec: TaskSpec) -> str:
    output = options.output or spec.outputs[0]
    if output not in (*spec.outputs, FEATURES):
        raise UserError(
            f"a model for {spec.name} does not have the output {output!r}; choose from "
            f"{', '.join((*spec.outputs, FEATURES))}"
        )
    if output != FEATURES and model.num_classes == 0:
        raise UserError("the model does not have a head: export its feature maps with --output features")
    spec.check_export(options, output)
    if options.precision in ("int8", "palettized") and not spec.int8:
        raise UserError(
            f"{options.precision} is not available for {spec.name}: use fp32, or fp16 if the target supports it"
        )
    return output


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of the names and values of a model's tensors."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()


def _dtype(kind: Input) -> torch.dtype:
    return torch.uint8 if kind == "pixels" else torch.float32
