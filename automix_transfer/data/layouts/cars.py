"""Stanford Cars, 196 models: annotations in MATLAB files."""

from __future__ import annotations

from pathlib import Path

from automix_transfer.data.annotation_checks import as_whole, is_plain_name, shown
from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.layouts.matlab import read_matlab
from automix_transfer.data.listing import Box, Listing
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

CARS_LAYOUT = (
    "ROOT/devkit/cars_meta.mat, ROOT/devkit/cars_train_annos.mat, ROOT/cars_test_annos_withlabels.mat, "
    "ROOT/cars_train/*.jpg and ROOT/cars_test/*.jpg, as the archives of Stanford Cars unpack side by side"
)
_RESTORE = f"restore the file from the released archive: {CARS_LAYOUT}"


def cars(root: Path, split: str) -> Listing:
    """Stanford Cars by its official split: ``train``, or ``test`` (``val`` means the same).

    Boxes (inclusive pixels from 1) become edges from 0.
    """
    require_split("Stanford Cars", split, ("train", "test", "val"), " (val means test)")
    require_folder(root, CARS_LAYOUT)
    root = root / "stanford_cars" if (root / "stanford_cars").is_dir() else root  # torchvision's name
    tables = (
        [root / "devkit" / "cars_train_annos.mat"]
        if split == "train"
        else [root / "cars_test_annos_withlabels.mat", root / "devkit" / "cars_test_annos_withlabels.mat"]
    )
    table = next((file for file in tables if file.is_file()), tables[0])
    images = root / ("cars_train" if split == "train" else "cars_test")
    names_of = read_matlab(root / "devkit" / "cars_meta.mat", "class_names", _RESTORE)
    classes = [str(name) for name in names_of] if isinstance(names_of, list) else [str(names_of)]
    rows = read_matlab(table, "annotations", _RESTORE)
    wanted = ("fname", "class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    rows = rows if isinstance(rows, list) else []
    if not rows or not all(isinstance(row, dict) and set(wanted) <= set(row) for row in rows):
        test = " (the test annotations without labels?)" if split != "train" else ""
        raise UserError(f"{table}: 'annotations' has not the fields {', '.join(wanted)}{test}; {_RESTORE}")
    problems, found = Problems(str(table)), _present(images)
    names: list[str] = []
    labels: list[int] = []
    boxes: list[list[Box]] = []
    for number, row in enumerate(rows, start=1):
        name, label, *corners = (row[field] for field in wanted)
        numbers = [whole for value in (label, *corners) if (whole := as_whole(value)) is not None]
        if len(numbers) < 5 or not 1 <= numbers[0] <= len(classes):
            given, range_ = shown([str(v) for v in (label, *corners)]), f"a class of 1 to {len(classes)}"
            problems.add(f"annotation {number}", f"is {given}; expected {range_} and four pixels")
        elif not isinstance(name, str) or not is_plain_name(name) or name not in found:
            problems.add(f"annotation {number}", f"image {shown(str(name))} is not in {images}")
        else:
            x0, y0, x1, y1 = map(float, numbers[1:])
            names.append(name)
            labels.append(numbers[0] - 1)
            boxes.append([(x0 - 1, y0 - 1, x1, y1)])
    problems.raise_if_any(_RESTORE)
    return Listing([images / name for name in names], labels, classes, boxes)


def _present(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(f"{folder} could not be listed ({error.strerror}); expected {CARS_LAYOUT}") from error
