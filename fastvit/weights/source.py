"""Read a state dict from a file, a folder, the Hugging Face Hub, or memory. Code in pickles is never executed."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastvit.errors import UserError, first_line
from fastvit.weights.description import METADATA_KEY
from fastvit.weights.location import hub_id, locate

Source = str | Path | Mapping[str, Tensor]

# Keys under which training programs save a state dict, and prefixes that they add to its names.
# As in timm, EMA weights are preferred if there are both.
_WRAPPERS = ("state_dict_ema", "state_dict", "model", "module")
_PREFIXES = ("_orig_mod.", "module.", "model.")


@dataclass(frozen=True)
class StateFile:
    """State dict that has been read.

    Attributes:
        tensors: tensors by name, on the CPU.
        info: description in a file of fastvit, as JSON values; None for other files.
        name: path or Hub repository, for errors and to recognize released weights.
    """

    tensors: dict[str, Tensor]
    info: Any = None
    name: str = "the state dict"


def read(source: Source) -> StateFile:
    """Read a state dict.

    Args:
        source: state dict; file (.safetensors, or a pickle such as .pth.tar, read with weights_only); folder of a run
            (its best.safetensors) or with a single weights file; or Hugging Face Hub id such as
            "timm/fastvit_t8.apple_in1k", with or without "hf-hub:".

    Raises:
        UserError: the source does not exist, is corrupt, or contains code or no tensors.
    """
    if isinstance(source, Mapping):
        # A copy, or training a loaded model would change the caller's tensors.
        tensors = _tensors(source, "the state dict")
        return StateFile({key: value.detach().cpu().clone() for key, value in tensors.items()})
    path = locate(source)
    file = _read_safetensors(path) if path.suffix == ".safetensors" else StateFile(_read_pickle(path), name=str(path))
    return replace(file, name=hub_id(source) or file.name)


def _read_safetensors(path: Path) -> StateFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is corrupt or incomplete: {error}") from error
    try:
        info = json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: the description in its metadata is corrupt: {error}") from error
    return StateFile(_tensors(tensors, str(path)), info, str(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # timm's training script saves its arguments as a Namespace, which contains values and no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{path} contains more than tensors and was not opened, because reading it would run code from it; "
                f"ask its author for a safetensors file ({first_line(error)})"
            ) from error
        raise UserError(f"{path} is corrupt or not a PyTorch checkpoint: {first_line(error)}") from error
    except Exception as error:  # a corrupt pickle can raise any exception
        raise UserError(f"{path} is corrupt or incomplete: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} contains a {type(content).__name__}, not a state dict")
    return _tensors(content, str(path))


def _tensors(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the tensors without the wrappers and prefixes that training programs add."""
    while wrapper := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None):
        content = content[wrapper]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{name} contains no tensors")
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
