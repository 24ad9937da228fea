"""Batch norm over processes, on one that is alone: it must be batch norm. With two: test_processes."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import nn

from fastvit.training.norms import CpuSyncBatchNorm, SyncNorms


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
