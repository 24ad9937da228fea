"""`fastvit fuse`: fuse a checkpoint."""

from __future__ import annotations

from pathlib import Path

from fastvit.arguments import refuse_given
from fastvit.errors import UserError
from fastvit.terminal import print_line


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
    if verify_with:
        refuse_given("names images to compare on, and so does --verify-with", data=data)

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
    if model.task != "detection":
        refuse_given("is for detectors; others are compared on random images", data=data, verify_with=verify_with)
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
