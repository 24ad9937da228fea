"""`fastvit export`: write artifacts for devices."""

from __future__ import annotations

import sys
from pathlib import Path

from fastvit.arguments import parse_batches, parse_size, refuse_given
from fastvit.console import one_line, print_line
from fastvit.runtime.artifact import Input, Precision


def export(
    checkpoint: str,
    to: str = "onnx",
    precision: Precision = "fp32",
    batch: str = "1",
    size: str | None = None,
    input: Input = "normalized",
    output: str | None = None,
    out: Path | None = None,
    data: str | None = None,
    verify_with: str | None = None,
    images: int | None = None,
    calibrate: int | None = None,
    keep_float: str | None = None,
) -> int:
    """Write artifacts for devices, run each in its own runtime, and prove that it computes what the checkpoint does.

    Args:
        checkpoint: a run's folder, or weights in any form and layout.
        to: targets, joined by commas, such as onnx,openvino; docs/devices.md has all.
        precision: of the arithmetic; which a target offers, docs/devices.md tells.
        batch: images a call: a number, several joined by commas (a file each), or dynamic.
        size: of the images in pixels: a number, HEIGHTxWIDTH, or dynamic; by default the checkpoint's own, or room for
            images of any shape where the task can fit them in.
        input: what goes in: normalized images, images in [0, 1] (unit), or uint8 pixels; for these the normalization is
            inside.
        output: one of the task's, such as logits, probabilities, objects or mesh, or features: maps of the stages, of a
            detector those of its feature pyramid; by default what the checkpoint's task is about.
        out: folder for the artifacts, report.json and report.html; by default beside the checkpoint.
        data: images to compare on, as in fastvit eval, by default the validation images of the checkpoint's run, else
            the sample; a classifier's labels count where the classes are the checkpoint's. int8 is calibrated on their
            training part. For other tasks sample means pictures that are made here.
        verify_with: pictures to compare on instead: a file, folder or glob pattern.
        images: how many of the data to compare on; by default 64.
        calibrate: how many training images to calibrate int8 on; by default 256.
        keep_float: layers that int8 leaves in float, joined by commas, such as backbone.stem.*.
    """
    if precision != "int8":
        refuse_given(f"is for int8, not for {precision}", calibrate=calibrate, keep_float=keep_float)
    if verify_with:
        refuse_given("is about --data, of which --verify-with takes the place", images=images)
        if precision != "int8":
            refuse_given("names images to compare on, and so does --verify-with", data=data)

    from fastvit.export.options import ExportOptions
    from fastvit.export.target import find_target

    targets = [find_target(name.strip()) for name in to.split(",")]
    batches, side = parse_batches(batch), parse_size(size)
    kept = tuple(name.strip() for name in (keep_float or "").split(",") if name.strip())
    wanted = [ExportOptions(precision, count, side, input, output, kept) for count in batches]
    for target in targets:
        for options in wanted:
            target.check(options)

    import fastvit
    from fastvit.export.export import export_all
    from fastvit.export.export_report import write_export_report
    from fastvit.export.pictures import to_compare_on
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.table import find_task
    from fastvit.weights.location import beside

    model = fastvit.load(checkpoint)
    source = EvaluationData(checkpoint, data)
    pictures = to_compare_on(model, source, verify_with, 64 if images is None else images)
    folder = out or beside(checkpoint, "-export")
    spec = find_task(model.task)
    to_measure = 256 if calibrate is None else calibrate
    calibration = spec.calibration_images(model, source, to_measure) if precision == "int8" else None
    done, failed = export_all(model, targets, wanted, folder, pictures, calibration, say=print_line)
    print_line(write_export_report(folder, model, done, failed, pictures.name))
    for name, reason in failed.items():
        print_line(f"fastvit: error: {name}: {one_line(reason)}", file=sys.stderr)
    return 2 if failed else 0
