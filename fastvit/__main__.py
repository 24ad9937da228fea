"""python -m fastvit is the command fastvit."""

from __future__ import annotations

import sys

from fastvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
