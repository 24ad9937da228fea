"""Every variant, full size, against timm's own implementation with the same weights, in both forms."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.utils.model import reparameterize_model

import fastvit
from fastvit.model.variants import VARIANTS
from tests.contracts import PUBLISHED
from tests.helpers import randomize

SLOW = ("fastvit_sa24", "fastvit_mci1", "fastvit_mci3", "fastvit_mci4")
BOTH = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in VARIANTS if timm.is_model(name)
]


def test_timm_has_the_published_variants() -> None:
    assert all(timm.is_model(name) for name in PUBLISHED)


@pytest.mark.parametrize("name", BOTH)
def test_same_function_and_layout(name: str) -> None:
    ours = randomize(fastvit.create_model(name, num_classes=5)).eval()
    theirs = timm.create_model(name, num_classes=5).eval()
    theirs.load_state_dict(fastvit.export_weights(ours, "timm"), strict=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-5)
        for our_map, their_map in zip(
            ours.backbone(images), theirs.forward_intermediates(images, intermediates_only=True), strict=True
        ):
            torch.testing.assert_close(our_map, their_map, rtol=1e-4, atol=1e-4)
        merged = fastvit.reparameterize(ours)
        reparameterized = reparameterize_model(theirs)
        reparameterized.load_state_dict(fastvit.export_weights(merged, "timm"), strict=True)
        torch.testing.assert_close(merged(images), reparameterized(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fastvit.fuse(ours)(images), expected, rtol=1e-4, atol=1e-5)


def test_drop_path_rates_are_timms() -> None:
    ours = fastvit.create_backbone("sa12", drop_path=0.3)
    theirs = timm.create_model("fastvit_sa12", drop_path_rate=0.3)
    rates = [block.drop_path.rate for stage in ours.stages for block in stage.blocks]
    modules = [getattr(b, "drop_path", getattr(b, "drop_path1", None)) for s in theirs.stages for b in s.blocks]
    assert rates == pytest.approx([getattr(module, "drop_prob", 0.0) for module in modules])
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)


def test_initialization_has_timms_scale() -> None:
    torch.manual_seed(0)
    ours = fastvit.export_weights(fastvit.create_model("sa12"), "timm")
    theirs = timm.create_model("fastvit_sa12").state_dict()
    for key, value in theirs.items():
        if value.is_floating_point() and value.numel() > 2000:
            assert ours[key].std() == pytest.approx(value.std().item(), rel=0.15), key
        elif value.ndim == 3:
            assert torch.equal(ours[key], value), key
