"""COCO's instances json, read with every field checked.

Records hold boxes (x0, y0, x1, y1) as those of `read_voc`.
"""

from __future__ import annotations

import json
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

REMEDY = "correct the annotation file or restore the images"


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
    categories = _read_categories(_items(content, "categories", problems), problems)
    records = _read_images(_items(content, "images", problems), images_dir, check_images, problems)
    seen: set[int] = set()
    for where, annotation in _items(content, "annotations", problems):
        _read_annotation(where, annotation, records, categories, seen, problems)
    problems.raise_if_any(REMEDY)
    return list(records.values())


def categories_of_coco(annotation_file: str | Path) -> dict[int, str]:
    """Category id -> name, by ascending id.

    Raises:
        UserError: the file is no COCO json or a category is malformed.
    """
    path = Path(annotation_file)
    problems = Problems(f"COCO data set {path}")
    categories = _read_categories(_items(_load(path), "categories", problems), problems)
    problems.raise_if_any(REMEDY)
    return dict(sorted(categories.items()))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{path} could not be read ({reason}); give the path of a COCO instances json"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {error.lineno} is not valid JSON ({error.msg}); restore the file from its source"
        ) from error
    # not UTF-8, integers of thousands of digits, endless nesting
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({type(error).__name__}); restore the file from its source"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a JSON {type(content).__name__}; expected an object with images, annotations and "
            "categories"
        )
    return content


def _items(content: dict[str, Any], field: str, problems: Problems) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with the place to name in a message."""
    items = content.get(field)
    if not isinstance(items, list) or not items:
        problems.add(field, "is missing, empty or not a list")
        return []
    found = []
    for index, item in enumerate(items):
        if isinstance(item, dict):
            found.append((f"{field}[{index}]", item))
        else:
            problems.add(f"{field}[{index}]", f"is {shown(item)}; expected an object")
    return found


def _integer(
    item: dict[str, Any], field: str, where: str, problems: Problems, least: int | None = None
) -> int | None:
    value = as_whole(item.get(field))
    if value is None or abs(value) >= 2**63 or (least is not None and value < least):
        bound = f" of {least} or more" if least is not None else ""
        problems.add(f"{where}.{field}", f"is {shown(item.get(field))}; expected a whole number{bound}")
        return None
    return value


def _read_categories(items: list[tuple[str, dict[str, Any]]], problems: Problems) -> dict[int, str]:
    categories: dict[int, str] = {}
    for where, item in items:
        number, name = _integer(item, "id", where, problems, 0), item.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            problems.add(f"{where}.name", f"is {shown(name)}; expected a name")
        elif name in categories.values():
            problems.add(f"{where}.name", f"{shown(name)} is used twice")
        elif number in categories:
            problems.add(f"{where}.id", f"{number} is used twice")
        elif number is not None:
            categories[number] = name
    return categories


def _read_images(
    items: list[tuple[str, dict[str, Any]]], folder: Path, check_images: bool, problems: Problems
) -> dict[int, dict[str, Any]]:
    """Image id -> record without objects; a record that is not well-formed is kept out."""
    records: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for where, item in items:
        before = len(problems.found)
        number = _integer(item, "id", where, problems)
        height, width = (_integer(item, side, where, problems, 1) for side in ("height", "width"))
        name = item.get("file_name")
        if not isinstance(name, str) or not is_plain_name(name):
            problems.add(f"{where}.file_name", f"is {shown(name)}; expected a path inside {folder}")
        elif name in names:
            problems.add(f"{where}.file_name", f"{shown(name)} is listed twice")
        else:
            names.add(name)
            size = (width, height) if width is not None and height is not None else None
            wrong = image_problem(folder / name, size, read=check_images)
            if wrong:
                problems.add(f"{where}.file_name", f"{folder / name} {wrong}")
        if number in records:
            problems.add(f"{where}.id", f"{number} is used twice")
        elif number is not None:
            # Kept even when something else of it is wrong, so that its annotations are not reported as
            # pointing nowhere.
            well = len(problems.found) == before
            records[number] = {
                "file_name": str(folder / str(name)),
                "image_id": number,
                "height": height if well else 0,
                "width": width if well else 0,
                "objects": [],
            }
    return records


def _read_annotation(
    where: str,
    item: dict[str, Any],
    records: dict[int, dict[str, Any]],
    categories: dict[int, str],
    seen: set[int],
    problems: Problems,
) -> None:
    before = len(problems.found)
    number = _integer(item, "id", where, problems)
    if number in seen:
        problems.add(f"{where}.id", f"{number} is used twice")
    elif number is not None:
        seen.add(number)
    image = _integer(item, "image_id", where, problems)
    if image is not None and image not in records:
        problems.add(f"{where}.image_id", f"{image} is no image of this file")
    category = _integer(item, "category_id", where, problems)
    if category is not None and category not in categories:
        problems.add(f"{where}.category_id", f"{category} is no category of this file")
    area, crowd = as_number(item.get("area")), item.get("iscrowd")
    if area is None or area < 0:
        problems.add(
            f"{where}.area",
            f"is {shown(item.get('area'))}; expected square pixels (COCO's evaluator needs them)",
        )
    if isinstance(crowd, bool) or crowd not in (0, 1):
        problems.add(f"{where}.iscrowd", f"is {shown(crowd)}; expected 0 or 1")
    record = records.get(image) if image is not None else None
    box = _read_box(where, item.get("bbox"), record, problems)
    wrong = _segmentation_problem(item["segmentation"]) if "segmentation" in item else None
    if wrong:
        problems.add(f"{where}.segmentation", wrong)
    if len(problems.found) == before and record is not None and category is not None:
        found = {
            "bbox": box,
            "class": categories[category],
            "category_id": category,
            "id": number,
            "area": area,
            "iscrowd": bool(crowd),
            "difficult": False,
        }
        if "segmentation" in item:
            found["segmentation"] = item["segmentation"]
        record["objects"].append(found)


def _read_box(
    where: str, value: Any, record: dict[str, Any] | None, problems: Problems
) -> list[float] | None:
    numbers = [as_number(entry) for entry in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        problems.add(f"{where}.bbox", f"is {shown(value)}; expected [x, y, width, height] in pixels")
        return None
    x, y, width, height = (entry for entry in numbers if entry is not None)
    if not record or not record["width"]:  # the image's own problem is reported already
        return None
    box = clip_box((x, y, x + width, y + height), record["width"], record["height"])
    if isinstance(box, str):
        problems.add(f"{where}.bbox", f"{shown(value)} {box}")
        return None
    return box


def _segmentation_problem(value: Any) -> str | None:
    """What is wrong with polygons or a run-length encoding; None where nothing is."""
    if isinstance(value, list):
        for polygon in value:
            if (
                not isinstance(polygon, list)
                or len(polygon) < 6
                or len(polygon) % 2
                or any(as_number(entry) is None for entry in polygon)
            ):
                return (
                    f"holds {shown(polygon)}; expected polygons [x0, y0, x1, y1, x2, y2, ...] of three "
                    "points or more"
                )
        return None if value else "is empty; expected polygons or a run-length encoding"
    if isinstance(value, dict):
        counts, size = value.get("counts"), value.get("size")
        whole = (
            isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        )
        if whole and (
            isinstance(counts, str)
            or (isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts))
        ):
            return None
    return f"is {shown(value)}; expected polygons or a run-length encoding of counts and size"
