"""Loops that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """``function``, compiled by numba when it is first called; it runs without Python's lock.

    The machine code is kept beside the package or in the user's cache folder for the next process. Where
    neither can be written, where the disk is full, or where what is kept there is damaged, it is compiled
    anew in each process.
    """
    try:
        dispatcher: Any = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba knows no place to keep it
        return njit(nogil=True)(function)
    kept = dispatcher._cache  # numba has no public name for it
    load, save = kept.load_overload, kept.save_overload

    def load_if_good(*signature: Any) -> Any:
        with suppress(Exception):  # unpickling what is damaged raises nearly anything
            return load(*signature)
        return None

    def save_if_possible(*result: Any) -> None:
        with suppress(OSError):
            save(*result)

    kept.load_overload, kept.save_overload = load_if_good, save_if_possible
    return dispatcher
