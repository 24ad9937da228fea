"""Shards: every sample once an epoch, from a disk and over HTTP, for any number of processes and workers."""

from __future__ import annotations

import io
import math
import multiprocessing
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fastvit.data.augmentation import Augmentation
from fastvit.data.datasets import IGNORED, ImageDataset
from fastvit.data.load import open_for_training, open_images
from fastvit.data.sampling import PADDING, SampleIndex, ShardBatches, ShardShare
from fastvit.data.shard_lists import open_shards, write_info
from fastvit.data.shards import WINDOW, Shard, ShardImages
from fastvit.data.transforms import eval_pixels
from fastvit.errors import UserError
from fastvit.model.preprocessing import Preprocessing
from fastvit.tasks.classification.data import ClassificationData, open_for_run
from tests.data.shard_server import make_shards, serve

SMALL = Preprocessing((8, 8))
PLAIN = Augmentation((1, 1), (1, 1), 0.0, 0.0, "", 0.0)
EVEN, UNEVEN = [8] * 8, [3, 17, 1, 9, 20, 6, 8]  # 64 samples each


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    make_shards(tmp_path / "shards", "val", [5, 2], start=100)
    return make_shards(tmp_path / "shards", "train", UNEVEN)


def read_share(source: str, rank: int) -> list[tuple[int, int]]:
    """What one of two processes sees in an epoch: (number, class) of each sample."""
    pictures = open_shards(source, "train")
    share = ShardBatches(pictures.lengths, 4, seed=7, window=16, num_workers=2, rank=rank, processes=2)
    loader = DataLoader(ImageDataset(pictures, eval_pixels(SMALL)), batch_sampler=share, num_workers=2)
    batches = [(images[:, 0, 0, 0].tolist(), labels.tolist()) for images, labels in loader]
    return [pair for numbers, classes in batches for pair in zip(numbers, classes, strict=True)]


def read_by_two_processes(source: str) -> list[tuple[int, int]]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        shares = list(pool.map(read_share, [source] * 2, range(2)))
    assert [len(share) for share in shares] == [32, 32], "as many steps for both"
    return shares[0] + shares[1]


