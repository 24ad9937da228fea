"""`fastvit eval`: measure a model."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvit.arguments import refuse_given
from fastvit.cli.applicable import refuse_device, refuse_of_other_tasks
from fastvit.device import Device
from fastvit.errors import UserError
from fastvit.runs.files import EVALUATION_PAGE
from fastvit.runtime.artifact import Precision
from fastvit.terminal import new_table, print_line, show, show_table

if TYPE_CHECKING:
    from fastvit.evaluation.checkpoint import Measured
    from fastvit.evaluation.dense import DenseMeasured


def evaluate(
    checkpoint: str,
    data: str | None = None,
    form: Literal["fused", "train"] = "fused",
    size: str | None = None,
    crop_pct: float | None = None,
    real_labels: bool = False,
    allow_damaged: bool = False,
    per_class: bool = False,
    out: Path | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
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
        data: for a classifier "sample", a folder of images or idx files, torch/NAME, hfds/NAME or wds/NAME; for a
            detector a folder with COCO json; for a segmenter one of images and masks; for a hand mesh regressor one in
            FreiHAND's layout. By default the data of the checkpoint's run, else the sample. Of data from which the run
            held out images (val_fraction), these are measured on.
        form: run a checkpoint fused, as it is deployed, or in the form that it was trained in.
        size: side of the images in pixels, or of detectors and segmenters SHORTxLONG, the sides within which they are
            shown; by default the checkpoint's own.
        crop_pct: centre crop as a share of the resized image; by default the checkpoint's own, and 1 at a larger size.
        real_labels: also measure against ImageNet's ReaL labels; the data must be its validation set.
        allow_damaged: leave out images that cannot be decoded, naming them, where they would be an error.
        per_class: print a table of the classes, or of the joints.
        out: folder for evaluation.json and evaluation.html.
        batch_size: images a step, of a classifier; by default 64.
        workers: processes that decode images; by default one a core but one.
        device: where PyTorch runs.
        precision: of the arithmetic: fp32, and on a GPU fp16 or bf16 but for detectors; of an artifact its own.
        no_kernels: on a GPU, use PyTorch's kernels alone; ours are for fp16 and bf16.
        allow_native_code: open an AOTInductor package (.aoti.pt2), which contains machine code: only if you trust
            where it comes from.
        json: print one JSON object instead of tables.
    """
    if json:
        refuse_given("prints a table, and --json one object instead of tables", per_class=per_class)
    refuse_device(checkpoint, device)

    from fastvit.export.options import parse_size

    sides = parse_size(size)
    if sides == "dynamic":
        raise UserError("size must be a number of pixels or SHORTxLONG, got 'dynamic'")

    from fastvit.evaluation.dense import evaluate_dense, task_of

    task = task_of(checkpoint, allow_native_code)
    refuse_of_other_tasks(task, batch_size=batch_size, crop_pct=crop_pct, real_labels=real_labels)
    if task != "classification":
        measured_dense = evaluate_dense(
            checkpoint,
            data,
            form,
            sides,
            allow_damaged,
            workers,
            device,
            precision,
            kernels=not no_kernels,
            allow_native_code=allow_native_code,
        )
        _show_dense(measured_dense, per_class, out, json)
        return
    if sides and sides[0] != sides[1]:
        raise UserError(f"a classifier is shown square images: give --size a number, not {size}")

    from fastvit.evaluation.checkpoint import evaluate_checkpoint

    measured = evaluate_checkpoint(
        checkpoint,
        data,
        form,
        sides[0] if sides else None,
        crop_pct,
        real_labels,
        allow_damaged,
        batch_size=64 if batch_size is None else batch_size,
        workers=workers,
        device=device,
        precision=precision,
        kernels=not no_kernels,
        allow_native_code=allow_native_code,
    )
    if out:
        from fastvit.evaluation.evaluation_report import write_evaluation

        write_evaluation(measured, out)
    if json:
        print_line(jsonlib.dumps(measured.summary()))
        return
    _show_numbers(measured)
    if per_class:
        _show_classes(measured)
    if out:
        print_line(f"{out / EVALUATION_PAGE}: calibration, confusions and the most confident mistakes")


def _show_dense(measured: DenseMeasured, per_class: bool, out: Path | None, json: bool) -> None:
    from fastvit.reports.metric_format import METRICS, as_text

    if out:
        from fastvit.evaluation.dense_report import write_dense_evaluation

        write_dense_evaluation(measured, out)
    if json:
        print_line(jsonlib.dumps(measured.summary()))
        return
    labels = [METRICS[name] for name in measured.metrics]
    values = [as_text(name, value) for name, value in measured.metrics.items()]
    short, long = measured.preprocessing.size
    speed = "-" if measured.images_per_second is None else f"{measured.images_per_second:.1f}"
    table = new_table("images", *labels, "form", "runtime", "size", "images/s")
    table.add_row(str(measured.images), *values, measured.form, measured.runtime, f"{short}x{long}", speed)
    show(table)
    show(f"{measured.images} validation images of {measured.data}")
    if per_class:
        show_table((measured.part, measured.per_part_label), measured.part_rows())
    if out:
        print_line(f"{out / EVALUATION_PAGE}: each {measured.part}, and pictures of truth and answers")
        for name in measured.results:
            print_line(f"{out / name}: as the benchmark's server takes it")


def _show_numbers(measured: Measured) -> None:
    from fastvit.reports.metric_format import METRICS, as_text

    result = measured.result
    labels = [METRICS[name] for name in result.metrics]
    table = new_table("images", *labels, "form", "runtime", "size", "crop", "images/s", "model alone, images/s")
    values = [as_text(name, value) for name, value in result.metrics.items()]
    speed = [f"{result.speed.overall:.0f}", f"{result.speed.model:.0f}"] if result.speed else ["-", "-"]
    height, width = measured.preprocessing.size
    crop = f"{measured.preprocessing.crop_pct:g}"
    table.add_row(str(result.images), *values, measured.form, measured.runtime, f"{height}x{width}", crop, *speed)
    show(table)
    held_out = ", which the run held out" if measured.divided else ""
    show(f"{result.images} validation images of {measured.data}{held_out}")
    if result.skipped:
        show(f"{result.skipped} images could not be read and are in none of these numbers")


def _show_classes(measured: Measured) -> None:
    from fastvit.evaluation.class_tables import classes_by_accuracy

    show_table(("class", "images", "top-1"), classes_by_accuracy(measured.result, measured.pictures.classes))
