"""Evaluation of a hand mesh regressor on validation images."""

from __future__ import annotations

from math import nan
from typing import Any

import torch

from fastvit.console import track
from fastvit.data.module import evaluation_loader
from fastvit.evaluation.measurement import Clock, EvaluationRequest, Measurement, Parts
from fastvit.predict.predictor import Predictor
from fastvit.reports.metric_format import Metric
from fastvit.reports.page import Section
from fastvit.reports.plots import share_within
from fastvit.tasks.hand_mesh.camera import root_in_space
from fastvit.tasks.hand_mesh.data import HandSamples
from fastvit.tasks.hand_mesh.freihand import HandImages
from fastvit.tasks.hand_mesh.metrics import METRICS, HandMetrics
from fastvit.tasks.hand_mesh.skeleton import JOINTS

JOINT_ERROR = Metric("joint error", "mm", lower_is_better=True)


def measure(predictor: Predictor, images: HandImages, request: EvaluationRequest) -> Measurement:
    """Evaluate with FreiHAND's metrics; they are NaN without ground truth.

    `Measurement.results` contains the lists of joints and vertices for FreiHAND's evaluation server.

    Args:
        predictor: predictor of a hand mesh regressor.
        images: images to evaluate on.
        request: options of the evaluation.
    """
    metrics, preprocessing, clock = HandMetrics(), predictor.preprocessing, Clock()
    samples = HandSamples(images, preprocessing, skip_unreadable=request.skip_unreadable)
    joints: list[Any] = []
    vertices: list[Any] = []
    for pixels, targets in track(evaluation_loader(samples, 1, request.num_workers), "evaluating", len(images)):
        if targets["index"][0] < 0:
            continue
        with clock:
            outputs = predictor.outputs(pixels.numpy())
        if images.has_ground_truth:
            found = {name: torch.from_numpy(outputs[name]) for name in ("joints", "vertices")}
            metrics.update(found, {name: targets[name] for name in found})
        # The camera of the preprocessed image.
        root = root_in_space(outputs["camera"][0], preprocessing.size, targets["intrinsics"][0].numpy())
        for name, rows in (("joints", joints), ("vertices", vertices)):
            rows.append((outputs[name][0] + root).round(6).tolist())
    rates = clock.rates()
    measured = metrics.compute() if images.has_ground_truth else dict.fromkeys(METRICS, nan)
    per_joint = dict(zip(JOINTS, metrics.per_joint().tolist(), strict=True))
    return Measurement(
        images=clock.count,
        metrics={name: float(value) for name, value in measured.items()},
        parts=Parts.of_metric("joint", JOINT_ERROR, per_joint),
        rates=rates,
        results={"pred.json": [joints, vertices]},
        results_format="FreiHAND submission format",
        sections=lambda: [_curve_section(metrics)] if images.has_ground_truth else [],
    )


def _curve_section(metrics: HandMetrics) -> Section:
    distances, shares = (side.tolist() for side in metrics.curve())
    text = (
        "Share of the joints within a distance of the ground truth (percentage of correct keypoints, PCK), after "
        "Procrustes alignment of each hand. AUC is the area under this curve, as a share of the plot."
    )
    return Section("Joint accuracy (PCK)", text, [share_within(distances, shares)])
