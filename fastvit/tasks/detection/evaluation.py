"""Evaluation of a detector on validation images."""

from __future__ import annotations

from typing import Any

import torch

from fastvit.console import track
from fastvit.data.module import evaluation_loader
from fastvit.data.pixels import fitted_size
from fastvit.evaluation.measurement import Clock, EvaluationRequest, Measurement, Parts
from fastvit.predict.predictor import Predictor
from fastvit.reports.metric_format import Metric
from fastvit.tasks.detection.coco import CocoImages
from fastvit.tasks.detection.data import DetectionSamples, collate
from fastvit.tasks.detection.decoding import to_objects
from fastvit.tasks.detection.metrics import CocoMetrics, coco_results


def measure(predictor: Predictor, images: CocoImages, request: EvaluationRequest) -> Measurement:
    """Measure COCO's metrics on predictions for one image at a time.

    `Measurement.results` contains COCO's result records, with the ids of the data.

    Args:
        predictor: detector to measure.
        images: validation images with the classes of the model.
        request: options of the evaluation.
    """
    masks, preprocessing = predictor.options.masks, predictor.preprocessing
    metrics, clock = CocoMetrics(predictor.num_classes, masks), Clock()
    samples = DetectionSamples(images, preprocessing, masks, skip_unreadable=request.skip_unreadable)
    loader = evaluation_loader(samples, 1, request.num_workers, collate=collate)
    results: list[dict[str, Any]] = []
    for (pixels,), (target,) in track(loader, "evaluating", len(images)):
        if target["image_id"] < 0:
            continue
        size = (int(target["size"][0]), int(target["size"][1]))
        with clock:
            fitted = fitted_size(size, preprocessing)
            found = to_objects(predictor.outputs(pixels[None].numpy(), fitted), fitted, size)
        arrays = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores, "masks": found.masks}
        known = {name: values for name, values in arrays.items() if values is not None}
        metrics.update([{name: torch.from_numpy(values) for name, values in known.items()}], [target])
        results += coco_results(known, int(target["image_id"]), images.categories)
    rates = clock.rates()
    names = predictor.classes or [str(label) for label in range(predictor.num_classes)]
    values = {name: float(value) for name, value in metrics.compute().items()}
    per_class = dict(zip(names, metrics.per_class().tolist(), strict=True))
    parts = Parts.of_metric("class", Metric("box AP"), per_class)
    return Measurement(
        images=clock.count,
        metrics=values,
        parts=parts,
        rates=rates,
        results={"detections.json": results},
        results_format="COCO results format",
    )
