"""What the command can do: a plain function a verb, whose arguments are its options. Heavy imports are inside.

The verbs of a room with several of them are in its own `verbs` module.

An argument without a default stands on the line in order; one before `/` does too, and may be left out. A bool is a
flag, a list takes what is left of the line: `fastvit.cli` reads the signatures so.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, TextIO

from fastvit.bench.verb import bench
from fastvit.data.verb import scenes
from fastvit.device import Device
from fastvit.errors import UserError
from fastvit.evaluation.robustness.verb import robustness
from fastvit.evaluation.verbs import evaluate, report
from fastvit.export.verb import export
from fastvit.runtime.verb import predict
from fastvit.tasks.hand_mesh.verb import hands
from fastvit.terminal import new_table, print_line, show


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
    from fastvit.fusion import form
    from fastvit.weights.layouts import recognise
    from fastvit.weights.native import build, describe
    from fastvit.weights.source import read

    file = read(checkpoint)
    description = describe(file)
    metrics = description.metrics
    # Other tasks have no layout but ours.
    layout = recognise(file.tensors)[0] if description.task == "classification" else "native"
    model = build(file)
    table = new_table("field", "value", left=(0, 1))
    preprocessing = model.preprocessing
    rows = {
        "task": model.task,
        "variant": model.variant,
        "layout": layout,
        "form": form(model),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "classes": f"{model.num_classes}: {_shortened(model.classes)}"
        if model.classes
        else f"{model.num_classes}, no names",
        "input": f"{preprocessing}, {model.config.in_chans} channels",
        "mean, std": f"{_rounded(preprocessing.mean)}, {_rounded(preprocessing.std)}",
        "metrics": ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()) or "none recorded",
    }
    if model.options is not None:
        rows["network"] = _fields(asdict(model.options))
    if file.info is None:
        rows["note"] = "the file does not say what it is: variant by its shapes, preprocessing as published"
    for name, value in rows.items():
        table.add_row(name, str(value))
    show(table)


def train(arguments: list[str]) -> int:
    """Train a recipe on a folder of images; every field of the recipe is an option."""
    from fastvit.runs.files import RECIPE
    from fastvit.training.recipe import parse_recipe, recipe_parser

    recipe = parse_recipe(recipe_parser(description=inspect.getdoc(train)), arguments)

    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from fastvit.reports.metric_format import as_text
    from fastvit.tasks.table import find_task
    from fastvit.training.checkpoint import Terminated
    from fastvit.training.train import train as run

    @rank_zero_only
    def say(text: str, file: TextIO = sys.stderr) -> None:
        print_line(text, file=file)

    try:
        done = run(recipe)
    except (Terminated, KeyboardInterrupt) as end:
        resumable = (recipe.out / RECIPE).exists()
        further = f"; go on with: fastvit train --resume {recipe.out}" if resumable else " before training began"
        say(f"fastvit: ended {end}".rstrip() + further)
        # Lightning takes another process's exit code for a failure of all.
        return 0 if rank_zero_only.rank else 143 if isinstance(end, Terminated) else 130
    kind = find_task(recipe.task)
    say(f"{done.best}: {kind.label} {as_text(kind.headline, done.score)} on the held-out images", sys.stdout)
    say(f"next: fastvit eval {shlex.quote(str(recipe.out))}; then fastvit predict, fuse or export", sys.stdout)
    return 0


def fuse(
    checkpoint: str,
    out: Path | None = None,
    tolerance: float = 1e-4,
    data: str | None = None,
    verify_with: str | None = None,
) -> None:
    """Turn a trained checkpoint into its inference form, and prove that the two are equal.

    Args:
        checkpoint: weights in train or merged form, of any layout.
        out: .safetensors file to write; by default the checkpoint's name with "-fused".
        tolerance: largest relative difference of the outputs that counts as equal, in float32; for random images, or of
            a detector for the objects that it finds in pictures.
        data: pictures for a detector, as in fastvit export; by default those of the checkpoint's run, else scenes of
            the embedded sample.
        verify_with: other pictures for a detector: a file, folder or glob pattern.
    """
    import torch

    import fastvit
    from fastvit.export.pictures import to_compare_on
    from fastvit.export.proof import Proof, prove_objects
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.weights.location import beside

    model = fastvit.load(checkpoint)
    target = out or beside(checkpoint, "-fused.safetensors")
    if fastvit.form(model) == "fused":
        raise UserError(f"{checkpoint} is fused already")
    fused = fastvit.fuse(model)
    if model.task == "detection":
        proof = prove_objects(
            model, fused, to_compare_on(model, EvaluationData(checkpoint, data), verify_with, 8).images
        )
    else:
        shape = (4, model.config.in_chans, *model.preprocessing.canvas)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        proof = Proof(len(images), fastvit.verify(model, fused, images), None)
    if not proof.differences.relative <= tolerance or (proof.objects and proof.objects.unpaired):
        raise UserError(f"the fused model differs from the checkpoint: {proof} (tolerated: {tolerance:.0e} relative)")
    fastvit.save(fused, target)
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, fused)]
    print_line(f"{target}: {counts[0]:,} -> {counts[1]:,} parameters; {proof}")


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

    model = fastvit.load(checkpoint, fastvit.FastViT)
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
    print_line(f"{out}: {model.variant}, {fastvit.form(model)} form, {to} layout, {model.num_classes} classes")


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


def _fields(values: Mapping[str, Any]) -> str:
    """Names and values on a line, those of nested ones too; what is too long to read is left out."""
    parts = [
        _fields(value) if isinstance(value, Mapping) else f"{name} {shorten(str(value), 40, placeholder='...')}"
        for name, value in values.items()
    ]
    return ", ".join(parts)


def _rounded(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)


VERBS: dict[str, Callable[..., int | None]] = {
    "quickstart": quickstart,
    "models": models,
    "info": info,
    "scenes": scenes,
    "hands": hands,
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
