"""Layouts whose splits, labels and boxes stand in list files: CUB-200-2011 and FGVC-Aircraft."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from automix_transfer.data.layouts.folders import require_folder
from automix_transfer.data.listing import Box, Listing, parse_box, read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

CUB_LAYOUT = (
    "ROOT/images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt and "
    "ROOT/images/, "
    "as CUB_200_2011.tgz of vision.caltech.edu unpacks"
)
AIRCRAFT_LAYOUT = (
    "ROOT/data/images/*.jpg, ROOT/data/variants.txt and "
    "ROOT/data/images_variant_{train,val,trainval,test}.txt, "
    "as fgvc-aircraft-2013b.tar.gz of www.robots.ox.ac.uk/~vgg unpacks"
)
AIRCRAFT_BANNER = 20  # rows of copyright text at the bottom of every image
_RESTORE = "restore the files from the released archive"


def cub(root: Path, split: str) -> Listing:
    """CUB-200-2011 by its official split: ``train``, or ``test`` (``val`` means the same). Boxes are (x, y, x
    + w, y + h)."""
    if split not in ("train", "test", "val"):
        raise UserError(f"CUB has no split '{split}'; use train, or test (val means the same)")
    require_folder(root, CUB_LAYOUT)
    if not (root / "images.txt").exists() and (root / "CUB_200_2011" / "images.txt").exists():
        # the archive unpacks attributes.txt beside the folder, so its parent is often given
        root = root / "CUB_200_2011"
    if not (root / "images.txt").exists():
        raise UserError(f"{root} has no images.txt; expected {CUB_LAYOUT}")
    problems = Problems(f"CUB at {root}")
    classes = _table(root / "classes.txt", problems, "<class id> <class name>", rest=True)
    files = _table(root / "images.txt", problems, "<image id> <path>", rest=True)
    class_of = _table(root / "image_class_labels.txt", problems, "<image id> <class id>", known=files)
    is_train = _table(
        root / "train_test_split.txt", problems, "<image id> <1 for training, 0 for testing>", known=files
    )
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes, key=_numeric))}
    boxes = (
        _cub_boxes(root / "bounding_boxes.txt", files, problems)
        if (root / "bounding_boxes.txt").exists()
        else None
    )
    seen: dict[str, str] = {}
    for image_id, (line, name) in files.items():
        where, parts = root / "images.txt", PurePosixPath(name).parts
        if name in seen:
            problems.add(where, f"'{name}' is listed twice", line)
        elif ".." in parts or name.startswith("/"):
            problems.add(where, f"'{name}' leads out of images/", line)
        elif not (root / "images" / name).is_file():
            problems.add(where, f"image images/{name} is missing", line)
        seen[name] = image_id
    for image_id, (line, class_id) in class_of.items():
        if class_id not in label_of:
            problems.add(
                root / "image_class_labels.txt",
                f"class id '{class_id}' of image {image_id} is not in classes.txt",
                line,
            )
    for image_id, (line, flag) in is_train.items():
        if flag not in ("0", "1"):
            problems.add(
                root / "train_test_split.txt", f"'{flag}' for image {image_id} is neither 0 nor 1", line
            )
    problems.raise_if_any(_RESTORE)
    chosen = [image_id for image_id in files if is_train[image_id][1] == ("1" if split == "train" else "0")]
    if not chosen:
        raise UserError(f"{root / 'train_test_split.txt'} assigns no image to the {split} split; {_RESTORE}")
    return Listing(
        [root / "images" / files[i][1] for i in chosen],
        [label_of[class_of[i][1]] for i in chosen],
        [classes[c][1] for c in label_of],
        None if boxes is None else [[boxes[i]] for i in chosen],
    )


def aircraft(root: Path, split: str) -> Listing:
    """FGVC-Aircraft 2013b with its 100 variants; splits train, val, trainval, test. Boxes of images_box.txt
    (inclusive pixels from 1) become edges from 0. The copyright banner is cut off (`Listing.crop_bottom`)."""
    if split not in ("train", "val", "trainval", "test"):
        raise UserError(f"Aircraft has no split '{split}'; use train, val, trainval or test")
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
    table = root / f"images_variant_{split}.txt"
    rows = _table(table, problems, "<image id> <variant>", rest=True)
    for image_id, (line, name) in rows.items():
        if name not in label_of:
            problems.add(table, f"variant '{name}' is not in variants.txt", line)
        if "/" in image_id or not (root / "images" / f"{image_id}.jpg").is_file():
            problems.add(table, f"image images/{image_id}.jpg is missing", line)
    boxes = _aircraft_boxes(root / "images_box.txt", problems)
    lacking = [image_id for image_id in rows if boxes and image_id not in boxes]
    if lacking:
        problems.add(
            root / "images_box.txt",
            f"{len(lacking)} images of the {split} split have no box, e.g. {lacking[0]}",
        )
    problems.raise_if_any(_RESTORE)
    return Listing(
        [root / "images" / f"{i}.jpg" for i in rows],
        [label_of[name] for _, name in rows.values()],
        list(label_of),
        [[boxes[i]] for i in rows] if boxes else None,
        crop_bottom=AIRCRAFT_BANNER,
    )


def _table(
    path: Path, problems: Problems, form: str, rest: bool = False, known: dict | None = None
) -> dict[str, tuple[int, str]]:
    """``<id> <value>`` lines as {id: (line, value)}; with ``known`` the ids must be exactly those of
    images.txt."""
    table: dict[str, tuple[int, str]] = {}
    for line, (key, value) in read_lines(path, 2, problems, exact=not rest, form=form):
        if key in table:
            problems.add(path, f"id '{key}' is listed twice", line)
        elif known is not None and key not in known:
            problems.add(path, f"image id '{key}' is not in images.txt", line)
        else:
            table[key] = (line, value)
    _complain_about_absent(path, table, known, problems)
    return table


def _cub_boxes(path: Path, files: dict, problems: Problems) -> dict[str, Box]:
    boxes: dict[str, Box] = {}
    for line, (key, *numbers) in read_lines(path, 5, problems, form="<image id> <x> <y> <width> <height>"):
        box = parse_box(numbers)
        if box is None or box[2] <= 0 or box[3] <= 0 or box[0] < 0 or box[1] < 0:
            problems.add(
                path,
                f"'{' '.join(numbers)}' is not a box x y width height with x, y >= 0 and a positive size",
                line,
            )
        elif key not in files:
            problems.add(path, f"image id '{key}' is not in images.txt", line)
        elif key in boxes:
            problems.add(path, f"image id '{key}' is listed twice", line)
        else:
            boxes[key] = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    _complain_about_absent(path, boxes, files, problems)
    return boxes


def _aircraft_boxes(path: Path, problems: Problems) -> dict[str, Box]:
    boxes: dict[str, Box] = {}
    if not path.exists():
        return boxes
    for line, (key, *numbers) in read_lines(path, 5, problems, form="<image id> <xmin> <ymin> <xmax> <ymax>"):
        box = parse_box(numbers)
        if box is None or not (1 <= box[0] <= box[2] and 1 <= box[1] <= box[3]):
            problems.add(
                path,
                f"'{' '.join(numbers)}' is not a box xmin ymin xmax ymax that counts pixels from 1",
                line,
            )
        elif key in boxes:
            problems.add(path, f"image id '{key}' is listed twice", line)
        else:
            boxes[key] = (box[0] - 1, box[1] - 1, box[2], box[3])
    return boxes


def _complain_about_absent(path: Path, table: dict, known: dict | None, problems: Problems) -> None:
    absent = [key for key in known or () if key not in table]
    if absent and path.exists():
        problems.add(
            path,
            f"{len(absent)} image ids of images.txt are not listed (or their lines are malformed), e.g. "
            f"{absent[0]}",
        )


def _numeric(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdecimal() else (1, 0, key)
