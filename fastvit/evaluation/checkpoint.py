"""What `fastvit eval` does: a checkpoint or an artifact, data, and the numbers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

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
    """An evaluation, and what it is of.

    Attributes:
        checkpoint: as it was asked for.
        data: name or path.
        split: "validation" or "training"; None where it is not known.
        run_split: whether the images are the validation split that the checkpoint's run made of its data.
        task: name of the task.
        form: of the network that ran.
        runtime: that it ran in.
        device: that it ran on.
        preprocessing: of the images.
        images: that were measured on.
        found: the numbers.
        examples: some images, evenly spread, of a task whose predictions are drawn.
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
        """The task."""
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
        """How many images were counted, and of which split, in words."""
        image = "image" if self.found.images == 1 else "images"
        return f"{self.found.images} {self.split + ' ' if self.split else ''}{image}"

    def summary(self) -> dict[str, Any]:
        """What fits on a line, for JSON; null where there is nothing to measure."""
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
    request: EvaluationRequest | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> EvaluationResult:
    """Measure a checkpoint or an artifact of any task on validation images.

    Args:
        checkpoint: anything that Predictor takes.
        data: as `fastvit.runs.evaluation_data.EvaluationData` has it.
        form: what of a checkpoint in train form runs.
        request: how to measure.
        device: where PyTorch runs.
        precision: as Predictor has it.
        kernels: as Predictor has it.
        allow_native_code: as Predictor has it.

    Raises:
        UserError: checkpoint or data cannot be had, or do not fit each other or what is asked of them.
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
