"""Strict loading: what fits, what is converted, and what an error says."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fastvit
from tests.helpers import randomize, tiny

IMAGES = torch.randn(2, 3, 32, 40)


def test_train_weights_into_later_forms() -> None:
    source = randomize(tiny(attention=True))
    for convert in (fastvit.reparameterize, fastvit.fuse):
        target = convert(tiny(attention=True))
        assert fastvit.load_weights(target, source.state_dict()).form == "train"
        assert fastvit.verify(source, target, IMAGES).relative < 1e-5


@pytest.mark.parametrize(("convert", "remedy"), [(fastvit.fuse, "fuse"), (fastvit.reparameterize, "reparameterize")])
def test_later_weights_into_the_train_form(convert, remedy: str) -> None:
    model = tiny()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        fastvit.UserError, match=rf"cannot be converted back to the train form.*fastvit\.{remedy}\(model\)"
    ):
        fastvit.load_weights(model, convert(tiny()).state_dict())
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_other_class_count_replaces_the_head_only() -> None:
    source, target = tiny(num_classes=10), tiny(num_classes=4, classes=list("abcd"))
    head = target.head.weight.clone()
    with pytest.warns(UserWarning, match="10 classes, the model 4: all weights but the head"):
        loaded = fastvit.load_weights(target, source.state_dict())
    assert not loaded.head
    assert target.classes == tuple("abcd")
    assert torch.equal(target.head.weight, head)
    assert fastvit.verify(source.backbone, target.backbone, IMAGES).max_abs == 0


def test_classifier_weights_into_a_backbone_and_back() -> None:
    source, target, again = tiny(), tiny().backbone, tiny().backbone
    fastvit.load_weights(target, fastvit.export_weights(source, "official"))
    assert fastvit.verify(source.backbone, target, IMAGES).max_abs == 0
    fastvit.load_weights(again, target.state_dict())
    assert fastvit.verify(source.backbone, again, IMAGES).max_abs == 0


def test_a_backbone_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(fastvit.UserError, match=r"missing expansion\.conv"):
        fastvit.load_weights(tiny(), tiny().backbone.state_dict())
    with pytest.raises(fastvit.UserError, match="not a Backbone"):
        fastvit.save(tiny().backbone, tmp_path / "backbone.safetensors")


def test_a_compiled_model_is_saved_as_its_original(tmp_path: Path) -> None:
    model = tiny()
    loaded = fastvit.load(fastvit.save(torch.compile(model), tmp_path / "model.safetensors"))
    assert fastvit.verify(model, loaded, IMAGES).relative < 1e-6


def test_differences_are_named_and_nothing_is_loaded() -> None:
    model = tiny()
    state = {k: v + 1 for k, v in fastvit.export_weights(tiny(), "timm").items()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    del state["stages.0.blocks.0.mlp.fc1.bias"]
    state["stages.0.blocks.0.mlp.fc2.bias"] = torch.zeros(3)
    state["stages.0.extra"] = torch.zeros(1)
    with pytest.raises(fastvit.UserError) as error:
        fastvit.load_weights(model, state)
    message = str(error.value)
    assert "missing stages.0.blocks.0.mlp.fc1.bias" in message
    assert "unexpected stages.0.extra" in message
    assert "stages.0.blocks.0.mlp.fc2.bias is (3,), the model has (16,)" in message
    assert "timm layout, train form" in message
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_another_variant_is_named() -> None:
    weights = fastvit.export_weights(fastvit.create_model("t12", num_classes=10), "official")
    with pytest.raises(fastvit.UserError, match=r"contains fastvit_t12, but the model is fastvit_t8: [^;]*$"):
        fastvit.load_weights(fastvit.create_model("t8", num_classes=10, drop_path=0.1), weights)
    with pytest.raises(fastvit.UserError, match=r"contains fastvit_t12, but the model is a custom network"):
        fastvit.load_weights(tiny(), weights)


@pytest.mark.parametrize("layout", ["native", "official", "timm"])
def test_variant_is_read_off_foreign_weights(layout: str, tmp_path: Path) -> None:
    source = randomize(fastvit.create_model("s12", num_classes=3, in_chans=1)).eval()
    save_file(fastvit.export_weights(source, layout), tmp_path / "weights.safetensors")
    loaded = fastvit.load(tmp_path / "weights.safetensors")
    assert (loaded.variant, loaded.num_classes, loaded.config.in_chans) == ("fastvit_s12", 3, 1)
    assert fastvit.verify(source, loaded, torch.randn(1, 1, 32, 32)).relative < 1e-6
    assert len(loaded.preprocessing.mean) == 1


def test_what_foreign_weights_do_not_say_is_the_published() -> None:
    loaded = fastvit.load(fastvit.create_model("sa36").state_dict())
    assert loaded.preprocessing.crop_pct == 0.95
    assert loaded.classes is not None
    assert loaded.classes[1].startswith("goldfish")
    assert fastvit.load(fastvit.create_model("t8", num_classes=999).state_dict()).classes is None


@pytest.mark.parametrize("wrap", [{"state_dict": ...}, {"model": ...}, {"state_dict": {"model": ...}}])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_wrappers_and_prefixes_of_training_programs(wrap: dict, prefix: str) -> None:
    def fill(value):
        return {prefix + k: v for k, v in state.items()} if value is ... else {k: fill(v) for k, v in value.items()}

    source, target = tiny(), tiny()
    state = source.state_dict()
    fastvit.load_weights(target, fill(wrap))
    assert fastvit.verify(source, target, IMAGES).max_abs == 0


def test_old_dumps_without_batch_counters() -> None:
    source, target = tiny(), tiny()
    state = {k: v for k, v in fastvit.export_weights(source, "timm").items() if "num_batches" not in k}
    fastvit.load_weights(target, state)
    assert fastvit.verify(source, target, IMAGES).max_abs == 0


def test_no_fastvit_at_all() -> None:
    with pytest.raises(fastvit.UserError, match=r"not FastViT weights.*layer4\.0\.conv1"):
        fastvit.load_weights(tiny(), {"layer4.0.conv1": torch.zeros(1)})
    with pytest.raises(fastvit.UserError, match="contains no tensors"):
        fastvit.load_weights(tiny(), {"epoch": 3})


def test_matching_head_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastvit.load_weights(tiny(), tiny().state_dict())
