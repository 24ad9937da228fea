"""Exported artifacts: the description in the file, and a call that checks its inputs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastvit.errors import UserError
from fastvit.plugins import find, load_plugins, register
from fastvit.renames import INPUTS
from fastvit.suppress_output import suppress_output
from fastvit.weights.description import Description

Precision = Literal["fp32", "fp16", "bf16", "int8", "palettized"]
Input = Literal["normalized", "unit", "pixels"]
# Inputs in the order of the signature -> outputs in the order of the signature.
Run = Callable[..., Sequence[np.ndarray]]

# Key of the signature in the metadata, beside the description.
_SIGNATURE = "artifact"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of an artifact.

    Attributes:
        precision: precision of the arithmetic or weights; inputs are float32 or uint8, outputs float32 in any case.
        input: kind of (B, C, H, W) images: "normalized" (float32), "unit" (float32 in [0, 1]) or "pixels" (uint8).
        batch: batch size; None for any.
        size: height and width of the images, in pixels; None for any of at least 32.
        outputs: names of the outputs, in order, such as "logits" or "probabilities", (B, classes), or "stride4", ....
        digest: SHA-256 of the fused float32 weights that were exported.
        inputs: names of the inputs, in order: "images", for detectors also "image_size", (B, 2) int64: height and width
            of each image, which is in the upper left corner of a padded canvas.
    """

    precision: Precision
    input: Input
    batch: int | None
    size: tuple[int, int] | None
    outputs: tuple[str, ...]
    digest: str
    inputs: tuple[str, ...] = ("images",)  # default for files without the names

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signature:
        """Return a signature from its dict, as `dataclasses.asdict` or JSON gives it."""
        size = data["size"]
        names = {name: tuple(data[name]) for name in ("inputs", "outputs") if name in data}
        kind = INPUTS.get(data["input"], data["input"])
        return cls(**{**data, "input": kind, "size": tuple(size) if size else None, **names})

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy type of the images."""
        return np.dtype(np.uint8 if self.input == "pixels" else np.float32)

    def check(self, images: np.ndarray, channels: int) -> None:
        """Check the images before they reach a runtime, which may crash or compute wrong outputs otherwise.

        Args:
            images: (B, C, H, W).
            channels: expected number of channels.

        Raises:
            UserError: the type, number of dimensions, channels, batch size or image size is not supported.
        """
        if images.dtype != self.dtype or images.ndim != 4 or images.shape[1] != channels:
            raise UserError(
                f"the artifact takes {self.dtype} images (B, {channels}, H, W), got {images.dtype} {images.shape}"
            )
        count, _, height, width = images.shape
        if count == 0 or (self.batch and count != self.batch):
            raise UserError(f"the artifact takes {self.batch or 'one or more'} images per call, got {count}")
        if self.size and (height, width) != self.size:
            raise UserError(
                f"the artifact takes images of {self.size[0]}x{self.size[1]} pixels, got {height}x{width}: resize "
                "them, or use the checkpoint"
            )
        if min(height, width) < 32:
            raise UserError(f"images must be at least 32x32 pixels, got {height}x{width}")


def whole_images(images: np.ndarray) -> np.ndarray:
    """Return (B, 2) int64 height and width of (B, C, H, W) images without padding."""
    return np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))


def to_metadata(description: Description, signature: Signature) -> str:
    """Return the metadata of an artifact, as JSON."""
    return json.dumps({**description.to_dict(), _SIGNATURE: asdict(signature)})


class Artifact:
    """An exported model, loaded in a runtime: call it with images, get arrays.

    Attributes:
        path: file or folder of the artifact.
        description: description of the model: variant, task, classes, preprocessing.
        signature: inputs and outputs.
        runtime: name of the runtime.

    Raises:
        UserError: the metadata is missing or was not written by this package.
    """

    def __init__(self, path: Path, metadata: str | None, runtime: str, run: Run) -> None:
        self.path, self.runtime, self._run = path, runtime, run
        try:
            content = json.loads(metadata or "")
            self.description = Description.from_dict(content, str(path))
            self.signature = Signature.from_dict(content[_SIGNATURE])
        except UserError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} was not written by fastvit export: it does not contain its classes and preprocessing"
            ) from error

    def __call__(self, images: np.ndarray, image_size: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the outputs by name, in float32.

        Args:
            images: (B, C, H, W), as described by the signature.
            image_size: (B, 2) height and width of each image in the upper left corner of a padded canvas; None without
                padding. Artifacts without this input treat padding as part of the image.

        Raises:
            UserError: the inputs do not match the signature.
        """
        self.signature.check(images, self.description.config.in_chans)
        inputs = [np.ascontiguousarray(images)]
        if "image_size" in self.signature.inputs:
            inputs.append(_checked_size(whole_images(images) if image_size is None else image_size, images))
        outputs = self._run(*inputs)
        return {
            name: np.asarray(output, np.float32) for name, output in zip(self.signature.outputs, outputs, strict=True)
        }

    def in_batches(self, images: np.ndarray, step: int | None = None) -> list[np.ndarray]:
        """Return the outputs in order, for any number of images, also if the artifact has a fixed batch size.

        Args:
            images: (N, C, H, W) images, as described by the signature except for N.
            step: batch size if the artifact has a dynamic one; by default all images at once.

        Raises:
            UserError: the images do not match the signature.
        """
        step = self.signature.batch or step or len(images)
        parts = []
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            missing = step - len(batch) if self.signature.batch else 0
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            parts.append([output[: len(batch)] for output in self(filled).values()])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _checked_size(size: np.ndarray, images: np.ndarray) -> np.ndarray:
    whole = whole_images(images)
    if size.shape != whole.shape or (size < 1).any() or (size > whole).any():
        raise UserError(
            f"image_size must have the shape {whole.shape}: height and width of each image, from 1 to {whole[0, 0]} "
            f"and {whole[0, 1]} pixels; got {size.tolist()}"
        )
    return np.ascontiguousarray(size, np.int64)


