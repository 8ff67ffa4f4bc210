"""PASCAL VOC data sets, as released and as annotation tools export them.

They hold JPEGImages/*.jpg (or .png, .JPG, ...), Annotations/*.xml and ImageSets/Main/<split>.txt.

VOC boxes are 1-based and inclusive: (xmin=1, xmax=W) covers the whole width. Records hold 0-based boxes with
exclusive upper ends, (xmin - 1, ymin - 1, xmax, ymax), which is also Detectron2's reading. What other tools
fill in is filled in, and told once (`Findings.note`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from automix_transfer.data.detection.annotation_checks import is_plain_name, shown
from automix_transfer.data.detection.find_splits import child, voc_lists
from automix_transfer.data.detection.findings import Findings
from automix_transfer.data.detection.image_files import ImageFolders, is_file, upright_size
from automix_transfer.data.detection.regions import box_problem, note_box
from automix_transfer.data.images import SUFFIXES, is_image_name
from automix_transfer.data.listing import read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError, did_you_mean

HOLDS = "it holds JPEGImages, Annotations and ImageSets"
REMEDY = "correct these files or take the images out of the split"
MOST_BYTES = 16 << 20  # of one image's annotation
MULTI_BYTE = ("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr")
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True, "unspecified": False}
TWICE = "lines name an image again; it is taken once"
WITH_ENDING = "lines name image files; their names without ending are those of the annotations"
OTHER_NAME = "<filename>s differ from the names in the list; the images are those of the list's names"
BY_FILENAME = "images have another name than the list; they are found by <filename>"
OTHER_TAGS = "annotations have tags in capitals or in a namespace, which are read as plain ones"
OTHER_SHAPES = ("robndbox", "polygon", "segmentation")  # what some tools write in place of a box
ZERO_BASED = "boxes begin at 0, where VOC counts pixels from 1; training clips them"


@dataclass
class Folder:
    """A VOC folder that is being read."""

    root: Path
    classes: list[str] | None
    strict: bool
    check_images: bool
    findings: Findings

    def __post_init__(self) -> None:
        self.images = ImageFolders([child(self.root, "JPEGImages")])
        self._annotations = child(self.root, "Annotations")

    def annotation(self, identifier: str) -> Path:
        return self._annotations / f"{identifier}.xml"


def read_voc(
    root: str | Path,
    split: str,
    classes: list[str] | None = None,
    check_images: bool = True,
    strict: bool = False,
    notes: list[str] | None = None,
) -> list[dict[str, Any]]:
    """The images of a split with their objects.

    Args:
        root: e.g. ``VOC2007``.
        split: a list in ``ImageSets/Main``, e.g. ``trainval``.
        classes: the known classes; None takes any.
        check_images: read each image's header and compare its size, once upright, with the annotation's.
        strict: also ask for what Detectron2's VOC evaluator reads: pose, truncated, difficult, and boxes of
            whole numbers.
        notes: takes a sentence for each habit of the files that was read generously.

    Returns:
        Dicts of file_name, image_id, height, width (pixels) and objects: dicts of bbox [x0, y0, x1, y1]
        (pixels, 0-based, upper ends exclusive; as in the file, so it may stick out of the image), class,
        difficult, truncated, iscrowd (always False).

    Raises:
        UserError: once, with all problems.
    """
    findings = Findings(f"VOC data set {root}, split '{split}'")
    folder = Folder(Path(root), classes, strict, check_images, findings)
    records: dict[str, dict[str, Any] | None] = {}
    file, problems = _split_file(folder.root, split), Problems("")
    for line, (row,) in read_lines(file, 1, problems, exact=False, form="<image>"):
        identifier = _identifier(row, folder)
        if identifier is None:
            findings.refuse(f"{file}:{line}", f"{shown(row)} is not the name of an image", "no name")
        elif identifier in records:
            findings.note(f"{file}:{line}", TWICE)
        else:
            records[identifier] = _read_image(identifier, folder)
    for text in problems.found:
        findings.refuse(file, text.removeprefix(f"{file}: "))
    findings.raise_if_any(REMEDY)
    if notes is not None:
        notes += findings.notes()
    return [record for record in records.values() if record]


def _split_file(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder of a VOC data set ({HOLDS})")
    path = voc_lists(root) / f"{split}.txt"
    if not is_plain_name(split) or not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem))
        remedy = f"choose one of the splits {there}" if there else "write one image name a line into it"
        raise UserError(f"{path} is missing; {remedy}")
    return path


def _identifier(row: str, folder: Folder) -> str | None:
    """The name of an image from a line of a list: the line, without the second column that lists of one class
    have, or a file's ending. The name with an annotation is taken, since names may hold spaces."""
    name, *column = row.rsplit(None, 1)
    if column not in (["-1"], ["0"], ["1"]):
        name = row
    names = [found for found in (row, name) if is_plain_name(found) and is_file(folder.annotation(found))]
    name = names[0] if names else name
    file = PurePosixPath(name.replace("\\", "/")) if not names else PurePosixPath()
    if is_image_name(file.name) or file.suffix.lower() == ".xml":
        folder.findings.note(name, WITH_ENDING)
        name = file.stem
    return name if is_plain_name(name) else None


