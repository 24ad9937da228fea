"""The command of this room; see `fastvit.verbs`."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import nullcontext
from pathlib import Path

from fastvit.device import Device
from fastvit.runtime.artifact import Precision
from fastvit.terminal import new_table, show

# Images from which on an export, which takes seconds, pays.
MANY = 100


def predict(
    checkpoint: str,
    images: list[str],
    k: int = 5,
    batch_size: int = 16,
    runtime: str = "auto",
    precision: Precision | None = None,
    device: Device = "auto",
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Name what is in images.

    Args:
        checkpoint: weights of any form and layout, or an artifact of fastvit export.
        images: files, folders or quoted glob patterns.
        k: classes to show for each.
        batch_size: images a step.
        runtime: onnxruntime, openvino, torch, ...; by default the first that is installed of those that read an
            artifact, and for a checkpoint PyTorch, or for many images on a CPU openvino or onnxruntime, for which it is
            exported once.
        precision: fp32, or bf16 in openvino; of an artifact its own.
        device: where PyTorch runs.
        out: .jsonl or .parquet file to write instead of a table, with the images that could not be read and why.
        json: print one JSON object a line and image instead of a table.
    """
    from fastvit.data.images import find_images

    paths = find_images(images)  # before what takes seconds to import: a mistyped name is answered at once

    from rich.console import Console
    from rich.progress import track

    from fastvit.runtime.predictor import Failure, Prediction, Predictor
    from fastvit.runtime.records import record, recording

    where, runtime = _place(checkpoint, device, runtime, precision or "fp32", len(paths))
    predictor = Predictor(checkpoint, where, runtime, precision)
    failures = []
    table = new_table("image", *(f"top {i + 1}" for i in range(k)), left=range(k + 1))

    def tabulate(answer: Prediction | Failure) -> None:
        if isinstance(answer, Prediction):
            table.add_row(answer.image, *(f"{label.name} {label.probability:.1%}" for label in answer.labels))

    def print_record(answer: Prediction | Failure) -> None:
        if isinstance(answer, Prediction):
            print(jsonlib.dumps(record(answer)))

    with recording(out) if out else nullcontext(print_record if json else tabulate) as write:
        console = Console(stderr=True)
        stream = predictor.stream(paths, k, batch_size)
        hidden = not console.is_terminal
        for answer in track(stream, predictor.runtime, len(paths), console=console, transient=True, disable=hidden):
            write(answer)
            if isinstance(answer, Failure):
                failures.append(answer)
    if table.row_count:
        show(table)
    if out:
        print(f"{out}: {len(paths) - len(failures)} images in {predictor.runtime}, {len(failures)} could not be read")
    for failure in failures:
        print(f"fastvit: skipped: {failure.reason}", file=sys.stderr)
    return 2 if failures else 0


def _place(checkpoint: str, device: Device, runtime: str, precision: Precision, images: int) -> tuple[str, str]:
    """Device and runtime for so many images; torch is not loaded for what does not need it."""
    from fastvit.runtime.artifact import is_artifact
    from fastvit.runtime.deployment import is_deployed

    if is_artifact(checkpoint):
        return "cpu", runtime
    if runtime != "torch" and device in ("auto", "cpu"):
        if is_deployed(checkpoint, runtime, precision):
            return "cpu", runtime
        if runtime == "auto" and precision == "fp32" and images < MANY:
            runtime = "torch"

    from fastvit.device import pick_device

    where = pick_device(device)
    if where == "cpu" and runtime != "torch":
        print(f"fastvit: exporting {checkpoint}, once, to run it faster; --runtime torch does without", file=sys.stderr)
    return where, runtime
