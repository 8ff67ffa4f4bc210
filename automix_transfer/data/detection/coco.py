"""COCO's instances json, as COCO released it and as annotation tools export it.

`load_coco` reads the file alone, and is also what an evaluation measures against; `read_coco` adds the
images. Boxes are those of the file. What other tools fill in is filled in, and told once (`Findings.note`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

from automix_transfer.data.detection.annotation_checks import as_whole, shown
from automix_transfer.data.detection.coco_items import Id, Item
from automix_transfer.data.detection.findings import EACH, Findings
from automix_transfer.data.detection.image_files import ImageFolders, upright_size
from automix_transfer.data.detection.regions import (
    CLIPPED,
    box_problem,
    is_fraction,
    mask_problem,
    note_box,
    polygons_of,
)
from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json

REMEDY = "correct the annotation file or restore the images"
NO_AREA = "objects have no area; that of their box is taken"
NO_MASK = "segmentations are empty or have no polygon of three points; such objects have a box alone"
FEW_POINTS = "polygons have fewer than three points or half a point; they are left out"
NO_IMAGE = "objects belong to images that the file does not list; they are left out, as COCO's own tool does"
NO_ID = "objects have no id; they are numbered"
TWICE = "images are listed twice with one id; they are taken once"
SAME_FILE = "files are listed under several ids; each is an image of its own, as COCO's own tool has it"
ROOT = "categories have the name of another one and no objects; they are left out"
FOUND = "file names are not paths as the images lie here; the files are found by the end of the path"
ENDING = "file names have another ending than the image, or none; the only image of that name is taken"
ADDRESS = "images have an address and no file_name; their files are found by the end of the address"
CORNERS = "boxes look like corners (x0, y0, x1, y1), and some stick out; COCO has x, y, width, height"
LVIS = "images say which classes were not looked for (LVIS); the AP here is COCO's, which does not use that"


@dataclass
class CocoFile:
    """What an annotation file says: ``images`` (id, file_name, height, width; None where not given),
    ``annotations`` (id, image_id, category_id, bbox as x, y, width, height, area, iscrowd, and segmentation
    where there is one), and ``categories``: names by id. ``secret``: it has no annotations at all."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[Id, str] = field(default_factory=dict)
    secret: bool = False


def read_coco(
    images_dir: str | Path | Sequence[Path],
    annotation_file: str | Path,
    check_images: bool = True,
    notes: list[str] | None = None,
    categories: dict[Id, str] | None = None,
) -> list[dict[str, Any]]:
    """The images of an annotation file with their objects, in the file's order.

    Args:
        images_dir: the folder that ``file_name`` of the images is relative to, e.g. ``coco/val2017``, or
            several, the first of them first.
        annotation_file: e.g. ``coco/annotations/instances_val2017.json``.
        check_images: read each image's header and compare its size, once upright, with the annotation's.
        notes: takes a sentence for each habit of the file that was read generously.
        categories: takes category id -> name, by ascending id.

    Returns:
        Dicts of file_name, image_id, height, width (pixels) and objects: dicts of bbox [x0, y0, x1, y1]
        (pixels, as in the file: it may stick out of the image or be empty), class, category_id, id, area,
        iscrowd, difficult (always False) and, where it has points, segmentation.

    Raises:
        UserError: once, with all problems.
    """
    path = Path(annotation_file)
    folders = [Path(images_dir)] if isinstance(images_dir, str | Path) else list(images_dir)
    if not any(folder.is_dir() for folder in folders):
        raise UserError(f"{folders[0]} is not a folder; give the folder of the images that {path} lists")
    findings = Findings(f"COCO data set {path}")
    content = load_coco(path, findings, secret=False)
    records = _with_files(content.images, ImageFolders(folders), check_images, findings)
    check_regions(content, records, findings)
    findings.raise_if_any(REMEDY)
    for item in content.annotations:
        x, y, width, height = item["bbox"]
        found: dict[str, Any] = {
            key: item[key] for key in ("id", "category_id", "area", "segmentation") if key in item
        }
        found["bbox"] = [x, y, x + width, y + height]
        found["class"] = content.categories[item["category_id"]]
        records[item["image_id"]]["objects"].append(
            found | {"iscrowd": bool(item["iscrowd"]), "difficult": False}
        )
    if notes is not None:
        notes += findings.notes()
    if categories is not None:
        categories |= _by_id(content.categories)
    return list(records.values())


def categories_of_coco(annotation_file: str | Path) -> dict[Id, str]:
    """Category id -> name, by ascending id.

    Raises:
        UserError: the file is no COCO json or a category is malformed.
    """
    path = Path(annotation_file)
    findings = Findings(f"COCO data set {path}")
    categories = _read_categories(_load(path), findings)
    findings.raise_if_any(REMEDY)
    return _by_id(categories)


