"""`fastvit eval`: evaluate a model."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvit.arguments import parse_size, refuse_given
from fastvit.cli.applicable import refuse_device
from fastvit.console import counted, new_table, print_line, print_styled, print_table
from fastvit.device import Device
from fastvit.errors import UserError
from fastvit.runs.files import EVALUATION_PAGE
from fastvit.runtime.artifact import Precision

if TYPE_CHECKING:
    from fastvit.evaluation.checkpoint import EvaluationResult


def evaluate(
    checkpoint: str,
    data: str | None = None,
    form: Literal["fused", "train"] = "fused",
    size: str | None = None,
    crop_pct: float | None = None,
    real_labels: bool = False,
    skip_unreadable: bool = False,
    per_class: bool = False,
    out: Path | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: Device = "auto",
    precision: Precision | None = None,
    no_kernels: bool = False,
    allow_native_code: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a model on validation images: the metrics of its task, and images per second.

    Args:
        checkpoint: folder of a run, weights in any form and layout, or an artifact of fastvit export. In a run with
            EMA, best.safetensors and last.safetensors contain the EMA weights, trained.safetensors those without EMA.
        data: folder in the task's layout, or a named source (see docs/data.md). By default the data of the checkpoint's
            run, else "sample", which comes with the package. If the run split its validation images off the training
            data (val_fraction), the same images are used here.
        form: fused runs a checkpoint as it is deployed, train with its training branches.
        size: image size in pixels; for tasks whose images keep their aspect ratio (detection, segmentation) also
            SHORTxLONG, the largest lengths of the two sides; by default that of the checkpoint.
        crop_pct: center crop as a share of the resized image; by default that of the checkpoint, but 1 at a larger
            size.
        real_labels: also compute accuracy on ImageNet's ReaL labels; the data must be the ImageNet validation set.
        skip_unreadable: skip unreadable (corrupt) images with a warning, instead of ending with an error.
        per_class: print a table of the metrics of each class, or of each joint for hands.
        out: folder for evaluation.json and evaluation.html, a page with plots: for classifiers the confusion matrix and
            the calibration error (ECE), for other tasks examples.
        batch_size: images per batch, for tasks that predict in batches; by default 64.
        num_workers: number of processes that decode images; by default the number of CPU cores minus one.
        device: device that PyTorch runs on.
        precision: fp32, or on a GPU fp16 or bf16 if the task supports it; an artifact runs in its own precision.
        no_kernels: use only the kernels of PyTorch on a GPU, not those of fastvit for fp16 and bf16.
        allow_native_code: load an AOTInductor package (.aoti.pt2). It contains machine code: do so only if you trust
            its source.
        json: print one JSON object instead of tables.

    Raises:
        UserError: the model, the data or the device is not available, or an option does not apply to the model.
    """
    if json:
        refuse_given("prints a table, and --json prints one object instead of tables", per_class=per_class)
    refuse_device(checkpoint, device, no_kernels)

    sides = parse_size(size)
    if sides == "dynamic":
        raise UserError("size must be a number of pixels or SHORTxLONG, got 'dynamic'")

    from fastvit.evaluation.checkpoint import evaluate_checkpoint
    from fastvit.evaluation.measurement import EvaluationRequest

    measured = evaluate_checkpoint(
        checkpoint,
        data,
        form,
        EvaluationRequest(sides, crop_pct, real_labels, skip_unreadable, batch_size, num_workers),
        device,
        precision,
        kernels=not no_kernels,
        allow_native_code=allow_native_code,
    )
    if out:
        from fastvit.evaluation.evaluation_report import write_evaluation

        write_evaluation(measured, out)
    if json:
        print_line(jsonlib.dumps(measured.summary()))
        return
    _show(measured)
    parts = measured.found.parts
    if per_class:
        print_table(parts.header, parts.rows)
    if out:
        print_line(f"{out / EVALUATION_PAGE}: metrics, results per {parts.name}, and plots")
        for name in measured.found.results:
            print_line(f"{out / name}: results in {measured.found.results_format}")


def _show(measured: EvaluationResult) -> None:
    found, preprocessing, texts = measured.found, measured.preprocessing, measured.metric_texts()
    cropped = preprocessing.resize == "crop"
    rates = [rate.label for rate in found.rates]
    table = new_table("images", *texts, "form", "runtime", "size", *(["crop"] if cropped else []), *rates)
    height, width = preprocessing.size
    table.add_row(
        str(found.images),
        *texts.values(),
        measured.form,
        measured.runtime,
        f"{height}x{width}",
        *([f"{preprocessing.crop_pct:g}"] if cropped else []),
        *("-" if rate.value is None else f"{rate.value:.1f}" for rate in found.rates),
    )
    print_styled(table)
    split = " (validation split of the run)" if measured.run_split else ""
    print_styled(f"{measured.counted} of {measured.data}{split}")
    if found.skipped:
        print_styled(f"{counted(found.skipped, 'unreadable image')} skipped, not counted")
