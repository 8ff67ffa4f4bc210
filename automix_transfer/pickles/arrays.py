"""NumPy's arrays in a pickle.

NumPy does not check types, shapes and bytes, so a damaged file could end the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy

from automix_transfer.pickles.inert import Builds, Damaged, Inert


class PickledType:
    """A pickled dtype: a plain number or text of one size; any other is read over (``dtype`` is None)."""

    def __init__(self, machine: Builds, name: Any, *_: object) -> None:
        found = numpy.dtype(name) if isinstance(name, str) and len(name) < 20 else None
        plain = found is not None and found.kind in "biufcSU" and found.subdtype is None and found.itemsize
        self.dtype = found if plain else None

    def build(self, machine: Builds, state: Any) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """A pickled array; `value` is the real one, None for one of objects."""

    def __init__(self, *_: object) -> None:
        self.value: numpy.ndarray | None = None

    def build(self, machine: Builds, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if kind.dtype is not None:
            self.value = from_bytes(machine, content, kind, shape, "F" if fortran else "C")


def from_bytes(machine: Builds, content: Any, kind: Any, shape: Any, order: Any = "C") -> Any:
    if kind.dtype is None:
        return Inert("numpy.ndarray")
    content = content.encode("latin1") if isinstance(content, str) else bytes(content)
    if any(type(side) is not int or side < 0 for side in shape):
        raise Damaged("an array of a negative size")
    machine.spend(2 * len(content))
    values = numpy.frombuffer(content, kind.dtype)
    return values.reshape(shape, order=order).copy(order=order)


def scalar(machine: Builds, kind: Any, content: Any = b"") -> Any:
    value = from_bytes(machine, content, kind, (1,))
    return value if isinstance(value, Inert) else value[0]
