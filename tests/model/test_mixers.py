"""Token mixers, each of the table, and the options of a network that the paper's ablations change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.models import metaformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import fastvit
from fastvit.cli.main import main
from fastvit.fusion import Affine, affine, norm_coefficients
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig, Stage
from fastvit.model.layers import LayerScale, RepConv
from fastvit.model.mixers import MIXERS, Pooling, TokenMixer
from fastvit.model.variants import VARIANTS
from tests.helpers import randomize


class Shift(nn.Module):
    """A mixer of a user's own, without a rule for fusion: each pixel sees the one to its left."""

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 3) - x


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(MIXERS, "shift", TokenMixer(lambda stage, config: Shift(), residual=True))
    return "shift"


def network(**options: object) -> FastViT:
    """Two stages of 32 and 64 channels, with one option of every stage or of the network."""
    config = FastViTConfig((Stage(32, 2, mlp_ratio=2.0), Stage(64, 1, mlp_ratio=2.0)), num_classes=7)
    stages = {name: value for name, value in options.items() if hasattr(Stage(1, 1), name)}
    rest = {name: value for name, value in options.items() if name not in stages}
    return randomize(FastViT(config.replace(**rest).with_stages(**stages)).double().eval())


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def fused_exactly(model: FastViT) -> FastViT:
    fused = fastvit.fuse(model)
    images = noise(2, 3, 45, 64)
    torch.testing.assert_close(fused(images), model(images), rtol=1e-10, atol=1e-12)
    assert (fastvit.form(model), fastvit.form(fused)) == ("train", "fused")
    assert not any(isinstance(module, (_BatchNorm, LayerScale)) for module in fused.modules())
    return fused


def same(one: FastViT, other: FastViT) -> None:
    """Bit for bit in the parameters, and in what is computed but for the order of sums."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    torch.testing.assert_close(one(noise(1, 3, 64, 64)), other(noise(1, 3, 64, 64)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_fuses_exactly_and_is_saved(mixer: str, tmp_path: Path) -> None:
    model = network(mixer=mixer)
    for kind in (model, fused_exactly(model)):
        fastvit.save(kind, tmp_path / "model.safetensors")
        same(fastvit.load(tmp_path / "model.safetensors"), kind)
    same(fastvit.fuse(fastvit.fuse(model)), fastvit.fuse(model))


@pytest.mark.parametrize("mixer", [name for name, row in MIXERS.items() if row.residual])
def test_layer_norm_before_a_mixer_keeps_its_normalization_alone(mixer: str) -> None:
    model = network(mixer=mixer, norm="layer")
    fused = fastvit.fuse(model)
    torch.testing.assert_close(fused(noise(2, 3, 64, 48)), model(noise(2, 3, 64, 48)), rtol=1e-10, atol=1e-12)
    norms = [module for module in fused.modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert not any(norm.elementwise_affine for norm in norms)


def test_every_mixer_trains() -> None:
    for mixer in MIXERS:
        model = network(mixer=mixer).train()
        model(noise(2, 3, 64, 64)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), mixer


def test_pooling_is_poolformers() -> None:
    x = noise(2, 5, 7, 9)
    assert torch.equal(Pooling(3)(x), metaformer.Pooling(3)(x))


def test_a_mixer_without_a_rule_keeps_its_norm_and_scale(shift: str) -> None:
    model = network(mixer=shift)
    fused = fastvit.fuse(model)
    torch.testing.assert_close(fused(noise(1, 3, 64, 64)), model(noise(1, 3, 64, 64)), rtol=1e-10, atol=1e-12)
    block = fused.backbone.stages[0].blocks[0]
    assert isinstance(block.norm, nn.BatchNorm2d)
    assert isinstance(block.layer_scale_1, LayerScale)
    assert isinstance(block.layer_scale_2, nn.Identity)
    assert fastvit.form(fused) == "fused"


@pytest.mark.parametrize("mixer", ["pooling", "shift"])
def test_kernels_say_which_mixer_they_do_not_know(mixer: str, shift: str) -> None:
    fast = fastvit.accelerate(network(mixer=mixer).half())
    assert fast.reason == f"the kernels do not support {mixer.capitalize()}"


def test_a_mixer_that_is_not_there_is_a_line(
    shift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fastvit.save(network(mixer=shift), tmp_path / "model.safetensors")
    monkeypatch.delitem(MIXERS, shift)
    assert main(["info", str(tmp_path / "model.safetensors")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unknown token mixer 'shift'; choose from repmixer, pooling, attention" in line


@pytest.mark.parametrize(
    "options", [{"overparameterized": False}, {"ffn_kernel": 3}, {"embed_kernels": (3,)}, {"mixer_kernel": 5}], ids=str
)
@pytest.mark.parametrize("mixer", MIXERS)
def test_options_of_the_ablations(mixer: str, options: dict[str, object]) -> None:
    fused_exactly(network(mixer=mixer, **options))


def test_without_overparameterization_one_convolution_is_left() -> None:
    model = fastvit.create_model("fastvit_t8", overparameterized=False)
    blocks = [module for module in model.modules() if isinstance(module, RepConv)]
    assert len(blocks) > 10
    assert all(len(block.branches) == 1 and block.identity is None for block in blocks)
    fused = [sum(p.numel() for p in fastvit.fuse(one).parameters()) for one in (model, fastvit.create_model("t8"))]
    assert fused[0] == fused[1]
    images = torch.randn(2, 3, 64, 64)
    outputs = [fastvit.collapse_branches(model, form).train()(images) for form in ("never", "always")]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


PLUGIN = """
import fastvit
from torch import nn

