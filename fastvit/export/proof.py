"""Proofs of exports: outputs of an artifact, in its own runtime, compared with those of the model on real images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from fastvit.data.pixels import eval_array, normalized
from fastvit.errors import UserError
from fastvit.export.options import FEATURES
from fastvit.export.program import as_maps
from fastvit.fusion import verify
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.numerics import Differences, compare
from fastvit.runtime.artifact import Artifact, Input, Precision


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference between an artifact and its model.

    Attributes:
        relative: largest difference of any output, relative to its largest value.
        cosine: smallest cosine similarity of any output with that of the model.
        accuracy: largest loss of top-1 accuracy in points, if there are labels. The standard deviation of chance on
            images with different predictions is added, so that a few images do not reject a good artifact.
    """

    relative: float
    cosine: float
    accuracy: float

    def missed(self, proof: Proof) -> list[str]:
        """Return one line for each limit that a proof exceeds; NaN exceeds all."""
        found = proof.differences
        missed = []
        if not found.relative <= self.relative:
            missed.append(f"relative difference {found.relative:.1e}, allowed {self.relative:.0e}")
        if not found.cosine >= self.cosine:
            missed.append(f"cosine {found.cosine:.6f}, at least {self.cosine}")
        missed += proof.faults
        if proof.accuracy:
            lost, chance = 100 * (proof.accuracy[0] - proof.accuracy[1]), proof.chance
            if not lost <= self.accuracy + chance:
                missed.append(f"{lost:.2f} points of top-1 lost, allowed {self.accuracy} and {chance:.2f} for chance")
        return missed


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.999999, 0.0),
    "fp16": Tolerance(2e-2, 0.9999, 0.2),
    "bf16": Tolerance(1e-1, 0.999, 0.3),
    # Trained T8 and SA12 have cosines of 0.9978 to 0.9995 (docs/quantization.md), networks of 32 channels 0.99; a
    # quantizer that breaks attention has 0.82. The loss of accuracy is the decisive limit.
    "int8": Tolerance(0.5, 0.98, 0.5),
    "palettized": Tolerance(0.5, 0.98, 0.5),
}


@dataclass(frozen=True)
class Proof:
    """Result of the comparison.

    Attributes:
        images: number of images compared.
        differences: differences over all outputs.
        accuracy: top-1 accuracy of the model and of the artifact, 0 to 1; None without labels or logits.
        image_kind: name of the images in the text of the proof.
    """

    image_kind: ClassVar[str] = "images"

    images: int
    differences: Differences
    accuracy: tuple[float, float] | None

    def without_top1(self) -> Proof:
        """Return the proof without top-1 agreement, for outputs that are not scores of classes."""
        return replace(self, differences=replace(self.differences, top1=None))

    @property
    def faults(self) -> list[str]:
        """One line for each difference that no tolerance allows."""
        return []

    @property
    def chance(self) -> float:
        """Standard deviation of the top-1 loss by chance, in points; 0 if all predictions agree.

        Every image with different predictions counts as gained or lost at random.
        """
        disagreeing = 0.0 if self.differences.top1 is None else self.images * (1 - self.differences.top1)
        return 100 * disagreeing**0.5 / self.images

    def __str__(self) -> str:
        lines = f"{self.differences}, on {self.images} {self.image_kind}"
        return lines + (f"; top-1 {self.accuracy[0]:.2%} and {self.accuracy[1]:.2%}" if self.accuracy else "")


class NoiseProof(Proof):
    """Result of a comparison on random images."""

    image_kind = "random images"


def prove_outputs(
    model: TaskModel,
    artifact: Artifact,
    pictures: Sequence[Image.Image],
    labels: Sequence[int] | None = None,
    step: int = 1,
) -> Proof:
    """Run the model and the artifact on images, and compare all outputs.

    Args:
        model: model in any form; the reference, in float32.
        artifact: artifact in its own runtime; images are preprocessed as its description says.
        pictures: RGB or grayscale images.
        labels: true classes, to compare the top-1 accuracy of classifiers.
        step: batch size.
    """
    size = artifact.description.preprocessing.fixed_size
    ours = prepared(pictures, model.preprocessing.with_shape(size), "normalized")
    theirs = prepared(pictures, artifact.description.preprocessing.with_shape(size), artifact.signature.input)
    output = artifact.signature.outputs[0]
    features = output.startswith("stride")
    expected = reference(model, ours, FEATURES if features else output, step)
    outputs = artifact.in_batches(theirs, step)
    accuracy = None
    if labels is not None and not features:
        true = np.asarray(labels)
        expected_top1, top1 = (float(np.mean(o.argmax(1) == true)) for o in (expected[0], outputs[0]))
        accuracy = expected_top1, top1
    return Proof(len(pictures), compare(expected, outputs), accuracy)


def prove_on_noise(model: TaskModel, fused: TaskModel, count: int = 4) -> NoiseProof:
    """Compare two forms of a network in PyTorch on random images of its own size, with a fixed seed.

    Args:
        model: network before fusion, the reference.
        fused: network to compare with it.
        count: number of images.
    """
    shape = (count, model.config.in_chans, *model.preprocessing.fixed_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return NoiseProof(count, verify(model, fused, images), None)


def prepared(pictures: Sequence[Image.Image], preprocessing: Preprocessing, kind: Input) -> np.ndarray:
    """Return (N, C, H, W) preprocessed images; grayscale for models with one channel.

    Args:
        pictures: images of any size.
        preprocessing: size, resizing, mean and std.
        kind: kind of the result: "normalized", "unit" or "pixels".

    Raises:
        UserError: the model takes neither 1 nor 3 channels.
    """
    gray = image_channels(preprocessing) == 1
    pixels = np.stack([eval_array(one.convert("L") if gray else one, preprocessing) for one in pictures])
    if kind == "pixels":
        return pixels
    return normalized(pixels, preprocessing) if kind == "normalized" else pixels.astype(np.float32) / np.float32(255)


def image_channels(preprocessing: Preprocessing) -> int:
    """Return the number of channels of a network's images.

    Raises:
        UserError: it is neither 1 nor 3.
    """
    channels = len(preprocessing.mean)
    if channels not in (1, 3):
        raise UserError(
            f"the model takes images of {channels} channels, image files have 1 or 3: fuse it in Python with "
            "fastvit.fuse, and compare the outputs with fastvit.verify"
        )
    return channels


def reference(model: TaskModel, images: np.ndarray, output: str, step: int = 16) -> list[np.ndarray]:
    """Return the outputs of a model in float32 on the CPU.

    Args:
        model: model in any form; it is not changed.
        images: (N, C, H, W) normalized images.
        output: name of the output; "features" for the feature maps.
        step: batch size.
    """
    network = copy.deepcopy(model).cpu().float().eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), step):
            batch = torch.from_numpy(images[start : start + step])
            if output == FEATURES:
                parts.append([stage.numpy() for stage in as_maps(network.pyramid(batch))])
            else:
                outputs = network.outputs(batch)
                parts.append([(a.softmax(1) if output == "probabilities" else a).numpy() for a in outputs])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
