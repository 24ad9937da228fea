"""Peak memory of a fresh process that loads a model and predicts once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Peak memory of this process alone; `ru_maxrss` would include that of its parent.
_PEAK = """
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""
_PREDICT = """
import sys
import numpy as np
from fastvit import Predictor
predictor = Predictor(sys.argv[1], runtime=sys.argv[2])
height, width = predictor.preprocessing.size
predictor(np.zeros((height, width, 3), np.uint8))
"""


def peak_memory(path: str | Path, runtime: str = "auto") -> float | None:
    """Return the peak memory of a process that creates a Predictor and predicts once, in megabytes (1e6 bytes).

    Args:
        path: checkpoint or artifact.
        runtime: name of the runtime, see `fastvit.Predictor`.

    Returns:
        The peak; None if the system is not Linux, or the process failed.
    """
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-c", _PREDICT + _PEAK, str(path), runtime]
    done = subprocess.run(command, capture_output=True, text=True)
    return 1024 * int(done.stdout.split()[-1]) / 1e6 if done.returncode == 0 else None
