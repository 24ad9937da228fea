"""Number of training processes, and ending all of them together."""

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
    """Return the recipe with the number of devices and machines that torchrun or SLURM has started processes for.

    Raises:
        UserError: the recipe is for several processes, and SLURM has started one; or the recipe is for several
            machines, and the process was started by neither torchrun nor SLURM.
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
            f"SLURM has started one process, the recipe is for {recipe.devices * recipe.num_nodes}: start them with "
            f"srun --ntasks-per-node {recipe.devices}, or give --devices 1"
        )
    return replace(recipe, devices=tasks // nodes, num_nodes=nodes)


@contextmanager
def ended_together(trainer: L.Trainer) -> Iterator[None]:
    """Kill the processes that Lightning has started if this one fails: they would wait for it forever.

    If one of the others fails, Lightning ends this one. For processes that they start, torchrun and SLURM's
    `srun --kill-on-bad-exit` do both.
    """
    try:
        yield
    except Terminated:  # raised in all processes at once
        raise
    except Exception:
        if isinstance(launcher := trainer.strategy.launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
        raise
