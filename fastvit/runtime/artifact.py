"""An exported model: its description in its file, and a call that refuses what the model cannot take."""

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
# The inputs in the order of the signature -> the outputs in that order.
Run = Callable[..., Sequence[np.ndarray]]

# Where the signature is beside the description.
_SIGNATURE = "artifact"


@dataclass(frozen=True)
class Signature:
    """What an artifact takes and gives.

    Attributes:
        precision: of its arithmetic or weights; what goes in and comes out is float32 in any case, or uint8 pixels.
        input: (B, C, H, W) images: "normalized" float32, "unit" float32 in [0, 1], or "pixels" uint8.
        batch: images a call; None for any number.
        size: height and width in pixels; None for any from 32 on.
        outputs: their names, in order: "logits" or "probabilities", (B, classes), or maps "stride4", ....
        digest: SHA-256 of the fused weights that it was made from, in float32.
        inputs: their names, in order: "images", and of a detector "image_size", (B, 2) int64: height and width of each
            image where it lies in the upper left corner of its canvas.
    """

    precision: Precision
    input: Input
    batch: int | None
    size: tuple[int, int] | None
    outputs: tuple[str, ...]
    digest: str
    inputs: tuple[str, ...] = ("images",)  # of files that do not contain the names

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signature:
        """The inverse of `dataclasses.asdict`, also after JSON."""
        size = data["size"]
        names = {name: tuple(data[name]) for name in ("inputs", "outputs") if name in data}
        kind = INPUTS.get(data["input"], data["input"])
        return cls(**{**data, "input": kind, "size": tuple(size) if size else None, **names})

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the images."""
        return np.dtype(np.uint8 if self.input == "pixels" else np.float32)

    def check(self, images: np.ndarray, channels: int) -> None:
        """See that images may go in; some runtimes would compute something wrong, or crash, where they may not.

        Raises:
            UserError: another type, number of dimensions or channels, batch or size.
        """
        if images.dtype != self.dtype or images.ndim != 4 or images.shape[1] != channels:
            raise UserError(
                f"the artifact takes {self.dtype} images (B, {channels}, H, W), these are {images.dtype} {images.shape}"
            )
        count, _, height, width = images.shape
        if count == 0 or (self.batch and count != self.batch):
            raise UserError(f"the artifact takes {self.batch or 'one or more'} images a call, these are {count}")
        if self.size and (height, width) != self.size:
            raise UserError(
                f"the artifact takes images of {self.size[0]}x{self.size[1]} pixels and no other size, these are "
                f"{height}x{width}: use the checkpoint that it was made from"
            )
        if min(height, width) < 32:
            raise UserError(f"images must have at least 32 pixels a side, these are {height}x{width}")


def whole_images(images: np.ndarray) -> np.ndarray:
    """(B, 2) int64: height and width of (B, C, H, W) images, all of which is image."""
    return np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))


def to_metadata(description: Description, signature: Signature) -> str:
    """Return what a file contains about its model, as JSON."""
    return json.dumps({**description.to_dict(), _SIGNATURE: asdict(signature)})


class Artifact:
    """An exported model in its runtime: images in, arrays out.

    Attributes:
        path: its file or folder.
        description: of the model.
        signature: what it takes and gives.
        runtime: what runs it.
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
                f"{path} was not exported by this fastvit: it does not contain its classes and preprocessing"
            ) from error

    def __call__(self, images: np.ndarray, image_size: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The outputs, by name, float32.

        Args:
            images: (B, C, H, W), as the signature says.
            image_size: (B, 2) height and width of each image where it lies in the upper left corner of a canvas that is
                filled up around it; None where all of it is image. An artifact that does not have it among its inputs
                takes all of it for image in any case.

        Raises:
            UserError: they are not as it says.
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
        """The outputs, in order, for any number of images, also of an artifact with a fixed batch.

        Args:
            images: (N, C, H, W), as the signature says but for N.
            step: images a call where the artifact leaves it open; by default all at once.

        Raises:
            UserError: they are not as it says.
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
            f"image_size is the height and width of each image, from 1 to {whole[0, 0]} and {whole[0, 1]} pixels, of "
            f"shape {whole.shape}; this is {size.tolist()}"
        )
    return np.ascontiguousarray(size, np.int64)


@dataclass(frozen=True)
class Runtime:
    """What runs artifacts.

    Attributes:
        name: for reports and for `Predictor(runtime=...)`.
        suffixes: of what it reads.
        module: ours, with `read(path, threads) -> (metadata, run)`, imported when it is used.
        package: what must be installed, by its name in Python.
        install: how.
        systems: that it runs on.
        native_code: whether what it reads contains machine code, which could do anything.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    package: str
    install: str
    systems: tuple[str, ...] = ("Linux", "Darwin", "Windows")
    native_code: bool = False

    def available(self) -> str | None:
        """None if it can run here, else why not, in one sentence."""
        import platform
        from importlib.util import find_spec

        if platform.system() not in self.systems:
            return f"{self.name} runs on {', '.join(self.systems)}, this is {platform.system()}"
        if find_spec(self.package) is None:
            return f"{self.name} is not installed: {self.install}"
        return None

    def open(self, path: Path, threads: int | None = None) -> Artifact:
        """An artifact, ready to run.

        Args:
            path: its file or folder.
            threads: of a call, where the runtime lets one choose; None for its own choice.

        Raises:
            UserError: the runtime is not here, the file is missing, damaged, or none of ours.
        """
        metadata, run = self.read(path, threads)
        return Artifact(path, metadata, self.name, run)

    def read(self, path: Path, threads: int | None = None) -> tuple[str | None, Run]:
        """Return what a file contains about its model, None if nothing, and how to run it; otherwise as `open`."""
        if reason := self.available():
            raise UserError(reason)
        if not path.exists():
            raise UserError(f"there is no file {path}")
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
        runtime: its module has `read(path, threads) -> (metadata, run)`; see `docs/architecture.md` for an example.

    Raises:
        UserError: there is a runtime of that name.
    """
    register(RUNTIMES, "runtime", runtime.name, runtime)


def runtimes_for(path: str | Path) -> list[Runtime]:
    """Those that read such a file, by its name; the longest suffix counts (.aoti.pt2 before .pt2)."""
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
    """Return a row of the table, of a plugin if need be.

    Raises:
        UserError: there is no such runtime.
    """
    return find(RUNTIMES, "runtime", name)


def open_artifact(
    path: str | Path, runtime: str = "auto", threads: int | None = None, allow_native_code: bool = False
) -> Artifact:
    """Open an exported model.

    Args:
        path: its file or folder.
        runtime: one of RUNTIMES that reads it; "auto" takes the first that is here.
        threads: as in `Runtime.open`.
        allow_native_code: open an AOTInductor package, which contains machine code that could do anything.

    Raises:
        UserError: none reads it, the one asked for does not, or it is not here; the file is missing or damaged, or
            contains native code that is not allowed.
    """
    readers = runtimes_for(path)
    if not readers:
        raise UserError(f"{path} is no artifact; their names end in {', '.join(sorted(_suffixes()))}")
    if runtime != "auto":
        chosen = find_runtime(runtime)
        if chosen not in readers:
            names = " or ".join(reader.name for reader in readers)
            raise UserError(f"{runtime} does not read {path}; it runs in {names}")
    else:
        chosen = next((reader for reader in readers if reader.available() is None), readers[0])
    if chosen.native_code and not allow_native_code and Path(path).exists():
        raise UserError(
            f"{path} contains native code, which would run with your rights: if you trust where it comes from, open it "
            "with --allow-native-code, or allow_native_code=True in Python"
        )
    return chosen.open(Path(path), threads)


def is_artifact(path: str | Path) -> bool:
    """Whether a name is that of an exported model."""
    return bool(runtimes_for(path))


def _suffixes() -> set[str]:
    return {suffix for runtime in RUNTIMES.values() for suffix in runtime.suffixes}
