"""Whether an artifact computes what the model does: both on the same real images, the artifact in its own runtime.

A detector is compared as it is used, an image file in and objects out: the model in PyTorch at the image's own size,
the artifact on its canvas.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from PIL import Image

from fastvit.data.pixels import eval_array, fitted_size, normalised
from fastvit.errors import UserError
from fastvit.export.options import Output
from fastvit.export.pictures import in_shapes
from fastvit.export.program import as_maps
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.numerics import Differences, compare
from fastvit.predict.predictor import Predictor
from fastvit.runtime.artifact import Artifact, Input, Precision
from fastvit.tasks.detection.agreement import Agreement, InUse, agreement, in_use
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.prediction import DetectionPrediction

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same.

    Attributes:
        relative: largest difference of any output, as a share of its largest value.
        cosine: smallest cosine similarity of any output with the model's.
        accuracy: largest loss of top-1, in points, where labels are given; beyond what chance makes of the images on
            which the two disagree, or a few images could refuse a good artifact.
    """

    relative: float
    cosine: float
    accuracy: float

    def missed(self, proof: Proof) -> list[str]:
        """Which of them a proof misses, in words; a NaN misses all."""
        found = proof.differences
        missed = []
        if not found.relative <= self.relative:
            missed.append(f"relative difference {found.relative:.1e}, tolerated {self.relative:.0e}")
        if not found.cosine >= self.cosine:
            missed.append(f"cosine {found.cosine:.6f}, at least {self.cosine}")
        if proof.objects and proof.objects.unpaired:
            missed.append(f"{proof.objects.unpaired} objects are found by one of the two alone")
        if proof.accuracy:
            lost, chance = 100 * (proof.accuracy[0] - proof.accuracy[1]), proof.chance
            if not lost <= self.accuracy + chance:
                missed.append(f"{lost:.2f} points of top-1 lost, tolerated {self.accuracy} and {chance:.2f} for chance")
        return missed


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.999999, 0.0),
    "fp16": Tolerance(2e-2, 0.9999, 0.2),
    "bf16": Tolerance(1e-1, 0.999, 0.3),
    # T8 and SA12, trained, have cosines of 0.9978 to 0.9995 (docs/quantization.md), networks of 32 channels 0.99; the
    # 0.82 of a quantizer that breaks attention is far below. The loss of accuracy is what is to be judged by.
    "int8": Tolerance(0.5, 0.98, 0.5),
    "palettized": Tolerance(0.5, 0.98, 0.5),
}


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        images: how many were compared.
        differences: of all outputs together.
        accuracy: top-1 of the model and of the artifact, as fractions; None without labels or logits.
        objects: of a detector, what the differences are of.
        resized: of a detector that was exported for another size of images, what that changes: what it finds and what
            the model finds with the size of its own. Whoever chose the size chose that.
    """

    images: int
    differences: Differences
    accuracy: tuple[float, float] | None
    objects: Agreement | None = None
    resized: InUse | None = None

    @property
    def chance(self) -> float:
        """Points of top-1: the standard deviation of the loss if every image that the two disagree on gains or costs
        one at random; 0 where they agree on all."""
        disagreeing = 0.0 if self.differences.top1 is None else self.images * (1 - self.differences.top1)
        return 100 * disagreeing**0.5 / self.images

    def __str__(self) -> str:
        lines = f"{self.objects or self.differences}, on {self.images} images"
        lines += f"; at the checkpoint's own size of images: {self.resized}" if self.resized else ""
        return lines + (f"; top-1 {self.accuracy[0]:.2%} and {self.accuracy[1]:.2%}" if self.accuracy else "")


# What is asked for, by the name of the first output, where it is not maps.
_OUTPUTS: dict[str, Output] = {"logits": "logits", "probabilities": "probabilities", "vertices": "mesh"}


def prove(model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image], labels: Sequence[int] | None) -> Proof:
    """Run both.

    Args:
        model: in any form, as it was before it was fused; the reference, in float32.
        artifact: in its own runtime; images go through the preprocessing that it says.
        pictures: RGB or L.
        labels: true classes, for the accuracy of both.

    Raises:
        UserError: a detector finds nothing in the pictures, so that there is nothing to compare.
    """
    if "boxes" in artifact.signature.outputs:
        return _prove_detector(model, artifact, in_shapes(pictures))
    size = artifact.description.preprocessing.canvas
    ours = prepared(pictures, model.preprocessing.at_size(size), "normalised")
    theirs = prepared(pictures, artifact.description.preprocessing.at_size(size), artifact.signature.input)
    names = artifact.signature.outputs
    output: Output = _OUTPUTS.get(names[0], "features")
    # Maps of dense tasks are large.
    step = 16 if model.task == "classification" else 1
    expected = reference(model, ours, output, step)
    answers = artifact.in_batches(theirs, step)
    accuracy = None
    if labels is not None and model.task == "classification" and output != "features":
        true = np.asarray(labels)
        expected_top1, top1 = (float(np.mean(o.argmax(1) == true)) for o in (expected[0], answers[0]))
        accuracy = expected_top1, top1
    return Proof(len(pictures), compare(expected, answers), accuracy)


def prove_objects(model: TaskModel, fused: TaskModel, pictures: Sequence[Image.Image]) -> Proof:
    """Run two forms of a detector in PyTorch, in float32.

    Args:
        model: the reference.
        fused: the same in a later form.
        pictures: RGB or L; noise has no objects.

    Raises:
        UserError: the detector finds nothing in the pictures, so that there is nothing to compare.
    """
    shown = in_shapes(pictures)
    return _proof_of_objects(model, *(_answers(_unchanged(form), shown) for form in (model, fused)))


def _prove_detector(model: TaskModel, artifact: Artifact, pictures: Sequence[Image.Image]) -> Proof:
    theirs = Predictor(artifact.path, runtime=artifact.runtime)
    same_size = copy.copy(model)
    same_size.preprocessing = theirs.preprocessing
    proof = _proof_of_objects(model, _answers(_unchanged(same_size), pictures), _answers(theirs, pictures))
    if theirs.preprocessing == model.preprocessing:
        return proof
    return replace(proof, resized=in_use(*(_objects(side, pictures) for side in (_unchanged(model), theirs))))


def _unchanged(model: TaskModel) -> Predictor:
    """A model in PyTorch, in float32 on the CPU, in the form that it has.

    Raises:
        UserError: as in `prepared`.
    """
    _channels(model.preprocessing)
    return Predictor(model, prepare=lambda given: copy.deepcopy(given).float())


def _answers(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[dict[str, np.ndarray]]:
    """All that a detector gives for each picture, by name, before it is laid into the picture."""
    answers = []
    for picture in pictures:
        (pixels,) = prepared([picture], predictor.preprocessing, "pixels")
        fitted = fitted_size((picture.height, picture.width), predictor.preprocessing)
        answers.append(predictor.answers(pixels[None], fitted))
    return answers


def _objects(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[Objects]:
    return [cast(DetectionPrediction, answer).objects for answer in predictor(pictures)]


def _proof_of_objects(
    model: TaskModel, expected: list[dict[str, np.ndarray]], found: list[dict[str, np.ndarray]]
) -> Proof:
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
    return Proof(len(expected), worst, None, agreed)


def prepared(pictures: Sequence[Image.Image], preprocessing: Preprocessing, kind: Input) -> np.ndarray:
    """(N, C, H, W) images of a kind, grey ones for a model of one channel.

    Raises:
        UserError: the model takes neither one nor three channels, and pictures have no others.
    """
    grey = _channels(preprocessing) == 1
    pixels = np.stack([eval_array(one.convert("L") if grey else one, preprocessing) for one in pictures])
    if kind == "pixels":
        return pixels
    return normalised(pixels, preprocessing) if kind == "normalised" else pixels.astype(np.float32) / np.float32(255)


def _channels(preprocessing: Preprocessing) -> int:
    channels = len(preprocessing.mean)
    if channels not in (1, 3):
        raise UserError(
            f"the model takes images of {channels} channels, pictures 1 or 3: fuse it in Python with fastvit.fuse, "
            "and prove it on tensors with fastvit.verify"
        )
    return channels


def reference(model: TaskModel, images: np.ndarray, output: Output, step: int = 16) -> list[np.ndarray]:
    """The outputs of a model for normalised images, in float32 on the CPU."""
    network = copy.deepcopy(model).cpu().float().eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), step):
            batch = torch.from_numpy(images[start : start + step])
            if output == "features":
                parts.append([stage.numpy() for stage in as_maps(network.pyramid(batch))])
            else:
                answers = network.answers(batch)
                parts.append([(a.softmax(1) if output == "probabilities" else a).numpy() for a in answers])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
