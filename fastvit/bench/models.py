"""Models to time: FastViT variants, other tasks' networks on them, and peers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fastvit.bench.complexity import Complexity, Work, complexity, work
from fastvit.bench.peers import PEERS
from fastvit.create import create_model
from fastvit.errors import UserError
from fastvit.fusion import form, fuse
from fastvit.model.classifier import FastViT
from fastvit.model.task_model import TaskModel
from fastvit.model.variants import VARIANTS, find_variant
from fastvit.tasks.table import all_tasks
from fastvit.weights.native import load


@dataclass(frozen=True)
class BenchModel:
    """A network to time.

    Attributes:
        name: name for tables.
        deployed: network as deployed, on the CPU: fused; a peer as far as timm fuses it.
        size: default height and width of the images, in pixels.
        published: (size, ImageNet-1k top-1 in percent, source); None if nothing is published.
        model: model before fusion; None for a peer.
    """

    name: str
    deployed: nn.Module
    size: tuple[int, int]
    published: tuple[int, float, str] | None = None
    model: TaskModel | None = None

    @property
    def train_form(self) -> TaskModel | None:
        """Model in train form; None for a peer, and for a model that was loaded without its branches."""
        return self.model if self.model is not None and form(self.model) == "train" else None

    @property
    def timm_reference(self) -> nn.Module | None:
        """Network of timm for the same variant, random weights, fused as far as timm does; None if timm has none."""
        row = VARIANTS.get(self.model.variant) if self.model is not None else None
        free = {"num_classes": 0, "drop_path": 0.0}
        if (
            not isinstance(self.model, FastViT)
            or row is None
            or row.config.replace(**free) != self.model.config.replace(**free)
        ):
            return None
        return _timm_fused(row.name, num_classes=self.model.num_classes)

    def work(self, size: tuple[int, int]) -> Work:
        """Return the arithmetic and memory traffic of one image of a height and width in pixels."""
        # A network whose control flow depends on values needs realistic ones.
        device = "cpu" if self.model is not None and self.model.data_dependent else "meta"
        network = copy.deepcopy(self.deployed).to(device)
        return work(network, torch.zeros(1, self.channels, *size, device=device))

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return self.model.config.in_chans if self.model is not None else 3


def find_model(name: str) -> BenchModel:
    """Return a variant or a peer with random weights (speed does not depend on them), or a checkpoint.

    A head before a variant gives a network of another task, such as "mask_rcnn-sa12" or "fpn-sa12"; see
    `TaskSpec.heads`.

    Raises:
        UserError: the name is none of these.
    """
    if name in PEERS:
        return peer_model(name)
    if Path(name).exists() or "/" in name:
        return fastvit_model(load(name), name)
    head, _, variant = name.rpartition("-")
    for task in all_tasks():
        if head in task.heads:
            return fastvit_model(task.create_untrained(head, variant).eval(), name)
    try:
        row = find_variant(name)
    except UserError as error:
        heads = ", ".join(f"{head}-VARIANT" for task in all_tasks() for head in task.heads)
        raise UserError(f"{error}; or give {heads}, a timm network ({', '.join(PEERS)}), or a checkpoint") from error
    return fastvit_model(create_model(row.name).eval())


def fastvit_model(model: TaskModel, name: str | None = None) -> BenchModel:
    """Return a model in any form; a variant as published comes with the accuracy that the paper reports.

    Args:
        model: model in any form.
        name: name for tables; None for the name of the variant.
    """
    row = VARIANTS.get(model.variant)
    published = (256, row.top1, "arXiv 2303.14189") if name is None and row and row.top1 else None
    return BenchModel(name or model.variant, fuse(model), model.preprocessing.fixed_size, published, model)


def peer_model(name: str) -> BenchModel:
    """Return a network of timm with random weights.

    Raises:
        UserError: the installed timm does not have it.
    """
    peer = PEERS[name]
    network = _timm_fused(name)
    if network is None:
        raise UserError(f"the installed timm does not have {name}: pip install -U timm")
    return BenchModel(name, network, (peer.size, peer.size), (peer.size, peer.top1, peer.source))


def complexity_of(model: TaskModel) -> Complexity:
    """Count parameters and multiply-accumulates of a model in any form, at its own image size."""
    if isinstance(model, FastViT):
        return complexity(model.config, model.preprocessing.size)
    with torch.device("meta"):
        train_form = type(model)(model.config, model.variant, options=model.options)
    fused = fastvit_model(model)
    params, params_fused = (sum(p.numel() for p in network.parameters()) for network in (train_form, fused.deployed))
    return Complexity(params, params_fused, fused.work(fused.size).gmacs)


def _timm_fused(name: str, **options: int) -> nn.Module | None:
    import timm
    from timm.utils import reparameterize_model

    return reparameterize_model(timm.create_model(name, **options).eval()) if timm.is_model(name) else None
