"""`fastvit robustness`: evaluate a classifier on corrupted images and other robustness benchmarks."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.cli.applicable import refuse_device
from fastvit.console import print_line, print_table
from fastvit.device import Device
from fastvit.errors import UserError


def robustness(
    checkpoint: str,
    suite: str = "imagenet-c",
    data: str | None = None,
    out: Path | None = None,
    corruptions: str | None = None,
    clean: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: Device = "auto",
    allow_native_code: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a classifier's robustness: corrupted images (ImageNet-C), ImageNet-A, -R, -Sketch and -V2.

    Args:
        checkpoint: folder of a run, weights in any form and layout, or an artifact of fastvit export.
        suite: imagenet-c, imagenet-a, imagenet-r, imagenet-sketch or imagenet-v2.
        data: folder of the suite; for imagenet-c also clean images of any dataset ("sample", a folder, torch/NAME),
            to which the corruptions are applied. By default the data of the checkpoint's run, else the sample.
        out: folder for robustness.json and robustness.html; by default beside the checkpoint.
        corruptions: corruptions of imagenet-c to apply, separated by commas, such as fog,snow; by default all fifteen.
        clean: clean images, for relative errors, if --data is the published ImageNet-C.
        limit: number of images of each set to evaluate, for a quick estimate; by default all.
        seed: random seed of the corruptions that are computed here; by default 0.
        batch_size: images per batch.
        num_workers: number of processes that decode and corrupt images; by default the number of CPU cores minus one.
        device: device that PyTorch runs on.
        allow_native_code: load an AOTInductor package (.aoti.pt2). It contains machine code: do so only if you trust
            its source.
        json: print one JSON object instead of tables.

    Raises:
        UserError: the model, the data or the device is not available, or an option does not apply to the suite.
    """
    from fastvit.evaluation.robustness.suites import find_suite

    chosen = find_suite(suite)  # before slow imports
    if data is None and suite != "imagenet-c":
        raise UserError(f"--data is missing: give the folder of {chosen.title}, {chosen.layout}")

    if chosen.name != "imagenet-c":
        refuse_given(f"is for imagenet-c, not for {suite}", corruptions=corruptions, clean=clean, seed=seed)
    refuse_device(checkpoint, device)

    from fastvit.device import pick_device
    from fastvit.evaluation.robustness.corruptions import CORRUPTIONS
    from fastvit.evaluation.robustness.measure import Settings, is_published, measure
    from fastvit.evaluation.robustness.robustness_report import corruption_table, score_table, write_robustness
    from fastvit.predict.predictor import Predictor
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.runtime.artifact import is_artifact
    from fastvit.weights.location import beside

    evaluated = EvaluationData(checkpoint, data)
    if chosen.name == "imagenet-c" and is_published(evaluated):
        refuse_given(f"is for corruptions that are computed here; {data} contains the published ones", seed=seed)
    elif chosen.name == "imagenet-c":
        refuse_given(
            f"is for the published ImageNet-C; the images of {evaluated.source} are clean already", clean=clean
        )
    names = tuple(name.strip() for name in corruptions.split(",")) if corruptions else tuple(CORRUPTIONS)
    clean_data = EvaluationData(checkpoint, clean) if clean else None
    settings = Settings(names, clean_data, limit, seed or 0, batch_size, num_workers)
    runtime = "auto" if is_artifact(checkpoint) else "torch"
    predictor = Predictor(checkpoint, pick_device(device), runtime, allow_native_code=allow_native_code)
    result = measure(predictor, chosen, evaluated, settings)
    report = write_robustness(result, checkpoint, out or beside(checkpoint, f"-{suite}"))
    if json:
        print_line(jsonlib.dumps(asdict(result)))
        return
    for table in [corruption_table(result), score_table(result)] if result.errors else [score_table(result)]:
        print_table(table.header, table.rows)
    print_line(f"{report}: {result.images} images of {result.data}{'' if result.complete else ' (a subset)'}")
