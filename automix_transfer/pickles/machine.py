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
import string
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy

MOST_STEPS = 4_000_000  # reads, two or three an object; some seconds
MOST_ITEMS = 10_000_000  # in nested containers
FREE_BYTES = 256 * 2**20  # that may be copied beyond four times what the file holds
CONTAINER = 256  # bytes that an empty one counts for
MOST_ODD_KEYS, MOST_IN_KEY = 2_000, 16  # keys that are no text and no number, and parts of one of them
_PRINTABLE = frozenset(string.ascii_letters + string.digits + "_.<>")


class CodeWanted(Exception):
    """The pickle calls a function; the message is its name."""


class Damaged(Exception):
    """The pickle is not what any tool writes."""


class Inert:
    """An object that was passed over, or its class; ``name`` is that of the class or function."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = "".join(letter if letter in _PRINTABLE else "?" for letter in name[:100])

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Known:
    """A callable of `KNOWN`: ``make(machine, *arguments)`` gives the object."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


# --- what is data

#: Classes of these modules hold values and nothing else.
_DATA_MODULES = {
    "argparse",
    "collections",
    "datetime",
    "decimal",
    "fractions",
    "numbers",
    "pathlib",
    "pathlib._local",
    "typing",
    "uuid",
}
_DATA = {
    *("collections.deque", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
    *("datetime.timezone", "functools.partial", "types.SimpleNamespace", "re._compile", "logging.getLogger"),
    *(f"builtins.{name}" for name in ("slice", "range", "xrange", "complex", "object", "type")),
    *("zoneinfo.ZoneInfo", "zoneinfo.ZoneInfo._unpickle", "torch.serialization._get_layout"),
    *("random.Random", "array.array", "array._array_reconstructor", "torch.storage._load_from_bytes"),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "generator", "bit_generator")),
    *("torch.device", "torch.Generator"),
}
_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg", "commands", "cPickle", "Queue"}


def wants_code(name: str, function: bool) -> bool:
    """Is an object named ``name`` more than data?

    Args:
        function: it is called, as classes and functions can be; of others' names the small first letter tells
            a function. A class that only an opcode for classes names is none.
    """
    module, _, last = name.rpartition(".")
    last = last.lstrip("_")
    if name in _DATA or (module in _DATA_MODULES and last[:1].isupper()) or name.startswith(_TENSORS):
        return False
    return module.split(".")[0] in _STANDARD or (function and not last[:1].isupper())


# --- the machine


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
        """The value of the pickle, its arrays and containers checked; see `_Settler`."""
        return _Settler().settle(self.load())

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


class _Settler:
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


# --- NumPy's arrays. NumPy does not check types, shapes and bytes, so a damaged file can end the interpreter.


class PickledType:
    """A pickled dtype: a plain number or text of one size; any other is read over (``dtype`` is None)."""

    def __init__(self, machine: Machine, name: Any, *_: object) -> None:
        found = numpy.dtype(name) if isinstance(name, str) and len(name) < 20 else None
        plain = found is not None and found.kind in "biufcSU" and found.subdtype is None and found.itemsize
        self.dtype = found if plain else None

    def build(self, machine: Machine, state: Any) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """A pickled array; `value` is the real one, None for one of objects."""

    def __init__(self, *_: object) -> None:
        self.value: numpy.ndarray | None = None

    def build(self, machine: Machine, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if kind.dtype is not None:
            self.value = _from_bytes(machine, content, kind, shape, "F" if fortran else "C")


def _from_bytes(machine: Machine, content: Any, kind: Any, shape: Any, order: Any = "C") -> Any:
    if kind.dtype is None:
        return Inert("numpy.ndarray")
    content = content.encode("latin1") if isinstance(content, str) else bytes(content)
    if any(type(side) is not int or side < 0 for side in shape):
        raise Damaged("an array of a negative size")
    machine.spend(2 * len(content))
    values = numpy.frombuffer(content, kind.dtype)
    return values.reshape(shape, order=order).copy(order=order)


def _scalar(machine: Machine, kind: Any, content: Any = b"") -> Any:
    value = _from_bytes(machine, content, kind, (1,))
    return value if isinstance(value, Inert) else value[0]


def _encode(machine: Machine, text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Damaged(f"a codec {str(codec)[:20]}")
    machine.spend(len(text))
    return text.encode("latin1")


def _bytes(machine: Machine, *content: Any) -> bytes:
    """Python 2 writes an empty string as a call, Python 3 in old protocols a list of numbers or latin1."""
    if not content:
        return b""
    if not isinstance(content[0], list | tuple | bytes):
        raise Damaged("bytes of something else")
    machine.spend(len(content[0]))
    return bytes(content[0])


def _ordered(machine: Machine, items: Any = ()) -> OrderedDict:
    machine.spend(CONTAINER + 150 * len(items))
    pairs = list(items.items()) if isinstance(items, dict) else [(key, value) for key, value in items]
    found: OrderedDict = OrderedDict()
    machine.fill(found, [key for key, _ in pairs], [value for _, value in pairs])
    return found


def _set(machine: Machine, items: Any = ()) -> set:
    machine.spend(CONTAINER + 80 * len(items))
    return set(map(machine.sound_key, items))


def _tuple(machine: Machine, items: Any = ()) -> tuple:
    machine.spend(64 + 8 * len(items))
    return tuple(items)


def _plain_dict(machine: Machine, items: Any = None, *_: Any) -> dict:
    """A defaultdict's first argument is its factory, a Counter's its content."""
    return machine.fill({}, items, items.values()) if isinstance(items, dict) else {}


def _attribute(machine: Machine, value: Any, name: str) -> Inert:
    if not isinstance(value, Inert | Known) or not isinstance(name, str):
        raise Damaged("an attribute of a value")
    return Inert(f"{value.name}.{name}")


def _of_class(machine: Machine, kind: Any, *arguments: Any) -> Any:
    return machine.call(kind, arguments, function=False)


def _bare(machine: Machine, kind: Any, *_: Any) -> Any:
    return machine.call(kind, (), function=False)


#: Full name in the pickle (`numpy` for NumPy's inner modules of any version) -> what builds it.
KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": PickledArray,
    "numpy._reconstruct": PickledArray,
    "numpy._frombuffer": _from_bytes,
    "numpy.scalar": _scalar,
    "numpy.dtype": PickledType,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _plain_dict,
    "collections.Counter": _plain_dict,
    "builtins.dict": _plain_dict,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.tuple": _tuple,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _bare,
    "copyreg.__newobj__": _of_class,
    "_codecs.encode": _encode,
    "torch.Size": _tuple,
}
