"""Worker processes that decode images for a DataLoader."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable
from copy import copy
from functools import cache
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch

from fastvit.errors import UserError


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(num_workers: int | None) -> int:
    """Return the number of worker processes: `num_workers`, or for None one per available CPU core but one.

    Raises:
        UserError: num_workers is below 0.
    """
    if (num_workers or 0) < 0:
        raise UserError(f"num_workers must be at least 0, got {num_workers}")
    return available_cores() - 1 if num_workers is None else num_workers


def loader_settings(num_workers: int | None) -> dict[str, Any]:
    """Return the DataLoader arguments that all loaders of the package share.

    Raises:
        UserError: num_workers is below 0.
    """
    count = worker_count(num_workers)
    return {
        "num_workers": count,
        "persistent_workers": count > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": leave_signals_to_the_run,
        "multiprocessing_context": _recording_context() if count else None,
    }


def leave_signals_to_the_run(worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which reach every process of a group: the run handles them and stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# The workers of our loaders, and the process that started each. The host process may have other daemons, and a process
# that it forks inherits this table; neither may be killed here.
_workers: WeakKeyDictionary[BaseProcess, int] = WeakKeyDictionary()


class _Recording:
    """Process factory that records the processes as workers.

    Args:
        start: function that creates a process.
    """

    def __init__(self, start: Callable[..., BaseProcess]) -> None:
        self._start = start

    def __call__(self, *args: Any, **options: Any) -> BaseProcess:
        _end_workers_at_exit()
        made = self._start(*args, **options)
        _workers[made] = os.getpid()
        return made


def _recording_context() -> BaseContext:
    """Return the default multiprocessing context, changed to record the processes that it creates."""
    context: Any = copy(multiprocessing.get_context())
    context.Process = _Recording(context.Process)
    return cast(BaseContext, context)


@cache
def _end_workers_at_exit() -> None:
    atexit.register(_end_workers)


def _end_workers() -> None:
    """Kill workers of loaders that are still alive after an error.

    They ignore SIGTERM, which Python sends to daemons at exit before it waits for them without a time limit.
    """
    left = [child for child in multiprocessing.active_children() if _workers.get(child) == os.getpid()]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error for a killed worker
    for child in left:
        child.kill()
