"""The ways to run a network, each as a call that can be timed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fastvit.bench.harness import Call
from fastvit.bench.subjects import Subject
from fastvit.errors import UserError, unknown_name
from fastvit.export.onnx import save_plain
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.target import TARGETS
from fastvit.predict.deployment import find_deployment
from fastvit.predict.predictor import Predictor
from fastvit.runtime.artifact import RUNTIMES, Precision, whole_images
from fastvit.tasks.table import find_task
from fastvit.timing import Timing

# The reference of every ratio, where it is among the ways: what a user of timm runs today.
REFERENCES = ("timm", "timm-fp16")
# Images that int8 is calibrated on: noise, such as is timed. Of a trained network on real images other layers may stay
# in float.
CALIBRATION = 8
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Way:
    """A way to run a network.

    Attributes:
        name: for tables and the command line.
        network: in PyTorch: "timm", its twin, "train" or "deployed"; None for a runtime and the Predictor.
        compiled: by torch.compile.
        accelerated: by `fastvit.accelerate`.
        target: what is written for a runtime; None for PyTorch, and for the Predictor, which chooses for itself.
        runtime: that runs it.
        precision: of the arithmetic.
        device: that it is for; None for any.
        slow: it takes long to build, and is left out unless it is asked for.
        peers: whether networks of others are timed so too: in a runtime, as plain ONNX files.
    """

    name: str
    network: str | None = None
    compiled: bool = False
    accelerated: bool = False
    target: str | None = None
    runtime: str = "torch"
    precision: Precision = "fp32"
    device: str | None = "cpu"
    slow: bool = False
    peers: bool = False

    def missing(self, device: str) -> str | None:
        """None if it can be gone here, else why not, in one sentence."""
        if self.device not in (None, device):
            return f"it is for {self.device}, this run is on {device}"
        if self.target is None:
            return None
        try:
            TARGETS[self.target].check(ExportOptions(self.precision))
        except UserError as error:
            return str(error)
        return RUNTIMES[self.runtime].available()


WAYS = {
    way.name: way
    for way in (
        Way("timm", "timm", device=None, peers=True),
        Way("train form", "train", device=None),
        Way("fused", "deployed", device=None),
        Way("fused-bf16", "deployed", precision="bf16", slow=True),
        Way("torch.compile", "deployed", compiled=True, slow=True, peers=True),
        Way("onnxruntime", target="onnx", runtime="onnxruntime", peers=True),
        Way("onnxruntime-int8", target="onnx", runtime="onnxruntime", precision="int8", slow=True),
        Way("openvino", target="openvino", runtime="openvino", peers=True),
        Way("openvino-bf16", target="openvino", runtime="openvino", precision="bf16", slow=True),
        Way("openvino-int8", target="openvino", runtime="openvino", precision="int8", slow=True),
        Way("executorch", target="executorch", runtime="executorch", slow=True),
        Way("litert", target="litert", runtime="litert", slow=True),
        Way("predictor"),
        Way("timm-fp16", "timm", precision="fp16", device="cuda", peers=True),
        Way("fused-fp16", "deployed", precision="fp16", device="cuda"),
        Way("accelerated-fp16", "deployed", accelerated=True, precision="fp16", device="cuda"),
        Way("torch.compile-fp16", "deployed", compiled=True, precision="fp16", device="cuda", slow=True, peers=True),
    )
}


def find_ways(names: str, device: str) -> tuple[list[Way], dict[str, str]]:
    """Ways by their names.

    Args:
        names: joined by commas; "auto" for what is quickly built here, "all" for what can be built here.
        device: of PyTorch.

    Returns:
        The ways, and the reason by name of those of "all" that are left out.

    Raises:
        UserError: there is no such way, or it cannot be gone here.
    """
    if names in ("auto", "all"):
        missing = {way.name: reason for way in WAYS.values() if (reason := way.missing(device))}
        ways = [way for way in WAYS.values() if way.name not in missing and not (names == "auto" and way.slow)]
        return ways, missing if names == "all" else {}
    ways = []
    for name in (part.strip() for part in names.split(",")):
        if name not in WAYS:
            raise unknown_name("runtime", name, ["auto", "all", *WAYS])
        if reason := WAYS[name].missing(device):
            raise UserError(f"{name}: {reason}")
        ways.append(WAYS[name])
    return ways, {}


def call_of(subject: Subject, way: Way, batch: int, size: tuple[int, int], folder: Path, device: str) -> Call | None:
    """A call that computes one batch and has finished when it returns; None where the network does not go that way.

    Args:
        subject: the network.
        way: how to run it.
        batch: images a call.
        size: height and width in pixels.
        folder: for artifacts; one that is there is not written again.
        device: of PyTorch.
    """
    if subject.model is None and not way.peers:
        return None
    threads = torch.get_num_threads()
    images = np.random.default_rng(0).standard_normal((batch, subject.channels, *size), np.float32)
    if way.network is not None:
        return _torch_call(subject, way, images, device)
    if way.target is None:
        batched = subject.model is not None and find_task(subject.model.task).batched
        return _predictor_call(subject, images, threads) if batched else None
    path = artifact_path(folder, subject, way, batch, size)
    if not path.exists():
        _write(subject, way, images, path)
    _, run = RUNTIMES[way.runtime].read(path, threads)
    sized = subject.model is not None and "image_size" in subject.model.input_names
    inputs = [images, *([whole_images(images)] if sized else [])]
    return lambda: run(*inputs)


def _predictor_call(subject: Subject, images: np.ndarray, threads: int) -> Call:
    """What `Predictor` does with a checkpoint on the CPU, any batch, without the cache."""
    assert subject.model is not None
    model = copy.copy(subject.model)
    model.preprocessing = model.preprocessing.with_shape((images.shape[2], images.shape[3]))
    predictor = Predictor(model, runtime=find_deployment("auto", "fp32").runtime or "auto", threads=threads)
    tensor = torch.from_numpy(images)
    return lambda: predictor.logits(tensor)


def artifact_path(folder: Path, subject: Subject, way: Way, batch: int, size: tuple[int, int]) -> Path:
    """Where `call_of` writes what a runtime reads; peers are plain ONNX files."""
    suffix = TARGETS[way.target or ""].suffix if subject.model is not None else ".onnx"
    return folder / f"{subject.name.replace('/', '-')}-{way.precision}-{batch}-{size[0]}x{size[1]}{suffix}"


def _write(subject: Subject, way: Way, images: np.ndarray, path: Path) -> None:
    if subject.model is None:
        save_plain(subject.deployed, torch.from_numpy(images), path)
        return
    target = TARGETS[way.target or ""]
    options = ExportOptions(way.precision, len(images), (images.shape[2], images.shape[3]))
    noise = np.random.default_rng(1).standard_normal((CALIBRATION, *images.shape[1:]), np.float32)
    calibration = noise if way.precision == "int8" else None
    target.write(build_program(subject.model, options, target.cast), path, calibration)


def _torch_call(subject: Subject, way: Way, images: np.ndarray, device: str) -> Call | None:
    network = _network(subject, way)
    if network is None:
        return None
    network = copy.deepcopy(network).eval().to(device, _DTYPES[way.precision])
    batch = torch.from_numpy(images).to(device, _DTYPES[way.precision])
    if way.accelerated:
        from fastvit.kernels.inference.accelerate import accelerate

        network = accelerate(network, batch)
    run: Callable[[torch.Tensor], object] = torch.compile(network) if way.compiled else network

    def call() -> object:
        # The copy to the CPU waits for the device to finish.
        with torch.inference_mode():
            return tree_leaves(run(batch))[-1].cpu()

    return call


def _network(subject: Subject, way: Way) -> nn.Module | None:
    if subject.model is None:
        return subject.deployed
    return {"timm": subject.twin, "train": subject.train_form, "deployed": subject.deployed}[way.network or ""]


def reference_of(timings: Mapping[str, Timing]) -> Timing | None:
    """What the ratios of a network are against, of its timings by way; None where it was not timed so."""
    return next((timings[name] for name in REFERENCES if name in timings), None)
