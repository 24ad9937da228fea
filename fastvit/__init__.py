"""Train, evaluate and deploy FastViT; every exported model is verified against the trained one.

Names are imported when they are first used, so that `import fastvit` and the command line start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastvit.version import __version__

if TYPE_CHECKING:
    from fastvit.collapse import collapse_branches, collapse_mode
    from fastvit.create import create_backbone, create_model
    from fastvit.errors import UserError
    from fastvit.export.target import Target, register_target
    from fastvit.fusion import fold_batchnorm, form, fuse, reparameterize, verify
    from fastvit.kernels.inference.accelerate import accelerate
    from fastvit.model.backbone import Backbone
    from fastvit.model.classifier import FastViT
    from fastvit.model.config import FastViTConfig, Stage
    from fastvit.model.mixers import register_mixer
    from fastvit.model.preprocessing import Preprocessing
    from fastvit.model.variants import Variant, list_models, register_variant
    from fastvit.predict.predictor import Predictor
    from fastvit.runtime.artifact import Runtime, register_runtime
    from fastvit.tasks.create import create_detector, create_hand_regressor, create_segmenter
    from fastvit.tasks.spec import TaskSpec
    from fastvit.tasks.table import register_task
    from fastvit.weights.load import export_weights, load_weights
    from fastvit.weights.native import load, save

_HOMES = {
    "accelerate": "fastvit.kernels.inference.accelerate",
    "collapse_branches": "fastvit.collapse",
    "collapse_mode": "fastvit.collapse",
    "create_backbone": "fastvit.create",
    "create_detector": "fastvit.tasks.create",
    "create_hand_regressor": "fastvit.tasks.create",
    "create_model": "fastvit.create",
    "create_segmenter": "fastvit.tasks.create",
    "UserError": "fastvit.errors",
    "fold_batchnorm": "fastvit.fusion",
    "form": "fastvit.fusion",
    "fuse": "fastvit.fusion",
    "reparameterize": "fastvit.fusion",
    "verify": "fastvit.fusion",
    "Backbone": "fastvit.model.backbone",
    "FastViT": "fastvit.model.classifier",
    "FastViTConfig": "fastvit.model.config",
    "Stage": "fastvit.model.config",
    "Preprocessing": "fastvit.model.preprocessing",
    "register_mixer": "fastvit.model.mixers",
    "list_models": "fastvit.model.variants",
    "Variant": "fastvit.model.variants",
    "register_variant": "fastvit.model.variants",
    "Predictor": "fastvit.predict.predictor",
    "TaskSpec": "fastvit.tasks.spec",
    "register_task": "fastvit.tasks.table",
    "Runtime": "fastvit.runtime.artifact",
    "register_runtime": "fastvit.runtime.artifact",
    "Target": "fastvit.export.target",
    "register_target": "fastvit.export.target",
    "export_weights": "fastvit.weights.load",
    "load_weights": "fastvit.weights.load",
    "load": "fastvit.weights.native",
    "save": "fastvit.weights.native",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastvit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