@pytest.mark.parametrize("lengths", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_two_processes_of_two_workers_see_every_local_sample_once(tmp_path: Path, lengths: list[int]) -> None:
    folder = make_shards(tmp_path, "train", lengths)
    assert sorted(read_by_two_processes(str(folder))) == [(i, i % 3) for i in range(64)]


def test_two_processes_of_two_workers_see_every_sample_once_over_http(tmp_path: Path) -> None:
    write_info(make_shards(tmp_path, "train", UNEVEN))
    with serve(tmp_path) as address:
        for source in (address, f"{address}/train-{{0000..0006}}.tar"):
            assert sorted(read_by_two_processes(source)) == [(i, i % 3) for i in range(64)]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_orders_of_shards(processes: int, num_workers: int) -> None:
    def epoch(number: int, start: int = 0) -> list[list[list[SampleIndex]]]:
        arguments = UNEVEN, 4, 7, 16, num_workers
        return [list(ShardBatches(*arguments, rank, processes, number, start)) for rank in range(processes)]

    first = epoch(0)
    steps = 64 // (4 * processes)
    assert {len(batches) for batches in first} == {steps}
    draws = [draw for batches in first for batch in batches for draw in batch]
    assert len({draw.image for draw in draws}) == len({draw.seed for draw in draws}) == steps * 4 * processes
    assert epoch(0) == first
    assert epoch(0, 3) == [batches[3:] for batches in first]
    assert epoch(1) != first
    left_out = [set(range(64)) - {d.image for b in epoch(n) for c in b for d in c} for n in range(8)]
    assert all(len(left) == 64 - steps * 4 * processes for left in left_out)
    assert processes < 3 or len(set.union(*left_out)) > 8, "other ones each epoch"


def test_a_worker_reads_few_shards_and_mixes_what_it_reads() -> None:
    lengths = [100] * 20
    batches = list(ShardBatches(lengths, 10, seed=0, window=50, num_workers=4, rank=0, processes=1))
    for worker in range(4):
        images = [draw.image for batch in batches[worker::4] for draw in batch]
        shards = [image // 100 for image in images]
        assert len(set(shards)) == 5
        last_seen = {shard: max(i for i, s in enumerate(shards) if s == shard) for shard in shards}
        first_seen = {shard: shards.index(shard) for shard in last_seen}
        assert all(last_seen[shard] - first_seen[shard] < 100 + 2 * 50 for shard in last_seen)
        assert np.abs(np.diff(images)).mean() > 10, "not in the order of the shards"


@pytest.mark.parametrize(("processes", "num_workers"), [(1, 0), (1, 3), (2, 2), (3, 2), (4, 1)])
@pytest.mark.parametrize("length", [1, 10, 24, 57])
def test_shares_of_an_evaluation(length: int, processes: int, num_workers: int) -> None:
    """Even, complete, without a sample twice; a process and a worker read samples that follow each other."""
    batch = 4
    shares = [list(ShardShare(length, batch, num_workers, rank, processes)) for rank in range(processes)]
    assert sorted(i for share in shares for i in share if i != PADDING) == list(range(length))
    steps = math.ceil(math.ceil(length / processes) / batch)
    assert {len(share) for share in shares} == {steps * batch}, "whole batches, and no more than it takes"
    for share in shares:
        batches = [share[start : start + batch] for start in range(0, len(share), batch)]
        count = max(num_workers, 1)
        lanes = [[i for part in batches[worker::count] for i in part if i != PADDING] for worker in range(count)]
        for samples in ([i for i in share if i != PADDING], *lanes):
            assert sorted(samples) == list(range(min(samples, default=0), min(samples, default=0) + len(samples)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_data_module_reads_shards(uneven: Path, num_workers: int) -> None:
    images = open_for_run(f"wds/{uneven}")
    data = ClassificationData(images, SMALL, 4, PLAIN, num_workers=num_workers)
    assert data.classes == ("ape", "bee", "cat")
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 16
    assert sorted(torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist()) == list(range(64))
    state = {**data.state_dict(), "start": 5}
    # As it was called before version 0.2.
    old = {"workers" if name == "num_workers" else name: value for name, value in state["batches"].items()}
    for each in ({**state, "batches": old}, state):
        data.load_state_dict(each)
    rest = list(data.train_dataloader())
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(rest, batches[5:], strict=True))
    with pytest.raises(
        UserError, match=f"num_workers {max(num_workers, 1)}; now .* num_workers 3: resume with the same settings"
    ):
        ClassificationData(images, SMALL, 4, PLAIN, num_workers=3).load_state_dict(state)
    labels = torch.cat([labels for _, labels in data.val_dataloader()])
    assert sorted(labels[labels != IGNORED].tolist()) == sorted(i % 3 for i in range(100, 107))


def test_names_and_classes(uneven: Path) -> None:
    pictures = open_images(f"wds/{uneven}", "test", ("cow", "cat", "bee", "ape"))
    assert pictures.labels[:] == [[3, 2, 1][i % 3] for i in range(100, 107)]
    assert pictures.name(5) == f"{uneven}/val-0001.tar/pics/00105"
    assert pictures.image(6).getpixel((0, 0))[0] == 106
    (uneven / "classes.txt").write_text("ape\nbee\n")
    with pytest.raises(UserError, match=r"00101 has the class number 2, but there are only 2 class names"):
        open_images(f"wds/{uneven}", "test").labels[:]
    (uneven / "classes.txt").unlink()
    assert open_images(f"wds/{uneven}", "test", ("a", "b", "c")).labels[1] == 2
    with pytest.raises(UserError, match="classes.txt beside the shards"):
        open_images(f"wds/{uneven}", "test")
    write_info(uneven, ["x", "y", "z"])
    assert open_images(f"wds/{uneven}", "test").classes == ("x", "y", "z")


def test_patterns_name_both_splits(uneven: Path) -> None:
    source = f"wds/{uneven}/train-{{0000..0002}}.tar::{uneven}/val-{{0000..0001}}.tar"
    train, test = open_for_training(source)
    assert (len(train), len(test)) == (21, 7)
    with pytest.raises(UserError, match="has no .tar file with train or training"):
        open_images(f"wds/{uneven}/val-0000.tar", "train")
    with pytest.raises(UserError, match="val_fraction cannot split shards"):
        open_for_training(source, val_fraction=0.1)


def test_only_so_many_shards_stay_open(tmp_path: Path) -> None:
    make_shards(tmp_path, "train", [200])
    pictures = ShardImages([str(tmp_path / "train-0000.tar")] * 40, [200] * 40, ["a", "b", "c"], range(3))
    for index in range(0, 8000, 100):
        pictures.label(index)
    assert len(pictures._open) == 2 + WINDOW // 200


def test_shards_that_are_not_right(tmp_path: Path, uneven: Path) -> None:
    shard = uneven / "train-0004.tar"
    whole = shard.read_bytes()
    write_info(uneven)
    make_shards(uneven, "train", [3, 17, 1, 9, 19])
    with pytest.raises(UserError, match=r"train-0004.tar has 19 samples, expected 20"):
        list(open_images(f"wds/{uneven}", "train").labels)
    shard.write_bytes(whole[: len(whole) // 2 + 700])
    with pytest.raises(UserError, match=r"train-0004.tar is corrupt|has .* samples"):
        list(open_images(f"wds/{uneven}", "train").labels)
    with tarfile.open(shard, "w") as tar:
        tar.addfile(tarfile.TarInfo("00001.png"), io.BytesIO())
    with pytest.raises(UserError, match=r"the sample 00001 needs an image and a .cls file, but has png"):
        Shard(str(shard))
    with pytest.raises(UserError, match="cannot read"):
        Shard(str(tmp_path / "none.tar"))
    with pytest.raises(UserError, match="only http"):
        Shard("s3://bucket/none.tar")
    with serve(tmp_path) as address:
        with pytest.raises(UserError, match=r"cannot download .*none.tar: HTTP Error 404"):
            Shard(f"{address}/none.tar")
        with pytest.raises(UserError, match="number of samples in .* is unknown"):
            open_shards(f"{address}/train-0000.tar", "train")
    with pytest.raises(UserError, match="that lists its shards"):
        open_shards("http://127.0.0.1:9/none", "train")


def test_webdataset_reads_the_same(uneven: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    paths = [str(path) for path in sorted(uneven.glob("train-*.tar"))]
    theirs = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    ours = open_shards(str(uneven), "train")
    assert [sample["__key__"] for sample in theirs] == [ours.name(i).partition(".tar/")[2] for i in range(len(ours))]
    assert [int(sample["cls"]) for sample in theirs] == list(ours.labels)
    for i in (0, 20, 63):
        assert ours.image(i).tobytes() == Image.open(io.BytesIO(theirs[i]["png"])).convert("RGB").tobytes()
