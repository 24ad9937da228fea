"""Our files: safetensors that say what they are, so that loading needs to be told nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from fastvit.errors import UserError
from fastvit.files import atomic
from fastvit.fusion import form
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.version import __version__
from fastvit.weights.layouts import FORMS, recognise, skeleton
from fastvit.weights.load import identify, to_native
from fastvit.weights.source import METADATA_KEY, Source, StateFile, read

FORMAT_VERSION = 1


def describe(model: FastViT) -> dict[str, Any]:
    """What a file says of a model, ready for JSON."""
    return {
        "format_version": FORMAT_VERSION,
        "fastvit_version": __version__,
        "task": "classification",
        "variant": model.variant,
        "form": form(model),
        "config": model.config.to_dict(),
        "classes": list(model.classes) if model.classes else None,
        "preprocessing": model.preprocessing.to_dict(),
    }


def save(model: FastViT, path: str | Path, metrics: Mapping[str, float] | None = None) -> Path:
    """Write a model to a .safetensors file with its variant, form, configuration, class names and preprocessing.

    Args:
        model: in any form, on any device.
        path: file to write; what was there stays whole until the new file is complete.
        metrics: measured values to keep with it, such as {"top1": 81.2}.

    Raises:
        UserError: the name does not end in .safetensors, the model is in another precision than it can be saved in, or
            the file cannot be written.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: models are saved as .safetensors files")
    info = describe(model) | {"metrics": dict(metrics or {})}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    try:
        with atomic(target) as part:
            save_file(tensors, part, metadata={METADATA_KEY: json.dumps(info), "format": "pt"})
    except SafetensorError as error:
        raise UserError(f"cannot write {target}: {error}") from error
    return target


def load(source: Source) -> FastViT:
    """Build the right model from a file and fill it; files of the official and timm layouts are recognised by shape.

    Args:
        source: as in `fastvit.weights.source.read`.

    Returns:
        The model on the CPU, in the form it was saved in, in eval mode.

    Raises:
        UserError: the file is damaged, of a newer format, or no FastViT.
    """
    return build(read(source))


def build(file: StateFile) -> FastViT:
    """`load` from a state dict that has been read."""
    variant, config, details = _details(file)
    tensors, rows = to_native(file, config)
    _, source_form = recognise(file.tensors)
    model = FORMS[source_form](skeleton(config.replace(num_classes=rows), "train"))
    model.load_state_dict(tensors, assign=True)
    model.variant = variant
    for name, value in details.items():
        setattr(model, name, value)
    return model.eval()


def _details(file: StateFile) -> tuple[str, FastViTConfig, dict[str, Any]]:
    if not file.info:
        variant, config = identify(file)
        return variant, config, {}
    version = file.info.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{file.name} has format version {version}, this fastvit {__version__} reads {FORMAT_VERSION}: "
            "upgrade with pip install -U fastvit"
        )
    try:
        config = FastViTConfig.from_dict(_field(file, "config"))
        details = {
            "classes": tuple(file.info["classes"]) if file.info.get("classes") else None,
            "preprocessing": Preprocessing.from_dict(_field(file, "preprocessing")),
        }
        return _field(file, "variant"), config, details
    except UserError as error:
        raise UserError(f"{file.name}: {error}") from error


def _field(file: StateFile, name: str) -> Any:
    if name not in file.info:
        raise UserError(f"the description in its metadata has no {name!r}")
    return file.info[name]
