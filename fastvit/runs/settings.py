"""The settings of a run, from its recipe.yaml, and the JSON files that commands write into its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastvit.errors import UserError
from fastvit.renames import renamed_recipe

# What says where a run was and not what it did.
_PLACES = ("out", "overwrite", "resume", "num_workers")


def read_settings(path: Path) -> dict[str, Any]:
    """The fields of a recipe file by their dotted names, such as "optim.lr"; empty if there is no such file.

    Raises:
        UserError: the file is no YAML with fields.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is no recipe: it must hold fields, such as epochs: 30")
    return flatten(renamed_recipe(content))


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, without those that say where a run was."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if prefix or key not in _PLACES:
            flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def setting_text(value: Any) -> str:
    """A field's value to show."""
    if value is None:
        return "-"
    return str(value) or "none"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object")
    return content
