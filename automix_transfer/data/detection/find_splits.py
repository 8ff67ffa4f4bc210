"""Where a folder has its training and its test split: VOC's and COCO's layouts, and those of exporters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from automix_transfer.errors import UserError, few
from automix_transfer.io import sha256_of

LAYOUTS = (
    "VOC (Annotations/, JPEGImages/, ImageSets/Main/) or COCO (annotations/instances_train*.json, "
    "instances_val*.json; or train/_annotations.coco.json, valid/_annotations.coco.json)"
)
ROBOFLOW = "_annotations.coco.json"
VOC_TRAIN, VOC_TEST = ("trainval", "train"), ("test", "val")
COCO_TRAIN, COCO_TEST = ("train",), ("val", "valid", "validation", "test")
SPLIT = re.compile(f"({'|'.join(COCO_TRAIN + COCO_TEST)})[0-9]*")
OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
VocSplit = tuple[Path, str]  # a VOC folder and one of its lists


@dataclass(frozen=True)
class CocoSplit:
    """One annotation file, the folders that its images may lie in, and what the split is called."""

    name: str
    file: Path
    folders: tuple[Path, ...]


def child(folder: Path, name: str) -> Path:
    """``folder / name``, or the only folder of that name in other capitals."""
    if (folder / name).is_dir() or not folder.is_dir():
        return folder / name
    found = [path for path in _folders(folder) if path.name.lower() == name.lower()]
    return found[0] if len(found) == 1 else folder / name


def voc_lists(folder: Path) -> Path:
    """Where a VOC folder has its lists of images."""
    return child(child(folder, "ImageSets"), "Main")


def voc_folders(root: Path) -> list[Path]:
    """The VOC folders in ``root``: itself, or VOC* below it, below VOCdevkit/, or below a folder around that,
    as the archives unpack."""
    for above in ("", "*/", "*/*/"):
        places = (root, *sorted(root.glob(f"{above}[Vv][Oo][Cc]*")))
        found = [folder for folder in places if voc_lists(folder).is_dir()]
        if found:
            return found
    return []


def voc_splits(folders: Sequence[Path]) -> tuple[list[VocSplit], VocSplit]:
    """The splits to train on, at most one a folder, and the one to test on.

    Raises:
        UserError: there is none to train or none to test on.
    """

    def found(folder: Path, names: Sequence[str]) -> list[VocSplit]:
        return [(folder, name) for name in names if (voc_lists(folder) / f"{name}.txt").is_file()][:1]

    test = next((split for name in VOC_TEST for folder in folders for split in found(folder, [name])), None)
    lists = ("train",) if test and test[1] == "val" else VOC_TRAIN  # trainval contains val
    train = [split for folder in folders for split in found(folder, lists)]
    if train and test:
        return train, test
    part, names = ("test", VOC_TEST) if train else ("train", lists)
    files = " or ".join(f"{name}.txt" for name in names)
    there = few(sorted(file.name for file in voc_lists(folders[0]).glob("*.txt"))) or "no list"
    raise UserError(
        f"{voc_lists(folders[0])} has no {files}, only {there}; the {part} split is missing, so write one: "
        "an image name a line"
    )


def coco_splits(root: Path) -> tuple[CocoSplit, CocoSplit] | None:
    """The split to train on and the one to test on; None where ``root`` has no annotation file of COCO's.

    Raises:
        UserError: there is one and not the other, or several to choose from.
    """
    if root.name.lower() == "annotations":
        return None
    if found := _splits_in(root):
        return found
    below = {folder.name: found for folder in _folders(root) if (found := _splits_in(folder))}
    if len(below) > 1:
        raise UserError(f"{root} holds {len(below)} data sets ({few(below)}); give one of these folders")
    return next(iter(below.values()), None)


def coco_split(root: Path, split: str) -> CocoSplit:
    """A split by what is behind ``instances_`` in its file's name, or as ``train`` or ``val`` of a root with
    one of each.

    Raises:
        UserError: there is no such split.
    """
    files = {top: child(top, "annotations") / f"instances_{split}.json" for top in (root, *_folders(root))}
    having = [top for top, file in files.items() if file.is_file()]
    if having and (having[0] == root or len(having) == 1):
        return _only([files[having[0]]], files[having[0]].parent, "instances_", split, having[0])
    found = coco_splits(root)
    if found is None:
        raise UserError(f"{root} has no annotations of COCO's, {near_miss(root)}; expected {LAYOUTS}")
    for one, roles in zip(found, (COCO_TRAIN, COCO_TEST), strict=True):
        if split == one.name or split in roles:
            return one
    beside = (file.stem.removeprefix("instances_") for file in found[0].file.parent.glob("instances_*.json"))
    there = sorted({one.name for one in found} | set(beside))
    raise UserError(f"{root} has no split '{split}'; choose one of {', '.join(there)}")


def _splits_in(top: Path) -> tuple[CocoSplit, CocoSplit] | None:
    own = child(top, "annotations")
    for folder, begin in ((own, "instances_"), (own, ""), (top, "")):
        train, test = (_named(folder, begin, names) for names in (COCO_TRAIN, COCO_TEST))
        if train or (test and begin):
            return _only(train, folder, begin, "train", top), _only(test, folder, begin, "val", top)
    return _beside_images(top)


def _named(folder: Path, begin: str, names: Sequence[str]) -> list[Path]:
    """Files of ``folder`` that are called after the first of ``names`` of which there are any."""
    files = [file for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]
    for name in names:
        found = [file for file in files if _split_of(file, begin).startswith(name)]
        if found:
            return found
    return []


def _split_of(file: Path, begin: str) -> str:
    """The split's name in that of an annotation file: ``lvis_v1_train.json``, ``instances_val2017.json``."""
    if begin:
        return file.stem.removeprefix(begin).lower() if file.stem.startswith(begin) else ""
    parts = () if file.stem.startswith(OTHER_TASKS) else re.split("[_.-]", file.stem.lower())
    return next((part for part in parts if SPLIT.fullmatch(part)), "")


