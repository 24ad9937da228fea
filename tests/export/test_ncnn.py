"""ncnn networks give the outputs of the model, with attention too, and are refused where ncnn would crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fastvit
from fastvit.export.attention import PlainAttention, with_plain_attention
from fastvit.export.export import export
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.target import TARGETS
from fastvit.model.mixers import SelfAttention
from fastvit.model.variants import VARIANTS
from fastvit.numerics import compare
from fastvit.runtime.artifact import Input, Precision, open_artifact
from tests.helpers import noise_pictures, randomize, small, tiny

pytest.importorskip("ncnn", reason='needs pip install "fastvit[ncnn]"')
pytest.importorskip("pnnx", reason='needs pip install "fastvit[ncnn]"')
NCNN = TARGETS["ncnn"]


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    torch.manual_seed(0)
    return sharp(randomize(tiny(attention=True, classes=[f"clässe {i}" for i in range(10)])))


def sharp(model: fastvit.FastViT) -> fastvit.FastViT:
    """With attention far from uniform; as initialized, it is nearly a mean, and hides what is wrong with it."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SelfAttention):
                for linear in (module.qkv, module.proj):
                    linear.weight.normal_(0, 2 * linear.in_features**-0.5)
    return model


@pytest.fixture(scope="module")
def artifact(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ncnn") / "model.ncnn.param"
    exported = export(model, NCNN, path, noise_pictures(2), ExportOptions(size=(64, 96)))
    assert exported.proof is not None
    assert exported.proof.differences.relative < 1e-5
    return path


def test_plain_attention_is_attention(model: fastvit.FastViT) -> None:
    program = build_program(model, ExportOptions(size=(64, 96)))
    plain = with_plain_attention(program.module)
    assert not any(isinstance(module, SelfAttention) for module in plain.modules())
    assert any(isinstance(module, SelfAttention) for module in program.module.modules()), "the module is left alone"
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        assert compare(program.module(images), plain(images)).relative < 1e-5
    only = SelfAttention(64, 16).double()
    torch.nn.init.normal_(only.qkv.weight)
    maps = torch.randn(2, 64, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(PlainAttention(only)(maps), only(maps), rtol=1e-12, atol=1e-12)


def test_files_contain_their_description_and_give_the_model_outputs(model: fastvit.FastViT, artifact: Path) -> None:
    opened = open_artifact(artifact)
    assert opened.description.classes == model.classes
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert compare(model(images), opened(images.numpy())["logits"]).relative < 1e-5
    assert sorted(file.name for file in artifact.parent.iterdir()) == ["model.ncnn.bin", "model.ncnn.param"]
    assert "BatchNorm" not in artifact.read_text()
    assert json.loads(artifact.read_text().splitlines()[-1].removeprefix("fastvit "))["form"] == "fused"


@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (1, 3, 96, 64), (1, 1, 64, 96)])
def test_wrong_shapes_are_refused(artifact: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(fastvit.UserError, match="the artifact takes"):
        open_artifact(artifact)(np.zeros(shape, np.float32))


@pytest.mark.parametrize(("suffix", "length"), [(".param", 0), (".param", 2000), (".bin", 0), (".bin", 50_000)])
def test_a_damaged_file(artifact: Path, tmp_path: Path, suffix: str, length: int) -> None:
    for file in artifact.parent.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:length] if file.suffix == suffix else content)
    with pytest.raises(fastvit.UserError, match=r"ncnn cannot read .*model\.ncnn\.param"):
        open_artifact(tmp_path / artifact.name)


def test_missing_weights_and_none_of_ours(artifact: Path, tmp_path: Path) -> None:
    text = artifact.read_text()
    (tmp_path / artifact.name).write_text(text)
    with pytest.raises(fastvit.UserError, match=r"with its weights in model\.ncnn\.bin"):
        open_artifact(tmp_path / artifact.name)
    (tmp_path / "model.ncnn.bin").write_bytes(artifact.with_suffix(".bin").read_bytes())
    (tmp_path / artifact.name).write_text(text[: text.index("fastvit ")])
    with pytest.raises(fastvit.UserError, match="was not written by fastvit export"):
        open_artifact(tmp_path / artifact.name)


def test_what_is_not_offered(model: fastvit.FastViT, tmp_path: Path) -> None:
    for options, reason in (
        (ExportOptions("int8"), "ncnn does not support int8"),
        (ExportOptions(batch=2), "ncnn takes one image per call"),
        (ExportOptions(batch="dynamic"), "ncnn artifacts have a fixed batch"),
    ):
        with pytest.raises(fastvit.UserError, match=reason):
            export(model, NCNN, tmp_path / "model.ncnn.param", noise_pictures(2), options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "output", "precision"),
    [("pixels", "features", "fp32"), ("unit", "probabilities", "fp32"), ("pixels", "logits", "fp16")],
)
def test_inputs_and_outputs(
    model: fastvit.FastViT, tmp_path: Path, kind: Input, output: str, precision: Precision
) -> None:
    options = ExportOptions(precision, size=(64, 64), input=kind, output=output)
    exported = export(model, NCNN, tmp_path / "model.ncnn.param", noise_pictures(2), options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < (1e-5 if precision == "fp32" else 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["t8", "sa12", "mci0", "mci3"])
def test_variants(tmp_path: Path, variant: str) -> None:
    config = VARIANTS[f"fastvit_{variant}"].config.replace(num_classes=5)
    full = randomize(fastvit.FastViT(small(config) if variant == "mci3" else config, variant)).eval()
    options = ExportOptions(size=(128, 128))
    exported = export(sharp(full), NCNN, tmp_path / "model.ncnn.param", noise_pictures(2), options)
    assert exported.proof is not None
    assert exported.proof.differences.relative < 1e-4
