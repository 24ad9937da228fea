"""FastViT on a GPU in float16: `fastvit.accelerate` beside every backend that people use, in one run."""

from __future__ import annotations

import copy
import gc
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastvit.bench.gpu_kernels import KernelRow, kernel_rows
from fastvit.bench.harness import Call, refuse_none, side_by_side
from fastvit.bench.machine import Machine, measure_machine
from fastvit.bench.peers import PEERS
from fastvit.create import create_model
from fastvit.errors import UserError, first_line
from fastvit.fusion import fuse
from fastvit.kernels.inference.accelerate import AcceleratedClassifier, accelerate
from fastvit.model.classifier import FastViT
from fastvit.model.layers import LayerScale
from fastvit.model.variants import find_variant
from fastvit.timing import Timing

ACCELERATED, LAUNCHED, UNFUSED = "accelerated", "accelerated without graphs", "timm, unfused"
COMPILED = {"default": "timm, torch.compile", "reduce-overhead": "timm, torch.compile reduce-overhead"}
# The last is what people run who do nothing; the other networks of timm are fused by its reparameterize_model.
BACKENDS = (ACCELERATED, LAUNCHED, *COMPILED.values(), "timm, fused, channels_last", "timm, fused", UNFUSED)
PEER_BACKENDS = (COMPILED["default"], "timm, fused, channels_last")
# Batch size from which calls are queued, so that the time is the GPU's; below it, each call is waited for.
_THROUGHPUT = 8
_QUEUED = 4
_WARMUP = 3
# Number of images for the comparison with float64, which takes seconds per image on a CPU.
_CHECKED = 2


@dataclass(frozen=True)
class GpuResult:
    """Time of a network in one backend and one batch size.

    Attributes:
        model: name of the network.
        backend: name of the backend, one of BACKENDS.
        batch: batch size.
        size: height and width of the images, in pixels.
        timing: milliseconds per call; None if it failed.
        memory: GPU memory that the network and its calls reserve, in megabytes (1e6 bytes); None if it failed, or if
            other memory was released meanwhile.
        top1: published ImageNet-1k top-1 accuracy at this size, in percent.
        failure: reason of the failure, in one line.
    """

    model: str
    backend: str
    batch: int
    size: int
    timing: Timing | None = None
    memory: float | None = None
    top1: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Exactness:
    """Relative differences (norms) of the logits from float64 on the CPU.

    Attributes:
        model: name of the network.
        accelerated: difference of `fastvit.accelerate` in float16.
        torch: difference of PyTorch in float16 and channels_last.
    """

    model: str
    accelerated: float
    torch: float


@dataclass
class GpuRun:
    """Results of one run, in the order of measurement.

    Attributes:
        machine: peak performance of the GPU.
        results: times of networks.
        exactness: differences from float64.
        kernels: times of kernels.
    """

    machine: Machine
    results: list[GpuResult] = field(default_factory=list)
    kernels: list[KernelRow] = field(default_factory=list)
    exactness: list[Exactness] = field(default_factory=list)

    def compiled(self, result: GpuResult) -> float | None:
        """Return the median milliseconds of the fastest mode of torch.compile for the same network and batch size."""
        same = [r for r in self.results if (r.model, r.batch) == (result.model, result.batch) and r.timing]
        return min((r.timing.median for r in same if r.timing and r.backend in COMPILED.values()), default=None)


Tick = Callable[[str], object]


def measure_gpu(
    names: Sequence[str],
    batches: Sequence[int] = (1, 128),
    peers: bool = False,
    rounds: int = 30,
    minutes: float | None = None,
    tick: Tick = lambda text: None,
    keep: Callable[[GpuRun], object] = lambda run: None,
) -> GpuRun:
    """Time networks, check the outputs of the accelerated ones, and time each of their kernels.

    Args:
        names: variants of the family.
        batches: batch sizes.
        peers: also time the peers of timm, compiled and eager.
        rounds: number of timed calls of each backend; the backends of a network and batch size take turns.
        minutes: stop starting new measurements after this many minutes; what is left is reported as a failure.
        tick: function that is called with a line before each measurement.
        keep: function that is called with the run after each network and batch size, so that it can be saved.

    Raises:
        UserError: there is no NVIDIA GPU, or a variant does not exist.
    """
    if not torch.cuda.is_available() or torch.version.hip:
        raise UserError("fastvit bench gpu needs an NVIDIA GPU, which was not found")
    refuse_none(rounds, batches)
    rows = [find_variant(name) for name in names]
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    tick("the GPU's roof")
    run = GpuRun(measure_machine("cuda", size=8192, megabytes=2048))
    torch.backends.cudnn.benchmark = True
    for row in rows:
        model = lively(create_model(row.name))
        tick(f"{row.name}: float64 on the CPU")
        run.exactness.append(_exactness(row.name, model, max(batches)))
        for batch in batches:
            makers = {backend: _maker(backend, row.name, model) for backend in BACKENDS}
            run.results += _measure(row.name, makers, batch, 256, row.top1, rounds, deadline, tick)
            if time.monotonic() < deadline:
                tick(f"{row.name}, batch {batch}: each kernel")
                run.kernels += _kernels(row.name, model, batch, run.machine)
            keep(run)
    for peer in PEERS.values() if peers else ():
        for batch in batches:
            makers = {backend: _maker(backend, peer.name, None) for backend in PEER_BACKENDS}
            run.results += _measure(peer.name, makers, batch, peer.size, peer.top1, rounds, deadline, tick)
            keep(run)
    return run


