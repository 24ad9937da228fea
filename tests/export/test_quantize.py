"""int8: on a small network that is trained here, for of random weights nothing follows."""

from __future__ import annotations

import copy
import inspect
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fastvit
from fastvit.data.load import open_images
from fastvit.export.export import export
from fastvit.export.onnx import convert
from fastvit.export.options import ExportOptions
from fastvit.export.program import Program, build_program
from fastvit.export.proof import Proof, Tolerance, prepared
from fastvit.export.quantize.calibration import batches, calibration_pictures, chosen, matching
from fastvit.export.quantize.onnx import quantize
from fastvit.export.quantize.qdq import Calibrated, calibrate, layers, weight_types
from fastvit.export.quantize.sensitivity import choose, error, outputs, plot, table
from fastvit.export.target import find_target
from fastvit.model.preprocessing import Preprocessing
from fastvit.numerics import Differences, compare
from tests.helpers import tiny

OUTLIER = "backbone.stages.1.blocks.0.ffn.fc1"
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None, reason="needs the extra fastvit[openvino]"
)
INT8 = ExportOptions("int8", batch="dynamic")


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    """Some 80% right on ten classes of clothes at 32 px."""
    torch.manual_seed(0)
    gray = Preprocessing((32, 32), (0.286,) * 3, (0.353,) * 3, crop_pct=1.0)
    source = open_images("sample", "train")
    network = tiny(attention=True, classes=source.classes, preprocessing=gray).train()
    picked = chosen(len(source), 1500, seed=1)
    images = torch.from_numpy(prepared([source.image(i) for i in picked], gray, "normalized"))
    labels = torch.tensor([source.labels[i] for i in picked])
    steps = 70
    optimizer = torch.optim.AdamW(network.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.arange(64 * step, 64 * step + 64) % len(images)
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@pytest.fixture(scope="module")
def program(model: fastvit.FastViT) -> Program:
    return build_program(model, INT8)


@pytest.fixture(scope="module")
def images(model: fastvit.FastViT) -> np.ndarray:
    return prepared(calibration_pictures(count=64), model.preprocessing, "normalized")


@pytest.fixture(scope="module")
def graph(program: Program) -> onnx.ModelProto:
    return convert(program)


@pytest.fixture(scope="module")
def calibrated(graph: onnx.ModelProto, images: np.ndarray) -> Calibrated:
    return calibrate(graph, images)


@pytest.fixture(scope="module")
def validation() -> tuple[list[Image.Image], list[int]]:
    source = open_images("sample", "test")
    return [source.image(i) for i in range(len(source))], list(source.labels)


def with_outlier(model: fastvit.FastViT, factor: float = 200.0) -> fastvit.FastViT:
    """The same function, but one channel into OUTLIER is many times as large as the others."""
    fused = copy.deepcopy(fastvit.fuse(model))
    ffn = fused.get_submodule(OUTLIER.removesuffix(".fc1"))
    conv, fc1 = ffn.get_submodule("conv"), ffn.get_submodule("fc1")
    with torch.no_grad():
        conv.weight[3] *= factor  # type: ignore[operator]
        conv.bias[3] *= factor  # type: ignore[operator]
        fc1.weight[:, 3] /= factor  # type: ignore[operator]
    return fused


def test_calibration_images_are_drawn_with_a_seed_from_the_training_images() -> None:
    assert chosen(5500, 20, seed=3) == chosen(5500, 20, seed=3) != chosen(5500, 20, seed=4)
    assert chosen(5500, 20) == chosen(5500, 200)[:20], "more images begin with the fewer ones"
    assert sorted(chosen(5, 20)) == [0, 1, 2, 3, 4]
    train, test = (
        {source.image(i).tobytes() for i in range(len(source))}
        for source in (open_images("sample", "train"), open_images("sample", "test"))
    )
    drawn = {picture.tobytes() for picture in calibration_pictures(count=300)}
    assert len(drawn) >= 299
    assert drawn <= train
    assert not drawn & test
    assert "split" not in inspect.signature(calibration_pictures).parameters
    with pytest.raises(fastvit.UserError, match="at least 1 calibration image"):
        calibration_pictures(count=0)


def test_batches_fill_the_last_call() -> None:
    images = np.arange(10).reshape(10, 1, 1, 1)
    assert [len(part) for part in batches(images, 4)] == [4, 4, 4]
    assert batches(images, 4)[-1].ravel().tolist() == [8, 9, 9, 9]
    assert [len(part) for part in batches(images, None, step=8)] == [8, 2]


def test_the_layers_are_those_of_the_model(model: fastvit.FastViT, graph: onnx.ModelProto) -> None:
    found = layers(graph)
    modules = dict(fastvit.fuse(model).named_modules())
    weighted = {name for name, module in modules.items() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))}
    assert {layer.name for layer in found} == weighted
    assert len(found) == len(weighted)
    for layer in found:
        module = modules[layer.name]
        grouped = isinstance(module, torch.nn.Conv2d) and module.groups > 1
        linear = isinstance(module, torch.nn.Linear)
        assert layer.kind == ("linear" if linear else "depthwise" if grouped else "convolution")


