"""Make the embedded sample from the whole Fashion-MNIST: the first images of each class, in their original order.

    apt-get install dataset-fashion-mnist        # Debian; or any folder with the four idx files
    python scripts/make_sample.py /usr/share/datasets/fashion-mnist

Running it again writes the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fastvit.data.idx import read_idx, write_idx

PER_CLASS = {"train": 550, "t10k": 100}
OUT = Path(__file__).parent.parent / "fastvit" / "data" / "fashion_mnist_sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the four idx files of Fashion-MNIST")
    source = parser.parse_args().source
    for split, count in PER_CLASS.items():
        images, labels = (read_idx(source / f"{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
        write_idx(OUT / f"{split}-images-idx3-ubyte.gz", images[kept])
        write_idx(OUT / f"{split}-labels-idx1-ubyte.gz", labels[kept])
        print(f"{split}: {len(kept)} images")
    print(f"{sum(p.stat().st_size for p in OUT.iterdir()) / 1e6:.2f} MB in {OUT}")


if __name__ == "__main__":
    main()
