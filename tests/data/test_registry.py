"""Native layouts are read right, and every mistake in them is named with file, line and remedy."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from automix_transfer.data.listing import Listing
from automix_transfer.data.problems import ListError
from automix_transfer.data.registry import DATASETS, SPLITS, load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.split_parts import take
from automix_transfer.errors import UserError
from tests.data import trees


def load(dataset: str, root: Path, split: str, **options):
    return load_listing(DataConfig(dataset=dataset, root=str(root), **options), split, vectors=True)


def test_every_data_set_has_usual_splits():
    assert SPLITS.keys() == DATASETS.keys()


def test_folders_are_read_in_torchvisions_order(tmp_path):
    trees.folders(tmp_path)
    trees.save_image(tmp_path / "train" / "class_1" / "below" / "z.png")
    listing, theirs = load("imagefolder", tmp_path, "train"), ImageFolder(str(tmp_path / "train"))
    assert [(str(p), label) for p, label in zip(listing.paths, listing.labels, strict=True)] == theirs.samples
    assert listing.classes == theirs.classes


def test_a_split_without_some_class_keeps_the_numbering(tmp_path):
    trees.folders(tmp_path)
    shutil.rmtree(tmp_path / "val" / "class_0")
    listing = load("imagefolder", tmp_path, "val")
    assert listing.classes == ["class_0", "class_1", "class_2"] and set(listing.labels) == {1, 2}
    assert "2 of the 3 classes" in listing.notes[0]


def test_any_folder_is_a_split(tmp_path):
    trees.folders(tmp_path, ("train", "test", "held_out"))
    assert len(load("imagefolder", tmp_path, "test")) == len(load("imagefolder", tmp_path, "held_out")) == 12


def test_files_of_other_kinds_are_left_aside_and_counted(tmp_path):
    trees.folders(tmp_path)
    (tmp_path / "train" / "class_0" / "notes.txt").write_text("x")
    (tmp_path / "train" / "class_0" / "._0_0.png").write_text("macOS")
    listing = load("imagefolder", tmp_path, "train")
    assert len(listing) == 12 and listing.notes[0].startswith("1 files")


def test_cifar_val_is_test(tmp_path):
    trees.folders(tmp_path, ("train", "test"))
    assert load("cifar10", tmp_path, "val").paths == load("cifar100", tmp_path, "test").paths


def test_tiny_imagenet(tmp_path):
    trees.tiny(tmp_path / "t")
    train, val = load("tiny_imagenet", tmp_path / "t", "train"), load("tiny_imagenet", tmp_path / "t", "val")
    assert train.classes == val.classes == ["n01", "n02"]
    assert [p.name for p in train.paths] == [
        "n01_0.JPEG",
        "n01_1.JPEG",
        "n02_0.JPEG",
        "n02_1.JPEG",
    ] and train.labels == [0, 0, 1, 1]
    assert train.boxes == [[(0, 1, 8, 9)], [(0, 1, 9, 9)]] * 2
    assert [p.name for p in val.paths] == [f"val_{n}.JPEG" for n in range(4)] and val.labels == [1, 1, 0, 0]
    assert val.boxes[1] == [(1, 2, 6, 6)]


def test_tiny_imagenet_without_boxes(tmp_path):
    trees.tiny(tmp_path / "t")
    for file in (tmp_path / "t").rglob("*_boxes.txt"):
        file.unlink()
    assert load("tiny_imagenet", tmp_path / "t", "train").boxes is None


def test_cub_by_its_official_split(tmp_path):
    trees.cub(tmp_path / "CUB_200_2011")
    for root in (tmp_path, tmp_path / "CUB_200_2011"):
        train, test = load("cub", root, "train"), load("cub", root, "test")
        assert len(train) == len(test) == 6 and not set(train.paths) & set(test.paths)
    assert load("cub", root, "val").paths == test.paths
    assert train.labels == [0, 0, 1, 1, 2, 2] and train.classes[2] == "003.Bird_2"
    assert train.boxes[0] == [(1.0, 2.0, 7.5, 9.0)]  # image 1: x y w h = 1 2 6.5 7


@pytest.mark.parametrize("split", ["train", "test"])
def test_cub_classes_without_an_image(split, tmp_path):
    """A class that nothing can be learned of is refused, one that is not tested on is said."""
    root = trees.cub(tmp_path / "CUB_200_2011")
    flags = root / "train_test_split.txt"
    wanted, other = ("0", "1") if split == "train" else ("1", "0")
    rows = [line.split() for line in flags.read_text().splitlines()]
    first = {line.split()[0] for line in (root / "image_class_labels.txt").read_text().splitlines()[:4]}
    flags.write_text("".join(f"{image} {wanted if image in first else flag}\n" for image, flag in rows))
    if split == "train":
        with pytest.raises(UserError, match=r"image_class_labels\.txt.*1 of 3.*001\.Bird_0"):
            load("cub", root, "train")
    else:
        [note] = load("cub", root, "test").notes
        assert "1 of 3" in note and "001.Bird_0" in note


@pytest.mark.slow
def test_cars_classes_without_an_image(tmp_path):
    root = trees.cars(tmp_path / "cars", classes=7, images=6)
    with pytest.raises(UserError, match=r"cars_train_annos\.mat.*1 of 7.*Make 6"):
        load("cars", root, "train")
    assert "1 of 7" in load("cars", root, "test").notes[0]


def test_aircraft_with_and_without_the_data_folder(tmp_path):
    trees.aircraft(tmp_path / "fgvc-aircraft-2013b")
    listings = [
        load("aircraft", root, "trainval")
        for root in (tmp_path, tmp_path / "fgvc-aircraft-2013b", tmp_path / "fgvc-aircraft-2013b" / "data")
    ]
    assert listings[0] == listings[1] == listings[2]
    assert Counter(listings[0].labels) == {0: 4, 1: 4, 2: 4} and listings[0].classes == [
        "707-320",
        "A340 300",
        "F/A-18",
    ]
    assert listings[0].boxes[0] == [(2, 3, 20, 22)] and listings[0].crop_bottom == 20
    assert load("aircraft", tmp_path, "test", crop_banner=False).crop_bottom == 0


def test_limits_keep_the_first_and_spare_validation(tmp_path):
    trees.folders(tmp_path)
    train = load("imagefolder", tmp_path, "train", limit_classes=2, limit_per_class=3)
    assert train.labels == [0] * 3 + [1] * 3 and train.classes == ["class_0", "class_1"]
    assert [p.name for p in train.paths[:3]] == ["0_0.png", "0_1.png", "0_2.png"]
    assert (
        load("imagefolder", tmp_path, "val", limit_classes=2, limit_per_class=3).labels == [0] * 4 + [1] * 4
    )


def message(dataset: str, root: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as info:
        load(dataset, root, split)
    return str(info.value)


@pytest.mark.parametrize("dataset", DATASETS)
def test_missing_and_empty_roots(dataset, tmp_path):
    assert "does not exist" in message(dataset, tmp_path / "no") and "data.root" in message(
        dataset, tmp_path / "no"
    )
    assert "is empty" in message(dataset, tmp_path)
    (tmp_path / "file").write_text("x")
    assert "not a folder" in message(dataset, tmp_path / "file")
    (tmp_path / "other").mkdir()
    assert "expected" in message(dataset, tmp_path) or "missing" in message(dataset, tmp_path)


def test_unknown_data_set():
    with pytest.raises(UserError, match="did you mean 'tiny_imagenet'"):
        load("tiny-imagenet", Path("."), "train")
    with pytest.raises(UserError, match="~nosuchuser/x"):  # a home that nobody has
        load_listing(DataConfig(root="~nosuchuser/x"), "train")
    with pytest.raises(UserError, match="data.root is empty"):
        load_listing(DataConfig(dataset="cub", root=""), "train")


@pytest.mark.parametrize(
    ("dataset", "make", "split"),
    [
        ("cub", trees.cub, "dev"),
        ("aircraft", trees.aircraft, "dev"),
        ("tiny_imagenet", trees.tiny, "test"),
        ("imagefolder", trees.folders, "dev"),
    ],
)
def test_missing_split(dataset, make, split, tmp_path):
    make(tmp_path / "d")
    assert f"'{split}'" in message(dataset, tmp_path / "d", split)


def test_folder_mistakes(tmp_path):
    trees.folders(tmp_path / "d")
    (tmp_path / "d" / "train" / "class_9").mkdir()
    assert "class_9: the class folder holds no image" in message("imagefolder", tmp_path / "d")
    trees.save_image(tmp_path / "d" / "val" / "class_new" / "x.png")
    assert "class_new" in message("imagefolder", tmp_path / "d", "val")
    for number in range(3):
        trees.save_image(tmp_path / "flat" / "val" / f"ILSVRC2012_val_{number}.JPEG")
    assert "3 images but no class folders" in message("imagefolder", tmp_path / "flat", "val")
    (tmp_path / "pickled" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "pickled" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x")
    assert "batches.meta" in message("cifar10", tmp_path / "pickled")


CUB_MISTAKES = [
    ("images.txt", 2, "no_path", "not of the form <image id> <path>"),
    ("images.txt", 2, "1 001.Bird_0/001.Bird_0_1.jpg", "id '1' is listed twice"),
    ("images.txt", 2, "2 001.Bird_0/001.Bird_0_0.jpg", "is listed twice"),
    ("images.txt", 2, "2 001.Bird_0/gone.jpg", "gone.jpg is missing"),
    ("images.txt", 2, "2 ../../secret.jpg", "leads out of images/"),
    ("image_class_labels.txt", 3, "3 99", "class id '99' of image 3 is not in classes.txt"),
    ("image_class_labels.txt", 3, "77 1", "image id '77' is not in images.txt"),
    ("image_class_labels.txt", 3, "3 1 extra", "not of the form"),
    ("train_test_split.txt", 3, "3 2", "neither 0 nor 1"),
    ("train_test_split.txt", 3, "2 1", "listed twice"),
    ("bounding_boxes.txt", 4, "4 1 2 -3 4", "not a box"),
    ("bounding_boxes.txt", 4, "4 1 2 nan 4", "not a box"),
    ("bounding_boxes.txt", 4, "4 1 2 inf 4", "not a box"),
    ("bounding_boxes.txt", 4, "4 1 two 3 4", "not a box"),
    ("bounding_boxes.txt", 4, "4 1 2 3", "not of the form"),
    ("classes.txt", 1, "1", "not of the form"),
]


@pytest.mark.parametrize(("file", "line", "text", "expected"), CUB_MISTAKES)
def test_cub_mistakes_name_file_and_line(file, line, text, expected, tmp_path):
    trees.edit_line(trees.cub(tmp_path / "d") / file, line, text)
    said = message("cub", tmp_path / "d")
    assert f"{file}:{line}: " in said and expected in said


@pytest.mark.parametrize(
    "file",
    ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"],
)
def test_cub_lists_that_are_short_empty_missing_or_no_text(file, tmp_path):
    path = trees.cub(tmp_path / "d") / file
    trees.edit_line(path, 2, None)
    assert file.split(".")[0] in message("cub", tmp_path / "d") or file in ("images.txt", "classes.txt")
    path.write_bytes(b"\xff\xfe\x00")
    assert f"{file} is no text" in message("cub", tmp_path / "d")
    path.write_text("\n\n")
    assert file in message("cub", tmp_path / "d")
    path.unlink()
    if file == "bounding_boxes.txt":
        assert load("cub", tmp_path / "d", "train").boxes is None
    else:
        assert file in message("cub", tmp_path / "d")


def test_all_mistakes_come_at_once(tmp_path):
    root = trees.cub(tmp_path / "d")
    trees.edit_line(root / "image_class_labels.txt", 3, "3 99")
    trees.edit_line(root / "bounding_boxes.txt", 4, "4 1 2 -3 4")
    (root / "images" / "001.Bird_0" / "001.Bird_0_0.jpg").unlink()
    with pytest.raises(ListError) as info:
        load("cub", root, "train")
    assert len(info.value.found) == 4  # the malformed box also leaves image 4 without one
    assert str(info.value).startswith(f"CUB at {root}: 4 problems")


def test_a_folder_without_the_images_is_one_sentence(tmp_path):
    root = trees.cub(tmp_path / "d", classes=10, images=6)
    shutil.rmtree(root / "images")
    with pytest.raises(ListError, match=r"60 of 60 .*images\.txt:1") as info:
        load("cub", root, "train")
    assert len(info.value.found) == 1


def test_the_message_stays_short(tmp_path):
    root = trees.cub(tmp_path / "d", classes=10, images=6)
    path = root / "image_class_labels.txt"
    path.write_text(path.read_text().replace("\n", " 1\n"))
    with pytest.raises(ListError) as info:
        load("cub", root, "train")
    assert (
        len(info.value.found) == 61
        and "and 41 more" in str(info.value)
        and len(str(info.value).splitlines()) == 22
    )


@pytest.mark.parametrize(
    ("file", "line", "text", "expected"),
    [
        ("images_variant_train.txt", 1, "0000001", "not of the form"),
        ("images_variant_train.txt", 1, "0000001 Concorde", "variant 'Concorde' is not in variants.txt"),
        ("images_variant_train.txt", 1, "9999999 707-320", "images/9999999.jpg is missing"),
        ("images_variant_train.txt", 2, "0000001 707-320", "listed twice"),
        ("variants.txt", 2, "707-320", "listed twice"),
        ("images_box.txt", 1, "0000001 0 4 20 22", "not a box"),
        ("images_box.txt", 1, "0000001 30 4 20 22", "not a box"),
    ],
)
def test_aircraft_mistakes(file, line, text, expected, tmp_path):
    trees.edit_line(trees.aircraft(tmp_path / "d") / "data" / file, line, text)
    said = message("aircraft", tmp_path / "d")
    assert f"{file}:{line}: " in said and expected in said


def test_variants_of_aircraft_without_images_are_one_sentence(tmp_path):
    variants = trees.aircraft(tmp_path / "d") / "data" / "variants.txt"
    variants.write_text(variants.read_text() + "Concorde\nTu-144\n")
    with pytest.raises(ListError, match=r"images_variant_train\.txt: 2 of 5 .*Concorde") as info:
        load("aircraft", tmp_path / "d", "train")
    assert len(info.value.found) == 1


@pytest.mark.parametrize(
    ("file", "line", "text", "split", "expected"),
    [
        ("wnids.txt", 2, "n02", "train", "listed twice"),
        ("wnids.txt", 2, "n03", "train", "the folder of class 'n03' in wnids.txt is missing"),
        ("train/n01/n01_boxes.txt", 1, "gone.JPEG\t0\t0\t1\t1", "train", "is not in"),
        ("train/n01/n01_boxes.txt", 1, "n01_0.JPEG\t5\t0\t1\t1", "train", "not a box"),
        (
            "val/val_annotations.txt",
            1,
            "val_0.JPEG\tn09\t0\t0\t1\t1",
            "val",
            "class 'n09' is not in wnids.txt",
        ),
        ("val/val_annotations.txt", 2, "val_0.JPEG\tn02\t0\t0\t1\t1", "val", "listed twice"),
        ("val/val_annotations.txt", 2, "val_9.JPEG\tn02\t0\t0\t1\t1", "val", "is not in"),
        ("val/val_annotations.txt", 2, "val_1.JPEG n02", "val", "not of the form"),
        ("val/val_annotations.txt", 2, None, "val", "not listed"),
    ],
)
def test_tiny_imagenet_mistakes(file, line, text, split, expected, tmp_path):
    trees.edit_line(trees.tiny(tmp_path / "d") / file, line, text)
    said = message("tiny_imagenet", tmp_path / "d", split)
    assert expected in said and Path(file).name in said


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"]
    ),
    content=st.one_of(
        st.binary(max_size=80), st.text("0123456789. \n\tab/\x00\u2028", max_size=80).map(str.encode)
    ),
)
def test_any_content_of_a_list_is_read_or_refused(name, content, tmp_path):
    root = tmp_path / "d"
    if not root.exists():
        trees.cub(root, classes=1, images=2)
    before = (root / name).read_bytes()
    (root / name).write_bytes(content)
    try:
        load("cub", root, "train")
    except UserError:
        pass
    finally:
        (root / name).write_bytes(before)


def test_real_cub(shared_data):
    root = shared_data("cub50")
    train, test = load("cub", root, "train"), load("cub", root, "test")
    assert (len(train), len(test), len(train.classes)) == (1500, 1389, 50)
    # the WSOL benchmark's lists of the same images, made by other hands; its boxes are whole numbers, cut to
    # the image
    folder = root / "metadata" / "test"
    rows = {
        name: (str(i), b[0])
        for name, i, b in zip(
            (p.relative_to(root / "images").as_posix() for p in test.paths),
            test.labels,
            test.boxes,
            strict=True,
        )
    }
    assert dict(line.rsplit(",", 1) for line in (folder / "class_labels.txt").read_text().split()) == {
        n: i for n, (i, _) in rows.items()
    }
    sizes = {
        name: (int(w), int(h))
        for name, w, h in (line.rsplit(",", 2) for line in (folder / "image_sizes.txt").read_text().split())
    }
    for name, *box in (line.rsplit(",", 4) for line in (folder / "localization.txt").read_text().split()):
        ours = [min(v, side) for v, side in zip(rows[name][1], 2 * sizes[name], strict=True)]
        assert all(abs(a - int(b)) < 2 for a, b in zip(ours, box, strict=True)), name


def test_real_tiny_imagenet(shared_data):
    root = shared_data("tiny-imagenet-40")
    train, val = load("tiny_imagenet", root, "train"), load("tiny_imagenet", root, "val")
    assert Counter(train.labels) == dict.fromkeys(range(40), 500) and Counter(val.labels) == dict.fromkeys(
        range(40), 50
    )
    assert all(len(b) == 1 for b in train.boxes + val.boxes)


def test_real_cifar(shared_data):
    listing = load("cifar10", shared_data("cifar10-test"), "val")
    assert len(listing) == 10_000 and listing.classes[0] == "airplane" and listing.classes[9] == "truck"


@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=3), percent=st.integers(1, 99))
def test_parts_of_a_split_share_out_each_class(counts, percent):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    paths = [Path(f"{number}.png") for number in range(len(labels))]
    whole = Listing(paths, labels, [str(label) for label in range(len(counts))])
    first, rest = ((0, percent), (percent, 100))
    taken = take(whole, first, "train")
    assert set(taken.labels) == set(labels)  # no class is without an image to train on
    for label, count in enumerate(counts):
        assert taken.labels.count(label) == math.ceil(count * percent / 100)
    left = [path for path in paths if path not in taken.paths]
    if left:
        assert take(whole, rest, "train").paths == left
    else:
        with pytest.raises(UserError, match="no image"):
            take(whole, rest, "train")


def test_a_part_of_a_split_is_named_like_a_slice(tmp_path):
    trees.folders(tmp_path)
    train, held = (load("imagefolder", tmp_path, f"train[{part}]") for part in (":75%", "75%:"))
    whole = load("imagefolder", tmp_path, "train")
    assert len(train) == 9 and len(held) == 3 and train.classes == held.classes == whole.classes
    assert sorted([*train.paths, *held.paths]) == sorted(whole.paths)
    for wrong in ("train[80%:20%]", "train[:101%]"):
        with pytest.raises(UserError, match="train"):
            load("imagefolder", tmp_path, wrong)
