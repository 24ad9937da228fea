"""Shared by all tests: one thread a process (pytest-xdist brings the processes), no network, no writing to the home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers import Clock

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")
# For the processes that tests start, too: on busy cores threads that wait for each other cost more than they bring.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; Triton asks for this once, when it is first imported.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    torch.manual_seed(0)


@pytest.fixture
def double() -> Iterator[None]:
    """float64 by default, where exactness is claimed."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real picture: the first validation image of the embedded sample, as a PNG file."""
    from fastvit.data.load import open_images

    path = tmp_path_factory.mktemp("photo") / "boot.png"
    open_images("sample", "test").image(0).save(path)
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still but for what a test lets take some."""
    from tests.helpers import Clock

    return Clock(monkeypatch)
