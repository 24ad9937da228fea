"""Table of the tasks. Needs no torch."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields

from fastvit.arguments import refuse_given
from fastvit.errors import UserError
from fastvit.plugins import find, register, warn_of_failures
from fastvit.tasks.spec import TaskSpec

# The task of weights that do not record one.
DEFAULT_TASK = "classification"

# Each task's spec, or where to import it from when it is first used, as "module:name".
TASKS: dict[str, TaskSpec | str] = {
    name: f"fastvit.tasks.{name}.spec:SPEC" for name in (DEFAULT_TASK, "detection", "segmentation", "hand_mesh")
}


def find_task(name: str) -> TaskSpec:
    """Return a task by name.

    Raises:
        UserError: no task has this name.
    """
    row = find(TASKS, "task", name)
    if isinstance(row, TaskSpec):
        return row
    module, _, attribute = row.partition(":")
    spec: TaskSpec = getattr(importlib.import_module(module), attribute)
    return spec


def all_tasks() -> list[TaskSpec]:
    """Return all tasks, including those of plugins; warn about plugins that cannot be loaded."""
    warn_of_failures()
    return [find_task(name) for name in TASKS]


def refuse_of_other_tasks(task: TaskSpec, **options: object) -> None:
    """Check that no option is given that only other tasks support.

    Args:
        task: task of the model.
        options: values of the options that not all tasks support, by name; None and False mean not given.

    Raises:
        UserError: such an option is given; the message lists the tasks that support it.
    """
    for name, value in options.items():
        if value is not None and value is not False and name not in task.own_options:
            owners = " and ".join(spec.name for spec in all_tasks() if name in spec.own_options)
            refuse_given(f"is for {owners}, this model is for {task.name}", **{name: value})


def register_task(spec: TaskSpec) -> None:
    """Add a task, which can then be trained, evaluated, used and exported like the built-in ones.

    Args:
        spec: task to add; see `docs/architecture.md` for an example.

    Raises:
        UserError: a task of that name exists already, or the spec contradicts itself.
    """
    _check(spec)
    register(TASKS, "task", spec.name, spec)


def _check(spec: TaskSpec) -> None:
    from fastvit.training.options import Recipe

    if not isinstance(spec, TaskSpec):
        raise UserError(f"register_task takes an instance of TaskSpec, not {spec!r}")
    if not re.fullmatch("[a-z][a-z0-9_]*", spec.name):
        raise UserError(f"a task name must consist of lower-case letters, digits and underscores, got {spec.name!r}")
    if missing := [name for name in (spec.headline, *spec.curves) if name not in spec.metrics]:
        raise UserError(f"the task {spec.name} has no metric {missing[0]!r}; it has {', '.join(spec.metrics)}")
    taken = {name: f"the task {other.name}" for other in map(find_task, TASKS) for name in other.sections}
    taken |= dict.fromkeys((*(field.name for field in fields(Recipe)), *vars(Recipe)), "every recipe")
    for name in spec.unused_fields:
        section, _, last = name.rpartition(".")
        owner = type(getattr(Recipe(), section)) if section else Recipe
        if last not in [field.name for field in fields(owner)]:
            raise UserError(f"unused_fields of the task {spec.name} has {name}, which is not a field of a recipe")
    for name in spec.sections:
        if name in taken:
            raise UserError(f"the section {name} of the task {spec.name} is one of {taken[name]}: rename it")
