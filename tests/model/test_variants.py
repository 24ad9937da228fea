"""Every variant against the contract, and the numbers of the table against arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import fastvit
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig
from fastvit.model.variants import VARIANTS, Variant, find_variant, list_models
from tests.contracts import PUBLISHED, VariantContract, images, model, variant

__all__ = ["images", "model", "variant"]  # fixtures of the contract


class TestVariants(VariantContract):
    pass


def fused_parameters(config: FastViTConfig) -> int:
    """Parameters of the fully fused form, from the structure alone: each linear piece is one convolution with bias.

    conv(in, out, k, groups) has out * (in / groups) * k * k weights and out biases.
    """

    def conv(in_chs: int, out_chs: int, kernel: int, groups: int = 1) -> int:
        return out_chs * (in_chs // groups) * kernel**2 + out_chs

    def squeeze_excite(channels: int, hidden: int) -> int:
        return conv(channels, hidden, 1) + conv(hidden, channels, 1)

    first = config.stages[0].width
    total = conv(config.in_chans, first, 3) + conv(first, first, 3, first) + conv(first, first, 1)
    previous = None
    for stage in config.stages:
        width, hidden = stage.width, int(stage.width * stage.mlp_ratio)
        if previous is not None:
            total += conv(previous, width, config.embed_kernels[0], previous) + conv(width, width, 1)
            total += squeeze_excite(width, width // 4) if stage.embed_se else 0
        total += conv(width, width, stage.cpe, width) if stage.cpe else 0
        ffn = conv(width, width, 7, width) + conv(width, hidden, 1) + conv(hidden, width, 1)
        qkv_bias = 0 if stage.mixer == "repmixer" else 3 * width
        mixer = {
            "repmixer": conv(width, width, config.mixer_kernel, width),
            "attention": 3 * width * width + qkv_bias + width * width + width,
        }[stage.mixer]
        total += stage.depth * (ffn + mixer)
        previous = width
    last = config.stages[-1].width
    features = last * config.expansion
    total += conv(last, features, 3, last) + squeeze_excite(features, features // 16)
    return total + features * config.num_classes + config.num_classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_variants_by_arithmetic(name: str) -> None:
    row = VARIANTS[name]
    assert fused_parameters(row.config) == row.params_fused
    assert row.params == PUBLISHED[name]
    assert row.gmacs > 0


@pytest.mark.parametrize("row", VARIANTS.values(), ids=VARIANTS)
def test_multiply_accumulates(row: Variant) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        fastvit.fuse(FastViT(row.config))(torch.empty(1, 3, 256, 256))
    assert row.gmacs in (pytest.approx(counter.get_total_flops() / 2e9, abs=5e-4), 0), "0 where it is not known"


def test_names() -> None:
    assert find_variant("SA12") is find_variant("fastvit_sa12") is find_variant("fastvit-sa12")
    assert list_models("sa?4") == list_models("*_sa?4") == ["fastvit_sa24"]
    assert {"fastvit_sa12", "fastvit_sa24", "fastvit_sa36"} <= set(list_models("sa*"))
    assert "fastvit_ma36" in set(list_models("ma36")) - set(list_models("sa*"))
    assert list_models() == list(VARIANTS)
    assert set(PUBLISHED) <= set(VARIANTS)
    with pytest.raises(fastvit.UserError, match="did you mean .*fastvit_sa12"):
        find_variant("fastvit_sa13")


def test_unknown_option_is_named() -> None:
    with pytest.raises(fastvit.UserError, match="layer_scale_inti.*layer_scale_init"):
        fastvit.create_model("t8", layer_scale_inti=1.0)
    with pytest.raises(fastvit.UserError, match="multiple of head_dim=32"):
        fastvit.create_model("sa12", stages=(fastvit.Stage(48, 1, "attention"),))
