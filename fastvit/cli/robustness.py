"""`fastvit robustness`: measure a model on changed images."""

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
    """Measure accuracy on corrupted, drawn or hard images.

    Args:
        checkpoint: weights of any form and layout, or an artifact of fastvit export.
        suite: imagenet-c, imagenet-a, imagenet-r, imagenet-sketch or imagenet-v2.
        data: the suite's folder; for imagenet-c also clean images of any data set ("sample", a folder, torch/NAME),
            which are then corrupted; by default those of the checkpoint's run, else the sample.
        out: folder for robustness.json and robustness.html; by default beside the checkpoint.
        corruptions: of imagenet-c: names joined by commas, such as fog,snow; by default all fifteen.
        clean: clean images, for relative errors, where data is the published ImageNet-C.
        limit: measure only so many images of each set, for a quick look.
        seed: of the corruptions that are made here; by default 0.
        batch_size: images a step.
        num_workers: processes that decode and corrupt images; by default one per core but one.
        device: where PyTorch runs.
        allow_native_code: open an AOTInductor package (.aoti.pt2), which contains machine code: only if you trust
            where it comes from.
        json: print one JSON object instead of tables.
    """
    from fastvit.evaluation.robustness.suites import find_suite

    chosen = find_suite(suite)  # before what takes seconds to load
    if data is None and suite != "imagenet-c":
        raise UserError(f"give the folder of {chosen.title} with --data; it is {chosen.layout}")

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
        refuse_given(f"is for corruptions that are made here, and {data} holds published ones", seed=seed)
    elif chosen.name == "imagenet-c":
        refuse_given(
            f"is for the published ImageNet-C; {evaluated.source} is clean itself, and is corrupted here", clean=clean
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
    print_line(f"{report}: {result.images} images of {result.data}{'' if result.complete else ', a part of the data'}")
