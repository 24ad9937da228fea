"""The smallest pieces of the network, each against torch's own."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from fastvit.collapse import CollapseMode
from fastvit.model.layers import StridedPointwise


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)])
@pytest.mark.parametrize("stride", [2, 3])
def test_strided_pointwise_is_the_strided_convolution(stride: int, size: tuple[int, int]) -> None:
    """In float64: output, gradient of the input, gradient of the weight."""
    torch.manual_seed(0)
    ours, theirs = (kind(3, 5, 1, stride, bias=False, dtype=torch.float64) for kind in (StridedPointwise, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, *size, dtype=torch.float64)

    def results(conv: nn.Conv2d) -> list[Tensor]:
        x = images.clone().requires_grad_()
        out = conv(x)
        out.square().sum().backward()
        return [out, x.grad, conv.weight.grad]

    for mine, expected in zip(results(ours), results(theirs), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


# Allocations between the steps let a write past the end of a buffer show.
STEPS = """
import sys, torch, fastvit
torch.manual_seed(0)
torch.set_num_threads(1)
model = fastvit.collapse_branches(fastvit.create_model("fastvit_t8").train(), sys.argv[1])
model = model.to(memory_format=torch.channels_last)
assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.ndim == 4)
branch = model.trunk.stem[0].conv.branches[1].conv
grads = []
branch.register_full_backward_hook(lambda module, inputs, outputs: grads.append(outputs[0].double()))
images = torch.randn(4, 3, 128, 128).to(memory_format=torch.channels_last)
for _ in range(3):
    model.zero_grad()
    model(images).square().mean().backward()
    junk = [torch.randn(int(n)) for n in torch.randint(8, 4000, (200,))]
    exact = torch.einsum("bohw,bihw->oi", grads.pop(), images[:, :, ::2, ::2].double())
    error = (branch.weight.grad[:, :, 0, 0].double() - exact).norm() / exact.norm()
    assert error < 1e-4, error
print("trained")
"""


@pytest.mark.parametrize("form", get_args(CollapseMode))
def test_channels_last_trains_on_a_cpu(form: str) -> None:
    """In a process of its own: oneDNN's fault ends it, or corrupts the gradient of the stem's 1x1 branch."""
    done = subprocess.run([sys.executable, "-c", STEPS, form], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "trained\n"
