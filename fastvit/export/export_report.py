"""The artifacts of an export as JSON and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastvit.environment import environment
from fastvit.export.export import Exported
from fastvit.export.proof import TOLERANCES
from fastvit.files import write_text
from fastvit.model.task_model import TaskModel
from fastvit.reports.page import Section, Table, write_report


def write_export_report(
    folder: Path, model: TaskModel, done: Sequence[Exported], failed: Mapping[str, str], compared_on: str
) -> Path:
    """Write report.json and report.html into a folder, and return the path of the latter.

    Args:
        folder: folder of the artifacts.
        model: exported model.
        done: artifacts written.
        failed: reasons of failures by file name.
        compared_on: description of the images of the comparison.
    """
    content = {
        "variant": model.variant,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "compared_on": compared_on,
        "artifacts": [_numbers(exported) for exported in done],
        "failed": dict(failed),
        "environment": environment(),
    }
    write_text(folder / "report.json", json.dumps(content, indent=2) + "\n")
    proved = sum(exported.proof is not None for exported in done)
    summary = f"{proved} of {len(done) + len(failed)} artifacts verified in their own runtimes on {compared_on}."
    sections = [Section("Artifacts", _ARTIFACTS, table=artifact_table(done))]
    if failed:
        sections.append(Section("Not written", table=Table(("artifact", "reason"), list(failed.items()))))
    return write_report(
        folder / "report.html",
        title=f"Export of {model.variant}",
        summary=summary,
        sections=[*sections, Section("Tolerances", _TOLERATED, table=_tolerance_table())],
    )


_ARTIFACTS = (
    "Each artifact was loaded from its file, run in its own runtime and compared with the trained model in PyTorch and "
    "float32, with the preprocessing that is stored in the artifact."
)
_HEADER = (
    *("artifact", "precision", "input", "size, MB", "runtime", "relative difference", "cosine similarity"),
    *("same top-1 prediction", "top-1 (model, artifact)", "status"),
)
_TOLERATED = "Limits of the verification. An artifact that exceeds one of them is not written."


def artifact_table(done: Sequence[Exported]) -> Table:
    """Return a row for each artifact, with the result of its verification."""
    return Table(_HEADER, [_row(exported) for exported in done])


def _row(exported: Exported) -> list[str]:
    signature, proof = exported.signature, exported.proof
    batch = signature.batch or "any number"
    size = f"{signature.size[0]}x{signature.size[1]}" if signature.size else "any size"
    size = f"any size within {size}" if "image_size" in signature.inputs else size
    found = [f"{exported.megabytes:.1f}", exported.target.runtime or "-"]
    if proof:
        top1 = proof.differences.top1
        found += [f"{proof.differences.relative:.1e}", f"{proof.differences.cosine:.6f}"]
        found += ["-" if top1 is None else f"{top1:.1%}"]
        found += [f"{proof.accuracy[0]:.2%}, {proof.accuracy[1]:.2%}" if proof.accuracy else "-", "verified"]
    else:
        found += ["-", "-", "-", "-", f"written, not run: {exported.not_run}"]
    return [exported.path.name, signature.precision, f"{batch} of {size}, {signature.input}", *found]


def _numbers(exported: Exported) -> dict[str, Any]:
    return {
        "file": exported.path.name,
        "target": exported.target.name,
        "runtime": exported.target.runtime,
        "signature": asdict(exported.signature),
        "megabytes": round(exported.megabytes, 3),
        "seconds_to_write": round(exported.seconds, 1),
        "proof": asdict(exported.proof) if exported.proof else None,
        "not_run": exported.not_run,
    }


def _tolerance_table() -> Table:
    rows = [
        (name, f"{bound.relative:.0e}", f"{bound.cosine}", f"{bound.accuracy} points")
        for name, bound in TOLERANCES.items()
    ]
    return Table(("precision", "max. relative difference", "min. cosine similarity", "max. loss of top-1"), rows)
