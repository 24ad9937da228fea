"""`fastvit convert`: convert weights to another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastvit.console import print_line
from fastvit.errors import UserError


def convert(checkpoint: str, out: Path, to: Literal["native", "official", "timm"] = "native") -> None:
    """Convert a classifier's weights to the parameter names of fastvit (native), the official repository, or timm.

    Args:
        checkpoint: weights file in any layout, a folder with one, or a Hugging Face Hub id.
        out: file to write: .safetensors, or .pth.tar for the official repository (tensors under "state_dict").
        to: layout of the parameter names: native is fastvit's own, official that of Apple's ml-fastvit.

    Raises:
        UserError: the weights cannot be read or have no such layout, or the name of the file has another ending.
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
            suffixes = ".pth.tar or .safetensors" if to == "official" else ".safetensors or .pth"
            raise UserError(f"{out}: give a file name that ends in {suffixes}")
    print_line(f"{out}: {model.variant}, {fastvit.form(model)} form, {to} layout, {model.num_classes} classes")
