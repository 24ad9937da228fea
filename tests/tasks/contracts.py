"""What every model for detection, segmentation or hand mesh must do; a new head inherits all of it."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import fastvit
from fastvit.errors import UserError
from fastvit.model.layers import LayerScale
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import VARIANTS
from fastvit.synthetic.scenes import write_scenes
from fastvit.tasks.detection.model import Detector
from fastvit.tasks.detection.options import DetectorConfig
from fastvit.tasks.segmentation.model import Segmenter
from fastvit.tasks.segmentation.options import SegmenterConfig
from tests.contracts import KINDS, every_variant
from tests.helpers import randomize, small, tiny

Model = TypeVar("Model", bound=TaskModel)
Make = Callable[..., TaskModel]
CLASSES = ("cup", "hat", "key", "pen", "toy")
DETECTORS = ("mask_rcnn", "faster_rcnn", "retinanet")
HEADS = ("fpn", "upernet")
# The one of five stages; the others, and what is built of the same parts, in make test-all.
FAST = ("fastvit_mci3",)
SLOWLY = every_variant(FAST)
BLOCKS = [pytest.param(name, marks=() if name == "fastvit_mci3" else pytest.mark.slow) for name in KINDS]
FORMS = [
    pytest.param("train", marks=pytest.mark.slow),
    pytest.param("reparameterized", marks=pytest.mark.slow),
    "fused",
]
# Small enough for tests: everything else in proportion to the width of the pyramid.
SMALL = {"fpn_channels": 32, "anchor_size": 8, "post_nms_top_n": 60, "roi_batch_size": 32, "max_detections": 40}


def make_detector(kind: str, config: fastvit.FastViTConfig | None = None, **details: object) -> Detector:
    """A small detector in train form; `details` as Detector has them, or options of it."""
    own = {field.name for field in dataclasses.fields(DetectorConfig)}
    options = {name: details.pop(name) for name in list(details) if name in own}
    config = config or tiny(num_classes=len(CLASSES), attention=True).config
    return Detector(config, options=DetectorConfig(kind, **{**SMALL, **options}), **details)


def make_segmenter(head: str, config: fastvit.FastViTConfig | None = None, **details: object) -> Segmenter:
    """A small segmenter in train form; `details` as Segmenter has them, or options of it."""
    own = {field.name for field in dataclasses.fields(SegmenterConfig)}
    options = {name: details.pop(name) for name in list(details) if name in own}
    config = config or tiny(num_classes=len(CLASSES), attention=True).config
    return Segmenter(
        config, options=SegmenterConfig(head, **{"fpn_channels": 24, "head_channels": 16, **options}), **details
    )


def lively(model: Model, seed: int = 0) -> Model:
    """Random norms, and weights by which outputs depend on the image and many objects of several classes are found.

    torchvision's heads begin so near zero that an error in what they stand on does not show.
    """
    generator = torch.Generator().manual_seed(seed)
    randomize(model, seed)
    if model.task == "hand_mesh":
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.mul_(2)
    if model.task != "detection":
        return model
    factors = {"cls_score": 8.0, "cls_logits": 1.5, "bbox_pred": 0.1, "bbox_reg": 0.1}
    with torch.no_grad():
        for name, module in model.network.named_modules():
            if name.startswith("backbone") or not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            last = name.rpartition(".")[2]
            fan = module.weight[0].numel()
            gain = (2 / fan) ** 0.5 * factors.get(last, 1.0)
            module.weight.normal_(0, gain, generator=generator)
            if last == "cls_logits" and model.options.kind == "retinanet":
                module.bias.fill_(-1.5)
    return model


def outputs_of(model: TaskModel, images: Tensor) -> list[Tensor]:
    """All that it gives for each of some images, with as much to compare as a test needs."""
    with torch.no_grad():
        found = [output for image in images for output in model.outputs(image[None])]
    if model.task == "detection":
        counts = [len(output) for output in found[2 :: len(model.output_names)]]
        assert min(counts) >= 10, "too few objects to compare"
        assert len(torch.cat(found[1 :: len(model.output_names)]).unique()) > 1, "objects of one class alone"
        scores = torch.cat(found[2 :: len(model.output_names)])
        assert scores.std() > 0.01, "scores do not depend on what is seen"
    return found


def assert_alike(model: TaskModel, other: TaskModel, images: Tensor, tolerance: float) -> None:
    """Equal counts of objects, in the same order, and equal numbers."""
    pairs = zip(outputs_of(model, images), outputs_of(other, images), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(theirs, ours, rtol=0, atol=tolerance)


def same_scenes(folder: Path, count: int = 8, size: int = 96) -> Path:
    """Scenes to learn by heart: those to validate on are those to train on."""
    write_scenes(folder, count, size, seed=0)
    annotations = folder / "annotations"
    shutil.copy(annotations / "instances_train.json", annotations / "instances_val.json")
    for kind in ("images", "masks"):
        shutil.rmtree(folder / kind / "val")
        shutil.copytree(folder / kind / "train", folder / kind / "val")
    return folder


@pytest.fixture(scope="module")
def model(make: Make, kind: str) -> TaskModel:
    """Randomized, float64, eval; tests must leave it as it is."""
    torch.manual_seed(0)
    details = {"classes": CLASSES, "preprocessing": fastvit.Preprocessing((64, 96), resize="resize_shorter")}
    return lively(make(kind, **details)).double().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class TaskModelContract:
    """A subclass's module has fixtures `kind`, and `make`: (kind, config, **details) -> a small model in train form."""

    tolerance: ClassVar[float]

    def wrong_options(self, options: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        """Changes of a description, and what is said of them."""
        width = next(name for name in ("fpn_channels", "head_channels") if name in options)
        return [
            ({"options": {width: 0}}, f"network.{width} must be at least 1, got 0"),
            ({"options": {width: 8}}, "does not fit the model"),
        ]

    @pytest.mark.parametrize("name", SLOWLY)
    def test_every_variant_carries_it(self, make: Make, kind: str, name: str) -> None:
        config = VARIANTS[name].config.replace(num_classes=5)
        with torch.device("meta"):
            model = make(kind, config, variant=name)
            maps = model.pyramid(torch.empty(2, 3, 160, 96))
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        assert model.trunk.channels == tuple(stage.width for stage in config.stages)
        for one, stride in zip(maps, model.pyramid_strides, strict=True):
            assert (one.shape[0], *one.shape[2:]) == (2, -(-160 // stride), -(-96 // stride))

    @pytest.mark.parametrize("name", BLOCKS)
    def test_kinds_of_blocks_are_fused_exactly(self, make: Make, kind: str, name: str, images: Tensor) -> None:
        torch.manual_seed(0)
        config = small(VARIANTS[name].config, depth=1).replace(num_classes=5)
        model = lively(make(kind, config, variant=name), seed=5).double().eval()
        assert_alike(model, fastvit.fuse(model), images[:1], self.tolerance)

    def test_the_last_map_has_been_through_the_attention(self, make: Make, kind: str, images: Tensor) -> None:
        """The official feature mode takes the last map before the attention stage of SA12."""
        model = lively(make(kind, small(VARIANTS["fastvit_sa12"].config, depth=1))).double().eval()
        seen: list[list[Tensor]] = []
        model.trunk.register_forward_hook(lambda _, __, maps: seen.append(maps))
        with torch.no_grad():
            model.pyramid(images)
            model.trunk.stages[-1].blocks[-1].token_mixer.proj.weight.mul_(2)
            changed_above = model.pyramid(images)
        before, after = seen
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [True, True, True, False]
        assert len(changed_above) == len(model.pyramid_strides)

    def test_fuse_is_exact(self, model: TaskModel, images: Tensor) -> None:
        merged, fused = fastvit.reparameterize(model), fastvit.fuse(model)
        assert [fastvit.form(m) for m in (model, merged, fused)] == ["train", "reparameterized", "fused"]
        assert_alike(model, merged, images, self.tolerance)
        assert_alike(model, fused, images, self.tolerance)
        assert not [m for m in fused.modules() if isinstance(m, (_BatchNorm, LayerScale))]
        assert not fused.training
        assert (fused.classes, fused.options, fused.preprocessing) == (CLASSES, model.options, model.preprocessing)

    def test_a_wrong_fusion_would_show(self, model: TaskModel, images: Tensor) -> None:
        """Every norm and layer scale counts in what is compared."""
        expected = outputs_of(model, images[:1])
        wrong = copy.deepcopy(model)
        for module in wrong.trunk.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.zero_()
        found = outputs_of(wrong, images[:1])
        gaps = [(a - b).abs().max() if a.shape == b.shape else torch.inf for a, b in zip(expected, found, strict=True)]
        assert max(gaps) > 1e-3

    def test_fuse_leaves_the_original_alone(self, model: TaskModel) -> None:
        storage = {name: p.data_ptr() for name, p in model.state_dict(keep_vars=True).items()}
        before = {name: p.clone() for name, p in model.state_dict().items()}
        fused = fastvit.fuse(model)
        with torch.no_grad():
            for parameter in fused.parameters():
                parameter.add_(1.0)
        assert storage == {name: p.data_ptr() for name, p in model.state_dict(keep_vars=True).items()}
        assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())

    def test_fuse_twice(self, model: TaskModel) -> None:
        once = fastvit.fuse(model)
        twice = fastvit.fuse(once)
        assert once.state_dict().keys() == twice.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))

    @pytest.mark.parametrize("form", FORMS)
    def test_save_and_load(self, model: TaskModel, images: Tensor, form: str, tmp_path: Path) -> None:
        saved = {"train": model, "reparameterized": fastvit.reparameterize(model), "fused": fastvit.fuse(model)}[form]
        path = fastvit.save(saved, tmp_path / "model.safetensors", {"score": 0.5})
        loaded = fastvit.load(path)
        assert type(loaded) is type(model)
        assert fastvit.form(loaded) == form
        assert not loaded.training
        for field in ("variant", "config", "options", "classes", "preprocessing", "output_names", "task"):
            assert getattr(loaded, field) == getattr(model, field), field
        assert loaded.state_dict().keys() == saved.state_dict().keys()
        assert all(torch.equal(a, saved.state_dict()[name]) for name, a in loaded.state_dict().items())
        assert_alike(saved, loaded, images[:1], 1e-12)  # memory is aligned otherwise: sums are in another order
        with pytest.raises(UserError, match=rf"is a {model.task} model; a classification model is needed here"):
            fastvit.load(path, fastvit.FastViT)
        assert fastvit.load(path, type(model)).options == model.options

    def test_a_damaged_description_is_named(self, model: TaskModel, tmp_path: Path) -> None:
        path = fastvit.save(model, tmp_path / "model.safetensors")
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        content = json.loads(metadata["fastvit"])
        for change, message in (
            ({"task": "poetry"}, "unknown task 'poetry'; choose from classification, "),
            ({"options": {"depth": 3}}, rf"the options of the {model.task} network are not valid: .*depth"),
            *self.wrong_options(content["options"]),
            ({"classes": ["one"]}, "1 class names for 5 classes"),
            ({"format_version": 99}, "format version 99"),
            ({"config": {"depth": 3}}, "the model configuration does not fit"),
            ({"preprocessing": {"color": 1}}, "preprocessing description"),
        ):
            save_file(tensors, path, {**metadata, "fastvit": json.dumps(content | change)})
            with pytest.raises(UserError, match=message) as raised:
                fastvit.load(path)
            assert "model.safetensors" in str(raised.value)

    def test_tensors_that_do_not_fit_are_named(self, model: TaskModel, tmp_path: Path) -> None:
        path = fastvit.save(model, tmp_path / "model.safetensors")
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        first = next(key for key in tensors if "stem" in key)
        save_file({key: value for key, value in tensors.items() if key != first}, path, metadata)
        with pytest.raises(UserError, match=rf"does not fit the model: .*{first}"):
            fastvit.load(path)

    def test_a_classifier_fills_the_backbone(self, make: Make, kind: str, tmp_path: Path) -> None:
        classifier = randomize(tiny(num_classes=9, attention=True), seed=3)
        path = fastvit.save(classifier, tmp_path / "classifier.safetensors")
        model = make(kind)
        head = {name: p.clone() for name, p in model.state_dict().items() if not name.startswith(_trunk(model))}
        done = fastvit.load_weights(model, path)
        assert (done.layout, done.form, done.head) == ("native", "train", False)
        wanted = classifier.backbone.state_dict()
        assert all(torch.equal(p, wanted[name]) for name, p in model.trunk.state_dict().items())
        assert all(torch.equal(p, head[name]) for name, p in model.state_dict().items() if name in head)
        fused = fastvit.fuse(make(kind))
        fastvit.load_weights(fused, path)
        assert all(
            torch.equal(a, b)
            for a, b in zip(fused.trunk.parameters(), fastvit.fuse(classifier).backbone.parameters(), strict=True)
        )
        fused_classifier = fastvit.save(fastvit.fuse(classifier), tmp_path / "fused.safetensors")
        with pytest.raises(
            UserError, match=r"fused\.safetensors is fused and cannot be converted back to the train form"
        ):
            fastvit.load_weights(model, fused_classifier)

    def test_weights_of_the_same_task(self, model: TaskModel, make: Make, kind: str, tmp_path: Path) -> None:
        path = fastvit.save(model, tmp_path / "model.safetensors")
        same = make(kind).double()
        assert fastvit.load_weights(same, path).head
        assert all(torch.equal(p, model.state_dict()[name]) for name, p in same.state_dict().items())

        other = make(kind, tiny(num_classes=3, attention=True).config).double()
        before = {name: p.clone() for name, p in other.state_dict().items()}
        with pytest.warns(UserWarning, match=r"has 5 classes, the model 3"):
            done = fastvit.load_weights(other, path)
        assert not done.head
        assert other.num_classes == 3
        wanted = model.state_dict()
        new = {name for name, p in other.state_dict().items() if p.shape != wanted[name].shape}
        assert new, "what depends on the number of classes"
        for name, p in other.state_dict().items():
            assert torch.equal(p, before[name] if name in new else wanted[name]), name

        fused = fastvit.save(fastvit.fuse(model), tmp_path / "fused.safetensors")
        with pytest.raises(UserError, match=r"fused\.safetensors is fused, the model train"):
            fastvit.load_weights(make(kind), fused)
        with pytest.raises(UserError, match=rf"is a model for {model.task}, whose weights do not fit"):
            fastvit.load_weights(tiny(), path)

    @pytest.mark.parametrize("size", [(64, 64), (33, 47), (97, 40), (20, 70), (1, 1)])
    def test_any_size(self, model: TaskModel, images: Tensor, size: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(2)
        image = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            found = dict(zip(model.output_names, model.outputs(image), strict=True))
        assert all(output.isfinite().all() for output in found.values())
        if model.task == "segmentation":
            assert found["logits"].shape == (1, len(CLASSES), *size)
        elif model.task == "detection" and len(found["boxes"]):
            height, width = size
            assert (found["boxes"] >= 0).all()
            assert (found["boxes"] <= torch.tensor([width, height, width, height])).all()
            assert set(found["labels"].tolist()) <= set(range(len(CLASSES)))

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_channels(self, make: Make, kind: str, channels: int) -> None:
        other = make(kind, tiny(num_classes=5, attention=True).config.replace(in_chans=channels))
        lively(other).double().eval()
        image = torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert_alike(other, fastvit.fuse(other), image, self.tolerance)


def _trunk(model: TaskModel) -> str:
    """What the names of the backbone's tensors begin with."""
    return next(f"{name}." for name, module in model.named_modules() if module is model.trunk)
