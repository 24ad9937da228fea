"""What computes a Predictor's logits: a model in PyTorch, or an artifact in its runtime."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fastvit.data.pixels import denormalised, normalised
from fastvit.errors import UserError
from fastvit.runtime.artifact import Artifact, open_artifact
from fastvit.weights.description import Description

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.model.classifier import FastViT


class Engine(Protocol):
    """Resized uint8 pixels, or normalised float32 images, (B, C, H, W) -> (B, classes) logits, in float32.

    Attributes:
        description: of the model.
        runtime: that it runs in.
        device: that it runs on.
    """

    description: Description
    runtime: str
    device: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...

    def tensor(self, images: Tensor) -> Tensor:
        """The same for tensors; the answer is on the CPU."""
        ...


class ArtifactEngine:
    """An artifact with logits or probabilities; of the latter the logarithms are taken, which are logits too.

    Args:
        path: of the artifact.
        runtime: as in `open_artifact`.
        threads: as in `open_artifact`.
        folder: a temporary one that must not go before this does.

    Raises:
        UserError: it cannot be opened, or gives something else.
    """

    device = "cpu"

    def __init__(
        self,
        path: Path,
        runtime: str = "auto",
        threads: int | None = None,
        folder: TemporaryDirectory[str] | None = None,
    ) -> None:
        self._folder = folder
        self.artifact: Artifact = open_artifact(path, runtime, threads)
        self.description, self.runtime = self.artifact.description, self.artifact.runtime
        if self.artifact.signature.outputs not in (("logits",), ("probabilities",)):
            raise UserError(
                f"{path} gives {', '.join(self.artifact.signature.outputs)}, which are no classes: open it with "
                "fastvit.runtime.artifact.open_artifact"
            )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        (answer,) = self.artifact.in_batches(self._taken(images))
        if self.artifact.signature.outputs == ("logits",):
            return answer
        return np.asarray(np.log(np.maximum(answer, np.finfo(np.float32).tiny)))

    def tensor(self, images: Tensor) -> Tensor:
        import torch

        return torch.from_numpy(self(images.cpu().numpy()))

    def _taken(self, images: np.ndarray) -> np.ndarray:
        """The images in the form that the artifact takes."""
        preprocessing, wanted = self.description.preprocessing, self.artifact.signature.input
        if images.dtype == np.uint8:
            if wanted == "pixels":
                return images
            scaled = images.astype(np.float32) / np.float32(255)
            return scaled if wanted == "unit" else normalised(images, preprocessing)
        if wanted == "pixels":
            raise UserError(
                f"{self.artifact.path} takes pixels, not normalised images: export it with --input normalised"
            )
        return denormalised(images, preprocessing) if wanted == "unit" else images


class TorchEngine:
    """A model, in eval mode and float32.

    Args:
        model: in the form that is to run; it is taken over.
        device: of PyTorch.
    """

    runtime = "torch"

    def __init__(self, model: FastViT, device: str = "cpu") -> None:
        self.description, self.device = Description.of(model), device
        self._model = model.eval().float().to(device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import torch

        return np.asarray(self.tensor(torch.from_numpy(images)).numpy())

    def tensor(self, images: Tensor) -> Tensor:
        import torch

        from fastvit.data.transforms import normalise

        images = images.to(self.device)
        with torch.inference_mode():
            ready = normalise(images, self.description.preprocessing) if images.dtype == torch.uint8 else images
            return self._model(ready).float().cpu()
