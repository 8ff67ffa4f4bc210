"""What localization is measured against: images with a class and true boxes or masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.images import FLAG_NOTE, read_header
from automix_transfer.data.listing import Box, Listing, Problems
from automix_transfer.errors import UserError


@dataclass(frozen=True)
class Target:
    """One image.

    Attributes:
        image_id: relative path, names its score map and its row in the CSV.
        label: ground-truth class.
        boxes: true boxes (x0, y0, x1, y1) in pixels of the image; empty where there are masks.
        size: (width, height) of the image in pixels; None where it does not matter (masks) or has not been
            read.
        path: the image file; None where only its score map is known.
        masks: files of the object's instances, of any size; on is above 0.
        ignore: file of the regions that do not count; None where all count.
    """

    image_id: str
    label: int
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    path: Path | None = None
    masks: tuple[Path, ...] = ()
    ignore: Path | None = None


@dataclass(frozen=True)
class TargetSet:
    """The images of one split, in a fixed order.

    Attributes:
        name: of the split, for messages and files.
        classes: names in label order; numbers where there are no names.
        known_classes: whether ``classes`` is the data set's list, or only what the labels show.
        crop_bottom: rows that are cut off the bottom of each image when it is read.
        notes: what is worth saying, e.g. boxes that were clipped.
    """

    name: str
    targets: list[Target]
    classes: list[str]
    known_classes: bool = True
    crop_bottom: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self) -> list[list[Any]]:
        """What each image is measured against, as JSON takes it; without the files."""
        return [[t.image_id, t.label, t.boxes, t.size] for t in self.targets]

    @property
    def has_masks(self) -> bool:
        return bool(self.targets[0].masks)


def targets_of(listing: Listing, name: str) -> TargetSet:
    """The images of a listing that have boxes, in its order, with their sizes from the files' headers.

    Ids are paths below the folder that holds all class folders. Boxes that stick out of their image, as some
    of CUB's do, are clipped to it.

    Raises:
        UserError: the listing has no boxes at all; an image is missing or unreadable, or a box lies outside
            of it.
    """
    if not listing.boxes or not any(listing.boxes):
        raise UserError(
            "the data set has no bounding boxes, so localization cannot be measured; CUB needs "
            "bounding_boxes.txt, Tiny-ImageNet its *_boxes.txt or val_annotations.txt"
        )
    top = os.path.commonpath([path.parent.parent for path in listing.paths])
    problems = Problems(f"the images of split {name}")
    targets, clipped, flagged = [], 0, list[Path]()
    for path, label, boxes in zip(listing.paths, listing.labels, listing.boxes, strict=True):
        size = image_size(path, problems, listing.crop_bottom, flagged) if boxes else None
        if size is not None:
            inside = [
                (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
                for x0, y0, x1, y1 in boxes
            ]
            if any(x1 < x0 or y1 < y0 for x0, y0, x1, y1 in inside):
                problems.add(
                    path, f"its box {tuple(boxes[0])} lies outside the image of {size[0]}x{size[1]} pixels"
                )
            clipped += inside != list(boxes)
            targets.append(
                Target(Path(os.path.relpath(path, top)).as_posix(), label, tuple(inside), size, path)
            )
    problems.raise_if_any("restore the images and boxes from their source")
    note = f"{clipped} boxes of split {name} stick out of their images and were clipped"
    notes = (*listing.notes, *((note,) if clipped else ()), *_flag_notes(flagged))
    return TargetSet(name, targets, list(listing.classes), True, listing.crop_bottom, notes)


def with_images(target_set: TargetSet, folder: Path) -> TargetSet:
    """The same targets with their image files, ``<folder>/<image id>``.

    Raises:
        UserError: images are missing, unreadable, or of another size than the metadata says.
    """
    if not folder.is_dir():
        raise UserError(
            f"image folder {folder} does not exist; give the folder that the metadata's image ids are paths "
            "in (--images)"
        )
    problems = Problems(f"the images in {folder}")
    targets, flagged = [], list[Path]()
    for target in target_set.targets:
        path = folder / target.image_id
        size = image_size(path, problems, flagged=flagged)
        if size is not None and target.size is not None and size != target.size:
            problems.add(
                path,
                f"is {size[0]}x{size[1]} pixels, but image_sizes.txt says {target.size[0]}x{target.size[1]}",
            )
        targets.append(replace(target, path=path, size=size))
    problems.raise_if_any("give the images that the metadata was made for (--images)")
    return replace(target_set, targets=targets, notes=(*target_set.notes, *_flag_notes(flagged)))


def _flag_notes(flagged: list[Path]) -> tuple[str, ...]:
    example = f"e.g. {flagged[0]}; it is {FLAG_NOTE}" if flagged else ""
    return (f"{len(flagged):,} images have a camera's rotation flag, {example}",) if flagged else ()


def image_size(
    path: Path, problems: Problems, crop_bottom: int = 0, flagged: list[Path] | None = None
) -> tuple[int, int] | None:
    """Width and height of an image from its header; None and a note in ``problems`` without one.

    Args:
        flagged: gets ``path`` where the image has a rotation flag.
    """
    try:
        (width, height), turned = read_header(path)
    except FileNotFoundError:
        problems.add(path, "the image is missing")
        return None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        problems.add(path, f"the image cannot be read ({type(error).__name__})")
        return None
    if turned and flagged is not None:
        flagged.append(path)
    return width, height - crop_bottom


def boxes_on_map(boxes: Sequence[Box], size: tuple[int, int], map_size: int) -> NDArray[np.float64]:
    """(N, 4) true boxes in pixels of the map: ``int(x * map_size / width)``, as the reference does."""
    scale = (size[0], size[1], size[0], size[1])
    return np.trunc(np.array(boxes, dtype=np.float64) * float(map_size) / scale)