def test_weights_are_int8_with_a_scale_a_channel_and_kept_ones_float(
    graph: onnx.ModelProto, images: np.ndarray
) -> None:
    quantized = quantize(graph, images, keep=["backbone.stem.*", "head"])
    onnx.checker.check_model(quantized)
    types = weight_types(quantized)
    for layer in layers(graph):
        kept = layer.kind == "depthwise" or layer.name == "head" or layer.name.startswith("backbone.stem.")
        assert types[layer.name] == (np.float32 if kept else np.int8), layer.name
    assert np.int8 in types.values()
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    weights = [n for n in quantized.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in tensors]
    weights = [node for node in weights if tensors[node.input[0]].dtype == np.int8]
    assert len(weights) == sum(kind == np.int8 for kind in types.values())
    for node in weights:
        values, scales, zeros = (tensors[name] for name in node.input)
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
        assert scales.shape == (values.shape[axis],)
        assert not zeros.any(), "symmetric"
        assert abs(values.astype(int)).max() <= 64, "sums of two products fit into 16 bits"


def test_patterns_must_name_a_layer(graph: onnx.ModelProto, images: np.ndarray) -> None:
    assert matching(["a.b", "a.c", "d"], ["a.*"]) == ["a.b", "a.c"]
    with pytest.raises(
        fastvit.UserError, match=r"'backbone.stam.\*' does not match any layer; the layers are backbone.stem.0"
    ):
        quantize(graph, images, keep=["backbone.stam.*"])
    with pytest.raises(fastvit.UserError, match="coreml does not support --keep-float: leave it out"):
        find_target("coreml").check(ExportOptions("int8", keep_float=("head",)))
    with pytest.raises(fastvit.UserError, match="keep_float is for int8, not for fp16"):
        ExportOptions("fp16", keep_float=("head",))


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=needs_openvino)])
def test_int8_needs_calibration_images(name: str, program: Program, tmp_path: Path) -> None:
    target = find_target(name)
    with pytest.raises(fastvit.UserError, match="int8 needs calibration images"):
        target.write(program, tmp_path / f"model{target.suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=needs_openvino)])
def test_accuracy_within_half_a_point(
    name: str, model: fastvit.FastViT, validation: tuple[list[Image.Image], list[int]], tmp_path: Path
) -> None:
    target = find_target(name)
    pictures, labels = validation
    path = tmp_path / f"model{target.suffix}"
    done = export(model, target, path, pictures, INT8, labels, calibration_pictures(count=64))
    assert done.proof is not None
    assert done.proof.accuracy is not None
    assert done.proof.accuracy[0] > 0.7, "the network has learnt"
    lost = 100 * (done.proof.accuracy[0] - done.proof.accuracy[1])
    assert lost <= 0.5 + done.proof.chance
    assert done.proof.differences.cosine > (0.995 if name == "onnx" else 0.985)
    assert done.signature.precision == "int8"
    if name == "openvino":
        import openvino

        ops = openvino.Core().read_model(path).get_ops()
        types = [op.get_element_type().get_type_name() for op in ops if op.get_type_name() == "Constant"]
        assert types.count("i8") >= 20, "weights are int8 in the file"


def test_a_fixed_batch_and_pixels(
    model: fastvit.FastViT, validation: tuple[list[Image.Image], list[int]], tmp_path: Path
) -> None:
    options = ExportOptions("int8", batch=3, input="pixels", output="probabilities")
    done = export(
        model,
        find_target("onnx"),
        tmp_path / "model.onnx",
        validation[0][:10],
        options,
        calibration=calibration_pictures(count=32),
    )
    assert done.proof is not None


@pytest.mark.slow
@needs_openvino
def test_openvino_keeps_named_layers_in_float(graph: onnx.ModelProto, images: np.ndarray, tmp_path: Path) -> None:
    import openvino

    from fastvit.export.quantize.openvino import quantize as quantize_openvino

    onnx.save(graph, tmp_path / "model.onnx")

    def fake_quantized(keep: list[str]) -> set[str]:
        model = openvino.convert_model(tmp_path / "model.onnx")
        quantized = quantize_openvino(model, layers(graph), images[:8], keep)
        return {
            op.get_friendly_name().split("/")[0]
            for op in quantized.get_ops()
            if op.get_type_name() in ("Convolution", "MatMul")
            and op.input_value(0).get_node().get_type_name() == "FakeQuantize"
        }

    nodes = {layer.name: layer.node for layer in layers(graph)}
    kept = ["backbone.stem.2.conv", "head"]
    assert fake_quantized([]) - fake_quantized(kept) == {nodes[name] for name in kept}


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("executorch") is None or find_spec("torchao") is None, reason="needs the extra fastvit[executorch]"
)
def test_pt2e_quantizes_the_network_with_attention(model: fastvit.FastViT, images: np.ndarray) -> None:
    from fastvit.export.pt2 import trace
    from fastvit.export.quantize.pt2e import quantize as quantize_pt2e

    program = build_program(model, ExportOptions("int8", batch=8))
    with pytest.raises(fastvit.UserError, match="int8 needs calibration images"):
        quantize_pt2e(trace(program), None, 8)
    quantized = quantize_pt2e(trace(program), images[:32], 8)
    batch = torch.from_numpy(images[32:40])
    with torch.inference_mode():
        differences = compare(program.module(batch), quantized.module()(batch))
    assert differences.cosine > 0.98, "0.76 and less where a norm before attention is folded wrongly"
    tensors = [*quantized.state_dict.values(), *quantized.constants.values()]
    weights = [t for t in tensors if isinstance(t, torch.Tensor) and t.dtype == torch.int8]
    assert len(weights) > 20


