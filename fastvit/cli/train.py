"""`fastvit train`: train a model by a recipe."""

from __future__ import annotations

import inspect
import shlex
import sys
from typing import TextIO

from fastvit.console import print_line


def train(arguments: list[str]) -> int:
    """Train a model by a recipe (a YAML file of settings), or resume a run; every recipe field is an option."""
    from fastvit.cli.train_help import help_page, split_help
    from fastvit.runs.files import RECIPE
    from fastvit.training.recipe import parse_recipe

    page, rest = split_help(arguments)
    recipe = parse_recipe(rest)
    if page is not None:
        print_line(help_page(recipe, page, inspect.getdoc(train) or ""))
        return 0

    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from fastvit.tasks.table import find_task
    from fastvit.training.checkpoint import Terminated
    from fastvit.training.train import train as run

    @rank_zero_only
    def say(text: str, file: TextIO = sys.stderr) -> None:
        print_line(text, file=file)

    try:
        done = run(recipe)
    except (Terminated, KeyboardInterrupt) as end:
        resumable = (recipe.out / RECIPE).exists()
        further = f"; resume with: fastvit train --resume {recipe.out}" if resumable else " before training began"
        say(f"fastvit: stopped {end}".rstrip() + further)
        # Lightning treats a nonzero exit code of another process as a failure of all.
        return 0 if rank_zero_only.rank else 143 if isinstance(end, Terminated) else 130
    metric = find_task(recipe.task).headline_metric
    say(f"{done.best}: {metric.label} {metric.text(done.score)} on the validation images", sys.stdout)
    say(f"next: fastvit eval {shlex.quote(str(recipe.out))}; then fastvit predict, fuse or export", sys.stdout)
    return 0
