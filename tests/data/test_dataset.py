"""A sample is a function of (seed, epoch, index, copy), and reading one changes nothing else."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.errors import UserError
from tests.data import trees


def config(root, **options) -> DataConfig:
    return DataConfig(root=str(root), image_size=8, randaugment="rand-m9-mstd0.5", erasing=0.5, **options)


@pytest.fixture
def dataset(tmp_path) -> ClassificationDataset:
    return train_dataset(config(trees.folders(tmp_path)), seed=7)


def test_items(dataset):
    image, label, index = dataset[0, 5]
    assert (
        image.shape == (3, 8, 8) and (label, index) == (1, 5) and dataset.path(5) == dataset.listing.paths[5]
    )
    assert torch.equal(dataset[5][0], image) and len(dataset) == 12 and dataset.read(5).size == (16, 12)
    assert [str(dataset.path(i)) for i in range(12)] == [str(p) for p in dataset.listing.paths]


def test_a_sample_depends_on_seed_epoch_index_and_copy_only(dataset, tmp_path):
    first = dataset[3, 5][0]
    for other in ((3, 6), (0, 0)):
        dataset[other]
    torch.manual_seed(99)
    assert torch.equal(dataset[3, 5][0], first)
    other_seed = ClassificationDataset(dataset.listing, dataset.transform, seed=8)
    assert not any(
        torch.equal(first, other) for other in (dataset[4, 5][0], dataset[3, 5, 1][0], other_seed[3, 5][0])
    )


def test_reading_leaves_the_global_generators_alone(dataset):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    dataset[0, 0]
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_testing_is_the_same_in_every_epoch(tmp_path):
    dataset = eval_dataset(config(trees.folders(tmp_path)))
    assert torch.equal(dataset[0, 3][0], dataset[9, 3][0]) and dataset.listing.paths[0].parts[-3] == "val"
    assert len(eval_dataset(config(tmp_path), "train")) == 12


def test_the_banner_is_cut_off(tmp_path):
    trees.aircraft(tmp_path)
    with_banner = DataConfig(
        dataset="aircraft", root=str(tmp_path), val_split="test", crop_banner=False, image_size=8
    )
    whole, cut = (
        eval_dataset(with_banner),
        eval_dataset(DataConfig(dataset="aircraft", root=str(tmp_path), val_split="test", image_size=8)),
    )
    assert whole.read(0).size == (30, 44) and cut.read(0).size == (30, 24)
    assert np.array_equal(np.asarray(cut.read(0)), np.asarray(whole.read(0))[:24])
    trees.save_image(cut.path(1), (30, 20))
    with pytest.raises(UserError, match="data.crop_banner=false"):
        cut[0, 1]


def test_a_bad_image_is_named(dataset):
    dataset.path(4).write_bytes(b"")
    with pytest.raises(UserError, match=r"1_0.png is empty"):
        dataset[0, 4]


def test_skip_leaves_bad_images_out_and_names_them(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = trees.folders(tmp_path / "d")
    (root / "train" / "class_1" / "1_0.png").write_bytes(b"")
    (root / "train" / "class_2" / "2_3.png").write_bytes(b"no image")
    for _ in range(2):  # read, then from the cache
        dataset = train_dataset(config(root, on_bad_image="skip"))
        assert len(dataset) == 10 and {p.name for p in dataset.listing.paths}.isdisjoint(
            {"1_0.png", "2_3.png"}
        )
        said = capfd.readouterr().err
        assert (
            "2 of 12 images are bad" in said
            and "1_0.png is empty" in said
            and "2_3.png is not an image" in said
        )
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1
    # restored: the old verdict no longer holds
    trees.save_image(root / "train" / "class_1" / "1_0.png", seed=3)
    assert len(train_dataset(config(root, on_bad_image="skip"))) == 11


def test_a_verdict_does_not_outlive_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = trees.folders(tmp_path / "d")
    path = root / "train" / "class_1" / "1_0.png"
    good, when = path.read_bytes(), path.stat()
    for content, count in ((b"x" * len(good), 11), (good, 12)):  # of the same size and date
        path.write_bytes(content)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
        assert len(train_dataset(config(root, on_bad_image="skip"))) == count


def test_skip_without_any_cache_or_any_good_image(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    root = trees.folders(tmp_path / "d", classes=1, images=2)
    assert len(train_dataset(config(root, on_bad_image="skip"))) == 2
    for path in load_listing(config(root), "train").paths:
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="none of its 2 images"):
        train_dataset(config(root, on_bad_image="skip"))


def test_a_damaged_cache_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = trees.folders(tmp_path / "d")
    (root / "train" / "class_1" / "1_0.png").write_bytes(b"")
    train_dataset(config(root, on_bad_image="skip"))
    (verdict,) = (tmp_path / "cache").rglob("*.json")
    for content in ("", "[]", '{"bad": 3}', '{"bad": {"x": 1}}'):
        verdict.write_text(content)
        assert len(train_dataset(config(root, on_bad_image="skip"))) == 11


def test_a_rotation_flag_is_left_alone_and_said_once(dataset, monkeypatch, capfd):
    monkeypatch.setattr("automix_transfer.data.dataset._told", [])
    exif = trees.Image.Exif()
    exif[0x0112] = 6
    for index in (4, 5):
        trees.save_image(dataset.path(index), (20, 12), exif=exif)
        assert dataset.read(index).size == (20, 12)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and str(dataset.path(4)) in said
