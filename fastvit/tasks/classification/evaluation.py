"""Measuring a classifier on validation images."""

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
from fastvit.tasks.classification.drawing import prediction_sheet
from fastvit.tasks.classification.plots import reliability_diagram
from fastvit.tasks.classification.prediction import Label
from fastvit.tasks.classification.real_labels import RealLabels, real_accuracy, real_labels

# More classes than this cannot be told apart in a picture of the confusion matrix.
MATRIX_CLASSES = 50


def measure(predictor: Predictor, images: LabeledImages, request: EvaluationRequest) -> Measurement:
    """Measure accuracy, calibration and confusions."""
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
            Rate("images_per_second_model", "network alone, images/s", network),
        ],
        skipped=result.skipped,
        details={
            # (true class, predicted class, images) of all that is not 0
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
        f"Images by the probability of their predicted class, in {BINS} bins: a calibrated classifier is on the "
        f"diagonal. The expected calibration error, {result.metrics['ece']:.2%}, is the mean distance from it, "
        "weighted by the images of each bin."
    )
    return Section("Calibration", text, reliability_diagram(result.reliability))


def _confusion_section(result: Evaluation, names: tuple[str, ...]) -> Section:
    if len(names) <= MATRIX_CLASSES:
        return Section("Confusion", figure=confusion_matrix(result.confusion, names))
    header = ("true class", "named", "times", "share of the true class")
    return Section("Confusion", "The most frequent mistakes.", table=Table(header, confused_pairs(result, names)))


def _mistakes_sections(result: Evaluation, images: LabeledImages, count: int = 24) -> list[Section]:
    """One, or none where there is no mistake."""
    wrong = np.flatnonzero((result.predicted != result.targets) & (result.targets != IGNORED))
    worst = wrong[np.argsort(-result.probability[wrong], kind="stable")][:count]
    if not len(worst):
        return []
    names = [textwrap.shorten(name, 20, placeholder="…") for name in images.classes]
    guesses = [Label(int(result.predicted[i]), names[result.predicted[i]], float(result.probability[i])) for i in worst]
    true_names = [names[result.targets[i]] for i in worst]
    sheet = prediction_sheet([images.image(i) for i in worst], guesses, true_names)
    text = "The wrong outputs with the highest probability: where labels are wrong, they are found here."
    return [Section("Most confident mistakes", text, sheet, pixels=True)]