def _by_id(categories: dict[Id, str]) -> dict[Id, str]:
    return dict(sorted(categories.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def load_coco(path: str | Path, findings: Findings | None = None, secret: bool = True) -> CocoFile:
    """Read an annotation file without looking at its images.

    Args:
        findings: takes problems and habits; without it, problems raise a `UserError`.
        secret: whether there need not be any annotations, as in the files of COCO's test sets.

    Raises:
        UserError: the file is no JSON of images, annotations and categories.
    """
    content = _load(Path(path))
    found = Findings(f"COCO data set {path}") if findings is None else findings
    categories = _read_categories(content, found)
    images = _read_images(content, found)
    ids = {image["id"]: True for image in images}
    result = CocoFile(images, [], categories, secret and "annotations" not in content)
    seen: set[Id] = set()
    for item in () if result.secret else _items(content, "annotations", found):
        annotation = _read_annotation(item, ids, categories, seen)
        if annotation is not None:
            result.annotations.append(annotation)
    if findings is None:
        found.raise_if_any(REMEDY)
    return result


def _load(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a JSON {type(content).__name__}; expected an object with images, annotations and "
            "categories"
        )
    return content


def _items(content: dict[str, Any], field: str, findings: Findings) -> list[Item]:
    values = content.get(field)
    if not isinstance(values, list) or not values:
        findings.refuse(field, "is missing, empty or not a list")
        return []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            findings.refuse(f"{field}[{index}]", f"is {shown(value)}; expected an object", f"no {field}")
    return [Item(v, f"{field}[{n}]", findings) for n, v in enumerate(values) if isinstance(v, dict)]


def _read_categories(content: dict[str, Any], findings: Findings) -> dict[Id, str]:
    """Id -> name; of two with one name, that with objects (exporters write their root as a category)."""
    categories: dict[Id, str] = {}
    names: dict[str, Id] = {}
    twice: dict[Id, Item] = {}
    for item in _items(content, "categories", findings):
        number, name = item.identifier(), item["name"]
        good = isinstance(name, str) and bool(name.strip()) and name.isprintable()
        item.expect("name", "a name", good)
        if number is None:
            continue
        if number in categories or number in twice:
            item.refuse("id", f"{shown(number)} is used twice", "twice")
        elif (name := _name_of(item)) in names and good:
            twice[number] = item
        else:
            categories[number] = name
            names[name] = number
    _choose_used(categories, names, twice, content.get("annotations"))
    return categories


def _name_of(item: Item) -> str:
    return normalize("NFC", str(item["name"])).strip()


def _choose_used(
    categories: dict[Id, str], names: dict[str, Id], twice: dict[Id, Item], objects: Any
) -> None:
    """Put the category that has objects in the place of one that has none, for names that occur twice."""
    known = objects if twice and isinstance(objects, list) else []
    used = {str(item.get("category_id")) for item in known if isinstance(item, dict)}
    for number, item in twice.items():
        name = _name_of(item)
        other = names[name]
        if str(number) in used and str(other) in used:
            item.refuse("name", f"{shown(name)} is used twice, and both have objects", "twice")
            continue
        item.note(ROOT)
        if str(other) not in used:
            del categories[other]
            categories[number], names[name] = name, number


def _read_images(content: dict[str, Any], findings: Findings) -> list[dict[str, Any]]:
    """The images, each id once; those with a problem, too, so that their objects are not reported as well."""
    images: dict[Id, dict[str, Any]] = {}
    for item in _items(content, "images", findings):
        number, name = item.identifier(), item["file_name"]
        if name is None and (name := item["coco_url"] or item["url"] or item["path"]) is not None:
            item.note(ADDRESS)
        plain = isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name) < 4096
        if not plain:
            item.refuse("file_name", f"is {shown(name)}; expected the path of the image", "no path")
        if item["neg_category_ids"] or item["not_exhaustive_category_ids"]:
            item.note(LVIS)
        height, width = item.side("height"), item.side("width")
        about = {"id": number, "file_name": name, "height": height, "width": width, "sound": item.sound}
        if number is None:
            continue
        if number not in images:
            images[number] = about | {"where": item.where}
        elif images[number]["file_name"] == name:
            item.note(TWICE)
        else:
            item.refuse("id", f"{shown(number)} is used twice", "twice")
    return list(images.values())


def _read_annotation(
    item: Item, images: dict[Id, bool], categories: dict[Id, str], seen: set[Id]
) -> dict[str, Any] | None:
    number = None
    if item["id"] is None:
        item.note(NO_ID)
    elif (number := item.identifier()) in seen:
        item.refuse("id", f"{shown(number)} is used twice", "twice")
    elif number is not None:
        seen.add(number)
    image, category = item.reference("image_id", images), item.reference("category_id", categories)
    if category is not None and category not in categories:
        item.refuse("category_id", f"{shown(category)} is no category of this file", "unknown")
    box, area, crowd = item.box(), item.area(), item.crowd()
    mask = _read_mask(item)
    if not item.sound or box is None:
        return None
    if image not in images:
        item.note(NO_IMAGE)
        return None
    if area is None:
        item.note(NO_AREA)
        area = box[2] * box[3]
    found = {
        "where": item.where,
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": area,
        "iscrowd": int(crowd),
    }
    return found if mask is None else found | {"segmentation": mask}


def _read_mask(item: Item) -> Any:
    """Polygons of three points or more, or an encoding; None where there is neither."""
    value = item["segmentation"]
    if isinstance(value, dict) and value:
        size = value.get("size")
        return value | {"size": [as_whole(side) for side in size]} if isinstance(size, list) else value
    if isinstance(value, list) and value:
        polygons = polygons_of(value)
        if polygons is None:
            item.refuse("segmentation", "has coordinates that are no finite numbers", "not finite")
        elif polygons and len(polygons) < len(value):
            item.note(FEW_POINTS)
        if polygons:
            return polygons
    if "segmentation" in item.fields:
        item.note(NO_MASK)
    return None


def _with_files(
    images: list[dict[str, Any]], folders: ImageFolders, check_images: bool, findings: Findings
) -> dict[Id, dict[str, Any]]:
    """Image id -> record without objects; height and width are 0 where something is wrong with the image."""
    records: dict[Id, dict[str, Any]] = {}
    names: dict[Path, str] = {}  # of each file
    listed: set[Path] = set()
    for image in images:
        name, sound, size = str(image["file_name"]), image["sound"], (image["width"], image["height"])
        file = folders.as_written(name)
        if sound and file is None and (file := folders.find(name)) is not None and "://" not in name:
            same = Path(name).suffix.lower() == file.suffix.lower()
            findings.note(image["where"], FOUND if same else ENDING)
        if sound and file is None:
            where = f"{image['where']}.file_name"
            findings.refuse(where, f"{folders.folders[0] / name} is missing", "is missing")
        if sound and file is not None:
            if names.setdefault(file, name) != name:
                other = f"{shown(name)} and {shown(names[file])} would both be {file}"
                findings.refuse(f"{image['where']}.file_name", other, "two names")
            elif file in listed:
                findings.note(image["where"], SAME_FILE)
            listed.add(file)
        if sound and file is not None and (check_images or None in size):
            known = None if None in size else size
            size = upright_size(file, known, image["where"], findings) or (0, 0)
        good = sound and file is not None
        records[image["id"]] = {
            "file_name": str(file or folders.folders[0] / name),
            "image_id": image["id"],
            "height": size[1] if good else 0,
            "width": size[0] if good else 0,
            "objects": [],
        }
    if len(findings.problems.get("is missing", ())) == len(images) > EACH:
        findings.problems["is missing"] = [
            f"none of the {len(images):,} images is in {' or '.join(map(str, folders.folders))} "
            f"({few(str(image['file_name']) for image in images)}); put them there, or correct file_name"
        ]
    return records


def check_regions(content: CocoFile, images: Mapping[Id, Mapping[str, Any]], findings: Findings) -> None:
    """Refuse boxes and masks that native code must not see, and note what training will change of the others.

    Args:
        images: height and width in pixels of each image by its id; 0 where they are not known.
    """
    boxes: list[tuple[float, ...]] = []
    for item in content.annotations:
        record, where = images[item["image_id"]], item["where"]
        size = record["width"] or 0, record["height"] or 0
        if not size[0]:  # an image that is not sound is reported already, and its size not known
            continue
        x, y, width, height = item["bbox"]
        box = x, y, x + width, y + height
        boxes.append(box)
        if wrong := box_problem(box, size):
            findings.refuse(f"{where}.bbox", f"{item['bbox']} {wrong}", "box far away")
        else:
            note_box(box, size, where, findings)
        if "segmentation" in item and (wrong := mask_problem(item["segmentation"], size)):
            findings.refuse(f"{where}.segmentation", wrong, "mask")
    if boxes and all(0 <= x0 < x1 - x0 and 0 <= y0 < y1 - y0 for x0, y0, x1, y1 in boxes):
        findings.note_if(CLIPPED, CORNERS, len(boxes))
    if is_fraction(boxes):
        findings.refuse(
            "annotations", "all boxes lie between 0 and 1; they are fractions, where COCO has pixels"
        )
