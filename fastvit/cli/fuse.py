"""`fastvit fuse`: fuse a checkpoint."""

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
    """Turn a trained checkpoint into its inference form, and prove that the two are equal.

    Args:
        checkpoint: weights in train or reparameterized form, of any layout.
        out: .safetensors file to write; by default the checkpoint's name with "-fused".
        tolerance: largest relative difference of the outputs that counts as equal, in float32.
        data: pictures to compare on, of a task that needs some (detection), as in fastvit export; by default those of
            the checkpoint's run, else scenes of the embedded sample.
        verify_with: other pictures: a file, folder or glob pattern.
    """
    if verify_with:
        refuse_given("names images to compare on, and so does --verify-with", data=data)

    import fastvit
    from fastvit.export.pictures import FEW, to_compare_on
    from fastvit.runs.evaluation_data import EvaluationData
    from fastvit.tasks.table import find_task
    from fastvit.weights.location import beside

    model = fastvit.load(checkpoint)
    target = out or beside(checkpoint, "-fused.safetensors")
    if fastvit.form(model) == "fused":
        raise UserError(f"{checkpoint} is fused already")
    spec = find_task(model.task)
    if not spec.proved_on_pictures:
        refuse_given(f"does not apply to {spec.name}, which is compared on noise", data=data, verify_with=verify_with)
    fused = fastvit.fuse(model)
    source = EvaluationData(checkpoint, data)
    pictures = to_compare_on(model, source, verify_with, FEW).images if spec.proved_on_pictures else []
    proof = spec.prove_fusion(model, fused, pictures)
    if not proof.differences.relative <= tolerance or proof.faults:
        raise UserError(f"the fused model differs from the checkpoint: {proof} (tolerated: {tolerance:.0e} relative)")
    fastvit.save(fused, target)
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, fused)]
    print_line(f"{target}: {counts[0]:,} -> {counts[1]:,} parameters; {proof}")
