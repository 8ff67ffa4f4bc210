"""COCO json: every place is checked, all problems come at once, and none ends in a traceback."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from automix_transfer.data.detection.coco import categories_of_coco, read_coco
from automix_transfer.errors import UserError
from tests.data.detection.mutations import assert_sound, mutated

CONTENT: dict[str, Any] = {
    "info": {},
    "licenses": [],
    "images": [
        {"id": 7, "file_name": "a.jpg", "height": 30, "width": 40},
        {"id": 9, "file_name": "b.jpg", "height": 20, "width": 20},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 3,
            "bbox": [2.5, 3.0, 10.0, 5.5],
            "area": 50.0,
            "iscrowd": 0,
            "segmentation": [[2.5, 3, 12.5, 3, 12.5, 8.5]],
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 5,
            "bbox": [0, 0, 40, 30],
            "area": 900,
            "iscrowd": 1,
            "segmentation": {"counts": [0, 1200], "size": [30, 40]},
        },
    ],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 5, "name": "dog"}],
}


def make(root: Path, content: Any = CONTENT) -> tuple[Path, Path]:
    Image.new("RGB", (40, 30)).save(root / "a.jpg")
    Image.new("RGB", (20, 20)).save(root / "b.jpg")
    file = root / "instances.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root, file


def sizes(root: Path) -> dict[Path, tuple[int, int]]:
    return {root / "a.jpg": (40, 30), root / "b.jpg": (20, 20)}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good content with one place set (``...`` removes it), e.g. ``annotations.0.bbox``."""
    content = copy.deepcopy(CONTENT)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place: Any = content
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def problem(root: Path, content: Any, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_coco(*make(root, content), **options)
    return str(caught.value)


def test_records_hold_corners_crowds_and_images_without_objects(tmp_path):
    first, second = read_coco(*make(tmp_path))
    assert (first["file_name"], first["image_id"], first["height"], first["width"]) == (
        str(tmp_path / "a.jpg"),
        7,
        30,
        40,
    )
    assert first["objects"][0] == {
        "bbox": [2.5, 3.0, 12.5, 8.5],
        "class": "cat",
        "category_id": 3,
        "id": 1,
        "area": 50.0,
        "iscrowd": False,
        "difficult": False,
        "segmentation": [[2.5, 3, 12.5, 3, 12.5, 8.5]],
    }
    assert first["objects"][1]["iscrowd"] and second["objects"] == []
    assert categories_of_coco(tmp_path / "instances.json") == {3: "cat", 5: "dog"}


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("images", ..., "images: is missing, empty or not a list"),
        ("annotations", {}, "annotations: is missing, empty or not a list"),
        ("categories", [], "categories: is missing, empty or not a list"),
        ("images.1", 5, "images[1]: is 5; expected an object"),
        ("images.1.id", "9", "images[1].id: is '9'; expected a whole number"),
        ("images.1.id", True, "images[1].id: is True; expected a whole number"),
        ("images.1.id", 7, "images[1].id: 7 is used twice"),
        ("images.1.width", 0, "images[1].width: is 0; expected a whole number of 1 or more"),
        ("images.1.width", 21, "b.jpg is 20x20 pixels, but its annotation says 21x20"),
        ("images.1.file_name", "a.jpg", "images[1].file_name: 'a.jpg' is listed twice"),
        ("images.1.file_name", "../b.jpg", "images[1].file_name: is '../b.jpg'; expected a path inside"),
        ("images.1.file_name", None, "images[1].file_name: is None"),
        ("images.1.file_name", "c.jpg", "c.jpg is missing"),
        ("images.1.file_name", "x" * 5000, "images[1].file_name"),
        ("categories.1.id", 3, "categories[1].id: 3 is used twice"),
        ("categories.1.name", "cat", "categories[1].name: 'cat' is used twice"),
        ("categories.1.name", 8, "categories[1].name: is 8; expected a name"),
        ("annotations.1.id", 1, "annotations[1].id: 1 is used twice"),
        ("annotations.0.image_id", 8, "annotations[0].image_id: 8 is no image of this file"),
        ("annotations.0.category_id", 4, "annotations[0].category_id: 4 is no category of this file"),
        ("annotations.0.area", ..., "annotations[0].area: is None; expected square pixels"),
        ("annotations.0.iscrowd", ..., "annotations[0].iscrowd: is None; expected 0 or 1"),
        (
            "annotations.0.bbox",
            [1, 2, 3],
            "annotations[0].bbox: is [1, 2, 3]; expected [x, y, width, height]",
        ),
        ("annotations.0.bbox", [1, 2, 3, "4"], "expected [x, y, width, height]"),
        ("annotations.0.bbox", [1, 2, 3, float("nan")], "expected [x, y, width, height]"),
        ("annotations.0.bbox", [1, 2, 3, 10**400], "expected [x, y, width, height]"),
        ("annotations.0.bbox", [1, 2, 0, 4], "annotations[0].bbox: [1, 2, 0, 4] is empty or inverted"),
        (
            "annotations.0.bbox",
            [35, 2, 7, 4],
            "annotations[0].bbox: [35, 2, 7, 4] lies outside the image of 40x30 pixels",
        ),
        (
            "annotations.0.segmentation",
            [[1, 2, 3, 4]],
            "annotations[0].segmentation: holds [1, 2, 3, 4]; expected polygons",
        ),
        ("annotations.0.segmentation", [], "annotations[0].segmentation: is empty"),
        (
            "annotations.0.segmentation",
            {"counts": 4},
            "expected polygons or a run-length encoding of counts and size",
        ),
    ],
)
def test_each_mistake_is_named_with_file_and_field(tmp_path, place, value, expected):
    message, named = problem(tmp_path, changed(place, value)), expected.partition(": ")[0]
    assert named in message and "instances.json" in message


