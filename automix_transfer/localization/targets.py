"""What localization is measured against: images with a class and true boxes, from a `Listing` or from the reference's metadata files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.listing import Box, Listing, parse_box, read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError

METADATA_FILES = ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")
_RESTORE = "restore the metadata files from their source"


@dataclass(frozen=True)
class Target:
    """One image.

    Attributes:
        image_id: relative path, names its score map and its row in the CSV.
        label: ground-truth class.
        boxes: true boxes (x0, y0, x1, y1) in pixels of the image; at least one.
        size: (width, height) of the image in pixels; None until the image has been read.
        path: the image file; None where only its score map is known.
    """

    image_id: str
    label: int
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    path: Path | None = None


def targets_of(listing: Listing) -> list[Target]:
    """The images of a listing that have boxes, in its order. Ids are paths below the folder that holds all class folders.

    Raises:
        UserError: the listing has no boxes at all, or two images of one id.
    """
    if not listing.boxes or not any(listing.boxes):
        raise UserError("the data set has no bounding boxes, so localization cannot be measured; CUB needs bounding_boxes.txt, "
                        "Tiny-ImageNet its *_boxes.txt or val_annotations.txt")
    top = os.path.commonpath([path.parent.parent for path in listing.paths])
    return [Target(Path(os.path.relpath(path, top)).as_posix(), label, tuple(boxes), path=path)
            for path, label, boxes in zip(listing.paths, listing.labels, listing.boxes, strict=True) if boxes]


def read_metadata(folder: Path) -> list[Target]:
    """Targets from the reference's files, in the order of ``image_ids.txt``.

    ``image_ids.txt`` has lines of id, ``class_labels.txt`` id,class, ``image_sizes.txt`` id,width,height and ``localization.txt``
    id,x0,y0,x1,y1; an id with several boxes has several lines there.

    Raises:
        UserError: files or lines missing, malformed or contradictory, ids that lead out of a folder; all are named with their line.
    """
    if not folder.is_dir():
        raise UserError(f"metadata folder {folder} does not exist; it holds {', '.join(METADATA_FILES)}")
    problems = Problems(str(folder))
    ids: dict[str, None] = {}
    for line, (image_id,) in read_lines(folder / "image_ids.txt", 1, problems, separator=",", form="<image id>"):
        if Path(image_id).is_absolute() or ".." in Path(image_id).parts or "\0" in image_id:
            problems.add(folder / "image_ids.txt", f"id '{image_id[:60]}' is absolute or leads out of its folder", line)
        elif image_id in ids:
            problems.add(folder / "image_ids.txt", f"id '{image_id[:60]}' stands twice", line)
        else:
            ids[image_id] = None
    labels = _one_per_image(folder / "class_labels.txt", ids, problems, 1, "<image id>,<class number from 0>", smallest=0)
    sizes = _one_per_image(folder / "image_sizes.txt", ids, problems, 2, "<image id>,<width>,<height>", smallest=1)
    boxes = _boxes(folder / "localization.txt", ids, sizes, problems)
    problems.raise_if_any(_RESTORE)
    return [Target(image_id, labels[image_id][0], tuple(boxes[image_id]), (sizes[image_id][0], sizes[image_id][1])) for image_id in ids]


def boxes_on_map(target: Target, size: tuple[int, int], map_size: int) -> NDArray[np.float64]:
    """(N, 4) true boxes in pixels of the map: ``int(x * map_size / width)``, each coordinate, as the reference does."""
    scale = (size[0], size[1], size[0], size[1])
    boxes = [[int(value * float(map_size) / side) for value, side in zip(box, scale, strict=True)] for box in target.boxes]
    return np.array(boxes, dtype=np.float64)


def _one_per_image(path: Path, ids: dict[str, None], problems: Problems, numbers: int, form: str, smallest: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line, (image_id, *fields) in read_lines(path, 1 + numbers, problems, separator=",", form=form):
        values = [int(field) if field.strip().isascii() and field.strip().isdigit() else -1 for field in fields]
        if image_id not in ids:
            problems.add(path, f"id '{image_id[:60]}' is not in image_ids.txt", line)
        elif image_id in found:
            problems.add(path, f"id '{image_id[:60]}' stands twice", line)
        elif min(values) < smallest:
            problems.add(path, f"'{','.join(fields)[:60]}' must be whole numbers of at least {smallest}", line)
        else:
            found[image_id] = values
    _complain_about_absent(path, ids, found, problems)
    return found


def _boxes(path: Path, ids: dict[str, None], sizes: dict[str, list[int]], problems: Problems) -> dict[str, list[Box]]:
    found: dict[str, list[Box]] = {}
    for line, (image_id, *fields) in read_lines(path, 5, problems, separator=",", form="<image id>,<x0>,<y0>,<x1>,<y1>"):
        box = parse_box(fields)
        width, height = sizes.get(image_id, (float("inf"), float("inf")))
        if image_id not in ids:
            problems.add(path, f"id '{image_id[:60]}' is not in image_ids.txt", line)
        elif box is None or box[2] < box[0] or box[3] < box[1]:
            problems.add(path, f"'{','.join(fields)[:60]}' is not a box x0,y0,x1,y1 with x0 <= x1 and y0 <= y1", line)
        elif min(box) < 0 or box[2] > width or box[3] > height:
            problems.add(path, f"box {','.join(fields)[:60]} lies outside its image of {width}x{height}", line)
        else:
            found.setdefault(image_id, []).append(box)
    _complain_about_absent(path, ids, found, problems)
    return found


def _complain_about_absent(path: Path, ids: dict[str, None], found: dict, problems: Problems) -> None:
    mentioned = {text for text in problems.found if text.startswith(f"{path}:")}
    absent: Sequence[str] = [image_id for image_id in ids if image_id not in found]
    if absent and not mentioned:
        problems.add(path, f"{len(absent)} of {len(ids)} ids of image_ids.txt have no line, e.g. '{absent[0]}'")
