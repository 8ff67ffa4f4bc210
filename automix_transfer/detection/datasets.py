"""Any folder in VOC or COCO layout as Detectron2 data sets, checked before training by the readers of `automix_transfer.data`.

VOC layout: ``Annotations/ JPEGImages/ ImageSets/Main/`` in the folder, or in ``VOC2007``, ``VOC2012`` below it; training on trainval (or
train) of all of them, testing on test of the first that has it; where none has, training on train and testing on val.
COCO layout: ``annotations/instances_{train,val}*.json`` with
the images in the folder of the same split's name. Built-in names (``voc_2007_trainval``, ``coco_2017_train``, ...) are Detectron2's, at
``DETECTRON2_DATASETS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from automix_transfer.data.coco import categories_of_coco, read_coco
from automix_transfer.data.voc import read_voc
from automix_transfer.errors import UserError

LAYOUTS = "VOC (Annotations/, JPEGImages/, ImageSets/Main/) or COCO (annotations/instances_train*.json, instances_val*.json)"
VOC_TRAIN, VOC_TEST = ("trainval", "train"), ("test", "val")


@dataclass(frozen=True)
class DetectionData:
    """Registered splits: ``train`` and ``test`` are names in Detectron2's catalog, ``layout`` is ``voc`` or ``coco``."""

    layout: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: tuple[str, ...]


