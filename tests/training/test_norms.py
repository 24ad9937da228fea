"""Batch norms that are frozen, and those over processes: on one that is alone, and on two whose images differ in size.

Whole runs of two processes: test_processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import nn

import fastvit
from fastvit.training.norms import CpuSyncBatchNorm, FrozenBatchNorm, SyncNorms, freeze_norms
from tests.helpers import randomize, tiny


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def norm() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(6)
    with torch.no_grad():
        for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
            tensor.uniform_(0.5, 2)
    return made


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_it_is_batch_norm(group: None, dtype: torch.dtype, tolerance: float) -> None:
    theirs = norm().to(torch.promote_types(dtype, torch.float32))
    ours = SyncNorms().apply(deepcopy(theirs))
    assert type(ours) is CpuSyncBatchNorm
    images = torch.randn(4, 6, 5, 3, dtype=dtype) * 3 + 1
    results = []
    for module in (ours, theirs):
        x = images.clone().requires_grad_()
        output = module(x)
        assert output.dtype == dtype
        output.square().mul(torch.arange(3)).sum().backward()
        results.append([output, x.grad, module.weight.grad, module.bias.grad, module.running_mean, module.running_var])
    for mine, other in zip(*results, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * scale)
    assert int(ours.num_batches_tracked) == 1
    reverted = SyncNorms().revert(ours)
    assert type(reverted) is nn.BatchNorm2d
    torch.testing.assert_close(reverted.eval()(images), theirs.eval()(images))


PROCESS = """
import sys, torch
import torch.distributed as distributed
from fastvit.training.norms import CpuSyncBatchNorm
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
made = []
for case in torch.load(f"{folder}/given.pt", weights_only=True):
    norm = CpuSyncBatchNorm(6).double()
    norm.load_state_dict(case["norm"])
    images = case["images"][rank].requires_grad_()
    output = norm(images)
    (output * case["pulls"][rank]).sum().backward()
    grads = [images.grad, norm.weight.grad, norm.bias.grad]
    made.append([output.detach(), *grads, norm.running_mean, norm.running_var])
torch.save(made, f"{folder}/made{rank}.pt")
distributed.destroy_process_group()
"""
# Batch, height and width of the images of each process.
SIZES = (((4, 5, 3), (4, 5, 3)), ((2, 7, 9), (3, 4, 6)), ((1, 1, 1), (5, 8, 8)))


def pixels(images: list[torch.Tensor]) -> torch.Tensor:
    """(channels, all pixels of all images)."""
    return torch.cat([one.transpose(0, 1).flatten(1) for one in images], 1)


@pytest.mark.slow
def test_two_processes_count_pixels(tmp_path: Path) -> None:
    """The statistics are of all pixels, however they are shared out."""
    norms = [norm().double() for _ in SIZES]
    images = [[torch.randn(n, 6, h, w, dtype=torch.float64) * 3 + 1 for n, h, w in sizes] for sizes in SIZES]
    pulls = [[torch.randn_like(one) for one in pair] for pair in images]
    cases = zip(norms, images, pulls, strict=True)
    torch.save([{"norm": n.state_dict(), "images": i, "pulls": p} for n, i, p in cases], tmp_path / "given.pt")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    made = [torch.load(tmp_path / f"made{rank}.pt", weights_only=True) for rank in (0, 1)]

    for theirs, shared, pull, *both in zip(norms, images, pulls, *made, strict=True):
        # One process with the pixels of both in a row.
        flat = pixels(shared)[None, :, :, None].requires_grad_()
        output = theirs(flat)
        (output * pixels(pull)[None, :, :, None]).sum().backward()
        for index, whole in enumerate((output.detach(), flat.grad)):
            found = pixels([one[index] for one in both])
            torch.testing.assert_close(found, whole[0, :, :, 0], rtol=1e-10, atol=1e-10)
        for index, expected in ((2, theirs.weight.grad), (3, theirs.bias.grad)):  # DDP adds these up
            torch.testing.assert_close(both[0][index] + both[1][index], expected, rtol=1e-10, atol=1e-10)
        for index, expected in ((4, theirs.running_mean), (5, theirs.running_var)):
            for one in both:
                torch.testing.assert_close(one[index], expected, rtol=1e-10, atol=1e-10)


def test_a_norm_of_another_kind_has_the_same_tensors() -> None:
    """The optimizer keeps what it has, and a norm that does not learn goes on not to."""
    norm = nn.BatchNorm2d(6, eps=1e-3, momentum=0.37).eval()
    norm.weight.requires_grad_(False)
    model = nn.Sequential(norm)
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    for change, kind in ((SyncNorms().apply, CpuSyncBatchNorm), (SyncNorms().revert, nn.BatchNorm2d)):
        assert change(model) is model
        assert type(model[0]) is kind
        after = dict(model.named_parameters()) | dict(model.named_buffers())
        assert all(after[name] is tensor for name, tensor in before.items())
        assert (model[0].eps, model[0].momentum, model[0].training) == (1e-3, 0.37, False)
        assert not model[0].weight.requires_grad
        assert model[0].bias.requires_grad


def test_frozen_norms_stay_as_they_are() -> None:
    model = randomize(tiny(attention=True)).double()
    plain = deepcopy(model).eval()
    freeze_norms(model.backbone)
    model.train()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    frozen = {name for name, module in norms.items() if isinstance(module, FrozenBatchNorm)}
    assert frozen == {name for name in norms if name.startswith("backbone.")}
    assert not any(norms[name].training for name in frozen)
    assert all(norms[name].training for name in norms if name not in frozen)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model.backbone(images)[-1], plain.backbone(images)[-1], rtol=1e-12, atol=1e-12)
    model(images).square().sum().backward()
    for name in frozen:
        assert all(p.grad is None and not p.requires_grad for p in norms[name].parameters())
    assert model.backbone.stem[0].conv.branches[0].conv.weight.grad is not None
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    SyncNorms().apply(model)
    assert all(type(norms[name]) is FrozenBatchNorm for name in frozen), "what is frozen asks no other process"
    SyncNorms().revert(model)
    fused = fastvit.fuse(model)
    assert fastvit.verify(model, fused, images).relative < 1e-10
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    copied = deepcopy(model).train()
    assert sum(isinstance(m, FrozenBatchNorm) for m in copied.modules()) == len(frozen)
