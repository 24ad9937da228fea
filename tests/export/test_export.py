"""Artifacts are proved: equal where they are, refused where they are not. What every target inherits."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from PIL import Image
from torch import nn

import fastvit
from fastvit.arguments import parse_batches, parse_size
from fastvit.cli.main import main
from fastvit.data.load import open_images
from fastvit.data.pixels import normalized
from fastvit.export.export import export, export_all
from fastvit.export.options import ExportOptions
from fastvit.export.pictures import Pictures
from fastvit.export.program import DTYPES, build_program
from fastvit.export.proof import TOLERANCES, Proof
from fastvit.export.target import TARGETS, Target, find_target
from fastvit.numerics import Differences, compare
from fastvit.runtime.artifact import RUNTIMES, Artifact, open_artifact
from tests.helpers import randomize, tiny

HALVES = ("fp16", "bf16")
# Those that take their time; they have their turn in make test-all.
SLOW = ("openvino", "aoti", "executorch", "executorch-coreml", "coreml", "litert", "tensorrt", "ncnn")


def cases(targets: Iterable[Target], *more: Sequence[str]) -> list[ParameterSet]:
    """Names of targets, each with more of its own."""
    rows = zip((target.name for target in targets), *more, strict=True)
    return [pytest.param(*row, marks=[pytest.mark.slow] if row[0] in SLOW else []) for row in rows]


def writable(name: str) -> Target:
    """A target, or a skipped test where what it needs is not installed."""
    try:
        TARGETS[name].check(ExportOptions())
    except fastvit.UserError as error:
        pytest.skip(str(error))
    return TARGETS[name]


@pytest.fixture(params=cases(target for target in TARGETS.values() if target.runtime))
def target(request: pytest.FixtureRequest) -> Target:
    """Every target whose artifacts one of our runtimes runs, where that is here."""
    chosen = writable(request.param)
    if chosen.runner and (reason := chosen.runner.available()):
        pytest.skip(reason)
    return chosen


@pytest.mark.parametrize("name", cases(TARGETS.values()))
def test_what_does_not_run_here_is_written_without_a_proof(
    name: str, model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path
) -> None:
    target = writable(name)
    if target.runner and target.runner.available() is None:
        pytest.skip(f"{target.runtime} runs here, and the artifact is proved")
    exported = export(model, target, tmp_path / f"model{target.suffix}", pictures)
    assert exported.proof is None
    assert exported.not_run
    assert exported.path.exists()
    assert exported.megabytes > 0.01


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    made = randomize(tiny(attention=True, classes=[f"class {i}" for i in range(10)]))
    made.preprocessing = fastvit.Preprocessing((64, 64), crop_pct=0.95, interpolation="bilinear")
    return made


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    sample = open_images("sample", "test")
    return [sample.image(i) for i in range(0, 1000, 200)]


def expected(model: fastvit.FastViT, pixels: np.ndarray) -> torch.Tensor:
    """By hand: normalize, then the network."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    with torch.inference_mode():
        return model((torch.from_numpy(pixels).float() / 255 - mean) / std)


def write(model: fastvit.FastViT, target: Target, path: Path, options: ExportOptions) -> None:
    target.check(options)
    target.write(build_program(model, options, target.cast), path)


class _OfSingularValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x[:, None])


class _Cumulative(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)


def test_what_a_converter_cannot_take_keeps_no_other_from_being_written(
    pictures: list[Image.Image], tmp_path: Path
) -> None:
    """ONNX has no singular values, and .pt2 files no operator that is not opened again."""
    few = Pictures("a picture", pictures[:1])
    both = [TARGETS["torch"], TARGETS["onnx"]]
    for layer, written in ((_OfSingularValues(), []), (_Cumulative(), ["onnx"])):
        model = randomize(tiny()).eval()
        model.head = nn.Sequential(model.head, layer)
        done, failed = export_all(model, both, [ExportOptions()], tmp_path, few, None, lambda line: None)
        assert [exported.target.name for exported in done] == written
        reasons = list(failed.values())
        operator = "linalg_svdvals" if not written else "cumsum"
        assert f"this network has the operator aten.{operator}.default" in reasons[0]
        assert all(reason.startswith("the onnx converter failed on this network (") for reason in reasons[1:])
        assert [path.name for path in tmp_path.iterdir()] == [exported.path.name for exported in done]


