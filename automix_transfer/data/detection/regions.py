"""Boxes and masks of annotations: what is refused, what training clips or leaves out, what is no mask.

Records keep boxes as the file has them, which is what an evaluation measures against. Training clips them to
the image and leaves out those of which nothing remains: Detectron2's mapper does, and is what training uses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from automix_transfer.data.detection.annotation_checks import shown
from automix_transfer.data.detection.findings import Findings

MOST_SIDES = 16  # a coordinate further from the image than so many of its sides is a mistake, not a habit
CLIPPED = "boxes stick out of their image; training clips them, an evaluation takes them as they are"
OUTSIDE = "boxes lie wholly outside of their image; training leaves them out, an evaluation counts them"
EMPTY = "boxes have no width or no height; training leaves them out, an evaluation counts them"
NUMBERS = {int, float}
_ROUNDING = 1.0  # pixels that annotations exceed their image by without being worth a word
_LAST_BITS = 7  # groups of 5 bits of a compressed run: 2**35 pixels


def box_problem(box: tuple[float, ...], size: tuple[int, int]) -> str | None:
    """What is wrong with a box (x0, y0, x1, y1) on an image of ``size`` (width, height), if anything."""
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        return "is inverted; the smaller coordinate comes first"
    if too_far((x0, x1), size[0]) or too_far((y0, y1), size[1]):
        return f"lies more than {MOST_SIDES} sides beyond the image of {size[0]}x{size[1]} pixels"
    return None


def note_box(box: tuple[float, ...], size: tuple[int, int], where: str, findings: Findings) -> None:
    """Note what training will change about a sound box."""
    (x0, y0, x1, y1), (width, height) = box, size
    if x1 == x0 or y1 == y0:
        findings.note(where, EMPTY)
    elif x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        findings.note(where, OUTSIDE)
    elif min(x0, y0) <= -_ROUNDING or x1 >= width + _ROUNDING or y1 >= height + _ROUNDING:
        findings.note(where, CLIPPED)


def too_far(values: tuple[float, ...] | list[float], side: int) -> bool:
    """Whether one of ``values``, which are finite, lies beyond ``MOST_SIDES`` sides."""
    return max(values) > MOST_SIDES * side or min(values) < -MOST_SIDES * side


def polygons_of(value: list[Any]) -> list[list[float]] | None:
    """Of a list of polygons those of three points or more, as Detectron2 keeps them; None where a coordinate
    is no finite number."""
    polygons = []
    for polygon in value:
        given = polygon if isinstance(polygon, list) else [polygon]
        numbers = [entry for entry in given if type(entry) in NUMBERS]
        if not _finite(numbers):
            return None
        if len(numbers) == len(given) >= 6 and len(given) % 2 == 0:
            polygons.append(given)
    return polygons


def _finite(numbers: list[float]) -> bool:
    """Whether all are finite; their sum says so in most cases, and quickly."""
    try:
        return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
    except OverflowError:  # an integer that no float can hold
        return False


def mask_problem(value: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with `polygons_of` or a run-length encoding on an image of ``size`` (width, height): what
    native code must not see."""
    if isinstance(value, list):
        far = any(too_far(p[0::2], size[0]) or too_far(p[1::2], size[1]) for p in value)
        return f"has points more than {MOST_SIDES} sides beyond the image" if far else None
    sides, counts = value.get("size"), value.get("counts")
    if not isinstance(sides, list) or sides != [size[1], size[0]]:
        return f"is of size {shown(sides)}, but the image is [{size[1]}, {size[0]}] (height, width)"
    pixels = _pixels(counts)
    if pixels != size[0] * size[1]:
        covers = "are damaged" if pixels is None else f"cover {pixels:,} pixels"
        return f"is an encoding whose counts {covers}, but the image has {size[0] * size[1]:,}"
    return None


def _pixels(counts: Any) -> int | None:
    """The pixels that run lengths cover, as a list or compressed; None where they are none."""
    if isinstance(counts, list):
        plain = all(type(run) is int and 0 <= run < 2**32 for run in counts)
        return sum(counts) if plain else None
    if not isinstance(counts, str) or not counts.isascii() or not counts:
        return None
    runs = _decompressed(counts)
    return None if runs is None or (runs < 0).any() or (runs >= 2**32).any() else int(runs.sum())


def _decompressed(counts: str) -> np.ndarray | None:
    """COCO's compressed runs (N,): groups of 5 bits from the lowest, bit 6 says that more follow, the last
    one's highest is the sign, and from the fourth run on they are differences to the last but one."""
    symbols = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if symbols.min() < 0 or symbols.max() > 63 or symbols[-1] & 32:
        return None
    ends = np.flatnonzero(symbols & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LAST_BITS:
        return None
    position = np.arange(len(symbols)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((symbols & 31) << (5 * position), starts)
    runs -= np.where(symbols[ends] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def is_fraction(boxes: list[tuple[float, ...]]) -> bool:
    """Whether all ``boxes`` lie between 0 and 1: fractions of the image, where pixels are expected."""
    return bool(boxes) and all(0 <= value <= 1 and math.isfinite(value) for box in boxes for value in box)
