"""The ImageNet-1k classes, as timm keeps them, in the order of the released heads."""

from __future__ import annotations

from functools import cache


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names, such as "tench, Tinca tinca"."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(i) for i in range(1000))


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 WordNet ids, such as "n01440764", which ImageNet's folders are called by."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
