"""The official implementation's numbers, and models filled as they were."""

from __future__ import annotations

import gzip
import json
from typing import Any

import torch

from fastvit.create import create_model
from fastvit.model.classifier import FastViT
from fastvit.weights.layouts import key_map
from tests.helpers import REFERENCE
from tests.reference import formula

CASES: list[dict[str, Any]] = json.loads((REFERENCE / "golden.json").read_text())
OFFICIAL_LAYOUT: dict[str, dict[str, dict[str, list[int]]]] = json.loads(
    gzip.decompress((REFERENCE / "official_layout.json.gz").read_bytes())
)


def filled(case: dict[str, Any]) -> FastViT:
    """The case's variant in float64, every parameter from the formula under its official name."""
    model = create_model(case["variant"], num_classes=case["num_classes"]).double()
    state = model.state_dict()
    official = key_map(state, model.config, "official")
    model.load_state_dict(
        {key: torch.from_numpy(formula.tensor(official[key], tuple(v.shape), case["seed"])) for key, v in state.items()}
    )
    return model.eval()


def pictures(case: dict[str, Any]) -> torch.Tensor:
    """The case's images, float64 (B, 3, H, W)."""
    batch, _, height, width = case["images"]
    return torch.from_numpy(formula.images(case["seed"], batch, height, width))
