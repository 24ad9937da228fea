"""`fastvit.accelerate` where there is no GPU for it: the same outputs, in PyTorch, and it says why."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import fastvit
from fastvit.cli.main import main
from fastvit.kernels.inference.accelerate import Accelerated, AcceleratedBackbone
from fastvit.kernels.inference.support import unsupported
from fastvit.model.task_model import TaskModel
from fastvit.tasks.create import create_detector, create_segmenter
from tests.helpers import randomize, tiny


@pytest.fixture
def fused() -> fastvit.FastViT:
    return fastvit.fuse(randomize(tiny(classes=[str(i) for i in range(10)])))


IMAGES = torch.randn(2, 3, 40, 33)


def test_on_a_cpu_it_is_the_network(fused: fastvit.FastViT) -> None:
    fast = fastvit.accelerate(fused, IMAGES)
    with torch.no_grad():
        assert torch.equal(fast(IMAGES), fused(IMAGES))
        assert torch.equal(fast.outputs(IMAGES)[0], fused(IMAGES))
    assert fast.reason == "the kernels need an NVIDIA GPU; the model is on cpu"
    assert (fast.classes, fast.preprocessing, fast.config) == (fused.classes, fused.preprocessing, fused.config)
    assert fastvit.form(fast) == "fused"
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(parameter.requires_grad for parameter in fused.parameters())


def test_it_fuses_what_is_not_fused_and_takes_what_is_accelerated() -> None:
    model = randomize(tiny())
    fast = fastvit.accelerate(model)
    assert fastvit.form(model) == "train"
    with torch.no_grad():
        assert torch.equal(fast(IMAGES), fastvit.fuse(model)(IMAGES))
        assert torch.equal(fastvit.accelerate(fast)(IMAGES), fast(IMAGES))
    assert sum(isinstance(module, Accelerated) for module in fastvit.accelerate(fast).modules()) == 1


def test_it_moves_is_cast_copied_and_pickled(fused: fastvit.FastViT) -> None:
    fast = fastvit.accelerate(fused)
    with torch.no_grad():
        for same in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(same(IMAGES), fused(IMAGES))
        assert torch.equal(fast.double()(IMAGES.double()), fused.double()(IMAGES.double()))
    assert fast.reason == "the kernels need an NVIDIA GPU; the model is on cpu"


def test_made_in_inference_mode_it_serves_outside_of_it(fused: fastvit.FastViT) -> None:
    with torch.inference_mode():
        fast = fastvit.accelerate(fused, IMAGES)
    assert torch.equal(fast(IMAGES), fused(IMAGES))


def test_gradients_of_images_go_through_pytorch(fused: fastvit.FastViT) -> None:
    images = IMAGES.clone().requires_grad_()
    fastvit.accelerate(fused)(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_backbone_alone_and_inside_of_others(fused: fastvit.FastViT) -> None:
    fast = fastvit.accelerate(fused.backbone)
    assert isinstance(fast, AcceleratedBackbone)
    assert (fast.channels, fast.strides) == (fused.backbone.channels, fused.backbone.strides)
    with torch.no_grad():
        for ours, theirs in zip(fast(IMAGES), fused.backbone(IMAGES), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("create", [create_detector, create_segmenter])
def test_dense_models_keep_their_heads(create: Callable[[str], TaskModel]) -> None:
    model = create("t8").eval()
    fast = fastvit.accelerate(model)
    assert type(fast) is type(model)
    assert sum(isinstance(module, AcceleratedBackbone) for module in fast.modules()) == 1
    assert fast.trunk.config == model.config
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs, expected = fast.outputs(images), fastvit.fuse(model).outputs(images)
    assert len(outputs) == len(expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs, expected, strict=True))


def test_what_has_no_fastvit_in_it() -> None:
    with pytest.raises(fastvit.UserError, match="cannot accelerate Linear: it does not contain a FastViT"):
        fastvit.accelerate(nn.Linear(2, 2))


def test_where_kernels_run() -> None:
    assert "NVIDIA" in str(unsupported(torch.device("mps"), torch.float16))
    if not torch.cuda.is_available():
        return
    assert (
        unsupported(torch.device("cuda"), torch.float32)
        == "the kernels need float16 or bfloat16; the model is in float32"
    )


@pytest.mark.slow
def test_it_can_be_exported_as_the_network_that_it_is(fused: fastvit.FastViT) -> None:
    fast = fastvit.accelerate(fused)
    program = torch.export.export(fast, (IMAGES,))
    with torch.no_grad():
        assert torch.allclose(program.module()(IMAGES), fused(IMAGES), atol=1e-6)


@pytest.mark.slow
def test_without_a_gpu_nothing_of_it_is_imported() -> None:
    """Neither Triton nor NVIDIA's compiler: other systems do not have them."""
    code = (
        "import sys, torch, fastvit\n"
        "model = fastvit.accelerate(fastvit.FastViT(fastvit.FastViTConfig((fastvit.Stage(16, 1),))))\n"
        "model(torch.randn(1, 3, 32, 32))\n"
        "print(sorted({'triton', 'cuda.bindings.nvrtc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_predictor_has_a_switch_and_never_changes_the_precision(fused: fastvit.FastViT) -> None:
    images = torch.randn(2, 3, 32, 32)
    outputs = [fastvit.Predictor(fused, runtime="torch", kernels=kernels).logits(images) for kernels in (True, False)]
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert torch.equal(outputs[0], fused(images))
    with pytest.raises(fastvit.UserError, match="on cuda also fp16 and bf16"):
        fastvit.Predictor(fused, runtime="torch", precision="fp16")


def test_evaluation_says_where_half_precision_runs(
    fused: fastvit.FastViT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fastvit.save(fused, tmp_path / "model.safetensors")
    arguments = ["eval", str(tmp_path / "model.safetensors"), "--precision", "fp16", "--device", "cpu", "--no-kernels"]
    assert main(arguments) == 2
    assert "on cuda also fp16 and bf16" in capsys.readouterr().err
