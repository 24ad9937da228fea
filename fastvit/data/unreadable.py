"""A list of the images that could not be decoded, which the processes that decode write and the run reads."""

from __future__ import annotations

import json
from pathlib import Path

from fastvit.files import TemporaryFolder


def note(log: Path, name: str, reason: str) -> None:
    """Add an image to a log; short lines that are appended by several processes do not mix."""
    with log.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps([name, reason]) + "\n")


class UnreadableLog:
    """The log of a run, in a temporary folder that goes with it.

    A file, not a queue: a queue that is not emptied in time holds up the processes that fill it, and with them the run.

    Attributes:
        path: the file to `note` in.
        found: reason by name, of all that was noted up to the last `read`.
    """

    def __init__(self) -> None:
        self._folder = TemporaryFolder()
        self.path = self._folder.path / "unreadable.jsonl"
        self.path.touch()
        self._end = 0
        self.found: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """What was found until now; costs a look at the file's size where nothing is new."""
        if self.path.stat().st_size > self._end:
            with self.path.open(encoding="utf-8") as opened:
                opened.seek(self._end)
                while (line := opened.readline()).endswith("\n"):  # else it is being written
                    self.found.update([json.loads(line)])
                    self._end = opened.tell()
        return self.found
