"""Class names, and how those of the data are matched with those of a model."""

from __future__ import annotations

from collections.abc import Sequence

from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.errors import UserError


def align_classes(
    names: Sequence[str], classes: Sequence[str] | None, where: str, hint: str = ""
) -> tuple[tuple[str, ...], list[int]]:
    """Match the class names of a dataset with those of a model.

    Args:
        names: class names of the data. WordNet ids, the names of ImageNet's folders, match a model with ImageNet's
            class names.
        classes: class names of the model, in the order of its outputs; the data may lack some, but must have no
            others. None uses the names of the data.
        where: name of the data in errors.
        hint: what to check if the model does not have a class, for the error.

    Returns:
        The class names of the labels, and the label of each class of the data.

    Raises:
        UserError: the data have classes that the model does not have.
    """
    names, known = tuple(names), tuple(classes or names)
    if names == known:  # before names are looked up: two of ImageNet's are the same
        return known, list(range(len(known)))
    labels = imagenet_synsets() if known == imagenet_classes() and names[0] not in known else known
    if unknown := [name for name in names if name not in labels]:
        raise UserError(
            f"{where} has classes that the model does not have ({shortened(unknown)}); the model has "
            f"{shortened(labels)}{hint and f'; {hint}'}"
        )
    return known, [labels.index(name) for name in names]


def class_name(label: int, classes: Sequence[str] | None) -> str:
    """Return the name of a class, or its index if there are no names."""
    return classes[label] if classes else str(label)


def shortened(names: Sequence[str]) -> str:
    """Return the number of names and the first five, as text for a message."""
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
