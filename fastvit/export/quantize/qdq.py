"""ONNX graphs in int8, with QuantizeLinear and DequantizeLinear around each layer, by onnxruntime.quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from fastvit.export.quantize.calibration import batches

Kind = Literal["depthwise", "convolution", "linear"]
_TYPES = ("Conv", "MatMul", "Gemm")
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: name of the module in the fused model, such as "backbone.stages.0.blocks.0.ffn.fc1".
        node: name of the node in the graph.
        kind: depthwise convolution, other convolution, or linear layer.
    """

    name: str
    node: str
    kind: Kind


def layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers with weights in the order of computation; the products of attention are not among them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        Layer(_module(node), node.name, _kind(node))
        for node in model.graph.node
        if node.op_type in _TYPES and node.input[1] in constants
    ]


@dataclass(frozen=True)
class Calibrated:
    """A float graph with the range of each tensor on the calibration images.

    Attributes:
        model: graph of `fastvit.export.onnx.convert`.
        ranges: smallest and largest value of each tensor.
    """

    model: onnx.ModelProto
    ranges: TensorsData

    def quantized(self, names: Collection[str], per_channel: bool = True, narrow: bool = True) -> onnx.ModelProto:
        """Return a copy of the graph with some layers in int8.

        Weights are int8 and symmetric; activations are uint8 with a zero point, per tensor.

        Args:
            names: names of the layers to quantize; unknown names are ignored.
            per_channel: quantize weights per output channel instead of per tensor.
            narrow: keep weights within -64 to 64: x86 CPUs without VNNI add two products of a uint8 and an int8 in 16
                bits, which saturate, so that the same file would give other outputs there.
        """
        model = onnx.shape_inference.infer_shapes(self.model)
        nodes = [layer.node for layer in layers(self.model) if layer.name in names]
        if not nodes:  # an empty list would mean all layers
            return model
        options = {"MatMulConstBOnly": True}
        weights, activations = QuantType.QInt8, QuantType.QUInt8
        quantizer = QDQQuantizer(
            model, per_channel, narrow, weights, activations, self.ranges, nodes, [], list(_TYPES), options
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # other readers than ONNX Runtime require it
        return quantizer.model.model


def calibrate(model: onnx.ModelProto, calibration: np.ndarray) -> Calibrated:
    """Run a float graph on images and record the smallest and largest value of each tensor around a layer.

    Args:
        model: graph with one input.
        calibration: (N, C, H, W) calibration images, of the kind that the graph takes.
    """
    entry = model.graph.input[0]
    batch = entry.type.tensor_type.shape.dim[0].dim_value or None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(source, _TYPES, str(Path(folder) / "augmented.onnx"))
        calibrator.collect_data(_Reader(entry.name, batches(calibration, batch)))
        return Calibrated(model, calibrator.compute_data())


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, parts: list[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: part} for part in parts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def weight_types(model: onnx.ModelProto) -> dict[str, np.dtype[Any]]:
    """Return the type of each layer's weights in a graph, which may be quantized."""
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in model.graph.node:
        weight = sources.get(node.input[1], node.input[1]) if node.op_type in _TYPES else ""
        if weight in constants:
            found[_module(node)] = onnx.helper.tensor_dtype_to_np_dtype(constants[weight])
    return found


def _module(node: onnx.NodeProto) -> str:
    # The exporter records the modules of a node: ["", "model", ..., the layer, the operation].
    scopes = next((field.value for field in node.metadata_props if field.key == _SCOPES), "")
    names = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    return names[-2].removeprefix("model.") if len(names) > 1 else node.name


def _kind(node: onnx.NodeProto) -> Kind:
    if node.op_type != "Conv":
        return "linear"
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return "depthwise" if groups > 1 else "convolution"
