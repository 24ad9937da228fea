"""Evaluate a classifier on a robustness suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fastvit.data.classes import shortened
from fastvit.data.datasets import IGNORED, LabeledImages, samples_for_evaluation
from fastvit.data.folders import FolderImages
from fastvit.data.imagenet import is_imagenet
from fastvit.data.module import evaluation_loader
from fastvit.data.subset import limited
from fastvit.errors import UserError, unknown_name
from fastvit.evaluation.evaluate import evaluate
from fastvit.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from fastvit.evaluation.robustness.scores import mce, mean_error, relative_mce
from fastvit.evaluation.robustness.suites import Suite
from fastvit.evaluation.robustness.views import Corrupted, Cropped, Joined
from fastvit.files import user_path
from fastvit.predict.predictor import Predictor
from fastvit.runs.evaluation_data import EvaluationData


@dataclass(frozen=True)
class Settings:
    """Settings of a robustness evaluation.

    Attributes:
        corruptions: names of the corruptions of ImageNet-C to evaluate.
        clean: clean images for the clean error, if ImageNet-C is read from its published folders; None for none.
        limit: number of images of each set, evenly spaced; None for all.
        seed: random seed of the corruptions that are computed here.
        batch_size: images per batch.
        num_workers: number of processes that decode and corrupt images; None for the number of CPU cores minus one.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    clean: EvaluationData | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int = 64
    num_workers: int | None = None


@dataclass(frozen=True)
class Robustness:
    """Result of a robustness evaluation. Metrics and errors are fractions.

    Attributes:
        suite: name of the suite.
        data: name or path of the data.
        images: number of evaluated images; for ImageNet-C that of each corruption and severity.
        complete: whether all images were evaluated.
        computed_here: whether the corruptions were computed here, not read from published folders.
        seed: random seed of the corruptions that were computed here; else None.
        metrics: "top1" and "top5"; for ImageNet-C "mean_error", with clean images "clean_error" and "relative_error"
            (mean error minus clean error), and for ImageNet's classes and all corruptions "mce" and "relative_mce".
        errors: error of each corruption of ImageNet-C at the severities 1 to 5; else empty.
    """

    suite: str
    data: str
    images: int
    complete: bool
    computed_here: bool
    seed: int | None
    metrics: dict[str, float]
    errors: dict[str, list[float]] = field(default_factory=dict)


def measure(predictor: Predictor, suite: Suite, data: EvaluationData, settings: Settings) -> Robustness:
    """Evaluate a classifier on a suite.

    Args:
        predictor: classifier.
        suite: suite to evaluate on.
        data: images of the suite, or for ImageNet-C clean images to corrupt.
        settings: settings of the evaluation.

    Raises:
        UserError: the data does not exist, its classes are not those of the model, or the model is not a classifier.
    """
    if not predictor.spec.labels_images:
        raise UserError(f"the checkpoint is a {predictor.task} model; fastvit robustness takes classifiers only")
    if suite.name == "imagenet-c":
        return _corruptions(predictor, suite, data, settings)
    return _accuracy(predictor, suite, data, settings)


def _accuracy(predictor: Predictor, suite: Suite, data: EvaluationData, settings: Settings) -> Robustness:
    if not is_imagenet(predictor.classes):
        known = shortened(predictor.classes) if predictor.classes else f"{predictor.num_classes}, without names"
        raise UserError(f"{suite.title} needs a model with ImageNet's 1000 classes, this model has {known}")
    everything, columns = suite.open(data.source), list(suite.columns())
    images = limited(everything, settings.limit)
    samples = samples_for_evaluation(images, predictor.preprocessing)
    batches = evaluation_loader(samples, settings.batch_size, settings.num_workers)
    result = evaluate(lambda batch: predictor.logits(batch)[:, columns], batches, len(columns))
    metrics = {name: result.metrics[name] for name in ("top1", "top5")}
    return Robustness(suite.name, data.source, result.images, len(images) == len(everything), False, None, metrics)


