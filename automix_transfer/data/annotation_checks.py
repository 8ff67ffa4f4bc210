"""The small checks of values, names, boxes and image files that the readers of detection data share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automix_transfer.data.images import read_header


def shown(value: object, limit: int = 60) -> str:
    """A value from a file as a message may show it: one line of printable ASCII, at most ``limit`` long."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[:limit]}..."


def as_number(value: Any) -> float | None:
    """A finite float, or None for anything that is no number (booleans are none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_whole(value: Any) -> int | None:
    """A whole number, which may be stored as a float; None for anything else (booleans are none)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_plain_name(name: str) -> bool:
    """Whether a name from a file stays inside the folder that it is joined to."""
    path = Path(name)
    return bool(name.strip()) and name.isprintable() and not path.is_absolute() and ".." not in path.parts


def image_problem(path: Path, size: tuple[int, int] | None, read: bool = True) -> str | None:
    """What is wrong with an image file: missing, unreadable, or of another (width, height) than annotated.

    Only its header is read, and its rotation flag is applied. Without ``read`` not even that, and only a
    missing file is a problem.
    """
    if not read:
        try:
            return None if path.is_file() else "is missing"
        except (OSError, ValueError):  # a name that no file can have
            return "is missing"
    try:
        actual, _ = read_header(path, upright=True)  # as Detectron2 reads it
    except FileNotFoundError:
        return "is missing"
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        return f"cannot be read as an image ({type(error).__name__})"
    if size is not None and actual != size:
        return f"is {actual[0]}x{actual[1]} pixels, but its annotation says {size[0]}x{size[1]}"
    return None


def clip_box(box: Sequence[float], width: float, height: float, tolerance: float = 1.0) -> list[float] | str:
    """Clip a box (x0, y0, x1, y1) to the image; a string says what is wrong with it.

    Annotations exceed the image by rounding, so less than ``tolerance`` pixels outside is clipped; more is an
    error.
    """
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return "is empty or inverted"
    if min(x0, y0) <= -tolerance or x1 >= width + tolerance or y1 >= height + tolerance:
        return f"lies outside the image of {width:g}x{height:g} pixels"
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return f"lies outside the image of {width:g}x{height:g} pixels"
    return clipped
