"""What the command can do: a plain function a verb, whose arguments are its options. Heavy imports are inside.

The verbs of a room with several of them are in its own `verbs` module.

An argument without a default stands on the line in order; one before `/` does too, and may be left out. A bool is a
flag, a list takes what is left of the line: `fastvit.cli` reads the signatures so.
"""

from __future__ import annotations

import inspect
import json as jsonlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TextIO

from fastvit.device import Device
from fastvit.errors import UserError
from fastvit.evaluation.robustness.verb import robustness
from fastvit.evaluation.verbs import evaluate, report
from fastvit.terminal import new_table, show


def models(pattern: str = "*", /) -> None:
    """List the family: parameters, multiply-accumulates, published accuracy and latency.

    Args:
        pattern: shell-style, such as "sa*"; a bare word matches anywhere.
    """
    from fastvit.model.variants import VARIANTS, list_models
    from fastvit.weights.zoo import tags

    names = list_models(pattern)
    if not names:
        raise UserError(f"no variant matches {pattern!r}; there are {', '.join(VARIANTS)}")
    table = new_table(
        "name", "params, M", "fused, M", "GMACs at 256", "top-1", "distilled", "iPhone 12 Pro, ms", "released weights",
        left=(0, 7),
    )  # fmt: skip
    for name in names:
        row = VARIANTS[name]
        published = [f"{value:.1f}" if value else "-" for value in (row.top1, row.top1_distilled, row.iphone_ms)]
        sizes = f"{row.params / 1e6:.2f}", f"{row.params_fused / 1e6:.2f}", f"{row.gmacs:.2f}"
        table.add_row(name, *sizes, *published, ", ".join(tags(name)) or "-")
    show(table)
    show("top-1 (ImageNet-1k, 256 px) and latency as published in arXiv 2303.14189; sizes counted by us", style="dim")


def info(checkpoint: str) -> None:
    """Say what a checkpoint is: variant, form, classes, preprocessing.

    Args:
        checkpoint: weights file of any layout, directory, or Hub id.
    """
    from fastvit.weights.layouts import recognise
    from fastvit.weights.native import build, describe
    from fastvit.weights.source import read

    file = read(checkpoint)
    layout, form = recognise(file.tensors)
    metrics = describe(file).metrics
    model = build(file)
    table = new_table("field", "value", left=(0, 1))
    preprocessing = model.preprocessing
    rows = {
        "variant": model.variant,
        "layout": layout,
        "form": form,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "classes": f"{model.num_classes}: {_shortened(model.classes)}"
        if model.classes
        else f"{model.num_classes}, no names",
        "input": f"{preprocessing.size[0]}x{preprocessing.size[1]}, {model.config.in_chans} channels, "
        f"crop {preprocessing.crop_pct}, {preprocessing.interpolation}",
        "mean, std": f"{_rounded(preprocessing.mean)}, {_rounded(preprocessing.std)}",
        "metrics": ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()) or "none recorded",
    }
    if file.info is None:
        rows["note"] = "the file does not say what it is: variant by its shapes, preprocessing as published"
    for name, value in rows.items():
        table.add_row(name, str(value))
    show(table)


def train(arguments: list[str]) -> int:
    """Train a recipe on a folder of images; every field of the recipe is an option."""
    from fastvit.training.recipe import RESOLVED, parse_recipe, recipe_parser

    recipe = parse_recipe(recipe_parser(description=inspect.getdoc(train)), arguments)

    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from fastvit.training.checkpoint import Terminated
    from fastvit.training.train import train as run

    @rank_zero_only
    def say(text: str, file: TextIO = sys.stderr) -> None:
        print(text, file=file)

    try:
        done = run(recipe)
    except (Terminated, KeyboardInterrupt) as end:
        resumable = (recipe.out / RESOLVED).exists()
        further = f"; go on with: fastvit train --resume {recipe.out}" if resumable else " before training began"
        say(f"fastvit: ended {end}".rstrip() + further)
        # Lightning takes another process's exit code for a failure of all.
        return 0 if rank_zero_only.rank else 143 if isinstance(end, Terminated) else 130
    say(f"{done.best}: top-1 {done.top1:.2%} on the held-out images", sys.stdout)
    say(f"next: fastvit eval, predict, fuse or export {done.best}", sys.stdout)
    return 0


