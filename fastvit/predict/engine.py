"""Engines of a Predictor: a model in PyTorch, or an artifact in its runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastvit.data.pixels import denormalized, normalized
from fastvit.errors import UserError
from fastvit.files import TemporaryFolder
from fastvit.runtime.artifact import Artifact, Precision, open_artifact
from fastvit.tasks.table import find_task
from fastvit.weights.description import Description

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.model.task_model import TaskModel


class Engine(Protocol):
    """Computes float32 outputs from (B, C, H, W) images: resized uint8 pixels, or normalized float32.

    Attributes:
        description: description of the model.
        runtime: name of the runtime.
        device: name of the device.
    """

    description: Description
    runtime: str
    device: str

    def logits(self, images: Tensor) -> Tensor:
        """Return the (B, classes) logits of a classifier, on the CPU.

        Raises:
            UserError: the artifact takes another batch size, image size or kind of images.
        """
        ...

    def outputs(self, images: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Return all outputs by name.

        Args:
            images: batch of images; a single one, possibly padded at the bottom and right, if the task is not batched.
            image_size: height and width of that image without padding; None if it has no padding.

        Raises:
            UserError: the artifact takes another batch size, image size or kind of images.
        """
        ...


class ArtifactEngine(Engine):
    """An artifact in its runtime. If it outputs probabilities, their logarithms serve as logits.

    Args:
        path: file or folder of the artifact.
        runtime: name of a runtime, or "auto", see `open_artifact`.
        threads: number of threads per call, see `open_artifact`.
        folder: temporary folder of the artifact, which is deleted with this engine.
        allow_native_code: also load machine code, see `open_artifact`.

    Raises:
        UserError: the artifact cannot be opened, or does not output predictions.
    """

    device = "cpu"

    def __init__(
        self,
        path: Path,
        runtime: str = "auto",
        threads: int | None = None,
        folder: TemporaryFolder | None = None,
        allow_native_code: bool = False,
    ) -> None:
        self._folder = folder
        self.artifact: Artifact = open_artifact(path, runtime, threads, allow_native_code)
        self.description, self.runtime = self.artifact.description, self.artifact.runtime
        if any(output.startswith("stride") for output in self.artifact.signature.outputs):
            raise UserError(
                f"{path} outputs {', '.join(self.artifact.signature.outputs)}, which are not predictions: open it with "
                "fastvit.runtime.artifact.open_artifact"
            )

    def logits(self, images: Tensor) -> Tensor:
        import torch

        (output,) = self.artifact.in_batches(self._taken(images.cpu().numpy()))
        if self.artifact.signature.outputs != ("logits",):
            output = np.log(np.maximum(output, np.finfo(np.float32).tiny))
        return torch.from_numpy(output)

    def outputs(self, images: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        taken = self._taken(images)
        if find_task(self.description.task).batched:
            return dict(zip(self.artifact.signature.outputs, self.artifact.in_batches(taken), strict=True))
        if "image_size" not in self.artifact.signature.inputs:
            return self.artifact(taken)
        return self.artifact(self._on_canvas(taken), np.array([image_size or images.shape[2:]]))

    def _on_canvas(self, images: np.ndarray) -> np.ndarray:
        """Pad images at the bottom and right to the size that the artifact takes."""
        (*others, height, width), canvas = images.shape, self.artifact.signature.size or images.shape[2:]
        if height > canvas[0] or width > canvas[1]:
            raise UserError(
                f"{self.artifact.path} takes images within {canvas[0]}x{canvas[1]} pixels, got {height}x{width}"
            )
        filled = np.zeros((*others, *canvas), images.dtype)
        filled[..., :height, :width] = images
        return filled

    def _taken(self, images: np.ndarray) -> np.ndarray:
        """Convert images to the kind that the artifact takes."""
        preprocessing, wanted = self.description.preprocessing, self.artifact.signature.input
        if images.dtype == np.uint8:
            if wanted == "pixels":
                return images
            scaled = images.astype(np.float32) / np.float32(255)
            return scaled if wanted == "unit" else normalized(images, preprocessing)
        if wanted == "pixels":
            raise UserError(
                f"{self.artifact.path} takes pixels, not normalized images: export it with --input normalized"
            )
        return denormalized(images, preprocessing) if wanted == "unit" else images


class TorchEngine(Engine):
    """A model in PyTorch, in eval mode.

    Args:
        model: model in the form that is run; it is moved and changed in place.
        device: device of PyTorch.
        precision: precision of the arithmetic: "fp32", "fp16" or "bf16".
        kernels: run a fused model with the kernels of `fastvit.accelerate` if the GPU supports them; `runtime` is then
            "kernels fp16" or "kernels bf16".
    """

    def __init__(
        self, model: TaskModel, device: str = "cpu", precision: Precision = "fp32", kernels: bool = True
    ) -> None:
        import torch

        dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        self.description, self.device = Description.of(model), device
        self.runtime = "torch" if precision == "fp32" else f"torch {precision}"
        self._dtype = dtypes[precision]
        self._model: Any = model.eval().to(device, self._dtype)
        if kernels and self.description.form == "fused":
            self._accelerate()

    def _accelerate(self) -> None:
        from fastvit.kernels.inference.accelerate import accelerate
        from fastvit.kernels.inference.support import unsupported

        like = next(self._model.parameters())
        if unsupported(like.device, like.dtype) is None:
            # If images have many sizes, timing kernels for each size would take longer than it saves.
            self._model = accelerate(self._model, time=find_task(self.description.task).batched)
            self.runtime = self.runtime.replace("torch", "kernels")

    def logits(self, images: Tensor) -> Tensor:
        return self._outputs(images)[0]

    def outputs(self, images: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        import torch

        filled = image_size not in (None, images.shape[2:]) and "image_size" in self._model.input_names
        found = self._outputs(torch.from_numpy(images), *([torch.tensor([image_size])] if filled else []))
        return {name: output.numpy() for name, output in zip(self._model.output_names, found, strict=True)}

    def _outputs(self, images: Tensor, *others: Tensor) -> list[Tensor]:
        import torch

        from fastvit.data.transforms import normalize

        images = images.to(self.device)
        with torch.inference_mode():
            ready = normalize(images, self.description.preprocessing) if images.dtype == torch.uint8 else images
            return [output.float().cpu() for output in self._model.outputs(ready.to(self._dtype), *others)]
