"""Shards in webdataset's form, and a small HTTP server for them."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image


def make_shards(folder: Path, prefix: str, lengths: Sequence[int], start: int = 0) -> Path:
    """Shards of 8 px images: the red value is the number of the sample, its class that number modulo 3."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard, length in enumerate(lengths):
        with tarfile.open(folder / f"{prefix}-{shard:04}.tar", "w") as tar:
            for number in range(start, start + length):
                buffer = io.BytesIO()
                Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
                for ending, content in (("cls", str(number % 3).encode()), ("png", buffer.getvalue())):
                    member = tarfile.TarInfo(f"pics/{number:05}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        start += length
    (folder / "classes.txt").write_text("ape\nbee\ncat\n")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a folder's files, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
