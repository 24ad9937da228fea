"""Threads that share a Predictor get the predictions for their own images, in every runtime and for every task."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastvit
from fastvit.errors import UserError
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.target import TARGETS
from fastvit.model.task_model import TaskModel
from fastvit.predict.prediction import Prediction
from fastvit.runtime.artifact import RUNTIMES
from fastvit.tasks.classification.prediction import ClassPrediction
from fastvit.tasks.detection.prediction import DetectionPrediction
from fastvit.tasks.hand_mesh.prediction import HandPrediction
from fastvit.tasks.segmentation.prediction import SegmentationPrediction
from fastvit.tasks.table import TASKS
from tests.helpers import randomize, tiny
from tests.tasks.small_models import leaves, small_model

THREADS, ROUNDS = 8, 10
PYTORCH = "a model in PyTorch"
# What is written has operations that the runtime does not have; an export of these is refused.
NOT_TAKEN = {("ncnn", "hand_mesh"), ("litert", "hand_mesh")}
# Those whose artifacts take more than seconds to write have their turn in make test-all; so has every runtime with the
# tasks beside classification.
SLOW = ("aoti", "executorch", "executorch-coreml", "litert", "ncnn", "coreml")


def everywhere() -> list[object]:
    """Every task in PyTorch and in every runtime."""
    fast = {(PYTORCH, task) for task in TASKS} | {(name, "classification") for name in RUNTIMES if name not in SLOW}
    pairs = [(runtime, task) for runtime in (PYTORCH, *RUNTIMES) for task in TASKS]
    return [pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow) for pair in pairs]


def open_in(runtime: str, model: TaskModel, folder: Path) -> fastvit.Predictor:
    """A Predictor of a model, skipping what does not run here or does not take the model."""
    if runtime == PYTORCH:
        return fastvit.Predictor(model)
    if reason := RUNTIMES[runtime].available():
        pytest.skip(reason)
    if (runtime, model.task) in NOT_TAKEN:
        pytest.skip(f"{runtime} cannot read what is written of a model for {model.task}")
    suffixes = RUNTIMES[runtime].suffixes
    readable = [target for target in TARGETS.values() if target.suffix in suffixes]
    assert readable, "no target writes what this runtime reads"
    target = next((target for target in readable if target.runtime == runtime), readable[0])
    many = model.task == "classification" and "batch" in target.dynamic
    options = ExportOptions(batch="dynamic" if many else 1, input="pixels" if runtime != "ncnn" else "normalized")
    path = folder / f"model{target.suffix}"
    try:
        target.check(options)
        program = build_program(model, options, target.cast)
        if "boxes" in program.signature.outputs and not target.data_dependent:
            pytest.skip(f"{target.name} does not take a detector whole")
        target.write(program, path)
    except UserError as error:
        pytest.skip(str(error))
    return fastvit.Predictor(path, runtime=runtime, allow_native_code=True)


def blocks(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: blocks of 16 px, each of a color."""
    coarse = generator.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)


def numbers(prediction: Prediction) -> list[np.ndarray]:
    """What a prediction consists of."""
    if isinstance(prediction, ClassPrediction):
        return [np.array([label.probability for label in sorted(prediction.labels, key=lambda label: label.index)])]
    if isinstance(prediction, DetectionPrediction):
        return [prediction.objects.boxes, prediction.objects.labels, prediction.objects.scores]
    if isinstance(prediction, SegmentationPrediction):
        return [prediction.mask]
    if isinstance(prediction, HandPrediction):
        return [prediction.vertices, prediction.joints, prediction.joints_2d]
    return [np.array(leaves(prediction.record()["predictions"]))]


def same(left: list[Prediction], right: list[Prediction]) -> bool:
    pairs = zip(map(numbers, left), map(numbers, right), strict=True)
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-4)
        for found, expected in pairs
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("runtime", "task"), everywhere())
def test_threads_share_a_predictor(runtime: str, task: str, tmp_path: Path) -> None:
    """Each with images of its own; batches and, where the runtime takes them, images have several shapes."""
    predictor = open_in(runtime, small_model(task), tmp_path)
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (64, 80), (96, 64)]
    images = [[blocks(generator, *sizes[i % 3]) for _ in range(1 + i % 3)] for i in range(THREADS)]
    expected = [predictor(batch) for batch in images]
    assert not any(same(expected[0][:1], other[:1]) for other in expected[1:]), "predictions that are told apart"
    begin = threading.Barrier(THREADS)

    def predicted(batch: list[np.ndarray]) -> list[list[Prediction]]:
        begin.wait()
        return [predictor(batch) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(predicted, images))
    for i, predictions in enumerate(found):
        assert all(same(prediction, expected[i]) for prediction in predictions), f"thread {i}"


@pytest.mark.skipif(bool(RUNTIMES["openvino"].available()), reason="openvino is not installed")
def test_threads_bring_new_shapes(tmp_path: Path) -> None:
    """All threads ask first for shapes that OpenVINO has not compiled yet, more of them than it keeps."""
    model = small_model("classification")
    generator = np.random.default_rng(0)
    images = [np.stack([blocks(generator, 64, 64) for _ in range(1 + i % 6)]) for i in range(THREADS)]
    expected = [fastvit.Predictor(model)(batch) for batch in images]
    predictor = open_in("openvino", model, tmp_path)
    begin = threading.Barrier(THREADS)

    def predicted(batch: np.ndarray) -> list[Prediction]:
        begin.wait()
        return predictor(batch)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(predicted, images))
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("target", ["torch", "openvino"])
def test_threads_open_the_same_file(target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Opening silences the process for a while: afterwards it has its streams and its log back."""
    model = randomize(tiny(preprocessing=fastvit.Preprocessing((32, 32))))
    path = tmp_path / f"model{TARGETS[target].suffix}"
    TARGETS[target].write(build_program(model, ExportOptions()), path)
    before = sys.stdout, sys.stderr, os.fstat(2), logging.root.manager.disable
    with ThreadPoolExecutor(6) as pool:
        predictors = list(pool.map(fastvit.Predictor, [path] * 6))
    assert (sys.stdout, sys.stderr, os.fstat(2), logging.root.manager.disable) == before
    image = Image.new("RGB", (32, 32), "red")
    assert len({str(predictor(image)) for predictor in predictors}) == 1
