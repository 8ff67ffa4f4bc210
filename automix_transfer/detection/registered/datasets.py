"""Any folder in VOC or COCO layout as Detectron2 data sets, checked before training by the readers of
`automix_transfer.data`.

VOC layout: ``Annotations/ JPEGImages/ ImageSets/Main/`` in the folder, or in ``VOC2007``, ``VOC2012`` below
it or below its ``VOCdevkit``; training on trainval (or train) of all of them, testing on test of the first
that has it; where none has, training on train and testing on val.
COCO layout: ``annotations/instances_{train,val}*.json`` with the images in the folder of the same split's
name or all in ``images/``; or, as Roboflow exports it, ``{train,valid}/_annotations.coco.json`` beside the
images. Built-in names (``voc_2007_trainval``, ``coco_2017_train``, ...) are Detectron2's, at
``DETECTRON2_DATASETS``.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_codec

from automix_transfer.data.detection.coco import categories_of_coco, check_regions, load_coco, read_coco
from automix_transfer.data.detection.decoding import undecodable
from automix_transfer.data.detection.find_splits import (
    LAYOUTS,
    CocoSplit,
    coco_splits,
    near_miss,
    voc_folders,
    voc_lists,
    voc_splits,
)
from automix_transfer.data.detection.findings import Findings
from automix_transfer.data.detection.image_files import vanishes
from automix_transfer.data.detection.leak import refuse_leak
from automix_transfer.data.detection.voc import read_voc
from automix_transfer.data.images import DETECTED_PIXELS
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json
from automix_transfer.text_files import read_text

Record = dict[str, Any]
logger = logging.getLogger("detectron2.automix_transfer")


@dataclass(frozen=True)
class DetectionData:
    """Registered splits: ``train`` and ``test`` are names in Detectron2's catalog, ``layout`` is ``voc`` or
    ``coco``, and ``notes`` say what was read generously."""

    layout: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def register_folder(root: str | Path, class_names: str | Path | None = None) -> DetectionData:
    """Read, check and register the data set in ``root``; registering it again replaces it.

    Args:
        class_names: a text file with one class a line, in label order; by default the classes are those of
            the annotations (VOC: in alphabetical order, COCO: by category id).

    Raises:
        UserError: no known layout, an empty or missing split, or what the readers find (all of it at once).
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"--data-root {root} does not exist or is not a folder; give one in {LAYOUTS} layout")
    wanted = read_class_names(class_names) if class_names else None
    if voc := voc_folders(root):
        return _register_voc(voc, wanted)
    if coco := coco_splits(root):
        return _register_coco(root, coco, wanted)
    raise UserError(f"--data-root {root} is in none of the known layouts, {LAYOUTS}; {near_miss(root)}")


def read_class_names(file: str | Path) -> list[str]:
    """Class names in label order, one a line."""
    try:
        names = [normalize("NFC", line.strip()) for line in read_text(file).splitlines() if line.strip()]
    except UserError as error:
        raise UserError(f"--class-names {file} is no UTF-8 text file; give one class name a line") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names '{twice[0]}' more than once" if twice else "is empty"
        raise UserError(f"--class-names {file} {problem}; give each class once, one a line")
    return names


def class_names_of(name: str) -> list[str]:
    """The classes of a registered data set; a `UserError` that names it where it is unknown."""
    if name not in DatasetCatalog.list():
        raise UserError(
            f"data set '{name}' is unknown; use one of Detectron2's names (voc_2007_trainval, "
            "coco_2017_train, ...) or --data-root DIR"
        )
    return list(MetadataCatalog.get(name).get("thing_classes", ()))


