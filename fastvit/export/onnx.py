"""ONNX, proved in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from fastvit.errors import UserError, first_line
from fastvit.export.target import Inference
from fastvit.files import atomic
from fastvit.model.classifier import FastViT
from fastvit.weights.description import Description
from fastvit.weights.source import METADATA_KEY

INPUT, OUTPUT = "images", "logits"


def write(model: FastViT, path: Path) -> None:
    """One file with dynamic batch, height and width; the model's description is in metadata_props["fastvit"]."""
    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, model.config.in_chans, *model.preprocessing.size)
    dynamic = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=32),
        3: torch.export.Dim("width", min=32),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic,),
        )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = json.dumps(Description.of(model).to_dict())
    with atomic(path) as part:
        program.save(part, external_data=False)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its threads would go on spinning after a run and slow down whatever else this process computes.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base but Exception
        raise UserError(f"onnxruntime cannot read {path}: {first_line(error)}") from error


def load(path: Path) -> Inference:
    """The artifact as a function of float32 (B, C, H, W) arrays to (B, classes) logits.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _runner(open_session(path))


def load_described(path: Path) -> tuple[Inference, Description]:
    """`load`, with what the artifact says of itself.

    Raises:
        UserError: the file is missing, damaged, or was not written by `write`.
    """
    session = open_session(path)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{path} was not exported by fastvit: it does not say its classes and preprocessing")
    return _runner(session), Description.from_dict(json.loads(text), str(path))


def _runner(session: onnxruntime.InferenceSession) -> Inference:
    size = session.get_inputs()[0].shape[2:]  # numbers where they are fixed, else names

    def run(images: np.ndarray) -> np.ndarray:
        if any(isinstance(fixed, int) and fixed != side for fixed, side in zip(size, images.shape[2:], strict=True)):
            raise UserError(
                f"the artifact takes images of {size[0]}x{size[1]} pixels and no other size, these are "
                f"{images.shape[2]}x{images.shape[3]}: use the checkpoint that it was made from"
            )
        (logits,) = session.run([OUTPUT], {INPUT: images})
        return np.asarray(logits)

    return run
