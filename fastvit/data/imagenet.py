"""The ImageNet-1k classes, as timm keeps them, in the order of the released heads."""

from __future__ import annotations

from functools import cache


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names, such as "tench, Tinca tinca"."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(i) for i in range(1000))


def is_imagenet(classes: tuple[str, ...] | None) -> bool:
    """Whether these are ImageNet's classes in its order, by name or by WordNet id."""
    return classes in (imagenet_classes(), imagenet_synsets())


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 WordNet ids, such as "n01440764", which ImageNet's folders are called by."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
