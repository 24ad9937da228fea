"""`fastvit predict`: predict on images."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import nullcontext
from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.cli.applicable import refuse_device
from fastvit.console import counted, new_table, one_line, print_line, print_styled, track
from fastvit.device import Device
from fastvit.runtime.artifact import Precision

# Number of images from which exporting first, which takes seconds, is faster.
MANY = 100


def predict(
    checkpoint: str,
    images: list[str],
    k: int | None = None,
    batch_size: int | None = None,
    runtime: str = "auto",
    precision: Precision | None = None,
    device: Device = "auto",
    out: Path | None = None,
    score: float | None = None,
    draw: Path | None = None,
    mesh: Path | None = None,
    no_kernels: bool = False,
    allow_native_code: bool = False,
    json: bool = False,
) -> int:
    """Predict on images: classes, objects, segmentation masks or hand meshes, depending on the checkpoint's task.

    Args:
        checkpoint: folder of a run, weights in any form and layout, or an artifact of fastvit export.
        images: image files, folders or quoted glob patterns.
        k: number of most likely classes to print for each image, for classifiers; by default 5.
        batch_size: images per batch, for tasks that predict in batches; by default 16.
        runtime: torch, onnxruntime, openvino, ...; by default, an artifact runs in the first installed runtime that
            reads it. A checkpoint runs in PyTorch, or for many images on a CPU in openvino or onnxruntime, for which it
            is exported once.
        precision: fp32, fp16, or bf16 (in openvino, or on a GPU if the task supports it); an artifact runs in its own
            precision.
        device: device that PyTorch runs on.
        out: .jsonl or .parquet file to write instead of printing a table; it lists unreadable images too.
        score: score threshold for detection: objects with a lower score are left out; by default 0.3.
        draw: folder for copies of the images with the predictions drawn into them.
        mesh: .obj or .ply file for the hand mesh of one image, or a folder for those of several.
        no_kernels: use only the kernels of PyTorch on a GPU, not those of fastvit for fp16 and bf16.
        allow_native_code: load an AOTInductor package (.aoti.pt2). It contains machine code: do so only if you trust
            its source.
        json: print one JSON object per image instead of a table; objects are in the format of COCO results.
    """
    if out:
        refuse_given("prints what --out writes to a file", json=json)
    refuse_device(checkpoint, device, no_kernels)

    from fastvit.data.images import find_images

    paths = find_images(images)  # before slow imports: a mistyped name is reported at once

    from fastvit.predict.pictures import Canvas, Meshes
    from fastvit.predict.prediction import Failure, Limits, Prediction
    from fastvit.predict.predictor import Predictor
    from fastvit.predict.records import record, recording
    from fastvit.tasks.table import refuse_of_other_tasks

    where, runtime = _choose_device(checkpoint, device, runtime, precision or "fp32", len(paths))
    predictor = Predictor(
        checkpoint, where, runtime, precision, kernels=not no_kernels, allow_native_code=allow_native_code
    )
    refuse_of_other_tasks(predictor.spec, k=k, batch_size=batch_size, score=score, mesh=mesh)
    limits = Limits(5 if k is None else k, 0.3 if score is None else score)
    failures = []
    columns = predictor.spec.table_header(predictor.network, limits)
    table = new_table("image", *columns, left=range(len(columns) + 1))
    canvas = Canvas(draw, predictor.spec) if draw else None
    meshes = Meshes(mesh, predictor.spec, len(paths)) if mesh else None

    def tabulate(prediction: Prediction | Failure) -> None:
        if not isinstance(prediction, Failure):
            table.add_row(prediction.image, *prediction.cells())

    def print_record(prediction: Prediction | Failure) -> None:
        if not isinstance(prediction, Failure):
            print_line(jsonlib.dumps(record(prediction)))

    with recording(out) if out else nullcontext(print_record if json else tabulate) as write:
        stream = predictor.stream(paths, limits.k, 16 if batch_size is None else batch_size, limits.score)
        for prediction in track(stream, predictor.runtime, len(paths)):
            write(prediction)
            if isinstance(prediction, Failure):
                failures.append(prediction)
                continue
            if canvas:
                canvas.draw(prediction)
            if meshes:
                meshes.write(prediction)
    if table.row_count:
        print_styled(table)
    if out:
        print_line(
            f"{out}: {counted(len(paths) - len(failures), 'image')} in {predictor.runtime}, {len(failures)} unreadable"
        )
    if canvas:
        print_line(f"{draw}: {counted(canvas.drawn, 'image')} with predictions")
    if meshes:
        print_line(f"{mesh}: {counted(meshes.written, 'mesh', 'meshes')}")
    for failure in failures:
        print_line(f"fastvit: warning: {one_line(failure.reason)}; it is skipped", file=sys.stderr)
    return 2 if failures else 0


def _choose_device(checkpoint: str, device: Device, runtime: str, precision: Precision, images: int) -> tuple[str, str]:
    """Return the device and the runtime for a number of images; torch is only imported if it is needed."""
    from fastvit.predict.deployment import is_deployed
    from fastvit.runtime.artifact import is_artifact
    from fastvit.tasks.table import find_task
    from fastvit.weights.description import read_task

    if is_artifact(checkpoint):
        return "cpu", runtime
    if runtime == "auto" and not find_task(read_task(checkpoint)).batched:
        runtime = "torch"  # their images have no fixed size, as artifacts of the fastest runtimes need
    if runtime != "torch" and device in ("auto", "cpu"):
        if is_deployed(checkpoint, runtime, precision):
            return "cpu", runtime
        if runtime == "auto" and precision == "fp32" and images < MANY:
            runtime = "torch"

    from fastvit.device import pick_device

    where = pick_device(device)
    if where == "cpu" and runtime != "torch":
        print_line(
            f"fastvit: exporting {checkpoint} once, to run it faster; --runtime torch skips the export", file=sys.stderr
        )
    return where, runtime
