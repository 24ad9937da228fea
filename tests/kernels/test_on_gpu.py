"""What needs a GPU: the CUDA kernel itself, choosing, graphs, streams. Skipped where there is none."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import fastvit
from fastvit.kernels.inference.accelerate import Accelerated
from fastvit.kernels.inference.depthwise import Depthwise
from fastvit.kernels.inference.feed_forward import FeedForward
from fastvit.kernels.inference.feed_forward_cuda import layouts
from fastvit.kernels.inference.program import classifier_nodes
from fastvit.kernels.inference.stem import Stem
from fastvit.kernels.inference.step import TORCH, Choice
from fastvit.kernels.inference.support import available_kernels, unsupported
from fastvit.kernels.inference.timing import try_choices
from fastvit.model.classifier import FastViT
from fastvit.model.variants import VARIANTS
from tests.helpers import randomize, small, tiny
from tests.kernels.maps import DEVICE, ROUNDING, error, noise, noisy

pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" or unsupported(torch.device(DEVICE), torch.float16) is not None, reason="no GPU for our kernels"
)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """What a kernel leaves unwritten is NaN: PyTorch fills new memory with it in this mode."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "multiplier", "size", "batch"),
    [
        (7, 1, 64, 1, (64, 64), 3),
        (7, 1, 76, 1, (17, 33), 2),
        (7, 1, 608, 1, (8, 8), 5),
        (7, 2, 48, 2, (31, 64), 2),
        (7, 2, 304, 2, (16, 16), 257),
        (3, 1, 152, 1, (9, 16), 2),
        (3, 1, 608, 2, (8, 8), 2),
        (3, 2, 76, 1, (65, 31), 1),
        (3, 2, 2, 1, (1, 1), 1),
    ],
)
def test_every_launch_of_depthwise_convolutions(
    kernel: int,
    stride: int,
    channels: int,
    multiplier: int,
    size: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
) -> None:
    out = channels * multiplier
    conv = noisy(nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=channels), dtype)
    step, x = Depthwise(conv, act=stride == 2), noise(batch, *size, channels, dtype=dtype)
    exact = Depthwise(copy.deepcopy(conv).double(), step.act).torch(x.double())
    for choice in (*step.choices(x, ["cuda"]), *step.choices(x, ["triton"])):
        output = step.run(x, None, choice)
        assert error(output, exact) < ROUNDING[dtype], choice
        assert torch.equal(output, step.run(x, None, choice)), choice


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "hidden", "rows"),
    [(48, 144, 20001), (64, 256, 65536), (76, 304, 17777), (128, 512, 33333), (256, 1024, 8193), (304, 1216, 16500)],
)
def test_feed_forwards_on_hopper(channels: int, hidden: int, rows: int, dtype: torch.dtype) -> None:
    if "hopper" not in available_kernels(torch.device("cuda")):
        pytest.skip("no Hopper GPU")
    up, down = noisy(nn.Conv2d(channels, hidden, 1), dtype), noisy(nn.Conv2d(hidden, channels, 1), dtype, 1)
    x, residual = (noise(1, 1, rows, channels, dtype=dtype, seed=seed) for seed in (2, 3))
    step = FeedForward(up, down)
    exact = FeedForward(copy.deepcopy(up).double(), copy.deepcopy(down).double()).torch(x.double(), residual.double())
    for layout in layouts(channels, hidden)[:4]:
        choice = Choice("hopper", layout.options)
        output = step.run(x, residual, choice)
        assert error(output, exact) < 1.2 * ROUNDING[dtype], choice
        assert all(torch.equal(output, step.run(x, residual, choice)) for _ in range(5)), choice
        for few in (1, 63, 65, 200):
            one, kept = x[:, :, :few].contiguous(), residual[:, :, :few].contiguous()
            assert torch.equal(step.run(one, kept, choice), output[:, :, :few]), (choice, few)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", ["nchw", "nhwc"])
@pytest.mark.parametrize(("out", "size"), [(48, (61, 127)), (64, (256, 256)), (76, (33, 1))])
def test_every_launch_of_the_stem(out: int, size: tuple[int, int], memory: str, dtype: torch.dtype) -> None:
    first, second = nn.Conv2d(3, out, 3, 2, 1), nn.Conv2d(out, out, 3, 2, 1, groups=out)
    net = noisy(nn.Sequential(first, second, nn.Conv2d(out, out, 1)), dtype)
    step, exact = Stem(*net), Stem(*copy.deepcopy(net).double())
    x = noise(17, 3, *size, dtype=dtype).permute(0, 2, 3, 1)
    x = x.contiguous() if memory == "nhwc" else x
    reference = exact.torch(x.double())
    for choice in (*step.choices(x, ["cuda", "triton"]), *step.choices(x[:1], ["cuda", "triton"])):
        output = step.run(x, None, choice)
        assert error(output, reference) < 2 * ROUNDING[dtype], choice
        assert torch.equal(output, step.run(x, None, choice)), choice