def lively(model: FastViT) -> FastViT:
    """Return the model with weights as if trained: with the initial layer scales a mistake in a block would hide."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LayerScale):
                module.gamma.uniform_(0.05, 0.35, generator=generator)
            elif isinstance(module, _BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


Maker = Callable[[Tensor], tuple[nn.Module, Tensor]]


def _maker(backend: str, name: str, model: FastViT | None) -> Maker:
    """Return a function: NCHW images -> a network that has run once, and the images in its memory format."""

    def make(images: Tensor) -> tuple[nn.Module, Tensor]:
        if backend in (ACCELERATED, LAUNCHED):
            assert model is not None
            half = fuse(model).to("cuda", torch.float16)
            return accelerate(half, images, graphs=backend == ACCELERATED), images
        network = _timms(name, fused=backend != UNFUSED).to("cuda", torch.float16)
        if backend in ("timm, fused", UNFUSED):
            return network, images
        images = images.contiguous(memory_format=torch.channels_last)
        network = network.to(memory_format=torch.channels_last)
        modes = {label: mode for mode, label in COMPILED.items()}
        if backend in modes:  # of a module it is a module
            network = cast(nn.Module, torch.compile(network, mode=modes[backend], dynamic=False))
        return network, images

    return make


def _timms(name: str, fused: bool) -> nn.Module:
    import timm
    from timm.utils import reparameterize_model

    network: nn.Module = timm.create_model(name).eval()
    return reparameterize_model(network) if fused else network


def _measure(
    name: str,
    makers: Mapping[str, Maker],
    batch: int,
    size: int,
    top1: float | None,
    rounds: int,
    deadline: float,
    tick: Tick,
) -> list[GpuResult]:
    torch._dynamo.reset()
    memory: dict[str, float | None] = {}

    def make_call(backend: str) -> Call:
        tick(f"{name}, batch {batch}: {backend}")
        if time.monotonic() > deadline:
            raise UserError("there was no time left")
        call, memory[backend] = _call(makers[backend], batch, size)
        return call

    timings, failures = side_by_side(
        {backend: partial(make_call, backend) for backend in makers},
        rounds,
        Progress(disable=True),  # `tick` tells
        _WARMUP,
        clock=partial(_event_clock, queued=_QUEUED if batch >= _THROUGHPUT else 1),
    )
    return [
        GpuResult(name, backend, batch, size, failure=failures[backend], top1=top1)
        if backend in failures
        else GpuResult(name, backend, batch, size, timings[backend], memory[backend], top1)
        for backend in makers
    ]


def _call(make: Maker, batch: int, size: int) -> tuple[Call, float | None]:
    """Return a call of a network on the next of several batches of noise, and the megabytes that it reserves."""
    _collect()
    before = torch.cuda.memory_reserved()
    generator = torch.Generator("cuda").manual_seed(0)
    images = torch.randn(batch, 3, size, size, device="cuda", generator=generator).half()
    network, images = make(images)
    with torch.inference_mode():
        for _ in range(_WARMUP):
            network(images)
        _collect()
        torch.cuda.reset_peak_memory_stats()
        network(images)
    torch.cuda.synchronize()
    memory = (torch.cuda.max_memory_reserved() - before) / 1e6
    cache = torch.cuda.get_device_properties("cuda").L2_cache_size
    copies = -(-2 * cache // (images.numel() * images.element_size())) + 1
    inputs = itertools.cycle([images, *(torch.randn_like(images) for _ in range(copies - 1))])

    def call() -> object:
        with torch.inference_mode():
            return network(next(inputs))

    return call, memory if memory > 0 else None


def _collect() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def _event_clock(call: Call, queued: int) -> float:
    """Return the GPU time of a number of queued calls, in milliseconds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(queued):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / queued


def _exactness(name: str, model: FastViT, batch: int) -> Exactness:
    """Compare the first images of a batch, with the kernels that are timed for that batch size."""
    fused = fuse(model)
    images = torch.randn(batch, 3, 256, 256, generator=torch.Generator().manual_seed(1)).half()
    half = copy.deepcopy(fused).to("cuda", torch.float16).to(memory_format=torch.channels_last)
    on_gpu = images.cuda().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        # The rounded weights are what both compute with.
        exact = copy.deepcopy(fused).half().double()(images[:_CHECKED].double())
        # In the memory format in which each is timed, for which its kernels are chosen.
        pairs = (accelerate(half, graphs=False), images.cuda()), (half, on_gpu)
        outputs = [network(x)[:_CHECKED].double().cpu() for network, x in pairs]
    ours, theirs = ((output - exact).norm() / exact.norm() for output in outputs)
    return Exactness(name, float(ours), float(theirs))


def _kernels(name: str, model: FastViT, batch: int, machine: Machine) -> list[KernelRow]:
    fast = accelerate(fuse(model).to("cuda", torch.float16))
    assert isinstance(fast, AcceleratedClassifier)
    images = torch.randn(batch, 3, 256, 256, device="cuda").half()
    try:
        return kernel_rows(name, fast, images, machine)
    except Exception as error:  # the table of networks is worth more than this one
        return [KernelRow(name, batch, first_line(error), "failed", 0, None, None, 0.0)]
