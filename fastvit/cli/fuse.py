"""`fastvit fuse`: fuse a checkpoint for inference."""

from __future__ import annotations

from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.console import print_line
from fastvit.errors import UserError


def fuse(
    checkpoint: str,
    out: Path | None = None,
    tolerance: float = 1e-4,
    data: str | None = None,
    verify_with: str | None = None,
) -> None:
    """Reparameterize and fuse a trained checkpoint for inference, and verify that the outputs are equal.

    Args:
        checkpoint: folder of a run, or weights in train or reparameterized form and any layout.
        out: .safetensors file to write; by default the checkpoint's name with "-fused".
        tolerance: largest relative difference of the outputs that is allowed, in float32.
        data: images to compare the outputs on, only for tasks that need real images (detection), as in fastvit export;
            by default those of the checkpoint's run, else synthetic scenes.
        verify_with: other images to compare the outputs on: a file, a folder or a glob pattern.

    Raises:
        UserError: the checkpoint cannot be read or is already fused, or the outputs of the fused model differ.
    """
    if verify_with:
        refuse_given("gives images to verify on, and so does --verify-with", data=data)

    import fastvit
    from fastvit.export.pictures import FEW, to_compare_on
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.table import find_task
    from fastvit.weights.location import beside

    model = fastvit.load(checkpoint)
    target = out or beside(checkpoint, "-fused.safetensors")
    if fastvit.form(model) == "fused":
        raise UserError(f"{checkpoint} is already fused")
    spec = find_task(model.task)
    if not spec.proved_on_pictures:
        refuse_given(
            f"does not apply to {spec.name}, whose outputs are compared on noise", data=data, verify_with=verify_with
        )
    fused = fastvit.fuse(model)
    source = EvaluationData(checkpoint, data)
    pictures = to_compare_on(model, source, verify_with, FEW).images if spec.proved_on_pictures else []
    proof = spec.prove_fusion(model, fused, pictures)
    if not proof.differences.relative <= tolerance or proof.faults:
        raise UserError(
            f"outputs of the fused model differ from the checkpoint's: {proof} (tolerance: {tolerance:.0e} relative)"
        )
    fastvit.save(fused, target)
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, fused)]
    print_line(f"{target}: {counts[0]:,} -> {counts[1]:,} parameters; {proof}")
