"""Table of the FastViT variants. Needs no torch.

Sources: the paper (arXiv 2303.14189) for widths, depths, accuracy and iPhone latency, and the released weights for the
parameter counts at 1000 classes. tests/model/test_variants.py derives the fused counts and GMACs, and checks them to the
unit. MCi0 to MCi4 are those of MobileCLIP (arXiv 2311.17049) and MobileCLIP2 (arXiv 2508.20691), as released.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fastvit.errors import unknown_name
from fastvit.model.config import FastViTConfig, Stage
from fastvit.plugins import load_plugins, not_loaded, register, warn_of_failures


@dataclass(frozen=True)
class Variant:
    """Variant of FastViT with its published figures.

    Attributes:
        name: name of the variant, the same as in timm.
        config: configuration of the network, for 1000 classes.
        params: number of trainable parameters in train form; None if unknown, likewise below.
        params_fused: number of parameters after `fastvit.fuse`.
        gmacs: multiply-accumulates of the fused form on one 256x256 image, in units of 1e9.
        crop_pct: center crop of the published evaluation, as a fraction of the resized image.
        top1: published ImageNet-1k top-1 accuracy at 256 px, in percent.
        top1_distilled: published top-1 accuracy after distillation from RegNetY-16GF, in percent.
        iphone_ms: published Core ML latency on an iPhone 12 Pro at batch 1, in milliseconds.
    """

    name: str
    config: FastViTConfig
    params: int | None = None
    params_fused: int | None = None
    gmacs: float | None = None
    crop_pct: float = 0.9
    top1: float | None = None
    top1_distilled: float | None = None
    iphone_ms: float | None = None


def _fastvit(
    widths: Iterable[int],
    depths: Iterable[int],
    mlp_ratio: float,
    last: Literal["repmixer", "attention"] = "repmixer",
    layer_scale_init: float = 1e-5,
) -> FastViTConfig:
    *front, (width, depth) = zip(widths, depths, strict=True)
    return FastViTConfig(
        stages=(
            *(Stage(w, d, mlp_ratio=mlp_ratio) for w, d in front),
            Stage(width, depth, last, mlp_ratio, cpe=7 if last == "attention" else 0),
        ),
        layer_scale_init=layer_scale_init,
    )


def _mci(widths: Iterable[int], depths: Iterable[int]) -> FastViTConfig:
    """Return the configuration of a MobileCLIP encoder: SE in the last two patch embeddings."""
    (w1, d1), (w2, d2), (w3, d3), (w4, d4) = zip(widths, depths, strict=True)
    return FastViTConfig(
        stages=(
            Stage(w1, d1, mlp_ratio=3.0),
            Stage(w2, d2, mlp_ratio=3.0, embed_act=True),
            Stage(w3, d3, mlp_ratio=3.0, embed_act=True, embed_se=True),
            Stage(w4, d4, "attention", 3.0, cpe=7, embed_act=True, embed_se=True),
        )
    )


def _mci2(widths: Iterable[int], depths: Iterable[int]) -> FastViTConfig:
    """Return the configuration of a large MobileCLIP2 encoder: five stages, two with attention after layer norm."""
    (w1, d1), *middle, (w4, d4), (w5, d5) = zip(widths, depths, strict=True)
    return FastViTConfig(
        stages=(
            Stage(w1, d1),
            *(Stage(w, d, embed_act=True) for w, d in middle),
            Stage(w4, d4, "attention", cpe=7, embed_act=True, norm="layer"),
            Stage(w5, d5, "attention", cpe=7, embed_act=True, norm="layer"),
        ),
        stem_scale=False,
    )


_64 = (64, 128, 256, 512)
_SA36 = _fastvit(_64, (6, 6, 18, 6), 4, "attention", 1e-6)
_MA36 = _fastvit((76, 152, 304, 608), (6, 6, 18, 6), 4, "attention", 1e-6)
# fmt: off
_ROWS = (
    #                       structure                                      params  fused params  GMACs  crop  top-1  dist.  ms
    Variant("fastvit_t8", _fastvit((48, 96, 192, 384), (2, 2, 4, 2), 3), 4_026_232, 3_992_392, 0.685, 0.9, 76.2, 77.2, 0.8),
    Variant("fastvit_t12", _fastvit(_64, (2, 2, 6, 2), 3), 7_553_704, 7_502_952, 1.391, 0.9, 79.3, 80.3, 1.2),
    Variant("fastvit_s12", _fastvit(_64, (2, 2, 6, 2), 4), 9_473_576, 9_422_824, 1.794, 0.9, 79.9, 81.1, 1.4),
    Variant("fastvit_sa12", _fastvit(_64, (2, 2, 6, 2), 4, "attention"), 11_580_968, 11_539_432, 1.937, 0.9, 80.9, 81.9, 1.6),
    Variant("fastvit_sa24", _fastvit(_64, (4, 4, 12, 4), 4, "attention"), 21_554_216, 21_489_512, 3.762, 0.9, 82.7, 83.4, 2.6),
    Variant("fastvit_sa36", _SA36, 31_527_464, 31_439_592, 5.587, 0.95, 83.6, 84.2, 3.5),
    Variant("fastvit_ma36", _MA36, 44_068_004, 43_963_656, 7.815, 0.95, 83.9, 84.6, 4.6),
    Variant("fastvit_mci0", _mci(_64, (2, 6, 10, 2)), 11_907_176, 11_848_744, 2.386, 0.95),
    Variant("fastvit_mci1", _mci(_64, (4, 12, 20, 4)), 22_041_832, 21_943_336, 4.659, 0.95),
    Variant("fastvit_mci2", _mci((80, 160, 320, 640), (4, 12, 24, 4)), 36_440_360, 36_303_160, 7.835, 0.95),
    Variant("fastvit_mci3", _mci2((96, 192, 384, 768, 1536), (2, 12, 24, 4, 2)), 125_948_584, 125_751_496, 14.813, 0.95),
    Variant("fastvit_mci4", _mci2((128, 256, 512, 1024, 2048), (2, 12, 24, 4, 4)), 322_735_336, 322_464_360, 27.759, 0.95),
)
# fmt: on
VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}


def register_variant(row: Variant) -> None:
    """Add a variant for `fastvit.create_model`, recipes and commands.

    Raises:
        UserError: a variant of that name exists already.
    """
    register(VARIANTS, "variant", row.name, row)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the variants that match a pattern.

    Args:
        pattern: shell-style pattern, with or without "fastvit_"; a word without *, ? and [ matches anywhere.
    """
    warn_of_failures()
    if not set(pattern) & set("*?["):
        pattern = f"*{pattern}*"
    patterns = pattern, f"fastvit_{pattern}"
    return [name for name in VARIANTS if any(fnmatch.fnmatch(name, p) for p in patterns)]


def _row(key: str) -> Variant | None:
    return VARIANTS.get(key) or VARIANTS.get(f"fastvit_{key}")


def find_variant(name: str) -> Variant:
    """Return the variant of a name such as "fastvit_sa12" or "sa12".

    Raises:
        UserError: the variant does not exist; the message lists the nearest names and all names.
    """
    key = name.lower().replace("-", "_")
    row = _row(key)
    if row is None:
        load_plugins()
        row = _row(key)
    if row is None:
        short = [key.removeprefix("fastvit_") for key in VARIANTS]
        raise unknown_name("FastViT variant", name, VARIANTS, short, otherwise=not_loaded())
    return row
