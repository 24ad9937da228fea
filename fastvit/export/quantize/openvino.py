"""int8 for OpenVINO, with NNCF."""

from __future__ import annotations

from collections.abc import Collection

import nncf
import numpy as np
import openvino

from fastvit.export.quantize.calibration import batches, required
from fastvit.export.quantize.qdq import Layer


def quantize(
    model: openvino.Model, layers: Collection[Layer], calibration: np.ndarray | None, keep: Collection[str] = ()
) -> openvino.Model:
    """Return a copy of a model in int8.

    It uses NNCF's mixed preset: symmetric per-channel weights, activations with a zero point. The default preset has
    symmetric activations, which wastes half of the range on the negative outputs of GELU, all above -0.17: three times
    the error (docs/quantization.md). NNCF corrects biases for the remaining mean error.

    Args:
        model: float model, converted from ONNX.
        layers: layers of that ONNX graph.
        calibration: (N, C, H, W) calibration images, of the kind that the model takes.
        keep: names of layers to keep in float.

    Raises:
        UserError: there are no calibration images.
    """
    images = required(calibration)
    dimension = model.inputs[0].get_partial_shape()[0]
    # Batch size 1 if it is dynamic: the largest value of each image counts.
    parts = batches(images, dimension.get_length() if dimension.is_static else None, step=1)
    kept = {layer.node for layer in layers if layer.name in keep}
    names = [op.get_friendly_name() for op in model.get_ops() if op.get_friendly_name().split("/")[0] in kept]
    return nncf.quantize(
        model,
        nncf.Dataset(parts),
        subset_size=len(parts),
        ignored_scope=nncf.IgnoredScope(names=names, validate=False) if names else None,
        preset=nncf.QuantizationPreset.MIXED,
    )
