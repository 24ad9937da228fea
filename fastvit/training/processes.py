"""How many processes train, and that none of them is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from fastvit.errors import UserError
from fastvit.training.checkpoint import Terminated
from fastvit.training.options import Recipe
from fastvit.variables import read_variable


def with_processes(recipe: Recipe) -> Recipe:
    """The recipe with the devices and machines that torchrun or SLURM has started processes for, where they have.

    Raises:
        UserError: it asks for several, and SLURM has started one; or for several machines, and neither has started it.
    """
    if TorchElasticEnvironment.detect():
        devices = int(read_variable("LOCAL_WORLD_SIZE"))
        return replace(recipe, devices=devices, num_nodes=int(read_variable("WORLD_SIZE")) // devices)
    if SLURMEnvironment.detect():  # not in a job's interactive shell
        return _with_slurm(recipe)
    if recipe.num_nodes > 1:
        raise UserError(f"num_nodes is {recipe.num_nodes}: start a process on each machine with torchrun or srun")
    return recipe


def _with_slurm(recipe: Recipe) -> Recipe:
    tasks, nodes = int(read_variable("SLURM_NTASKS")), int(read_variable("SLURM_NNODES", "1"))
    if tasks == 1 < recipe.devices * recipe.num_nodes:
        raise UserError(
            f"SLURM has started one process, the recipe is for {recipe.devices * recipe.num_nodes}: "
            f"srun --ntasks-per-node {recipe.devices} starts them, --devices 1 does with one"
        )
    return replace(recipe, devices=tasks // nodes, num_nodes=nodes)


@contextmanager
def ended_together(trainer: L.Trainer) -> Iterator[None]:
    """End the processes that Lightning has started when this one fails: they would wait for it for ever.

    The other way round Lightning sees to it; torchrun does for the processes that it starts, and so does SLURM's
    `srun --kill-on-bad-exit`.
    """
    try:
        yield
    except Terminated:  # in all of them at once
        raise
    except Exception:
        if isinstance(launcher := trainer.strategy.launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
        raise
