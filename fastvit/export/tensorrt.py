"""TensorRT: an ONNX file for it (.trt.onnx), and beside it the trtexec line that builds the engine (.trt.txt).

Engines run on the kind of GPU and the version that built them alone, so they are built where they will run; where
`tensorrt` is installed, here. TensorRT 11 takes every type from the ONNX file, and 10 does so when it is told to:
float16 is in the file then, not a flag.
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

# Images a call that an engine of open batch is tuned for, and that it takes at most.
OPT_BATCH, MAX_BATCH = 8, 64
# Open sides go up to this many times the model's own.
MAX_SCALE = 2


@dataclass(frozen=True)
class Profile:
    """Shapes (B, C, H, W) that an engine takes: the smallest, those it is tuned for, the largest."""

    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]


def write(program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a program and the line for it, and build the engine (.engine) where TensorRT is here.

    Raises:
        UserError: a file cannot be written, or TensorRT does not take the program.
    """
    onnx.write(program, path)
    engine = path.with_suffix("").with_suffix(".engine")
    profile = shapes(program)
    write_text(path.with_suffix(".txt"), command(program, path.name, engine.name, profile) + "\n")
    if find_spec("tensorrt") is not None:
        build(path, engine, profile, exact=program.signature.precision == "fp32")


def shapes(program: Program) -> Profile | None:
    """What may vary and how far; None where nothing may."""
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
    """The trtexec line that builds an engine; to be given in the folder of its source."""
    words = ["trtexec", f"--onnx={source}", f"--saveEngine={engine}", "--stronglyTyped"]
    if program.signature.precision == "fp32":
        words.append("--noTF32")
    if profile:
        for name, shape in (("min", profile.least), ("opt", profile.best), ("max", profile.most)):
            words.append(f"--{name}Shapes={onnx.INPUT}:{'x'.join(map(str, shape))}")
    return shlex.join(words)


def build(source: Path, engine: Path, profile: Profile | None, exact: bool) -> None:
    """Build the engine. Not run by any test: it needs a GPU of NVIDIA's and TensorRT 10 or 11.

    Args:
        source: ONNX file.
        engine: file to write.
        profile: of open shapes.
        exact: whether float32 is to be computed in float32, not in TF32.

    Raises:
        UserError: TensorRT does not take the program.
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
