"""Which layers int8 hurts: measured one at a time in onnxruntime, and the worst kept in float until a bound is met."""

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

# Largest error of a quantized network's outputs on calibration images, as `error` has it, before the writers look for
# sensitive layers. On the trained models of docs/quantization.md 0.05 goes with 0.2 points of top-1 and less.
BOUND = 0.05
# Images that the search looks at; the ranges come from all of them.
LOOKED_AT = 64
_COLORS: dict[Kind, str] = {"depthwise": "#b91c1c", "convolution": "#2563eb", "linear": "#15803d"}


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to quantize one layer alone.

    Attributes:
        layer: its name.
        kind: of layer.
        error: of the outputs, as `error` has it.
        cosine: of the outputs with those in float, the smallest of any output.
        loss: by how much the cross entropy grows, where labels were given.
    """

    layer: str
    kind: Kind
    error: float
    cosine: float
    loss: float | None = None


@dataclass(frozen=True)
class Choice:
    """Which layers stay in float.

    Attributes:
        kept: their names, in the order in which they were chosen; those that were kept from the start come first.
        errors: of the outputs with the first n of the chosen ones kept, from none on.
        bound: that was to be met.
    """

    kept: tuple[str, ...]
    errors: tuple[float, ...]
    bound: float

    @property
    def met(self) -> bool:
        """Whether the bound is met."""
        return self.errors[-1] <= self.bound


def error(reference: Sequence[np.ndarray], output: Sequence[np.ndarray]) -> float:
    """Root of the mean squared difference over that of the reference, the largest of any output."""
    pairs = zip(reference, output, strict=True)
    return max(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30) for a, b in pairs)


def outputs(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    """What a graph gives in onnxruntime for (N, C, H, W) images such as it takes."""
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
    """Quantize one layer at a time and compare with float.

    Args:
        calibrated: the float graph with its ranges.
        images: (N, C, H, W) calibration images, such as the graph takes.
        names: the layers to look at; by default all.
        labels: true classes of the images, for the loss; the graph must then give logits.

    Returns:
        In the order of the layers.
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
    """Keep the layer that alone hurts most in float, then the next, until the outputs' error is within a bound.

    The table is only made where the bound is missed at first.

    Args:
        calibrated: the float graph with its ranges.
        images: (N, C, H, W) calibration images, such as the graph takes.
        kept: names of layers that stay in float in any case.
        bound: on the error of the outputs.

    Returns:
        A choice that meets the bound; at the worst it keeps all layers.

    Raises:
        UserError: the bound is negative.
    """
    if bound < 0:
        raise UserError(f"an error cannot be at most {bound}")
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
    """A bar a layer, from the input at the top to the head: the error that it alone causes."""
    figure = new_figure(8.5, 0.8 + 0.19 * len(rows))
    axes = figure.subplots()
    for kind in dict.fromkeys(row.kind for row in rows):
        bars = [(place, 100 * row.error) for place, row in enumerate(rows) if row.kind == kind]
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
