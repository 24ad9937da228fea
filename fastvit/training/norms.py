"""Batch norms that training does not leave to themselves: frozen ones, and those over all processes on the CPU."""

from __future__ import annotations

import torch
import torch.distributed
import torch.distributed.nn.functional as differentiable
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn

from fastvit.collapse import shared_over
from fastvit.fusion import replaced
from fastvit.kernels.training.branch_sum import group_name


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the batches of all processes, also where torch's own needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # sums of bfloat16 would be too coarse
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor(x.numel() // x.shape[1])  # in detection and segmentation images have different sizes
        torch.distributed.all_reduce(count)
        mean = differentiable.all_reduce(x.sum(dims)) / count
        centered = x - mean.view(shape)
        variance = differentiable.all_reduce(centered.square().sum(dims)) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale.view(shape) + self.bias.view(shape)).to(dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


@shared_over.register
def _(norm: CpuSyncBatchNorm) -> str | None:
    return group_name() if torch.distributed.is_initialized() else None


class FrozenBatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that stays in eval mode and does not learn; `freeze_norms` makes them."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        return super().train(False)


def freeze_norms(model: nn.Module) -> None:
    """Freeze the statistics and parameters of every batch norm, in place."""
    for module in _replace(model, nn.BatchNorm2d, FrozenBatchNorm).modules():
        if isinstance(module, FrozenBatchNorm):
            module.eval().requires_grad_(False)


class SyncNorms(LayerSync):
    """Lightning's switch from batch norm to its synchronized form and back, on the CPU."""

    def apply(self, model: nn.Module) -> nn.Module:
        return _replace(model, nn.BatchNorm2d, CpuSyncBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        return _replace(model, CpuSyncBatchNorm, nn.BatchNorm2d)


def _replace(model: nn.Module, old: type[nn.BatchNorm2d], new: type[nn.BatchNorm2d]) -> nn.Module:
    return replaced(model, lambda module: _converted(module, new) if type(module) is old else None)


def _converted(norm: nn.Module, kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    """Return a norm of another kind with the very same parameters, which stay the optimizer's, and buffers."""
    assert isinstance(norm, nn.BatchNorm2d)
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        setattr(made, name, tensor)
    return made.train(norm.training)
