"""PASCAL VOC data sets, read with every field checked.

They hold JPEGImages/*.jpg, Annotations/*.xml and ImageSets/Main/<split>.txt.

VOC boxes are 1-based and inclusive: (xmin=1, xmax=W) covers the whole width. Records hold 0-based boxes with
exclusive upper ends, (xmin - 1, ymin - 1, xmax, ymax), which is also Detectron2's reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from automix_transfer.data.annotation_checks import clip_box, image_problem, is_plain_name, shown
from automix_transfer.data.listing import read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

HOLDS = "it holds JPEGImages, Annotations and ImageSets"
REMEDY = "correct these files or take the images out of the split"


def read_voc(
    root: str | Path,
    split: str,
    classes: list[str] | None = None,
    check_images: bool = True,
    strict: bool = False,
) -> list[dict[str, Any]]:
    """The images of a split with their objects.

    Args:
        root: e.g. ``VOC2007``.
        split: a list in ``ImageSets/Main``, e.g. ``trainval``.
        classes: the known classes; None takes any.
        check_images: read each image's header and compare its size with the annotation's.
        strict: also ask for what Detectron2's VOC evaluator reads: pose, truncated, difficult, and boxes of
            whole numbers.

    Returns:
        Dicts of file_name, image_id, height, width (pixels) and objects: dicts of bbox [x0, y0, x1, y1]
        (pixels, 0-based, upper ends exclusive), class, difficult, truncated, iscrowd (always False).

    Raises:
        UserError: once, with all problems.
    """
    root = Path(root)
    problems = Problems(f"VOC data set {root}, split '{split}'")
    records: dict[str, dict[str, Any] | None] = {}
    file = _split_file(root, split)
    for line, (row,) in read_lines(file, 1, problems, exact=False, form="<image>"):
        identifier = row.split()[0]  # lists of one class have a second column, which does not choose images
        if not is_plain_name(identifier):
            problems.add(file, f"{shown(identifier)} is not the name of an image", line)
        elif identifier in records:
            problems.add(file, f"image {shown(identifier)} is listed twice", line)
        else:
            record = records[identifier] = _read_annotation(root, identifier, classes, strict, problems)
            image = root / "JPEGImages" / f"{identifier}.jpg"
            size = (record["width"], record["height"]) if record else None
            if wrong := image_problem(image, size, read=check_images):
                problems.add(image, wrong)
    problems.raise_if_any(REMEDY)
    return [record for record in records.values() if record]


def _split_file(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder of a VOC data set ({HOLDS})")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not is_plain_name(split) or not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem))
        remedy = f"choose one of the splits {there}" if there else "write one image name a line into it"
        raise UserError(f"{path} is missing; {remedy}")
    return path


def _parse(path: Path, problems: Problems) -> Element | None:
    try:
        tree = ElementTree.parse(path, forbid_dtd=True).getroot()
    except FileNotFoundError:
        problems.add(path, "is missing")
    except OSError as error:
        problems.add(path, f"could not be read ({error.strerror or type(error).__name__})")
    except ParseError as error:
        problems.add(f"{path} line {error.position[0]}", "is not well-formed XML")
    except DefusedXmlException:
        problems.add(path, "declares a DTD or entities, which annotations have no need of; it was refused")
    except (ValueError, LookupError):  # bytes that contradict the declared encoding, or an unknown one
        problems.add(path, "is not XML text in a known encoding")
    else:
        if tree is not None and tree.tag == "annotation":
            return tree
        problems.add(path, "has no <annotation> element at its top")
    return None


def _read_annotation(
    root: Path, identifier: str, classes: list[str] | None, strict: bool, problems: Problems
) -> dict[str, Any] | None:
    path = root / "Annotations" / f"{identifier}.xml"
    tree = _parse(path, problems)
    if tree is None:
        return None
    sides = {side: _number(tree, f"size/{side}", path, problems, whole=True) for side in ("width", "height")}
    for side, value in sides.items():
        if value is not None and value < 1:
            problems.add(f"{path}, size/{side}", f"is {value:g}; expected pixels, 1 or more")
    width, height = (int(value or 0) for value in sides.values())
    if width < 1 or height < 1:
        return None
    objects = [
        _read_object(node, f"{path}, object {index}", (width, height), classes, strict, problems)
        for index, node in enumerate(tree.findall("object"), start=1)
    ]
    return {
        "file_name": str(root / "JPEGImages" / f"{identifier}.jpg"),
        "image_id": identifier,
        "height": height,
        "width": width,
        "objects": [found for found in objects if found],
    }


def _read_object(
    node: Element,
    where: str,
    size: tuple[int, int],
    classes: list[str] | None,
    strict: bool,
    problems: Problems,
) -> dict[str, Any] | None:
    before = len(problems.found)
    name = _text(node, "name")
    if not name:
        problems.add(where, "<name> is missing or empty")
    elif classes is not None and name not in classes:
        problems.add(where, f"class {shown(name)} is unknown; the classes are {', '.join(classes[:30])}")
    flags = {flag: _flag(node, flag, where, strict, problems) for flag in ("difficult", "truncated")}
    if strict and not _text(node, "pose"):
        problems.add(where, "<pose> is missing or empty (Detectron2's evaluator reads it); write Unspecified")
    names = ("xmin", "ymin", "xmax", "ymax")
    found = [_number(node, f"bndbox/{corner}", where, problems, whole=strict) for corner in names]
    corners = [corner for corner in found if corner is not None]
    box: list[float] | str = "is incomplete"
    if len(corners) == 4:
        xmin, ymin, xmax, ymax = corners
        box = clip_box((xmin - 1, ymin - 1, xmax, ymax), *size)
        if isinstance(box, str):
            place = ", ".join(f"{corner:g}" for corner in corners)
            problems.add(f"{where}, bndbox", f"({place}) {box} (VOC counts pixels from 1)")
    if len(problems.found) > before:
        return None
    return {"bbox": box, "class": name, **flags, "iscrowd": False}


def _text(node: Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _number(node: Element, tag: str, where: object, problems: Problems, whole: bool = False) -> float | None:
    """A number from the text of a field; a problem is noted where it is missing or is none."""
    text = _text(node, tag)
    try:
        value = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        value = float("nan")
    if abs(value) < 1e9 and (not whole or value == int(value)):  # false for nan and infinity
        return value
    expected = "a whole number" if whole else "a number"
    problems.add(f"{where}, {tag}", f"is {shown(text) if text else 'missing or empty'}; expected {expected}")
    return None


def _flag(node: Element, tag: str, where: str, strict: bool, problems: Problems) -> bool:
    text = _text(node, tag)
    if text not in ("0", "1") and (text or strict):
        problems.add(f"{where}, {tag}", f"is {shown(text) if text else 'missing or empty'}; expected 0 or 1")
    return text == "1"
