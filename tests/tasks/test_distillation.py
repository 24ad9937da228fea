"""Distillation against its formulas, and a student that learns from a teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.data.arrays import FASHION_MNIST_CLASSES
from fastvit.data.datasets import samples_for_evaluation
from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.data.load import open_images
from fastvit.data.module import evaluation_loader
from fastvit.data.transforms import normalize
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.classification.distillation import DistillationTargets, Teacher, convert, distillation_loss
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.tasks.classification.options import Distillation, MixupOptions
from tests.helpers import tiny

SMALL = Preprocessing((32, 32), mean=(0.3,) * 3, std=(0.35,) * 3)


def test_hard_and_soft_by_hand(double: None) -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    rows = torch.arange(4)
    hard = -F.log_softmax(student, 1)[rows, teacher.argmax(1)].mean()
    torch.testing.assert_close(distillation_loss(student, teacher, "hard").double(), hard)
    p, q = (torch.exp(x / 3) / torch.exp(x / 3).sum(1, keepdim=True) for x in (teacher, student))
    soft = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, "soft", 3.0).double(), soft, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "alpha", "temperature"), [("hard", 0.5, 1.0), ("soft", 0.3, 2.0)])
def test_the_loss_mixes_labels_and_teacher(kind: str, alpha: float, temperature: float) -> None:
    options = Distillation(kind=kind, alpha=alpha, temperature=temperature)
    task = ClassificationTask(tiny(), MixupOptions(label_smoothing=0.1), distillation=options)
    outputs, output, labels = torch.randn(4, 10), torch.randn(4, 10), torch.randn(4, 10).softmax(1)
    plain = -(labels * F.log_softmax(outputs, 1)).sum(1).mean()
    expected = (1 - alpha) * plain + alpha * distillation_loss(outputs, output, kind, temperature)
    torch.testing.assert_close(task.loss(outputs, DistillationTargets(labels, lambda: output)), expected)


def test_images_are_converted_to_what_the_teacher_expects() -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    other = Preprocessing((32, 32), mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    torch.testing.assert_close(convert(normalize(pixels, SMALL), SMALL, other), normalize(pixels, other))
    larger = convert(normalize(pixels, SMALL), SMALL, Preprocessing((48, 40)))
    assert larger.shape == (2, 3, 48, 40)
    resized = F.interpolate(pixels.float() / 255, (48, 40), mode="bicubic", antialias=True)
    by_hand = (resized - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    torch.testing.assert_close(larger, by_hand, rtol=1e-4, atol=1e-4)
    same = normalize(pixels, SMALL)
    assert convert(same, SMALL, SMALL) is same


class ImageSource(nn.Module):
    """Outputs with the mean of each image for its first class, and in training mode with noise."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(classes))

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.rand(1) if self.training else 0
        return images.mean((1, 2, 3))[:, None] * self.weight + torch.arange(len(self.weight)) + noise


def test_a_teacher_is_not_trained_copied_or_in_training_mode() -> None:
    network = ImageSource(10)
    teacher = Teacher(network, SMALL, None, 10)
    task = ClassificationTask(tiny(preprocessing=SMALL), teacher=teacher, distillation=Distillation(teacher="x"))
    assert copy.deepcopy(task)._teacher is teacher
    assert not any("teacher" in name for name, _ in task.named_parameters())
    images = torch.randn(2, 3, 32, 32)
    task.train()
    _, targets = task.prepare(images, torch.tensor([1, 2]))
    task.loss(task(images), targets).backward()
    assert network.weight.grad is None
    assert not network.training
    torch.testing.assert_close(targets.teacher_logits(), network.eval()(images))


def test_a_function_teaches_from_its_thread() -> None:
    teacher = Teacher(lambda images: images.flatten(1)[:, :10], SMALL, None, 10)
    teacher.to(torch.device("cpu"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher.start(images, SMALL)(), images.flatten(1)[:, :10])


def test_bfloat16() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images = torch.randn(2, 3, 32, 32)
    rough = Teacher(network, SMALL, None, 10, bf16=True).start(images, SMALL)()
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, network(images))
    torch.testing.assert_close(rough, network(images), rtol=0.05, atol=0.05)


def test_classes_are_matched_by_name() -> None:
    teacher = Teacher(lambda images: torch.tensor([[1.0, 2, 3]]), SMALL, ("cat", "dog", "cow"), 3)
    teacher.match(("cow", "cat", "dog"))
    teacher.to(torch.device("cpu"))
    assert teacher.start(torch.zeros(1, 3, 32, 32), SMALL)().tolist() == [[3, 1, 2]]
    with pytest.raises(UserError, match=r"has no output for these classes of the student: 1: hen"):
        teacher.match(("cow", "cat", "hen"))
    with pytest.raises(UserError, match="the teacher has 3 classes, the student 2"):
        teacher.match(("cow", "cat"))
    Teacher(lambda images: images, SMALL, imagenet_classes(), 1000).match(imagenet_synsets())


def ridge(images: Tensor, labels: Tensor) -> nn.Module:
    """A linear classifier of the pixels, by its closed form."""
    features = torch.cat([images.flatten(1), torch.ones(len(images), 1)], 1).double()
    gram = features.T @ features + 100 * torch.eye(features.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, features.T @ F.one_hot(labels, 10).double()).float()
    linear = nn.Linear(len(solution) - 1, 10)
    linear.weight.data, linear.bias.data = 10 * solution[:-1].T.contiguous(), 10 * solution[-1]
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), linear)


@pytest.mark.slow
def test_a_student_learns_more_with_a_teacher() -> None:
    """Where 70 of 100 training labels are random, the teacher's outputs bring the student more than 5 points."""
    pictures = open_images("sample", "train")
    images, labels = next(iter(evaluation_loader(samples_for_evaluation(pictures, SMALL), 3000, 0)))
    images = normalize(images, SMALL)
    validation, ground_truth = next(
        iter(evaluation_loader(samples_for_evaluation(open_images("sample", "test"), SMALL), 1000, 0))
    )
    validation = normalize(validation, SMALL)
    teacher = Teacher(ridge(F.avg_pool2d(images, 2), labels), SMALL, FASHION_MNIST_CLASSES, 10)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.where(
        torch.rand(3000, generator=generator) < 0.7, torch.randint(0, 10, (3000,), generator=generator), labels
    )

    def accuracy(taught: Teacher | None) -> float:
        torch.manual_seed(0)
        model = tiny(preprocessing=SMALL, classes=FASHION_MNIST_CLASSES).train()
        task = ClassificationTask(model, None, teacher=taught, distillation=Distillation(alpha=0.7))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(45):
            chosen = torch.arange(step * 64, (step + 1) * 64) % 3000
            batch, targets = task.prepare(images[chosen], noisy[chosen])
            optimizer.zero_grad()
            task.loss(task(batch), targets).backward()
            optimizer.step()
        with torch.no_grad():
            return float((model.eval()(validation).argmax(1) == ground_truth).float().mean())

    alone, with_teacher = accuracy(None), accuracy(teacher)
    assert alone > 0.3, "it learns at all"
    assert with_teacher > alone + 0.05, (alone, with_teacher)
