"""int8 ONNX files for onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from fastvit.export.quantize.calibration import matching, required
from fastvit.export.quantize.qdq import calibrate, layers
from fastvit.export.quantize.sensitivity import BOUND, LOOKED_AT, choose


def quantize(
    model: onnx.ModelProto, calibration: np.ndarray | None, keep: Sequence[str] = (), bound: float = BOUND
) -> onnx.ModelProto:
    """A graph in int8.

    Depthwise convolutions stay in float: in onnxruntime they are both slower and less exact in int8. Where the error
    of the outputs is beyond the bound, so do the most sensitive of the others.

    Args:
        model: a float graph of `fastvit.export.onnx.convert`.
        calibration: (N, C, H, W) images such as the graph takes.
        keep: names, or patterns of names, of more layers to keep in float.
        bound: on the error of the outputs, see `fastvit.export.quantize.sensitivity.error`.

    Raises:
        UserError: there are no calibration images, or no layer of such a name.
    """
    images = required(calibration)
    found = layers(model)
    named = matching([layer.name for layer in found], keep)
    kept = [layer.name for layer in found if layer.kind == "depthwise" or layer.name in named]
    calibrated = calibrate(model, images)
    choice = choose(calibrated, images[:LOOKED_AT], kept, bound)
    return calibrated.quantized({layer.name for layer in found} - set(choice.kept))
