"""Iterate over the fields of a recipe by their names on the command line. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Field:
    """Field of a recipe.

    Attributes:
        name: full name with the sections, such as "optim.lr".
        owner: dataclass that declares the field.
        kind: type of the value.
        value: value in the recipe.
    """

    name: str
    owner: type
    kind: Any
    value: Any

    @property
    def section(self) -> str:
        """Name of the section that the field is in; empty for fields outside sections."""
        return self.name.rpartition(".")[0].partition(".")[0]


def recipe_fields(options: Any, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of a recipe or of a section, including those of the sections in it.

    Args:
        options: recipe, or dataclass of a section.
        prefix: prefix of the names, such as "optim.".
    """
    kinds = get_type_hints(type(options))
    for field in fields(options):
        name, value = f"{prefix}{field.name}", getattr(options, field.name)
        if is_dataclass(value):
            yield from recipe_fields(value, f"{name}.")
        elif field.name == "sections" and not prefix:  # they stand beside the other fields
            for section, own in value.items():
                yield from recipe_fields(own, f"{section}.")
        else:
            yield Field(name, type(options), kinds[field.name], value)
