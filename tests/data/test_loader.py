"""Order, shares and resumption of the loaders, and how their workers end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import EpochBatches, eval_loader, even_order, train_loader
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.errors import UserError
from tests.data import trees


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.folders(tmp_path_factory.mktemp("folders"), classes=3, images=7)


@pytest.fixture(scope="module")
def dataset(root) -> ClassificationDataset:
    return train_dataset(DataConfig(root=str(root), image_size=8), seed=3)


def batches(loader):
    return [tuple(part.clone() for part in batch) for batch in loader]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_batches_do_not_depend_on_workers_nor_on_where_one_starts(dataset):
    whole = batches(train_loader(dataset, 4, seed=1, epoch=2))
    assert len(whole) == 5 and whole[0][0].shape == (4, 3, 8, 8)
    assert [int(label) for label in whole[0][1]] == [dataset.labels[i] for i in whole[0][2]]
    loader = train_loader(dataset, 4, seed=1, epoch=2, start_batch=3, workers=2)
    assert len(loader) == 2 and loader.batches_per_epoch == 5
    assert_equal(batches(loader), whole[3:])
    loader.set_epoch(2)  # the same workers go on with another epoch, and after an abandoned one
    assert_equal(batches(loader), whole)
    next(iter(loader))
    loader.set_epoch(3, 1)
    assert_equal(batches(loader), batches(train_loader(dataset, 4, seed=1, epoch=3))[1:])


def test_skipped_batches_are_not_read(dataset, monkeypatch):
    read = []
    monkeypatch.setattr(
        ClassificationDataset, "read", lambda self, i: read.append(i) or trees.Image.new("RGB", (9, 9))
    )
    batches(train_loader(dataset, 4, seed=1, start_batch=4))
    assert len(read) == 4


def test_orders_differ_by_epoch_and_seed_and_cover_without_repetition():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochBatches(20, 5, seed)
        sampler.epoch = epoch
        return [index for batch in sampler for _, index in batch]

    orders = [order(seed, epoch) for seed in range(2) for epoch in range(2)]
    assert all(sorted(o) == list(range(20)) for o in orders) and len({tuple(o) for o in orders}) == 4


@pytest.mark.parametrize(("world", "batch"), [(2, 3), (3, 2), (6, 1)])
@pytest.mark.parametrize("repeats", [1, 3])
def test_ranks_see_together_what_one_process_sees(world, batch, repeats):
    alone = list(EpochBatches(20, world * batch, 5, repeats=repeats))
    ranks = [list(EpochBatches(20, batch, 5, rank, world, repeats)) for rank in range(world)]
    assert [sum(together, []) for together in zip(*ranks, strict=True)] == alone and len(alone) == 3


def test_repeats_are_different_views_of_fewer_images(dataset):
    images, _, indices = next(iter(train_loader(dataset, 12, seed=0, repeats=3)))
    assert (
        indices.tolist() == [i for i in indices[::3].tolist() for _ in range(3)]
        and len(set(indices.tolist())) == 4
    )
    assert not torch.equal(images[0], images[1])
    assert len(train_loader(dataset, 4, seed=0, repeats=3)) == len(train_loader(dataset, 4, seed=0)) == 5


LABELS = np.repeat([0, 1, 2, 3], [100, 16, 4, 1])


@pytest.mark.parametrize(("sampler", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_classes_come_as_often_as_the_sampler_says(sampler, power):
    counts = np.bincount(LABELS)
    share = counts**power / (counts**power).sum() * len(LABELS)
    orders = torch.stack(
        [even_order(LABELS, sampler, torch.Generator().manual_seed(e)) for e in range(400)]
    ).numpy()
    assert orders.shape == (400, len(LABELS))
    found = np.stack([np.bincount(LABELS[order], minlength=4) for order in orders])
    assert np.all(np.abs(found - share) < 1)  # of one epoch; and of many:
    np.testing.assert_allclose(found.mean(axis=0), share, atol=4 * 0.5 / 400**0.5)
    for order in orders[:5]:  # no image comes again before all of its class have come
        times = np.bincount(order, minlength=len(LABELS))
        assert all(np.ptp(times[LABELS == label]) <= 1 for label in range(4))
    seen = np.bincount(orders.ravel(), minlength=len(LABELS))[LABELS == 0] / 400
    assert np.ptp(seen) < 0.25 and len({tuple(order) for order in orders}) == 400
    assert np.corrcoef(np.arange(len(LABELS)), orders[0])[0, 1] < 0.5  # not class by class


@pytest.mark.parametrize("sampler", ["balanced", "sqrt"])
def test_an_evened_out_epoch_is_entered_anywhere_and_shared_out(dataset, sampler):
    def loader(batch, start=0, rank=0, ranks=1, workers=0):
        return train_loader(dataset, batch, 1, 2, start, rank, ranks, workers, sampler=sampler)

    whole = batches(loader(4))
    assert len(whole) == 5
    assert_equal(batches(loader(4, start=3, workers=1)), whole[3:])
    ranks = [batches(loader(2, rank=rank, ranks=2)) for rank in range(2)]
    together = [torch.cat([a[2], b[2]]) for a, b in zip(*ranks, strict=True)]
    assert_equal([[indices] for indices in together], [batch[2:] for batch in whole])


@pytest.mark.parametrize("key", ["data.sampler=balanced", "loss.class_weights=sqrt"])
def test_an_empty_class_cannot_be_evened_out(dataset, key):
    left = np.flatnonzero(dataset.labels != 1).tolist()
    some = ClassificationDataset(dataset.listing.select(left), dataset.transform)
    with pytest.raises(UserError, match=rf"{key}.*{dataset.classes[1]}.*{key.partition('=')[0]}"):
        some.images_a_class(key)
    with pytest.raises(UserError, match=r"data\.sampler=sqrt"):
        train_loader(some, 4, seed=1, sampler="sqrt")


def test_loading_draws_nothing_from_the_global_generator(dataset):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    batches(train_loader(dataset, 4, seed=1))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("world", [1, 2, 4, 30])
def test_evaluation_sees_every_sample_once(root, world):
    data = eval_dataset(DataConfig(root=str(root), image_size=8))
    seen = [
        int(i)
        for rank in range(world)
        for _, _, indices in eval_loader(data, 4, rank, world)
        for i in indices
    ]
    assert sorted(seen) == list(range(21))
    assert [len(b[1]) for b in eval_loader(data, 4)] == [4, 4, 4, 4, 4, 1]


def test_less_than_one_batch(dataset):
    with pytest.raises(UserError, match="21 images, .* 16 .* 2 ranks"):
        train_loader(dataset, 16, seed=0, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_one_sentence_from_any_process(workers, tmp_path):
    data = train_dataset(DataConfig(root=str(trees.folders(tmp_path)), image_size=8))
    data.path(4).write_bytes(b"")
    with pytest.raises(UserError) as info:
        batches(train_loader(data, 12, seed=0, workers=workers))
    assert str(info.value).startswith(f"image {data.path(4)} is empty") and "\n" not in str(info.value)


def test_a_killed_worker_is_explained(dataset, monkeypatch):
    def killed(self):
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

    # really killing one lets torch raise at any line of this process
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", killed)
    with pytest.raises(UserError, match="data.workers"):
        next(iter(train_loader(dataset, 1, seed=0)))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs Linux")
def test_workers_outlive_signals_to_the_group_and_end_with_the_process(root):
    script = textwrap.dedent(f"""
        import signal, time, torch
        from automix_transfer.data.splits import train_dataset
        from automix_transfer.data.loader import train_loader
        from automix_transfer.data.settings import DataConfig
        got = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: got.append(1))
        if __name__ == "__main__":
            data = train_dataset(DataConfig(root={str(root)!r}, image_size=8))
            loader = train_loader(data, 1, seed=0, workers=2)
            batches = iter(loader)
            next(batches)
            print("ready", *[p.pid for p in torch.multiprocessing.active_children()], flush=True)
            while len(got) < 2:
                time.sleep(0.05)
            print(sum(1 for _ in batches), flush=True)  # all the rest is still delivered
            next(iter(loader))  # and an epoch that is not finished does not keep the process from ending
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        ready, *workers = process.stdout.readline().split()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.killpg(process.pid, number)
            time.sleep(0.3)
        out, _ = process.communicate(timeout=60)
        assert ready == "ready" and out.strip() == "20" and process.returncode == 0
        for _ in range(100):
            if not any(os.path.exists(f"/proc/{pid}") for pid in workers):
                break
            time.sleep(0.1)
        assert len(workers) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
