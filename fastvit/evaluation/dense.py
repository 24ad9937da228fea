"""What `fastvit eval` does with detectors and segmenters: the answers of the Predictor against the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from fastvit.data.pixels import fitted_size
from fastvit.errors import UserError
from fastvit.evaluation.checkpoint import open_in_form
from fastvit.evaluation.examples import Example, examples
from fastvit.evaluation.numbers import as_text
from fastvit.model.preprocessing import Preprocessing
from fastvit.runtime.artifact import Precision, is_artifact, open_artifact
from fastvit.runtime.predictor import Predictor
from fastvit.tasks.detection import prediction as detection
from fastvit.tasks.detection.coco import open_coco
from fastvit.tasks.segmentation import prediction as segmentation
from fastvit.tasks.segmentation.folders import IGNORED, open_masks
from fastvit.tasks.table import find_task
from fastvit.weights.description import read_task


@dataclass(frozen=True)
class DenseMeasured:
    """An evaluation of a detector or segmenter, and what it is of.

    Attributes:
        checkpoint: as it was asked for.
        data: as it was asked for.
        task: "detection" or "segmentation".
        form: of the network that ran.
        runtime: that it ran in.
        device: that it ran on.
        preprocessing: of the images.
        images: how many were counted.
        metrics: fractions by name, the task's headline among them; NaN where there is nothing to measure.
        per_class: of each class what `per_class_label` says, a fraction or NaN.
        per_class_label: "box AP" or "IoU".
        images_per_second: of the network and its decoding, the first image left out; None where there is but one.
        examples: some images, evenly spread.
        results: of a detector, everything that it found as COCO's result records, with the data's own ids.
    """

    checkpoint: str
    data: str
    task: str
    form: str
    runtime: str
    device: str
    preprocessing: Preprocessing
    images: int
    metrics: dict[str, float]
    per_class: dict[str, float]
    per_class_label: str
    images_per_second: float | None
    examples: list[Example] = field(repr=False)
    results: list[dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def headline(self) -> tuple[str, float]:
        """What the task is judged by: its name and value."""
        kind = find_task(self.task)
        return kind.label, self.metrics[kind.headline]

    def summary(self) -> dict[str, Any]:
        """What fits on a line, for JSON; null where there is nothing to measure."""
        speed = None if self.images_per_second is None else round(self.images_per_second, 2)
        return {
            "checkpoint": self.checkpoint,
            "data": self.data,
            "task": self.task,
            "form": self.form,
            "runtime": self.runtime,
            "device": self.device,
            "size": list(self.preprocessing.size),
            "images": self.images,
            **{name: _known(value) for name, value in self.metrics.items()},
            "images_per_second": speed,
        }

    def class_rows(self) -> list[tuple[str, str]]:
        """`per_class` as text, the worst first."""
        rows = sorted(self.per_class.items(), key=lambda row: -1.0 if isnan(row[1]) else row[1])
        return [(name, as_text(self.per_class_label, value)) for name, value in rows]

    def by_class(self) -> dict[str, float | None]:
        """`per_class` for JSON."""
        return {name: _known(value) for name, value in self.per_class.items()}


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def task_of(checkpoint: str) -> str:
    """What a checkpoint or an artifact is for.

    Raises:
        UserError: there is no such file, or its runtime is not here.
    """
    return open_artifact(checkpoint).description.task if is_artifact(checkpoint) else read_task(checkpoint)


def evaluate_dense(
    checkpoint: str,
    data: str,
    form: Literal["fused", "train"] = "fused",
    size: tuple[int, int] | None = None,
    allow_damaged: bool = False,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    kernels: bool = True,
) -> DenseMeasured:
    """Measure a detector or segmenter, a checkpoint or an artifact, on the held-out images of a data source.

    Args:
        checkpoint: anything that Predictor takes.
        data: as in `fastvit.tasks.detection.coco.open_coco` or `fastvit.tasks.segmentation.folders.open_masks`.
        form: what of a checkpoint in train form runs.
        size: shorter and longer side in pixels within which images are shown; by default the checkpoint's own.
        allow_damaged: leave images out that cannot be decoded.
        workers: processes that decode images; None takes one a core but one.
        device: where PyTorch runs.
        precision: as Predictor has it.
        kernels: as Predictor has it.

    Raises:
        UserError: checkpoint or data cannot be had, or do not fit each other or what is asked of them.
    """
    predictor = open_in_form(checkpoint, form, device, precision, kernels)
    preprocessing = predictor.preprocessing
    if size and min(size) < 32:
        raise UserError(f"size must be at least 32 pixels a side, got {size[0]}x{size[1]}")
    if size and preprocessing.resize == "letterbox":
        height, width = preprocessing.size
        raise UserError(f"{checkpoint} takes images of {height}x{width} pixels and no other size: leave size out")
    if size:
        preprocessing = predictor.preprocessing = replace(preprocessing, size=size)
    measure = {"detection": _measure_detector, "segmentation": _measure_segmenter}[predictor.task]
    found = measure(predictor, data, allow_damaged, workers)
    return DenseMeasured(
        checkpoint=checkpoint,
        data=data,
        task=predictor.task,
        form=predictor.form,
        runtime=predictor.runtime,
        device=predictor.device,
        preprocessing=preprocessing,
        **found,
    )


def _measure_detector(predictor: Predictor, data: str, allow_damaged: bool, workers: int | None) -> dict[str, Any]:
    from fastvit.tasks.detection.data import evaluation_loader
    from fastvit.tasks.detection.metrics import CocoMetrics, coco_results

    masks = predictor.options.masks
    images = open_coco(data, "test", predictor.classes, masks)
    metrics = CocoMetrics(predictor.num_classes, masks)
    loader = evaluation_loader(images, predictor.preprocessing, masks, 1, workers, allow_damaged=allow_damaged)
    clock = _Clock()
    results: list[dict[str, Any]] = []
    for index, (pixels, target) in enumerate(_batches(loader, len(images))):
        if target["image_id"] < 0:
            continue
        size = (int(target["size"][0]), int(target["size"][1]))
        with clock:
            answers = predictor.answers(pixels[None].numpy())
            fitted = fitted_size(size, predictor.preprocessing)
            answer = detection.predict(answers, images.name(index), fitted, size, predictor.classes, 0.0)
        found = answer.objects
        arrays = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores, "masks": found.masks}
        known = {name: values for name, values in arrays.items() if values is not None}
        metrics.update([{name: torch.from_numpy(values) for name, values in known.items()}], [target])
        results += coco_results(known, int(target["image_id"]), images.categories)
    values = {name: float(value) for name, value in metrics.compute().items()}
    names = predictor.classes or [str(label) for label in range(predictor.num_classes)]
    by_class = dict(zip(names, metrics.per_class().tolist(), strict=True))
    return {**_found(clock, values, by_class, "box AP"), "examples": examples(predictor, images), "results": results}


def _measure_segmenter(predictor: Predictor, data: str, allow_damaged: bool, workers: int | None) -> dict[str, Any]:
    from fastvit.tasks.segmentation.data import evaluation_loader
    from fastvit.tasks.segmentation.metrics import per_class_iou, segmentation_metrics

    images = open_masks(data, "test", predictor.classes)
    metrics = segmentation_metrics(predictor.num_classes)
    loader = evaluation_loader(images, predictor.preprocessing, workers, allow_damaged=allow_damaged)
    names = predictor.classes or tuple(str(label) for label in range(predictor.num_classes))
    clock = _Clock()
    for index, (pixels, mask) in enumerate(_batches(loader, len(images))):
        if not (mask != IGNORED).any():
            continue
        size = (mask.shape[0], mask.shape[1])
        with clock:
            answers = predictor.answers(pixels[None].numpy())
            fitted = fitted_size(size, predictor.preprocessing)
            answer = segmentation.predict(answers, images.name(index), fitted, size, names)
        metrics.update([torch.from_numpy(answer.mask)], [mask])
    values = {name: float(value) for name, value in metrics.compute().items()}
    confusion = metrics["miou"].confmat
    by_class = dict(zip(names, per_class_iou(confusion).tolist(), strict=True))
    return {**_found(clock, values, by_class, "IoU"), "examples": examples(predictor, images)}


def _found(clock: _Clock, metrics: dict[str, float], per_class: dict[str, float], label: str) -> dict[str, Any]:
    if not clock.count:
        raise UserError("there is no image to evaluate on")
    return {
        "images": clock.count,
        "metrics": metrics,
        "per_class": per_class,
        "per_class_label": label,
        "images_per_second": clock.rate,
    }


def _batches(loader: Any, length: int) -> Iterator[tuple[Tensor, Any]]:
    """Image and target of batches of one, with a progress bar."""
    for images, targets in track(loader, "evaluating", length, console=Console(stderr=True), transient=True):
        yield images[0], targets[0]


class _Clock:
    """How often, and after the first time how long, a block ran."""

    def __init__(self) -> None:
        self.count, self._seconds = 0, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.count:
            self._seconds += time.perf_counter() - self._start
        self.count += 1

    @property
    def rate(self) -> float | None:
        """Times a second."""
        return (self.count - 1) / self._seconds if self.count > 1 else None
