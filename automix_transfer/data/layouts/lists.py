"""Layouts whose splits, labels and boxes stand in list files: CUB-200-2011 and FGVC-Aircraft."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.listing import Box, Listing, parse_box, read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

CUB_LAYOUT = (
    "ROOT/images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt and "
    "ROOT/images/, as CUB_200_2011.tgz of vision.caltech.edu unpacks"
)
AIRCRAFT_LAYOUT = (
    "ROOT/data/images/*.jpg, ROOT/data/variants.txt and "
    "ROOT/data/images_variant_{train,val,trainval,test}.txt, "
    "as fgvc-aircraft-2013b.tar.gz of www.robots.ox.ac.uk/~vgg unpacks"
)
AIRCRAFT_BANNER = 20  # rows of copyright text at the bottom of every image
_RESTORE = "restore the files from the released archive"
Table = dict[str, tuple[int, Any]]


def cub(root: Path, split: str) -> Listing:
    """CUB-200-2011 by its official split: ``train``, or ``test`` (``val`` means the same).

    Boxes (x, y, width, height) become edges.
    """
    require_split("CUB", split, ("train", "test", "val"), " (val means test)")
    require_folder(root, CUB_LAYOUT)
    if not (root / "images.txt").exists() and (root / "CUB_200_2011" / "images.txt").exists():
        # the archive unpacks attributes.txt beside the folder, so its parent is often given
        root = root / "CUB_200_2011"
    if not (root / "images.txt").exists():
        raise UserError(f"{root} has no images.txt; expected {CUB_LAYOUT}")
    problems = Problems(f"CUB at {root}")
    classes = _table(root / "classes.txt", problems, "<class id> <class name>", rest=True)
    files = _table(root / "images.txt", problems, "<image id> <path>", rest=True)
    class_of = _table(root / "image_class_labels.txt", problems, "<image id> <class id>", files)
    flags = root / "train_test_split.txt"
    is_train = _table(flags, problems, "<image id> <1 for training, 0 for testing>", files)
    boxes = {}
    if (root / "bounding_boxes.txt").exists():
        form = "<image id> <x> <y> <width> <height>"
        boxes = _table(root / "bounding_boxes.txt", problems, form, files, box=_cub_box)
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes, key=_numeric))}
    _check_cub_files(root, files, problems)
    for image_id, (line, class_id) in class_of.items():
        if class_id not in label_of:
            text = f"class id '{class_id}' of image {image_id} is not in classes.txt"
            problems.add(root / "image_class_labels.txt", text, line)
    for image_id, (line, flag) in is_train.items():
        if flag not in ("0", "1"):
            problems.add(flags, f"'{flag}' for image {image_id} is neither 0 nor 1", line)
    problems.raise_if_any(_RESTORE)
    chosen = [image_id for image_id in files if is_train[image_id][1] == ("1" if split == "train" else "0")]
    if not chosen:
        raise UserError(f"{flags} assigns no image to the {split} split; {_RESTORE}")
    return Listing(
        [root / "images" / files[i][1] for i in chosen],
        [label_of[class_of[i][1]] for i in chosen],
        [classes[c][1] for c in label_of],
        [[boxes[i][1]] for i in chosen] if boxes else None,
    )


def _check_cub_files(root: Path, files: Table, problems: Problems) -> None:
    where, seen = root / "images.txt", set()
    for line, name in files.values():
        if name in seen:
            problems.add(where, f"'{name}' is listed twice", line)
        elif ".." in PurePosixPath(name).parts or name.startswith("/"):
            problems.add(where, f"'{name}' leads out of images/", line)
        elif not (root / "images" / name).is_file():
            problems.add(where, f"image images/{name} is missing", line)
        seen.add(name)


def aircraft(root: Path, split: str) -> Listing:
    """FGVC-Aircraft 2013b with its 100 variants; splits train, val, trainval, test.

    Boxes of images_box.txt (inclusive pixels from 1) become edges from 0. The copyright banner is cut off
    (`Listing.crop_bottom`).
    """
    require_split("Aircraft", split, ("train", "val", "trainval", "test"))
    require_folder(root, AIRCRAFT_LAYOUT)
    tried = [root, root / "data", root / "fgvc-aircraft-2013b" / "data"]
    found = [folder for folder in tried if (folder / "variants.txt").exists()]
    if not found:
        raise UserError(f"{root} has no data/variants.txt; expected {AIRCRAFT_LAYOUT}")
    root = found[0]
    problems = Problems(f"Aircraft at {root}")
    label_of: dict[str, int] = {}
    for line, (name,) in read_lines(root / "variants.txt", 1, problems, exact=False, form="<variant>"):
        if name in label_of:
            problems.add(root / "variants.txt", f"variant '{name}' is listed twice", line)
        else:
            label_of[name] = len(label_of)
    table, box_file = root / f"images_variant_{split}.txt", root / "images_box.txt"
    rows = _table(table, problems, "<image id> <variant>", rest=True)
    for image_id, (line, name) in rows.items():
        if name not in label_of:
            problems.add(table, f"variant '{name}' is not in variants.txt", line)
        if "/" in image_id or not (root / "images" / f"{image_id}.jpg").is_file():
            problems.add(table, f"image images/{image_id}.jpg is missing", line)
    boxes = {}
    if box_file.exists():
        boxes = _table(box_file, problems, "<image id> <xmin> <ymin> <xmax> <ymax>", box=_aircraft_box)
    lacking = [image_id for image_id in rows if boxes and image_id not in boxes]
    if lacking:
        text = f"{len(lacking)} images of the {split} split have no box, e.g. {lacking[0]}"
        problems.add(box_file, text)
    problems.raise_if_any(_RESTORE)
    return Listing(
        [root / "images" / f"{i}.jpg" for i in rows],
        [label_of[name] for _, name in rows.values()],
        list(label_of),
        [[boxes[i][1]] for i in rows] if boxes else None,
        crop_bottom=AIRCRAFT_BANNER,
    )


def _table(
    path: Path,
    problems: Problems,
    form: str,
    known: Table | None = None,
    rest: bool = False,
    box: Callable[..., Box | None] | None = None,
) -> Table:
    """Lines ``<id> <value>`` as {id: (line, value)}.

    Args:
        form: of a line, with each field in angle brackets.
        known: the images; the ids must be exactly theirs.
        rest: the value is the rest of the line, spaces included.
        box: makes a box of the four numbers behind the id, or None of those that are none.
    """
    table: Table = {}
    for line, (key, *fields) in read_lines(path, form.count("<"), problems, exact=not rest, form=form):
        value: Any = fields[0] if box is None else box(*parse_box(fields) or [math.nan] * 4)
        if value is None:
            shape = form.partition("> ")[2]
            problems.add(path, f"'{' '.join(fields)}' is not a box {shape} inside an image", line)
        elif key in table:
            problems.add(path, f"id '{key}' is listed twice", line)
        elif known is not None and key not in known:
            problems.add(path, f"image id '{key}' is not in images.txt", line)
        else:
            table[key] = (line, value)
    absent = [key for key in known or () if key not in table]
    if absent and path.exists():
        listed = "image ids of images.txt are not listed (or their lines are malformed)"
        problems.add(path, f"{len(absent)} {listed}, e.g. {absent[0]}")
    return table


def _cub_box(x: float, y: float, width: float, height: float) -> Box | None:
    return (x, y, x + width, y + height) if x >= 0 and y >= 0 and width > 0 and height > 0 else None


def _aircraft_box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    return (x0 - 1, y0 - 1, x1, y1) if 1 <= x0 <= x1 and 1 <= y0 <= y1 else None


def _numeric(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdecimal() else (1, 0, key)