def _parse(path: Path, findings: Findings) -> Element | None:
    try:
        if not is_file(path):
            raise FileNotFoundError
        if path.stat().st_size > MOST_BYTES:
            findings.refuse(path, f"has more than {MOST_BYTES:,} bytes; an annotation has a few thousand")
            return None
        tree = ElementTree.fromstring(_as_utf8(path.read_bytes()), forbid_dtd=True)
    except FileNotFoundError:
        findings.refuse(path, "is missing", "no annotation")
    except OSError as error:
        findings.refuse(path, f"could not be read ({error.strerror or type(error).__name__})")
    except ParseError as error:
        findings.refuse(f"{path} line {error.position[0]}", "is not well-formed XML")
    except DefusedXmlException:
        findings.refuse(path, "declares a DTD or entities, which annotations have no need of; it was refused")
    except (ValueError, LookupError):  # bytes that contradict the declared encoding, or an unknown one
        findings.refuse(path, "is not XML text in a known encoding")
    else:
        if tree is not None and _plain_tags(tree, path, findings).tag == "annotation":
            return tree
        findings.refuse(path, "has no <annotation> element at its top")
    return None


def _plain_tags(tree: Element, path: Path, findings: Findings) -> Element:
    """``tree`` with tags in small letters and without a namespace: else its objects would not be found."""
    nodes = [(node, node.tag.rpartition("}")[2].lower()) for node in tree.iter()]
    if any(node.tag != plain for node, plain in nodes):
        findings.note(path, OTHER_TAGS)
    for node, plain in nodes:
        node.tag = plain
    return tree


def _as_utf8(content: bytes) -> bytes:
    """XML in UTF-8 where it says that it is in one of the encodings that the parser does not know."""
    said = re.match(rb"""\s*<\?xml[^>]{0,80}encoding=["']([\w-]+)["'][^>]{0,80}\?>""", content)
    if said is None or said[1].decode().lower() not in MULTI_BYTE:
        return content
    return content[said.end() :].decode(said[1].decode()).encode()


def _read_image(identifier: str, folder: Folder) -> dict[str, Any] | None:
    findings, path = folder.findings, folder.annotation(identifier)
    tree = _parse(path, findings)
    file = _image_file(identifier, _text(tree, "filename") if tree is not None else "", path, folder)
    if file is None:
        findings.refuse(folder.images.folders[0] / f"{identifier}.jpg", "is missing", "no image")
    if tree is None:
        return None
    before = findings.count
    sides = [_side(tree, f"size/{side}", path, findings) for side in ("width", "height")]
    if findings.count > before:
        return None
    size = None if None in sides else (sides[0] or 0, sides[1] or 0)
    if file is not None and (folder.check_images or size is None):
        size = upright_size(file, size, path, findings)
    if size is None or file is None:
        return None
    objects = [
        _read_object(node, f"{path}, object {index}", size, folder)
        for index, node in enumerate(tree.findall("object"), start=1)
    ]
    return {
        "file_name": str(file),
        "image_id": identifier,
        "height": size[1],
        "width": size[0],
        "objects": [found for found in objects if found],
    }