@pytest.mark.slow
@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")),
    reason="needs the extra fastvit[litert]",
)
def test_litert(model: fastvit.FastViT, validation: tuple[list[Image.Image], list[int]], tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    options, path = ExportOptions("int8", batch=8), tmp_path / "model.tflite"
    pictures, labels = validation
    done = export(model, find_target("litert"), path, pictures, options, labels, calibration_pictures(count=32))
    assert done.proof is not None
    assert done.proof.differences.cosine > 0.995
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert entry["dtype"] == end["dtype"] == np.float32
    assert np.int8 in {tensor["dtype"] for tensor in interpreter.get_tensor_details()}


@pytest.mark.slow
def test_the_table_finds_a_layer_made_sensitive(model: fastvit.FastViT, images: np.ndarray) -> None:
    damaged = calibrate(convert(build_program(with_outlier(model), INT8)), images)
    source = open_images("sample", "train")
    labels = [source.labels[i] for i in chosen(len(source), len(images))]
    usual = [layer.name for layer in layers(damaged.model) if layer.kind != "depthwise"]
    rows = table(damaged, images, usual, labels)
    assert [row.layer for row in rows] == usual
    worst, second = sorted(rows, key=lambda row: -row.error)[:2]
    assert worst.layer == OUTLIER
    assert worst.error > 2 * second.error
    assert worst.cosine == min(row.cosine for row in rows)
    assert all(row.loss is not None for row in rows)
    depthwise = [layer.name for layer in layers(damaged.model) if layer.kind == "depthwise"]
    before = error(outputs(damaged.model, images), outputs(damaged.quantized(usual), images))
    choice = choose(damaged, images, depthwise, bound=0.6 * before)
    assert choice.met
    assert choice.kept == (*depthwise, OUTLIER)
    assert choice.errors[0] == pytest.approx(before)
    written = weight_types(quantize(damaged.model, images, bound=0.6 * before))
    assert written[OUTLIER] == np.float32
    assert all(written[name] == np.int8 for name in usual if name != OUTLIER)


def test_no_search_within_the_bound_and_all_in_float_at_the_worst(
    calibrated: Calibrated, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    depthwise = [layer.name for layer in layers(calibrated.model) if layer.kind == "depthwise"]
    with pytest.raises(fastvit.UserError, match="bound must be at least 0"):
        choose(calibrated, images[:8], depthwise, bound=-1)
    every = [layer.name for layer in layers(calibrated.model)]
    strict = choose(calibrated, images[:8], every[2:], bound=0.0)
    assert strict.met
    assert set(strict.kept) == set(every)
    assert strict.errors[-1] == 0.0

    def never(*_: object) -> None:
        raise AssertionError("no table is needed")

    monkeypatch.setattr("fastvit.export.quantize.sensitivity.table", never)
    assert choose(calibrated, images[:8], depthwise, bound=10.0).kept == tuple(depthwise)


def test_the_plot_has_a_bar_a_layer(calibrated: Calibrated, images: np.ndarray, tmp_path: Path) -> None:
    names = [layer.name for layer in layers(calibrated.model)][:4]
    figure = plot(table(calibrated, images[:8], names), "title")
    figure.savefig(tmp_path / "plot.png")
    axes = figure.axes[0]
    assert len(axes.patches) == 4
    assert [label.get_text() for label in axes.get_yticklabels()] == [n.removeprefix("backbone.") for n in names]


@pytest.mark.parametrize(
    ("agreeing", "after", "refused"),
    [(1.0, 0.9, False), (0.98, 0.89, False), (0.98, 0.88, True), (0.9, 0.85, True), (float("nan"), float("nan"), True)],
)
def test_a_loss_of_accuracy_counts_beyond_chance(agreeing: float, after: float, refused: bool) -> None:
    proof = Proof(200, Differences(0.1, 0.1, 1.0, agreeing), (0.9, after))
    assert bool(Tolerance(1.0, 0.9, 0.5).missed(proof)) == refused
