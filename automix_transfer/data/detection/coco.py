"""COCO's instances json, read with every field checked.

Records hold boxes (x0, y0, x1, y1) as those of `read_voc`.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from automix_transfer.data.annotation_checks import (
    as_number,
    as_whole,
    clip_box,
    image_problem,
    is_plain_name,
    shown,
)
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError
from automix_transfer.io import read_json

REMEDY = "correct the annotation file or restore the images"


class Item:
    """One object of a list of the file; ``sound`` until one of its fields is refused."""

    def __init__(self, fields: dict[str, Any], where: str, problems: Problems) -> None:
        self.fields, self.where, self.problems, self.sound = fields, where, problems, True

    def __getitem__(self, field: str) -> Any:
        return self.fields.get(field)

    def refuse(self, field: str, what: str) -> None:
        """Note what is wrong with a field."""
        self.problems.add(f"{self.where}.{field}", what)
        self.sound = False

    def expect(self, field: str, wanted: str, holds: bool) -> bool:
        """Refuse a field, with what was expected, unless ``holds``."""
        if not holds:
            self.refuse(field, f"is {shown(self[field])}; expected {wanted}")
        return holds

    def whole(self, field: str, least: int | None = None) -> int | None:
        """A whole number of at least ``least``."""
        value = as_whole(self[field])
        good = value is not None and abs(value) < 2**63 and (least is None or value >= least)
        bound = f" of {least} or more" if least is not None else ""
        return value if self.expect(field, f"a whole number{bound}", good) else None

    def identifier(self, others: Container[int], least: int | None = None) -> int | None:
        """The item's own ``id``, which none of the ``others`` has."""
        number = self.whole("id", least)
        if number is not None and number in others:
            self.refuse("id", f"{number} is used twice")
        return number

    def reference(self, field: str, known: Container[int], what: str) -> int | None:
        """The id of another item, one of ``known``."""
        number = self.whole(field)
        if number is not None and number not in known:
            self.refuse(field, f"{number} is no {what} of this file")
        return number


def read_coco(
    images_dir: str | Path, annotation_file: str | Path, check_images: bool = True
) -> list[dict[str, Any]]:
    """The images of an annotation file with their objects, in the file's order.

    Args:
        images_dir: the folder that ``file_name`` of the images is relative to, e.g. ``coco/val2017``.
        annotation_file: e.g. ``coco/annotations/instances_val2017.json``.
        check_images: read each image's header and compare its size with the annotation's.

    Returns:
        Dicts of file_name, image_id, height, width (pixels) and objects: dicts of bbox [x0, y0, x1, y1]
        (pixels; up to a pixel outside the image is clipped), class, category_id, id, area, iscrowd, difficult
        (always False) and, where given, segmentation.

    Raises:
        UserError: once, with all problems.
    """
    images_dir, path = Path(images_dir), Path(annotation_file)
    content = _load(path)
    if not images_dir.is_dir():
        raise UserError(f"{images_dir} is not a folder; give the folder of the images that {path} lists")
    problems = Problems(f"COCO data set {path}")
    categories = _read_categories(_items(content, "categories", problems))
    records = _read_images(_items(content, "images", problems), images_dir, check_images)
    seen: set[int] = set()
    for item in _items(content, "annotations", problems):
        _read_annotation(item, records, categories, seen)
    problems.raise_if_any(REMEDY)
    return list(records.values())


def categories_of_coco(annotation_file: str | Path) -> dict[int, str]:
    """Category id -> name, by ascending id.

    Raises:
        UserError: the file is no COCO json or a category is malformed.
    """
    path = Path(annotation_file)
    problems = Problems(f"COCO data set {path}")
    categories = _read_categories(_items(_load(path), "categories", problems))
    problems.raise_if_any(REMEDY)
    return dict(sorted(categories.items()))


def _load(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a JSON {type(content).__name__}; expected an object with images, annotations and "
            "categories"
        )
    return content


def _items(content: dict[str, Any], field: str, problems: Problems) -> list[Item]:
    values = content.get(field)
    if not isinstance(values, list) or not values:
        problems.add(field, "is missing, empty or not a list")
        return []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            problems.add(f"{field}[{index}]", f"is {shown(value)}; expected an object")
    return [Item(v, f"{field}[{n}]", problems) for n, v in enumerate(values) if isinstance(v, dict)]


