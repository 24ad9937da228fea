"""Whether an artifact finds what the detector does.

A detector is compared as it is used, an image file in and objects out: the model in PyTorch at the image's own size,
the artifact on its canvas.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from PIL import Image

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

# Width over height of the shapes that detectors are compared on: what a canvas is filled up with is on another side.
SHAPES = (8 / 3, 1 / 2, 1 / 5)
# How many crops of each of them that the pictures themselves do not have.
CROPS = 2


@dataclass(frozen=True)
class DetectionProof(Proof):
    """What the comparison of two detectors found.

    Attributes:
        crops: crops of the images that were compared as well, in other shapes.
        objects: what the differences are of.
        resized: of a detector that was exported for another size of images, what that changes: what it finds and what
            the model finds with the size of its own. Whoever chose the size chose that.
    """

    crops: int = 0
    objects: Agreement | None = None
    resized: InUse | None = None

    @property
    def faults(self) -> list[str]:
        """Objects that only one of the two has."""
        alone = self.objects.unpaired if self.objects else 0
        return [f"{alone} objects are found by one of the two alone"] if alone else []

    def __str__(self) -> str:
        resized = f"; at the checkpoint's own size of images: {self.resized}" if self.resized else ""
        crops = f" and {self.crops} crops of them" if self.crops else ""
        return f"{self.objects or self.differences}, on {self.images} images{crops}{resized}"


def prove_artifact(model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image]) -> DetectionProof:
    """Compare a detector and its artifact on pictures, and on crops of them in other shapes.

    Raises:
        UserError: the detector finds nothing in the pictures, so that there is nothing to compare.
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
        model: the reference.
        fused: the same in a later form.
        pictures: RGB or L; noise has no objects.

    Raises:
        UserError: the detector finds nothing in the pictures, so that there is nothing to compare.
    """
    shown = in_shapes(pictures)
    return _proof(model, len(pictures), *(_outputs(_unchanged(form), shown) for form in (model, fused)))


def in_shapes(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures, and crops from the middle of some in the shapes that none of them has: wide, tall and narrow."""
    shapes = [picture.width / picture.height for picture in pictures]
    missing = [shape for shape in SHAPES if not any(0.8 < own / shape < 1.25 for own in shapes)]
    places = evenly_spaced(len(pictures), CROPS * len(missing))
    return [*pictures, *(_cut(pictures[place], shape) for place, shape in zip(places, missing * CROPS, strict=True))]


def _cut(picture: Image.Image, shape: float) -> Image.Image:
    width, height = (max(round(side), 1) for side in (picture.height * shape, picture.width / shape))
    width, height = min(width, picture.width), min(height, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _unchanged(model: TaskModel) -> Predictor:
    """A model in PyTorch, in float32 on the CPU, in the form that it has."""
    image_channels(model.preprocessing)
    return Predictor(model, prepare=lambda given: copy.deepcopy(given).float())


def _outputs(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[dict[str, np.ndarray]]:
    """All that a detector gives for each picture, by name, before it is laid into the picture."""
    outputs = []
    for picture in pictures:
        (pixels,) = prepared([picture], predictor.preprocessing, "pixels")
        fitted = fitted_size((picture.height, picture.width), predictor.preprocessing)
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
            "the detector finds nothing in the pictures, so that nothing would be proved: train it, or give others "
            "with --data or --verify-with"
        )
    parts = [part for part in (agreed.boxes, agreed.scores, agreed.masks) if part]
    worst = Differences(
        max_abs=max(part.max_abs for part in parts),
        relative=max(part.relative for part in parts),
        cosine=min(part.cosine for part in parts),
        top1=None,
    )
    return DetectionProof(images, worst, None, len(expected) - images, agreed)
