"""The table of export targets. Needs no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastvit.errors import UserError, first_line
from fastvit.export.options import ExportOptions
from fastvit.plugins import find, register
from fastvit.runtime.artifact import Precision, Runtime, find_runtime
from fastvit.suppress_output import suppress_output

if TYPE_CHECKING:
    import numpy as np

    from fastvit.export.program import Program


@dataclass(frozen=True)
class Target:
    """A format. Its module has `write(program, path, calibration)`; what it writes, its runtime runs.

    Attributes:
        name: on the command line.
        suffix: of its files.
        runtime: what runs them, a name in `fastvit.runtime.artifact.RUNTIMES`; None where nothing of ours does.
        module: where it lives, imported when it is used.
        packages: what must be installed to write it, by their names in Python.
        install: how.
        precisions: on offer.
        cast: those of them for which the network itself is cast before it is written.
        dynamic: what may be left open, of "batch" and "size".
        keeps_float: whether its int8 leaves layers in float that one names.
        data_dependent: whether it takes a network whose number of outputs depends on the image, such as a detector.
    """

    name: str
    suffix: str
    runtime: str | None
    module: str
    packages: tuple[str, ...]
    install: str
    precisions: tuple[Precision, ...]
    cast: tuple[Precision, ...] = ()
    dynamic: tuple[str, ...] = ()
    keeps_float: bool = False
    data_dependent: bool = False

    def check(self, options: ExportOptions) -> None:
        """See that the target can do what is asked.

        Raises:
            UserError: it cannot, or something that it needs is not installed; in one sentence.
        """
        if options.precision not in self.precisions:
            raise UserError(f"{self.name} is not offered in {options.precision}; it is in {', '.join(self.precisions)}")
        for what, value in (("batch", options.batch), ("size", options.size)):
            if value == "dynamic" and what not in self.dynamic:
                raise UserError(f"{self.name} artifacts have a fixed {what}: give --{what} a number")
        if options.keep_float and not self.keeps_float:
            raise UserError(f"{self.name} quantizes every layer that it can: leave --keep-float out")
        if missing := [package for package in self.packages if find_spec(package) is None]:
            raise UserError(f"{self.name} needs {', '.join(missing)}: {self.install}")

    def write(self, program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
        """Write a program, with what it says of itself in the format's own metadata fields.

        Args:
            program: of `fastvit.export.program`.
            path: file, or folder for a format of several.
            calibration: (N, C, H, W) images such as the artifact takes, for int8.

        Raises:
            UserError: the format's converter ended in an error, of whatever kind: it is the cause.
            OSError: the artifact cannot be written.
        """
        with suppress_output():
            module = importlib.import_module(self.module)
            try:
                module.write(program, path, calibration)
            except (UserError, OSError):
                raise
            except Exception as error:
                raise UserError(
                    f"{self.name}'s converter cannot take this network ({type(error).__name__}: {first_line(error)}); "
                    "other targets may"
                ) from error

    @property
    def runner(self) -> Runtime | None:
        """What runs the artifacts; None where nothing of ours does."""
        return find_runtime(self.runtime) if self.runtime else None


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            suffix=".onnx",
            runtime="onnxruntime",
            module="fastvit.export.onnx",
            packages=("onnx", "onnxscript"),
            install="pip install onnx onnxscript",
            precisions=("fp32", "fp16", "int8"),
            cast=("fp16",),
            dynamic=("batch", "size"),
            keeps_float=True,
            data_dependent=True,
        ),
        Target(
            name="openvino",
            suffix=".xml",
            runtime="openvino",
            module="fastvit.export.openvino",
            packages=("openvino",),
            install='pip install "fastvit[openvino]"',
            precisions=("fp32", "fp16", "bf16", "int8"),
            dynamic=("batch", "size"),
            keeps_float=True,
        ),
        Target(
            name="torch",
            suffix=".pt2",
            runtime="torch",
            module="fastvit.export.pt2",
            packages=("torch",),
            install="pip install torch",
            precisions=("fp32", "fp16", "bf16"),
            cast=("fp16", "bf16"),
            dynamic=("batch",),
        ),
        Target(
            name="aoti",
            suffix=".aoti.pt2",
            runtime="aoti",
            module="fastvit.export.aoti",
            packages=("torch",),
            install="pip install torch",
            precisions=("fp32", "bf16"),
            cast=("bf16",),
            dynamic=("batch",),
        ),
        Target(
            name="executorch",
            suffix=".pte",
            runtime="executorch",
            module="fastvit.export.executorch",
            packages=("executorch",),
            install='pip install "fastvit[executorch]"',
            precisions=("fp32", "int8"),
        ),
        Target(
            name="executorch-coreml",
            suffix=".coreml.pte",
            runtime="executorch-coreml",
            module="fastvit.export.executorch_coreml",
            packages=("executorch", "coremltools"),
            install='pip install "fastvit[executorch,coreml]"',
            precisions=("fp32", "fp16"),
        ),
        Target(
            name="coreml",
            suffix=".mlpackage",
            runtime="coreml",
            module="fastvit.export.coreml",
            packages=("coremltools",),
            install='pip install "fastvit[coreml]"',
            precisions=("fp32", "fp16", "int8", "palettized"),
            dynamic=("batch",),
        ),
        Target(
            name="litert",
            suffix=".tflite",
            runtime="litert",
            module="fastvit.export.litert",
            packages=("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
            install='pip install "fastvit[litert]"',
            precisions=("fp32", "int8"),
        ),
        Target(
            name="tensorrt",
            suffix=".trt.onnx",
            runtime=None,
            module="fastvit.export.tensorrt",
            packages=("onnx", "onnxscript"),
            install="pip install onnx onnxscript",
            precisions=("fp32", "fp16"),
            cast=("fp16",),
            dynamic=("batch", "size"),
        ),
        Target(
            name="ncnn",
            suffix=".ncnn.param",
            runtime="ncnn",
            module="fastvit.export.ncnn",
            packages=("pnnx", "ncnn"),
            install='pip install "fastvit[ncnn]"',
            precisions=("fp32", "fp16"),
        ),
    )
}


def find_target(name: str) -> Target:
    """Return a row of the table, of a plugin if need be.

    Raises:
        UserError: there is no such target.
    """
    return find(TARGETS, "export target", name)


def register_target(target: Target) -> None:
    """Add an export target.

    Args:
        target: its module has `write(program, path, calibration)`; see `docs/architecture.md` for an example.

    Raises:
        UserError: there is a target of that name.
    """
    register(TARGETS, "export target", target.name, target)