def is_published(data: EvaluationData) -> bool:
    """Return whether the data is the published ImageNet-C, whose images are already corrupted."""
    return any((user_path(data.source) / name).is_dir() for name in CORRUPTIONS)


def _corruptions(predictor: Predictor, suite: Suite, data: EvaluationData, settings: Settings) -> Robustness:
    if unknown := [name for name in settings.corruptions if name not in CORRUPTIONS]:
        raise unknown_name("corruption", unknown[0], CORRUPTIONS)
    root = user_path(data.source)
    clean: LabeledImages | None
    corrupted: list[LabeledImages]
    if published := is_published(data):
        clean = _cropped(settings.clean, predictor) if settings.clean else None
        corrupted = [_checked(FolderImages(path, predictor.classes), predictor) for path in _folders(root, settings)]
    else:
        clean = _cropped(data, predictor)
        corrupted = [
            Corrupted(clean, CORRUPTIONS[name], severity, settings.seed)
            for name in settings.corruptions
            for severity in SEVERITIES
        ]
    images = len(corrupted[0])
    measured = min(images, settings.limit or images)
    found = _errors(predictor, [*corrupted, clean] if clean else corrupted, settings)
    errors = {
        name: found[len(SEVERITIES) * i : len(SEVERITIES) * (i + 1)] for i, name in enumerate(settings.corruptions)
    }
    metrics = _scores(errors, found[-1] if clean else None, predictor.classes)
    seed = None if published else settings.seed
    return Robustness(suite.name, data.source, measured, measured == images, not published, seed, metrics, errors)


def _errors(predictor: Predictor, sets: Sequence[LabeledImages], settings: Settings) -> list[float]:
    """Return the error of each set of images, evaluated in one pass over all sets."""
    parts = [limited(images, settings.limit) for images in sets]
    # Corrupted images are already cropped, those of the benchmark and those computed here.
    whole = replace(predictor.preprocessing, crop_pct=1.0)
    samples = samples_for_evaluation(Joined(parts), whole)
    batches = evaluation_loader(samples, settings.batch_size, settings.num_workers)
    result = evaluate(predictor.logits, batches, predictor.num_classes)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return [
        float(np.mean(predicted[true != IGNORED] != true[true != IGNORED]))
        for predicted, true in zip(np.split(result.predicted, ends), np.split(result.targets, ends), strict=True)
    ]


def _cropped(data: EvaluationData, predictor: Predictor) -> LabeledImages:
    return Cropped(_checked(data.images("test", predictor.classes), predictor), predictor.preprocessing)


def _checked(images: LabeledImages, predictor: Predictor) -> LabeledImages:
    if len(images.classes) != predictor.num_classes:
        raise UserError(
            f"the data have {len(images.classes)} classes, the model {predictor.num_classes}: give data with "
            "the classes of the model to --data"
        )
    return images


def _folders(root: Path, settings: Settings) -> list[Path]:
    """Return the published folders, in the order of corruptions and severities."""
    folders = [root / name / str(severity) for name in settings.corruptions for severity in SEVERITIES]
    if missing := [str(folder.relative_to(root)) for folder in folders if not folder.is_dir()]:
        raise UserError(
            f"{root} lacks folders ({shortened(missing)}); add them, or give the corruptions that it contains with "
            "--corruptions"
        )
    return folders


def _scores(errors: dict[str, list[float]], clean: float | None, classes: tuple[str, ...] | None) -> dict[str, float]:
    scores = {"mean_error": mean_error(errors)}
    if clean is not None:
        scores |= {"clean_error": clean, "relative_error": scores["mean_error"] - clean}
    if is_imagenet(classes) and set(errors) == set(CORRUPTIONS):
        scores["mce"] = mce(errors)
        if clean is not None:
            scores["relative_mce"] = relative_mce(errors, clean)
    return scores
