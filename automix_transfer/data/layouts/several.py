"""Data sets whose images show several classes each, told by their objects: PASCAL VOC and COCO.

A label is a vector over the classes: 1 where the image has an object of the class. VOC's objects that are
difficult say nothing, as in VOC's own classification task: a class with no other object in an image is
unknown there (-1), so that it is neither trained on nor counted in the average precision. COCO's crowds are
objects like others. An image without any object is one that shows no class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automix_transfer.data.detection import coco as of_coco
from automix_transfer.data.detection import regions
from automix_transfer.data.detection.find_splits import coco_split, near_miss, voc_folders, voc_lists
from automix_transfer.data.detection.voc import ZERO_BASED, read_voc
from automix_transfer.data.layouts.folders import require_folder
from automix_transfer.data.listing import Listing, Paths
from automix_transfer.errors import UserError, few

VOC_LAYOUT = (
    "ROOT/ImageSets/Main/{train,val,trainval,test}.txt, ROOT/Annotations/*.xml and ROOT/JPEGImages/, ROOT "
    "being VOC2007 or a folder that holds it, as VOCtrainval_06-Nov-2007.tar of host.robots.ox.ac.uk unpacks"
)
COCO_LAYOUT = (
    "ROOT/annotations/instances_{train,val}2017.json and the images in ROOT/train2017/ and ROOT/val2017/, as "
    "the archives of cocodataset.org unpack side by side"
)
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
#: Habits of boxes and masks, which change nothing about which classes an image shows.
OF_SHAPES = (
    *(regions.CLIPPED, regions.OUTSIDE, regions.EMPTY, ZERO_BASED),
    *(of_coco.NO_AREA, of_coco.NO_MASK, of_coco.FEW_POINTS, of_coco.CORNERS),
)


def is_voc(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    return (folder / "ImageSets" / "Main").is_dir()


def is_coco(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    return any((folder / "annotations").glob("instances_*.json"))


def voc(root: Path, split: str, known: Sequence[str] = (), reference: str = "") -> Listing:
    """A VOC folder by its lists.

    Args:
        split: a list of ImageSets/Main; FOLDER/LIST where several folders below ``root`` have it; or several
            of them joined by ``+``, e.g. ``VOC2007/trainval+VOC2012/trainval``.
        known: the classes of a network in its order, which are taken.
        reference: the split whose classes are taken else: VOC's own 20 where it has no others.
    """
    require_folder(root, VOC_LAYOUT)
    folders = voc_folders(root)
    if not folders:
        raise UserError(f"{root} has no ImageSets/Main; {near_miss(root)}; expected {VOC_LAYOUT}")
    notes: list[str] = []
    classes, reference = list(known), reference or split
    if reference != split and not classes:
        classes = _voc_classes(_voc_records(folders, reference))
    records = _voc_records(folders, split, classes or None, notes)
    classes = classes or _voc_classes(records)
    if "+" in split and len({record["file_name"] for record in records}) < len(records):
        raise UserError(
            f"the lists of split '{split}' of {root} share images; leave out one that another holds"
        )
    return _listing(f"{root}, split {split}", records, classes, notes)


def _voc_classes(records: Sequence[dict[str, Any]]) -> list[str]:
    names = {item["class"] for record in records for item in record["objects"]}
    return list(VOC_CLASSES) if names <= set(VOC_CLASSES) else sorted(names)


def _voc_records(
    folders: Sequence[Path], split: str, classes: list[str] | None = None, notes: list[str] | None = None
) -> list[dict[str, Any]]:
    """The images of all lists of ``split``, without their headers being read."""
    records = []
    for part in split.split("+"):
        place, _, name = part.rpartition("/")
        having = [folder for folder in folders if (voc_lists(folder) / f"{name}.txt").is_file()]
        having = [folder for folder in having if not place or folder.absolute().name == place]
        if len(having) > 1:
            both = "+".join(f"{folder.name}/{name}" for folder in having)
            raise UserError(
                f"split '{part}' is in {len(having)} folders of {having[0].parent}; set "
                f"data.root={having[0]}, or name folders in data.train_split and data.val_split, e.g. "
                f"{having[0].name}/{name} or {both}"
            )
        if place and not having:
            there = ", ".join(folder.absolute().name for folder in folders)
            raise UserError(
                f"split '{part}' is not there; write LIST, or FOLDER/LIST, FOLDER being one of {there}"
            )
        records += read_voc((having or folders)[0], name, classes, check_images=False, notes=notes)
    return records


def coco(root: Path, split: str, known: Sequence[str] = ()) -> Listing:
    """COCO by an instances file; classes are its categories by ascending id, or ``known``, those of a network
    or of the training split, where they are among them."""
    require_folder(root, COCO_LAYOUT)
    found, notes, categories = coco_split(root, split), list[str](), dict[Any, str]()
    if not found.folders:
        raise UserError(f"{root} has no folder of images for {found.file.name}; expected {COCO_LAYOUT}")
    records = of_coco.read_coco(found.folders, found.file, False, notes, categories)
    classes = list(categories.values())
    if set(classes) <= set(known):
        classes = list(known)
    return _listing(str(found.file), records, classes, notes)


def _listing(
    where: str, records: Sequence[dict[str, Any]], classes: list[str], notes: Sequence[str]
) -> Listing:
    label_of = {name: label for label, name in enumerate(classes)}
    vectors = np.zeros((len(records), len(classes)), dtype=np.int8)
    for vector, record in zip(vectors, records, strict=True):
        for item in record["objects"]:
            label = label_of[item["class"]]
            if not item["difficult"]:
                vector[label] = 1
            elif vector[label] == 0:
                vector[label] = -1
    files = [str(record["file_name"]) for record in records]
    absent = [classes[label] for label in np.flatnonzero(~(vectors == 1).any(axis=0))]
    if len(absent) == len(classes):
        raise UserError(f"{where}: no image shows an object; give a split with annotations")
    told = [note for note in notes if not any(habit in note for habit in OF_SHAPES)]
    if absent:
        told.append(
            f"{where}: no image shows {len(absent)} of the {len(classes)} classes ({few(absent)}), which "
            "have no average precision here; mAP is the mean over the others"
        )
    return Listing(Paths(files), [], classes, vectors=vectors, notes=tuple(told))
