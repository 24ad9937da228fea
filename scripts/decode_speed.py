"""Images a second that one core reads, decodes and augments: ours, torchvision's ImageFolder, timm's default loader.

Run: python scripts/decode_speed.py [FOLDER]. FOLDER has a folder a class; by default 300 JPEGs of 500x375 are made,
each a mosaic of 4x3 Fashion-MNIST images, enlarged with bicubic interpolation, tinted, with noise of 6 gray levels,
saved at quality 90. All run in this process, on one thread, and its CPU time counts, so other work on the machine
disturbs little; they take turns, and the median of the rounds counts. Ours and timm's fast collation leave pixels 8-bit
and normalize them on the device, which is not counted; the two others make floats.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import ImageDataset
from fastvit.data.folders import FolderImages
from fastvit.data.load import open_images
from fastvit.data.sampling import TrainBatches
from fastvit.data.transforms import train_pixels
from fastvit.model.preprocessing import Preprocessing

SIZE, BATCH = 256, 25
Loader = Callable[[], Iterable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or make_photos(Path(made), 300)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        print(f"{len(sizes)} files, {statistics.mean(sizes) / 1000:.0f} kB on average")
        for policy in ("rand-m9-inc1", ""):  # no mstd: timm alone fails where it draws 10, see train_pixels
            rates = measure(loaders(folder, policy), arguments.rounds)
            print(f"augmentation: {policy or 'crop, flip, color jitter'}")
            for name, rate in rates.items():
                print(f"  {name:12} {rate:6.1f} images/s a core")


def make_photos(root: Path, count: int) -> Path:
    """JPEGs as large and about as busy as photos, from real pixels, in ten folders."""
    pictures, generator = open_images("sample", "train"), np.random.default_rng(0)
    for number in range(count):
        picked = generator.integers(0, len(pictures), (3, 4))
        rows = [np.concatenate([np.asarray(pictures.image(int(i))) for i in row], 1) for row in picked]
        mosaic = Image.fromarray(np.concatenate(rows)).resize((500, 375), Image.Resampling.BICUBIC)
        tint, noise = generator.uniform(0.5, 1, 3), generator.normal(0, 6, (375, 500, 3))
        path = root / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = np.clip(np.asarray(mosaic) * tint + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return root


def loaders(folder: Path, policy: str) -> dict[str, Loader]:
    """What gives an epoch of each; color jitter only where there is no policy, as timm has it."""
    pictures = FolderImages(folder)
    pixels = train_pixels(Preprocessing((SIZE, SIZE)), Augmentation(auto_augment=policy))
    ours = DataLoader(ImageDataset(pictures, pixels), batch_sampler=TrainBatches(len(pictures), BATCH, seed=0))
    bicubic = T.InterpolationMode.BICUBIC
    vary = T.RandAugment(interpolation=bicubic) if policy else T.ColorJitter(0.4, 0.4, 0.4)
    steps = [T.RandomResizedCrop(SIZE, interpolation=bicubic), T.RandomHorizontalFlip(), vary, T.ToTensor()]
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs = DataLoader(ImageFolder(folder, T.Compose([*steps, normalize])), BATCH, shuffle=True)
    timm = {
        prefetcher: create_loader(
            create_dataset("", str(folder)),
            (3, SIZE, SIZE),
            BATCH,
            is_training=True,
            use_prefetcher=prefetcher,
            auto_augment=policy or None,
            color_jitter=0.4,
            interpolation="bicubic",
            num_workers=0,
            device=torch.device("cpu"),
            persistent_workers=False,
        )
        for prefetcher in (True, False)
    }
    return {
        "ours": lambda: ours,
        "torchvision": lambda: theirs,
        "timm, uint8": lambda: timm[True].loader,
        "timm, float": lambda: timm[False],
    }


def measure(epochs: dict[str, Loader], rounds: int) -> dict[str, float]:
    """Median images a second over whole epochs, in turns, after one to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds + 1):
        for name, epoch in epochs.items():
            started, count = time.process_time(), 0
            for _ in epoch():
                count += BATCH
            rates[name].append(count / (time.process_time() - started))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


if __name__ == "__main__":
    main()
