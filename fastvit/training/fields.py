"""Iterate over the fields of a recipe by their names on the command line. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

# Values by their types, singular and plural.
_VALUES = {
    bool: ("true or false", "values true or false"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
}


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


def value_words(kind: Any) -> str:
    """Return the values of a type in words, as they follow "must be": "a number", "one of cosine, poly, step"."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(kind) is tuple:
        count = "" if Ellipsis in parts else f"{len(parts)} "
        return f"a list of {count}{_VALUES.get(parts[0], ('', 'values'))[1]} in brackets"
    if NoneType in parts:
        return " or ".join([*(value_words(part) for part in parts if part is not NoneType), "null"])
    return _VALUES.get(kind, ("a value of the field's type",))[0]
