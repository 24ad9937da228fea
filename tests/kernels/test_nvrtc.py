"""Machine code from the cache; compiling needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvit.kernels.inference import nvrtc

SOURCE = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'

pytestmark = pytest.mark.skipif(nvrtc.missing() is not None, reason="NVRTC cannot be loaded")


def test_damaged_machine_code_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path))
    code = nvrtc.compiled(SOURCE, "sm_90")
    assert code.startswith(b"\x7fELF")
    (path,) = (tmp_path / "kernels").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[::-1], code, b""):
        path.write_bytes(damaged)
        assert nvrtc.compiled(SOURCE, "sm_90") == code
        assert path.read_bytes() == whole
    time = path.stat().st_mtime_ns
    assert nvrtc.compiled(SOURCE, "sm_90") == code
    assert path.stat().st_mtime_ns == time, "read, not compiled"


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "file"))
    assert nvrtc.compiled(SOURCE, "sm_90") == nvrtc.compiled(SOURCE, "sm_90")
