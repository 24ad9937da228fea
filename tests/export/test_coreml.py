"""Core ML packages: what they take and give, what they are made of, and, operator by operator, what they compute."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastvit
from fastvit.export.export import Exported, export
from fastvit.export.options import ExportOptions
from fastvit.export.target import TARGETS
from fastvit.model.variants import VARIANTS
from fastvit.numerics import compare
from fastvit.runtime.artifact import RUNTIMES, Precision, open_artifact
from tests.helpers import noise_pictures, randomize, small, tiny

coremltools = pytest.importorskip("coremltools", reason='needs pip install "fastvit[coreml]"')
from tests.export.mil import MilProgram  # noqa: E402

COREML = TARGETS["coreml"]
NAMES = [f"class {i}" for i in range(10)]
SIZE = (64, 32)


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return randomize(tiny(attention=True, classes=NAMES))


@pytest.fixture(scope="module")
def classifier(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels in, a label and probabilities out, in float16."""
    path = tmp_path_factory.mktemp("coreml") / "model.mlpackage"
    write(model, path, ExportOptions("fp16", size=SIZE, input="pixels", output="probabilities"))
    return path


def write(model: fastvit.FastViT, path: Path, options: ExportOptions) -> Exported:
    return export(model, COREML, path, noise_pictures(2), options)


def normalized(model: fastvit.FastViT, pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core ML's place taken by our reading of the package, so that all but Core ML itself is run here."""

    class Package(coremltools.models.MLModel):
        def __init__(self, source: object, **options: Any) -> None:
            super().__init__(source, **{**options, "skip_model_load": True})
            self.source = source

        def predict(self, given: dict[str, Any]) -> dict[str, Any]:
            ((name, images),) = given.items()
            if isinstance(images, Image.Image):
                images = np.asarray(images).transpose(2, 0, 1)[None]
            assert name == "images"
            values = MilProgram(Path(str(self.source)))(images)
            names = [output.name for output in self.get_spec().description.output]
            return {name: np.asarray(v) if isinstance(v := values[name], torch.Tensor) else v for name in names}

    monkeypatch.setattr(coremltools.models, "MLModel", Package)
    monkeypatch.setattr("platform.system", lambda: "Darwin")


@pytest.mark.skipif(RUNTIMES["coreml"].available() is None, reason="Core ML is here")
def test_written_not_run(model: fastvit.FastViT, tmp_path: Path) -> None:
    exported = write(model, tmp_path / "model.mlpackage", ExportOptions(size=SIZE))
    assert exported.proof is None
    assert "written, not run: coreml runs on Darwin, this is" in str(exported)
    with pytest.raises(fastvit.UserError, match="coreml runs on Darwin"):
        open_artifact(exported.path)


def test_an_app_sees_an_image_a_label_and_probabilities(model: fastvit.FastViT, classifier: Path) -> None:
    spec = MilProgram(classifier).spec
    (source,) = spec.description.input
    image = source.type.imageType
    assert (source.name, image.height, image.width) == ("images", *SIZE)
    assert image.ColorSpace.Name(image.colorSpace) == "RGB"
    assert [output.name for output in spec.description.output] == ["classLabel", "classLabel_probs"]
    assert spec.description.predictedFeatureName == "classLabel"
    assert spec.description.predictedProbabilitiesName == "classLabel_probs"
    assert spec.specificationVersion == coremltools.target.iOS16.value
    metadata = json.loads(spec.description.metadata.userDefined["fastvit"])
    assert metadata["classes"] == NAMES
    assert metadata["artifact"]["input"] == "pixels"
    assert metadata["artifact"]["size"] == list(SIZE)


def test_the_program_computes_what_the_model_does(model: fastvit.FastViT, classifier: Path) -> None:
    program = MilProgram(classifier)
    assert "batch_norm" not in program.operators
    assert "conv" in program.operators
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, *SIZE), np.uint8)
    values = program(pixels)
    with torch.inference_mode():
        (expected,) = model(normalized(model, pixels)).softmax(1)
    output = values["classLabel_probs"]
    assert list(output) == NAMES
    assert values["classLabel"] == NAMES[int(expected.argmax())]
    assert compare(expected, torch.tensor(list(output.values()))).relative < 5e-3, "only the weights are rounded"


