"""The backends that run a network, each as a call that can be timed."""

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
from fastvit.bench.models import BenchModel
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

# Backends that ratios refer to, if they are timed: what users of timm run.
REFERENCES = ("timm", "timm-fp16")
# Number of calibration images for int8: noise, as in the timed calls. For a trained network on real images other
# layers may stay in float.
CALIBRATION = 8
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Backend:
    """A backend that runs a network.

    Attributes:
        name: name for tables and the command line.
        network: network in PyTorch: "timm" (the same variant of timm), "train" or "deployed"; None for a runtime and
            the Predictor.
        compiled: whether torch.compile compiles it.
        accelerated: whether `fastvit.accelerate` runs it.
        target: export target of the runtime; None for PyTorch, and for the Predictor, which chooses by itself.
        runtime: name of the runtime.
        precision: precision of the arithmetic.
        device: device that it is for; None for any.
        slow: whether it takes long to build; such backends are only timed on request.
        peers: whether it also times networks of timm; runtimes read them as ONNX files.
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
        """Return None if the backend is available on this machine, else the reason in one sentence."""
        if self.device not in (None, device):
            return f"it runs on {self.device}, this benchmark on {device}"
        if self.target is None:
            return None
        try:
            TARGETS[self.target].check(ExportOptions(self.precision))
        except UserError as error:
            return str(error)
        return RUNTIMES[self.runtime].available()


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("timm", "timm", device=None, peers=True),
        Backend("train form", "train", device=None),
        Backend("fused", "deployed", device=None),
        Backend("fused-bf16", "deployed", precision="bf16", slow=True),
        Backend("torch.compile", "deployed", compiled=True, slow=True, peers=True),
        Backend("onnxruntime", target="onnx", runtime="onnxruntime", peers=True),
        Backend("onnxruntime-int8", target="onnx", runtime="onnxruntime", precision="int8", slow=True),
        Backend("openvino", target="openvino", runtime="openvino", peers=True),
        Backend("openvino-bf16", target="openvino", runtime="openvino", precision="bf16", slow=True),
        Backend("openvino-int8", target="openvino", runtime="openvino", precision="int8", slow=True),
        Backend("executorch", target="executorch", runtime="executorch", slow=True),
        Backend("litert", target="litert", runtime="litert", slow=True),
        Backend("predictor"),
        Backend("timm-fp16", "timm", precision="fp16", device="cuda", peers=True),
        Backend("fused-fp16", "deployed", precision="fp16", device="cuda"),
        Backend("accelerated-fp16", "deployed", accelerated=True, precision="fp16", device="cuda"),
        Backend(
            "torch.compile-fp16", "deployed", compiled=True, precision="fp16", device="cuda", slow=True, peers=True
        ),
    )
}


def find_backends(names: str, device: str) -> tuple[list[Backend], dict[str, str]]:
    """Return backends by name.

    Args:
        names: names, separated by commas; "auto" for those that build quickly, "all" for all available ones.
        device: device of PyTorch.

    Returns:
        The backends, and for "all" the reasons of the missing ones by name.

    Raises:
        UserError: a backend does not exist or is not available on this machine.
    """
    if names in ("auto", "all"):
        missing = {backend.name: reason for backend in BACKENDS.values() if (reason := backend.missing(device))}
        backends = [
            backend
            for backend in BACKENDS.values()
            if backend.name not in missing and not (names == "auto" and backend.slow)
        ]
        return backends, missing if names == "all" else {}
    backends = []
    for name in (part.strip() for part in names.split(",")):
        if name not in BACKENDS:
            raise unknown_name("backend", name, ["auto", "all", *BACKENDS])
        if reason := BACKENDS[name].missing(device):
            raise UserError(f"{name}: {reason}")
        backends.append(BACKENDS[name])
    return backends, {}


def call_of(
    bench_model: BenchModel, backend: Backend, batch: int, size: tuple[int, int], folder: Path, device: str
) -> Call | None:
    """Return a call that computes one batch and waits for it; None if the backend does not run this network.

    Args:
        bench_model: network to run.
        backend: backend that runs it.
        batch: batch size.
        size: height and width of the images, in pixels.
        folder: folder for artifacts; existing ones are not written again.
        device: device of PyTorch.
    """
    if bench_model.model is None and not backend.peers:
        return None
    threads = torch.get_num_threads()
    images = np.random.default_rng(0).standard_normal((batch, bench_model.channels, *size), np.float32)
    if backend.network is not None:
        return _torch_call(bench_model, backend, images, device)
    if backend.target is None:
        batched = bench_model.model is not None and find_task(bench_model.model.task).batched
        return _predictor_call(bench_model, images, threads) if batched else None
    path = artifact_path(folder, bench_model, backend, batch, size)
    if not path.exists():
        _write(bench_model, backend, images, path)
    _, run = RUNTIMES[backend.runtime].read(path, threads)
    sized = bench_model.model is not None and "image_size" in bench_model.model.input_names
    inputs = [images, *([whole_images(images)] if sized else [])]
    return lambda: run(*inputs)


def _predictor_call(bench_model: BenchModel, images: np.ndarray, threads: int) -> Call:
    """Return a call that does what `Predictor` does with a checkpoint on the CPU, without the cache."""
    assert bench_model.model is not None
    model = copy.copy(bench_model.model)
    model.preprocessing = model.preprocessing.with_shape((images.shape[2], images.shape[3]))
    predictor = Predictor(model, runtime=find_deployment("auto", "fp32").runtime or "auto", threads=threads)
    tensor = torch.from_numpy(images)
    return lambda: predictor.logits(tensor)


def artifact_path(folder: Path, bench_model: BenchModel, backend: Backend, batch: int, size: tuple[int, int]) -> Path:
    """Return the path of the artifact that `call_of` writes for a runtime; peers are plain ONNX files.

    Args:
        folder: folder of the artifacts.
        bench_model: network to run.
        backend: backend that runs it.
        batch: batch size.
        size: height and width of the images, in pixels.
    """
    suffix = TARGETS[backend.target or ""].suffix if bench_model.model is not None else ".onnx"
    return folder / f"{bench_model.name.replace('/', '-')}-{backend.precision}-{batch}-{size[0]}x{size[1]}{suffix}"


def _write(bench_model: BenchModel, backend: Backend, images: np.ndarray, path: Path) -> None:
    if bench_model.model is None:
        save_plain(bench_model.deployed, torch.from_numpy(images), path)
        return
    target = TARGETS[backend.target or ""]
    options = ExportOptions(backend.precision, len(images), (images.shape[2], images.shape[3]))
    noise = np.random.default_rng(1).standard_normal((CALIBRATION, *images.shape[1:]), np.float32)
    calibration = noise if backend.precision == "int8" else None
    target.write(build_program(bench_model.model, options, target.cast), path, calibration)


def _torch_call(bench_model: BenchModel, backend: Backend, images: np.ndarray, device: str) -> Call | None:
    network = _network(bench_model, backend)
    if network is None:
        return None
    network = copy.deepcopy(network).eval().to(device, _DTYPES[backend.precision])
    batch = torch.from_numpy(images).to(device, _DTYPES[backend.precision])
    if backend.accelerated:
        from fastvit.kernels.inference.accelerate import accelerate

        network = accelerate(network, batch)
    run: Callable[[torch.Tensor], object] = torch.compile(network) if backend.compiled else network

    def call() -> object:
        # The copy to the CPU waits for the device to finish.
        with torch.inference_mode():
            return tree_leaves(run(batch))[-1].cpu()

    return call


def _network(bench_model: BenchModel, backend: Backend) -> nn.Module | None:
    if bench_model.model is None:
        return bench_model.deployed
    return {"timm": bench_model.timm_reference, "train": bench_model.train_form, "deployed": bench_model.deployed}[
        backend.network or ""
    ]


def reference_of(timings: Mapping[str, Timing]) -> Timing | None:
    """Return the timing that ratios of a network refer to, from its timings by backend; None if it was not timed."""
    return next((timings[name] for name in REFERENCES if name in timings), None)
