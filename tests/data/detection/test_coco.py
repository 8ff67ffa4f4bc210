"""COCO json: every place is checked, all problems come at once, and none ends in a traceback."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
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
        ("images.1.id", True, "images[1].id: is True; expected a whole number"),
        ("images.1.id", 7, "images[1].id: 7 is used twice"),
        ("images.1.width", 21, "b.jpg is 20x20 pixels, but its annotation says 21x20"),
        ("images.1.file_name", None, "images[1].file_name: is None"),
        ("images.1.file_name", "c.jpg", "c.jpg is missing"),
        ("images.1.file_name", "b.v2", "b.v2 is missing"),
        ("images.1.file_name", "x" * 5000, "images[1].file_name"),
        ("images.1.width", -3, "images[1].width: is -3; expected a whole number"),
        ("images.1.width", 20.5, "images[1].width: is 20.5; expected a whole number"),
        ("categories.1.id", 3, "categories[1].id: 3 is used twice"),
        ("categories.1.name", "cat", "categories[1].name: 'cat' is used twice"),
        ("categories.1.name", 8, "categories[1].name: is 8; expected a name"),
        ("annotations.1.id", 1, "annotations[1].id: 1 is used twice"),
        ("annotations.0.category_id", 4, "annotations[0].category_id: 4 is no category of this file"),
        (
            "annotations.0.bbox",
            [1, 2, 3],
            "annotations[0].bbox: is [1, 2, 3]; expected [x, y, width, height]",
        ),
        ("annotations.0.area", -1, "annotations[0].area: is -1; expected square pixels"),
        ("annotations.0.iscrowd", 2, "annotations[0].iscrowd: is 2; expected 0 or 1"),
        ("annotations.0.bbox", [1, 2, 3, "four"], "annotations[0].bbox: is"),
        ("annotations.0.bbox", [1, 2, -3, 4], "annotations[0].bbox: [1, 2, -3, 4] has a negative width"),
        ("annotations.0.bbox", [1, 2, 3, 30 * 17], "annotations[0].bbox: [1, 2, 3, 510] lies more than"),
        ("annotations.0.bbox", [-1e300, 2, 3, 4], "annotations[0].bbox: [-1e+300"),
        ("annotations.0.segmentation", [[1, 2, 3, 1e300, 4, 5]], "annotations[0].segmentation: has points"),
        ("annotations.0.segmentation", [[1, 2, 3, float("nan"), 4, 5]], "annotations[0].segmentation: has"),
        ("annotations.0.segmentation", {"counts": 4}, "annotations[0].segmentation: is of size None"),
        ("annotations.1.segmentation.size", [40, 30], "annotations[1].segmentation: is of size [40, 30]"),
        ("annotations.1.segmentation.counts", [0, 1201], "annotations[1].segmentation: is an encoding"),
        ("annotations.1.segmentation.counts", [-5, 1205], "annotations[1].segmentation: is an encoding"),
        ("annotations.1.segmentation.counts", "PPPP", "annotations[1].segmentation: is an encoding"),
        ("annotations.1.segmentation.counts", "0\u00e9", "annotations[1].segmentation: is an encoding"),
        ("annotations.0.bbox", [1, 2, 3, float("nan")], "expected [x, y, width, height]"),
        ("annotations.0.bbox", [1, 2, 3, 10**400], "expected [x, y, width, height]"),
    ],
)
def test_each_mistake_is_named_with_file_and_field(tmp_path, place, value, expected):
    message, named = problem(tmp_path, changed(place, value)), expected.partition(": ")[0]
    assert named in message and "instances.json" in message


HABITS = [
    ("images.1.id", "b", "images"),
    ("images.1.width", 0, "images[1]"),
    ("images.1.height", ..., "images[1]"),
    ("images.1.file_name", "C:\\data\\b.jpg", "images[1]"),
    ("images.1.file_name", "../../all/b.JPG", "images[1]"),
    ("images.1.file_name", "b", "images[1]"),
    ("images.1.file_name", "B.png", "images[1]"),
    ("images.1.file_name", "train/b.heic", "images[1]"),
    (
        "images.1",
        {"id": 9, "coco_url": "http://x.org/train/b.jpg?v=1", "width": 20, "height": 20},
        "images[1]",
    ),
    ("images.1", {"id": 7, "file_name": "a.jpg"}, "images[1]"),
    ("images.1", {"id": 9, "file_name": "a.jpg", "width": 40.0, "height": "30"}, "images[1]"),
    ("annotations.0.area", ..., "annotations[0]"),
    ("annotations.0.area", "50", "annotations[0]"),
    ("annotations.0.iscrowd", None, "annotations[0]"),
    ("annotations.0.id", ..., "annotations[0]"),
    ("annotations.1.image_id", 8, "annotations[1]"),
    ("annotations.0.image_id", "7", "annotations[0]"),
    ("annotations.0.bbox", ["2.5", 3, 10, 5.5], "annotations[0]"),
    ("annotations.0.bbox", [-9, 3, 100, 2], "annotations[0]"),
    ("annotations.0.segmentation", {"counts": [0, 1200], "size": [30.0, 40.0]}, None),
    ("categories.1.name", " dog ", None),
    ("annotations.0.bbox", [50, 3, 10, 5.5], "annotations[0]"),
    ("annotations.0.bbox", [2.5, 3, 0, 5.5], "annotations[0]"),
    ("annotations.0.segmentation", [], "annotations[0]"),
    ("annotations.0.segmentation", [[]], "annotations[0]"),
    ("annotations.0.segmentation", None, "annotations[0]"),
    ("annotations.0.segmentation", [[1, 2, 3, 4]], "annotations[0]"),
    ("annotations.0.segmentation", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], "annotations[0]"),
    ("categories.1", {"id": 0, "name": "cat", "supercategory": "none"}, "categories[1]"),
]


@pytest.mark.parametrize(("place", "value", "where"), HABITS)
def test_each_habit_of_exporters_is_read_and_told_once(tmp_path, place, value, where):
    content = changed(place, value)
    if place == "categories.1":
        content["annotations"][1]["category_id"] = 3
    notes: list[str] = []
    records = read_coco(*make(tmp_path, content), notes=notes)
    assert all(
        record["width"] == {"a.jpg": 40, "b.jpg": 20}[Path(record["file_name"]).name] for record in records
    )
    if where is None or (place, value) == ("images.1.id", "b"):
        assert not notes and len(records) == 2  # no word is lost on what the reference takes as well
    else:
        (note,) = notes
        assert "instances.json: 1 " in note and f"({where})" in note


def test_what_is_filled_in_and_left_out(tmp_path):
    content = copy.deepcopy(CONTENT)
    first, second = content["annotations"]
    content["annotations"] = [
        {
            "image_id": "7",
            "category_id": 3.0,
            "bbox": first["bbox"],
            "segmentation": [[1, 2, 3, 4]],
            "area": None,
        },
        second | {"iscrowd": True, "category_id": "5"},
    ]
    (record, _) = read_coco(*make(tmp_path, content))
    thing, crowd = record["objects"]
    assert thing["area"] == 10.0 * 5.5 and thing["iscrowd"] is False and "segmentation" not in thing
    assert (thing["class"], crowd["class"], crowd["iscrowd"]) == ("cat", "dog", True)


def test_boxes_stay_as_the_file_has_them(tmp_path):
    notes: list[str] = []
    (first, _) = read_coco(
        *make(tmp_path, changed("annotations.0.bbox", [-0.4, 20, 40.9, 10.9])), notes=notes
    )
    assert first["objects"][0]["bbox"] == pytest.approx([-0.4, 20, 40.5, 30.9]) and notes == []


def test_the_category_that_has_objects_is_kept_of_two_with_one_name(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})
    assert {thing["category_id"] for thing in read_coco(*make(tmp_path, content))[0]["objects"]} == {3, 5}
    assert categories_of_coco(tmp_path / "instances.json") == {3: "cat", 5: "dog"}


def test_compressed_runs_are_counted_as_pycocotools_counts_them(tmp_path):
    codec = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((30, 40)) > 0.6
    counts = codec.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for text, good in (
        (counts, True),
        (counts[:-1], False),
        (counts + "1", False),
        (counts[:-1] + "P", False),
    ):
        content = changed("annotations.1.segmentation", {"counts": text, "size": [30, 40]})
        if good:
            assert len(read_coco(*make(tmp_path, content))[0]["objects"]) == 2
        else:
            assert "annotations[1].segmentation" in problem(tmp_path, content)


def test_corners_that_pass_for_width_and_height_are_suspected(tmp_path):
    notes: list[str] = []
    read_coco(*make(tmp_path, changed("annotations.0.bbox", [5, 5, 38, 28])), notes=notes)
    assert "annotations[0]" in notes[0] and len(notes) == 2


def test_two_names_for_one_file_are_refused(tmp_path):
    content = changed("images.1", {"id": 9, "file_name": "cam2/a.jpg"})
    content["images"][0]["file_name"] = "cam1/a.jpg"
    assert "images[1].file_name" in problem(tmp_path, content)


def test_an_ending_that_is_missing_is_found_only_where_one_image_fits(tmp_path):
    root, file = make(tmp_path, changed("images.1", {"id": 9, "file_name": "cam.000017"}))
    Image.new("RGB", (20, 20)).save(root / "cam.000017", format="png")
    assert read_coco(root, file)[1]["file_name"].endswith("cam.000017")  # as it is written
    (root / "cam.000017").rename(root / "cam.000017.png")
    assert read_coco(root, file)[1]["file_name"].endswith("cam.000017.png")
    Image.new("RGB", (20, 20)).save(root / "cam.000017.bmp")
    with pytest.raises(UserError, match=r"images\[1\]\.file_name"):
        read_coco(root, file)


def test_thousands_of_missing_images_are_found_missing_at_once(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["images"] += [
        {"id": 100 + n, "file_name": f"data/{n}/of/many/{'x/' * 8}{n}.jpg"} for n in range(20_000)
    ]
    start = time.process_time()
    message = problem(tmp_path, content)
    assert time.process_time() - start < 10 and "19,999 more" in message


def test_fractions_are_no_pixels(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["annotations"] = [content["annotations"][0] | {"bbox": [0.1, 0.2, 0.5, 0.4]}]
    assert "fractions" in problem(tmp_path, content)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_sizes_are_those_of_the_upright_image(tmp_path, suffix):
    root, file = make(
        tmp_path, changed("images.1", {"id": 9, "file_name": f"c.{suffix}", "height": 20, "width": 10})
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(root / f"c.{suffix}", exif=exif)
    notes: list[str] = []
    assert read_coco(root, file, notes=notes)[1]["height"] == 20 and f"c.{suffix}" in notes[0]
    Image.new("RGB", (10, 20)).save(root / f"c.{suffix}", exif=exif)
    with pytest.raises(UserError, match="rotation flag"):
        read_coco(root, file)


def test_all_problems_are_reported_at_once_and_those_of_a_kind_in_one_line(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["annotations"] = [{"id": n, "image_id": 7} for n in range(10)]
    message = problem(tmp_path, content)
    assert "annotations[0].category_id" in message and "annotations[0].bbox" in message
    assert message.count("\n") == 2 and message.count("9 more") == 2


def test_when_no_image_is_there_one_line_says_so(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["images"] = [{"id": n, "file_name": f"{n}.jpg", "height": 9, "width": 9} for n in range(7, 12)]
    message = problem(tmp_path, content)
    assert "none of the 5 images" in message and "\n" not in message


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
    with pytest.raises(UserError, match=r"nothing\.json"):
        read_coco(root, root / "nothing.json")
    with pytest.raises(UserError, match=str(root)):
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


def test_many_categories_are_not_compared_with_each_other(tmp_path):
    number = 30_000
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"categories": [{"id": n, "name": f"c{n}"} for n in range(number)]}))
    started = time.process_time()
    assert len(categories_of_coco(file)) == number
    assert time.process_time() - started < 5  # a comparison of each with each takes longer