def _register_voc(folders: Sequence[Path], wanted: list[str] | None) -> DetectionData:
    (train, test), notes = voc_splits(folders), list[str]()
    splits = [*train, test]
    readers = [partial(read_voc, *split, wanted, notes=notes) for split in splits]
    read = dict(zip(splits, _all(readers), strict=True))
    refuse_leak(
        (record for split in train for record in read[split]),
        read[test],
        " and ".join(str(voc_lists(folder) / f"{name}.txt") for folder, name in read),
    )
    objects = (item for records in read.values() for record in records for item in record["objects"])
    classes = wanted or sorted({item["class"] for item in objects})
    names = []
    for folder, split in splits:
        names.append(f"{folder.resolve()}:{split}")
        _register(
            names[-1],
            _records(read[folder, split], classes),
            folder,
            evaluator_type="pascal_voc",
            thing_classes=classes,
            dirname=str(folder),
            split=split,
            year=2007 if "2007" in folder.name else 2012,
            checked=True,
        )
    return DetectionData(
        "voc", tuple(names[:-1]), (names[-1],), tuple(classes), _with_classes(notes, classes)
    )


def _with_classes(notes: list[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The notes, with one on classes that differ in upper and lower case alone."""
    same = Counter(name.casefold() for name in classes)
    twice = [name for name in classes if same[name.casefold()] > 1]
    said = (
        f"classes {', '.join(twice[:6])} differ in upper and lower case alone, and are classes of their own"
    )
    return (*notes, said) if twice else tuple(notes)


def _all(readers: Sequence[Callable[[], Any]]) -> list[Any]:
    """What every reader returns; what several of them find wrong is one `UserError`."""
    found, problems = [], []
    for reader in readers:
        try:
            found.append(reader())
        except UserError as error:
            problems += str(error).split("\n")
    if problems:
        raise UserError(*problems)
    return found


def _register_coco(root: Path, splits: Sequence[CocoSplit], wanted: list[str] | None) -> DetectionData:
    notes: list[str] = []
    readers = [partial(read_coco, split.folders, split.file, notes=notes) for split in splits]
    read, files = _all(readers), [split.file for split in splits]
    refuse_leak(read[0], read[1], " and ".join(map(str, files)))
    classes, names = wanted or list(categories_of_coco(files[0]).values()), []
    for split, file, records in zip(splits, files, read, strict=True):
        categories = {name: number for number, name in categories_of_coco(file).items()}
        if unknown := [name for name in classes if name not in categories]:
            raise UserError(f"{file} has no category '{unknown[0]}'; its categories are {few(categories)}")
        others = sorted({item["class"] for record in records for item in record["objects"]} - set(classes))
        if others:
            remedy = (
                "add them to --class-names, or take them out of the file"
                if wanted
                else f"the classes are those of {files[0].name}: give both files the same categories"
            )
            raise UserError(
                f"{file} has objects of {len(others)} categories that are not among the classes "
                f"({few(others)}); {remedy}"
            )
        names.append(f"{root.resolve()}:{split.name}")
        _register(
            names[-1],
            _records(records, classes),
            root,
            evaluator_type="coco",
            thing_classes=classes,
            json_file=str(file),
            image_root=str(split.folders[0]),
            thing_dataset_id_to_contiguous_id={categories[name]: label for label, name in enumerate(classes)},
        )
    return DetectionData("coco", (names[0],), (names[1],), tuple(classes), _with_classes(notes, classes))


def _records(records: Sequence[Record], classes: Sequence[str]) -> list[Record]:
    """Detectron2's records of ours, with their segmentations where there are any."""
    label = {name: number for number, name in enumerate(classes)}

    def annotation(item: Record) -> Record:
        found = {
            "bbox": list(item["bbox"]),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": label[item["class"]],
            "iscrowd": int(item.get("iscrowd", 0)),
            "difficult": bool(item.get("difficult", False)),
        }
        return found | {key: _mask(item[key]) for key in ("segmentation",) if key in item}

    return [
        {
            "file_name": str(record["file_name"]),
            **{key: record[key] for key in ("image_id", "height", "width")},
            "annotations": [annotation(item) for item in record["objects"]],
        }
        for record in records
    ]


def _mask(value: Any) -> Any:
    """Polygons as they are; a run-length encoding compressed, as Detectron2 wants it."""
    if isinstance(value, dict) and isinstance(value["counts"], list):
        return mask_codec.frPyObjects(value, *value["size"])
    return value


def check_masks(cfg: CfgNode, training: bool = True) -> None:
    """A `UserError` where ``MODEL.MASK_ON`` meets objects without a segmentation, to train on or to measure
    against, or encodings that ``INPUT.MASK_FORMAT`` cannot take."""
    trained = list(cfg.DATASETS.TRAIN) if training else []
    measured = [
        name for name in cfg.DATASETS.TEST if MetadataCatalog.get(name).get("evaluator_type") == "coco"
    ]
    for name in dict.fromkeys([*trained, *measured]):
        items = [item for record in DatasetCatalog.get(name) for item in record["annotations"]]
        objects = [item for item in items if name in measured or not item.get("iscrowd", 0)]
        without = sum("segmentation" not in item for item in objects)
        if without:
            raise UserError(
                f"MODEL.MASK_ON True needs segmentations, but {without} of {len(objects)} objects of "
                f"'{Path(name).name}' have none; use a COCO json with segmentations, or MODEL.MASK_ON False"
            )
        if name not in trained and not cfg.TEST.LOSS:
            continue
        learned = [item for item in items if not item.get("iscrowd", 0)]
        encoded = sum(isinstance(item["segmentation"], dict) for item in learned)
        if encoded and cfg.INPUT.MASK_FORMAT == "polygon":
            raise UserError(
                f"{encoded} of {len(objects)} objects of '{Path(name).name}' have run-length encoded masks, "
                "but INPUT.MASK_FORMAT is polygon; set INPUT.MASK_FORMAT bitmask"
            )


def _released_coco(name: str, folder: Path, file: Path) -> list[Any]:
    """The images of a COCO file as released, all of them there; a few of its annotations are known to be
    empty, and stay."""
    findings = Findings(f"data set '{name}', {file}")
    content = load_coco(file, findings)
    check_regions(content, {image["id"]: image for image in content.images}, findings)
    findings.raise_if_any("restore the file")
    if not folder.is_dir():
        raise UserError(f"data set '{name}': {folder} is no folder; restore the images")
    present = set(os.listdir(folder))
    missing = [image["file_name"] for image in content.images if image["file_name"] not in present]
    if missing:
        raise UserError(
            f"data set '{name}': {len(missing)} of {len(content.images)} images are missing in {folder} "
            f"({few(missing)}); unpack the archive again"
        )
    return content.images


def check_builtin(name: str) -> None:
    """Check that one of Detectron2's own VOC or COCO sets is there and whole; others are left to Detectron2.

    Raises:
        UserError: it is not where ``DETECTRON2_DATASETS`` says, or what the readers find.
    """
    metadata = MetadataCatalog.get(name)
    kind, checked = metadata.get("evaluator_type"), metadata.get("checked", False)
    if kind not in ("coco", "pascal_voc") or checked:
        return
    place = Path(metadata.get("json_file") or metadata.get("dirname") or ".")
    if not place.exists():
        root = os.environ.get("DETECTRON2_DATASETS", "")
        raise UserError(
            f"data set '{name}' is not there: {place} does not exist; DETECTRON2_DATASETS is "
            f"{repr(root) if root else 'not set'}, and has to name the folder that holds coco/, VOC2007/, "
            "VOC2012/; or give --data-root DIR"
        )
    if kind == "pascal_voc":
        complete_builtin_voc(name)
        records = DatasetCatalog.get(name)
    else:
        records = _released_coco(name, Path(metadata.image_root), place)
        metadata.set(checked=True, images=[image["file_name"] for image in records])
    if not records:
        raise UserError(f"data set '{name}' ({place}) is empty")


def is_released_coco(name: str) -> bool:
    """Whether a data set is Detectron2's own COCO, all of it, whose file takes long to read; folders have a
    path."""
    metadata = MetadataCatalog.get(name)
    whole = metadata.get("image_ids") is None
    return whole and metadata.get("evaluator_type") == "coco" and ":" not in name


def files_of(name: str) -> list[Path]:
    """The image files of a data set, in its order."""
    metadata = MetadataCatalog.get(name)
    if not is_released_coco(name):
        return [Path(record["file_name"]) for record in DatasetCatalog.get(name)]
    names = metadata.get("images") or [item["file_name"] for item in read_json(metadata.json_file)["images"]]
    return [Path(metadata.image_root) / file for file in names]


def check_images(cfg: CfgNode) -> list[str]:
    """Look at every image before a training: all pixels of those that are tested on, and whether those that
    are trained on seem to be whole. Returns notes.

    Raises:
        UserError: an image that does not decode, unless it is one to train on and ``DATALOADER.ON_BAD_IMAGE``
            is skip.
    """
    skip, notes = cfg.DATALOADER.ON_BAD_IMAGE == "skip", []
    refuse_shapes(cfg)
    for part, remedy in (("TEST", ""), ("TRAIN", ", or set DATALOADER.ON_BAD_IMAGE skip")):
        names = [name for name in cfg.DATASETS[part] if part == "TEST" or name not in cfg.DATASETS.TEST]
        files = list(dict.fromkeys(file for name in names for file in files_of(name)))
        bad = undecodable(files, f"the images to {part.lower()} on", whole=part == "TEST")
        if skip and part == "TRAIN" and len(bad) < len(files):
            shown = f" ({few(str(file) for file in bad)})"
            notes += [f"{len(bad):,} training images do not decode and are skipped{shown}"] if bad else []
        else:
            found = [f"image {file} {wrong}" for file, wrong in bad.items()]
            Problems(f"DATASETS.{part}", found).raise_if_any(
                f"restore them, or take them out of the data set{remedy}"
            )
    return notes


def refuse_shapes(cfg: CfgNode) -> None:
    """Raise a `UserError` for images so thin that no pixel of them is left once they are scaled, and for
    those of more pixels than a detector opens."""
    for part in ("TRAIN", "TEST"):
        most, sides = cfg.INPUT[f"MAX_SIZE_{part}"], cfg.INPUT[f"MIN_SIZE_{part}"]
        thin, large = list[str](), list[str]()
        for name in cfg.DATASETS[part]:
            for record in () if is_released_coco(name) else DatasetCatalog.get(name):
                width, height = record.get("width", 1), record.get("height", 1)
                text = f"image {record['file_name']} is {width} x {height} pixels"
                if vanishes((width, height), most) and sides not in (0, (0,)):
                    thin.append(text)
                elif width * height > DETECTED_PIXELS:
                    large.append(text)
        Problems(f"DATASETS.{part}", thin).raise_if_any(
            f"too thin for INPUT.MAX_SIZE_{part} {most}: cut them, or take them out of the data set"
        )
        Problems(f"DATASETS.{part}", large).raise_if_any(
            f"more than {DETECTED_PIXELS:,}, which is what a detector opens: cut or shrink them"
        )


def _register(name: str, records: list[Record], folder: Path, **metadata: Any) -> None:
    if not any(record["annotations"] for record in records):
        split = name.rpartition(":")[2]
        raise UserError(f"{folder}: the split '{split}' has no annotated object; give a data set with boxes")
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def complete_builtin_voc(name: str) -> None:
    """Read Detectron2's own VOC records again, checked: they do not say which objects are difficult.

    Records of ours stay as they are.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("checked", False):
        return
    classes, notes = list(metadata.thing_classes), list[str]()
    records = _records(read_voc(Path(metadata.dirname), metadata.split, classes, notes=notes), classes)
    for note in notes:
        logger.info(note)
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    metadata.set(checked=True)
