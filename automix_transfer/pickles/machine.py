"""A pickle machine that runs nothing of what it reads.

A name in a pickle becomes one of the few builders of `KNOWN`, or else an `Inert` object: calling it, filling
it and setting its state give an inert object again. So `argparse.Namespace`, configs of any library and enums
beside the weights are passed over. A file that calls functions, rather than building objects, is refused,
because it wants to run code; the refusal is only a courtesy, as nothing would have run.

A small file cannot take all memory or time: the machine counts its steps and the bytes that it copies, and
containers that hold one another many times are counted as often as somebody would walk through them.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy

from automix_transfer.pickles.arrays import PickledArray, PickledType
from automix_transfer.pickles.builders import CONTAINER, KNOWN
from automix_transfer.pickles.inert import CodeWanted, Damaged, Inert, Known, wants_code
from automix_transfer.pickles.settler import Settler

MOST_STEPS = 4_000_000  # reads, two or three an object; some seconds
FREE_BYTES = 256 * 2**20  # that may be copied beyond four times what the file holds
MOST_ODD_KEYS, MOST_IN_KEY = 2_000, 16  # keys that are no text and no number, and parts of one of them


class _Counted:
    """A stream that never asks for more than the file has, and counts the reads."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file, self.left, self.reads = file, length, 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if size > self.left or self.reads > MOST_STEPS:
            raise Damaged("a pickle that is cut short, or is too long")
        self.left -= size
        return self.file.read(size)

    def readline(self) -> bytes:
        self.reads += 1
        line = self.file.readline(self.left)
        self.left -= len(line)
        return line


# Python's own unpickler: a file does not decide the size of its memo.
class Machine(pickle._Unpickler):  # type: ignore[name-defined]
    """Reads one pickle of ``length`` bytes or less from ``file``; Python 2's text is read as latin1."""

    dispatch: Any = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined,misc]
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes], length: int) -> None:
        super().__init__(_Counted(file, length), encoding="latin1")
        self.budget = FREE_BYTES + 4 * length
        self.odd_keys = 0

    def read_value(self) -> Any:
        """The value of the pickle, its arrays and containers checked; see `Settler`."""
        return Settler().settle(self.load())

    def spend(self, size: int) -> None:
        """``size`` bytes are about to be made."""
        self.budget -= max(0, size)
        if self.budget < 0:
            raise Damaged("a small pickle that becomes large")

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("numpy.core.", "numpy._core.")):
            module = "numpy"
        module = "builtins" if module == "__builtin__" else "copyreg" if module == "copy_reg" else module
        full = f"{module}.{name}"
        if full in KNOWN:
            return Known(full, KNOWN[full])
        if module == "numpy.dtypes" and name.endswith("DType"):
            return Known(full, lambda machine, *_: PickledType(machine, name.removesuffix("DType").lower()))
        return Inert(full)

    def call(self, what: Any, arguments: Any, function: bool = True) -> Any:
        """What the pickle builds by calling ``what``; an `Inert` gives an `Inert`."""
        if not isinstance(arguments, tuple):
            raise Damaged("arguments that are no tuple")
        if isinstance(what, Known):
            return what.make(self, *arguments)
        if not isinstance(what, Inert):
            raise Damaged("a call of a value")
        if wants_code(what.name, function):
            raise CodeWanted(what.name)
        return Inert(what.name)

    def sound_key(self, key: Any) -> Any:
        """``key``, unless many of its kind can be chosen that have one hash, or its hash would take an age.

        Such are integers beyond 2**60, tuples (-1 and -2 have one hash) and complex numbers.
        """
        if type(key) is int and abs(key) >= 2**60:
            raise Damaged("a key that is a very large number")
        if isinstance(key, tuple | frozenset | complex | numpy.complexfloating):
            self.odd_keys += 1
            parts = key if isinstance(key, tuple | frozenset) else ()
            nested = any(isinstance(part, tuple | frozenset) for part in parts)
            if nested or len(parts) > MOST_IN_KEY or self.odd_keys > MOST_ODD_KEYS:
                raise Damaged("keys that are long tuples, or too many tuples")
        return key

    def fill(self, target: Any, keys: Iterable[Any], values: Iterable[Any]) -> Any:
        if isinstance(target, dict):
            target.update(zip(map(self.sound_key, keys), values, strict=True))
        elif not isinstance(target, Inert):
            raise Damaged("items of a value that has none")
        return target

    # The opcodes that call, fill or copy; the others are Python's own.

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments, function=False)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def _instantiate(self, what: Any, arguments: Any) -> None:
        self.append(self.call(what, tuple(arguments)))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PickledArray | PickledType):
            target.build(self, state)
        elif isinstance(target, OrderedDict):  # torch keeps the versions of modules there
            if isinstance(state, dict) and isinstance(state.get("_metadata"), dict):
                target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        elif not isinstance(target, Inert | dict):
            raise Damaged("a state of a value that has none")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill(self.stack[-1], [key], [value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.fill(self.stack[-1], items[::2], items[1::2])

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(self.fill({}, items[::2], items[1::2]))

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise Damaged("items of a value that has none")

    def load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        if not isinstance(target, set):
            raise Damaged("items of a value that has none")
        target.update(map(self.sound_key, items))

    def load_frozenset(self) -> None:
        self.append(frozenset(map(self.sound_key, self.pop_mark())))

    def load_frame(self) -> None:
        self.read(8)  # the length of what follows, which is read as it comes

    def load_empty_list(self) -> None:
        self.spend(CONTAINER)
        self.append([])

    def load_empty_dict(self) -> None:
        self.spend(CONTAINER)
        self.append({})

    def load_empty_set(self) -> None:
        self.spend(CONTAINER)
        self.append(set())

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def refuse(self) -> None:
        raise Damaged("an opcode that no file has")

    for _code, _action in {
        pickle.REDUCE: load_reduce,
        pickle.NEWOBJ: load_newobj,
        pickle.NEWOBJ_EX: load_newobj_ex,
        pickle.BUILD: load_build,
        pickle.SETITEM: load_setitem,
        pickle.SETITEMS: load_setitems,
        pickle.DICT: load_dict,
        pickle.APPEND: load_append,
        pickle.APPENDS: load_appends,
        pickle.ADDITEMS: load_additems,
        pickle.FROZENSET: load_frozenset,
        pickle.FRAME: load_frame,
        pickle.EMPTY_LIST: load_empty_list,
        pickle.EMPTY_DICT: load_empty_dict,
        pickle.EMPTY_SET: load_empty_set,
        pickle.BYTEARRAY8: load_bytearray8,
        pickle.EXT1: refuse,
        pickle.EXT2: refuse,
        pickle.EXT4: refuse,
        pickle.NEXT_BUFFER: refuse,
        pickle.READONLY_BUFFER: refuse,
    }.items():
        dispatch[_code[0]] = _action
    del _code, _action
