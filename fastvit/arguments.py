"""How options may be written."""

from __future__ import annotations

import re


def underscored(argument: str) -> str:
    """--batch-size and --batch_size are the same option; what follows its name stays as it is."""
    return re.sub(r"^--[\w.-]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)
