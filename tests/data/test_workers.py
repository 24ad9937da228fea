"""The processes that decode images, and those that are not ours."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fastvit.data.workers import loader_settings

HOST = """
import multiprocessing, os, signal, sys
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from fastvit.data.workers import loader_settings

def daemon(ready, folder):
    def end(*_):
        (folder / "ended").write_text("on SIGTERM")
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    ready.set()
    signal.pause()

if __name__ == "__main__":
    folder, ready = Path(sys.argv[1]), multiprocessing.Event()
    multiprocessing.Process(target=daemon, args=(ready, folder), daemon=True).start()
    ready.wait()
    kept = iter(DataLoader(torch.arange(8), batch_size=2, **loader_settings(2)))
    next(kept)
    pids = [worker.pid for worker in kept._workers]
    (folder / "workers").write_text(" ".join(map(str, pids)))
    sys.modules["kept"] = kept  # as an error's traceback keeps a loader alive until the process ends
    if sys.argv[2] == "error":
        raise RuntimeError("the host's own error")
"""


def test_exit_ends_our_workers_and_leaves_the_hosts_daemons_to_python(tmp_path: Path) -> None:
    """Python ends daemons with SIGTERM, which they may handle. Our workers ignore it, and must be gone all the same."""
    script = tmp_path / "host.py"
    script.write_text(HOST)
    for how, code in (("error", 1), ("return", 0)):
        (tmp_path / "ended").unlink(missing_ok=True)
        command = [sys.executable, str(script), str(tmp_path), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert (tmp_path / "ended").read_text() == "on SIGTERM"
        for worker in (tmp_path / "workers").read_text().split():
            with pytest.raises(ProcessLookupError):
                os.kill(int(worker), 0)


FORKED = """
import multiprocessing, os, sys
from fastvit.data.workers import leave_signals_to_the_run, loader_settings

def respond(connection):
    leave_signals_to_the_run(0)
    while True:
        connection.send((os.getpid(), connection.recv()))

def start():
    ours, theirs = multiprocessing.Pipe()
    context = loader_settings(1)["multiprocessing_context"]
    worker = context.Process(target=respond, args=(theirs,), daemon=True)
    worker.start()
    theirs.close()
    ours.send("before")
    print(*ours.recv(), flush=True)
    return ours, worker

if __name__ == "__main__":
    connection, worker = start()
    if not (child := os.fork()):
        own = start()
        sys.exit()
    os.waitpid(child, 0)
    connection.send("after")
    print(*connection.recv())
"""


def test_a_forked_process_ends_its_own_workers_alone(tmp_path: Path) -> None:
    """A process that is killed cannot respond, and one that ignores SIGTERM would be waited for without a limit."""
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, last = (line.split() for line in done.stdout.splitlines())
    assert (first[1], second[1], last) == ("before", "before", [first[0], "after"])
    for worker in (first[0], second[0]):
        with pytest.raises(ProcessLookupError):
            os.kill(int(worker), 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_is_pickled_with_its_settings(num_workers: int) -> None:
    loader = DataLoader(torch.arange(4), batch_size=2, **loader_settings(num_workers))
    again = pickle.loads(pickle.dumps(loader))
    assert [batch.tolist() for batch in again] == [[0, 1], [2, 3]]


def test_importing_registers_nothing_for_the_exit() -> None:
    count = "atexit._ncallbacks()"
    code = f"import atexit, torch; before = {count}; import fastvit.data.workers; print({count} - before)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "0\n"
