"""int8 for ONNX Runtime."""

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
    """Return a graph in int8.

    Depthwise convolutions stay in float: in ONNX Runtime they are slower and less accurate in int8. If the error of the
    outputs exceeds the bound, the most sensitive other layers stay in float as well.

    Args:
        model: float graph of `fastvit.export.onnx.convert`.
        calibration: (N, C, H, W) calibration images, of the kind that the graph takes.
        keep: names, or patterns of names, of further layers to keep in float.
        bound: largest error of the outputs, see `fastvit.export.quantize.sensitivity.error`.

    Raises:
        UserError: there are no calibration images, or a pattern does not match any layer.
    """
    images = required(calibration)
    found = layers(model)
    named = matching([layer.name for layer in found], keep)
    kept = [layer.name for layer in found if layer.kind == "depthwise" or layer.name in named]
    calibrated = calibrate(model, images)
    choice = choose(calibrated, images[:LOOKED_AT], kept, bound)
    return calibrated.quantized({layer.name for layer in found} - set(choice.kept))
