"""iNaturalist, Places205 and Stanford Cars in their native layouts; every mistake in them is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from automix_transfer.data.layouts.cars import cars
from automix_transfer.data.layouts.large_scale import inaturalist2017, inaturalist2018, places205
from automix_transfer.errors import UserError
from tests.data import trees

KEYS = ("images", "annotations", "categories", "id", "name", "file_name", "image_id", "category_id")


@pytest.mark.parametrize(("read", "year"), [(inaturalist2017, 2017), (inaturalist2018, 2018)])
def test_inaturalist(read, year: int, tmp_path: Path) -> None:
    trees.inaturalist(tmp_path, year)
    train, val = read(tmp_path, "train"), read(tmp_path, "val")
    # in the order of their ids
    assert train.classes == val.classes == ["species 0", "species 7", "species 14"]
    assert train.labels == [0, 1, 2, 0, 1, 2] and [path.name for path in train.paths][:2] == [
        "100.jpg",
        "101.jpg",
    ]
    assert all(path.is_file() for path in train.paths + val.paths)
    with pytest.raises(UserError, match="no split 'test'"):
        read(tmp_path, "test")
    with pytest.raises(UserError, match=f"has no val{year}.json"):
        (tmp_path / f"val{year}.json").unlink()
        read(tmp_path, "val")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["annotations"].pop(), "image 105: has no label"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "two labels"),
        pytest.param(
            lambda c: c["annotations"][0].update(category_id=5),
            r"annotations\[0\].category_id",
            id=r"<lambda>-annotations\[0\].category_id: is the id of no category",
        ),
        pytest.param(
            lambda c: c["annotations"][1].update(image_id="x"),
            r"annotations\[1\].image_id",
            id=r"<lambda>-annotations\[1\].image_id: is the id of no image",
        ),
        (lambda c: c["images"][0].update(file_name="../x.jpg"), "leads out"),
        (lambda c: c["images"][0].update(file_name="a.jpg"), "is missing"),
        (lambda c: c["images"].append(c["images"][0]), "is there twice"),
        (lambda c: c.pop("categories"), "categories: is missing"),
        pytest.param(
            lambda c: c["categories"].append(3),
            r"categories\[3\]",
            id=r"<lambda>-categories\[3\]: needs an integer id",
        ),
    ],
)
def test_mistakes_of_inaturalist(tmp_path: Path, change, words: str) -> None:
    file = trees.inaturalist(tmp_path) / "train2018.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as error:
        inaturalist2018(tmp_path, "train")
    assert str(file) in str(error.value) and "released archives" in str(error.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
        max_leaves=12,
    )
)
def test_any_json_is_one_error(tmp_path: Path, content: object) -> None:
    (tmp_path / "train2018.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="train2018.json"):
        inaturalist2018(tmp_path, "train")


@pytest.mark.parametrize("images", ["data/vision/torralba/deeplearning/images256", "images256", "."])
def test_places(tmp_path: Path, images: str) -> None:
    trees.places(tmp_path, images)
    train, val = places205(tmp_path, "train"), places205(tmp_path, "val")
    assert train.classes == val.classes == ["a/scene_0", "a/scene_1", "a/scene_2"]
    assert (train.labels, val.labels) == ([0, 1, 2, 0, 1, 2], [0, 1, 2]) and all(
        path.is_file() for path in train.paths + val.paths
    )


@pytest.mark.parametrize("images", ["data/vision/torralba/deeplearning/images256", "images256"])
def test_a_missing_first_image_of_places_is_the_only_one(tmp_path: Path, images: str) -> None:
    first = trees.places(tmp_path, images) / images / "a/scene_0/train_0.jpg"
    first.unlink()
    with pytest.raises(UserError, match=re.escape(str(first))) as error:
        places205(tmp_path, "train")
    assert str(error.value).count("image is missing") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a/scene_0/train_0.jpg x", "label 'x' is no number"),
        pytest.param(
            "a/scene_0/train_0.jpg",
            "<path> <label>",
            id="a/scene_0/train_0.jpg-not of the form <path> <label>",
        ),
        ("../scene_0/train_0.jpg 0", "is no path below"),
        ("a/scene_0/other.jpg 0", "is missing"),
        ("a/scene_0/train_0.jpg 1", "label 1 is"),
        ("a/scene_9/x.jpg 9", "no image has label 3"),
    ],
)
def test_mistakes_of_places(tmp_path: Path, line: str, words: str) -> None:
    file = trees.places(tmp_path) / "trainvalsplit_places205" / "train_places205.csv"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=words):
        places205(tmp_path, "train")
    file.unlink()
    with pytest.raises(UserError, match="train_places205.csv"):
        places205(tmp_path, "val")


@pytest.mark.slow
def test_cars(tmp_path: Path) -> None:
    trees.cars(tmp_path / "stanford_cars")
    train, test = cars(tmp_path, "train"), cars(tmp_path / "stanford_cars", "val")
    assert train.classes == ["Make 0 2012", "Make 1 2012", "Make 2 2012"] and train.labels == test.labels == [
        0,
        1,
        2,
        0,
        1,
        2,
    ]
    assert train.boxes[1] == [(0, 1, 11, 9)] and all(path.is_file() for path in train.paths + test.paths)


@pytest.mark.slow
def test_mistakes_of_cars(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    (tmp_path / "cars_train" / "00002.jpg").unlink()
    with pytest.raises(UserError, match="annotation 2: .*00002.jpg"):
        cars(tmp_path, "train")
    table = tmp_path / "cars_test_annos_withlabels.mat"
    rows = np.empty(
        (1, 1),
        dtype=[(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")],
    )
    for values, words in (
        ((1, 2, 3, 4, 9, "00001.jpg"), "class of 1 to 3"),
        ((1, 2.5, 3, 4, 1, "00001.jpg"), "four pixels"),
        ((1, 2, 3, 4, 1, "../x.jpg"), "is not in"),
        ((1, 2, 3, 4, 1, 5), "is not in"),
    ):
        rows[0, 0] = values
        savemat(table, {"annotations": rows})
        with pytest.raises(UserError, match=words):
            cars(tmp_path, "test")
    unlabelled = np.empty((1, 1), dtype=[("bbox_x1", object), ("fname", object)])
    unlabelled[0, 0] = (1, "00001.jpg")
    savemat(table, {"annotations": unlabelled})
    with pytest.raises(UserError, match="without labels"):
        cars(tmp_path, "test")
    for content in (b"", b"MATLAB 5.0" + bytes(200)):
        table.write_bytes(content)
        with pytest.raises(UserError, match=f"{re.escape(str(table))}.*'annotations'"):
            cars(tmp_path, "test")
    table.unlink()
    with pytest.raises(UserError, match="is missing; restore"):
        cars(tmp_path, "test")


@pytest.mark.slow
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_of_a_matlab_file(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "devkit" / "cars_train_annos.mat"
    if not file.exists():
        trees.cars(tmp_path)
        (tmp_path / "original").write_bytes(file.read_bytes())
    content = bytearray((tmp_path / "original").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        listing = cars(tmp_path, "train")
        assert all(0 <= label < len(set(listing.classes)) for label in listing.labels)
        assert all(path.is_file() for path in listing.paths)
    except UserError as error:
        assert str(tmp_path) in str(error)


def test_class_names_of_cars_that_are_none(tmp_path: Path) -> None:
    savemat(trees.cars(tmp_path / "d") / "devkit" / "cars_meta.mat", {"class_names": 5})
    with pytest.raises(UserError, match=r"cars_meta\.mat: 'class_names'"):
        cars(tmp_path / "d", "train")
