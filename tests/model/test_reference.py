"""Our model against what the official implementation computes, in float64 on formula-filled weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fastvit
from fastvit.weights.layouts import key_map
from tests.reference_cases import CASES, filled, pictures

EVAL = [case for case in CASES if case["mode"] == "eval"]
TRAIN = [case for case in CASES if case["mode"] == "train"]


def name(case: dict[str, Any]) -> str:
    return f"{case['variant']}-seed{case['seed']}"


def close(actual: torch.Tensor, expected: object, relative: float = 1e-10) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), wanted, rtol=relative, atol=relative * float(wanted.abs().max()))


@pytest.mark.parametrize("case", EVAL, ids=name)
def test_inference(case: dict[str, Any]) -> None:
    model, images = filled(case), pictures(case)
    with torch.inference_mode():
        close(model(images), case["logits"])
        maps = model.backbone(images)
        fused_logits = fastvit.fuse(model)(images)
    assert [list(m.shape) for m in maps] == [stage["shape"] for stage in case["stages"]]
    for one, stage in zip(maps, case["stages"], strict=True):
        close(one.mean(), stage["mean"])
        close(one.norm(), stage["l2"])
        close(one.flatten()[:4], stage["first"])
    close(fused_logits, case["logits"])


@pytest.mark.parametrize("case", [case for case in EVAL if "fused_l2" in case], ids=name)
def test_merged_parameters(case: dict[str, Any]) -> None:
    merged = fastvit.export_weights(fastvit.reparameterize(filled(case)), "official")
    assert case["fused_l2"]
    for key, norm in case["fused_l2"].items():
        close(merged[key].norm(), norm)


@pytest.mark.parametrize("case", TRAIN, ids=name)
def test_training_step(case: dict[str, Any]) -> None:
    model, images = filled(case).train(), pictures(case)
    targets = torch.arange(len(images)) % case["num_classes"]
    logits = model(images)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    close(loss.detach(), case["loss"])
    close(logits.detach().flatten()[:8], case["logits"])
    state = model.state_dict(keep_vars=True)
    ours = {official: state[key] for key, official in key_map(state, model.config, "official").items()}
    for key, norm in case["grad_l2"].items():
        gradient = ours[key].grad
        assert gradient is not None
        # Biases in front of a batch norm have no gradient but rounding.
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-12), key
    for key, norm in case["running"].items():
        close(ours[key].norm(), norm)
