"""Habits of timm's users, heads and drop path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastvit
from fastvit.model.layers import DropPath
from tests.helpers import tiny


def test_reset_classifier() -> None:
    model = tiny(num_classes=10, classes=list("abcdefghij"))
    model.reset_classifier(3, classes=["x", "y", "z"])
    assert (model.num_classes, model.classes, model.config.num_classes) == (3, ("x", "y", "z"), 3)
    assert model.get_classifier() is model.head
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(fastvit.UserError, match="2 class names for 5 classes"):
        model.reset_classifier(5, classes=["x", "y"])
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model.classes is None
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, model.num_features)


def test_backbone_has_no_classes() -> None:
    backbone = fastvit.create_backbone("t8", in_chans=1).eval()
    assert [m.shape[1] for m in backbone(torch.zeros(1, 1, 32, 32))] == list(backbone.channels) == [48, 96, 192, 384]
    with pytest.raises(fastvit.UserError, match="does not take num_classes"):
        fastvit.create_backbone("t8", num_classes=3)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.25).train()
    x = torch.ones(20_000, 2, 1, 1)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


tiny_state = tiny().state_dict()


def test_checkpointing_repeats_the_same_drop_path() -> None:
    gradients = []
    for enable in (False, True):
        model = tiny().train()
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, DropPath):
                module.rate = 0.5
        model.load_state_dict(tiny_state)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(2)
        model(torch.ones(4, 3, 32, 32)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    model = fastvit.fuse(fastvit.create_model("t8", num_classes=10))
    compiled = torch.compile(model, fullgraph=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
