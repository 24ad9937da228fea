"""Peers of FastViT, and their published accuracy. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A network of timm.

    Attributes:
        name: name in timm.
        weights: name of the weights whose accuracy is given.
        top1: ImageNet-1k top-1 accuracy of these weights at `size`, in percent.
        size: height and width of the images, in pixels.
        source: source of the accuracy.
    """

    name: str
    weights: str
    top1: float
    size: int
    source: str


_TIMM = "timm, results/results-imagenet.csv"
# fmt: off
PEERS = {
    peer.name: peer
    for peer in (
        Peer("convnext_tiny", "fb_in1k", 82.7, 288, _TIMM),
        Peer("efficientnet_b3", "ra2_in1k", 82.2, 320, _TIMM),
        Peer("poolformer_s12", "sail_in1k", 77.2, 224, _TIMM),
        Peer("mobileone_s4", "apple_in1k", 79.4, 224, "arXiv 2206.04040"),
        Peer("efficientformer_l1", "snap_dist_in1k", 80.5, 224, f"{_TIMM}; distilled"),
        Peer("repvit_m1_1", "dist_300e_in1k", 80.7, 224, "arXiv 2307.09283; distilled"),
        Peer("mobilenetv4_conv_medium", "e500_r256_in1k", 79.9, 256, "timm's model card"),
        Peer("resnet50", "a1_in1k", 81.2, 288, _TIMM),
    )
}
# fmt: on
