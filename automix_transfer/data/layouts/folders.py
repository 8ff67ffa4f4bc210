"""Layouts of one folder a class: ImageNet, any ImageFolder, CIFAR as folders, Tiny-ImageNet as released."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.data.images import is_image_name
from automix_transfer.data.listing import Box, Listing, Paths, parse_box, read_lines, read_table
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

FOLDER_LAYOUT = "ROOT/SPLIT/CLASS/image.jpg, e.g. /data/imagenet/train/n01440764/n01440764_10026.JPEG"
TINY_LAYOUT = (
    "ROOT/wnids.txt, ROOT/train/<wnid>/images/*.JPEG, ROOT/val/images/*.JPEG and "
    "ROOT/val/val_annotations.txt, as cs231n.stanford.edu/tiny-imagenet-200.zip unpacks"
)


def imagefolder(root: Path, split: str, reference: str = "train") -> Listing:
    """One folder a split, one folder a class; images come in torchvision's order.

    Classes are the sorted folder names of the ``reference`` split, so a split that lacks a class keeps the
    numbering.
    """
    folder = split_folder(root, split, FOLDER_LAYOUT)
    names = class_names(root / reference if (root / reference).is_dir() else folder, FOLDER_LAYOUT)
    here = class_names(folder, FOLDER_LAYOUT)
    unknown = sorted(set(here) - set(names))
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} class folder(s) that {root / reference} has not, e.g. "
            f"'{unknown[0]}'; both splits must use the same class names"
        )
    paths: list[str] = []
    labels: list[int] = []
    problems, aside = Problems(str(folder)), 0
    for label, name in enumerate(names):
        if name not in here:
            continue
        images, others = images_below(folder / name)
        aside += others
        if not images:
            problems.add(folder / name, f"the class folder holds no image, and {others} other files")
        paths += images
        labels += [label] * len(images)
    problems.raise_if_any("fill or remove the folder")
    notes = [f"{aside} files in {folder} are no images by their names and were left aside"] if aside else []
    if len(here) < len(names):
        notes.append(f"{folder} has images of {len(here)} of the {len(names)} classes")
    return Listing(Paths(paths), labels, names, notes=tuple(notes))


def tiny_imagenet(root: Path, split: str) -> Listing:
    """Tiny-ImageNet as released; classes are the sorted wnids. Boxes are the file's numbers (x0 y0 x1 y1)."""
    require_split("Tiny-ImageNet", split, ("train", "val"), " (its test labels were never released)")
    require_folder(root, TINY_LAYOUT)
    problems = Problems(f"Tiny-ImageNet at {root}")
    classes = sorted(read_table(root / "wnids.txt", problems, "<wnid>"))
    problems.raise_if_any(f"the layout is {TINY_LAYOUT}")
    listing = _tiny_train(root, classes, problems) if split == "train" else _tiny_val(root, classes, problems)
    problems.raise_if_any("restore the files from tiny-imagenet-200.zip")
    return listing


def _tiny_train(root: Path, classes: list[str], problems: Problems) -> Listing:
    paths: list[Path] = []
    labels: list[int] = []
    boxes: list[list[Box]] = []
    for label, wnid in enumerate(classes):
        folder = root / "train" / wnid / "images"
        if not folder.is_dir():
            problems.add(folder, f"the folder of class '{wnid}' in wnids.txt is missing")
            continue
        images = [Path(name) for name in images_below(folder)[0]]
        if not images:
            problems.add(folder, "the class folder holds no image")
        paths += images
        labels += [label] * len(images)
        box_file = folder.parent / f"{wnid}_boxes.txt"
        names = {path.name for path in images}
        form = "<image> <x0> <y0> <x1> <y1>"
        found = (
            read_table(box_file, problems, form, names, folder, box=_tiny_box) if box_file.exists() else {}
        )
        boxes += [[found[path.name][1]] if path.name in found else [] for path in images]
    return Listing(paths, labels, classes, boxes if any(boxes) else None)


def _tiny_val(root: Path, classes: list[str], problems: Problems) -> Listing:
    table, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    if not present:
        problems.add(folder, "the folder is missing or empty")
    labels: dict[str, int] = {}
    boxes: dict[str, Box] = {}
    form = "<image> <wnid> <x0> <y0> <x1> <y1>"
    for line, (name, wnid, *numbers) in read_lines(table, 6, problems, form=form):
        corners = parse_box(numbers)
        box = corners and _tiny_box(*corners)
        if wnid not in label_of:
            problems.add(table, f"class '{wnid}' is not in wnids.txt", line)
        elif name in labels:
            problems.add(table, f"image '{name}' is listed twice", line)
        elif name not in present:
            problems.add(table, f"image '{name}' is not in {folder}", line)
        elif box is None:
            problems.add(table, f"'{' '.join(numbers)}' is not a box x0 y0 x1 y1 inside an image", line)
        else:
            labels[name], boxes[name] = label_of[wnid], box
    unlisted = sorted(name for name in present - set(labels) if is_image_name(name))
    if unlisted and not problems.found:
        problems.add(table, f"{len(unlisted)} images of {folder} are not listed, e.g. '{unlisted[0]}'")
    return Listing(
        [folder / name for name in labels], list(labels.values()), classes, [[boxes[name]] for name in labels]
    )


def _tiny_box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    return (x0, y0, x1, y1) if x0 <= x1 and y0 <= y1 else None


def require_folder(root: Path, layout: str) -> None:
    """Raise a `UserError` with the expected layout unless ``root`` is a folder with something in it."""
    try:
        empty = next(os.scandir(root), None) is None
    except FileNotFoundError:
        problem = "does not exist"
    except NotADirectoryError:
        problem = "is a file, not a folder"
    except PermissionError as error:
        problem = f"cannot be listed ({error.strerror})"
    else:
        if not empty:
            return
        problem = "is empty"
    raise UserError(f"data root {root} {problem}; set data.root to a folder laid out as {layout}")


def require_split(name: str, split: str, allowed: Sequence[str], note: str = "") -> None:
    """Raise a `UserError` unless data set ``name`` has ``split``."""
    if split not in allowed:
        raise UserError(f"{name} has no split '{split}'; choose one of {', '.join(allowed)}{note}")


def split_folder(root: Path, split: str, layout: str) -> Path:
    """``root/split``, which must be a folder."""
    require_folder(root, layout)
    folder = root / split
    if not split or not folder.is_dir():
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())[:8]
        raise UserError(
            f"data root {root} has no split folder '{split}' (it has: {', '.join(folders)}); "
            f"expected {layout}; name another with data.train_split or data.val_split"
        )
    return folder


def class_names(folder: Path, layout: str) -> list[str]:
    """The sorted names of the class folders in ``folder``."""
    entries = list(os.scandir(folder))
    names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        loose = sum(is_image_name(entry.name) for entry in entries)
        raise UserError(f"{folder} holds {loose:,} images but no class folders; expected {layout}")
    return names


def images_below(folder: Path) -> tuple[list[str], int]:
    """The image files in and below ``folder`` in torchvision's order, and how many visible others."""
    images: list[str] = []
    others = 0
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        chosen = [name for name in sorted(names) if is_image_name(name)]
        others += sum(not name.startswith(".") for name in names) - len(chosen)
        images += [f"{place}{os.sep}{name}" for name in chosen]
    return images, others
