"""The table of tasks, and what a new row must be."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastvit
from fastvit.reports.metric_format import Metric
from fastvit.tasks.classification.options import MixupOptions
from fastvit.tasks.classification.spec import ClassificationSpec
from fastvit.tasks.table import TASKS, find_task
from fastvit.training.recipe import dump_recipe, load_recipe, parse_recipe


@pytest.mark.parametrize("name", TASKS)
def test_each_says_what_fits_together(name: str) -> None:
    spec = find_task(name)
    assert (spec.name, spec.model_class().task) == (name, name)
    assert {spec.headline, *spec.curves} <= set(spec.metrics)
    assert spec.outputs
    assert isinstance(spec.headline_metric, Metric)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline": "top9"}, "the task other has no metric 'top9'; it has top1, top5"),
        ({"curves": ("top1", "f1")}, "has no metric 'f1'"),
        ({"sections": {"optim": MixupOptions}}, "the section optim of the task other is one of every recipe"),
        (
            {"sections": {"mixup": MixupOptions}},
            "the section mixup of the task other is one of the task classification",
        ),
        ({"sections": {"to_dict": MixupOptions}}, "the section to_dict of the task other is one of every recipe"),
        ({"unused_fields": {"model.sise": "x"}}, "which is not a field of a recipe"),  # codespell:ignore sise
        ({"name": "Bad Name"}, "lower-case letters, digits and underscores, got 'Bad Name'"),
        ({"name": "detection", "sections": {}}, "the task 'detection' exists already"),
    ],
)
def test_what_cannot_be_registered(changes: dict[str, object], message: str) -> None:
    kind = type("Other", (ClassificationSpec,), {"name": "other", "sections": {}, **changes})
    with pytest.raises(fastvit.UserError, match=message):
        fastvit.register_task(kind())
    assert "other" not in TASKS


def test_a_class_is_not_a_task() -> None:
    with pytest.raises(fastvit.UserError, match="takes an instance of TaskSpec"):
        fastvit.register_task(ClassificationSpec)


def test_a_run_that_goes_on_keeps_its_task(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("quickstart")))
    with pytest.raises(fastvit.UserError, match="cannot change task from classification to detection"):
        parse_recipe(["--resume", str(tmp_path), "--task", "detection"])
