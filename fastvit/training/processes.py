"""How many processes train, and that none of them is left behind."""

from __future__ import annotations

import os
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


def with_processes(recipe: Recipe) -> Recipe:
    """The recipe with the devices and machines that torchrun or SLURM has started processes for, where they have.

    Raises:
        UserError: it asks for others.
    """
    started = _started()
    if started is None:
        return recipe
    starter, devices, nodes = started
    if (recipe.devices, recipe.nodes) not in ((1, 1), (devices, nodes)):
        raise UserError(
            f"{starter} has started {devices} processes on each of {nodes} machines, and devices is {recipe.devices}, "
            f"nodes {recipe.nodes}: let {starter} start as many, or give --devices {devices} --nodes {nodes}"
        )
    return replace(recipe, devices=devices, nodes=nodes)


def _started() -> tuple[str, int, int] | None:
    """Who has started the processes, how many a machine, and on how many machines; in Lightning's order."""
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return "torchrun", devices, int(os.environ["WORLD_SIZE"]) // devices
    if SLURMEnvironment.detect():  # not in a job's interactive shell
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return "SLURM", int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


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
