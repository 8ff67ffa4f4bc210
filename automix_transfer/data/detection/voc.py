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
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

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
    identifiers = _read_split(root, split)
    problems = Problems(f"VOC data set {root}, split '{split}'")
    seen: set[str] = set()
    records = []
    for line, identifier in identifiers:
        where = f"{_split_file(root, split)} line {line}"
        if not is_plain_name(identifier):
            problems.add(where, f"{shown(identifier)} is not the name of an image")
            continue
        if identifier in seen:
            problems.add(where, f"image {shown(identifier)} is listed twice")
            continue
        seen.add(identifier)
        record = _read_annotation(root, identifier, classes, strict, problems)
        image = root / "JPEGImages" / f"{identifier}.jpg"
        size = (record["width"], record["height"]) if record else None
        wrong = image_problem(image, size, read=check_images)
        if wrong:
            problems.add(image, wrong)
        if record:
            records.append(record)
    problems.raise_if_any(REMEDY)
    return records


def classes_of_voc(root: str | Path) -> list[str]:
    """The names of all objects in ``Annotations``, sorted.

    Raises:
        UserError: there are no annotations, or some cannot be read.
    """
    root = Path(root)
    folder = root / "Annotations"
    files = sorted(folder.glob("*.xml")) if folder.is_dir() else []
    if not files:
        raise UserError(
            f"{folder} holds no .xml files; give the folder of a VOC data set (it holds JPEGImages, "
            "Annotations and ImageSets)"
        )
    problems = Problems(f"VOC data set {root}")
    names = set()
    for path in files:
        tree = _parse(path, problems)
        for index, node in enumerate(tree.findall("object") if tree is not None else [], start=1):
            name = _text(node, "name")
            if name:
                names.add(name)
            else:
                problems.add(f"{path}, object {index}", "<name> is missing or empty")
    problems.raise_if_any(REMEDY)
    return sorted(names)


def _split_file(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _read_split(root: Path, split: str) -> list[tuple[int, str]]:
    path = _split_file(root, split)
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder; give the folder of a VOC data set (it holds JPEGImages, Annotations "
            "and ImageSets)"
        )
    if not is_plain_name(split) or not path.is_file():
        there = (
            sorted(file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem)
            if path.parent.is_dir()
            else []
        )
        remedy = (
            f"choose one of the splits {', '.join(there)}" if there else "write one image name a line into it"
        )
        raise UserError(f"{path} is missing; {remedy}")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} could not be read as text ({type(error).__name__}); it should hold one image name a line"
        ) from error
    # Lists of one class have a second column (1, -1 or 0), which does not choose images.
    found = [(number, line.split()[0]) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise UserError(f"{path} is empty; write one image name a line into it")
    return found


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
    width, height = (
        _number(tree, f"size/{side}", path, problems, whole=True) for side in ("width", "height")
    )
    for side, value in (("width", width), ("height", height)):
        if value is not None and value < 1:
            problems.add(f"{path}, size/{side}", f"is {value:g}; expected pixels, 1 or more")
    if width is None or height is None or width < 1 or height < 1:
        return None
    image = root / "JPEGImages" / f"{identifier}.jpg"
    record: dict[str, Any] = {
        "file_name": str(image),
        "image_id": identifier,
        "height": int(height),
        "width": int(width),
    }
    record["objects"] = [
        found
        for index, node in enumerate(tree.findall("object"), start=1)
        if (
            found := _read_object(
                node, f"{path}, object {index}", int(width), int(height), classes, strict, problems
            )
        )
    ]
    return record


def _read_object(
    node: Element,
    where: str,
    width: int,
    height: int,
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
    corners = [
        _number(node, f"bndbox/{corner}", where, problems, whole=strict)
        for corner in ("xmin", "ymin", "xmax", "ymax")
    ]
    box: list[float] | str = "is incomplete"
    if None not in corners:
        xmin, ymin, xmax, ymax = (float(corner) for corner in corners if corner is not None)
        box = clip_box((xmin - 1, ymin - 1, xmax, ymax), width, height)
        if isinstance(box, str):
            problems.add(
                f"{where}, bndbox",
                f"({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}) {box} (VOC counts pixels from 1)",
            )
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