def predict(
    checkpoint: str, images: list[str], k: int = 5, batch_size: int = 16, device: Device = "auto", json: bool = False
) -> int:
    """Name what is in images.

    Args:
        checkpoint: weights of any form and layout, or an exported .onnx file.
        images: files, folders or quoted glob patterns.
        k: classes to show for each.
        batch_size: images a step.
        device: where PyTorch runs.
        json: print one JSON object a line and image instead of a table.
    """
    from fastvit.data.images import find_images

    paths = find_images(images)  # before what takes seconds to import: a mistyped name is answered at once

    from fastvit.device import pick_device
    from fastvit.runtime.predictor import Failure, Predictor

    predictor = Predictor(checkpoint, pick_device(device))
    failures = []
    table = new_table("image", *(f"top {i + 1}" for i in range(k)), left=range(k + 1))
    for answer in predictor.stream(paths, k, batch_size):
        if isinstance(answer, Failure):
            failures.append(answer)
        elif json:
            print(jsonlib.dumps({"image": answer.image, "predictions": [asdict(label) for label in answer.labels]}))
        else:
            table.add_row(answer.image, *(f"{label.name} {label.probability:.1%}" for label in answer.labels))
    if table.row_count:
        show(table)
    for failure in failures:
        print(f"fastvit: skipped: {failure.reason}", file=sys.stderr)
    return 2 if failures else 0


def fuse(checkpoint: str, out: Path | None = None, tolerance: float = 1e-4) -> None:
    """Turn a trained checkpoint into its inference form, and prove that the two are equal.

    Args:
        checkpoint: weights in train or merged form, of any layout.
        out: .safetensors file to write; by default the checkpoint's name with "-fused".
        tolerance: largest relative difference of the outputs that counts as equal, in float32.
    """
    import torch

    import fastvit
    from fastvit.weights.source import beside

    model = fastvit.load(checkpoint)
    target = out or beside(checkpoint, "-fused.safetensors")
    if fastvit.form(model) == "fused":
        raise UserError(f"{checkpoint} is fused already")
    fused = fastvit.fuse(model)
    images = torch.randn(
        4, model.config.in_chans, *model.preprocessing.size, generator=torch.Generator().manual_seed(0)
    )
    differences = fastvit.verify(model, fused, images)
    if not differences.relative <= tolerance:
        raise UserError(
            f"the fused model differs from the checkpoint: {differences} (tolerated: {tolerance:.0e} relative)"
        )
    fastvit.save(fused, target)
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, fused)]
    print(f"{target}: {counts[0]:,} -> {counts[1]:,} parameters; on 4 random images {differences}")


def convert(checkpoint: str, out: Path, to: Literal["native", "official", "timm"] = "native") -> None:
    """Write weights under the names of another layout.

    Args:
        checkpoint: weights of any layout, directory, or Hub id.
        out: file to write: .safetensors, or .pth.tar for the official repository (tensors under "state_dict").
        to: whose parameter names.
    """
    import torch
    from safetensors.torch import save_file

    import fastvit
    from fastvit.files import atomic

    model = fastvit.load(checkpoint)
    if to == "native":
        fastvit.save(model, out)
    else:
        tensors = {k: v.contiguous() for k, v in fastvit.export_weights(model, to).items()}
        if out.suffix == ".safetensors":
            with atomic(out) as part:
                save_file(tensors, part, metadata={"format": "pt"})
        elif out.name.endswith((".pth.tar", ".pth", ".pt")):
            with atomic(out) as part:
                torch.save({"state_dict": tensors}, part)
        else:
            raise UserError(f"{out}: give a name that ends in .safetensors, .pth or .pth.tar")
    print(f"{out}: {model.variant}, {fastvit.form(model)} form, {to} layout, {model.num_classes} classes")


