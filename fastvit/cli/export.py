"""`fastvit export`: export a checkpoint for devices."""

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
    """Export a checkpoint for devices (ONNX, OpenVINO, Core ML, ...), and verify the outputs of each artifact.

    Args:
        checkpoint: folder of a run, or weights in any form and layout.
        to: export targets, separated by commas, such as onnx,openvino; docs/devices.md lists all.
        precision: numeric precision of the artifact; docs/devices.md lists those of each target.
        batch: batch size: a number, several separated by commas (one file each), or dynamic.
        size: image size in pixels: a number, HEIGHTxWIDTH, or dynamic; by default the checkpoint's own, for tasks whose
            images keep their aspect ratio a size that images of any shape are fitted into.
        input: input of the artifact: normalized images, images in [0, 1] (unit), or uint8 pixels; for unit and uint8
            the artifact normalizes the images itself.
        output: output of the artifact: one of the task's, such as logits, probabilities, objects or mesh, or features,
            the feature maps of the stages (of a detector, of its feature pyramid); by default that of the task.
        out: folder for the artifacts, report.json and report.html; by default beside the checkpoint.
        data: images to verify the artifacts on, as in fastvit eval; by default the validation images of the
            checkpoint's run, else the sample. Labels are used if the classes are those of the checkpoint. The training
            images of the same data calibrate int8. For tasks other than classification, sample means synthetic images.
        verify_with: images to verify the artifacts on instead: a file, a folder or a glob pattern.
        images: number of images of --data to verify on; by default 64.
        calibrate: number of training images to calibrate int8 quantization on; by default 256.
        keep_float: layers to leave in float in int8 quantization, separated by commas, such as backbone.stem.*.
    """
    if precision != "int8":
        refuse_given(f"is for int8, not for {precision}", calibrate=calibrate, keep_float=keep_float)
    if verify_with:
        refuse_given("is about the images of --data, which --verify-with replaces", images=images)
        if precision != "int8":
            refuse_given("gives images to verify on, and so does --verify-with", data=data)

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
