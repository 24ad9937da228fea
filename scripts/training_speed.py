"""Images a second of our training step against the same step written plainly with timm's model, in turns in one run.

Both normalize 8-bit images, mix them, take a smoothed cross entropy, go back, and step AdamW; data loading, moving
average and logging are left out on both sides.

    python scripts/training_speed.py --model fastvit_sa12 --size 256 --batch 8 --rounds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_weight_decay
from torch import Tensor

from fastvit.create import create_model
from fastvit.device import pick_device
from fastvit.tasks.classification.module import ClassificationTask
from fastvit.tasks.classification.options import MixupOptions
from fastvit.timing import measure
from fastvit.training.optim import parameter_groups
from fastvit.training.options import OptimOptions

Step = Callable[[Tensor, Tensor], None]


def ours(name: str, device: str, autocast: Callable[[], AbstractContextManager[None]], last: bool) -> Step:
    """The step of `fastvit train`."""
    model = create_model(name).train()
    model = (model.to(memory_format=torch.channels_last) if last else model).to(device)
    task = ClassificationTask(model, MixupOptions()).train().to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, OptimOptions()), foreach=True)

    def step(pixels: Tensor, labels: Tensor) -> None:
        with autocast():
            images, targets = task.prepare(task._normalized(pixels), labels)
            loss = task.loss(task(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def plain(name: str, device: str, autocast: Callable[[], AbstractContextManager[None]], last: bool) -> Step:
    """The same with timm's model, mixup, loss and parameter groups."""
    model = timm.create_model(name).train().to(device)
    if last:
        model = model.to(memory_format=torch.channels_last)
        # In channels last a CPU would corrupt memory: see `fastvit.model.layers.StridedPointwise`.
        model.stem[0].to(memory_format=torch.contiguous_format)
    mean, std = (torch.tensor(model.pretrained_cfg[key], device=device).view(3, 1, 1) * 255 for key in ("mean", "std"))
    mix, criterion = Mixup(0.2, 1.0, label_smoothing=0.1), SoftTargetCrossEntropy()
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=1e-3, foreach=True)

    def step(pixels: Tensor, labels: Tensor) -> None:
        with autocast():
            images, targets = mix((pixels.float() - mean) / std, labels)
            loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="fastvit_sa12")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    device = pick_device(options.device)

    def autocast() -> AbstractContextManager[None]:
        return torch.autocast(device, torch.bfloat16, enabled=options.bf16)

    steps = {
        "fastvit": ours(options.model, device, autocast, options.channels_last),
        "timm": plain(options.model, device, autocast, options.channels_last),
    }
    pixels = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 1000, (options.batch,), device=device)

    def call(step: Step) -> None:
        step(pixels, labels)
        if device == "cuda":
            torch.cuda.synchronize()

    timings = measure({name: partial(call, step) for name, step in steps.items()}, options.rounds, warmup=1)
    for name, timing in timings.items():
        low, high = (1e3 * options.batch / milliseconds for milliseconds in (timing.high, timing.low))
        print(f"{name:8} {1e3 * options.batch / timing.median:7.2f} images/s, IQR {low:.2f} to {high:.2f}")
    print(f"{timings['timm'].median / timings['fastvit'].median:.2f} times as fast as timm's")


if __name__ == "__main__":
    main()
