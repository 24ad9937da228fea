"""The fields of a recipe one by one, as the command line names them. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Field:
    """A field of a recipe.

    Attributes:
        name: with those of its sections, such as "optim.lr".
        owner: the dataclass that declares it.
        kind: its type.
        value: its value.
    """

    name: str
    owner: type
    kind: Any
    value: Any

    @property
    def section(self) -> str:
        """The section of the recipe that it is in; empty for the recipe's own fields."""
        return self.name.rpartition(".")[0].partition(".")[0]


def recipe_fields(options: Any, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of a recipe, or of a section of one, and those of the sections in it."""
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
