"""Measure batch norm statistics again for the EMA weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch
from torch.optim.swa_utils import update_bn

from fastvit.data.transforms import normalize
from fastvit.evaluation.evaluate import evaluate
from fastvit.model.classifier import FastViT
from fastvit.model.layers import DropPath
from fastvit.runs.files import LAST, RECALIBRATED
from fastvit.tasks.table import find_task
from fastvit.training.options import Recipe
from fastvit.weights.native import load, save


def recalibrate(recipe: Recipe, device: str | torch.device) -> None:
    """Measure the batch norm statistics of a finished run's last.safetensors again, and save recalibrated.safetensors.

    One process does this, on training batches of the epoch after the last, without drop path. The statistics are means
    over `recipe.ema.recalibrate` batches, at most one epoch (torch's `update_bn`). The file also contains the metrics
    on the validation images.

    Args:
        recipe: recipe of the run.
        device: torch device to run on.
    """
    model = load(recipe.out / LAST, FastViT).to(device)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    spec, preprocessing = find_task(recipe.task), model.preprocessing
    recipe = replace(recipe, resume=recipe.out)  # with the validation split that the run wrote
    data = spec.create_data(recipe, spec.open_images(recipe), preprocessing)
    data.load_state_dict({"epoch": recipe.epochs + recipe.optim.cooldown_epochs, "start": 0})
    batches = islice(data.train_dataloader(), recipe.ema.recalibrate)
    update_bn((normalize(images.to(device), preprocessing) for images, _ in batches), model)
    model.eval()
    result = evaluate(
        lambda pixels: model(normalize(pixels, preprocessing)), data.val_dataloader(), model.num_classes, device
    )
    save(model, recipe.out / RECALIBRATED, result.metrics)
