"""Tiny-ImageNet: as released, or with ``val/`` sorted into class folders, as many scripts do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from automix_transfer.data.images import is_image_name
from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.layouts.walking import Aside, find_root, images_below
from automix_transfer.data.listing import Box, Listing, Paths, parse_box, read_lines, read_table
from automix_transfer.data.problems import Problems

TINY_LAYOUT = (
    "ROOT/wnids.txt, ROOT/train/<wnid>/images/*.JPEG, ROOT/val/images/*.JPEG and "
    "ROOT/val/val_annotations.txt, as cs231n.stanford.edu/tiny-imagenet-200.zip unpacks"
)


VAL_FORM = "<image> <wnid> <x0> <y0> <x1> <y1>"


def is_tiny_imagenet(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    return (folder / "wnids.txt").is_file()


def tiny_imagenet(root: Path, split: str) -> Listing:
    """Tiny-ImageNet; classes are the sorted wnids. Boxes are the file's numbers (x0 y0 x1 y1)."""
    require_split("Tiny-ImageNet", split, ("train", "val"), " (its test labels were never released)")
    require_folder(root, TINY_LAYOUT)
    root, notes = find_root(root, is_tiny_imagenet, ("tiny-imagenet-200",), ("train", "val"))
    problems = Problems(f"Tiny-ImageNet at {root}")
    classes = sorted(read_table(root / "wnids.txt", problems, "<wnid>"))
    problems.raise_if_any(f"the layout is {TINY_LAYOUT}")
    read = _folders if split == "train" or _is_sorted(root / "val", classes) else _released_val
    listing = read(root / split, classes, problems)
    problems.raise_if_any("restore the files from tiny-imagenet-200.zip")
    return replace(listing, notes=(*notes, *listing.notes))


def _is_sorted(val: Path, classes: list[str]) -> bool:
    """Whether the images of ``val/images`` were moved into class folders."""
    left = (val / "val_annotations.txt").is_file() and (val / "images").is_dir()
    return any((val / wnid).is_dir() for wnid in classes) and not (left and any(os.scandir(val / "images")))


def _folders(split: Path, classes: list[str], problems: Problems) -> Listing:
    paths: list[str] = []
    labels: list[int] = []
    boxes: list[list[Box]] = []
    missing: list[tuple[object, str, int | None]] = []
    aside, table = Aside(), split / "val_annotations.txt"  # the table of a sorted val still has its boxes
    all_boxes: dict[str, tuple[int, Box]] = {}
    if table.is_file():
        for line, (name, _, *numbers) in read_lines(table, 6, problems, form=VAL_FORM):
            if (corners := parse_box(numbers)) and (box := _tiny_box(*corners)):
                all_boxes[name] = (line, box)
    for label, wnid in enumerate(classes):
        folder = split / wnid / "images"
        folder = folder if folder.is_dir() else split / wnid
        if not folder.is_dir():
            missing.append((folder, f"the folder of class '{wnid}' in wnids.txt is missing", None))
            continue
        images = images_below(folder, aside)
        if not images:
            problems.add(folder, "the class folder holds no image")
        paths += images
        labels += [label] * len(images)
        box_file, found = split / wnid / f"{wnid}_boxes.txt", all_boxes
        names = [os.path.basename(path) for path in images]
        if box_file.exists():
            form = "<image> <x0> <y0> <x1> <y1>"
            found = read_table(box_file, problems, form, set(names), folder, box=_tiny_box)
        boxes += [[found[name][1]] if name in found else [] for name in names]
    problems.add_missing(missing, len(classes), split)
    return Listing(Paths(paths), labels, classes, boxes if any(boxes) else None, notes=aside.notes(split))


def _released_val(val: Path, classes: list[str], problems: Problems) -> Listing:
    table, folder = val / "val_annotations.txt", val / "images"
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    if not present:
        problems.add(folder, "the folder is missing or empty")
    labels: dict[str, int] = {}
    boxes: dict[str, Box] = {}
    missing: list[tuple[object, str, int | None]] = []
    rows = list(read_lines(table, 6, problems, form=VAL_FORM))
    for line, (name, wnid, *numbers) in rows:
        corners = parse_box(numbers)
        box = corners and _tiny_box(*corners)
        if wnid not in label_of:
            problems.add(table, f"class '{wnid}' is not in wnids.txt", line)
        elif name in labels:
            problems.add(table, f"image '{name}' is listed twice", line)
        elif name not in present:
            missing.append((table, f"image '{name}' is not in {folder}", line))
        elif box is None:
            problems.add(table, f"'{' '.join(numbers)}' is not a box x0 y0 x1 y1 inside an image", line)
        else:
            labels[name], boxes[name] = label_of[wnid], box
    problems.add_missing(missing, len(rows), table)
    unlisted = sorted(name for name in present - set(labels) if is_image_name(name))
    if unlisted and not problems.found:
        problems.add(table, f"{len(unlisted)} images of {folder} are not listed, e.g. '{unlisted[0]}'")
    return Listing(
        [folder / name for name in labels], list(labels.values()), classes, [[boxes[name]] for name in labels]
    )


def _tiny_box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    return (x0, y0, x1, y1) if x0 <= x1 and y0 <= y1 else None