def contents(folder: Path) -> Iterator[bytes]:
    """What is in all files of a folder, those in archives apart."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from map(archive.read, archive.namelist())


def test_every_target_is_proved_and_says_what_it_is(
    target: Target, model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / f"model{target.suffix}"
    exported = export(model, target, path, pictures, labels=[0] * len(pictures))
    assert exported.proof is not None
    assert exported.proof.differences.relative < 1e-5
    assert exported.proof.images == len(pictures)
    assert exported.proof.accuracy
    assert exported.proof.accuracy[0] == exported.proof.accuracy[1]
    assert exported.megabytes > 0.1
    artifact = open_artifact(path, target.runtime or "", allow_native_code=True)
    assert artifact.description.classes == model.classes
    assert artifact.description.preprocessing == model.preprocessing
    assert (artifact.description.variant, artifact.description.form) == ("custom", "fused")
    assert artifact.signature == exported.signature
    assert len(artifact.signature.digest) == 64
    here = str(Path(fastvit.__file__).parent).encode()
    assert not any(here in part for part in contents(tmp_path)), "source files of this machine are nobody's business"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    (output,) = artifact(normalized(pixels, model.preprocessing)).values()
    artifact(np.zeros((1, 3, 64, 64), np.float32))
    assert compare(expected(model, pixels), output).relative < 1e-5, "an output is the caller's, not the runtime's"
    for wrong in (
        np.zeros((1, 3, 64, 64)),
        np.zeros((2, 3, 64, 64), np.float32),
        np.zeros((1, 1, 64, 64), np.float32),
        np.zeros((1, 3, 96, 64), np.float32),
        np.zeros((3, 64, 64), np.float32),
    ):
        with pytest.raises(fastvit.UserError, match="the artifact takes"):
            artifact(wrong)


def test_openvino_is_proved(model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path) -> None:
    """The contract's first test; the rest of it takes a minute."""
    pytest.importorskip("openvino", reason='needs pip install "fastvit[openvino]"')
    test_every_target_is_proved_and_says_what_it_is(TARGETS["openvino"], model, pictures, tmp_path)


@pytest.mark.parametrize("kind", ["pixels", "unit"])
def test_normalization_inside_is_exact_also_at_the_border(
    target: Target, model: fastvit.FastViT, tmp_path: Path, kind: str
) -> None:
    """White pixels in the corners: a mean folded into the bias would be wrong where the stem pads."""
    path = tmp_path / f"model{target.suffix}"
    batch = 1 if target.name == "ncnn" else 3
    options = ExportOptions(input=kind, output="probabilities", batch=batch)
    write(model, target, path, options)
    artifact = open_artifact(path, target.runtime or "", allow_native_code=True)
    pixels = np.random.default_rng(1).integers(200, 256, (batch, 3, 64, 64), np.uint8)
    images = pixels if kind == "pixels" else pixels.astype(np.float32) / np.float32(255)
    (output,) = artifact(images).values()
    assert output.sum(1) == pytest.approx(1, abs=1e-5)
    assert compare(expected(model, pixels).softmax(1), output).relative < 1e-5


