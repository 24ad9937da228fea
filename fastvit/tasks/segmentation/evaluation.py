"""Evaluation of a segmenter on validation images."""

from __future__ import annotations

import torch

from fastvit.console import track
from fastvit.data.module import evaluation_loader
from fastvit.data.pixels import fitted_size
from fastvit.evaluation.measurement import Clock, EvaluationRequest, Measurement, Parts
from fastvit.predict.predictor import Predictor
from fastvit.reports.metric_format import Metric
from fastvit.tasks.segmentation.data import SegmentationSamples, listed
from fastvit.tasks.segmentation.folders import VOID, MaskedImages
from fastvit.tasks.segmentation.metrics import per_class_iou, segmentation_metrics
from fastvit.tasks.segmentation.prediction import decoded


def measure(predictor: Predictor, images: MaskedImages, request: EvaluationRequest) -> Measurement:
    """Measure mean IoU and pixel accuracy at the original size of the images.

    Args:
        predictor: segmenter to measure.
        images: validation images with the classes of the model.
        request: options of the evaluation.
    """
    preprocessing, clock = predictor.preprocessing, Clock()
    metrics = segmentation_metrics(predictor.num_classes)
    samples = SegmentationSamples(images, preprocessing, skip_unreadable=request.skip_unreadable)
    loader = evaluation_loader(samples, 1, request.num_workers, collate=listed)
    for (pixels,), (mask,) in track(loader, "evaluating", len(images)):
        if not (mask != VOID).any():
            continue
        size = (mask.shape[0], mask.shape[1])
        with clock:
            found = decoded(predictor.outputs(pixels[None].numpy()), fitted_size(size, preprocessing), size)
        metrics.update([torch.from_numpy(found)], [mask])
    rates = clock.rates()
    names = predictor.classes or tuple(str(label) for label in range(predictor.num_classes))
    values = {name: float(value) for name, value in metrics.compute().items()}
    per_class = dict(zip(names, per_class_iou(metrics["miou"].confmat).tolist(), strict=True))
    return Measurement(clock.count, values, Parts.of_metric("class", Metric("IoU"), per_class), rates)
