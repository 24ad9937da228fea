"""Each page of the package, written from small models and checked as HTML."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import fastvit
from fastvit.bench.gpu_report import write_gpu_report
from fastvit.cli.main import main
from fastvit.data.arrays import FASHION_MNIST_CLASSES
from fastvit.evaluation.robustness.corruptions import CORRUPTIONS
from fastvit.evaluation.robustness.measure import Robustness
from fastvit.evaluation.robustness.plots import heat_map
from fastvit.evaluation.robustness.robustness_report import write_robustness
from fastvit.model.task_model import TaskModel
from fastvit.reports.figures import BLUE, Gallery, Picture, Plot, new_figure
from fastvit.reports.metric_format import TOP1
from fastvit.reports.page import Section, write_report
from fastvit.reports.plots import confusion_matrix, latency_bars, tradeoff, training_plots
from fastvit.synthetic.scenes import SEMANTIC_CLASSES, write_scenes
from fastvit.tasks.hand_mesh.freihand import hand_of
from fastvit.tasks.hand_mesh.synthetic_folder import write_hands
from fastvit.tasks.table import TASKS, all_tasks
from fastvit.timing import Timing
from fastvit.training.run_report import write_run_report
from tests.bench.test_gpu import make_gpu_run
from tests.evaluation.runs import make_run
from tests.helpers import make_folder, tiny
from tests.reports.checks import PHONE, check_page
from tests.tasks.contracts import lively, make_detector, make_segmenter
from tests.tasks.small_models import decided
from tests.tasks.test_hand_mesh import make_regressor

# Of pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CLASSES = ("cat", "dog")


def classifier(folder: Path) -> TaskModel:
    make_folder(folder, CLASSES, ("val",))
    return decided(tiny(len(CLASSES), classes=CLASSES, preprocessing=fastvit.Preprocessing((32, 32))))


def detector(folder: Path) -> TaskModel:
    write_scenes(folder, 5, 64, seed=0)
    names = FASHION_MNIST_CLASSES
    return lively(make_detector("faster_rcnn", tiny(len(names), attention=True).config, classes=names))


def segmenter(folder: Path) -> TaskModel:
    write_scenes(folder, 5, 64, seed=0)
    return make_segmenter("fpn", tiny(len(SEMANTIC_CLASSES)).config, classes=SEMANTIC_CLASSES)


def regressor(folder: Path) -> TaskModel:
    write_hands(folder, 5, 64, num_workers=0)
    return make_regressor(
        "mlp", hand=hand_of(folder), preprocessing=fastvit.Preprocessing((64, 64), resize="letterbox")
    )


# A model for each task, and the data that it writes into a folder.
MODELS: dict[str, Callable[[Path], TaskModel]] = {
    "classification": classifier,
    "detection": detector,
    "segmentation": segmenter,
    "hand_mesh": regressor,
}


def evaluation_page(folder: Path, task: str = "classification") -> Path:
    model = fastvit.save(MODELS[task](folder / "data").eval(), folder / "model.safetensors")
    options = ("--data", folder / "data", "--out", folder / "out", "--num-workers", 0, "--device", "cpu")
    assert main(["eval", str(model), *map(str, options)]) == 0
    return folder / "out" / "evaluation.html"


def run_page(folder: Path) -> Path:
    return write_run_report(make_run(folder / "run"))


def comparison_page(folder: Path) -> Path:
    runs = [
        str(make_run(folder / name, top1=top1, epochs=epochs)) for name, top1, epochs in (("a", 0.5, 2), ("b", 0.6, 3))
    ]
    out = folder / "compare.html"
    assert main(["compare", *runs, "--out", str(out), "--rounds", "1", "--device", "cpu"]) == 0
    return out


def export_page(folder: Path) -> Path:
    out = folder / "out"
    assert (
        main(
            [
                "export",
                str(make_run(folder / "run")),
                "--to",
                "onnx",
                "--out",
                str(out),
                "--images",
                "2",
                "--data",
                "sample",
            ]
        )
        == 0
    )
    return out / "report.html"


def robustness_page(folder: Path) -> Path:
    errors = {name: [0.1 * severity for severity in range(1, 6)] for name in CORRUPTIONS}
    metrics = {"mean_error": 0.3, "clean_error": 0.05, "relative_error": 0.25, "mce": 0.4, "relative_mce": 0.5}
    result = Robustness("imagenet-c", "photos", 9, False, True, 0, metrics, errors)
    return write_robustness(result, "model.safetensors", folder)


def bench_page(folder: Path) -> Path:
    out, model = folder / "out", str(make_run(folder / "run"))
    options = ("--backends", "train form,fused", "--rounds", "1", "--size", "32", "--device", "cpu", "--out", str(out))
    assert main(["bench", model, *options]) == 0
    return out / "report.html"


def gpu_page(folder: Path) -> Path:
    return write_gpu_report(folder, make_gpu_run())


# Each module that writes a page. That of `fastvit quickstart` is checked in tests/test_cli.py.
PAGES: dict[str, Callable[[Path], Path]] = {
    "evaluation/evaluation_report.py": evaluation_page,
    "training/run_report.py": run_page,
    "compare/comparison_report.py": comparison_page,
    "export/export_report.py": export_page,
    "evaluation/robustness/robustness_report.py": robustness_page,
    "bench/bench_report.py": bench_page,
    "bench/gpu_report.py": gpu_page,
}


def test_every_module_that_writes_a_page_is_here() -> None:
    root = Path(fastvit.__file__).parent
    names = {"write_report", "write_files"}
    found = set()
    for path in root.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if names & {call.id for call in calls if isinstance(call, ast.Name)}:
            found.add(path.relative_to(root).as_posix())
    assert found - {"bench/report.py"} == {*PAGES, "quickstart.py"}


@pytest.mark.parametrize("module", PAGES)
def test_pages(module: str, tmp_path: Path) -> None:
    page = check_page(PAGES[module](tmp_path).read_text())
    assert page.images or module == "export/export_report.py"


@pytest.mark.parametrize("task", [task for task in TASKS if task != "classification"])
def test_pages_of_evaluations(task: str, tmp_path: Path) -> None:
    page = check_page(evaluation_page(tmp_path, task).read_text())
    alts = [image["alt"] for image in page.images]
    assert any(alt.startswith("Ground truth for ") for alt in alts)
    assert any(alt.startswith("Prediction for ") for alt in alts)


def test_plots_fit_a_phone() -> None:
    """Plots of a few runs, classes and backends; larger ones scroll in their box."""
    history = {"train/loss": [(1, 2.0), (2, 1.0)], "val/top1": [(1, 0.5), (2, 0.75)], "lr": [(1, 0.1), (2, 0.0)]}
    plots = [
        *training_plots(history, {"top1": TOP1}),
        confusion_matrix(np.eye(3, dtype=int), CLASSES * 2),
        tradeoff({"a": (1.0, 0.5), "b": (2.0, 0.75)}, "latency, ms", TOP1),
        latency_bars({"train form": Timing(2, 2, 2, 1), "fused": Timing(1, 1, 1, 1)}, "train form"),
    ]
    assert len(plots) == 6
    assert all(plot.least_width <= PHONE for plot in plots)


@pytest.mark.parametrize("count", [2, 10, 20])
def test_labels_of_a_confusion_matrix_are_not_cut_off(count: int) -> None:
    figure = confusion_matrix(np.eye(count, dtype=int), [f"class {index:02d}" for index in range(count)]).figure
    figure.draw_without_rendering()
    labels = [text for text in figure.findobj(Text) if text.get_text()]
    assert len(labels) > 3 * count
    for text in labels:
        box = text.get_window_extent()
        assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, text
        assert -1 <= box.y0 <= box.y1 <= figure.bbox.height + 1, text


def test_titles_of_metrics() -> None:
    titles = {metric.label: metric.title for task in all_tasks() for metric in task.metrics.values()}
    assert (titles["top-1"], titles["box AP"], titles["mIoU"], titles["PA-MPJPE"]) == (
        "Top-1",
        "Box AP",
        "mIoU",
        "PA-MPJPE",
    )


def test_alternative_texts_have_the_numbers() -> None:
    history = {"val/top1": [(1, 0.5), (2, 0.75)], "lr": [(1, 0.1), (2, 0.25), (3, 0.0)]}
    accuracy, rate = training_plots(history, {"top1": TOP1})
    assert accuracy.alt == "Validation top-1 over epochs. top-1 50.00% at epoch 1, 75.00% at epoch 2."
    assert rate.alt == "Learning rate over epochs: from 0.1 to 0, 0.25 at most."
    accuracy, rate = training_plots({"val/top1": [(1, 0.5)], "lr": [(1, 0.1)]}, {"top1": TOP1})
    assert accuracy.alt == "Validation top-1 over epochs. top-1 50.00% at epoch 1."
    assert rate.alt == "Learning rate over epochs: 0.1."
    heat = "Heat map of the error by corruption and severity: "
    assert heat_map({"fog": [0.5] * 5}).alt == f"{heat}50.0% in all cells."
    assert heat_map({"fog": [0.1, 0.2, 0.3, 0.4, 0.5]}).alt == (
        f"{heat}10.0% for fog at severity 1 to 50.0% for fog at severity 5."
    )
    counts = np.array([[8, 2], [0, 5]])
    assert confusion_matrix(counts, CLASSES).alt == (
        "Confusion matrix of 2 classes: 13 of 15 images are on the diagonal, predicted correctly. "
        "The most frequent mistake: cat predicted as dog, 2 times."
    )
    bars = latency_bars({"train form": Timing(2, 1.9, 2.2, 5), "fused": Timing(1, 0.9, 1.1, 5)}, "train form")
    assert bars.alt.endswith("speedup over train form: train form 2.00 ms, 1.00x; fused 1.00 ms, 2.00x.")
    points = {"small": (1.0, 0.5), "large": (3.0, 0.8), "slow": (4.0, 0.7)}
    assert tradeoff(points, "latency, ms", TOP1).alt == (
        "Scatter plot of top-1 against latency, ms: small 50.00% at 1; large 80.00% at 3; slow 70.00% at 4. "
        "Pareto front: small, large."
    )


def test_a_page_that_fails_the_checks(tmp_path: Path) -> None:
    """The checks find what they are for."""
    figure = new_figure(4, 3)
    figure.subplots().plot([0, 1], color=BLUE)
    pictures = [Picture(Image.new("RGB", (8, 8)), "A black image of 8 by 8 pixels.", ("first", "second"))]
    sections = [Section("Plot", "text", [Plot(figure, "A line from 0 to 1.1 over x.")], Gallery(pictures, 4, 2, 64))]
    html = write_report(tmp_path / "page.html", "title", "summary", sections).read_text()
    assert len(check_page(html).images) == 2
    for old, new in (
        ('name="viewport"', 'name="port"'),
        ('content="light dark"', 'content="light"'),
        ('alt="A black image of 8 by 8 pixels."', 'alt=""'),
        ("summary", "the held-out images"),
        ('<div class="table"', '<div class="x"'),
        ('<th scope="col">value</th>', "<th>which</th>"),
        ('src="data:image/png', 'src="picture.png'),
    ):
        assert old in html, old
        with pytest.raises((AssertionError, KeyError)):
            check_page(html.replace(old, new))
