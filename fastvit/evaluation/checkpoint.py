"""Evaluate a checkpoint or an artifact on data, as `fastvit eval` does."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from fastvit.console import counted
from fastvit.data.datasets import ImageSource
from fastvit.data.splitting import Part
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.examples import Example, examples
from fastvit.evaluation.measurement import EvaluationRequest, Measurement, known
from fastvit.fusion import fuse
from fastvit.model.preprocessing import Preprocessing
from fastvit.predict.predictor import Predictor
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.runtime.artifact import Precision
from fastvit.tasks.spec import TaskSpec
from fastvit.tasks.table import find_task, refuse_of_other_tasks


@dataclass(frozen=True)
class EvaluationResult:
    """Result of an evaluation, with the model, data and settings.

    Attributes:
        checkpoint: checkpoint or artifact, as it was given.
        data: name or path of the data.
        split: "validation" or "training"; None if it is not known.
        run_split: whether the images are the validation split that the checkpoint's run split off its training data.
        task: name of the task.
        form: form of the network: train, reparameterized or fused.
        runtime: runtime of the network.
        device: device of the network.
        preprocessing: preprocessing of the images.
        images: evaluated images.
        found: metrics and other measured values.
        examples: evenly spaced images with predictions, for tasks whose predictions are drawn.
    """

    checkpoint: str
    data: str
    split: str | None
    run_split: bool
    task: str
    form: str
    runtime: str
    device: str
    preprocessing: Preprocessing
    images: ImageSource = field(repr=False)
    found: Measurement
    examples: list[Example] = field(default_factory=list, repr=False)

    @property
    def spec(self) -> TaskSpec:
        """Specification of the task."""
        return find_task(self.task)

    @property
    def headline(self) -> str:
        """Label and value of the task's headline metric."""
        metric = self.spec.headline_metric
        return f"{metric.label} {metric.text(self.found.metrics[self.spec.headline])}"

    def metric_texts(self) -> dict[str, str]:
        """Values of all metrics by their labels."""
        shown = self.spec.metrics
        return {shown[name].label: shown[name].text(value) for name, value in self.found.metrics.items()}

    @property
    def counted(self) -> str:
        """Number and split of the evaluated images, such as "60 validation images"."""
        return counted(self.found.images, f"{self.split} image" if self.split else "image")

    def summary(self) -> dict[str, Any]:
        """Return metrics and settings as plain values for JSON; None for what could not be measured."""
        rates = {rate.key: rate.value and round(rate.value, 2) for rate in self.found.rates}
        crop = {"crop_pct": self.preprocessing.crop_pct} if self.preprocessing.resize == "crop" else {}
        return {
            "checkpoint": self.checkpoint,
            "data": self.data,
            "split": self.split,
            "run_split": self.run_split,
            "task": self.task,
            "form": self.form,
            "runtime": self.runtime,
            "device": self.device,
            "size": list(self.preprocessing.size),
            **crop,
            "images": self.found.images,
            "skipped": self.found.skipped,
            **{name: known(value) for name, value in self.found.metrics.items()},
            **rates,
        }


def open_in_form(
    checkpoint: str,
    form: Literal["fused", "train"],
    device: str,
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> Predictor:
    """Return a Predictor of a checkpoint in fused or train form, or of an artifact.

    Args:
        checkpoint: checkpoint or artifact.
        form: form that the network must have.
        device: device that PyTorch runs on: "auto", "cpu", "cuda" or "mps".
        precision: numeric precision, as in `Predictor`.
        kernels: use fastvit's kernels on a GPU, as in `Predictor`.
        allow_native_code: allow artifacts with machine code, as in `Predictor`.

    Raises:
        UserError: the checkpoint or the device is not available, or the network cannot have that form.
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
        raise UserError(f"{checkpoint} is in {predictor.form} form and cannot be un-fused: evaluate it with form fused")
    return predictor


def evaluate_checkpoint(
    checkpoint: str,
    data: str | None = None,
    form: Literal["fused", "train"] = "fused",
    request: EvaluationRequest | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> EvaluationResult:
    """Measure a checkpoint or an artifact of any task on validation images.

    Args:
        checkpoint: checkpoint or artifact, as in `Predictor`.
        data: name or path of the data, as in `fastvit.runs.evaluation_data.EvaluationData`; None for the data of the
            checkpoint's run, else the sample.
        form: form in which a checkpoint in train form runs.
        request: settings of the evaluation; None for the defaults.
        device: device that PyTorch runs on: "auto", "cpu", "cuda" or "mps".
        precision: numeric precision, as in `Predictor`.
        kernels: use fastvit's kernels on a GPU, as in `Predictor`.
        allow_native_code: allow artifacts with machine code, as in `Predictor`.

    Raises:
        UserError: the checkpoint or the data is not available, they do not fit each other, or a setting does not apply.
    """
    request = request or EvaluationRequest()
    predictor = open_in_form(checkpoint, form, device, precision, kernels, allow_native_code)
    spec = predictor.spec
    refuse_of_other_tasks(
        spec, batch_size=request.batch_size, crop_pct=request.crop_pct, real_labels=request.real_labels
    )
    predictor = predictor.with_preprocessing(spec.resized(predictor.preprocessing, request))
    source = EvaluationData(checkpoint, data)
    images = spec.validation_images(source, predictor.network)
    return EvaluationResult(
        checkpoint=checkpoint,
        data=source.source,
        split="validation" if isinstance(images, Part) else source.split,
        run_split=isinstance(images, Part),
        task=spec.name,
        form=predictor.form,
        runtime=predictor.runtime,
        device=predictor.device,
        preprocessing=predictor.preprocessing,
        images=images,
        found=spec.evaluate(predictor, images, request),
        examples=examples(predictor, images),
    )
