"""What an option may be, said where it is declared, and one check of all of them.

@dataclass
class ResizeMixOptions:
    alpha: float = positive(1.0)  # λ ~ Beta(α, α)
    scale: str = one_of("uniform", "uniform", "beta")

check(options)  # raises one sentence that names the first key with a value that it may not have
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from automix_transfer.errors import UserError


def between(default: Any, low: float = 0.0, high: float = math.inf, low_open: bool = False) -> Any:
    """A number's field: finite and in [low, high], or in (low, high] with ``low_open``. A default of None
    means that None may be given."""
    least = "more than" if low_open else "at least"
    span = f"{least} {low:g}" if high == math.inf else f"{least} {low:g} and at most {high:g}"

    def problem(value: float) -> str:
        inside = math.isfinite(value) and (low < value if low_open else low <= value) and value <= high
        return "" if inside else f"give a finite number, {span}"

    return checked(default, problem)


def positive(default: float) -> Any:
    """A number's field: finite and more than 0."""
    return between(default, low_open=True)


def one_of(default: str, *choices: str) -> Any:
    """A word's field: one of ``choices``."""
    return checked(default, lambda value: "" if value in choices else f"choose one of {', '.join(choices)}")


def checked(default: Any, problem: Callable[[Any], str]) -> Any:
    """A field with any rule: ``problem`` says what is wrong with a value, or nothing."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"problem": problem})
    return dataclasses.field(default=default, metadata={"problem": problem})


def check(options: Any, section: str = "method.") -> None:
    """Refuse an ``options`` dataclass with a value that its field may not have.

    Raises:
        UserError: names ``section`` and the key, the value, and what may be given.
    """
    for field in dataclasses.fields(options):
        problem, value = field.metadata.get("problem"), getattr(options, field.name)
        if problem is None or (value is None and field.default is None):
            continue
        if message := problem(value):
            is_ = " is " if isinstance(value, (int, float)) else "="
            raise UserError(f"{section}{field.name}{is_}{value!r}; {message}")


def blocks_problem(blocks: Sequence[int]) -> str:
    """Why these are no numbers of blocks a side."""
    return "" if blocks and min(blocks) >= 1 else "give positive numbers of blocks a side, e.g. 4"


def check_blocks(blocks: Sequence[int], size: Sequence[int]) -> None:
    """Refuse a number of blocks a side that does not divide both sides of images of ``size`` (H, W)."""
    both = math.gcd(*size)
    for count in blocks:
        if both % count:
            fitting = ", ".join(str(b) for b in range(2, 33) if both % b == 0)
            raise UserError(
                f"method.blocks has {count} blocks a side, which do not divide images of {size[0]}x{size[1]} "
                f"pixels; {f'numbers that do: {fitting}' if fitting else 'use another image size'}"
            )
