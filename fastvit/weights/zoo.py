"""Released weights: repository, license, preprocessing, and published accuracy. Needs no torch.

Sources: timm's model cards on the Hugging Face Hub for repositories, licenses and preprocessing; the paper (arXiv
2303.14189) for ImageNet top-1. SA36's crop is the official repository's (timm's card says 0.9).
MobileCLIP's first release (timm's tags `apple_mclip`) is not here: its repositories contain complete CLIP models.
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
    """License of weights; the released weights are Apple's.

    Attributes:
        name: name of the license.
        url: address of its text.
    """

    name: str
    url: str


APPLE_SAMPLE_CODE = License("Apple sample code license", "https://github.com/apple/ml-fastvit/blob/main/LICENSE")
APPLE_AMLR = License(
    "Apple machine learning research model license (research only)",
    "https://github.com/apple/ml-mobileclip/blob/main/LICENSE_weights_data",
)


@dataclass(frozen=True)
class PretrainedWeights:
    """Released weights of a variant.

    Attributes:
        name: variant and tag, as in timm: "fastvit_t8.apple_in1k".
        repo: repository on the Hugging Face Hub; its file is model.safetensors, in timm's layout and train form.
        license: license of the weights.
        num_classes: number of classes; for MobileCLIP the length of the image embedding.
        preprocessing: preprocessing of the images.
        top1: published top-1 accuracy on ImageNet-1k, in percent, at the size of `preprocessing`; None if the network
            is not a classifier.
    """

    name: str
    repo: str
    license: License
    num_classes: int
    preprocessing: Preprocessing
    top1: float | None

    @property
    def variant(self) -> str:
        """Name of the variant, such as "fastvit_t8"."""
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
    """Return the tags of the released weights of a variant; the first one is the default."""
    return [name.partition(".")[2] for name, row in ZOO.items() if row.variant == variant]


def find_weights(name: str) -> PretrainedWeights:
    """Return the released weights with a name.

    Args:
        name: "variant.tag", or "variant" for its default tag.

    Raises:
        UserError: the variant or the tag does not exist, or the variant has no released weights.
    """
    base, _, tag = name.partition(".")
    variant = find_variant(base).name
    known = tags(variant)
    if not known:
        raise UserError(f"{variant} has no released weights to download; load weights from a file instead")
    row = ZOO.get(f"{variant}.{tag or known[0]}")
    if row is None:
        raise unknown_name(f"tag of {variant}'s weights", tag, known)
    return row
