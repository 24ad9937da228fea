"""Opening files by path or URL."""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from fastvit.errors import UserError, first_line

_ATTEMPTS = 3


def is_remote(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def open_binary(path: str) -> IO[bytes]:
    """Open a file for random access; an HTTP URL is downloaded to a temporary file, which is deleted when closed.

    Raises:
        UserError: the file cannot be read, the URL is not an HTTP one, or the download failed three times.
    """
    if not is_remote(path):
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not path.startswith(("http://", "https://")):
        raise UserError(f"cannot read {path}: only http:// and https:// URLs are supported")
    for attempt in range(_ATTEMPTS):
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        try:
            with urllib.request.urlopen(path, timeout=60) as response:
                shutil.copyfileobj(response, file)
                length = response.headers["Content-Length"]
            if length is not None and file.tell() != int(length):
                raise http.client.IncompleteRead(b"", int(length) - file.tell())
        except (OSError, http.client.HTTPException) as error:
            file.close()
            if attempt == _ATTEMPTS - 1 or (isinstance(error, HTTPError) and error.code < 500):
                raise UserError(f"cannot download {path}: {first_line(error)}") from error
        else:
            file.seek(0)
            return file
    raise AssertionError
