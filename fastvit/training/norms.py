"""Frozen batch norm, and synchronized batch norm (sync batch norm) on the CPU."""

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
    """Synchronized batch norm on the CPU; `torch.nn.SyncBatchNorm` needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        dtype, x = (
            x.dtype,
            x.to(torch.promote_types(x.dtype, torch.float32)),
        )  # sums in bfloat16 would be too inaccurate
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor(x.numel() // x.shape[1])  # images of detection and segmentation differ in size
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
    """Batch norm that stays in eval mode; `freeze_norms` replaces `torch.nn.BatchNorm2d` by it."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in eval mode, whatever `mode` is."""
        return super().train(False)


def freeze_norms(model: nn.Module) -> None:
    """Freeze the statistics and parameters of every batch norm, in place."""
    for module in _replace(model, nn.BatchNorm2d, FrozenBatchNorm).modules():
        if isinstance(module, FrozenBatchNorm):
            module.eval().requires_grad_(False)


class SyncNorms(LayerSync):
    """Conversion of batch norm to synchronized batch norm on the CPU and back, for Lightning."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with `CpuSyncBatchNorm`."""
        return _replace(model, nn.BatchNorm2d, CpuSyncBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model with `torch.nn.BatchNorm2d`."""
        return _replace(model, CpuSyncBatchNorm, nn.BatchNorm2d)


def _replace(model: nn.Module, old: type[nn.BatchNorm2d], new: type[nn.BatchNorm2d]) -> nn.Module:
    return replaced(model, lambda module: _converted(module, new) if type(module) is old else None)


def _converted(norm: nn.Module, kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    """Return a norm of another class with the same parameter objects, which the optimizer has, and buffers."""
    assert isinstance(norm, nn.BatchNorm2d)
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        setattr(made, name, tensor)
    return made.train(norm.training)
