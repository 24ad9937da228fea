"""What `fastvit eval` does with detectors and segmenters: the answers of the Predictor against the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from fastvit.data.pixels import fitted_size
from fastvit.errors import UserError
from fastvit.evaluation.checkpoint import open_in_form
from fastvit.model.preprocessing import Preprocessing
from fastvit.runtime.artifact import is_artifact, open_artifact
from fastvit.runtime.predictor import Predictor
from fastvit.tasks.detection import prediction as detection
from fastvit.tasks.detection.decoding import Objects
from fastvit.tasks.detection.prediction import DetectionPrediction
from fastvit.tasks.segmentation import prediction as segmentation
from fastvit.tasks.segmentation.prediction import SegmentationPrediction
from fastvit.tasks.table import find_task
from fastvit.weights.description import read_task

# Images that are kept with their answers, for pictures.
_KEPT = 6
# Objects below it are not drawn; all count.
DRAWN = 0.3


@dataclass(frozen=True)
class Example:
    """An image with what is true of it and what the model says, each drawn into it."""

    name: str
    truth: Image.Image
    answer: Image.Image


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

    def by_class(self) -> dict[str, float | None]:
        """`per_class` for JSON."""
        return {name: _known(value) for name, value in self.per_class.items()}


def _known(value: float) -> float | None:
    return None if value != value else value


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

    Raises:
        UserError: checkpoint or data cannot be had, or do not fit each other or what is asked of them.
    """
    predictor = open_in_form(checkpoint, form, device)
    preprocessing = predictor.preprocessing
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
    from fastvit.tasks.detection.coco import open_coco
    from fastvit.tasks.detection.data import evaluation_loader
    from fastvit.tasks.detection.drawing import draw
    from fastvit.tasks.detection.metrics import CocoMetrics

    masks = predictor.options.masks
    images = open_coco(data, "test", predictor.classes, masks)
    metrics = CocoMetrics(predictor.num_classes, masks)
    loader = evaluation_loader(images, predictor.preprocessing, masks, 1, workers, allow_damaged=allow_damaged)
    clock = _Clock()
    examples = []
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
        metrics.update([{k: torch.from_numpy(v) for k, v in arrays.items() if v is not None}], [target])
        if index in _spread(len(images)):
            true = {name: target[name].numpy() for name in ("boxes", "labels", *(["masks"] if masks else []))}
            true["masks"] = true["masks"].astype(bool) if masks else None
            truth = Objects(**true, scores=np.ones(len(true["labels"]), np.float32))
            picture = images.image(index)
            examples.append(
                Example(
                    images.name(index),
                    draw(picture, DetectionPrediction(images.name(index), truth, predictor.classes)),
                    draw(picture, DetectionPrediction(images.name(index), found.above(DRAWN), predictor.classes)),
                )
            )
    values = {name: float(value) for name, value in metrics.compute().items()}
    names = predictor.classes or [str(label) for label in range(predictor.num_classes)]
    by_class = dict(zip(names, metrics.per_class().tolist(), strict=True))
    return _found(clock, values, by_class, "box AP", examples)


def _measure_segmenter(predictor: Predictor, data: str, allow_damaged: bool, workers: int | None) -> dict[str, Any]:
    from fastvit.tasks.segmentation.data import evaluation_loader
    from fastvit.tasks.segmentation.drawing import draw
    from fastvit.tasks.segmentation.folders import IGNORED, open_masks
    from fastvit.tasks.segmentation.metrics import per_class_iou, segmentation_metrics

    images = open_masks(data, "test", predictor.classes)
    metrics = segmentation_metrics(predictor.num_classes)
    loader = evaluation_loader(images, predictor.preprocessing, workers, allow_damaged=allow_damaged)
    names = predictor.classes or tuple(str(label) for label in range(predictor.num_classes))
    clock = _Clock()
    examples = []
    for index, (pixels, mask) in enumerate(_batches(loader, len(images))):
        if not (mask != IGNORED).any():
            continue
        size = (mask.shape[0], mask.shape[1])
        with clock:
            answers = predictor.answers(pixels[None].numpy())
            fitted = fitted_size(size, predictor.preprocessing)
            answer = segmentation.predict(answers, images.name(index), fitted, size, names)
        metrics.update([torch.from_numpy(answer.mask)], [mask])
        if index in _spread(len(images)):
            shown = torch.where(mask == IGNORED, predictor.num_classes, mask).numpy()
            truth = SegmentationPrediction(answer.image, shown, (*names, "ignored"))
            picture = images.image(index)
            examples.append(Example(answer.image, draw(picture, truth), draw(picture, answer)))
    values = {name: float(value) for name, value in metrics.compute().items()}
    confusion = metrics["miou"].confmat
    return _found(clock, values, dict(zip(names, per_class_iou(confusion).tolist(), strict=True)), "IoU", examples)


def _found(
    clock: _Clock, metrics: dict[str, float], per_class: dict[str, float], label: str, examples: list[Example]
) -> dict[str, Any]:
    if not clock.count:
        raise UserError("there is no image to evaluate on")
    return {
        "images": clock.count,
        "metrics": metrics,
        "per_class": per_class,
        "per_class_label": label,
        "images_per_second": clock.rate,
        "examples": examples,
    }


def _batches(loader: Any, length: int) -> Iterator[tuple[Tensor, Any]]:
    """Image and target of batches of one, with a progress bar."""
    for images, targets in track(loader, "evaluating", length, console=Console(stderr=True), transient=True):
        yield images[0], targets[0]


def _spread(length: int) -> set[int]:
    """Places of the images that are kept."""
    return set(np.linspace(0, length - 1, min(length, _KEPT)).round().astype(int).tolist())


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
