"""`fastvit eval`: measure a model."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvit.arguments import parse_size, refuse_given
from fastvit.cli.applicable import refuse_device
from fastvit.console import new_table, print_line, print_styled, print_table
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
    """Measure accuracy and throughput on validation images, by what the checkpoint is for.

    Args:
        checkpoint: a run's folder, weights of any form and layout, or an artifact of fastvit export. A run's
            best.safetensors and last.safetensors hold the moving average (EMA), its trained.safetensors the weights
            without it.
        data: a folder in the task's layout, or a named source: docs/data.md lists them. By default the data of the
            checkpoint's run, else "sample", which is embedded. Of data from which the run held out images
            (val_fraction), these are measured on.
        form: run a checkpoint fused, as it is deployed, or in the form that it was trained in.
        size: side of the images in pixels, or SHORTxLONG, the sides within which images that keep their shape are
            shown; by default the checkpoint's own.
        crop_pct: center crop as a share of the resized image; by default the checkpoint's own, and 1 at a larger size.
        real_labels: also measure against ImageNet's ReaL labels; the data must be its validation set.
        skip_unreadable: leave out unreadable (corrupt) images, with a warning for each, instead of an error.
        per_class: print a table of the classes, or of the task's other parts, such as joints.
        out: folder for evaluation.json and evaluation.html.
        batch_size: images a step, of a task that takes batches; by default 64.
        num_workers: processes that decode images; by default one per core but one.
        device: where PyTorch runs.
        precision: of the arithmetic: fp32, and on a GPU fp16 or bf16 where the task has them; of an artifact its own.
        no_kernels: on a GPU, use PyTorch's kernels alone; ours are for fp16 and bf16.
        allow_native_code: open an AOTInductor package (.aoti.pt2), which contains machine code: only if you trust
            where it comes from.
        json: print one JSON object instead of tables.
    """
    if json:
        refuse_given("prints a table, and --json one object instead of tables", per_class=per_class)
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
        print_line(f"{out / EVALUATION_PAGE}: metrics, each {parts.name}, and pictures")
        for name in measured.found.results:
            print_line(f"{out / name}: as the benchmark's server takes it")


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
        print_styled(f"{found.skipped} images could not be read and are in none of these numbers")
