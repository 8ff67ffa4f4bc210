"""VOC annotations: boxes to the pixel, a sentence for each problem, and no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from automix_transfer.data.detection.voc import read_voc
from automix_transfer.errors import UserError
from tests.data.detection.mutations import assert_sound, mutated

XML = """<annotation>
	<filename>a.jpg</filename>
	<size><width>40</width><height>30</height><depth>3</depth></size>
	<object>
		<name>cat</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
		<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
	</object>
	<object>
		<name>dog</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
		<bndbox><xmax>20</xmax><ymax>10</ymax><xmin>11</xmin><ymin>10</ymin></bndbox>
	</object>
</annotation>
"""


def make(root: Path, xml: str | bytes = XML, ids: str = "a\n") -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "a.jpg")
    (root / "Annotations" / "a.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    (root / "ImageSets" / "Main" / "train.txt").write_text(ids)
    return root


def problem(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_voc(root, "train", **options)
    return str(caught.value)


def test_boxes_become_zero_based_with_exclusive_ends(tmp_path):
    (record,) = read_voc(make(tmp_path), "train", ["cat", "dog"], strict=True)
    assert record["file_name"] == str(tmp_path / "JPEGImages" / "a.jpg")
    assert (record["image_id"], record["height"], record["width"]) == ("a", 30, 40)
    assert record["objects"] == [
        {
            "bbox": [0.0, 0.0, 40.0, 30.0],
            "class": "cat",
            "difficult": False,
            "truncated": True,
            "iscrowd": False,
        },
        {
            "bbox": [10.0, 9.0, 20.0, 10.0],
            "class": "dog",
            "difficult": True,
            "truncated": False,
            "iscrowd": False,
        },
    ]


def test_lists_with_a_second_column_blank_lines_and_windows_line_ends_are_read(tmp_path):
    assert len(read_voc(make(tmp_path, ids="a  1\r\n\r\n"), "train")) == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<xmax>40", "<xmax>800", "object 1, bndbox: (1, 1, 800, 30) lies more than 16 sides beyond"),
        ("<xmin>11", "<xmin>21", "object 2, bndbox: (21, 10, 20, 10) is empty or inverted"),
        ("<xmin>11", "<xmin>eleven", "object 2, bndbox/xmin: is 'eleven'; expected a number"),
        ("<xmin>11</xmin>", "", "object 2, bndbox/xmin: is missing or empty"),
        ("<xmin>11", "<xmin>nan", "bndbox/xmin: is 'nan'"),
        ("<xmin>11", "<xmin>1e400", "bndbox/xmin: is '1e400'"),
        ("<width>40", "<width>41", "a.jpg is 40x30 pixels, but its annotation says 41x30"),
        ("<width>40", "<width>-4", "size/width: is '-4'; expected pixels"),
        ("<width>40", "<width>40.5", "size/width: is '40.5'; expected a whole number"),
        ("<name>dog</name>", "", "object 2: <name> is missing or empty"),
        ("<name>dog", "<name>wolf", "object 2: class 'wolf' is unknown; the classes are cat, dog"),
        (
            "<bndbox><xmax>20</xmax><ymax>10</ymax><xmin>11</xmin><ymin>10</ymin></bndbox>",
            "",
            "no <bndbox>: x",
        ),
        ("<difficult>1", "<difficult>yes", "object 2, difficult: is 'yes'; expected 0 or 1"),
        ("</annotation>", "", "a.xml line 14: is not well-formed XML"),
        ("annotation>", "note>", "has no <annotation> element at its top"),
    ],
)
def test_each_mistake_is_named_with_file_and_field(tmp_path, old, new, expected):
    assert old in XML
    message = problem(make(tmp_path, XML.replace(old, new)), classes=["cat", "dog"])
    assert expected.partition(": ")[0] in message and str(tmp_path) in message


def test_what_only_the_evaluator_needs_is_asked_for_only_when_strict(tmp_path):
    for tag in ("pose", "truncated", "difficult"):
        xml = XML.replace("<pose>Left</pose>", "") if tag == "pose" else XML.replace(f"<{tag}>0</{tag}>", "")
        assert len(read_voc(make(tmp_path, xml), "train")) == 1
        assert tag in problem(tmp_path, strict=True)
    make(tmp_path, XML.replace("<xmin>11", "<xmin>11.4"))
    assert read_voc(tmp_path, "train")[0]["objects"][1]["bbox"][0] == pytest.approx(10.4)
    assert "expected a whole number" in problem(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("old", "new", "where", "box"),
    [
        ("<xmin>1<", "<xmin>0<", "a.xml, object 1", [-1, 0, 40, 30]),
        ("<xmax>40", "<xmax>60", "a.xml, object 1", [0, 0, 60, 30]),
        ("<xmin>1</xmin>", "<xmin>50</xmin>", "a.xml, object 1", [49, 0, 50, 30]),
        ("<width>40", "<width>0", "a.xml", None),
        ("<width>40", "<width>40.0", "", None),
        ("<size><width>40</width><height>30</height><depth>3</depth></size>", "", "a.xml", None),
        ("<filename>a.jpg", "<filename>other.jpg", "a.xml", None),
        ("<filename>a.jpg", "<filename>a_jpg.png", "a.xml", None),
        ("<filename>a.jpg", "<filename>C:\\x\\a.PNG", "", None),
        ("<xmax>40", "<xmax>40.6", "", [0, 0, 40.6, 30]),
        ("<difficult>0", "<difficult>False", "", None),
        ("<truncated>1", "<truncated>Unspecified", "", None),
        ("<xmin>11", "<xmin>20", "", None),  # a pixel wide
        ("\n", "\r\n", "", None),
        ("<annotation>", "\ufeff<annotation>", "", None),
        ("<annotation>", '<annotation xmlns="http://x.org/voc">', "a.xml", None),
        ("object>", "Object>", "a.xml", None),
    ],
)
def test_each_habit_of_exporters_is_read_and_told_once(tmp_path, old, new, where, box):
    xml = XML.replace(old, new)
    if box == [49, 0, 50, 30]:
        xml = xml.replace("<xmax>40", "<xmax>50")
    notes: list[str] = []
    (record,) = read_voc(make(tmp_path, xml), "train", ["cat", "dog"], notes=notes)
    assert (record["width"], record["height"], len(record["objects"])) == (40, 30, 2)
    assert record["objects"][0]["bbox"] == (box or [0, 0, 40, 30])
    assert [f"{where})" in note and ": 1 " in note for note in notes] == [True] * bool(where)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jpeg", "A.jpg", "photo of a.png"])
def test_images_of_other_endings_are_found(tmp_path, name):
    root = make(tmp_path, XML.replace("<filename>a.jpg", f"<filename>{name}"))
    (root / "JPEGImages" / "a.jpg").unlink()
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / name)
    notes: list[str] = []
    (record,) = read_voc(root, "train", notes=notes)
    assert Path(record["file_name"]).name == name and len(notes) == name.startswith("photo")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        *(("my photo 1", "my photo 1"), ("my photo 1", "my photo 1 -1"), ("a", "\ufeffa")),
        *(("a", line) for line in ("a.jpg", "a.xml", "/x/VOC/JPEGImages/a.jpg", "C:\\x\\a.JPG")),
    ],
)
def test_names_in_lists(tmp_path, name, line):
    root = make(tmp_path, ids=f"{line}\r\n")
    for folder, end in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (root / folder / f"a.{end}").rename(root / folder / f"{name}.{end}")
    assert [record["image_id"] for record in read_voc(root, "train")] == [name]


def test_annotations_in_an_encoding_of_chinese_tools(tmp_path):
    xml = '<?xml version="1.0" encoding="GB2312"?>\n' + XML.replace("cat", "\u732b")
    (record,) = read_voc(make(tmp_path, xml.encode("gb2312")), "train")
    assert record["objects"][0]["class"] == "\u732b"
    assert "a.xml" in problem(make(tmp_path, xml.encode("utf-16-be")))


def test_an_annotation_of_megabytes_or_a_pipe_is_not_read(tmp_path):
    make(tmp_path, XML + " " * (17 << 20))
    assert "a.xml" in problem(tmp_path)
    (tmp_path / "Annotations" / "a.xml").unlink()
    os.mkfifo(tmp_path / "Annotations" / "a.xml")
    assert "a.xml" in problem(tmp_path)


def test_entity_bombs_and_files_read_through_entities_are_refused(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + XML.replace(
        "cat", "&b;"
    )
    assert "declares a DTD or entities" in problem(make(tmp_path, bomb))
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + XML.replace("cat", "&a;")
    assert "declares a DTD or entities" in problem(make(tmp_path, outside))


def test_all_problems_are_reported_at_once_and_those_of_a_kind_in_one_line(tmp_path):
    make(tmp_path, ids="".join(f"gone{n}\n" for n in range(15)) + "a\na\n../a\n")
    message = problem(tmp_path)
    assert message.count("\n") == 3 and message.count("14 more") == 2
    assert "gone0.xml: " in message and "gone0.jpg: " in message and "train.txt:18: '../a'" in message
    notes: list[str] = []
    assert len(read_voc(make(tmp_path, ids="a\na\n"), "train", notes=notes)) == 1
    assert "train.txt:2" in notes[0]


@pytest.mark.parametrize("check_images", [True, False])
def test_missing_images_and_annotations_are_named(tmp_path, check_images):
    make(tmp_path)
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    assert "a.jpg: is missing" in problem(tmp_path, check_images=check_images)
    (tmp_path / "Annotations" / "a.xml").unlink()
    assert "a.xml: is missing" in problem(tmp_path, check_images=check_images)


def test_damaged_images_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"")
    assert "a.jpg cannot be read as an image" in problem(tmp_path)


def test_a_missing_root_split_or_empty_split_says_what_there_is(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        read_voc(tmp_path / "nowhere", "train")
    make(tmp_path)
    with pytest.raises(UserError, match="test.txt is missing.* train"):
        read_voc(tmp_path, "test")
    with pytest.raises(UserError, match="is missing"):
        read_voc(tmp_path, "../../etc/passwd")
    make(tmp_path, ids="\n")
    with pytest.raises(UserError, match="train.txt"):
        read_voc(tmp_path, "train")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="train.txt"):
        read_voc(tmp_path, "train")


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(xml=mutated(XML.encode()), strict=st.booleans())
def test_random_changes_end_in_a_record_or_a_user_error(tmp_path, xml, strict):
    make(tmp_path, xml)
    try:
        records = read_voc(tmp_path, "train", ["cat", "dog"], strict=strict)
        assert_sound(records, {tmp_path / "JPEGImages" / "a.jpg": (40, 30)}, ["cat", "dog"])
    except UserError as error:
        str(error).encode("ascii", "strict")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.one_of(
        st.binary(max_size=40), st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
def test_random_split_files_end_in_records_or_a_user_error(tmp_path, ids):
    make(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(ids)
    for check_images in (True, False):
        try:
            records = read_voc(tmp_path, "train", check_images=check_images)
            assert_sound(records, {tmp_path / "JPEGImages" / "a.jpg": (40, 30)}, ["cat", "dog"])
        except UserError as error:
            assert str(tmp_path) in str(error)


def test_real_images_are_read(shared_data):
    root = shared_data("voc100")
    records = read_voc(root, "trainval", strict=True)
    assert len(records) == 100 and sum(len(record["objects"]) for record in records) == 273
    assert len(read_voc(root, "train")) == 80
    touching = [
        thing
        for record in records
        for thing in record["objects"]
        if thing["bbox"][2] == record["width"] or thing["bbox"][0] == 0
    ]
    assert touching  # real boxes that reach the frame are no error
