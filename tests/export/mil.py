"""A Core ML package without Core ML: its operators one by one in PyTorch, in float32, with the weights as saved.

It tells whether a package says what the model computes; not how well Core ML computes that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import torch
from coremltools.converters.mil.frontend.milproto.load import load
from torch import Tensor
from torch.nn import functional as F


class MilProgram:
    """The one function of a package.

    Attributes:
        spec: of the package.
        operators: names of what it computes with, constants left out.
    """

    def __init__(self, path: Path) -> None:
        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        self.spec = model.get_spec()
        self.function = load(self.spec, self.spec.specificationVersion, model.weights_dir).functions["main"]
        self.operators = {operator.op_type for operator in self.function.operations} - {"const"}

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """Every value by its name; the outputs are among them."""
        (source,) = self.function.inputs
        values: dict[str, Any] = {source: torch.from_numpy(np.array(images, np.float32))}
        for operator in self.function.operations:
            arguments = {name: _value(values, given) for name, given in operator.inputs.items()}
            if operator.op_type != "const":
                output = OPERATORS[operator.op_type](**arguments)
                several = isinstance(output, (list, tuple))
                values.update(zip([v.name for v in operator.outputs], output if several else [output], strict=True))
        return values


def _value(values: dict[str, Any], given: Any) -> Any:
    if isinstance(given, (list, tuple)):
        return [_value(values, one) for one in given]
    if given.name in values:
        return values[given.name]
    value = given.val
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "fiu":
        return torch.from_numpy(value.astype(np.float32)) if value.dtype.kind == "f" else torch.from_numpy(value.copy())
    return value


def conv(x: Tensor, weight: Tensor, pad_type: str, pad: Tensor, strides: Tensor, groups: int, **rest: Any) -> Tensor:
    assert rest.pop("dilations").tolist() == [1, 1]
    top, bottom, left, right = pad.tolist() if pad_type == "custom" else {"valid": [0] * 4}[pad_type]
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=strides.tolist(), groups=int(groups), **rest)


def matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def classify(probabilities: Tensor, classes: list[str]) -> list[Any]:
    (row,) = probabilities.tolist()
    return [classes[int(np.argmax(row))], dict(zip(classes, row, strict=True))]


def dequantize(quantized_data: Tensor, zero_point: Any, scale: Any, axis: int) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(quantized_data.ndim)]
    scale, zero_point = (torch.as_tensor(value).float().reshape(shape) for value in (scale, zero_point))
    return scale * (quantized_data.float() - zero_point)


def look_up(indices: Tensor, lut: Tensor, shape: Tensor) -> Tensor:
    """Indices are packed, the lowest bit first."""
    sizes, bits = [int(side) for side in shape], (len(lut) - 1).bit_length()
    unpacked = np.unpackbits(indices.numpy(), bitorder="little")[: bits * int(np.prod(sizes))].reshape(-1, bits)
    return lut[torch.from_numpy(unpacked @ (1 << np.arange(bits)))].reshape(sizes)


def layer_norm(x: Tensor, axes: Tensor, epsilon: float, gamma: Any = None, beta: Any = None) -> Tensor:
    return F.layer_norm(x, [x.shape[int(axis)] for axis in axes], gamma, beta, float(epsilon))


def gelu(x: Tensor, mode: str) -> Tensor:
    assert mode == "EXACT"
    return F.gelu(x)


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "cast": lambda x, dtype: x,
    "classify": classify,
    "constexpr_affine_dequantize": dequantize,
    "constexpr_lut_to_dense": look_up,
    "conv": conv,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear": F.linear,
    "matmul": matmul,
    "mul": lambda x, y: x * y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), keepdim=bool(keep_dims)),
    "relu": torch.relu,
    "reshape": lambda x, shape: x.reshape(shape.tolist()),
    "sigmoid": torch.sigmoid,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "split": lambda x, split_sizes, axis: x.split(split_sizes.tolist(), int(axis)),
    "squeeze": lambda x, axes: x.squeeze(axes.tolist()),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
