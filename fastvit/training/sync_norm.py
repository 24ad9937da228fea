"""Batch norm over all processes, also where torch's own needs a GPU."""

from __future__ import annotations

import torch
import torch.distributed
import torch.distributed.nn.functional as differentiable
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the batches of all processes, which are of one size."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # sums of bfloat16 would be too coarse
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * torch.distributed.get_world_size()
        mean = differentiable.all_reduce(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = differentiable.all_reduce(centred.square().sum(dims)) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class SyncNorms(LayerSync):
    """Lightning's switch from batch norm to its synchronised form and back, on the CPU."""

    def apply(self, model: nn.Module) -> nn.Module:
        return _replace(model, nn.BatchNorm2d, CpuSyncBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        return _replace(model, CpuSyncBatchNorm, nn.BatchNorm2d)


def _replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new  # the two have the same attributes; parameters stay the optimizer's
    return model
