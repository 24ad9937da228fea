"""The processes that decode images for a loader."""

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
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(num_workers: int | None) -> int:
    """How many processes to decode in: as asked for, or one a core but one.

    Raises:
        UserError: there cannot be so many.
    """
    if (num_workers or 0) < 0:
        raise UserError(f"num_workers must be at least 0, got {num_workers}")
    return available_cores() - 1 if num_workers is None else num_workers


def loader_settings(num_workers: int | None) -> dict[str, Any]:
    """What all our loaders share.

    Raises:
        UserError: there cannot be so many workers.
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
    """Ctrl-C and a job's end reach every process of a group: the run decides, and its workers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# The processes of our loaders, and the process that started each: the host process may have daemons of its own, and
# one that it forks also has these, but neither are its own to end.
_workers: WeakKeyDictionary[BaseProcess, int] = WeakKeyDictionary()


class _Recording:
    """Starts processes, and records them as workers.

    Args:
        start: makes a process.
    """

    def __init__(self, start: Callable[..., BaseProcess]) -> None:
        self._start = start

    def __call__(self, *args: Any, **options: Any) -> BaseProcess:
        _end_workers_at_exit()
        made = self._start(*args, **options)
        _workers[made] = os.getpid()
        return made


def _recording_context() -> BaseContext:
    """Return the default way to start processes, one that records the processes that it makes."""
    context: Any = copy(multiprocessing.get_context())
    context.Process = _Recording(context.Process)
    return cast(BaseContext, context)


@cache
def _end_workers_at_exit() -> None:
    atexit.register(_end_workers)


def _end_workers() -> None:
    """Kill the workers of loaders that an error kept alive.

    They ignore SIGTERM, which Python sends to daemons at exit before it waits for them without a limit.
    """
    left = [child for child in multiprocessing.active_children() if _workers.get(child) == os.getpid()]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a worker's end for an accident
    for child in left:
        child.kill()
