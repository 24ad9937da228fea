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
    """What the file says of itself, and how to run it.

    Raises:
        UserError: the file is damaged, or its weights are missing or damaged.
    """
    metadata = _metadata(path)
    network = ncnn.Net()
    if threads:
        network.opt.num_threads = threads
    if metadata and json.loads(metadata)["artifact"]["precision"] == "fp32":
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(network.opt, f"use_{option}", False)
    # It goes on after an error, and crashes where a network is used that was not loaded.
    if network.load_param(str(path)) or network.load_model(str(path.with_suffix(".bin"))):
        raise UserError(f"ncnn cannot read {path} with its weights in {path.with_suffix('.bin').name}: one is damaged")
    names = sorted(network.output_names(), key=lambda name: int(name.removeprefix("out")))

    def run(images: np.ndarray) -> list[np.ndarray]:
        extractor = network.create_extractor()
        # A Mat points into the array that it is made from, and does not keep it alive.
        image = images[0].astype(np.float32)
        extractor.input("in0", ncnn.Mat(image).clone())
        return [_answer(extractor, name, path)[None] for name in names]

    return metadata, run


def _answer(extractor: Any, name: str, path: Path) -> np.ndarray:
    status, output = extractor.extract(name)
    if status:
        raise UserError(f"ncnn cannot run {path}: its error is {status}")
    return np.array(output)


def _metadata(path: Path) -> str | None:
    last = path.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
    key, _, text = last.partition(" ")
    return text if key == METADATA_KEY and text.endswith("}") else None
