"""The value of a pickle, its arrays put in place and its containers counted."""

from __future__ import annotations

from typing import Any

from automix_transfer.pickles.arrays import PickledArray, PickledType
from automix_transfer.pickles.inert import Damaged, Inert, Known

MOST_ITEMS = 10_000_000  # in nested containers


class Settler:
    """Puts real arrays where pickled ones stand, and walks all containers once.

    Refused are containers that hold themselves, and such that hold one another so often that a walk through
    all of them would not end.
    """

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Any, int]] = {}
        self.kept: list[Any] = []  # an object that is gone would give its number to another one

    def settle(self, value: Any) -> Any:
        return self._visit(value)[0]

    def _visit(self, value: Any) -> tuple[Any, int]:
        """The settled value, and the number of values in it."""
        if not isinstance(value, list | tuple | dict):
            return _settled(value), 1
        if id(value) in self.seen:
            known, size = self.seen[id(value)]
            if size == 0:
                raise Damaged("a container that holds itself")
            return known, size
        self.seen[id(value)] = value, 0
        items = [self._visit(item) for item in (value.values() if isinstance(value, dict) else value)]
        size = 1 + sum(size for _, size in items)
        if size > MOST_ITEMS:
            raise Damaged("containers that hold one another too often")
        found: Any = value
        if isinstance(value, tuple):
            found = tuple(item for item, _ in items)
        elif isinstance(value, list):
            value[:] = [item for item, _ in items]
        else:
            for key, (item, _) in zip(value, items, strict=True):
                value[key] = item
        self.seen[id(value)] = found, size
        self.kept.append(value)
        return found, size


def _settled(value: Any) -> Any:
    if isinstance(value, PickledArray):
        return Inert("numpy.ndarray") if value.value is None else value.value
    if isinstance(value, PickledType):
        return Inert("numpy.dtype")
    return Inert(value.name) if isinstance(value, Known) else value
