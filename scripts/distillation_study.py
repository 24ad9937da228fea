"""FastViT-T8 and SA12 on Fashion-MNIST at 64 px, plain and taught by a larger FastViT: top-1 over seeds, as a table.

    python scripts/distillation_study.py --out runs/study --epochs 6 [--data DIR] [--device cuda]
    python scripts/distillation_study.py --out runs/study --epochs 6 --students t8 --kinds plain   (a part of it)

Runs that are complete in the folder are not made again, an interrupted one goes on: call it until it is done.
Everything is by the recipe quickstart but for the model, the seed, the epochs and the teacher.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from fastvit.runs.files import RECIPE
from fastvit.training.recipe import load_recipe, parse_recipe
from fastvit.training.train import train
from fastvit.weights.native import describe
from fastvit.weights.source import read

DONE = "study.json"


def run(out: Path, options: list[str]) -> float:
    """Top-1 of a run's last epoch; trained if it has not been, gone on with if it was interrupted."""
    if not (out / DONE).exists():
        resumed = (out / RECIPE).exists()
        recipe = (
            parse_recipe(["--resume", str(out)]) if resumed else load_recipe("quickstart", f"--out={out}", *options)
        )
        start = time.perf_counter()
        train(recipe)
        seconds = None if resumed else round(time.perf_counter() - start)
        metrics = describe(read(out / "last.safetensors")).metrics
        (out / DONE).write_text(json.dumps({"top1": metrics["top1"], "seconds": seconds}))
    return float(json.loads((out / DONE).read_text())["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--data", default="sample")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--students", nargs="+", default=["t8", "sa12"])
    parser.add_argument("--kinds", nargs="+", choices=["plain", "hard", "soft"], default=["plain", "hard", "soft"])
    parser.add_argument("--teacher", default="sa24")
    parser.add_argument("--teacher-epochs", type=int, help="default: as many as the students")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    common = [f"--data={asked.data}", f"--device={asked.device}"]
    teacher = asked.out / f"teacher-{asked.teacher}"
    if set(asked.kinds) - {"plain"}:
        epochs = asked.teacher_epochs or asked.epochs
        top1 = run(teacher, [*common, f"--epochs={epochs}", f"--model.name={asked.teacher}"])
        print(f"teacher {asked.teacher}, {epochs} epochs: {top1:.1%}", flush=True)
    print("| student | kind | top-1 by seed | mean | standard deviation |\n|---|---|---|---|---|")
    for student in asked.students:
        for kind in asked.kinds:
            options = [*common, f"--epochs={asked.epochs}", f"--model.name={student}"]
            if kind != "plain":
                options += [f"--distillation.teacher={teacher / 'last.safetensors'}", f"--distillation.kind={kind}"]
            results = [
                run(asked.out / f"{student}-{kind}-{seed}", [*options, f"--seed={seed}"]) for seed in range(asked.seeds)
            ]
            values = [100 * value for value in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            shown = ", ".join(f"{value:.1f}" for value in values)
            print(f"| {student} | {kind} | {shown} | {statistics.mean(values):.2f} | {spread:.2f} |", flush=True)


if __name__ == "__main__":
    main()
