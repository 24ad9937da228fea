"""Settings of a run, from its recipe.yaml, and the JSON files that commands write into its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastvit.errors import UserError
from fastvit.renames import renamed_recipe

# Fields about the place where a run was made; they do not change its result.
_PLACES = ("out", "overwrite", "resume", "num_workers")


def read_settings(path: Path) -> dict[str, Any]:
    """Read the fields of a recipe file by their dotted names, such as "optim.lr"; empty if the file does not exist.

    Raises:
        UserError: the file is not YAML, or does not contain fields.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is not a recipe: it must contain fields, such as epochs: 30")
    return flatten(renamed_recipe(content))


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names, without the fields about the place of a run."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if prefix or key not in _PLACES:
            flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def setting_text(value: Any) -> str:
    """Return the value of a field as text for a table."""
    if value is None:
        return "-"
    return str(value) or "none"


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; it is empty if the file does not exist.

    Raises:
        UserError: the file is not JSON, or does not contain an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is corrupt: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is corrupt: it must contain a JSON object")
    return content
