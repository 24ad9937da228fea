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
from tests.helpers import randomise, tiny


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
given = torch.load(f"{folder}/given.pt", weights_only=True)
norm = CpuSyncBatchNorm(6).double()
norm.load_state_dict(given["norm"])
images = given["images"][rank].requires_grad_()
output = norm(images)
(output * given["pulls"][rank]).sum().backward()
parts = [output.detach(), images.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
torch.save(parts, f"{folder}/made{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [((4, 5, 3), (4, 5, 3)), ((2, 7, 9), (3, 4, 6)), ((1, 1, 1), (5, 8, 8))])
def test_two_processes_count_pixels(sizes: tuple[tuple[int, int, int], ...], tmp_path: Path) -> None:
    """The statistics are of all pixels, however they are shared out: (batch, height, width) of each process."""
    theirs = norm().double()
    images = [torch.randn(count, 6, height, width, dtype=torch.float64) * 3 + 1 for count, height, width in sizes]
    pulls = [torch.randn_like(one) for one in images]
    torch.save({"norm": theirs.state_dict(), "images": images, "pulls": pulls}, tmp_path / "given.pt")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    made = [torch.load(tmp_path / f"made{rank}.pt", weights_only=True) for rank in (0, 1)]

    # One process with the pixels of both in a row.
    flat = torch.cat([one.transpose(0, 1).flatten(1) for one in images], 1)[None, :, :, None].requires_grad_()
    pull = torch.cat([one.transpose(0, 1).flatten(1) for one in pulls], 1)[None, :, :, None]
    output = theirs(flat)
    (output * pull).sum().backward()
    for index, whole in enumerate((output.detach(), flat.grad)):
        parts = torch.cat([one[index].transpose(0, 1).flatten(1) for one in made], 1)
        torch.testing.assert_close(parts, whole[0, :, :, 0], rtol=1e-10, atol=1e-10)
    for index, expected in ((2, theirs.weight.grad), (3, theirs.bias.grad)):  # DDP adds these up
        torch.testing.assert_close(made[0][index] + made[1][index], expected, rtol=1e-10, atol=1e-10)
    for index, expected in ((4, theirs.running_mean), (5, theirs.running_var)):
        for one in made:
            torch.testing.assert_close(one[index], expected, rtol=1e-10, atol=1e-10)


def test_frozen_norms_stay_as_they_are() -> None:
    model = randomise(tiny(attention=True)).double()
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