class Twice(nn.Module):
    def forward(self, x):
        return 2 * x

fastvit.register_mixer("twice", lambda stage, config: Twice(), residual=True)
config = fastvit.FastViTConfig((fastvit.Stage(16, 1, "twice"), fastvit.Stage(32, 1, "twice")), num_classes=3)
fastvit.register_variant(fastvit.Variant("twice_t1", config, params=0, params_fused=0, gmacs=0.0))
"""
PROGRAM = """
import sys, torch, fastvit
model = fastvit.create_model("twice_t1", num_classes=3).eval()
fastvit.save(fastvit.fuse(model), sys.argv[1])
"""


def test_a_plugin_is_found_by_other_processes(tmp_path: Path) -> None:
    """A package that names itself in an entry point: its variant is made, its mixer read from a file."""
    (tmp_path / "twice.py").write_text(PLUGIN)
    info = tmp_path / "twice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastvit.plugins]\ntwice = twice\n")
    path = tmp_path / "model.safetensors"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *map(str, command)]
        return subprocess.run(line, capture_output=True, text=True, env=environment)

    made = run("-c", PROGRAM, path)
    assert made.returncode == 0, made.stderr
    assert "twice_t1" in run("-m", "fastvit", "info", path).stdout
    assert "twice_t1" in run("-m", "fastvit", "models").stdout
    (tmp_path / "twice.py").write_text("raise RuntimeError('old')")
    broken = run("-m", "fastvit", "info", path)
    assert broken.returncode == 2
    assert broken.stderr.count("\n") == 1
    assert "the plugin twice (twice) of twice cannot be loaded: RuntimeError: old" in broken.stderr


def test_a_name_is_registered_once() -> None:
    with pytest.raises(fastvit.UserError, match="the token mixer 'pooling' exists already"):
        fastvit.register_mixer("pooling", lambda stage, config: Shift(), residual=True)
    with pytest.raises(fastvit.UserError, match="the variant 'fastvit_t8' exists already"):
        fastvit.register_variant(VARIANTS["fastvit_t8"])


class Smooth(torch.nn.Module):
    """A depthwise convolution with a norm, without a skip connection of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = torch.nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def smooth(module: Smooth) -> Affine:
    scale, shift = norm_coefficients(module.norm)
    return affine(module.conv).scaled(scale).shifted(shift)


def test_a_mixer_of_ones_own_fuses_by_a_rule_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for residual in (True, False):
        name = f"smooth-{residual}"
        monkeypatch.setitem(MIXERS, name, None)
        del MIXERS[name]
        fastvit.register_mixer(name, lambda stage, config: Smooth(stage.width), residual=residual)
        affine.register(Smooth, smooth)
        stages = tuple(fastvit.Stage(width, 2, name) for width in (8, 16))
        model = randomize(fastvit.FastViT(fastvit.FastViTConfig(stages, num_classes=5)).eval().double())
        fused = fastvit.fuse(model)
        x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-9, atol=1e-9)
        kinds = [type(module) for module in fused.modules()]
        assert Smooth not in kinds
        assert (torch.nn.BatchNorm2d in kinds) == residual, "padding keeps the norm before a convolution out of it"
        del MIXERS[name]
