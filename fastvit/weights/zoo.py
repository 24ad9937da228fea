"""The released weights: where each lives, whose it is, what images it expects, what is published of it. Needs no torch.

Sources: timm's model cards on the Hugging Face Hub for repositories, licenses and preprocessing; the paper (arXiv
2303.14189) for ImageNet top-1. SA36's crop is the official repository's (timm's card says 0.9).
MobileCLIP's first release (timm's tags `apple_mclip`) is not here: its repositories hold whole CLIP models.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastvit.errors import UserError, unknown_name
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.variants import VARIANTS, find_variant

OPENAI_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class License:
    """Of weights: they are Apple's, not ours."""

    name: str
    url: str


APPLE_SAMPLE_CODE = License("Apple sample code license", "https://github.com/apple/ml-fastvit/blob/main/LICENSE")
APPLE_AMLR = License(
    "Apple machine learning research model license (research only)",
    "https://github.com/apple/ml-mobileclip/blob/main/LICENSE_weights_data",
)


@dataclass(frozen=True)
class PretrainedWeights:
    """One released set of weights.

    Attributes:
        name: variant and tag, as in timm: "fastvit_t8.apple_in1k".
        repo: repository on the Hugging Face Hub; the file in it is model.safetensors, in timm's layout, train form.
        license: whose terms apply.
        num_classes: rows of the classifier; for MobileCLIP the length of the image embedding.
        preprocessing: what images need.
        top1: published ImageNet-1k top-1 in percent at the stated size; None where it is no classifier.
    """

    name: str
    repo: str
    license: License
    num_classes: int
    preprocessing: Preprocessing
    top1: float | None

    @property
    def variant(self) -> str:
        return self.name.partition(".")[0]


def _imagenet() -> list[PretrainedWeights]:
    rows = []
    for variant in VARIANTS.values():
        for tag, top1 in (("apple_in1k", variant.top1), ("apple_dist_in1k", variant.top1_distilled)):
            if top1 is not None:
                name = f"{variant.name}.{tag}"
                crop = Preprocessing(crop_pct=variant.crop_pct)
                rows.append(PretrainedWeights(name, f"timm/{name}", APPLE_SAMPLE_CODE, 1000, crop, top1))
    return rows


def _clip(name: str, dim: int, crop_pct: float, openai: bool = False) -> PretrainedWeights:
    mean, std = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if openai else ((0.0,) * 3, (1.0,) * 3)
    preprocessing = Preprocessing(mean=mean, std=std, crop_pct=crop_pct)
    return PretrainedWeights(name, f"timm/{name}", APPLE_AMLR, dim, preprocessing, None)


ZOO: dict[str, PretrainedWeights] = {
    row.name: row
    for row in (
        *_imagenet(),
        _clip("fastvit_mci0.apple_mclip2_dfndr2b", 512, 1.0),
        _clip("fastvit_mci2.apple_mclip2_dfndr2b", 512, 0.95),
        _clip("fastvit_mci3.apple_mclip2_dfndr2b", 768, 0.95, openai=True),
        _clip("fastvit_mci4.apple_mclip2_dfndr2b", 768, 0.95, openai=True),
    )
}


def tags(variant: str) -> list[str]:
    """Tags of the released weights of a variant; the first is the default."""
    return [name.partition(".")[2] for name, row in ZOO.items() if row.variant == variant]


def find_weights(name: str) -> PretrainedWeights:
    """Released weights by "variant.tag", or by "variant" for its default tag.

    Raises:
        UserError: there is no such variant or tag; the message lists what there is.
    """
    base, _, tag = name.partition(".")
    variant = find_variant(base).name
    known = tags(variant)
    if not known:
        raise UserError(f"no weights that can be fetched are known for {variant}; load a file of yours instead")
    row = ZOO.get(f"{variant}.{tag or known[0]}")
    if row is None:
        raise unknown_name(f"tag of {variant}'s weights", tag, known)
    return row
