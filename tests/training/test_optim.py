"""Who decays, who learns how fast, and the schedules against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from fastvit.training.optim import configure, layers, learning_rate, parameter_groups, weight_decay
from fastvit.training.options import OptimOptions
from tests.helpers import tiny


def names(model: nn.Module, groups: list[dict], decays: bool) -> set[str]:
    known = {id(p): name for name, p in model.named_parameters()}
    return {known[id(p)] for group in groups if bool(group["weight_decay"]) == decays for p in group["params"]}


def test_norms_biases_and_layer_scales_do_not_decay() -> None:
    model = tiny(attention=True)
    groups = parameter_groups(model, OptimOptions(weight_decay=0.05))
    decayed, plain = names(model, groups, True), names(model, groups, False)
    assert decayed | plain == {name for name, _ in model.named_parameters()}
    assert not decayed & plain
    assert {n for n in plain | decayed if "layer_scale" in n} <= plain
    assert {n for n in plain | decayed if n.endswith("bias") or ".norm." in n or "identity" in n} <= plain
    assert decayed == {n for n, p in model.named_parameters() if p.ndim in (2, 4)}
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.05]


def test_the_official_rule_is_timms() -> None:
    model = tiny(attention=True)
    theirs = names(model, param_groups_weight_decay(model, 0.05), True)
    ours = names(model, parameter_groups(model, OptimOptions(decay_layer_scales=True)), True)
    assert ours == theirs
    assert any("layer_scale" in name for name in theirs)


def test_layer_decay_by_hand() -> None:
    """The tiny model has a stem, four blocks and a head: six layers."""
    model = tiny(attention=True)
    depths, last = layers(model)
    assert last == 5
    layer = {name: depths.get(id(p), last) for name, p in model.named_parameters()}
    assert {value for name, value in layer.items() if name.startswith("backbone.stem.")} == {0}
    for stage in range(4):
        assert {v for n, v in layer.items() if n.startswith(f"backbone.stages.{stage}.")} == {stage + 1}
    assert {v for n, v in layer.items() if n.startswith(("head.", "expansion."))} == {5}
    groups = parameter_groups(model, OptimOptions(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(layer)
    assert all(rates[id(p)] == 0.5 ** (5 - layer[name]) for name, p in model.named_parameters())
    assert {group["lr"] for group in parameter_groups(model, OptimOptions(lr=1.0))} == {1.0}


def test_schedule_is_timms_cosine_with_warmup() -> None:
    options = OptimOptions(lr=1e-3, min_lr=1e-5, warmup_lr=1e-6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=options.lr)
    theirs = CosineLRScheduler(
        optimizer, t_initial=90, lr_min=1e-5, warmup_t=10, warmup_lr_init=1e-6, warmup_prefix=True, t_in_epochs=False
    )
    for step in range(110):
        theirs.step_update(step)
        assert learning_rate(step, 100, 10, options) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert learning_rate(55, 100, 10, options) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 2)) / 2)


def test_poly_by_hand() -> None:
    """mmsegmentation's: lr * (1 - step / steps) ** 0.9 down to min_lr, after the warm-up."""
    options = OptimOptions(lr=2e-4, min_lr=0.0, schedule="poly", power=0.9)
    for step in (0, 1, 20_000, 39_999):
        assert learning_rate(step, 40_000, 0, options) == pytest.approx(2e-4 * (1 - step / 40_000) ** 0.9, rel=1e-12)
    assert learning_rate(40_000, 40_000, 0, options) == learning_rate(50_000, 40_000, 0, options) == 0
    warm = replace(options, warmup_lr=1e-6, min_lr=1e-5, power=2.0)
    assert [learning_rate(s, 110, 10, warm) for s in (0, 5, 10, 60, 110, 120)] == pytest.approx(
        [1e-6, 1e-6 + 0.5 * (2e-4 - 1e-6), 2e-4, 1e-5 + 0.25 * (2e-4 - 1e-5), 1e-5, 1e-5], rel=1e-12
    )


def test_steps_by_hand() -> None:
    """Detectron's: a tenth after the epochs named, 500 steps of 7,393 to warm up."""
    options = OptimOptions(lr=2e-4, schedule="step", milestones=(8, 11), warmup_lr=2e-7, min_lr=1e-5)
    epoch, warmup = 7393, 500
    places = (0, 250, 499, 500, 8 * epoch - 1, 8 * epoch, 11 * epoch - 1, 11 * epoch, 12 * epoch)
    expected = [2e-7, 1.001e-4, 2e-7 + (2e-4 - 2e-7) * 499 / 500, 2e-4, 2e-4, 2e-5, 2e-5, 2e-6, 2e-6]
    found = [learning_rate(step, 12 * epoch, warmup, options, epoch) for step in places]
    assert found == pytest.approx(expected, rel=1e-9)
    assert learning_rate(5, 100, 0, replace(options, milestones=())) == 2e-4


@pytest.mark.parametrize("schedule", ["poly", "step"])
def test_configure_takes_every_schedule(schedule: str) -> None:
    """Three epochs of ten steps, the first half of one to warm up, with torch's own stepping."""
    options = OptimOptions(lr=0.1, min_lr=0.0, schedule=schedule, milestones=(1, 2), warmup_epochs=0.5, warmup_lr=0.0)
    made = configure(tiny(), steps=30, epochs=3, options=options)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    warm = [0.02 * step for step in range(5)]
    rest = {
        "poly": [0.1 * (1 - (step - 5) / 25) ** 0.9 for step in range(5, 30)],
        "step": [0.1] * 5 + [0.01] * 10 + [0.001] * 10,
    }[schedule]
    assert rates == pytest.approx(warm + rest)


def test_frozen_parameters_are_not_optimized() -> None:
    model = tiny(attention=True)
    model.backbone.requires_grad_(False)
    groups = parameter_groups(model, OptimOptions(layer_decay=0.5))
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in model.parameters() if p.requires_grad
    }


def test_configure_follows_the_schedule_through_the_cooldown() -> None:
    options = OptimOptions(lr=0.1, warmup_epochs=0.5, cooldown_epochs=1, layer_decay=0.5)
    made = configure(tiny(), steps=30, epochs=2, options=options)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(30):
        first, *_, last = optimizer.param_groups
        assert first["lr"] == pytest.approx(last["lr"] / 2 ** (last["layer"] - first["layer"]))
        rates.append(last["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([learning_rate(s, 20, 5, options) for s in range(30)])
    assert rates[20:] == pytest.approx([options.min_lr] * 10)


def test_weight_decay_schedule() -> None:
    options = OptimOptions(weight_decay=0.05)
    assert {weight_decay(step, 10, options) for step in range(11)} == {0.05}
    falling = replace(options, weight_decay_end=0.01)
    assert [weight_decay(s, 10, falling) for s in (0, 5, 10)] == pytest.approx([0.05, 0.03, 0.01])
