"""What `fastvit eval` does for tasks other than classification: the answers of the Predictor against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fastvit.data.pixels import fitted_size
from fastvit.errors import UserError
from fastvit.evaluation.checkpoint import open_in_form
from fastvit.evaluation.examples import Example, examples
from fastvit.model.preprocessing import Preprocessing
from fastvit.predict.predictor import Predictor
from fastvit.reports.metric_format import as_text, unit
from fastvit.reports.page import Section
from fastvit.reports.plots import share_within
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.runtime.artifact import Precision, is_artifact, open_artifact
from fastvit.tasks.detection import prediction as detection
from fastvit.tasks.detection.coco import open_coco
from fastvit.tasks.segmentation import prediction as segmentation
from fastvit.tasks.segmentation.folders import IGNORED, open_masks
from fastvit.tasks.table import find_task
from fastvit.terminal import track
from fastvit.weights.description import read_task

if TYPE_CHECKING:
    from fastvit.tasks.hand_mesh.metrics import HandMetrics


@dataclass(frozen=True)
class DenseMeasured:
    """An evaluation of a detector, segmenter or hand mesh regressor, and what it is of.

    Attributes:
        checkpoint: as it was asked for.
        data: name or path.
        task: "detection", "segmentation" or "hand_mesh".
        form: of the network that ran.
        runtime: that it ran in.
        device: that it ran on.
        preprocessing: of the images.
        images: how many were counted.
        metrics: by name, the task's headline among them; NaN where there is nothing to measure.
        part: what there is one of in a row of `per_part`: "class" or "joint".
        per_part: of each of them what `per_part_label` says, or NaN.
        per_part_label: "box AP", "IoU" or "joint error".
        images_per_second: of the network and its decoding, the first image left out; None where there is but one.
        examples: some images, evenly spread.
        results: what a benchmark's server takes, by the name of its file: of a detector COCO's result records, with the
            data's own ids, of a hand mesh regressor FreiHAND's lists of joints and vertices.
        sections: of the page, what the task alone has.
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
    part: str
    per_part: dict[str, float]
    per_part_label: str
    images_per_second: float | None
    examples: list[Example] = field(repr=False)
    results: dict[str, Any] = field(default_factory=dict, repr=False)
    sections: list[Section] = field(default_factory=list, repr=False)

    @property
    def headline(self) -> str:
        """What the task is judged by: its name and value."""
        kind = find_task(self.task)
        return f"{kind.label} {as_text(kind.headline, self.metrics[kind.headline])}"

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

    def part_rows(self) -> list[tuple[str, str]]:
        """`per_part` as text, the worst first."""
        sign = -1 if unit(self.per_part_label)[1] == "mm" else 1
        rows = sorted(self.per_part.items(), key=lambda row: float("-inf") if isnan(row[1]) else sign * row[1])
        return [(name, as_text(self.per_part_label, value)) for name, value in rows]

    def by_part(self) -> dict[str, float | None]:
        """`per_part` for JSON."""
        return {name: _known(value) for name, value in self.per_part.items()}


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def task_of(checkpoint: str, allow_native_code: bool = False) -> str:
    """What a checkpoint or an artifact is for.

    Raises:
        UserError: there is no such file, its runtime is not here, or it contains native code that is not allowed.
    """
    if is_artifact(checkpoint):
        return open_artifact(checkpoint, allow_native_code=allow_native_code).description.task
    return read_task(checkpoint)


