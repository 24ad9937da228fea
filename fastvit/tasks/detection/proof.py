"""Verification that an artifact detects the same objects as the detector.

The comparison is end to end, from image files to objects: the model in PyTorch at the image's own size, the artifact at
its fixed input size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from PIL import Image

from fastvit.console import counted
from fastvit.data.pixels import fitted_size
from fastvit.data.subset import evenly_spaced
from fastvit.errors import UserError
from fastvit.export.proof import Proof, image_channels, prepared
from fastvit.model.task_model import TaskModel
from fastvit.numerics import Differences
from fastvit.predict.predictor import Predictor
from fastvit.runtime.artifact import Artifact
from fastvit.tasks.detection.agreement import Agreement, InUse, agreement, in_use
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.prediction import DetectionPrediction

# Aspect ratios (width / height) to compare detectors on: each puts the padding of a canvas on another side.
SHAPES = (8 / 3, 1 / 2, 1 / 5)
# Number of crops for each of these aspect ratios that no image has.
CROPS = 2


@dataclass(frozen=True)
class DetectionProof(Proof):
    """Result of the comparison of two detectors.

    Attributes:
        crops: number of crops in other aspect ratios that were compared in addition.
        objects: agreement of the detections that the differences are measured on.
        resized: detections of artifact and model at their own image sizes, if the sizes differ; a change that comes
            from the chosen size is not a fault.
    """

    crops: int = 0
    objects: Agreement | None = None
    resized: InUse | None = None

    @property
    def faults(self) -> list[str]:
        """Number of objects that only one of the two detects, as text; empty if there are none."""
        alone = self.objects.unpaired if self.objects else 0
        return [f"{counted(alone, 'object')} detected by only one of the two"] if alone else []

    def __str__(self) -> str:
        resized = f"; at the checkpoint's own image size: {self.resized}" if self.resized else ""
        crops = f" and {counted(self.crops, 'crop')}" if self.crops else ""
        images = f"{counted(self.images, 'image')}{crops}"
        return f"{self.objects.text(images) if self.objects else f'{self.differences}, on {images}'}{resized}"


def prove_artifact(model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image]) -> DetectionProof:
    """Compare a detector and its artifact on images, and on crops of them in other aspect ratios.

    Args:
        model: detector that the artifact was exported from.
        artifact: artifact to verify.
        pictures: images to compare on.

    Raises:
        UserError: the detector detects nothing in the images, so that there is nothing to compare.
    """
    shown, theirs = in_shapes(pictures), Predictor(artifact.path, runtime=artifact.runtime)
    same_size = copy.copy(model)
    same_size.preprocessing = theirs.preprocessing
    outputs = _outputs(_unchanged(same_size), shown), _outputs(theirs, shown)
    proof = _proof(model, len(pictures), *outputs)
    if theirs.preprocessing == model.preprocessing:
        return proof
    return replace(proof, resized=in_use(*(_objects(side, shown) for side in (_unchanged(model), theirs))))


def prove_forms(model: TaskModel, fused: TaskModel, pictures: Sequence[Image.Image]) -> DetectionProof:
    """Compare two forms of a detector in PyTorch, in float32.

    Args:
        model: reference.
        fused: the same detector, reparameterized or fused.
        pictures: RGB or grayscale images with objects; noise has none.

    Raises:
        UserError: the detector detects nothing in the images, so that there is nothing to compare.
    """
    shown = in_shapes(pictures)
    return _proof(model, len(pictures), *(_outputs(_unchanged(form), shown) for form in (model, fused)))


def in_shapes(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the images, and center crops of some in the aspect ratios that no image has: wide, tall and narrow."""
    shapes = [image.width / image.height for image in pictures]
    missing = [shape for shape in SHAPES if not any(0.8 < own / shape < 1.25 for own in shapes)]
    indices = evenly_spaced(len(pictures), CROPS * len(missing))
    return [*pictures, *(_cut(pictures[index], shape) for index, shape in zip(indices, missing * CROPS, strict=True))]


def _cut(image: Image.Image, shape: float) -> Image.Image:
    width, height = (max(round(side), 1) for side in (image.height * shape, image.width / shape))
    width, height = min(width, image.width), min(height, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _unchanged(model: TaskModel) -> Predictor:
    """Return a predictor of a model in float32 on the CPU, without fusing it."""
    image_channels(model.preprocessing)
    return Predictor(model, prepare=lambda given: copy.deepcopy(given).float())


def _outputs(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[dict[str, np.ndarray]]:
    """Return the raw outputs of a detector for each image, by name, in pixels of the resized image."""
    outputs = []
    for image in pictures:
        (pixels,) = prepared([image], predictor.preprocessing, "pixels")
        fitted = fitted_size((image.height, image.width), predictor.preprocessing)
        outputs.append(predictor.outputs(pixels[None], fitted))
    return outputs


def _objects(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[Objects]:
    return [cast(DetectionPrediction, found).objects for found in predictor(pictures)]


def _proof(
    model: TaskModel, images: int, expected: list[dict[str, np.ndarray]], found: list[dict[str, np.ndarray]]
) -> DetectionProof:
    agreed = agreement(expected, found, model.options)
    if agreed is None:
        raise UserError(
            "the detector detects nothing in the images, so that nothing can be verified: train it, or give other "
            "images with --data or --verify-with"
        )
    parts = [part for part in (agreed.boxes, agreed.scores, agreed.masks) if part]
    worst = Differences(
        max_abs=max(part.max_abs for part in parts),
        relative=max(part.relative for part in parts),
        cosine=min(part.cosine for part in parts),
        top1=None,
    )
    return DetectionProof(images, worst, None, len(expected) - images, agreed)