@dataclass(frozen=True)
class Runtime:
    """A runtime that loads and runs artifacts.

    Attributes:
        name: name for reports and for `Predictor(runtime=...)`.
        suffixes: file name suffixes that it reads.
        module: module with `read(path, threads) -> (metadata, run)`, imported on first use.
        package: Python package that must be installed.
        install: command that installs it.
        systems: supported operating systems, as `platform.system()` returns them.
        native_code: whether its files contain machine code, which is not checked.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    package: str
    install: str
    systems: tuple[str, ...] = ("Linux", "Darwin", "Windows")
    native_code: bool = False

    def available(self) -> str | None:
        """Return None if the runtime is available on this machine, else the reason in one sentence."""
        import platform
        from importlib.util import find_spec

        if platform.system() not in self.systems:
            return f"{self.name} runs on {', '.join(self.systems)}, this is {platform.system()}"
        if find_spec(self.package) is None:
            return f"{self.name} is not installed: {self.install}"
        return None

    def open(self, path: Path, threads: int | None = None) -> Artifact:
        """Load an artifact.

        Args:
            path: file or folder of the artifact.
            threads: number of threads per call, if the runtime supports it; None for the default of the runtime.

        Raises:
            UserError: the runtime is not available, or the file is missing, corrupt or not an artifact.
        """
        metadata, run = self.read(path, threads)
        return Artifact(path, metadata, self.name, run)

    def read(self, path: Path, threads: int | None = None) -> tuple[str | None, Run]:
        """Load a file: return its metadata, None if it has none, and a function that runs it.

        Args:
            path: file or folder.
            threads: number of threads per call, if the runtime supports it; None for the default of the runtime.

        Raises:
            UserError: the runtime is not available, or the file is missing or corrupt.
        """
        if reason := self.available():
            raise UserError(reason)
        if not path.exists():
            raise UserError(f"{path} does not exist")
        with suppress_output():
            output: tuple[str | None, Run] = importlib.import_module(self.module).read(path, threads)
        return output


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", (".onnx",), "fastvit.runtime.onnxruntime", "onnxruntime", "pip install onnxruntime"),
        Runtime(
            "openvino", (".xml", ".onnx"), "fastvit.runtime.openvino", "openvino", 'pip install "fastvit[openvino]"'
        ),
        Runtime("torch", (".pt2",), "fastvit.runtime.pt2", "torch", "pip install torch"),
        Runtime(
            "aoti",
            (".aoti.pt2",),
            "fastvit.runtime.aoti",
            "torch",
            "pip install torch",
            ("Linux", "Darwin"),
            native_code=True,
        ),
        Runtime(
            "executorch", (".pte",), "fastvit.runtime.executorch", "executorch", 'pip install "fastvit[executorch]"'
        ),
        Runtime(
            "executorch-coreml",
            (".coreml.pte",),
            "fastvit.runtime.executorch",
            "executorch",
            'pip install "fastvit[executorch]"',
            ("Darwin",),
        ),
        Runtime("litert", (".tflite",), "fastvit.runtime.litert", "ai_edge_litert", 'pip install "fastvit[litert]"'),
        Runtime("ncnn", (".ncnn.param",), "fastvit.runtime.ncnn", "ncnn", 'pip install "fastvit[ncnn]"'),
        Runtime(
            "coreml",
            (".mlpackage",),
            "fastvit.runtime.coreml",
            "coremltools",
            'pip install "fastvit[coreml]"',
            ("Darwin",),
        ),
    )
}


def register_runtime(runtime: Runtime) -> None:
    """Add a runtime.

    Args:
        runtime: row of the table; its module has `read(path, threads) -> (metadata, run)`, see `docs/architecture.md`.

    Raises:
        UserError: a runtime of that name exists already.
    """
    register(RUNTIMES, "runtime", runtime.name, runtime)


def runtimes_for(path: str | Path) -> list[Runtime]:
    """Return the runtimes that read a file, by its suffix; the longest one counts (.aoti.pt2 before .pt2)."""
    found = _matching(path)
    if not found:
        load_plugins()
    return found or _matching(path)


def _matching(path: str | Path) -> list[Runtime]:
    matches = [
        (suffix, runtime)
        for runtime in RUNTIMES.values()
        for suffix in runtime.suffixes
        if Path(path).name.endswith(suffix)
    ]
    longest = max((len(suffix) for suffix, _ in matches), default=0)
    return [runtime for suffix, runtime in matches if len(suffix) == longest]


def find_runtime(name: str) -> Runtime:
    """Return a runtime by name, from the table or from a plugin.

    Raises:
        UserError: the runtime does not exist.
    """
    return find(RUNTIMES, "runtime", name)


def open_artifact(
    path: str | Path, runtime: str = "auto", threads: int | None = None, allow_native_code: bool = False
) -> Artifact:
    """Open an exported model.

    Args:
        path: file or folder of the artifact.
        runtime: name of a runtime that reads it; "auto" takes the first available one.
        threads: number of threads per call, if the runtime supports it; None for the default of the runtime.
        allow_native_code: also load AOTInductor packages, which contain machine code. It runs with your rights and is
            not checked.

    Raises:
        UserError: no runtime reads the file, or the chosen one does not or is not available; the file is missing or
            corrupt, or contains native code that is not allowed.
    """
    readers = runtimes_for(path)
    if not readers:
        raise UserError(f"{path} is not an artifact: file names of artifacts end in {', '.join(sorted(_suffixes()))}")
    if runtime != "auto":
        chosen = find_runtime(runtime)
        if chosen not in readers:
            names = " or ".join(reader.name for reader in readers)
            raise UserError(f"{runtime} does not read {path}; it runs in {names}")
    else:
        chosen = next((reader for reader in readers if reader.available() is None), readers[0])
    if chosen.native_code and not allow_native_code and Path(path).exists():
        raise UserError(
            f"{path} contains native code, which runs with your rights: if you trust its source, use "
            "--allow-native-code, or allow_native_code=True in Python"
        )
    return chosen.open(Path(path), threads)


def is_artifact(path: str | Path) -> bool:
    """Return whether a path has the suffix of an exported model."""
    return bool(runtimes_for(path))


def _suffixes() -> set[str]:
    return {suffix for runtime in RUNTIMES.values() for suffix in runtime.suffixes}
