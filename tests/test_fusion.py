"""The algebra of fusion, piece by piece, and what a user's model may come as."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastvit
from fastvit.fusion import Affine, affine, identity
from fastvit.model.layers import ConvNorm, RepConv
from fastvit.model.mixers import RepCPE, RepMixer
from tests.helpers import randomize, tiny

PIECES = {
    "dense 3x3 stride 2": lambda: RepConv(3, 8, (3, 1), stride=2),
    "depthwise with identity": lambda: RepConv(8, 8, (3, 1), groups=8),
    "dense 1x1 with identity": lambda: RepConv(8, 8, (1,)),
    "grouped with identity": lambda: RepConv(8, 8, (3,), groups=2),
    "large kernel, channel multiplier 2": lambda: RepConv(4, 8, (7, 3), stride=2, groups=4),
    "conv and norm": lambda: ConvNorm(4, 6, 5),
    "RepMixer": lambda: RepMixer(8, 3, 1e-5),
    "RepCPE": lambda: RepCPE(8, 7),
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("make", PIECES.values(), ids=PIECES)
def test_affine_is_the_module(make) -> None:
    piece = randomize(make()).eval()
    conv = affine(piece).conv(next(piece.parameters()))
    x = torch.randn(2, conv.in_channels, 13, 11)
    torch.testing.assert_close(conv(x), piece(x), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_affine_arithmetic() -> None:
    def conv(kernel: int) -> Affine:
        return affine(nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=2))

    a, b, factor = conv(5), conv(3), torch.randn(4)
    x = torch.randn(1, 4, 9, 9)

    def run(value: Affine) -> torch.Tensor:
        return value.conv(x)(x)

    torch.testing.assert_close(run(a + b), run(a) + run(b))
    torch.testing.assert_close(run(b - a), run(b) - run(a))
    torch.testing.assert_close(run(a.scaled(factor)), run(a) * factor.view(1, 4, 1, 1))
    torch.testing.assert_close(run(a.shifted(factor)), run(a) + factor.view(1, 4, 1, 1))
    torch.testing.assert_close(run(b.padded(7)), run(b))
    torch.testing.assert_close(run(identity(4, 2, x)), x)
    with pytest.raises(ValueError, match="equal stride and groups"):
        a + identity(4, 4, x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(2, 2),
        nn.Conv2d(2, 2, 2),
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, (1, 2), 1),
    ],
    ids=["no convolution", "even kernel", "no padding", "reflecting", "uneven stride"],
)
def test_affine_refuses_what_it_cannot_say(module: nn.Module) -> None:
    with pytest.raises(TypeError):
        affine(module)


def test_batch_norm_without_statistics_is_refused() -> None:
    model = tiny()
    model.backbone.stem[0].conv.branches[0].norm = nn.BatchNorm2d(16, track_running_stats=False)
    with pytest.raises(fastvit.UserError, match="running statistics"):
        fastvit.fuse(model)


def test_batch_norm_without_affine() -> None:
    model = randomize(tiny())
    model.backbone.stages[0].blocks[0].token_mixer.norm = nn.BatchNorm2d(16, affine=False)
    assert fastvit.verify(model, fastvit.fuse(model), torch.randn(1, 3, 32, 32)).relative < 1e-5


def test_the_piece_itself_can_be_the_root() -> None:
    assert isinstance(fastvit.fuse(RepCPE(4, 7)), nn.Conv2d)


def test_fuse_keeps_optimizer_gradients_and_mode() -> None:
    model = tiny().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    fused = fastvit.fuse(model)
    assert model.training
    assert all(p.grad is None for p in fused.parameters())
    assert all(p.grad is not None for p in model.parameters())
    before = model.head.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model.head.weight), "the optimizer still holds the model's parameters"


def test_fuse_keeps_the_compiled_graph() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]):
        graphs.append(graph)
        return graph.forward

    model = tiny()
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        compiled(x)
        compiled_graphs = len(graphs)
        fused = fastvit.fuse(compiled)
        assert isinstance(fused, fastvit.FastViT)
        compiled(x)
    assert len(graphs) == compiled_graphs, "fusing must not make the original compile again"


def test_half_precision_is_rounded_once() -> None:
    model = randomize(tiny())
    half, exact = fastvit.fuse(model.bfloat16()), fastvit.fuse(model.double())
    for a, b in zip(half.parameters(), exact.parameters(), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b.bfloat16())


def test_verify_restores_the_mode_and_sees_differences() -> None:
    model = tiny().train()
    other = fastvit.fuse(model)
    with torch.no_grad():
        other.head.bias.add_(1.0)
    differences = fastvit.verify(model, other, torch.randn(2, 3, 32, 32))
    assert model.training
    assert differences.max_abs == pytest.approx(1.0, abs=1e-4)
    assert differences.top1 is not None
