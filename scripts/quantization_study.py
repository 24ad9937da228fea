"""int8 against float32 for trained checkpoints: top-1, latency, settings, calibration, sensitivity of each layer.

    python scripts/quantization_study.py runs/t8/best.safetensors --data DIR --out runs/int8
    python scripts/quantization_study.py ... --parts sensitivity       (a part of it)

Prints Markdown tables; the sensitivity of each layer is written to OUT as CSV and PNG. Calibrates on training images of
the embedded sample (or --calibrate SOURCE), measures on the test images of --data: in full, or --images of them, drawn
with a seed.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import onnx

import fastvit
from fastvit.export.export import export
from fastvit.export.onnx import convert
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.proof import prepared
from fastvit.export.quantize.calibration import COUNT, calibration_pictures, chosen
from fastvit.export.quantize.onnx import quantize
from fastvit.export.quantize.qdq import calibrate, layers
from fastvit.export.quantize.sensitivity import LOOKED_AT, Sensitivity, choose, error, outputs, plot, table
from fastvit.export.target import find_target
from fastvit.model.classifier import FastViT
from fastvit.runs.evaluation_data import EvaluationData
from fastvit.runtime.artifact import Precision, open_artifact
from fastvit.timing import measure

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


class Study:
    """A model with what it is measured on.

    Attributes:
        calibrate_on: data whose training images are calibrated on.
        images: (N, C, H, W) normalized test images.
        labels: their classes.
        training: (COUNT, C, H, W) normalized training images to calibrate on.
        graph: the model in ONNX, float32.
        expected: its logits.
    """

    def __init__(self, checkpoint: str, model: FastViT, asked: argparse.Namespace) -> None:
        self.name, self.model, self.asked = model.variant, model, asked
        self.calibrate_on = EvaluationData(checkpoint, asked.calibrate)
        source = EvaluationData(checkpoint, asked.data).images("test", model.classes)
        picked = chosen(len(source), asked.images or len(source))
        self.pictures = [source.image(index) for index in picked]
        self.labels = np.array(source.labels)[picked]
        self.images = prepared(self.pictures, model.preprocessing, "normalized")
        self.training = self.drawn(COUNT, 0)
        self.graph = convert(build_program(model, ExportOptions(batch="dynamic")))
        self.expected = outputs(self.graph, self.images)[0]
        print(f"{self.name}: float32 {self.top1(self.expected):.2f}% of {len(self.labels)} test images", flush=True)

    def drawn(self, count: int, seed: int) -> np.ndarray:
        """Calibration images."""
        pictures = calibration_pictures(self.calibrate_on, count, seed)
        return prepared(pictures, self.model.preprocessing, "normalized")

    def top1(self, logits: np.ndarray) -> float:
        """In percent."""
        return 100 * float(np.mean(logits.argmax(1) == self.labels))

    def row(self, label: str, logits: np.ndarray) -> str:
        """Name, top-1, points lost with their standard deviation by chance, agreement, error."""
        agree = float(np.mean(logits.argmax(1) == self.expected.argmax(1)))
        lost = self.top1(self.expected) - self.top1(logits)
        chance = 100 * ((1 - agree) / len(self.labels)) ** 0.5
        return (
            f"| {self.name} | {label} | {self.top1(logits):.2f} | {lost:+.2f} ± {chance:.2f} | {100 * agree:.2f} | "
            f"{100 * error([self.expected], [logits]):.1f} |"
        )


HEAD = "| model | | top-1 % | points lost | same class % | error % |"
LINE = "|---|---|---|---|---|---|"


def targets(study: Study) -> None:
    """Each target in float32 and int8: accuracy and size."""
    asked = study.asked
    print(f"{HEAD} MB |\n{LINE}---|")
    for name in asked.targets:
        target = find_target(name)
        for precision in PRECISIONS:
            label = f"{name} {precision}"
            options = ExportOptions(precision, batch="dynamic" if "batch" in target.dynamic else 1)
            calibration = calibration_pictures(study.calibrate_on) if precision == "int8" else None
            path = asked.out / f"{study.name}-{name}-{precision}{target.suffix}"
            done = export(study.model, target, path, study.pictures[:16], options, calibration=calibration)
            outputs = open_artifact(path, target.runtime or "auto", threads=1).in_batches(study.images, 16)[0]
            print(f"{study.row(label, outputs)} {done.megabytes:.1f} |", flush=True)


def latency(study: Study) -> None:
    """One image a call on one thread, from artifacts of this batch and of one size."""
    asked = study.asked
    size = (asked.latency_size, asked.latency_size)
    images = prepared(study.pictures[:1], study.model.preprocessing.with_shape(size), "normalized")
    calls = {}
    for name in asked.targets:
        target = find_target(name)
        for precision in PRECISIONS:
            calibration = calibration_pictures(study.calibrate_on, 32) if precision == "int8" else None
            path = asked.out / f"{study.name}-{asked.latency_size}-{name}-{precision}{target.suffix}"
            options = ExportOptions(precision, size=size)
            export(study.model, target, path, study.pictures[:4], options, calibration=calibration)
            calls[f"{name} {precision}"] = partial(open_artifact(path, target.runtime or "auto", 1), images)
    _time(study, calls)


def _time(study: Study, calls: Mapping[str, Callable[[], object]]) -> None:
    """Print the medians of calls that take turns, against the float32 one of the same target.

    The time of the CPU counts what one call computes, however many other processes wait for the same core.
    """
    print(f"| model | | ms of CPU, median | IQR | ms on the clock | times as fast as float32 |\n{LINE}")
    spent: dict[str, list[float]] = {label: [] for label in calls}

    def counted(label: str, call: Callable[[], object]) -> None:
        start = time.process_time()
        call()
        spent[label].append(1e3 * (time.process_time() - start))

    warmup = 20
    times = measure({label: partial(counted, label, call) for label, call in calls.items()}, study.asked.rounds, warmup)
    cpu = {label: np.percentile(values[warmup:], (25, 50, 75)) for label, values in spent.items()}
    for label, (low, median, high) in cpu.items():
        ratio = cpu[f"{label.replace(',', '').split()[0]} fp32"][1] / median
        clock = times[label].median
        print(f"| {study.name} | {label} | {median:.2f} | {low:.2f} to {high:.2f} | {clock:.2f} | {ratio:.2f} |")


def settings(study: Study) -> None:
    """What each decision of the quantizers is worth."""
    calibrated = calibrate(study.graph, study.training)
    every = {layer.name for layer in layers(study.graph)}
    usual = {layer.name for layer in layers(study.graph) if layer.kind != "depthwise"}
    variants = {
        "onnx": calibrated.quantized(usual),
        "onnx, a scale a tensor": calibrated.quantized(usual, per_channel=False),
        "onnx, weights of 8 bits": calibrated.quantized(usual, narrow=False),
        "onnx, depthwise too": calibrated.quantized(every),
    }
    print(f"{HEAD}\n{LINE}")
    for label, graph in variants.items():
        print(study.row(label, outputs(graph, study.images)[0]), flush=True)
    if "openvino" in study.asked.targets:
        _openvino_settings(study)
    calls = {}
    for label, graph in {"onnx fp32": study.graph, **variants}.items():
        path = study.asked.out / "variant.onnx"
        onnx.save(graph, path)
        calls[label] = partial(_session(path).run, None, {"images": study.images[:1]})
    _time(study, calls)


def _session(path: Path):  # type: ignore[no-untyped-def]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _openvino_settings(study: Study) -> None:
    import nncf
    import openvino

    from fastvit.export.quantize import openvino as ours

    path = study.asked.out / "variant.onnx"
    onnx.save(study.graph, path)
    found = layers(study.graph)
    depthwise = [layer.name for layer in found if layer.kind == "depthwise"]
    data = nncf.Dataset([image[None] for image in study.training])
    variants = {
        "openvino": lambda model: ours.quantize(model, found, study.training),
        "openvino, depthwise in float": lambda model: ours.quantize(model, found, study.training, depthwise),
        "openvino, NNCF's default preset": lambda model: nncf.quantize(model, data, subset_size=len(study.training)),
        "openvino, NNCF's transformer settings": lambda model: nncf.quantize(
            model, data, subset_size=len(study.training), model_type=nncf.ModelType.TRANSFORMER
        ),
    }
    for label, quantized in variants.items():
        model = quantized(openvino.convert_model(path))
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(model, "CPU", hints)
        parts = [compiled([study.images[start : start + 16]])[0] for start in range(0, len(study.images), 16)]
        print(study.row(label, np.concatenate(parts)), flush=True)


def calibration(study: Study) -> None:
    """How many images, and which."""
    print(f"{HEAD}\n{LINE}")
    for count, seed in ((16, 0), (64, 0), (256, 0), (256, 1), (256, 2), (1024, 0)):
        graph = quantize(study.graph, study.drawn(count, seed))
        print(study.row(f"{count} images, seed {seed}", outputs(graph, study.images)[0]), flush=True)


def sensitivity(study: Study) -> None:
    """Each layer alone, and the layers that a strict bound keeps in float."""
    calibrated = calibrate(study.graph, study.training)
    looked_at = study.training[:LOOKED_AT]
    source = study.calibrate_on.images("train")
    labels = np.array(source.labels)[chosen(len(source), LOOKED_AT)]
    rows = table(calibrated, looked_at, labels=labels.tolist())
    with (study.asked.out / f"{study.name}-sensitivity.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(Sensitivity)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    title = f"{study.name}: what int8 costs, layer by layer"
    plot(rows, title).savefig(study.asked.out / f"{study.name}-sensitivity.png", dpi=110)
    print("| model | layer | kind | error % | cosine | loss |\n|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -row.error)[:10]:
        print(
            f"| {study.name} | {row.layer} | {row.kind} | {100 * row.error:.2f} | {row.cosine:.5f} | {row.loss:+.4f} |"
        )
    depthwise = [row.layer for row in rows if row.kind == "depthwise"]
    for kept, bound in ((depthwise, study.asked.bound), ([], study.asked.bound)):
        choice = choose(calibrated, looked_at, kept, bound)
        start = "depthwise layers" if kept else "none"
        errors = ", ".join(f"{100 * value:.1f}" for value in choice.errors)
        print(f"{study.name}, bound {bound:.0%}, kept {start}, then {choice.kept[len(kept) :]}: {errors}", flush=True)
        graph = calibrated.quantized({row.layer for row in rows} - set(choice.kept))
        print(f"{HEAD}\n{LINE}\n{study.row(f'chosen from {start}', outputs(graph, study.images)[0])}", flush=True)


PARTS: dict[str, Callable[[Study], None]] = {
    "targets": targets,
    "latency": latency,
    "settings": settings,
    "calibration": calibration,
    "sensitivity": sensitivity,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", default="sample", help="whose test images are measured on")
    parser.add_argument("--calibrate", default="sample", help="whose training images are calibrated on")
    parser.add_argument("--images", type=int, help="test images; default: all")
    parser.add_argument("--targets", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--latency-size", type=int, default=256, help="pixels a side for the part latency")
    parser.add_argument("--rounds", type=int, default=200, help="timed calls of each")
    parser.add_argument("--bound", type=float, default=0.03, help="that the greedy choice is to meet")
    parser.add_argument("--out", type=Path, default=Path("runs/int8"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for checkpoint in asked.checkpoints:
        model = fastvit.load(checkpoint, fastvit.FastViT)
        study = Study(checkpoint, model, asked)
        for part in asked.parts:
            PARTS[part](study)


if __name__ == "__main__":
    main()
