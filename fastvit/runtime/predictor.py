"""Images in, decoded answers out, from a model, a checkpoint or an exported artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastvit.data.images import read_image, to_rgb
from fastvit.data.transforms import eval_transform, normalise
from fastvit.errors import UserError
from fastvit.fusion import fuse
from fastvit.model.classifier import FastViT
from fastvit.tasks.classification.module import Label, decode
from fastvit.weights.description import Description
from fastvit.weights.native import load

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """For one image: its name and the likeliest classes, the likeliest first."""

    image: str
    labels: list[Label]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    image: str
    reason: str


class Predictor:
    """A classifier ready to use, with its own preprocessing and class names.

    Args:
        source: a FastViT in any form, a checkpoint or other weights that `fastvit.load` takes, or an exported .onnx
            file.
        device: for PyTorch; artifacts run on the CPU.
        prepare: FastViT -> a copy of it to run in PyTorch: `fuse`, or `copy.deepcopy` for the form that it is in.

    Attributes:
        form: "train", "merged" or "fused", of what runs.
        classes: names, or None where the source has none.
        num_classes: length of the logits.
        preprocessing: what is done to every image.
        runtime: "torch" or "onnxruntime".
        device: where it runs.

    Raises:
        UserError: the source is missing or damaged.
    """

    def __init__(
        self, source: FastViT | str | Path, device: str = "cpu", prepare: Callable[[FastViT], FastViT] = fuse
    ) -> None:
        if not isinstance(source, FastViT) and Path(source).suffix == ".onnx":
            from fastvit.export.onnx import load_described

            run, description = load_described(Path(source))
            self.runtime = "onnxruntime"
            self._run = lambda images: torch.from_numpy(run(images.numpy()))
            self.device = "cpu"
        else:
            model = prepare(source if isinstance(source, FastViT) else load(source))
            description = Description.of(model)
            self.runtime = "torch"
            self._run = _torch_run(model.eval().float().to(device))
            self.device = device
        self.form, self.classes, self.preprocessing = description.form, description.classes, description.preprocessing
        self.num_classes = description.config.num_classes
        self._channels = description.config.in_chans
        if self._channels not in (1, 3):
            raise UserError(f"images have 1 or 3 channels, this model takes {self._channels}")
        self._transform = eval_transform(self.preprocessing)

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) logits, on the CPU, of (B, C, H, W) images: preprocessed float32, or resized uint8 pixels."""
        images = images.to(self.device)
        return self._run(normalise(images, self.preprocessing) if images.dtype == torch.uint8 else images)

    def __call__(self, images: Iterable[ImageLike] | ImageLike, k: int = 5, batch_size: int = 16) -> list[Prediction]:
        """Classify images: paths, PIL images, or uint8 arrays (H, W), (H, W, 3) or (H, W, 4).

        Raises:
            UserError: an image cannot be read; `stream` goes on instead.
        """
        single = isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4)
        several = cast(Iterable[ImageLike], [images] if single else images)
        answers = []
        for answer in self.stream(several, k, batch_size):
            if isinstance(answer, Failure):
                raise UserError(answer.reason)
            answers.append(answer)
        return answers

    def stream(self, images: Iterable[ImageLike], k: int = 5, batch_size: int = 16) -> Iterator[Prediction | Failure]:
        """Classify any number of images a batch at a time, in order; what cannot be read is yielded as a Failure."""
        if k < 1 or batch_size < 1:
            raise UserError(f"k and batch_size must be at least 1, got {k} and {batch_size}")
        source = enumerate(images)
        while chunk := list(islice(source, batch_size)):
            answers: dict[int, Prediction | Failure] = {}
            readable: list[tuple[int, str, Tensor]] = []
            for index, image in chunk:
                name = str(image) if isinstance(image, (str, Path)) else f"image {index}"
                try:
                    readable.append((index, name, self._transform(self._decoded(image))))
                except UserError as error:
                    answers[index] = Failure(name, str(error))
            if readable:
                labels = decode(self.logits(torch.stack([tensor for *_, tensor in readable])), self.classes, k)
                answers |= {i: Prediction(name, ls) for (i, name, _), ls in zip(readable, labels, strict=True)}
            yield from (answers[index] for index, _ in chunk)

    def _decoded(self, image: ImageLike) -> Image.Image:
        rgb = _rgb(image)
        return rgb.convert("L") if self._channels == 1 else rgb


def _rgb(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise UserError(f"arrays must be uint8 with pixels in 0..255, this one is {image.dtype}")
        return to_rgb(Image.fromarray(image))
    return read_image(image)


def _torch_run(model: FastViT) -> Callable[[Tensor], Tensor]:
    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images).float().cpu()

    return run
