"""A network as steps: the same function as the modules, in float64 to the last digits, and by kernels in float16."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import fastvit
from fastvit.kernels.inference.program import Node, backbone_nodes, classifier_nodes, make_plan, unknown_part
from fastvit.kernels.inference.step import TORCH, Choice, Step
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.variants import VARIANTS
from tests.contracts import PUBLISHED, every_variant
from tests.helpers import randomize, small, tiny
from tests.kernels.maps import DEVICE, error, noise


def in_torch(step: Step, x: Tensor, residual: Tensor | None) -> Choice:
    return TORCH


def first_triton(step: Step, x: Tensor, residual: Tensor | None) -> Choice:
    """The likeliest of Triton's."""
    return next(iter(step.choices(x, ["triton"])), TORCH)


def run(nodes: Sequence[Node], images: Tensor) -> list[Tensor]:
    x = images.permute(0, 2, 3, 1)
    return make_plan(nodes, x, in_torch)(x)


# Between them they have every kind of block.
QUICK = "fastvit_sa12", "fastvit_mci0", "fastvit_mci3"


@pytest.mark.parametrize("name", every_variant(QUICK))
def test_steps_are_the_network(name: str) -> None:
    """Every variant's kinds of blocks, in float64: no step is left out, in another order or on another map."""
    config = small(VARIANTS[name].config, depth=1).replace(num_classes=7)
    model = fastvit.fuse(randomize(FastViT(config).double()))
    if part := unknown_part(model):
        assert name not in PUBLISHED
        pytest.skip(f"PyTorch computes {part}")
    images = torch.randn(2, 3, 32, 47, dtype=torch.float64)
    with torch.no_grad():
        expected, maps = model(images), model.backbone(images)
    (logits,) = run(classifier_nodes(model), images)
    assert error(logits, expected) < 1e-13
    for output, expected_map in zip(run(backbone_nodes(model.backbone), images), maps, strict=True):
        assert error(output.permute(0, 3, 1, 2), expected_map) < 1e-13


def test_without_a_head_the_output_is_the_features() -> None:
    model = fastvit.fuse(tiny(num_classes=0).double())
    images = torch.randn(1, 3, 33, 40, dtype=torch.float64)
    (features,) = run(classifier_nodes(model), images)
    assert error(features, model(images)) < 1e-13


@pytest.mark.parametrize(
    ("stages", "size"),
    [
        ((Stage(16, 1, mlp_ratio=2.0), Stage(32, 1, "attention", 2.0, cpe=3)), (17, 12)),
        pytest.param(tiny(attention=True).config.stages, (33, 20), marks=pytest.mark.slow),
        pytest.param(tiny().config.stages, (34, 45), marks=pytest.mark.slow),
    ],
)
def test_in_float16_by_kernels(stages: tuple[Stage, ...], size: tuple[int, int]) -> None:
    """The whole network, odd sizes: at most 1.5 times as far from float64 as PyTorch's float16 in channels_last."""
    pytest.importorskip("triton")
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what is not written yet with NaN
    config = FastViTConfig(stages, num_classes=10)
    model = fastvit.fuse(randomize(FastViT(config).eval())).requires_grad_(False)
    images = noise(1, 3, *size, dtype=torch.float32)
    exact = model.double()(images.cpu().half().double())
    half = model.half().to(DEVICE, memory_format=torch.channels_last)
    theirs = half(images.half().contiguous(memory_format=torch.channels_last))
    x = images.half().permute(0, 2, 3, 1)
    nodes = classifier_nodes(half)
    plan = make_plan(nodes, x, first_triton)
    in_torch_still = [node.step.name for node, c in zip(nodes, plan.choices, strict=True) if c == TORCH]
    assert in_torch_still == ["linear 64-10"]
    (ours,) = plan(x)
    assert ours.dtype == torch.float16
    assert error(ours.cpu(), exact) < 1.5 * error(theirs.cpu(), exact)
    torch.use_deterministic_algorithms(False)


def test_a_plan_keeps_the_map_that_a_branch_begins_with() -> None:
    class Times(Step):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        name = "times"

        def torch(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
            return self.factor * x + (0 if residual is None else residual)

        def cost(self, x: Tensor) -> None:  # type: ignore[override]
            raise NotImplementedError

    nodes = [Node(Times(2)), Node(Times(3), branches=True), Node(Times(5), joins=True, emits=True), Node(Times(7))]
    (output,) = make_plan(nodes, torch.ones(1), in_torch)(torch.ones(1))
    assert output.item() == 2 * 3 * 5 + 2
