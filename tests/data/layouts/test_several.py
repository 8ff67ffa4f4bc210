"""Images with several labels: VOC and COCO as label vectors, and who takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automix_transfer.data.check import main
from automix_transfer.data.layouts.several import VOC_CLASSES
from automix_transfer.data.listing import Listing
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import MULTI_LABEL, DataConfig
from automix_transfer.data.splits import eval_dataset, eval_dataset_beside, shared_images, train_dataset
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json
from tests.data import several

#: cat, dog, person of the eight images; -1 where all objects of the class are difficult
VECTORS = [(1, 1, 0), (0, 1, 0), (-1, 0, 1), (0, 0, 1), (1, 0, 0), (1, 1, 1), (0, 0, 0), (0, -1, 1)]


def load(
    dataset: str, root: Path, split: str, train: str = "trainval", known: tuple[str, ...] = ()
) -> Listing:
    config = DataConfig(dataset=dataset, root=str(root), train_split=train)
    return load_listing(config, split, known, vectors=True)


def test_voc_has_its_own_20_classes_and_difficult_objects_say_nothing(tmp_path: Path) -> None:
    several.voc(tmp_path / "VOCdevkit" / "VOC2007")
    listing = load("voc", tmp_path / "VOCdevkit", "test")
    assert tuple(listing.classes) == VOC_CLASSES and len(VOC_CLASSES) == 20 == len(set(VOC_CLASSES))
    shown = [VOC_CLASSES.index(name) for name in ("cat", "dog", "person")]
    assert listing.vectors is not None and listing.vectors[:, shown].tolist() == [list(v) for v in VECTORS]
    assert (np.delete(listing.vectors, shown, axis=1) == 0).all()
    assert len(listing.notes) == 1 and "17 of the 20 classes" in listing.notes[0]
    assert [path.name for path in listing.paths] == [f"{n:06d}.jpg" for n in range(8)]
    chosen = listing.select([5, 2])
    assert np.array_equal(chosen.vectors, listing.vectors[[5, 2]])
    assert chosen.fingerprint(tmp_path) != listing.select([5, 4]).fingerprint(tmp_path)


def test_other_names_are_the_classes_of_the_training_split(tmp_path: Path) -> None:
    several.voc(tmp_path, {"cat": "robot"})
    (tmp_path / "ImageSets/Main/test.txt").write_text("000001\n000003\n")  # without a robot
    assert load("voc", tmp_path, "test").classes == ["dog", "person", "robot"]
    assert load("voc", tmp_path, "test", known=("robot", "person", "dog")).classes == [
        "robot",
        "person",
        "dog",
    ]
    with pytest.raises(UserError, match="robot"):
        load("voc", tmp_path, "trainval", known=("person", "dog"))


def test_a_list_of_two_years_must_be_chosen(tmp_path: Path) -> None:
    for year in (2007, 2012):
        several.voc(
            tmp_path / f"VOC{year}", lists=("trainval", "test") if year == 2007 else ("trainval", "val")
        )
    assert len(load("voc", tmp_path, "test", "VOC2007/trainval")) == 8
    both = "VOC2007/trainval+VOC2012/trainval"
    assert len(load("voc", tmp_path, both, both)) == 16
    with pytest.raises(UserError, match=r"data\.train_split"):
        load("voc", tmp_path, "trainval")
    for split, named in (
        ("VOC2012/test", "VOC2012/test"),
        ("VOC2007/nosuch", "VOC2007/nosuch"),
        ("nosuch", "nosuch"),
    ):
        with pytest.raises(UserError, match=named):
            load("voc", tmp_path, split, split)
    twice = "VOC2007/trainval+VOC2007/test"
    with pytest.raises(UserError, match="VOC2007/test"):
        load("voc", tmp_path, twice, twice)


def test_coco_by_its_categories_with_crowds(tmp_path: Path) -> None:
    root = several.coco(tmp_path / "coco")
    listings = [load("coco", root, split) for split in ("train", "train2017", "val")]
    for listing in listings:
        assert listing.classes == ["person", "cat", "dog", "zebra"]  # ids 1, 17, 18, 24
        assert listing.vectors is not None
        wanted = [[abs(person), abs(cat), abs(dog), 0] for cat, dog, person in VECTORS]
        assert listing.vectors.tolist() == wanted
    assert listings[0].paths[0].parent.name == "train2017" and listings[2].paths[0].parent.name == "val2017"
    with pytest.raises(UserError, match="test2015"):
        load("coco", root, "test2015")
    (root / "annotations/instances_train2014.json").write_text("{}")  # both years lie there
    assert len(load("coco", root, "val2017")) == len(load("coco", tmp_path, "val2017")) == 8


def test_splits_of_coco_have_the_classes_of_the_training_split(tmp_path: Path) -> None:
    """Where their categories have other ids, and fewer of them; others than those are refused."""
    root = several.coco(tmp_path / "coco")
    given = DataConfig("coco", str(root), train_split="train2017", val_split="other")
    train = eval_dataset(given, "train2017", vectors=True)
    content = read_json(root / "annotations/instances_train2017.json")
    names = {1: "dog", 17: "person", 18: "cat"}  # in the place of person, cat, dog
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    (root / "val2017").rename(root / "other")
    write_json(root / "annotations/instances_other.json", content)
    found = eval_dataset_beside(train, given, vectors=True)
    assert found.classes == train.classes == ["person", "cat", "dog", "zebra"]
    assert (found.labels == train.labels[:, [1, 2, 0, 3]]).all()
    content["categories"][0]["name"] = "wolf"
    write_json(root / "annotations/instances_other.json", content)
    with pytest.raises(UserError, match=r"different classes \(dog, wolf, zebra\)"):
        eval_dataset_beside(train, given, vectors=True)
    with pytest.raises(UserError, match="no split 'othre'; choose one of other, train2017, val2017"):
        load("coco", root, "othre")


def test_a_split_without_objects_is_refused(tmp_path: Path) -> None:
    several.voc(tmp_path)
    (tmp_path / "ImageSets/Main/empty.txt").write_text("000006\n")
    with pytest.raises(UserError, match="split empty"):
        load("voc", tmp_path, "empty")


def test_items_are_float_vectors_with_nan_for_unknown(tmp_path: Path) -> None:
    several.voc(tmp_path)
    config = DataConfig(
        dataset="voc", root=str(tmp_path), train_split="trainval", val_split="test", image_size=16
    )
    for dataset in (train_dataset(config, vectors=True), eval_dataset(config, vectors=True)):
        image, label, index = dataset[2]
        cat, dog, person = (VOC_CLASSES.index(name) for name in ("cat", "dog", "person"))
        assert image.shape == (3, 16, 16) and index == 2 and isinstance(label, torch.Tensor)
        assert (
            label.dtype == torch.float32
            and bool(label[cat].isnan())
            and label[person] == 1
            and label[dog] == 0
        )
    shared = shared_images(dataset.listing, dataset.listing)
    assert shared.startswith("8 images")


@pytest.mark.parametrize("dataset", MULTI_LABEL)
def test_who_needs_one_label_an_image_refuses(dataset: str, tmp_path: Path) -> None:
    getattr(several, dataset)(tmp_path)
    with pytest.raises(UserError, match=rf"data\.dataset={dataset}"):
        load_listing(DataConfig(dataset=dataset, root=str(tmp_path)), "trainval")
    with pytest.raises(UserError, match=f"data.dataset={dataset}"):  # a near miss is named
        load_listing(DataConfig(root=str(tmp_path)), "train")


def test_data_check_counts_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several.voc(tmp_path)
    assert main(["--dataset", "voc", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        "8 images of 3 classes (a class: min 3, median 3, max 4)" in said
        and "1.25 an image, 2 unknown" in said
    )


def test_a_part_of_a_split_is_of_all_images(tmp_path: Path) -> None:
    several.voc(tmp_path)
    first, rest = (load("voc", tmp_path, f"trainval[{part}]", "trainval[:75%]") for part in (":75%", "75%:"))
    assert [path.name for path in first.paths + rest.paths] == [f"{n:06d}.jpg" for n in range(8)]
    assert len(first) == 6 and first.vectors is not None and first.vectors.shape == (6, 20)