def _image_file(identifier: str, filename: str, path: Path, folder: Folder) -> Path | None:
    """The image: <name>.jpg, or with another ending, or else what ``<filename>`` says."""
    usual = folder.images.as_written(f"{identifier}.jpg")
    name = filename.replace("\\", "/").rpartition("/")[2]
    if usual is None:
        same = [found for found in folder.images.of_stem(identifier) if is_image_name(found.name)]
        same.sort(key=lambda found: (found.name != name, SUFFIXES.index(found.suffix.lower()), found.name))
        usual = same[0] if same else None
    if usual is None:
        found = folder.images.find(name) if name and is_image_name(name) else None
        if found is not None:
            folder.findings.note(path, BY_FILENAME)
        return found
    names = name.casefold(), Path(name).stem.casefold()
    if name and usual.stem.casefold() not in names and identifier.casefold() not in names:
        folder.findings.note(path, OTHER_NAME)
    return usual


def _read_object(node: Element, where: str, size: tuple[int, int], folder: Folder) -> dict[str, Any] | None:
    findings, classes, strict = folder.findings, folder.classes, folder.strict
    before = findings.count
    name = normalize("NFC", _text(node, "name"))
    if not name:
        findings.refuse(where, "<name> is missing or empty")
    elif classes is not None and name not in classes:
        hint = did_you_mean(name, classes, f"the classes are {', '.join(classes[:30])}")
        findings.refuse(where, f"class {shown(name)} is unknown; {hint}", f"class {name}")
    flags = {flag: _flag(node, flag, where, strict, findings) for flag in ("difficult", "truncated")}
    if strict and not _text(node, "pose"):
        findings.refuse(
            where, "<pose> is missing or empty (Detectron2's evaluator reads it); write Unspecified"
        )
    if node.find("bndbox") is None:
        shape = next((tag for tag in OTHER_SHAPES if node.find(tag) is not None), "")
        findings.refuse(where, "has no <bndbox>" + (f" but a <{shape}>" if shape else ""), "no box")
        return None
    names = ("xmin", "ymin", "xmax", "ymax")
    found = [_number(node, f"bndbox/{corner}", where, findings, whole=strict) for corner in names]
    corners = [corner for corner in found if corner is not None]
    if len(corners) == 4:
        xmin, ymin, xmax, ymax = corners
        box = xmin - 1, ymin - 1, xmax, ymax
        swapped = "is inverted" if xmax < xmin or ymax < ymin else None
        place = ", ".join(f"{corner:g}" for corner in corners)
        if wrong := swapped or box_problem(box, size):
            findings.refuse(f"{where}, bndbox", f"({place}) {wrong} (VOC counts pixels from 1)", "box")
        elif -1 == min(box[:2]) and box[2] <= size[0] and box[3] <= size[1]:
            findings.note(where, ZERO_BASED)
        else:
            note_box(box, size, where, findings)
    if findings.count > before:
        return None
    return {"bbox": list(box), "class": name, **flags, "iscrowd": False}


def _text(node: Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _value(text: str) -> float:
    try:
        return float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        return float("nan")


def _number(node: Element, tag: str, where: object, findings: Findings, whole: bool = False) -> float | None:
    """A number from the text of a field; a problem is noted where it is missing or is none."""
    text = _text(node, tag)
    value = _value(text)
    if abs(value) < 1e9 and (not whole or value == int(value)):  # false for nan and infinity
        return value
    expected = "a whole number" if whole else "a number"
    says = shown(text) if text else "missing or empty"
    findings.refuse(f"{where}, {tag}", f"is {says}; expected {expected}", f"{tag} is no number")
    return None


def _side(node: Element, tag: str, where: object, findings: Findings) -> int | None:
    """Pixels from the text of a field; None where it is missing, empty or 0."""
    text = _text(node, tag)
    value = _value(text or "0")
    if 0 <= value < 1e9 and value == int(value):
        return int(value) or None
    findings.refuse(f"{where}, {tag}", f"is {shown(text)}; expected pixels, a whole number", f"{tag}")
    return None


def _flag(node: Element, tag: str, where: str, strict: bool, findings: Findings) -> bool:
    text = _text(node, tag)
    if text.lower() not in FLAGS or (strict and text not in ("0", "1")):
        findings.refuse(
            f"{where}, {tag}", f"is {shown(text) if text else 'missing or empty'}; expected 0 or 1", tag
        )
    return FLAGS.get(text.lower(), False)
