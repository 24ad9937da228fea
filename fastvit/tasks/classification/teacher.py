"""Loading of a distillation teacher: a timm model, FastViT weights, or an exported artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from fastvit.errors import UserError, first_line
from fastvit.fusion import fuse
from fastvit.model.classifier import FastViT
from fastvit.model.preprocessing import Preprocessing
from fastvit.predict.predictor import Predictor
from fastvit.runtime.artifact import is_artifact, runtimes_for
from fastvit.tasks.classification.distillation import Teacher
from fastvit.tasks.classification.options import Distillation
from fastvit.weights.location import hub_id
from fastvit.weights.native import load


def load_teacher(options: Distillation) -> Teacher:
    """Return the teacher of a recipe.

    Raises:
        UserError: the file or model does not exist, or its weights cannot be loaded.
    """
    name = options.teacher or ""
    if is_artifact(name):
        if any(reader.native_code for reader in runtimes_for(name)):
            raise UserError(f"{name} contains native code, which a recipe must not run: give another type of artifact")
        artifact = Predictor(name)
        return _teacher(artifact.logits, artifact.preprocessing, artifact.classes, artifact.num_classes, options)
    if Path(name).exists() or Path(name).suffix == ".safetensors" or hub_id(name):
        model = load(name, FastViT)
        return _teacher(fuse(model), model.preprocessing, model.classes, model.num_classes, options)
    network = _timm_model(name)
    return _teacher(network, timm_preprocessing(network), None, network.num_classes, options)


def _teacher(
    logits: Callable[[Tensor], Tensor],
    preprocessing: Preprocessing,
    classes: tuple[str, ...] | None,
    num_classes: int,
    options: Distillation,
) -> Teacher:
    if options.compile and isinstance(logits, nn.Module):
        logits.compile()
    if options.size:
        preprocessing = replace(preprocessing, size=(options.size, options.size))
    return Teacher(logits, preprocessing, classes, num_classes, options.bf16)


def _timm_model(name: str) -> Any:
    if not timm.is_model(name):
        raise UserError(
            f"the teacher {name} does not exist: give a timm model such as regnety_160.deit_in1k, a file or a Hub id"
        )
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the Hub's client and torch raise errors of many types
        raise UserError(f"the weights of the teacher {name} cannot be loaded: {first_line(error)}") from error


def timm_preprocessing(network: nn.Module) -> Preprocessing:
    """Return the preprocessing that a timm model expects."""
    config = resolve_model_data_config(network)
    return Preprocessing(
        size=tuple(config["input_size"][-2:]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_pct=config["crop_pct"],
        interpolation=config["interpolation"],
    )