def exactness(model: FastViT, images: torch.Tensor, dtype: torch.dtype) -> float:
    """Error of ours over that of PyTorch in channels_last, both from float64."""
    fused = fastvit.fuse(model).to(dtype)
    exact = copy.deepcopy(fused).double().cpu()(images.cpu().double())
    theirs = copy.deepcopy(fused).to("cuda", memory_format=torch.channels_last)
    fast = fastvit.accelerate(fused.cuda(), time=False)
    assert fast.reason is None
    with torch.no_grad():
        ours = fast(images)
        assert torch.equal(ours, fast(images))
        wanted = theirs(images.contiguous(memory_format=torch.channels_last))
    return error(ours.cpu(), exact) / error(wanted.cpu(), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_ma36", "fastvit_mci0", "fastvit_mci3"])
def test_the_family_is_as_exact_as_pytorch(name: str, dtype: torch.dtype) -> None:
    model = randomize(FastViT(small(VARIANTS[name].config, depth=1).replace(num_classes=100)).eval())
    assert exactness(model, noise(2, 3, 96, 127, dtype=dtype), dtype) < 1.5


@pytest.mark.parametrize("batch", [1, 2, 3, 31, 32, 33, 257])
def test_batches(batch: int) -> None:
    model = randomize(tiny(attention=True))
    assert exactness(model, noise(batch, 3, 37, 64), torch.float16) < 1.5


def test_graphs_give_the_outputs_of_launches_and_keep_them() -> None:
    fused = fastvit.fuse(randomize(tiny(attention=True))).half().cuda()
    replayed, launched = fastvit.accelerate(fused), fastvit.accelerate(fused, graphs=False)
    images = [noise(2, 3, 64, 64, seed=seed) for seed in range(4)]
    first = replayed(images[0])
    kept = first.clone()
    for one in images:
        assert torch.equal(replayed(one), launched(one))
        strided = one.contiguous(memory_format=torch.channels_last)
        assert torch.equal(replayed(strided), launched(one))
    assert torch.equal(first, kept)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = replayed(images[1])
    here = replayed(images[2])
    torch.cuda.synchronize()
    assert torch.equal(elsewhere, launched(images[1]))
    assert torch.equal(here, launched(images[2]))


def test_a_backbone_inside_of_a_segmenter() -> None:
    model = fastvit.fuse(randomize(fastvit.create_segmenter("t8").eval())).half().cuda()
    images = noise(1, 3, 128, 96)
    fast = fastvit.accelerate(model)
    with torch.no_grad():
        assert error(fast(images), model(images).double()) < 2e-2
    assert any(isinstance(m, Accelerated) and m.reason is None for m in fast.modules())


def test_what_was_chosen_is_kept() -> None:
    fused = fastvit.fuse(tiny()).half().cuda()
    fast = fastvit.accelerate(fused, noise(2, 3, 64, 64))
    assert fast.network is not None
    table = json.loads(fast.network._tuner.path.read_text())
    assert any(entry["kernel"] != "torch" for entry in table.values())
    assert any(name.startswith("depthwise 7x7/1 16 @ 16x16, batch 2") for name in table)


@pytest.mark.parametrize("batch", [2, 96])
def test_no_choice_of_a_variant_fails_or_is_wrong(batch: int) -> None:
    """Every launch that is offered for SA12 runs on this GPU and is right, or asks for more than it has."""
    model = fastvit.fuse(randomize(fastvit.create_model("sa12").eval())).half().cuda().requires_grad_(False)
    x, kernels = noise(batch, 256, 256, 3), available_kernels(torch.device("cuda"))
    for node in classifier_nodes(model):
        residual = x.new_zeros(node.step.torch(x).shape) if node.joins else None
        for trial in try_choices(node.step, x, residual, [TORCH, *node.step.choices(x, kernels)]):
            assert trial.ms is not None or "resource" in trial.failure, trial
        x = node.step.torch(x, residual)


def test_other_precisions_run_in_pytorch_and_stay_as_they_are() -> None:
    fused = fastvit.fuse(tiny()).cuda()
    images = noise(1, 3, 64, 64, dtype=torch.float32)
    fast = fastvit.accelerate(fused)
    assert fast.reason == "the kernels need float16 or bfloat16; the model is in float32"
    with torch.no_grad():
        assert torch.equal(fast(images), fused(images))
        half = copy.deepcopy(fast).half()
        assert half.reason is None
        assert half(images.half()).dtype == torch.float16
    predictor = fastvit.Predictor(tiny(), "cuda", precision="fp16")
    assert predictor.runtime == "kernels fp16"
    assert fastvit.Predictor(tiny(), "cuda", precision="fp16", kernels=False).runtime == "torch fp16"
    assert fastvit.Predictor(tiny(), "cuda").runtime == "torch"


def test_threads_share_a_network_on_streams_of_their_own() -> None:
    """Graphs of several shapes have memory in common."""
    fused = fastvit.fuse(randomize(tiny(attention=True))).half().cuda()
    replayed, launched = fastvit.accelerate(fused, time=False), fastvit.accelerate(fused, time=False, graphs=False)
    images = [noise(8 + i, 3, 128, 128, seed=i) for i in range(6)]
    expected = [launched(one) for one in images]
    torch.cuda.synchronize()
    begin = threading.Barrier(len(images))

    def predicted(one: torch.Tensor) -> list[torch.Tensor]:
        begin.wait()
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            outputs = [replayed(one) for _ in range(50)]
            torch.cuda.current_stream().synchronize()
        return outputs

    with ThreadPoolExecutor(len(images)) as pool:
        found = list(pool.map(predicted, images))
    for outputs, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(output, wanted) for output in outputs)
