"""ImageNet-1k classes from timm, in the order of the released classifiers' outputs."""

from __future__ import annotations

from functools import cache


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 class names, such as "tench, Tinca tinca"."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(i) for i in range(1000))


def is_imagenet(classes: tuple[str, ...] | None) -> bool:
    """Return whether these are the ImageNet classes in their order, as names or WordNet ids."""
    return classes in (imagenet_classes(), imagenet_synsets())


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """Return the 1000 WordNet ids, the names of ImageNet's folders, such as "n01440764"."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
