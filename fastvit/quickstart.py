"""Quickstart on real images, in minutes: train, evaluate, fuse, export, verify, benchmark, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fastvit.bench.suite import bench_model
from fastvit.console import new_console
from fastvit.data.datasets import LabeledImages, samples_for_evaluation
from fastvit.data.load import open_images
from fastvit.data.module import evaluation_loader
from fastvit.data.transforms import normalize
from fastvit.device import pick_device
from fastvit.errors import UserError
from fastvit.evaluation.evaluate import Evaluation, evaluate
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.proof import Proof
from fastvit.export.target import TARGETS
from fastvit.fusion import fuse, verify
from fastvit.model.classifier import FastViT
from fastvit.numerics import Differences
from fastvit.predict.predictor import Predictor
from fastvit.reports.page import Section, Table, write_report
from fastvit.reports.plots import confusion_matrix, latency_bars, training_plots
from fastvit.runs.files import HISTORY, REPORT
from fastvit.runs.history import read_history
from fastvit.tasks.classification.drawing import prediction_gallery, prediction_sheet
from fastvit.tasks.classification.prediction import Label
from fastvit.tasks.table import find_task
from fastvit.timing import Timing
from fastvit.training.recipe import load_recipe
from fastvit.training.train import train
from fastvit.weights.native import load, save

# The form that the speed of the others is compared with.
TRAINED = "train form"
# Images of the report's predictions.
_SHOWN = 40
_PREDICTIONS = f"The first {_SHOWN} validation images or fewer. Wrong predictions are red and name the ground truth."


def quickstart(data: str, out: Path, device: str = "auto", epochs: int | None = None) -> Path:
    """Train a model, verify its fused form and its ONNX export, measure latencies, and write a report.

    All files are written to `out`. If the folder contains an earlier run, it is overwritten.

    Args:
        data: images to train on, as in the option --data of `fastvit train`.
        out: folder for the run, the models and the report.
        device: device to train and evaluate on: "auto", "cpu", "cuda" or "mps".
        epochs: number of epochs; by default that of the recipe quickstart.

    Returns:
        The path of report.html.

    Raises:
        UserError: the data or the device is not available, or the outputs of the fused or exported model differ.
    """
    start = time.perf_counter()
    console = new_console()
    device = pick_device(device)
    options = [f"--data={data}", f"--out={out}", f"--device={device}", "--overwrite=true"]
    recipe = load_recipe("quickstart", *options, *([f"--epochs={epochs}"] if epochs is not None else []))

    console.rule("train")
    run = train(recipe)
    model = load(run.best, FastViT)
    trained_in = time.perf_counter() - start

    console.rule("evaluate, fuse and verify")
    dataset = open_images(data, "test", model.classes)
    fused = fuse(model)
    batches = evaluation_loader(samples_for_evaluation(dataset, model.preprocessing), 64)
    # TF32, the default of convolutions on a GPU, would round the two forms differently.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        train_form = _evaluate(model, batches, device, "train form")
        fused_form = _evaluate(fused, batches, device, "fused")
    _demand_equal(train_form, fused_form, "the fused model")
    fusion = verify(model.cpu(), fused.cpu(), _first_images(dataset, model, 64))
    save(fused, out / "fused.safetensors", fused_form.metrics)
    top1 = f"{train_form.metrics['top1']:.2%}"
    console.print(f"top-1 accuracy {top1}, train form and fused form agree on {train_form.images} images")
    console.print(f"fused against train form: {fusion}")

    console.rule("export and verify")
    first = range(min(64, len(dataset)))
    exported = export(
        model,
        TARGETS["onnx"],
        out / "model.onnx",
        [dataset.image(i) for i in first],
        ExportOptions(batch="dynamic"),
        [dataset.labels[i] for i in first],
    )
    assert exported.proof is not None  # onnxruntime is always installed
    artifact = Predictor(exported.path)
    exported_form = evaluate(artifact.logits, batches, len(dataset.classes), description="onnxruntime")
    _demand_equal(train_form, exported_form, exported.path.name)
    console.print(f"{exported.path}: {exported.proof.differences}; top-1 accuracy {exported_form.metrics['top1']:.2%}")

    console.rule("benchmark")
    timings = bench_model(model, compiled=_can_compile(), device=device)
    for name, timing in timings.items():
        console.print(f"{name:20} {timing.median:6.2f} ms, {timings[TRAINED].median / timing.median:.2f}x")

    shown = range(min(_SHOWN, len(dataset)))
    images, names = [dataset.image(i) for i in shown], [dataset.name(i) for i in shown]
    guesses = [_guess(fused_form, dataset.classes, i) for i in shown]
    true_names = [dataset.classes[fused_form.targets[i]] for i in shown]
    prediction_sheet(images, guesses, true_names).savefig(out / "predictions.png", dpi=110)
    report = write_report(
        out / REPORT,
        title=f"{model.variant} on {data}",
        summary=f"Top-1 accuracy {train_form.metrics['top1']:.2%} on {train_form.images} validation images after "
        f"{recipe.epochs} epochs ({trained_in:.0f} s on {device}). The fused model makes the same predictions and is "
        f"{timings[TRAINED].median / timings['fused'].median:.2f}x as fast as the train form.",
        sections=[
            _training_section(out, device, recipe.epochs),
            _accuracy_section({"train form": train_form, "fused": fused_form, artifact.runtime: exported_form}),
            _proof_section(fusion, exported.path.name, artifact.runtime, exported.proof),
            _latency_section(timings, model, device),
            Section("Predictions", _PREDICTIONS, gallery=prediction_gallery(images, guesses, true_names, names)),
            Section("Confusion matrix", plots=[confusion_matrix(fused_form.confusion, dataset.classes)]),
        ],
    )
    console.rule()
    console.print(f"done in {time.perf_counter() - start:.0f} s; the report is {report}")
    return report


def _evaluate(model: FastViT, batches: torch.utils.data.DataLoader, device: str, name: str) -> Evaluation:
    network = model.eval().to(device)

    def classify(pixels: torch.Tensor) -> torch.Tensor:
        return network(normalize(pixels, model.preprocessing))

    return evaluate(classify, batches, model.num_classes, device, f"evaluating {name}")


def _demand_equal(train_form: Evaluation, other: Evaluation, name: str) -> None:
    differ = np.flatnonzero(train_form.predicted != other.predicted)
    if len(differ):
        where = f"{len(differ)} of {other.images} images, first {differ[:5].tolist()}"
        raise UserError(f"the predictions of {name} and of the train form differ on {where}")


def _can_compile() -> bool:
    """Return whether a C++ compiler is installed, which torch.compile needs; without one it is not measured."""
    return any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++"))


def _first_images(dataset: LabeledImages, model: FastViT, count: int) -> torch.Tensor:
    batches = evaluation_loader(samples_for_evaluation(dataset, model.preprocessing), count, num_workers=0)
    return normalize(next(iter(batches))[0], model.preprocessing)


def _guess(result: Evaluation, classes: Sequence[str], index: int) -> Label:
    predicted = int(result.predicted[index])
    return Label(predicted, classes[predicted], float(result.probability[index]))


def _training_section(out: Path, device: str, epochs: int) -> Section:
    plots = training_plots(read_history(out / HISTORY).series, find_task(FastViT.task).curve_metrics)
    text = (
        f"{epochs} epochs on {device}. train/loss is measured with label smoothing on augmented images, val/loss "
        "without. Validation uses the EMA weights."
    )
    return Section("Training curves", text, plots)


def _accuracy_section(results: dict[str, Evaluation]) -> Section:
    metrics = {name: result.metrics for name, result in results.items()}
    rows = [(name, f"{measured['top1']:.2%}", f"{measured['loss']:.4f}") for name, measured in metrics.items()]
    images = next(iter(results.values())).images
    text = (
        f"The forms make the same prediction for each of the {images} validation images. The checkpoint is that of the "
        "epoch with the best top-1 accuracy on these images."
    )
    return Section("Accuracy", text, table=Table(("form", "top-1", "loss"), rows))


def _proof_section(fusion: Differences, artifact: str, runtime: str, proof: Proof) -> Section:
    pairs = {
        "fused, PyTorch": fusion,
        f"{artifact}, {runtime}": proof.differences,
    }
    rows = [
        (name, f"{d.max_abs:.2e}", f"{d.relative:.2e}", f"{d.cosine:.9f}", f"{d.top1:.2%}") for name, d in pairs.items()
    ]
    header = ("model", "max. absolute difference", "relative difference", "cosine similarity", "same top-1 prediction")
    text = f"Logits compared with those of the train form in PyTorch, on {proof.images} validation images."
    return Section("Verification", text, table=Table(header, rows))


def _latency_section(timings: dict[str, Timing], model: FastViT, device: str) -> Section:
    height, width = model.preprocessing.size
    rows = [
        (n, f"{t.median:.2f}", f"{t.low:.2f} to {t.high:.2f}", f"{timings[TRAINED].median / t.median:.2f}x")
        for n, t in timings.items()
    ]
    text = f"On {device}, batch size 1, {height}x{width} pixels, interleaved calls."
    table = Table(("form", "median, ms", "IQR, ms", "speedup over train form"), rows)
    return Section("Latency", text, [latency_bars(timings, TRAINED)], table=table)
