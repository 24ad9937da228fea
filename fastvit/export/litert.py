"""LiteRT (.tflite), with the description in the metadata of the flatbuffer.

Inputs and feature maps are (B, C, H, W), as in all artifacts; LiteRT computes with channels last internally.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fastvit.export.program import Program
from fastvit.files import atomic
from fastvit.runtime.artifact import to_metadata
from fastvit.weights.description import METADATA_KEY


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Convert and write a program.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used: activations are quantized dynamically.

    Raises:
        UserError: the file cannot be written.
    """
    with TemporaryDirectory() as folder:
        import litert_torch

        converted = Path(folder) / "model.tflite"
        litert_torch.convert(program.module, (program.example,)).export(str(converted))
        content = converted.read_bytes()
        if program.signature.precision == "int8":
            from fastvit.export.quantize.litert import quantize

            content = quantize(content)
        content = with_metadata(content, to_metadata(program.description, program.signature))
    with atomic(path) as part:
        part.write_bytes(content)


def with_metadata(content: bytes, text: str) -> bytes:
    """Return the content of a model with a text added to its metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for weights in model.buffers:
        if weights.offset > 1:  # the quantizer stores weights behind the flatbuffer, at offsets that would change
            weights.data = np.frombuffer(content, np.uint8, weights.size, weights.offset)
            weights.offset = weights.size = 0
    field, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    field.name, field.buffer = METADATA_KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), field]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
