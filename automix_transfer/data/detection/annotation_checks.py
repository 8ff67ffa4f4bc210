"""The small checks of values and names that the readers of lists and detection data share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any


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