def _only(files: list[Path], folder: Path, begin: str, name: str, top: Path) -> CocoSplit:
    if len(files) != 1:
        there = few(sorted(file.name for file in folder.glob("*.json")))
        raise UserError(
            f"{folder} must hold exactly one {begin}{name}*.json, but holds {len(files)} (there is {there}); "
            "leave the others out, or add the split that is missing"
        )
    split = files[0].stem.removeprefix("instances_")
    name = _split_of(files[0], begin)
    plain = name.rstrip("0123456789")
    years = sorted(folder.name for folder in top.glob(f"{plain}2*"))
    names = dict.fromkeys([split, name, plain, *years])
    images = child(top, "images")
    folders = [child(part, place) for place in names for part in (top, images)]
    folders += [*(folder / "images" for folder in folders), images, top]
    return CocoSplit(split, files[0], tuple(place for place in folders if place.is_dir()))


def _beside_images(root: Path) -> tuple[CocoSplit, CocoSplit] | None:
    """A folder a split, its annotations beside its images: Roboflow's file, or another, the only one."""
    found = {}
    for folder in _folders(root):
        files = [file for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]
        named = [file for file in files if file.name == ROBOFLOW] or files
        if len(named) == 1 and (named[0].name == ROBOFLOW or SPLIT.fullmatch(folder.name.lower())):
            name = re.sub("[0-9]+$", "", folder.name.lower())
            found[name] = CocoSplit(folder.name, named[0], (folder, folder / "images", folder / "data"))
    if not found:
        return None
    train = next((found[name] for name in COCO_TRAIN if name in found), None)
    test = next((found[name] for name in COCO_TEST if name in found), None)
    if train is None or test is None:
        missing = f"train/{ROBOFLOW}" if train is None else f"valid/{ROBOFLOW} or test/{ROBOFLOW}"
        there = few(f"{split.file.parent.name}/{split.file.name}" for split in found.values())
        raise UserError(f"{root} has {there}, but no {missing}; add it")
    return train, test


def digest_of_boxes(root: Path) -> str:
    """SHA-256 of the files that say which images a data set's splits have, and which objects are on them.

    Raises:
        UserError: a split is missing.
    """
    if folders := voc_folders(root):
        train, test = voc_splits(folders)
        files = [voc_lists(folder) / f"{name}.txt" for folder, name in (*train, test)]
        for folder in sorted({folder for folder, _ in (*train, test)}):
            files += sorted(child(folder, "Annotations").glob("*.xml"))
    else:
        files = [split.file for split in coco_splits(root) or ()]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def near_miss(root: Path) -> str:
    """What ``root`` seems to be, and what to do about it, as a part of a sentence."""
    names = {path.name for path in _entries(root)}
    if {"JPEGImages", "Annotations"} <= names:
        return "it has JPEGImages and Annotations, so add the lists ImageSets/Main/trainval.txt and test.txt"
    part = root.name.lower() in ("jpegimages", "annotations", "imagesets", "images")
    if part or (SPLIT.fullmatch(root.name.lower()) and child(root.absolute().parent, "annotations").is_dir()):
        return f"it is a part of a data set, so give {root.parent}"
    places = [root, *(root / name for name in sorted(names) if (root / name).is_dir())]
    for place in places[:20]:
        ends = {path.suffix.lower() for path in _entries(place)}
        if ".xml" in ends:
            return f"{place} has .xml files without VOC's lists, so lay them out as VOC, or export as COCO"
        if ".json" in ends:
            file = next(path.name for path in sorted(_entries(place)) if path.suffix.lower() == ".json")
            return (
                f"{place} has {file}, so name the annotations of the two splits "
                "annotations/instances_train.json and annotations/instances_val.json"
            )
    if "labels" in names or {"data.yaml", "dataset.yaml"} & names:
        return "it looks like YOLO's layout, so export it as COCO"
    return f"it holds {few(sorted(names)) or 'nothing'}"


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())[:1000]
    except OSError:
        return


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
