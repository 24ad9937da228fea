"""Log of unreadable images, which worker processes write and the run reads."""

from __future__ import annotations

import json
from pathlib import Path

from fastvit.files import TemporaryFolder


def note(log: Path, name: str, reason: str) -> None:
    """Append an image to a log; several processes may append at the same time.

    Args:
        log: JSON Lines file.
        name: name of the image.
        reason: error message.
    """
    with log.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps([name, reason]) + "\n")


class UnreadableLog:
    """Log of a run's unreadable images, in a temporary folder that is deleted with this object.

    It is a file because a full queue would block the processes that write to it, and with them the run.

    Attributes:
        path: file that `note` appends to.
        found: name -> reason of the images that were logged up to the last `read`.
    """

    def __init__(self) -> None:
        self._folder = TemporaryFolder()
        self.path = self._folder.path / "unreadable.jsonl"
        self.path.touch()
        self._end = 0
        self.found: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """Return name -> reason of the images that were logged up to now; only new lines are read."""
        if self.path.stat().st_size > self._end:
            with self.path.open(encoding="utf-8") as opened:
                opened.seek(self._end)
                while (line := opened.readline()).endswith("\n"):  # an incomplete line is still being written
                    self.found.update([json.loads(line)])
                    self._end = opened.tell()
        return self.found
