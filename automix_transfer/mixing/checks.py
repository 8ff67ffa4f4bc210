"""Checks of option values that several methods share; each raises one sentence that names the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automix_transfer.errors import UserError


def check_choice(key: str, value: Any, choices: Sequence[str]) -> None:
    """``value`` must be one of ``choices``."""
    if value not in choices:
        raise UserError(f"method.{key}='{value}' is unknown; choose one of {', '.join(choices)}")


def check_range(key: str, value: float, low: float = 0.0, high: float = float("inf")) -> None:
    """``value`` must lie in [low, high], and be finite; NaN is refused too."""
    if not (low <= value <= high and value < float("inf")):
        span = (
            f"between {low:g} and {high:g}" if high < float("inf") else f"a finite number of at least {low:g}"
        )
        raise UserError(f"method.{key} is {value}; it must be {span}")


def check_blocks(key: str, blocks: Sequence[int], size: tuple[int, int] | None = None) -> None:
    """Every number of blocks a side must be positive and, where ``size`` (H, W) is known, divide both sides
    of the image."""
    if not blocks or min(blocks) < 1:
        raise UserError(
            f"method.{key}={list(blocks)} must hold positive numbers of blocks a side, e.g. [2, 4]"
        )
    for count in blocks if size else ():
        if size and (size[0] % count or size[1] % count):
            fitting = [
                b for b in range(2, min(size) + 1) if size[0] % b == 0 and size[1] % b == 0 and b <= 32
            ]
            hint = f"numbers that do: {', '.join(map(str, fitting))}" if fitting else "use another image size"
            raise UserError(
                f"method.{key} has {count} blocks a side, which do not divide images of {size[0]}x{size[1]} "
                f"pixels; {hint}"
            )
