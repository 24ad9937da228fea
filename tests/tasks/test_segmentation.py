"""Segmenters: what they compute, learn and give, against other ways to the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import fastvit
from fastvit.errors import UserError
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.colors import class_colors
from fastvit.tasks.segmentation.data import SegmentationData, open_for_run
from fastvit.tasks.segmentation.drawing import draw
from fastvit.tasks.segmentation.folders import VOID
from fastvit.tasks.segmentation.heads import SemanticFPN, UPerNet
from fastvit.tasks.segmentation.model import Segmenter
from fastvit.tasks.segmentation.module import SegmentationTask
from fastvit.tasks.segmentation.options import SegmentationOptions, SegmenterConfig
from fastvit.tasks.segmentation.prediction import SegmentationPrediction, bilinear, decoded
from tests.helpers import randomize, tiny
from tests.tasks.contracts import (
    CLASSES,
    HEADS,
    Make,
    TaskModelContract,
    images,
    lively,
    make_segmenter,
    model,
    same_scenes,
)

__all__ = ["images", "model"]  # fixtures of the contract
# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module", params=HEADS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make() -> Make:
    return make_segmenter


class TestSegmenter(TaskModelContract):
    tolerance = 1e-12


# The heads by hand, from their tensors alone.

State = dict[str, Tensor]


def normed(state: State, name: str, x: Tensor, padding: int) -> Tensor:
    """Convolution, batch norm in eval mode, ReLU."""
    x = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
    statistics = (state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics, eps=1e-5).relu()


def twice(x: Tensor, like: Tensor, mode: str = "bilinear") -> Tensor:
    return F.interpolate(x, like.shape[2:], mode=mode, **({"align_corners": False} if mode == "bilinear" else {}))


def semantic_fpn(state: State, maps: Sequence[Tensor]) -> Tensor:
    inner = None
    pyramid: list[Tensor] = []
    for level in reversed(range(len(maps))):
        weights = (state[f"fpn.inner_blocks.{level}.0.{part}"] for part in ("weight", "bias"))
        side = F.conv2d(maps[level], *weights)
        inner = side if inner is None else side + twice(inner, side, "nearest")
        weights = (state[f"fpn.layer_blocks.{level}.0.{part}"] for part in ("weight", "bias"))
        pyramid.insert(0, F.conv2d(inner, *weights, padding=1))
    total = normed(state, "branches.0.0.0", pyramid[0], 1)
    for level in range(1, len(maps)):
        x = pyramid[level]
        for step in range(level):
            x = twice(normed(state, f"branches.{level}.{step}.0", x, 1), maps[level - step - 1])
        total = total + x
    return total


def upernet(state: State, maps: Sequence[Tensor]) -> Tensor:
    *finer, last = maps
    context = [last]
    for index, scale in enumerate((1, 2, 3, 6)):
        pooled = normed(state, f"pools.{index}.1.0", F.adaptive_avg_pool2d(last, scale), 0)
        context.append(twice(pooled, last))
    x = coarsest = normed(state, "pooled.0", torch.cat(context, 1), 1)
    smooth = [coarsest]
    for level in reversed(range(len(finer))):
        side = normed(state, f"lateral.{level}.0", finer[level], 0)
        x = side + twice(x, side)
        smooth.insert(0, normed(state, f"smooth.{level}.0", x, 1))
    return normed(state, "fused.0", torch.cat([twice(one, maps[0]) for one in smooth], 1), 1)


@pytest.mark.parametrize("size", [(64, 96), (65, 99), (161, 33)])
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("head", HEADS)
def test_heads_are_what_the_papers_say(head: str, levels: int, size: tuple[int, int]) -> None:
    channels = [6, 8, 10, 12, 14][:levels]
    made: nn.Module = SemanticFPN(channels, 9, 7) if head == "fpn" else UPerNet(channels, 9)
    randomize(made).double().eval()
    generator = torch.Generator().manual_seed(0)
    sides = [[-(-side // (4 * 2**level)) for side in size] for level in range(levels)]
    maps = [
        torch.randn(2, count, *side, generator=generator, dtype=torch.float64)
        for count, side in zip(channels, sides, strict=True)
    ]
    with torch.no_grad():
        found = made(maps)
        expected = {"fpn": semantic_fpn, "upernet": upernet}[head](made.state_dict(), maps)
    assert found.shape == (2, made.out_channels, *sides[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_logits_are_the_heads_brought_to_the_images_size(model: Segmenter, images: Tensor) -> None:
    with torch.no_grad():
        features = model.decoder(model.backbone(images))
        weight, bias = model.classifier.weight, model.classifier.bias
        logits = F.conv2d(features, weight, bias)
        expected = F.interpolate(logits, (65, 97), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)
        small = images[..., :20, :70]
        filled = torch.zeros(2, 3, 32, 70, dtype=torch.float64)
        filled[..., :20, :] = small
        torch.testing.assert_close(model(small), model(filled)[..., :20, :], rtol=1e-12, atol=1e-12)


def test_no_norm_is_left_in_a_fused_head(model: Segmenter) -> None:
    assert any(isinstance(m, _BatchNorm) for m in model.decoder.modules())
    fused = fastvit.fuse(model)
    assert not any(isinstance(m, _BatchNorm) for m in fused.modules())
    fewer = sum(p.numel() for p in model.decoder.parameters()) - sum(p.numel() for p in fused.decoder.parameters())
    norms = [m for m in model.decoder.modules() if isinstance(m, _BatchNorm)]
    assert fewer == sum(m.num_features for m in norms), "weight and bias of a norm become a bias"


def test_dropout_is_of_training_alone(images: Tensor) -> None:
    segmenter = lively(make_segmenter("fpn", dropout=0.5)).double()
    with torch.no_grad():
        first, second = (segmenter.train()(images) for _ in range(2))
        assert not torch.equal(first, second)
        assert torch.equal(segmenter.eval()(images), segmenter(images))


# Images shown window by window.


def test_windows(images: Tensor) -> None:
    """The mean of what is said in each; they overlap by a third, the last of a row ends with it."""
    window = 48
    whole = lively(make_segmenter("fpn")).double().eval()
    sliding = make_segmenter("fpn", slide_window=window).double().eval()
    sliding.load_state_dict(whole.state_dict())
    total, seen = torch.zeros(2, 5, 65, 97, dtype=torch.float64), torch.zeros(65, 97, dtype=torch.float64)
    with torch.no_grad():
        for top in (0, 17):
            for left in (0, 32, 49):
                place = (..., slice(top, top + window), slice(left, left + window))
                total[place] += whole(images[place])
                seen[place] += 1
        (found,) = sliding.outputs(images)
        assert seen.min() == 1
        torch.testing.assert_close(found, total / seen, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(found, whole(images), atol=1e-3)
        torch.testing.assert_close(sliding(images), whole(images), rtol=0, atol=1e-12)
        (large,) = make_like(whole, slide_window=200).outputs(images)
        torch.testing.assert_close(large, whole(images), rtol=0, atol=1e-12)


def make_like(segmenter: Segmenter, **options: object) -> Segmenter:
    made = make_segmenter("fpn", **options).double().eval()
    made.load_state_dict(segmenter.state_dict())
    return made


def test_what_uses_windows_and_what_does_not() -> None:
    """A Predictor and validation do, as the file says; an artifact is shown all of an image."""
    preprocessing = Preprocessing((96, 96), resize="resize_shorter")
    segmenter = lively(make_segmenter("fpn", slide_window=40, preprocessing=preprocessing)).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    (prediction,) = fastvit.Predictor(segmenter, prepare=copy.deepcopy)(picture)
    shown = fastvit.data.transforms.eval_pixels(preprocessing)(picture)
    task = SegmentationTask(segmenter)
    with torch.no_grad():
        normal = task._normalized(shown)[None]
        sliding, whole = segmenter.outputs(normal)[0].argmax(1)[0], segmenter(normal).argmax(1)[0]
    assert np.array_equal(prediction.mask, sliding.numpy())
    assert not torch.equal(sliding, whole)
    task.eval()
    with torch.no_grad():
        task.validate([normal[0]], [sliding.to(torch.uint8)])
    assert task.metrics.compute()["val/pixel_accuracy"] == 1
    program = build_program(segmenter, ExportOptions(size=(96, 96)))
    with torch.no_grad():
        (logits,) = program.module(normal)
    assert torch.equal(logits.argmax(1)[0], whole)
    assert program.description.options.slide_window is None
    assert segmenter.options.slide_window == 40


# Loss.


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.0, 3.5)])
def test_loss_is_cross_entropy(weights: tuple[float, ...] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 9, 11, generator=generator, dtype=torch.float64).float()
    targets = torch.randint(0, 5, (2, 9, 11), generator=generator)
    targets[0, :3] = VOID
    task = SegmentationTask(make_segmenter("fpn"), SegmentationOptions(class_weights=weights))
    expected = F.cross_entropy(logits, targets, None if weights is None else torch.tensor(weights), ignore_index=255)
    for kind in (torch.uint8, torch.int64):
        torch.testing.assert_close(task.loss(logits, targets.to(kind)), expected)
    kept = (targets != VOID).flatten()
    by_hand = -logits.log_softmax(1).movedim(1, -1).reshape(-1, 5)[kept].gather(1, targets.flatten()[kept, None])[:, 0]
    share = torch.ones(5) if weights is None else torch.tensor(weights)
    share = share[targets.flatten()[kept]]
    torch.testing.assert_close(expected, (by_hand * share).sum() / share.sum())


def test_where_no_pixel_counts_the_loss_is_zero() -> None:
    for weights in (None, (0.0, 1.0, 1.0, 1.0, 1.0)):
        task = SegmentationTask(make_segmenter("fpn"), SegmentationOptions(class_weights=weights))
        for target in (VOID, *([0] if weights else [])):
            logits = torch.randn(2, 5, 8, 8, requires_grad=True)
            loss = task.loss(logits, torch.full((2, 8, 8), target, dtype=torch.uint8))
            loss.backward()
            assert loss == 0
            assert logits.grad is not None
            assert (logits.grad == 0).all()


def test_class_weights_are_one_a_class() -> None:
    with pytest.raises(UserError, match=r"segmentation\.class_weights has 2 values for 5 classes"):
        SegmentationTask(make_segmenter("fpn"), SegmentationOptions(class_weights=(1.0, 2.0)))


def test_a_step_on_ignored_pixels_alone_changes_no_weight_to_nan(kind: str) -> None:
    segmenter = make_segmenter(kind).train()
    task = SegmentationTask(segmenter)
    optimizer = torch.optim.AdamW(segmenter.parameters(), 1e-2)
    losses = task.losses(torch.randn(2, 3, 64, 64), torch.full((2, 64, 64), VOID, dtype=torch.uint8))
    losses["loss"].backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in segmenter.state_dict().values())


def test_validation_is_on_the_masks_as_they_are_stored() -> None:
    """Images of two sizes, each with a mask of another one; one of which nothing counts."""
    segmenter = lively(make_segmenter("upernet")).double().eval()
    generator = torch.Generator().manual_seed(0)
    shown = [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in ((64, 48), (40, 70), (32, 32))]
    masks = [torch.randint(0, 5, size, generator=generator).to(torch.uint8) for size in ((128, 96), (31, 55), (8, 8))]
    masks[0][:40] = VOID
    masks[2][:] = VOID
    task = SegmentationTask(segmenter).eval()
    with torch.no_grad():
        task.validate(shown, masks)
        losses, right, counted = [], 0, 0
        for image, mask in zip(shown[:2], masks[:2], strict=True):
            logits = F.interpolate(segmenter(image[None]), mask.shape, mode="bilinear", align_corners=False)
            losses.append(F.cross_entropy(logits.float(), mask[None].long(), ignore_index=255))
            right += int((logits[0].argmax(0) == mask).sum())
            counted += int((mask != VOID).sum())
    assert task.val_count.compute() == 2
    torch.testing.assert_close(task.val_loss.compute(), sum(losses), check_dtype=False)
    assert float(task.metrics.compute()["val/pixel_accuracy"]) == pytest.approx(right / counted)


# Learning.


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return same_scenes(tmp_path_factory.mktemp("learnt") / "scenes")


def learner(scenes: Path, head: str) -> tuple[SegmentationTask, Tensor, Tensor, SegmentationData]:
    preprocessing = Preprocessing((96, 96), resize="resize_shorter", interpolation="bilinear")
    network = SegmenterConfig(head, fpn_channels=32, head_channels=32, dropout=0.0)
    changes = {"scale_range": (1.0, 1.0), "crop": 96, "cat_max_ratio": 1.0, "hflip": 0.0, "photometric": 0.0}
    options = SegmentationOptions(network, size=(96, 96), **changes)
    data = SegmentationData(open_for_run(str(scenes)), preprocessing, 8, options, num_workers=0)
    torch.manual_seed(0)
    config = tiny(num_classes=len(data.classes)).config.replace(layer_scale_init=0.1)
    segmenter = Segmenter(config, classes=data.classes, preprocessing=preprocessing, options=network)
    task = SegmentationTask(segmenter, options)
    ((pictures, masks),) = data.train_dataloader()
    return task, task._normalized(pictures), masks, data


def fit(task: SegmentationTask, pictures: Tensor, masks: Tensor, steps: int) -> list[float]:
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), 4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    history = []
    for _ in range(steps):
        loss = task.losses(pictures, masks)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(float(loss.detach()))
    return history


def test_losses_fall(scenes: Path, kind: str) -> None:
    task, pictures, masks, _ = learner(scenes, kind)
    history = fit(task, pictures[:4], masks[:4], 15)
    assert sum(history[-3:]) < 0.6 * sum(history[:3]), history


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS, indirect=True)
def test_eight_scenes_are_learnt_by_heart(scenes: Path, kind: str) -> None:
    task, pictures, masks, data = learner(scenes, kind)
    history = fit(task, pictures, masks, 250)
    assert history[-1] < 0.05 * history[0]
    with torch.no_grad():
        for _ in range(30):  # so that norms have the statistics of the last weights
            task(pictures)
        task.eval()
        for shown, stored in data.val_dataloader():
            task.validate(task._normalized(shown), stored)
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert found["val/miou"] > 0.9, found
    assert task.val_loss.compute() / task.val_count.compute() < 0.2


# From raw outputs to predictions.


@pytest.mark.parametrize("target", [(1, 1), (5, 9), (7, 11), (20, 33), (8, 3)])
@pytest.mark.parametrize("size", [(7, 11), (1, 1), (1, 9)])
def test_bilinear_is_torchs(size: tuple[int, int], target: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).standard_normal((4, *size))
    expected = F.interpolate(torch.from_numpy(maps)[None], target, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(bilinear(maps, target), expected.numpy(), rtol=0, atol=1e-12)
    assert bilinear(maps.astype(np.float32), target).dtype == np.float32


def test_what_is_filled_up_does_not_count() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 5, 64, 96))
    logits[:, 4, 40:] = logits[:, 4, :, 60:] = 1000
    mask = decoded({"logits": logits}, (40, 60), (100, 150))
    inside = F.interpolate(torch.from_numpy(logits)[..., :40, :60], (100, 150), mode="bilinear", align_corners=False)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, inside[0].argmax(0).numpy())


def test_a_record_holds_every_pixel_once() -> None:
    mask = np.random.default_rng(0).choice([0, 2, 4], (33, 47), p=[0.7, 0.2, 0.1]).astype(np.uint8)
    prediction = SegmentationPrediction("a.png", mask, CLASSES)
    record = prediction.record()
    assert record["image"] == "a.png"
    assert [one["index"] for one in record["predictions"]] == [0, 2, 4]
    decoded = np.full(mask.shape, 255, np.uint8)
    for one in record["predictions"]:
        own = coco.decode(one["segmentation"]).astype(bool)
        assert (decoded[own] == 255).all()
        decoded[own] = one["index"]
        assert one["name"] == CLASSES[one["index"]]
        assert one["share"] == pytest.approx(own.mean(), abs=1e-5)
    assert np.array_equal(decoded, mask)
    assert prediction.summary() == ", ".join(f"{CLASSES[i]} {(mask == i).mean():.0%}" for i in (0, 2, 4))
    assert SegmentationPrediction("a.png", mask, None).record()["predictions"][1]["name"] == "2"


def test_summary_leaves_out_shares_that_round_to_zero() -> None:
    mask = np.repeat(np.array([0, 2, 4], np.uint8), (985, 11, 4)).reshape(40, 25)
    assert SegmentationPrediction("a.png", mask, None).summary() == "0 98%, 2 1%"


def test_the_prediction_of_a_model_in_memory(model: Segmenter) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8))
    (prediction,) = fastvit.Predictor(model)(picture)
    assert prediction.mask.shape == (70, 50)
    shown = fastvit.data.transforms.eval_pixels(model.preprocessing)(picture)
    assert shown.shape == (3, 90, 64)
    single = copy.deepcopy(model).float()
    with torch.no_grad():
        logits = single(SegmentationTask(single)._normalized(shown)[None])
    expected = F.interpolate(logits, (70, 50), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert (prediction.mask == expected).mean() > 0.999


# Pictures.


def test_each_class_is_drawn_in_its_color_and_the_background_stays() -> None:
    size = (420, 600)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    before = np.asarray(picture)
    mask = np.zeros(size, np.uint8)
    mask[50:200, 100:300], mask[250:400, 350:500] = 1, 3
    classes = ("background", "cup", "hat", "key")
    drawn = draw(picture, SegmentationPrediction("a.png", mask, classes))
    assert drawn.width == picture.width
    assert drawn.height > picture.height, "the legend is below"
    after = np.asarray(drawn)[: size[0]]
    assert np.array_equal(after[mask == 0], before[mask == 0])
    colors = np.array(class_colors(4), float)
    for label in (1, 3):
        expected = 0.4 * before[mask == label] + 0.6 * colors[label]
        assert np.abs(after[mask == label] - expected).max() < 2
    legend = {tuple(color) for color in np.asarray(drawn)[size[0] :].reshape(-1, 3).tolist()}
    assert {class_colors(4)[1], class_colors(4)[3]} <= legend
    assert class_colors(4)[2] not in legend


def test_a_picture_of_nothing_but_background_stays() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (420, 600, 3), np.uint8))
    nothing = np.zeros((420, 600), np.uint8)
    drawn = draw(picture, SegmentationPrediction("a.png", nothing, ("background", "cup")))
    assert np.array_equal(np.asarray(drawn)[:420], np.asarray(picture))
    assert np.asarray(draw(picture, SegmentationPrediction("a.png", nothing, None))).shape[1] == 600