@pytest.mark.slow
def test_the_proof_on_a_mac(model: fastvit.FastViT, classifier: Path, mac: None, tmp_path: Path) -> None:
    options = ExportOptions("fp16", size=SIZE, input="pixels", output="probabilities")
    exported = write(model, tmp_path / "model.mlpackage", options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < 5e-3
    opened = open_artifact(classifier)
    assert opened.description.classes == tuple(NAMES)
    for shape in ((2, 3, *SIZE), (1, 3, 32, 64), (1, 1, *SIZE)):
        with pytest.raises(fastvit.UserError, match="the artifact takes"):
            opened(np.zeros(shape, np.uint8))


@pytest.mark.slow
def test_the_script_for_a_mac(model: fastvit.FastViT, classifier: Path, mac: None, tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "prove_on_mac.py"))
    for source, expected in ((model, []), (randomize(tiny(attention=True, classes=NAMES), seed=9), ["relative"])):
        checkpoint = fastvit.save(source, tmp_path / "model.safetensors")
        assert [reason.split()[0] for reason in script["run"](str(checkpoint), classifier, None, 4)][:1] == expected


@pytest.mark.slow
def test_any_batch_in_float32(model: fastvit.FastViT, mac: None, tmp_path: Path) -> None:
    exported = write(model, tmp_path / "model.mlpackage", ExportOptions(size=SIZE, batch="dynamic"))
    assert exported.proof is not None
    images = torch.randn(67, 3, *SIZE)
    with torch.inference_mode():
        expected = model(images)
    output = open_artifact(exported.path)(images.numpy())["logits"]
    assert compare(expected, output).relative < 1e-5, "also for more than Core ML takes at once"


@pytest.mark.parametrize("damage", ["empty", "manifest", "model"])
def test_a_damaged_package(classifier: Path, mac: None, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "damaged.mlpackage"
    if damage == "empty":
        path.mkdir()
    else:
        shutil.copytree(classifier, path)
        for file in path.rglob("Manifest.json" if damage == "manifest" else "model.mlmodel"):
            file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(fastvit.UserError, match=r"Core ML cannot read .*damaged\.mlpackage: \S+"):
        open_artifact(path)


def test_what_is_not_offered(model: fastvit.FastViT, tmp_path: Path) -> None:
    for options, reason in (
        (ExportOptions("bf16"), "coreml does not support bf16"),
        (ExportOptions(size="dynamic"), "coreml artifacts have a fixed size"),
        (ExportOptions(batch=2, input="pixels"), "Core ML takes one image of 1 or 3 channels per call"),
        (ExportOptions(batch="dynamic", input="pixels"), "Core ML takes one image of 1 or 3 channels per call"),
    ):
        with pytest.raises(fastvit.UserError, match=reason):
            write(model, tmp_path / "model.mlpackage", options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "precision", "relative"), [
    ("t8", "fp32", 1e-5), ("sa12", "fp32", 1e-5), ("sa12", "fp16", 5e-3), ("sa12", "int8", 0.1),
    ("sa12", "palettized", 0.2), ("mci3", "fp32", 1e-5),
])  # fmt: skip
def test_variants(mac: None, tmp_path: Path, variant: str, precision: Precision, relative: float) -> None:
    config = VARIANTS[f"fastvit_{variant}"].config.replace(num_classes=5)
    full = randomize(fastvit.FastViT(small(config) if variant == "mci3" else config, variant)).eval()
    exported = write(full, tmp_path / "model.mlpackage", ExportOptions(precision, size=(64, 64)))
    assert exported.proof is not None
    assert exported.proof.differences.relative < relative
    compressed = {"int8": "constexpr_affine_dequantize", "palettized": "constexpr_lut_to_dense"}
    operators = MilProgram(exported.path).operators
    assert {name for name in operators if name.startswith("constexpr")} == {compressed.get(precision)} - {None}


@pytest.mark.slow
def test_feature_maps(model: fastvit.FastViT, mac: None, tmp_path: Path) -> None:
    options = ExportOptions("fp16", batch=2, size=SIZE, input="unit", output="features")
    exported = write(model, tmp_path / "model.mlpackage", options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < 5e-3
    outputs = MilProgram(exported.path).spec.description.output
    assert [output.name for output in outputs] == ["stride4", "stride8", "stride16", "stride32"]
