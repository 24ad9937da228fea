"""ncnn networks, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from fastvit.errors import UserError
from fastvit.runtime.artifact import Run
from fastvit.weights.description import METADATA_KEY


def read(path: Path, threads: int | None = None) -> tuple[str | None, Run]:
    """Load a network: return its metadata and a function that runs it.

    Raises:
        UserError: the file is corrupt, or its weights are missing or corrupt.
    """
    metadata = _metadata(path)
    network = ncnn.Net()
    if threads:
        network.opt.num_threads = threads
    if metadata and json.loads(metadata)["artifact"]["precision"] == "fp32":
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(network.opt, f"use_{option}", False)
    # ncnn returns an error code and crashes when a network that was not loaded is used.
    if network.load_param(str(path)) or network.load_model(str(path.with_suffix(".bin"))):
        raise UserError(
            f"ncnn cannot read {path} with its weights in {path.with_suffix('.bin').name}: one of the two is corrupt"
        )
    names = sorted(network.output_names(), key=lambda name: int(name.removeprefix("out")))

    def run(images: np.ndarray) -> list[np.ndarray]:
        extractor = network.create_extractor()
        # A Mat points into the array that it is made from and does not keep it alive.
        image = images[0].astype(np.float32)
        extractor.input("in0", ncnn.Mat(image).clone())
        return [_extracted(extractor, name, path)[None] for name in names]

    return metadata, run


def _extracted(extractor: Any, name: str, path: Path) -> np.ndarray:
    status, output = extractor.extract(name)
    if status:
        raise UserError(f"ncnn cannot run {path}: error code {status}")
    return np.array(output)


def _metadata(path: Path) -> str | None:
    last = path.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
    key, _, text = last.partition(" ")
    return text if key == METADATA_KEY and text.endswith("}") else None