def export(checkpoint: str, to: str = "onnx", out: Path | None = None, verify_with: str | None = None) -> None:
    """Write an artifact for a device, run it in its own runtime, and prove that it computes what the checkpoint does.

    Args:
        checkpoint: weights in any form.
        to: target: onnx.
        out: file to write; by default the checkpoint's name with the target's suffix.
        verify_with: images to compare on: a file, folder or glob pattern; by default 16 of the embedded sample.
    """
    import torch

    import fastvit
    from fastvit.data.images import find_images, read_image
    from fastvit.data.opening import open_images
    from fastvit.data.transforms import eval_transform
    from fastvit.export.target import export as run
    from fastvit.export.target import find_target
    from fastvit.weights.source import beside

    target = find_target(to)
    model = fastvit.load(checkpoint)
    transform = eval_transform(model.preprocessing)
    if verify_with:
        pictures = [read_image(path) for path in find_images([verify_with])]
    else:
        sample = open_images("sample", "test")
        pictures = [sample.image(i) for i in range(16)]
    images = torch.stack([transform(picture) for picture in pictures])
    exported = run(model, target, out or beside(checkpoint, target.suffix), images)
    size = exported.path.stat().st_size / 1e6
    print(
        f"{exported.path}: {size:.1f} MB; {target.runtime} against PyTorch on {exported.images} images: "
        f"{exported.differences}"
    )


def bench(
    model: str,
    batch: int = 1,
    size: int | None = None,
    rounds: int = 50,
    compiled: bool = False,
    device: Device = "auto",
) -> None:
    """Time a model in its forms and runtimes, side by side.

    Args:
        model: a variant, or a checkpoint in train form.
        batch: images a call.
        size: side of the images in pixels; by default the model's own.
        rounds: timed calls of each.
        compiled: also time torch.compile, which takes a minute to build.
        device: where PyTorch runs.
    """
    import fastvit
    from fastvit.bench.forms import bench_forms
    from fastvit.device import pick_device

    network = fastvit.load(model) if Path(model).exists() or "/" in model else fastvit.create_model(model).eval()
    side = (size, size) if size else network.preprocessing.size
    timings = bench_forms(network, batch, side, pick_device(device), compiled, rounds=rounds)
    first = next(iter(timings.values()))
    table = new_table(
        f"{network.variant}, batch {batch}, {side[0]}x{side[1]}", "median, ms", "quartiles", "images/s", "speed-up"
    )
    for name, timing in timings.items():
        spread = f"{timing.low:.2f} to {timing.high:.2f}"
        speed = f"{1e3 * batch / timing.median:.0f}", f"{first.median / timing.median:.2f}x"
        table.add_row(name, f"{timing.median:.2f}", spread, *speed)
    show(table)


def quickstart(
    data: str = "sample", out: Path = Path("runs/quickstart"), device: Device = "auto", epochs: int | None = None
) -> None:
    """The whole job in minutes: train, evaluate, fuse, prove, export, time, and write a report.

    Args:
        data: "sample", a folder of images or idx files, or torch/FashionMNIST.
        out: folder of the run.
        device: where to train.
        epochs: passes over the training images; by default the recipe's.
    """
    from fastvit.quickstart import quickstart as run

    run(data, out, device, epochs)


def _shortened(classes: Sequence[str]) -> str:
    return ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")


def _rounded(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)


VERBS: dict[str, Callable[..., int | None]] = {
    "quickstart": quickstart,
    "models": models,
    "info": info,
    "train": train,
    "eval": evaluate,
    "report": report,
    "robustness": robustness,
    "predict": predict,
    "fuse": fuse,
    "convert": convert,
    "export": export,
    "bench": bench,
}
