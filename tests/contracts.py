"""What every variant of the family must do; a new row in variants.py inherits all of it."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import fastvit
from fastvit.model.classifier import FastViT
from fastvit.model.layers import LayerNorm2d, LayerScale
from fastvit.model.variants import VARIANTS, Variant
from tests.helpers import randomize, small

# The variants of the papers: parameters of the released weights, with a classifier of 1000 classes.
PUBLISHED = {
    "fastvit_t8": 4_026_232,
    "fastvit_t12": 7_553_704,
    "fastvit_s12": 9_473_576,
    "fastvit_sa12": 11_580_968,
    "fastvit_sa24": 21_554_216,
    "fastvit_sa36": 31_527_464,
    "fastvit_ma36": 44_068_004,
    "fastvit_mci0": 11_907_176,
    "fastvit_mci1": 22_041_832,
    "fastvit_mci2": 36_440_360,
    "fastvit_mci3": 125_948_584,
    "fastvit_mci4": 322_735_336,
}
# Between them these have every kind of block of the published ones.
KINDS = ("fastvit_t8", "fastvit_sa12", "fastvit_mci0", "fastvit_mci3")


def every_variant(fast: Collection[str] = KINDS) -> list[ParameterSet]:
    """All names in the table; of the published ones, those that are not `fast` have their turn in make test-all."""
    slow = PUBLISHED.keys() - set(fast)
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in VARIANTS]


SLOWLY = every_variant()
# Tracing takes up to twenty seconds a variant; attention is where it could break.
TRACED = every_variant(fast=("fastvit_sa12",))


@pytest.fixture(scope="module", params=SLOWLY)
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def model(variant: Variant) -> FastViT:
    """The variant's kinds of blocks, at most two a stage: float64, randomized, eval; tests must leave it as it is."""
    torch.manual_seed(0)
    config = small(variant.config).replace(num_classes=7)
    return randomize(FastViT(config, variant.name)).double().eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class VariantContract:
    """Structure at full size on `meta`; numbers on the same blocks, at most two a stage."""

    def test_parameter_count(self, variant: Variant) -> None:
        with torch.device("meta"):
            model = FastViT(variant.config)
        count = sum(p.numel() for p in model.parameters())
        assert count == PUBLISHED.get(variant.name, count)
        assert variant.params in (count, 0), "0 where it is not known"

    def test_outputs(self, variant: Variant) -> None:
        with torch.device("meta"):
            model = FastViT(variant.config)
            images = torch.empty(2, 3, 96, 64)
        stages = len(variant.config.stages)
        assert model(images).shape == (2, variant.config.num_classes)
        features = model.forward_features(images)
        assert features.shape[:2] == (2, model.num_features)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        maps = model.backbone(images)
        for one, channels, stride in zip(maps, model.backbone.channels, model.backbone.strides, strict=True):
            assert one.shape == (2, channels, -(-96 // stride), -(-64 // stride))
        assert model.backbone.strides == (4, 8, 16, 32, 64)[:stages]

    def test_odd_sizes(self, model: FastViT) -> None:
        for height, width in ((32, 32), (33, 47), (64, 35)):
            maps = model.backbone(torch.zeros(1, 3, height, width, dtype=torch.float64))
            for stride, one in zip(model.backbone.strides, maps, strict=True):
                assert one.shape[2:] == (-(-height // stride), -(-width // stride))

    def test_last_map_is_the_last_stage(self, model: FastViT, images: torch.Tensor) -> None:
        changed = copy.deepcopy(model.backbone)
        with torch.no_grad():
            changed.stages[-1].blocks[-1].ffn.fc2.bias.add_(1.0)
            before, after = model.backbone(images), changed(images)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [True] * (len(before) - 1) + [False]

    def test_fuse_is_exact(self, model: FastViT, images: torch.Tensor) -> None:
        merged = fastvit.reparameterize(model)
        fused = fastvit.fuse(model)
        assert fastvit.verify(model, merged, images).relative < 1e-12
        assert fastvit.verify(model, fused, images).relative < 1e-12
        assert fastvit.verify(model.backbone, fused.backbone, images).relative < 1e-12
        assert [fastvit.form(m) for m in (model, merged, fused)] == ["train", "reparameterized", "fused"]

    def test_fuse_in_float32(self, model: FastViT, images: torch.Tensor) -> None:
        single = copy.deepcopy(model).float()
        assert fastvit.verify(single, fastvit.fuse(single), images.float()).relative < 1e-5

    def test_nothing_is_left_to_fold(self, variant: Variant) -> None:
        with torch.device("meta"):
            fused = fastvit.fuse(FastViT(variant.config))
        left = [m for m in fused.modules() if isinstance(m, (_BatchNorm, LayerScale))]
        assert not left
        assert not any(m.elementwise_affine for m in fused.modules() if isinstance(m, LayerNorm2d))
        assert not fused.training
        assert variant.params_fused in (sum(p.numel() for p in fused.parameters()), 0)

    def test_fuse_leaves_the_original_alone(self, model: FastViT, images: torch.Tensor) -> None:
        storage = {name: p.data_ptr() for name, p in model.state_dict(keep_vars=True).items()}
        before = {name: p.clone() for name, p in model.state_dict().items()}
        fused = fastvit.fuse(model)
        with torch.no_grad():
            for parameter in fused.parameters():
                parameter.add_(1.0)
        assert storage == {name: p.data_ptr() for name, p in model.state_dict(keep_vars=True).items()}
        assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())

    def test_fuse_twice(self, model: FastViT) -> None:
        once = fastvit.fuse(model)
        twice = fastvit.fuse(once)
        assert once.state_dict().keys() == twice.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))

    def test_fuse_inside_another_module(self, model: FastViT, images: torch.Tensor) -> None:
        class Segmenter(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = model.backbone
                self.classify = nn.Sequential(nn.Conv2d(model.backbone.channels[-1], 3, 1), nn.BatchNorm2d(3))

            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"mask": self.classify(self.encoder(x)[-1])}

        whole = Segmenter().double().eval()
        fused = fastvit.fuse(whole)
        assert fastvit.form(fused.encoder) == "fused"
        assert isinstance(fused.classify[1], nn.BatchNorm2d), "what is not FastViT's stays"
        assert fastvit.verify(whole, fused, images).relative < 1e-12

    def test_fuse_after_sync_batch_norm(self, model: FastViT, images: torch.Tensor) -> None:
        synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
        fused = fastvit.fuse(synced)
        assert not any(isinstance(m, _BatchNorm) for m in fused.modules())
        assert fastvit.verify(model, fused, images).relative < 1e-12

    @pytest.mark.parametrize("form", ["train", "reparameterized", "fused"])
    def test_save_and_load(self, model: FastViT, images: torch.Tensor, form: str, tmp_path: Path) -> None:
        saved = {"train": model, "reparameterized": fastvit.reparameterize(model), "fused": fastvit.fuse(model)}[form]
        loaded = fastvit.load(fastvit.save(saved, tmp_path / "model.safetensors"))
        assert fastvit.form(loaded) == form
        assert (loaded.variant, loaded.config) == (model.variant, model.config)
        assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))
        assert fastvit.verify(saved, loaded, images).relative < 1e-12

    @pytest.mark.parametrize("name", TRACED)
    def test_torch_export_with_dynamic_shapes(self, name: str, images: torch.Tensor) -> None:
        model = randomize(FastViT(small(VARIANTS[name].config, depth=1))).double().eval()
        # One pixel more than the coarsest stride: torch.export will not let a dynamic side become 1 inside the network.
        smallest = model.backbone.strides[-1] + 1
        sides = {2: torch.export.Dim("h", min=smallest), 3: torch.export.Dim("w", min=smallest)}
        dims = {0: torch.export.Dim("b"), **sides}
        for one in (model, fastvit.fuse(model)):
            program = torch.export.export(one, (images,), dynamic_shapes=(dims,))
            for shape in ((1, 3, smallest, smallest), (3, 3, 70, 81)):
                other = torch.randn(shape, dtype=torch.float64)
                torch.testing.assert_close(program.module()(other), one(other), rtol=1e-10, atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", VARIANTS)
    def test_torch_compile_without_graph_breaks(self, name: str, images: torch.Tensor) -> None:
        torch.compiler.reset()
        model = randomize(FastViT(small(VARIANTS[name].config, depth=1))).double().eval()
        compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(images), model(images), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(compiled(images[:1, :, :40]), model(images[:1, :, :40]), rtol=1e-10, atol=1e-12)

    def test_gradient_checkpointing(self, model: FastViT, images: torch.Tensor) -> None:
        plain, checkpointed = copy.deepcopy(model).train(), copy.deepcopy(model).train()
        checkpointed.set_grad_checkpointing()
        losses = [m(images).square().mean() for m in (plain, checkpointed)]
        for loss in losses:
            loss.backward()
        assert losses[0] == losses[1]
        for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)
        for (name, a), b in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)

    def test_collapsed_training_is_the_plain_one(self, model: FastViT, images: torch.Tensor) -> None:
        """Outputs, gradients and running statistics, also where each block is computed again going back."""
        plain = copy.deepcopy(model).train()
        expected = plain(images)
        expected.square().mean().backward()
        largest = max(float(p.grad.abs().max()) for p in plain.parameters())
        for recomputed in (False, True):
            collapsed = fastvit.collapse_branches(copy.deepcopy(model), "always").train()
            collapsed.set_grad_checkpointing(recomputed)
            out = collapsed(images)
            torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
            out.square().mean().backward()
            for (name, a), b in zip(collapsed.named_parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-11 * largest, msg=name)
            for (name, a), b in zip(collapsed.named_buffers(), plain.buffers(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)
