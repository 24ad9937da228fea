"""Whether an artifact computes what the model does: both on the same real images, the artifact in its own runtime."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from fastvit.data.pixels import eval_array, normalised
from fastvit.export.options import Output
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.numerics import Differences, compare
from fastvit.runtime.artifact import Artifact, Input, Precision

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
    """

    images: int
    differences: Differences
    accuracy: tuple[float, float] | None

    @property
    def chance(self) -> float:
        """Points of top-1: the standard deviation of the loss if every image that the two disagree on gains or costs
        one at random; 0 where they agree on all."""
        disagreeing = 0.0 if self.differences.top1 is None else self.images * (1 - self.differences.top1)
        return 100 * disagreeing**0.5 / self.images

    def __str__(self) -> str:
        lines = f"{self.differences}, on {self.images} images"
        return lines + (f"; top-1 {self.accuracy[0]:.2%} and {self.accuracy[1]:.2%}" if self.accuracy else "")


def prove(model: FastViT, artifact: Artifact, pictures: Sequence[Image.Image], labels: Sequence[int] | None) -> Proof:
    """Run both.

    Args:
        model: in any form, as it was before it was fused; the reference, in float32.
        artifact: in its own runtime; images go through the preprocessing that it says.
        pictures: RGB, or L for a model of one channel.
        labels: true classes, for the accuracy of both.
    """
    size = artifact.description.preprocessing.size
    ours = prepared(pictures, model.preprocessing.at_size(size), "normalised")
    theirs = prepared(pictures, artifact.description.preprocessing, artifact.signature.input)
    output: Output = "features" if len(artifact.signature.outputs) > 1 else artifact.signature.outputs[0]  # type: ignore[assignment]
    expected = reference(model, ours, output)
    answers = artifact.in_batches(theirs, 16)
    accuracy = None
    if labels is not None and output != "features":
        true = np.asarray(labels)
        expected_top1, top1 = (float(np.mean(o.argmax(1) == true)) for o in (expected[0], answers[0]))
        accuracy = expected_top1, top1
    return Proof(len(pictures), compare(expected, answers), accuracy)


def prepared(pictures: Sequence[Image.Image], preprocessing: Preprocessing, kind: Input) -> np.ndarray:
    """(N, C, H, W) images of a kind."""
    pixels = np.stack([eval_array(picture, preprocessing) for picture in pictures])
    if kind == "pixels":
        return pixels
    return normalised(pixels, preprocessing) if kind == "normalised" else pixels.astype(np.float32) / np.float32(255)


def reference(model: FastViT, images: np.ndarray, output: Output, step: int = 16) -> list[np.ndarray]:
    """The outputs of a model for normalised images, in float32 on the CPU."""
    network = copy.deepcopy(model).cpu().float().eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), step):
            batch = torch.from_numpy(images[start : start + step])
            if output == "features":
                parts.append([stage.numpy() for stage in network.backbone(batch)])
            else:
                logits = network(batch)
                parts.append([(logits.softmax(1) if output == "probabilities" else logits).numpy()])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
