"""Suppression of the output of converters and runtimes: version warnings, failed imports, progress."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

# Output belongs to the process, and torch's exporter and loader have global state: only one thread at a time.
ALONE = threading.RLock()


@contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress all output in a block, including what C++ code writes to stderr; exceptions are raised.

    Other threads wait: if two threads suppressed output together, it could stay suppressed.
    """
    with ALONE, _silenced():
        yield


@contextmanager
def _silenced() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            _no_stderr(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _no_stderr() -> Iterator[None]:
    if sys.__stderr__ is not None:
        sys.__stderr__.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
