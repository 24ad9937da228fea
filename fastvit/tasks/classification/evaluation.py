"""Evaluation of a classifier on validation images."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, replace

import numpy as np

from fastvit.data.datasets import IGNORED, LabeledImages, samples_for_evaluation
from fastvit.data.module import evaluation_loader
from fastvit.evaluation.calibration import BINS
from fastvit.evaluation.evaluate import Evaluation, evaluate
from fastvit.evaluation.measurement import EvaluationRequest, Measurement, Parts, Rate
from fastvit.predict.predictor import Predictor
from fastvit.reports.page import Section, Table
from fastvit.reports.plots import confusion_matrix
from fastvit.tasks.classification.class_tables import classes_by_accuracy, confused_pairs
from fastvit.tasks.classification.drawing import prediction_gallery
from fastvit.tasks.classification.plots import reliability_diagram
from fastvit.tasks.classification.prediction import Label
from fastvit.tasks.classification.real_labels import RealLabels, real_accuracy, real_labels

# With more classes, the cells of a confusion matrix are too small to tell apart.
MATRIX_CLASSES = 50


def measure(predictor: Predictor, images: LabeledImages, request: EvaluationRequest) -> Measurement:
    """Measure accuracy, calibration error (ECE) and the confusion matrix.

    Args:
        predictor: classifier to measure.
        images: validation images with the classes of the model.
        request: options of the evaluation.
    """
    real = real_labels(images) if request.real_labels else None
    samples = samples_for_evaluation(images, predictor.preprocessing, request.skip_unreadable)
    batch_size = 64 if request.batch_size is None else request.batch_size
    batches = evaluation_loader(samples, batch_size, request.num_workers)
    result = evaluate(predictor.logits, batches, predictor.num_classes)
    if real:
        result = _with_real_metrics(result, real)
    names = images.classes
    per_class = {
        names[c]: {"images": int(result.class_images[c]), "top1": float(result.class_accuracy[c])}
        for c in np.flatnonzero(result.class_images)
    }
    overall, network = (round(v, 1) for v in asdict(result.speed).values()) if result.speed else (None, None)
    return Measurement(
        images=result.images,
        metrics=result.metrics,
        parts=Parts("class", ("class", "images", "top-1"), classes_by_accuracy(result, names), per_class),
        rates=[
            Rate("images_per_second_overall", "images/s", overall),
            Rate("images_per_second_model", "images/s (model only)", network),
        ],
        skipped=result.skipped,
        details={
            # (true class, predicted class, images) of each entry that is not 0
            "confusion": [[int(t), int(p), int(result.confusion[t, p])] for t, p in np.argwhere(result.confusion)],
            "reliability": [asdict(b) for b in result.reliability],
        },
        sections=lambda: [
            _calibration_section(result),
            _confusion_section(result, names),
            *_mistakes_sections(result, images),
        ],
    )


def _with_real_metrics(result: Evaluation, labels: RealLabels) -> Evaluation:
    counted = result.targets != IGNORED
    kept = [right for right, counts in zip(labels, counted, strict=True) if counts]
    return replace(result, metrics=result.metrics | real_accuracy(result.guesses[counted], kept))


def _calibration_section(result: Evaluation) -> Section:
    text = (
        f"Reliability diagram: accuracy against the predicted probability in {BINS} bins. The bars of a calibrated "
        f"classifier end on the diagonal. The expected calibration error (ECE), {result.metrics['ece']:.2%}, is the "
        "mean distance from it, weighted by the images in each bin."
    )
    return Section("Calibration error (ECE)", text, [reliability_diagram(result.reliability)])


def _confusion_section(result: Evaluation, names: tuple[str, ...]) -> Section:
    if len(names) <= MATRIX_CLASSES:
        return Section("Confusion matrix", plots=[confusion_matrix(result.confusion, names)])
    header = ("ground truth", "prediction", "images", "share of the ground truth class")
    text = f"The most frequent mistakes; a matrix is drawn for at most {MATRIX_CLASSES} classes."
    return Section("Confusion matrix", text, table=Table(header, confused_pairs(result, names)))


def _mistakes_sections(result: Evaluation, images: LabeledImages, count: int = 24) -> list[Section]:
    """Return a section with the most confident mistakes, or an empty list if there are none."""
    wrong = np.flatnonzero((result.predicted != result.targets) & (result.targets != IGNORED))
    worst = wrong[np.argsort(-result.probability[wrong], kind="stable")][:count]
    if not len(worst):
        return []
    classes = [textwrap.shorten(name, 40, placeholder="…") for name in images.classes]
    guesses = [
        Label(int(result.predicted[i]), classes[result.predicted[i]], float(result.probability[i])) for i in worst
    ]
    true_names = [classes[result.targets[i]] for i in worst]
    pictures, names = [images.image(i) for i in worst], [images.name(i) for i in worst]
    text = "Wrong predictions with the highest probability. Wrong labels often show up here."
    gallery = prediction_gallery(pictures, guesses, true_names, names)
    return [Section("Most confident mistakes", text, gallery=gallery)]
