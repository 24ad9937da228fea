"""What computes a Predictor's outputs: a model in PyTorch, or an artifact in its runtime."""

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
    """Resized uint8 pixels, or normalized float32 images, (B, C, H, W) -> outputs in float32.

    Attributes:
        description: of the model.
        runtime: that it runs in.
        device: that it runs on.
    """

    description: Description
    runtime: str
    device: str

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) logits of a classifier, on the CPU."""
        ...

    def outputs(self, images: np.ndarray, image_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """All outputs by name.

        Args:
            images: of a task that is not batched one image, perhaps filled up at the bottom and on the right.
            image_size: its height and width without what is filled up; None where it is all of it.
        """
        ...


class ArtifactEngine:
    """An artifact; of probabilities the logarithms are taken where logits are wanted, which are logits too.

    Args:
        path: of the artifact.
        runtime: as in `open_artifact`.
        threads: as in `open_artifact`.
        folder: a temporary one that must not go before this does.
        allow_native_code: as in `open_artifact`.

    Raises:
        UserError: it cannot be opened, or gives something else.
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
                f"{path} gives {', '.join(self.artifact.signature.outputs)}, which are not predictions: open it with "
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
        """The images in the upper left corners of canvases of the size that the artifact takes."""
        (*others, height, width), canvas = images.shape, self.artifact.signature.size or images.shape[2:]
        if height > canvas[0] or width > canvas[1]:
            raise UserError(
                f"{self.artifact.path} takes images within {canvas[0]}x{canvas[1]} pixels, this is {height}x{width}"
            )
        filled = np.zeros((*others, *canvas), images.dtype)
        filled[..., :height, :width] = images
        return filled

    def _taken(self, images: np.ndarray) -> np.ndarray:
        """The images in the form that the artifact takes."""
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


class TorchEngine:
    """A model, in eval mode.

    Args:
        model: in the form that is to run; it is taken over.
        device: of PyTorch.
        precision: of the arithmetic, "fp32", "fp16" or "bf16".
        kernels: on a GPU a fused model runs in `fastvit.accelerate`'s kernels where these serve; `runtime` says so.
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
            # Where images have all kinds of sizes, finding the fastest kernels for each would take longer.
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
