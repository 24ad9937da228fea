"""The commands, by their names on the line: plain functions whose arguments are their options.

An argument without a default stands on the line in order; one before `/` does too, and may be left out. A bool is a
flag, a list takes what is left of the line: `fastvit.cli.main` reads the signatures so. Heavy imports are inside.
"""

from __future__ import annotations

from collections.abc import Callable

from fastvit.cli.bench import bench
from fastvit.cli.convert import convert
from fastvit.cli.evaluate import evaluate
from fastvit.cli.export import export
from fastvit.cli.fuse import fuse
from fastvit.cli.hands import hands
from fastvit.cli.info import info
from fastvit.cli.models import models
from fastvit.cli.predict import predict
from fastvit.cli.quickstart import quickstart
from fastvit.cli.report import report
from fastvit.cli.robustness import robustness
from fastvit.cli.scenes import scenes
from fastvit.cli.train import train

COMMANDS: dict[str, Callable[..., int | None]] = {
    "quickstart": quickstart,
    "models": models,
    "info": info,
    "scenes": scenes,
    "hands": hands,
    "train": train,
    "eval": evaluate,
    "report": report,
    "robustness": robustness,
    "predict": predict,
    "fuse": fuse,
    "convert": convert,
    "export": export,
    "bench": bench,
}
