"""The table of tasks. Needs no torch."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields

from fastvit.arguments import refuse_given
from fastvit.errors import UserError
from fastvit.plugins import find, register, warn_of_failures
from fastvit.tasks.spec import TaskSpec

# What weights that do not name their task are for.
DEFAULT_TASK = "classification"

# A spec, or where it is: module:name, imported when it is used.
TASKS: dict[str, TaskSpec | str] = {
    name: f"fastvit.tasks.{name}.spec:SPEC" for name in (DEFAULT_TASK, "detection", "segmentation", "hand_mesh")
}


def find_task(name: str) -> TaskSpec:
    """Return the task of a name.

    Raises:
        UserError: there is no such task; a newer version or a plugin may have it.
    """
    row = find(TASKS, "task", name)
    if isinstance(row, TaskSpec):
        return row
    module, _, attribute = row.partition(":")
    spec: TaskSpec = getattr(importlib.import_module(module), attribute)
    return spec


def all_tasks() -> list[TaskSpec]:
    """Return all tasks, those of plugins included; a plugin that cannot be loaded is a warning."""
    warn_of_failures()
    return [find_task(name) for name in TASKS]


def refuse_of_other_tasks(task: TaskSpec, **options: object) -> None:
    """Check that no option is given that only other tasks have.

    Args:
        task: of the model.
        options: the options that not all tasks have, by their names; None and False are left out.

    Raises:
        UserError: one is given; the message names the tasks that have it.
    """
    for name, value in options.items():
        if value is not None and value is not False and name not in task.own_options:
            owners = " and ".join(spec.name for spec in all_tasks() if name in spec.own_options)
            refuse_given(f"is for {owners}, this model is for {task.name}", **{name: value})


def register_task(spec: TaskSpec) -> None:
    """Add a task: it can be trained, evaluated, used and exported as those of the package.

    Args:
        spec: the task; see `docs/architecture.md` for an example.

    Raises:
        UserError: there is a task of that name, or what the spec says does not fit together.
    """
    _check(spec)
    register(TASKS, "task", spec.name, spec)


def _check(spec: TaskSpec) -> None:
    from fastvit.training.options import Recipe

    if not isinstance(spec, TaskSpec):
        raise UserError(f"register_task takes an instance of TaskSpec, not {spec!r}")
    if not re.fullmatch("[a-z][a-z0-9_]*", spec.name):
        raise UserError(f"the name of a task is lower-case letters, digits and underscores, not {spec.name!r}")
    if missing := [name for name in (spec.headline, *spec.curves) if name not in spec.metrics]:
        raise UserError(f"the task {spec.name} has no metric {missing[0]!r}; it has {', '.join(spec.metrics)}")
    taken = {name: f"the task {other.name}" for other in map(find_task, TASKS) for name in other.sections}
    taken |= dict.fromkeys((*(field.name for field in fields(Recipe)), *vars(Recipe)), "every recipe")
    for name in spec.unused_fields:
        section, _, last = name.rpartition(".")
        owner = type(getattr(Recipe(), section)) if section else Recipe
        if last not in [field.name for field in fields(owner)]:
            raise UserError(f"a recipe has no field {name}, of which the task {spec.name} says that it is not used")
    for name in spec.sections:
        if name in taken:
            raise UserError(f"the section {name} of the task {spec.name} is one of {taken[name]}: call it otherwise")