def test_maps_of_the_backbone(
    target: Target, model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / f"model{target.suffix}"
    exported = export(model, target, path, pictures, ExportOptions(output="features", size=(64, 96)))
    assert exported.signature.outputs == ("stride4", "stride8", "stride16", "stride32")
    outputs = open_artifact(path, target.runtime or "", allow_native_code=True)(np.zeros((1, 3, 64, 96), np.float32))
    assert [output.shape for output in outputs.values()] == [
        (1, 16, 16, 24),
        (1, 16, 8, 12),
        (1, 32, 4, 6),
        (1, 32, 2, 3),
    ]
    with pytest.raises(fastvit.UserError, match="which are not predictions"):
        fastvit.Predictor(path, allow_native_code=True)


def test_any_batch_and_size_where_offered(target: Target, model: fastvit.FastViT, tmp_path: Path) -> None:
    for what in ("batch", "size"):
        if what not in target.dynamic:
            with pytest.raises(fastvit.UserError, match=f"have a fixed {what}"):
                target.check(ExportOptions(**{what: "dynamic"}))
    if not target.dynamic:
        return
    path = tmp_path / f"model{target.suffix}"
    write(model, target, path, ExportOptions(**dict.fromkeys(target.dynamic, "dynamic")))
    artifact = open_artifact(path, target.runtime or "", allow_native_code=True)
    sizes = [(32, 32), (33, 95), (64, 64)] if "size" in target.dynamic else [(64, 64)]
    for batch in (1, 2, 5):
        for height, width in sizes:
            pixels = np.random.default_rng(batch).integers(0, 256, (batch, 3, height, width), np.uint8)
            (output,) = artifact(normalized(pixels, model.preprocessing)).values()
            assert compare(expected(model, pixels), output).relative < 1e-4, (batch, height, width)
    with pytest.raises(fastvit.UserError, match=r"at least 32x32 pixels|takes images of 64x64"):
        artifact(np.zeros((1, 3, 31, 64), np.float32))
    with pytest.raises(fastvit.UserError, match="takes one or more images"):
        artifact(np.zeros((0, 3, 64, 64), np.float32))


LOWER = [(target, precision) for target in TARGETS.values() for precision in target.precisions if precision in HALVES]


@pytest.mark.parametrize(("name", "precision"), cases(*zip(*LOWER, strict=True)))
def test_lower_precisions(
    name: str, precision: str, model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path
) -> None:
    target = writable(name)
    if target.runner is None or target.runner.available():
        pytest.skip(f"no runtime of this package runs {target.suffix} files")
    path = tmp_path / f"model{target.suffix}"
    exported = export(model, target, path, pictures, ExportOptions(precision))
    assert exported.proof
    assert exported.proof.differences.cosine > 0.9999
    program = build_program(model, ExportOptions(precision), target.cast)
    kept = DTYPES[precision] if precision in target.cast else torch.float32
    assert {parameter.dtype for parameter in program.module.parameters()} == {kept}
    assert open_artifact(path, target.runtime or "", allow_native_code=True).signature.precision == precision


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["t8", "sa12"])
def test_variants(target: Target, variant: str, pictures: list[Image.Image], tmp_path: Path) -> None:
    full = randomize(fastvit.create_model(variant, num_classes=5)).eval()
    exported = export(full, target, tmp_path / f"model{target.suffix}", pictures, ExportOptions(size=(64, 64)))
    assert exported.proof
    assert exported.proof.differences.relative < 1e-4


