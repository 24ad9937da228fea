"""Norm statistics measured anew for the averaged weights."""

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
    """Take a finished run's last.safetensors, measure its norm statistics on training batches, and save the result.

    One process does it, on batches of the epoch after the last; as in evaluation there is no drop path. The statistics
    are the plain means over `recipe.ema.recalibrate` batches, at most an epoch (torch's `update_bn`); the file is
    recalibrated.safetensors, with the metrics that it has.
    """
    model = load(recipe.out / LAST, FastViT).to(device)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    spec, preprocessing = find_task(recipe.task), model.preprocessing
    recipe = replace(recipe, resume=recipe.out)  # with the split that is written down
    data = spec.create_data(recipe, spec.open_images(recipe), preprocessing)
    data.load_state_dict({"epoch": recipe.epochs + recipe.optim.cooldown_epochs, "start": 0})
    batches = islice(data.train_dataloader(), recipe.ema.recalibrate)
    update_bn((normalize(images.to(device), preprocessing) for images, _ in batches), model)
    model.eval()
    result = evaluate(
        lambda pixels: model(normalize(pixels, preprocessing)), data.val_dataloader(), model.num_classes, device
    )
    save(model, recipe.out / RECALIBRATED, result.metrics)
