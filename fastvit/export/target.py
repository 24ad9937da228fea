"""Table of export targets. Does not import torch."""

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
    """An export target. Its module has `write(program, path, calibration)`.

    Attributes:
        name: name on the command line.
        suffix: suffix of its files.
        runtime: name of the runtime that runs its files, see `fastvit.runtime.artifact.RUNTIMES`; None if there is
            none.
        module: module that writes the files, imported on first use.
        packages: Python packages that must be installed for writing.
        install: command that installs them.
        precisions: supported precisions.
        cast: precisions for which the network itself is cast before it is written.
        dynamic: dimensions that may be dynamic: "batch", "size".
        keeps_float: whether its int8 supports `ExportOptions.keep_float`.
        data_dependent: whether it supports networks whose number of outputs depends on the image, such as detectors.
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
        """Check that the target supports the options.

        Raises:
            UserError: an option is not supported, or a package is not installed.
        """
        if options.precision not in self.precisions:
            raise UserError(
                f"{self.name} does not support {options.precision}; it supports {', '.join(self.precisions)}"
            )
        for what, value in (("batch", options.batch), ("size", options.size)):
            if value == "dynamic" and what not in self.dynamic:
                raise UserError(f"{self.name} artifacts have a fixed {what}: give a number to --{what}")
        if options.keep_float and not self.keeps_float:
            raise UserError(f"{self.name} does not support --keep-float: leave it out")
        if missing := [package for package in self.packages if find_spec(package) is None]:
            raise UserError(f"{self.name} needs {', '.join(missing)}: {self.install}")

    def write(self, program: Program, path: Path, calibration: np.ndarray | None = None) -> None:
        """Write a program, with its description in the metadata fields of the format.

        Args:
            program: program to write, see `fastvit.export.program.build_program`.
            path: file to write, or folder if the format is a folder.
            calibration: (N, C, H, W) calibration images for int8, of the kind that the artifact takes.

        Raises:
            UserError: the converter of the format failed; its error is the cause.
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
                    f"the {self.name} converter failed on this network ({type(error).__name__}: {first_line(error)}); "
                    "try another target"
                ) from error

    @property
    def runner(self) -> Runtime | None:
        """Runtime that runs the artifacts; None if there is none."""
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
    """Return an export target by name, from the table or from a plugin.

    Raises:
        UserError: the target does not exist.
    """
    return find(TARGETS, "export target", name)


def register_target(target: Target) -> None:
    """Add an export target.

    Args:
        target: row of the table; its module has `write(program, path, calibration)`, see `docs/architecture.md`.

    Raises:
        UserError: a target of that name exists already.
    """
    register(TARGETS, "export target", target.name, target)
