"""Sensitivity of layers to int8, measured one at a time, and the choice of layers to keep in float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from matplotlib.figure import Figure

from fastvit.errors import UserError
from fastvit.export.quantize.calibration import batches
from fastvit.export.quantize.qdq import Calibrated, Kind, layers
from fastvit.reports.figures import new_figure

# Largest error of a quantized network's outputs on calibration images (see `error`) without a search for sensitive
# layers. On the trained models of docs/quantization.md an error of 0.05 costs at most 0.2 points of top-1.
BOUND = 0.05
# Number of images that the search uses; the ranges are measured on all images.
LOOKED_AT = 64
_COLORS: dict[Kind, str] = {"depthwise": "#b91c1c", "convolution": "#2563eb", "linear": "#15803d"}


@dataclass(frozen=True)
class Sensitivity:
    """Cost of quantizing one layer alone.

    Attributes:
        layer: name of the layer.
        kind: kind of the layer.
        error: error of the outputs, see `error`.
        cosine: cosine similarity with the float outputs, the smallest of all outputs.
        loss: increase of the cross entropy; None without labels.
    """

    layer: str
    kind: Kind
    error: float
    cosine: float
    loss: float | None = None


@dataclass(frozen=True)
class Choice:
    """Layers to keep in float.

    Attributes:
        kept: names of the layers, in the order of choice, those that were fixed in advance first.
        errors: error of the outputs with the first n chosen layers in float, from n = 0.
        bound: largest error wanted.
    """

    kept: tuple[str, ...]
    errors: tuple[float, ...]
    bound: float

    @property
    def met(self) -> bool:
        """True if the error is within the bound."""
        return self.errors[-1] <= self.bound


def error(reference: Sequence[np.ndarray], output: Sequence[np.ndarray]) -> float:
    """Return the root mean square difference relative to that of the reference, the largest of all outputs."""
    pairs = zip(reference, output, strict=True)
    return max(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30) for a, b in pairs)


def outputs(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a graph in ONNX Runtime for (N, C, H, W) images."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else None
    parts = [session.run(None, {entry.name: part}) for part in batches(images, batch)]
    return [np.concatenate(column)[: len(images)] for column in zip(*parts, strict=True)]


def table(
    calibrated: Calibrated,
    images: np.ndarray,
    names: Collection[str] | None = None,
    labels: Sequence[int] | None = None,
) -> list[Sensitivity]:
    """Quantize one layer at a time and compare the outputs with those in float.

    Args:
        calibrated: float graph with its ranges.
        images: (N, C, H, W) calibration images, of the kind that the graph takes.
        names: names of the layers to measure; by default all.
        labels: true classes of the images, for the loss; the graph must then output logits.

    Returns:
        One row per layer, in the order of the layers.
    """
    expected = outputs(calibrated.model, images)
    before = _cross_entropy(expected[0], labels) if labels is not None else None
    found = []
    for layer in layers(calibrated.model):
        if names is not None and layer.name not in names:
            continue
        quantized = outputs(calibrated.quantized({layer.name}), images)
        loss = None if labels is None or before is None else _cross_entropy(quantized[0], labels) - before
        cosines = [_cosine(a, b) for a, b in zip(expected, quantized, strict=True)]
        found.append(Sensitivity(layer.name, layer.kind, error(expected, quantized), min(cosines), loss))
    return found


def choose(calibrated: Calibrated, images: np.ndarray, kept: Sequence[str] = (), bound: float = BOUND) -> Choice:
    """Keep the most sensitive layers in float, one after another, until the error of the outputs is within a bound.

    The sensitivities are only measured if the error exceeds the bound at first.

    Args:
        calibrated: float graph with its ranges.
        images: (N, C, H, W) calibration images, of the kind that the graph takes.
        kept: names of layers that stay in float in any case.
        bound: largest error of the outputs.

    Returns:
        A choice within the bound; in the worst case it keeps all layers in float.

    Raises:
        UserError: the bound is negative.
    """
    if bound < 0:
        raise UserError(f"bound must be at least 0, got {bound}")
    expected = outputs(calibrated.model, images)
    rest = [layer.name for layer in layers(calibrated.model) if layer.name not in kept]
    errors = [error(expected, outputs(calibrated.quantized(rest), images))]
    chosen = list(kept)
    if errors[0] > bound:
        ranking = sorted(table(calibrated, images, rest), key=lambda row: -row.error)
        for worst in ranking:
            chosen.append(worst.layer)
            rest.remove(worst.layer)
            errors.append(error(expected, outputs(calibrated.quantized(rest), images)))
            if errors[-1] <= bound:
                break
    return Choice(tuple(chosen), tuple(errors), bound)


def plot(rows: Sequence[Sensitivity], title: str) -> Figure:
    """Plot one bar per layer, from input to head: the error that this layer alone causes."""
    figure = new_figure(8.5, 0.8 + 0.19 * len(rows))
    axes = figure.subplots()
    for kind in dict.fromkeys(row.kind for row in rows):
        bars = [(index, 100 * row.error) for index, row in enumerate(rows) if row.kind == kind]
        axes.barh(*zip(*bars, strict=True), color=_COLORS[kind], label=kind)
    axes.set_yticks(range(len(rows)), [row.layer.removeprefix("backbone.") for row in rows], fontsize=7)
    axes.set(xlabel="error of the logits with this layer alone in int8, percent", title=title, ylim=(len(rows), -1))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend()
    return figure


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b)) / max(float(np.linalg.norm(a)) * float(np.linalg.norm(b)), 1e-30)


def _cross_entropy(logits: np.ndarray, labels: Sequence[int]) -> float:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), np.asarray(labels)]))
