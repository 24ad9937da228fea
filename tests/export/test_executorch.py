"""ExecuTorch programs with Core ML inside: written here, run on a Mac. The others have the contract of all targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fastvit
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import RUNTIMES, open_artifact
from tests.helpers import noise_pictures, randomize, tiny

pytest.importorskip("executorch", reason='needs pip install "fastvit[executorch]"')


@pytest.mark.slow
def test_core_ml_inside(tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason='needs pip install "fastvit[coreml]"')
    torch.manual_seed(0)
    attention = randomize(tiny(attention=True, classes=[f"class {i}" for i in range(10)]))
    path, target = tmp_path / "model.coreml.pte", TARGETS["executorch-coreml"]
    exported = export(attention, target, path, noise_pictures(2), ExportOptions("fp16", size=(64, 64)))
    assert b"CoreMLBackend" in path.read_bytes()
    if RUNTIMES["executorch-coreml"].available() is None:
        assert exported.proof is not None
        return
    assert "written, not run: executorch-coreml runs on Darwin" in str(exported)
    with pytest.raises(fastvit.UserError, match="executorch-coreml runs on Darwin"):
        open_artifact(path)
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("fastvit")
    assert method is not None
    assert json.loads(method.execute([])[0])["classes"] == list(attention.classes or ())
