"""Layouts whose splits, labels and boxes stand in list files: CUB-200-2011 and FGVC-Aircraft."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.layouts.walking import find_root
from automix_transfer.data.listing import Box, Listing, Table, read_table
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


def cub(root: Path, split: str) -> Listing:
    """CUB-200-2011 by its official split: ``train``, or ``test`` (``val`` means the same).

    Boxes (x, y, width, height) become edges.
    """
    require_split("CUB", split, ("train", "test", "val"), " (val means test)")
    require_folder(root, CUB_LAYOUT)
    # the archive unpacks attributes.txt beside the folder, so its parent is often given
    root, notes = find_root(root, is_cub, ("CUB_200_2011",), ("images",))
    if not (root / "images.txt").exists():
        raise UserError(f"{root} has no images.txt; expected {CUB_LAYOUT}")
    problems = Problems(f"CUB at {root}")
    classes = read_table(root / "classes.txt", problems, "<class id> <class name>", rest=True)
    files = read_table(root / "images.txt", problems, "<image id> <path>", rest=True)
    labels, flags, box_file = (
        root / name for name in ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")
    )
    class_of = read_table(labels, problems, "<image id> <class id>", files)
    is_train = read_table(flags, problems, "<image id> <1 for training, 0 for testing>", files)
    tables, boxes = {labels: class_of, flags: is_train}, {}
    if box_file.exists():
        form = "<image id> <x> <y> <width> <height>"
        boxes = tables[box_file] = read_table(box_file, problems, form, files, box=_cub_box)
    for path, table in tables.items():
        if path.exists() and (absent := [key for key in files if key not in table]):
            listed = "image ids of images.txt are not listed (or their lines are malformed)"
            problems.add(path, f"{len(absent)} {listed}, e.g. {absent[0]}")
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes, key=_numeric))}
    _check_cub_files(root, files, problems)
    for image_id, (line, class_id) in class_of.items():
        if class_id not in label_of:
            problems.add(labels, f"class id '{class_id}' of image {image_id} is not in classes.txt", line)
    for image_id, (line, flag) in is_train.items():
        if flag not in ("0", "1"):
            problems.add(flags, f"'{flag}' for image {image_id} is neither 0 nor 1", line)
    problems.raise_if_any(_RESTORE)
    chosen = [image_id for image_id in files if is_train[image_id][1] == ("1" if split == "train" else "0")]
    if not chosen:
        raise UserError(f"{flags} assigns no image to the {split} split; {_RESTORE}")
    names, numbers = [classes[c][1] for c in label_of], [label_of[class_of[i][1]] for i in chosen]
    problems.add_empty(labels, names, numbers, None if split == "train" else notes)
    problems.raise_if_any(_RESTORE)
    return Listing(
        [root / "images" / files[i][1] for i in chosen],
        numbers,
        names,
        [[boxes[i][1]] for i in chosen] if boxes else None,
        notes=tuple(notes),
    )


def is_cub(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    return (folder / "images.txt").is_file() and (folder / "image_class_labels.txt").is_file()


def is_aircraft(folder: Path) -> bool:
    """Whether the data set, its folder ``data``, is ``folder``."""
    return (folder / "variants.txt").is_file()


def _check_cub_files(root: Path, files: Table, problems: Problems) -> None:
    where, seen = root / "images.txt", set()
    missing: list[tuple[object, str, int | None]] = []
    for line, name in files.values():
        if name in seen:
            problems.add(where, f"'{name}' is listed twice", line)
        elif ".." in PurePosixPath(name).parts or name.startswith("/"):
            problems.add(where, f"'{name}' leads out of images/", line)
        elif not (root / "images" / name).is_file():
            missing.append((where, f"image images/{name} is missing", line))
        seen.add(name)
    problems.add_missing(missing, len(files), where)


def aircraft(root: Path, split: str) -> Listing:
    """FGVC-Aircraft 2013b with its 100 variants; splits train, val, trainval, test.

    Boxes of images_box.txt (inclusive pixels from 1) become edges from 0. The copyright banner is cut off
    (`Listing.crop_bottom`).
    """
    require_split("Aircraft", split, ("train", "val", "trainval", "test"))
    require_folder(root, AIRCRAFT_LAYOUT)
    root, notes = find_root(root, is_aircraft, ("data", "fgvc-aircraft-2013b/data"), ("images",))
    if not is_aircraft(root):
        raise UserError(f"{root} has no data/variants.txt; expected {AIRCRAFT_LAYOUT}")
    problems = Problems(f"Aircraft at {root}")
    variants = read_table(root / "variants.txt", problems, "<variant>", rest=True)
    label_of = {name: label for label, name in enumerate(variants)}
    table, box_file = root / f"images_variant_{split}.txt", root / "images_box.txt"
    rows = read_table(table, problems, "<image id> <variant>", rest=True)
    missing: list[tuple[object, str, int | None]] = []
    for image_id, (line, name) in rows.items():
        if name not in label_of:
            problems.add(table, f"variant '{name}' is not in variants.txt", line)
        if "/" in image_id or not (root / "images" / f"{image_id}.jpg").is_file():
            missing.append((table, f"image images/{image_id}.jpg is missing", line))
    problems.add_missing(missing, len(rows), table)
    problems.add_empty(table, list(label_of), (label_of.get(name, -1) for _, name in rows.values()))
    boxes = {}
    if box_file.exists():
        boxes = read_table(box_file, problems, "<image id> <xmin> <ymin> <xmax> <ymax>", box=_aircraft_box)
    lacking = [image_id for image_id in rows if boxes and image_id not in boxes]
    if lacking:
        problems.add(box_file, f"{len(lacking)} images of the {split} split have no box, e.g. {lacking[0]}")
    problems.raise_if_any(_RESTORE)
    return Listing(
        [root / "images" / f"{i}.jpg" for i in rows],
        [label_of[name] for _, name in rows.values()],
        list(label_of),
        [[boxes[i][1]] for i in rows] if boxes else None,
        crop_bottom=AIRCRAFT_BANNER,
        notes=tuple(notes),
    )


def _cub_box(x: float, y: float, width: float, height: float) -> Box | None:
    return (x, y, x + width, y + height) if x >= 0 and y >= 0 and width > 0 and height > 0 else None


def _aircraft_box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    return (x0 - 1, y0 - 1, x1, y1) if 1 <= x0 <= x1 and 1 <= y0 <= y1 else None


def _numeric(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdecimal() else (1, 0, key)
