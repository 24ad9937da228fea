"""Who decays, and the schedule against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from fastvit.training.optim import configure, learning_rate, parameter_groups
from fastvit.training.recipe import OptimOptions
from tests.helpers import tiny


def test_norms_biases_and_layer_scales_do_not_decay() -> None:
    model = tiny(attention=True)
    decayed, plain = parameter_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed_names, plain_names = ({names[id(p)] for p in group["params"]} for group in (decayed, plain))
    assert decayed_names | plain_names == set(names.values())
    assert not decayed_names & plain_names
    assert {n for n in names.values() if "layer_scale" in n} <= plain_names
    assert {n for n in names.values() if n.endswith("bias") or ".norm." in n or "identity" in n} <= plain_names
    assert decayed_names == {n for n, p in model.named_parameters() if p.ndim in (2, 4)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


def test_schedule_is_timms_cosine_with_warmup() -> None:
    options = OptimOptions(lr=1e-3, min_lr=1e-5, warmup_lr=1e-6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=options.lr)
    theirs = CosineLRScheduler(
        optimizer, t_initial=90, lr_min=1e-5, warmup_t=10, warmup_lr_init=1e-6, warmup_prefix=True, t_in_epochs=False
    )
    for step in range(100):
        theirs.step_update(step)
        assert learning_rate(step, 100, 10, options) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert learning_rate(100, 100, 10, options) == pytest.approx(1e-5)
    assert learning_rate(55, 100, 10, options) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 2)) / 2)


def test_configure_follows_the_schedule() -> None:
    options = OptimOptions(lr=0.1, warmup_epochs=0.5)
    made = configure(tiny(), steps=20, epochs=2, options=options)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([learning_rate(s, 20, 5, options) for s in range(20)])
