"""Class names: those of the data, told by the names that a model knows."""

from __future__ import annotations

from collections.abc import Sequence

from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.errors import UserError


def align_classes(names: Sequence[str], classes: Sequence[str] | None, where: str) -> tuple[tuple[str, ...], list[int]]:
    """The classes to go by, and the index that each of the data's own classes has among them.

    Args:
        names: the data's own classes. WordNet ids, by which ImageNet's folders are called, fit a model with ImageNet's
            class names.
        classes: of a model, which the labels are to follow; the data may lack some, but have no other. None to go by
            the data's own.
        where: what to call the data in an error.

    Raises:
        UserError: the data have classes that the model does not know.
    """
    names, known = tuple(names), tuple(classes or names)
    if names == known:  # before names are looked up: two of ImageNet's are the same
        return known, list(range(len(known)))
    labels = imagenet_synsets() if known == imagenet_classes() and names[0] not in known else known
    if unknown := [name for name in names if name not in labels]:
        raise UserError(
            f"{where} has classes that the model does not know ({shortened(unknown)}); it knows {shortened(labels)}"
        )
    return known, [labels.index(name) for name in names]


def class_name(label: int, classes: Sequence[str] | None) -> str:
    """Of a class; its number where names are not known."""
    return classes[label] if classes else str(label)


def shortened(names: Sequence[str]) -> str:
    """How many, and the first of them."""
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
