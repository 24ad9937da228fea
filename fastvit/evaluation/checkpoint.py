"""What `fastvit eval` does: a checkpoint or an artifact, data, and the numbers."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fastvit.data.datasets import IGNORED, LabelledImages
from fastvit.data.splitting import Part
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.evaluate import Evaluation, evaluate
from fastvit.evaluation.real_labels import RealLabels, real_accuracy, real_labels
from fastvit.fusion import fuse
from fastvit.model.preprocessing import Preprocessing
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.runtime.artifact import Precision
from fastvit.runtime.predictor import Predictor
from fastvit.tasks.classification.data import evaluation_loader


@dataclass(frozen=True)
class Measured:
    """An evaluation, and what it is of.

    Attributes:
        checkpoint: as it was asked for.
        data: name or path.
        split: "validation" or "training"; None where it is not known.
        form: of the network that ran.
        runtime: that it ran in.
        device: that it ran on.
        preprocessing: of the images.
        pictures: the data.
        result: the numbers.
    """

    checkpoint: str
    data: str
    split: str | None
    form: str
    runtime: str
    device: str
    preprocessing: Preprocessing
    pictures: LabelledImages
    result: Evaluation

    @property
    def divided(self) -> bool:
        """Whether the images are those that the checkpoint's run held out of its data."""
        return isinstance(self.pictures, Part)

    @property
    def counted(self) -> str:
        """How many images were counted, and of which split, in words."""
        return f"{self.result.images} {self.split + ' ' if self.split else ''}images"

    def summary(self) -> dict[str, Any]:
        """What fits on a line, for JSON."""
        result = self.result
        speed = asdict(result.speed) if result.speed else {}
        return {
            "checkpoint": self.checkpoint,
            "data": self.data,
            "split": self.split,
            "held_out_by_run": self.divided,
            "form": self.form,
            "runtime": self.runtime,
            "device": self.device,
            "size": list(self.preprocessing.size),
            "crop_pct": self.preprocessing.crop_pct,
            "images": result.images,
            "skipped": result.skipped,
            **result.metrics,
            **{f"images_per_second_{name}": round(value, 1) for name, value in speed.items()},
        }


def open_in_form(
    checkpoint: str,
    form: Literal["fused", "train"],
    device: str,
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> Predictor:
    """A Predictor of a checkpoint, fused or as it was trained, or of an artifact; see it for the arguments.

    Raises:
        UserError: checkpoint or device cannot be had, or not in that form.
    """
    prepare = fuse if form == "fused" else copy.deepcopy
    predictor = Predictor(
        checkpoint,
        pick_device(device),
        precision=precision,
        prepare=prepare,
        kernels=kernels,
        allow_native_code=allow_native_code,
    )
    if predictor.form != form:
        raise UserError(f"{checkpoint} is in {predictor.form} form, and no way leads back: evaluate it with form fused")
    return predictor


def evaluate_checkpoint(
    checkpoint: str,
    data: str | None = None,
    form: Literal["fused", "train"] = "fused",
    size: int | None = None,
    crop_pct: float | None = None,
    with_real_labels: bool = False,
    allow_damaged: bool = False,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> Measured:
    """Measure a checkpoint or an artifact on validation images.

    Args:
        checkpoint: anything that Predictor takes.
        data: as `fastvit.runs.evaluation_data.EvaluationData` has it.
        form: what of a checkpoint in train form runs.
        size: side of the images in pixels; by default the checkpoint's own.
        crop_pct: as `Preprocessing.at` has it.
        with_real_labels: also measure against ImageNet's ReaL labels.
        allow_damaged: leave images out that cannot be decoded.
        batch_size: images a step.
        workers: processes that decode images; None takes one a core but one.
        device: where PyTorch runs.
        precision: as Predictor has it.
        kernels: as Predictor has it.
        allow_native_code: as Predictor has it.

    Raises:
        UserError: checkpoint or data cannot be had, or do not fit each other or what is asked of them.
    """
    predictor = open_in_form(checkpoint, form, device, precision, kernels, allow_native_code)
    preprocessing = predictor.preprocessing.at(size, crop_pct)
    source = EvaluationData(checkpoint, data)
    pictures = source.images("test", predictor.classes)
    if len(pictures.classes) != predictor.num_classes:
        raise UserError(f"{source.source} has {len(pictures.classes)} classes, {checkpoint} {predictor.num_classes}")
    real = real_labels(pictures) if with_real_labels else None
    batches = evaluation_loader(pictures, preprocessing, batch_size, workers, allow_damaged=allow_damaged)
    result = evaluate(predictor.logits, batches, predictor.num_classes)
    if real:
        result = _with_real_metrics(result, real)
    return Measured(
        checkpoint=checkpoint,
        data=source.source,
        split="validation" if isinstance(pictures, Part) else source.split,
        form=predictor.form,
        runtime=predictor.runtime,
        device=predictor.device,
        preprocessing=preprocessing,
        pictures=pictures,
        result=result,
    )


def _with_real_metrics(result: Evaluation, labels: RealLabels) -> Evaluation:
    counted = result.targets != IGNORED
    kept = [right for right, counts in zip(labels, counted, strict=True) if counts]
    return replace(result, metrics=result.metrics | real_accuracy(result.guesses[counted], kept))
