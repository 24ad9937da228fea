"""TensorRT: an ONNX file (.trt.onnx), and the trtexec command that builds the engine from it (.trt.txt).

Engines run only on the kind of GPU and the TensorRT version that built them, so build them where they will run. If
`tensorrt` is installed, the engine is built as well. TensorRT 11 takes the types from the ONNX file, and 10 does with
--stronglyTyped: float16 is in the file, not a flag.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fastvit.errors import UserError
from fastvit.export import onnx
from fastvit.export.program import Program
from fastvit.files import atomic, write_text

# Batch size that an engine with a dynamic batch is tuned for, and the largest one.
OPT_BATCH, MAX_BATCH = 8, 64
# Dynamic height and width go up to this multiple of the model's own.
MAX_SCALE = 2


@dataclass(frozen=True)
class Profile:
    """Range of input shapes (B, C, H, W) of an engine.

    Attributes:
        least: smallest shape.
        best: shape that the engine is tuned for.
        most: largest shape.
    """

    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write an ONNX file and the trtexec command for it; build the engine (.engine) if TensorRT is installed.

    Args:
        program: program to write.
        path: file to write.
        calibration: not used.

    Raises:
        UserError: a file cannot be written, or TensorRT does not support the program.
    """
    onnx.write(program, path)
    engine = path.with_suffix("").with_suffix(".engine")
    profile = shapes(program)
    write_text(path.with_suffix(".txt"), command(program, path.name, engine.name, profile) + "\n")
    if find_spec("tensorrt") is not None:
        build(path, engine, profile, exact=program.signature.precision == "fp32")


def shapes(program: Program) -> Profile | None:
    """Return the range of dynamic shapes; None if all are fixed."""
    batch, size = program.signature.batch, program.signature.size
    if batch and size:
        return None
    channels, height, width = program.example.shape[1:]
    return Profile(
        (batch or 1, channels, *(size or (32, 32))),
        (batch or OPT_BATCH, channels, height, width),
        (batch or MAX_BATCH, channels, *(size or (MAX_SCALE * height, MAX_SCALE * width))),
    )


def command(program: Program, source: str, engine: str, profile: Profile | None) -> str:
    """Return the trtexec command that builds an engine, to be run in the folder of the ONNX file.

    Args:
        program: program that was written.
        source: name of the ONNX file.
        engine: name of the engine to build.
        profile: range of dynamic shapes; None if all are fixed.
    """
    words = ["trtexec", f"--onnx={source}", f"--saveEngine={engine}", "--stronglyTyped"]
    if program.signature.precision == "fp32":
        words.append("--noTF32")
    if profile:
        for name, shape in (("min", profile.least), ("opt", profile.best), ("max", profile.most)):
            words.append(f"--{name}Shapes={onnx.INPUT}:{'x'.join(map(str, shape))}")
    return shlex.join(words)


def build(source: Path, engine: Path, profile: Profile | None, exact: bool) -> None:
    """Build an engine. No test runs it: it needs an NVIDIA GPU and TensorRT 10 or 11.

    Args:
        source: ONNX file.
        engine: file to write.
        profile: range of dynamic shapes; None if all are fixed.
        exact: compute float32 in float32 instead of TF32.

    Raises:
        UserError: TensorRT does not support the program.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    config = builder.create_builder_config()
    if exact:
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    if profile:
        open_shapes = builder.create_optimization_profile()
        open_shapes.set_shape(onnx.INPUT, profile.least, profile.best, profile.most)
        config.add_optimization_profile(open_shapes)
    plan = builder.build_serialized_network(network, config) if parser.parse(source.read_bytes()) else None
    if plan is None:
        reason = parser.get_error(0) if parser.num_errors else "no kernels for it on this GPU"
        raise UserError(f"TensorRT cannot build {source}: {reason}")
    with atomic(engine) as part:
        part.write_bytes(plan)
