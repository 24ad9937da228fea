"""Names that do not exist: every table gives the nearest names and a list of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from fastvit.bench.backends import BACKENDS, find_backends
from fastvit.bench.train_steps import STEP_CONFIGURATIONS, find_step_configurations
from fastvit.errors import UserError, near_names, unknown_name
from fastvit.evaluation.robustness.suites import SUITES, find_suite
from fastvit.export.target import TARGETS, find_target
from fastvit.model.mixers import MIXERS, find_mixer
from fastvit.model.variants import VARIANTS, find_variant
from fastvit.runtime.artifact import RUNTIMES, find_runtime
from fastvit.tasks.table import TASKS, find_task
from fastvit.training.recipe import recipe_names, recipe_path

LOOKUPS: dict[str, tuple[Callable[[str], object], Iterable[str]]] = {
    "variant": (find_variant, VARIANTS),
    "token mixer": (find_mixer, MIXERS),
    "task": (find_task, TASKS),
    "export target": (find_target, TARGETS),
    "runtime": (find_runtime, RUNTIMES),
    "recipe": (recipe_path, recipe_names()),
    "suite": (find_suite, SUITES),
    "backend": (lambda name: find_backends(name, "cpu"), BACKENDS),
    "training step configuration": (lambda name: find_step_configurations(name, "cpu"), STEP_CONFIGURATIONS),
}


@pytest.mark.parametrize("kind", LOOKUPS)
def test_an_unknown_name_gets_the_nearest_and_all_names(kind: str) -> None:
    find, table = LOOKUPS[kind]
    names = list(table)
    mistyped = names[0][:-1] + "_" + names[0][-1]
    with pytest.raises(UserError, match="unknown .*: did you mean ") as caught:
        find(mistyped)
    message = str(caught.value)
    assert names[0] in message.partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert all(name in message.partition("?")[2] for name in names)
    with pytest.raises(UserError, match="unknown .*; choose from ") as caught:
        find("zzzz")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in names)


def test_hyphens_and_case_are_no_difference() -> None:
    assert near_names("Hand-Mesh", ["detection", "hand_mesh"]) == ["hand_mesh"]
    assert near_names("batchsize", ["batch-size", "size"])[0] == "batch-size"


def test_spellings_that_are_accepted_are_suggested_and_not_listed() -> None:
    message = str(unknown_name("variant", "sa13", ["fastvit_t8", "fastvit_sa12"], ["t8", "sa12"], "; or give a file"))
    assert message == (
        "unknown variant 'sa13': did you mean sa12? Choose from fastvit_t8, fastvit_sa12; or give a file"
    )