def evaluate_dense(
    checkpoint: str,
    data: str | None = None,
    form: Literal["fused", "train"] = "fused",
    size: tuple[int, int] | None = None,
    allow_damaged: bool = False,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    kernels: bool = True,
    allow_native_code: bool = False,
) -> DenseMeasured:
    """Measure a checkpoint or an artifact of another task than classification on the held-out images of a data source.

    Args:
        checkpoint: anything that Predictor takes.
        data: as in `open_coco`, `open_masks` or `open_freihand` of the tasks' rooms; None for those of the run.
        form: what of a checkpoint in train form runs.
        size: shorter and longer side in pixels within which images are shown; by default the checkpoint's own.
        allow_damaged: leave images out that cannot be decoded.
        workers: processes that decode images; None takes one a core but one.
        device: where PyTorch runs.
        precision: as Predictor has it.
        kernels: as Predictor has it.
        allow_native_code: as Predictor has it.

    Raises:
        UserError: checkpoint or data cannot be had, or do not fit each other or what is asked of them.
    """
    source = EvaluationData(checkpoint, data).source
    predictor = open_in_form(checkpoint, form, device, precision, kernels, allow_native_code)
    preprocessing = predictor.preprocessing
    if size and min(size) < 32:
        raise UserError(f"size must be at least 32 pixels a side, got {size[0]}x{size[1]}")
    if size and preprocessing.resize == "letterbox":
        height, width = preprocessing.size
        raise UserError(f"{checkpoint} takes images of {height}x{width} pixels and no other size: leave size out")
    if size:
        preprocessing = predictor.preprocessing = replace(preprocessing, size=size)
    found = _MEASURES[predictor.task](predictor, source, allow_damaged, workers)
    return DenseMeasured(
        checkpoint=checkpoint,
        data=source,
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
            fitted = fitted_size(size, predictor.preprocessing)
            answers = predictor.answers(pixels[None].numpy(), fitted)
            answer = detection.predict(answers, images.name(index), fitted, size, predictor.classes, 0.0)
        found = answer.objects
        arrays = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores, "masks": found.masks}
        known = {name: values for name, values in arrays.items() if values is not None}
        metrics.update([{name: torch.from_numpy(values) for name, values in known.items()}], [target])
        results += coco_results(known, int(target["image_id"]), images.categories)
    values = {name: float(value) for name, value in metrics.compute().items()}
    names = predictor.classes or [str(label) for label in range(predictor.num_classes)]
    by_class = dict(zip(names, metrics.per_class().tolist(), strict=True))
    found_all = {"examples": examples(predictor, images), "results": {"detections.json": results}}
    return {**_found(clock, values, "class", by_class, "box AP"), **found_all}


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
    return {**_found(clock, values, "class", by_class, "IoU"), "examples": examples(predictor, images)}


def _measure_hands(predictor: Predictor, data: str, allow_damaged: bool, workers: int | None) -> dict[str, Any]:
    from fastvit.tasks.hand_mesh.camera import root_in_space
    from fastvit.tasks.hand_mesh.data import evaluation_loader
    from fastvit.tasks.hand_mesh.freihand import open_freihand
    from fastvit.tasks.hand_mesh.metrics import METRICS, HandMetrics
    from fastvit.tasks.hand_mesh.skeleton import JOINTS

    images = open_freihand(data, "test", vertices=predictor.options.hand.vertices)
    metrics, preprocessing = HandMetrics(), predictor.preprocessing
    loader = evaluation_loader(images, preprocessing, 1, workers, allow_damaged=allow_damaged)
    clock = _Clock()
    joints: list[Any] = []
    vertices: list[Any] = []
    for pixels, target in _singles(loader, len(images)):
        if target["index"] < 0:
            continue
        with clock:
            answers = predictor.answers(pixels[None].numpy())
        if images.has_truth:
            found = {name: torch.from_numpy(answers[name]) for name in ("joints", "vertices")}
            metrics.update(found, {name: target[name][None] for name in found})
        # The camera of what the network was shown.
        root = root_in_space(answers["camera"][0], preprocessing.size, target["intrinsics"].numpy())
        for name, rows in (("joints", joints), ("vertices", vertices)):
            rows.append((answers[name][0] + root).round(6).tolist())
    measured = metrics.compute() if images.has_truth else dict.fromkeys(METRICS, nan)
    values = {name: float(value) for name, value in measured.items()}
    by_joint = dict(zip(JOINTS, metrics.per_joint().tolist(), strict=True))
    shown = {"examples": examples(predictor, images), "sections": [_curve_section(metrics)]} if images.has_truth else {}
    parts = {"examples": [], **shown, "results": {"pred.json": [joints, vertices]}}
    return {**_found(clock, values, "joint", by_joint, "joint error"), **parts}


def _curve_section(metrics: HandMetrics) -> Section:
    distances, shares = (side.tolist() for side in metrics.curve())
    text = "After each hand's own alignment; the area under the curve, of its whole square, is the AUC."
    return Section("Joints within a distance", text, share_within(distances, shares))


_MEASURES: dict[str, Callable[[Predictor, str, bool, int | None], dict[str, Any]]] = {
    "detection": _measure_detector,
    "segmentation": _measure_segmenter,
    "hand_mesh": _measure_hands,
}


def _found(
    clock: _Clock, metrics: dict[str, float], part: str, per_part: dict[str, float], label: str
) -> dict[str, Any]:
    if not clock.count:
        raise UserError("there is no image to evaluate on")
    return {
        "images": clock.count,
        "metrics": metrics,
        "part": part,
        "per_part": per_part,
        "per_part_label": label,
        "images_per_second": clock.rate,
    }


def _batches(loader: Any, length: int) -> Iterator[tuple[Tensor, Any]]:
    """Image and target of batches of one, with a progress bar."""
    for images, targets in _tracked(loader, length):
        yield images[0], targets[0]


def _singles(loader: Any, length: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The same of targets that are stacked."""
    for images, targets in _tracked(loader, length):
        yield images[0], {name: value[0] for name, value in targets.items()}


def _tracked(loader: Any, length: int) -> Iterable[Any]:
    return track(loader, "evaluating", length)


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
