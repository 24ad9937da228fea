"""Environment variables that the package reads."""

from __future__ import annotations

import os

# Name -> description. The reference page of environment variables is written from this table.
VARIABLES = {
    "FASTVIT_CACHE": (
        "Folder for files that are written once and kept: models that `Predictor` exported, compiled GPU kernels and "
        "their timings, and the MANO hand model. The default is `fastvit` in the folder that `XDG_CACHE_HOME` names."
    ),
    "XDG_CACHE_HOME": "Folder of the user's caches. The default is `~/.cache`.",
    "LOCAL_WORLD_SIZE": "Processes on this machine. torchrun sets it, and `fastvit train` takes `devices` from it.",
    "WORLD_SIZE": "Processes on all machines. torchrun sets it, and `fastvit train` takes `num_nodes` from it.",
    "SLURM_NTASKS": "Processes on all machines. SLURM sets it, and `fastvit train` takes `devices` from it.",
    "SLURM_NNODES": "Machines. SLURM sets it, and `fastvit train` takes `num_nodes` from it. The default is 1.",
    "FASTVIT_INTERPRET": (
        "If this and `TRITON_INTERPRET` are 1, Triton's interpreter runs the Triton kernels on the CPU. This is slow "
        "and only useful to test the kernels."
    ),
    "TRITON_INTERPRET": "Variable of Triton; see `FASTVIT_INTERPRET`.",
}


def read_variable(name: str, default: str = "") -> str:
    """Return the value of an environment variable.

    Args:
        name: one of `VARIABLES`.
        default: value of a variable that is not set.

    Raises:
        KeyError: the variable is not in the table.
    """
    if name not in VARIABLES:
        raise KeyError(name)
    return os.environ.get(name, default)
