"""int8 LiteRT models, through ai-edge-quantizer."""

from __future__ import annotations

import tempfile
from pathlib import Path


def quantize(content: bytes) -> bytes:
    """A model with int8 weights, a scale an output channel; activations are rounded as they come, image by image.

    So no images are needed to calibrate on. With ranges measured on images beforehand, FastViT is both slower in LiteRT
    and further from the float model (docs/quantization.md).

    Args:
        content: of a float .tflite file.
    """
    from ai_edge_quantizer import quantizer, recipe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return bytes(quantizer.Quantizer(str(path), recipe.dynamic_wi8_afp32()).quantize().quantized_model)
