"""`fastvit info`: show what a checkpoint contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from fastvit.console import new_table, print_styled


def info(checkpoint: str) -> None:
    """Show what a checkpoint contains: task, variant, form, classes, preprocessing, metrics.

    Args:
        checkpoint: weights file in any layout, a folder with one (such as a run), or a Hugging Face Hub id.
    """
    from fastvit.fusion import form
    from fastvit.model.classifier import FastViT
    from fastvit.weights.layouts import recognize
    from fastvit.weights.native import build, describe
    from fastvit.weights.source import read

    file = read(checkpoint)
    description = describe(file)
    metrics = description.metrics
    # Other tasks have only the native layout.
    model = build(file)
    layout = recognize(file.tensors)[0] if isinstance(model, FastViT) else "native"
    table = new_table("field", "value", left=(0, 1))
    preprocessing = model.preprocessing
    rows = {
        "task": model.task,
        "variant": model.variant,
        "layout": layout,
        "form": form(model),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "classes": f"{model.num_classes}: {_shortened(model.classes)}"
        if model.classes
        else f"{model.num_classes}, no names",
        "input": f"{preprocessing}, {model.config.in_chans} channels",
        "mean, std": f"{_rounded(preprocessing.mean)}, {_rounded(preprocessing.std)}",
        "metrics": ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()) or "none recorded",
    }
    if model.options is not None:
        rows["network"] = _fields(asdict(model.options))
    if file.info is None:
        rows["note"] = (
            "the file has no metadata: the variant is inferred from the tensor shapes, and preprocessing is the "
            "published default"
        )
    for name, value in rows.items():
        table.add_row(name, str(value))
    print_styled(table)


def _shortened(classes: Sequence[str]) -> str:
    return ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")


def _fields(values: Mapping[str, Any]) -> str:
    """Return names and values, nested ones too, on one line; long values are shortened."""
    parts = [
        _fields(value) if isinstance(value, Mapping) else f"{name} {shorten(str(value), 40, placeholder='...')}"
        for name, value in values.items()
    ]
    return ", ".join(parts)


def _rounded(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)
