"""Entry point of `python -m fastvit`, which is the same as the command fastvit."""

from __future__ import annotations

import sys

from fastvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
