"""`fastvit predict`: predict on images."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import nullcontext
from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.cli.applicable import refuse_device
from fastvit.console import new_table, one_line, print_line, print_styled, track
from fastvit.device import Device
from fastvit.runtime.artifact import Precision

# Images from which on an export, which takes seconds, pays.
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
    """Say what is in images: classes, objects, the class of each pixel, or a hand, by the checkpoint's task.

    Args:
        checkpoint: weights of any form and layout, or an artifact of fastvit export.
        images: files, folders or quoted glob patterns.
        k: classes to show for each image, of a classifier; by default 5.
        batch_size: images a step, of a task that takes batches; by default 16.
        runtime: onnxruntime, openvino, torch, ...; by default the first that is installed of those that read an
            artifact, and for a checkpoint PyTorch, or for many images on a CPU openvino or onnxruntime, for which it is
            exported once.
        precision: fp32; also bf16 in openvino, and fp16 or bf16 on a GPU where the task has them; of an artifact its
            own.
        device: where PyTorch runs.
        out: .jsonl or .parquet file to write instead of a table, with the images that could not be read and why.
        score: score threshold: leave out detected objects with a lower score; by default 0.3.
        draw: folder for the images with what was found drawn into them.
        mesh: .obj or .ply file for the mesh of the hand in one image, or folder for those of several.
        no_kernels: on a GPU, use PyTorch's kernels alone; ours are for fp16 and bf16.
        allow_native_code: open an AOTInductor package (.aoti.pt2), which contains machine code: only if you trust
            where it comes from.
        json: print one JSON object a line and image instead of a table; objects as COCO's results have them.
    """
    if out:
        refuse_given("prints what --out writes to a file", json=json)
    refuse_device(checkpoint, device, no_kernels)

    from fastvit.data.images import find_images

    paths = find_images(images)  # before what takes seconds to import: a mistyped name is answered at once

    from fastvit.predict.pictures import Canvas, Meshes
    from fastvit.predict.prediction import Failure, Limits, Prediction
    from fastvit.predict.predictor import Predictor
    from fastvit.predict.records import record, recording
    from fastvit.tasks.table import refuse_of_other_tasks

    where, runtime = _place(checkpoint, device, runtime, precision or "fp32", len(paths))
    predictor = Predictor(
        checkpoint, where, runtime, precision, kernels=not no_kernels, allow_native_code=allow_native_code
    )
    refuse_of_other_tasks(predictor.spec, k=k, batch_size=batch_size, score=score, mesh=mesh)
    limits = Limits(5 if k is None else k, 0.3 if score is None else score)
    failures = []
    columns = predictor.spec.table_header(limits)
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
            f"{out}: {len(paths) - len(failures)} images in {predictor.runtime}, {len(failures)} could not be read"
        )
    if canvas:
        print_line(f"{draw}: {canvas.drawn} pictures")
    if meshes:
        print_line(f"{mesh}: {meshes.written} mesh{'es' * (meshes.written != 1)}")
    for failure in failures:
        print_line(f"fastvit: skipped: {one_line(failure.reason)}", file=sys.stderr)
    return 2 if failures else 0


def _place(checkpoint: str, device: Device, runtime: str, precision: Precision, images: int) -> tuple[str, str]:
    """Device and runtime for so many images; torch is not loaded for what does not need it."""
    from fastvit.predict.deployment import is_deployed
    from fastvit.runtime.artifact import is_artifact
    from fastvit.tasks.table import find_task
    from fastvit.weights.description import read_task

    if is_artifact(checkpoint):
        return "cpu", runtime
    if runtime == "auto" and not find_task(read_task(checkpoint)).batched:
        runtime = "torch"  # their images have no fixed size, the fastest runtimes' artifacts do
    if runtime != "torch" and device in ("auto", "cpu"):
        if is_deployed(checkpoint, runtime, precision):
            return "cpu", runtime
        if runtime == "auto" and precision == "fp32" and images < MANY:
            runtime = "torch"

    from fastvit.device import pick_device

    where = pick_device(device)
    if where == "cpu" and runtime != "torch":
        print_line(
            f"fastvit: exporting {checkpoint}, once, to run it faster; --runtime torch does without", file=sys.stderr
        )
    return where, runtime
