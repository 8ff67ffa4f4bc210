"""Data sets as people have them: unpacked twice, renamed, sorted, linked, with what programs leave behind."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from automix_transfer.data.layouts.flat_imagenet import _of_devkit
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError
from tests.data import trees

SYNSETS = ("n01", "n02", "n03")


def load(dataset: str, root: Path, split: str = "train", **options):
    return load_listing(DataConfig(dataset=dataset, root=str(root), **options), split)


def below(listing, root: Path) -> list[tuple[str, int]]:
    return [(str(p.relative_to(root)), n) for p, n in zip(listing.paths, listing.labels, strict=True)]


MAKERS = {
    "imagefolder": trees.folders,
    "tiny_imagenet": trees.tiny,
    "cub": trees.cub,
    "aircraft": trees.aircraft,
    "cars": trees.cars,
    "inaturalist2018": trees.inaturalist,
    "places205": trees.places,
}


@pytest.mark.parametrize(
    "dataset", [pytest.param(name, marks=pytest.mark.slow if name == "cars" else ()) for name in MAKERS]
)
def test_a_folder_or_two_above_the_data_set(dataset, tmp_path):
    MAKERS[dataset](inner := tmp_path / "archive" / "archive")
    (tmp_path / "attributes.txt").write_text("beside it")
    direct = load(dataset, inner)
    for root in (inner.parent, tmp_path):
        found = load(dataset, root)
        assert found.paths == direct.paths and found.labels == direct.labels
        assert any(str(inner) in note for note in found.notes)


@pytest.mark.parametrize(
    ("dataset", "part"),
    [("cub", "images"), ("aircraft", "data/images"), ("tiny_imagenet", "train"), ("tiny_imagenet", "val")],
)
def test_a_part_of_the_data_set(dataset, part, tmp_path):
    direct = load(dataset, MAKERS[dataset](tmp_path) and tmp_path)
    found = load(dataset, tmp_path / part)
    assert found.paths == direct.paths and found.labels == direct.labels
    assert any(str(tmp_path / part) in note for note in found.notes)


def test_two_data_sets_below_are_not_guessed(tmp_path):
    for name in ("a", "b"):
        trees.folders(tmp_path / name)
    with pytest.raises(UserError, match=r"data\.root"):
        load("imagefolder", tmp_path)


@pytest.mark.parametrize("name", ["valid", "validation", "test", "Val", "TEST"])
def test_other_names_of_the_validation_split(name, tmp_path):
    trees.folders(tmp_path, ("train", name))
    listing = load("imagefolder", tmp_path, "val")
    assert len(listing) == 12 and any(name in note for note in listing.notes)


def test_a_flat_test_folder_is_not_taken_for_val(tmp_path):
    trees.folders(tmp_path, ("train",))
    trees.save_image(tmp_path / "test" / "1.jpg")
    with pytest.raises(UserError, match="'val'"):
        load("imagefolder", tmp_path, "val")


def test_a_split_unpacked_into_a_folder_of_its_name(tmp_path):
    trees.folders(tmp_path / "d")
    direct = {split: load("imagefolder", tmp_path / "d", split).labels for split in ("train", "val")}
    for split in ("train", "val"):
        shutil.move(tmp_path / "d" / split, tmp_path / "moved")
        shutil.move(tmp_path / "moved", (tmp_path / "d" / split).with_name(split) / split)
        os.makedirs(tmp_path / "d" / split / "__MACOSX")
    for split in ("train", "val"):
        listing = load("imagefolder", tmp_path / "d", split)
        assert listing.labels == direct[split] and listing.classes == [f"class_{n}" for n in range(3)]
        assert any("below it" in note for note in listing.notes)


def test_the_folder_of_a_split_names_the_one_above(tmp_path):
    trees.folders(tmp_path)
    with pytest.raises(UserError, match=f"data.root={tmp_path}"):
        load("imagefolder", tmp_path / "train")


def imagenet(root: Path) -> Path:
    """ILSVRC/Data/CLS-LOC with validation images in one folder; returns it."""
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    for n, synset in enumerate(SYNSETS):
        trees.save_image(data / "train" / synset / f"{synset}_1.JPEG", seed=n)
        (root / "ILSVRC" / "Annotations" / "CLS-LOC" / "train" / synset).mkdir(parents=True)
    for n in range(6):
        trees.save_image(data / "val" / f"ILSVRC2012_val_{n + 1:08d}.JPEG", seed=10 + n)
    return data


WANTED = [(f"ILSVRC2012_val_{n:08d}.JPEG", label) for label in range(3) for n in (3 - label, 6 - label)]


def kaggle_table(root: Path) -> None:
    rows = [f"ILSVRC2012_val_{n + 1:08d},{SYNSETS[2 - n % 3]} 1 1 5 5 \n" for n in range(6)]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(reversed(rows)))


def devkit(root: Path) -> None:
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    rows = np.empty((4, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for n, (number, wnid) in enumerate([(1, "n03"), (2, "n01"), (3, "n02"), (4, "n09")]):
        rows[n, 0] = (np.uint16(number), wnid, "a thing")
    savemat(folder / "meta.mat", {"synsets": rows})
    text = "".join(f"{n}\n" for n in (1, 3, 2) * 2)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("labels", [kaggle_table, devkit])
@pytest.mark.parametrize("above", [0, 3, 4])
def test_imagenet_with_flat_validation_images(labels, above, tmp_path):
    data = imagenet(tmp_path / "imagenet-object-localization-challenge")
    labels(tmp_path / "imagenet-object-localization-challenge")
    root = [data, *data.parents][above]
    listing = load("imagefolder", root, "val")
    assert below(listing, data / "val") == WANTED and listing.classes == list(SYNSETS)
    assert load("imagefolder", root).labels == [0, 1, 2]
    for (name, label), path in zip(WANTED, listing.paths, strict=True):  # as a sorting script leaves it
        (data / "sorted" / SYNSETS[label]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / "sorted" / SYNSETS[label] / name)
    by_folders = load("imagefolder", data, "sorted")
    assert [p.name for p in by_folders.paths] == [p.name for p in listing.paths]
    assert by_folders.labels == listing.labels


def test_flat_validation_images_without_labels_say_what_was_looked_for(tmp_path):
    data = imagenet(tmp_path)
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv.*meta\.mat"):
        load("imagefolder", data, "val")
    kaggle_table(tmp_path)
    trees.save_image(data / "val" / "ILSVRC2012_val_00000007.JPEG")
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv.*00000007"):
        load("imagefolder", data, "val")


@pytest.mark.parametrize("images", ["", "images"])
@pytest.mark.parametrize("table", [True, False])
def test_tiny_imagenet_with_val_sorted(images, table, tmp_path):
    root = trees.tiny(tmp_path / "t")
    released = load("tiny_imagenet", root, "val")
    for path, label in zip(released.paths, released.labels, strict=True):
        target = root / "val" / released.classes[label] / images / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    if not table:
        (root / "val" / "val_annotations.txt").unlink()
        (root / "val" / "images").rmdir()
    found = load("tiny_imagenet", root, "val")
    both = [
        {p.name: (n, b) for p, n, b in zip(one.paths, one.labels, one.boxes or [None] * 4, strict=True)}
        for one in (released, found)
    ]
    assert both[0] == both[1] if table else found.boxes is None and found.labels == [0, 0, 1, 1]


def test_a_near_miss_names_the_data_set_that_lies_there(tmp_path):
    trees.tiny(tmp_path / "tiny")
    for dataset, split in (("imagefolder", "val"), ("cub", "train")):
        with pytest.raises(UserError, match=r"data\.dataset=tiny_imagenet") as info:
            load(dataset, tmp_path / "tiny", split)
        assert len(str(info.value).splitlines()) == 1
    trees.folders(tmp_path / "cars")
    with pytest.raises(UserError, match=r"data\.dataset=imagefolder"):
        load("cars", tmp_path / "cars")


@pytest.mark.slow
def test_cars_as_kaggle_unpacks_them_and_as_one_table(tmp_path):
    direct = load("cars", trees.cars(tmp_path / "cars"))
    for split in ("train", "test"):
        folder = tmp_path / "cars" / f"cars_{split}"
        shutil.move(folder, tmp_path / "moved")
        shutil.move(tmp_path / "moved", folder / folder.name)
    twice = load("cars", tmp_path / "cars")
    assert [p.name for p in twice.paths] == [p.name for p in direct.paths] and twice.boxes == direct.boxes

    root, names = tmp_path / "whole", ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    rows = np.empty((1, 4), dtype=[("relative_im_path", object), *((name, object) for name in names)])
    for n in range(4):
        rows[0, n] = (f"car_ims/{n + 1:06d}.jpg", 1, 2, 10, 9, 1 + n % 2, n // 2)
    root.mkdir()
    models = np.array([["Make 0 2012", "Make 1 2012"]], dtype=object)
    savemat(root / "cars_annos.mat", {"annotations": rows, "class_names": models})
    with pytest.raises(UserError, match=r"cars_annos\.mat.*devkit"):
        load("cars", root)
    for n in range(4):
        trees.save_image(root / "car_ims" / f"{n + 1:06d}.jpg", seed=n)
    assert below(load("cars", root), root) == [("car_ims/000001.jpg", 0), ("car_ims/000002.jpg", 1)]
    assert below(load("cars", root, "test"), root) == [("car_ims/000003.jpg", 0), ("car_ims/000004.jpg", 1)]


def test_hidden_entries_are_passed_over_and_counted(tmp_path):
    root = trees.folders(tmp_path)
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        trees.save_image(root / "train" / name / "x.png")
        trees.save_image(root / "train" / "class_1" / name / "x.png")
    for name in ("Thumbs.db", ".DS_Store", "._1_0.png", "desktop.ini"):
        (root / "train" / "class_1" / name).write_bytes(b"x")
    listing = load("imagefolder", root)
    assert len(listing) == 12 and listing.classes == [f"class_{n}" for n in range(3)]
    assert [note.split()[0] for note in listing.notes] == ["10"]


@pytest.mark.parametrize("link", ["train/train", "train/class_1/again", "train/class_1/deep/up", "train/up"])
@pytest.mark.parametrize("target", ["train", "."])
def test_a_link_that_leads_upwards_is_passed_over(link, target, tmp_path):
    root = trees.folders(tmp_path)
    expected = below(load("imagefolder", root), root)
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / target)
    listing = load("imagefolder", root)
    assert below(listing, root) == expected and any(
        link.removeprefix("train/") in note for note in listing.notes
    )


def test_links_to_images_and_class_folders_are_ordinary(tmp_path):
    trees.folders(tmp_path / "all")
    for split in ("train", "val"):
        (tmp_path / "few" / split / "class_1").mkdir(parents=True)
        (tmp_path / "few" / split / "class_2").symlink_to(tmp_path / "all" / split / "class_2")
        for path in (tmp_path / "all" / split / "class_1").iterdir():
            (tmp_path / "few" / split / "class_1" / path.name).symlink_to(path)
    listing = load("imagefolder", tmp_path / "few")
    assert listing.labels == [0] * 4 + [1] * 4 and not listing.notes


def test_folders_of_numbers_are_in_the_order_of_numbers_or_of_text(tmp_path):
    for n in (0, 1, 2, 10):
        for split in ("train", "val"):
            trees.save_image(tmp_path / split / str(n) / "x.png", seed=n)
    by_number, by_text = load("imagefolder", tmp_path), load("imagefolder", tmp_path, class_order="text")
    assert by_number.classes == ["0", "1", "2", "10"] and by_text.classes == ["0", "1", "10", "2"]
    assert all("data.class_order" in listing.notes[-1] for listing in (by_number, by_text))
    known = load_listing(DataConfig(root=str(tmp_path)), "val", ["2", "10", "1", "0"])
    assert [p.parent.name for p in known.paths] == known.classes == ["2", "10", "1", "0"]


def test_names_that_macos_decomposed_are_the_same_classes(tmp_path):
    names = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    for split, name in zip(("train", "val"), names, strict=True):
        trees.save_image(tmp_path / split / name / "x.png")
        trees.save_image(tmp_path / split / ("zoo " if split == "train" else "zoo") / "x.png", seed=1)
    train, val = load("imagefolder", tmp_path), load("imagefolder", tmp_path, "val")
    assert train.classes == val.classes and train.labels == val.labels == [0, 1]
    trees.save_image(tmp_path / "train" / names[1] / "x.png")
    with pytest.raises(UserError, match="class folders of one name"):
        load("imagefolder", tmp_path)


def test_a_link_to_another_class_gives_no_image_two_labels(tmp_path):
    root = trees.folders(tmp_path)
    expected = below(load("imagefolder", root), root)
    for link in ("class_0/side", "class_2/side", "a_class"):
        (root / "train" / link).symlink_to(root / "train" / "class_1")
    listing = load("imagefolder", root)
    assert below(listing, root) == expected and listing.notes[0].startswith("3 links")


def test_a_devkit_whose_synsets_are_no_list(tmp_path):
    table = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    table.write_text("1\n")
    savemat(tmp_path / "meta.mat", {"synsets": 1})
    with pytest.raises(UserError, match=r"meta\.mat"):
        _of_devkit(table, ["ILSVRC2012_val_00000001.JPEG"])


def test_images_without_a_class_and_folders_that_are_one_class_are_counted(tmp_path):
    root = trees.folders(tmp_path)
    trees.save_image(root / "train" / "loose.png")
    names = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    for part in ("a", "b"):
        trees.save_image(root / "train" / names[0] / part / "1.png")
    notes = load("imagefolder", root).notes
    assert any(note.startswith("1 images") and "no class" in note for note in notes)
    assert any(note.startswith("1 class folders") and names[0] in note for note in notes)
    assert not load("imagefolder", root, "val").notes


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["train/n01.tar", "train/n02.tar"], r"2 \.tar files: unpack"),
        (["data/train-00000-of-00001.parquet"], r"1 \.parquet files"),
        (["imagenet.zip"], r"1 \.zip files"),
        (["ant/1.png", "bee/1.png"], r"data\.train_split=root"),
    ],
)
def test_near_misses_of_class_folders_name_what_lies_there(files, words, tmp_path):
    for file in files:
        (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / file).write_bytes(b"")
    with pytest.raises(UserError, match=words):
        load("imagefolder", tmp_path / "root")