def test_rounding_beyond_the_frame_is_clipped(tmp_path):
    (first, _) = read_coco(*make(tmp_path, changed("annotations.0.bbox", [-0.4, 20, 40.9, 10.99])))
    assert first["objects"][0]["bbox"] == [0.0, 20.0, 40.0, 30.0]


def test_all_problems_are_reported_at_once(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["annotations"] = [{"id": n} for n in range(10)]
    message = problem(tmp_path, content)
    assert ": 50 problems" in message and message.count("\n") == 21 and message.endswith("... and 30 more")


@pytest.mark.parametrize("check_images", [True, False])
def test_an_images_own_problem_is_not_reported_again_for_its_objects(tmp_path, check_images):
    message = problem(tmp_path, changed("images.0.file_name", "gone.jpg"), check_images=check_images)
    assert "problems" not in message and "gone.jpg is missing; " in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "line 1 is not valid JSON"),
        (b'{\n"images": [\n', "line 3 is not valid JSON"),
        (b"[]", "holds a JSON list"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"images": ' + b"1" * 5000 + b"}", "instances.json"),
        (b"null", "holds a JSON NoneType"),
    ],
)
def test_broken_json_is_one_sentence(tmp_path, content, expected):
    assert expected in problem(tmp_path, content)


def test_missing_files_are_one_sentence(tmp_path):
    root, file = make(tmp_path)
    with pytest.raises(UserError, match="could not be read"):
        read_coco(root, root / "nothing.json")
    with pytest.raises(UserError, match="could not be read"):
        read_coco(root, root)
    with pytest.raises(UserError, match="is not a folder"):
        read_coco(root / "nowhere", file)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated(json.dumps(CONTENT).encode()))
def test_random_changes_of_bytes_end_in_records_or_a_user_error(tmp_path, content):
    try:
        assert_sound(read_coco(*make(tmp_path, content)), sizes(tmp_path))
    except UserError as error:
        assert str(tmp_path) in str(error)


KEYS = st.sampled_from(["counts", "size", "id", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    f"{name}.{index}.{field}"
    for name in ("images", "annotations", "categories")
    for index in (0, 1)
    for field in CONTENT[name][0]
    if field in CONTENT[name][index]
]
PLACES += [
    "images",
    "annotations",
    "categories",
    "images.0",
    "annotations.0",
    "categories.0",
    "annotations.0.bbox.2",
]


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_at_any_place_ends_in_records_or_a_user_error(tmp_path, place, value):
    try:
        assert_sound(read_coco(*make(tmp_path, changed(place, value))), sizes(tmp_path))
    except UserError as error:
        str(error).encode("ascii", "strict")


def test_real_annotations_are_read(shared_data):
    root = shared_data("coco128")
    records = read_coco(root / "train2017", root / "annotations" / "instances_train2017.json")
    objects = [thing for record in records for thing in record["objects"]]
    assert len(records) == 128 and len(objects) == 939 and sum(thing["iscrowd"] for thing in objects) == 10