def test_a_wrong_artifact_is_not_written(model, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fastvit.fuse(randomize(tiny(attention=True), seed=5))
    other.preprocessing, other.classes = model.preprocessing, model.classes
    monkeypatch.setattr("fastvit.export.program.fuse", lambda _: other)
    (tmp_path / "model.onnx").write_text("the previous one")
    with pytest.raises(fastvit.UserError, match="outputs in onnxruntime differ from those of the model: relative"):
        export(model, TARGETS["onnx"], tmp_path / "model.onnx", pictures)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the previous one"


def test_tolerances_miss_nothing() -> None:
    bound = TOLERANCES["fp16"]
    good = Differences(max_abs=1e-3, relative=1e-3, cosine=0.99999, top1=1.0)
    assert bound.missed(Proof(9, good, (0.8, 0.8))) == []
    assert "relative" in bound.missed(Proof(9, Differences(1, float("nan"), 1.0, 1.0), None))[0]
    assert "cosine 0.9" in bound.missed(Proof(9, Differences(1e-3, 1e-3, 0.9, 1.0), None))[0]
    (lost,) = bound.missed(Proof(9, good, (0.8, 0.79)))
    assert lost.startswith("1.00 points of top-1 lost, allowed 0.2")


def test_wrong_names_and_files(model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="unknown export target 'coffee'; choose from onnx, "):
        find_target("coffee")
    with pytest.raises(fastvit.UserError, match=r"end in \.onnx"):
        export(model, TARGETS["onnx"], tmp_path / "model.pt", pictures)
    with pytest.raises(fastvit.UserError, match="onnx does not support bf16; it supports fp32, fp16, int8"):
        TARGETS["onnx"].check(ExportOptions("bf16"))
    with pytest.raises(fastvit.UserError, match="not an artifact: file names of artifacts end in"):
        open_artifact(tmp_path / "model.tar")
    with pytest.raises(fastvit.UserError, match=r"openvino does not read .*it runs in torch"):
        open_artifact(tmp_path / "model.pt2", "openvino")
    with pytest.raises(fastvit.UserError, match="does not have a head"):
        export(tiny(num_classes=0), TARGETS["onnx"], tmp_path / "model.onnx", pictures)
    missing = Target("x", ".x", None, "x", ("no_such_package",), "pip install x", ("fp32",))
    with pytest.raises(fastvit.UserError, match="x needs no_such_package: pip install x"):
        missing.check(ExportOptions())


def test_missing_and_damaged_artifacts_are_one_sentence(target: Target, model: fastvit.FastViT, tmp_path: Path) -> None:
    path = tmp_path / f"model{target.suffix}"
    with pytest.raises(fastvit.UserError, match="does not exist"):
        open_artifact(path, target.runtime or "", allow_native_code=True)
    write(model, target, path, ExportOptions())
    for share in (0.5, 0):
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        with pytest.raises(fastvit.UserError, match=r"cannot (read|load) .*model") as error:
            open_artifact(path, target.runtime or "", allow_native_code=True)
        assert "\n" not in str(error.value)


def test_onnx_is_one_file_without_norms(model: fastvit.FastViT, pictures: list[Image.Image], tmp_path: Path) -> None:
    import onnx

    export(model, TARGETS["onnx"], tmp_path / "model.onnx", pictures)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"], "one file, weights inside"
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    info = json.loads({p.key: p.value for p in proto.metadata_props}["fastvit"])
    assert info["classes"] == list(model.classes or ())
    assert info["artifact"]["input"] == "normalized"


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match="was not written by fastvit export"):
        Artifact(tmp_path / "x.onnx", None, "onnxruntime", list)
    with pytest.raises(fastvit.UserError, match="lacks variant, form, config, preprocessing"):
        Artifact(tmp_path / "x.onnx", '{"format_version": 1}', "onnxruntime", list)


def test_runtimes_that_are_not_here_say_so() -> None:
    reason = RUNTIMES["coreml"].available()
    assert reason is None or reason.startswith(("coreml runs on Darwin", "coreml is not installed: pip install"))


def test_options() -> None:
    assert (parse_size("96x64"), parse_size("256"), parse_size("dynamic"), parse_size(None)) == (
        (96, 64),
        (256, 256),
        "dynamic",
        None,
    )
    assert parse_batches("1, 8,dynamic") == [1, 8, "dynamic"]
    for wrong in ("x", "1x2x3", "-4"):
        with pytest.raises(fastvit.UserError, match="size must be"):
            parse_size(wrong)
    with pytest.raises(fastvit.UserError, match="batch must be"):
        parse_batches("all")
    with pytest.raises(fastvit.UserError, match="batch must be at least 1"):
        ExportOptions(batch=0)
    with pytest.raises(fastvit.UserError, match="at least 32x32 pixels"):
        ExportOptions(size=(16, 64))


def test_command(model: fastvit.FastViT, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two targets and batches; one target that fails keeps the other's artifacts."""
    checkpoint = fastvit.save(model, tmp_path / "model.safetensors")
    folder = tmp_path / "out"
    assert main(["export", str(checkpoint), "--to", "onnx,torch", "--batch", "1,4", "--out", str(folder)]) == 0
    names = {f"custom-fp32-b{batch}{suffix}" for batch in (1, 4) for suffix in (".onnx", ".pt2")}
    assert {path.name for path in folder.iterdir()} == names | {"report.json", "report.html"}
    report = json.loads((folder / "report.json").read_text())
    assert {artifact["file"] for artifact in report["artifacts"]} == names
    assert all(artifact["proof"]["differences"]["relative"] < 1e-4 for artifact in report["artifacts"])
    assert report["compared_on"] == "64 images of sample"
    assert "4 of 4 artifacts verified" in (folder / "report.html").read_text()
    assert main(["export", str(checkpoint), "--to", "onnx,coffee"]) == 2
    assert "unknown export target 'coffee'" in capsys.readouterr().err