def register_folder(root: str | Path, class_names: str | Path | None = None) -> DetectionData:
    """Read, check and register the data set in ``root``; registering it again replaces it.

    Args:
        class_names: a text file with one class a line, in label order; by default the classes are those of the annotations
            (VOC: in alphabetical order, COCO: by category id).

    Raises:
        UserError: no known layout, an empty or missing split, or what the readers find (all of it at once).
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"--data-root {root} does not exist or is not a folder; give the folder of a data set in {LAYOUTS} layout")
    wanted = read_class_names(class_names) if class_names else None
    voc = [folder for folder in (root, *sorted(root.glob("VOC*"))) if (folder / "ImageSets" / "Main").is_dir()]
    if voc:
        return _register_voc(root, voc, wanted)
    if (root / "annotations").is_dir():
        return _register_coco(root, wanted)
    raise UserError(f"--data-root {root} is in none of the known layouts: {LAYOUTS}")


def read_class_names(file: str | Path) -> list[str]:
    """Class names in label order, one a line."""
    try:
        names = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class-names {file} could not be read as UTF-8 text; give a file with one class name a line") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names '{twice[0]}' more than once" if twice else "is empty"
        raise UserError(f"--class-names {file} {problem}; give each class once, one a line")
    return names


def class_names_of(name: str) -> list[str]:
    """The classes of a registered data set; a `UserError` that names it where it is unknown."""
    if name not in DatasetCatalog.list():
        raise UserError(f"data set '{name}' is unknown; use one of Detectron2's names (voc_2007_trainval, coco_2017_train, ...) "
                        "or --data-root DIR")
    return list(MetadataCatalog.get(name).get("thing_classes", ()))


def _register_voc(root: Path, folders: Sequence[Path], wanted: list[str] | None) -> DetectionData:
    places: dict[str, list[tuple[Path, str]]] = {"train": [], "test": []}
    for name in VOC_TEST:  # the first folder with a test list, or else with a val list
        places["test"] = places["test"] or [(folder, name) for folder in folders if _has_split(folder, name)][:1]
    testing = places["test"][0][1] if places["test"] else ""
    for folder in folders:
        lists = VOC_TRAIN if testing != "val" else ("train",)  # trainval contains val
        usable = [name for name in lists if _has_split(folder, name)]
        places["train"] += [(folder, name) for name in usable[:1]]
    for part, lists in (("train", VOC_TRAIN if testing != "val" else ("train",)), ("test", VOC_TEST)):
        if not places[part]:
            wanted_files = " or ".join(f"{name}.txt" for name in lists)
            raise UserError(f"{folders[0] / 'ImageSets' / 'Main'} has no {wanted_files}; the {part} split is missing")
    read = {place: read_voc(place[0], place[1], wanted) for place in [*places["train"], *places["test"]]}
    _refuse_leak(read, places)
    classes = wanted or sorted({item["class"] for records in read.values() for record in records for item in record["objects"]})
    registered: dict[str, list[str]] = {"train": [], "test": []}
    for part, chosen in places.items():
        for folder, split in chosen:
            name = f"{folder.resolve()}:{split}"
            _register(name, _records(read[folder, split], classes), folder, evaluator_type="pascal_voc", thing_classes=classes,
                      dirname=str(folder), split=split, year=2007 if "2007" in folder.name else 2012, checked=True)
            registered[part].append(name)
    return DetectionData("voc", tuple(registered["train"]), tuple(registered["test"]), tuple(classes))


def _has_split(folder: Path, name: str) -> bool:
    return (folder / "ImageSets" / "Main" / f"{name}.txt").is_file()


def _refuse_leak(read: dict[tuple[Path, str], list[dict[str, Any]]], places: dict[str, list[tuple[Path, str]]]) -> None:
    """An image in both splits would make the test a test of memory."""
    test = {record["file_name"] for place in places["test"] for record in read[place]}
    both = sorted(record["file_name"] for place in places["train"] for record in read[place] if record["file_name"] in test)
    if both:
        lists = " and ".join(str(folder / "ImageSets" / "Main" / f"{name}.txt") for folder, name in (*places["train"], *places["test"]))
        raise UserError(f"{len(both)} images are in both the training and the test split ({Path(both[0]).stem}, ...); "
                        f"take them out of one of {lists}")


def _register_coco(root: Path, wanted: list[str] | None) -> DetectionData:
    names, classes = {}, wanted
    for part, pattern in (("train", "instances_train*.json"), ("test", "instances_val*.json")):
        files = sorted((root / "annotations").glob(pattern))
        if len(files) != 1:
            raise UserError(f"{root / 'annotations'} must hold exactly one {pattern}, but holds {len(files)}"
                            + (f" ({', '.join(file.name for file in files)})" if files else ""))
        split = files[0].stem.removeprefix("instances_")
        images = next((folder for folder in (root / split, root / "images" / split) if folder.is_dir()), root / split)
        records = read_coco(images, files[0])
        categories = {name: number for number, name in categories_of_coco(files[0]).items()}
        classes = classes or list(categories)
        unknown = [name for name in classes if name not in categories]
        if unknown:
            raise UserError(f"{files[0]} has no category '{unknown[0]}'; its categories are {', '.join(list(categories)[:20])}")
        names[part] = f"{root.resolve()}:{split}"
        _register(names[part], _records(records, classes), root, evaluator_type="coco", thing_classes=classes, json_file=str(files[0]),
                  image_root=str(images), thing_dataset_id_to_contiguous_id={categories[name]: label for label, name in enumerate(classes)})
    return DetectionData("coco", (names["train"],), (names["test"],), tuple(classes or ()))


def _records(records: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detectron2's records of ours; objects of classes that are not wanted are left out."""
    label = {name: number for number, name in enumerate(classes)}
    return [{"file_name": str(record["file_name"]), "image_id": record["image_id"], "height": record["height"], "width": record["width"],
             "annotations": [{"bbox": list(item["bbox"]), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label[item["class"]],
                              "iscrowd": int(item.get("iscrowd", 0)), "difficult": bool(item.get("difficult", False))}
                             for item in record["objects"] if item["class"] in label]} for record in records]


def _register(name: str, records: list[dict[str, Any]], folder: Path, **metadata: Any) -> None:
    if not any(record["annotations"] for record in records):
        raise UserError(f"{folder}: the split '{name.rsplit(':', 1)[-1]}' has no annotated object; give a data set with boxes in it")
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def complete_builtin_voc(name: str) -> None:
    """Detectron2's own VOC records do not say which objects are difficult; read them again, checked. Records of ours stay as they are."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("checked", False):
        return
    records = _records(read_voc(Path(metadata.dirname), metadata.split, list(metadata.thing_classes)), metadata.thing_classes)
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    metadata.set(checked=True)
