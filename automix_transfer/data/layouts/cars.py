"""Stanford Cars, 196 models: annotations in MATLAB files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from automix_transfer.data.detection.annotation_checks import as_whole, is_plain_name, shown
from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.layouts.matlab import read_matlab
from automix_transfer.data.layouts.walking import find_root
from automix_transfer.data.listing import Box, Listing
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

CARS_LAYOUT = (
    "ROOT/devkit/cars_meta.mat, ROOT/devkit/cars_train_annos.mat, ROOT/cars_test_annos_withlabels.mat, "
    "ROOT/cars_train/*.jpg and ROOT/cars_test/*.jpg, as the archives of Stanford Cars unpack side by side"
)
_RESTORE = f"restore the file from the released archive: {CARS_LAYOUT}"


_FIELDS = ("class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def cars(root: Path, split: str) -> Listing:
    """Stanford Cars by its official split: ``train``, or ``test`` (``val`` means the same).

    Boxes (inclusive pixels from 1) become edges from 0. The older release, all images in ``car_ims/`` and one
    ``cars_annos.mat``, has the same split.
    """
    require_split("Stanford Cars", split, ("train", "test", "val"), " (val means test)")
    require_folder(root, CARS_LAYOUT)
    root, notes = find_root(root, is_cars, ("stanford_cars",))  # torchvision's name
    train = split == "train"
    whole, meta = root / "cars_annos.mat", _first(root, "devkit/cars_meta.mat", "cars_meta.mat")
    if whole.is_file() and not meta.is_file():
        table = meta = whole
        images, name_field = root / "car_ims", "relative_im_path"
        if not images.is_dir():
            raise UserError(
                f"{whole} numbers the images of car_ims/, which {root} lacks, not those of cars_train/ and "
                f"cars_test/; add the devkit: {CARS_LAYOUT}"
            )
    else:
        name_field, images = "fname", _first(root, *(["cars_train"] if train else ["cars_test"]))
        images = images / images.name if (images / images.name).is_dir() else images  # as Kaggle unpacks it
        name = "cars_train_annos.mat" if train else "cars_test_annos_withlabels.mat"
        table = _first(root, *((f"devkit/{name}", name) if train else (name, f"devkit/{name}")))
    names_of = read_matlab(meta, "class_names", _RESTORE)
    classes: list[str] = names_of if isinstance(names_of, list) else [names_of]
    if not all(isinstance(name, str) for name in classes):
        raise UserError(f"{meta}: 'class_names' has other things than names; {_RESTORE}")
    rows = read_matlab(table, "annotations", _RESTORE)
    rows = rows if isinstance(rows, list) else []
    wanted = (name_field, *_FIELDS, *(["test"] if table == whole else []))
    if not rows or not all(isinstance(row, dict) and set(wanted) <= set(row) for row in rows):
        test = "" if train else " (the test annotations without labels?)"
        raise UserError(f"{table}: 'annotations' has not the fields {', '.join(wanted)}{test}; {_RESTORE}")
    if table == whole:
        rows = [row for row in rows if (as_whole(row["test"]) == 0) == train]
    listing = _read(table, rows, name_field, images, classes, None if train else notes)
    return replace(listing, notes=tuple(notes))


def is_cars(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    return any(
        (folder / name).is_file() for name in ("devkit/cars_meta.mat", "cars_meta.mat", "cars_annos.mat")
    )


def _first(root: Path, *names: str) -> Path:
    """The first of the files that is there; the first of all where none is."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])


def _read(
    table: Path, rows: list[Any], name_field: str, images: Path, classes: list[str], notes: list[str] | None
) -> Listing:
    problems, found = Problems(str(table)), _present(images)
    missing: list[tuple[object, str, int | None]] = []
    names: list[str] = []
    labels: list[int] = []
    boxes: list[list[Box]] = []
    for number, row in enumerate(rows, start=1):
        name, label, *corners = (row[field] for field in (name_field, *_FIELDS))
        name = name.removeprefix(f"{images.name}/") if isinstance(name, str) else name
        numbers = [whole for value in (label, *corners) if (whole := as_whole(value)) is not None]
        if len(numbers) < 5 or not 1 <= numbers[0] <= len(classes):
            given, range_ = shown([str(v) for v in (label, *corners)]), f"a class of 1 to {len(classes)}"
            problems.add(f"annotation {number}", f"is {given}; expected {range_} and four pixels")
        elif not isinstance(name, str) or not is_plain_name(name) or name not in found:
            what = f"image {shown(str(name))} is not in {images}"
            missing.append((f"annotation {number}", what, None))
        else:
            x0, y0, x1, y1 = map(float, numbers[1:])
            names.append(name)
            labels.append(numbers[0] - 1)
            boxes.append([(x0 - 1, y0 - 1, x1, y1)])
    problems.add_missing(missing, len(rows), table)
    if not problems.found:
        problems.add_empty(table, classes, labels, notes)
    problems.raise_if_any(_RESTORE)
    return Listing([images / name for name in names], labels, classes, boxes)


def _present(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(f"{folder} could not be listed ({error.strerror}); expected {CARS_LAYOUT}") from error
