"""Options that apply to some models only; for others they are errors, not ignored."""

from __future__ import annotations

from fastvit.arguments import refuse_given
from fastvit.runtime.artifact import is_artifact
from fastvit.tasks.table import TASKS


def refuse_of_other_tasks(task: str, **options: object) -> None:
    """See that no option is given that only other tasks have.

    Args:
        task: of the model.
        options: the options that not all tasks have, by their names; None and False are left out.

    Raises:
        UserError: one is given; the message names the tasks that have it.
    """
    for name, value in options.items():
        owners = [kind.name for kind in TASKS.values() if name in kind.own_options]
        if task not in owners:
            refuse_given(f"is for {' and '.join(owners)}, this model is for {task}", **{name: value})


def refuse_device(source: str, device: str) -> None:
    """See that an artifact is not asked to run on a GPU.

    Raises:
        UserError: it is.
    """
    if is_artifact(source) and device not in ("auto", "cpu"):
        refuse_given(f"is for checkpoints, which PyTorch runs; {source} runs on the CPU", device=device)