def _read_categories(items: list[Item]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for item in items:
        number, name = item.identifier(categories, 0), item["name"]
        good = isinstance(name, str) and bool(name.strip()) and name.isprintable()
        if item.expect("name", "a name", good) and name in categories.values():
            item.refuse("name", f"{shown(name)} is used twice")
        if item.sound and number is not None:
            categories[number] = name
    return categories


def _read_images(items: list[Item], folder: Path, check_images: bool) -> dict[int, dict[str, Any]]:
    """Image id -> record without objects."""
    records: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for item in items:
        number, name = item.identifier(records), item["file_name"]
        height, width = item.whole("height", 1), item.whole("width", 1)
        plain = isinstance(name, str) and is_plain_name(name)
        if item.expect("file_name", f"a path inside {folder}", plain):
            size = (width, height) if width and height else None
            if name in names:
                item.refuse("file_name", f"{shown(name)} is listed twice")
            elif wrong := image_problem(folder / name, size, read=check_images):
                item.refuse("file_name", f"{folder / name} {wrong}")
            names.add(name)
        if number is not None and number not in records:
            # Kept even when something else of it is wrong, so that its annotations are not reported as
            # pointing nowhere.
            records[number] = {
                "file_name": str(folder / str(name)),
                "image_id": number,
                "height": height if item.sound else 0,
                "width": width if item.sound else 0,
                "objects": [],
            }
    return records


def _read_annotation(
    item: Item, records: dict[int, dict[str, Any]], categories: dict[int, str], seen: set[int]
) -> None:
    number = item.identifier(seen)
    if number is not None:
        seen.add(number)
    image = item.reference("image_id", records, "image")
    category = item.reference("category_id", categories, "category")
    area, crowd = as_number(item["area"]), item["iscrowd"]
    item.expect("area", "square pixels (COCO's evaluator needs them)", area is not None and area >= 0)
    item.expect("iscrowd", "0 or 1", not isinstance(crowd, bool) and crowd in (0, 1))
    record = records.get(image) if image is not None else None
    box = _read_box(item, record)
    if "segmentation" in item.fields and (wrong := _segmentation_problem(item["segmentation"])):
        item.refuse("segmentation", wrong)
    if item.sound and record is not None and category is not None:
        found = {
            "bbox": box,
            "class": categories[category],
            "category_id": category,
            "id": number,
            "area": area,
            "iscrowd": bool(crowd),
            "difficult": False,
        }
        if "segmentation" in item.fields:
            found["segmentation"] = item["segmentation"]
        record["objects"].append(found)


def _read_box(item: Item, record: dict[str, Any] | None) -> list[float] | None:
    value = item["bbox"]
    numbers = [as_number(entry) for entry in value] if isinstance(value, list) else []
    good = len(numbers) == 4 and None not in numbers
    # an image that is not sound is reported already, and its size not known
    if not item.expect("bbox", "[x, y, width, height] in pixels", good) or not record or not record["width"]:
        return None
    x, y, width, height = (entry for entry in numbers if entry is not None)
    box = clip_box((x, y, x + width, y + height), record["width"], record["height"])
    if isinstance(box, str):
        item.refuse("bbox", f"{shown(value)} {box}")
        return None
    return box


def _segmentation_problem(value: Any) -> str | None:
    """What is wrong with polygons or a run-length encoding; None where nothing is."""
    if isinstance(value, list):
        for polygon in value:
            numbers = [as_number(entry) for entry in polygon] if isinstance(polygon, list) else []
            if len(numbers) < 6 or len(numbers) % 2 or None in numbers:
                return f"holds {shown(polygon)}; expected polygons [x0, y0, x1, y1, x2, y2, ...]"
        return None if value else "is empty; expected polygons or a run-length encoding"
    counts, size = (value.get("counts"), value.get("size")) if isinstance(value, dict) else (None, None)
    runs = isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts)
    sides = isinstance(size, list) and len(size) == 2 and all(type(s) is int and s > 0 for s in size)
    if sides and (runs or isinstance(counts, str)):
        return None
    return f"is {shown(value)}; expected polygons or a run-length encoding of counts and size"
